/* SPDX-License-Identifier: MIT */
/* For tests of coherence.h: what of a range is duplicated or exclusive, and the bytes that a device's own memory has. */
#ifndef GM_TEST_DUP_FIXTURE_H
#define GM_TEST_DUP_FIXTURE_H

#include "core_fixture.h"

#include "core/gm_txn.h"

#define TWO_DEVS .dev = { "mock:vram=4M", "mock:vram=4M" }

/* How many pages of a range have all of these flags. */
static inline uint64_t pages_with(struct world *w, uint64_t va, uint64_t pages, uint32_t flags)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += (page_info(w, va + i * PAGE).flags & flags) == flags;
	return n;
}

static inline uint64_t dups(struct world *w, uint64_t va, uint64_t pages)
{
	return pages_with(w, va, pages, GM_PAGE_DUPLICATED);
}

/* Where the device has the page, or its duplicate of it: its own memory, looked at without any translation. NULL: nowhere. */
static inline const void *dev_bytes(struct world *w, unsigned dev, uint64_t va, bool duplicate)
{
	struct gm_block *b = gm_block_find(w->as, va);
	struct gm_frame_map map = { .unit_pa = { 0 } };
	bool there = false;
	unsigned page;

	if (!b)
		return NULL;
	page = gm_page_of(b, va);
	gm_lock(w->env, &b->lock);
	if (b->node[w->dev[dev]->index]) {
		const struct gm_bnode *n = b->node[w->dev[dev]->index];

		there = gm_mask_test(duplicate ? &n->copy : &n->resident, page);
		gm_block_frames(b, w->dev[dev]->index, &map);
	}
	gm_unlock(w->env, &b->lock);
	gm_block_put(b);
	return there ? gm_hal_cpu_ptr(w->dev[dev]->hal, gm_frame_pa(&map, page), PAGE) : NULL;
}

/* How many pages' words are wrong in the device's own memory; those that are not there are. */
static inline uint64_t memory_wrong(struct world *w, unsigned dev, uint64_t va, uint64_t pages, uint64_t salt)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < pages; i++) {
		const char *at = dev_bytes(w, dev, va + i * PAGE, true);
		uint64_t value = 0;

		if (at)
			memcpy(&value, at + (word_va(va, i) - (va + i * PAGE)), sizeof(value));
		wrong += !at || value != word(i, salt);
	}
	return wrong;
}

/* Is the page at its address, and what is there? As the bus sees it: nobody is asked and nothing waits. */
static inline bool is_at_home(struct world *w, uint64_t va)
{
	char byte;

	return gm_hal_bus_access(w->as->host, va, &byte, 1, false) == GM_RET_SUCCESS;
}

static inline void duplicate(struct world *w, uint64_t va, uint64_t pages, unsigned dev)
{
	uint64_t bytes = 0;

	OK(gm_duplicate(w->as, va, pages * PAGE, w->dev[dev], &bytes));
	cr_assert_eq(bytes, pages * PAGE);
	world_check(w);
}

static inline uint64_t dev_fault_count(struct world *w, unsigned dev)
{
	struct gm_mock_stats s;

	OK(gm_mock_stats(w->dev[dev], &s));
	return s.faults;
}

#endif
