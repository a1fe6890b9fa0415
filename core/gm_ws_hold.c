/* SPDX-License-Identifier: MIT */
/*
 * Holding: what keeps the pages of a working set where they are.
 *
 *     not held --hold (in the transaction that brought them, or where they are already)--> held
 *     held --unhold--> not held
 *          --the application dropped pages--> held without them
 *
 * A hold counts in the chunks that its pages are in (no victims), in the block's
 * mask `held` (nothing goes home), and in the block's list, from which that mask
 * is made anew when one of several goes.
 */
#include "config.h"

#include "core/gm_ws.h"

#include "core/gm_work.h"

/* (block) A chunk that the set needs only part of must be several, or it would hold more than was reserved. */
static void split_partial(struct gm_ctx *ctx, struct gm_bnode *n, const struct gm_mask *pages)
{
	struct gm_chunk *c = n->unit[0];

	if (!c || c->order != GM_BLOCK_ORDER || ctx->dev->node.min_order || c->holds || gm_mask_full(pages))
		return;
	gm_node_split(&ctx->dev->node, c);
	for (unsigned u = 1; u < GM_BLOCK_UNITS; u++)
		n->unit[u] = &c[u];
}

/* (block) */
static void hold(struct gm_hold *h, struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_ctx *ctx = h->ws->ctx;
	struct gm_bnode *n = b->node[ctx->dev->index];
	struct gm_mask here;
	uint32_t units;

	if (!h->block) {
		h->block = gm_block_get(b);
		SLIST_INSERT_HEAD(&b->holds, h, in_block);
	}
	h->pages = gm_mask_or(h->pages, *pages);
	b->held = gm_mask_or(b->held, *pages);
	split_partial(ctx, n, &h->pages);
	here = gm_mask_and(h->pages, n->resident);
	units = gm_mask_units(&here) & b->backed[ctx->dev->index];
	if (units && n->unit[__builtin_ctz(units)]->order == GM_BLOCK_ORDER)
		units = 1; /* one chunk stands in all */
	units &= ~h->units;
	gm_node_hold(&ctx->dev->node, n->unit, units);
	h->units |= units;
}

void gm_ws_hold(struct gm_hold *h, struct gm_block *b, const struct gm_mask *pages)
{
	if (GM_PLANTED(b->as, GM_PLANT_SKIP_HOLD))
		return;
	gm_lock(b->as->env, &b->lock);
	hold(h, b, pages);
	gm_unlock(b->as->env, &b->lock);
}

/*
 * (block) Whether nothing but holding is left to do for a piece; then `pages` are those on the device,
 * in whole granules, `write` those of them that it may write from now on, `edge` those in place.
 */
static bool is_ready(const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_ws_piece *p,
		     struct gm_mask *pages, struct gm_mask *write, struct gm_mask *edge)
{
	const struct gm_bnode *n = b->node[ctx->dev->index];
	const struct gm_bmap *map = b->map[ctx->index];
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_mask all, bad, near;

	if (!n || !map)
		return false;
	*pages = gm_mask_and(p->read, b->managed);
	*write = gm_mask_and(p->write, b->managed);
	*edge = gm_mask_and(p->read, b->edge);
	if (granule_pages > 1) {
		*pages = gm_mask_grow(pages, granule_pages);
		*write = gm_mask_grow(write, granule_pages);
	}
	if (p->atomic && !gm_mask_empty(edge))
		return false;
	all = gm_mask_or(*pages, *edge);
	near = gm_mask_grow(&all, atomic_load_explicit(&b->as->granule_pages, memory_order_relaxed));
	bad = gm_mask_and(near, gm_mask_or(b->busy, b->doomed));
	bad = gm_mask_or(bad, gm_mask_and(all, gm_mask_or(gm_mask_or(b->poisoned, b->leaving), map->unsure)));
	bad = gm_mask_or(bad, gm_mask_sub(*pages, gm_mask_and(n->resident, b->managed)));
	bad = gm_mask_or(bad, gm_mask_sub(p->read, all));
	bad = gm_mask_or(bad, gm_mask_sub(all, map->read));
	bad = gm_mask_or(bad, gm_mask_sub(gm_mask_or(*write, gm_mask_and(p->write, *edge)), map->write));
	return gm_mask_empty(&bad);
}

bool gm_ws_hold_resident(struct gm_ws *ws, size_t piece, uint64_t rights)
{
	const struct gm_ws_piece *p = &ws->piece[piece];
	struct gm_ctx *ctx = ws->ctx;
	struct gm_block *b = gm_block_find_live(ctx->as, p->va);
	struct gm_mask pages, write, edge;
	bool ready;

	if (!b)
		return false;
	gm_lock(ctx->as->env, &b->lock);
	ready = !GM_PLANTED(ctx->as, GM_PLANT_SKIP_HOLD) && is_ready(ctx, b, p, &pages, &write, &edge) &&
		gm_rights_same(&ctx->as->rights, b->va, rights);
	if (ready) {
		struct gm_bnode *n = b->node[ctx->dev->index];

		if (!GM_PLANTED(ctx->as, GM_PLANT_WRITE_CLEAN))
			n->dirty = gm_mask_or(n->dirty, write);
		pages = gm_mask_or(pages, edge);
		hold(&ws->hold[piece], b, &pages);
	}
	gm_unlock(ctx->as->env, &b->lock);
	gm_block_put(b);
	return ready;
}

bool gm_ws_is_pinned(const struct gm_block *b, unsigned page)
{
	struct gm_hold *h;

	SLIST_FOREACH(h, &b->holds, in_block)
		if (h->ws->pin && gm_mask_test(&h->pages, page))
			return true;
	return false;
}

void gm_ws_drop_pages(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_hold *h;

	SLIST_FOREACH(h, &b->holds, in_block) {
		struct gm_dev *dev = h->ws->ctx->dev;
		uint32_t gone = 0;

		h->pages = gm_mask_sub(h->pages, *pages);
		for (uint32_t left = h->units; left; left &= left - 1) {
			unsigned u = (unsigned)__builtin_ctz(left);
			struct gm_chunk *c = b->node[dev->index]->unit[u];
			struct gm_mask chunk = gm_mask_span(c->first, c->first + (GM_UNIT_PAGES << c->order));

			if (!gm_mask_meets(&chunk, &h->pages))
				gone |= UINT32_C(1) << u;
		}
		gm_node_unhold(&dev->node, b->node[dev->index]->unit, gone);
		h->units &= ~gone;
	}
	gm_block_count_holds(b);
}

void gm_ws_unhold(struct gm_ws *ws, struct gm_hold *h, uint64_t deadline_ns)
{
	struct gm_mask failed, none = gm_mask_none();
	struct gm_dev *dev = ws->ctx->dev;
	struct gm_block *b = h->block;
	struct gm_env *env;
	bool work;

	if (!b)
		return;
	env = b->as->env;
	gm_lock(env, &b->lock);
	SLIST_REMOVE(&b->holds, h, gm_hold, in_block);
	gm_node_unhold(&dev->node, b->node[dev->index]->unit, h->units);
	gm_block_count_holds(b);
	/* An access that was made to fail cannot ask again: its page comes home unasked. */
	failed = gm_mask_sub(gm_mask_and(b->failed, h->pages), b->held);
	b->wanted = gm_mask_or(b->wanted, failed);
	work = gm_mask_meets(&b->wanted, &h->pages);
	gm_unlock(env, &b->lock);
	h->block = NULL;
	h->pages = gm_mask_none();
	h->units = 0;
	gm_txn_release_unmoved(b, &none); /* nothing was busy: it wakes, and frees frames that are empty by now */
	if (deadline_ns && !gm_mask_empty(&failed)) /* else, or if it is not done in time, the worker does it */
		(void)gm_move_home(b, &failed, GM_TXN_FORCE, deadline_ns);
	if (work)
		gm_work_queue(b, 0);
	gm_block_put(b);
}
