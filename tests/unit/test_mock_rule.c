/* SPDX-License-Identifier: MIT */
/* The mock's scripted failures: by place, by count, late, hung; broken pages; and what a script may not say. */
#include "config.h"

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

static void add(struct mock_fixture *fx, struct gm_mock_rule rule)
{
	rule.size = sizeof(rule);
	cr_assert_eq(gm_mock_dev_rule_add(fx->m, &rule), GM_RET_SUCCESS);
}

static struct gm_fence *start(struct mock_fixture *fx, struct gm_copy copy, gm_ret_t *ret)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	*ret = fx->mmu->copy(fx->m, &copy, 1, fence);
	return fence;
}

/* The result of a transfer, of the call or of its fence. */
static gm_ret_t transfer(struct mock_fixture *fx, enum gm_copy_kind kind, uint64_t pa, void *host, uint64_t bytes)
{
	gm_ret_t ret, result;
	struct gm_fence *fence =
		start(fx, (struct gm_copy){ .kind = kind, .pa = pa, .host = GM_VA(host), .bytes = bytes }, &ret);

	result = mock_fence_wait(fence, ret ? 0 : LONG_MS);
	cr_assert_leq(fence->signals, 1);
	mock_svc_fence_put(&fx->s, fence);
	return ret ? ret : result;
}

Test(mock_rule, place_in_va)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_PMAP_ENTER, .where = GM_MOCK_AT_VA, .begin = VA + 2 * PAGE,
					.end = VA + 3 * PAGE, .nth = 2, .count = 2, .result = GM_RET_NOMEM });
	/* Beside it: never. Over it: the second and the third time. */
	for (unsigned i = 0; i < 5; i++) {
		fx_enter(&fx, VA, PA, 2 * PAGE, 0);
		fx_enter(&fx, VA + 3 * PAGE, PA + 3 * PAGE, PAGE, 0);
	}
	for (unsigned i = 1; i <= 5; i++)
		cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + PAGE, PA + PAGE, 2 * PAGE, 0),
			     i == 2 || i == 3 ? GM_RET_NOMEM : GM_RET_SUCCESS, "call %u", i);
	fx_close(&fx);
}

Test(mock_rule, place_in_device_memory)
{
	static char buf[4 * GM_PAGE_BYTES] __attribute__((aligned(4096)));
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,copy=async");
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .where = GM_MOCK_AT_PA, .begin = PA + 4 * PAGE,
					.end = PA + 5 * PAGE, .nth = 1, .count = UINT64_MAX, .result = GM_RET_IO });
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_PMAP_ENTER, .where = GM_MOCK_AT_PA, .begin = PA + 4 * PAGE,
					.end = PA + 5 * PAGE, .nth = 1, .count = 1, .result = GM_RET_NOMEM });
	cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA, buf, 4 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA + 5 * PAGE, buf, 4 * PAGE), GM_RET_SUCCESS);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA + PAGE, buf, 4 * PAGE), GM_RET_IO);
	fx_enter(&fx, VA, PA, 4 * PAGE, 0);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + 4 * PAGE, PA + 4 * PAGE, PAGE, 0), GM_RET_NOMEM);
	/* A host page has no place in device memory, whatever its number is. */
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_PMAP_ENTER, .where = GM_MOCK_AT_PA, .begin = 0,
					.end = UINT64_MAX, .nth = 1, .count = 1, .result = GM_RET_NOMEM });
	fx_enter(&fx, VA + 8 * PAGE, fx_host(&fx, PAGE), PAGE, GM_PTE_HOST);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + 4 * PAGE, PA + 4 * PAGE, PAGE, 0), GM_RET_NOMEM);
	gm_mock_dev_rule_clear(fx.m);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA + PAGE, buf, 4 * PAGE), GM_RET_SUCCESS);
	fx_close(&fx);
}

/* A late failure spoils the destination if it is told to, and else leaves it alone. */
Test(mock_rule, garbage)
{
	static char buf[GM_PAGE_BYTES] __attribute__((aligned(4096)));
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (unsigned garbage = 0; garbage < 2; garbage++) {
		*fx_word(&fx, PA) = 77;
		add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY_LATE, .nth = 1, .count = 1, .result = GM_RET_IO,
						.garbage = garbage });
		cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA, buf, PAGE), GM_RET_IO);
		cr_assert_eq(*fx_word(&fx, PA) == 77, !garbage);
		gm_mock_dev_rule_clear(fx.m);
	}
	fx_close(&fx);
}

/* The first rule whose turn it is decides; all of them count, and all delays. */
Test(mock_rule, several)
{
	struct mock_fixture fx;
	uint64_t begin;

	fx_open(&fx, "vram=1M");
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .nth = 2, .count = 1, .result = GM_RET_IO });
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .nth = 1, .count = 2, .result = GM_RET_NOMEM,
					.delay_ns = 10000000 });
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .nth = 3, .count = 1, .delay_ns = 10000000 });
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .nth = 3, .count = 1, .delay_ns = 20000000 });
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_NOMEM);
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_IO);
	begin = mock_now_ns(NULL);
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_SUCCESS);
	cr_assert_geq(mock_now_ns(NULL) - begin, 30000000);
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_SUCCESS);
	fx_close(&fx);
}

/* Nothing is done, the fence is pending; what else there is goes on; then it ends. */
static void run_hang(const char *options, bool lose)
{
	struct gm_copy copy = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct mock_fixture fx;
	struct gm_fence *fence;
	uint64_t *word;
	gm_ret_t ret;

	fx_open(&fx, options);
	word = fx_word(&fx, PA);
	*word = 5;
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .nth = 1, .count = 1, .hang = true });
	fence = start(&fx, copy, &ret);
	cr_assert_eq(ret, GM_RET_SUCCESS);
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA + PAGE, NULL, PAGE), GM_RET_SUCCESS);
	cr_assert_eq(mock_fence_wait(fence, 20), GM_RET_TIMEDOUT);
	if (lose)
		fx.mmu->dev_halt(fx.m);
	else
		gm_mock_dev_rule_clear(fx.m);
	cr_assert_eq(mock_fence_wait(fence, 0), lose ? GM_RET_NODEV : GM_RET_IO);
	cr_assert_eq(*word, 5);
	mock_svc_fence_put(&fx.s, fence);
	if (lose) {
		fx.mmu->pmap_destroy(fx.pmap);
		fx.mmu->dev_fini(fx.m);
		cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
	} else {
		fx_close(&fx);
	}
}

Test(mock_rule, hang)
{
	run_hang("vram=1M", false);
	run_hang("vram=1M,copy=async", false);
	run_hang("vram=1M,engines=3,reorder=1", false);
	run_hang("vram=1M", true);
	run_hang("vram=1M,engines=2", true);
}

/* A plan hangs at the step that does; what was before it is done, what is behind it is not. */
static void run_hung_plan(const char *options)
{
	struct gm_step steps[3] = { { .op = GM_STEP_COPY }, { .op = GM_STEP_COPY }, { .op = GM_STEP_COPY } };
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, options);
	for (unsigned i = 0; i < 3; i++) {
		*fx_word(&fx, PA + i * PAGE) = 5;
		steps[i].after = i ? i - 1 : GM_STEP_FREE;
		steps[i].ret = GM_RET_EXIST;
		steps[i].copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = PA + i * PAGE, .bytes = PAGE };
	}
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_COPY, .where = GM_MOCK_AT_PA, .begin = PA + PAGE,
					.end = PA + 2 * PAGE, .nth = 1, .count = 1, .hang = true });
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->submit(fx.m, steps, 3, fence), GM_RET_SUCCESS);
	cr_assert_eq(mock_fence_wait(fence, 30), GM_RET_TIMEDOUT);
	cr_assert_eq(steps[0].ret, GM_RET_SUCCESS);
	cr_assert_eq(*fx_word(&fx, PA), 0);
	gm_mock_dev_rule_clear(fx.m);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_IO);
	cr_assert_eq(steps[1].ret, GM_RET_IO);
	cr_assert_eq(steps[2].ret, GM_RET_CANCELED);
	cr_assert_eq(*fx_word(&fx, PA + PAGE), 5);
	cr_assert_eq(*fx_word(&fx, PA + 2 * PAGE), 5);
	fx_close(&fx);
}

Test(mock_rule, hung_plan)
{
	run_hung_plan("vram=1M");
	run_hung_plan("vram=1M,engines=2");
}

/* The script loses the device at a place and a count. */
Test(mock_rule, lost_by_script)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	add(&fx, (struct gm_mock_rule){ .op = GM_MOCK_PMAP_ENTER, .nth = 2, .count = 1, .result = GM_RET_NODEV });
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + PAGE, PA, PAGE, 0), GM_RET_NODEV);
	cr_assert_eq(fx.mmu->pmap_enter(fx.pmap, VA + PAGE, PA, PAGE, 0), GM_RET_NODEV);
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_NODEV);
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA, PAGE));
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(fx.m);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
}

static gm_ret_t load_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word;

	(void)index;
	return gm_mock_load(thread, *(uint64_t *)arg, &word, 8);
}

Test(mock_rule, bad_page)
{
	static char buf[3 * GM_PAGE_BYTES] __attribute__((aligned(4096)));
	uint64_t word, va = VA + PAGE;
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	fx_enter(&fx, VA, PA, 3 * PAGE, GM_PTE_WRITE);
	cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA + PAGE + 100), GM_RET_SUCCESS);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_DEV, PA, buf, 3 * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_HOST, PA, buf, 3 * PAGE), GM_RET_IO);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_HOST, PA, buf, PAGE), GM_RET_SUCCESS);
	cr_assert_eq(transfer(&fx, GM_COPY_TO_HOST, PA + 2 * PAGE, buf, PAGE), GM_RET_SUCCESS);
	word = 0;
	cr_assert_eq(fx.mmu->access(fx.pmap, VA + PAGE, &word, 8, false), GM_RET_SUCCESS, "the mapping is there");
	cr_assert_eq(word, UINT64_MAX, "its bytes are not");
	cr_assert_eq(fx.mmu->access(fx.pmap, VA + PAGE, &word, 8, true), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA + 2 * PAGE, &word, 8, false), GM_RET_SUCCESS);
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA, 3 * PAGE));
	cr_assert_not_null(fx.mmu->cpu_ptr(fx.m, PA + 2 * PAGE, PAGE));
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, load_kernel, &va, 1)), GM_RET_IO);
	cr_assert_eq(atomic_load(&fx.s.faults_ready), 0, "it is no fault");
	cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA - 1), GM_RET_INVAL);
	cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA + MIB), GM_RET_INVAL);
	for (unsigned i = 0; i < GM_MOCK_MAX_BAD_PAGES; i++)
		cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA + (1 + i) * PAGE), GM_RET_SUCCESS);
	cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA), GM_RET_NOSPC);
	cr_assert_eq(gm_mock_dev_bad_page(fx.m, PA + 9 * PAGE), GM_RET_SUCCESS, "it is broken already");
	fx_close(&fx);
}

/* What gmem/hal.h does not list cannot be scripted. */
Test(mock_rule, refused)
{
	static const struct gm_mock_rule bad[] = {
		{ .op = GM_MOCK_PMAP_ENTER, .nth = 1, .count = 1, .result = GM_RET_IO },
		{ .op = GM_MOCK_PMAP_CREATE, .nth = 1, .count = 1, .result = GM_RET_NOSPC },
		{ .op = GM_MOCK_COPY_LATE, .nth = 1, .count = 1, .result = GM_RET_NOMEM },
		{ .op = GM_MOCK_INVL, .nth = 1, .count = 1, .result = GM_RET_NOMEM },
		{ .op = GM_MOCK_INVL, .nth = 1, .count = 1, .delay_ns = 1 },
		{ .op = GM_MOCK_COPY, .nth = 0, .count = 1, .result = GM_RET_IO },
		{ .op = GM_MOCK_COPY, .nth = 1, .count = 0, .result = GM_RET_IO },
		{ .op = GM_MOCK_COPY, .nth = 1, .count = 1 },
		{ .op = GM_MOCK_COPY, .nth = 1, .count = 1, .result = GM_RET_IO, .garbage = true },
		{ .op = GM_MOCK_COPY, .where = GM_MOCK_AT_VA, .end = 1, .nth = 1, .count = 1, .result = GM_RET_IO },
		{ .op = GM_MOCK_COPY, .where = GM_MOCK_AT_PA, .begin = 5, .end = 5, .nth = 1, .count = 1, .result = GM_RET_IO },
		{ .op = GM_MOCK_COPY, .where = (enum gm_mock_where)3, .end = 5, .nth = 1, .count = 1, .result = GM_RET_IO },
		{ .op = GM_MOCK_PMAP_REMOVE, .where = GM_MOCK_AT_PA, .end = 1, .nth = 1, .count = 1, .result = GM_RET_NOMEM },
		{ .op = GM_MOCK_PMAP_ENTER, .nth = 1, .count = 1, .hang = true },
		{ .op = GM_MOCK_OPS, .nth = 1, .count = 1, .result = GM_RET_NOMEM },
	};
	struct gm_mock_rule rule = { .size = sizeof(rule) - 1, .op = GM_MOCK_COPY, .nth = 1, .count = 1,
				     .result = GM_RET_IO };
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	cr_expect_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_INVAL);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rule = bad[i];
		rule.size = sizeof(rule);
		cr_expect_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_INVAL, "rule %u", i);
	}
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_INVL, 1, 1), GM_RET_INVAL);
	rule = (struct gm_mock_rule){ .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 1, .count = 1, .result = GM_RET_IO };
	atomic_store(&fx.s.fail_alloc, 1);
	cr_assert_eq(gm_mock_dev_rule_add(fx.m, &rule), GM_RET_NOMEM);
	/* Nothing of all this is in force. */
	cr_assert_eq(transfer(&fx, GM_COPY_ZERO, PA, NULL, PAGE), GM_RET_SUCCESS);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(gm_mock_rule_add(NULL, &rule), GM_RET_INVAL);
	cr_assert_eq(gm_mock_rule_clear(NULL), GM_RET_INVAL);
	cr_assert_eq(gm_mock_lose(NULL), GM_RET_INVAL);
	cr_assert_eq(gm_mock_bad_page(NULL, PA), GM_RET_INVAL);
	fx_close(&fx);
}
