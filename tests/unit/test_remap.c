/* SPDX-License-Identifier: MIT */
/*
 * mremap() of memory that is away, on the simulated host: bytes follow wherever
 * the range goes, what the program does at the new place counts, and nothing
 * waits without a bound.
 */
#include "config.h"

#include "core_fixture.h"

#define SMALL 16u /* pages: one unit */

/* A piece of adopted memory of its own, all of it on the device. */
static uint64_t away(struct world *w, uint64_t pages, uint64_t salt)
{
	uint64_t va = app_map(w, pages * PAGE);

	app_fill(w, va, pages, salt);
	OK(gm_adopt(w->as, ptr(va), pages * PAGE, 0));
	dev_fill(w->ctx[0], va, pages, salt + 1);
	return va;
}

/* Right after the move, while the bytes are still under way. */
CORE_TEST(remap, content_given_up_on_the_way, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=50000" })
{
	uint64_t va = away(w, SMALL, 1), to = gm_sim_mremap(w->sim, va, SMALL * PAGE);

	OK(gm_sim_dontneed(w->sim, to + 4 * PAGE, 4 * PAGE));
	for (uint64_t i = 0; i < SMALL; i++)
		cr_assert_eq(app_get(w, word_va(to, i)), i / 4 == 1 ? 0 : word(i, 2), "page %u", (unsigned)i);
	for (uint64_t i = 0; i < SMALL; i++)
		OK(gm_dev_fault(w->ctx[0], to + i * PAGE, GM_READ));
	for (uint64_t i = 0; i < SMALL; i++)
		cr_assert_eq(app_get(w, word_va(to, i)), i / 4 == 1 ? 0 : word(i, 2), "page %u after a device", (unsigned)i);
	world_check(w);
}

CORE_TEST(remap, unmapped_on_the_way, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=50000" })
{
	uint64_t va = away(w, SMALL, 1), left = dev_free_bytes(w->dev[0]);
	uint64_t to = gm_sim_mremap(w->sim, va, SMALL * PAGE), again;

	OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
	again = gm_sim_mmap_at(w->sim, to, SMALL * PAGE, RW); /* somebody else's now */
	cr_assert_eq(again, to);
	for (uint64_t i = 0; i < SMALL; i++)
		cr_assert_eq(app_get(w, to + i * PAGE), 0, "page %u shows what was there before", (unsigned)i);
	OK(gm_adopt(w->as, ptr(to), SMALL * PAGE, 0));
	dev_fill(w->ctx[0], to, SMALL, 7);
	cr_assert_eq(app_wrong(w, to, SMALL, 7), 0);
	cr_assert_geq(dev_free_bytes(w->dev[0]), left, "the old frames were not given back");
	world_check(w);
}

/* First fit: each range moves to where the one before it was. */
CORE_TEST(remap, three_change_places, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=50000" })
{
	uint64_t a = away(w, SMALL, 10), b = away(w, SMALL, 20), c, a_to, b_to;

	a_to = gm_sim_mremap(w->sim, a, SMALL * PAGE);
	b_to = gm_sim_mremap(w->sim, b, SMALL * PAGE);
	cr_assert_eq(b_to, a, "the test needs the place to be used again");
	c = gm_sim_mremap(w->sim, a_to, SMALL * PAGE);
	cr_assert_eq(c, b, "and this one");
	cr_assert_eq(app_wrong(w, c, SMALL, 11), 0);
	cr_assert_eq(app_wrong(w, b_to, SMALL, 21), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], c, SMALL, 11), 0);
	cr_assert_eq(dev_wrong(w->ctx[0], b_to, SMALL, 21), 0);
	world_check(w);
}

static struct {
	const struct gm_env_ops *ops;
	unsigned looks;
} watched_clock;

static uint64_t count_look(struct gm_env *env)
{
	watched_clock.looks++;
	return watched_clock.ops->now_ns(env);
}

/* How often the library looks at the clock while nothing happens. */
static unsigned looks_in(struct world *w, uint64_t ns)
{
	struct gm_env_ops counting = *w->env->ops;

	watched_clock.ops = w->env->ops;
	watched_clock.looks = 0;
	counting.now_ns = count_look;
	w->env->ops = &counting;
	gm_sim_sleep_ns(w->sim, ns);
	w->env->ops = watched_clock.ops;
	return watched_clock.looks;
}

/* What a working set holds stays with the device; everybody else goes on. */
CORE_TEST(remap, held_on_the_way, .dev = { "mock:vram=4M,faults=no" }, .as = { .hold_ns = 300 * MS })
{
	uint64_t va = app_map(w, SMALL * PAGE), other = app_map(w, SMALL * PAGE), to, value, start;
	struct gm_ws_range range = { .va = va, .bytes = SMALL * PAGE, .access = GM_WRITE };
	struct gm_ws *ws = NULL;
	unsigned looks;

	app_fill(w, va, SMALL, 1);
	OK(gm_adopt(w->as, ptr(va), SMALL * PAGE, 0));
	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	dev_fill(w->ctx[0], va, SMALL, 2);
	to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
	start = gm_now_ns(w->env);
	OK(gm_adopt(w->as, ptr(other), SMALL * PAGE, 0));
	cr_assert_lt(gm_now_ns(w->env) - start, 50 * MS, "adopting other memory waited for the set");
	IS(gm_sim_load(w->sim, to, &value, sizeof(value)), GM_RET_IO);
	cr_assert_lt(gm_now_ns(w->env) - start, 600 * MS, "no bound");
	looks = looks_in(w, 100 * MS);
	cr_assert_lt(looks, 10000, "somebody is busy waiting: the clock was read %u times in 100 ms", looks);
	cr_assert_gt(w->errors, 0, "it failed silently");
	OK(gm_ws_release(ws, NULL));
	OK(gm_adopt(w->as, ptr(to), SMALL * PAGE, 0)); /* at once: it waits for what is under way */
	cr_assert_eq(app_wrong(w, to, SMALL, 2), 0);
	cr_assert_eq(pages_in(w, to, SMALL, GM_PLACE_OUTSIDE), 0, "its new place is not managed");
	OK(gm_migrate(w->as, to, SMALL * PAGE, w->dev[0], NULL));
	cr_assert_eq(app_wrong(w, to, SMALL, 2), 0);
	world_check(w);
}

/* Whenever the set is released while its pages are to go elsewhere: from then on they are waited for. */
CORE_TEST(remap, released_on_the_way, .dev = { "mock:vram=4M,visible=no,copy=async,copyns=5000" }, .spurious = true)
{
	for (unsigned i = 0; i < 300; i++) {
		uint64_t va = away(w, SMALL, i), to;
		struct gm_ws_range range = { .va = va, .bytes = SMALL * PAGE, .access = GM_WRITE };
		struct gm_ws *ws = NULL;

		OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
		to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
		gm_sim_sleep_ns(w->sim, (uint64_t)i * 10);
		OK(gm_ws_release(ws, NULL));
		OK(gm_adopt(w->as, ptr(to), SMALL * PAGE, 0));
		cr_assert_eq(app_wrong(w, to, SMALL, i + 1), 0);
		OK(gm_release(w->as, ptr(to), SMALL * PAGE));
		OK(gm_sim_munmap(w->sim, to, SMALL * PAGE));
	}
}

/* Nobody watches what no device has used: the new place is unknown until it is adopted, and no byte is the worse for it. */
CORE_TEST(remap, before_a_device_used_it, .dev = { "mock:vram=4M" })
{
	uint64_t va = app_map(w, SMALL * PAGE), to;

	app_fill(w, va, SMALL, 1);
	OK(gm_adopt(w->as, ptr(va), SMALL * PAGE, 0));
	to = gm_sim_mremap(w->sim, va, SMALL * PAGE);
	IS(gm_dev_fault(w->ctx[0], to, GM_WRITE), GM_RET_FAULT);
	OK(gm_adopt(w->as, ptr(to), SMALL * PAGE, 0));
	cr_assert_eq(dev_wrong(w->ctx[0], to, SMALL, 1), 0);
	dev_fill(w->ctx[0], to, SMALL, 2);
	cr_assert_eq(app_wrong(w, to, SMALL, 2), 0);
	world_check(w);
}
