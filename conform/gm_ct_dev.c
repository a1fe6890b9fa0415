/* SPDX-License-Identifier: MIT */
/*
 * Devices of a test, and the operations by hand: each one is noted first, so that a failure, a crash and a hang can
 * say where.
 *
 *     plugin->open() --> dev_init() of shim(gap(backend)) --> operations --> dev_fini() --> plugin->close()
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

#define LARGE_BYTES (UINT64_C(2) << 20)

static void take_sizes(struct gm_ct_dev *d)
{
	uint64_t sizes = d->caps.page_sizes;

	if (!(sizes & (2 * LARGE_BYTES - 1)))
		gm_ct_fail(d->t, "caps", "page sizes 0x%llx: none of at most 2 MiB", (unsigned long long)sizes);
	d->granule = sizes & (~sizes + 1);
	for (d->large = LARGE_BYTES; !(sizes & d->large);)
		d->large >>= 1;
}

static void close_data(struct gm_ct_dev *d)
{
	if (!d->foreign && d->t->plugin->close) {
		gm_ct_note(d->t, "gm_plugin.close", 0, 0, 0, 0);
		d->t->plugin->close(d->dev_data);
	}
	free(d);
}

/* dev_init(); after a failure the caller gives `d` back. */
static gm_ret_t open_table(struct gm_ct_dev *d, const struct gm_mmu *mmu)
{
	const struct gm_dev_caps none = { .caps = 0 };
	struct gm_ct *t = d->t;
	gm_ret_t ret;

	gm_ct_services_fill(t->services, &d->svc);
	d->mmu = gm_ct_wrap(d, mmu);
	gm_ct_note(t, "dev_init", 0, 0, 0, 0);
	ret = d->mmu->dev_init(d->wrap, &d->svc, &d->caps, &d->dev);
	if (ret) {
		if (d->dev)
			gm_ct_fail(t, "out-parameter", "dev_init failed with %s, but wrote a device", gm_ret_name(ret));
		if (memcmp(&d->caps, &none, sizeof(none)) != 0)
			gm_ct_fail(t, "out-parameter", "dev_init failed with %s, but wrote to caps: fill it in last",
				   gm_ret_name(ret));
		gm_ct_unwrap(d);
		return ret;
	}
	if (!d->dev)
		gm_ct_fail(t, "out-parameter", "dev_init succeeded with NULL as device");
	take_sizes(d);
	return GM_RET_SUCCESS;
}

static struct gm_ct_dev *dev_alloc(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_alloc(t, sizeof(*d));

	d->t = t;
	return d;
}

/* What the plugin makes of the options. */
static void open_data(struct gm_ct_dev *d)
{
	struct gm_ct *t = d->t;
	gm_ret_t ret;

	gm_ct_note(t, "gm_plugin.open", 0, 0, 0, 0);
	if (!t->plugin->open && t->options[0])
		gm_ct_fail(t, "options", "\"%s\" was given, but gm_plugin.open is NULL: the backend takes none", t->options);
	if (!t->plugin->open)
		return;
	ret = t->plugin->open(t->options, &d->dev_data);
	if (ret)
		gm_ct_fail(t, "options", "gm_plugin.open(\"%s\") returned %s%s", t->options, gm_ret_name(ret),
			   ret == GM_RET_INVAL ? ": the backend does not understand them" : "");
}

gm_ret_t gm_ct_try_open(struct gm_ct *t, struct gm_ct_dev **out)
{
	struct gm_ct_dev *d = dev_alloc(t);
	gm_ret_t ret;

	open_data(d);
	ret = open_table(d, gm_ct_gap(t));
	if (ret) {
		close_data(d);
		return ret;
	}
	t->shared->caps = d->caps.caps;
	*out = d;
	return GM_RET_SUCCESS;
}

struct gm_ct_dev *gm_ct_open_other(struct gm_ct *t, const struct gm_mmu *mmu, void *dev_data)
{
	struct gm_ct_dev *d = dev_alloc(t);

	d->foreign = true;
	d->dev_data = dev_data;
	gm_ct_ok(t, open_table(d, mmu));
	return d;
}

struct gm_ct_dev *gm_ct_open(struct gm_ct *t)
{
	struct gm_ct_dev *d = NULL;

	gm_ct_ok(t, gm_ct_try_open(t, &d));
	return d;
}

void gm_ct_close(struct gm_ct_dev *d)
{
	gm_ct_note(d->t, "dev_fini", 0, 0, 0, 0);
	d->mmu->dev_fini(d->dev);
	gm_ct_unwrap(d);
	close_data(d);
}

bool gm_ct_has(const struct gm_ct_dev *d, uint32_t caps)
{
	return (d->caps.caps & caps) == caps;
}

gm_ret_t gm_ct_pmap_create(struct gm_ct_dev *d, void **pmap)
{
	gm_ct_note(d->t, "pmap_create", 0, 0, 0, 0);
	return d->mmu->pmap_create(d->dev, pmap);
}

void gm_ct_pmap_destroy(struct gm_ct_dev *d, void *pmap)
{
	gm_ct_note(d->t, "pmap_destroy", 0, 0, 0, 0);
	d->mmu->pmap_destroy(pmap);
}

gm_ret_t gm_ct_enter(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	gm_ct_note(d->t, "pmap_enter", va, pa, bytes, pte);
	return d->mmu->pmap_enter(pmap, va, pa, bytes, pte);
}

gm_ret_t gm_ct_remove(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes)
{
	gm_ct_note(d->t, "pmap_remove", va, 0, bytes, 0);
	return d->mmu->pmap_remove(pmap, va, bytes);
}

gm_ret_t gm_ct_protect(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes, uint32_t pte)
{
	gm_ct_note(d->t, "pmap_protect", va, 0, bytes, pte);
	return d->mmu->pmap_protect(pmap, va, bytes, pte);
}

void gm_ct_invl(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes)
{
	gm_ct_note(d->t, "tlb_invl", va, 0, bytes, 0);
	gm_ct_ok(d->t, d->mmu->tlb_invl(pmap, va, bytes));
}

static gm_ret_t wait_for(struct gm_ct_dev *d, struct gm_fence *done, gm_ret_t ret, const char *op)
{
	if (ret) {
		gm_ct_fence_refused(done);
		return ret;
	}
	ret = gm_ct_fence_wait(done, d->t->bound_ns);
	if (ret == GM_RET_TIMEDOUT)
		gm_ct_fail(d->t, "fence", "%s: not signalled within %llu ms", op,
			   (unsigned long long)(d->t->bound_ns / 1000000));
	return ret;
}

gm_ret_t gm_ct_copy(struct gm_ct_dev *d, const struct gm_copy *copies, size_t n)
{
	struct gm_fence *done = gm_ct_fence(d->t->services);

	gm_ct_note(d->t, "copy", 0, copies->pa, copies->bytes, 0);
	return wait_for(d, done, d->mmu->copy(d->dev, copies, n, done), "copy");
}

gm_ret_t gm_ct_submit(struct gm_ct_dev *d, struct gm_step *steps, size_t n)
{
	struct gm_fence *done = gm_ct_fence(d->t->services);

	gm_ct_note(d->t, "submit", 0, 0, 0, 0);
	return wait_for(d, done, d->mmu->submit(d->dev, steps, n, done), "submit");
}

gm_ret_t gm_ct_access(struct gm_ct_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	gm_ct_note(d->t, write ? "access to store" : "access to load", va, 0, bytes, 0);
	return d->mmu->access(pmap, va, buf, bytes, write);
}

gm_ret_t gm_ct_fault_next(struct gm_ct_dev *d, struct gm_dev_fault *fault)
{
	gm_ct_note(d->t, "fault_next", 0, 0, 0, 0);
	return d->mmu->fault_next(d->dev, fault);
}

void gm_ct_fault_done(struct gm_ct_dev *d, void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	gm_ct_note(d->t, "fault_done", va, 0, bytes, 0);
	gm_ct_ok(d->t, d->mmu->fault_done(pmap, va, bytes, result));
}

void *gm_ct_cpu_ptr(struct gm_ct_dev *d, uint64_t pa, uint64_t bytes)
{
	gm_ct_note(d->t, "cpu_ptr", 0, pa, bytes, 0);
	return d->mmu->cpu_ptr(d->dev, pa, bytes);
}

gm_ret_t gm_ct_touch(struct gm_ct_dev *d, void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	gm_ct_note(d->t, write ? "hook touch to store" : "hook touch to load", va, 0, bytes, 0);
	return d->t->plugin->hooks->touch(gm_ct_inner_dev(d), gm_ct_inner_pmap(pmap), va, buf, bytes, write);
}

gm_ret_t gm_ct_fail_op(struct gm_ct_dev *d, const char *op, uint64_t nth)
{
	return d->t->plugin->hooks->fail(gm_ct_inner_dev(d), op, nth);
}

void gm_ct_lose(struct gm_ct_dev *d)
{
	gm_ct_note(d->t, "hook lose", 0, 0, 0, 0);
	d->t->plugin->hooks->lose(gm_ct_inner_dev(d));
}

void gm_ct_hang(struct gm_ct_dev *d)
{
	gm_ct_note(d->t, "hook hang", 0, 0, 0, 0);
	gm_ct_ok(d->t, d->t->plugin->hooks->hang(gm_ct_inner_dev(d)));
}
