/* SPDX-License-Identifier: MIT */
/*
 * Plans. Core collects steps, the HAL runs them (in one message where the
 * backend can, gm_hal_run()). A plan is a fixed array: when it is full, what
 * was collected runs, and collecting goes on; so making a plan never
 * allocates and never fails half-way for want of memory.
 *
 * Dependencies: a barrier makes all later steps wait for all earlier ones;
 * steps between two barriers are independent. Running an earlier part first
 * keeps every dependency, as steps are only ever added behind.
 *
 * Frames: pages that lie side by side in one chunk become one step, so a
 * block in a 2 MiB chunk is mapped and copied by one step each.
 *
 * Doubt: a plan that failed half way may have removed mappings and not come to
 * the invalidation, so a TLB may have what the page table has not. Such pages
 * stay recorded as mapped, and are invalidated before they are entered again.
 * They are not removed first: a working set may hold them, on a device that
 * cannot fault, and entering over what is there (the same frame, rights that
 * only grow) is legal.
 */
#include "config.h"

#include "core/gm_plan.h"

void gm_plan_init(struct gm_plan *p, const struct gm_as *as, struct gm_hal_dev *hal, uint64_t deadline_ns)
{
	p->hal = hal;
	p->deadline_ns = deadline_ns;
	p->wait_ns = as->cfg.wait_ns;
	p->ret = GM_RET_SUCCESS;
	p->now = false;
	p->n = 0;
	p->barrier = GM_STEP_FREE;
}

/* Until when the device gets. A single step that is not a copy has no fence to be waited for. */
static uint64_t bound_ns(const struct gm_plan *p)
{
	uint64_t least_ns;

	if (p->n == 1 && p->step[0].op != GM_STEP_COPY)
		return p->deadline_ns;
	least_ns = gm_deadline_ns(p->hal->env, p->wait_ns);
	return p->deadline_ns > least_ns ? p->deadline_ns : least_ns;
}

gm_ret_t gm_plan_run(struct gm_plan *p)
{
	if (!p->ret && p->n)
		p->ret = p->now ? gm_hal_run_now(p->hal, p->step, p->n)
				: gm_hal_run(p->hal, p->step, p->n, bound_ns(p));
	p->n = 0;
	p->barrier = GM_STEP_FREE;
	return p->ret;
}

void gm_plan_barrier(struct gm_plan *p)
{
	if (p->n)
		p->barrier = (uint32_t)p->n - 1;
}

/* The next step, to be completed in place. */
static struct gm_step *add(struct gm_plan *p, enum gm_step_op op)
{
	struct gm_step *s;

	if (p->n == GM_PLAN_STEPS)
		(void)gm_plan_run(p); /* the failure stays in p->ret */
	s = &p->step[p->n++];
	/* Field by field: a literal is cleared as a whole first, which takes as long as the rest. */
	s->op = op;
	s->after = p->barrier;
	s->pmap = NULL;
	s->va = s->pa = s->bytes = 0;
	s->pte = 0;
	s->copy.kind = (enum gm_copy_kind)0;
	s->copy.pa = s->copy.host = s->copy.bytes = 0;
	s->copy.peer = NULL;
	s->ret = GM_RET_SUCCESS;
	return s;
}

static uint64_t page_va(const struct gm_block *b, unsigned page)
{
	return b->va + (uint64_t)page * GM_PAGE_BYTES;
}

/* A step over pages [first, end) as the context sees them. */
static struct gm_step *add_pages(struct gm_plan *p, enum gm_step_op op, const struct gm_ctx *ctx,
				 const struct gm_block *b, unsigned first, unsigned end)
{
	struct gm_step *s = add(p, op);

	s->pmap = ctx->pmap;
	s->va = page_va(b, first) + ctx->to_dev;
	s->bytes = (uint64_t)(end - first) * GM_PAGE_BYTES;
	return s;
}

void gm_plan_remove(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end)
		(void)add_pages(p, GM_STEP_REMOVE, ctx, b, first, end);
}

void gm_plan_invl(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end)
		(void)add_pages(p, GM_STEP_INVL, ctx, b, first, end);
}

void gm_plan_enter(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *pages,
		   const struct gm_frame_map *frames, bool write)
{
	GM_MASK_FOR_RUN(pages, first, end) {
		for (unsigned i = first, next; i < end; i = next) {
			struct gm_step *s;

			next = gm_frame_run(frames, i, end);
			s = add_pages(p, GM_STEP_ENTER, ctx, b, i, next);
			s->pa = gm_frame_pa(frames, i);
			s->pte = write ? GM_PTE_WRITE | GM_PTE_ATOMIC : 0;
		}
	}
}

void gm_plan_enter_host(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, unsigned first,
			unsigned end, bool write)
{
	struct gm_step *s;

	if (first == end)
		return;
	s = add_pages(p, GM_STEP_ENTER, ctx, b, first, end);
	s->pa = page_va(b, first);
	s->pte = GM_PTE_HOST | (write ? GM_PTE_WRITE : 0);
}

void gm_plan_copy(struct gm_plan *p, enum gm_copy_kind kind, const struct gm_mask *pages,
		  const struct gm_frame_map *frames, uint64_t base)
{
	GM_MASK_FOR_RUN(pages, first, end) {
		for (unsigned i = first, next; i < end; i = next) {
			next = gm_frame_run(frames, i, end);
			add(p, GM_STEP_COPY)->copy = (struct gm_copy){
				.kind = kind,
				.pa = gm_frame_pa(frames, i),
				.host = base ? base + (uint64_t)i * GM_PAGE_BYTES : 0,
				.bytes = (uint64_t)(next - i) * GM_PAGE_BYTES,
			};
		}
	}
}

/* One context's part of a revocation. */
static gm_ret_t revoke_ctx(struct gm_block *b, struct gm_ctx *ctx, const struct gm_mask *pages, uint64_t deadline_ns,
			   bool now)
{
	struct gm_plan plan;
	gm_ret_t ret;

	if (GM_PLANTED(b->as, GM_PLANT_REMAP_KEEP) && gm_mask_meets(pages, &b->leaving))
		return GM_RET_SUCCESS;
	gm_plan_init(&plan, b->as, ctx->dev->hal, deadline_ns);
	plan.now = now;
	gm_plan_remove(&plan, ctx, b, pages);
	gm_plan_barrier(&plan);
	if (!GM_PLANTED(b->as, GM_PLANT_SKIP_INVL))
		gm_plan_invl(&plan, ctx, b, pages);
	ret = gm_plan_run(&plan);
	return ret == GM_RET_NODEV ? GM_RET_SUCCESS : ret; /* what is lost accesses nothing */
}

void gm_plan_doubt(struct gm_block *b, unsigned ctx, const struct gm_mask *pages)
{
	gm_lock(b->as->env, &b->lock);
	b->map[ctx]->unsure = gm_mask_or(b->map[ctx]->unsure, gm_mask_and(*pages, b->map[ctx]->read));
	gm_unlock(b->as->env, &b->lock);
}

struct gm_mask gm_plan_take_doubt(struct gm_block *b, unsigned ctx, const struct gm_mask *pages)
{
	struct gm_bmap *map = b->map[ctx];
	struct gm_mask doubtful = gm_mask_and(map->unsure, *pages);

	map->unsure = gm_mask_sub(map->unsure, *pages);
	return doubtful;
}

void gm_plan_settle(struct gm_plan *p, const struct gm_ctx *ctx, const struct gm_block *b, const struct gm_mask *doubtful)
{
	struct gm_mask pages;

	if (gm_mask_empty(doubtful))
		return;
	pages = gm_mask_grow(doubtful, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
	gm_plan_invl(p, ctx, b, &pages);
	gm_plan_barrier(p);
}

static void forget_mappings(struct gm_block *b, unsigned ctx, const struct gm_mask *pages)
{
	gm_lock(b->as->env, &b->lock);
	b->map[ctx]->read = gm_mask_sub(b->map[ctx]->read, *pages);
	b->map[ctx]->write = gm_mask_sub(b->map[ctx]->write, *pages);
	b->map[ctx]->unsure = gm_mask_sub(b->map[ctx]->unsure, *pages);
	gm_unlock(b->as->env, &b->lock);
}

/* (unlocked) Which contexts have some of the pages mapped, one bit each. */
static unsigned mapped_by(struct gm_block *b, const struct gm_mask *pages)
{
	unsigned ctxs = 0;

	gm_lock(b->as->env, &b->lock);
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && gm_mask_meets(&b->map[i]->read, pages))
			ctxs |= 1u << i;
	gm_unlock(b->as->env, &b->lock);
	return ctxs;
}

gm_ret_t gm_plan_revoke_in(struct gm_block *b, struct gm_ctx *ctx, const struct gm_mask *pages, uint64_t deadline_ns,
			   bool now)
{
	struct gm_env *env = b->as->env;
	struct gm_mask mapped;
	gm_ret_t ret;

	gm_lock(env, &b->lock);
	mapped = gm_mask_and(gm_block_mapped_by(b, ctx->index, GM_READ), *pages);
	gm_unlock(env, &b->lock);
	/* The device maps in granules: the neighbours lose their mapping too, which is always legal. */
	mapped = gm_mask_grow(&mapped, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
	ret = revoke_ctx(b, ctx, &mapped, deadline_ns, now);
	if (ret)
		gm_plan_doubt(b, ctx->index, &mapped);
	else
		forget_mappings(b, ctx->index, &mapped);
	return ret;
}

gm_ret_t gm_plan_revoke(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns, bool now)
{
	unsigned ctxs = mapped_by(b, pages); /* busy pages get no new mapping: none is none */
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t start;

	if (!ctxs)
		return ret;
	start = gm_now_ns(as->env);
	/* A context with mappings of busy pages cannot be detached: detaching revokes first. */
	for (unsigned i = 0; i < GM_MAX_CTXS && !ret; i++)
		if (ctxs >> i & 1)
			ret = gm_plan_revoke_in(b, as->ctx[i], pages, deadline_ns, now);
	gm_stat_time(as, GM_STAT_ns_revoke, start);
	return ret;
}
