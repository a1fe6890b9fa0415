/* SPDX-License-Identifier: MIT */
/* The mock's copies and plans: bytes, borders, order, fences, and every way to fail. */
#include "config.h"

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)
#define GUARD 0x3c

static gm_ret_t copy_one(struct mock_fixture *fx, enum gm_copy_kind kind, uint64_t pa, const void *host, uint64_t bytes,
			 gm_ret_t *result)
{
	struct gm_copy c = { .kind = kind, .pa = pa, .host = (uint64_t)(uintptr_t)host, .bytes = bytes };
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	gm_ret_t ret = fx->mmu->copy(fx->m, &c, 1, fence);

	*result = mock_fence_wait(fence, ret == GM_RET_SUCCESS ? LONG_MS : 0);
	cr_assert_leq(fence->signals, 1);
	mock_svc_fence_put(&fx->s, fence);
	return ret;
}

static char *buffer(uint64_t *seed, size_t bytes)
{
	char *buf = aligned_alloc(GM_PAGE_BYTES, bytes);

	cr_assert_not_null(buf);
	for (size_t i = 0; i < bytes; i++)
		buf[i] = (char)fx_random(seed);
	return buf;
}

static bool all_bytes(const void *at, int value, size_t bytes)
{
	const unsigned char *p = at;

	for (size_t i = 0; i < bytes; i++) {
		if (p[i] != value)
			return false;
	}
	return true;
}

/* Every kind, small and large, sync and async: the bytes arrive, the neighbours stay. */
static void run_bytes(const char *options)
{
	static const uint64_t sizes[] = { PAGE, 15 * PAGE, 16 * PAGE, 17 * PAGE, 2 * MIB };
	struct gm_mock_stats stats;
	struct mock_fixture fx;
	uint64_t seed = 3, total = 0;
	gm_ret_t result;

	fx_open(&fx, options);
	for (unsigned i = 0; i < 5; i++) {
		uint64_t n = sizes[i], pa = PA + 3 * PAGE;
		char *from = buffer(&seed, n), *to = buffer(&seed, n);
		char *vram = fx.mmu->cpu_ptr(fx.m, PA, 4 * MIB);

		memset(vram, GUARD, 4 * MIB);
		cr_assert_eq(copy_one(&fx, GM_COPY_TO_DEV, pa, from, n, &result), GM_RET_SUCCESS);
		cr_assert_eq(result, GM_RET_SUCCESS);
		cr_assert_arr_eq(vram + 3 * PAGE, from, n);
		cr_assert_eq(copy_one(&fx, GM_COPY_TO_HOST, pa, to, n, &result), GM_RET_SUCCESS);
		cr_assert_eq(result, GM_RET_SUCCESS);
		cr_assert_arr_eq(to, from, n);
		cr_assert_eq(copy_one(&fx, GM_COPY_ZERO, pa, NULL, n, &result), GM_RET_SUCCESS);
		cr_assert_eq(result, GM_RET_SUCCESS);
		cr_assert(all_bytes(vram + 3 * PAGE, 0, n));
		cr_assert(all_bytes(vram, GUARD, 3 * PAGE));
		cr_assert(all_bytes(vram + 3 * PAGE + n, GUARD, PAGE));
		total += n;
		free(from);
		free(to);
	}
	gm_mock_dev_stats(fx.m, &stats);
	cr_assert_eq(stats.copies, 15);
	cr_assert_eq(stats.bytes_to_dev, total);
	cr_assert_eq(stats.bytes_to_host, total);
	fx_close(&fx);
}

Test(mock_copy, bytes)
{
	run_bytes("vram=4M");
	run_bytes("vram=4M,copy=async");
}

/* The engine takes its time, keeps the order, and does not need the list of pieces afterwards. */
Test(mock_copy, async)
{
	struct gm_fence *fence[3];
	struct mock_fixture fx;
	uint64_t seed = 4, begin;
	char *buf[3], back[GM_PAGE_BYTES];

	fx_open(&fx, "vram=1M,copy=async,copyns=30000000");
	begin = mock_now_ns(NULL);
	for (unsigned i = 0; i < 3; i++) {
		struct gm_copy c = { .kind = GM_COPY_TO_DEV, .pa = PA, .bytes = PAGE };

		buf[i] = buffer(&seed, PAGE);
		c.host = (uint64_t)(uintptr_t)buf[i];
		if (i == 2) {
			c.kind = GM_COPY_TO_HOST;
			c.host = (uint64_t)(uintptr_t)back;
		}
		fence[i] = mock_svc_fence_create(&fx.s);
		cr_assert_eq(fx.mmu->copy(fx.m, &c, 1, fence[i]), GM_RET_SUCCESS);
		memset(&c, 0xff, sizeof(c));
	}
	cr_assert_eq(mock_fence_wait(fence[2], 0), GM_RET_TIMEDOUT, "done at once");
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(fx_finish(&fx, fence[i]), GM_RET_SUCCESS);
	cr_assert_geq(mock_now_ns(NULL) - begin, 90000000);
	cr_assert_arr_eq(back, buf[1], PAGE);
	for (unsigned i = 0; i < 3; i++)
		free(buf[i]);
	fx_close(&fx);
}

/* The nth call fails, not the one before nor the one after; a late failure is signalled and destroys. */
static void run_failures(const char *options)
{
	struct mock_fixture fx;
	uint64_t seed = 6;
	gm_ret_t result;
	char *buf;

	fx_open(&fx, options);
	buf = buffer(&seed, PAGE);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_COPY, 3, 2), GM_RET_SUCCESS);
	for (unsigned call = 1; call <= 6; call++) {
		bool fails = call == 3 || call == 4;

		memset(fx.mmu->cpu_ptr(fx.m, PA, PAGE), GUARD, PAGE);
		cr_assert_eq(copy_one(&fx, GM_COPY_TO_DEV, PA, buf, PAGE, &result),
			     fails ? GM_RET_IO : GM_RET_SUCCESS, "call %u", call);
		cr_assert_eq(result, fails ? GM_RET_TIMEDOUT : GM_RET_SUCCESS);
		cr_assert_eq(all_bytes(fx.mmu->cpu_ptr(fx.m, PA, PAGE), GUARD, PAGE), fails);
	}
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_COPY, 1, 100), GM_RET_SUCCESS);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_COPY, 0, 0), GM_RET_SUCCESS);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_COPY_LATE, 2, 1), GM_RET_SUCCESS);
	for (unsigned call = 1; call <= 3; call++) {
		bool good;

		cr_assert_eq(copy_one(&fx, GM_COPY_TO_DEV, PA, buf, PAGE, &result), GM_RET_SUCCESS);
		cr_assert_eq(result, call == 2 ? GM_RET_IO : GM_RET_SUCCESS);
		good = memcmp(fx.mmu->cpu_ptr(fx.m, PA, PAGE), buf, PAGE) == 0;
		cr_assert_eq(good, call != 2);
	}
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_COPY_LATE, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(copy_one(&fx, GM_COPY_TO_HOST, PA, buf, PAGE, &result), GM_RET_SUCCESS);
	cr_assert_eq(result, GM_RET_IO);
	cr_assert_neq(memcmp(fx.mmu->cpu_ptr(fx.m, PA, PAGE), buf, PAGE), 0);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_OPS, 1, 1), GM_RET_INVAL);
	free(buf);
	fx_close(&fx);
}

Test(mock_copy, failures)
{
	run_failures("vram=1M");
	run_failures("vram=1M,copy=async");
}

Test(mock_copy, no_memory_for_a_job)
{
	struct mock_fixture fx;
	gm_ret_t result;

	fx_open(&fx, "vram=1M,copy=async");
	struct gm_copy c = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct gm_fence *fence = mock_svc_fence_create(&fx.s);

	atomic_store(&fx.s.fail_alloc, 1);
	cr_assert_eq(fx.mmu->copy(fx.m, &c, 1, fence), GM_RET_NOMEM);
	cr_assert_eq(mock_fence_wait(fence, 0), GM_RET_TIMEDOUT);
	mock_svc_fence_put(&fx.s, fence);
	cr_assert_eq(copy_one(&fx, GM_COPY_ZERO, PA, NULL, PAGE, &result), GM_RET_SUCCESS);
	fx_close(&fx);
}

#define N_STEPS 7u

/* Unmap, invalidate, fill, map, read back; zero another page and map it. */
static void make_plan(struct mock_fixture *fx, struct gm_step *s, char *from, char *to)
{
	memset(s, 0, N_STEPS * sizeof(*s));
	for (unsigned i = 0; i < N_STEPS; i++) {
		s[i].after = i ? i - 1 : GM_STEP_FREE;
		s[i].pmap = fx->pmap;
		s[i].va = VA;
		s[i].bytes = PAGE;
		s[i].ret = GM_RET_BUSY;
	}
	s[0].op = GM_STEP_REMOVE;
	s[1].op = GM_STEP_INVL;
	s[2].op = GM_STEP_COPY;
	s[2].copy = (struct gm_copy){ .kind = GM_COPY_TO_DEV, .pa = PA, .host = GM_VA(from), .bytes = PAGE };
	s[3].op = GM_STEP_ENTER;
	s[3].pa = PA;
	s[3].pte = GM_PTE_WRITE;
	s[4].op = GM_STEP_COPY;
	s[4].copy = (struct gm_copy){ .kind = GM_COPY_TO_HOST, .pa = PA, .host = GM_VA(to), .bytes = PAGE };
	s[5].op = GM_STEP_COPY;
	s[5].copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = PA + PAGE, .bytes = PAGE };
	s[6].op = GM_STEP_ENTER;
	s[6].va = VA + PAGE;
	s[6].pa = PA + PAGE;
}

static gm_ret_t submit(struct mock_fixture *fx, struct gm_step *steps, gm_ret_t *result)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	gm_ret_t ret = fx->mmu->submit(fx->m, steps, N_STEPS, fence);

	*result = mock_fence_wait(fence, ret == GM_RET_SUCCESS ? LONG_MS : 0);
	mock_svc_fence_put(&fx->s, fence);
	return ret;
}

static void run_plan(const char *options)
{
	static const struct {
		enum gm_mock_op op;
		uint64_t nth;
		unsigned step; /* that fails */
		gm_ret_t ret;
	} failing[] = {
		{ GM_MOCK_PMAP_REMOVE, 1, 0, GM_RET_NOMEM }, { GM_MOCK_COPY, 1, 2, GM_RET_IO },
		{ GM_MOCK_COPY, 2, 4, GM_RET_IO },           { GM_MOCK_COPY_LATE, 3, 5, GM_RET_IO },
		{ GM_MOCK_PMAP_ENTER, 1, 3, GM_RET_NOMEM },  { GM_MOCK_PMAP_ENTER, 2, 6, GM_RET_NOMEM },
	};
	struct gm_step steps[N_STEPS];
	struct mock_fixture fx;
	uint64_t seed = 8, word;
	gm_ret_t result;
	char *from, *to;

	fx_open(&fx, options);
	from = buffer(&seed, PAGE);
	to = buffer(&seed, PAGE);
	*fx_word(&fx, PA + PAGE) = 5;
	make_plan(&fx, steps, from, to);
	cr_assert_eq(submit(&fx, steps, &result), GM_RET_SUCCESS);
	cr_assert_eq(result, GM_RET_SUCCESS);
	for (unsigned i = 0; i < N_STEPS; i++)
		cr_assert_eq(steps[i].ret, GM_RET_SUCCESS);
	cr_assert_arr_eq(to, from, PAGE);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA, &word, 8, true), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA + PAGE, &word, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(word, 0);

	for (unsigned k = 0; k < sizeof(failing) / sizeof(failing[0]); k++) {
		make_plan(&fx, steps, from, to);
		cr_assert_eq(gm_mock_dev_fail(fx.m, failing[k].op, failing[k].nth, 1), GM_RET_SUCCESS);
		cr_assert_eq(submit(&fx, steps, &result), GM_RET_SUCCESS);
		cr_assert_eq(result, failing[k].ret, "case %u", k);
		for (unsigned i = 0; i < N_STEPS; i++) {
			gm_ret_t want = i < failing[k].step ? GM_RET_SUCCESS : GM_RET_CANCELED;

			want = i == failing[k].step ? failing[k].ret : want;
			cr_assert_eq(steps[i].ret, want, "case %u step %u", k, i);
		}
	}
	make_plan(&fx, steps, from, to);
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_SUBMIT, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(submit(&fx, steps, &result), GM_RET_NOMEM);
	cr_assert_eq(result, GM_RET_TIMEDOUT);
	cr_assert_eq(steps[0].ret, GM_RET_BUSY, "a refused plan was touched");
	free(from);
	free(to);
	fx_close(&fx);
}

Test(mock_copy, plans)
{
	run_plan("vram=1M");
	run_plan("vram=1M,copy=async");
}
