/* SPDX-License-Identifier: MIT */
/*
 * What mremap() moved is brought along: from noted to gone (gm_remap.c).
 *
 *     round: each entry once
 *         block by block: dropped content first --> a transaction to the host, to where the bytes belong
 *             --> what was lost with a device: its mark, where the bytes would belong
 *             held by a working set: stays; the others are delivered
 *             no such place: if no event tells otherwise, stranded: dropped
 *         all of it --> delivered --> managed at the new place --> gone
 *
 * An attempt is short, because the worker has other things to do; what is in the
 * way is tried again in the next round. Accesses that wait longer than hold_ns
 * are made to fail, and the bytes may come all the same.
 *
 * Not every page that was lost had the mark when it was moved, and a hole reads as zeros: so a lost page is leaving until
 * its mark is at the new place, like one whose bytes are. That it is lost is known there from its mark: when the place is
 * managed, a page that is present and yet cannot be read is poisoned.
 */
#include "config.h"

#include "core/gm_events.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_txn.h"
#include "core/gm_work.h"

/* One attempt at a block. */
#define ATTEMPT_NS (UINT64_C(2) * 1000 * 1000)

/* (A) Bytes have yet to leave [va, end). */
static bool is_source(const struct gm_remaps *rs, uint64_t va, uint64_t end)
{
	struct gm_remap *e;

	TAILQ_FOREACH(e, &rs->list, link)
		if (!e->delivered && e->va < end && e->end > va)
			return true;
	return false;
}

/* Every event so far is handled. */
static bool all_handled(struct gm_as *as)
{
	bool ok = gm_events_hold_reader(as);

	if (ok) {
		ok = !gm_hal_settled(as->host, as->hpmap);
		gm_events_release_reader(as);
	}
	return ok;
}

/*
 * (block) Of `pages`, those that are leaving still. What can go nowhere (`stranded`) and what is only mapped
 * in place, or duplicated, is doomed; what has nothing here is through.
 */
static struct gm_mask still_leaving(struct gm_block *b, const struct gm_mask *pages, const struct gm_mask *stranded)
{
	struct gm_mask left = gm_mask_and(b->leaving, *pages), idle, copies, doom, nothing;

	copies = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), b->poisoned);
	idle = gm_mask_sub(left, gm_mask_or(b->busy, b->doomed));
	doom = gm_mask_sub(gm_mask_and(idle, gm_mask_or(gm_block_mapped(b), b->dup)), copies);
	nothing = gm_mask_sub(gm_mask_sub(idle, copies), doom);
	doom = gm_mask_or(doom, gm_mask_and(idle, *stranded));
	gm_block_doom(b, &doom, b->doomed_ns);
	b->leaving = gm_mask_sub(b->leaving, nothing);
	return gm_mask_sub(left, nothing);
}

/*
 * Accesses to what was page va fail from now on, where it is now, if its content was not given up. SUCCESS, EXIST (they
 * do already, or there are bytes), AGAIN, FAULT (it is nowhere).
 */
static gm_ret_t mark_target(struct gm_block *b, unsigned page)
{
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES, done, to, run;
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_FAULT;
	bool leaving;

	if (!gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	gm_lock(as->env, &b->lock);
	leaving = gm_mask_test(&b->leaving, page) && !gm_mask_test(&b->doomed, page);
	gm_unlock(as->env, &b->lock);
	if (!leaving)
		ret = GM_RET_EXIST;
	else if (gm_remap_target(as, va, &to, &run))
		ret = gm_hal_poison(as->host, as->hpmap, to, GM_PAGE_BYTES, &done);
	gm_events_release_reader(as);
	return ret;
}

/* (block) What of `pages` is lost and has to get its mark elsewhere. */
static struct gm_mask lost_of(const struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_mask lost = gm_mask_and(gm_mask_and(b->leaving, b->poisoned), *pages);

	return gm_mask_sub(lost, gm_mask_or(b->busy, b->doomed));
}

/* Marks for what was lost. Adds to `refused` what has no place any more; what cannot be done now stays. True: there was some. */
static bool mark_lost(struct gm_block *b, const struct gm_mask *pages, struct gm_mask *refused)
{
	struct gm_env *env = b->as->env;
	struct gm_mask lost, done = gm_mask_none();

	gm_lock(env, &b->lock);
	lost = lost_of(b, pages);
	gm_unlock(env, &b->lock);
	GM_MASK_FOR_RUN(&lost, first, end)
		for (unsigned page = first; page < end; page++) {
			gm_ret_t ret = mark_target(b, page);

			if (!ret || ret == GM_RET_EXIST)
				gm_mask_set(&done, page);
			else if (ret != GM_RET_AGAIN)
				gm_mask_set(refused, page);
		}
	gm_lock(env, &b->lock);
	b->poisoned = gm_mask_sub(b->poisoned, gm_mask_and(done, b->leaving));
	gm_unlock(env, &b->lock);
	return !gm_mask_empty(&lost);
}

/* What one entry's blocks have: some of it is held by a working set, was lost. */
struct found {
	bool held, lost;
};

/* One attempt. True: nothing of it is leaving from the block any more. */
static bool deliver_block(struct gm_block *b, const struct gm_remap *r, struct found *found)
{
	struct gm_as *as = b->as;
	struct gm_move m = { .block = b };
	struct gm_txn t = { .as = as, .flags = GM_TXN_FORCE, .moved = true, .move = &m, .moves = 1,
			    .deadline_ns = gm_deadline_ns(as->env, ATTEMPT_NS) };
	struct gm_mask pages = gm_block_clip(b, r->va, r->end), stranded = gm_mask_none(), none = gm_mask_none();
	unsigned gen = atomic_load(&as->remaps.gen);
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_drop_doomed(b);
	gm_lock(as->env, &b->lock);
	m.want = gm_mask_and(pages, b->leaving);
	found->held |= gm_mask_meets(&m.want, &b->held);
	m.want = gm_mask_sub(m.want, b->held); /* the others need not wait for these */
	gm_unlock(as->env, &b->lock);
	if (!gm_mask_empty(&m.want))
		ret = gm_txn_run(&t);
	found->lost |= mark_lost(b, &pages, &t.refused);
	/* No such place any more? Then an event is about to tell where it is now; if not, the bytes can go nowhere. */
	if (!gm_mask_empty(&t.refused)) {
		if (all_handled(as) && atomic_load(&as->remaps.gen) == gen)
			stranded = t.refused;
		else
			(void)gm_events_let_run(as);
	}
	if (!gm_mask_empty(&stranded) && !r->doubted)
		gm_log(as->env, GM_LOG_ERROR, "mremap: pages of 0x%llx could not be brought along: %s",
		       (unsigned long long)b->va, gm_ret_text(ret));
	gm_lock(as->env, &b->lock);
	(void)still_leaving(b, &pages, &stranded);
	gm_unlock(as->env, &b->lock);
	gm_drop_doomed(b);
	gm_lock(as->env, &b->lock);
	pages = still_leaving(b, &pages, &none);
	gm_unlock(as->env, &b->lock);
	/* Others may want something of the block; but what stays here is no reason to look again at once. */
	gm_work_queue(b, gm_mask_empty(&pages) ? 0 : gm_deadline_ns(as->env, GM_WORK_RETRY_NS));
	return gm_mask_empty(&pages);
}

/* (A) Entries that are part of `r`: delivered, or held back by a working set; with lost pages. */
static void note_result(struct gm_remaps *rs, const struct gm_remap *r, bool delivered, struct found found)
{
	struct gm_remap *e;

	TAILQ_FOREACH(e, &rs->list, link) {
		if (e->delivered || e->va < r->va || e->end > r->end)
			continue;
		e->delivered = delivered;
		e->held = found.held;
		e->lost |= found.lost;
	}
}

static bool deliver(struct gm_as *as, const struct gm_remap *r)
{
	struct found found = { .held = false };
	bool all = true;
	uint64_t va = r->va;
	unsigned releases;

	gm_lock(as->env, &as->lock);
	releases = as->remaps.releases;
	gm_unlock(as->env, &as->lock);
	for (struct gm_block *b; (b = gm_block_next_live(as, va, r->end)); gm_block_put(b)) {
		all &= deliver_block(b, r, &found);
		va = b->va + GM_BLOCK_BYTES;
	}
	gm_lock(as->env, &as->lock);
	/* Else it may be held no more: who waits goes on waiting. */
	found.held = found.held && !all && as->remaps.releases == releases;
	note_result(&as->remaps, r, all, found);
	gm_unlock(as->env, &as->lock);
	if (all) /* absent pages are holes now */
		gm_hal_wake(as->host, as->hpmap, r->to, r->end - r->va);
	return all;
}

/* (A) The entry, if it is as it was. */
static struct gm_remap *find(struct gm_remaps *rs, const struct gm_remap *r)
{
	struct gm_remap *e;

	TAILQ_FOREACH(e, &rs->list, link)
		if (e->va == r->va && e->end == r->end && e->to == r->to && e->delivered)
			return e;
	return NULL;
}

/* Is the new place watched by us still? Asked by filling its first page, which is a hole by now if it is absent. */
static bool probe_ours(struct gm_as *as, const struct gm_remap *e)
{
	uint64_t done;

	return !e->doubted || gm_hal_zero(as->host, as->hpmap, e->to, GM_PAGE_BYTES, &done) != GM_RET_FAULT;
}

/* Of these pages of the block at va, which came with a mark? SUCCESS, NOMEM: it cannot be told now. */
static gm_ret_t find_marks(struct gm_as *as, uint64_t va, const struct gm_mask *pages, struct gm_mask *marked)
{
	struct gm_mask some;
	gm_ret_t ret = gm_hal_mem_present(as->host, as->hpmap, va, &some);

	*marked = gm_mask_none();
	if (ret)
		return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	some = gm_mask_and(some, *pages);
	GM_MASK_FOR_RUN(&some, first, end)
		for (unsigned page = first; page < end; page++) {
			bool is;

			ret = gm_mem_is_marked(as, va + (uint64_t)page * GM_PAGE_BYTES, &is);
			if (ret)
				return ret;
			if (is)
				gm_mask_set(marked, page);
		}
	return ret;
}

/* Can it be told? Asked before anything is changed. */
static bool can_find_marks(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_mask pages, marked;

	for (uint64_t at = va, next; at < end; at = next) {
		uint64_t base = gm_block_base(at);

		next = base + GM_BLOCK_BYTES < end ? base + GM_BLOCK_BYTES : end;
		pages = gm_mask_span((unsigned)((at - base) / GM_PAGE_BYTES), (unsigned)((next - base) / GM_PAGE_BYTES));
		if (find_marks(as, base, &pages, &marked))
			return false;
	}
	return true;
}

/* (nobody reads events) Pages of the block that came with a mark: HOST -> POISONED. */
static void learn_marks(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_env *env = b->as->env;
	struct gm_mask mine, lost;

	gm_lock(env, &b->lock);
	mine = gm_mask_sub(gm_mask_and(*pages, b->host), gm_mask_or(b->busy, b->doomed));
	b->busy = gm_mask_or(b->busy, mine);
	gm_unlock(env, &b->lock);
	if (find_marks(b->as, b->va, &mine, &lost)) /* it could a moment ago; such a page is then found when it is to move */
		gm_log(env, GM_LOG_WARN, "which pages near 0x%llx are lost cannot be told: %s", (unsigned long long)b->va,
		       gm_last_error());
	gm_lock(env, &b->lock);
	b->poisoned = gm_mask_or(b->poisoned, lost);
	b->host = gm_mask_sub(b->host, lost);
	gm_unlock(env, &b->lock);
	gm_txn_release(b, &mine);
}

/*
 * The new place is watched as a whole, as the kernel took that along. It stays so until its blocks are
 * forgotten, as any block that is all host: to stop piece by piece would cut the mapping into several, which
 * the program's next mremap() cannot move as one.
 */
static void track(struct gm_as *as, uint64_t va, uint64_t end, bool lost)
{
	for (uint64_t at = va; at < end; at = gm_block_base(at) + GM_BLOCK_BYTES) {
		uint64_t stop = gm_block_base(at) + GM_BLOCK_BYTES < end ? gm_block_base(at) + GM_BLOCK_BYTES : end;
		struct gm_mask pages;
		struct gm_block *b;

		if (gm_block_obtain(as, at, &b)) { /* no memory for its state: then nobody watches it */
			(void)gm_hal_unwatch(as->host, as->hpmap, at, stop - at);
			continue;
		}
		pages = gm_block_clip(b, at, stop);
		gm_lock(as->env, &b->lock);
		b->registered = gm_mask_or(b->registered, pages);
		b->used_ns = gm_now_ns(as->env);
		gm_unlock(as->env, &b->lock);
		if (lost)
			learn_marks(b, &pages);
		gm_work_queue(b, 0);
		gm_block_put(b);
	}
}

/* Nobody reads events meanwhile. False: not yet. */
static bool manage_target(struct gm_as *as, const struct gm_remap *r)
{
	uint64_t end = gm_remap_to_end(r);
	struct gm_remap *e;
	bool ok;

	gm_lock(as->env, &as->lock);
	e = find(&as->remaps, r);
	ok = e && e->not_before_ns <= gm_now_ns(as->env) && !is_source(&as->remaps, r->to, end);
	gm_unlock(as->env, &as->lock);
	if (!ok || gm_hal_settled(as->host, as->hpmap) || gm_pack_open_range(as, r->to, end))
		return false; /* who holds the reader does not wait, for memory neither */
	if (e->lost && !can_find_marks(as, r->to, end))
		return false;
	if (gm_as_mirrors(as) && r->kind == GM_REGION_ADOPTED) {
		(void)gm_hal_unwatch(as->host, as->hpmap, r->to, end - r->to); /* as any memory from here on; FAULT: gone */
	} else if (probe_ours(as, e)) {
		gm_lock(as->env, &as->lock);
		ok = gm_regions_room(&as->regions) >= 4;
		if (ok) {
			gm_mem_clear_stale(as, r->to, end);
			(void)gm_regions_carve(&as->regions, r->to, end, GM_REGION_OWNED);
			(void)gm_regions_insert(&as->regions, r->to, end, r->kind);
		}
		gm_unlock(as->env, &as->lock);
		if (!ok)
			return false;
		gm_mem_set_managed(as, r->to, end, true); /* blocks that are there already; all are open, see above */
		track(as, r->to, end, e->lost);
	}
	gm_hal_wake(as->host, as->hpmap, r->to, end - r->to);
	gm_lock(as->env, &as->lock);
	gm_remap_remove(&as->remaps, e);
	gm_unlock(as->env, &as->lock);
	return true;
}

static void finish(struct gm_as *as, const struct gm_remap *r)
{
	if (gm_mem_stock(as, 4) || !gm_events_hold_reader(as))
		return;
	(void)manage_target(as, r);
	gm_events_release_reader(as);
}

/* The bound of accesses that wait for bytes which do not come: they fail; the bytes can still come later. */
static void fail_waiting(struct gm_as *as, const struct gm_remap *r)
{
	struct gm_remap *e;
	uint64_t va = r->va;
	bool all = true;

	/* First, as the process may not survive what follows. */
	gm_log(as->env, GM_LOG_ERROR, "mremap: bytes of 0x%llx do not come to 0x%llx: accesses there fail",
	       (unsigned long long)r->va, (unsigned long long)r->to);
	for (struct gm_block *b; (b = gm_block_next_live(as, va, r->end)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_clip(b, r->va, r->end);

		gm_lock(as->env, &b->lock);
		pages = gm_mask_and(pages, b->leaving);
		gm_unlock(as->env, &b->lock);
		GM_MASK_FOR_RUN(&pages, first, end)
			for (unsigned page = first; page < end; page++)
				all &= mark_target(b, page) != GM_RET_AGAIN;
		va = b->va + GM_BLOCK_BYTES;
	}
	gm_hal_wake(as->host, as->hpmap, r->to, r->end - r->va);
	if (!all)
		return; /* in the next round */
	gm_lock(as->env, &as->lock);
	TAILQ_FOREACH(e, &as->remaps.list, link)
		e->failed |= e->va == r->va && e->end == r->end && e->to == r->to;
	gm_unlock(as->env, &as->lock);
}

/* The next entry of this round, copied. */
static bool next_entry(struct gm_as *as, struct gm_remap *out)
{
	struct gm_remap *e;

	gm_lock(as->env, &as->lock);
	TAILQ_FOREACH(e, &as->remaps.list, link)
		if (!e->tried)
			break;
	if (e) {
		e->tried = true;
		*out = *e;
	}
	gm_unlock(as->env, &as->lock);
	return e != NULL;
}

static void begin_round(struct gm_as *as, bool *mine)
{
	struct gm_remap *e;

	gm_lock(as->env, &as->lock);
	*mine = !as->remaps.working;
	as->remaps.working = true;
	TAILQ_FOREACH(e, &as->remaps.list, link)
		if (*mine)
			e->tried = false;
	gm_unlock(as->env, &as->lock);
}

void gm_remap_work(struct gm_as *as)
{
	struct gm_remap r;
	bool mine;

	if (!atomic_load(&as->remaps.count))
		return;
	begin_round(as, &mine);
	while (mine && next_entry(as, &r)) {
		if (!r.delivered && !deliver(as, &r) && !r.failed &&
		    gm_now_ns(as->env) >= gm_deadline_after_ns(r.noted_ns, as->cfg.hold_ns))
			fail_waiting(as, &r);
		finish(as, &r);
	}
	if (mine) {
		gm_lock(as->env, &as->lock);
		as->remaps.working = false;
		gm_unlock(as->env, &as->lock);
		gm_wake(as->env, &as->waitq);
	}
}
