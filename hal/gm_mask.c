/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "hal/gm_mask.h"

struct gm_mask gm_mask_span(unsigned first, unsigned end)
{
	struct gm_mask m = gm_mask_none();

	if (end > GM_BLOCK_PAGES)
		end = GM_BLOCK_PAGES;
	if (first < end)
		gm_mask_add_span(&m, first, end);
	return m;
}

struct gm_mask gm_mask_grow(const struct gm_mask *a, unsigned pages)
{
	struct gm_mask m = *a;

	if (pages <= 1)
		return m;
	GM_MASK_FOR_RUN(a, first, end)
		m = gm_mask_or(m, gm_mask_span(first / pages * pages, (end + pages - 1) / pages * pages));
	return m;
}

struct gm_mask gm_mask_shrink(const struct gm_mask *a, unsigned pages)
{
	struct gm_mask outside = gm_mask_not(*a);

	return gm_mask_not(gm_mask_grow(&outside, pages));
}

/* Index of the first bit at or after `from` whose value is `set`; GM_BLOCK_PAGES if none. */
static unsigned find_bit(const struct gm_mask *a, unsigned from, bool set)
{
	for (unsigned i = from / 64; i < GM_MASK_WORDS; i++) {
		uint64_t w = set ? a->w[i] : ~a->w[i];

		if (i == from / 64)
			w &= UINT64_MAX << (from % 64);
		if (w)
			return i * 64 + (unsigned)__builtin_ctzll(w);
	}
	return GM_BLOCK_PAGES;
}

bool gm_mask_next_run(const struct gm_mask *a, unsigned *first, unsigned *end)
{
	if (*first >= GM_BLOCK_PAGES)
		return false;
	*first = find_bit(a, *first, true);
	if (*first == GM_BLOCK_PAGES)
		return false;
	*end = find_bit(a, *first, false);
	return true;
}
