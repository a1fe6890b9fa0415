/* SPDX-License-Identifier: MIT */
/*
 * Transactions: the one way in which pages change their place.
 *
 *     begin --> to_dev | to_host --> end
 *
 * begin   marks all pages busy, in all blocks, or none of them: a transaction
 *         never waits while it has pages busy, so transactions cannot wait for
 *         each other in a circle. What is in the way is named; the caller waits
 *         for it with empty hands and tries again.
 * move    gm_txn_to_dev.c, gm_txn_to_host.c: revoke devices, take from the
 *         host, copy, commit, map. Runs without any lock: busy is the lock.
 * end     clears busy and wakes. An event may have doomed pages meanwhile (the
 *         application unmapped or discarded them): these are taken apart first.
 *         Who may not wait for a device for that (the fault handler), or was
 *         busy without a transaction, leaves them doomed to the worker.
 *
 * Frames were reserved before begin (gm_evict.c), so nothing in between waits
 * for memory that another transaction has.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_work.h"
#include "core/gm_ws.h"

/* Pages that share a granule of some device with `pages`: their mappings come and go together. */
static struct gm_mask near_pages(const struct gm_block *b, const struct gm_mask *pages)
{
	return gm_mask_grow(pages, atomic_load_explicit(&b->as->granule_pages, memory_order_relaxed));
}

static bool blocked(struct gm_txn *t, struct gm_move *m, enum gm_blocked why, struct gm_mask what)
{
	if (gm_mask_empty(&what))
		return false;
	t->why = why;
	t->where = m->block;
	t->what = what;
	return true;
}

/*
 * (block) Is there a frame for every moving page, the block's or a reserved
 * one? And does no other transaction bring frames for the same unit? (It has
 * pages of it busy, and the unit has no chunk yet.)
 */
static bool frames_fit(struct gm_txn *t, const struct gm_move *m, const struct gm_mask *moving)
{
	struct gm_block *b = m->block;
	struct gm_bnode *n = b->node[t->dev->index];
	bool whole = m->fresh[0] && m->fresh[0]->order == GM_BLOCK_ORDER;

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		struct gm_mask unit = gm_mask_span(u * GM_UNIT_PAGES, (u + 1) * GM_UNIT_PAGES);
		bool fresh = whole || m->fresh[u];

		if (whole && (n->unit[u] || gm_mask_meets(&unit, &b->busy)))
			return false;
		if (!gm_mask_meets(&unit, moving))
			continue;
		if (!n->unit[u] && (!fresh || gm_mask_meets(&unit, &b->busy)))
			return false;
	}
	return true;
}

/* (block) Sort the pages wanted into classes; false if something is in the way. */
static bool begin_to_dev(struct gm_txn *t, struct gm_move *m, uint64_t now_ns)
{
	struct gm_block *b = m->block;
	bool dup = t->flags & GM_TXN_DUPLICATE;
	struct gm_mask copy = b->any_dup ? b->node[t->dev->index]->copy : gm_mask_none();
	struct gm_mask here = dup ? copy : gm_block_on_dev(b, t->dev->index);
	struct gm_mask devs = gm_block_on_devs(b);
	struct gm_mask want = gm_mask_sub(gm_mask_and(m->want, b->managed), b->poisoned);
	struct gm_mask moving = gm_mask_sub(want, here);
	struct gm_mask slice = gm_mask_none();

	if (!GM_PLANTED(b->as, GM_PLANT_PIN_MOVE))
		m->pinned = gm_mask_and(moving, b->kept); /* refused, as by the host */
	moving = gm_mask_sub(moving, m->pinned);
	want = gm_mask_sub(want, m->pinned);
	if (!(t->flags & GM_TXN_FORCE))
		slice = gm_slice_pages(&b->slice_cpu, b->as->cfg.slice_ns, now_ns);
	if (blocked(t, m, GM_BLOCKED_BUSY, gm_mask_and(near_pages(b, &want), gm_mask_or(b->busy, b->doomed))) ||
	    blocked(t, m, GM_BLOCKED_ELSEWHERE, gm_mask_and(moving, devs)) ||
	    blocked(t, m, GM_BLOCKED_HELD, gm_mask_and(moving, b->held)) ||
	    blocked(t, m, GM_BLOCKED_SLICE, gm_mask_and(moving, slice)))
		return false;
	if (!frames_fit(t, m, &moving)) {
		t->why = GM_BLOCKED_STALE;
		t->where = b;
		return false;
	}
	m->stay = gm_mask_and(want, here);
	if (dup)
		m->shared = gm_mask_and(moving, b->dup);
	m->host = gm_mask_sub(gm_mask_and(moving, b->host), m->shared);
	if (!dup)
		m->same = gm_mask_and(m->host, copy);
	m->parked = gm_mask_sub(gm_mask_and(moving, b->staged), b->host);
	m->none = gm_mask_sub(gm_mask_sub(moving, b->host), b->staged);
	m->busy = want;
	return true;
}

static bool begin_to_host(struct gm_txn *t, struct gm_move *m, uint64_t now_ns)
{
	struct gm_block *b = m->block;
	struct gm_mask devs = gm_block_on_devs(b);
	struct gm_mask parked = gm_mask_sub(gm_mask_sub(b->staged, devs), b->host);
	struct gm_mask want = gm_mask_and(m->want, gm_mask_or(devs, parked));
	struct gm_mask slice = gm_mask_none();

	want = t->moved ? gm_mask_and(want, b->leaving) : gm_mask_sub(want, b->leaving);
	if (!(t->flags & GM_TXN_FORCE))
		slice = gm_slice_pages(&b->slice_dev, b->as->cfg.slice_ns, now_ns);
	if (blocked(t, m, GM_BLOCKED_BUSY, gm_mask_and(near_pages(b, &m->want), gm_mask_or(b->busy, b->doomed))) ||
	    blocked(t, m, GM_BLOCKED_HELD, gm_mask_and(want, b->held)) ||
	    blocked(t, m, GM_BLOCKED_SLICE, gm_mask_and(want, slice)))
		return false;
	m->devs = gm_mask_and(want, devs);
	m->parked = gm_mask_and(want, parked);
	m->busy = want;
	return true;
}

static bool begin_one(struct gm_txn *t, struct gm_move *m, uint64_t now_ns)
{
	struct gm_block *b = m->block;
	struct gm_as *as = b->as;
	bool ok;

	m->busy = m->stay = m->host = m->parked = m->none = m->devs = m->same = m->shared = gm_mask_none();
	m->hole = m->pinned = m->fixed = m->mapped = m->arrived = gm_mask_none();
	gm_lock(as->env, &b->lock);
	ok = t->dev ? begin_to_dev(t, m, now_ns) : begin_to_host(t, m, now_ns);
	if (ok)
		b->busy = gm_mask_or(b->busy, m->busy);
	else
		t->until_ns = (now_ns / as->cfg.slice_ns + 1) * as->cfg.slice_ns;
	gm_unlock(as->env, &b->lock);
	return ok;
}

/* Nothing moves to a device while a fork is under way. */
bool gm_txn_enter_moving(struct gm_as *as)
{
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = !as->frozen;
	if (ok)
		as->moving++;
	gm_unlock(as->env, &as->lock);
	return ok;
}

void gm_txn_leave_moving(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->moving--;
	gm_unlock(as->env, &as->lock);
	gm_wake(as->env, &as->waitq);
}

/* (block) Somebody waits for pages that are free again: the worker sees to it. */
static bool release_busy(struct gm_block *b, const struct gm_mask *busy)
{
	b->busy = gm_mask_sub(b->busy, *busy);
	/* a doomed page may have been left alone because a neighbour in its granule was busy */
	return gm_mask_meets(&b->wanted, busy) || b->is_doomed;
}

/* (block) Some page is in it, or may be on its way into it; or a working set holds it: its release comes here again. */
static bool chunk_in_use(const struct gm_block *b, const struct gm_bnode *n, const struct gm_chunk *c)
{
	unsigned first = c->first / GM_UNIT_PAGES, end = first + (1u << c->order);

	_Static_assert(GM_UNIT_PAGES == 16, "four units in a word");
	for (unsigned u = first; u < end; u++)
		if ((n->resident.w[u / 4] | b->busy.w[u / 4] | (b->any_dup ? n->copy.w[u / 4] : 0)) >> (u % 4 * 16) & 0xffff)
			return true;
	return c->holds > 0;
}

/* (block) Units without any such page, of those that have frames: few or none at most times. */
static uint32_t units_empty(const struct gm_block *b, unsigned dev)
{
	struct gm_mask some = gm_mask_or(b->node[dev]->resident, b->busy);

	if (b->any_dup)
		some = gm_mask_or(some, b->node[dev]->copy);
	return b->backed[dev] & ~gm_mask_units(&some);
}

/* (block) Is there anything to free? */
static bool any_empty(const struct gm_block *b)
{
	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		const struct gm_bnode *n = b->node[i];

		if (!b->backed[i])
			continue;
		for (uint32_t left = units_empty(b, i); left; left &= left - 1)
			if (!chunk_in_use(b, n, n->unit[__builtin_ctz(left)]))
				return true;
	}
	return false;
}

/* (block) Take chunks out of the table that no page is in, nor on its way into. */
static size_t collect_empty(struct gm_block *b, unsigned dev, struct gm_chunk **empty)
{
	struct gm_bnode *n = b->node[dev];
	size_t count = 0;

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		struct gm_chunk *c = n->unit[u];

		if (!c || c->first / GM_UNIT_PAGES != u || chunk_in_use(b, n, c))
			continue;
		for (unsigned k = 0; k < 1u << c->order; k++) {
			n->unit[u + k] = NULL;
			b->backed[dev] &= ~(UINT32_C(1) << (u + k));
		}
		empty[count++] = c;
	}
	return count;
}

/* The law's step 7: no transaction reads the old frames any more. */
static void free_frames(struct gm_block *b)
{
	struct gm_as *as = b->as;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		struct gm_chunk *empty[GM_BLOCK_UNITS];
		size_t n = 0;

		if (!atomic_load_explicit(&b->has_node[i], memory_order_acquire))
			continue;
		gm_lock(as->env, &b->lock);
		n = collect_empty(b, i, empty);
		gm_unlock(as->env, &b->lock);
		while (n)
			gm_node_put(&as->lib->devs[i]->node, empty[--n]);
	}
}

/* What is left to do when pages are free again. */
struct ending {
	bool work, idle, empty;
};

/* (block) Busy no more; `served`: the pages that accesses of `side` were given, which keeps them for a slice. */
static struct ending end_pages(struct gm_block *b, const struct gm_mask *busy, const struct gm_mask *served,
			       struct gm_slice *side, uint64_t now_ns)
{
	struct ending e;

	e.work = release_busy(b, busy);
	b->used_ns = now_ns;
	if (!gm_mask_empty(served))
		gm_slice_serve(side, b->as->cfg.slice_ns, now_ns, served);
	e.idle = (b->watched || b->has_slot) && gm_block_all_host(b);
	e.empty = any_empty(b);
	return e;
}

/* (unlocked) */
static void finish(struct gm_block *b, struct ending e, uint64_t now_ns, gm_ret_t ret)
{
	struct gm_as *as = b->as;

	if (e.empty)
		free_frames(b);
	if (!GM_PLANTED(as, GM_PLANT_LOSE_WAKE)) {
		gm_wake(as->env, &b->waitq);
		if (e.work)
			gm_work_queue(b, ret ? gm_deadline_after_ns(now_ns, GM_WORK_RETRY_NS) : 0);
	}
	if (e.idle && !e.work)
		gm_work_queue(b, gm_deadline_after_ns(now_ns, GM_WORK_IDLE_NS));
	gm_pack_stirred(as);
}

/* `drop`: take apart what was doomed meanwhile, else that is left to the worker. `now_ns`: the time if known, else 0. */
static void end_one(struct gm_move *m, bool to_dev, uint64_t deadline_ns, bool drop, uint64_t now_ns)
{
	struct gm_block *b = m->block;
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_mask served = gm_mask_and(m->waiters, gm_mask_or(m->arrived, m->stay));
	struct ending e;

	for (;;) {
		struct gm_mask doomed;

		gm_lock(as->env, &b->lock);
		if (!gm_mask_meets(&m->busy, &b->doomed) || ret || !drop)
			break; /* if a device would not let go, the pages stay doomed: the worker tries again */
		doomed = gm_mask_and(m->busy, b->doomed);
		gm_unlock(as->env, &b->lock);
		ret = gm_take_apart(b, &doomed, deadline_ns);
		now_ns = 0; /* that may have taken long */
	}
	if (!now_ns)
		now_ns = gm_now_ns(as->env);
	e = end_pages(b, &m->busy, &served, to_dev ? &b->slice_dev : &b->slice_cpu, now_ns);
	gm_unlock(as->env, &b->lock);
	m->busy = gm_mask_none();
	finish(b, e, now_ns, ret);
}

gm_ret_t gm_txn_begin(struct gm_txn *t)
{
	return gm_txn_begin_at(t, gm_now_ns(t->as->env));
}

gm_ret_t gm_txn_begin_at(struct gm_txn *t, uint64_t now_ns)
{
	t->ret = GM_RET_SUCCESS;
	t->why = GM_BLOCKED_NOT;
	t->where = NULL;
	t->now_ns = 0;
	t->refused = gm_mask_none();
	if (t->dev && !gm_txn_enter_moving(t->as)) {
		t->why = GM_BLOCKED_FROZEN;
		return GM_RET_AGAIN;
	}
	for (size_t i = 0; i < t->moves; i++) {
		if (begin_one(t, &t->move[i], now_ns))
			continue;
		while (i--) {
			t->move[i].stay = gm_mask_none(); /* nobody was served */
			end_one(&t->move[i], t->dev, t->deadline_ns, false, now_ns);
		}
		if (t->dev)
			gm_txn_leave_moving(t->as);
		return GM_RET_AGAIN;
	}
	return GM_RET_SUCCESS;
}

/* Until one of them has content again that is known of, or it is time to look again. */
static void pause_zap(struct gm_txn *t)
{
	uint64_t until_ns = t->until_ns < t->deadline_ns ? t->until_ns : t->deadline_ns;
	struct gm_block *b = t->where;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(t->as->env, &b->lock);
	while (!ret && !gm_mask_meets(&b->host, &t->what))
		ret = gm_wait(t->as->env, &b->waitq, &b->lock, until_ns);
	gm_unlock(t->as->env, &b->lock);
}

void gm_txn_end(struct gm_txn *t)
{
	for (size_t i = 0; i < t->moves; i++)
		end_one(&t->move[i], t->dev, t->deadline_ns, !(t->flags & GM_TXN_INLINE), t->now_ns);
	if (t->dev)
		gm_txn_leave_moving(t->as);
	if (t->why == GM_BLOCKED_ZAP)
		pause_zap(t);
}

static gm_ret_t wait_thaw(struct gm_txn *t)
{
	struct gm_as *as = t->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(as->env, &as->lock);
	while (as->frozen && !ret)
		ret = gm_wait(as->env, &as->waitq, &as->lock, t->deadline_ns);
	gm_unlock(as->env, &as->lock);
	return ret;
}

/* (block) Is it still in the way? */
static bool still_blocked(const struct gm_txn *t, const struct gm_block *b)
{
	struct gm_mask now = gm_mask_or(b->busy, b->doomed);

	return t->why == GM_BLOCKED_HELD ? gm_mask_meets(&b->held, &t->what) : gm_mask_meets(&now, &t->what);
}

gm_ret_t gm_txn_wait(struct gm_txn *t)
{
	struct gm_block *b = t->where;
	struct gm_env *env = t->as->env;
	uint64_t until_ns = t->deadline_ns;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (t->why == GM_BLOCKED_FROZEN)
		return wait_thaw(t);
	if (t->why == GM_BLOCKED_ELSEWHERE || t->why == GM_BLOCKED_STALE)
		return gm_now_ns(env) < t->deadline_ns ? GM_RET_SUCCESS : GM_RET_TIMEDOUT;
	if (t->why == GM_BLOCKED_SLICE) {
		gm_stat_add(t->as, GM_STAT_slice_waits, 1);
		if (t->until_ns < until_ns)
			until_ns = t->until_ns;
	}
	gm_lock(env, &b->lock);
	while (!ret && (t->why == GM_BLOCKED_SLICE || still_blocked(t, b)))
		ret = gm_wait(env, &b->waitq, &b->lock, until_ns);
	gm_unlock(env, &b->lock);
	return t->why == GM_BLOCKED_SLICE && gm_now_ns(env) < t->deadline_ns ? GM_RET_SUCCESS : ret;
}

gm_ret_t gm_txn_run(struct gm_txn *t)
{
	gm_ret_t ret;

	while (gm_txn_begin(t)) {
		if (gm_txn_wait(t))
			return gm_fail(t->why == GM_BLOCKED_HELD ? GM_RET_BUSY : GM_RET_TIMEDOUT,
				       "pages near 0x%llx are %s", (unsigned long long)(t->where ? t->where->va : 0),
				       t->why == GM_BLOCKED_HELD ? "held by a working set" : "busy and did not become free in time");
		if (t->why == GM_BLOCKED_ELSEWHERE || t->why == GM_BLOCKED_STALE)
			return GM_RET_AGAIN;
	}
	ret = t->dev ? gm_txn_to_dev(t) : gm_txn_to_host(t);
	gm_txn_end(t);
	return ret;
}

gm_ret_t gm_move_home(struct gm_block *b, const struct gm_mask *pages, uint32_t flags, uint64_t deadline_ns)
{
	struct gm_move m = { .block = b, .want = *pages };
	struct gm_txn t = { .as = b->as, .flags = flags, .deadline_ns = deadline_ns, .move = &m, .moves = 1 };
	gm_ret_t ret;

	ret = gm_txn_run(&t);
	return ret == GM_RET_IO ? gm_fail(ret, "pages near 0x%llx could not be copied from a device",
					  (unsigned long long)b->va) : ret;
}

void gm_txn_fail(struct gm_txn *t, gm_ret_t ret)
{
	if (!t->ret)
		t->ret = ret;
}

bool gm_txn_let_reader_run(struct gm_txn *t)
{
	return !(t->flags & GM_TXN_INLINE) && gm_now_ns(t->as->env) < t->deadline_ns && gm_events_let_run(t->as);
}

/* (block) Their frames are given back when the transaction ends. */
static void leave_devs(struct gm_block *b, const struct gm_mask *pages)
{
	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		if (!b->node[i] || !gm_mask_meets(&b->node[i]->resident, pages)) /* what is dirty is resident */
			continue;
		b->node[i]->resident = gm_mask_sub(b->node[i]->resident, *pages);
		b->node[i]->dirty = gm_mask_sub(b->node[i]->dirty, *pages);
	}
}

static void now_host(struct gm_block *b, const struct gm_mask *pages)
{
	b->host = gm_mask_or(b->host, gm_mask_and(*pages, b->managed));
	b->failed = gm_mask_sub(b->failed, *pages);
	gm_block_share(b, pages);
	if (gm_mask_meets(&b->staged, pages)) /* all of it, or it is whole no more */
		b->huge = false;
	b->staged = gm_mask_sub(b->staged, *pages);
}

void gm_commit_host(struct gm_block *b, const struct gm_mask *back)
{
	gm_lock(b->as->env, &b->lock);
	leave_devs(b, back);
	now_host(b, back);
	gm_unlock(b->as->env, &b->lock);
}

static void now_none(struct gm_block *b, const struct gm_mask *pages)
{
	b->host = gm_mask_sub(b->host, *pages);
	if (gm_mask_meets(&b->staged, pages))
		b->huge = false;
	b->staged = gm_mask_sub(b->staged, *pages);
	b->poisoned = gm_mask_sub(b->poisoned, *pages);
	b->failed = gm_mask_sub(b->failed, *pages);
	gm_block_share(b, pages);
	b->doomed = gm_mask_sub(b->doomed, *pages);
	gm_block_count_doomed(b);
}

gm_ret_t gm_take_apart(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask staged;
	gm_ret_t ret = gm_plan_revoke(b, pages, deadline_ns, false);

	if (ret)
		return ret;
	gm_lock(as->env, &b->lock);
	staged = gm_mask_and(b->staged, *pages);
	gm_unlock(as->env, &b->lock);
	GM_MASK_FOR_RUN(&staged, first, end)
		gm_hal_slot_drop(as->host, as->hpmap, b->slot + (uint64_t)first * GM_PAGE_BYTES,
				 (uint64_t)(end - first) * GM_PAGE_BYTES);
	gm_lock(as->env, &b->lock);
	gm_ws_drop_pages(b, pages);
	leave_devs(b, pages);
	gm_dup_forget(b, pages);
	now_none(b, pages);
	gm_unlock(as->env, &b->lock);
	gm_stat_add(as, GM_STAT_pages_dropped, gm_mask_count(pages));
	return GM_RET_SUCCESS;
}

void gm_txn_release(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_move m = { .block = b, .busy = *pages };

	end_one(&m, false, 0, false, 0);
}

void gm_txn_release_unmoved(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_mask none = gm_mask_none();
	struct ending e;

	gm_lock(b->as->env, &b->lock);
	e = end_pages(b, pages, &none, &b->slice_dev, b->used_ns);
	gm_unlock(b->as->env, &b->lock);
	finish(b, e, e.idle ? gm_now_ns(b->as->env) : 0, GM_RET_SUCCESS);
}

void gm_txn_end_home(struct gm_block *b, const struct gm_mask *busy, const struct gm_mask *back, unsigned page,
		     uint64_t now_ns)
{
	struct gm_mask served = gm_mask_span(page, page + 1);
	struct ending e;

	served = gm_mask_and(served, *back);
	gm_lock(b->as->env, &b->lock);
	leave_devs(b, back);
	now_host(b, back);
	e = end_pages(b, busy, &served, &b->slice_cpu, now_ns);
	gm_unlock(b->as->env, &b->lock);
	finish(b, e, now_ns, GM_RET_SUCCESS);
}

void gm_drop_doomed(struct gm_block *b)
{
	struct gm_move m = { .block = b };
	struct gm_env *env = b->as->env;

	gm_lock(env, &b->lock);
	m.busy = gm_mask_sub(b->doomed, near_pages(b, &b->busy));
	b->busy = gm_mask_or(b->busy, m.busy);
	gm_unlock(env, &b->lock);
	if (!gm_mask_empty(&m.busy))
		end_one(&m, false, gm_deadline_ns(env, b->as->cfg.wait_ns), true, 0);
}
