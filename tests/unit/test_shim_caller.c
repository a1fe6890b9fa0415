/* SPDX-License-Identifier: MIT */
/*
 * The validation shim and a caller that is broken on purpose: each rule of the caller is broken by one that keeps all
 * others, around a backend that keeps its own. A rule without such a caller fails the test.
 */
#include "shim_fixture.h"

#include "hal/gm_shim.h"

static void bad_range(void)
{
	(void)rig.mmu->pmap_remove(rig.pmap, TOY_VA, PAGE / 2);
	(void)rig.mmu->pmap_remove(rig.pmap, TOY_VA + 8, PAGE);
	(void)rig.mmu->pmap_remove(rig.pmap, TOY_VA, 0);
	(void)rig.mmu->fault_done(rig.pmap, UINT64_C(1) << 40, PAGE, GM_RET_SUCCESS);
	(void)rig.mmu->fault_done(rig.pmap, (UINT64_C(1) << 40) - PAGE, 2 * PAGE, GM_RET_SUCCESS);
	cr_assert_eq(rig.n, 5);
}

static void bad_copy_range(void)
{
	struct gm_copy c = rig_piece(GM_COPY_TO_DEV, 8, 0, 1);

	c.bytes = PAGE / 2;
	(void)rig_copy(&c, 1);
	c = rig_piece(GM_COPY_TO_DEV, 8, 0, 1);
	c.pa += 512;
	(void)rig_copy(&c, 1);
	cr_assert_eq(rig.n, 2);
}

static void bad_pte(void)
{
	(void)rig_enter(0, 0, 1, 16);
	(void)rig.mmu->pmap_protect(rig.pmap, TOY_VA, PAGE, GM_PTE_HOST);
	cr_assert_eq(rig.n, 2);
}

static void bad_cap(void)
{
	toy_no_caps = GM_CAP_ACCESS;
	rig_close();
	rig_open(GM_RULES);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
	toy_no_caps = 0;
	(void)rig_touch(0, false);
}

static void bad_pmap(void)
{
	void *dead = rig.pmap;

	rig.mmu->pmap_destroy(dead);
	rig.pmap = NULL;
	cr_assert_eq(rig.mmu->pmap_enter(dead, TOY_VA, TOY_PA, PAGE, 0), GM_RET_FAULT);
	rig.mmu->pmap_destroy(dead);
	cr_assert_eq(rig.n, 2);
}

static bool nested;

/* The toy takes its lock in the middle of pmap_enter(). */
static void enter_again(void *self, struct gm_mutex *m)
{
	bool now = nested;

	nested = false;
	if (now)
		(void)rig_enter(1, 1, 1, RW_PTE);
	mock_svc_lock(self, m);
}

static void bad_overlap(void)
{
	rig.s.svc.lock = enter_again;
	nested = true;
	(void)rig_enter(0, 0, 2, RW_PTE);
	cr_assert_eq(rig.n, 1);
}

static void bad_over(void)
{
	(void)rig_enter(0, 0, 2, 0);
	(void)rig_enter(1, 2, 1, 0);
}

static void bad_over_rights(void)
{
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_enter(1, 1, 1, 0);
}

static void bad_stale(void)
{
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_remove(0, 2);
	(void)rig_enter(1, 3, 1, RW_PTE);
}

static void bad_reuse(void)
{
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_remove(0, 2);
	(void)rig_enter(4, 1, 1, RW_PTE);
}

static void bad_reuse_copy(void)
{
	struct gm_copy c = rig_piece(GM_COPY_ZERO, 1, 0, 1);

	(void)rig_enter(0, 0, 2, 0);
	(void)rig_remove(0, 2);
	(void)rig_copy(&c, 1);
}

/* A copy that is in flight until the next enter. */
static struct gm_fence *send(struct gm_copy c)
{
	struct gm_fence *fence = mock_svc_fence_create(&rig.s);

	toy_defers = true;
	cr_assert_eq(rig.mmu->copy(rig.dev, &c, 1, fence), GM_RET_SUCCESS);
	toy_defers = false;
	return fence;
}

static void bad_copying(void)
{
	struct gm_fence *fence = send(rig_piece(GM_COPY_TO_DEV, 8, 0, 2));

	(void)rig_enter(0, 9, 1, 0);
	mock_svc_fence_put(&rig.s, fence);
}

static void bad_copying_source(void)
{
	struct gm_fence *fence = send(rig_piece(GM_COPY_TO_HOST, 8, 0, 2));

	(void)rig_enter(0, 9, 1, RW_PTE);
	mock_svc_fence_put(&rig.s, fence);
}

static void bad_in_flight(void)
{
	struct gm_fence *fence = send(rig_piece(GM_COPY_TO_DEV, 8, 0, 2));
	struct gm_copy c = rig_piece(GM_COPY_TO_HOST, 9, 4, 1);

	(void)rig_copy(&c, 1);
	(void)rig_enter(0, 0, 1, 0);
	mock_svc_fence_put(&rig.s, fence);
}

static void bad_frames(void)
{
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, true);
	(void)rig_enter(0, 0, 16, RW_PTE);
	(void)rig_enter(16, 16, 1, RW_PTE);
}

static void bad_frames_copy(void)
{
	struct gm_copy c = rig_piece(GM_COPY_ZERO, 1, 0, 1);

	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, true);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, false);
	(void)rig_copy(&c, 1);
}

static void bad_free(void)
{
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, true);
	(void)rig_enter(0, 0, 1, RW_PTE);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, false);
	cr_assert_eq(rig.n, 1, "mapped");
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, true);
	(void)rig_remove(0, 1);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, false);
	cr_assert_eq(rig.n, 2, "waits for an invalidation");
	(void)rig_invl(0, 1);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, false);
	cr_assert_eq(rig.n, 2);
}

static void bad_outside(void)
{
	(void)rig_enter(0, 128, 1, RW_PTE);
}

static void bad_source(void)
{
	struct gm_copy c = rig_piece(GM_COPY_TO_HOST, 0, 0, 1);

	(void)rig_enter(0, 0, 1, RW_PTE);
	(void)rig_copy(&c, 1);
}

/* Write was taken away, but who has the old translation can still store. */
static void bad_source_stale(void)
{
	struct gm_copy c = rig_piece(GM_COPY_TO_HOST, 0, 0, 1);

	(void)rig_enter(0, 0, 1, RW_PTE);
	(void)rig.mmu->pmap_protect(rig.pmap, TOY_VA, PAGE, 0);
	(void)rig_copy(&c, 1);
	cr_assert_eq(rig.n, 1);
	(void)rig_invl(0, 1);
	(void)rig_copy(&c, 1);
	cr_assert_eq(rig.n, 1);
}

static void bad_destination(void)
{
	struct gm_copy c = rig_piece(GM_COPY_TO_DEV, 0, 0, 1);

	(void)rig_enter(0, 0, 1, 0);
	(void)rig_copy(&c, 1);
}

static void bad_pieces(void)
{
	struct gm_copy c[2] = { rig_piece(GM_COPY_ZERO, 8, 0, 2), rig_piece(GM_COPY_ZERO, 9, 0, 1) };

	(void)rig_copy(c, 2);
}

static void bad_after(void)
{
	struct gm_step s[2] = { rig_step(GM_STEP_ENTER, GM_STEP_FREE, 0, 0, 1), rig_step(GM_STEP_ENTER, 1, 1, 1, 1) };

	(void)rig_submit(s, 2);
}

/* The copy needs the invalidation, and does not wait for it. */
static void bad_order(void)
{
	struct gm_step s[3];

	(void)rig_enter(0, 0, 1, RW_PTE);
	s[0] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 1);
	s[1] = rig_step(GM_STEP_INVL, 0, 0, 0, 1);
	s[2] = rig_copy_step(0, rig_piece(GM_COPY_TO_HOST, 0, 0, 1));
	(void)rig_submit(s, 3);
	cr_assert_eq(rig.first.step, 2);
}

static void bad_order_invl(void)
{
	struct gm_step s[2];

	(void)rig_enter(0, 0, 1, RW_PTE);
	s[0] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 1);
	s[1] = rig_step(GM_STEP_INVL, GM_STEP_FREE, 0, 0, 1);
	(void)rig_submit(s, 2);
	cr_assert_eq(rig.first.step, 1);
}

static void bad_order_enter(void)
{
	struct gm_step s[2];

	s[0] = rig_copy_step(GM_STEP_FREE, rig_piece(GM_COPY_TO_DEV, 0, 0, 1));
	s[1] = rig_step(GM_STEP_ENTER, GM_STEP_FREE, 0, 0, 1);
	(void)rig_submit(s, 2);
}

/* What may start too early stays so, whatever was asked for before it: `between` waits for all. */
static void order_frames(struct gm_step bad, struct gm_step between)
{
	for (unsigned with = 0; with < 2; with++) {
		struct gm_step s[4];
		unsigned n = 0;

		(void)rig_enter(0, 0, 1, RW_PTE);
		s[n++] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 1);
		s[n++] = rig_step(GM_STEP_INVL, 0, 0, 0, 1);
		if (with)
			s[n++] = between;
		s[n++] = bad;
		(void)rig_submit(s, n);
		cr_assert_eq(rig.n, with + 1, "%u reports", rig.n);
		rig_empty();
	}
}

/* The frame is mapped until the steps are done that nobody waits for. */
static void bad_order_copy_reuse(void)
{
	order_frames(rig_copy_step(GM_STEP_FREE, rig_piece(GM_COPY_TO_DEV, 0, 0, 1)), rig_step(GM_STEP_ENTER, 1, 5, 5, 1));
	cr_assert_eq(rig.first.step, 2);
}

/* ... and when it is not mapped any more, an old translation to it may live. */
static void bad_order_enter_reuse(void)
{
	order_frames(rig_step(GM_STEP_ENTER, GM_STEP_FREE, 3, 0, 1),
		     rig_copy_step(1, rig_piece(GM_COPY_TO_DEV, 9, 0, 1)));
	cr_assert_eq(rig.first.step, 2);
}

/* Two that may start together: removed first, the frame would be reused before the invalidation. */
static void bad_plan_reuse(void)
{
	struct gm_step s[3];

	(void)rig_enter(0, 0, 1, RW_PTE);
	s[0] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 1);
	s[1] = rig_step(GM_STEP_ENTER, GM_STEP_FREE, 3, 0, 1);
	s[2] = rig_step(GM_STEP_INVL, 0, 0, 0, 1);
	(void)rig_submit(s, 3);
	cr_assert_eq(rig.first.step, 1);
}

/* In a plan, what no order would make legal has its own name. */
static void bad_plan_source(void)
{
	struct gm_step s[2];

	(void)rig_enter(0, 0, 2, RW_PTE);
	s[0] = rig_step(GM_STEP_ENTER, GM_STEP_FREE, 4, 4, 1);
	s[1] = rig_copy_step(0, rig_piece(GM_COPY_TO_HOST, 1, 0, 1));
	(void)rig_submit(s, 2);
	cr_assert_eq(rig.first.step, 1);
}

/* Two calls are wrong, what ends the device is not. */
static void bad_lost(void)
{
	(void)rig_enter(0, 0, 1, RW_PTE);
	gm_shim_lose(rig.dev);
	(void)rig_enter(1, 1, 1, RW_PTE);
	(void)rig.mmu->cpu_ptr(rig.dev, TOY_PA, PAGE);
	cr_assert_eq(rig.n, 2);
	rig.mmu->dev_halt(rig.dev);
	rig.mmu->pmap_destroy(rig.pmap);
	rig.pmap = NULL;
	cr_assert_eq(rig.n, 2);
}

static void *give_up(void *dev)
{
	gm_shim_lose(dev);
	return NULL;
}

/* Who did not hear of it has done nothing wrong. */
Test(shim_caller, another_thread_may_not_know)
{
	pthread_t thread;

	rig_open(GM_RULES);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
	cr_assert_eq(pthread_create(&thread, NULL, give_up, rig.dev), 0);
	(void)pthread_join(thread, NULL);
	(void)rig_enter(0, 0, 1, RW_PTE);
	rig_close();
	rig_expect(GM_RULES, "another thread");
}

static void bad_destroy(void)
{
	(void)rig_enter(0, 0, 1, RW_PTE);
	rig.mmu->pmap_destroy(rig.pmap);
	rig.pmap = NULL;
}

static void bad_fini(void)
{
	rig.pmap = NULL; /* rig_close() does not know of it */
}

static const struct row {
	enum gm_rule rule;
	void (*caller)(void);
	const char *op; /* of the first report */
} rows[] = {
	{ GM_RULE_RANGE, bad_range, "pmap_remove" },
	{ GM_RULE_RANGE, bad_copy_range, "copy" },
	{ GM_RULE_PTE, bad_pte, "pmap_enter" },
	{ GM_RULE_NO_CAP, bad_cap, "access" },
	{ GM_RULE_DEAD_PMAP, bad_pmap, "pmap_enter" },
	{ GM_RULE_OVERLAP, bad_overlap, "pmap_enter" },
	{ GM_RULE_ENTER_OVER, bad_over, "pmap_enter" },
	{ GM_RULE_ENTER_OVER, bad_over_rights, "pmap_enter" },
	{ GM_RULE_ENTER_STALE, bad_stale, "pmap_enter" },
	{ GM_RULE_ENTER_COPYING, bad_copying, "pmap_enter" },
	{ GM_RULE_ENTER_COPYING, bad_copying_source, "pmap_enter" },
	{ GM_RULE_REUSE_STALE, bad_reuse, "pmap_enter" },
	{ GM_RULE_REUSE_STALE, bad_reuse_copy, "copy" },
	{ GM_RULE_REUSE_STALE, bad_plan_reuse, "submit, pmap_enter" },
	{ GM_RULE_USED_FREE, bad_frames, "pmap_enter" },
	{ GM_RULE_USED_FREE, bad_frames_copy, "copy" },
	{ GM_RULE_FREED_BUSY, bad_free, "frames given back" },
	{ GM_RULE_OUTSIDE, bad_outside, "pmap_enter" },
	{ GM_RULE_COPY_SOURCE, bad_source, "copy" },
	{ GM_RULE_COPY_SOURCE, bad_source_stale, "copy" },
	{ GM_RULE_COPY_SOURCE, bad_plan_source, "submit, copy" },
	{ GM_RULE_COPY_MAPPED, bad_destination, "copy" },
	{ GM_RULE_COPY_OVERLAP, bad_pieces, "copy" },
	{ GM_RULE_COPY_OVERLAP, bad_in_flight, "copy" },
	{ GM_RULE_PLAN_AFTER, bad_after, "submit, pmap_enter" },
	{ GM_RULE_PLAN_ORDER, bad_order, "submit, copy" },
	{ GM_RULE_PLAN_ORDER, bad_order_invl, "submit, tlb_invl" },
	{ GM_RULE_PLAN_ORDER, bad_order_enter, "submit, pmap_enter" },
	{ GM_RULE_PLAN_ORDER, bad_order_copy_reuse, "submit, copy" },
	{ GM_RULE_PLAN_ORDER, bad_order_enter_reuse, "submit, pmap_enter" },
	{ GM_RULE_LOST_CALLED, bad_lost, "pmap_enter" },
	{ GM_RULE_DESTROY_MAPPED, bad_destroy, "pmap_destroy" },
	{ GM_RULE_FINI_BUSY, bad_fini, "dev_fini" },
};

Test(shim_caller, each_rule_has_a_caller_that_breaks_it)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char row[64];

		snprintf(row, sizeof(row), "row %zu, %s", i, gm_rule_name(rows[i].rule));
		rig_open(GM_RULES);
		cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
		rows[i].caller();
		rig_close();
		rig_expect(rows[i].rule, row);
		cr_assert_eq(strcmp(rig.first.op, rows[i].op), 0, "%s: in %s", row, rig.first.op);
		cr_assert_not(rig.first.by_backend, "%s", row);
	}
}

Test(shim_caller, each_rule_is_in_the_table)
{
	const struct {
		enum gm_rule rule;
		bool callers;
	} all[] = {
#define BACKEND false
#define CALLER true
#define RULE(name, who, text) { GM_RULE_##name, who },
		GM_RULE_LIST(RULE)
#undef RULE
#undef CALLER
#undef BACKEND
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		unsigned n = 0;

		for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++)
			n += rows[k].rule == all[i].rule;
		cr_assert_eq(n > 0, all[i].callers, "%s", gm_rule_name(all[i].rule));
	}
}

/* Where a page is refused, nothing is wrong. */
Test(shim_caller, what_a_device_lost_is_nobodys_fault)
{
	rig_open(GM_RULES);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
	(void)rig_enter(0, 0, 4, RW_PTE);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, true);
	gm_shim_lose(rig.dev);
	gm_shim_frames(rig.dev, TOY_PA, GM_UNIT_BYTES, false);
	rig.mmu->pmap_destroy(rig.pmap);
	rig.pmap = NULL;
	rig_close();
	rig_expect(GM_RULES, "lost");
}
