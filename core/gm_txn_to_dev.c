/* SPDX-License-Identifier: MIT */
/*
 * To a device. The order is the law of docs/design.md; why each part stands
 * where it does was found by breaking it:
 *
 *   2a revoke   every device mapping of the pages that will move. First, because
 *               a device access may be waiting for us inside the host's step.
 *   2b steal    the host last: it may refuse single pages (pinned, locked), and
 *               those leave the plan here, before anything was copied.
 *   3  copy     slot -> frames; holes and pages without content are zeroed, so
 *               that nobody sees what the frames held before.
 *   4  commit   residency.
 *   5  map      on the device that asked.
 *
 * Duplicating (GM_TXN_DUPLICATE) steals and copies as well, and then gives the pages back, protected, before it records
 * anything (gm_dup.c). A page of which the device has a duplicate is stolen, but not copied: from the moment in which
 * its mappings are gone to the one in which it is stolen nobody can have written to it.
 *
 * Point of no return: commit. A failure before it (watch, slot, copy) parks the
 * stolen pages (their bytes are in the slot, nowhere else) and restores them
 * to the host; whatever cannot be restored at once stays parked, which is a
 * state like others: the next access of either side finds the bytes in the slot.
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_mirror.h"

/* (unlocked) Not all of these pages are managed any more. */
static bool is_fewer(struct gm_block *b, unsigned first, unsigned end)
{
	struct gm_mask pages = gm_mask_span(first, end);

	gm_lock(b->as->env, &b->lock);
	pages = gm_mask_sub(pages, b->managed);
	gm_unlock(b->as->env, &b->lock);
	return !gm_mask_empty(&pages);
}

/* Register one run; AGAIN: part of it is not there any more, look at the block anew. */
static gm_ret_t watch_run(struct gm_txn *t, struct gm_block *b, unsigned first, unsigned end, bool stores)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va + (uint64_t)first * GM_PAGE_BYTES, bytes = (uint64_t)(end - first) * GM_PAGE_BYTES;

	for (unsigned refused = 0;;) {
		gm_ret_t ret = stores ? gm_hal_watch_stores(as->host, as->hpmap, va, bytes)
				      : gm_hal_watch(as->host, as->hpmap, va, bytes), gone;

		if (ret == GM_RET_FAULT || ret == GM_RET_NOTSUP) {
			gone = gm_events_forget_gone(as, b, va, va + bytes);
			if (gone == GM_RET_SUCCESS || gone == GM_RET_NOMEM)
				return gone ? gone : GM_RET_AGAIN;
			/* All of it is there now? Then something else was a moment ago. */
			ret = gone == GM_RET_AGAIN || refused++ < 2 ? GM_RET_AGAIN : ret;
		}
		if (ret == GM_RET_AGAIN && is_fewer(b, first, end)) /* an event told of it */
			return GM_RET_AGAIN;
		if (ret != GM_RET_AGAIN)
			return ret;
		if (!gm_txn_let_reader_run(t))
			return gm_fail(GM_RET_TIMEDOUT, "events of 0x%llx were not read in time", (unsigned long long)b->va);
	}
}

/* Register what the block has of managed memory, run by run. */
static gm_ret_t watch(struct gm_txn *t, struct gm_block *b)
{
	struct gm_as *as = b->as;
	bool watched = false, stores = t->flags & GM_TXN_DUPLICATE;
	gm_ret_t ret;

	do {
		struct gm_mask managed;
		unsigned renewed;

		ret = GM_RET_SUCCESS;
		gm_lock(as->env, &b->lock);
		watched = b->watched && (b->stores || !stores);
		managed = b->managed;
		renewed = b->renewed;
		b->registered = gm_mask_or(b->registered, managed);
		b->watching += !watched;
		gm_unlock(as->env, &b->lock);
		if (watched)
			break;
		for (unsigned first = 0, end; !ret && gm_mask_next_run(&managed, &first, &end); first = end)
			ret = watch_run(t, b, first, end, stores);
		gm_lock(as->env, &b->lock);
		b->watching--;
		if (!ret && b->renewed == renewed) { /* nothing was adopted behind our back */
			b->watched = watched = true;
			b->stores |= stores;
		}
		gm_unlock(as->env, &b->lock);
		gm_wake(as->env, &b->waitq); /* who wants to stop watching what was released meanwhile */
	} while (!watched && (!ret || ret == GM_RET_AGAIN));
	return ret;
}

static gm_ret_t need_slot(struct gm_block *b)
{
	struct gm_as *as = b->as;
	uint64_t slot;
	bool has, used = false;
	gm_ret_t ret;

	gm_lock(as->env, &b->lock);
	has = b->has_slot;
	gm_unlock(as->env, &b->lock);
	if (has)
		return GM_RET_SUCCESS;
	ret = gm_hal_share_slot(as->host, as->hpmap, b->va, &slot);
	if (ret == GM_RET_NOENT)
		ret = gm_hal_slot_alloc(as->host, as->hpmap, &slot);
	if (ret)
		return gm_fail(ret, "no staging memory for 0x%llx", (unsigned long long)b->va);
	gm_lock(as->env, &b->lock);
	if (!b->has_slot) {
		b->slot = slot;
		b->has_slot = used = true;
	}
	gm_unlock(as->env, &b->lock);
	if (!used)
		gm_hal_slot_free(as->host, as->hpmap, slot);
	return GM_RET_SUCCESS;
}

/* Between one look and the next, at least. */
#define ZAP_PAUSE_NS (UINT64_C(10) * 1000)

/*
 * madvise(MADV_FREE) reports the same event as MADV_DONTNEED but may leave the
 * page where it is, and the program may write to it again without a fault. So
 * a page without content that is present after all is one of two things: about
 * to be zapped, or alive. The zap follows its event at once; what is still
 * there long after is alive, and is stolen like any other.
 */
static void recheck_none(struct gm_txn *t, struct gm_move *m)
{
	struct gm_block *b = m->block;
	struct gm_as *as = b->as;
	struct gm_mask present, alive, pending;
	uint64_t now_ns;
	gm_ret_t ret;

	if (GM_PLANTED(as, GM_PLANT_FREED_LOST) || gm_mask_empty(&m->none))
		return;
	ret = gm_hal_mem_present(as->host, as->hpmap, b->va, &present);
	if (ret == GM_RET_FAULT) /* nothing is mapped in the block */
		return;
	if (ret) { /* it cannot be told now which of them are alive */
		m->none = gm_mask_none();
		gm_txn_fail(t, ret);
		return;
	}
	alive = gm_mask_and(m->none, present);
	if (gm_mask_empty(&alive))
		return;
	now_ns = gm_now_ns(as->env);
	gm_lock(as->env, &b->lock);
	pending = gm_zap_pending(&b->zap, now_ns);
	t->until_ns = now_ns + ZAP_PAUSE_NS + (now_ns > b->doomed_ns ? now_ns - b->doomed_ns : 0) / 4;
	gm_unlock(as->env, &b->lock);
	if (gm_mask_meets(&alive, &pending) && !GM_PLANTED(as, GM_PLANT_ZAP_EARLY)) {
		m->none = gm_mask_sub(m->none, alive); /* next time */
		t->why = GM_BLOCKED_ZAP;
		t->where = b;
		t->what = gm_mask_and(alive, pending);
		gm_txn_fail(t, GM_RET_AGAIN);
		return;
	}
	m->none = gm_mask_sub(m->none, alive);
	m->host = gm_mask_or(m->host, alive);
}

gm_ret_t gm_txn_need_host(struct gm_txn *t, struct gm_block *b)
{
	gm_ret_t ret = watch(t, b);

	return ret ? ret : need_slot(b);
}

/* Pages that turned out to be gone: busy until the end, when they are dropped. */
static void leave_gone(struct gm_move *m)
{
	struct gm_block *b = m->block;

	gm_lock(b->as->env, &b->lock);
	m->host = gm_mask_and(m->host, b->managed);
	m->none = gm_mask_and(m->none, b->managed);
	m->shared = gm_mask_and(m->shared, b->managed);
	gm_unlock(b->as->env, &b->lock);
}

static gm_ret_t prepare(struct gm_txn *t, struct gm_move *m)
{
	struct gm_mask moving = gm_mask_or(gm_mask_or(m->host, m->parked), m->none);
	gm_ret_t ret;

	if (gm_mask_empty(&moving))
		return GM_RET_SUCCESS;
	ret = gm_plan_revoke(m->block, &moving, t->deadline_ns, false);
	if (!ret)
		gm_dup_give_up(m->block, &moving);
	if (!ret)
		ret = gm_txn_need_host(t, m->block);
	if (!ret) {
		leave_gone(m);
		recheck_none(t, m);
		gm_mirror_leave_held(m);
	}
	return ret;
}

/* (block) What the host gave is in the slot and nowhere else. */
static void park(struct gm_move *m, const struct gm_host_steal *s)
{
	struct gm_block *b = m->block;
	struct gm_mask frames = gm_mask_sub(s->moved, s->hole), refused;

	/* One that was without content until recheck_none(), and stays, is the host's: a device has it in place, or never. */
	refused = gm_mask_and(gm_mask_and(gm_mask_or(s->pinned, s->fixed), b->managed), m->busy);
	b->host = gm_mask_or(gm_mask_sub(b->host, s->moved), refused);
	b->staged = gm_mask_or(b->staged, frames);
	b->huge |= s->huge;
	m->parked = gm_mask_or(m->parked, frames);
	m->hole = gm_mask_or(m->hole, s->hole);
	m->pinned = gm_mask_or(m->pinned, s->pinned);
	m->fixed = gm_mask_or(m->fixed, s->fixed);
}

/*
 * (block) Not stolen after all: what was doomed is without content and taken apart at
 * the end; what was moved away (mremap) is where it is now.
 */
static void give_up(struct gm_move *m, struct gm_mask pages)
{
	m->block->host = gm_mask_sub(m->block->host, pages);
	m->none = gm_mask_or(m->none, gm_mask_and(pages, m->block->doomed));
}

gm_ret_t gm_txn_steal(struct gm_block *b, struct gm_mask *want, struct gm_host_steal *out)
{
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	gm_lock(as->env, &b->lock);
	*want = gm_mask_sub(gm_mask_and(*want, b->managed), b->doomed);
	gm_unlock(as->env, &b->lock);
	if (!gm_mask_empty(want))
		ret = gm_hal_steal(as->host, as->hpmap, b->va, want, b->slot, out);
	gm_events_release_reader(as);
	return ret;
}

/* Behind the guard: `give` of one page. */
static gm_ret_t give_page(struct gm_block *b, unsigned page,
			  gm_ret_t (*give)(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t bytes, uint64_t *done))
{
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_FAULT;
	uint64_t done;
	bool ours;

	if (!gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	gm_lock(as->env, &b->lock);
	ours = (gm_mask_test(&b->managed, page) || gm_mask_test(&b->edge, page)) && !gm_mask_test(&b->doomed, page);
	gm_unlock(as->env, &b->lock);
	if (ours)
		ret = give(as->host, as->hpmap, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_PAGE_BYTES, &done);
	gm_events_release_reader(as);
	return ret;
}

gm_ret_t gm_txn_zero(struct gm_block *b, unsigned page)
{
	return give_page(b, page, gm_hal_zero);
}

gm_ret_t gm_txn_unmark(struct gm_block *b, unsigned page)
{
	return give_page(b, page, gm_hal_unmark);
}

/* 2b */
static gm_ret_t steal(struct gm_txn *t, struct gm_move *m)
{
	struct gm_as *as = m->block->as;
	struct gm_mask want = m->host, tried = gm_mask_none();
	uint64_t start = gm_now_ns(as->env);
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!gm_mask_empty(&want)) {
		struct gm_host_steal s = { .huge = false };
		struct gm_mask before = want, again;

		ret = gm_txn_steal(m->block, &want, &s);
		again = gm_dup_let_steal(m->block, &s.pinned, &tried);
		s.pinned = gm_mask_sub(s.pinned, again);
		m->same = gm_mask_sub(m->same, again); /* may be written to from here on */
		gm_lock(as->env, &m->block->lock);
		park(m, &s);
		give_up(m, gm_mask_sub(before, want));
		gm_unlock(as->env, &m->block->lock);
		want = gm_mask_sub(gm_mask_sub(gm_mask_sub(want, s.moved), s.pinned), s.fixed);
		if (!ret && !gm_mask_empty(&again))
			continue;
		if (ret != GM_RET_AGAIN)
			break;
		if (!gm_txn_let_reader_run(t)) {
			ret = gm_fail(GM_RET_TIMEDOUT, "events of 0x%llx were not read in time",
				      (unsigned long long)m->block->va);
			break;
		}
	}
	m->host = gm_mask_none(); /* parked, hole, or refused: the latter are as they were */
	gm_stat_add(as, GM_STAT_pages_refused, gm_mask_count(&m->pinned) + gm_mask_count(&m->fixed));
	gm_stat_time(as, GM_STAT_ns_steal, start);
	return ret;
}

/*
 * A device maps whole granules: a page that was refused takes its neighbours
 * out of the plan, back to the host.
 */
static void leave_plan(struct gm_txn *t, struct gm_move *m)
{
	struct gm_mask refused = gm_mask_or(m->pinned, m->fixed);
	struct gm_mask leave, back = gm_mask_none();
	uint64_t now_ns;

	leave = gm_mask_sub(gm_mask_grow(&refused, t->dev->hal->granule_bytes / GM_PAGE_BYTES), refused);
	leave = gm_mask_and(leave, m->busy);
	if (gm_mask_empty(&leave))
		return;
	back = gm_mask_and(m->hole, leave);
	m->hole = gm_mask_sub(m->hole, leave);
	m->none = gm_mask_sub(m->none, leave);
	m->stay = gm_mask_sub(m->stay, leave);
	m->shared = gm_mask_sub(m->shared, leave);
	leave = gm_mask_and(m->parked, leave);
	m->parked = gm_mask_sub(m->parked, leave);
	now_ns = gm_now_ns(t->as->env);
	gm_txn_restore(t, m->block, &leave, &back, &now_ns);
	gm_commit_host(m->block, &back);
}

void gm_txn_future_frames(const struct gm_txn *t, const struct gm_move *m, struct gm_frame_map *map)
{
	struct gm_env *env = m->block->as->env;

	gm_lock(env, &m->block->lock);
	gm_block_frames(m->block, t->dev->index, map);
	gm_unlock(env, &m->block->lock);
	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++)
		for (unsigned k = 0; m->fresh[u] && k < 1u << m->fresh[u]->order; k++)
			if (!map->unit_pa[u + k])
				map->unit_pa[u + k] = m->fresh[u]->pa + (uint64_t)k * GM_UNIT_BYTES;
}

/* 3, for all blocks in one plan */
static gm_ret_t copy(struct gm_txn *t, uint64_t *now_ns)
{
	struct gm_as *as = t->as;
	uint64_t pages = 0;
	struct gm_plan plan;
	gm_ret_t ret;

	gm_plan_init(&plan, as, t->dev->hal, t->deadline_ns);
	for (size_t i = 0; i < t->moves; i++) {
		struct gm_move *m = &t->move[i];
		struct gm_mask bytes = gm_mask_sub(gm_mask_sub(m->parked, m->discard), m->same);
		struct gm_mask zero = gm_mask_or(gm_mask_or(m->none, m->hole), gm_mask_and(m->parked, m->discard));
		struct gm_frame_map frames;

		if (gm_mask_empty(&bytes) && gm_mask_empty(&zero))
			continue;
		gm_txn_future_frames(t, m, &frames);
		gm_plan_copy(&plan, GM_COPY_TO_DEV, &bytes, &frames, m->block->slot);
		if (!GM_PLANTED(as, GM_PLANT_SKIP_ZERO))
			gm_plan_copy(&plan, GM_COPY_ZERO, &zero, &frames, 0);
		pages += gm_mask_count(&bytes);
		gm_stat_add(as, GM_STAT_pages_zeroed, gm_mask_count(&zero));
	}
	ret = gm_plan_run(&plan);
	if (!ret)
		gm_stat_add(as, GM_STAT_bytes_to_dev, pages * GM_PAGE_BYTES);
	gm_stat_lap(as, GM_STAT_ns_copy, now_ns);
	return ret ? gm_fail_join(ret, "device ", t->dev->hal->caps.name, ": copy failed: ", gm_ret_text(ret)) : ret;
}

void gm_txn_settle_frames(struct gm_txn *t, struct gm_move *m)
{
	struct gm_bnode *n = m->block->node[t->dev->index];

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		struct gm_chunk *c = m->fresh[u];
		struct gm_mask pages;

		if (!c)
			continue;
		pages = gm_mask_span(u * GM_UNIT_PAGES, u * GM_UNIT_PAGES + (GM_UNIT_PAGES << c->order));
		if (!gm_mask_meets(&pages, &m->arrived) || n->unit[u])
			continue;
		gm_node_settle(&t->dev->node, c, m->block, u * GM_UNIT_PAGES);
		for (unsigned k = 0; k < 1u << c->order; k++) {
			n->unit[u + k] = c;
			m->block->backed[t->dev->index] |= UINT32_C(1) << (u + k);
		}
		m->fresh[u] = NULL;
	}
}

/* 4 */
static void commit_dev(struct gm_txn *t, struct gm_move *m)
{
	struct gm_block *b = m->block;
	struct gm_as *as = b->as;
	struct gm_mask written = gm_mask_none();
	struct gm_bnode *n;

	m->arrived = gm_mask_or(gm_mask_or(m->parked, m->hole), m->none);
	if (!GM_PLANTED(as, GM_PLANT_WRITE_CLEAN))
		written = gm_mask_and(gm_mask_or(m->arrived, m->stay), m->write);
	gm_lock(as->env, &b->lock);
	n = b->node[t->dev->index];
	n->resident = gm_mask_or(n->resident, m->arrived);
	b->host = gm_mask_sub(b->host, m->arrived); /* adopted anew meanwhile */
	n->dirty = gm_mask_or(n->dirty, gm_mask_sub(m->arrived, b->staged));
	n->dirty = gm_mask_or(n->dirty, written);
	n->dirty = gm_mask_or(n->dirty, gm_mask_and(m->arrived, m->discard)); /* zeroed instead of copied */
	if (t->flags & GM_TXN_EXCLUSIVE) {
		b->exclusive = gm_mask_or(b->exclusive, gm_mask_and(gm_mask_or(m->arrived, m->stay), m->write));
		b->any_exclusive = !gm_mask_empty(&b->exclusive);
	}
	gm_txn_settle_frames(t, m);
	gm_unlock(as->env, &b->lock);
	if (!gm_mask_empty(&m->arrived)) {
		gm_stat_add(as, GM_STAT_migrations_to_dev, 1);
		gm_stat_add(as, GM_STAT_pages_to_dev, gm_mask_count(&m->arrived));
	}
}

/* Exclusive backing: the host's frames go, the device copy is the only one. */
static void give_frames_back(struct gm_move *m, struct gm_dev *dev)
{
	struct gm_block *b = m->block;
	struct gm_as *as = b->as;
	struct gm_mask frames;

	gm_lock(as->env, &b->lock);
	frames = gm_mask_and(b->staged, m->arrived);
	b->staged = gm_mask_sub(b->staged, frames);
	b->node[dev->index]->dirty = gm_mask_or(b->node[dev->index]->dirty, frames);
	b->huge = false;
	gm_unlock(as->env, &b->lock);
	GM_MASK_FOR_RUN(&frames, first, end)
		gm_hal_slot_drop(as->host, as->hpmap, b->slot + (uint64_t)first * GM_PAGE_BYTES,
				 (uint64_t)(end - first) * GM_PAGE_BYTES);
}

/* 5, for all blocks in one plan. *changed: of some, the rights may be others by now: they stay as they are, unmapped. */
static gm_ret_t map(struct gm_txn *t, bool *changed)
{
	struct gm_as *as = t->as;
	uint64_t start = gm_now_ns(as->env);
	struct gm_plan plan;
	gm_ret_t ret;

	/* Recorded before it is done: a revocation of what was never entered is harmless, the reverse is not. */
	gm_plan_init(&plan, as, t->dev->hal, t->deadline_ns);
	for (size_t i = 0; i < t->moves; i++) {
		struct gm_move *m = &t->move[i];
		struct gm_block *b = m->block;
		struct gm_mask pages = gm_mask_and(gm_mask_or(m->arrived, m->stay), m->map), write;
		struct gm_bmap *bmap = b->map[t->ctx->index];
		struct gm_mask doubtful;
		struct gm_frame_map frames;

		pages = gm_mask_shrink(&pages, t->dev->hal->granule_bytes / GM_PAGE_BYTES);
		if (gm_mask_empty(&pages))
			continue;
		gm_lock(as->env, &b->lock);
		if (!gm_rights_same(&as->rights, b->va, m->rights)) {
			gm_unlock(as->env, &b->lock);
			*changed = true;
			continue;
		}
		write = gm_mask_and(pages, gm_mask_or(m->write, bmap->write)); /* rights only grow */
		m->mapped = gm_mask_and(pages, bmap->read);
		bmap->read = gm_mask_or(bmap->read, pages);
		bmap->write = gm_mask_or(bmap->write, write);
		doubtful = gm_plan_take_doubt(b, t->ctx->index, &pages);
		gm_block_frames(b, t->dev->index, &frames);
		gm_unlock(as->env, &b->lock);
		pages = gm_mask_sub(pages, write);
		gm_plan_settle(&plan, t->ctx, b, &doubtful);
		gm_plan_enter(&plan, t->ctx, b, &pages, &frames, false);
		gm_plan_enter(&plan, t->ctx, b, &write, &frames, true);
	}
	ret = gm_plan_run(&plan);
	gm_stat_time(as, GM_STAT_ns_map, start);
	return ret ? gm_fail(ret, "device %s: mapping failed: %s", t->dev->hal->caps.name, gm_ret_text(ret)) : ret;
}

/*
 * Mapping failed half-way: which pages are entered is not known, so none is. Those that were mapped
 * before are so still (a working set may hold them), with the old rights or the new ones.
 */
static void unmap(struct gm_txn *t)
{
	for (size_t i = 0; i < t->moves; i++) {
		struct gm_move *m = &t->move[i];
		struct gm_mask pages = gm_mask_and(gm_mask_or(m->arrived, m->stay), m->map);
		gm_ret_t ret;

		gm_plan_doubt(m->block, t->ctx->index, &m->mapped);
		pages = gm_mask_sub(pages, m->mapped);
		ret = gm_plan_revoke(m->block, &pages, t->deadline_ns, false);
		if (ret) /* they stay recorded as mapped, and are revoked before anything else happens to them */
			gm_log(t->as->env, GM_LOG_WARN, "mappings at 0x%llx could not be undone: %s",
			       (unsigned long long)m->block->va, gm_ret_text(ret));
	}
}

/* Before the point of no return: put back what the host gave. */
static void undo(struct gm_txn *t)
{
	for (size_t i = 0; i < t->moves; i++) {
		struct gm_move *m = &t->move[i];
		struct gm_mask back = gm_mask_none();

		gm_txn_restore(t, m->block, &m->parked, &back, &t->now_ns);
		back = gm_mask_or(back, m->hole); /* a hole is HOST again without doing anything */
		gm_commit_host(m->block, &back);
	}
	gm_stat_add(t->as, GM_STAT_aborts, 1);
}

gm_ret_t gm_txn_to_dev(struct gm_txn *t)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	bool changed = false;
	uint64_t now_ns;

	for (size_t i = 0; i < t->moves && !ret; i++)
		ret = prepare(t, &t->move[i]);
	for (size_t i = 0; i < t->moves && !ret; i++) {
		ret = steal(t, &t->move[i]);
		leave_plan(t, &t->move[i]);
		if (ret == GM_RET_FAULT) { /* the mapping went away: an event will tell; the others go on */
			gm_txn_fail(t, ret);
			ret = GM_RET_SUCCESS;
		}
	}
	now_ns = gm_now_ns(t->as->env);
	if (!ret)
		ret = copy(t, &now_ns);
	if (ret) {
		gm_txn_fail(t, ret);
		t->now_ns = now_ns; /* the waiting is over: what follows is a matter of microseconds */
		undo(t);
		return t->ret;
	}
	for (size_t i = 0; i < t->moves; i++) {
		if (t->flags & GM_TXN_DUPLICATE) {
			gm_dup_commit(t, &t->move[i]);
			continue;
		}
		commit_dev(t, &t->move[i]);
		if (t->as->cfg.flags & GM_AS_EXCLUSIVE)
			give_frames_back(&t->move[i], t->dev);
	}
	if (t->ctx) {
		ret = map(t, &changed);
		if (ret) {
			gm_txn_fail(t, ret);
			unmap(t);
		}
		if (changed)
			gm_txn_fail(t, GM_RET_AGAIN);
	}
	return t->ret;
}
