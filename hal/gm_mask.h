/* SPDX-License-Identifier: MIT */
/*
 * A set of pages of one block: 512 bits, bit i is page i. Value semantics;
 * every function is total. Runs are visited with gm_mask_next_run().
 */
#ifndef GM_HAL_MASK_H
#define GM_HAL_MASK_H

#include <gmem/types.h>

#define GM_MASK_WORDS (GM_BLOCK_PAGES / 64)

struct gm_mask {
	uint64_t w[GM_MASK_WORDS];
};

/* Over the words, without a loop: these are the innermost operations of everything. */
#define GM_MASK_FOR_WORD_(i) _Pragma("GCC unroll 8") for (unsigned i = 0; i < GM_MASK_WORDS; i++)

static inline struct gm_mask gm_mask_none(void)
{
	return (struct gm_mask){ { 0 } };
}

static inline struct gm_mask gm_mask_not(struct gm_mask a)
{
	GM_MASK_FOR_WORD_(i)
		a.w[i] = ~a.w[i];
	return a;
}

static inline struct gm_mask gm_mask_and(struct gm_mask a, struct gm_mask b)
{
	GM_MASK_FOR_WORD_(i)
		a.w[i] &= b.w[i];
	return a;
}

static inline struct gm_mask gm_mask_or(struct gm_mask a, struct gm_mask b)
{
	GM_MASK_FOR_WORD_(i)
		a.w[i] |= b.w[i];
	return a;
}

/* a without b */
static inline struct gm_mask gm_mask_sub(struct gm_mask a, struct gm_mask b)
{
	GM_MASK_FOR_WORD_(i)
		a.w[i] &= ~b.w[i];
	return a;
}

static inline bool gm_mask_empty(const struct gm_mask *a)
{
	uint64_t any = 0;

	GM_MASK_FOR_WORD_(i)
		any |= a->w[i];
	return any == 0;
}

static inline bool gm_mask_full(const struct gm_mask *a)
{
	uint64_t all = UINT64_MAX;

	GM_MASK_FOR_WORD_(i)
		all &= a->w[i];
	return all == UINT64_MAX;
}

static inline bool gm_mask_equal(const struct gm_mask *a, const struct gm_mask *b)
{
	uint64_t diff = 0;

	GM_MASK_FOR_WORD_(i)
		diff |= a->w[i] ^ b->w[i];
	return diff == 0;
}

static inline bool gm_mask_meets(const struct gm_mask *a, const struct gm_mask *b)
{
	uint64_t any = 0;

	GM_MASK_FOR_WORD_(i)
		any |= a->w[i] & b->w[i];
	return any != 0;
}

static inline unsigned gm_mask_count(const struct gm_mask *a)
{
	unsigned n = 0;

	GM_MASK_FOR_WORD_(i)
		n += (unsigned)__builtin_popcountll(a->w[i]);
	return n;
}

static inline bool gm_mask_test(const struct gm_mask *a, unsigned page)
{
	return (a->w[page / 64] >> (page % 64)) & 1;
}

static inline void gm_mask_set(struct gm_mask *a, unsigned page)
{
	a->w[page / 64] |= UINT64_C(1) << (page % 64);
}

static inline void gm_mask_clear(struct gm_mask *a, unsigned page)
{
	a->w[page / 64] &= ~(UINT64_C(1) << (page % 64));
}

/* pages [first, end) */
struct gm_mask gm_mask_span(unsigned first, unsigned end);

/* Aligned groups of `pages` (a power of two): all pages of those that meet a... */
struct gm_mask gm_mask_grow(const struct gm_mask *a, unsigned pages);
/* ...and only of those that lie in a completely. */
struct gm_mask gm_mask_shrink(const struct gm_mask *a, unsigned pages);

/* The next run of set bits at or after *first: [*first, *end). False at the end. */
bool gm_mask_next_run(const struct gm_mask *a, unsigned *first, unsigned *end);

/* for (...) over the runs [f, e) of mask m */
#define GM_MASK_FOR_RUN(m, f, e) for (unsigned f = 0, e = 0; gm_mask_next_run((m), &f, &e); f = e)

#endif
