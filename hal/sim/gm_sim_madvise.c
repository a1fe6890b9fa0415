/* SPDX-License-Identifier: MIT */
/*
 * madvise() of the simulated process.
 *
 *     DONTNEED     REMOVE read -> (others may run) -> pages gone
 *     FREE         REMOVE read -> (others may run) -> pages marked --a store--> plain again, as are those that are stolen
 *                                                                  --whenever somebody looks, perhaps--> gone
 *     REMOVE       INVAL: there is no file below private memory
 *     DONTFORK     not inherited; DOFORK: inherited
 *     HUGEPAGE     the next first touch may make a huge page; NOHUGEPAGE: not
 *     POPULATE     as if each page was read, or written, and waits as long as that takes
 *
 * Between the event and the pages of DONTNEED lies the window in which a library can steal and later restore what the
 * application has dropped. Stricter than Linux: what is marked is gone in one of four looks at it, be they the library's.
 * What is pinned, or shared with a child, is not marked, as Linux has it.
 */
#include "config.h"

#include "hal/sim/gm_sim_internal.h"

#define LINGER_NS 20000u
#define FREED_ONE_IN 4u

void gm_sim_page_look(struct gm_sim *sim, struct gm_sim_page *page)
{
	if (!page->freed || gm_sim_random(sim, FREED_ONE_IN))
		return;
	gm_sim_frame_free(page->frame);
	*page = (struct gm_sim_page){ .frame = NULL };
}

void gm_sim_block_look(struct gm_sim *sim, struct gm_sim_block *block)
{
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		gm_sim_page_look(sim, &block->page[i]);
}

static void mark_freed(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	for (; va < end; va += GM_PAGE_BYTES) {
		struct gm_sim_block *block = gm_sim_block_get(sim, va, false);
		struct gm_sim_page *page = gm_sim_page_get(sim, va, false);

		if (!page)
			continue;
		block->huge = false;
		page->poisoned = false; /* the mark goes at once */
		page->freed = page->frame && !page->pins && !gm_sim_frame_is_shared(page->frame);
	}
}

/* After an event was read the kernel takes its lock again: anybody may come first. */
static void linger(struct gm_sim *sim)
{
	if (sim->spurious && gm_sim_random(sim, 2))
		gm_sim_sleep_ns(sim, gm_sim_random(sim, LINGER_NS));
	else
		gm_sim_point(sim);
}

/* One mapping's part of [va, end). *next: where to go on. */
static gm_ret_t drop_part(struct gm_sim *sim, struct gm_sim_vma *vma, uint64_t va, uint64_t end, bool later, uint64_t *next)
{
	uint64_t stop = vma->end < end ? vma->end : end;

	if (vma->locked)
		return GM_RET_INVAL;
	if (vma->pmap) {
		gm_sim_event_prepare(vma->pmap);
		gm_sim_event_post(vma->pmap, (struct gm_host_msg){ .kind = GM_HOST_REMOVE,
								   .va = va,
								   .bytes = stop - va });
		linger(sim);
		vma = gm_sim_vma_find(sim, va);
		if (!vma)
			return GM_RET_FAULT;
		stop = vma->end < stop ? vma->end : stop;
	}
	if (later)
		mark_freed(sim, va, stop);
	else
		gm_sim_pages_zap(sim, va, stop);
	*next = stop;
	return GM_RET_SUCCESS;
}

static gm_ret_t drop(struct gm_sim *sim, uint64_t va, uint64_t end, bool later)
{
	while (va < end) {
		struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		gm_ret_t ret = vma ? drop_part(sim, vma, va, end, later, &va) : GM_RET_FAULT;

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* A property of mappings. */
static gm_ret_t set(struct gm_sim *sim, uint64_t va, uint64_t end, enum gm_sim_advice advice)
{
	struct gm_sim_vma *vma;

	if (!gm_sim_vma_covers(sim, va, end))
		return GM_RET_FAULT;
	gm_sim_vma_isolate(sim, va, end);
	for (vma = gm_sim_vma_find(sim, va); vma && vma->va < end; vma = gm_sim_vma_next(sim, vma)) {
		if (advice == GM_SIM_DONTFORK || advice == GM_SIM_DOFORK)
			vma->not_inherited = advice == GM_SIM_DONTFORK;
		else
			vma->huge = advice == GM_SIM_HUGEPAGE;
	}
	gm_sim_vma_merge(sim, va, end);
	return GM_RET_SUCCESS;
}

static gm_ret_t populate(struct gm_sim *sim, uint64_t va, uint64_t end, bool write)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	uint8_t *byte;

	for (; !ret && va < end; va += GM_PAGE_BYTES)
		ret = gm_sim_touch(sim, va, write, &byte);
	return ret;
}

gm_ret_t gm_sim_madvise(struct gm_sim *sim, uint64_t va, uint64_t bytes, enum gm_sim_advice advice)
{
	if (gm_sim_bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	switch (advice) {
	case GM_SIM_DONTNEED:
	case GM_SIM_FREE:
		return drop(sim, va, va + bytes, advice == GM_SIM_FREE);
	case GM_SIM_DONTFORK:
	case GM_SIM_DOFORK:
	case GM_SIM_HUGEPAGE:
	case GM_SIM_NOHUGEPAGE:
		return set(sim, va, va + bytes, advice);
	case GM_SIM_POPULATE_READ:
	case GM_SIM_POPULATE_WRITE:
		return populate(sim, va, va + bytes, advice == GM_SIM_POPULATE_WRITE);
	case GM_SIM_REMOVE:
		break;
	}
	return GM_RET_INVAL;
}

gm_ret_t gm_sim_dontneed(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	return gm_sim_madvise(sim, va, bytes, GM_SIM_DONTNEED);
}
