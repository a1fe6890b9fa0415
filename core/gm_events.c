/* SPDX-License-Identifier: MIT */
/*
 * What the host tells, in the order events first, faults after:
 *
 *     FAULT   gm_fault_cpu.c
 *     REMOVE  the application dropped the content (madvise): every copy is doomed.
 *             From here on the page is NONE and is not stolen from its VA until somebody
 *             touches it, or it is present after the time in which the kernel zaps (gm_zap.c).
 *     UNMAP   the mapping is gone: the regions go, every copy is doomed. The address
 *             may belong to somebody else already.
 *     REMAP   the mapping is elsewhere: gm_remap.c
 *
 * The handler waits for no device and for no other thread but who holds the reader, for a few system calls (and, where the
 * program closed the descriptors, for new ones: recover()); it allocates for nothing but a block that is packed. Where it would
 * have to (no spare region, no spare entry for a remap, no memory for that block) the message stays at the head of its list,
 * the worker or whoever waits for it refills, and the handler tries again: order is kept.
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
#include "core/gm_lost.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_txn.h"
#include "core/gm_work.h"

/* (block) True if the worker has something to take apart. */
static bool doom_pages(struct gm_block *b, const struct gm_mask *pages, bool unmapped, uint64_t now_ns)
{
	struct gm_mask here = gm_mask_sub(*pages, b->leaving), idle; /* what leaves is not of this address any more */

	if (unmapped) {
		b->managed = gm_mask_sub(b->managed, here);
		b->registered = gm_mask_sub(b->registered, here);
		b->edge = gm_mask_sub(b->edge, here);
		b->kept = gm_mask_sub(b->kept, here);
		b->external = gm_mask_sub(b->external, here);
		b->mirrored = gm_mask_sub(b->mirrored, here);
		gm_mirror_count(b);
	}
	b->host = gm_mask_sub(b->host, gm_mask_sub(here, b->busy)); /* busy ones: when they are taken apart */
	gm_block_doom(b, &here, now_ns);
	idle = gm_mask_sub(b->doomed, b->busy);
	return !gm_mask_empty(&idle) || unmapped;
}

/*
 * The next block of [va, end), with a reference; what is given up before it, and has none, is noted. Both at once: who
 * makes a block there has it noted, or the block is doomed, once. In the handler no block is packed: handle() has
 * opened them, and while it has messages none is packed anew.
 */
static struct gm_block *next_given_up(struct gm_as *as, uint64_t va, uint64_t end, uint64_t now_ns)
{
	struct gm_block *b;
	uint64_t gap_end;

	if (va >= end)
		return NULL;
	gm_lock(as->env, &as->lock);
	b = gm_block_first(as, va, end);
	gap_end = b ? b->va : end;
	if (va < gap_end)
		gm_zap_note_range(&as->zaps, va, gap_end, now_ns);
	if (b)
		gm_block_get(b);
	gm_unlock(as->env, &as->lock);
	return b;
}

/* (A) False: not enough spare regions. */
static bool carve(struct gm_as *as, uint64_t va, uint64_t end)
{
	/* One spare each at most, so two make sure that both succeed or none is tried. */
	return gm_regions_room(&as->regions) >= 2 && gm_regions_carve(&as->regions, va, end, GM_REGION_ADOPTED) &&
	       gm_regions_carve(&as->regions, va, end, GM_REGION_OWNED);
}

static void doom(struct gm_block *b, uint64_t va, uint64_t end, bool unmapped, uint64_t now_ns)
{
	struct gm_mask pages = gm_block_clip(b, va, end);
	bool work;

	gm_lock(b->as->env, &b->lock);
	work = doom_pages(b, &pages, unmapped, now_ns);
	gm_unlock(b->as->env, &b->lock);
	if (work)
		gm_work_queue(b, 0);
}

bool gm_events_doom(struct gm_as *as, uint64_t va, uint64_t end, bool unmapped)
{
	uint64_t now_ns = gm_now_ns(as->env);
	bool carved = true;

	if (unmapped) {
		gm_lock(as->env, &as->lock);
		carved = carve(as, va, end);
		gm_unlock(as->env, &as->lock);
	}
	if (!carved)
		return false;
	for (struct gm_block *b; (b = gm_block_next(as, va, end)); gm_block_put(b)) {
		doom(b, va, end, unmapped, now_ns);
		va = b->va + GM_BLOCK_BYTES;
	}
	return true;
}

/* A REMOVE. */
static void give_up(struct gm_as *as, uint64_t va, uint64_t end)
{
	uint64_t now_ns = gm_now_ns(as->env);

	for (struct gm_block *b; (b = next_given_up(as, va, end, now_ns)); gm_block_put(b)) {
		doom(b, va, end, false, now_ns);
		va = b->va + GM_BLOCK_BYTES;
	}
}

/*
 * Where the first mapping that can be managed begins, at or above *va, which becomes that, and how far it reaches.
 * SUCCESS, or NOMEM: it cannot be told now.
 */
static gm_ret_t next_mapping(struct gm_as *as, uint64_t *va, uint64_t end, uint64_t *stop)
{
	for (*stop = end; *va < end; *va += GM_PAGE_BYTES) {
		struct gm_host_vma vma;
		gm_ret_t ret = gm_hal_mem_rights(as->host, as->hpmap, *va, &vma);

		if (ret && ret != GM_RET_FAULT)
			return ret;
		if (ret || !vma.private_anon)
			continue;
		*stop = vma.va + vma.bytes;
		break;
	}
	return GM_RET_SUCCESS;
}

#define FIRST_PAUSE_NS (UINT64_C(1) * 1000 * 1000)
#define LONGEST_PAUSE_NS (UINT64_C(128) * 1000 * 1000)

/* So many pages are looked up at once, at most: the reader is held meanwhile. */
#define STRETCH_BYTES (16 * (uint64_t)GM_PAGE_BYTES)

/*
 * One stretch of [*va, end). What an event tells of comes first: the range may have
 * been moved, and its bytes with it. So no event is unread after the look (the host's
 * answer), and none is read but not handled (hold_reader).
 */
static gm_ret_t forget_stretch(struct gm_as *as, struct gm_block *b, uint64_t *va, uint64_t end)
{
	uint64_t inserts, gone = *va, stop;
	struct gm_region there;
	gm_ret_t ret;

	gm_lock(as->env, &as->lock);
	inserts = as->regions.inserts;
	gm_unlock(as->env, &as->lock);
	if (!gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	ret = next_mapping(as, va, end, &stop);
	if (!ret)
		ret = *va != gone && gm_hal_settled(as->host, as->hpmap) ? GM_RET_AGAIN : GM_RET_FAULT;
	gm_lock(as->env, &as->lock);
	/* What was mapped and adopted since the look is another matter. */
	if (*va != gone && ret == GM_RET_FAULT && as->regions.inserts == inserts &&
	    gm_regions_first(&as->regions, gone, *va, &there) &&
	    gm_regions_carve(&as->regions, gone, *va, GM_REGION_ADOPTED)) {
		struct gm_mask pages = gm_block_clip(b, gone, *va);

		gm_lock(as->env, &b->lock);
		(void)doom_pages(b, &pages, true, gm_now_ns(as->env));
		gm_unlock(as->env, &b->lock);
		ret = GM_RET_SUCCESS;
	}
	gm_unlock(as->env, &as->lock);
	gm_events_release_reader(as);
	*va = stop;
	return ret;
}

gm_ret_t gm_events_forget_gone(struct gm_as *as, struct gm_block *b, uint64_t va, uint64_t end)
{
	gm_ret_t ret = GM_RET_FAULT;

	while (va < end && ret != GM_RET_AGAIN) {
		gm_ret_t one = gm_mem_stock(as, 2);

		if (!one)
			one = forget_stretch(as, b, &va, end - va < STRETCH_BYTES ? end : va + STRETCH_BYTES);
		if (one == GM_RET_NOMEM)
			return one;
		if (one != GM_RET_FAULT)
			ret = one;
	}
	if (ret != GM_RET_FAULT)
		gm_work_queue(b, 0);
	return ret;
}

/* False: not now. */
static bool handle(struct gm_as *as, const struct gm_host_msg *msg)
{
	uint64_t end = msg->va + msg->bytes;
	bool ok = true;

	if (msg->kind == GM_HOST_FORK)
		end = as->end;
	if (msg->kind != GM_HOST_FAULT && gm_pack_open_range(as, msg->va, end))
		return false;
	switch (msg->kind) {
	case GM_HOST_FAULT:
		ok = gm_fault_cpu(as, msg->va, msg->write, msg->thread_id);
		break;
	case GM_HOST_REMOVE:
		if (!GM_PLANTED(as, GM_PLANT_MISS_REMOVE))
			ok = gm_remap_empty(as, msg->va, end);
		if (ok && !GM_PLANTED(as, GM_PLANT_MISS_REMOVE))
			give_up(as, msg->va, end);
		break;
	case GM_HOST_UNMAP:
		if (msg->inthread)
			gm_inthread_end(as, msg->va, end);
		if (!GM_PLANTED(as, GM_PLANT_MISS_UNMAP))
			ok = gm_remap_doubt(as, msg->va, end) && gm_events_doom(as, msg->va, end, true);
		break;
	case GM_HOST_REMAP:
		ok = gm_remap_note(as, msg);
		break;
	case GM_HOST_FORK:
		gm_serve_child(as, msg->child);
		return true;
	}
	if (ok)
		gm_serve_note(as, msg);
	return ok;
}

bool gm_events_hold_reader(struct gm_as *as)
{
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = !atomic_load(&as->msgs_busy);
	as->reader_held += ok;
	gm_unlock(as->env, &as->lock);
	return ok;
}

void gm_events_release_reader(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->reader_held--;
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
}

/*
 * Who holds the reader does so for a few system calls, and waits for nothing
 * meanwhile. False: somebody else reads.
 */
static bool begin_reading(struct gm_as *as)
{
	bool mine;

	gm_lock(as->env, &as->lock);
	mine = !as->msgs_reader;
	if (mine) {
		as->msgs_reader = true;
		atomic_store(&as->msgs_busy, true);
		as->msgs_stuck = false;
	}
	while (mine && as->reader_held)
		(void)gm_wait(as->env, &as->waitq, &as->lock, UINT64_MAX);
	gm_unlock(as->env, &as->lock);
	return mine;
}

static void end_reading(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->msgs_reader = false;
	as->msgs_stuck = as->next_msg < as->msgs;
	atomic_store(&as->msgs_busy, as->msgs_stuck);
	as->msgs_gen++;
	gm_unlock(as->env, &as->lock);
	gm_wake(as->env, &as->waitq);
}

/* What was read, in order. False: the next one has to wait for the worker. */
static bool handle_batch(struct gm_as *as)
{
	while (as->next_msg < as->msgs) {
		if (!handle(as, &as->msg[as->next_msg])) {
			gm_work_refill(as);
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
	if (atomic_load_explicit(&as->asks.n, memory_order_relaxed)) {
		gm_inthread_answer(as);
		some = true;
	}
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

/* How the handler fares while there is nothing to read messages from. */
struct lack {
	uint64_t pause_ns; /* the next one */
	bool again;        /* there were new descriptors, and nothing could be read since */
};

/*
 * The program closed the descriptors: new ones, or a pause, longer each time in a row, until there are some or the
 * space ends. Others may make them meanwhile, so what is waited here bounds how long an access waits then.
 */
static void recover(struct gm_as *as, struct lack *l)
{
	bool ok = !gm_lost_recover(as, 0), go_on = ok && !l->again;
	uint64_t until_ns = gm_deadline_ns(as->env, l->pause_ns);

	l->again = ok;
	if (go_on)
		return;
	l->pause_ns = l->pause_ns < LONGEST_PAUSE_NS ? l->pause_ns * 2 : l->pause_ns;
	gm_lock(as->env, &as->queue_lock);
	while (!as->stop && !gm_wait(as->env, &as->queue_waitq, &as->queue_lock, until_ns))
		;
	gm_unlock(as->env, &as->queue_lock);
}

void gm_events_thread(void *arg)
{
	struct gm_as *as = arg;
	struct lack lack = { .pause_ns = FIRST_PAUSE_NS };
	bool rested = false; /* others were let run since the last message */

	while (!stopping(as)) {
		bool some = gm_events_once(as), stuck = as->next_msg < as->msgs;

		if (some && !stuck) {
			rested = false;
		} else if (!stuck && (some || !rested)) {
			/* Who was just served often faults again at once: to look again is cheaper than to sleep. */
			gm_yield(as->env);
			rested = true;
		} else {
			/* What could not be handled yet is tried again soon; else sleep until there is something. */
			uint64_t until_ns = stuck ? gm_deadline_ns(as->env, GM_WORK_RETRY_NS) : UINT64_MAX;

			if (gm_hal_msg_wait(as->host, as->hpmap, until_ns) == GM_RET_NODEV)
				recover(as, &lack);
			else
				lack = (struct lack){ .pause_ns = FIRST_PAUSE_NS };
		}
	}
}

/* One more piece. False: enough, or no memory. */
static bool stock_region(struct gm_as *as)
{
	void *piece;
	bool enough;

	gm_lock(as->env, &as->lock);
	enough = gm_regions_room(&as->regions) > GM_REGION_SPARES;
	gm_unlock(as->env, &as->lock);
	piece = enough ? NULL : gm_region_new(as->env);
	if (!piece)
		return false;
	gm_lock(as->env, &as->lock);
	gm_regions_stock(&as->regions, piece);
	gm_unlock(as->env, &as->lock);
	return true;
}

bool gm_events_refill(struct gm_as *as)
{
	bool some = false;

	while (stock_region(as))
		some = true;
	return gm_remap_stock(as) || some;
}

bool gm_events_let_run(struct gm_as *as)
{
	uint64_t until_ns = gm_deadline_ns(as->env, GM_WORK_RETRY_NS);
	bool mine = false, stop = stopping(as), stuck;

	gm_lock(as->env, &as->lock);
	stuck = as->msgs_stuck;
	gm_unlock(as->env, &as->lock);
	if (stuck) { /* the worker may be who is waiting here */
		(void)gm_events_refill(as);
		gm_hal_msg_kick(as->host, as->hpmap);
	}
	gm_lock(as->env, &as->lock);
	if ((as->cfg.flags & GM_AS_NO_THREADS) && !as->msgs_reader) {
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
	for (struct gm_block *b; !ret && (b = gm_block_next_live(as, va, UINT64_MAX)); gm_block_put(b)) {
		gm_drop_doomed(b);
		gm_lock(as->env, &b->lock);
		while (!ret && b->is_doomed)
			ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
		gm_unlock(as->env, &b->lock);
		va = b->va + GM_BLOCK_BYTES;
	}
	return ret ? gm_fail(ret, "a device did not let go of dropped memory in time") : ret;
}

/* In this order: what was read before the host says that nothing is left is the handler's until it is done. */
static bool events_settled(struct gm_as *as)
{
	return !gm_hal_settled(as->host, as->hpmap) && !atomic_load(&as->msgs_busy) && !gm_remap_pending(as);
}

bool gm_events_settled(struct gm_as *as)
{
	return events_settled(as) && !atomic_load(&as->doomed_blocks);
}

static gm_ret_t settle_events(struct gm_as *as, uint64_t deadline_ns)
{
	for (;;) {
		gm_ret_t ret;

		if (events_settled(as))
			return GM_RET_SUCCESS;
		ret = gm_hal_settled(as->host, as->hpmap) == GM_RET_NODEV ? gm_lost_recover(as, deadline_ns) : GM_RET_SUCCESS;
		if (as->cfg.flags & GM_AS_NO_THREADS) /* nobody else may be there to do it */
			gm_remap_work(as);
		if (gm_now_ns(as->env) >= deadline_ns && ret == GM_RET_NOMEM)
			return gm_fail(GM_RET_TIMEDOUT, "the program closed the library's descriptors, and there is none left for new "
				       "ones: close some, or raise the limit (ulimit -n)");
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
