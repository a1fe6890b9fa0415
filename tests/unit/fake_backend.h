/* SPDX-License-Identifier: MIT */
/* A backend that does nothing, to be spoilt by tests: one device at a time, made with &fake as dev_data. */
#ifndef GM_TEST_FAKE_BACKEND_H
#define GM_TEST_FAKE_BACKEND_H

#include <string.h>

#include <gmem/hal.h>

struct fake {
	uint32_t caps, va_bits, max_contexts, slabs;
	uint64_t page_sizes;
	struct gm_slab slab[GM_MAX_SLABS];
	void *dev; /* what dev_init() returns; NULL: this structure */
};

static struct fake fake;

static inline gm_ret_t fake_init(void *data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	const struct fake *f = data;

	(void)svc;
	caps->caps = f->caps;
	caps->va_bits = f->va_bits;
	caps->max_contexts = f->max_contexts;
	caps->page_sizes = f->page_sizes;
	caps->slabs = f->slabs;
	memcpy(caps->slab, f->slab, sizeof(caps->slab));
	*dev = f->dev ? f->dev : data;
	return GM_RET_SUCCESS;
}

static inline void fake_fini(void *dev)
{
	(void)dev;
}

static inline gm_ret_t fake_pmap_create(void *dev, void **pmap)
{
	*pmap = dev;
	return GM_RET_SUCCESS;
}

static inline gm_ret_t fake_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	(void)pmap, (void)va, (void)pa, (void)bytes, (void)pte;
	return GM_RET_SUCCESS;
}

static inline gm_ret_t fake_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap, (void)va, (void)bytes;
	return GM_RET_SUCCESS;
}

static inline gm_ret_t fake_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	(void)dev, (void)copies, (void)n, (void)done;
	return GM_RET_IO;
}

static inline struct gm_mmu fake_mmu(void)
{
	fake = (struct fake){ .va_bits = 48, .max_contexts = 4, .page_sizes = 1 << 12 };
	return (struct gm_mmu){ .abi = GM_HAL_ABI, .size = sizeof(struct gm_mmu), .name = "fake", .dev_init = fake_init,
				.dev_fini = fake_fini, .pmap_create = fake_pmap_create, .pmap_destroy = fake_fini,
				.pmap_enter = fake_enter, .pmap_remove = fake_remove, .tlb_invl = fake_remove,
				.copy = fake_copy };
}

#endif
