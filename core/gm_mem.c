/* SPDX-License-Identifier: MIT */
/*
 * What owned and adopted memory share: bringing home, the stock of regions, marks of what was lost, and the end of
 * watching. Owned memory is made and freed in gm_alloc.c, adopted memory in gm_adopt.c.
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
gm_ret_t gm_mem_is_marked(struct gm_as *as, uint64_t va, bool *yes)
{
	struct gm_host_vma vma = { .access = 0 };
	gm_ret_t ret;
	char byte;

	*yes = false;
	ret = gm_hal_bus_access(as->host, va, &byte, 1, false);
	if (ret == GM_RET_FAULT)
		ret = gm_hal_mem_rights(as->host, as->hpmap, va, &vma);
	if (!ret && (vma.access & GM_READ))
		ret = gm_hal_bus_access(as->host, va, &byte, 1, false);
	*yes = ret == GM_RET_FAULT && (vma.access & GM_READ);
	return ret == GM_RET_NOMEM ? ret : GM_RET_SUCCESS;
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
