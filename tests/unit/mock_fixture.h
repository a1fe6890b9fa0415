/* SPDX-License-Identifier: MIT */
/*
 * A mock device with one page table, on the services of mock_services.h,
 * driven through its ops table as the library would.
 */
#ifndef MOCK_FIXTURE_H
#define MOCK_FIXTURE_H

#include <criterion/criterion.h>

#include "backends/mock/gm_mock_internal.h"

#include "mock_services.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define PA GM_MOCK_PA_BASE
#define MIB (UINT64_C(1) << 20)
/* Long enough for a loaded machine; a test that waits so long has failed. */
#define LONG_MS 20000u

struct mock_fixture {
	struct mock_services s;
	const struct gm_mmu *mmu;
	struct gm_dev_caps caps;
	struct gm_mock *m;
	void *pmap;
};

static inline void fx_open(struct mock_fixture *fx, const char *options)
{
	struct gm_mock_config config;
	void *dev = NULL;

	*fx = (struct mock_fixture){ .mmu = gm_mock_mmu() };
	mock_services_init(&fx->s);
	cr_assert_eq(gm_mock_parse(options, &config), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->dev_init(&config, &fx->s.svc, &fx->caps, &dev), GM_RET_SUCCESS);
	fx->m = dev;
	cr_assert_eq(fx->mmu->pmap_create(dev, &fx->pmap), GM_RET_SUCCESS);
}

/* Unmap everything, close, and demand that nothing is left. */
static inline void fx_close(struct mock_fixture *fx)
{
	cr_assert_eq(gm_mock_dev_plant(fx->m, GM_MOCK_BUG_NONE), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->pmap_remove(fx->pmap, 0, UINT64_C(1) << fx->caps.va_bits), GM_RET_SUCCESS);
	cr_assert_eq(fx->mmu->tlb_invl(fx->pmap, 0, UINT64_C(1) << fx->caps.va_bits), GM_RET_SUCCESS);
	fx->mmu->pmap_destroy(fx->pmap);
	fx->mmu->dev_fini(fx->m);
	cr_assert_eq(atomic_load(&fx->s.live_threads), 0);
	cr_assert_eq(atomic_load(&fx->s.live_fences), 0);
	cr_assert_eq(atomic_load(&fx->s.live_bytes), 0);
	free(fx->s.host);
}

/* Host memory that the bus reaches, page-aligned. */
static inline uint64_t fx_host(struct mock_fixture *fx, size_t bytes)
{
	fx->s.host = aligned_alloc(GM_BLOCK_BYTES, (bytes + GM_BLOCK_BYTES - 1) / GM_BLOCK_BYTES * GM_BLOCK_BYTES);
	cr_assert_not_null(fx->s.host);
	memset(fx->s.host, 0, bytes);
	fx->s.host_bytes = bytes;
	return (uint64_t)(uintptr_t)fx->s.host;
}

static inline void fx_enter(struct mock_fixture *fx, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	cr_assert_eq(fx->mmu->pmap_enter(fx->pmap, va, pa, bytes, pte), GM_RET_SUCCESS);
}

static inline void fx_remove(struct mock_fixture *fx, uint64_t va, uint64_t bytes)
{
	cr_assert_eq(fx->mmu->pmap_remove(fx->pmap, va, bytes), GM_RET_SUCCESS);
}

static inline void fx_invl(struct mock_fixture *fx, uint64_t va, uint64_t bytes)
{
	cr_assert_eq(fx->mmu->tlb_invl(fx->pmap, va, bytes), GM_RET_SUCCESS);
}

/* The 64-bit word at a device-physical address. */
static inline uint64_t *fx_word(struct mock_fixture *fx, uint64_t pa)
{
	return fx->mmu->cpu_ptr(fx->m, pa, sizeof(uint64_t));
}

/* Start a kernel; the fence is the caller's to wait for and put. */
static inline struct gm_fence *fx_launch(struct mock_fixture *fx, gm_mock_kernel kernel, void *arg, unsigned threads)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_not_null(fence);
	mock_fence_ref(fence);
	cr_assert_eq(gm_mock_launch_start(fx->pmap, kernel, arg, threads, fence), GM_RET_SUCCESS);
	return fence;
}

/* Wait for a fence and give it back. */
static inline gm_ret_t fx_finish(struct mock_fixture *fx, struct gm_fence *fence)
{
	gm_ret_t ret = mock_fence_wait(fence, LONG_MS);

	mock_svc_fence_put(&fx->s, fence);
	return ret;
}

/* Wait until a counter reaches a value; false: it did not within the long time. */
static inline bool fx_reaches(_Atomic long *counter, long value)
{
	for (unsigned i = 0; i < LONG_MS; i++) {
		if (atomic_load(counter) >= value)
			return true;
		mock_sleep_ms(1);
	}
	return false;
}

/* Small, fast, reproducible. */
static inline uint64_t fx_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
