/* SPDX-License-Identifier: MIT */
/*
 * Read duplication, in simulation: how duplicates are made and how they end; each time the flags, the mappings, where
 * the bytes are (the process's page, the device's own memory) and what they are.
 */
#include "config.h"

#include "dup_fixture.h"

/* All of them read, and nobody had to wait or be served for it. */
static void all_read(struct world *w, uint64_t va, uint64_t pages, uint64_t salt)
{
	struct gm_stats before = stats_of(w), after;

	cr_assert_eq(app_wrong(w, va, pages, salt), 0);
	for (unsigned i = 0; i < 2 && w->dev[i]; i++)
		if (dev_bytes(w, i, va, true))
			cr_assert_eq(dev_wrong(w->ctx[i], va, pages, salt), 0);
	after = stats_of(w);
	cr_assert_eq(after.cpu_faults, before.cpu_faults);
	cr_assert_eq(after.dev_faults + after.dev_faults_spurious, before.dev_faults + before.dev_faults_spurious);
}

CORE_TEST(dup, from_the_host, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_page_info info;

	duplicate(w, va + 10 * PAGE, 100, 0);
	cr_assert_eq(dups(w, va, GM_BLOCK_PAGES), 100);
	info = page_info(w, va + 50 * PAGE);
	cr_assert_eq(info.place, GM_PLACE_HOST);
	cr_assert_eq(info.mapped_read, 1);
	cr_assert_eq(info.mapped_write, 0);
	cr_assert(is_at_home(w, va + 50 * PAGE));
	cr_assert_null(dev_bytes(w, 0, va + 50 * PAGE, false), "not resident");
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(stats_of(w).bytes_to_dev, 100 * PAGE);
	cr_assert_eq(stats_of(w).pages_duplicated, 100);
	duplicate(w, va + 10 * PAGE, 100, 0); /* again: nothing to do */
	cr_assert_eq(stats_of(w).bytes_to_dev, 100 * PAGE);
}

#define TWO_BLOCKS (2 * (uint64_t)GM_BLOCK_PAGES)

/* All of two blocks; the device's memory has exactly these bytes. */
CORE_TEST(dup, whole_blocks, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 2, 3);

	duplicate(w, va, TWO_BLOCKS, 0);
	cr_assert_eq(memory_wrong(w, 0, va, TWO_BLOCKS, 3), 0);
	cr_assert_eq(dev_free_bytes(w->dev[0]), 0);
	all_read(w, va, TWO_BLOCKS, 3);
	cr_assert_eq(dups(w, va, TWO_BLOCKS), TWO_BLOCKS);
}

CORE_TEST(dup, two_devices, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 64, 0);
	cr_assert_eq(memory_wrong(w, 0, va, 64, 1), 0);
	duplicate(w, va, 32, 1);
	cr_assert_eq(memory_wrong(w, 1, va, 32, 1), 0);
	cr_assert_eq(page_info(w, va).mapped_read, 3, "the first one keeps what it has mapped");
	cr_assert_eq(page_info(w, va + 32 * PAGE).mapped_read, 1);
	duplicate(w, va + 48 * PAGE, 32, 1); /* some that the other has, some that nobody has */
	cr_assert_eq(dups(w, va, GM_BLOCK_PAGES), 80);
	cr_assert_eq(page_info(w, va + 63 * PAGE).mapped_read, 3);
	cr_assert_eq(page_info(w, va + 64 * PAGE).mapped_read, 2);
	all_read(w, va, 32, 1);
}

/* A page that the device wrote is brought to where both have it. */
CORE_TEST(dup, from_the_device, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, 40, 7);
	dev_fill(w->ctx[1], va + 40 * PAGE, 40, 7);
	duplicate(w, va, 80, 0);
	cr_assert_eq(memory_wrong(w, 0, va, 40, 7), 0);
	cr_assert_eq(app_wrong(w, va, 40, 7), 0);
	cr_assert_eq(app_wrong(w, va + 40 * PAGE, 40, 7), 0);
	cr_assert_eq(dups(w, va, 80), 80, "looking at them changes nothing");
}

/* Holes, and what was given up: zeros for both. */
CORE_TEST(dup, without_content, TWO_DEVS)
{
	uint64_t va = app_map_blocks(w, 1), value = 1;

	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	app_put(w, va + 4 * PAGE, 99);
	dev_fill(w->ctx[0], va + 8 * PAGE, 4, 5);
	OK(gm_discard(w->as, va + 8 * PAGE, 4 * PAGE));
	cr_assert_eq(page_info(w, va + 8 * PAGE).place, GM_PLACE_NONE);
	duplicate(w, va, 16, 0);
	for (uint64_t i = 0; i < 16; i++) {
		const uint64_t *at = dev_bytes(w, 0, va + i * PAGE, true);

		cr_assert_not_null(at);
		cr_assert_eq(*at, i == 4 ? 99 : 0);
		OK(gm_hal_bus_access(w->as->host, va + i * PAGE, &value, 8, false));
		cr_assert_eq(value, i == 4 ? 99 : 0);
	}
	cr_assert_eq(page_info(w, va + 8 * PAGE).place, GM_PLACE_HOST);
}

CORE_TEST(dup, a_store_of_the_process_ends_it, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), at = va + 20 * PAGE;

	duplicate(w, va, 64, 0);
	duplicate(w, va, 64, 1);
	app_put(w, at, 4711);
	cr_assert_eq(dups(w, va, 64), 48, "with the unit around it");
	cr_assert_eq(page_info(w, at).mapped_read, 0);
	cr_assert_null(dev_bytes(w, 0, at, true));
	cr_assert_null(dev_bytes(w, 1, at, true));
	cr_assert_eq(stats_of(w).dups_ended, 16);
	world_check(w);
	app_put(w, at, 4712); /* no fault: it is a page like others */
	cr_assert_eq(stats_of(w).cpu_faults, 1);
	app_put(w, word_va(va, 20), word(20, 1));
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(dev_wrong(w->ctx[i], va, 64, 1), 0);
	cr_assert_eq(app_get(w, at), 4712);
}

/* The device has the bytes already: nothing is copied, whoever else had them has them no more. */
CORE_TEST(dup, a_store_of_a_device_ends_it, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), copied, free_before;

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	copied = stats_of(w).bytes_to_dev;
	free_before = dev_free_bytes(w->dev[1]);
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE);
	cr_assert_eq(page_info(w, va).dev, w->dev[0]);
	cr_assert_eq(page_info(w, va).mapped_write, 1);
	cr_assert_eq(page_info(w, va).mapped_read, 1);
	cr_assert_eq(stats_of(w).bytes_to_dev, copied, "nothing was to be copied");
	cr_assert_not_null(dev_bytes(w, 0, va, false));
	cr_assert_null(dev_bytes(w, 1, va, true));
	cr_assert(!is_at_home(w, va));
	world_check(w);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 1), 0);
	dev_fill(w->ctx[0], va, 32, 2);
	cr_assert_gt(dev_free_bytes(w->dev[1]), free_before, "the other one's frames are free");
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 2), 0);
	cr_assert_eq(app_wrong(w, va, 32, 2), 0);
}

/* Another device reads: it gets a duplicate of its own, and the first keeps its mapping. */
CORE_TEST(dup, a_device_that_reads_gets_one, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 1), 0);
	cr_assert_eq(dups(w, va, 32), 32);
	cr_assert_eq(page_info(w, va).mapped_read, 3);
	cr_assert_eq(memory_wrong(w, 1, va, 32, 1), 0);
	cr_assert_leq(dev_fault_count(w, 1), 4, "a unit for each fault");
	world_check(w);
	app_put(w, va, 1);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
}

/* A mapping that went is no reason to move anything. */
CORE_TEST(dup, a_mapping_comes_back, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), copied;
	struct gm_block *b;
	struct gm_mask pages = gm_mask_span(0, 16);

	duplicate(w, va, 16, 0);
	copied = stats_of(w).bytes_to_dev;
	b = gm_block_find(w->as, va);
	OK(gm_plan_revoke(b, &pages, UINT64_MAX, false));
	gm_block_put(b);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 1), 0);
	cr_assert_eq(stats_of(w).bytes_to_dev, copied);
	cr_assert_eq(dups(w, va, 16), 16);
}

CORE_TEST(dup, pinned_and_locked_pages_stay, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 0;

	OK(gm_sim_pin(w->sim, va + 3 * PAGE));
	OK(gm_sim_mlock(w->sim, va + 5 * PAGE, PAGE, true));
	IS(gm_duplicate(w->as, va, 16 * PAGE, w->dev[0], &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 14 * PAGE);
	cr_assert_eq(dups(w, va, 16), 14);
	cr_assert(!(page_info(w, va + 3 * PAGE).flags & GM_PAGE_DUPLICATED));
	world_check(w);
	gm_sim_unpin(w->sim, va + 3 * PAGE);
	OK(gm_sim_mlock(w->sim, va + 5 * PAGE, PAGE, false));
	duplicate(w, va, 16, 0);
}

/* A pin that comes later waits as a store does, and ends it. */
CORE_TEST(dup, a_pin_ends_it, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 16, 0);
	OK(gm_sim_pin(w->sim, va + 3 * PAGE));
	cr_assert_eq(dups(w, va, 16), 0);
	gm_sim_unpin(w->sim, va + 3 * PAGE);
}

CORE_TEST(dup, not_managed_and_poisoned, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 7;

	IS(gm_duplicate(w->as, va + BLOCK - 4 * PAGE, 8 * PAGE, w->dev[0], &bytes), GM_RET_FAULT);
	cr_assert_eq(bytes, 4 * PAGE);
	IS(gm_duplicate(w->as, va + 2 * BLOCK, PAGE, w->dev[0], &bytes), GM_RET_FAULT);
	cr_assert_eq(bytes, 0);
	dev_fill(w->ctx[1], va, 4, 2);
	OK(gm_mock_lose(w->dev[1]));
	IS(gm_duplicate(w->as, va, 32 * PAGE, w->dev[0], &bytes), GM_RET_NODEV);
	cr_assert_eq(bytes, 16 * PAGE, "the unit that was there is lost");
	world_check(w);
}

CORE_TEST(dup, held_pages_are_left_out, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 0;
	struct gm_ws_range range = { .va = va, .bytes = 16 * PAGE, .access = GM_READ };
	struct gm_ws *ws;

	OK(gm_ws_acquire(w->ctx[1], &range, 1, SECOND, &ws));
	IS(gm_duplicate(w->as, va, 32 * PAGE, w->dev[0], &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 16 * PAGE);
	OK(gm_ws_release(ws, NULL));
	duplicate(w, va, 32, 0);
	OK(gm_ws_acquire(w->ctx[1], &range, 1, SECOND, &ws)); /* a set takes them to its device */
	cr_assert_eq(dups(w, va, 32), 16);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 16, 1), 0);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(app_wrong(w, va, 32, 1), 0);
}

CORE_TEST(dup, does_not_fit, .dev = { "mock:vram=1M", NULL })
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 1;

	IS(gm_duplicate(w->as, va, BLOCK, w->dev[0], &bytes), GM_RET_NOSPC);
	cr_assert_eq(bytes, 0);
	cr_assert_eq(dups(w, va, GM_BLOCK_PAGES), 0);
	duplicate(w, va, GM_BLOCK_PAGES / 2, 0);
}

/* Memory is wanted for something else: duplicates go first and cost nothing. */
CORE_TEST(dup, is_evicted, .dev = { "mock:vram=1M", NULL })
{
	uint64_t va = app_adopted(w, 1, 1), home;

	duplicate(w, va, GM_BLOCK_PAGES / 2, 0);
	home = stats_of(w).bytes_to_host;
	dev_fill(w->ctx[0], va + BLOCK / 2, 64, 4);
	cr_assert_eq(stats_of(w).bytes_to_host, home, "nothing was copied home");
	cr_assert_eq(dups(w, va, GM_BLOCK_PAGES / 2), GM_BLOCK_PAGES / 2 - 64);
	world_check(w);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES / 2, 1), 0);
	app_fill(w, va, 256, 5); /* whether or not they are duplicated still */
	cr_assert_eq(app_wrong(w, va, 256, 5), 0);
}

CORE_TEST(dup, large_granule, .dev = { "mock:vram=4M,pages=64K+2M", "mock:vram=4M" })
{
	uint64_t va = app_adopted(w, 1, 1), bytes = 0;

	IS(gm_duplicate(w->as, va + PAGE, 20 * PAGE, w->dev[0], &bytes), GM_RET_BUSY);
	cr_assert_eq(bytes, 0, "no whole page of the device");
	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	all_read(w, va, 32, 1);
	app_put(w, va + 3 * PAGE, 5);
	cr_assert_eq(dups(w, va, 32), 16);
	cr_assert_eq(page_info(w, va + 3 * PAGE).mapped_read, 0);
	world_check(w);
	app_put(w, word_va(va, 3), word(3, 1));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 32, 1), 0);
}

/* A device whose invalidation is waited for: the worker ends it. */
CORE_TEST(dup, ended_by_the_worker, .dev = { "mock:vram=4M,fastinvl=no,copy=async", "mock:vram=4M,visible=no" })
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	duplicate(w, va, 32, 1);
	app_fill(w, va, 32, 2);
	cr_assert_eq(dups(w, va, 32), 0);
	cr_assert_eq(stats_of(w).cpu_faults_inline, 0);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(dev_wrong(w->ctx[i], va, 32, 2), 0);
}

/* Without faults a device needs the mapping at once, and loses it with the store. */
CORE_TEST(dup, device_without_faults, .dev = { "mock:vram=4M,faults=no", NULL })
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 32, 0);
	all_read(w, va, 32, 1);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	app_put(w, va, 3);
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	duplicate(w, va, 32, 0);
	OK(dev_touch(w->ctx[0], va, false));
}

CORE_TEST(dup, exclusive_backing, TWO_DEVS, .as = { .flags = GM_AS_EXCLUSIVE })
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, 32, 3);
	duplicate(w, va, 64, 0);
	app_fill(w, va + 32 * PAGE, 16, 3);
	dev_fill(w->ctx[0], va + 48 * PAGE, 16, 3);
	cr_assert_eq(dev_wrong(w->ctx[1], va, 32, 3), 0);
	cr_assert_eq(app_wrong(w, va, 32, 3), 0);
	cr_assert_eq(app_wrong(w, va + 48 * PAGE, 16, 3), 0);
}

CORE_TEST(dup, packed_blocks_have_none, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1), i;

	w->as->pack.idle_ns = 10 * MS;
	duplicate(w, va, 16, 0);
	for (i = 0; i < 20; i++)
		gm_sim_sleep_ns(w->sim, 100 * MS);
	cr_assert_eq(stats_of(w).blocks_packed, 0);
	cr_assert_eq(dups(w, va, 16), 16);
	app_put(w, va, 1);
	dev_fill(w->ctx[0], va + 32 * PAGE, 1, 1);
	for (i = 0; i < 20; i++)
		gm_sim_sleep_ns(w->sim, 100 * MS);
	cr_assert_eq(stats_of(w).blocks_packed, 1);
	duplicate(w, va, 16, 0); /* and one is opened for it */
}

/* A block is forgotten only when nothing of it is duplicated: else nobody would be told of a store. */
CORE_TEST(dup, is_not_forgotten, TWO_DEVS)
{
	uint64_t va = app_adopted(w, 1, 1);

	duplicate(w, va, 16, 0);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	app_put(w, va, 5);
	cr_assert_eq(dups(w, va, 16), 0);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	cr_assert_null(gm_block_find_live(w->as, va), "and then it is");
}
