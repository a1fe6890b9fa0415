/* SPDX-License-Identifier: MIT */
/*
 * The template of a backend, cut down to what step STEP of docs/backend-guide.md asks for: the slots of later steps
 * return what the guide allows, capabilities are announced when their step has come, and there are no reasons for
 * anything that is left out before the last step.
 */
#include "toy_part.c" /* the template without its gm_plugin: guide.sh makes it */

#if STEP < 8

static gm_ret_t step_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	gm_ret_t ret = toy_init(dev_data, svc, caps, dev);

	if (STEP < 4)
		caps->caps &= ~GM_CAP_ACCESS;
	if (STEP < 7)
		caps->caps &= ~GM_CAP_CPU_VISIBLE;
	return ret;
}

static inline gm_ret_t no_create(void *dev, void **pmap)
{
	(void)dev;
	(void)pmap;
	return GM_RET_NOMEM;
}

static inline void no_destroy(void *pmap)
{
	(void)pmap;
}

static inline gm_ret_t no_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	(void)dev;
	(void)copies;
	(void)n;
	(void)done;
	return GM_RET_NOMEM;
}

static inline gm_ret_t no_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	(void)pmap;
	(void)va;
	(void)pa;
	(void)bytes;
	(void)pte;
	return GM_RET_NOMEM;
}

static inline gm_ret_t nothing(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap;
	(void)va;
	(void)bytes;
	return GM_RET_SUCCESS;
}

static const struct gm_mmu step_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "step",
	.dev_init = step_init,
	.dev_fini = toy_fini,
	.pmap_create = STEP < 2 ? no_create : toy_pmap_create,
	.pmap_destroy = STEP < 2 ? no_destroy : toy_pmap_destroy,
	.copy = STEP < 3 ? no_copy : toy_copy,
	.pmap_enter = STEP < 4 ? no_enter : toy_pmap_enter,
	.pmap_remove = STEP < 4 ? nothing : toy_pmap_remove,
	.access = STEP < 4 ? NULL : toy_access,
	.tlb_invl = STEP < 5 ? nothing : toy_tlb_invl, /* the toy has no TLB that step 4 would empty */
	.cpu_ptr = STEP < 7 ? NULL : toy_cpu_ptr,
};

#endif

const struct gm_plugin gm_plugin = {
	.abi = GM_PLUGIN_ABI,
	.size = sizeof(struct gm_plugin),
	.name = "step",
#if STEP < 8
	.mmu = &step_mmu,
#else
	.mmu = &toy_mmu,
	.skips = toy_skips,
#endif
};
