/* SPDX-License-Identifier: MIT */
/*
 * Working sets.
 *
 *     acquire: checked --room reserved--> admitted --what is there already: hold; else block
 *              group by block group: frames, one transaction, hold--> held
 *     release: held --(fence done)--> holds dropped, room given back, waiters woken
 *
 * No hold and wait: room for the whole set is reserved before its first page
 * moves, so a set that has begun can always finish; two sets that do not fit
 * together run one after the other. Holding happens inside the transaction
 * that brought the pages, before they cease to be busy, so nobody can take
 * them in between.
 *
 * A held page is neither a victim nor does it go home; its mapping stays. Only
 * the application's own unmap or discard of it wins: the page is then held no more.
 *
 * Failure: what was held is let go; pages that moved stay where they are.
 */
#include "config.h"

#include "core/gm_events.h"
#include "core/gm_evict.h"
#include "core/gm_fault.h"
#include "core/gm_mirror.h"
#include "core/gm_work.h"
#include "core/gm_ws.h"
#include "hal/gm_fence.h"
#include "hal/gm_handle.h"

/* Blocks of one transaction. */
#define GROUP 16

/*
 * Let everything go and forget the set. Until the deadline pages are waited for whose accesses failed, so that none
 * fails afterwards; 0: by whom must not wait.
 */
static void drop(struct gm_ws *ws, uint64_t deadline_ns)
{
	struct gm_ctx *ctx = ws->ctx;
	struct gm_as *as = ctx->as;

	for (size_t i = 0; ws->hold && i < ws->pieces; i++)
		gm_ws_unhold(ws, &ws->hold[i], deadline_ns);
	gm_remap_unheld(as);
	gm_lock(as->env, &ctx->dev->lock);
	ctx->sets--;
	gm_unlock(as->env, &ctx->dev->lock);
	gm_lock(as->env, &as->lock);
	as->sets--;
	gm_mirror_count_set(as, false);
	gm_unlock(as->env, &as->lock);
	if (ws->units) /* last: who sees that there is room sees no set any more */
		gm_node_unreserve(&ctx->dev->node, ws->units);
	gm_mem_free(as->env, ws->hold, ws->pieces * sizeof(*ws->hold));
	gm_ws_pieces_free(ctx, ws->piece, ws->pieces);
	gm_mem_free(as->env, ws, sizeof(*ws));
	gm_wake(as->env, &as->waitq);
	gm_ctx_leave(ctx);
}

/* ------------------------------------------------------------- bringing */

/* Memory from va on, as far as vma goes, that the process may only read. */
static void add_fixed(const struct gm_ws_piece *p, uint64_t va, const struct gm_host_vma *vma, struct gm_mask *fixed)
{
	uint64_t end = vma->va + vma->bytes - p->va;

	gm_mask_add_span(fixed, (unsigned)((va - p->va) / GM_PAGE_BYTES),
			 (unsigned)((end < GM_BLOCK_BYTES ? end : GM_BLOCK_BYTES) / GM_PAGE_BYTES));
}

/*
 * *fixed: of these pages the process may only read those, at least; the host moves none of them.
 * The process's own rights over all of a piece, in whole granules, as the device maps nothing smaller: where the kernel's
 * answer ends, or the right asked for changes, ask anew.
 */
static gm_ret_t check_rights(const struct gm_ctx *ctx, const struct gm_ws_piece *p, struct gm_host_vma *vma,
			     struct gm_mask *fixed)
{
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_mask write_too = gm_mask_grow(&p->write, granule_pages), all = gm_mask_grow(&p->read, granule_pages);
	struct gm_mask mask[2] = { gm_mask_sub(all, write_too), write_too };
	struct gm_as *as = ctx->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	*fixed = gm_mask_none();
	if (vma->va <= p->va && vma->va + vma->bytes >= p->va + GM_BLOCK_BYTES && vma->access == (GM_READ | GM_WRITE))
		return ret;
	for (unsigned write = 0; write < 2; write++)
		GM_MASK_FOR_RUN(&mask[write], first, end) {
			uint64_t va = p->va + (uint64_t)first * GM_PAGE_BYTES, stop = p->va + (uint64_t)end * GM_PAGE_BYTES;

			for (; va < stop; va = vma->va + vma->bytes) {
				ret = gm_fault_rights(as, va, write ? GM_WRITE : GM_READ, vma);
				if (ret)
					return ret;
				if (!(vma->access & GM_WRITE))
					add_fixed(p, va, vma, fixed);
			}
		}
	return ret;
}

/* A group of blocks on its way. */
struct group {
	struct gm_ws *ws;
	size_t first, n;                  /* pieces */
	struct gm_move move[GROUP];
	struct gm_mask in_place[GROUP];   /* pages that stay on the host */
};

static gm_ret_t want(struct group *g, size_t i, struct gm_block *b, const struct gm_mask *fixed)
{
	const struct gm_ws_piece *p = &g->ws->piece[g->first + i];
	const struct gm_hal_dev *hal = g->ws->ctx->dev->hal;
	unsigned granule_pages = hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_move *m = &g->move[i];
	struct gm_mask foreign;

	gm_lock(b->as->env, &b->lock);
	m->want = gm_mask_and(p->read, b->managed);
	g->in_place[i] = gm_mask_and(p->read, b->edge);
	if (granule_pages == 1) { /* what would be refused is not taken from others for the attempt */
		struct gm_mask here = gm_mask_and(gm_mask_and(m->want, b->host), *fixed);

		m->want = gm_mask_sub(m->want, here);
		g->in_place[i] = gm_mask_or(g->in_place[i], here);
	}
	/* Whole granules: the device maps nothing smaller. */
	m->want = gm_mask_grow(&m->want, granule_pages);
	foreign = gm_mask_sub(m->want, b->managed);
	gm_unlock(b->as->env, &b->lock);
	if (!gm_mask_empty(&foreign))
		return gm_fail(GM_RET_NOTSUP, "memory near 0x%llx shares a %u KiB page of device %s with memory that is not "
			       "managed: align the buffer, or adopt it outward", (unsigned long long)p->va,
			       (unsigned)(hal->granule_bytes >> 10), hal->caps.name);
	m->map = m->want;
	m->write = gm_mask_and(m->want, p->write);
	m->write = gm_mask_grow(&m->write, granule_pages);
	m->discard = gm_mask_and(m->want, p->discard);
	return GM_RET_SUCCESS;
}

static gm_ret_t open_group(struct group *g, uint64_t deadline_ns)
{
	struct gm_ctx *ctx = g->ws->ctx;
	struct gm_host_vma vma = { .bytes = 0 };
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_mask fixed;

	for (size_t i = 0; i < g->n; i++) /* of all, before any rights are read: one answer may do for several */
		g->move[i] = (struct gm_move){
			.rights = gm_rights_seen(&ctx->as->rights, g->ws->piece[g->first + i].va) };
	for (size_t i = 0; i < g->n && !ret; i++) {
		const struct gm_ws_piece *p = &g->ws->piece[g->first + i];
		struct gm_block *b;
		unsigned first = 0, end;

		(void)gm_mask_next_run(&p->read, &first, &end);
		ret = gm_block_obtain(ctx->as, p->va + (uint64_t)first * GM_PAGE_BYTES, &b);
		if (ret)
			break;
		g->move[i].block = b;
		ret = gm_block_need_node(b, ctx->dev->index);
		if (!ret)
			ret = gm_block_need_map(b, ctx->index);
		if (!ret)
			ret = check_rights(ctx, p, &vma, &fixed);
		if (!ret && gm_as_mirrors(ctx->as))
			ret = gm_mirror_fill(b, p, deadline_ns);
		if (!ret)
			ret = want(g, i, b, &fixed);
		if (!ret)
			ret = gm_evict_reserve(ctx->dev, &g->move[i], deadline_ns);
	}
	return ret;
}

static void close_group(struct group *g)
{
	for (size_t i = 0; i < g->n; i++) {
		if (!g->move[i].block)
			continue;
		gm_evict_unreserve(g->ws->ctx->dev, &g->move[i]);
		if (gm_as_mirrors(g->ws->ctx->as))
			gm_mirror_tidy(g->move[i].block); /* what was marked and not reached */
		gm_block_put(g->move[i].block);
		g->move[i].block = NULL;
	}
}

static void hold_group(struct group *g)
{
	for (size_t i = 0; i < g->n; i++) {
		struct gm_move *m = &g->move[i];
		struct gm_mask here = gm_mask_or(m->arrived, m->stay);

		gm_ws_hold(&g->ws->hold[g->first + i], m->block, &here);
		g->in_place[i] = gm_mask_or(g->in_place[i], gm_mask_or(m->pinned, m->fixed));
	}
}

/* Begin, move, hold, end; or say why not. AGAIN: reserve again. */
static gm_ret_t run_group(struct group *g, uint64_t deadline_ns)
{
	struct gm_ctx *ctx = g->ws->ctx;
	struct gm_txn t = { .as = ctx->as, .dev = ctx->dev, .ctx = ctx, .deadline_ns = deadline_ns,
			    .move = g->move, .moves = g->n };
	gm_ret_t ret;

	while (gm_txn_begin(&t)) {
		if (t.why == GM_BLOCKED_ELSEWHERE)
			(void)gm_move_home(t.where, &t.what, 0, deadline_ns); /* looked at again by begin */
		if (gm_txn_wait(&t))
			return gm_fail(GM_RET_TIMEDOUT, "pages near 0x%llx did not become free in time",
				       (unsigned long long)(t.where ? t.where->va : 0));
		if (t.why == GM_BLOCKED_STALE)
			return GM_RET_AGAIN;
	}
	ret = gm_txn_to_dev(&t);
	if (!ret)
		hold_group(g);
	gm_txn_end(&t);
	if (ret == GM_RET_FAULT || ret == GM_RET_AGAIN) /* the application changed the mapping meanwhile */
		(void)gm_events_let_run(ctx->as);
	return ret == GM_RET_FAULT ? GM_RET_AGAIN : ret;
}

static gm_ret_t place_one(struct gm_ws *ws, size_t piece, const struct gm_move *m, unsigned page, uint64_t deadline_ns)
{
	const struct gm_ws_piece *p = &ws->piece[piece];
	bool pinned = gm_mask_test(&m->pinned, page);
	uint32_t access = gm_mask_test(&p->write, page) ? GM_WRITE | (p->atomic ? GM_ATOMIC : 0) : GM_READ;
	gm_ret_t ret;

	if (!gm_mask_test(&p->read, page))
		return GM_RET_SUCCESS;
	ret = gm_fault_in_place(ws->ctx, m->block, page, access, m->rights, deadline_ns, &ws->hold[piece]);
	if (ret == GM_RET_NOTSUP && pinned && !p->atomic)
		ret = gm_fail(GM_RET_BUSY, "0x%llx is pinned, and device %s cannot map host memory in place",
			      (unsigned long long)(p->va + (uint64_t)page * GM_PAGE_BYTES), ws->ctx->dev->hal->caps.name);
	return ret;
}

static gm_ret_t place_group(struct group *g, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (size_t i = 0; i < g->n; i++) {
		GM_MASK_FOR_RUN(&g->in_place[i], first, end)
			for (unsigned page = first; page < end && !ret; page++)
				ret = place_one(g->ws, g->first + i, &g->move[i], page, deadline_ns);
	}
	return ret;
}

static bool regions_have(struct gm_as *as, const struct gm_ws_piece *p, const struct gm_mask *pages)
{
	struct gm_region buf;
	bool all = true;

	gm_lock(as->env, &as->lock);
	GM_MASK_FOR_RUN(pages, first, end)
		for (unsigned page = first; page < end && all; page++)
			all = gm_regions_find(&as->regions, p->va + (uint64_t)page * GM_PAGE_BYTES, &buf);
	gm_unlock(as->env, &as->lock);
	return all;
}

/* Everything the set asks for is mapped and held: nothing was left out on the way. */
static gm_ret_t check_group(struct group *g)
{
	struct gm_ctx *ctx = g->ws->ctx;

	for (size_t i = 0; i < g->n; i++) {
		const struct gm_ws_piece *p = &g->ws->piece[g->first + i];
		struct gm_block *b = g->move[i].block;
		struct gm_mask lack, poisoned, near, gone;

		gm_lock(ctx->as->env, &b->lock);
		lack = gm_mask_sub(p->read, gm_block_mapped_by(b, ctx->index, GM_READ));
		lack = gm_mask_or(lack, gm_mask_sub(p->write, gm_block_mapped_by(b, ctx->index, GM_WRITE)));
		lack = gm_mask_or(lack, gm_mask_and(p->read, b->map[ctx->index]->unsure));
		if (!GM_PLANTED(ctx->as, GM_PLANT_SKIP_HOLD)) /* mapped before, and not among the pages when they were looked at */
			lack = gm_mask_or(lack, gm_mask_sub(p->read, g->ws->hold[g->first + i].pages));
		near = gm_mask_and(p->read, b->managed);
		near = gm_mask_grow(&near, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
		/* Being released or freed: mapped, but not for long. */
		lack = gm_mask_or(lack, gm_mask_sub(gm_mask_or(near, gm_mask_sub(p->read, b->edge)), b->managed));
		poisoned = gm_mask_and(b->poisoned, p->read);
		gone = gm_mask_sub(gm_mask_sub(p->read, b->managed), b->edge); /* where the space mirrors: asked anew */
		gm_unlock(ctx->as->env, &b->lock);
		if (!gm_mask_empty(&poisoned))
			return gm_fail(GM_RET_FAULT, "content near 0x%llx was lost with a device", (unsigned long long)p->va);
		if (!gm_mask_empty(&gone) && !gm_as_mirrors(ctx->as) && !regions_have(ctx->as, p, &gone))
			return gm_fail(GM_RET_FAULT, "memory near 0x%llx was released meanwhile", (unsigned long long)p->va);
		if (!gm_mask_empty(&lack))
			return GM_RET_AGAIN;
	}
	return GM_RET_SUCCESS;
}

static gm_ret_t bring_group(struct group *g, uint64_t deadline_ns)
{
	struct gm_env *env = g->ws->ctx->as->env;
	gm_ret_t ret;

	do {
		ret = open_group(g, deadline_ns);
		if (!ret)
			ret = run_group(g, deadline_ns);
		if (!ret)
			ret = place_group(g, deadline_ns);
		if (!ret)
			ret = check_group(g);
		close_group(g);
		if (ret == GM_RET_AGAIN && gm_now_ns(env) >= deadline_ns)
			ret = gm_fail(GM_RET_TIMEDOUT, "a working set could not be brought in time");
	} while (ret == GM_RET_AGAIN);
	return ret;
}

/* What is there already, mapped as asked, needs no more than to be held. Returns how many pieces are left. */
static size_t hold_resident(struct gm_ws *ws)
{
	struct gm_host_vma vma = { .bytes = 0 };
	struct gm_as *as = ws->ctx->as;
	size_t left = ws->pieces;
	uint64_t changes = 0;
	struct gm_mask fixed;

	if (!gm_txn_enter_moving(as)) /* a fork: its turn first */
		return left;
	for (size_t i = 0; i < ws->pieces; i++) {
		uint64_t rights = gm_rights_seen(&as->rights, ws->piece[i].va), now = gm_rights_changes(&as->rights);

		if (now != changes) /* an answer from before does not do */
			vma.bytes = 0;
		changes = now;
		if (!check_rights(ws->ctx, &ws->piece[i], &vma, &fixed) && gm_ws_hold_resident(ws, i, rights))
			left--;
	}
	gm_txn_leave_moving(as);
	return left;
}

static bool is_held(const struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (!g->ws->hold[g->first + i].block)
			return false;
	return true;
}

static gm_ret_t bring_all(struct gm_ws *ws, uint64_t deadline_ns)
{
	struct gm_env *env = ws->ctx->as->env;
	gm_ret_t ret = GM_RET_SUCCESS;
	struct group *g;

	if (!hold_resident(ws))
		return ret;
	g = gm_mem_alloc(env, sizeof(*g));
	if (!g)
		return gm_fail(GM_RET_NOMEM, "no memory for a working set");
	g->ws = ws;
	for (g->first = 0; !ret && g->first < ws->pieces; g->first += g->n) {
		g->n = ws->pieces - g->first < GROUP ? ws->pieces - g->first : GROUP;
		if (!is_held(g))
			ret = bring_group(g, deadline_ns);
	}
	gm_mem_free(env, g, sizeof(*g));
	return ret;
}

/* -------------------------------------------------------------- the calls */

/* Of both calls, but the context. */
static gm_ret_t check_args(const struct gm_ws_range *ranges, size_t n)
{
	if (!ranges)
		return gm_fail(GM_RET_INVAL, "a working set needs ranges");
	if (!n || n > GM_MAX_WS_RANGES)
		return gm_fail(GM_RET_INVAL, "a working set has 1 to %u ranges, not %zu", GM_MAX_WS_RANGES, n);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_ws_room(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_room *room)
{
	uint64_t units, total, avail, reserved;
	struct gm_ws_piece *piece;
	size_t pieces;
	gm_ret_t ret = gm_handle_check(ctx, GM_HANDLE_CTX);

	if (!ret)
		ret = check_args(ranges, n);
	if (!ret && !room)
		ret = gm_fail(GM_RET_INVAL, "gm_ws_room: room must not be NULL");
	if (!ret)
		ret = gm_ws_pieces(ctx, ranges, n, &piece, &pieces);
	if (ret)
		return ret;
	units = gm_ws_units(ctx, piece, pieces);
	gm_ws_pieces_free(ctx, piece, pieces);
	gm_node_room(&ctx->dev->node, &total, &avail, &reserved);
	room->need_bytes = units * GM_UNIT_BYTES;
	room->held_bytes = reserved * GM_UNIT_BYTES;
	room->total_bytes = total * GM_UNIT_BYTES;
	if (units > total)
		return GM_RET_NOSPC;
	return units > total - reserved ? GM_RET_BUSY : GM_RET_SUCCESS;
}

/* Room for all of it, before anything moves. */
static gm_ret_t admit(struct gm_ws *ws, uint64_t deadline_ns)
{
	struct gm_node *node = &ws->ctx->dev->node;
	uint64_t units = gm_ws_units(ws->ctx, ws->piece, ws->pieces), total, avail, reserved;
	gm_ret_t ret;

	ret = gm_node_reserve(node, units, deadline_ns);
	if (!ret) {
		ws->units = units;
		return ret;
	}
	gm_node_room(node, &total, &avail, &reserved);
	return gm_fail(ret, "the working set needs %llu KiB; device %s has %llu KiB, of which others hold %llu KiB",
		       (unsigned long long)(units * (GM_UNIT_BYTES >> 10)), ws->ctx->dev->hal->caps.name,
		       (unsigned long long)(total * (GM_UNIT_BYTES >> 10)),
		       (unsigned long long)(reserved * (GM_UNIT_BYTES >> 10)));
}

static gm_ret_t make(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws **out)
{
	struct gm_as *as = ctx->as;
	struct gm_ws_piece *piece;
	struct gm_hold *hold;
	struct gm_ws *ws;
	size_t pieces;
	gm_ret_t ret = gm_ws_pieces(ctx, ranges, n, &piece, &pieces);

	if (ret)
		return ret;
	ws = gm_mem_alloc(as->env, sizeof(*ws));
	hold = gm_mem_alloc(as->env, pieces * sizeof(*hold));
	if (!ws || !hold) {
		gm_mem_free(as->env, ws, sizeof(*ws));
		gm_mem_free(as->env, hold, pieces * sizeof(*hold));
		gm_ws_pieces_free(ctx, piece, pieces);
		return gm_fail(GM_RET_NOMEM, "no memory for a working set of %zu ranges", n);
	}
	*ws = (struct gm_ws){ .ctx = ctx, .pieces = pieces, .piece = piece, .hold = hold };
	for (size_t i = 0; i < pieces; i++)
		hold[i].ws = ws;
	*out = ws;
	return GM_RET_SUCCESS;
}

/* The context is entered, and is left if it fails. */
static gm_ret_t take(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, uint64_t timeout_ns, bool pin,
		     struct gm_ws **out)
{
	uint64_t start = gm_now_ns(ctx->as->env), deadline_ns = gm_deadline_ns(ctx->as->env, timeout_ns);
	struct gm_ws *ws = NULL;
	gm_ret_t ret = gm_events_settle(ctx->as, deadline_ns);

	if (!ret)
		ret = make(ctx, ranges, n, &ws);
	if (ret) {
		gm_ctx_leave(ctx);
		return ret;
	}
	ws->pin = pin;
	gm_lock(ctx->as->env, &ctx->as->lock);
	ctx->as->sets++;
	gm_mirror_count_set(ctx->as, true);
	gm_unlock(ctx->as->env, &ctx->as->lock);
	gm_lock(ctx->as->env, &ctx->dev->lock);
	ctx->sets++;
	gm_unlock(ctx->as->env, &ctx->dev->lock);
	if (gm_as_mirrors(ctx->as))
		ret = gm_mirror_bring_set(ctx->as, ws->piece, ws->pieces, deadline_ns);
	if (!ret)
		ret = admit(ws, deadline_ns);
	if (!ret)
		ret = bring_all(ws, deadline_ns);
	if (!ret && !pin && gm_handle_add(ws, GM_HANDLE_WS))
		ret = gm_fail(GM_RET_NOMEM, "no memory for a working set of %zu ranges", n);
	gm_stat_time(ctx->as, GM_STAT_ns_ws, start);
	if (ret) {
		drop(ws, deadline_ns);
		return ret;
	}
	gm_stat_add(ctx->as, GM_STAT_ws_acquires, 1);
	*out = ws;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_ws_acquire(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, uint64_t timeout_ns,
		       struct gm_ws **out)
{
	gm_ret_t ret = gm_handle_check(ctx, GM_HANDLE_CTX);

	if (!ret)
		ret = check_args(ranges, n);
	if (!ret && !out)
		ret = gm_fail(GM_RET_INVAL, "gm_ws_acquire: ws must not be NULL");
	if (ret)
		return ret;
	if (!gm_ctx_enter(ctx))
		return gm_fail(GM_RET_INVAL, "the context is being detached");
	return take(ctx, ranges, n, timeout_ns, false, out);
}

gm_ret_t gm_ws_pin(struct gm_ctx *ctx, const struct gm_ws_range *range, uint64_t timeout_ns, struct gm_ws **out)
{
	return take(ctx, range, 1, timeout_ns, true, out);
}

void gm_ws_unpin(struct gm_ws *ws)
{
	drop(ws, gm_deadline_ns(ws->ctx->as->env, ws->ctx->as->cfg.wait_ns));
}

static void released(void *arg, gm_ret_t result)
{
	(void)result; /* the hold ends, however the launch did */
	drop(arg, 0);
}

gm_ret_t gm_ws_release(struct gm_ws *ws, struct gm_fence *fence)
{
	gm_ret_t ret;

	if (!ws)
		return GM_RET_SUCCESS;
	ret = gm_handle_check(ws, GM_HANDLE_WS);
	if (!ret && fence)
		ret = gm_handle_check(fence, GM_HANDLE_FENCE);
	if (ret)
		return ret;
	gm_handle_del(ws, GM_HANDLE_WS);
	if (fence && !gm_fence_on_done(fence, released, ws))
		return GM_RET_SUCCESS;
	if (fence) /* no memory to be called back: wait here */
		(void)gm_fence_wait_until(fence, UINT64_MAX);
	drop(ws, gm_deadline_ns(ws->ctx->as->env, ws->ctx->as->cfg.wait_ns));
	return GM_RET_SUCCESS;
}
