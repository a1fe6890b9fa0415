/* SPDX-License-Identifier: MIT */
/*
 * Spaces that mirror the process, on the simulated host: the states of gm_mirror.c one by one, and many schedules.
 */
#include "config.h"

#include "core_fixture.h"

#define MIRROR .as = { .flags = GM_AS_MIRROR }

static struct gm_block *block_of(struct world *w, uint64_t va)
{
	return gm_block_find_live(w->as, va);
}

CORE_TEST(mirror_sim, adopted_on_demand_and_let_go, MIRROR)
{
	uint64_t va = app_map_blocks(w, 2), used;
	struct gm_sim_stats s;

	app_fill(w, va, 2 * GM_BLOCK_PAGES, 1);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 1), 0);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES);
	cr_assert_eq(pages_in(w, va + BLOCK, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES, "a block at a time");
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
	used = w->as->regions.count;
	cr_assert_gt(used, 0);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE);
	cr_assert_eq(w->as->regions.count, 0, "what is let go is in no region");
	gm_sim_stats(w->sim, &s);
	cr_assert_eq(s.watched_pages, 0);
	/* What is there now was never looked at. */
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
	OK(gm_sim_munmap(w->sim, va, 2 * BLOCK));
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
}

/* Let go while it is away it may not be, however long that takes. */
CORE_TEST(mirror_sim, away_for_long, MIRROR)
{
	uint64_t va = app_map_blocks(w, 1);

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 3);
	gm_sim_sleep_ns(w->sim, 20 * SECOND); /* packed */
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), GM_BLOCK_PAGES);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 3), 0);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_OUTSIDE, "what was packed still knows that nobody asked for it");
}

/* What is pinned to the host is not taken, though nobody has adopted it yet; nor what is around it, only with it. */
CORE_TEST(mirror_sim, pinned_to_the_host_before_it_is_adopted, MIRROR)
{
	uint64_t va = app_map_blocks(w, 2);

	app_fill(w, va, 2 * GM_BLOCK_PAGES, 1);
	OK(gm_pin(w->as, va + 16 * PAGE, 16 * PAGE, NULL));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	cr_assert_eq(pages_in(w, va + 16 * PAGE, 16, GM_PLACE_HOST), 16);
	cr_assert_eq(page_info(w, va + 16 * PAGE).mapped_write, 1, "in place");
	cr_assert_eq(pages_in(w, va, 16, GM_PLACE_DEVICE), 16);
	cr_assert_eq(pages_in(w, va + 32 * PAGE, GM_BLOCK_PAGES - 32, GM_PLACE_DEVICE), GM_BLOCK_PAGES - 32);
	OK(gm_unpin(w->as, va + 16 * PAGE, 16 * PAGE));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
	OK(gm_dev_fault(w->ctx[0], va + 16 * PAGE, GM_READ));
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
}

CORE_TEST(mirror_sim, external_memory, MIRROR)
{
	uint64_t shared = gm_sim_mmap_shared(w->sim, 4 * BLOCK), small = app_map(w, 4 * PAGE);
	uint64_t only = app_map(w, 2 * BLOCK);
	struct gm_block *b;

	app_fill(w, shared, 16, 1);
	cr_assert_eq(dev_wrong(w->ctx[0], shared, 16, 1), 0);
	dev_fill(w->ctx[0], shared, 16, 2);
	cr_assert_eq(app_wrong(w, shared, 16, 2), 0);
	cr_assert_eq(pages_in(w, shared, 17, GM_PLACE_IN_PLACE), 16);
	cr_assert_eq(w->as->regions.count, 0);
	dev_fill(w->ctx[0], small, 4, 3);
	cr_assert_eq(app_wrong(w, small, 4, 3), 0);
	cr_assert_eq(pages_in(w, small, 4, GM_PLACE_IN_PLACE), 4);
	app_fill(w, only, 2, 4);
	OK(gm_sim_mprotect(w->sim, only, 2 * BLOCK, GM_READ));
	cr_assert_eq(dev_wrong(w->ctx[0], only, 2, 4), 0);
	IS(dev_touch(w->ctx[0], only, true), GM_RET_PERM);
	IS(gm_dev_fault(w->ctx[0], shared, GM_ATOMIC), GM_RET_NOTSUP);
	/* Nothing of it is kept once no device has it. */
	OK(gm_as_detach(w->ctx[0]));
	w->ctx[0] = NULL;
	gm_sim_sleep_ns(w->sim, SECOND);
	b = block_of(w, shared);
	cr_assert_null(b);
	cr_assert_eq(atomic_load(&w->as->mirror.blocks), 0);
}

/* An access that is refused is asked about anew, and what was recorded goes. */
CORE_TEST(mirror_sim, rights_that_change, MIRROR)
{
	uint64_t va = app_map(w, 4 * PAGE);

	dev_fill(w->ctx[0], va, 4, 1);
	OK(gm_sim_mprotect(w->sim, va, 4 * PAGE, GM_READ));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 4, 1), 0);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_PERM);
	OK(gm_sim_mprotect(w->sim, va, 4 * PAGE, 0));
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	cr_assert_eq(page_info(w, va).mapped_read, 0);
	OK(gm_sim_mprotect(w->sim, va, 4 * PAGE, RW));
	cr_assert_eq(dev_wrong(w->ctx[0], va, 4, 1), 0);
	OK(gm_sim_munmap(w->sim, va, 4 * PAGE));
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	IS(dev_touch(w->ctx[0], va, true), GM_RET_FAULT);
}

/* In place, then plain memory: it moves. On a device, then shared: in place. */
CORE_TEST(mirror_sim, other_memory_at_the_address, MIRROR)
{
	uint64_t va = app_map_blocks(w, 2);

	OK(gm_sim_munmap(w->sim, va, 2 * BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, PAGE, RW), va);
	dev_fill(w->ctx[0], va, 1, 1);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, 2 * BLOCK, RW), va);
	IS(gm_dev_fault(w->ctx[0], va, GM_READ), GM_RET_SUCCESS);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE, "a fault asks anew, also where something is mapped");
	app_fill(w, va, GM_BLOCK_PAGES, 2);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
	OK(gm_sim_munmap(w->sim, va, 2 * BLOCK));
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, PAGE, RW), va);
	app_fill(w, va, 1, 3);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 1, 3), 0);
	cr_assert_eq(page_info(w, va).place, GM_PLACE_IN_PLACE);
}

CORE_TEST(mirror_sim, asked_for_explicitly, MIRROR)
{
	uint64_t small = app_map(w, 64 * PAGE), va = app_map_blocks(w, 2);

	/* External, and mapped: the caller says that it may move. */
	dev_fill(w->ctx[0], small, 64, 1);
	OK(gm_adopt(w->as, ptr(small), 64 * PAGE, 0));
	cr_assert_eq(dev_wrong(w->ctx[0], small, 64, 1), 0);
	cr_assert_eq(pages_in(w, small, 64, GM_PLACE_DEVICE), 64);
	/* On demand, and away: it is the caller's from here on. */
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 2);
	OK(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 2), 0);
	gm_sim_sleep_ns(w->sim, 2 * SECOND);
	cr_assert_eq(pages_in(w, va, 2 * GM_BLOCK_PAGES, GM_PLACE_HOST), 2 * GM_BLOCK_PAGES, "it is not let go");
	OK(gm_release(w->as, ptr(va), 2 * BLOCK));
	OK(gm_release(w->as, ptr(small), 64 * PAGE));
	cr_assert_eq(app_wrong(w, small, 64, 1), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0, "and a device may come back");
}

CORE_TEST(mirror_sim, moved_by_the_program, MIRROR)
{
	uint64_t va = app_map_blocks(w, 1), to;

	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 5);
	to = gm_sim_mremap(w->sim, va, BLOCK);
	cr_assert_neq(to, 0);
	cr_assert_eq(app_wrong(w, to, GM_BLOCK_PAGES, 5), 0);
	IS(dev_touch(w->ctx[0], va, false), GM_RET_FAULT);
	cr_assert_eq(dev_wrong(w->ctx[0], to, GM_BLOCK_PAGES, 5), 0);
	dev_fill(w->ctx[0], to, GM_BLOCK_PAGES, 6);
	cr_assert_eq(app_wrong(w, to, GM_BLOCK_PAGES, 6), 0);
}

/* Addresses are used once: what is remembered of them does not grow with them. */
CORE_TEST(mirror_sim, addresses_that_are_gone, MIRROR)
{
	unsigned most = 0;

	for (unsigned i = 0; i < 600; i++) {
		uint64_t va = gm_sim_mmap_at(w->sim, (UINT64_C(1) << 40) + i * BLOCK, PAGE, RW);

		app_fill(w, va, 1, i);
		cr_assert_eq(dev_wrong(w->ctx[0], va, 1, i), 0);
		OK(gm_sim_munmap(w->sim, va, PAGE));
		if (atomic_load(&w->as->mirror.blocks) > most)
			most = atomic_load(&w->as->mirror.blocks);
	}
	cr_assert_leq(most, 200, "%u blocks", most);
	cr_assert_gt(most, 20, "the run proves nothing");
}

CORE_TEST(mirror_sim, held_and_gone, MIRROR, .dev = { "mock:vram=4M,faults=no" })
{
	uint64_t shared = gm_sim_mmap_shared(w->sim, 2 * BLOCK), va = app_map_blocks(w, 1);
	struct gm_ws_range r[] = {
		{ .va = shared, .bytes = 4 * PAGE, .access = GM_WRITE },
		{ .va = va, .bytes = BLOCK, .access = GM_WRITE },
	};
	struct gm_ws *ws;

	app_fill(w, shared, 4, 1);
	app_fill(w, va, GM_BLOCK_PAGES, 2);
	OK(gm_ws_acquire(w->ctx[0], r, 2, 10 * SECOND, &ws));
	cr_assert_eq(dev_wrong(w->ctx[0], shared, 4, 1), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, GM_BLOCK_PAGES, 2), 0);
	OK(gm_sim_munmap(w->sim, shared, PAGE));
	IS(dev_touch(w->ctx[0], shared, false), GM_RET_FAULT);
	IS(gm_dev_fault(w->ctx[0], shared, GM_READ), GM_RET_FAULT);
	cr_assert_eq(dev_wrong(w->ctx[0], shared + 2 * PAGE, 1, 1), 1, "another word");
	OK(gm_ws_release(ws, NULL));
	IS(gm_ws_acquire(w->ctx[0], r, 2, SECOND, &ws), GM_RET_FAULT);
	r[0].va += PAGE;
	r[0].bytes -= PAGE;
	OK(gm_ws_acquire(w->ctx[0], r, 2, 10 * SECOND, &ws));
	OK(gm_ws_release(ws, NULL));
}

/* -------------------------------------------------------- many schedules */

#define PLACES 3u

static struct {
	uint64_t va[PLACES];
	bool stop;
} race;

static void changing(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < 12; i++) {
		uint64_t va = race.va[gm_sim_random(w->sim, PLACES)];

		OK(gm_sim_munmap(w->sim, va, BLOCK));
		cr_assert_eq(gm_sim_mmap_at(w->sim, va, gm_sim_random(w->sim, 2) ? BLOCK : 8 * PAGE, RW), va);
		app_put(w, va, 0x1000 + i);
		cr_assert_eq(app_get(w, va), 0x1000 + i);
		gm_sim_sleep_ns(w->sim, gm_sim_random(w->sim, 20 * MS));
		cr_assert_eq(app_get(w, va), 0x1000 + i, "a store of the program is lost");
	}
	race.stop = true;
}

static void reaching(void *arg)
{
	struct world *w = arg;

	while (!race.stop) {
		gm_ret_t ret = gm_dev_fault(w->ctx[gm_sim_random(w->sim, 2)], race.va[gm_sim_random(w->sim, PLACES)],
					    gm_sim_random(w->sim, 2) ? GM_READ : GM_WRITE);

		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_FAULT, "%s: %s", gm_ret_name(ret), gm_last_error());
		gm_sim_sleep_ns(w->sim, gm_sim_random(w->sim, 3 * MS));
	}
}

static void schedules_body(struct world *w)
{
	struct gm_thread *t[3];

	race.stop = false;
	for (unsigned i = 0; i < PLACES; i++)
		race.va[i] = app_map_blocks(w, 1);
	t[0] = spawn(w, changing, w);
	t[1] = spawn(w, reaching, w);
	t[2] = spawn(w, reaching, w);
	for (unsigned i = 0; i < 3; i++)
		join(w, t[i]);
}

Test(mirror_sim, schedules)
{
	const char *seeds = getenv("GM_TEST_SEEDS");
	uint64_t n = seeds ? strtoull(seeds, NULL, 0) : 200;

	for (uint64_t seed = 1; seed <= n; seed++) {
		const struct world_config config = {
			MIRROR, .dev = { "mock:vram=4M", "mock:vram=4M" }, .seed = seed, .spurious = true,
		};

		world_run(&config, schedules_body);
	}
}
