/* SPDX-License-Identifier: MIT */
/* Life of the mock: capabilities, contexts, launches and their threads, failures at every step. */
#include "config.h"

#include <signal.h>

#include <gmem/dev.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

static uint32_t caps_of(const char *options)
{
	struct mock_fixture fx;
	uint32_t caps;

	fx_open(&fx, options);
	caps = fx.caps.caps;
	fx_close(&fx);
	return caps;
}

Test(mock_run, capabilities)
{
	uint32_t all = GM_CAP_FAULTS | GM_CAP_HOST_MAP | GM_CAP_CPU_VISIBLE | GM_CAP_FAST_INVL | GM_CAP_SUBMIT |
		       GM_CAP_ACCESS | GM_CAP_PROTECT | GM_CAP_SYNC;

	cr_assert_eq(caps_of(""), all);
	cr_assert_eq(caps_of("faults=no"), all & ~GM_CAP_FAULTS);
	cr_assert_eq(caps_of("hostmap=no"), all & ~GM_CAP_HOST_MAP);
	cr_assert_eq(caps_of("visible=no"), all & ~GM_CAP_CPU_VISIBLE);
	cr_assert_eq(caps_of("submit=no"), all & ~GM_CAP_SUBMIT);
	cr_assert_eq(caps_of("sync=no"), all & ~GM_CAP_SYNC);
	cr_assert_eq(caps_of("copy=async"), all);
}

Test(mock_run, description)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=2G,pages=64K+2M,vabits=40,contexts=3");
	cr_assert_eq(fx.caps.va_bits, 40);
	cr_assert_eq(fx.caps.page_sizes, 0x210000);
	cr_assert_eq(fx.caps.max_contexts, 3);
	cr_assert_eq(fx.caps.slabs, 1);
	cr_assert_gt(fx.caps.slab[0].begin, 0);
	cr_assert_eq(fx.caps.slab[0].end - fx.caps.slab[0].begin, UINT64_C(2) << 30);
	cr_assert_gt(strlen(fx.caps.name), 0);
	/* Both ends of it are there, large pages lie as they do for the device, and a hidden one is hidden. */
	memset(fx.mmu->cpu_ptr(fx.m, fx.caps.slab[0].begin, PAGE), 1, PAGE);
	memset(fx.mmu->cpu_ptr(fx.m, fx.caps.slab[0].end - PAGE, PAGE), 1, PAGE);
	cr_assert_eq((uintptr_t)fx.mmu->cpu_ptr(fx.m, fx.caps.slab[0].begin, PAGE) % (2 * MIB), 0);
	fx_close(&fx);
	fx_open(&fx, "visible=no");
	cr_assert_null(fx.mmu->cpu_ptr(fx.m, PA, PAGE));
	fx_close(&fx);
}

Test(mock_run, contexts)
{
	struct mock_fixture fx;
	void *more[2], *none = NULL;
	uint64_t word;

	fx_open(&fx, "vram=1M,contexts=3");
	cr_assert_eq(gm_mock_dev_fail(fx.m, GM_MOCK_PMAP_CREATE, 1, 1), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &none), GM_RET_NOMEM);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(fx.mmu->pmap_create(fx.m, &more[i]), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &none), GM_RET_NOSPC);
	cr_assert_null(none);
	/* Each has its own mappings. */
	*fx_word(&fx, PA) = 1;
	fx_enter(&fx, VA, PA, PAGE, 0);
	cr_assert_eq(fx.mmu->access(fx.pmap, VA, &word, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(fx.mmu->access(more[0], VA, &word, 8, false), GM_RET_FAULT);
	fx.mmu->pmap_destroy(more[0]);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &more[0]), GM_RET_SUCCESS);
	fx.mmu->pmap_destroy(more[0]);
	fx.mmu->pmap_destroy(more[1]);
	fx_close(&fx);
}

/* Fail every allocation of opening a device and a page table in turn: nothing is left. */
Test(mock_run, no_memory_to_open)
{
	const struct gm_mmu *mmu = gm_mock_mmu();
	struct gm_mock_config config;
	struct mock_services s;
	struct gm_dev_caps caps;
	gm_ret_t ret = GM_RET_NOMEM;
	long nth;

	cr_assert_eq(gm_mock_parse("vram=1M,copy=async", &config), GM_RET_SUCCESS);
	for (nth = 1; nth < 20 && ret != GM_RET_SUCCESS; nth++) {
		void *dev = NULL, *pmap = NULL;

		mock_services_init(&s);
		atomic_store(&s.fail_alloc, nth);
		ret = mmu->dev_init(&config, &s.svc, &caps, &dev);
		if (ret == GM_RET_SUCCESS) {
			ret = mmu->pmap_create(dev, &pmap);
			if (ret == GM_RET_SUCCESS)
				mmu->pmap_destroy(pmap);
			mmu->dev_fini(dev);
		}
		cr_assert(ret == GM_RET_SUCCESS || ret == GM_RET_NOMEM);
		cr_assert_eq(atomic_load(&s.live_bytes), 0, "left after failure %ld", nth);
		cr_assert_eq(atomic_load(&s.live_threads), 0);
	}
	/* Device, engine thread, page table, its root. */
	cr_assert_eq(nth, 6);
	mock_services_init(&s);
	config.vram_bytes = 1;
	cr_assert_eq(mmu->dev_init(&config, &s.svc, &caps, &(void *){ NULL }), GM_RET_INVAL);
	cr_assert_eq(atomic_load(&s.logged), 1);
	cr_assert_eq(atomic_load(&s.live_bytes), 0);
}

struct counts {
	_Atomic long started, go;
	gm_ret_t ret[4];
};

static gm_ret_t count_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct counts *c = arg;

	atomic_fetch_add(&c->started, 1);
	while (!atomic_load(&c->go))
		gm_mock_yield(thread);
	return c->ret[index % 4];
}

/* The fence is done when the last thread is, with a failure if there was one. */
Test(mock_run, launch)
{
	struct counts c = { .ret = { GM_RET_SUCCESS, GM_RET_SUCCESS, GM_RET_PERM, GM_RET_SUCCESS } };
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M");
	fence = fx_launch(&fx, count_kernel, &c, 4);
	cr_assert(fx_reaches(&c.started, 4));
	cr_assert_eq(mock_fence_wait(fence, 20), GM_RET_TIMEDOUT);
	atomic_store(&c.go, 1);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_PERM);
	cr_assert_eq(atomic_load(&c.started), 4);
	c.ret[2] = GM_RET_SUCCESS;
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, count_kernel, &c, 64)), GM_RET_SUCCESS);
	cr_assert_eq(atomic_load(&c.started), 68);
	fx_close(&fx);
}

/* Threads of finished launches go away with later launches, not only at the end. */
Test(mock_run, launches_are_reaped)
{
	struct counts c = { .go = 1 };
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (unsigned i = 0; i < 50; i++) {
		cr_assert_eq(fx_finish(&fx, fx_launch(&fx, count_kernel, &c, 4)), GM_RET_SUCCESS);
		/* The fence is signalled a moment before the launch counts as finished. */
		mock_sleep_ms(1);
		cr_assert_leq(atomic_load(&fx.s.live_threads), 12);
	}
	cr_assert_eq(atomic_load(&c.started), 200);
	fx_close(&fx);
}

/* If one thread cannot be started, no thread runs the kernel. */
Test(mock_run, all_threads_or_none)
{
	struct counts c = { .go = 1 };
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (long nth = 1; nth <= 4; nth++) {
		struct gm_fence *fence = mock_svc_fence_create(&fx.s);

		atomic_store(&fx.s.fail_thread, nth);
		cr_assert_eq(gm_mock_launch_start(fx.pmap, count_kernel, &c, 4, fence), GM_RET_AGAIN);
		atomic_store(&fx.s.fail_thread, 0);
		cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
		cr_assert_eq(mock_fence_wait(fence, 0), GM_RET_TIMEDOUT);
		atomic_store(&fx.s.fail_alloc, nth);
		cr_assert_eq(gm_mock_launch_start(fx.pmap, count_kernel, &c, 4, fence), GM_RET_NOMEM);
		atomic_store(&fx.s.fail_alloc, 0);
		cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
		mock_svc_fence_put(&fx.s, fence);
	}
	cr_assert_eq(atomic_load(&c.started), 0);
	fx_close(&fx);
}

/* Destroying a page table with kernels running waits for them. */
Test(mock_run, destroy_joins)
{
	struct counts c = { .started = 0 };
	struct mock_fixture fx;
	struct gm_fence *fence;

	fx_open(&fx, "vram=1M");
	fence = fx_launch(&fx, count_kernel, &c, 4);
	cr_assert(fx_reaches(&c.started, 4));
	atomic_store(&c.go, 1);
	fx.mmu->pmap_destroy(fx.pmap);
	cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
	cr_assert_eq(mock_fence_wait(fence, 0), GM_RET_SUCCESS);
	mock_svc_fence_put(&fx.s, fence);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &fx.pmap), GM_RET_SUCCESS);
	fx_close(&fx);
}

static gm_ret_t bad_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	char byte = 0;

	(void)index;
	(void)arg;
	gm_mock_yield(NULL);
	if (gm_mock_load(NULL, VA, &byte, 1) != GM_RET_INVAL || gm_mock_load(thread, VA, NULL, 1) != GM_RET_INVAL)
		return GM_RET_IO;
	if (gm_mock_store(NULL, VA, &byte, 1) != GM_RET_INVAL || gm_mock_store(thread, VA, NULL, 1) != GM_RET_INVAL)
		return GM_RET_IO;
	if (gm_mock_load(thread, VA, NULL, 0) != GM_RET_SUCCESS)
		return GM_RET_IO;
	if (gm_mock_load(thread, UINT64_C(1) << 48, &byte, 1) != GM_RET_FAULT)
		return GM_RET_IO;
	return gm_mock_store(thread, UINT64_MAX, &byte, 1) == GM_RET_FAULT ? GM_RET_SUCCESS : GM_RET_IO;
}

/* What a kernel gets wrong is answered, not reported as a fault. */
Test(mock_run, bad_arguments)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(fx_finish(&fx, fx_launch(&fx, bad_kernel, NULL, 1)), GM_RET_SUCCESS);
	cr_assert_eq(atomic_load(&fx.s.faults_ready), 0);
	fx_close(&fx);
	cr_assert_eq(gm_mock_fail(NULL, GM_MOCK_COPY, 1, 1), GM_RET_INVAL);
	cr_assert_eq(gm_mock_plant(NULL, GM_MOCK_BUG_NONE), GM_RET_INVAL);
	cr_assert_eq(gm_mock_stats(NULL, &(struct gm_mock_stats){ .faults = 0 }), GM_RET_INVAL);
	cr_assert_eq(gm_mock_launch(NULL, bad_kernel, NULL, 1, &(struct gm_fence *){ NULL }), GM_RET_INVAL);
}

#ifndef NDEBUG
/* What breaks the law of gmem/hal.h ends the program. */
Test(mock_run, asserts_other_address, .signal = SIGABRT)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	fx_enter(&fx, VA, PA, PAGE, 0);
	fx_enter(&fx, VA, PA + PAGE, PAGE, 0);
}

Test(mock_run, asserts_granule, .signal = SIGABRT)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M,pages=64K");
	fx_enter(&fx, VA, PA, PAGE, 0);
}

Test(mock_run, asserts_device_memory, .signal = SIGABRT)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	fx_enter(&fx, VA, PA + MIB - PAGE, 2 * PAGE, 0);
}

Test(mock_run, asserts_nothing_mapped, .signal = SIGABRT)
{
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	fx_enter(&fx, VA, PA, PAGE, 0);
	fx.mmu->pmap_destroy(fx.pmap);
}
#endif
