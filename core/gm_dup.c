/* SPDX-License-Identifier: MIT */
/*
 * Read duplication: a page is on the host, at its address, and in the memory of one or several devices, with the
 * same bytes; loads of all of them cost nothing.
 *
 *     HOST, stolen --copied--> protected at its address, recorded: duplicated
 *     NONE, a hole --zeroed--> the same with zeros
 *     duplicated, on others --read where it is, copied--> this device has a duplicate too
 *     duplicated --somebody stores, or its end is asked for--> one place again                  (gm_dup_end.c)
 *
 * What holds meanwhile: no context maps such a page writable; none maps it in place; stores of the process wait in the
 * kernel (gm_host.h: protected). So every duplicate has the bytes of the page, and when a store of the process is done
 * no device reads what was there before: its mapping was gone, and drained, before the store went on.
 *
 * The frame taken from the process does not come back to it: the kernel can protect what it makes, in one step, but
 * not what it moves. With two steps a store between them would be in the process's page and in no duplicate. That
 * the page can be taken at all is also what shows that no DMA is under way to it; DMA that begins later waits as a
 * store does. The price is a copy by the kernel for each page, and that what was one huge page is several.
 *
 * A further device reads the page at its address, over the bus, as it cannot change: nobody's access has to wait
 * then, and nothing can go wrong for those who have one. What is read is the page that is meant only if no event tells
 * otherwise; so it is read while nobody handles events, and none may be pending afterwards.
 *
 * Failure: what was stolen and cannot be given back protected is given back as it was; what cannot be given back at
 * all stays parked, as in any transaction. A page that one device cannot be given another keeps.
 */
#include "config.h"

#include "core/gm_dup.h"

#include "core/gm_events.h"
#include "core/gm_evict.h"

/* One page that is duplicated already, as its bytes are. AGAIN: events come first. */
static gm_ret_t read_page(struct gm_block *b, unsigned page, char *to)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	gm_ret_t ret;

	if (!gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	ret = gm_hal_bus_access(as->host, va, to, GM_PAGE_BYTES, false);
	if (!ret && gm_hal_settled(as->host, as->hpmap))
		ret = GM_RET_AGAIN;
	gm_events_release_reader(as);
	return ret;
}

/* All of m->shared; those that cannot be read leave it. `base`: where a page 0 would be. */
static void read_shared(struct gm_txn *t, struct gm_move *m, char *scratch, unsigned low)
{
	struct gm_mask got = gm_mask_none();

	GM_MASK_FOR_RUN(&m->shared, first, end)
		for (unsigned page = first; page < end; page++) {
			gm_ret_t ret;

			do
				ret = read_page(m->block, page, scratch + (uint64_t)(page - low) * GM_PAGE_BYTES);
			while (ret == GM_RET_AGAIN && gm_txn_let_reader_run(t));
			if (!ret)
				gm_mask_set(&got, page);
			else
				gm_txn_fail(t, ret == GM_RET_AGAIN ? GM_RET_TIMEDOUT : ret == GM_RET_NOMEM ? ret : GM_RET_AGAIN);
		}
	m->shared = got;
}

/* The device gets the bytes of pages that others have; those that it does not get leave m->shared. */
static void copy_shared(struct gm_txn *t, struct gm_move *m)
{
	struct gm_env *env = t->as->env;
	unsigned low = 0, high = GM_BLOCK_PAGES;
	struct gm_frame_map frames;
	struct gm_plan plan;
	char *scratch;
	size_t bytes;

	if (gm_mask_empty(&m->shared))
		return;
	while (!gm_mask_test(&m->shared, low))
		low++;
	while (!gm_mask_test(&m->shared, high - 1))
		high--;
	bytes = (size_t)(high - low) * GM_PAGE_BYTES;
	scratch = gm_mem_alloc(env, bytes);
	if (!scratch) {
		m->shared = gm_mask_none();
		gm_txn_fail(t, gm_fail(GM_RET_NOMEM, "no scratch memory to duplicate 0x%llx", (unsigned long long)m->block->va));
		return;
	}
	read_shared(t, m, scratch, low);
	gm_txn_future_frames(t, m, &frames);
	gm_plan_init(&plan, t->as, t->dev->hal, t->deadline_ns);
	gm_plan_copy(&plan, GM_COPY_TO_DEV, &m->shared, &frames, GM_VA(scratch) - (uint64_t)low * GM_PAGE_BYTES);
	if (gm_plan_run(&plan)) {
		m->shared = gm_mask_none();
		gm_txn_fail(t, plan.ret);
	} else {
		gm_stat_add(t->as, GM_STAT_bytes_to_dev, (uint64_t)gm_mask_count(&m->shared) * GM_PAGE_BYTES);
	}
	gm_mem_free(env, scratch, bytes);
}

/* Stolen, or without content: back to the process, where stores wait. */
static struct gm_mask give_back(struct gm_txn *t, struct gm_move *m)
{
	struct gm_mask empty = gm_mask_or(m->hole, m->none), back = gm_mask_none();
	uint64_t now_ns = gm_now_ns(t->as->env);

	gm_txn_give_protected(t, m->block, &m->parked, m->block->slot, &back);
	gm_txn_give_protected(t, m->block, &empty, 0, &back);
	gm_stat_lap(t->as, GM_STAT_ns_restore, &now_ns);
	return back;
}

/* The frames in which they were stolen: the process has others now. */
static void drop_frames(struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end)
		gm_hal_slot_drop(b->as->host, b->as->hpmap, b->slot + (uint64_t)first * GM_PAGE_BYTES,
				 (uint64_t)(end - first) * GM_PAGE_BYTES);
}

/* Not duplicated after all: as undone; a hole is the host's again without doing anything. */
static void give_up(struct gm_txn *t, struct gm_move *m, const struct gm_mask *back)
{
	struct gm_mask parked = gm_mask_sub(m->parked, *back), home = gm_mask_sub(m->hole, *back);
	uint64_t now_ns = gm_now_ns(t->as->env);

	if (gm_mask_empty(&parked) && gm_mask_empty(&home))
		return;
	gm_txn_restore(t, m->block, &parked, &home, &now_ns);
	gm_commit_host(m->block, &home);
}

void gm_dup_commit(struct gm_txn *t, struct gm_move *m)
{
	struct gm_block *b = m->block;
	struct gm_mask back, frames;

	copy_shared(t, m);
	back = give_back(t, m);
	frames = gm_mask_and(m->parked, back);
	m->arrived = gm_mask_or(back, m->shared);
	gm_lock(b->as->env, &b->lock);
	b->host = gm_mask_or(b->host, gm_mask_and(back, b->managed));
	b->staged = gm_mask_sub(b->staged, frames);
	b->failed = gm_mask_sub(b->failed, back);
	if (!gm_mask_empty(&frames))
		b->huge = false;
	b->dup = gm_mask_or(b->dup, m->arrived);
	b->any_dup = !gm_mask_empty(&b->dup);
	b->node[t->dev->index]->copy = gm_mask_or(b->node[t->dev->index]->copy, m->arrived);
	gm_txn_settle_frames(t, m);
	gm_unlock(b->as->env, &b->lock);
	drop_frames(b, &frames);
	give_up(t, m, &back);
	gm_stat_add(t->as, GM_STAT_pages_duplicated, gm_mask_count(&m->arrived));
}

gm_ret_t gm_dup_bring(struct gm_ctx *ctx, struct gm_move *m, uint32_t flags, uint64_t deadline_ns)
{
	struct gm_txn t = { .as = ctx->as, .dev = ctx->dev, .ctx = ctx, .flags = flags | GM_TXN_DUPLICATE,
			    .deadline_ns = deadline_ns, .move = m, .moves = 1 };
	gm_ret_t ret;

	ret = gm_evict_reserve(ctx->dev, m, deadline_ns);
	if (!ret)
		ret = gm_txn_run(&t);
	gm_evict_unreserve(ctx->dev, m);
	if (ret != GM_RET_AGAIN || t.why == GM_BLOCKED_STALE)
		return ret;
	if (t.why == GM_BLOCKED_ELSEWHERE) { /* also on this device: its only copy becomes one of two by way of the host */
		ret = gm_move_home(m->block, &t.what, flags, deadline_ns);
		/* NODEV: what a lost device had is poisoned now, the rest is home. */
		return !ret || ret == GM_RET_EXIST || ret == GM_RET_FAULT || ret == GM_RET_NODEV ? GM_RET_AGAIN : ret;
	}
	(void)gm_events_let_run(ctx->as); /* the process changes its memory meanwhile */
	return ret;
}

/* The page's granule, and what else of its unit is duplicated and this device does not read yet. */
static struct gm_mask choose(const struct gm_ctx *ctx, struct gm_block *b, unsigned page)
{
	uint64_t bytes = b->as->cfg.dev_unit_bytes, unit = (b->va + (uint64_t)page * GM_PAGE_BYTES) & ~(bytes - 1);
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_mask need = gm_mask_span(page, page + 1), want, avoid;

	need = gm_mask_grow(&need, granule_pages);
	gm_lock(b->as->env, &b->lock);
	avoid = gm_mask_or(gm_mask_or(b->busy, b->doomed), gm_mask_or(b->held, b->leaving));
	avoid = gm_mask_or(avoid, gm_slice_pages(&b->slice_cpu, b->as->cfg.slice_ns, gm_now_ns(b->as->env)));
	want = gm_mask_sub(gm_mask_and(gm_block_clip(b, unit, unit + bytes), b->dup), avoid);
	gm_unlock(b->as->env, &b->lock);
	return gm_mask_or(gm_mask_shrink(&want, granule_pages), need);
}

gm_ret_t gm_dup_fault(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
		      bool *served)
{
	unsigned page = gm_page_of(b, ask->va), granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_mask one = gm_mask_span(page, page + 1), there;
	struct gm_host_vma vma = { .bytes = 0 };
	struct gm_move m = { .block = b, .want = choose(ctx, b, page), .waiters = one };
	gm_ret_t ret;
	bool cannot;

	m.rights = gm_rights_seen(&b->as->rights, b->va);
	ret = gm_fault_rights(b->as, ask->va, ask->access, &vma);

	if (ret)
		return ret;
	m.map = m.want;
	ret = gm_dup_bring(ctx, &m, 0, deadline_ns);
	there = gm_mask_or(m.arrived, m.stay);
	there = gm_mask_shrink(&there, granule_pages);
	*served = !ret && gm_mask_test(&there, page);
	/* One page of a granule that is refused, or not managed, keeps the others; there is no memory to read others' in, or no
	 * way: then it is a page like others, to be moved, or mapped in place. */
	cannot = (!ret && !*served) || ret == GM_RET_NOMEM || ret == GM_RET_NOTSUP;
	if (cannot)
		return gm_dup_end(b, &one, NULL, deadline_ns);
	return ret == GM_RET_AGAIN || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}
