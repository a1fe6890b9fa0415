/* SPDX-License-Identifier: MIT */
/*
 * Device faults of one block, served together.
 *
 *     one alone: gm_fault_edge.c, if it can
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
	uint64_t edges;        /* of those, to be mapped in place together: their pages are busy, */
	uint64_t write;        /* to be mapped writable, */
	uint64_t had_read, had_write; /* and were mapped so before */
	struct gm_mask busy;
	struct gm_mask doubtful; /* of those, the mapping that was there before is not certain */
	unsigned served;       /* how many have SUCCESS */
	unsigned in_place;     /* of those, were mapped where they are */
	unsigned spurious;     /* of those, were mapped already */
	uint64_t fresh;        /* of those, the slice is yet to begin */
};

/* Field by field: a literal is cleared as a whole first, which takes as long as a lookup. */
static void batch_init(struct batch *t, struct gm_ctx *ctx, struct gm_fault_ask *ask, size_t n)
{
	t->ctx = ctx;
	t->b = NULL;
	t->ask = ask;
	t->n = n;
	t->open = UINT64_MAX >> (64 - n);
	t->movable = t->edges = t->write = t->had_read = t->had_write = t->fresh = 0;
	t->busy = t->doubtful = gm_mask_none();
	t->served = t->in_place = t->spurious = 0;
}

#define FOR_EACH(i, bits) \
	for (uint64_t left_ = (bits), i; left_ && (i = (uint64_t)__builtin_ctzll(left_), true); left_ &= left_ - 1)

static void answer(struct batch *t, uint64_t i, gm_ret_t ret)
{
	t->ask[i].ret = ret;
	t->open &= ~(UINT64_C(1) << i);
	t->served += !ret;
}

static unsigned page_of(const struct batch *t, uint64_t i)
{
	return gm_page_of(t->b, t->ask[i].va);
}

static struct gm_mask pages_of(const struct batch *t, uint64_t asks)
{
	struct gm_mask pages = gm_mask_none();

	FOR_EACH(i, asks)
		gm_mask_set(&pages, page_of(t, i));
	return pages;
}

/* (block) Can this edge page be mapped without asking anything but the rights? */
static bool is_simple(const struct batch *t, unsigned page, uint32_t access)
{
	const struct gm_hal_dev *hal = t->ctx->dev->hal;
	const struct gm_block *b = t->b;

	/* what is pinned to the host and has no content gets zeros first */
	if (!gm_mask_test(&b->edge, page) && !gm_mask_test(&b->host, page))
		return false;
	return !gm_mask_test(&b->busy, page) && !(b->is_doomed && gm_mask_test(&b->doomed, page)) &&
	       !gm_mask_test(&b->registered, page) && !(access & GM_ATOMIC) && hal->granule_bytes == GM_PAGE_BYTES &&
	       gm_hal_has(hal, GM_CAP_HOST_MAP);
}

/* (block) */
static void claim_edge(struct batch *t, uint64_t i, unsigned page)
{
	struct gm_bmap *map = t->b->map[t->ctx->index];
	bool had_write = gm_mask_test(&map->write, page), write = (t->ask[i].access & GM_WRITE) || had_write;

	t->edges |= UINT64_C(1) << i;
	t->b->touched = true;
	t->had_read |= (uint64_t)gm_mask_test(&map->read, page) << i;
	t->had_write |= (uint64_t)had_write << i;
	t->write |= (uint64_t)write << i; /* rights only grow */
	gm_mask_set(&t->busy, page);
	gm_mask_set(&t->b->busy, page);
	gm_mask_set(&map->read, page);
	if (write)
		gm_mask_set(&map->write, page);
	if (gm_mask_test(&map->unsure, page)) {
		gm_mask_set(&t->doubtful, page);
		gm_mask_clear(&map->unsure, page);
	}
}

/* (block) Movable ones that somebody else has, or that something keeps where they are, are not brought with the others. */
static void leave_out_of_way(struct batch *t)
{
	struct gm_block *b = t->b;
	struct gm_mask in_the_way = gm_slice_pages(&b->slice_cpu, b->as->cfg.slice_ns, gm_now_ns(b->as->env));

	in_the_way = gm_mask_or(in_the_way, gm_mask_or(b->busy, gm_mask_or(b->doomed, b->held)));
	FOR_EACH(i, t->movable)
		if (gm_mask_test(&in_the_way, page_of(t, i)))
			t->movable &= ~(UINT64_C(1) << i);
}

/* False: the block has no record of what the context maps yet. */
static bool sort_out(struct batch *t)
{
	struct gm_block *b = t->b;
	bool able;

	gm_lock(b->as->env, &b->lock);
	able = b->map[t->ctx->index];
	FOR_EACH(i, able ? t->open : 0) {
		unsigned page = page_of(t, i);
		enum gm_seen seen = gm_fault_look(t->ctx, b, page, t->ask[i].access);

		if (seen == GM_SEEN_MAPPED) {
			answer(t, i, GM_RET_SUCCESS);
			t->fresh |= UINT64_C(1) << i;
			t->spurious++;
		} else if (seen == GM_SEEN_EDGE && is_simple(t, page, t->ask[i].access)) {
			claim_edge(t, i, page);
		} else if (seen == GM_SEEN_MOVABLE) {
			t->movable |= UINT64_C(1) << i;
		}
	}
	if (t->movable & (t->movable - 1)) /* two at least */
		leave_out_of_way(t);
	else
		t->movable = 0;
	gm_unlock(b->as->env, &b->lock);
	return able;
}

/* The same when all of its records are there: mostly they are. */
static gm_ret_t make_and_sort_out(struct batch *t)
{
	gm_ret_t ret = gm_block_need_node(t->b, t->ctx->dev->index);

	while (!ret && !sort_out(t))
		ret = gm_block_need_map(t->b, t->ctx->index);
	return ret;
}

/* -------------------------------------------------------------- in place */

/* Claimed and not mapped after all: nothing was entered yet. */
static void unclaim(struct batch *t, uint64_t asks)
{
	struct gm_mask read = pages_of(t, asks & ~t->had_read), write = pages_of(t, asks & ~t->had_write);
	struct gm_mask doubtful = gm_mask_and(pages_of(t, asks), t->doubtful);
	struct gm_bmap *map = t->b->map[t->ctx->index];

	gm_lock(t->b->as->env, &t->b->lock);
	map->read = gm_mask_sub(map->read, read);
	map->write = gm_mask_sub(map->write, write);
	map->unsure = gm_mask_or(map->unsure, doubtful);
	t->doubtful = gm_mask_sub(t->doubtful, doubtful);
	gm_unlock(t->b->as->env, &t->b->lock);
}

/* Which of the edges the process itself may access so; the others have their answer. */
static uint64_t allowed(struct batch *t)
{
	struct gm_host_vma vma = { .bytes = 0 };
	uint64_t refused = 0;

	FOR_EACH(i, t->edges) {
		gm_ret_t ret = gm_fault_rights(t->b->as, t->ask[i].va, t->ask[i].access, &vma);

		if (ret) {
			refused |= UINT64_C(1) << i;
			answer(t, i, ret);
		}
	}
	if (refused)
		unclaim(t, refused);
	return t->edges & ~refused;
}

/* Neighbours that follow each other and get the same right become one step. */
static gm_ret_t enter(struct batch *t, uint64_t asks)
{
	struct gm_plan plan;
	unsigned first = 0, end = 0;
	bool write = false;

	gm_plan_init(&plan, t->b->as, t->ctx->dev->hal, 0);
	gm_plan_settle(&plan, t->ctx, t->b, &t->doubtful);
	FOR_EACH(i, asks) {
		unsigned page = page_of(t, i);

		if (page != end || write != (t->write >> i & 1)) {
			gm_plan_enter_host(&plan, t->ctx, t->b, first, end, write);
			first = page;
			write = t->write >> i & 1;
		}
		end = page + 1;
	}
	gm_plan_enter_host(&plan, t->ctx, t->b, first, end, write);
	return gm_plan_run(&plan);
}

/* Which of them are entered is not known: those that were mapped before are so still, the others are not. */
static void undo(struct batch *t, uint64_t asks)
{
	struct gm_mask before = pages_of(t, asks & t->had_read), others = pages_of(t, asks & ~t->had_read);

	gm_plan_doubt(t->b, t->ctx->index, &before);
	if (!gm_mask_empty(&others))
		(void)gm_plan_revoke_in(t->b, t->ctx, &others, 0, false);
}

/* Nothing here waits for anybody else, so there is no deadline but that of every plan. */
static void map_edges(struct batch *t)
{
	uint64_t asks = allowed(t);
	unsigned before = t->served;
	gm_ret_t ret = asks ? enter(t, asks) : GM_RET_SUCCESS;

	if (ret)
		undo(t, asks);
	FOR_EACH(i, asks)
		if (!ret || t->n == 1) /* else each is tried alone, and says itself why it fails */
			answer(t, i, ret);
	t->in_place = t->served - before;
	gm_txn_release_unmoved(t->b, &t->busy);
}

/* -------------------------------------------------------------- together */

static void bring_movable(struct batch *t, uint64_t deadline_ns)
{
	const struct gm_fault_ask *ask[GM_FAULT_ASKS];
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && t->movable) {
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
			answer(t, i, ret);
			t->fresh |= UINT64_C(1) << i;
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
		t->fresh |= (uint64_t)!t->ask[i].ret << i;
	}
}

/* Their slice begins, and their frames are the most recently used. */
static void end_served(struct batch *t)
{
	struct gm_block *b = t->b;
	struct gm_as *as = b->as;
	struct gm_dev *dev = t->ctx->dev;
	struct gm_mask served = pages_of(t, t->fresh);
	struct gm_chunk *last = NULL;
	struct gm_bnode *n;

	gm_lock(as->env, &b->lock);
	gm_slice_serve(&b->slice_dev, as->cfg.slice_ns, gm_now_ns(as->env), &served);
	b->touched = true;
	n = b->node[dev->index];
	FOR_EACH(i, t->fresh) {
		unsigned page = page_of(t, i);
		struct gm_chunk *c = n->unit[page / GM_UNIT_PAGES];

		if (!c || c == last || !gm_mask_test(&n->resident, page))
			continue;
		gm_node_touch(&dev->node, c);
		last = c;
	}
	gm_unlock(as->env, &b->lock);
	gm_pack_stirred(as);
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

static void count(const struct batch *t)
{
	struct gm_stat_shard *s = gm_stat_here(t->ctx->as);

	if (t->in_place)
		gm_stat_add_to(s, GM_STAT_pages_in_place, t->in_place);
	if (t->served > t->spurious)
		gm_stat_add_to(s, GM_STAT_dev_faults, t->served - t->spurious);
	if (t->spurious)
		gm_stat_add_to(s, GM_STAT_dev_faults_spurious, t->spurious);
}

/* Finding out and mapping in place takes less time than asking for the time: of these one in so many is timed, for all. */
#define TIMED 16u

static bool is_timed(struct gm_ctx *ctx)
{
	uint32_t ticks = atomic_load_explicit(&ctx->ticks, memory_order_relaxed);

	atomic_store_explicit(&ctx->ticks, ticks + 1, memory_order_relaxed); /* that some are lost does no harm */
	return ticks % TIMED == 0;
}

/* Moving, and whatever may wait. */
static void serve_slowly(struct batch *t, uint64_t attempt_ns)
{
	uint64_t start_ns = gm_now_ns(t->ctx->as->env);

	if (t->movable)
		bring_movable(t, gm_deadline_after_ns(start_ns, attempt_ns));
	serve_rest(t, attempt_ns, start_ns);
	gm_stat_time(t->ctx->as, GM_STAT_ns_dev_fault, start_ns);
}

static void book_time(struct gm_ctx *ctx, uint64_t start_ns)
{
	if (start_ns)
		gm_stat_add(ctx->as, GM_STAT_ns_dev_fault, TIMED * (gm_now_ns(ctx->as->env) - start_ns));
}

static void serve_batch(struct gm_ctx *ctx, struct gm_fault_ask *ask, size_t n, uint64_t attempt_ns, uint64_t start_ns)
{
	struct batch t;
	gm_ret_t ret;

	batch_init(&t, ctx, ask, n);
	find_block(&t);
	if (!t.b)
		return;
	ret = make_and_sort_out(&t);
	if (ret) {
		FOR_EACH(i, t.open)
			answer(&t, i, ret);
	}
	if (t.edges)
		map_edges(&t);
	book_time(ctx, start_ns);
	if (t.open)
		serve_slowly(&t, attempt_ns);
	if (t.fresh)
		end_served(&t);
	gm_block_put(t.b);
	count(&t);
}

void gm_fault_block(struct gm_ctx *ctx, struct gm_fault_ask *ask, size_t n, uint64_t attempt_ns)
{
	uint64_t start_ns = is_timed(ctx) ? gm_now_ns(ctx->as->env) : 0;

	if (n == 1 && gm_fault_edge(ctx, ask))
		book_time(ctx, start_ns);
	else
		serve_batch(ctx, ask, n, attempt_ns, start_ns);
}
