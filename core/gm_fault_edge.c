/* SPDX-License-Identifier: MIT */
/*
 * A device fault on one page that stays on the host, with nothing in the way: the commonest, and all that is to be
 * done is one entry of a page table. So what it costs is finding the block and keeping others off the page.
 *
 *     found, locked --edge, not mapped, not busy--> busy, recorded as mapped (unlocked)
 *                   --else, or the lock is not free--> nothing was done: gm_fault_block.c
 *     busy --rights, entered--> not busy --> served
 *          --no rights--> recorded as it was before --> not busy --> failed
 *          --not entered--> was mapped before: in doubt; else revoked --> not busy --> failed
 *
 * No reference is taken. A block goes, and its memory with it, only by who has the space's lock, has waited until
 * nobody reads the index, and sees under the block's lock that no page of it is busy
 * (gm_block_retire(): and all is host; gm_pack_work.c: and all has a packed form; at the end of a space no context is left that could be entered). Here the lock is taken while
 * reading the index, so the block was in it and is not gone; while the lock is held nobody takes it out; and when it
 * is given up the page is busy, and stays so until the lock is held again. Nothing of the block is touched after
 * that, so who waits for the page is woken before. Where an end has more to do, it takes a reference first.
 *
 * The lock is only tried: who has it may be waiting until nobody reads the index.
 *
 * A mapping is recorded before it is made, as everywhere: a revocation of what was never entered is harmless.
 */
#include "config.h"

#include "core/gm_fault.h"

struct edge {
	struct gm_ctx *ctx;
	struct gm_block *b;
	unsigned page;
	bool write, had_read, had_write;
};

/* (block) Nothing has to be asked, waited for or brought into order. */
static bool is_simple(const struct gm_block *b, const struct gm_bmap *map, unsigned page, uint32_t access)
{
	const struct gm_mask *mapped = access & GM_WRITE ? &map->write : &map->read;

	return gm_mask_test(&b->edge, page) && !b->has_external && !gm_mask_test(mapped, page) && !gm_mask_test(&map->unsure, page) &&
	       !gm_mask_test(&b->busy, page) && !gm_mask_test(&b->registered, page) &&
	       !(b->is_doomed && gm_mask_test(&b->doomed, page));
}

/* (block) */
static void record(struct edge *e, struct gm_bmap *map, uint32_t access)
{
	e->had_read = gm_mask_test(&map->read, e->page);
	e->had_write = gm_mask_test(&map->write, e->page);
	e->write = (access & GM_WRITE) || e->had_write; /* rights only grow */
	e->b->touched = true;
	gm_mask_set(&e->b->busy, e->page);
	gm_mask_set(&map->read, e->page);
	if (e->write)
		gm_mask_set(&map->write, e->page);
}

static bool claim(struct edge *e, const struct gm_fault_ask *ask)
{
	struct gm_env *env = e->ctx->as->env;
	struct gm_bmap *map;
	bool mine;

	e->b = gm_block_find_locked(e->ctx->as, ask->va);
	if (!e->b)
		return false;
	e->page = gm_page_of(e->b, ask->va);
	map = e->b->map[e->ctx->index];
	mine = map && is_simple(e->b, map, e->page, ask->access);
	if (mine)
		record(e, map, ask->access);
	gm_unlock(env, &e->b->lock);
	return mine;
}

/* (block) Does the end of a transaction have more to do here than to let the page go? */
static bool has_more(const struct gm_block *b, unsigned page)
{
	uint32_t backed = 0;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		backed |= b->backed[i];
	return backed || b->watched || b->has_slot || b->is_doomed || gm_mask_test(&b->wanted, page);
}

static void release(struct edge *e)
{
	struct gm_block *b = e->b;
	struct gm_env *env = e->ctx->as->env;
	struct gm_mask one;
	bool more;

	gm_lock(env, &b->lock);
	more = has_more(b, e->page);
	if (more) {
		(void)gm_block_get(b);
	} else {
		gm_mask_clear(&b->busy, e->page);
		if (!GM_PLANTED(e->ctx->as, GM_PLANT_LOSE_WAKE))
			gm_wake(env, &b->waitq);
	}
	gm_unlock(env, &b->lock);
	if (!more)
		return;
	one = gm_mask_span(e->page, e->page + 1);
	gm_txn_release_unmoved(b, &one);
	gm_block_put(b);
}

/* Claimed and not mapped after all: nothing was entered yet. */
static void unclaim(const struct edge *e)
{
	struct gm_bmap *map = e->b->map[e->ctx->index];

	gm_lock(e->ctx->as->env, &e->b->lock);
	if (!e->had_read)
		gm_mask_clear(&map->read, e->page);
	if (!e->had_write)
		gm_mask_clear(&map->write, e->page);
	gm_unlock(e->ctx->as->env, &e->b->lock);
}

/* Whether it is entered is not known: one that was mapped before is so still, another is not. */
static void undo(const struct edge *e)
{
	struct gm_mask one = gm_mask_span(e->page, e->page + 1);

	if (e->had_read)
		gm_plan_doubt(e->b, e->ctx->index, &one);
	else
		(void)gm_plan_revoke_in(e->b, e->ctx, &one, 0, false);
}

static gm_ret_t map_page(const struct edge *e, const struct gm_fault_ask *ask)
{
	struct gm_ctx *ctx = e->ctx;
	struct gm_host_vma vma = { .bytes = 0 };
	gm_ret_t ret;

	ret = gm_fault_rights(ctx->as, ask->va, ask->access, &vma);
	if (ret) {
		unclaim(e);
		return ret;
	}
	ret = gm_hal_pmap_enter(ctx->dev->hal, ctx->pmap, ask->va + ctx->to_dev, ask->va, GM_PAGE_BYTES,
				GM_PTE_HOST | (e->write ? GM_PTE_WRITE : 0));
	if (ret)
		undo(e);
	return ret;
}

bool gm_fault_edge(struct gm_ctx *ctx, struct gm_fault_ask *ask)
{
	const struct gm_hal_dev *hal = ctx->dev->hal;
	struct edge e = { .ctx = ctx };

	if ((ask->access & GM_ATOMIC) || hal->granule_bytes != GM_PAGE_BYTES || !gm_hal_has(hal, GM_CAP_HOST_MAP) ||
	    ask->va < ctx->va || ask->va >= ctx->end)
		return false;
	if (!claim(&e, ask))
		return false;
	ask->ret = map_page(&e, ask);
	release(&e);
	if (!ask->ret)
		gm_stat_add(ctx->as, GM_STAT_EDGES, 1);
	return true;
}
