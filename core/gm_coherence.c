/* SPDX-License-Identifier: MIT */
/*
 * The calls of gmem/coherence.h. Both go block by block and stop at nothing but a failure: pages in the way (held,
 * pinned) are left out, and counted at the end. How a duplicate is made is in gm_dup.c.
 *
 * Exclusive use needs nothing of its own but a mark. A page that is in a device's memory is mapped by nobody else: the
 * process's access is a fault, another device's brings it home first. So the page goes to the device, and the mark says
 * that somebody asked for it; it goes with whatever takes the page from there:
 *
 *     any --to the device, mapped with all rights--> exclusive --home, dropped, lost--> not so
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_evict.h"
#include "core/gm_mem.h"
#include "hal/gm_handle.h"

/* What is to be done with the managed pages of one block in [va, end). SUCCESS: what could be, was. */
typedef gm_ret_t (*block_fn)(struct gm_ctx *ctx, struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns);
/* (block) Which pages are as they should be. */
typedef struct gm_mask (*done_fn)(const struct gm_ctx *ctx, const struct gm_block *b);

/* The next block of [*at, end) with managed memory; NULL: there is none. */
static gm_ret_t next_block(struct gm_as *as, uint64_t *at, uint64_t end, struct gm_block **b)
{
	struct gm_region buf, *r;
	gm_ret_t ret;

	do {
		gm_lock(as->env, &as->lock);
		r = gm_regions_first(&as->regions, *at, end, &buf);
		if (r && r->va > *at)
			*at = r->va;
		gm_unlock(as->env, &as->lock);
		*b = NULL;
		ret = r ? gm_block_obtain(as, *at, b) : GM_RET_SUCCESS;
	} while (ret == GM_RET_FAULT); /* it went meanwhile */
	return ret;
}

static gm_ret_t each_block(struct gm_ctx *ctx, uint64_t va, uint64_t end, block_fn fn, uint64_t deadline_ns)
{
	struct gm_block *b = NULL;
	gm_ret_t ret;

	for (uint64_t at = va;; at = b->va + GM_BLOCK_BYTES, gm_block_put(b)) {
		ret = at < end ? next_block(ctx->as, &at, end, &b) : GM_RET_SUCCESS;
		if (at >= end || ret || !b)
			return ret;
		ret = gm_block_need_node(b, ctx->dev->index);
		if (!ret)
			ret = gm_block_need_map(b, ctx->index);
		if (!ret)
			ret = fn(ctx, b, va, end, deadline_ns);
		if (ret) {
			gm_block_put(b);
			return ret;
		}
	}
}

/* How many pages of the range are as they should be, were lost, and are managed at all. */
struct tally {
	uint64_t done, lost, managed;
};

static struct tally count(const struct gm_ctx *ctx, uint64_t va, uint64_t end, done_fn fn)
{
	struct tally n = { .done = 0 };
	struct gm_as *as = ctx->as;
	struct gm_region buf, *r;
	uint64_t at = va;

	gm_lock(as->env, &as->lock);
	for (r = gm_regions_first(&as->regions, va, end, &buf); r; r = gm_regions_next(&as->regions, r, end))
		n.managed += ((r->end < end ? r->end : end) - (r->va > va ? r->va : va)) / GM_PAGE_BYTES;
	gm_unlock(as->env, &as->lock);
	/* A block that is packed since has neither mark. */
	for (struct gm_block *b; (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end), done, lost;

		gm_lock(as->env, &b->lock);
		done = gm_mask_sub(gm_mask_and(range, fn(ctx, b)), b->leaving);
		lost = gm_mask_sub(gm_mask_and(range, b->poisoned), b->leaving);
		gm_unlock(as->env, &b->lock);
		n.done += gm_mask_count(&done);
		n.lost += gm_mask_count(&lost);
		at = b->va + GM_BLOCK_BYTES;
	}
	return n;
}

static gm_ret_t judge(const char *what, uint64_t va, uint64_t end, struct tally n)
{
	if (n.managed * GM_PAGE_BYTES < end - va)
		return gm_fail(GM_RET_FAULT, "%s: %llu KiB of the range are not managed memory", what,
			       (unsigned long long)((end - va - n.managed * GM_PAGE_BYTES) >> 10));
	if (n.lost)
		return gm_fail(GM_RET_NODEV, "%s: the content of %llu pages was lost with a device", what,
			       (unsigned long long)n.lost);
	if (n.done < n.managed)
		return gm_fail(GM_RET_BUSY, "%s: %llu pages cannot be so now", what, (unsigned long long)(n.managed - n.done));
	return GM_RET_SUCCESS;
}

/* Of both calls, once the context is entered. */
static gm_ret_t run(const char *what, struct gm_ctx *ctx, uint64_t va, uint64_t bytes, block_fn fn, done_fn done,
		    uint64_t *done_bytes)
{
	uint64_t end = (va + bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1), deadline_ns, before = 0;
	struct tally n = { .done = 0 };
	struct gm_as *as = ctx->as;
	gm_ret_t ret;

	va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_events_settle(as, deadline_ns);
	if (!ret)
		ret = gm_pack_open_range(as, va, end);
	if (!ret)
		ret = gm_mem_check_fit(as, what, ctx->dev, va, end);
	/* Where memory is short what comes late may evict what came early: again, as long as that gets on. */
	while (!ret) {
		ret = each_block(ctx, va, end, fn, deadline_ns);
		n = count(ctx, va, end, done);
		if (n.done == n.managed || n.done <= before)
			break;
		before = n.done;
	}
	if (done_bytes)
		*done_bytes = n.done * GM_PAGE_BYTES;
	return ret ? ret : judge(what, va, end, n);
}

static gm_ret_t check_range(const struct gm_as *as, const char *what, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = gm_as_check_range(as, what, va, bytes);

	if (!ret && va + bytes > UINT64_MAX - GM_PAGE_BYTES)
		ret = gm_fail(GM_RET_INVAL, "%s: the range overflows", what);
	return ret;
}

/* The application changes its memory meanwhile, or somebody was faster. */
static bool again(const struct gm_as *as, gm_ret_t ret, uint64_t deadline_ns)
{
	return (ret == GM_RET_AGAIN || ret == GM_RET_FAULT) && gm_now_ns(as->env) < deadline_ns;
}

/* The last result of a block. What a set has taken, or is gone, is counted at the end. */
static gm_ret_t conclude(const struct gm_block *b, gm_ret_t ret)
{
	if (ret == GM_RET_AGAIN)
		return gm_fail(GM_RET_TIMEDOUT, "pages near 0x%llx did not become free in time", (unsigned long long)b->va);
	return ret == GM_RET_BUSY || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

/* ------------------------------------------------------------- duplicates */

/* (block) */
static struct gm_mask is_duplicated(const struct gm_ctx *ctx, const struct gm_block *b)
{
	const struct gm_bnode *n = b->node[ctx->dev->index];

	return n ? n->copy : gm_mask_none();
}

/* (block) What can be duplicated, and is not, or is not mapped yet. */
static struct gm_mask lacks_duplicate(const struct gm_ctx *ctx, const struct gm_block *b, uint64_t va, uint64_t end)
{
	const struct gm_bmap *map = b->map[ctx->index];
	struct gm_mask there = gm_mask_and(is_duplicated(ctx, b), gm_mask_sub(map->read, map->unsure));
	struct gm_mask want = gm_mask_and(gm_block_clip(b, va, end), b->managed);

	want = gm_mask_sub(want, gm_mask_or(b->held, b->poisoned));
	return gm_mask_sub(gm_mask_shrink(&want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES), there);
}

/* Of these, what the process itself may read; the others leave them. SUCCESS, NOMEM: it cannot be told now. */
static gm_ret_t keep_readable(struct gm_block *b, struct gm_mask *pages)
{
	struct gm_host_vma vma = { .bytes = 0 };
	struct gm_mask all = *pages;

	GM_MASK_FOR_RUN(&all, first, end)
		for (unsigned page = first; page < end; page++) {
			gm_ret_t ret = gm_fault_rights(b->as, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_READ, &vma);

			if (ret && ret != GM_RET_FAULT && ret != GM_RET_PERM)
				return ret;
			if (ret)
				gm_mask_clear(pages, page);
		}
	return GM_RET_SUCCESS;
}

static gm_ret_t duplicate_block(struct gm_ctx *ctx, struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	gm_ret_t ret;

	do {
		struct gm_move m = { .block = b };

		gm_lock(env, &b->lock);
		m.rights = gm_rights_seen(&b->as->rights, b->va);
		m.want = lacks_duplicate(ctx, b, va, end);
		gm_unlock(env, &b->lock);
		ret = keep_readable(b, &m.want);
		if (ret)
			return ret;
		m.want = gm_mask_shrink(&m.want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
		if (gm_mask_empty(&m.want))
			return GM_RET_SUCCESS;
		m.map = m.want;
		ret = gm_dup_bring(ctx, &m, GM_TXN_FORCE, deadline_ns);
	} while (again(b->as, ret, deadline_ns));
	return conclude(b, ret);
}

gm_ret_t gm_duplicate(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev, uint64_t *duplicated_bytes)
{
	struct gm_ctx *ctx;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret)
		ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (!ret)
		ret = check_range(as, "gm_duplicate", va, bytes);
	if (ret)
		return ret;
	ctx = gm_as_ctx_of(as, dev);
	if (!ctx)
		return gm_fail(GM_RET_INVAL, "gm_duplicate: the device is not attached to this space");
	if (as->lib->rung.cannot & GM_RUNG_NO_DUPLICATION) {
		gm_ctx_leave(ctx);
		return gm_fail(GM_RET_NOTSUP, "gm_duplicate: on the rung \"%s\" nothing tells of a first store; see gm_lib_rung()",
			       gm_rung_name(as->lib->rung.rung));
	}
	ret = run("gm_duplicate", ctx, va, bytes, duplicate_block, is_duplicated, duplicated_bytes);
	gm_ctx_leave(ctx);
	return ret;
}

/* -------------------------------------------------------------- exclusive */

/* (block) */
static struct gm_mask is_exclusive(const struct gm_ctx *ctx, const struct gm_block *b)
{
	return gm_mask_and(b->exclusive, gm_block_on_dev(b, ctx->dev->index));
}

/* (block) What can be exclusive, and is not, or is not mapped with all rights yet. */
static struct gm_mask lacks_exclusive(const struct gm_ctx *ctx, const struct gm_block *b, uint64_t va, uint64_t end)
{
	const struct gm_bmap *map = b->map[ctx->index];
	struct gm_mask there = gm_mask_and(is_exclusive(ctx, b), gm_mask_sub(map->write, map->unsure));
	struct gm_mask want = gm_mask_and(gm_block_clip(b, va, end), b->managed);

	want = gm_mask_sub(want, gm_mask_sub(b->held, gm_block_on_dev(b, ctx->dev->index)));
	want = gm_mask_sub(want, b->poisoned);
	return gm_mask_sub(gm_mask_shrink(&want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES), there);
}

/* May the process itself write all of it? */
static gm_ret_t check_rights(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_host_vma vma = { .bytes = 0 };
	gm_ret_t ret = GM_RET_SUCCESS;

	GM_MASK_FOR_RUN(pages, first, end) {
		uint64_t va = b->va + (uint64_t)first * GM_PAGE_BYTES, stop = b->va + (uint64_t)end * GM_PAGE_BYTES;

		for (; !ret && va < stop; va = vma.va + vma.bytes)
			ret = gm_fault_rights(b->as, va, GM_ATOMIC, &vma);
	}
	return ret;
}

/* One transaction; AGAIN: look again. */
static gm_ret_t take_alone(struct gm_ctx *ctx, struct gm_move *m, uint64_t deadline_ns)
{
	struct gm_txn t = { .as = ctx->as, .dev = ctx->dev, .ctx = ctx, .flags = GM_TXN_FORCE | GM_TXN_EXCLUSIVE,
			    .deadline_ns = deadline_ns, .move = m, .moves = 1 };
	gm_ret_t ret = gm_evict_reserve(ctx->dev, m, deadline_ns);

	if (!ret)
		ret = gm_txn_run(&t);
	gm_evict_unreserve(ctx->dev, m);
	if (ret == GM_RET_AGAIN && t.why == GM_BLOCKED_ELSEWHERE)
		(void)gm_move_home(m->block, &t.what, GM_TXN_FORCE, deadline_ns);
	else if (ret == GM_RET_FAULT || (ret == GM_RET_AGAIN && t.why == GM_BLOCKED_NOT))
		(void)gm_events_let_run(ctx->as);
	return ret;
}

static gm_ret_t exclusive_block(struct gm_ctx *ctx, struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	gm_ret_t ret;

	do {
		struct gm_move m = { .block = b };

		gm_lock(env, &b->lock);
		m.rights = gm_rights_seen(&b->as->rights, b->va);
		m.want = lacks_exclusive(ctx, b, va, end);
		gm_unlock(env, &b->lock);
		if (gm_mask_empty(&m.want))
			return GM_RET_SUCCESS;
		m.want = gm_mask_grow(&m.want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
		m.map = m.write = m.want;
		ret = check_rights(b, &m.want);
		if (!ret)
			ret = take_alone(ctx, &m, deadline_ns);
	} while (again(b->as, ret, deadline_ns));
	return conclude(b, ret);
}

gm_ret_t gm_exclusive(struct gm_ctx *ctx, uint64_t va, uint64_t bytes, uint64_t *exclusive_bytes)
{
	gm_ret_t ret = gm_handle_check(ctx, GM_HANDLE_CTX);

	if (!ret)
		ret = check_range(ctx->as, "gm_exclusive", va, bytes);
	if (ret)
		return ret;
	if (!gm_ctx_enter(ctx))
		return gm_fail(GM_RET_INVAL, "gm_exclusive: the context is being detached");
	ret = run("gm_exclusive", ctx, va, bytes, exclusive_block, is_exclusive, exclusive_bytes);
	gm_ctx_leave(ctx);
	return ret;
}
