/* SPDX-License-Identifier: MIT */
/*
 * Dispatch of what only a host has; the other half of gm_call.c. A host whose
 * descriptors are closed says NODEV each time and is called all the same, so
 * there is no state here: each wrapper gives the simulation its chance to
 * switch and asserts the contract. Of the calls only msg_wait waits.
 */
#include "config.h"

#include <assert.h>

#include "hal/gm_call.h"

static void enter(struct gm_hal_dev *h, const char *op)
{
	gm_env_assert_unlocked(h->env, op);
	gm_may_switch(h->env);
}

static bool aligned(uint64_t va, uint64_t bytes)
{
	return va % GM_PAGE_BYTES == 0 && bytes % GM_PAGE_BYTES == 0 && bytes > 0 && va + bytes > va;
}

/* Who gets NOMEM from something that asks the host among other things learns so whose it may be. */
static gm_ret_t note(struct gm_hal_dev *h, gm_ret_t ret)
{
	if (ret == GM_RET_NOMEM)
		atomic_fetch_add_explicit(&h->untold, 1, memory_order_relaxed);
	return ret;
}

gm_ret_t gm_hal_mem_map(struct gm_hal_dev *h, void *pmap, uint64_t bytes, bool huge, uint64_t *va)
{
	enter(h, "mem_map");
	return h->host.mem_map(pmap, bytes, huge, va);
}

void gm_hal_mem_unmap(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "mem_unmap");
	assert(aligned(va, bytes));
	h->host.mem_unmap(pmap, va, bytes);
}

void gm_hal_mem_inherit(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, bool inherit)
{
	enter(h, "mem_inherit");
	assert(aligned(va, bytes));
	h->host.mem_inherit(pmap, va, bytes, inherit);
}

gm_ret_t gm_hal_mem_protect(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	enter(h, "mem_protect");
	assert(aligned(va, bytes));
	return h->host.mem_protect(pmap, va, bytes, access);
}

gm_ret_t gm_hal_mem_probe(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	enter(h, "mem_probe");
	return note(h, h->host.mem_probe(pmap, va, vma));
}

gm_ret_t gm_hal_mem_rights(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	enter(h, "mem_rights");
	return note(h, h->host.mem_rights(pmap, va, vma));
}

gm_ret_t gm_hal_mem_kind(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	enter(h, "mem_kind");
	return note(h, h->host.mem_kind(pmap, va, vma));
}

bool gm_hal_mem_huge(struct gm_hal_dev *h, void *pmap, uint64_t va)
{
	enter(h, "mem_huge");
	return h->host.mem_huge(pmap, va);
}

gm_ret_t gm_hal_mem_content(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_host_content *out)
{
	enter(h, "mem_content");
	return h->host.mem_content(pmap, va, out);
}

gm_ret_t gm_hal_mem_present(struct gm_hal_dev *h, void *pmap, uint64_t va, struct gm_mask *present)
{
	enter(h, "mem_present");
	return note(h, h->host.mem_present(pmap, va, present));
}

gm_ret_t gm_hal_watch(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "watch");
	assert(aligned(va, bytes));
	return h->host.watch(pmap, va, bytes);
}

gm_ret_t gm_hal_unwatch(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "unwatch");
	assert(aligned(va, bytes));
	return h->host.unwatch(pmap, va, bytes);
}

gm_ret_t gm_hal_watch_stores(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "watch_stores");
	assert(aligned(va, bytes));
	return h->host.watch_stores(pmap, va, bytes);
}

gm_ret_t gm_hal_slot_alloc(struct gm_hal_dev *h, void *pmap, uint64_t *slot)
{
	enter(h, "slot_alloc");
	return h->host.slot_alloc(pmap, slot);
}

void gm_hal_slot_free(struct gm_hal_dev *h, void *pmap, uint64_t slot)
{
	enter(h, "slot_free");
	h->host.slot_free(pmap, slot);
}

void gm_hal_slot_drop(struct gm_hal_dev *h, void *pmap, uint64_t addr, uint64_t bytes)
{
	enter(h, "slot_drop");
	assert(aligned(addr, bytes));
	h->host.slot_drop(pmap, addr, bytes);
}

gm_ret_t gm_hal_steal(struct gm_hal_dev *h, void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot,
		      struct gm_host_steal *out)
{
	enter(h, "steal");
	assert(va % GM_BLOCK_BYTES == 0 && slot % GM_PAGE_BYTES == 0 && !gm_mask_empty(want));
	return h->host.steal(pmap, va, want, slot, out);
}

gm_ret_t gm_hal_restore(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	enter(h, "restore");
	assert(aligned(va, bytes) && aligned(addr, bytes));
	return h->host.restore(pmap, va, addr, bytes, done);
}

gm_ret_t gm_hal_fill(struct gm_hal_dev *h, void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	enter(h, "fill");
	assert(aligned(va, bytes));
	return h->host.fill(pmap, va, src, bytes, done);
}

gm_ret_t gm_hal_fill_protected(struct gm_hal_dev *h, void *pmap, uint64_t va, const void *src, uint64_t bytes,
			       uint64_t *done)
{
	enter(h, "fill_protected");
	assert(aligned(va, bytes));
	return h->host.fill_protected(pmap, va, src, bytes, done);
}

gm_ret_t gm_hal_unprotect(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "unprotect");
	assert(aligned(va, bytes));
	return h->host.unprotect(pmap, va, bytes);
}

gm_ret_t gm_hal_zero(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	enter(h, "zero");
	assert(aligned(va, bytes));
	return h->host.zero(pmap, va, bytes, done);
}

gm_ret_t gm_hal_poison(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	enter(h, "poison");
	assert(aligned(va, bytes));
	return h->host.poison(pmap, va, bytes, done);
}

gm_ret_t gm_hal_unmark(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	enter(h, "unmark");
	assert(aligned(va, bytes));
	return h->host.unmark(pmap, va, bytes, done);
}

void gm_hal_wake(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "wake");
	assert(aligned(va, bytes));
	(void)h->host.wake(pmap, va, bytes); /* nobody waits in a range that is gone */
}

void *gm_hal_bounce(struct gm_hal_dev *h, void *pmap, unsigned index, uint64_t bytes)
{
	enter(h, "bounce");
	return h->host.bounce(pmap, index, bytes);
}

size_t gm_hal_msg_read(struct gm_hal_dev *h, void *pmap, struct gm_host_msg *msgs, size_t n)
{
	enter(h, "msg_read");
	return h->host.msg_read(pmap, msgs, n);
}

gm_ret_t gm_hal_msg_wait(struct gm_hal_dev *h, void *pmap, uint64_t deadline_ns)
{
	enter(h, "msg_wait");
	return h->host.msg_wait(pmap, deadline_ns);
}

void gm_hal_msg_kick(struct gm_hal_dev *h, void *pmap)
{
	h->host.msg_kick(pmap);
}

gm_ret_t gm_hal_settled(struct gm_hal_dev *h, void *pmap)
{
	enter(h, "settled");
	return h->host.settled(pmap);
}

int gm_hal_msg_fd(struct gm_hal_dev *h, void *pmap)
{
	return h->host.msg_fd(pmap);
}

void gm_hal_at_fork(struct gm_hal_dev *h, void *pmap, gm_ret_t (*freeze)(void *), void (*thaw)(void *), void *arg)
{
	h->host.at_fork(pmap, freeze, thaw, arg);
}

gm_ret_t gm_hal_keep(struct gm_hal_dev *h, void *pmap)
{
	return h->host.keep(pmap);
}

gm_ret_t gm_hal_reopen(struct gm_hal_dev *h, void *pmap)
{
	enter(h, "reopen");
	return h->host.reopen(pmap);
}

gm_ret_t gm_hal_serve_forks(struct gm_hal_dev *h, void *pmap)
{
	enter(h, "serve_forks");
	return h->host.serve_forks(pmap);
}

gm_ret_t gm_hal_child_fill(struct gm_hal_dev *h, void *pmap, int child, uint64_t va, const void *src, uint64_t bytes,
			   uint64_t *done)
{
	enter(h, "child_fill");
	assert(aligned(va, bytes));
	return h->host.child_fill(pmap, child, va, src, bytes, done);
}

size_t gm_hal_child_read(struct gm_hal_dev *h, void *pmap, int child, struct gm_host_msg *msgs, size_t n)
{
	enter(h, "child_read");
	return h->host.child_read(pmap, child, msgs, n);
}

void gm_hal_child_close(struct gm_hal_dev *h, void *pmap, int child)
{
	enter(h, "child_close");
	h->host.child_close(pmap, child);
}

void gm_hal_child_fail(struct gm_hal_dev *h, void *pmap)
{
	enter(h, "child_fail");
	h->host.child_fail(pmap);
}

gm_ret_t gm_hal_share_map(struct gm_hal_dev *h, void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va)
{
	enter(h, "share_map");
	assert(bytes && bytes % GM_PAGE_BYTES == 0 && offset % GM_PAGE_BYTES == 0);
	if (!h->host.share_map)
		return gm_fail(GM_RET_NOTSUP, "this host has no shared memory");
	return h->host.share_map(pmap, fd, offset, bytes, va);
}

gm_ret_t gm_hal_share_slot(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t *slot)
{
	enter(h, "share_slot");
	assert(va % GM_BLOCK_BYTES == 0);
	return h->host.share_slot ? h->host.share_slot(pmap, va, slot) : GM_RET_NOENT;
}

gm_ret_t gm_hal_share_fd(struct gm_hal_dev *h, void *pmap, uint64_t va, int *fd)
{
	enter(h, "share_fd");
	return h->host.share_fd ? h->host.share_fd(pmap, va, fd) : GM_RET_NOENT;
}

gm_ret_t gm_hal_mem_inthread(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, bool on)
{
	enter(h, "mem_inthread");
	assert(aligned(va, bytes));
	return h->host.mem_inthread(pmap, va, bytes, on);
}

bool gm_hal_inthread_has(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes)
{
	enter(h, "inthread_has");
	assert(aligned(va, bytes));
	return h->host.inthread_has(pmap, va, bytes);
}

/* Accesses over the bus: a device's threads make them too. */

gm_ret_t gm_hal_bus_access(struct gm_hal_dev *host, uint64_t host_va, void *buf, size_t bytes, bool write)
{
	return note(host, host->host.bus_access(host->dev, host_va, buf, bytes, write));
}

gm_ret_t gm_hal_bus_touch(struct gm_hal_dev *host, uint64_t host_va)
{
	return note(host, host->host.bus_touch(host->dev, host_va));
}

gm_ret_t gm_hal_bus_bring(struct gm_hal_dev *host, uint64_t host_va, bool write, uint64_t deadline_ns)
{
	return note(host, host->host.bus_bring(host->dev, host_va, write, deadline_ns));
}
