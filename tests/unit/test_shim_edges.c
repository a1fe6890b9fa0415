/* SPDX-License-Identifier: MIT */
/*
 * The validation shim where it could be wrong itself: what it must not take for a broken rule, what it must see again
 * after something went wrong, and what it keeps in memory.
 */
#include "shim_parts.h"

#include "hal/gm_shim.h"

/* The toy, changed by `patch`, and a page table. */
static void open_patched(void (*patch)(struct gm_mmu *toy))
{
	rig_patch = patch;
	rig_open(GM_RULES);
	rig_patch = NULL;
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
}

static struct gm_shim_dev *shim(void)
{
	return rig.dev;
}

static void expect_one(enum gm_rule rule)
{
	cr_assert_eq(rig.n, 1, "%u reports, first:\n%s", rig.n, rig.text);
	cr_assert_eq(rig.first.rule, rule, "%s", rig.text);
	rig.n = 0;
}

/* ---------------------------------------------------------------- blindness */

Test(shim_edges, a_bad_harvest_blinds_nobody)
{
	uint8_t bits[4];

	open_patched(NULL);
	(void)rig.mmu->pmap_harvest(rig.pmap, TOY_VA + 8, PAGE, bits);
	expect_one(GM_RULE_RANGE);
	cr_assert_not(atomic_load(&shim()->blind));
	(void)rig_enter(0, 0, 2, 0);
	(void)rig_enter(1, 2, 1, 0);
	expect_one(GM_RULE_ENTER_OVER);
	rig_close();
}

/* ------------------------------------------------------------------- probes */

static unsigned accesses;

/* As of a device that runs a small job for each access. */
static gm_ret_t access_waits(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	const struct gm_services *svc = toy_last->svc;

	accesses++;
	svc->lock(svc->self, &toy_last->lock);
	(void)svc->wait(svc->self, &toy_last->queue, &toy_last->lock, 1);
	svc->unlock(svc->self, &toy_last->lock);
	return toy_access(pmap, va, buf, bytes, write);
}

static gm_ret_t access_takes(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	toy_clock_ns += 6 * SECOND_NS;
	return toy_access(pmap, va, buf, bytes, write);
}

static void patch_waits(struct gm_mmu *toy)
{
	toy->access = access_waits;
}

static void patch_takes(struct gm_mmu *toy)
{
	toy->access = access_takes;
}

/* What the shim's own look does is not the invalidation's doing, and is not done where the caller may not sleep. */
Test(shim_edges, a_look_that_waits_is_no_invalidation_that_blocks)
{
	unsigned before;

	open_patched(patch_waits);
	(void)rig_enter(0, 0, 2, RW_PTE);
	before = accesses;
	cr_assert_gt(before, 0, "it looks");
	(void)rig_remove(0, 2);
	before = accesses;
	(void)rig_invl(0, 2);
	cr_assert_eq(accesses, before, "tlb_invl() may sleep for nothing: nobody looks");
	rig_expect(GM_RULES, "a look that waits");
	rig_close();
}

/* Without GM_CAP_FAST_INVL the caller may sleep, so the shim looks. */
Test(shim_edges, a_look_that_waits_after_a_slow_invalidation)
{
	unsigned before;

	toy_no_caps = GM_CAP_FAST_INVL;
	open_patched(patch_waits);
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_remove(0, 2);
	before = accesses;
	(void)rig_invl(0, 2);
	cr_assert_gt(accesses, before);
	rig_expect(GM_RULES, "a look that waits");
	rig_close();
	toy_no_caps = 0;
}

Test(shim_edges, the_time_of_a_look_is_not_the_operations)
{
	open_patched(patch_takes);
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_remove(0, 1);
	(void)rig_invl(0, 1);
	(void)rig.mmu->pmap_protect(rig.pmap, TOY_VA + PAGE, PAGE, 0);
	rig_expect(GM_RULES, "a look that takes long");
	rig_close();
}

/* -------------------------------------------------------------- page tables */

static void *extra;
static bool nested;

static void destroy_create(void *pmap)
{
	bool now = nested;

	nested = false;
	toy_destroy(pmap);
	if (now)
		cr_assert_eq(rig.mmu->pmap_create(rig.dev, &extra), GM_RET_SUCCESS);
}

static void patch_destroy(struct gm_mmu *toy)
{
	toy->pmap_destroy = destroy_create;
}

/* One is made while another's destruction has ended in the backend, and not yet in the shim; perhaps at its address. */
Test(shim_edges, a_page_table_is_made_while_one_goes)
{
	void *second = NULL;

	open_patched(patch_destroy);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &second), GM_RET_SUCCESS);
	nested = true;
	rig.mmu->pmap_destroy(second);
	rig_expect(GM_RULES, "made meanwhile");
	second = NULL;
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &second), GM_RET_NOSPC, "two are there");
	rig_expect(GM_RULES, "as many as there may be");
	rig.mmu->pmap_destroy(extra);
	rig_close();
	rig_expect(GM_RULES, "closed");
}

static void *same;

static gm_ret_t create_same(void *dev, void **pmap)
{
	if (!same)
		return toy_create(dev, &same) ? GM_RET_NOMEM : (*pmap = same, GM_RET_SUCCESS);
	*pmap = same;
	return GM_RET_SUCCESS;
}

static void destroy_same(void *pmap)
{
	bool now = nested;

	nested = false;
	memset(((struct toy_pmap *)pmap)->cur, 0, sizeof(((struct toy_pmap *)pmap)->cur));
	if (now)
		cr_assert_eq(rig.mmu->pmap_create(rig.dev, &extra), GM_RET_SUCCESS);
	else
		toy_destroy(pmap);
}

static void patch_same(struct gm_mmu *toy)
{
	toy->pmap_create = create_same;
	toy->pmap_destroy = destroy_same;
}

Test(shim_edges, the_address_of_one_that_goes_is_used_again)
{
	struct gm_dev_fault f = { .pmap = NULL };
	void *first;

	open_patched(patch_same);
	first = rig.pmap;
	nested = true;
	rig.mmu->pmap_destroy(first);
	rig_expect(GM_RULES, "address used again");
	rig.pmap = extra;
	toy_raise(toy_last, same, TOY_VA);
	cr_assert_eq(rig.mmu->fault_next(rig.dev, &f), GM_RET_SUCCESS);
	cr_assert_eq(f.pmap, extra, "the one that lives");
	rig_close();
	rig_expect(GM_RULES, "closed");
	same = NULL;
}

/* ------------------------------------------------------------ host mappings */

static void enter_host(void)
{
	cr_assert_eq(rig.mmu->pmap_enter(rig.pmap, TOY_VA, GM_VA(rig.s.host), PAGE, GM_PTE_HOST), GM_RET_SUCCESS);
}

/* A plan that fails over host mappings leaves them unknown, until the range is removed or entered again. */
Test(shim_edges, what_a_failed_plan_made_unknown_is_known_again)
{
	struct gm_step s[3];

	open_patched(NULL);
	enter_host();
	s[0] = rig_step(GM_STEP_ENTER, GM_STEP_FREE, 9, 9, 1);
	s[1] = rig_step(GM_STEP_REMOVE, 0, 0, 0, 1);
	s[2] = rig_step(GM_STEP_INVL, 1, 0, 0, 1);
	toy_fails = true;
	(void)rig_submit(s, 3);
	cr_assert_eq(s[1].ret, GM_RET_CANCELED);
	cr_assert_eq(rig_touch(0, false), GM_RET_SUCCESS);
	rig_expect(GM_RULES, "still mapped, as far as one can know");
	(void)rig_remove(0, 1);
	(void)rig_invl(0, 1);
	enter_host();
	toy_breaks = GM_RULE_HOST_UNMAPPED;
	(void)rig_touch(0, false);
	expect_one(GM_RULE_HOST_UNMAPPED);
	toy_breaks = GM_RULES;
	rig_close();
	rig_expect(GM_RULES, "closed");
}

/* ------------------------------------------------------------------- fences */

static unsigned fences(void)
{
	struct gm_shim_fence *f;
	unsigned n = 0;

	TAILQ_FOREACH(f, &shim()->fences, link)
		n++;
	return n;
}

/* A fence that its maker gives back is not remembered: nobody can signal it. */
Test(shim_edges, fences_given_back_leave_nothing)
{
	const struct gm_services *svc;
	struct gm_fence *fence;

	open_patched(NULL);
	svc = toy_last->svc;
	for (unsigned i = 0; i < 1000; i++) {
		fence = svc->fence_create(svc->self);
		cr_assert_not_null(fence);
		if (i % 2)
			svc->fence_signal(svc->self, fence, GM_RET_SUCCESS);
		svc->fence_put(svc->self, fence);
	}
	cr_assert_eq(fences(), 0, "%u are left", fences());
	rig_close();
	rig_expect(GM_RULES, "given back");
}

static gm_ret_t init_fence(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct gm_fence *fence = svc->fence_create(svc->self);

	toy_leaked = fence; /* the application has it */
	toy_fails = true;
	return toy_init(dev_data, svc, caps, dev);
}

static void patch_init(struct gm_mmu *toy)
{
	toy->dev_init = init_fence;
}

Test(shim_edges, an_init_that_fails_leaves_no_fence)
{
	rig_patch = patch_init;
	cr_assert_eq(rig_init(GM_RULES), GM_RET_NOMEM);
	rig_patch = NULL;
	mock_svc_fence_put(&rig.s, toy_leaked);
	rig_expect(GM_RULES, "dev_init");
	cr_assert_eq(atomic_load(&rig.s.live_bytes), 0);
	free(rig.s.host);
	free(rig.host);
}

/* ------------------------------------------------------------------ harvest */

/* What is mapped and entered again, with more rights or the same, keeps its bits. */
Test(shim_edges, entering_again_keeps_the_bits)
{
	for (int bad = 0; bad < 2; bad++) {
		uint8_t bits = 0;

		open_patched(NULL);
		(void)rig_enter(0, 0, 1, RW_PTE);
		(void)rig_touch(0, true);
		toy_breaks = bad ? TOY_ENTER_CLEARS : GM_RULES;
		(void)rig_enter(0, 0, 1, RW_PTE);
		(void)rig.mmu->pmap_harvest(rig.pmap, TOY_VA, PAGE, &bits);
		toy_breaks = GM_RULES;
		rig_expect(bad ? GM_RULE_HARVEST_LOST : GM_RULES, "entered again");
		cr_assert(bad || bits == (GM_PAGE_ACCESSED | GM_PAGE_DIRTY));
		rig_close();
	}
}

/* ------------------------------------------------------------------- memory */

/* Any allocation of the shim may fail: mappings do not, and from then on it says nothing. */
Test(shim_edges, mappings_need_no_memory_of_the_shim)
{
	unsigned blind = 0;

	for (long nth = 1; nth < 20; nth++) {
		uint8_t bits;

		open_patched(NULL);
		atomic_store(&rig.s.fail_alloc, nth);
		cr_assert_eq(rig_enter(0, 0, 4, RW_PTE), GM_RET_SUCCESS);
		cr_assert_eq(rig_touch(0, true), GM_RET_SUCCESS);
		cr_assert_eq(rig.mmu->pmap_harvest(rig.pmap, TOY_VA, PAGE, &bits), GM_RET_SUCCESS);
		cr_assert_eq(rig.mmu->pmap_protect(rig.pmap, TOY_VA, PAGE, 0), GM_RET_SUCCESS);
		cr_assert_not_null(rig.mmu->cpu_ptr(rig.dev, TOY_PA, PAGE));
		cr_assert_eq(rig_remove(0, 4), GM_RET_SUCCESS);
		cr_assert_eq(rig_invl(0, 4), GM_RET_SUCCESS);
		if (atomic_load(&rig.s.fail_alloc) == 0) { /* one has failed */
			cr_assert(atomic_load(&shim()->blind), "allocation %ld", nth);
			blind++;
			(void)rig_enter(0, 0, 2, 0);
			(void)rig_enter(1, 2, 1, 0); /* not legal, but it cannot see */
		}
		atomic_store(&rig.s.fail_alloc, 0);
		rig_close();
		rig_expect(GM_RULES, "without memory");
	}
	cr_assert_geq(blind, 3, "books of device memory, of the page table, of the harvest");
}

/* Where nothing may block, nothing is allocated. */
Test(shim_edges, cpu_ptr_allocates_nothing)
{
	open_patched(NULL);
	atomic_store(&rig.s.fail_alloc, 1);
	cr_assert_not_null(rig.mmu->cpu_ptr(rig.dev, TOY_PA, PAGE));
	cr_assert_eq(atomic_load(&rig.s.fail_alloc), 1, "it asked for memory");
	atomic_store(&rig.s.fail_alloc, 0);
	rig_close();
}
