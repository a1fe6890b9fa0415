/* SPDX-License-Identifier: MIT */
/* Where is everything? A snapshot per block, read from the masks; nothing is changed by looking. */
#include "config.h"

#include "core/gm_as.h"
#include "hal/gm_handle.h"

/* (block) */
static void describe(struct gm_block *b, unsigned page, struct gm_page_info *info)
{
	*info = (struct gm_page_info){ .place = GM_PLACE_OUTSIDE };
	if (gm_mask_test(&b->leaving, page))
		return; /* what is here belongs to another address */
	info->dev = gm_block_dev_of(b, page);
	if (info->dev)
		info->place = GM_PLACE_DEVICE;
	else if (gm_mask_test(&b->poisoned, page))
		info->place = GM_PLACE_POISONED;
	else if (gm_mask_test(&b->edge, page))
		info->place = GM_PLACE_IN_PLACE;
	else if (gm_mask_test(&b->host, page) || gm_mask_test(&b->staged, page))
		info->place = GM_PLACE_HOST;
	else if (gm_mask_test(&b->managed, page))
		info->place = GM_PLACE_NONE;
	if (gm_mask_test(&b->busy, page) || gm_mask_test(&b->doomed, page))
		info->flags |= GM_PAGE_BUSY;
	if (info->dev && gm_mask_test(&b->node[info->dev->index]->dirty, page))
		info->flags |= GM_PAGE_DIRTY;
	if (gm_mask_test(&b->held, page))
		info->flags |= GM_PAGE_HELD;
	if (info->dev && gm_mask_test(&b->staged, page))
		info->flags |= GM_PAGE_BACKED;
	for (unsigned i = 0; i < GM_MAX_CTXS; i++) {
		if (!b->map[i])
			continue;
		info->mapped_read |= (uint32_t)gm_mask_test(&b->map[i]->read, page) << i;
		info->mapped_write |= (uint32_t)gm_mask_test(&b->map[i]->write, page) << i;
	}
}

static void describe_block(struct gm_block *b, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	gm_lock(b->as->env, &b->lock);
	for (; va < end; va += GM_PAGE_BYTES)
		describe(b, gm_page_of(b, va), info++);
	gm_unlock(b->as->env, &b->lock);
}

/* No state is kept: host, untracked, if a region says so. */
static void describe_untracked(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	gm_lock(as->env, &as->lock);
	for (; va < end; va += GM_PAGE_BYTES, info++) {
		struct gm_region buf;
		const struct gm_region *r = gm_regions_find(&as->regions, va, &buf);

		*info = (struct gm_page_info){ .place = !r ? GM_PLACE_OUTSIDE
						       : r->kind == GM_REGION_EDGE ? GM_PLACE_IN_PLACE : GM_PLACE_HOST };
	}
	gm_unlock(as->env, &as->lock);
}

/* To look at it does not open it. False: it is not packed. */
static bool describe_packed(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	struct gm_block view = { .va = 0 };
	struct gm_bnode node = { .unit = { NULL } };
	struct gm_bmap map = { .read = gm_mask_none() };
	const struct gm_packed *p;

	if (!atomic_load(&as->pack.count))
		return false;
	gm_lock(as->env, &as->lock);
	p = gm_packed_of(gm_radix_get(&as->blocks, va / GM_BLOCK_BYTES));
	if (p)
		gm_pack_unpack(p, &view, &node, &map);
	for (; p && va < end; va += GM_PAGE_BYTES)
		describe(&view, gm_page_of(&view, va), info++);
	gm_unlock(as->env, &as->lock);
	return p;
}

static void describe_found(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	struct gm_block *b = gm_block_find(as, va);

	if (b)
		describe_block(b, va, end, info);
	else
		describe_untracked(as, va, end, info);
	gm_block_put(b);
}

gm_ret_t gm_query(struct gm_as *as, uint64_t va, size_t pages, struct gm_page_info *info)
{
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);
	uint64_t end;

	if (ret)
		return ret;
	if (!info)
		return gm_fail(GM_RET_INVAL, "gm_query: info must not be NULL");
	if (va % GM_PAGE_BYTES || !pages || pages > UINT64_MAX / GM_PAGE_BYTES || va + (uint64_t)pages * GM_PAGE_BYTES < va)
		return gm_fail(GM_RET_INVAL, "gm_query: %zu pages at 0x%llx: unaligned, empty or overflowing", pages,
			       (unsigned long long)va);
	end = va + (uint64_t)pages * GM_PAGE_BYTES;
	while (va < end) {
		uint64_t next = gm_block_base(va) + GM_BLOCK_BYTES;

		next = next < end && next > va ? next : end;
		if (!describe_packed(as, va, next, info))
			describe_found(as, va, next, info);
		info += (next - va) / GM_PAGE_BYTES;
		va = next;
	}
	return GM_RET_SUCCESS;
}
