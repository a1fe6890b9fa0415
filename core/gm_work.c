/* SPDX-License-Identifier: MIT */
/*
 * The worker of an address space: everything the fault handler must not do
 * itself. Its queue holds blocks, not requests; what a block wants stands in
 * its masks. So queueing never allocates, the same wish twice is one, and a
 * wish cannot be lost: it is set before the block is queued, and the block is
 * taken off the queue before its wishes are read.
 *
 *     idle --queue(not before t)--> queued --t--> worked on --something left--> queued
 *
 * In this order: what a lost device had is seen to (gm_lost.c); doomed pages are
 * taken apart; CPU accesses are served; and a block that is all host again, for a
 * while, is forgotten: unwatched, its slot given back, dropped from the index.
 * Blocks that are not used for long are packed (gm_pack_work.c).
 */
#include "config.h"

#include "core/gm_work.h"

#include "core/gm_events.h"
#include "core/gm_fault.h"
#include "core/gm_lost.h"
#include "core/gm_mirror.h"

void gm_work_kick(struct gm_as *as)
{
	gm_wake(as->env, &as->queue_waitq);
	if (as->cfg.flags & GM_AS_NO_THREADS) /* whoever serves polls the host's descriptor */
		gm_hal_msg_kick(as->host, as->hpmap);
}

void gm_work_remap(struct gm_as *as)
{
	gm_lock(as->env, &as->queue_lock);
	as->remap_noted = true;
	gm_unlock(as->env, &as->queue_lock);
	gm_work_kick(as);
}

void gm_work_refill(struct gm_as *as)
{
	gm_lock(as->env, &as->queue_lock);
	as->refill = true;
	gm_unlock(as->env, &as->queue_lock);
	gm_work_kick(as);
}

void gm_work_queue(struct gm_block *b, uint64_t not_before_ns)
{
	struct gm_as *as = b->as;
	bool kick;

	gm_lock(as->env, &as->queue_lock);
	if (!b->queued) {
		b->queued = true;
		b->not_before_ns = not_before_ns;
		(void)gm_block_get(b);
		TAILQ_INSERT_TAIL(&as->work, b, work_link);
	} else if (not_before_ns < b->not_before_ns) {
		b->not_before_ns = not_before_ns;
	}
	kick = (as->cfg.flags & GM_AS_NO_THREADS) || not_before_ns < as->work_until_ns; /* to be woken is not cheap */
	gm_unlock(as->env, &as->queue_lock);
	if (kick)
		gm_work_kick(as);
}

/* The first block whose time has come, off the queue, with the queue's reference. */
static struct gm_block *next_block(struct gm_as *as, uint64_t *next_ns)
{
	uint64_t now_ns = gm_now_ns(as->env);
	struct gm_block *b;

	*next_ns = UINT64_MAX;
	gm_lock(as->env, &as->queue_lock);
	TAILQ_FOREACH(b, &as->work, work_link) {
		if (b->not_before_ns <= now_ns)
			break;
		if (b->not_before_ns < *next_ns)
			*next_ns = b->not_before_ns;
	}
	if (b) {
		TAILQ_REMOVE(&as->work, b, work_link);
		b->queued = false;
	}
	gm_unlock(as->env, &as->queue_lock);
	return b;
}

/*
 * (block) Claim all pages if it is all host: nobody may come between unwatching and forgetting. What is given up from
 * here on is busy, and taken apart when it is released; what was given up a moment ago is not there, whatever is present.
 */
static bool claim_idle(struct gm_block *b, struct gm_mask *all, uint64_t now_ns)
{
	struct gm_mask none = gm_mask_none();

	if (!gm_block_all_host(b) || !gm_mask_equal(&b->busy, &none) || gm_block_is_zapped(b, now_ns))
		return false;
	*all = gm_mask_not(none);
	b->busy = *all;
	return true;
}

/* Watched and all host -> untracked. */
static void forget(struct gm_block *b)
{
	struct gm_as *as = b->as;
	uint64_t now_ns = gm_now_ns(as->env);
	struct gm_mask all, registered;
	bool mine, has_slot;

	gm_lock(as->env, &b->lock);
	mine = claim_idle(b, &all, now_ns);
	registered = b->registered; /* also what is not managed any more, or it would stay watched for ever */
	if (as->cfg.flags & GM_AS_WATCH)
		registered = gm_mask_sub(registered, b->managed);
	has_slot = b->has_slot;
	gm_unlock(as->env, &b->lock);
	if (!mine) {
		gm_work_queue(b, gm_deadline_ns(as->env, GM_ZAP_GRACE_NS));
		return;
	}
	if (!gm_mirror_let_go(b)) {
		gm_txn_release_unmoved(b, &all);
		gm_work_queue(b, gm_deadline_ns(as->env, GM_WORK_RETRY_NS));
		return;
	}
	/* Waiting accesses are woken by it. FAULT: the mapping is gone, and with it what was watched. */
	GM_MASK_FOR_RUN(&registered, first, end)
		(void)gm_hal_unwatch(as->host, as->hpmap, b->va + (uint64_t)first * GM_PAGE_BYTES,
				     (uint64_t)(end - first) * GM_PAGE_BYTES);
	if (has_slot)
		gm_hal_slot_free(as->host, as->hpmap, b->slot);
	gm_lock(as->env, &b->lock);
	b->watched = b->stores = b->has_slot = b->huge = false;
	b->registered = gm_mask_none();
	b->host = b->managed; /* NONE is a hole of the host from here on */
	gm_unlock(as->env, &b->lock);
	gm_txn_release(b, &all);
	if (!gm_block_retire(b)) /* given up meanwhile, or of use to somebody */
		gm_work_queue(b, gm_deadline_ns(as->env, GM_ZAP_GRACE_NS));
}

static void work(struct gm_block *b)
{
	struct gm_env *env = b->as->env;
	uint64_t again_ns = UINT64_MAX;
	uint64_t forget_ns;
	bool left, idle;

	gm_lost_work(b);
	gm_drop_doomed(b);
	left = gm_fault_cpu_work(b, &again_ns);
	gm_lock(env, &b->lock);
	idle = gm_block_all_host(b) && !left;
	/* What is not managed any more can be forgotten at once; else not before what was given up is zapped. */
	forget_ns = b->used_ns + b->as->forget_ns;
	if (forget_ns < b->doomed_ns + GM_ZAP_GRACE_NS)
		forget_ns = b->doomed_ns + GM_ZAP_GRACE_NS;
	if (gm_mask_empty(&b->managed))
		forget_ns = 0;
	gm_unlock(env, &b->lock);
	if (idle && forget_ns <= gm_now_ns(env))
		forget(b);
	else if (idle)
		gm_work_queue(b, forget_ns);
	else if (left && again_ns != UINT64_MAX)
		gm_work_queue(b, again_ns);
	gm_block_put(b);
}

/* For the handler. */
static void refill(struct gm_as *as)
{
	bool wanted, stuck;

	gm_lock(as->env, &as->queue_lock);
	wanted = as->refill;
	as->refill = as->remap_noted = false;
	gm_unlock(as->env, &as->queue_lock);
	if (!wanted || !gm_events_refill(as))
		return;
	gm_lock(as->env, &as->lock);
	stuck = as->msgs_stuck;
	gm_unlock(as->env, &as->lock);
	if (stuck)
		gm_hal_msg_kick(as->host, as->hpmap); /* it tries again at once */
}

/* (Q) Is a block due earlier than the worker is about to sleep until? */
static bool due_before(struct gm_as *as, uint64_t until_ns)
{
	struct gm_block *b;

	TAILQ_FOREACH(b, &as->work, work_link)
		if (b->not_before_ns < until_ns)
			return true;
	return false;
}

bool gm_work_once(struct gm_as *as, uint64_t *next_ns)
{
	struct gm_block *b;
	uint64_t pack_ns;

	refill(as);
	gm_remap_work(as);
	gm_mirror_sweep(as);
	b = next_block(as, next_ns);
	pack_ns = gm_pack_work(as);
	*next_ns = pack_ns < *next_ns ? pack_ns : *next_ns;
	if (atomic_load(&as->remaps.count)) { /* what could not be done now is tried again soon */
		uint64_t again_ns = gm_deadline_ns(as->env, GM_WORK_RETRY_NS);

		*next_ns = again_ns < *next_ns ? again_ns : *next_ns;
	}
	if (b)
		work(b);
	return b != NULL;
}

void gm_work_thread(void *arg)
{
	struct gm_as *as = arg;
	bool stop = false;

	while (!stop) {
		uint64_t next_ns;

		while (gm_work_once(as, &next_ns))
			;
		gm_lock(as->env, &as->queue_lock);
		stop = as->stop;
		if (!stop && !as->refill && !as->remap_noted && !gm_pack_wants(as) && !atomic_load(&as->mirror.sweep) &&
		    !due_before(as, next_ns)) {
			as->work_until_ns = next_ns;
			(void)gm_wait(as->env, &as->queue_waitq, &as->queue_lock, next_ns);
			as->work_until_ns = 0;
		}
		gm_unlock(as->env, &as->queue_lock);
	}
}
