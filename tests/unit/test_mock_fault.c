/* SPDX-License-Identifier: MIT */
/* Faults of the mock: reported, served, replayed, answered with an error, cancelled, and none at all. */
#include "config.h"

#include "mock_fixture.h"

#define VA UINT64_C(0x7f4000000000)
#define N_PAGES 256u

static gm_ret_t sum_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	_Atomic uint64_t *sums = arg;
	uint64_t word, seed = index + 1;
	gm_ret_t ret = GM_RET_SUCCESS;

	/* Every page once, each thread in an order of its own. */
	for (unsigned i = 0; i < N_PAGES && ret == GM_RET_SUCCESS; i++) {
		unsigned page = (i * (2 * index + 1) + index * 64) % N_PAGES;

		ret = gm_mock_load(thread, VA + page * PAGE + fx_random(&seed) % 512 * 8, &word, 8);
		atomic_fetch_add(&sums[index], word);
	}
	return ret;
}

/* Serve faults one by one until the fence is done; returns how many. */
static unsigned serve(struct mock_fixture *fx, struct gm_fence *fence)
{
	struct gm_dev_fault fault;
	unsigned served = 0;

	while (mock_fence_wait(fence, 0) == GM_RET_TIMEDOUT) {
		if (fx->mmu->fault_next(fx->m, &fault) != GM_RET_SUCCESS) {
			sched_yield();
			continue;
		}
		cr_assert_eq(fault.pmap, fx->pmap);
		cr_assert(fault.va % PAGE == 0 && fault.va >= VA && fault.va < VA + N_PAGES * PAGE);
		fx_enter(fx, fault.va, PA + (fault.va - VA), PAGE, fault.access == GM_READ ? 0 : GM_PTE_WRITE);
		cr_assert_eq(fx->mmu->fault_done(fx->pmap, fault.va, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
		served++;
	}
	return served;
}

Test(mock_fault, four_threads_replay)
{
	_Atomic uint64_t sums[4] = { 0 };
	struct gm_mock_stats stats;
	struct mock_fixture fx;
	struct gm_fence *fence;
	uint64_t want = 0;
	unsigned served;

	fx_open(&fx, "vram=1M,tlb=16");
	for (uint64_t i = 0; i < UINT64_C(512) * N_PAGES; i++)
		*fx_word(&fx, PA + i * 8) = i / 512 + 1;
	for (unsigned i = 0; i < N_PAGES; i++)
		want += i + 1;
	fence = fx_launch(&fx, sum_kernel, sums, 4);
	served = serve(&fx, fence);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(atomic_load(&sums[i]), want, "thread %u", i);
	cr_assert_geq(served, N_PAGES);
	gm_mock_dev_stats(fx.m, &stats);
	cr_assert_geq(stats.faults, served);
	cr_assert_eq((long)stats.faults, atomic_load(&fx.s.faults_ready));
	fx_close(&fx);
}

static gm_ret_t store_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word = 77 + index;

	(void)arg;
	return gm_mock_store(thread, VA + index * PAGE + 24, &word, 8);
}

static gm_ret_t load_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word;

	(void)arg;
	return gm_mock_load(thread, VA + index * PAGE, &word, 8);
}

static gm_ret_t add_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	(void)arg;
	return gm_mock_fetch_add(thread, VA + index * PAGE, 1, NULL);
}

static struct gm_dev_fault next_fault(struct mock_fixture *fx)
{
	struct gm_dev_fault fault = { .pmap = NULL };

	for (unsigned i = 0; i < LONG_MS; i++) {
		if (fx->mmu->fault_next(fx->m, &fault) == GM_RET_SUCCESS)
			break;
		mock_sleep_ms(1);
	}
	cr_assert_eq(fault.pmap, fx->pmap);
	return fault;
}

/* What is reported says which page and which access; a wrong right is a fault as well. */
Test(mock_fault, says_what_is_wanted)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_AGAIN);
	fence = fx_launch(&fx, store_kernel, NULL, 1);
	fault = next_fault(&fx);
	cr_assert_eq(fault.va, VA);
	cr_assert_eq(fault.access, GM_WRITE);
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_AGAIN);
	/* Served with a mapping that is not enough: it comes again. */
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	fault = next_fault(&fx);
	cr_assert_eq(fault.access, GM_WRITE);
	fx_enter(&fx, VA, PA, PAGE, GM_PTE_WRITE);
	cr_assert_eq(mock_fence_wait(fence, 20), GM_RET_TIMEDOUT, "went on before fault_done");
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	cr_assert_eq(*fx_word(&fx, PA + 24), 77);
	fence = fx_launch(&fx, add_kernel, NULL, 2);
	fault = next_fault(&fx);
	cr_assert_eq(fault.va, VA + PAGE);
	cr_assert_eq(fault.access, GM_ATOMIC);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA + PAGE, PAGE, GM_RET_FAULT), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_FAULT);
	fx_close(&fx);
}

/* An answer goes to its range only, reported or not, and a failure comes out of the access. */
Test(mock_fault, answers)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M");
	fence = fx_launch(&fx, store_kernel, NULL, 4);
	cr_assert(fx_reaches(&fx.s.faults_ready, 4));
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_SUCCESS);
	/* A neighbour's range answers nobody: whoever went on would come back with another fault. */
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA + 4 * PAGE, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA - PAGE, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	mock_sleep_ms(30);
	cr_assert_eq(atomic_load(&fx.s.faults_ready), 4);
	fx_enter(&fx, VA, PA, 3 * PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, 3 * PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	/* Only the fourth page is left, if it was not the one that was reported above. */
	if (fault.va != VA + 3 * PAGE)
		fault = next_fault(&fx);
	cr_assert_eq(fault.va, VA + 3 * PAGE);
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_AGAIN, "a served fault is still queued");
	cr_assert_eq(mock_fence_wait(fence, 20), GM_RET_TIMEDOUT);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA + 3 * PAGE, PAGE, GM_RET_PERM), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_PERM);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(*fx_word(&fx, PA + i * PAGE + 24), 77 + i);
	fx_close(&fx);
}

/* A failure is for what was reported; what came later to the same page is reported then. */
Test(mock_fault, failure_of_what_was_reported)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *store, *load;

	fx_open(&fx, "vram=1M");
	store = fx_launch(&fx, store_kernel, NULL, 1);
	(void)next_fault(&fx);
	load = fx_launch(&fx, load_kernel, NULL, 1);
	cr_assert(fx_reaches(&fx.s.faults_ready, 2));
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_PERM), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, store), GM_RET_PERM);
	cr_assert_eq(mock_fence_wait(load, 20), GM_RET_TIMEDOUT);
	fault = next_fault(&fx);
	cr_assert_eq(fault.access, GM_READ);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, load), GM_RET_SUCCESS);
	fx_close(&fx);
}

/* Nobody serves: destroying the page table ends the kernels, and the queue forgets them. */
Test(mock_fault, destroy_cancels)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M,contexts=2");
	fence = fx_launch(&fx, store_kernel, NULL, 4);
	cr_assert(fx_reaches(&fx.s.faults_ready, 4));
	fx.mmu->pmap_destroy(fx.pmap);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_CANCELED);
	cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_AGAIN);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &fx.pmap), GM_RET_SUCCESS);
	fx_close(&fx);
}

Test(mock_fault, device_without_faults)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,faults=no");
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, load_kernel, NULL, 1)), GM_RET_FAULT);
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, load_kernel, NULL, 1)), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, store_kernel, NULL, 1)), GM_RET_PERM);
	cr_assert_eq(fx.mmu->fault_next(fx.m, &fault), GM_RET_AGAIN);
	cr_assert_eq(atomic_load(&fx.s.faults_ready), 0);
	fx_close(&fx);
}

/* Host memory that stays away although the fault was served: not for ever. */
Test(mock_fault, host_memory_gone)
{
	struct gm_mock_stats stats;
	struct mock_fixture fx;
	struct gm_fence *fence;
	uint64_t host;

	fx_open(&fx, "vram=1M");
	host = fx_host(&fx, PAGE);
	fx_enter(&fx, VA, host, PAGE, GM_PTE_HOST);
	fx.s.host_bytes = 0;
	fence = fx_launch(&fx, load_kernel, NULL, 1);
	(void)next_fault(&fx);
	/* It comes back: the access goes on. */
	fx.s.host_bytes = PAGE;
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	fx.s.host_bytes = 0;
	fence = fx_launch(&fx, load_kernel, NULL, 1);
	while (mock_fence_wait(fence, 1) == GM_RET_TIMEDOUT)
		cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_FAULT);
	gm_mock_dev_stats(fx.m, &stats);
	cr_assert_eq(stats.faults, 1 + 16);
	fx_close(&fx);
}

/* The unit of a device with larger pages is larger. */
Test(mock_fault, large_granule)
{
	struct gm_dev_fault fault;
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=4M,pages=64K");
	fence = fx_launch(&fx, load_kernel, NULL, 16);
	cr_assert(fx_reaches(&fx.s.faults_ready, 16));
	fault = next_fault(&fx);
	cr_assert_eq(fault.va, VA);
	fx_enter(&fx, VA, PA, 65536, 0);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, 65536, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_SUCCESS);
	fx_close(&fx);
}
