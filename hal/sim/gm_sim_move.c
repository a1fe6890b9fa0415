/* SPDX-License-Identifier: MIT */
/*
 * Pages in and out of the simulated process: steal, restore, fill, zero, poison
 * and unmark of gm_host.h, and the ways to make them fail.
 *
 *     present --steal--> absent, frame in the slot (or a hole: nothing there)
 *     absent --restore, fill, zero--> present
 *     absent --poison--> poisoned --restore, fill, unmark--> present
 *
 * All go page by page from the front and say how far they came. While an event
 * is on its way they answer AGAIN before they look at anything; rarely they
 * stop half way with AGAIN for no reason, as the kernel does.
 */
#include "config.h"

#include <string.h>

#include "hal/sim/gm_sim_internal.h"

static const char *const op_names[GM_SIM_OPS] = {
	[GM_SIM_STEAL] = "steal",		[GM_SIM_RESTORE] = "restore",
	[GM_SIM_FILL] = "fill",			[GM_SIM_ZERO] = "zero",
	[GM_SIM_WATCH] = "watch",		[GM_SIM_SLOT_ALLOC] = "slot_alloc",
	[GM_SIM_MEM_MAP] = "mem_map",		[GM_SIM_WATCH_STORES] = "watch_stores",
	[GM_SIM_FILL_PROTECTED] = "fill_protected", [GM_SIM_UNPROTECT] = "unprotect",
	[GM_SIM_CHILD_FILL] = "child_fill",
	[GM_SIM_MEM_PROTECT] = "mem_protect",	[GM_SIM_MEM_PROBE] = "mem_probe",
	[GM_SIM_MEM_RIGHTS] = "mem_rights",	[GM_SIM_MEM_KIND] = "mem_kind",
	[GM_SIM_MEM_CONTENT] = "mem_content",	[GM_SIM_MEM_PRESENT] = "mem_present",
	[GM_SIM_BUS_ACCESS] = "bus_access",
};

gm_ret_t gm_sim_fail(struct gm_sim *sim, const char *op, uint64_t nth, uint64_t count)
{
	for (unsigned i = 0; i < GM_SIM_OPS; i++) {
		if (strcmp(op, op_names[i]) == 0) {
			sim->trap[i] = (struct gm_sim_trap){ count ? nth : 0, count };
			return GM_RET_SUCCESS;
		}
	}
	return GM_RET_INVAL;
}

bool gm_sim_failed(const struct gm_sim *sim, const char *op)
{
	for (unsigned i = 0; i < GM_SIM_OPS; i++) {
		if (strcmp(op, op_names[i]) == 0)
			return sim->trap[i].nth == 0;
	}
	return false;
}

/* Count a call; must it fail? */
bool gm_sim_trapped(struct gm_sim *sim, enum gm_sim_op op)
{
	struct gm_sim_trap *trap = &sim->trap[op];

	if (trap->nth == 0)
		return false;
	if (trap->nth > 1) {
		trap->nth--;
		return false;
	}
	if (--trap->count == 0)
		trap->nth = 0;
	return true;
}

/* After how many pages a call stops for no reason. */
static uint64_t whim(struct gm_sim *sim, uint64_t pages)
{
	return gm_sim_rarely(sim) ? gm_sim_random(sim, pages) : UINT64_MAX;
}

/* ------------------------------------------------------------------- steal */

/* One page into its slot. FAULT: there is none. */
static gm_ret_t steal_page(struct gm_sim_pmap *p, struct gm_sim_block *block, unsigned i, struct gm_sim_slot *slot,
			   uint64_t addr, struct gm_host_steal *out)
{
	struct gm_sim_page *page = &block->page[i];
	const struct gm_sim_vma *vma = gm_sim_vma_find(p->sim, block->va + i * (uint64_t)GM_PAGE_BYTES);
	const uint32_t rw = GM_READ | GM_WRITE;

	if (!gm_mask_test(&block->wanted, i))
		gm_sim_panic(p->sim, "steal of page %u of block 0x%llx, which is not watched", i,
			     (unsigned long long)block->va);
	if (!vma || vma->pmap != p)
		return GM_RET_FAULT;
	if (vma->locked || vma->shared || (vma->access & rw) != rw || page->poisoned) {
		gm_mask_set(&out->fixed, i);
		return GM_RET_SUCCESS;
	}
	/* Shared with a child it is un-shared first, which is a store. */
	if (page->pins || (page->frame && page->protected && gm_sim_frame_is_shared(page->frame))) {
		gm_mask_set(&out->pinned, i);
		return GM_RET_SUCCESS;
	}
	if (gm_sim_slot_has(slot, addr))
		gm_sim_panic(p->sim, "steal of page %u of block 0x%llx into a slot page that has a frame", i,
			     (unsigned long long)block->va);
	gm_mask_set(&out->moved, i);
	gm_sim_page_look(p->sim, page);
	if (!page->frame) {
		gm_mask_set(&out->hole, i);
		return GM_RET_SUCCESS;
	}
	gm_sim_slot_put(slot, addr, page->frame);
	gm_sim_frame_free(page->frame);
	page->frame = NULL;
	page->protected = page->freed = false; /* what was moved is plain again */
	block->huge = false;
	p->sim->stats.steals++;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t addr, struct gm_host_steal *out)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim_slot *slot = gm_sim_slot_find(p->sim, addr, GM_BLOCK_BYTES);
	struct gm_sim_block *block = gm_sim_block_get(p->sim, va, true);
	bool whole = block->huge && gm_mask_full(want);
	uint64_t left;

	memset(out, 0, sizeof(*out));
	if (va % GM_BLOCK_BYTES || !slot || slot->pmap != p || slot->bounce)
		gm_sim_panic(p->sim, "steal: 0x%llx is no block, or its slot is none", (unsigned long long)va);
	if (p->changing || gm_sim_trapped(p->sim, GM_SIM_STEAL))
		return GM_RET_AGAIN;
	left = whole ? UINT64_MAX : whim(p->sim, gm_mask_count(want));
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++) {
		gm_ret_t ret;

		if (!gm_mask_test(want, i))
			continue;
		if (left-- == 0)
			return GM_RET_AGAIN;
		ret = steal_page(p, block, i, slot, addr + i * (uint64_t)GM_PAGE_BYTES, out);
		if (ret)
			return ret;
	}
	out->huge = whole && gm_mask_full(&out->moved);
	slot->huge = out->huge;
	return GM_RET_SUCCESS;
}

/* --------------------------------------------------------------- and back */

/* Where the pages of one call come from. */
struct source {
	enum { FROM_SLOT, FROM_BYTES, FROM_ZERO, FROM_NOWHERE, FROM_GIVEN_UP } kind;
	struct gm_sim_slot *slot; /* FROM_SLOT */
	uint64_t addr;            /* FROM_SLOT */
	const uint8_t *bytes;     /* FROM_BYTES */
	bool protect;
};

static void put_page(struct gm_sim *sim, struct gm_sim_page *page, const struct source *from, uint64_t at)
{
	if (from->kind == FROM_NOWHERE) {
		page->poisoned = true;
		return;
	}
	page->frame = gm_sim_frame_alloc(sim);
	switch (from->kind) {
	case FROM_SLOT:
		if (!gm_sim_slot_has(from->slot, from->addr + at))
			gm_sim_panic(sim, "restore of a slot page that has no frame (byte 0x%llx of the call)",
				     (unsigned long long)at);
		memcpy(page->frame, from->slot->base + (from->addr + at - GM_VA(from->slot->base)), GM_PAGE_BYTES);
		gm_sim_slot_clear(from->slot, from->addr + at);
		sim->stats.restores++;
		break;
	case FROM_BYTES:
		memcpy(page->frame, from->bytes + at, GM_PAGE_BYTES);
		sim->stats.fills++;
		break;
	default:
		memset(page->frame, 0, GM_PAGE_BYTES);
		sim->stats.zeros++;
		break;
	}
}

static gm_ret_t put_pages(struct gm_sim_pmap *p, uint64_t va, uint64_t bytes, const struct source *from, uint64_t *done)
{
	struct gm_sim *sim = p->sim;
	bool huge = from->kind == FROM_SLOT && from->slot->huge && bytes == GM_BLOCK_BYTES && va % GM_BLOCK_BYTES == 0;
	uint64_t left = huge ? UINT64_MAX : whim(sim, bytes / GM_PAGE_BYTES);

	*done = 0;
	if (p->changing)
		return GM_RET_AGAIN;
	for (; *done < bytes; *done += GM_PAGE_BYTES) {
		const struct gm_sim_vma *vma = gm_sim_vma_find(sim, va + *done);
		struct gm_sim_page *page;

		if (left-- == 0)
			return GM_RET_AGAIN;
		if (!vma || vma->pmap != p || (from->protect && !vma->stores))
			return GM_RET_FAULT;
		page = gm_sim_page_get(sim, va + *done, true);
		if (page->frame || (page->poisoned && (from->kind == FROM_NOWHERE || from->kind == FROM_ZERO)))
			return GM_RET_EXIST;
		page->poisoned = false; /* bytes replace the mark, as UFFDIO_COPY does */
		put_page(sim, page, from, *done);
		page->protected = from->protect;
	}
	if (huge)
		gm_sim_block_get(sim, va, true)->huge = true;
	return GM_RET_SUCCESS;
}

/* The same, and who waits for them goes on. */
static gm_ret_t give_pages(struct gm_sim_pmap *p, uint64_t va, uint64_t bytes, const struct source *from,
			   uint64_t *done)
{
	gm_ret_t ret = put_pages(p, va, bytes, from, done);

	gm_sim_fault_wake(p, va, va + *done);
	return ret;
}

gm_ret_t gm_sim_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	struct gm_sim_pmap *p = pmap;
	struct source from = { .kind = FROM_SLOT, .addr = addr };

	from.slot = gm_sim_slot_find(p->sim, addr, bytes);
	if (!from.slot || from.slot->pmap != p)
		gm_sim_panic(p->sim, "restore: the source is no slot or bounce buffer of this address space");
	*done = 0;
	if (gm_sim_trapped(p->sim, GM_SIM_RESTORE))
		return GM_RET_AGAIN;
	return give_pages(p, va, bytes, &from, done);
}

static gm_ret_t fill(struct gm_sim_pmap *p, uint64_t va, const void *src, uint64_t bytes, bool protect, uint64_t *done)
{
	struct source from = { .kind = FROM_BYTES, .bytes = src, .protect = protect };
	const struct gm_sim_slot *slot = gm_sim_slot_find(p->sim, GM_VA(src), bytes);

	for (uint64_t at = 0; slot && at < bytes; at += GM_PAGE_BYTES) {
		if (!gm_sim_slot_has(slot, GM_VA(src) + at))
			gm_sim_panic(p->sim, "fill from a slot page that has no frame (byte 0x%llx of the call)",
				     (unsigned long long)at);
	}
	*done = 0;
	if (gm_sim_trapped(p->sim, protect ? GM_SIM_FILL_PROTECTED : GM_SIM_FILL))
		return GM_RET_AGAIN;
	return give_pages(p, va, bytes, &from, done);
}

gm_ret_t gm_sim_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	return fill(pmap, va, src, bytes, false, done);
}

gm_ret_t gm_sim_fill_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	return fill(pmap, va, src, bytes, true, done);
}

gm_ret_t gm_sim_unprotect(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_sim_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (p->changing || gm_sim_trapped(p->sim, GM_SIM_UNPROTECT))
		return GM_RET_AGAIN;
	for (uint64_t at = va; at < va + bytes; at += GM_PAGE_BYTES) {
		const struct gm_sim_vma *vma = gm_sim_vma_find(p->sim, at);

		if (!vma || vma->pmap != p || !vma->stores) {
			ret = GM_RET_FAULT;
			continue;
		}
		gm_sim_page_get(p->sim, at, true)->protected = false;
		gm_sim_fault_wake(p, at, at + GM_PAGE_BYTES);
	}
	return ret;
}

gm_ret_t gm_sim_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct source from = { .kind = FROM_ZERO };

	*done = 0;
	if (gm_sim_trapped(((struct gm_sim_pmap *)pmap)->sim, GM_SIM_ZERO))
		return GM_RET_AGAIN;
	return give_pages(pmap, va, bytes, &from, done);
}

gm_ret_t gm_sim_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct source from = { .kind = FROM_NOWHERE };

	return put_pages(pmap, va, bytes, &from, done);
}

gm_ret_t gm_sim_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct source from = { .kind = FROM_GIVEN_UP };

	*done = 0;
	if (gm_sim_trapped(((struct gm_sim_pmap *)pmap)->sim, GM_SIM_ZERO))
		return GM_RET_AGAIN;
	return give_pages(pmap, va, bytes, &from, done);
}
