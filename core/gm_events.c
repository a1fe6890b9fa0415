/* SPDX-License-Identifier: MIT */
/*
 * What the host tells, in the order events first, faults after:
 *
 *     FAULT   gm_fault_cpu.c
 *     REMOVE  the application dropped the content (madvise): every copy is doomed.
 *             From here on the page is NONE and is never stolen from its VA until
 *             somebody touches it, because the kernel has yet to zap what is there.
 *     UNMAP   the mapping is gone: the regions go, every copy is doomed. The address
 *             may belong to somebody else already.
 *     REMAP   the mapping is elsewhere: the worker brings along what devices have;
 *             until then the UNMAP of the old range, which follows, is not believed.
 *
 * The handler never allocates and never waits. Where it would have to (no spare
 * region, no free entry for a remap) the message stays at the head of its list,
 * the worker refills, and the handler tries again: order is kept.
 *
 * munmap() and madvise() return to the application as soon as their event has
 * been read, before it was acted upon. Every public call that depends on what
 * happened before therefore settles first (gm_events_settle()); a device that
 * polls memory may still read the old bytes for that short moment. Who cannot
 * accept this calls gm_discard() or gm_release() instead.
 */
#include "config.h"

#include <string.h>

#include "core/gm_events.h"
#include "core/gm_fault.h"
#include "core/gm_mem.h"
#include "core/gm_txn.h"
#include "core/gm_work.h"

/* (block) True if the worker has something to take apart. */
static bool doom_pages(struct gm_block *b, const struct gm_mask *pages, bool unmapped, uint64_t now_ns)
{
	struct gm_mask copies = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_block_mapped(b));
	struct gm_mask hit;

	copies = gm_mask_or(copies, gm_mask_or(b->busy, b->poisoned));
	hit = gm_mask_and(copies, *pages);
	if (unmapped) {
		b->managed = gm_mask_sub(b->managed, *pages);
		b->registered = gm_mask_sub(b->registered, *pages);
		b->edge = gm_mask_sub(b->edge, *pages);
	}
	b->host = gm_mask_sub(b->host, gm_mask_sub(*pages, b->busy)); /* busy ones: when they are taken apart */
	b->doomed = gm_mask_or(b->doomed, hit);
	b->doomed_ns = now_ns;
	gm_block_count_doomed(b);
	hit = gm_mask_sub(hit, b->busy);
	return !gm_mask_empty(&hit) || unmapped;
}

bool gm_events_doom(struct gm_as *as, uint64_t va, uint64_t end, bool unmapped)
{
	uint64_t now_ns = gm_now_ns(as->env);
	bool carved = true;

	if (unmapped) {
		gm_lock(as->env, &as->lock);
		/* One spare each at most, so two make sure that both succeed or none is tried. */
		carved = as->regions.spares >= 2 && gm_regions_carve(&as->regions, va, end, GM_REGION_ADOPTED) &&
			 gm_regions_carve(&as->regions, va, end, GM_REGION_OWNED);
		gm_unlock(as->env, &as->lock);
	}
	if (!carved)
		return false;
	for (struct gm_block *b; (b = gm_block_next(as, va, end)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_clip(b, va, end);
		bool work;

		gm_lock(as->env, &b->lock);
		work = doom_pages(b, &pages, unmapped, now_ns);
		gm_unlock(as->env, &b->lock);
		if (work)
			gm_work_queue(b, 0);
		va = b->va + GM_BLOCK_BYTES;
	}
	return true;
}

/* Where the first mapping that can be managed begins, at or above va, and how far it reaches. */
static uint64_t next_mapping(struct gm_as *as, uint64_t va, uint64_t end, uint64_t *stop)
{
	for (; va < end; va += GM_PAGE_BYTES) {
		struct gm_host_vma vma;

		if (gm_hal_mem_rights(as->host, as->hpmap, va, &vma) || !vma.private_anon)
			continue;
		*stop = vma.va + vma.bytes;
		return va;
	}
	*stop = end;
	return end;
}

bool gm_events_forget_gone(struct gm_as *as, struct gm_block *b, uint64_t va, uint64_t end)
{
	bool some = false;
	uint64_t stop;

	for (; va < end && !gm_mem_stock(as, 2); va = stop) {
		uint64_t inserts, gone = va;

		gm_lock(as->env, &as->lock);
		inserts = as->regions.inserts;
		gm_unlock(as->env, &as->lock);
		va = next_mapping(as, gone, end, &stop);
		if (va == gone)
			continue;
		gm_lock(as->env, &as->lock);
		/* What was mapped and adopted since the look is another matter. */
		if (as->regions.inserts == inserts && gm_regions_carve(&as->regions, gone, va, GM_REGION_ADOPTED)) {
			struct gm_mask pages = gm_block_clip(b, gone, va);

			gm_lock(as->env, &b->lock);
			(void)doom_pages(b, &pages, true, gm_now_ns(as->env));
			gm_unlock(as->env, &b->lock);
			some = true;
		}
		gm_unlock(as->env, &as->lock);
	}
	if (some)
		gm_work_queue(b, 0);
	return some;
}

/* Part of a range that was moved, and whose UNMAP therefore means nothing. */
static bool moved_away(struct gm_as *as, uint64_t va, uint64_t end)
{
	bool yes = false;

	gm_lock(as->env, &as->lock);
	for (unsigned i = 0; i < as->remaps; i++)
		if (va >= as->remap[i].va && end <= as->remap[i].end)
			yes = true;
	gm_unlock(as->env, &as->lock);
	return yes;
}

/*
 * (A) What was on its way to [va, end) goes on to where that is now: an entry is split
 * where the second move took a part only. False: no room, nothing done.
 */
static bool retarget(struct gm_as *as, const struct gm_host_msg *msg)
{
	uint64_t end = msg->va + msg->bytes;
	struct gm_remap out[GM_REMAPS];
	unsigned n = 0;

	for (unsigned i = 0; i < as->remaps; i++) {
		const struct gm_remap r = as->remap[i];
		uint64_t shift = r.to - r.va, cut[4] = { r.va, msg->va - shift, end - shift, r.end };

		if (msg->va >= r.to + (r.end - r.va) || end <= r.to)
			cut[1] = cut[2] = r.end;
		else if (msg->va < r.to)
			cut[1] = r.va;
		if (cut[2] > r.end || end > r.to + (r.end - r.va))
			cut[2] = r.end;
		for (unsigned k = 0; k < 3; k++) {
			uint64_t to = cut[k] + shift + (k == 1 ? msg->to - msg->va : 0);

			if (cut[k] >= cut[k + 1])
				continue;
			if (n == GM_REMAPS - 1) /* the move itself wants one too */
				return false;
			out[n++] = (struct gm_remap){ .va = cut[k], .end = cut[k + 1], .to = to };
		}
	}
	out[n++] = (struct gm_remap){ .va = msg->va, .end = end, .to = msg->to };
	memcpy(as->remap, out, n * sizeof(out[0]));
	as->remaps = n;
	return true;
}

static bool note_remap(struct gm_as *as, const struct gm_host_msg *msg)
{
	bool room;

	gm_lock(as->env, &as->lock);
	room = retarget(as, msg);
	gm_unlock(as->env, &as->lock);
	gm_lock(as->env, &as->queue_lock);
	as->remap_noted = true;
	gm_unlock(as->env, &as->queue_lock);
	gm_work_kick(as);
	return room;
}

/* False: not now. */
static bool handle(struct gm_as *as, const struct gm_host_msg *msg)
{
	uint64_t end = msg->va + msg->bytes;
	bool ok = true;

	switch (msg->kind) {
	case GM_HOST_FAULT:
		gm_fault_cpu(as, msg->va, msg->write, msg->thread_id);
		break;
	case GM_HOST_REMOVE:
		if (!GM_PLANTED(as, GM_PLANT_MISS_REMOVE))
			ok = gm_events_doom(as, msg->va, end, false);
		break;
	case GM_HOST_UNMAP:
		if (!moved_away(as, msg->va, end) && !GM_PLANTED(as, GM_PLANT_MISS_UNMAP))
			ok = gm_events_doom(as, msg->va, end, true);
		break;
	case GM_HOST_REMAP:
		ok = note_remap(as, msg);
		break;
	}
	return ok;
}

bool gm_events_begin_give(struct gm_as *as, bool moved)
{
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = !as->msgs_busy || (moved && as->msgs_stuck);
	as->stealing += ok;
	gm_unlock(as->env, &as->lock);
	return ok;
}

bool gm_events_begin_steal(struct gm_as *as)
{
	return gm_events_begin_give(as, false);
}

void gm_events_end_steal(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->stealing--;
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
}

/*
 * The one thing the handler waits for: a steal that has begun, a system call
 * of microseconds that itself waits for nothing. False: somebody else reads.
 */
static bool begin_reading(struct gm_as *as)
{
	bool mine;

	gm_lock(as->env, &as->lock);
	mine = !as->msgs_reader;
	if (mine) {
		as->msgs_reader = as->msgs_busy = true;
		as->msgs_stuck = false;
	}
	while (mine && as->stealing)
		(void)gm_wait(as->env, &as->waitq, &as->lock, UINT64_MAX);
	gm_unlock(as->env, &as->lock);
	return mine;
}

static void end_reading(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->msgs_reader = false;
	as->msgs_busy = as->msgs_stuck = as->next_msg < as->msgs;
	as->msgs_gen++;
	gm_unlock(as->env, &as->lock);
	gm_wake(as->env, &as->waitq);
}

/* What was read, in order. False: the next one has to wait for the worker. */
static bool handle_batch(struct gm_as *as)
{
	while (as->next_msg < as->msgs) {
		if (!handle(as, &as->msg[as->next_msg])) {
			gm_lock(as->env, &as->queue_lock);
			as->refill = true;
			gm_unlock(as->env, &as->queue_lock);
			gm_work_kick(as);
			return false;
		}
		as->next_msg++;
	}
	return true;
}

bool gm_events_once(struct gm_as *as)
{
	bool some = false;

	if (!begin_reading(as)) /* a caller of gm_events_let_run() is at it */
		return false;
	do {
		if (as->next_msg == as->msgs) {
			as->next_msg = 0;
			as->msgs = gm_hal_msg_read(as->host, as->hpmap, as->msg, GM_HANDLER_MSGS);
		}
		some |= as->msgs > 0;
		/* After a full batch there may be more that the kernel holds for handled. */
	} while (handle_batch(as) && as->msgs == GM_HANDLER_MSGS);
	end_reading(as);
	return some;
}

static bool stopping(struct gm_as *as)
{
	return atomic_load_explicit(&as->stop, memory_order_acquire);
}

void gm_events_thread(void *arg)
{
	struct gm_as *as = arg;
	gm_ret_t ret = GM_RET_SUCCESS;
	bool rested = false; /* others were let run since the last message */

	while (!stopping(as) && ret != GM_RET_NODEV) {
		bool some = gm_events_once(as), stuck = as->next_msg < as->msgs;

		if (some && !stuck) {
			rested = false;
		} else if (some || !rested) {
			/* Who was just served often faults again at once: to look again is cheaper than to sleep. */
			gm_yield(as->env);
			rested = true;
		} else {
			/* What could not be handled yet is tried again soon; else sleep until there is something. */
			uint64_t until_ns = stuck ? gm_deadline_ns(as->env, GM_WORK_RETRY_NS) : UINT64_MAX;

			ret = gm_hal_msg_wait(as->host, as->hpmap, until_ns);
		}
	}
}

bool gm_events_let_run(struct gm_as *as)
{
	uint64_t until_ns = gm_deadline_ns(as->env, GM_WORK_RETRY_NS);
	bool mine = false, stop = stopping(as);

	gm_lock(as->env, &as->lock);
	if ((as->cfg.flags & GM_AS_NO_THREADS) && !as->msgs_reader && !as->msgs_stuck) {
		mine = true;
	} else if (!stop) {
		uint64_t gen = as->msgs_gen;

		while (as->msgs_gen == gen && !gm_wait(as->env, &as->waitq, &as->lock, until_ns))
			;
	}
	gm_unlock(as->env, &as->lock);
	if (mine)
		(void)gm_events_once(as);
	return !stop;
}

/* What events doomed is dropped: no device shows it any more. */
static gm_ret_t settle_doomed(struct gm_as *as, uint64_t deadline_ns)
{
	uint64_t va = 0;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!atomic_load(&as->doomed_blocks))
		return ret;
	for (struct gm_block *b; !ret && (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		gm_drop_doomed(b);
		gm_lock(as->env, &b->lock);
		while (!ret && b->is_doomed)
			ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
		gm_unlock(as->env, &b->lock);
		va = b->va + GM_BLOCK_BYTES;
	}
	return ret ? gm_fail(ret, "a device did not let go of dropped memory in time") : ret;
}

static gm_ret_t settle_events(struct gm_as *as, uint64_t deadline_ns)
{
	for (;;) {
		bool busy;

		if (!gm_hal_settled(as->host, as->hpmap)) {
			gm_lock(as->env, &as->lock);
			busy = as->msgs_busy || as->remaps;
			gm_unlock(as->env, &as->lock);
			if (!busy)
				return GM_RET_SUCCESS;
		}
		if (gm_now_ns(as->env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "events of the process were not handled in time");
		(void)gm_events_let_run(as);
	}
}

gm_ret_t gm_events_settle(struct gm_as *as, uint64_t deadline_ns)
{
	gm_ret_t ret = settle_events(as, deadline_ns);

	return ret ? ret : settle_doomed(as, deadline_ns);
}

/* ---------------------------------------------------------------- mremap */

/* (A) Is it still what is to be done first, or was the range moved on meanwhile? */
static bool is_first(const struct gm_as *as, const struct gm_remap *r)
{
	return as->remap[0].va == r->va && as->remap[0].end == r->end && as->remap[0].to == r->to;
}

/*
 * Bytes that devices or slots have of [va, end) go to where the range is now. Only what
 * can never get there is given up. False: not all could go there now; try again later.
 */
static bool remap_block(struct gm_block *b, const struct gm_remap *r)
{
	struct gm_as *as = b->as;
	struct gm_mask pages = gm_block_clip(b, r->va, r->end);
	struct gm_move m = { .block = b, .want = pages };
	struct gm_txn t = { .as = as, .flags = GM_TXN_FORCE, .move = &m, .moves = 1, .shift = r->to - r->va,
			    .deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns) };
	gm_ret_t ret = gm_txn_run(&t);
	bool same;

	gm_lock(as->env, &as->lock);
	same = is_first(as, r);
	gm_unlock(as->env, &as->lock);
	if (!same || (ret && ret != GM_RET_FAULT && ret != GM_RET_EXIST && ret != GM_RET_NODEV))
		return false;
	if (ret)
		gm_log(as->env, GM_LOG_ERROR, "mremap: pages of 0x%llx could not be brought to 0x%llx: %s",
		       (unsigned long long)b->va, (unsigned long long)r->to, gm_ret_text(ret));
	gm_lock(as->env, &b->lock);
	(void)doom_pages(b, &pages, true, gm_now_ns(as->env)); /* what is left, mappings in place too */
	gm_unlock(as->env, &b->lock);
	gm_drop_doomed(b);
	gm_work_queue(b, 0);
	return true;
}

/* One region of the old range stands at the new one. *more: there was one. False: wants spares, or moved on. */
static bool remap_region(struct gm_as *as, const struct gm_remap *r, bool *more)
{
	uint64_t shift = r->to - r->va, va = 0, end = 0;
	struct gm_region *old;
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = is_first(as, r);
	old = ok ? gm_regions_first(&as->regions, r->va, r->end) : NULL;
	while (old && old->kind == GM_REGION_EDGE)
		old = gm_regions_next(&as->regions, old, r->end);
	*more = old != NULL;
	if (old) {
		enum gm_region_kind kind = old->kind;

		va = old->va > r->va ? old->va : r->va;
		end = old->end < r->end ? old->end : r->end;
		ok = as->regions.spares >= 4 && gm_regions_carve(&as->regions, va, end, kind);
		if (ok) {
			gm_mem_clear_stale(as, va + shift, end + shift);
			ok = gm_regions_insert(&as->regions, va + shift, end + shift, kind);
		}
	}
	gm_unlock(as->env, &as->lock);
	if (ok && *more) /* blocks that are there already */
		gm_mem_set_managed(as, va + shift, end + shift, true);
	return ok;
}

static bool remap_regions(struct gm_as *as, const struct gm_remap *r)
{
	bool more = true;

	while (more)
		if (gm_mem_stock(as, 4) || !remap_region(as, r, &more))
			return false;
	return true;
}

/* False: to be tried again. */
static bool remap_one(struct gm_as *as, const struct gm_remap *r)
{
	uint64_t va = r->va;
	bool ok = true;

	for (struct gm_block *b; ok && (b = gm_block_next(as, va, r->end)); gm_block_put(b)) {
		ok = remap_block(b, r);
		va = b->va + GM_BLOCK_BYTES;
	}
	if (!ok)
		return false;
	/* All of it is on the host now: untracked. The old place is left alone, it may be somebody else's. */
	(void)gm_hal_unwatch(as->host, as->hpmap, r->to, r->end - r->va);
	if (!remap_regions(as, r)) /* from here on others may watch the new place */
		return false;
	gm_lock(as->env, &as->lock);
	ok = is_first(as, r);
	if (ok) {
		as->remaps--;
		for (unsigned i = 0; i < as->remaps; i++)
			as->remap[i] = as->remap[i + 1];
	}
	gm_unlock(as->env, &as->lock);
	if (ok)
		gm_hal_wake(as->host, as->hpmap, r->to, r->end - r->va);
	return ok;
}

/* True: the first entry, for the caller alone until end_remap(). */
static bool begin_remap(struct gm_as *as, struct gm_remap *r)
{
	bool mine;

	gm_lock(as->env, &as->lock);
	mine = as->remaps && !as->remapping;
	if (mine) {
		as->remapping = true;
		*r = as->remap[0];
	}
	gm_unlock(as->env, &as->lock);
	return mine;
}

/* True: there is more to do at once, also because the entry was changed meanwhile. */
static bool end_remap(struct gm_as *as, const struct gm_remap *r)
{
	bool more;

	gm_lock(as->env, &as->lock);
	as->remapping = false;
	more = as->remaps && !is_first(as, r);
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
	return more;
}

void gm_remap_work(struct gm_as *as)
{
	struct gm_remap r;

	while (begin_remap(as, &r)) {
		(void)remap_one(as, &r); /* what is left stays first, and is tried again */
		if (!end_remap(as, &r))
			return;
	}
}
