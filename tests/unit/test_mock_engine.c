/* SPDX-License-Identifier: MIT */
/* The mock's engines: what hal.h orders is in order whatever the seed; what it does not order happens in every order. */
#include "config.h"

#include <stdio.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)
#define N 12u
#define SEEDS 60u
#define FREE GM_STEP_FREE

/* In which order things were done: the first page of each. */
struct order {
	unsigned n;
	uint64_t at[256];
};

static void note(void *arg, const struct gm_mock_event *event)
{
	struct order *o = arg;

	if (event->kind <= GM_MOCK_EV_HARVEST)
		o->at[o->n++] = event->kind == GM_MOCK_EV_COPY ? event->pa : event->va;
}

static void open_seeded(struct mock_fixture *fx, const char *options, unsigned seed)
{
	char text[200];

	(void)snprintf(text, sizeof(text), "vram=1M,%s,reorder=%u", options, seed);
	fx_open(fx, text);
}

static unsigned place_of(const struct order *o, uint64_t at)
{
	for (unsigned i = 0; i < o->n; i++) {
		if (o->at[i] == at)
			return i;
	}
	cr_assert_fail("0x%llx was not done", (unsigned long long)at);
	return 0;
}

static gm_ret_t submit(struct mock_fixture *fx, struct gm_step *steps, size_t n)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->submit(fx->m, steps, n, fence), GM_RET_SUCCESS);
	return fx_finish(fx, fence);
}

/* Steps that zero pages 0 .. N - 1, each after what `after` says. */
static void make_steps(struct gm_step *steps, const uint32_t *after)
{
	memset(steps, 0, N * sizeof(*steps));
	for (unsigned i = 0; i < N; i++) {
		steps[i].op = GM_STEP_COPY;
		steps[i].after = after ? after[i] : GM_STEP_FREE;
		steps[i].copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = PA + i * PAGE, .bytes = PAGE };
	}
}

static void run_dependencies(const char *options)
{
	static const uint32_t after[N] = { FREE, FREE, 1, FREE, 2, 2, FREE, 6, 3, FREE, 9, 10 };
	unsigned swapped = 0, first_last = 0;

	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		struct order o = { .n = 0 };
		struct gm_step steps[N];
		struct mock_fixture fx;

		open_seeded(&fx, options, seed);
		make_steps(steps, after);
		gm_mock_dev_trace(fx.m, note, &o);
		cr_assert_eq(submit(&fx, steps, N), GM_RET_SUCCESS);
		gm_mock_dev_trace(fx.m, NULL, NULL);
		cr_assert_eq(o.n, N);
		for (unsigned i = 0; i < N; i++) {
			cr_assert_eq(steps[i].ret, GM_RET_SUCCESS);
			for (unsigned k = 0; after[i] != FREE && k <= after[i]; k++)
				cr_assert_lt(place_of(&o, PA + k * PAGE), place_of(&o, PA + i * PAGE), "seed %u: %u before %u",
					     seed, i, k);
		}
		swapped += place_of(&o, PA) > place_of(&o, PA + PAGE);
		first_last += place_of(&o, PA + 9 * PAGE) == 0;
		fx_close(&fx);
	}
	/* Free steps change places, far ones too. */
	cr_assert(swapped > SEEDS / 10 && swapped < SEEDS * 9 / 10, "%s: %u", options, swapped);
	cr_assert_gt(first_last, 0);
}

Test(mock_engine, dependencies)
{
	run_dependencies("copy=sync");
	run_dependencies("copy=async");
	run_dependencies("engines=4");
}

/* Pieces of a call, and calls that nobody waited for, change places too. Each byte arrives. */
Test(mock_engine, pieces_and_calls)
{
	unsigned pieces = 0, calls = 0;

	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		struct gm_fence *fence[3];
		struct order o = { .n = 0 };
		struct mock_fixture fx;

		open_seeded(&fx, "copy=async,copyns=3000000", seed); /* all are there before one begins */
		gm_mock_dev_trace(fx.m, note, &o);
		for (unsigned i = 0; i < 3; i++) {
			struct gm_copy c[3];

			for (unsigned k = 0; k < 3; k++) {
				*fx_word(&fx, PA + (3 * i + k) * PAGE) = 5;
				c[k] = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = PA + (3 * i + k) * PAGE, .bytes = PAGE };
			}
			fence[i] = mock_svc_fence_create(&fx.s);
			cr_assert_eq(fx.mmu->copy(fx.m, c, 3, fence[i]), GM_RET_SUCCESS);
		}
		for (unsigned i = 0; i < 3; i++)
			cr_assert_eq(fx_finish(&fx, fence[i]), GM_RET_SUCCESS);
		gm_mock_dev_trace(fx.m, NULL, NULL);
		cr_assert_eq(o.n, 9);
		for (unsigned i = 0; i < 9; i++)
			cr_assert_eq(*fx_word(&fx, PA + i * PAGE), 0);
		pieces += place_of(&o, PA) > place_of(&o, PA + 2 * PAGE);
		calls += place_of(&o, PA) > place_of(&o, PA + 6 * PAGE);
		fx_close(&fx);
	}
	cr_assert(pieces > SEEDS / 10 && pieces < SEEDS * 9 / 10, "%u", pieces);
	cr_assert_gt(calls, 0);
}

/* The same seed, the same order; without one, the order given. */
Test(mock_engine, repeats)
{
	struct order o[3] = { { .n = 0 }, { .n = 0 }, { .n = 0 } };

	for (unsigned k = 0; k < 3; k++) {
		struct gm_step steps[N];
		struct mock_fixture fx;

		open_seeded(&fx, k < 2 ? "copy=sync" : "copy=async", k < 2 ? 17 : 0);
		make_steps(steps, NULL);
		gm_mock_dev_trace(fx.m, note, &o[k]);
		cr_assert_eq(submit(&fx, steps, N), GM_RET_SUCCESS);
		gm_mock_dev_trace(fx.m, NULL, NULL);
		fx_close(&fx);
	}
	cr_assert_arr_eq(o[0].at, o[1].at, N * sizeof(o[0].at[0]));
	for (unsigned i = 0; i < N; i++)
		cr_assert_eq(o[2].at[i], PA + i * PAGE);
}

/*
 * Steps fail at random; whatever the order: a step that ran ran after all it depends on had succeeded, what did not
 * run is CANCELED, and the fence has the first failure by index.
 */
static void run_failures(const char *options)
{
	static const uint32_t after[N] = { FREE, FREE, FREE, 1, FREE, 4, FREE, 5, FREE, FREE, 9, FREE };
	unsigned cancelled = 0;

	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .where = GM_MOCK_AT_PA, .nth = 1,
					     .count = 1, .result = GM_RET_IO };
		uint64_t a = seed % N, b = seed / N;
		gm_ret_t want = GM_RET_SUCCESS, ret;
		struct gm_step steps[N];
		struct mock_fixture fx;

		open_seeded(&fx, options, seed);
		make_steps(steps, after);
		for (unsigned i = 0; i < N; i++)
			*fx_word(&fx, PA + i * PAGE) = 5;
		rule.begin = PA + a * PAGE;
		rule.end = rule.begin + PAGE;
		cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_SUCCESS);
		rule.begin = PA + b * PAGE;
		rule.end = rule.begin + PAGE;
		rule.result = GM_RET_NOMEM;
		cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_SUCCESS);
		ret = submit(&fx, steps, N);
		for (unsigned i = 0; i < N; i++) {
			bool ran = steps[i].ret == GM_RET_SUCCESS;

			cr_assert_eq(*fx_word(&fx, PA + i * PAGE), ran ? 0 : 5, "seed %u step %u", seed, i);
			for (unsigned k = 0; ran && after[i] != FREE && k <= after[i]; k++)
				cr_assert_eq(steps[k].ret, GM_RET_SUCCESS, "seed %u: %u ran, %u did not", seed, i, k);
			cancelled += steps[i].ret == GM_RET_CANCELED;
			if (want == GM_RET_SUCCESS && !ran && steps[i].ret != GM_RET_CANCELED)
				want = steps[i].ret;
		}
		cr_assert(want == GM_RET_IO || want == GM_RET_NOMEM, "seed %u: nothing failed", seed);
		cr_assert_eq(ret, want, "seed %u", seed);
		fx_close(&fx);
	}
	cr_assert_gt(cancelled, SEEDS);
}

Test(mock_engine, failures)
{
	run_failures("copy=sync");
	run_failures("copy=async");
	run_failures("engines=4");
}

/* Two fail side by side, this one or that one first: the result is the first one's by index. */
Test(mock_engine, first_failure)
{
	for (unsigned later = 0; later < 2; later++) {
		struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .where = GM_MOCK_AT_PA, .nth = 1,
					     .count = 1 };
		struct gm_step steps[N];
		struct mock_fixture fx;

		fx_open(&fx, "vram=1M,engines=2");
		make_steps(steps, NULL);
		for (unsigned i = 0; i < 2; i++) {
			rule.begin = PA + i * PAGE;
			rule.end = rule.begin + PAGE;
			rule.result = i ? GM_RET_IO : GM_RET_NOMEM;
			rule.delay_ns = i == later ? 50000000 : 10000000;
			cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_SUCCESS);
		}
		cr_assert_eq(submit(&fx, steps, 2), GM_RET_NOMEM);
		cr_assert_eq(steps[0].ret, GM_RET_NOMEM);
		cr_assert_eq(steps[1].ret, GM_RET_IO);
		fx_close(&fx);
	}
}

static void slow_signal(void *self, struct gm_fence *fence, gm_ret_t result)
{
	mock_sleep_ms(50);
	mock_svc_fence_signal(self, fence, result);
}

/* dev_halt() comes back at once from a device that sleeps, and not before one that is about to answer has done so. */
Test(mock_engine, halt)
{
	struct gm_copy c = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct gm_fence *fence;
	struct mock_fixture fx;
	uint64_t begin;

	fx_open(&fx, "vram=1M,copy=async,copyns=5000000000");
	fx.s.svc.fence_signal = slow_signal;
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->copy(fx.m, &c, 1, fence), GM_RET_SUCCESS);
	begin = mock_now_ns(NULL);
	fx.mmu->dev_halt(fx.m);
	cr_assert_lt(mock_now_ns(NULL) - begin, 3000000000);
	cr_assert_eq(mock_fence_wait(fence, 0), GM_RET_NODEV);
	mock_svc_fence_put(&fx.s, fence);
	fx.mmu->dev_halt(fx.m); /* again: no effect */
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(fx.m);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
}

/* Several engines work at the same time. */
Test(mock_engine, side_by_side)
{
	struct gm_step steps[N];
	struct mock_fixture fx;
	uint64_t begin;

	fx_open(&fx, "vram=1M,engines=6,timing=wait,latency=30000000");
	make_steps(steps, NULL);
	begin = mock_now_ns(NULL);
	cr_assert_eq(submit(&fx, steps, N), GM_RET_SUCCESS);
	cr_assert_lt(mock_now_ns(NULL) - begin, N * UINT64_C(30000000) / 2);
	fx_close(&fx);
}

/* Closing the device, or losing it, ends what is queued. */
Test(mock_engine, ends)
{
	struct gm_copy c = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct gm_fence *fence[8];
	struct mock_fixture fx;

	for (unsigned lose = 0; lose < 2; lose++) {
		fx_open(&fx, "vram=1M,engines=2,copyns=5000000");
		for (unsigned i = 0; i < 8; i++) {
			fence[i] = mock_svc_fence_create(&fx.s);
			c.pa = PA + i * PAGE;
			cr_assert_eq(fx.mmu->copy(fx.m, &c, 1, fence[i]), GM_RET_SUCCESS);
		}
		if (lose)
			fx.mmu->dev_halt(fx.m);
		for (unsigned i = 0; lose && i < 8; i++)
			cr_assert_neq(mock_fence_wait(fence[i], 0), GM_RET_TIMEDOUT, "it is not quiet");
		fx.mmu->pmap_destroy(fx.pmap);
		fx.mmu->dev_fini(fx.m);
		for (unsigned i = 0; i < 8; i++) {
			gm_ret_t ret = mock_fence_wait(fence[i], 0);

			/* Those in the middle may be either; the last ones had no time. */
			cr_assert(ret == GM_RET_SUCCESS || (lose && ret == GM_RET_NODEV), "copy %u", i);
			cr_assert(!lose || i < 6 || ret == GM_RET_NODEV, "copy %u", i);
			mock_svc_fence_put(&fx.s, fence[i]);
		}
		cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
		cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
	}
}

/* One engine that cannot be started: nothing is left of the others. */
Test(mock_engine, all_or_none)
{
	struct gm_mock_config config;
	struct mock_services s;
	struct gm_dev_caps caps;
	void *dev = NULL;

	cr_assert_eq(gm_mock_parse("vram=1M,engines=3", &config), GM_RET_SUCCESS);
	for (long nth = 1; nth <= 3; nth++) {
		mock_services_init(&s);
		atomic_store(&s.fail_thread, nth);
		cr_assert_eq(gm_mock_mmu()->dev_init(&config, &s.svc, &caps, &dev), GM_RET_NOMEM);
		cr_assert_null(dev);
		cr_assert_eq(atomic_load(&s.live_threads), 0);
		cr_assert_eq(atomic_load(&s.live_bytes), 0);
	}
}
