/* SPDX-License-Identifier: MIT */
/*
 * Where is everything? A snapshot per block, read from the masks; nothing is changed by looking. (In sum:
 * gm_residency.c.)
 *
 * gm_query_host() asks the kernel too, which cannot be done under the block's lock:
 *
 *     masks --> the kernel's page map of the block, its mappings --> masks again --same--> both are told
 *                                                                               --else--> the page is on its way
 *
 * A page that went away and came back between the two looks is told as it was at some moment of them.
 */
#include "config.h"

#include <string.h>

#include "core/gm_as.h"
#include "core/gm_ws.h"
#include "hal/gm_handle.h"

/* (block) */
static void describe(struct gm_block *b, unsigned page, struct gm_page_info *info)
{
	*info = (struct gm_page_info){ .place = GM_PLACE_OUTSIDE };
	if (gm_mask_test(&b->leaving, page))
		return; /* what is here belongs to another address */
	info->dev = gm_block_dev_of(b, page);
	if (info->dev) {
		const struct gm_chunk *c = b->node[info->dev->index]->unit[page / GM_UNIT_PAGES];

		info->place = GM_PLACE_DEVICE;
		info->map_bytes = c ? (uint64_t)GM_UNIT_BYTES << c->order : 0;
	} else if (gm_mask_test(&b->poisoned, page))
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
	if (gm_mask_test(&b->dup, page))
		info->flags |= GM_PAGE_DUPLICATED;
	if (info->dev && gm_mask_test(&b->exclusive, page))
		info->flags |= GM_PAGE_EXCLUSIVE;
	if (gm_mask_test(&b->held, page))
		info->flags |= GM_PAGE_HELD;
	if (gm_mask_test(&b->staged, page))
		info->flags |= GM_PAGE_BACKED;
	if (gm_mask_test(&b->kept, page) || gm_ws_is_pinned(b, page))
		info->flags |= GM_PAGE_PINNED;
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
						       : gm_region_stays(r) ? GM_PLACE_IN_PLACE : GM_PLACE_HOST };
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

/* Within one block. */
static void describe_part(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	if (!describe_packed(as, va, end, info))
		describe_found(as, va, end, info);
}

/* A host is asked once where it has none of that. */
static void add_inthread(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info)
{
	if (!gm_hal_inthread_has(as->host, as->hpmap, va, end - va))
		return;
	for (; va < end; va += GM_PAGE_BYTES, info++)
		if (info->place != GM_PLACE_OUTSIDE && gm_hal_inthread_has(as->host, as->hpmap, va, GM_PAGE_BYTES))
			info->flags |= GM_PAGE_INTHREAD;
}

/* Where a page is, in a byte: so that two looks can be compared. */
static uint8_t digest(const struct gm_page_info *info)
{
	_Static_assert(GM_PLACE_OUTSIDE < 8 && GM_MAX_DEVS <= 16, "they fit");
	return (uint8_t)((unsigned)info->place | (info->dev ? info->dev->index : 0) << 3 | (info->flags & GM_PAGE_BUSY) << 7);
}

/* What the kernel has of a page. Where it has nothing, a device or the library may have it. */
static void add_content(struct gm_page_info *info, unsigned page, const struct gm_host_content *content)
{
	bool some = gm_mask_test(&content->some, page);

	if (some && gm_mask_test(&content->zero, page))
		info->flags |= GM_PAGE_ZERO;
	if (info->place == GM_PLACE_DEVICE)
		return;
	if (some)
		info->map_bytes = content->huge ? GM_BLOCK_BYTES : GM_PAGE_BYTES;
	else if (info->place != GM_PLACE_POISONED && !(info->flags & GM_PAGE_BACKED))
		info->flags |= GM_PAGE_ABSENT;
}

/* SUCCESS, NOMEM: it cannot be told now. */
static gm_ret_t rights_of(struct gm_as *as, uint64_t va, struct gm_host_vma *vma, uint32_t *access)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	if (va < vma->va || va - vma->va >= vma->bytes)
		ret = gm_hal_mem_rights(as->host, as->hpmap, va, vma);
	if (ret)
		vma->bytes = 0;
	*access = ret ? 0 : vma->access;
	return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

/* Within one block. */
static gm_ret_t describe_host(struct gm_as *as, uint64_t va, uint64_t end, struct gm_page_info *info,
			      struct gm_host_vma *vma)
{
	size_t pages = (end - va) / GM_PAGE_BYTES;
	struct gm_host_content content;
	uint8_t before[GM_BLOCK_PAGES];
	gm_ret_t ret;

	describe_part(as, va, end, info);
	for (size_t i = 0; i < pages; i++)
		before[i] = digest(&info[i]);
	ret = gm_hal_mem_content(as->host, as->hpmap, gm_block_base(va), &content);
	describe_part(as, va, end, info);
	if (ret)
		return ret;
	for (size_t i = 0; i < pages; i++) {
		uint64_t at = va + i * GM_PAGE_BYTES;

		ret = rights_of(as, at, vma, &info[i].access);
		if (ret)
			return ret;
		if (before[i] != digest(&info[i]))
			info[i].flags |= GM_PAGE_BUSY;
		else if (!(info[i].flags & GM_PAGE_BUSY))
			add_content(&info[i], (unsigned)(at % GM_BLOCK_BYTES / GM_PAGE_BYTES), &content);
	}
	return ret;
}

static gm_ret_t check(const char *what, uint64_t va, size_t pages, const struct gm_page_info *info)
{
	if (!info)
		return gm_fail(GM_RET_INVAL, "%s: info must not be NULL", what);
	if (va % GM_PAGE_BYTES || !pages || pages > UINT64_MAX / GM_PAGE_BYTES || va + (uint64_t)pages * GM_PAGE_BYTES < va)
		return gm_fail(GM_RET_INVAL, "%s: %zu pages at 0x%llx: unaligned, empty or overflowing", what, pages,
			       (unsigned long long)va);
	return GM_RET_SUCCESS;
}

/* The end of the part of [va, end) that is in the block of va. */
static uint64_t part_end(uint64_t va, uint64_t end)
{
	uint64_t next = gm_block_base(va) + GM_BLOCK_BYTES;

	return next < end && next > va ? next : end;
}

/* The caller's may be memory that is away, and who brings it home wants the locks that are held where it is described. */
static struct gm_page_info *hand_out(struct gm_page_info *info, const struct gm_page_info *part, size_t n)
{
	memcpy(info, part, n * sizeof(*info));
	return info + n;
}

gm_ret_t gm_query(struct gm_as *as, uint64_t va, size_t pages, struct gm_page_info *info)
{
	struct gm_page_info part[GM_BLOCK_PAGES];
	uint64_t end = va + (uint64_t)pages * GM_PAGE_BYTES, next;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret)
		ret = check("gm_query", va, pages, info);
	for (; !ret && va < end; va = next) {
		next = part_end(va, end);
		describe_part(as, va, next, part);
		add_inthread(as, va, next, part);
		info = hand_out(info, part, (next - va) / GM_PAGE_BYTES);
	}
	return ret;
}

gm_ret_t gm_query_host(struct gm_as *as, uint64_t va, size_t pages, struct gm_page_info *info)
{
	uint64_t end = va + (uint64_t)pages * GM_PAGE_BYTES, next;
	struct gm_host_vma vma = { .bytes = 0 };
	struct gm_page_info part[GM_BLOCK_PAGES];
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret)
		ret = check("gm_query_host", va, pages, info);
	for (; !ret && va < end; va = next) {
		next = part_end(va, end);
		ret = describe_host(as, va, next, part, &vma);
		add_inthread(as, va, next, part);
		info = hand_out(info, part, (next - va) / GM_PAGE_BYTES);
	}
	return ret;
}
