/* SPDX-License-Identifier: MIT */
/*
 * The memory of the simulated process: mappings in a tree, pages in pieces of
 * 2 MiB made on demand. A page's bytes are in a frame of real memory that the
 * library never sees; a frame that is given back is overwritten first, so that
 * whoever still holds it reads garbage.
 *
 *     absent --populate, restore, fill, zero--> present --zap, steal--> absent
 *     absent --poison--> poisoned --zap--> absent
 *     absent --fill_protected--> present, protected --unprotect--> present
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "hal/sim/gm_sim_internal.h"

#define VA_BASE UINT64_C(0x100000000)
#define VA_END (UINT64_C(1) << 47)
#define FREED_BYTE 0xDB

/* By end: the mapping of an address is then the first one with a larger end. */
static int vma_cmp(const struct gm_sim_vma *a, const struct gm_sim_vma *b)
{
	return (a->end > b->end) - (a->end < b->end);
}

static int block_cmp(const struct gm_sim_block *a, const struct gm_sim_block *b)
{
	return (a->va > b->va) - (a->va < b->va);
}

RB_GENERATE_INTERNAL(gm_sim_vmas, gm_sim_vma, link, vma_cmp, __attribute__((unused)) static)
RB_GENERATE_INTERNAL(gm_sim_blocks, gm_sim_block, link, block_cmp, __attribute__((unused)) static)

/* ------------------------------------------------------------- mappings */

struct gm_sim_vma *gm_sim_vma_after(struct gm_sim *sim, uint64_t va)
{
	struct gm_sim_vma key = { .end = va + 1 };

	return RB_NFIND(gm_sim_vmas, &sim->vmas, &key);
}

struct gm_sim_vma *gm_sim_vma_find(struct gm_sim *sim, uint64_t va)
{
	struct gm_sim_vma *vma = gm_sim_vma_after(sim, va);

	return vma && vma->va <= va ? vma : NULL;
}

struct gm_sim_vma *gm_sim_vma_next(struct gm_sim *sim, struct gm_sim_vma *vma)
{
	(void)sim;
	return RB_NEXT(gm_sim_vmas, &sim->vmas, vma);
}

bool gm_sim_vma_covers(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	while (va < end) {
		const struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);

		if (!vma)
			return false;
		va = vma->end;
	}
	return true;
}

bool gm_sim_vma_allows(const struct gm_sim_vma *vma, bool write)
{
	return vma->access & (write ? GM_WRITE : GM_READ | GM_WRITE);
}

void gm_sim_vma_add(struct gm_sim *sim, const struct gm_sim_vma *like)
{
	struct gm_sim_vma *vma = gm_sim_calloc(sim, sizeof(*vma));
	const struct gm_sim_vma *after = gm_sim_vma_after(sim, like->va);

	if (after && after->va < like->end)
		gm_sim_panic(sim, "two mappings at 0x%llx", (unsigned long long)like->va);
	*vma = *like;
	RB_INSERT(gm_sim_vmas, &sim->vmas, vma);
}

/* Make a border at va, if a mapping spans it. */
static void split(struct gm_sim *sim, uint64_t va)
{
	struct gm_sim_vma *upper = gm_sim_vma_find(sim, va);
	struct gm_sim_vma lower;

	if (!upper || upper->va == va)
		return;
	lower = *upper;
	lower.end = va;
	upper->va = va; /* its key, the end, stays */
	gm_sim_vma_add(sim, &lower);
}

void gm_sim_vma_isolate(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	split(sim, va);
	split(sim, end);
}

static bool alike(const struct gm_sim_vma *a, const struct gm_sim_vma *b)
{
	return a->end == b->va && a->access == b->access && a->shared == b->shared && a->locked == b->locked &&
	       a->owned == b->owned && a->not_inherited == b->not_inherited && a->huge == b->huge && a->pmap == b->pmap &&
	       a->stores == b->stores;
}

void gm_sim_vma_merge(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	struct gm_sim_vma *vma = gm_sim_vma_after(sim, va > 0 ? va - 1 : 0);

	while (vma && vma->va <= end) {
		struct gm_sim_vma *next = RB_NEXT(gm_sim_vmas, &sim->vmas, vma);

		if (next && alike(vma, next)) {
			next->va = vma->va;
			RB_REMOVE(gm_sim_vmas, &sim->vmas, vma);
			free(vma);
		}
		vma = next;
	}
}

void gm_sim_vma_cut(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	struct gm_sim_vma *vma;

	gm_sim_vma_isolate(sim, va, end);
	while ((vma = gm_sim_vma_after(sim, va)) != NULL && vma->va < end) {
		gm_sim_pages_zap(sim, vma->va, vma->end);
		RB_REMOVE(gm_sim_vmas, &sim->vmas, vma);
		free(vma);
	}
}

static uint64_t align_up(uint64_t va, uint64_t align)
{
	return (va + align - 1) / align * align;
}

/* First fit: addresses are used again soon, as on the real thing. */
uint64_t gm_sim_va_pick(struct gm_sim *sim, uint64_t bytes, uint64_t align)
{
	uint64_t va = VA_BASE;
	struct gm_sim_vma *vma;

	if (bytes > VA_END - VA_BASE)
		return 0;
	for (vma = gm_sim_vma_after(sim, va - 1); vma; vma = gm_sim_vma_next(sim, vma)) {
		if (va + bytes + GM_PAGE_BYTES <= vma->va)
			break;
		va = align_up(vma->end + GM_PAGE_BYTES, bytes >= GM_BLOCK_BYTES ? GM_BLOCK_BYTES : align);
	}
	return va + bytes <= VA_END ? va : 0;
}

/* ---------------------------------------------------------------- pages */

uint8_t *gm_sim_frame_alloc(struct gm_sim *sim)
{
	uint8_t *frame = malloc(GM_PAGE_BYTES);

	if (!frame)
		gm_sim_panic(sim, "no memory for the simulated process");
	return frame;
}

void gm_sim_frame_free(uint8_t *frame)
{
	if (!frame)
		return;
	memset(frame, FREED_BYTE, GM_PAGE_BYTES);
	free(frame);
}

struct gm_sim_block *gm_sim_block_get(struct gm_sim *sim, uint64_t va, bool make)
{
	struct gm_sim_block key = { .va = va - va % GM_BLOCK_BYTES };
	struct gm_sim_block *block = sim->last_block;

	if (block && block->va == key.va)
		return block;
	block = RB_FIND(gm_sim_blocks, &sim->blocks, &key);
	if (!block && make) {
		block = gm_sim_calloc(sim, sizeof(*block));
		block->va = key.va;
		RB_INSERT(gm_sim_blocks, &sim->blocks, block);
	}
	if (block)
		sim->last_block = block;
	return block;
}

struct gm_sim_page *gm_sim_page_get(struct gm_sim *sim, uint64_t va, bool make)
{
	struct gm_sim_block *block = gm_sim_block_get(sim, va, make);

	return block ? &block->page[va % GM_BLOCK_BYTES / GM_PAGE_BYTES] : NULL;
}

static void zap_in_block(struct gm_sim_block *block, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		gm_sim_frame_free(block->page[i].frame);
		block->page[i] = (struct gm_sim_page){ .frame = NULL };
	}
	block->huge = false;
}

void gm_sim_pages_zap(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	while (va < end) {
		uint64_t begin = va - va % GM_BLOCK_BYTES;
		uint64_t stop = end < begin + GM_BLOCK_BYTES ? end : begin + GM_BLOCK_BYTES;
		struct gm_sim_block *block = gm_sim_block_get(sim, va, false);

		if (block)
			zap_in_block(block, (unsigned)((va - begin) / GM_PAGE_BYTES),
				     (unsigned)((stop - begin) / GM_PAGE_BYTES));
		va = stop;
	}
}

void gm_sim_pages_move(struct gm_sim *sim, uint64_t from, uint64_t to, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += GM_PAGE_BYTES) {
		struct gm_sim_block *src = gm_sim_block_get(sim, from + at, false);
		struct gm_sim_block *dst;
		unsigned s = (unsigned)((from + at) % GM_BLOCK_BYTES / GM_PAGE_BYTES);
		unsigned d = (unsigned)((to + at) % GM_BLOCK_BYTES / GM_PAGE_BYTES);
		bool whole;

		if (!src)
			continue;
		dst = gm_sim_block_get(sim, to + at, true);
		whole = src->huge && s == 0 && d == 0 && bytes - at >= GM_BLOCK_BYTES;
		dst->page[d] = src->page[s];
		src->page[s] = (struct gm_sim_page){ .frame = NULL };
		if (gm_mask_test(&src->wanted, s))
			gm_mask_set(&dst->wanted, d);
		if (whole) {
			dst->huge = true; /* stays so while the other 511 follow */
			src->huge = false;
		} else if (src->huge) {
			src->huge = false;
		}
	}
}

static bool block_is_empty(const struct gm_sim_block *block)
{
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++) {
		if (block->page[i].frame || block->page[i].poisoned)
			return false;
	}
	return true;
}

static void make_zero_page(struct gm_sim *sim, struct gm_sim_page *page)
{
	page->frame = gm_sim_frame_alloc(sim);
	memset(page->frame, 0, GM_PAGE_BYTES);
}

void gm_sim_pages_populate(struct gm_sim *sim, struct gm_sim_vma *vma, uint64_t va)
{
	struct gm_sim_block *block = gm_sim_block_get(sim, va, true);

	if (!vma->huge || vma->va > block->va || vma->end < block->va + GM_BLOCK_BYTES || !block_is_empty(block)) {
		make_zero_page(sim, gm_sim_page_get(sim, va, true));
		return;
	}
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		make_zero_page(sim, &block->page[i]);
	block->huge = true;
}

void gm_sim_mem_fini(struct gm_sim *sim)
{
	struct gm_sim_vma *vma, *next_vma;
	struct gm_sim_block *block, *next_block;

	RB_FOREACH_SAFE(vma, gm_sim_vmas, &sim->vmas, next_vma) {
		RB_REMOVE(gm_sim_vmas, &sim->vmas, vma);
		free(vma);
	}
	RB_FOREACH_SAFE(block, gm_sim_blocks, &sim->blocks, next_block) {
		zap_in_block(block, 0, GM_BLOCK_PAGES);
		RB_REMOVE(gm_sim_blocks, &sim->blocks, block);
		free(block);
	}
	sim->last_block = NULL;
}
