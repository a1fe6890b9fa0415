/* SPDX-License-Identifier: MIT */
/* Probes for planted errors of copies, fences, plans, faults and leaks. */
#include "config.h"

#include <unistd.h>

#include "mock_bug.h"

#define N_WORDS (GM_PAGE_BYTES / sizeof(uint64_t))

/* Host pages, each full of its own number. */
static uint64_t *host_pages(unsigned n)
{
	uint64_t *host = aligned_alloc(GM_PAGE_BYTES, n * PAGE);

	cr_assert_not_null(host);
	for (size_t i = 0; i < n * N_WORDS; i++)
		host[i] = i / N_WORDS + 1;
	return host;
}

static struct gm_copy to_dev(unsigned page, const uint64_t *host, unsigned n)
{
	return (struct gm_copy){
		.kind = GM_COPY_TO_DEV,
		.pa = PA + page * PAGE,
		.host = (uint64_t)(uintptr_t)(host + page * N_WORDS),
		.bytes = n * PAGE,
	};
}

/* Copy host pages there in pieces, and say what the first words of the device's pages are then. */
static void copy_words(struct mock_fixture *fx, unsigned pieces, unsigned pages_each, uint64_t *words)
{
	unsigned n = pieces * pages_each;
	uint64_t *host = host_pages(n);
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	struct gm_copy copies[4];

	cr_assert(pieces <= 4);
	for (unsigned i = 0; i < pieces; i++)
		copies[i] = to_dev(i * pages_each, host, pages_each);
	cr_assert_eq(fx->mmu->copy(fx->m, copies, pieces, fence), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(fx, fence), GM_RET_SUCCESS);
	for (unsigned i = 0; i < n; i++)
		words[i] = *(uint64_t *)gm_mock_vram(fx->m, PA + i * PAGE, sizeof(uint64_t));
	free(host);
}

static bool copy_shift(struct mock_fixture *fx)
{
	uint64_t w[4];

	copy_words(fx, 1, 4, w);
	if (w[0] == 1 && w[1] == 2 && w[2] == 3 && w[3] == 4)
		return false;
	cr_assert(w[0] == 2 && w[1] == 3 && w[2] == 4 && w[3] == 1);
	return true;
}

static bool copy_swap(struct mock_fixture *fx)
{
	uint64_t w[3];

	copy_words(fx, 3, 1, w);
	cr_assert_eq(w[2], 3);
	return w[0] == 2 && w[1] == 1;
}

static bool copy_last(struct mock_fixture *fx)
{
	uint64_t w[3];

	copy_words(fx, 3, 1, w);
	cr_assert(w[0] == 1 && w[1] == 2);
	return w[2] == 0;
}

static bool cpu_ptr_off(struct mock_fixture *fx)
{
	uint64_t w[2];

	copy_words(fx, 1, 2, w);
	cr_assert(w[0] == 1 && w[1] == 2);
	return *fx_word(fx, PA) != 1;
}

/* One call that zeroes a page; what it returned, and how often its fence was signalled a little later. */
static gm_ret_t zero_page(struct mock_fixture *fx, unsigned *signals, gm_ret_t *result)
{
	struct gm_copy zero = { .kind = GM_COPY_ZERO, .pa = PA, .bytes = PAGE };
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	gm_ret_t ret = fx->mmu->copy(fx->m, &zero, 1, fence);

	*signals = fence->signals;
	*result = fence->result;
	mock_svc_fence_put(&fx->s, fence);
	return ret;
}

static bool fence_twice(struct mock_fixture *fx)
{
	unsigned signals;
	gm_ret_t result;

	cr_assert_eq(zero_page(fx, &signals, &result), GM_RET_SUCCESS);
	cr_assert(signals == 1 || signals == 2);
	return signals == 2;
}

static bool fence_after_error(struct mock_fixture *fx)
{
	unsigned signals;
	gm_ret_t result;

	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_COPY, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(zero_page(fx, &signals, &result), GM_RET_IO);
	return signals == 1;
}

static bool fence_never(struct mock_fixture *fx)
{
	unsigned signals, silent = 0;
	gm_ret_t result;

	for (unsigned i = 0; i < 16; i++) {
		cr_assert_eq(zero_page(fx, &signals, &result), GM_RET_SUCCESS);
		silent += signals == 0;
	}
	cr_assert(silent == 0 || silent == 2);
	return silent == 2;
}

static bool fence_success(struct mock_fixture *fx)
{
	unsigned signals;
	gm_ret_t result;

	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_COPY_LATE, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(zero_page(fx, &signals, &result), GM_RET_SUCCESS);
	cr_assert_eq(signals, 1);
	return result == GM_RET_SUCCESS;
}

/* Page 0 of the plan's range is removed, invalidated and entered again elsewhere. */
static void plan_fill(struct mock_fixture *fx, struct gm_step *steps)
{
	fx_enter(fx, VA, PA, PAGE, 0);
	*fx_word(fx, PA + PAGE) = 2;
	steps[0] = (struct gm_step){ .op = GM_STEP_REMOVE, .after = GM_STEP_FREE, .pmap = fx->pmap };
	steps[1] = (struct gm_step){ .op = GM_STEP_INVL, .after = 0, .pmap = fx->pmap };
	steps[2] = (struct gm_step){ .op = GM_STEP_ENTER, .after = 1, .pmap = fx->pmap, .pa = PA + PAGE };
	for (unsigned i = 0; i < 3; i++) {
		steps[i].va = VA;
		steps[i].bytes = PAGE;
		steps[i].ret = GM_RET_CANCELED;
	}
}

static gm_ret_t plan_run(struct mock_fixture *fx, struct gm_step *steps)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->submit(fx->m, steps, 3, fence), GM_RET_SUCCESS);
	return fx_finish(fx, fence);
}

static bool plan_reversed(struct mock_fixture *fx)
{
	struct gm_step steps[3];

	plan_fill(fx, steps);
	cr_assert_eq(plan_run(fx, steps), GM_RET_SUCCESS);
	return !bug_mapped(fx, VA);
}

static bool plan_no_ret(struct mock_fixture *fx)
{
	struct gm_step steps[3];

	plan_fill(fx, steps);
	cr_assert_eq(plan_run(fx, steps), GM_RET_SUCCESS);
	cr_assert(bug_mapped(fx, VA));
	return steps[0].ret == GM_RET_CANCELED;
}

static bool plan_goes_on(struct mock_fixture *fx)
{
	struct gm_step steps[3];

	plan_fill(fx, steps);
	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_PMAP_REMOVE, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(plan_run(fx, steps), GM_RET_NOMEM);
	cr_assert_eq(steps[0].ret, GM_RET_NOMEM);
	return steps[1].ret == GM_RET_SUCCESS;
}

static bool plan_drops_last(struct mock_fixture *fx)
{
	struct gm_step steps[3];

	plan_fill(fx, steps);
	cr_assert_eq(plan_run(fx, steps), GM_RET_SUCCESS);
	cr_assert_eq(steps[2].ret, GM_RET_SUCCESS);
	return !bug_mapped(fx, VA);
}

/* Jobs, one per page from VA on, that store a word each and end with the result. */
struct jobs {
	struct gm_fence *fence;
	_Atomic long done;
	uint64_t step; /* bytes from one job's page to the next one's */
	gm_ret_t ret[2];
};

static gm_ret_t job_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct jobs *jobs = arg;
	uint64_t word = index + 1;

	jobs->ret[index] = gm_mock_store(thread, VA + index * jobs->step, &word, 8);
	atomic_fetch_add(&jobs->done, 1);
	return GM_RET_SUCCESS;
}

static void jobs_start(struct mock_fixture *fx, struct jobs *jobs, unsigned n, uint64_t step)
{
	*jobs = (struct jobs){ .step = step };
	jobs->fence = fx_launch(fx, job_kernel, jobs, n);
}

/* The next fault; false: none for a long time. */
static bool next_fault(struct mock_fixture *fx, struct gm_dev_fault *fault)
{
	for (unsigned i = 0; i < LONG_MS; i++) {
		if (fx->mmu->fault_next(fx->m, fault) == GM_RET_SUCCESS)
			return true;
		mock_sleep_ms(1);
	}
	return false;
}

/* Answer whatever waits until nobody does. */
static void jobs_end(struct mock_fixture *fx, struct jobs *jobs, gm_ret_t answer)
{
	struct gm_dev_fault fault;

	for (unsigned i = 0; i < LONG_MS && mock_fence_wait(jobs->fence, 1) == GM_RET_TIMEDOUT; i++) {
		while (fx->mmu->fault_next(fx->m, &fault) == GM_RET_SUCCESS)
			; /* a failure is for what was named */
		cr_assert_eq(fx->mmu->fault_done(fx->pmap, VA, 4 * PAGE, answer), GM_RET_SUCCESS);
	}
	cr_assert_eq(fx_finish(fx, jobs->fence), GM_RET_SUCCESS);
}

static bool fault_twice(struct mock_fixture *fx)
{
	struct gm_dev_fault fault, again;
	struct jobs jobs;
	bool twice;

	jobs_start(fx, &jobs, 1, PAGE);
	cr_assert(next_fault(fx, &fault));
	twice = fx->mmu->fault_next(fx->m, &again) == GM_RET_SUCCESS;
	cr_assert(!twice || again.va == fault.va);
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	cr_assert_eq(fx->mmu->fault_next(fx->m, &again), GM_RET_AGAIN);
	return twice;
}

static bool fault_va(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;
	struct jobs jobs;

	jobs_start(fx, &jobs, 1, PAGE);
	cr_assert(next_fault(fx, &fault));
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	return fault.va != VA;
}

static bool fault_access(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;
	struct jobs jobs;

	jobs_start(fx, &jobs, 1, PAGE);
	cr_assert(next_fault(fx, &fault));
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	return fault.access != GM_WRITE;
}

/* Two jobs wait, at pages `step` apart; both are served in one call. True: one of them goes on waiting. */
static bool one_waits(struct mock_fixture *fx, uint64_t step)
{
	struct gm_dev_fault fault;
	struct jobs jobs;
	bool stuck;

	jobs_start(fx, &jobs, 2, step);
	cr_assert(next_fault(fx, &fault));
	cr_assert(next_fault(fx, &fault));
	cr_assert_eq(fx->mmu->fault_done(fx->pmap, VA, 2 * PAGE, GM_RET_NOSPC), GM_RET_SUCCESS);
	cr_assert(fx_reaches(&jobs.done, 1));
	stuck = mock_fence_wait(jobs.fence, 200) == GM_RET_TIMEDOUT;
	/* The other one is at the first page where only the first page was served before. */
	for (unsigned i = 0; stuck && i < LONG_MS && atomic_load(&jobs.done) < 2; i++) {
		cr_assert_eq(fx->mmu->fault_done(fx->pmap, VA + step, PAGE, GM_RET_NOSPC), GM_RET_SUCCESS);
		mock_sleep_ms(1);
	}
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	cr_assert(jobs.ret[0] == GM_RET_NOSPC && jobs.ret[1] == GM_RET_NOSPC);
	return stuck;
}

static bool fault_one_waiter(struct mock_fixture *fx)
{
	return one_waits(fx, 0);
}

static bool fault_one_page(struct mock_fixture *fx)
{
	return one_waits(fx, PAGE);
}

static bool fault_result(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;
	struct jobs jobs;

	jobs_start(fx, &jobs, 1, PAGE);
	cr_assert(next_fault(fx, &fault));
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	return jobs.ret[0] != GM_RET_NOSPC;
}

/* Two at one page, one of them named: a failure is for that one. */
static bool fault_unnamed(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;
	struct jobs jobs;
	bool both;

	jobs_start(fx, &jobs, 2, 0);
	cr_assert(fx_reaches(&fx->s.faults_ready, 2) && next_fault(fx, &fault));
	cr_assert_eq(fx->mmu->fault_done(fx->pmap, VA, PAGE, GM_RET_NOSPC), GM_RET_SUCCESS);
	both = fx->mmu->fault_next(fx->m, &fault) != GM_RET_SUCCESS;
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	return both;
}

static _Atomic long waits;

static gm_ret_t counted_wait(void *self, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns)
{
	atomic_fetch_add(&waits, 1);
	return mock_svc_wait(self, q, m, deadline_ns);
}

static bool fault_blocks(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;

	atomic_store(&waits, 0);
	fx->s.svc.wait = counted_wait;
	cr_assert_eq(fx->mmu->fault_next(fx->m, &fault), GM_RET_AGAIN);
	fx->s.svc.wait = mock_svc_wait;
	return atomic_load(&waits) > 0;
}

static bool fault_silent(struct mock_fixture *fx)
{
	struct gm_dev_fault fault;
	struct jobs jobs;
	bool said;

	jobs_start(fx, &jobs, 1, PAGE);
	cr_assert(next_fault(fx, &fault));
	/* It comes right after the fault was queued. */
	for (unsigned i = 0; i < 200 && !atomic_load(&fx->s.faults_ready); i++)
		mock_sleep_ms(1);
	said = atomic_load(&fx->s.faults_ready) > 0;
	jobs_end(fx, &jobs, GM_RET_NOSPC);
	return !said;
}

/* A completion that ends with NOSPC, imported before: what the import says before, and after. */
static void sync_pass(struct mock_fixture *fx, gm_ret_t *before, gm_ret_t *after)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);
	void *sync;
	int fd;

	cr_assert_eq(fx->mmu->sync_create(fx->m, &sync, &fd), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->sync_import(fx->m, fd, fence), GM_RET_SUCCESS);
	*before = mock_fence_wait(fence, 20);
	fx->mmu->sync_signal(fx->m, sync, GM_RET_NOSPC);
	*after = fx_finish(fx, fence);
	close(fd);
}

static bool sync_early(struct mock_fixture *fx)
{
	gm_ret_t before, after;

	sync_pass(fx, &before, &after);
	return before != GM_RET_TIMEDOUT;
}

static bool sync_success(struct mock_fixture *fx)
{
	gm_ret_t before, after;

	sync_pass(fx, &before, &after);
	cr_assert(after == GM_RET_NOSPC || after == GM_RET_SUCCESS);
	return after == GM_RET_SUCCESS;
}

static bool sync_silent(struct mock_fixture *fx)
{
	gm_ret_t before, after;

	sync_pass(fx, &before, &after);
	cr_assert(after == GM_RET_NOSPC || after == GM_RET_IO);
	return after == GM_RET_IO;
}

const struct bug_case bug_cases_io[] = {
	{ GM_MOCK_BUG_COPY_SHIFT, "vram=1M", copy_shift },
	{ GM_MOCK_BUG_COPY_SHIFT, "vram=1M,copy=async", copy_shift },
	{ GM_MOCK_BUG_COPY_SWAP, "vram=1M", copy_swap },
	{ GM_MOCK_BUG_COPY_SWAP, "vram=1M,copy=async", copy_swap },
	{ GM_MOCK_BUG_COPY_LAST, "vram=1M", copy_last },
	{ GM_MOCK_BUG_COPY_LAST, "vram=1M,engines=2", copy_last },
	{ GM_MOCK_BUG_CPU_PTR_OFF, "vram=1M", cpu_ptr_off },
	{ GM_MOCK_BUG_FENCE_TWICE, "vram=1M", fence_twice },
	{ GM_MOCK_BUG_FENCE_AFTER_ERROR, "vram=1M", fence_after_error },
	{ GM_MOCK_BUG_FENCE_NEVER, "vram=1M", fence_never },
	{ GM_MOCK_BUG_FENCE_SUCCESS, "vram=1M", fence_success },
	{ GM_MOCK_BUG_PLAN_REVERSED, "vram=1M", plan_reversed },
	{ GM_MOCK_BUG_PLAN_REVERSED, "vram=1M,copy=async", plan_reversed },
	{ GM_MOCK_BUG_PLAN_REVERSED, "vram=1M,engines=2,reorder=9", plan_reversed },
	{ GM_MOCK_BUG_PLAN_NO_RET, "vram=1M", plan_no_ret },
	{ GM_MOCK_BUG_PLAN_NO_RET, "vram=1M,copy=async", plan_no_ret },
	{ GM_MOCK_BUG_PLAN_GOES_ON, "vram=1M", plan_goes_on },
	{ GM_MOCK_BUG_PLAN_GOES_ON, "vram=1M,copy=async", plan_goes_on },
	{ GM_MOCK_BUG_PLAN_DROPS_LAST, "vram=1M", plan_drops_last },
	{ GM_MOCK_BUG_PLAN_DROPS_LAST, "vram=1M,reorder=3", plan_drops_last },
	{ GM_MOCK_BUG_FAULT_TWICE, "vram=1M", fault_twice },
	{ GM_MOCK_BUG_FAULT_VA, "vram=1M", fault_va },
	{ GM_MOCK_BUG_FAULT_ACCESS, "vram=1M", fault_access },
	{ GM_MOCK_BUG_FAULT_ONE_WAITER, "vram=1M", fault_one_waiter },
	{ GM_MOCK_BUG_FAULT_ONE_PAGE, "vram=1M", fault_one_page },
	{ GM_MOCK_BUG_FAULT_RESULT, "vram=1M", fault_result },
	{ GM_MOCK_BUG_FAULT_UNNAMED, "vram=1M", fault_unnamed },
	{ GM_MOCK_BUG_FAULT_BLOCKS, "vram=1M", fault_blocks },
	{ GM_MOCK_BUG_FAULT_SILENT, "vram=1M", fault_silent },
	{ GM_MOCK_BUG_SYNC_EARLY, "vram=1M", sync_early },
	{ GM_MOCK_BUG_SYNC_SUCCESS, "vram=1M", sync_success },
	{ GM_MOCK_BUG_SYNC_SILENT, "vram=1M", sync_silent },
	{ .bug = GM_MOCK_BUG_NONE },
};
