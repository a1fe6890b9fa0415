/* SPDX-License-Identifier: MIT */
/*
 * The host without userfaultfd: pages move by calls only, and an access of the
 * CPU to one that is away fails (SIGSEGV, EFAULT), never reads zeros.
 *
 *     open at va --steal: PROT_NONE, mremap(DONTUNMAP) to the slot--> closed at va, frame in the slot
 *     closed --restore, fill: bytes through /proc/self/mem, then read-write--> open
 *     closed --unmark, zero of what is given up: read-write--> open, zeros
 *     closed, lost --poison--> as it is
 *
 * Closed before it is taken, and filled before it is opened: no access comes
 * between. /proc/self/mem writes to inaccessible memory of the process itself
 * (gm_host_rung.c tries that); the mapping stays what it was, with its advice.
 * A hole counts as content: its slot reads as zeros, and nobody would serve it later.
 *
 * Nothing tells what the process does. Before each restore() this looks: is the
 * page closed by us, is the mapping inaccessible still? If not, the memory was unmapped
 * (or moved, or mapped over) without gm_release(): what was there is gone, and
 * an UNMAP of the host's own making says so to the reader, as the kernel would have.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static void *ptr(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

/* Private, anonymous. (Whether it may be written to, and is not locked, can change any time: steal() looks.) */
static gm_ret_t explicit_watch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_vma vma;

	for (uint64_t at = va; at < va + bytes; at = vma.va + vma.bytes) {
		gm_ret_t ret = gm_host_closed_rights(pmap, at, &vma);

		if (ret == GM_RET_FAULT)
			return gm_fail(ret, "0x%llx + %llu is not mapped completely", (unsigned long long)va,
				       (unsigned long long)bytes);
		if (ret)
			return ret;
		if (!vma.private_anon)
			return gm_fail(GM_RET_NOTSUP, "0x%llx: memory of this kind cannot be moved", (unsigned long long)at);
	}
	return GM_RET_SUCCESS;
}

static gm_ret_t explicit_unwatch(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap, (void)va, (void)bytes;
	return GM_RET_SUCCESS;
}

/* ---------------------------------------------------------------- steal */

/* A run within one mapping. Nothing is closed that was not taken. */
static gm_ret_t take(struct gm_host_pmap *p, uint64_t va, uint64_t slot, uint64_t bytes)
{
	gm_ret_t ret = gm_host_close_pages(p->dev->closed, va, bytes);

	if (ret)
		return ret;
	if (mremap(ptr(va), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, ptr(slot)) == MAP_FAILED) {
		ret = errno == ENOMEM ? GM_RET_NOMEM : GM_RET_FAULT;
		(void)gm_host_open_pages(p->dev->closed, va, bytes);
		return ret;
	}
	if (mprotect(ptr(slot), bytes, PROT_READ | PROT_WRITE))
		gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx: error %d", (unsigned long long)slot, errno);
	return GM_RET_SUCCESS;
}

/* How far of [first, *end) the mapping at page `first` reaches, which *end becomes, and of which kind it is. */
static gm_ret_t mapping_end(struct gm_host_pmap *p, uint64_t va, unsigned first, unsigned *end, struct gm_host_vma *vma)
{
	uint64_t at = va + (uint64_t)first * GM_PAGE_BYTES, pages;
	gm_ret_t ret = gm_host_mem_probe(p, at, vma);

	if (ret)
		return ret;
	pages = (vma->va + vma->bytes - at) / GM_PAGE_BYTES;
	if (pages < *end - first)
		*end = first + (unsigned)pages;
	return GM_RET_SUCCESS;
}

static gm_ret_t explicit_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot,
			       struct gm_host_steal *out)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_mask go;

	assert(va % GM_BLOCK_BYTES == 0 && slot % GM_BLOCK_BYTES == 0);
	*out = (struct gm_host_steal){ .huge = false };
	ret = gm_host_guards(p, va, &out->fixed);
	if (ret)
		return ret;
	out->fixed = gm_mask_or(out->fixed, gm_host_closed_mask(p->dev->closed, va));
	out->fixed = gm_mask_and(out->fixed, *want);
	go = gm_mask_sub(*want, out->fixed);
	GM_MASK_FOR_RUN(&go, first, end)
		for (unsigned i = first, stop; i < end && !ret; i = stop) {
			uint64_t off = (uint64_t)i * GM_PAGE_BYTES;
			struct gm_host_vma vma;

			stop = end;
			ret = mapping_end(p, va, i, &stop, &vma);
			if (ret)
				return ret;
			if (vma.locked || !vma.private_anon || vma.access != (GM_READ | GM_WRITE)) {
				gm_mask_add_span(&out->fixed, i, stop);
				continue;
			}
			ret = take(p, va + off, slot + off, (uint64_t)(stop - i) * GM_PAGE_BYTES);
			if (!ret)
				gm_mask_add_span(&out->moved, i, stop);
		}
	return ret;
}

/* ----------------------------------------------------------------- give */

/*
 * How much from va on is as steal() left it, at most *bytes, which becomes that. AGAIN: nothing, and the reader is told;
 * NOMEM: it cannot be told now.
 */
static gm_ret_t still_ours(struct gm_host_pmap *p, uint64_t va, uint64_t *bytes)
{
	struct gm_host_area a = { .end = 0 };
	gm_ret_t ret = gm_host_area(p->dev, va, &a);
	uint64_t gone = *bytes;

	if (ret && ret != GM_RET_FAULT)
		return ret;
	if (!ret && a.begin <= va && a.end - va < *bytes)
		gone = a.end - va;
	else if (!ret && a.begin > va && a.begin - va < *bytes)
		gone = a.begin - va;
	if (!ret && a.begin <= va && gm_host_is_anon(&a) && !a.readable && !a.writable) {
		*bytes = gone;
		return ret;
	}
	gm_log(p->env, GM_LOG_WARN, "memory at 0x%llx was unmapped without gm_release()", (unsigned long long)va);
	gm_host_closed_del(p->dev->closed, va, gone);
	gm_host_pump_post(p, (struct gm_host_msg){ .kind = GM_HOST_UNMAP, .va = va, .bytes = gone });
	return GM_RET_AGAIN;
}

/* Bytes to where it is closed, then it is open. `src` is memory of the library. */
static gm_ret_t explicit_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;

	*done = 0;
	while (*done < bytes) {
		uint64_t at = va + *done, run;
		gm_ret_t ret;
		ssize_t n;
		bool yes;

		run = gm_host_closed_run(p->dev->closed, at, bytes - *done, &yes);
		if (!yes)
			return GM_RET_EXIST;
		ret = still_ours(p, at, &run);
		if (ret)
			return ret;
		n = pwrite(gm_host_fd_get(&p->dev->mem), (const char *)src + *done, run, (off_t)at);
		n = n / (ssize_t)GM_PAGE_BYTES * (ssize_t)GM_PAGE_BYTES;
		if (n <= 0)
			return gm_fail(GM_RET_NOMEM, "/proc/self/mem: 0x%llx cannot be written: error %d", (unsigned long long)at,
				       errno);
		if (gm_host_open_pages(p->dev->closed, at, (uint64_t)n))
			return gm_fail(GM_RET_NOMEM, "0x%llx cannot be made accessible: error %d", (unsigned long long)at, errno);
		*done += (uint64_t)n;
	}
	return GM_RET_SUCCESS;
}

static gm_ret_t explicit_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	gm_ret_t ret = explicit_fill(pmap, va, ptr(addr), bytes, done);

	if (*done)
		gm_host_slot_drop(pmap, addr, *done);
	return ret;
}

/* What is open nobody watches: the kernel gives zeros there. What is closed is marked. */
static gm_ret_t explicit_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	bool yes;

	*done = 0;
	(void)gm_host_closed_run(p->dev->closed, va, bytes, &yes);
	return yes ? GM_RET_EXIST : GM_RET_FAULT;
}

static gm_ret_t explicit_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	uint64_t run;
	bool yes;

	run = gm_host_closed_run(p->dev->closed, va, bytes, &yes);
	*done = yes ? run : 0;
	return yes && run == bytes ? GM_RET_SUCCESS : GM_RET_EXIST;
}

static gm_ret_t explicit_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;
	bool yes;

	*done = 0;
	while (!ret && *done < bytes) {
		uint64_t at = va + *done, run = gm_host_closed_run(p->dev->closed, at, bytes - *done, &yes);

		ret = yes ? still_ours(p, at, &run) : GM_RET_EXIST;
		if (!ret)
			ret = gm_host_open_pages(p->dev->closed, at, run);
		*done += ret ? 0 : run;
	}
	return ret;
}

static gm_ret_t explicit_wake(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap, (void)va, (void)bytes;
	return GM_RET_SUCCESS;
}

static gm_ret_t explicit_settled(void *pmap)
{
	struct gm_host_pmap *p = pmap;

	return atomic_load(&p->unread) ? GM_RET_AGAIN : GM_RET_SUCCESS;
}

static int explicit_fd(void *pmap)
{
	const struct gm_host_pmap *p = pmap;

	return p->fd_poll;
}

static bool explicit_huge(void *pmap, uint64_t va)
{
	(void)pmap, (void)va;
	return false;
}

/* No memory depends on a descriptor. The one to wait on is made again by reopen(). */
static gm_ret_t explicit_keep(void *pmap)
{
	(void)pmap;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_explicit_create(void *dev, void **pmap)
{
	gm_ret_t ret = gm_host_pmap_create(dev, pmap);
	struct gm_host_pmap *p = ret ? NULL : *pmap;
	bool scans = false;

	if (ret)
		return ret;
	p->plain_arena = true;
	p->by_entries = gm_host_scans(&scans) || !scans;
	ret = gm_host_pump_init(p, false);
	if (ret)
		gm_host_pmap_destroy(p);
	return ret;
}

const struct gm_host_ops gm_host_ops_explicit = {
	.mem_map = gm_host_mem_map,
	.mem_unmap = gm_host_any_unmap,
	.mem_inherit = gm_host_mem_inherit,
	.mem_protect = gm_host_closed_protect,
	.mem_probe = gm_host_closed_probe,
	.mem_rights = gm_host_closed_rights,
	.mem_kind = gm_host_no_kind,
	.mem_huge = explicit_huge,
	.mem_content = gm_host_closed_content,
	.mem_present = gm_host_closed_present,
	.watch = explicit_watch,
	.unwatch = explicit_unwatch,
	.watch_stores = gm_host_watch_stores,
	.slot_alloc = gm_host_slot_alloc,
	.slot_free = gm_host_slot_renew,
	.slot_drop = gm_host_slot_drop,
	.steal = explicit_steal,
	.restore = explicit_restore,
	.fill = explicit_fill,
	.fill_protected = gm_host_no_protected,
	.unprotect = gm_host_no_unprotect,
	.zero = explicit_zero,
	.poison = explicit_poison,
	.unmark = explicit_unmark,
	.wake = explicit_wake,
	.bounce = gm_host_bounce,
	.msg_read = gm_host_pump_posted,
	.msg_wait = gm_host_pump_wait,
	.msg_kick = gm_host_msg_kick,
	.settled = explicit_settled,
	.bus_access = gm_host_bus_access,
	.bus_touch = gm_host_bus_touch,
	.bus_bring = gm_host_bus_bring,
	.msg_fd = explicit_fd,
	.at_fork = gm_host_at_fork,
	.keep = explicit_keep,
	.reopen = gm_host_reopen,
	.serve_forks = gm_host_no_forks,
	.child_fill = gm_host_child_fill,
	.child_read = gm_host_child_read,
	.child_close = gm_host_child_close,
	.child_fail = gm_host_child_fail,
	.share_map = gm_host_share_view,
	.share_slot = gm_host_share_slot,
	.share_fd = gm_host_share_fd,
	.mem_inthread = gm_host_mem_inthread,
	.inthread_has = gm_host_inthread_has,
};
