/* SPDX-License-Identifier: MIT */
/* Hardware that a runtime opened itself: alone, and with a device of the library on it. */
#include "config.h"

#include "core_fixture.h"

#define MIB (UINT64_C(1) << 20)
/* Where no process has memory. */
#define OWN (UINT64_C(1) << 47)

static struct gm_mock_hw *hw_new(uint64_t bytes)
{
	struct gm_mock_config config = { .size = sizeof(config), .vram_bytes = bytes };
	struct gm_mock_hw *hw;

	OK(gm_mock_hw_create(&config, &hw));
	return hw;
}

static uint64_t hw_buffer(struct gm_mock_hw *hw, uint64_t bytes)
{
	uint64_t pa = 0;

	OK(gm_mock_hw_alloc(hw, bytes, &pa));
	cr_assert_neq(pa, 0);
	return pa;
}

static struct gm_dev *dev_on(struct world *w, struct gm_mock_hw *hw)
{
	struct gm_mock_config config = { .size = sizeof(config), .hw = hw };
	struct gm_dev *dev;

	OK(gm_dev_create(w->lib, gm_mock_mmu(), &config, &dev));
	return dev;
}

Test(mock_hw, memory)
{
	struct gm_mock_hw *hw = hw_new(2 * MIB);
	uint64_t a = hw_buffer(hw, MIB), b = hw_buffer(hw, UNIT), none = 5;
	uint64_t word = 77, back = 1;

	cr_assert(b + UNIT <= a || a + MIB <= b);
	OK(gm_mock_hw_read(hw, a, &back, 8));
	cr_assert_eq(back, 0);
	OK(gm_mock_hw_write(hw, a + MIB - 8, &word, 8));
	OK(gm_mock_hw_read(hw, a + MIB - 8, &back, 8));
	cr_assert_eq(back, 77);
	IS(gm_mock_hw_alloc(hw, MIB, &none), GM_RET_NOSPC);
	IS(gm_mock_hw_alloc(hw, 0, &none), GM_RET_INVAL);
	IS(gm_mock_hw_alloc(hw, PAGE, &none), GM_RET_INVAL);
	IS(gm_mock_hw_alloc(NULL, UNIT, &none), GM_RET_INVAL);
	IS(gm_mock_hw_alloc(hw, UNIT, NULL), GM_RET_INVAL);
	cr_assert_eq(none, 5);
	/* Not the runtime's memory, also where it begins in it. */
	IS(gm_mock_hw_read(hw, b - 8, &back, 8), GM_RET_INVAL);
	IS(gm_mock_hw_write(hw, a + MIB - 4, &word, 8), GM_RET_INVAL);
	IS(gm_mock_hw_read(hw, a + MIB + 1, &back, 0), GM_RET_INVAL);
	IS(gm_mock_hw_read(hw, a, NULL, 8), GM_RET_INVAL);
	IS(gm_mock_hw_write(NULL, a, &word, 8), GM_RET_INVAL);
	OK(gm_mock_hw_destroy(hw));
	OK(gm_mock_hw_destroy(NULL));
}

Test(mock_hw, create_refuses)
{
	struct gm_mock_config config = { .size = sizeof(config), .vram_bytes = 5 };
	struct gm_mock_hw *hw = NULL;

	IS(gm_mock_hw_create(&config, &hw), GM_RET_INVAL);
	config.vram_bytes = MIB;
	IS(gm_mock_hw_create(&config, NULL), GM_RET_INVAL);
	config.hw = hw_new(MIB);
	IS(gm_mock_hw_create(&config, &hw), GM_RET_INVAL);
	cr_assert_null(hw);
	OK(gm_mock_hw_destroy(config.hw));
}

Test(mock_hw, map_refuses)
{
	struct gm_mock_hw *hw = hw_new(4 * MIB);
	uint64_t pa = hw_buffer(hw, MIB);

	OK(gm_mock_hw_map(hw, OWN, pa, MIB, GM_WRITE));
	IS(gm_mock_hw_map(hw, OWN + MIB - PAGE, pa, PAGE, GM_READ), GM_RET_EXIST);
	IS(gm_mock_hw_map(hw, OWN - PAGE, pa, 2 * PAGE, GM_READ), GM_RET_EXIST);
	IS(gm_mock_hw_map(hw, OWN, pa, MIB, GM_WRITE), GM_RET_EXIST);
	IS(gm_mock_hw_map(hw, OWN + MIB, pa, 2 * MIB, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, OWN + MIB, pa - PAGE, PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, OWN + MIB + 1, pa, PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, OWN + MIB, pa + 1, PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, OWN + MIB, pa, 0, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, OWN + MIB, pa, PAGE, 256), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, 2 * OWN, pa, PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(hw, 2 * OWN - PAGE, pa, 2 * PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_map(NULL, OWN, pa, PAGE, GM_READ), GM_RET_INVAL);
	IS(gm_mock_hw_unmap(hw, OWN, 1), GM_RET_INVAL);
	IS(gm_mock_hw_unmap(NULL, OWN, PAGE), GM_RET_INVAL);
	OK(gm_mock_hw_unmap(hw, OWN, PAGE));
	OK(gm_mock_hw_unmap(hw, OWN, 2 * MIB)); /* holes are no error */
	OK(gm_mock_hw_map(hw, OWN, pa, MIB, GM_WRITE));
	OK(gm_mock_hw_destroy(hw));
}

/* A kernel that adds the runtime's number at `own` to the application's at `managed`, and counts in both. */
struct job {
	uint64_t own, managed;
};

static gm_ret_t add_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	const struct job *job = arg;
	uint64_t a = 0, b = 0;
	gm_ret_t ret;

	(void)index;
	ret = gm_mock_load(thread, job->own, &a, 8);
	if (!ret)
		ret = gm_mock_load(thread, job->managed, &b, 8);
	b += a;
	if (!ret)
		ret = gm_mock_store(thread, job->managed, &b, 8);
	a++;
	return ret ? ret : gm_mock_store(thread, job->own, &a, 8);
}

static gm_ret_t run(struct gm_ctx *ctx, struct job *job)
{
	struct gm_fence *fence;
	gm_ret_t ret;

	OK(gm_mock_launch(ctx, add_kernel, job, 1, &fence));
	ret = gm_fence_wait(fence, 100 * SECOND);
	gm_fence_put(fence);
	return ret;
}

/* The runtime's buffer and managed memory in one kernel; twice, on two devices one after the other. */
CORE_TEST(mock_hw, shared_by_a_kernel)
{
	struct gm_mock_hw *hw = hw_new(2 * MIB);
	uint64_t pa = hw_buffer(hw, UNIT), word = 100, va = app_map(w, PAGE);
	struct job job = { .own = OWN + 8, .managed = va };
	struct gm_dev_info info;

	OK(gm_mock_hw_write(hw, pa + 8, &word, 8));
	OK(gm_mock_hw_map(hw, OWN, pa, UNIT, GM_WRITE));
	OK(gm_adopt(w->as, (void *)(uintptr_t)va, PAGE, 0));
	app_put(w, va, 1);
	for (unsigned i = 0; i < 2; i++) {
		struct gm_dev *dev = dev_on(w, hw);
		struct gm_ctx *ctx;

		OK(gm_dev_query(dev, &info));
		cr_assert_eq(info.mem_bytes, 2 * MIB - UNIT);
		cr_assert_eq(info.max_contexts, 1);
		OK(gm_as_attach(w->as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
		OK(run(ctx, &job));
		world_check(w);
		IS(gm_mock_hw_destroy(hw), GM_RET_BUSY);
		IS(gm_mock_hw_alloc(hw, UNIT, &word), GM_RET_BUSY);
		OK(gm_as_detach(ctx));
		OK(gm_dev_destroy(dev));
	}
	cr_assert_eq(app_get(w, va), 1 + 100 + 101);
	OK(gm_mock_hw_read(hw, pa + 8, &word, 8));
	cr_assert_eq(word, 102);
	OK(gm_mock_hw_destroy(hw));
}

CORE_TEST(mock_hw, one_device_at_a_time)
{
	struct gm_mock_hw *hw = hw_new(MIB);
	struct gm_mock_config config = { .size = sizeof(config), .hw = hw };
	struct gm_dev *dev = dev_on(w, hw), *second = dev;

	IS(gm_dev_create(w->lib, gm_mock_mmu(), &config, &second), GM_RET_BUSY);
	cr_assert_eq(second, dev);
	OK(gm_dev_destroy(dev));
	dev = dev_on(w, hw);
	OK(gm_dev_destroy(dev));
	OK(gm_mock_hw_destroy(hw));
}

/* All memory is the runtime's: the library manages none. */
CORE_TEST(mock_hw, nothing_left_for_the_library)
{
	struct gm_mock_hw *hw = hw_new(MIB);
	struct gm_dev_info info;
	struct gm_dev *dev;

	(void)hw_buffer(hw, MIB);
	dev = dev_on(w, hw);
	OK(gm_dev_query(dev, &info));
	cr_assert_eq(info.mem_bytes, 0);
	OK(gm_dev_destroy(dev));
	OK(gm_mock_hw_destroy(hw));
}

/* unmap() drops what the device's TLBs remember, and nothing of the library's. */
CORE_TEST(mock_hw, unmap_while_in_use)
{
	struct gm_mock_hw *hw = hw_new(2 * MIB);
	uint64_t pa = hw_buffer(hw, UNIT), va = app_map(w, PAGE), word;
	struct job job = { .own = OWN, .managed = va };
	struct gm_dev *dev = dev_on(w, hw);
	const struct gm_mmu *mmu = gm_mock_mmu();
	struct gm_ctx *ctx;
	void *pmap;

	OK(gm_as_attach(w->as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_adopt(w->as, (void *)(uintptr_t)va, PAGE, 0));
	OK(gm_mock_hw_map(hw, OWN, pa, UNIT, GM_WRITE));
	OK(run(ctx, &job));
	pmap = gm_ctx_pmap(ctx);
	OK(mmu->access(pmap, OWN, &word, 8, false));
	OK(mmu->access(pmap, va, &word, 8, false));
	/* The library's removal of everything passes over the runtime's. */
	OK(gm_mock_hw_unmap(hw, 0, 2 * OWN));
	IS(mmu->access(pmap, OWN, &word, 8, false), GM_RET_FAULT);
	OK(mmu->access(pmap, va, &word, 8, false));
	OK(gm_mock_hw_map(hw, OWN, pa, UNIT, GM_WRITE));
	OK(mmu->pmap_remove(pmap, OWN, UNIT));
	OK(mmu->tlb_invl(pmap, OWN, UNIT));
	OK(mmu->pmap_protect(pmap, OWN, UNIT, 0));
	OK(mmu->access(pmap, OWN, &word, 8, true));
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(dev));
	OK(gm_mock_hw_destroy(hw));
}

/*
 * Addresses that meet: whoever comes second is refused, and nothing of the first one is touched. To the shim the
 * runtime's mapping is one that a failed pmap_enter() left: which it says, and is right to say in a program.
 */
CORE_TEST(mock_hw, overlap, .validate = GM_VALIDATE_OFF)
{
	struct gm_mock_hw *hw = hw_new(2 * MIB);
	uint64_t pa = hw_buffer(hw, UNIT), word = 9, va = app_map_blocks(w, 2);
	struct job job = { .own = va, .managed = va + BLOCK };
	struct gm_dev *dev = dev_on(w, hw);
	struct gm_ctx *ctx;

	OK(gm_as_attach(w->as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_adopt(w->as, (void *)(uintptr_t)va, 2 * BLOCK, 0));
	app_put(w, va, 3);
	app_put(w, va + BLOCK, 4);
	OK(run(ctx, &job));
	IS(gm_mock_hw_map(hw, va, pa, PAGE, GM_WRITE), GM_RET_EXIST);
	/* Now the runtime first: the pages come home, then their addresses are taken. */
	OK(gm_as_detach(ctx));
	OK(gm_mock_hw_write(hw, pa, &word, 8));
	OK(gm_mock_hw_map(hw, va + BLOCK, pa, PAGE, GM_WRITE));
	OK(gm_as_attach(w->as, dev, GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(run(ctx, &job)); /* what the kernel sees there is the runtime's */
	cr_assert_eq(app_get(w, va), 5);
	cr_assert_eq(app_get(w, va + BLOCK), 7);
	OK(gm_mock_hw_read(hw, pa, &word, 8));
	cr_assert_eq(word, 9 + 4);
	IS(gm_dev_fault(ctx, va + BLOCK, GM_WRITE), GM_RET_NOMEM);
	cr_assert_gt(w->errors, 0);
	cr_assert_not_null(strstr(w->log, "runtime"));
	world_check(w);
	cr_assert_eq(app_get(w, va + BLOCK), 7);
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(dev));
	OK(gm_mock_hw_read(hw, pa, &word, 8));
	cr_assert_eq(word, 13);
	OK(gm_mock_hw_destroy(hw));
}
