/* SPDX-License-Identifier: MIT */
/*
 * A working set that comes while memory is taken away. Whoever takes it away looks first whether a set holds it; a set
 * acquired a moment later must not be torn apart: never do both have the pages. Here it comes at every moment there is:
 * before the 1st, the 2nd ... the last lock that the call takes with empty hands. And the other way round.
 */
#include "config.h"

#include "comes_fixture.h"

#define BYTES (2 * UNIT)
#define PAGES (BYTES / PAGE)

static struct gm_ws *the_set;

static gm_ret_t do_acquire(struct gm_as *as, uint64_t va)
{
	struct gm_ws_range range = { .va = va, .bytes = BYTES, .access = GM_WRITE };

	(void)as;
	return gm_ws_acquire(other.w->ctx[0], &range, 1, 20 * MS, &the_set);
}

/* What the set was promised: all of it there, and nobody but its device is asked for it. */
static void check_set(struct world *w, unsigned at)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		struct gm_page_info info = page_info(w, other.va + i * PAGE);

		cr_assert(info.place == GM_PLACE_DEVICE && (info.flags & GM_PAGE_HELD), "torn apart at lock %u", at);
	}
	dev_fill(w->ctx[0], other.va, PAGES, 9);
	cr_assert_eq(dev_wrong(w->ctx[0], other.va, PAGES, 9), 0);
	world_check(w);
	OK(gm_ws_release(the_set, NULL));
	cr_assert_eq(app_wrong(w, other.va, PAGES, 9), 0);
}

static gm_ret_t do_free(struct gm_as *as, uint64_t va)
{
	return gm_free(as, ptr(va));
}

CORE_TEST(ws_window, freed, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 200 * MS })
{
	unsigned won = 0, lost = 0;

	for (unsigned at = 1;; at++) {
		gm_ret_t ret;
		void *p;

		OK(gm_alloc(w->as, BYTES, 0, &p));
		app_fill(w, GM_VA(p), PAGES, 1);
		OK(gm_migrate(w->as, GM_VA(p), UNIT, w->dev[0], NULL));
		ret = meet(w, do_free, do_acquire, GM_VA(p), at);
		if (!other.ret) {
			IS(ret, GM_RET_BUSY);
			check_set(w, at);
			OK(gm_free(w->as, p));
			won++;
		} else if (ret) {
			IS(ret, GM_RET_BUSY); /* both were refused: nothing has changed */
			cr_assert_eq(app_wrong(w, GM_VA(p), PAGES, 1), 0);
			OK(gm_free(w->as, p));
		} else {
			lost++;
		}
		if (other.at)
			break; /* the call takes fewer */
	}
	cr_assert(won > 3 && lost > 3, "%u times the set was first, %u times the call", won, lost);
	gm_sim_sleep_ns(w->sim, MS); /* the worker may have the last frames in its hands */
	cr_assert(dev_all_free(w->dev[0]));
}

/* The call comes while the set is being acquired. Where it would wait for the set's own transaction it runs into its bound. */
CORE_TEST(ws_window, freed_while_acquired, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 5 * MS })
{
	unsigned won = 0, lost = 0;

	for (unsigned at = 1;; at++) {
		gm_ret_t ret;
		void *p;

		OK(gm_alloc(w->as, BYTES, 0, &p));
		app_fill(w, GM_VA(p), PAGES, 1);
		ret = meet(w, do_acquire, do_free, GM_VA(p), at);
		cr_assert(ret || other.ret, "both at lock %u", at);
		if (!ret)
			check_set(w, at);
		won += !ret;
		lost += !other.ret;
		if (other.ret)
			OK(gm_free(w->as, p));
		world_check(w);
		if (other.at)
			break;
	}
	cr_assert(won > 3 && lost > 3, "%u times the set was first, %u times the call", won, lost);
	gm_sim_sleep_ns(w->sim, MS); /* the worker may have the last frames in its hands */
	cr_assert(dev_all_free(w->dev[0]));
}

static void acquire_now(void *arg)
{
	(void)arg;
	other.ret = do_acquire(other.w->as, other.va);
}

/* Both on their way, switch by switch as the seed will have it: the set may have begun before the memory is taken out. */
CORE_TEST(ws_window, freed_side_by_side, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 20 * MS })
{
	unsigned won = 0, lost = 0;

	for (unsigned i = 0; i < 1500; i++) {
		struct gm_thread *t;
		gm_ret_t ret;
		void *p;

		OK(gm_alloc(w->as, BYTES, 0, &p));
		app_put(w, word_va(GM_VA(p), 0), 1);
		memset(&other, 0, sizeof(other));
		other.w = w;
		other.va = GM_VA(p);
		t = spawn(w, acquire_now, NULL);
		for (unsigned k = 0; k < i % 60; k++)
			gm_yield(w->env);
		ret = gm_free(w->as, p);
		join(w, t);
		cr_assert(ret || other.ret, "both, round %u", i);
		if (!other.ret)
			check_set(w, i);
		won += !other.ret;
		lost += !ret;
		if (ret)
			OK(gm_free(w->as, p));
	}
	cr_assert(won > 30 && lost > 30, "%u times the set was first, %u times the call", won, lost);
}

static gm_ret_t do_release(struct gm_as *as, uint64_t va)
{
	return gm_release(as, ptr(va), BYTES);
}

CORE_TEST(ws_window, released, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 200 * MS })
{
	uint64_t va = app_map(w, BYTES);
	unsigned won = 0, lost = 0;

	for (unsigned at = 1;; at++) {
		gm_ret_t ret;

		app_fill(w, va, PAGES, 1);
		OK(gm_adopt(w->as, ptr(va), BYTES, 0));
		OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
		ret = meet(w, do_release, do_acquire, va, at);
		if (!other.ret) {
			IS(ret, GM_RET_BUSY);
			check_set(w, at);
			OK(gm_release(w->as, ptr(va), BYTES));
			won++;
		} else {
			cr_assert_eq(app_wrong(w, va, PAGES, 1), 0);
			lost += !ret;
			if (ret) {
				IS(ret, GM_RET_BUSY);
				OK(gm_release(w->as, ptr(va), BYTES));
			}
		}
		if (other.at)
			break;
	}
	cr_assert(won > 3 && lost > 3, "%u times the set was first, %u times the call", won, lost);
}

static gm_ret_t do_discard(struct gm_as *as, uint64_t va)
{
	return gm_discard(as, va, BYTES);
}

/* Here both may succeed: a set that comes afterwards has zeros. */
CORE_TEST(ws_window, discarded, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 200 * MS })
{
	uint64_t va = app_map(w, BYTES);
	unsigned won = 0, lost = 0;

	OK(gm_adopt(w->as, ptr(va), BYTES, 0));
	for (unsigned at = 1;; at++) {
		gm_ret_t ret;

		app_fill(w, va, PAGES, 1);
		OK(gm_migrate(w->as, va, UNIT, w->dev[0], NULL));
		ret = meet(w, do_discard, do_acquire, va, at);
		cr_assert(!ret || ret == GM_RET_BUSY, "%s: %s", gm_ret_name(ret), gm_last_error());
		cr_assert(!ret || !other.ret, "both were refused at lock %u", at);
		won += ret == GM_RET_BUSY;
		lost += !ret;
		if (!ret) {
			for (uint64_t i = 0; i < PAGES && !the_set; i++)
				cr_assert_eq(app_get(w, word_va(va, i)), 0, "page %u at lock %u", (unsigned)i, at);
		} else {
			cr_assert_eq(dev_wrong(w->ctx[0], va, PAGES, 1), 0, "a refused call has changed something");
		}
		if (!other.ret)
			check_set(w, at);
		if (other.at)
			break;
	}
	cr_assert(won > 3 && lost > 3, "%u times the set was first, %u times the call", won, lost);
}

static gm_ret_t do_acquire_16(struct gm_as *as, uint64_t va)
{
	struct gm_ws_range range = { .va = va, .bytes = 16 * PAGE, .access = GM_WRITE };

	(void)as;
	return gm_ws_acquire(other.w->ctx[0], &range, 1, 100 * MS, &the_set);
}

static gm_ret_t do_release_one(struct gm_as *as, uint64_t va)
{
	return gm_release(as, ptr(va + 3 * PAGE), PAGE);
}

/* One page of what a set asks for is released while the set comes: it is told so, or it has it all; it does not ask for ever. */
CORE_TEST(ws_window, one_page_released, .dev = { "mock:vram=4M,faults=no" }, .as = { .wait_ns = 5 * MS })
{
	uint64_t va = app_map_blocks(w, 1);

	app_fill(w, va, GM_BLOCK_PAGES, 1);
	for (unsigned at = 1;; at++) {
		gm_ret_t ret;

		OK(gm_adopt(w->as, ptr(va), BLOCK, 0));
		ret = meet(w, do_acquire_16, do_release_one, va, at);
		if (!ret)
			OK(gm_ws_release(the_set, NULL));
		else
			cr_assert_neq(ret, GM_RET_TIMEDOUT, "at lock %u: %s", at, gm_last_error());
		OK(gm_release(w->as, ptr(va), BLOCK));
		if (other.at)
			break;
	}
}
