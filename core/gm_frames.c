/* SPDX-License-Identifier: MIT */
/*
 * Device frames: a binary buddy allocator whose books lie outside the memory
 * they describe (the CPU may not even see that memory).
 *
 * The books are the free chunks, a bitmap and a short stack per order:
 *
 *     allocated --free--> recent(o) --alloc--> allocated
 *                         recent(o) --full, or nothing else is left--> free(o), or merged with its
 *                                                                     free buddy free(o + 1), ...
 *     free(o) --alloc--> allocated
 *     free(o) --split by alloc--> free(o - 1) + free(o - 1)
 *
 * Most memory is given back to be taken again at once, in the same size: so what
 * was given back last is merged late, when a chunk is wanted that there is not.
 *
 * A chunk and its buddy are neighbouring bits of one word, so whether they merge
 * is one look, and no list is ever sorted or searched, which is what made the
 * allocator of drm spend half of its time in list_insert_sorted(). Above each
 * bitmap stands one of its words that are not 0, and so on up to a single word:
 * the first chunk is found from there in as many steps as there are levels, and
 * mostly in one, in the word where a chunk was last put. All books together are
 * two bits per unit and fit a cache.
 *
 * What is allocated has no books: a part of it may be given back alone. A slab
 * whose size is no power of two starts as several free chunks; what lies beyond
 * its end is never in a set.
 *
 * Not locked: the owner (gm_node.c) is. Nothing here can fail half-way.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_frames.h"

#define TOP_ORDER (GM_FRAMES_ORDERS - 1)

static bool has(const struct gm_frames_set *s, uint32_t k)
{
	return s->level[0][k / 64] >> (k % 64) & 1;
}

static void put(struct gm_frames *f, unsigned order, uint32_t k)
{
	struct gm_frames_set *s = &f->set[order];
	uint64_t before = 0;

	f->nonempty |= UINT32_C(1) << order;
	s->near = k / 64;
	for (unsigned l = 0; l <= s->top && !before; l++, k /= 64) {
		before = s->level[l][k / 64];
		s->level[l][k / 64] = before | UINT64_C(1) << (k % 64);
	}
}

static void take(struct gm_frames *f, unsigned order, uint32_t k)
{
	struct gm_frames_set *s = &f->set[order];
	uint64_t left = 0;

	for (unsigned l = 0; l <= s->top && !left; l++, k /= 64)
		left = s->level[l][k / 64] &= ~(UINT64_C(1) << (k % 64));
	if (!left)
		f->nonempty &= ~(UINT32_C(1) << order);
}

/* Some chunk of a set that is not empty. */
static uint32_t any(struct gm_frames_set *s)
{
	uint32_t k = 0;

	if (s->level[0][s->near])
		return s->near * 64 + (uint32_t)__builtin_ctzll(s->level[0][s->near]);
	for (unsigned l = s->top + 1; l-- > 0;)
		k = k * 64 + (uint32_t)__builtin_ctzll(s->level[l][k]);
	s->near = k / 64;
	return k;
}

/* Cover [0, units) with the largest aligned chunks. */
static void cover(struct gm_frames *f)
{
	for (uint32_t i = 0; i < f->units;) {
		unsigned order = i ? (unsigned)__builtin_ctz(i) : TOP_ORDER;

		if (order > TOP_ORDER)
			order = TOP_ORDER;
		while ((UINT64_C(1) << order) > f->units - i)
			order--;
		put(f, order, i >> order);
		i += 1u << order;
	}
}

/* Where each level lies, from `words` on; NULL: only count. Returns how many words it takes. */
static size_t lay_out(struct gm_frames *f, uint64_t *words)
{
	size_t used = 0;

	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++) {
		size_t bits = (f->units >> o) + 1; /* and one whose buddy would be beyond the end */
		unsigned l = 0;

		do {
			bits = (bits + 63) / 64;
			f->set[o].top = l;
			f->set[o].level[l++] = words ? words + used : NULL;
			used += bits;
		} while (bits > 1);
		assert(l <= GM_FRAMES_LEVELS);
	}
	return used;
}

gm_ret_t gm_frames_init(struct gm_frames *f, struct gm_env *env, uint64_t begin, uint64_t end, uint32_t shift)
{
	uint64_t units = (end - begin) >> shift;

	if (!units || units >= UINT32_MAX)
		return GM_RET_INVAL;
	*f = (struct gm_frames){ .env = env, .begin = begin, .shift = shift, .units = (uint32_t)units };
	f->word_count = lay_out(f, NULL);
	f->words = gm_mem_alloc(env, f->word_count * sizeof(*f->words));
	if (!f->words)
		return GM_RET_NOMEM;
	(void)lay_out(f, f->words);
	f->free_units = f->units;
	cover(f);
	return GM_RET_SUCCESS;
}

void gm_frames_fini(struct gm_frames *f)
{
	gm_mem_free(f->env, f->words, f->word_count * sizeof(*f->words));
	f->words = NULL;
}

/* Into the sets, merged. */
static void put_merged(struct gm_frames *f, unsigned order, uint32_t k)
{
	while (order < TOP_ORDER && has(&f->set[order], k ^ 1)) {
		take(f, order, k ^ 1);
		k /= 2;
		order++;
	}
	put(f, order, k);
}

void gm_frames_merge(struct gm_frames *f)
{
	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++) {
		struct gm_frames_recent *r = &f->recent[o];

		while (r->n)
			put_merged(f, o, r->unit[--r->n] >> o);
	}
}

/* A chunk from the sets, split off a larger one if need be: its unit; false: there is none. */
static bool split_off(struct gm_frames *f, unsigned order, uint32_t *unit)
{
	uint32_t fits = f->nonempty >> order << order, k;
	unsigned have;

	if (!fits)
		return false;
	have = (unsigned)__builtin_ctz(fits);
	k = any(&f->set[have]);
	take(f, have, k);
	while (have > order) {
		have--;
		k *= 2;
		put(f, have, k + 1);
	}
	*unit = k << order;
	return true;
}

gm_ret_t gm_frames_alloc(struct gm_frames *f, unsigned order, uint64_t *pa)
{
	struct gm_frames_recent *r;
	uint32_t unit;

	if (order >= GM_FRAMES_ORDERS || f->free_units < UINT32_C(1) << order)
		return GM_RET_NOSPC;
	r = &f->recent[order];
	if (r->n) {
		unit = r->unit[--r->n];
	} else if (!split_off(f, order, &unit)) {
		gm_frames_merge(f);
		if (!split_off(f, order, &unit))
			return GM_RET_NOSPC;
	}
	f->free_units -= 1u << order;
	*pa = f->begin + ((uint64_t)unit << f->shift);
	return GM_RET_SUCCESS;
}

/* No unit of the chunk is in a set: neither with what it is a part of, nor a part of it. */
static bool in_no_set(const struct gm_frames *f, uint32_t unit, unsigned order)
{
	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++) {
		uint32_t first = unit >> o, n = o < order ? 1u << (order - o) : 1;

		for (uint32_t k = first; k < first + n; k++)
			if (has(&f->set[o], k))
				return false;
	}
	return true;
}

/* How many of the chunks given back last meet it. */
static unsigned in_recent(const struct gm_frames *f, uint32_t unit, unsigned order)
{
	unsigned met = 0;

	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++)
		for (uint32_t i = 0; i < f->recent[o].n; i++) {
			unsigned larger = o > order ? o : order;

			met += f->recent[o].unit[i] >> larger == unit >> larger;
		}
	return met;
}

void gm_frames_free(struct gm_frames *f, uint64_t pa, unsigned order)
{
	uint32_t unit = (uint32_t)((pa - f->begin) >> f->shift);
	struct gm_frames_recent *r = &f->recent[order];

	assert(pa >= f->begin && unit < f->units && f->units - unit >= 1u << order && unit % (1u << order) == 0);
#ifdef GM_ENABLE_CHECKS
	assert(in_no_set(f, unit, order) && !in_recent(f, unit, order)); /* it is allocated */
#endif
	f->free_units += 1u << order;
	if (r->n < GM_FRAMES_RECENT)
		r->unit[r->n++] = unit;
	else
		put_merged(f, order, unit >> order);
}

/* The free chunk k of an order: inside, not a part of another one, not beside its free buddy. */
static const char *check_chunk(const struct gm_frames *f, unsigned order, uint32_t k)
{
	if ((uint64_t)(k + UINT64_C(1)) << order > f->units)
		return "a free chunk leaves the slab";
	if (order < TOP_ORDER && has(&f->set[order], k ^ 1))
		return "two free buddies are not merged";
	for (unsigned o = order + 1; o < GM_FRAMES_ORDERS; o++)
		if (has(&f->set[o], k >> (o - order)))
			return "free chunks overlap";
	return NULL;
}

/* One level against the one below: a bit for each word that is not 0. */
static bool level_fits(const struct gm_frames_set *s, unsigned l, size_t below)
{
	for (size_t w = 0; w < below; w++)
		if ((s->level[l][w / 64] >> (w % 64) & 1) != (s->level[l - 1][w] != 0))
			return false;
	return true;
}

static const char *check_order(const struct gm_frames *f, unsigned o, uint64_t *free_units)
{
	const struct gm_frames_set *s = &f->set[o];
	size_t words = ((f->units >> o) + 1 + (size_t)63) / 64, below = words;

	for (unsigned l = 1; l <= s->top; l++, below = (below + 63) / 64)
		if (!level_fits(s, l, below))
			return "the summary of a set of free chunks is wrong";
	if (!s->level[s->top][0] == !!(f->nonempty >> o & 1))
		return "the bitmap of orders is wrong";
	for (size_t w = 0; w < words; w++) {
		for (uint64_t left = s->level[0][w]; left; left &= left - 1) {
			const char *wrong = check_chunk(f, o, (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(left));

			if (wrong)
				return wrong;
			*free_units += 1u << o;
		}
	}
	return NULL;
}

static const char *check_recent(const struct gm_frames *f, unsigned o, uint64_t *free_units)
{
	const struct gm_frames_recent *r = &f->recent[o];

	if (r->n > GM_FRAMES_RECENT)
		return "more chunks were given back last than fit";
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->unit[i] % (1u << o) || (uint64_t)r->unit[i] + (1u << o) > f->units)
			return "a chunk given back last is misaligned or leaves the slab";
		if (!in_no_set(f, r->unit[i], o) || in_recent(f, r->unit[i], o) != 1)
			return "a chunk given back last is free twice";
		*free_units += 1u << o;
	}
	return NULL;
}

const char *gm_frames_check(const struct gm_frames *f)
{
	uint64_t free_units = 0;

	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++) {
		const char *wrong = check_order(f, o, &free_units);

		if (!wrong)
			wrong = check_recent(f, o, &free_units);
		if (wrong)
			return wrong;
	}
	return free_units != f->free_units ? "free units are miscounted" : NULL;
}
