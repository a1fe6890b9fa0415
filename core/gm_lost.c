/* SPDX-License-Identifier: MIT */
/*
 * What is lost, and who is told.
 *
 *     device lost      its pages have the mark (gm_txn_to_host.c)     --> hook, NODEV
 *     descriptors lost (the program closed them and nobody kept them: hal/host/gm_host_keep.c)
 *         --reopen--> every block watched again --> pages away that the process touched meanwhile: it saw
 *         zeros, and may have written: what it has counts, the copy is dropped --> hook, CANCELED
 *         --not now (no descriptor, no memory)--> tried again: by the handler after pauses, as long as the space
 *         lives, and by every call that waits for events
 *         --never--> hook for all that is away, CANCELED; the space goes on failing
 *
 * A block of which something cannot be told, or watched, at once is looked at again by the worker (`relearn`).
 *
 * Between the closing and the discovery nobody stands between the process and
 * zeros; how long that is depends on who looks: every call that waits for events, and
 * the handler, at once; gm_as_serve() when it is called.
 *
 * It runs in the handler too, with no deadline, and waits for nothing but locks then: duplicates, whose end a device or a
 * transaction may have to be waited for, are the worker's. It may run in several threads at once.
 */
#include "config.h"

#include "core/gm_lost.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_work.h"

static void tell_run(struct gm_as *as, uint64_t va, uint64_t bytes, gm_ret_t why)
{
	struct gm_lost lost = { .va = va, .bytes = bytes, .why = why };

	as->cfg.lost(as->cfg.lost_arg, &lost);
}

void gm_lost_tell(struct gm_block *b, const struct gm_mask *pages, bool moved, gm_ret_t why)
{
	struct gm_as *as = b->as;

	if (!as->cfg.lost)
		return;
	GM_MASK_FOR_RUN(pages, first, end) {
		for (unsigned page = first, stop; page < end; page = stop) {
			uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES, run = end - page;
			bool somewhere = !moved || gm_remap_target(as, va, &va, &run);

			if (!somewhere) /* nobody misses it */
				run = 1;
			stop = run < end - page ? page + (unsigned)run : end;
			if (somewhere)
				tell_run(as, va, (uint64_t)(stop - page) * GM_PAGE_BYTES, why);
		}
	}
}

/* (block) Pages whose bytes are not at their VA. */
static struct gm_mask away_of(const struct gm_block *b)
{
	struct gm_mask away = gm_mask_sub(gm_mask_or(gm_block_on_devs(b), b->staged), b->host);

	return gm_mask_sub(away, gm_mask_or(gm_mask_or(b->leaving, b->doomed), b->poisoned));
}

/* One run, in pieces where parts of it are gone. False: not now. */
static bool watch_run(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = gm_hal_watch(as->host, as->hpmap, va, bytes);
	bool all = true;

	if (ret == GM_RET_FAULT && bytes > GM_PAGE_BYTES) {
		for (uint64_t at = va; at < va + bytes; at += GM_PAGE_BYTES)
			all &= watch_run(as, at, GM_PAGE_BYTES);
		return all;
	}
	if (ret && ret != GM_RET_FAULT)
		gm_log(as->env, GM_LOG_ERROR, "memory at 0x%llx cannot be watched again%s: %s", (unsigned long long)va,
		       ret == GM_RET_NOMEM || ret == GM_RET_AGAIN ? " yet" : "", gm_ret_text(ret));
	return ret != GM_RET_NOMEM && ret != GM_RET_AGAIN;
}

static bool watch_again(struct gm_block *b)
{
	struct gm_as *as = b->as;
	struct gm_mask pages;
	bool all = true;

	gm_lock(as->env, &b->lock);
	pages = b->registered;
	gm_unlock(as->env, &b->lock);
	GM_MASK_FOR_RUN(&pages, first, end)
		all &= watch_run(as, b->va + (uint64_t)first * GM_PAGE_BYTES, (uint64_t)(end - first) * GM_PAGE_BYTES);
	return all;
}

/* What was protected is so no more, and the process may have stored to it. True: no device has duplicates of it now. */
static bool end_duplicates(struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_mask none = gm_mask_none(), all = gm_mask_not(none);
	bool some;

	gm_lock(b->as->env, &b->lock);
	some = b->any_dup;
	gm_unlock(b->as->env, &b->lock);
	if (!some || (deadline_ns && !gm_dup_end(b, &all, NULL, deadline_ns)))
		return true;
	if (deadline_ns)
		gm_log(b->as->env, GM_LOG_ERROR, "a device keeps duplicates near 0x%llx that may be old", (unsigned long long)b->va);
	return false;
}

/*
 * What the process has there now counts. False: not all of it could be looked at now, as the host cannot tell what is
 * there, or a transaction is on its way with it, and puts there what is meant to be.
 */
static bool drop_touched(struct gm_block *b)
{
	struct gm_env *env = b->as->env;
	struct gm_mask away, busy, present = gm_mask_none();
	gm_ret_t ret;

	gm_lock(env, &b->lock);
	away = gm_mask_sub(away_of(b), b->busy);
	busy = gm_mask_and(away_of(b), b->busy);
	gm_unlock(env, &b->lock);
	ret = gm_mask_empty(&away) ? GM_RET_FAULT : gm_hal_mem_present(b->as->host, b->as->hpmap, b->va, &present);
	if (ret)
		return ret == GM_RET_FAULT && gm_mask_empty(&busy);
	present = gm_mask_and(present, away);
	gm_lock(env, &b->lock);
	present = gm_mask_and(present, gm_mask_sub(away_of(b), b->busy));
	gm_unlock(env, &b->lock);
	GM_MASK_FOR_RUN(&present, first, end)
		(void)gm_events_doom(b->as, b->va + (uint64_t)first * GM_PAGE_BYTES, b->va + (uint64_t)end * GM_PAGE_BYTES,
				     false);
	gm_lost_tell(b, &present, false, GM_RET_CANCELED);
	return gm_mask_empty(&busy);
}

/* What cannot be done at once, or not without waiting, is left to the worker. */
static void learn_block(struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	bool done = watch_again(b); /* all three are tried */

	done &= drop_touched(b);
	done &= end_duplicates(b, deadline_ns);
	gm_lock(env, &b->lock);
	b->relearn = !done;
	gm_unlock(env, &b->lock);
	if (!done)
		gm_work_queue(b, deadline_ns ? gm_deadline_ns(env, GM_WORK_RETRY_NS) : 0);
}

void gm_lost_work(struct gm_block *b)
{
	struct gm_as *as = b->as;
	bool relearn;

	gm_lock(as->env, &b->lock);
	relearn = b->relearn;
	gm_unlock(as->env, &b->lock);
	if (relearn)
		learn_block(b, gm_deadline_ns(as->env, as->cfg.wait_ns));
}

/* A lack of descriptors or of memory passes. */
static bool is_final(gm_ret_t ret)
{
	return ret && ret != GM_RET_NOMEM && ret != GM_RET_AGAIN;
}

gm_ret_t gm_lost_recover(struct gm_as *as, uint64_t deadline_ns)
{
	gm_ret_t ret = gm_hal_reopen(as->host, as->hpmap);
	bool tell = false;
	uint64_t va = 0;

	if (ret == GM_RET_EXIST) /* another thread was faster */
		return GM_RET_SUCCESS;
	if (is_final(ret))
		tell = !atomic_exchange(&as->told_lost, true);
	if (ret && !tell)
		return ret;
	for (struct gm_block *b; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		struct gm_mask away;

		va = b->va + GM_BLOCK_BYTES;
		gm_lock(as->env, &b->lock);
		away = away_of(b);
		b->stores = b->stores && ret;
		gm_unlock(as->env, &b->lock);
		if (ret)
			gm_lost_tell(b, &away, false, GM_RET_CANCELED);
		else
			learn_block(b, deadline_ns);
	}
	return ret;
}
