/* SPDX-License-Identifier: MIT */
/*
 * Owned memory, and what owned and adopted memory share.
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

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"
#include "core/gm_shared.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

/* ------------------------------------------------------ bringing home */

gm_ret_t gm_mem_block_home(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_mask range = gm_block_clip(b, va, end);

	return gm_mem_pages_home(b, &range, deadline_ns);
}

gm_ret_t gm_mem_pages_home(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask away;

	for (;;) {
		gm_ret_t ret;

		gm_lock(as->env, &b->lock);
		away = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_mask_or(b->doomed, b->busy));
		away = gm_mask_sub(gm_mask_and(away, *pages), b->leaving);
		gm_unlock(as->env, &b->lock);
		if (gm_mask_empty(&away))
			return GM_RET_SUCCESS;
		ret = gm_move_home(b, &away, GM_TXN_FORCE, deadline_ns);
		if (ret == GM_RET_NODEV) /* what the device had is poisoned, the rest is home: look again */
			ret = GM_RET_SUCCESS;
		if (ret && ret != GM_RET_FAULT && ret != GM_RET_EXIST && ret != GM_RET_AGAIN)
			return ret;
		if (gm_now_ns(as->env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "pages near 0x%llx could not be brought home in time",
				       (unsigned long long)b->va);
		if (ret)
			(void)gm_events_let_run(as); /* the application changed its mapping */
	}
}

/* Busy, revoked, released: pages mapped in place lose their mappings, and duplicates go. What a working set holds keeps them: BUSY. */
gm_ret_t gm_mem_unmap_in_place(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask range = gm_block_clip(b, va, end), mapped;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(as->env, &b->lock);
	for (;;) {
		mapped = gm_mask_and(gm_mask_or(gm_block_mapped(b), b->dup), range);
		if (ret || !gm_mask_meets(&b->busy, &mapped))
			break;
		ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
	}
	if (!ret && gm_mask_meets(&b->held, &mapped))
		ret = GM_RET_BUSY;
	if (!ret)
		b->busy = gm_mask_or(b->busy, mapped);
	gm_unlock(as->env, &b->lock);
	if (ret == GM_RET_BUSY)
		return gm_fail(ret, "a working set holds pages near 0x%llx: release it first", (unsigned long long)b->va);
	if (ret || gm_mask_empty(&mapped))
		return ret;
	ret = gm_plan_revoke(b, &mapped, deadline_ns, false);
	if (!ret)
		gm_dup_give_up(b, &mapped);
	gm_txn_release(b, &mapped);
	return ret;
}

gm_ret_t gm_mem_all_home(struct gm_as *as, uint64_t deadline_ns)
{
	struct gm_block *b = NULL;
	uint64_t va = 0;
	gm_ret_t ret;

	do {
		ret = gm_block_next_by(as, va, UINT64_MAX, deadline_ns, &b);
		if (ret || !b)
			return ret;
		va = b->va + GM_BLOCK_BYTES;
		ret = gm_mem_block_home(b, b->va, va, deadline_ns);
		gm_block_put(b);
	} while (!ret);
	return ret;
}

bool gm_mem_is_held(struct gm_as *as, uint64_t va, uint64_t end)
{
	bool held = false;

	for (struct gm_block *b; !held && (b = gm_block_next_live(as, va, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end);

		gm_lock(as->env, &b->lock);
		held = gm_mask_meets(&b->held, &range);
		gm_unlock(as->env, &b->lock);
		va = b->va + GM_BLOCK_BYTES;
	}
	return held;
}

/* A large leaf does where there is no memory for it. */
static void stock_small(struct gm_as *as)
{
	void *piece = gm_region_new_small(as->env);

	if (!piece)
		return;
	gm_lock(as->env, &as->lock);
	gm_regions_stock_small(&as->regions, piece);
	gm_unlock(as->env, &as->lock);
}

gm_ret_t gm_mem_stock(struct gm_as *as, unsigned n)
{
	for (;;) {
		void *piece;
		bool enough, small;

		gm_lock(as->env, &as->lock);
		enough = gm_regions_room(&as->regions) >= n + GM_REGION_SPARES / 2; /* the handler's part is not touched */
		small = gm_regions_lack_small(&as->regions);
		gm_unlock(as->env, &as->lock);
		if (enough && small)
			stock_small(as);
		if (enough)
			return GM_RET_SUCCESS;
		piece = gm_region_new(as->env);
		if (!piece)
			return gm_fail(GM_RET_NOMEM, "no memory for a region");
		gm_lock(as->env, &as->lock);
		gm_regions_stock(&as->regions, piece);
		gm_unlock(as->env, &as->lock);
	}
}

/* What the carvings of many gave back. */
void gm_mem_trim_stock(struct gm_as *as)
{
	void *piece, *small;

	do {
		gm_lock(as->env, &as->lock);
		piece = gm_regions_excess(&as->regions);
		small = gm_regions_excess_small(&as->regions);
		gm_unlock(as->env, &as->lock);
		gm_mem_free(as->env, piece, GM_REGION_PIECE_BYTES);
		gm_mem_free(as->env, small, GM_REGION_SMALL_BYTES);
	} while (piece || small);
}

/* Blocks that exist learn of a change of the regions. */
void gm_mem_set_managed(struct gm_as *as, uint64_t va, uint64_t end, bool managed)
{
	for (struct gm_block *b; (b = gm_block_next(as, va, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end), fresh;

		gm_lock(as->env, &as->lock); /* for gm_pin_keep_new() */
		gm_lock(as->env, &b->lock);
		b->mirrored = gm_mask_sub(b->mirrored, range); /* somebody has asked for it, or it goes */
		if (managed) {
			/* Pages that are nowhere else are on the host, and have to be watched too. */
			fresh = gm_mask_sub(gm_mask_sub(range, gm_block_on_devs(b)), gm_mask_or(b->staged, b->poisoned));
			b->host = gm_mask_or(b->host, fresh);
			b->managed = gm_mask_or(b->managed, range);
			gm_pin_keep_new(b, &fresh);
			b->edge = gm_mask_sub(b->edge, range);
			b->external = gm_mask_sub(b->external, range);
			gm_mirror_count(b);
			b->watched = b->stores = false;
			b->renewed++; /* whoever is registering the block does not know of these pages */
		} else {
			b->managed = gm_mask_sub(b->managed, range);
			b->host = gm_mask_sub(b->host, range);
		}
		gm_unlock(as->env, &b->lock);
		gm_unlock(as->env, &as->lock);
		va = b->va + GM_BLOCK_BYTES;
	}
}

/* Accesses to this page fail by themselves, whoever watches it. What is mapped there instead has nothing to do with us. */
static void leave_poison(struct gm_as *as, uint64_t va)
{
	uint64_t done;
	gm_ret_t ret;

	do {
		ret = GM_RET_AGAIN;
		if (gm_events_hold_reader(as)) {
			ret = gm_hal_poison(as->host, as->hpmap, va, GM_PAGE_BYTES, &done);
			gm_events_release_reader(as);
		}
	} while (ret == GM_RET_AGAIN && gm_events_let_run(as));
}

/* Tried before and after the rights are looked at: they may have been taken and given back. */
bool gm_mem_is_marked(struct gm_as *as, uint64_t va)
{
	struct gm_host_vma vma;
	char byte;

	return gm_hal_bus_access(as->host, va, &byte, 1, false) == GM_RET_FAULT &&
	       !gm_hal_mem_rights(as->host, as->hpmap, va, &vma) && (vma.access & GM_READ) &&
	       gm_hal_bus_access(as->host, va, &byte, 1, false) == GM_RET_FAULT;
}

/* Not all poisoned pages have the mark: some only answer whoever asks (poison()). */
struct gm_mask gm_mem_mark_poison(struct gm_block *b, uint64_t va, uint64_t end)
{
	struct gm_env *env = b->as->env;
	struct gm_mask pages;

	gm_lock(env, &b->lock);
	pages = gm_mask_sub(gm_mask_and(b->poisoned, gm_block_clip(b, va, end)), b->leaving); /* those get theirs elsewhere */
	gm_unlock(env, &b->lock);
	GM_MASK_FOR_RUN(&pages, first, stop)
		for (unsigned page = first; page < stop; page++)
			leave_poison(b->as, b->va + (uint64_t)page * GM_PAGE_BYTES);
	return pages;
}

/*
 * The pages are managed no more. That their content is lost is the memory's from here on, not the address's, which
 * may be adopted again with other memory there.
 */
static void end_poison(struct gm_block *b, uint64_t va, uint64_t end)
{
	struct gm_mask pages = gm_mem_mark_poison(b, va, end);

	gm_lock(b->as->env, &b->lock);
	b->poisoned = gm_mask_sub(b->poisoned, pages);
	gm_unlock(b->as->env, &b->lock);
}

void gm_mem_unwatch(struct gm_as *as, uint64_t va, uint64_t end)
{
	uint64_t at = va;

	for (struct gm_block *b; (b = gm_block_next(as, at, end)); gm_block_put(b)) {
		uint64_t lo = b->va > va ? b->va : va;
		uint64_t hi = b->va + GM_BLOCK_BYTES < end ? b->va + GM_BLOCK_BYTES : end;

		/* Who registers the block looked at it before these pages were released, and would register them again. */
		gm_lock(as->env, &b->lock);
		while (b->watching)
			(void)gm_wait(as->env, &b->waitq, &b->lock, gm_deadline_ns(as->env, GM_WORK_RETRY_NS));
		gm_unlock(as->env, &b->lock);
		end_poison(b, va, end);
		(void)gm_hal_unwatch(as->host, as->hpmap, lo, hi - lo); /* FAULT: the mapping is gone anyway */
		gm_lock(as->env, &b->lock);
		b->registered = gm_mask_sub(b->registered, gm_block_clip(b, va, end));
		b->kept = gm_mask_sub(b->kept, gm_block_clip(b, va, end)); /* not before: what is released may have to stay */
		gm_unlock(as->env, &b->lock);
		at = b->va + GM_BLOCK_BYTES;
		gm_work_queue(b, 0); /* forget it, if nothing else is in it */
	}
	if (as->cfg.flags & GM_AS_WATCH) /* also where there never was a block */
		(void)gm_hal_unwatch(as->host, as->hpmap, va, end - va);
}

void gm_mem_unwatch_all(struct gm_as *as)
{
	struct gm_region buf, *r;
	uint64_t va = 0, end;

	for (;;) {
		gm_lock(as->env, &as->lock);
		r = gm_regions_first(&as->regions, va, UINT64_MAX, &buf);
		while (r && gm_region_stays(r))
			r = gm_regions_next(&as->regions, r, UINT64_MAX);
		va = r ? r->va : 0;
		end = r ? r->end : 0;
		gm_unlock(as->env, &as->lock);
		if (!r)
			return;
		gm_mem_unwatch(as, va, end);
		va = end;
	}
}

void gm_mem_unmap_owned(struct gm_as *as)
{
	struct gm_region buf, *r = gm_regions_first(&as->regions, 0, UINT64_MAX, &buf);

	for (; r; r = gm_regions_next(&as->regions, r, UINT64_MAX))
		if (r->kind == GM_REGION_OWNED || r->kind == GM_REGION_PLACED)
			gm_hal_mem_unmap(as->host, as->hpmap, r->va, r->end - r->va);
}

gm_ret_t gm_mem_wait_dropped(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	uint64_t at = va;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (struct gm_block *b; !ret && (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end), left;

		gm_drop_doomed(b);
		gm_lock(as->env, &b->lock);
		for (;;) {
			left = gm_mask_and(gm_mask_or(b->doomed, b->busy), range);
			if (ret || gm_mask_empty(&left))
				break;
			ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
		}
		gm_unlock(as->env, &b->lock);
		at = b->va + GM_BLOCK_BYTES;
	}
	return ret ? gm_fail(ret, "a device did not let go of memory near 0x%llx in time", (unsigned long long)at) : ret;
}

/* ---------------------------------------------------------------- owned */

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

/* The address may have been somebody else's a moment ago. */
static gm_ret_t take_address(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, enum gm_fork fork,
			     uint32_t sort)
{
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	bool ok;
	gm_ret_t ret = gm_events_settle(as, deadline_ns);

	if (!ret)
		ret = gm_mem_wait_dropped(as, va, end, gm_deadline_ns(as->env, as->cfg.wait_ns));
	if (!ret)
		ret = gm_pack_open_range(as, va, end);
	if (!ret)
		ret = gm_fork_set(as, va, end, fork);
	if (!ret) /* not before: the end of what stood here ends its sort */
		ret = gm_inthread_mark(as, va, end, sort);
	gm_lock(as->env, &as->lock);
	if (!ret) /* freed while nobody watched it: no event told of that */
		clear_former(as, va, end);
	ok = !ret && !gm_remap_meets(as, va, end) && gm_regions_insert(&as->regions, va, end, kind);
	gm_unlock(as->env, &as->lock);
	return ok || ret ? ret : gm_fail(GM_RET_NOMEM, "no memory for a region");
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
static gm_ret_t begin_free(struct gm_as *as, uint64_t va, uint64_t end)
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
		if (begun && !gm_regions_carve(&as->regions, va, end, GM_REGION_OWNED)) {
			gm_regions_redeem(&as->regions);
			begun = false;
		}
		gm_unlock(as->env, &as->lock);
		if (!begun)
			atomic_fetch_sub(&as->releasing, 1);
	} while (!begun);
	return GM_RET_SUCCESS;
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
	if (ret)
		return ret;
	if (kind == GM_REGION_PLACED)
		return gm_shared_free_placed(as, va, end, deadline_ns);
	ret = gm_pack_open_range(as, va, end);
	if (ret)
		return ret;
	if (gm_mem_is_held(as, va, end))
		return gm_fail(GM_RET_BUSY, "gm_free: a working set holds part of %p: release it first", ptr);
	ret = begin_free(as, va, end);
	if (ret)
		return ret;
	gm_mem_set_managed(as, va, end, false);
	/* A set that came since it was asked for has it; one that comes from here on does not take what is not managed. */
	if (gm_mem_is_held(as, va, end))
		ret = gm_fail(GM_RET_BUSY, "gm_free: a working set has just taken part of %p", ptr);
	else
		ret = drop_range(as, va, end, deadline_ns);
	gm_lock(as->env, &as->lock);
	gm_regions_redeem(&as->regions);
	if (ret)
		(void)gm_regions_insert(&as->regions, va, end, GM_REGION_OWNED);
	gm_unlock(as->env, &as->lock);
	if (ret) {
		/* Still allocated; unless BUSY, content given up in part: what a caller who frees can live with. */
		gm_mem_set_managed(as, va, end, true);
		gm_fork_tell_kernel(as, va, end); /* a fork that ended meanwhile may have taken it for adopted */
	}
	atomic_fetch_sub(&as->releasing, 1);
	if (ret)
		return ret;
	gm_mem_unwatch(as, va, end);
	gm_shared_forget(as, va, end);
	gm_hal_mem_unmap(as->host, as->hpmap, va, end - va);
	(void)gm_fork_set(as, va, end, GM_FORK_DEFAULT); /* who gets the address next clears it, or fails */
	gm_mem_trim_stock(as);
	return GM_RET_SUCCESS;
}
