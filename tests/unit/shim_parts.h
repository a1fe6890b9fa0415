/* SPDX-License-Identifier: MIT */
/* What a good caller does with a device, in parts: for the shim around the toy. */
#ifndef SHIM_PARTS_H
#define SHIM_PARTS_H

#include "shim_fixture.h"

static inline void part_none(void)
{
}

static inline void part_map(void)
{
	(void)rig_enter(0, 0, 4, RW_PTE);
	(void)rig_enter(4, 4, 4, 0);
	(void)rig_touch(0, true);
	(void)rig_touch(5, false);
	(void)rig_enter(4, 4, 2, RW_PTE); /* more rights */
	(void)rig_touch(1, false);
	(void)rig_remove(1, 1);
	(void)rig_invl(1, 1);
	(void)rig_enter(1, 1, 1, RW_PTE);
	(void)rig_enter(1, 1, 1, RW_PTE); /* again: no effect */
	(void)rig_remove(0, 8);
	(void)rig_remove(0, 8);
	(void)rig_invl(0, 8);
}

static inline void part_enter(void)
{
	(void)rig_enter(0, 0, 1, RW_PTE);
}

static inline void part_protect(void)
{
	const struct gm_mmu *m = rig.mmu;

	(void)rig_enter(0, 0, 3, RW_PTE);
	(void)rig_touch(0, true);
	(void)m->pmap_protect(rig.pmap, TOY_VA, 2 * PAGE, 0);
	(void)rig_invl(0, 2);
	(void)rig_touch(0, false);
	(void)m->pmap_protect(rig.pmap, TOY_VA, 2 * PAGE, RW_PTE);
	(void)rig_touch(0, true);
	(void)m->pmap_protect(rig.pmap, TOY_VA + 2 * PAGE, 2 * PAGE, RW_PTE); /* the second is a hole */
}

static inline void part_shrink(void)
{
	(void)rig_enter(0, 0, 3, RW_PTE);
	(void)rig.mmu->pmap_protect(rig.pmap, TOY_VA, 2 * PAGE, 0);
	(void)rig_invl(0, 2);
}

static inline void part_fail(void)
{
	(void)rig_enter(0, 0, 1, 0);
	toy_fails = true;
	(void)rig_enter(1, 1, 2, RW_PTE);
	toy_fails = true;
	(void)rig_enter(0, 0, 1, RW_PTE); /* rights do not grow */
	toy_fails = true;
	(void)rig_remove(0, 1);
	toy_fails = true;
	(void)rig.mmu->pmap_protect(rig.pmap, TOY_VA, PAGE, RW_PTE);
}

static inline void part_copy(void)
{
	struct gm_copy in[2] = { rig_piece(GM_COPY_TO_DEV, 8, 0, 3), rig_piece(GM_COPY_ZERO, 12, 0, 2) };
	struct gm_copy out = rig_piece(GM_COPY_TO_HOST, 9, 4, 2);

	(void)rig_copy(in, 2);
	(void)rig_copy(&out, 1);
}

static inline void part_copy_fails(void)
{
	struct gm_copy in = rig_piece(GM_COPY_TO_DEV, 8, 0, 1);

	toy_fails = true;
	(void)rig_copy(&in, 1);
	part_enter();
}

/* A fence that is not signalled is noticed by the next operation after the bound. */
static inline void part_late(void)
{
	struct gm_copy in = rig_piece(GM_COPY_TO_DEV, 8, 0, 1);

	(void)rig_copy(&in, 1);
	toy_clock_ns += 20 * SECOND_NS;
	part_enter();
}

static inline void part_plan(void)
{
	struct gm_step *s = calloc(5, sizeof(*s));

	cr_assert_not_null(s);
	(void)rig_enter(0, 0, 2, RW_PTE);
	(void)rig_touch(0, true);
	s[0] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 2);
	s[1] = rig_step(GM_STEP_INVL, 0, 0, 0, 2);
	s[2] = rig_copy_step(1, rig_piece(GM_COPY_TO_HOST, 0, 0, 2));
	s[3] = rig_copy_step(2, rig_piece(GM_COPY_TO_DEV, 4, 2, 2));
	s[4] = rig_step(GM_STEP_ENTER, 3, 4, 4, 2);
	if (rig_submit(s, 5) == GM_RET_SUCCESS)
		for (unsigned i = 0; i < 5 && !rig.n; i++)
			cr_assert_eq(s[i].ret, GM_RET_SUCCESS);
	free(s);
}

/* A revocation alone: what is left afterwards is nothing. */
static inline void part_plan_revoke(void)
{
	struct gm_step s[2];

	(void)rig_enter(0, 0, 2, RW_PTE);
	s[0] = rig_step(GM_STEP_REMOVE, GM_STEP_FREE, 0, 0, 2);
	s[1] = rig_step(GM_STEP_INVL, 0, 0, 0, 2);
	(void)rig_submit(s, 2);
}

static inline void part_plan_enter(void)
{
	struct gm_step s = rig_step(GM_STEP_ENTER, GM_STEP_FREE, 4, 4, 2);

	(void)rig_submit(&s, 1);
}

static inline void part_plan_copy(void)
{
	struct gm_step s = rig_copy_step(GM_STEP_FREE, rig_piece(GM_COPY_TO_DEV, 4, 2, 2));

	(void)rig_submit(&s, 1);
}

static inline void part_plan_fails(void)
{
	struct gm_step s[3];

	s[0] = rig_copy_step(GM_STEP_FREE, rig_piece(GM_COPY_ZERO, 0, 0, 1));
	s[1] = rig_step(GM_STEP_ENTER, 0, 0, 0, 1);
	s[2] = rig_step(GM_STEP_ENTER, 1, 1, 1, 1);
	toy_fails = true;
	(void)rig_submit(s, 3);
	if (rig.n)
		return;
	cr_assert_eq(s[0].ret, GM_RET_SUCCESS);
	cr_assert_eq(s[1].ret, GM_RET_NOMEM);
	cr_assert_eq(s[2].ret, GM_RET_CANCELED);
}

static inline void part_fault(void)
{
	struct gm_dev_fault f = { .pmap = NULL };
	gm_ret_t ret;

	toy_raise(toy_last, gm_validate_pmap(rig.pmap), TOY_VA + 3 * PAGE);
	ret = rig.mmu->fault_next(rig.dev, &f);
	if (!rig.n && !ret) {
		cr_assert_eq(f.pmap, rig.pmap, "the shim's own page table");
		cr_assert_eq(f.va, TOY_VA + 3 * PAGE);
	}
	if (!ret)
		(void)rig.mmu->fault_done(rig.pmap, TOY_VA + 3 * PAGE, PAGE, GM_RET_SUCCESS);
	(void)rig.mmu->fault_next(rig.dev, &f);
}

static inline void part_host(void)
{
	uint64_t host = GM_VA(rig.s.host);

	(void)rig.mmu->pmap_enter(rig.pmap, TOY_VA, host, PAGE, GM_PTE_HOST);
	(void)rig.mmu->pmap_enter(rig.pmap, TOY_VA + PAGE, host + 4 * PAGE, PAGE, GM_PTE_HOST | GM_PTE_WRITE);
	(void)rig_touch(0, false);
	(void)rig_touch(1, true);
}

static inline void part_cpu_ptr(void)
{
	part_enter(); /* what was never used has no books */
	(void)rig.mmu->cpu_ptr(rig.dev, TOY_PA, PAGE);
	(void)rig.mmu->cpu_ptr(rig.dev, TOY_PA, 2 * PAGE);
}

static inline void part_harvest(void)
{
	uint8_t bits[4];

	(void)rig_enter(0, 0, 3, RW_PTE);
	(void)rig_touch(0, true);
	(void)rig_touch(1, false);
	(void)rig.mmu->pmap_harvest(rig.pmap, TOY_VA, sizeof(bits) * PAGE, bits);
	if (!rig.n && !rig.blind) {
		cr_assert_eq(bits[0], GM_PAGE_ACCESSED | GM_PAGE_DIRTY);
		cr_assert_eq(bits[1], GM_PAGE_ACCESSED);
		cr_assert_eq(bits[2], 0, "what only the shim looked at was not accessed");
		cr_assert_eq(bits[3], 0);
	}
	(void)rig_remove(0, 3);
	(void)rig_invl(0, 3);
	(void)rig.mmu->pmap_harvest(rig.pmap, TOY_VA, sizeof(bits) * PAGE, bits);
}

static inline void part_sync(void)
{
	struct gm_fence *fence = mock_svc_fence_create(&rig.s);
	void *sync = NULL;
	int fd = -1;

	if (rig.mmu->sync_create(rig.dev, &sync, &fd) == GM_RET_SUCCESS) {
		rig.mmu->sync_signal(rig.dev, sync, GM_RET_SUCCESS);
		close(fd);
	}
	if (!fence)
		return;
	(void)rig.mmu->sync_import(rig.dev, 0, fence);
	mock_svc_fence_put(&rig.s, fence);
}

static inline void part_sync_fails(void)
{
	void *sync = NULL;
	int fd = -1;

	toy_fails = true;
	(void)rig.mmu->sync_create(rig.dev, &sync, &fd);
}

/* A copy that does not end is given up. */
static inline void part_halt(void)
{
	struct gm_fence *fence = mock_svc_fence_create(&rig.s);
	struct gm_copy in = rig_piece(GM_COPY_TO_DEV, 8, 0, 1);

	toy_defers = true;
	(void)rig.mmu->copy(rig.dev, &in, 1, fence);
	toy_defers = false;
	rig.mmu->dev_halt(rig.dev);
	rig.mmu->dev_halt(rig.dev);
	mock_svc_fence_put(&rig.s, fence);
}

static inline void part_peer(void)
{
	(void)rig.mmu->peer_reach(rig.dev, rig.dev);
	(void)rig.mmu->peer_reach(rig.dev, rig.dev);
}

/* Up to the most there may be, and one more. */
static inline void part_contexts(void)
{
	void *pmap[2] = { NULL, NULL };
	gm_ret_t ret;

	for (unsigned i = 0; i < 2; i++) {
		ret = rig.mmu->pmap_create(rig.dev, &pmap[i]);
		if (!rig.n)
			cr_assert_eq(ret, i ? GM_RET_NOSPC : GM_RET_SUCCESS);
	}
	for (unsigned i = 0; i < 2; i++)
		if (pmap[i])
			rig.mmu->pmap_destroy(pmap[i]);
}

static inline void part_create_fails(void)
{
	void *pmap = NULL;

	toy_fails = true;
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &pmap), GM_RET_NOMEM);
	cr_assert_null(pmap);
}

static inline void run(int how, void (*part)(void))
{
	rig_open(how);
	(void)rig.mmu->pmap_create(rig.dev, &rig.pmap);
	part();
	rig_close();
}

#endif
