/* SPDX-License-Identifier: MIT */
/*
 * madvise(MADV_FREE) on the simulated host: a page that is written again without a fault is alive, though the library has
 * heard of nothing but the event; and the time after which that counts is each page's own (gm_zap.c).
 */
#include "config.h"

#include "core_fixture.h"

#include "core/gm_work.h"

#define GRACE GM_ZAP_GRACE_NS

/* Freed, and written again at once. */
static void free_and_write(struct world *w, uint64_t va, uint64_t value)
{
	OK(gm_sim_madvise(w->sim, va, PAGE, GM_SIM_FREE));
	app_put(w, va, value);
}

CORE_TEST(freed, written_again_is_brought)
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0;

	OK(gm_migrate(w->as, va, 4 * PAGE, w->dev[0], &moved)); /* so that it is watched */
	OK(gm_migrate(w->as, va, 4 * PAGE, NULL, &moved));
	free_and_write(w, va, 7);
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE);
	cr_assert_eq(app_get(w, va), 7);
}

/* The page cannot move: a device has it where it is. */
CORE_TEST(freed, written_again_and_pinned_is_in_place)
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0;

	OK(gm_migrate(w->as, va, 4 * PAGE, w->dev[0], &moved));
	OK(gm_migrate(w->as, va, 4 * PAGE, NULL, &moved));
	free_and_write(w, va, 7);
	OK(gm_sim_pin(w->sim, va));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_HOST);
	OK(dev_touch(w->ctx[0], va, true));
	gm_sim_unpin(w->sim, va);
}

struct churn {
	struct world *w;
	uint64_t va;
	bool stop;
};

/* Another page of the block is given up all the time. */
static void churn_main(void *arg)
{
	struct churn *c = arg;

	while (!c->stop) {
		OK(gm_sim_dontneed(c->w->sim, c->va, PAGE));
		gm_sim_sleep_ns(c->w->sim, GRACE / 20);
	}
}

CORE_TEST(freed, others_given_up_all_the_time_keep_nobody_waiting, .as = { .wait_ns = SECOND })
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0, start;
	struct churn c = { w, va + 32 * PAGE, false };
	struct gm_thread *t;

	OK(gm_migrate(w->as, va, 4 * PAGE, w->dev[0], &moved));
	OK(gm_migrate(w->as, va, 4 * PAGE, NULL, &moved));
	t = spawn(w, churn_main, &c);
	free_and_write(w, va, 7);
	start = gm_now_ns(gm_sim_env(w->sim));
	OK(gm_dev_fault(w->ctx[0], va, GM_WRITE));
	cr_assert_lt(gm_now_ns(gm_sim_env(w->sim)) - start, 4 * GRACE);
	cr_assert_eq(app_get(w, va), 7);
	free_and_write(w, va, 8);
	OK(gm_migrate(w->as, va, PAGE, w->dev[0], &moved));
	cr_assert_eq(moved, PAGE);
	cr_assert_eq(app_get(w, va), 8);
	c.stop = true;
	join(w, t);
}

struct rival {
	struct world *w;
	uint64_t va, after_ns;
};

static void rival_main(void *arg)
{
	struct rival *r = arg;

	if (r->after_ns)
		gm_sim_sleep_ns(r->w->sim, r->after_ns);
	(void)gm_migrate(r->w->as, r->va, PAGE, r->w->dev[0], NULL);
}

/* Given up while it is migrated, of a block that does not exist: the event is read, and the kernel drops the page later. */
static void give_up_before(struct world *w, uint64_t va, uint64_t after_ns)
{
	struct rival r = { w, va, after_ns };
	struct gm_thread *t = spawn(w, rival_main, &r);

	OK(gm_sim_dontneed(w->sim, va, PAGE));
	join(w, t);
	cr_assert_eq(app_get(w, va), 0, "old bytes came back, the migration began after %llu ns", (unsigned long long)after_ns);
	world_check(w);
}

CORE_TEST(freed, what_has_no_block_is_given_up_too, .spurious = true, .as = { .flags = GM_AS_WATCH })
{
	for (unsigned i = 0; i < 200; i++) {
		uint64_t va = app_adopted(w, 1, 1 + i);

		app_put(w, va, 7);
		give_up_before(w, va, i * 100);
		OK(gm_release(w->as, ptr(va), BLOCK));
	}
}

/* ... or that is being forgotten. */
CORE_TEST(freed, what_is_being_forgotten_is_given_up_too, .spurious = true)
{
	uint64_t va = app_adopted(w, 1, 1), idle_ns = GM_WORK_IDLE_NS;

	for (unsigned i = 0; i < 1000; i++) {
		app_put(w, va, 7);
		OK(gm_migrate(w->as, va, PAGE, w->dev[0], NULL));
		OK(gm_migrate(w->as, va, PAGE, NULL, NULL));
		cr_assert_eq(app_get(w, va), 7);
		gm_sim_sleep_ns(w->sim, idle_ns - 30000 + i * 50);
		give_up_before(w, va, 0);
		gm_sim_sleep_ns(w->sim, 3 * GRACE);
	}
}

static unsigned recalled(const struct gm_zap_ranges *z, uint64_t va, uint64_t now_ns)
{
	struct gm_mask m = gm_zap_recall(z, va, now_ns);

	return gm_mask_count(&m);
}

Test(freed, ranges)
{
	static struct gm_zap_ranges z;
	uint64_t t = 10 * GRACE;

	cr_assert_eq(recalled(&z, 0, 0), 0);
	gm_zap_note_range(&z, PAGE, 3 * PAGE, t);
	gm_zap_note_range(&z, 5 * PAGE, BLOCK + PAGE, t + 1);
	cr_assert_eq(recalled(&z, 0, t + 1), 2 + GM_BLOCK_PAGES - 5, "what lies between them is not given up");
	cr_assert_eq(recalled(&z, BLOCK, t + 1), 1);
	cr_assert_eq(recalled(&z, 2 * BLOCK, t + 1), 0);
	cr_assert_eq(recalled(&z, 0, t + GRACE), GM_BLOCK_PAGES - 5);
	cr_assert_eq(recalled(&z, 0, t + GRACE + 1), 0);
	for (unsigned i = 0; i < 2 * GM_ZAP_RANGES; i++) /* more than there is room for: none is lost */
		gm_zap_note_range(&z, (2 * i + 1) * BLOCK, (2 * i + 1) * BLOCK + PAGE, t + 2 * GRACE + i);
	for (unsigned i = 0; i < 2 * GM_ZAP_RANGES; i++)
		cr_assert_geq(recalled(&z, (2 * i + 1) * BLOCK, t + 2 * GRACE + 2 * GM_ZAP_RANGES), 1, "range %u", i);
}

/* No time for it: the caller is told so, not to try again. */
CORE_TEST(freed, a_bound_that_is_too_short, .as = { .wait_ns = GRACE / 10 })
{
	uint64_t va = app_adopted(w, 1, 1), moved = 0;

	OK(gm_migrate(w->as, va, 4 * PAGE, w->dev[0], &moved));
	OK(gm_migrate(w->as, va, 4 * PAGE, NULL, &moved));
	free_and_write(w, va, 7);
	IS(gm_migrate(w->as, va, PAGE, w->dev[0], &moved), GM_RET_TIMEDOUT);
	cr_assert_eq(app_get(w, va), 7);
}

static unsigned pending(const struct gm_zap *z, uint64_t now_ns)
{
	struct gm_mask m = gm_zap_pending(z, now_ns);

	return gm_mask_count(&m);
}

Test(freed, each_page_has_its_time)
{
	struct gm_zap z = { .since_ns = 0 };
	struct gm_mask one = gm_mask_span(0, 1), two = gm_mask_span(1, 2), three = gm_mask_span(2, 3);
	uint64_t t = 10 * GRACE;

	cr_assert_eq(pending(&z, 0), 0);
	gm_zap_note(&z, &one, t);
	cr_assert_eq(pending(&z, t), 1);
	gm_zap_note(&z, &two, t + GRACE - 1);
	cr_assert_eq(pending(&z, t + GRACE), 2, "roughly");
	cr_assert_eq(pending(&z, t + 2 * GRACE - 1), 2);
	cr_assert_eq(pending(&z, t + 2 * GRACE), 0);
	gm_zap_note(&z, &three, t + 2 * GRACE - 1);
	cr_assert_eq(pending(&z, t + 2 * GRACE), 3, "the second one was given up less than two graces ago");
	cr_assert_eq(pending(&z, t + 3 * GRACE - 1), 1);
	cr_assert_eq(pending(&z, t + 4 * GRACE - 2), 1);
	cr_assert_eq(pending(&z, t + 4 * GRACE - 1), 0);
	gm_zap_note(&z, &one, t + 5 * GRACE);
	cr_assert_eq(pending(&z, t + 5 * GRACE), 1);
}
