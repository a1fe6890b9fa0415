/* SPDX-License-Identifier: MIT */
/*
 * Owned memory.
 *
 *     gm_alloc:  host maps --> region owned
 *     gm_free:   region out --> no set holds it --> content doomed on every device --> unwatched --> host unmaps
 *
 * "Region out" comes first, so that no new access brings pages back while the
 * rest is being done; if the rest fails, the region is put back. A working set
 * that comes at that moment looks whether its pages are managed when it has
 * them, and gm_free() whether a set has them when they are not: whoever is
 * second sees the other.
 */
#include "config.h"

#include "core/gm_mem.h"

#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_inthread.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"
#include "core/gm_shared.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

/* (A) The kernel gave us the addresses: whatever stood there was unmapped while nobody watched it. */
static void clear_former(struct gm_as *as, uint64_t va, uint64_t end)
{
	gm_mem_clear_stale(as, va, end);
	(void)gm_regions_carve(&as->regions, va, end, GM_REGION_OWNED);
}

static bool is_in_transit(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	bool yes;

	gm_lock(as->env, &as->lock);
	yes = gm_remap_meets(as, va, va + bytes);
	gm_unlock(as->env, &as->lock);
	return yes;
}

static gm_ret_t map_source(struct gm_as *as, const struct gm_mem_source *from, uint64_t bytes, uint64_t *va)
{
	if (from->shared)
		return gm_hal_share_map(as->host, as->hpmap, from->fd, from->offset, bytes, va);
	return gm_hal_mem_map(as->host, as->hpmap, bytes, from->huge, va);
}

/* Addresses from which mremap() took bytes that a working set holds back are not for us: others are tried. */
static gm_ret_t map_fresh(struct gm_as *as, const struct gm_mem_source *from, uint64_t bytes, uint64_t *va)
{
	uint64_t first;
	gm_ret_t ret = map_source(as, from, bytes, &first);

	if (ret || gm_events_settle(as, gm_deadline_ns(as->env, as->cfg.wait_ns)) || !is_in_transit(as, first, bytes)) {
		*va = first;
		return ret;
	}
	ret = map_fresh(as, from, bytes, va);
	gm_hal_mem_unmap(as->host, as->hpmap, first, bytes);
	return ret;
}

/* The address may have been somebody else's a moment ago, and was freed while nobody watched it: no event told of that. */
static gm_ret_t enter_region(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	bool room, ok = false;

	do { /* others take of the stock too */
		gm_ret_t ret = gm_mem_stock(as, 2);

		if (ret)
			return ret;
		gm_lock(as->env, &as->lock);
		room = gm_regions_room(&as->regions) >= 2;
		if (room) {
			clear_former(as, va, end);
			ok = !gm_remap_meets(as, va, end) && gm_regions_insert(&as->regions, va, end, kind);
		}
		gm_unlock(as->env, &as->lock);
	} while (!room);
	return ok ? GM_RET_SUCCESS : gm_fail(GM_RET_NOMEM, "no memory for a region");
}

static gm_ret_t take_address(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, enum gm_fork fork,
			     uint32_t sort)
{
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	gm_ret_t ret = gm_events_settle(as, deadline_ns);

	if (!ret)
		ret = gm_mem_wait_dropped(as, va, end, gm_deadline_ns(as->env, as->cfg.wait_ns));
	if (!ret)
		ret = gm_pack_open_range(as, va, end);
	if (!ret)
		ret = gm_shared_drop_slots(as, va, end, gm_deadline_ns(as->env, as->cfg.wait_ns));
	if (!ret)
		ret = gm_fork_set(as, va, end, fork);
	if (!ret) /* not before: the end of what stood here ends its sort */
		ret = gm_inthread_mark(as, va, end, sort);
	return ret ? ret : enter_region(as, va, end, kind);
}

gm_ret_t gm_mem_obtain(struct gm_as *as, const struct gm_mem_source *from, uint64_t bytes, enum gm_fork fork, uint64_t *out)
{
	enum gm_region_kind kind = from->shared && from->fd >= 0 ? GM_REGION_PLACED : GM_REGION_OWNED;
	uint64_t va;
	gm_ret_t ret = gm_mem_stock(as, 2);

	if (ret)
		return ret;
	ret = map_fresh(as, from, bytes, &va);
	if (ret)
		return from->shared ? ret : gm_fail(ret, "gm_alloc: no room for %llu bytes", (unsigned long long)bytes);
	if (va < as->begin || va + bytes > as->end)
		ret = gm_fail(GM_RET_NOMEM, "no room for %llu bytes inside the address space", (unsigned long long)bytes);
	if (!ret)
		ret = take_address(as, va, va + bytes, kind, fork, from->sort);
	if (ret) {
		gm_hal_mem_unmap(as->host, as->hpmap, va, bytes);
		return ret;
	}
	if (kind == GM_REGION_OWNED)
		gm_mem_set_managed(as, va, va + bytes, true);
	*out = va;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_alloc(struct gm_as *as, uint64_t bytes, uint32_t flags, void **ptr)
{
	uint64_t va, unit = bytes >= GM_BLOCK_BYTES ? GM_BLOCK_BYTES : GM_UNIT_BYTES, forks;
	struct gm_mem_source from = { .fd = -1 };
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return gm_fail(GM_RET_INVAL, "gm_alloc: ptr must not be NULL");
	if (!bytes || bytes > UINT64_MAX / 4)
		return gm_fail(GM_RET_INVAL, "gm_alloc: %llu bytes", (unsigned long long)bytes);
	if (flags & ~(GM_MEM_NO_HUGE | GM_MEM_INTHREAD))
		return gm_fail(GM_RET_INVAL, "gm_alloc: flags 0x%x: only GM_MEM_NO_HUGE and GM_MEM_INTHREAD are known",
			       (unsigned)flags);
	bytes = (bytes + unit - 1) & ~(unit - 1); /* whole units of every device */
	from.huge = bytes >= GM_BLOCK_BYTES && !(flags & GM_MEM_NO_HUGE);
	from.sort = flags & GM_MEM_INTHREAD;
	forks = gm_fork_look(as);
	ret = gm_mem_obtain(as, &from, bytes, GM_FORK_DEFAULT, &va);
	if (ret)
		return ret;
	gm_fork_begin_range(as, va, va + bytes, true);
	if (forks == UINT64_MAX || forks != gm_fork_look(as)) /* it may have given this back, as what stood here before */
		gm_fork_tell_kernel(as, va, va + bytes);
	*ptr = (void *)(uintptr_t)va;
	return GM_RET_SUCCESS;
}

/* Nothing of the range is on a device or parked any more: its content is given up. */
static gm_ret_t drop_range(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	(void)gm_events_doom(as, va, end, false);
	return gm_mem_wait_dropped(as, va, end, deadline_ns);
}

/* What was allocated at va, of which kind, when nobody is about to change that. SUCCESS, NOENT, TIMEDOUT. */
static gm_ret_t find_alloc(struct gm_as *as, uint64_t va, uint64_t deadline_ns, uint64_t *end, enum gm_region_kind *kind)
{
	struct gm_region buf, *r;
	gm_ret_t ret = GM_RET_NOENT;

	gm_lock(as->env, &as->lock);
	r = gm_regions_find(&as->regions, va, &buf);
	if (r && r->kind == GM_REGION_PLACED) {
		ret = gm_shared_wait(as, deadline_ns);
		if (ret)
			goto out;
		ret = GM_RET_NOENT;
		r = gm_regions_find(&as->regions, va, &buf);
	}
	if (r && (r->kind == GM_REGION_OWNED || r->kind == GM_REGION_PLACED) && r->va == va) {
		*end = r->end;
		*kind = r->kind;
		ret = GM_RET_SUCCESS;
	}
out:
	gm_unlock(as->env, &as->lock);
	return ret;
}

/* It ceases to be a region; that it can become one again is promised, whoever uses the stock meanwhile. */
static gm_ret_t begin_free(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	bool begun;
	gm_ret_t ret;

	do {
		ret = gm_mem_stock(as, 2);
		if (ret)
			return ret;
		atomic_fetch_add(&as->releasing, 1);
		gm_lock(as->env, &as->lock);
		begun = gm_regions_promise(&as->regions);
		if (begun && !gm_regions_carve(&as->regions, va, end, kind)) {
			gm_regions_redeem(&as->regions);
			begun = false;
		}
		gm_unlock(as->env, &as->lock);
		if (!begun)
			atomic_fetch_sub(&as->releasing, 1);
	} while (!begun);
	return GM_RET_SUCCESS;
}

static void set_pages(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, bool on)
{
	if (kind == GM_REGION_PLACED)
		gm_shared_set_edges(as, va, end, on);
	else
		gm_mem_set_managed(as, va, end, on);
}

/* No device has to do with it any more: its content is given up, or its mappings in place are revoked. */
static gm_ret_t take_off_devices(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, uint64_t deadline_ns)
{
	/* A set that came since it was asked for has it; one that comes from here on does not take what is not managed. */
	if (gm_mem_is_held(as, va, end))
		return gm_fail(GM_RET_BUSY, "gm_free: a working set has just taken part of 0x%llx", (unsigned long long)va);
	if (kind == GM_REGION_PLACED)
		return gm_shared_unmap_devices(as, va, end, deadline_ns);
	return drop_range(as, va, end, deadline_ns);
}

/*
 * Off the devices, and a region no more; `releasing` until its address is given back, or a space that mirrors the process
 * would adopt what is about to go. After a failure it is allocated still; unless BUSY, content given up in part: what a
 * caller who frees can live with.
 */
static gm_ret_t free_region(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, uint64_t deadline_ns)
{
	gm_ret_t ret = begin_free(as, va, end, kind);

	if (ret)
		return ret;
	set_pages(as, va, end, kind, false);
	ret = take_off_devices(as, va, end, kind, deadline_ns);
	gm_lock(as->env, &as->lock);
	gm_regions_redeem(&as->regions);
	if (ret)
		(void)gm_regions_insert(&as->regions, va, end, kind);
	gm_unlock(as->env, &as->lock);
	if (ret)
		set_pages(as, va, end, kind, true);
	if (ret && kind == GM_REGION_OWNED)
		gm_fork_tell_kernel(as, va, end); /* a fork that ended meanwhile may have taken it for adopted */
	if (ret)
		atomic_fetch_sub(&as->releasing, 1);
	return ret;
}

/* What was noted of the address goes first: it is somebody else's as soon as it is unmapped. */
static void give_address(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	if (kind == GM_REGION_OWNED)
		gm_mem_unwatch(as, va, end);
	/* It waits for busy pages, which ends: none can be made busy any more, and who has some has a bound of his own. */
	(void)gm_shared_drop_slots(as, va, end, UINT64_MAX);
	(void)gm_fork_set(as, va, end, GM_FORK_DEFAULT); /* no memory: who gets the address next clears it, or fails */
	gm_hal_mem_unmap(as->host, as->hpmap, va, end - va);
	atomic_fetch_sub(&as->releasing, 1);
	gm_mem_trim_stock(as);
}

gm_ret_t gm_free(struct gm_as *as, void *ptr)
{
	uint64_t va = GM_VA(ptr), end = 0, deadline_ns;
	enum gm_region_kind kind = GM_REGION_OWNED;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return GM_RET_SUCCESS;
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_events_settle(as, deadline_ns);
	if (ret)
		return ret;
	ret = find_alloc(as, va, deadline_ns, &end, &kind);
	if (ret == GM_RET_NOENT)
		return gm_fail(ret, "gm_free: no allocation begins at %p", ptr);
	if (!ret)
		ret = gm_pack_open_range(as, va, end);
	if (ret)
		return ret;
	if (gm_mem_is_held(as, va, end))
		return gm_fail(GM_RET_BUSY, "gm_free: a working set holds part of %p: release it first", ptr);
	ret = free_region(as, va, end, kind, deadline_ns);
	if (!ret)
		give_address(as, va, end, kind);
	return ret;
}
