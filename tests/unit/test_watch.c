/* SPDX-License-Identifier: MIT */
/*
 * GM_AS_WATCH: adopted memory is watched from gm_adopt() to gm_release(), with holes, without any device, and after
 * blocks were forgotten; and not a moment longer.
 */
#include "config.h"

#include "core_fixture.h"

static uint64_t watched(struct world *w)
{
	struct gm_sim_stats sim;

	gm_sim_stats(w->sim, &sim);
	return sim.watched_pages;
}

/* Every first touch is told, the kernel fills no hole by itself; by one page each. */
static void touch_holes(struct world *w, uint64_t va, uint64_t pages)
{
	uint64_t before = stats_of(w).cpu_faults;

	for (uint64_t i = 0; i < pages; i++) {
		cr_assert_eq(app_get(w, word_va(va, i)), 0);
		app_put(w, word_va(va, i), word(i, 7));
	}
	cr_assert_eq(stats_of(w).cpu_faults - before, pages, "a first touch was not told");
	cr_assert_eq(app_wrong(w, va, pages, 7), 0);
}

CORE_TEST(watch, from_adoption_to_release, .as = { .flags = GM_AS_WATCH })
{
	uint64_t va = app_map_blocks(w, 3), pages = 2 * GM_BLOCK_PAGES + 5;

	OK(gm_adopt(w->as, ptr(va), pages * PAGE, 0));
	cr_assert_eq(watched(w), pages);
	touch_holes(w, va, 40);
	gm_sim_sleep_ns(w->sim, 3 * SECOND);
	touch_holes(w, va + 2 * BLOCK, 5);
	cr_assert_eq(watched(w), pages);
	OK(gm_release(w->as, ptr(va), pages * PAGE));
	cr_assert_eq(watched(w), 0, "released, and watched still");
	cr_assert_eq(app_wrong(w, va, 40, 7), 0);
}

/* A block that a device had is forgotten when it is all home, but its holes stay watched. */
CORE_TEST(watch, outlives_the_block, .as = { .flags = GM_AS_WATCH | GM_AS_EXCLUSIVE })
{
	uint64_t va = app_map_blocks(w, 2);

	OK(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0));
	touch_holes(w, va, 32);
	OK(gm_migrate(w->as, va, UINT64_C(32) * PAGE, w->dev[0], NULL));
	cr_assert_eq(pages_in(w, va, 32, GM_PLACE_DEVICE), 32);
	cr_assert_eq(app_wrong(w, va, 32, 7), 0);
	gm_sim_sleep_ns(w->sim, 3 * SECOND);
	cr_assert_eq(watched(w), 2 * (uint64_t)GM_BLOCK_PAGES);
	touch_holes(w, va + 64 * PAGE, 32);
	OK(gm_release(w->as, ptr(va), BLOCK));
	cr_assert_eq(watched(w), GM_BLOCK_PAGES, "only what was released is let go");
	cr_assert_eq(app_wrong(w, va, 32, 7), 0);
}

/* Unmapped without gm_release(), and no device was ever there: told all the same. */
CORE_TEST(watch, unmapped, .as = { .flags = GM_AS_WATCH })
{
	uint64_t va = app_map_blocks(w, 2);

	OK(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0));
	touch_holes(w, va, 3);
	OK(gm_sim_munmap(w->sim, va, BLOCK));
	gm_sim_sleep_ns(w->sim, MS);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES);
	cr_assert_eq(watched(w), GM_BLOCK_PAGES);
	cr_assert_eq(gm_sim_mmap_at(w->sim, va, BLOCK, RW), va);
	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	touch_holes(w, va, 3);
}

/* What the host does not watch is not adopted. */
CORE_TEST(watch, refused, .as = { .flags = GM_AS_WATCH })
{
	uint64_t va = app_map_blocks(w, 1);

	OK(gm_sim_fail(w->sim, "watch", 1, 1));
	cr_assert_neq(gm_adopt(w->as, ptr(va + 100), BLOCK - 200, 0), GM_RET_SUCCESS);
	cr_assert_eq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_OUTSIDE), GM_BLOCK_PAGES);
	cr_assert_eq(watched(w), 0);
	OK(gm_adopt(w->as, ptr(va + 100), BLOCK - 200, 0));
	cr_assert_eq(watched(w), GM_BLOCK_PAGES - 2);
}

/* Without the flag nothing is watched before a device comes. */
CORE_TEST(watch, not_asked_for)
{
	uint64_t va = app_map_blocks(w, 1);

	OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
	cr_assert_eq(watched(w), 0);
}

/* With events and wake-ups for nothing in between. */
CORE_TEST(watch, spurious, .as = { .flags = GM_AS_WATCH }, .spurious = true, .seed = 5)
{
	for (unsigned i = 0; i < 20; i++) {
		uint64_t va = app_map_blocks(w, 2);

		OK(gm_adopt(w->as, ptr(va), 2 * BLOCK, 0));
		app_fill(w, va, GM_BLOCK_PAGES, i);
		OK(gm_sim_dontneed(w->sim, va + BLOCK / 2, BLOCK / 2));
		OK(gm_migrate(w->as, va, BLOCK / 2, w->dev[0], NULL));
		cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES / 2, i), 0);
		cr_assert_eq(app_get(w, va + BLOCK / 2), 0);
		OK(i % 2 ? gm_release(w->as, ptr(va), 2 * BLOCK) : gm_sim_munmap(w->sim, va, 2 * BLOCK));
	}
	gm_sim_sleep_ns(w->sim, MS);
	cr_assert_eq(watched(w), 0);
}
