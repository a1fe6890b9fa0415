/* SPDX-License-Identifier: MIT */
/* The cost model: every equation at the top of gm_mock_cost.c, with figures worked out by hand. */
#include "config.h"

#include <stdio.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)
/* 4 KiB take 4096 ns there, 1024 ns back, 16 ns to zero; a piece 100 ns more. */
#define COSTS "vram=1M,todev=1000000000,tohost=4000000000,zero=256000000000,latency=100,opns=10,stepns=3,faultns=700,missns=50"

static struct gm_mock_stats stats_of(struct mock_fixture *fx)
{
	struct gm_mock_stats stats;

	gm_mock_dev_stats(fx->m, &stats);
	return stats;
}

static char host[64 * GM_PAGE_BYTES] __attribute__((aligned(4096)));

static void copy(struct mock_fixture *fx, const struct gm_copy *copies, size_t n)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->copy(fx->m, copies, n, fence), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(fx, fence), GM_RET_SUCCESS);
}

static struct gm_copy piece(enum gm_copy_kind kind, uint64_t page, uint64_t pages)
{
	return (struct gm_copy){ .kind = kind, .pa = PA + page * PAGE, .bytes = pages * PAGE,
				 .host = kind == GM_COPY_ZERO ? 0 : GM_VA(host) + page * PAGE };
}

Test(mock_cost, operations_one_after_the_other)
{
	struct mock_fixture fx;

	fx_open(&fx, COSTS); /* makes a page table: 13 */
	cr_assert_eq(stats_of(&fx).modelled_ns, 13);
	fx_enter(&fx, VA, PA, PAGE, 0);
	fx_remove(&fx, VA, PAGE);
	fx_invl(&fx, VA, PAGE);
	cr_assert_eq(stats_of(&fx).modelled_ns, UINT64_C(52));
	cr_assert_eq(stats_of(&fx).mmu_ns, UINT64_C(52));
	cr_assert_eq(stats_of(&fx).busy_ns[0], 0);
	fx_close(&fx);
}

/* Pieces of one call: one engine does one after the other, two do two at a time. */
static void run_pieces(const char *engines, uint64_t modelled, uint64_t first, uint64_t second)
{
	struct gm_copy c[] = { piece(GM_COPY_TO_DEV, 0, 2), piece(GM_COPY_TO_HOST, 2, 1), piece(GM_COPY_ZERO, 3, 4) };
	char options[256];
	struct mock_fixture fx;

	(void)snprintf(options, sizeof(options), "%s,%s", COSTS, engines);
	fx_open(&fx, options);
	copy(&fx, c, 3);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 10 + modelled, "%s: %llu", engines,
		     (unsigned long long)stats_of(&fx).modelled_ns);
	cr_assert_eq(stats_of(&fx).busy_ns[0], first);
	cr_assert_eq(stats_of(&fx).busy_ns[1], second);
	fx_close(&fx);
}

Test(mock_cost, engines)
{
	uint64_t a = 8192 + 100, b = 1024 + 100, c = 64 + 100;

	run_pieces("copy=sync", a + b + c, a + b + c, 0);
	run_pieces("copy=async", a + b + c, a + b + c, 0);
	run_pieces("copy=async,copyns=1000", 1000 + a + b + c, a + b + c, 0);
	run_pieces("engines=2", a, a, b + c); /* the first is busy longer than the second with both */
	run_pieces("engines=2,reorder=7", a, a, b + c); /* modelled in the order given */
}

/* A plan: steps wait for what they depend on, and for nothing else. */
Test(mock_cost, plans)
{
	struct gm_step steps[] = {
		{ .op = GM_STEP_COPY, .after = GM_STEP_FREE, .copy = piece(GM_COPY_TO_HOST, 0, 1) },  /* 0 .. 1124, engine 0 */
		{ .op = GM_STEP_COPY, .after = GM_STEP_FREE, .copy = piece(GM_COPY_TO_DEV, 1, 1) },   /* 0 .. 4196, engine 1 */
		{ .op = GM_STEP_ENTER, .after = GM_STEP_FREE, .va = VA, .pa = PA + 8 * PAGE, .bytes = PAGE }, /* 0 .. 3 */
		{ .op = GM_STEP_ENTER, .after = 0, .va = VA + PAGE, .pa = PA + 9 * PAGE, .bytes = PAGE },     /* 1124 .. 1127 */
		{ .op = GM_STEP_COPY, .after = 0, .copy = piece(GM_COPY_TO_HOST, 4, 4) }, /* 1124 .. 5320, engine 0 */
		{ .op = GM_STEP_COPY, .after = 3, .copy = piece(GM_COPY_ZERO, 9, 1) },    /* 4196 .. 4312, engine 1 */
	};
	struct gm_fence *fence;
	struct mock_fixture fx;

	fx_open(&fx, COSTS ",engines=2");
	for (unsigned i = 0; i < 6; i++)
		steps[i].pmap = fx.pmap;
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->submit(fx.m, steps, 6, fence), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 10 + 5320);
	cr_assert_eq(stats_of(&fx).mmu_ns, 13 + 6);
	cr_assert_eq(stats_of(&fx).busy_ns[0] + stats_of(&fx).busy_ns[1], 4196 + 1124 + 4196 + 116);
	fx_close(&fx);
}

static gm_ret_t touch_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word;

	(void)index;
	(void)arg;
	return gm_mock_load(thread, VA, &word, 8);
}

Test(mock_cost, faults_and_walks)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, COSTS);
	fence = fx_launch(&fx, touch_kernel, NULL, 1);
	while (fx.mmu->fault_next(fx.m, &fault) != GM_RET_SUCCESS)
		mock_sleep_ms(1);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 700);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	cr_assert_eq(stats_of(&fx).fault_ns, 700);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 700 + 13);
	/* From the raise to the answer, and two walks. */
	cr_assert_eq(stats_of(&fx).stall_ns, 713 + 2 * 50);
	fx_close(&fx);
}

Test(mock_cost, delays_of_a_script)
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 1, .count = 1, .delay_ns = 5000 };
	struct gm_copy c = piece(GM_COPY_ZERO, 0, 1);
	struct mock_fixture fx;

	fx_open(&fx, COSTS);
	cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_SUCCESS);
	copy(&fx, &c, 1);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 10 + 5000 + 116);
	rule.op = GM_MOCK_PMAP_ENTER;
	cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_SUCCESS);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(stats_of(&fx).modelled_ns, 13 + 10 + 5000 + 116 + 5000 + 13);
	fx_close(&fx);
}

/* Nothing costs anything unless it is asked for; and no sum overflows. */
Test(mock_cost, limits)
{
	struct gm_copy c = piece(GM_COPY_TO_DEV, 0, 16);
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	copy(&fx, &c, 1);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(stats_of(&fx).modelled_ns, 0);
	fx_close(&fx);
	fx_open(&fx, "vram=1M,todev=3"); /* rounded up: nothing is free */
	copy(&fx, &c, 1);
	cr_assert_eq(stats_of(&fx).modelled_ns, UINT64_C(21845333333334));
	fx_close(&fx);
	fx_open(&fx, "vram=1M,todev=1,latency=18446744073709551615");
	copy(&fx, &c, 1);
	copy(&fx, &c, 1);
	cr_assert_eq(stats_of(&fx).modelled_ns, UINT64_MAX);
	fx_close(&fx);
}

/* timing=wait: it really takes that long; an invalidation that may not sleep does not. */
static void run_wait(const char *options, uint64_t least_ns, uint64_t most_ns)
{
	struct gm_copy c[] = { piece(GM_COPY_TO_DEV, 0, 1), piece(GM_COPY_TO_DEV, 1, 1) };
	struct mock_fixture fx;
	uint64_t begin, took;

	fx_open(&fx, options);
	begin = mock_now_ns(NULL);
	copy(&fx, c, 2);
	fx_invl(&fx, VA, PAGE);
	took = mock_now_ns(NULL) - begin;
	cr_assert_geq(took, least_ns);
	cr_assert_lt(took, most_ns);
	fx_close(&fx);
}

Test(mock_cost, wait)
{
	run_wait("vram=1M,timing=wait,latency=20000000", 40000000, 1000000000);
	run_wait("vram=1M,timing=wait,latency=20000000,copy=async", 40000000, 1000000000);
	run_wait("vram=1M,timing=wait,latency=50000000,engines=2", 50000000, 95000000);
	run_wait("vram=1M,latency=20000000", 0, 20000000);
	run_wait("vram=1M,timing=wait,stepns=300000000", 0, 300000000);
	run_wait("vram=1M,timing=wait,stepns=30000000,fastinvl=no", 30000000, 1000000000);
}
