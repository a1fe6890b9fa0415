/* SPDX-License-Identifier: MIT */
/*
 * The host on a kernel without UFFDIO_MOVE (Linux 5.7 to 6.7).
 *
 *     present at va --steal: mremap(DONTUNMAP)--> absent at va, frame in the slot
 *     absent at va --restore, fill: COPY; zero: ZEROPAGE--> present
 *     absent at va --poison: PROT_NONE--> closed, every access fails --unmark, restore, fill--> present, read-write
 *
 * mremap() takes the page in one step, as MOVE does, be it one page or 2 MiB: no
 * store is lost and nothing is copied while somebody may write to it. What stays
 * at va is watched as before. (Write-protect, copy, drop does the same in three
 * steps, needs the frame twice, and its drop, by address, destroys.)
 *
 * What MOVE does besides:
 *
 *  - It moves only within watched memory. mremap() takes what is at the address, be
 *    it of somebody who mapped it a moment ago. So: no event is unread just before
 *    (an unmap that was begun shows there), and just after: for watched memory, and
 *    only for it, the kernel raises an event for the library itself
 *    (gm_host_pump.c). What was not watched goes back at once (return_stranger()).
 *    Its owner may have seen zeros for those microseconds, and where he wrote to
 *    one the bytes taken cannot go back: both are logged. Only
 *    gm_release() before munmap() is free of that.
 *  - It sees pins. Here DMA goes on into a frame that is in the slot or dropped.
 *  - It brings a huge page back as one. COPY makes small pages.
 *
 * The slot's part is a mapping of its own then, with the program's rights and
 * advice; it is made plain at once, and the whole slot anew when it is freed. It
 * is not registered: dropping its frames raises no event, and its holes read as zeros.
 *
 * What restore() and the like make present must not be what the program gave up a
 * moment ago: gm_host_pump_still().
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

static void *ptr(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

/* ---------------------------------------------------------------- steal */

/* Bring pages of a slot back to where they were mapped, where nobody has touched anything since. */
static void return_stranger(struct gm_host_pmap *p, uint64_t va, uint64_t slot, uint64_t bytes)
{
	uint64_t lost = 0;

	for (uint64_t off = 0; off < bytes; off += GM_PAGE_BYTES) {
		int has = gm_host_has_content(p, slot + off);

		if (!has)
			continue;
		if (has < 0 || gm_host_has_content(p, va + off) != 0 ||
		    mremap(ptr(slot + off), GM_PAGE_BYTES, GM_PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			   ptr(va + off)) == MAP_FAILED)
			lost += GM_PAGE_BYTES;
	}
	gm_log(p->env, GM_LOG_ERROR, "memory at 0x%llx + %llu was unmapped without gm_release(), and what was mapped there in "
	       "the same moment was taken for it: given back, but for %llu bytes that had been written to already",
	       (unsigned long long)va, (unsigned long long)bytes, (unsigned long long)lost);
}

/* Ordinary memory of the library, whatever was mapped at the source. */
static bool make_plain(uint64_t slot, uint64_t bytes)
{
	return mprotect(ptr(slot), bytes, PROT_READ | PROT_WRITE) == 0;
}

/* 0: all of it is in the slot. Else a negative errno, and nothing is. */
static int take(struct gm_host_pmap *p, uint64_t va, uint64_t slot, uint64_t bytes)
{
	gm_ret_t ret = gm_host_pump_begin(p, slot, bytes);
	bool told;
	int err = 0;

	if (ret)
		return ret == GM_RET_AGAIN ? -EAGAIN : -ENODEV;
	if (mremap(ptr(va), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, ptr(slot)) == MAP_FAILED)
		err = -errno;
	told = !err && gm_host_pump_told(p);
	if (!err && !told) { /* the pump reads on: that, too, may be told */
		return_stranger(p, va, slot, bytes);
		err = -ENOENT;
	}
	gm_host_pump_end(p);
	if (err)
		return err;
	(void)gm_host_unwatch(p, slot, bytes);
	if (!make_plain(slot, bytes))
		gm_log(p->env, GM_LOG_ERROR, "staging at 0x%llx: too many mappings in this process", (unsigned long long)slot);
	return 0;
}

/*
 * What cannot be taken: locked memory would lose its lock, guard pages and what is closed have no content, and
 * what is not ours to move must have come by accident. SUCCESS, NOMEM: it cannot be told now.
 */
static gm_ret_t find_fixed(struct gm_host_pmap *p, uint64_t va, const struct gm_mask *want, struct gm_mask *out)
{
	struct gm_mask fixed;
	gm_ret_t ret = gm_host_guards(p, va, &fixed);

	if (ret)
		return ret;
	fixed = gm_mask_or(fixed, gm_host_closed_mask(p->dev->closed, va));
	for (uint64_t at = va; at < va + GM_BLOCK_BYTES;) {
		struct gm_host_vma vma;
		uint64_t end;

		ret = gm_host_mem_probe(p, at, &vma);
		if (ret == GM_RET_FAULT) {
			at += GM_PAGE_BYTES;
			continue;
		}
		if (ret)
			return ret;
		end = vma.va + vma.bytes < va + GM_BLOCK_BYTES ? vma.va + vma.bytes : va + GM_BLOCK_BYTES;
		if (vma.locked || !vma.private_anon)
			gm_mask_add_span(&fixed, (unsigned)((at - va) / GM_PAGE_BYTES), (unsigned)((end - va) / GM_PAGE_BYTES));
		at = end;
	}
	*out = gm_mask_and(fixed, *want);
	return GM_RET_SUCCESS;
}

/* The run [first, end): as much at once as one mapping has. */
static gm_ret_t steal_run(struct gm_host_pmap *p, uint64_t va, uint64_t slot, unsigned first, unsigned end,
			  struct gm_host_steal *out)
{
	unsigned span = end - first;

	while (first < end) {
		uint64_t off = (uint64_t)first * GM_PAGE_BYTES;
		unsigned n = span < end - first ? span : end - first;
		int err = take(p, va + off, slot + off, (uint64_t)n * GM_PAGE_BYTES);

		if (!err) {
			gm_mask_add_span(&out->moved, first, first + n);
			first += n;
			span = n * 2;
		} else if (err == -EAGAIN) {
			return GM_RET_AGAIN;
		} else if (err == -ENODEV) {
			return GM_RET_NODEV;
		} else if (err == -ENOMEM) {
			return gm_fail(GM_RET_NOMEM, "0x%llx: too many mappings in this process", (unsigned long long)(va + off));
		} else if (err != -ENOENT && n > 1) { /* it crosses mappings */
			span = n / 2;
		} else {
			return GM_RET_FAULT;
		}
	}
	return GM_RET_SUCCESS;
}

static gm_ret_t nomove_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done);

/* Without knowing the holes nothing can be done with the slot. */
static void put_back(struct gm_host_pmap *p, uint64_t va, uint64_t slot, struct gm_host_steal *out)
{
	GM_MASK_FOR_RUN(&out->moved, first, end) {
		uint64_t off = (uint64_t)first * GM_PAGE_BYTES, done;

		if (nomove_restore(p, va + off, slot + off, (uint64_t)(end - first) * GM_PAGE_BYTES, &done))
			gm_log(p->env, GM_LOG_ERROR, "pages at 0x%llx are stuck in the staging slot",
			       (unsigned long long)(va + off));
	}
	out->moved = gm_mask_none();
}

static gm_ret_t nomove_steal(void *pmap, uint64_t va, const struct gm_mask *want, uint64_t slot,
			     struct gm_host_steal *out)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_mask go;

	assert(va % GM_BLOCK_BYTES == 0 && slot % GM_BLOCK_BYTES == 0);
	*out = (struct gm_host_steal){ .huge = false };
	ret = find_fixed(p, va, want, &out->fixed);
	if (ret)
		return ret;
	go = gm_mask_sub(*want, out->fixed);
	GM_MASK_FOR_RUN(&go, first, end) {
		ret = steal_run(p, va, slot, first, end, out);
		if (ret)
			break;
	}
	if (!gm_mask_empty(&out->moved) && gm_host_find_holes(p, slot, out)) {
		put_back(p, va, slot, out);
		return GM_RET_NOMEM;
	}
	out->huge = false; /* COPY brings it back as small pages */
	return ret;
}

/* ----------------------------------------------------------------- give */

/* What is closed of the range is open from here on. Its content is there already. */
static void open_closed(struct gm_host_pmap *p, uint64_t va, uint64_t bytes)
{
	bool yes;

	for (uint64_t at = va, run; at < va + bytes; at += run) {
		run = gm_host_closed_run(p->dev->closed, at, va + bytes - at, &yes);
		if (yes)
			(void)gm_host_open_pages(p->dev->closed, at, run);
	}
}

static gm_ret_t give(struct gm_host_pmap *p, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	gm_ret_t ret;

	*done = 0;
	if (!gm_host_pump_still(p))
		return GM_RET_AGAIN;
	ret = gm_host_fill(p, va, src, bytes, done);
	open_closed(p, va, *done);
	gm_host_pump_go_on(p);
	return ret;
}

static gm_ret_t nomove_fill(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	return give(pmap, va, src, bytes, done);
}

static gm_ret_t nomove_restore(void *pmap, uint64_t va, uint64_t addr, uint64_t bytes, uint64_t *done)
{
	gm_ret_t ret = give(pmap, va, ptr(addr), bytes, done);

	if (*done)
		gm_host_slot_drop(pmap, addr, *done);
	return ret;
}

/* A page that is closed has its mark: it counts as present. */
static gm_ret_t nomove_zero(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_EXIST;
	uint64_t run;
	bool yes;

	*done = 0;
	if (!gm_host_pump_still(p))
		return GM_RET_AGAIN;
	run = gm_host_closed_run(p->dev->closed, va, bytes, &yes);
	if (!yes)
		ret = gm_host_zero(p, va, run, done);
	if (!ret && run < bytes)
		ret = GM_RET_EXIST;
	gm_host_pump_go_on(p);
	return ret;
}

/* By address, so nothing may be changing: no event is unread before. What is present keeps its content. */
static gm_ret_t nomove_poison(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;
	int changing;

	*done = 0;
	if (!gm_host_pump_still(p))
		return GM_RET_AGAIN;
	changing = gm_uffd_changing(p->fd_app);
	if (changing)
		ret = changing < 0 ? gm_host_lost(p) : GM_RET_AGAIN;
	while (!ret && *done < bytes) {
		uint64_t at = va + *done;
		bool yes;
		int has;

		(void)gm_host_closed_run(p->dev->closed, at, GM_PAGE_BYTES, &yes);
		has = yes ? 1 : gm_host_has_content(p, at);
		if (has)
			ret = has < 0 ? GM_RET_NOMEM : GM_RET_EXIST;
		else
			ret = gm_host_close_pages(p->dev->closed, at, GM_PAGE_BYTES);
		*done += ret ? 0 : GM_PAGE_BYTES;
	}
	gm_host_pump_go_on(p);
	if (*done)
		(void)gm_host_wake(p, va, *done);
	return ret;
}

static gm_ret_t nomove_unmark(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	struct gm_host_pmap *p = pmap;
	gm_ret_t ret;

	*done = 0;
	if (!gm_host_pump_still(p))
		return GM_RET_AGAIN;
	open_closed(p, va, bytes);
	ret = gm_host_zero(p, va, bytes, done);
	gm_host_pump_go_on(p);
	return ret;
}

/* ----------------------------------------------------------------- life */

/* Only memory that can be taken and given back by these ways; registering does not tell, as MOVE would. */
static gm_ret_t nomove_watch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_area a;
	uint64_t ioctls;
	int rc;

	for (uint64_t at = va; at < va + bytes; at = a.end) {
		gm_ret_t ret = gm_host_area(p->dev, at, &a);

		if (ret == GM_RET_FAULT || (!ret && a.begin > at))
			return gm_fail(GM_RET_FAULT, "0x%llx + %llu is not mapped completely", (unsigned long long)va,
				       (unsigned long long)bytes);
		if (ret)
			return ret;
		if (!gm_host_is_anon(&a))
			return gm_fail(GM_RET_NOTSUP, "0x%llx: memory of this kind cannot be moved", (unsigned long long)at);
	}
	do
		rc = gm_uffd_register(p->fd_app, va, bytes, &ioctls);
	while (gm_host_again(p, rc));
	switch (-rc) {
	case 0:
		return GM_RET_SUCCESS;
	case EBUSY:
		return gm_fail(GM_RET_BUSY, "0x%llx is watched by another userfaultfd of this process", (unsigned long long)va);
	case EINVAL:
	case EPERM:
		return gm_fail(GM_RET_NOTSUP, "0x%llx: userfaultfd does not take memory of this kind", (unsigned long long)va);
	default:
		return gm_host_uffd_ret(p, rc);
	}
}

static bool nomove_huge(void *pmap, uint64_t va)
{
	(void)pmap, (void)va;
	return false; /* nothing depends on it, as nothing comes back huge */
}

gm_ret_t gm_host_nomove_create(void *dev, void **pmap)
{
	gm_ret_t ret = gm_host_pmap_create(dev, pmap);
	struct gm_host_pmap *p = ret ? NULL : *pmap;
	bool scans = false;

	if (ret)
		return ret;
	p->plain_arena = true;
	p->by_entries = gm_host_scans(&scans) || !scans;
	ret = gm_host_pump_init(p, true);
	if (ret)
		gm_host_pmap_destroy(p);
	return ret;
}

void gm_host_pumped_destroy(void *pmap)
{
	gm_host_pump_fini(pmap);
	gm_host_pmap_destroy(pmap);
}

/* ------------------------------------------------------- what is missing */

gm_ret_t gm_host_no_kind(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	(void)pmap, (void)va, (void)vma;
	return gm_fail(GM_RET_NOTSUP, "on this rung no memory may be taken without being asked for");
}

gm_ret_t gm_host_no_protected(void *pmap, uint64_t va, const void *src, uint64_t bytes, uint64_t *done)
{
	(void)pmap, (void)va, (void)src, (void)bytes;
	*done = 0;
	return gm_fail(GM_RET_NOTSUP, "on this rung nothing tells of a first store");
}

gm_ret_t gm_host_no_unprotect(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap, (void)va, (void)bytes;
	return gm_fail(GM_RET_NOTSUP, "on this rung no page is protected");
}

gm_ret_t gm_host_no_forks(void *pmap)
{
	(void)pmap;
	return gm_fail(GM_RET_NOTSUP, "children of a fork cannot be served on this rung: it needs UFFDIO_POISON and the right "
		       "to UFFD_FEATURE_EVENT_FORK (Linux 6.8, CAP_SYS_PTRACE)");
}

const struct gm_host_ops gm_host_ops_nomove = {
	.mem_map = gm_host_mem_map,
	.mem_unmap = gm_host_any_unmap,
	.mem_inherit = gm_host_mem_inherit,
	.mem_protect = gm_host_closed_protect,
	.mem_probe = gm_host_closed_probe,
	.mem_rights = gm_host_closed_rights,
	.mem_kind = gm_host_no_kind,
	.mem_huge = nomove_huge,
	.mem_content = gm_host_closed_content,
	.mem_present = gm_host_closed_present,
	.watch = nomove_watch,
	.unwatch = gm_host_unwatch,
	.watch_stores = gm_host_watch_stores,
	.slot_alloc = gm_host_slot_alloc,
	.slot_free = gm_host_slot_renew,
	.slot_drop = gm_host_slot_drop,
	.steal = nomove_steal,
	.restore = nomove_restore,
	.fill = nomove_fill,
	.fill_protected = gm_host_no_protected,
	.unprotect = gm_host_no_unprotect,
	.zero = nomove_zero,
	.poison = nomove_poison,
	.unmark = nomove_unmark,
	.wake = gm_host_wake,
	.bounce = gm_host_bounce,
	.msg_read = gm_host_pump_read,
	.msg_wait = gm_host_pump_wait,
	.msg_kick = gm_host_msg_kick,
	.settled = gm_host_settled,
	.bus_access = gm_host_bus_access,
	.bus_touch = gm_host_bus_touch,
	.bus_bring = gm_host_bus_bring,
	.msg_fd = gm_host_msg_fd,
	.at_fork = gm_host_at_fork,
	.keep = gm_host_keep,
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
