/* SPDX-License-Identifier: MIT */
/*
 * Device faults of one block, served together.
 *
 *     looked at, under one lock
 *        --mapped already--> served
 *        --edge, nothing in the way--> busy --rights--> one plan maps all --> served
 *        --movable, nothing in the way, and not alone--> one transaction brings all --> served
 *        --else, and what these two could not do--> one by one (gm_fault_dev.c)
 *
 * So one page that is in the way, or may not be accessed, costs the others nothing
 * but to be served alone, and says itself why it fails. A mapping in place is
 * recorded before it is made: a revocation of what was never entered is harmless.
 *
 * In place, a device finds only what is present. Where nobody watches, the kernel
 * makes a page present by itself; what may be watched goes the long way.
 */
#include "config.h"

#include "core/gm_fault.h"
#include "core/gm_ws.h"

/* A block's faults. */
struct batch {
	struct gm_ctx *ctx;
	struct gm_block *b;
	struct gm_fault_ask *ask;
	size_t n;
	uint64_t open;         /* bit i: ask[i] has no result yet */
	uint64_t movable;      /* of those, to be brought together */
	uint64_t edges;        /* of those, to be mapped in place together: */
	struct gm_mask busy;   /* their pages, */
	struct gm_mask write;  /* mapped writable, */
	struct gm_mask read_before, write_before; /* as they were */
	struct gm_mask served; /* pages; the slice is yet to begin */
	unsigned spurious;
};

#define FOR_EACH(i, bits) \
	for (uint64_t left_ = (bits), i; left_ && (i = (uint64_t)__builtin_ctzll(left_), true); left_ &= left_ - 1)

static void answer(struct batch *t, uint64_t i, gm_ret_t ret)
{
	t->ask[i].ret = ret;
	t->open &= ~(UINT64_C(1) << i);
}

/* (block) Can this edge page be mapped without asking anything but the rights? */
static bool is_simple(const struct batch *t, unsigned page, uint32_t access)
{
	const struct gm_hal_dev *hal = t->ctx->dev->hal;
	const struct gm_block *b = t->b;

	return !gm_mask_test(&b->busy, page) && !gm_mask_test(&b->doomed, page) && !gm_mask_test(&b->registered, page) &&
	       !(access & GM_ATOMIC) && hal->granule_bytes == GM_PAGE_BYTES && gm_hal_has(hal, GM_CAP_HOST_MAP);
}

/* (block) */
static void claim_edge(struct batch *t, uint64_t i, unsigned page)
{
	struct gm_bmap *map = t->b->map[t->ctx->index];

	t->edges |= UINT64_C(1) << i;
	gm_mask_set(&t->busy, page);
	gm_mask_set(&t->b->busy, page);
	if (gm_mask_test(&map->read, page))
		gm_mask_set(&t->read_before, page);
	if (gm_mask_test(&map->write, page))
		gm_mask_set(&t->write_before, page);
	if ((t->ask[i].access & GM_WRITE) || gm_mask_test(&map->write, page)) { /* rights only grow */
		gm_mask_set(&t->write, page);
		gm_mask_set(&map->write, page);
	}
	gm_mask_set(&map->read, page);
	gm_mask_clear(&map->unsure, page);
}

/* (block) Nobody else has the page, and nothing keeps it where it is. */
static bool is_free_to_move(const struct gm_block *b, unsigned page, const struct gm_mask *slice)
{
	return !gm_mask_test(&b->busy, page) && !gm_mask_test(&b->doomed, page) && !gm_mask_test(&b->held, page) &&
	       !gm_mask_test(slice, page);
}

static void sort_out(struct batch *t, uint64_t now_ns)
{
	struct gm_block *b = t->b;
	struct gm_mask slice;

	gm_lock(b->as->env, &b->lock);
	if (t->n > 1)
		slice = gm_slice_pages(&b->slice_cpu, b->as->cfg.slice_ns, now_ns);
	FOR_EACH(i, t->open) {
		unsigned page = gm_page_of(b, t->ask[i].va);
		enum gm_seen seen = gm_fault_look(t->ctx, b, page, t->ask[i].access);

		if (seen == GM_SEEN_MAPPED) {
			gm_mask_set(&t->served, page);
			answer(t, i, GM_RET_SUCCESS);
			t->spurious++;
		} else if (seen == GM_SEEN_EDGE && is_simple(t, page, t->ask[i].access)) {
			claim_edge(t, i, page);
		} else if (seen == GM_SEEN_MOVABLE && t->n > 1 && is_free_to_move(b, page, &slice)) {
			t->movable |= UINT64_C(1) << i;
		}
	}
	gm_unlock(b->as->env, &b->lock);
}

/* -------------------------------------------------------------- in place */

/* Pages that were claimed and are not mapped after all: nothing was entered yet. */
static void unclaim(struct batch *t, const struct gm_mask *pages)
{
	struct gm_mask fresh_read = gm_mask_sub(*pages, t->read_before), fresh_write = gm_mask_sub(*pages, t->write_before);
	struct gm_bmap *map = t->b->map[t->ctx->index];

	gm_lock(t->b->as->env, &t->b->lock);
	map->read = gm_mask_sub(map->read, fresh_read);
	map->write = gm_mask_sub(map->write, fresh_write);
	gm_unlock(t->b->as->env, &t->b->lock);
}

/* Pages of edges that the process itself may access so. */
static struct gm_mask allowed_edges(struct batch *t)
{
	struct gm_mask refused = gm_mask_none();
	struct gm_host_vma vma = { .bytes = 0 };

	FOR_EACH(i, t->edges) {
		gm_ret_t ret = gm_fault_rights(t->b->as, t->ask[i].va, t->ask[i].access, &vma);

		if (ret) {
			gm_mask_set(&refused, gm_page_of(t->b, t->ask[i].va));
			answer(t, i, ret);
		}
	}
	t->edges &= t->open;
	if (!gm_mask_empty(&refused))
		unclaim(t, &refused);
	return gm_mask_sub(t->busy, refused);
}

/* Which of them are entered is not known: those that were mapped before are so still, the others are not. */
static void undo_edges(struct batch *t, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_mask before = gm_mask_and(*pages, t->read_before), fresh = gm_mask_sub(*pages, t->read_before);

	gm_plan_doubt(t->b, t->ctx->index, &before);
	(void)gm_plan_revoke(t->b, &fresh, deadline_ns, false);
}

static void map_edges(struct batch *t, uint64_t deadline_ns, uint64_t *now_ns)
{
	struct gm_as *as = t->b->as;
	struct gm_mask pages = allowed_edges(t), some;
	struct gm_plan plan;
	gm_ret_t ret;

	gm_plan_init(&plan, as, t->ctx->dev->hal, deadline_ns);
	some = gm_mask_sub(pages, t->write);
	gm_plan_enter_host(&plan, t->ctx, t->b, &some, false);
	some = gm_mask_and(pages, t->write);
	gm_plan_enter_host(&plan, t->ctx, t->b, &some, true);
	ret = gm_plan_run(&plan);
	if (ret) {
		undo_edges(t, &pages, deadline_ns);
		pages = gm_mask_none();
	} else {
		gm_stat_add(as, GM_STAT_pages_in_place, gm_mask_count(&pages));
	}
	FOR_EACH(i, t->edges)
		if (!ret || t->n == 1) /* else each is tried alone, and says itself why it fails */
			answer(t, i, ret);
	pages = gm_mask_or(pages, t->served);
	t->served = gm_mask_none();
	*now_ns = gm_now_ns(as->env);
	gm_txn_release_served(t->b, &t->busy, &pages, *now_ns);
}

/* -------------------------------------------------------------- together */

static void bring_movable(struct batch *t, uint64_t deadline_ns)
{
	const struct gm_fault_ask *ask[GM_FAULT_ASKS];
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && (t->movable & (t->movable - 1))) { /* two at least */
		struct gm_move m;
		size_t n = 0;

		FOR_EACH(i, t->movable)
			ask[n++] = &t->ask[i];
		ret = gm_fault_bring(t->ctx, t->b, ask, &n, deadline_ns, &m);
		for (size_t k = 0; k < n; k++) {
			unsigned page = gm_page_of(t->b, ask[k]->va);
			uint64_t i = (uint64_t)(ask[k] - t->ask);

			t->movable &= ~(UINT64_C(1) << i);
			if (ret || (!gm_mask_test(&m.arrived, page) && !gm_mask_test(&m.stay, page)))
				continue;
			gm_mask_set(&t->served, page);
			answer(t, i, ret);
		}
	}
}

/* ------------------------------------------------------------ one by one */

static void serve_rest(struct batch *t, uint64_t attempt_ns, uint64_t now_ns)
{
	FOR_EACH(i, t->open) {
		uint64_t deadline_ns = gm_deadline_after_ns(t->n == 1 ? now_ns : gm_now_ns(t->b->as->env), attempt_ns);
		bool spurious = false;

		answer(t, i, gm_fault_one(t->ctx, t->b, &t->ask[i], deadline_ns, &spurious));
		t->spurious += spurious;
		if (!t->ask[i].ret)
			gm_mask_set(&t->served, gm_page_of(t->b, t->ask[i].va));
	}
}

/* Their slice begins, and their frames are the most recently used. */
static void end_served(struct batch *t, uint64_t *now_ns)
{
	struct gm_block *b = t->b;
	struct gm_as *as = b->as;
	struct gm_dev *dev = t->ctx->dev;
	struct gm_chunk *last = NULL;
	struct gm_bnode *n;

	*now_ns = gm_now_ns(as->env);
	gm_lock(as->env, &b->lock);
	gm_slice_serve(&b->slice_dev, as->cfg.slice_ns, *now_ns, &t->served);
	n = b->node[dev->index];
	FOR_EACH(i, ~t->open & (UINT64_MAX >> (64 - t->n))) {
		unsigned page = gm_page_of(b, t->ask[i].va);
		struct gm_chunk *c = n->unit[page / GM_UNIT_PAGES];

		if (t->ask[i].ret || !c || c == last || !gm_mask_test(&n->resident, page))
			continue;
		gm_node_touch(&dev->node, c);
		last = c;
	}
	gm_unlock(as->env, &b->lock);
}

/* What is outside of the device's window fails; the block of the others, or why there is none. */
static void find_block(struct batch *t)
{
	FOR_EACH(i, t->open) {
		uint64_t va = t->ask[i].va;
		gm_ret_t ret = GM_RET_SUCCESS;

		if (va < t->ctx->va || va >= t->ctx->end)
			ret = gm_fail(GM_RET_FAULT, "0x%llx is outside of the device's window", (unsigned long long)va);
		else if (!t->b)
			ret = gm_block_obtain(t->ctx->as, va, &t->b);
		if (ret)
			answer(t, i, ret);
	}
}

static void count(struct batch *t, uint64_t ns)
{
	struct gm_as *as = t->ctx->as;
	unsigned served = 0;

	for (size_t i = 0; i < t->n; i++)
		served += !t->ask[i].ret;
	if (served > t->spurious)
		gm_stat_add(as, GM_STAT_dev_faults, served - t->spurious);
	if (t->spurious)
		gm_stat_add(as, GM_STAT_dev_faults_spurious, t->spurious);
	gm_stat_add(as, GM_STAT_ns_dev_fault, ns);
}

void gm_fault_block(struct gm_ctx *ctx, struct gm_fault_ask *ask, size_t n, uint64_t attempt_ns, uint64_t *now_ns)
{
	struct batch t = { .ctx = ctx, .ask = ask, .n = n, .open = UINT64_MAX >> (64 - n) };
	uint64_t start_ns = *now_ns, deadline_ns = gm_deadline_after_ns(start_ns, attempt_ns);
	gm_ret_t ret = GM_RET_SUCCESS;

	find_block(&t);
	if (!t.b)
		return;
	ret = gm_block_need_node(t.b, ctx->dev->index);
	if (!ret)
		ret = gm_block_need_map(t.b, ctx->index);
	if (ret) {
		FOR_EACH(i, t.open)
			answer(&t, i, ret);
	}
	if (t.open)
		sort_out(&t, start_ns);
	if (t.edges)
		map_edges(&t, deadline_ns, now_ns);
	if (t.movable)
		bring_movable(&t, deadline_ns);
	if (t.open)
		serve_rest(&t, attempt_ns, start_ns);
	if (!gm_mask_empty(&t.served))
		end_served(&t, now_ns);
	else if (!t.edges)
		*now_ns = gm_now_ns(ctx->as->env);
	gm_block_put(t.b);
	count(&t, *now_ns - start_ns);
}
