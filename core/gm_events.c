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

#include "core/gm_events.h"
#include "core/gm_fault.h"
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
		b->edge = gm_mask_sub(b->edge, *pages);
	}
	b->host = gm_mask_sub(b->host, gm_mask_sub(*pages, b->busy)); /* busy ones: when they are taken apart */
	b->doomed = gm_mask_or(b->doomed, hit);
	b->doomed_ns = now_ns;
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

static bool note_remap(struct gm_as *as, const struct gm_host_msg *msg)
{
	bool room;

	gm_lock(as->env, &as->lock);
	room = as->remaps < GM_REMAPS;
	if (room)
		as->remap[as->remaps++] = (struct gm_remap){ .va = msg->va, .end = msg->va + msg->bytes, .to = msg->to };
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

bool gm_events_begin_steal(struct gm_as *as)
{
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = !as->msgs_busy;
	as->stealing += ok;
	gm_unlock(as->env, &as->lock);
	return ok;
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
 * of microseconds that itself waits for nothing.
 */
static void set_busy(struct gm_as *as, bool busy)
{
	gm_lock(as->env, &as->lock);
	as->msgs_busy = busy;
	while (busy && as->stealing)
		(void)gm_wait(as->env, &as->waitq, &as->lock, UINT64_MAX);
	if (!busy)
		as->msgs_gen++;
	gm_unlock(as->env, &as->lock);
	if (!busy)
		gm_wake(as->env, &as->waitq);
}

bool gm_events_once(struct gm_as *as)
{
	bool some;

	set_busy(as, true);
	if (as->next_msg == as->msgs) {
		as->next_msg = 0;
		as->msgs = gm_hal_msg_read(as->host, as->hpmap, as->msg, GM_HANDLER_MSGS);
	}
	some = as->msgs > 0;
	while (as->next_msg < as->msgs) {
		if (!handle(as, &as->msg[as->next_msg])) {
			gm_lock(as->env, &as->queue_lock);
			as->refill = true;
			gm_unlock(as->env, &as->queue_lock);
			gm_work_kick(as);
			break;
		}
		as->next_msg++;
	}
	set_busy(as, as->next_msg < as->msgs);
	return some;
}

static bool stopping(struct gm_as *as)
{
	bool stop;

	gm_lock(as->env, &as->queue_lock);
	stop = as->stop;
	gm_unlock(as->env, &as->queue_lock);
	return stop;
}

void gm_events_thread(void *arg)
{
	struct gm_as *as = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!stopping(as) && ret != GM_RET_NODEV) {
		/* What could not be handled yet is tried again soon; else sleep until there is something. */
		uint64_t until_ns = as->next_msg < as->msgs ? gm_deadline_ns(as->env, GM_WORK_RETRY_NS) : UINT64_MAX;

		if (!gm_events_once(as))
			ret = gm_hal_msg_wait(as->host, as->hpmap, until_ns);
		else if (as->next_msg < as->msgs)
			gm_yield(as->env);
	}
}

bool gm_events_let_run(struct gm_as *as)
{
	uint64_t until_ns = gm_deadline_ns(as->env, GM_WORK_RETRY_NS);
	bool mine = false, stop = stopping(as);

	gm_lock(as->env, &as->lock);
	if ((as->cfg.flags & GM_AS_NO_THREADS) && !as->msgs_busy) {
		mine = true;
		as->msgs_busy = true;
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

gm_ret_t gm_events_settle(struct gm_as *as, uint64_t deadline_ns)
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

/* ---------------------------------------------------------------- mremap */

/* Bytes that devices or slots have of [va, end) go to where the range is now. */
static void remap_block(struct gm_block *b, const struct gm_remap *r)
{
	struct gm_as *as = b->as;
	struct gm_mask pages = gm_block_clip(b, r->va, r->end);
	struct gm_move m = { .block = b, .want = pages };
	struct gm_txn t = { .as = as, .flags = GM_TXN_FORCE, .move = &m, .moves = 1, .shift = r->to - r->va,
			    .deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns) };
	gm_ret_t ret = gm_txn_run(&t);

	if (ret)
		gm_log(as->env, GM_LOG_ERROR, "mremap: pages of 0x%llx could not be brought to 0x%llx: %s",
		       (unsigned long long)b->va, (unsigned long long)r->to, gm_ret_text(ret));
	gm_lock(as->env, &b->lock);
	(void)doom_pages(b, &pages, true, gm_now_ns(as->env)); /* what is left, mappings in place too */
	gm_unlock(as->env, &b->lock);
	gm_drop_doomed(b);
	gm_work_queue(b, 0);
}

/* The regions of the old range stand at the new one. False: wants spares. */
static bool remap_regions(struct gm_as *as, const struct gm_remap *r)
{
	uint64_t shift = r->to - r->va;
	struct gm_region *old;
	bool ok = true;

	gm_lock(as->env, &as->lock);
	while (ok && (old = gm_regions_first(&as->regions, r->va, r->end)) && old->kind != GM_REGION_EDGE) {
		uint64_t va = old->va > r->va ? old->va : r->va, end = old->end < r->end ? old->end : r->end;
		enum gm_region_kind kind = old->kind;

		ok = as->regions.spares >= 2 && gm_regions_carve(&as->regions, va, end, kind);
		if (ok && !gm_regions_first(&as->regions, va + shift, end + shift))
			ok = gm_regions_insert(&as->regions, va + shift, end + shift, kind);
	}
	gm_unlock(as->env, &as->lock);
	return ok;
}

static void remap_one(struct gm_as *as, const struct gm_remap *r)
{
	uint64_t va = r->va, bytes = r->end - r->va;

	for (struct gm_block *b; (b = gm_block_next(as, va, r->end)); gm_block_put(b)) {
		remap_block(b, r);
		va = b->va + GM_BLOCK_BYTES;
	}
	/* All of it is on the host now, at both ends: untracked. FAULT: nothing is mapped there any more. */
	(void)gm_hal_unwatch(as->host, as->hpmap, r->va, bytes);
	(void)gm_hal_unwatch(as->host, as->hpmap, r->to, bytes);
}

void gm_remap_work(struct gm_as *as)
{
	for (;;) {
		struct gm_remap r;

		gm_lock(as->env, &as->lock);
		r = as->remap[0];
		if (!as->remaps) {
			gm_unlock(as->env, &as->lock);
			return;
		}
		gm_unlock(as->env, &as->lock);
		remap_one(as, &r);
		if (!remap_regions(as, &r))
			return; /* after the refill */
		gm_lock(as->env, &as->lock);
		as->remaps--;
		for (unsigned i = 0; i < as->remaps; i++)
			as->remap[i] = as->remap[i + 1];
		gm_unlock(as->env, &as->lock);
		gm_hal_wake(as->host, as->hpmap, r.to, r.end - r.va);
		gm_wake(as->env, &as->waitq);
	}
}
