/* SPDX-License-Identifier: MIT */
/*
 * A mock device that is lost when a test says so: every operation answers NODEV from then on, and is counted once
 * the library has been told.
 *
 *     works --losing.lost = true--> lost --an operation says so--> told: nothing is to be called any more
 */
#ifndef GM_TEST_LOSING_MOCK_H
#define GM_TEST_LOSING_MOCK_H

#include <stdatomic.h>

#include "core_fixture.h"

/* The mock, until it is lost. One device, so that the operations find it. */
static struct {
	atomic_bool lost;  /* whatever is called says so */
	atomic_bool told;  /* ... and has */
	atomic_uint after; /* calls after that */
} losing;

static inline bool is_lost(void)
{
	bool lost = losing.lost;

	if (losing.told)
		losing.after++;
	if (lost)
		losing.told = true;
	return lost;
}

#define LOSING_MOCK (gm_mock_mmu())

static inline gm_ret_t losing_create(void *dev, void **pmap)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->pmap_create(dev, pmap);
}

static inline void losing_destroy(void *pmap)
{
	if (losing.lost) /* nobody has emptied it */
		OK(LOSING_MOCK->pmap_remove(pmap, 0, UINT64_C(1) << 47));
	LOSING_MOCK->pmap_destroy(pmap);
}

static inline gm_ret_t losing_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->pmap_enter(pmap, va, pa, bytes, pte);
}

static inline gm_ret_t losing_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->pmap_remove(pmap, va, bytes);
}

static inline gm_ret_t losing_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->tlb_invl(pmap, va, bytes);
}

static inline gm_ret_t losing_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->copy(dev, copies, n, done);
}

static inline gm_ret_t losing_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->submit(dev, steps, n, done);
}

static inline gm_ret_t losing_fault_next(void *dev, struct gm_dev_fault *fault)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->fault_next(dev, fault);
}

static inline gm_ret_t losing_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	return is_lost() ? GM_RET_NODEV : LOSING_MOCK->fault_done(pmap, va, bytes, result);
}

/* Its memory can still be read, but not for good. */
static inline void *losing_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	if (losing.told)
		losing.after++;
	return LOSING_MOCK->cpu_ptr(dev, pa, bytes);
}

/* A device of its own beside those there are, attached. */
static inline struct gm_dev *open_losing(struct gm_lib *lib, struct gm_as *as, const char *spec, struct gm_ctx **ctx)
{
	struct gm_mmu table = *LOSING_MOCK;
	struct gm_mock_config config;
	struct gm_dev *dev;

	losing.lost = losing.told = false;
	losing.after = 0;
	table.pmap_create = losing_create;
	table.pmap_destroy = losing_destroy;
	table.pmap_enter = losing_enter;
	table.pmap_remove = losing_remove;
	table.tlb_invl = losing_invl;
	table.copy = losing_copy;
	table.submit = losing_submit;
	table.fault_next = losing_fault_next;
	table.fault_done = losing_fault_done;
	table.cpu_ptr = losing_cpu_ptr;
	OK(gm_mock_parse(spec, &config));
	OK(gm_dev_create(lib, &table, &config, &dev));
	OK(gm_as_attach(as, dev, GM_ATTACH_IDENTITY, NULL, ctx));
	return dev;
}

static inline void close_losing(struct gm_dev *dev, struct gm_ctx *ctx)
{
	OK(gm_as_detach(ctx));
	OK(gm_dev_destroy(dev));
	cr_assert_eq(losing.after, 0, "%u calls after the device had said that it is lost", losing.after);
}

#endif
