/* SPDX-License-Identifier: MIT */
/*
 * Leaves of the tree of regions: those that begin in one 2 MiB piece, in the order of addresses. Of each
 *
 *     a tag    [ page : 9 ][ kind : 2 ][ high : 4 ]        15 bits
 *     a value  pages, or users of an edge
 *
 * A small leaf has 24, with values of 16 bits and `high` on top of them; a large one, where more begin or one is
 * longer (4 GiB), 48 with values of 64 bits, and may be one of a chain.
 *
 * All tags of a small leaf are in one cache line (where the allocator aligns so), and are compared without a branch
 * that depends on them; all values are in the next.
 */
#ifndef GM_CORE_REGION_LEAF_H
#define GM_CORE_REGION_LEAF_H

#include "core/gm_region.h"

#define GM_LEAF_PAGE_SHIFT 6
#define GM_LEAF_KIND_SHIFT 4
#define GM_LEAF_KIND_MASK 3u
#define GM_LEAF_HIGH_MASK 15u
#define GM_LEAF_LOW_BITS 16
/* What a small leaf has bits for is below. */
#define GM_LEAF_SMALL_VALUES (UINT64_C(16) << GM_LEAF_LOW_BITS)
/* Of the last kind a little less, so that no tag is GM_LEAF_NO_TAG. */
#define GM_LEAF_SMALL_PLACED (UINT64_C(15) << GM_LEAF_LOW_BITS)
/* No region: above all of them. */
#define GM_LEAF_NO_TAG INT16_MAX

#define GM_LEAF_SMALL 24u
#define GM_LEAF_LARGE 48u /* all are compared, in steps of GM_LEAF_SMALL */

struct gm_region_leaf {
	struct gm_region_leaf *next;
	uint16_t n, max; /* max: GM_LEAF_SMALL or GM_LEAF_LARGE */
	uint32_t unused;
	int16_t tag[];   /* [max], sorted; beyond n: GM_LEAF_NO_TAG. Behind them the values: uint16_t or uint64_t [max] */
};

static inline bool gm_leaf_is_small(const struct gm_region_leaf *leaf)
{
	return leaf->max == GM_LEAF_SMALL;
}

static inline uint16_t *gm_leaf_small_values(struct gm_region_leaf *leaf)
{
	return (uint16_t *)(leaf->tag + GM_LEAF_SMALL);
}

static inline uint64_t *gm_leaf_large_values(struct gm_region_leaf *leaf)
{
	return (uint64_t *)(leaf->tag + GM_LEAF_LARGE);
}

static inline uint64_t gm_leaf_value(struct gm_region_leaf *leaf, unsigned at)
{
	if (gm_leaf_is_small(leaf))
		return (uint64_t)((unsigned)leaf->tag[at] & GM_LEAF_HIGH_MASK) << GM_LEAF_LOW_BITS |
		       gm_leaf_small_values(leaf)[at];
	return gm_leaf_large_values(leaf)[at];
}

/* At or above every tag of the page, below those of the next and below GM_LEAF_NO_TAG. */
static inline int16_t gm_leaf_limit(unsigned page)
{
	return (int16_t)(page << GM_LEAF_PAGE_SHIFT | GM_LEAF_KIND_MASK << GM_LEAF_KIND_SHIFT | (GM_LEAF_HIGH_MASK - 1));
}

/* How many regions of a leaf begin at or below a page. So many at once, and without a branch for each. */
static inline unsigned gm_leaf_begun(const struct gm_region_leaf *leaf, unsigned page)
{
	int16_t limit = gm_leaf_limit(page), n = 0;

	for (unsigned i = 0; i < leaf->max; i += GM_LEAF_SMALL)
		for (unsigned k = 0; k < GM_LEAF_SMALL; k++)
			n = (int16_t)(n + (leaf->tag[i + k] <= limit));
	return (unsigned)n;
}

/* The leaf of a chain in which a page is, or would be. */
static inline struct gm_region_leaf *gm_leaf_of(struct gm_region_leaf *leaf, unsigned page)
{
	while (leaf->next && leaf->next->tag[0] <= gm_leaf_limit(page))
		leaf = leaf->next;
	return leaf;
}

/* Make an empty one of `max` out of memory for it. */
struct gm_region_leaf *gm_leaf_init(void *memory, unsigned max);
/* `tag` without what is high of the value, which a small leaf must have bits for. */
void gm_leaf_put(struct gm_region_leaf *leaf, unsigned at, unsigned tag, uint64_t value);
/* Room for one more at a place, in a leaf that is not full; it has none there until it is put. */
void gm_leaf_open(struct gm_region_leaf *leaf, unsigned at);
/* Take the one at a place out. */
void gm_leaf_close(struct gm_region_leaf *leaf, unsigned at);
/* Those of `leaf`, from a place on, go into an empty large one. */
void gm_leaf_move(struct gm_region_leaf *to, struct gm_region_leaf *leaf, unsigned first);

/* Every invariant of a chain; NULL or what is wrong. */
const char *gm_leaf_check(const struct gm_region_leaf *leaf);

#endif
