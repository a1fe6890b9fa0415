/* SPDX-License-Identifier: MIT */
/*
 * Hardware that a runtime opened itself, before and besides this library.
 *
 *     create --(alloc, map, unmap, read, write)*--> destroy
 *          \--gm_dev_create() with gm_mock_config.hw--> in use --gm_dev_destroy()--> as before
 *
 * Memory: the runtime takes its own from the top down; what is below when a
 * device is made is announced to the library, and the border does not move
 * until that device is gone. VA: there is one page table, in which each
 * mapping belongs to one of the two; neither side's changes touch the other's
 * (gm_mock_pt.c), and whoever comes second to an address is refused.
 *
 * All this lives longer than any device, so its memory comes from the kernel
 * and not from a device's services: not from malloc() either, because the
 * library changes the page table while it serves faults, also those of a
 * thread that holds malloc()'s lock.
 *
 * hw->lock is held for a few instructions and never over a switch point.
 * unmap() drops what the TLBs of the device in use remember; pmap_destroy()
 * waits for it (`invals`), with the services of the device.
 */
#include "config.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include <gmem/mockhw.h>

#include "backends/mock/gm_mock_internal.h"

struct gm_mock_hw {
	struct gm_mock base; /* configuration, memory and services for the page table; not a device */
	struct gm_services svc;
	struct gm_mock_pt pt;
	struct gm_mock_spin lock;
	uint64_t border;    /* (lock) device-physical: the library's below, the runtime's from here on */
	bool used;          /* (lock) by a device */
	struct gm_mock_pmap *_Atomic pmap; /* (a) the device's page table; NULL: none now */
	atomic_uint invals; /* (a) unmap() calls that use `pmap` */
};

static void *hw_svc_alloc(void *self, size_t bytes)
{
	void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)self;
	return ptr == MAP_FAILED ? NULL : ptr;
}

static void hw_svc_free(void *self, void *ptr, size_t bytes)
{
	(void)self;
	if (ptr)
		(void)munmap(ptr, bytes);
}

static void hw_svc_yield(void *self)
{
	(void)self;
	(void)sched_yield();
}

/* What a piece of memory is a multiple of: the library's unit, and the device's smallest page. */
static uint64_t unit_bytes(const struct gm_mock_hw *hw)
{
	return hw->base.granule_bytes > GM_UNIT_BYTES ? hw->base.granule_bytes : GM_UNIT_BYTES;
}

static uint64_t memory_end(const struct gm_mock_hw *hw)
{
	return GM_MOCK_PA_BASE + hw->base.config.vram_bytes;
}

gm_ret_t gm_mock_hw_create(const struct gm_mock_config *in, struct gm_mock_hw **out)
{
	struct gm_mock_config config;
	struct gm_mock_hw *hw;
	gm_ret_t ret;

	if (!out)
		return gm_mock_refuse(__func__, "hw must not be NULL");
	if ((in && in->hw) || gm_mock_config_complete(in, &config) != GM_RET_SUCCESS)
		return gm_mock_refuse(__func__, "config makes no sense, or has hw: see gmem/mock.h");
	hw = hw_svc_alloc(NULL, sizeof(*hw));
	if (!hw)
		return GM_RET_NOMEM;
	hw->svc = (struct gm_services){
		.abi = GM_HAL_ABI,
		.size = sizeof(struct gm_services),
		.alloc = hw_svc_alloc,
		.free = hw_svc_free,
		.yield = hw_svc_yield,
	};
	hw->base.svc = &hw->svc;
	hw->base.config = config;
	hw->base.granule_bytes = config.page_sizes & (~config.page_sizes + 1);
	hw->border = memory_end(hw);
	atomic_flag_clear(&hw->lock.held);
	ret = gm_mock_vram_map(config.vram_bytes, &hw->base.vram);
	if (ret != GM_RET_SUCCESS)
		goto err_hw;
	ret = gm_mock_pt_init(&hw->base, &hw->pt);
	if (ret != GM_RET_SUCCESS)
		goto err_vram;
	hw->pt.shared = true;
	ret = gm_mock_admit_hw(hw);
	if (ret != GM_RET_SUCCESS)
		goto err_pt;
	*out = hw;
	return GM_RET_SUCCESS;

err_pt:
	gm_mock_pt_fini(&hw->base, &hw->pt);
err_vram:
	gm_mock_vram_unmap(config.vram_bytes, hw->base.vram);
err_hw:
	hw_svc_free(NULL, hw, sizeof(*hw));
	return ret;
}

static bool in_use(struct gm_mock_hw *hw)
{
	bool used;

	gm_mock_spin_lock_short(&hw->lock);
	used = hw->used;
	gm_mock_spin_unlock(&hw->lock);
	return used;
}

gm_ret_t gm_mock_hw_destroy(struct gm_mock_hw *hw)
{
	if (!hw)
		return GM_RET_SUCCESS;
	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (in_use(hw))
		return GM_RET_BUSY;
	gm_mock_dismiss_hw(hw);
	/* The whole range cuts no page, so it needs no memory. */
	(void)gm_mock_pt_own_remove(&hw->base, &hw->pt, 0, UINT64_C(1) << hw->base.config.va_bits);
	gm_mock_pt_fini(&hw->base, &hw->pt);
	gm_mock_vram_unmap(hw->base.config.vram_bytes, hw->base.vram);
	hw_svc_free(NULL, hw, sizeof(*hw));
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_hw_alloc(struct gm_mock_hw *hw, uint64_t bytes, uint64_t *pa)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (!pa || bytes == 0 || bytes % unit_bytes(hw))
		return gm_mock_refuse(__func__, "pa must not be NULL, bytes a multiple of the unit and of the smallest page");
	gm_mock_spin_lock_short(&hw->lock);
	if (hw->used)
		ret = GM_RET_BUSY;
	else if (bytes > hw->border - GM_MOCK_PA_BASE)
		ret = GM_RET_NOSPC;
	else
		hw->border -= bytes;
	if (ret == GM_RET_SUCCESS)
		*pa = hw->border;
	gm_mock_spin_unlock(&hw->lock);
	return ret;
}

/* Is [pa, pa + bytes) memory that the runtime took? */
static bool is_own(struct gm_mock_hw *hw, uint64_t pa, uint64_t bytes)
{
	uint64_t border;

	gm_mock_spin_lock_short(&hw->lock);
	border = hw->border;
	gm_mock_spin_unlock(&hw->lock);
	return pa >= border && pa <= memory_end(hw) && bytes <= memory_end(hw) - pa;
}

static bool is_range(const struct gm_mock_hw *hw, uint64_t va, uint64_t bytes)
{
	uint64_t limit = UINT64_C(1) << hw->base.config.va_bits, page = hw->base.granule_bytes;

	return bytes > 0 && bytes <= limit && va <= limit - bytes && va % page == 0 && bytes % page == 0;
}

gm_ret_t gm_mock_hw_map(struct gm_mock_hw *hw, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t rights)
{
	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (!is_range(hw, va, bytes))
		return gm_mock_refuse(__func__, "va and bytes are not whole pages inside the VA bits");
	if (pa % hw->base.granule_bytes || !is_own(hw, pa, bytes))
		return gm_mock_refuse(__func__, "pa is not whole pages of gm_mock_hw_alloc()");
	if (rights & ~(GM_READ | GM_WRITE | GM_ATOMIC))
		return gm_mock_refuse(__func__, "rights are GM_READ, GM_WRITE, GM_ATOMIC");
	return gm_mock_pt_own_enter(&hw->base, &hw->pt, va, pa, bytes, rights & (GM_PTE_WRITE | GM_PTE_ATOMIC));
}

/* No access through a mapping that is gone once this returns. */
static void drop_tlbs(struct gm_mock_hw *hw, uint64_t va, uint64_t bytes)
{
	struct gm_mock_pmap *pmap;

	atomic_fetch_add(&hw->invals, 1);
	pmap = atomic_load(&hw->pmap);
	if (pmap)
		(void)gm_mock_tlb_invl(pmap, va, bytes);
	atomic_fetch_sub(&hw->invals, 1);
}

gm_ret_t gm_mock_hw_unmap(struct gm_mock_hw *hw, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret;

	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (!is_range(hw, va, bytes))
		return gm_mock_refuse(__func__, "va and bytes are not whole pages inside the VA bits");
	ret = gm_mock_pt_own_remove(&hw->base, &hw->pt, va, bytes);
	if (ret == GM_RET_SUCCESS)
		drop_tlbs(hw, va, bytes);
	return ret;
}

gm_ret_t gm_mock_hw_read(struct gm_mock_hw *hw, uint64_t pa, void *buf, uint64_t bytes)
{
	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (!buf || !is_own(hw, pa, bytes))
		return gm_mock_refuse(__func__, "buf must not be NULL, pa and bytes memory of gm_mock_hw_alloc()");
	memcpy(buf, gm_mock_vram(&hw->base, pa, bytes), (size_t)bytes);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_hw_write(struct gm_mock_hw *hw, uint64_t pa, const void *buf, uint64_t bytes)
{
	if (gm_mock_check_hw(__func__, hw))
		return GM_RET_INVAL;
	if (!buf || !is_own(hw, pa, bytes))
		return gm_mock_refuse(__func__, "buf must not be NULL, pa and bytes memory of gm_mock_hw_alloc()");
	memcpy(gm_mock_vram(&hw->base, pa, bytes), buf, (size_t)bytes);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_hw_claim(struct gm_mock_hw *hw, struct gm_mock *m)
{
	gm_ret_t ret = GM_RET_BUSY;

	gm_mock_spin_lock_short(&hw->lock);
	if (!hw->used) {
		hw->used = true;
		m->vram = hw->base.vram;
		m->slab_end = hw->border;
		ret = GM_RET_SUCCESS;
	}
	gm_mock_spin_unlock(&hw->lock);
	return ret;
}

void gm_mock_hw_release(struct gm_mock_hw *hw)
{
	gm_mock_spin_lock_short(&hw->lock);
	hw->used = false;
	gm_mock_spin_unlock(&hw->lock);
}

void gm_mock_hw_adapt(const struct gm_mock_hw *hw, struct gm_mock_config *config)
{
	config->vram_bytes = hw->base.config.vram_bytes;
	config->page_sizes = hw->base.config.page_sizes;
	config->va_bits = hw->base.config.va_bits;
	config->max_contexts = 1;
}

struct gm_mock_pt *gm_mock_hw_attach(struct gm_mock_hw *hw, struct gm_mock_pmap *pmap)
{
	assert(!atomic_load(&hw->pmap));
	atomic_store(&hw->pmap, pmap);
	return &hw->pt;
}

void gm_mock_hw_detach(struct gm_mock_hw *hw, const struct gm_services *svc)
{
	atomic_store(&hw->pmap, NULL);
	while (atomic_load(&hw->invals) > 0)
		svc->yield(svc->self);
}
