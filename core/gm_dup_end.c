/* SPDX-License-Identifier: MIT */
/*
 * How duplicates end. What one is, and how it is made, is in gm_dup.c.
 *
 *     the process stores           revoke all --> forgotten --> unprotected, which lets the store go on
 *     a device stores              revoke all --> forgotten --> stolen (gm_txn_to_dev.c): its own duplicate becomes the page
 *     memory of a device is wanted, it is detached      revoke that device --> its own is forgotten
 *     gm_migrate() to the host, or in place             as a store
 *     the content is given up, the memory released      revoke all --> forgotten; protection goes with the page, or the watch
 *
 * The order is one: devices let go first, the protection last. In the reverse order the process stores while a device
 * still reads the former bytes.
 *
 * Protection without a duplicate does no harm. It is left where the kernel did not take it back at once (an event was
 * unread), and where mremap() took a protected page to: the kernel takes the protection along, the library does not.
 * Whoever stores there waits, the handler sees a page that is present, and unprotects it (gm_fault_cpu.c). But a device
 * cannot store there in place, and the kernel cannot un-share such a page after a fork: so these two ask for it to end
 * before they go on (gm_dup_let_store(), gm_dup_let_steal()).
 *
 * Only who has a page busy takes its protection away: a duplicate that is being made is not yet recorded when its
 * page is protected.
 */
#include "config.h"

#include "core/gm_dup.h"

#include "core/gm_events.h"

void gm_dup_forget(struct gm_block *b, const struct gm_mask *pages)
{
	if (!b->any_dup)
		return;
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i])
			b->node[i]->copy = gm_mask_sub(b->node[i]->copy, *pages);
	b->dup = gm_mask_sub(b->dup, *pages);
	b->any_dup = !gm_mask_empty(&b->dup);
}

void gm_dup_give_up(struct gm_block *b, const struct gm_mask *pages)
{
	gm_lock(b->as->env, &b->lock);
	gm_dup_forget(b, pages);
	gm_unlock(b->as->env, &b->lock);
}

/* (block) Of one device; returns those that no device has now. */
static struct gm_mask forget_of(struct gm_block *b, const struct gm_dev *dev, const struct gm_mask *pages)
{
	struct gm_mask left = gm_mask_none();

	b->node[dev->index]->copy = gm_mask_sub(b->node[dev->index]->copy, *pages);
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i])
			left = gm_mask_or(left, b->node[i]->copy);
	left = gm_mask_sub(*pages, left);
	b->dup = gm_mask_sub(b->dup, left);
	b->any_dup = !gm_mask_empty(&b->dup);
	return left;
}

/* What cannot be done now the next store does, see the top. True: all of it is done. */
static bool unprotect(struct gm_block *b, const struct gm_mask *pages)
{
	bool all = true;

	GM_MASK_FOR_RUN(pages, first, end)
		all &= !gm_hal_unprotect(b->as->host, b->as->hpmap, b->va + (uint64_t)first * GM_PAGE_BYTES,
					 (uint64_t)(end - first) * GM_PAGE_BYTES);
	return all;
}

struct gm_mask gm_dup_let_steal(struct gm_block *b, const struct gm_mask *refused, struct gm_mask *tried)
{
	struct gm_mask fresh = gm_mask_sub(*refused, *tried), again = gm_mask_none();

	GM_MASK_FOR_RUN(&fresh, first, end) {
		struct gm_mask run = gm_mask_span(first, end);

		if (unprotect(b, &run)) /* only what is watched for it can have been protected */
			again = gm_mask_or(again, run);
	}
	*tried = gm_mask_or(*tried, fresh);
	return again;
}

gm_ret_t gm_dup_let_store(struct gm_block *b, unsigned page, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;

	while (gm_hal_unprotect(as->host, as->hpmap, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_PAGE_BYTES) == GM_RET_AGAIN)
		if (gm_now_ns(as->env) >= deadline_ns || !gm_events_let_run(as))
			return gm_fail(GM_RET_TIMEDOUT, "events of 0x%llx were not read in time", (unsigned long long)b->va);
	return GM_RET_SUCCESS;
}

/* (block) A device's duplicates, or anybody's. */
static struct gm_mask copies_of(const struct gm_block *b, const struct gm_dev *dev)
{
	if (!dev)
		return b->dup;
	return b->node[dev->index] ? b->node[dev->index]->copy : gm_mask_none();
}

/* (block) Somebody is at these pages, or at what devices map together with them. */
static bool is_in_use(const struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_mask near = gm_mask_grow(pages, atomic_load_explicit(&b->as->granule_pages, memory_order_relaxed));

	return gm_mask_meets(&near, &b->busy) || gm_mask_meets(&near, &b->doomed);
}

/* (unlocked) Of pages the caller has busy: what contexts of one device map. */
static gm_ret_t revoke_of(struct gm_block *b, const struct gm_dev *dev, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (unsigned i = 0; i < GM_MAX_CTXS && !ret; i++) {
		bool maps;

		gm_lock(as->env, &b->lock);
		maps = b->map[i] && gm_mask_meets(&b->map[i]->read, pages); /* so it stays: detaching revokes first */
		gm_unlock(as->env, &b->lock);
		if (maps && as->ctx[i]->dev == dev)
			ret = gm_plan_revoke_in(b, as->ctx[i], pages, deadline_ns, false);
	}
	return ret;
}

/* The caller has them busy. */
static gm_ret_t end_busy(struct gm_block *b, const struct gm_mask *pages, const struct gm_dev *dev, uint64_t deadline_ns)
{
	struct gm_mask last = *pages;
	gm_ret_t ret = dev ? revoke_of(b, dev, pages, deadline_ns) : gm_plan_revoke(b, pages, deadline_ns, false);

	if (ret)
		return ret;
	gm_lock(b->as->env, &b->lock);
	if (dev)
		last = forget_of(b, dev, pages);
	else
		gm_dup_forget(b, pages);
	gm_unlock(b->as->env, &b->lock);
	(void)unprotect(b, &last);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_dup_end(struct gm_block *b, const struct gm_mask *pages, const struct gm_dev *dev, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask mine = gm_mask_none();
	gm_ret_t ret = GM_RET_SUCCESS;
	bool some;

	gm_lock(env, &b->lock);
	some = gm_mask_meets(&b->dup, pages);
	gm_unlock(env, &b->lock);
	if (!some)
		return ret;
	gm_drop_doomed(b);
	gm_lock(env, &b->lock);
	for (;;) {
		mine = gm_mask_sub(gm_mask_and(copies_of(b, dev), *pages), b->leaving);
		if (ret || !is_in_use(b, &mine))
			break;
		ret = gm_wait(env, &b->waitq, &b->lock, deadline_ns);
	}
	if (!ret)
		b->busy = gm_mask_or(b->busy, mine);
	gm_unlock(env, &b->lock);
	if (ret)
		return gm_fail(ret, "pages near 0x%llx did not become free in time", (unsigned long long)b->va);
	if (gm_mask_empty(&mine))
		return GM_RET_SUCCESS;
	ret = end_busy(b, &mine, dev, deadline_ns);
	gm_txn_release(b, &mine);
	return ret;
}

/* (block) What was brought a moment ago, or just served: who needs more than is free would undo his own work. */
static struct gm_mask is_fresh(const struct gm_block *b, const struct gm_dev *dev, uint64_t now_ns)
{
	struct gm_chunk *const *unit = b->node[dev->index]->unit;
	uint64_t slice_ns = b->as->cfg.slice_ns;
	struct gm_mask fresh = gm_slice_pages(&b->slice_dev, slice_ns, now_ns);

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		struct gm_mask pages = gm_mask_span(u * GM_UNIT_PAGES, (u + 1) * GM_UNIT_PAGES);

		if (unit[u] && now_ns < unit[u]->served_ns + 2 * slice_ns)
			fresh = gm_mask_or(fresh, pages);
	}
	return fresh;
}

bool gm_dup_evict(const struct gm_dev *dev, struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask mine, fresh;
	gm_ret_t ret;

	gm_lock(env, &b->lock);
	mine = gm_mask_sub(gm_mask_and(copies_of(b, dev), *pages), b->leaving);
	if (!gm_mask_empty(&mine)) {
		fresh = is_fresh(b, dev, gm_now_ns(env));
		mine = gm_mask_sub(mine, fresh);
	}
	if (is_in_use(b, &mine))
		mine = gm_mask_none();
	b->busy = gm_mask_or(b->busy, mine);
	gm_unlock(env, &b->lock);
	if (gm_mask_empty(&mine))
		return false;
	ret = end_busy(b, &mine, dev, deadline_ns);
	gm_txn_release(b, &mine);
	return !ret;
}

/* ------------------------------------------------------ stores of the process */

/* (block) The page, and what of its unit has nothing in the way. False: the page itself has; *until_ns: a slice. */
static bool choose(struct gm_block *b, unsigned page, uint64_t now_ns, struct gm_mask *pages, uint64_t *until_ns)
{
	uint64_t slice_ns = b->as->cfg.slice_ns, bytes = b->as->cfg.cpu_unit_bytes;
	uint64_t unit = (b->va + (uint64_t)page * GM_PAGE_BYTES) & ~(bytes - 1);
	struct gm_mask served = gm_slice_pages(&b->slice_dev, slice_ns, now_ns), one = gm_mask_span(page, page + 1);

	*pages = gm_mask_and(gm_block_clip(b, unit, unit + bytes), b->dup);
	*pages = gm_mask_or(gm_mask_sub(gm_mask_sub(*pages, served), b->leaving), one);
	if (is_in_use(b, pages))
		*pages = one;
	if (gm_mask_test(&served, page))
		*until_ns = (now_ns / slice_ns + 1) * slice_ns;
	return !gm_mask_test(&served, page) && gm_mask_test(&b->dup, page) && !is_in_use(b, pages);
}

/* (block) Nobody who maps them has to be waited for. */
static bool nothing_waits(const struct gm_block *b, const struct gm_mask *pages)
{
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && gm_mask_meets(&b->map[i]->read, pages) &&
		    !gm_hal_has(b->as->ctx[i]->dev->hal, GM_CAP_FAST_INVL))
			return false;
	return true;
}

gm_ret_t gm_dup_store(struct gm_block *b, unsigned page, bool inl, uint64_t now_ns, uint64_t *until_ns)
{
	struct gm_as *as = b->as;
	uint64_t deadline_ns = gm_deadline_after_ns(now_ns, as->cfg.wait_ns);
	struct gm_mask pages, one = gm_mask_span(page, page + 1);
	gm_ret_t ret = GM_RET_SUCCESS;
	bool mine;

	*until_ns = 0;
	gm_lock(as->env, &b->lock);
	mine = choose(b, page, now_ns, &pages, until_ns) && (!inl || nothing_waits(b, &pages));
	if (mine)
		b->busy = gm_mask_or(b->busy, pages);
	gm_unlock(as->env, &b->lock);
	if (!mine)
		return GM_RET_AGAIN;
	if (!GM_PLANTED(as, GM_PLANT_DUP_KEEP))
		ret = gm_plan_revoke(b, &pages, deadline_ns, inl);
	if (!ret) {
		gm_lock(as->env, &b->lock);
		gm_dup_forget(b, &pages);
		gm_slice_serve(&b->slice_cpu, as->cfg.slice_ns, now_ns, &one);
		gm_unlock(as->env, &b->lock);
		gm_stat_add(as, GM_STAT_dups_ended, gm_mask_count(&pages));
		ret = unprotect(b, &pages) ? ret : GM_RET_AGAIN;
	}
	gm_txn_release(b, &pages);
	return ret;
}
