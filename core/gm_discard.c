/* SPDX-License-Identifier: MIT */
/*
 * gm_discard(): content is given up, by address.
 *
 *     any, not held --busy--> off every device (NONE) --the host gives the page--> dropped: NONE
 *                                                     --pinned, locked, read-only--> overwritten where it is: HOST
 *                                                     --marked--> zeros in place of the mark: HOST
 *     held --> BUSY                                   --it cannot be done, events are unread--> as it was: HOST, POISONED
 *
 * It takes the host's pages away as a migration would, and drops them: its own
 * madvise() would raise an event for itself. Devices first, the host last: what
 * a device wrote before it let go is given up too.
 *
 * A page whose accesses fail (poisoned, or given up at its bound) has a mark on
 * the host, which cannot be taken: zeros replace it. Where the library does not
 * know of the mark, as the content was lost before the memory was adopted, it
 * shows in that the page can neither be taken nor written.
 *
 * Block by block: a failure leaves those before it discarded. Whether a working
 * set holds pages is asked first for the whole range, so that nothing is changed
 * if one does, and again in the moment in which pages become busy.
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_fork_serve.h"
#include "core/gm_mem.h"
#include "hal/gm_handle.h"

/*
 * A page the host will not give up is overwritten where it is; as a device would, as nobody serves a busy page. One
 * that is marked, so that accesses fail, gets zeros in place of the mark. Not every mark is known: content may have been
 * lost before the memory was adopted. Then the page cannot be written either.
 */
static gm_ret_t overwrite_page(struct gm_txn *t, struct gm_block *b, unsigned page, bool marked)
{
	static const char zeros[GM_PAGE_BYTES];
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	gm_ret_t ret;

	if (!marked && !gm_hal_bus_access(b->as->host, va, (void *)(uintptr_t)zeros, GM_PAGE_BYTES, true))
		return GM_RET_SUCCESS;
	/* It may have been a duplicate's original, also where mremap() brought it here: then stores wait. */
	if (!marked && !gm_dup_let_store(b, page, t->deadline_ns) &&
	    !gm_hal_bus_access(b->as->host, va, (void *)(uintptr_t)zeros, GM_PAGE_BYTES, true))
		return GM_RET_SUCCESS;
	do
		ret = gm_txn_unmark(b, page);
	while (ret == GM_RET_AGAIN && gm_txn_let_reader_run(t));
	if (ret == GM_RET_EXIST) /* no mark; the application wrote to it meanwhile */
		ret = gm_hal_bus_access(b->as->host, va, (void *)(uintptr_t)zeros, GM_PAGE_BYTES, true);
	else if (ret == GM_RET_FAULT)
		ret = GM_RET_SUCCESS; /* the application unmapped or dropped it meanwhile, and the mark with it */
	else if (ret == GM_RET_AGAIN)
		return gm_fail(GM_RET_TIMEDOUT, "gm_discard: events of 0x%llx were not read in time", (unsigned long long)va);
	else if (ret)
		return gm_fail(ret, "gm_discard: no zeros for 0x%llx: %s", (unsigned long long)va, gm_ret_text(ret));
	if (ret == GM_RET_NOMEM) /* it cannot be told now whether it may be written */
		return ret;
	return ret ? gm_fail(ret, "gm_discard: 0x%llx can neither be taken nor written", (unsigned long long)va) : ret;
}

/* Those that are done leave `marked`. */
static gm_ret_t overwrite(struct gm_txn *t, struct gm_block *b, const struct gm_mask *pages, struct gm_mask *marked)
{
	struct gm_mask done = gm_mask_none();
	gm_ret_t ret = GM_RET_SUCCESS;

	GM_MASK_FOR_RUN(pages, first, end)
		for (unsigned page = first; page < end && !ret; page++) {
			ret = overwrite_page(t, b, page, gm_mask_test(marked, page));
			if (!ret)
				gm_mask_set(&done, page);
		}
	*marked = gm_mask_sub(*marked, done);
	return ret;
}

/* Off the host and dropped, or `refused`; what is left in `want` is as it was. A page that is taken had no mark. */
static gm_ret_t take_away(struct gm_txn *t, struct gm_block *b, struct gm_mask *want, struct gm_mask *refused,
			  struct gm_mask *marked)
{
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	*refused = gm_mask_none();
	while (!ret && !gm_mask_empty(want)) {
		struct gm_host_steal s = { .huge = false };

		ret = gm_txn_steal(b, want, &s);
		GM_MASK_FOR_RUN(&s.moved, first, end)
			gm_hal_slot_drop(as->host, as->hpmap, b->slot + (uint64_t)first * GM_PAGE_BYTES,
					 (uint64_t)(end - first) * GM_PAGE_BYTES);
		*refused = gm_mask_or(*refused, gm_mask_or(s.pinned, s.fixed));
		*marked = gm_mask_sub(*marked, s.moved);
		*want = gm_mask_sub(gm_mask_sub(*want, s.moved), *refused);
		if (ret == GM_RET_FAULT)
			return gm_fail(ret, "gm_discard: memory near 0x%llx was unmapped meanwhile", (unsigned long long)b->va);
		if (ret == GM_RET_AGAIN)
			ret = gm_txn_let_reader_run(t) ? GM_RET_SUCCESS
			      : gm_fail(GM_RET_TIMEDOUT, "gm_discard: events near 0x%llx were not read in time",
					(unsigned long long)b->va);
	}
	return ret;
}

/* A child that is not there yet gets nothing of what was copied aside for it: as after madvise(). */
static void tell_serving(struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end) {
		struct gm_host_msg msg = { .kind = GM_HOST_REMOVE,
					   .va = b->va + (uint64_t)first * GM_PAGE_BYTES,
					   .bytes = (uint64_t)(end - first) * GM_PAGE_BYTES };

		gm_serve_note(b->as, &msg);
	}
}

/* The pages are busy: off every device, then away from the host; devices first, the host last. */
static gm_ret_t discard_busy(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_txn t = { .as = as, .deadline_ns = deadline_ns };
	struct gm_mask want, keep, marked, refused, healthy;
	gm_ret_t ret = gm_txn_need_host(&t, b);

	gm_lock(as->env, &b->lock);
	want = gm_mask_and(*pages, b->managed); /* some may have turned out to be gone */
	keep = gm_mask_and(want, b->host);
	marked = gm_mask_and(want, gm_mask_or(b->poisoned, b->failed));
	healthy = gm_mask_sub(keep, marked);
	gm_unlock(as->env, &b->lock);
	if (!ret)
		ret = gm_take_apart(b, &want, deadline_ns);
	if (ret)
		return ret; /* nothing changed */
	tell_serving(b, &want);
	if (as->lib->rung.cannot & GM_RUNG_NO_CPU_FAULTS) {
		/* Nobody would serve what is taken away: what is closed is opened, what is there is overwritten. */
		refused = marked = want;
		want = gm_mask_none();
	} else {
		ret = take_away(&t, b, &want, &refused, &marked);
	}
	if (!ret)
		ret = overwrite(&t, b, &refused, &marked);
	/* What the host did not give is as it was. Where a mark is left, there is no content. */
	marked = gm_mask_sub(marked, healthy);
	keep = gm_mask_sub(gm_mask_or(refused, gm_mask_and(keep, want)), marked);
	gm_lock(as->env, &b->lock);
	b->host = gm_mask_or(b->host, gm_mask_and(keep, b->managed));
	b->poisoned = gm_mask_or(b->poisoned, gm_mask_and(marked, b->managed));
	gm_unlock(as->env, &b->lock);
	return ret;
}

static gm_ret_t discard_block(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask pages;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(as->env, &b->lock);
	for (;;) {
		struct gm_mask away = gm_mask_or(b->busy, b->doomed);

		pages = gm_mask_and(gm_block_clip(b, va, end), b->managed);
		away = gm_mask_and(away, gm_mask_grow(&pages, atomic_load(&as->granule_pages)));
		if (ret || gm_mask_empty(&away))
			break;
		ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
	}
	if (!ret && gm_mask_meets(&b->held, &pages)) /* a set that came since it was asked for; from here on none takes them */
		ret = GM_RET_BUSY;
	if (!ret)
		b->busy = gm_mask_or(b->busy, pages);
	gm_unlock(as->env, &b->lock);
	if (ret == GM_RET_BUSY)
		return gm_fail(ret, "gm_discard: a working set has just taken pages near 0x%llx", (unsigned long long)b->va);
	if (ret)
		return gm_fail(ret, "gm_discard: pages near 0x%llx did not become free in time", (unsigned long long)b->va);
	ret = discard_busy(b, &pages, deadline_ns);
	gm_txn_release(b, &pages);
	return ret;
}

/* How many pages of the range are managed and nobody else's: what is shared with others cannot be given up. */
static uint64_t count_own(struct gm_as *as, uint64_t va, uint64_t end)
{
	uint64_t pages = 0;
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	for (r = gm_regions_first(&as->regions, va, end, &buf); r; r = gm_regions_next(&as->regions, r, end))
		if (!gm_region_stays(r))
			pages += ((r->end < end ? r->end : end) - (r->va > va ? r->va : va)) / GM_PAGE_BYTES;
	gm_unlock(as->env, &as->lock);
	return pages;
}

gm_ret_t gm_discard(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	uint64_t mask = GM_PAGE_BYTES - 1, end = va + bytes, deadline_ns;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	ret = gm_as_check_range(as, "gm_discard", va, bytes);
	if (ret)
		return ret;
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	if (va > UINT64_MAX - mask)
		return gm_fail(GM_RET_INVAL, "gm_discard: the range overflows");
	va = (va + mask) & ~mask;
	end &= ~mask;
	ret = gm_events_settle(as, deadline_ns);
	if (!ret && va < end)
		ret = gm_pack_open_range(as, va, end);
	if (ret || va >= end)
		return ret;
	if (count_own(as, va, end) * GM_PAGE_BYTES < end - va)
		return gm_fail(GM_RET_FAULT, "gm_discard: not all of [0x%llx, 0x%llx) is managed memory",
			       (unsigned long long)va, (unsigned long long)end);
	if (gm_mem_is_held(as, va, end))
		return gm_fail(GM_RET_BUSY, "gm_discard: a working set holds part of the range: release it first");
	for (uint64_t at = va; at < end && !ret; at = gm_block_base(at) + GM_BLOCK_BYTES) {
		struct gm_block *b;

		ret = gm_block_obtain(as, at, &b);
		if (ret)
			break;
		ret = discard_block(b, va, end, deadline_ns);
		gm_block_put(b);
	}
	return ret;
}
