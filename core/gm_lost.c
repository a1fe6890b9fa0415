/* SPDX-License-Identifier: MIT */
/*
 * What is lost, and who is told.
 *
 *     device lost      its pages have the mark (gm_txn_to_host.c)     --> hook, NODEV
 *     descriptors lost (the program closed them and nobody kept them: hal/host/gm_host_keep.c)
 *         --reopen--> every block watched again --> pages away that the process touched meanwhile: it saw
 *         zeros, and may have written: what it has counts, the copy is dropped --> hook, CANCELED
 *         --cannot--> hook for all that is away, CANCELED; the space goes on failing
 *
 * Between the closing and the discovery nobody stands between the process and
 * zeros; how long that is depends on who looks: every call that waits for events, and
 * the handler, at once; gm_as_serve() when it is called.
 *
 * This runs in the handler too, so it waits for nothing but locks. It may run in several threads at once.
 */
#include "config.h"

#include "core/gm_lost.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"

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

/* (unlocked) Pages whose bytes are not at their VA. */
static struct gm_mask away_of(struct gm_block *b)
{
	struct gm_mask away;

	gm_lock(b->as->env, &b->lock);
	away = gm_mask_sub(gm_mask_or(gm_block_on_devs(b), b->staged), b->host);
	away = gm_mask_sub(away, gm_mask_or(gm_mask_or(b->leaving, b->doomed), b->poisoned));
	gm_unlock(b->as->env, &b->lock);
	return away;
}

static void watch_again(struct gm_block *b)
{
	struct gm_as *as = b->as;
	struct gm_mask pages;

	gm_lock(as->env, &b->lock);
	pages = b->registered;
	b->stores = false; /* what was protected is so no more, and the process may have stored to it */
	gm_unlock(as->env, &b->lock);
	if (gm_dup_end(b, &pages, NULL, gm_deadline_ns(as->env, as->cfg.wait_ns)))
		gm_log(as->env, GM_LOG_ERROR, "a device keeps duplicates near 0x%llx that may be old", (unsigned long long)b->va);
	GM_MASK_FOR_RUN(&pages, first, end)
		if (gm_hal_watch(as->host, as->hpmap, b->va + (uint64_t)first * GM_PAGE_BYTES,
				 (uint64_t)(end - first) * GM_PAGE_BYTES))
			gm_log(as->env, GM_LOG_ERROR, "memory near 0x%llx cannot be watched again", (unsigned long long)b->va);
}

/* What the process has there now counts. */
static void drop_touched(struct gm_block *b)
{
	struct gm_mask away = away_of(b), present;

	if (gm_mask_empty(&away) || gm_hal_mem_present(b->as->host, b->as->hpmap, b->va, &present))
		return;
	present = gm_mask_and(present, away);
	GM_MASK_FOR_RUN(&present, first, end)
		(void)gm_events_doom(b->as, b->va + (uint64_t)first * GM_PAGE_BYTES, b->va + (uint64_t)end * GM_PAGE_BYTES,
				     false);
	gm_lost_tell(b, &present, false, GM_RET_CANCELED);
}

gm_ret_t gm_lost_recover(struct gm_as *as)
{
	gm_ret_t ret = gm_hal_reopen(as->host, as->hpmap);
	bool tell = false;
	uint64_t va = 0;

	if (ret == GM_RET_EXIST) /* another thread was faster */
		return GM_RET_SUCCESS;
	if (ret)
		tell = !atomic_exchange(&as->told_lost, true);
	if (ret && !tell)
		return ret;
	for (struct gm_block *b; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		va = b->va + GM_BLOCK_BYTES;
		if (ret) {
			struct gm_mask away = away_of(b);

			gm_lost_tell(b, &away, false, GM_RET_CANCELED);
			continue;
		}
		watch_again(b);
		drop_touched(b);
	}
	return ret;
}
