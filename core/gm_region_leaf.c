/* SPDX-License-Identifier: MIT */
/*
 * Leaves of the tree of regions: changes. What is in them, and how it is found, see gm_region_leaf.h.
 *
 *     empty --put, open and put--> n, sorted, tags beyond n are NO_TAG --close, move--> fewer, the same
 *
 * Nothing in here fails or allocates: the caller has looked whether there is room.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "core/gm_region_leaf.h"

#define BYTES(max, value) (sizeof(struct gm_region_leaf) + (max) * (sizeof(int16_t) + sizeof(value)))

_Static_assert(GM_BLOCK_PAGES << GM_LEAF_PAGE_SHIFT == INT16_MAX + 1, "a page of a block fits its bits");
_Static_assert(GM_LEAF_LARGE % GM_LEAF_SMALL == 0, "a large leaf is whole steps");
_Static_assert(GM_LEAF_LARGE * sizeof(int16_t) % sizeof(uint64_t) == 0, "values are aligned");
_Static_assert(sizeof(struct gm_region_leaf) + GM_LEAF_SMALL * sizeof(int16_t) == 64, "what is compared is one line");
_Static_assert(BYTES(GM_LEAF_SMALL, uint16_t) == GM_REGION_SMALL_BYTES, "a small leaf");
_Static_assert(BYTES(GM_LEAF_LARGE, uint64_t) <= GM_REGION_PIECE_BYTES, "a large leaf fits a piece");

/* From the place `at` on there is nothing. */
static void cut(struct gm_region_leaf *leaf, unsigned at)
{
	leaf->n = (uint16_t)at;
	for (unsigned i = at; i < leaf->max; i++)
		leaf->tag[i] = GM_LEAF_NO_TAG;
}

struct gm_region_leaf *gm_leaf_init(void *memory, unsigned max)
{
	struct gm_region_leaf *leaf = memory;

	leaf->next = NULL;
	leaf->max = (uint16_t)max;
	cut(leaf, 0);
	return leaf;
}

void gm_leaf_put(struct gm_region_leaf *leaf, unsigned at, unsigned tag, uint64_t value)
{
	if (gm_leaf_is_small(leaf)) {
		assert(value < GM_LEAF_SMALL_VALUES);
		tag |= (unsigned)(value >> GM_LEAF_LOW_BITS);
		gm_leaf_small_values(leaf)[at] = (uint16_t)value;
	} else {
		gm_leaf_large_values(leaf)[at] = value;
	}
	leaf->tag[at] = (int16_t)tag;
}

/* All from the place `from` on to the place `to`. */
static void shift(struct gm_region_leaf *leaf, unsigned to, unsigned from)
{
	unsigned n = leaf->n - from;

	memmove(leaf->tag + to, leaf->tag + from, n * sizeof(leaf->tag[0]));
	if (gm_leaf_is_small(leaf))
		memmove(gm_leaf_small_values(leaf) + to, gm_leaf_small_values(leaf) + from, n * sizeof(uint16_t));
	else
		memmove(gm_leaf_large_values(leaf) + to, gm_leaf_large_values(leaf) + from, n * sizeof(uint64_t));
}

void gm_leaf_open(struct gm_region_leaf *leaf, unsigned at)
{
	assert(leaf->n < leaf->max);
	shift(leaf, at + 1, at);
	leaf->n++;
}

void gm_leaf_close(struct gm_region_leaf *leaf, unsigned at)
{
	shift(leaf, at, at + 1);
	cut(leaf, leaf->n - 1u);
}

void gm_leaf_move(struct gm_region_leaf *to, struct gm_region_leaf *leaf, unsigned first)
{
	assert(!to->n && !gm_leaf_is_small(to));
	for (unsigned i = first; i < leaf->n; i++) {
		unsigned high = gm_leaf_is_small(leaf) ? GM_LEAF_HIGH_MASK : 0;

		gm_leaf_put(to, i - first, (unsigned)leaf->tag[i] & ~high, gm_leaf_value(leaf, i));
	}
	to->n = (uint16_t)(leaf->n - first);
	cut(leaf, first);
}

/* Tags say what is in it, and where it ends. */
static const char *check_one(const struct gm_region_leaf *leaf, int *next_page)
{
	if (!leaf->n || leaf->n > leaf->max)
		return "a leaf of the regions is empty";
	for (unsigned i = 0; i < leaf->max; i++) {
		int tag = leaf->tag[i], page = tag >> GM_LEAF_PAGE_SHIFT;

		if (i >= leaf->n && tag == GM_LEAF_NO_TAG)
			continue;
		if (i >= leaf->n || tag < 0 || tag == GM_LEAF_NO_TAG)
			return "a leaf does not have as many regions as it says";
		if (page < *next_page)
			return "regions are not in order";
		if (!gm_leaf_is_small(leaf) && ((unsigned)tag & GM_LEAF_HIGH_MASK))
			return "a large leaf has a part of a value in a tag";
		*next_page = page + 1;
	}
	return NULL;
}

const char *gm_leaf_check(const struct gm_region_leaf *leaf)
{
	const char *wrong = NULL;
	int next_page = 0;

	for (; leaf && !wrong; leaf = leaf->next)
		wrong = check_one(leaf, &next_page);
	return wrong;
}
