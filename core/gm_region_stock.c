/* SPDX-License-Identifier: MIT */
/*
 * Memory for the tree of regions. The fault handler carves (an unmap event), which must not fail half way, so pieces
 * come from a small stock that others fill beforehand. Tree nodes and large leaves are pieces of one size, and
 * large ones do where there is no small one in stock.
 *
 *     made without the lock --stock--> in stock --a change takes it--> in the tree --became empty--> in stock
 *                                      in stock --more than usual, excess--> freed without the lock
 *
 * An insertion or a carving (C2, C4) takes at most a leaf and the nodes above it, and, the first time at such an
 * address, some on top: gm_regions_room() says how many are sure to succeed. A change that must not fail later is
 * promised: its pieces are no room for others, until it is redeemed.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_region.h"

/* Nodes for a tree that has to become as high as it can get. */
#define GROWTH 10u
/* Higher than that only where a processor has more than 57 bits of VA. */
#define USUAL_HEIGHT 6u

/* What `n` changes take at most, each of them where the tree is low or has nothing: others may come between. */
static unsigned pieces_for(const struct gm_regions *rs, unsigned n)
{
	unsigned each = rs->tree.height > USUAL_HEIGHT ? rs->tree.height : USUAL_HEIGHT; /* a leaf, and no second root */

	return n * (GROWTH + each);
}

unsigned gm_regions_kept(const struct gm_regions *rs)
{
	return pieces_for(rs, rs->promised);
}

unsigned gm_regions_room(const struct gm_regions *rs)
{
	unsigned each = pieces_for(rs, 1) - GROWTH, kept = pieces_for(rs, rs->promised) + GROWTH; /* at once: it grows once */

	return rs->stock.count > kept ? (rs->stock.count - kept) / each : 0;
}

bool gm_regions_promise(struct gm_regions *rs)
{
	bool room = rs->stock.count >= pieces_for(rs, rs->promised + 1);

	rs->promised += room;
	return room;
}

void gm_regions_redeem(struct gm_regions *rs)
{
	assert(rs->promised);
	rs->promised--;
}

void gm_regions_stock(struct gm_regions *rs, void *piece)
{
	gm_radix_spares_give(&rs->stock, piece);
}

bool gm_regions_lack_small(const struct gm_regions *rs)
{
	return !rs->small;
}

void *gm_region_new_small(struct gm_env *env)
{
	return gm_mem_alloc(env, GM_REGION_SMALL_BYTES);
}

void gm_regions_stock_small(struct gm_regions *rs, void *piece)
{
	struct gm_region_small *small = piece;

	small->next = rs->small;
	rs->small = small;
	rs->smalls++;
}

void *gm_regions_take_small(struct gm_regions *rs)
{
	struct gm_region_small *small = rs->small;

	if (small) {
		rs->small = small->next;
		rs->smalls--;
	}
	return small;
}

void *gm_regions_excess_small(struct gm_regions *rs)
{
	return rs->smalls > GM_REGION_SPARES ? gm_regions_take_small(rs) : NULL;
}

void *gm_regions_excess(struct gm_regions *rs)
{
	return gm_regions_room(rs) > GM_REGION_SPARES ? gm_radix_spares_take(&rs->stock) : NULL;
}

void *gm_region_new(struct gm_env *env)
{
	return gm_mem_alloc(env, GM_REGION_PIECE_BYTES);
}
