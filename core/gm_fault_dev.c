/* SPDX-License-Identifier: MIT */
/*
 * Device faults, one page at a time and whatever is in the way; gm_fault_block.c
 * comes here with what is not simple.
 *
 *     look --mapped already--> done (somebody else's fault served it)
 *          --edge page--> map in place
 *          --on another device--> bring home, look again
 *          --else--> choose a unit, reserve frames, run a transaction --mapped--> done
 *                                                                     --else--> look again
 *
 * The loop ends because a round in which the page was mapped is the last, and each
 * other one names a reason why it cannot be mapped, or waits for something that is
 * bounded; and because a page once served is protected from everybody else for a
 * slice, which starts when its mapping is there: before its transaction ends.
 */
#include "config.h"

#include "core/gm_evict.h"
#include "core/gm_events.h"
#include "core/gm_fault.h"
#include "core/gm_mem.h"
#include "core/gm_ws.h"

gm_ret_t gm_fault_rights(struct gm_as *as, uint64_t va, uint32_t access, struct gm_host_vma *vma)
{
	uint32_t need = GM_READ | (access & (GM_WRITE | GM_ATOMIC) ? GM_WRITE : 0);

	if ((va < vma->va || va - vma->va >= vma->bytes) && gm_hal_mem_rights(as->host, as->hpmap, va, vma)) {
		vma->bytes = 0;
		return gm_fail(GM_RET_FAULT, "nothing is mapped at 0x%llx any more", (unsigned long long)va);
	}
	if (!(vma->access & GM_READ))
		return gm_fail(GM_RET_FAULT, "the process itself may not access 0x%llx", (unsigned long long)va);
	if (need & ~vma->access)
		return gm_fail(GM_RET_PERM, "0x%llx is read-only for the process", (unsigned long long)va);
	return GM_RET_SUCCESS;
}

enum gm_seen gm_fault_look(const struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access)
{
	const struct gm_bmap *map = b->map[ctx->index];
	bool mapped = gm_mask_test(access & (GM_WRITE | GM_ATOMIC) ? &map->write : &map->read, page);
	bool edge = gm_mask_test(&b->edge, page);
	struct gm_dev *dev = edge ? NULL : gm_block_dev_of(b, page);

	if (!dev && (access & GM_ATOMIC)) /* in place there are no atomics, whatever is mapped */
		mapped = false;
	if (mapped && !gm_mask_test(&map->unsure, page) && !gm_mask_test(&b->busy, page) && !gm_mask_test(&b->doomed, page))
		return GM_SEEN_MAPPED;
	if (edge)
		return GM_SEEN_EDGE;
	if (gm_mask_test(&b->poisoned, page))
		return GM_SEEN_POISONED;
	if (!gm_mask_test(&b->managed, page))
		return GM_SEEN_UNMANAGED;
	return dev && dev != ctx->dev ? GM_SEEN_ELSEWHERE : GM_SEEN_MOVABLE;
}

/* (unlocked) */
static enum gm_seen look(const struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access)
{
	enum gm_seen seen;

	gm_lock(b->as->env, &b->lock);
	seen = gm_fault_look(ctx, b, page, access);
	gm_unlock(b->as->env, &b->lock);
	return seen;
}

/*
 * Is it present? FAULT: it is, but the process itself cannot read it: the content was lost with a device before the
 * memory was adopted, or it is a guard page. (Twice, as it may have gone between two looks.)
 */
static gm_ret_t is_present(struct gm_block *b, unsigned page, bool *yes)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	struct gm_mask present;

	for (unsigned i = 0; i < 2; i++) {
		*yes = !gm_hal_mem_present(as->host, as->hpmap, b->va, &present) && gm_mask_test(&present, page);
		if (!*yes || !gm_mem_is_marked(as, va))
			return GM_RET_SUCCESS;
	}
	return gm_fail(GM_RET_FAULT, "0x%llx cannot be read by the process itself: its content was lost with a device, or it "
		       "is a guard page", (unsigned long long)va);
}

/* A device finds only what is present; where nobody watches (FAULT), the kernel makes a page present itself. */
static gm_ret_t make_present(struct gm_block *b, unsigned page, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	bool present;
	gm_ret_t ret;

	/* Poisoned and guarded pages count as present: zeros would take the place of their mark. */
	ret = is_present(b, page, &present);
	if (ret || present)
		return ret;
	while ((ret = gm_txn_zero(b, page)) == GM_RET_AGAIN)
		if (gm_now_ns(as->env) >= deadline_ns || !gm_events_let_run(as))
			return gm_fail(GM_RET_TIMEDOUT, "events of 0x%llx were not read in time", (unsigned long long)b->va);
	return ret == GM_RET_EXIST || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

/*
 * The host refuses to move this page. Because it is another's? Where no device had any of it lately nobody watched, and
 * the program may have mapped a file over it, which userfaultfd takes and does not move. AGAIN: look at the page anew.
 */
static gm_ret_t forget_other(struct gm_block *b, unsigned page)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	struct gm_host_vma vma;
	bool edge;

	gm_lock(as->env, &b->lock);
	edge = gm_mask_test(&b->edge, page);
	gm_unlock(as->env, &b->lock);
	if (edge || gm_hal_mem_rights(as->host, as->hpmap, va, &vma) || vma.private_anon)
		return GM_RET_SUCCESS;
	return gm_events_forget_gone(as, b, va, va + GM_PAGE_BYTES) == GM_RET_NOMEM ? GM_RET_NOMEM : GM_RET_AGAIN;
}

gm_ret_t gm_fault_in_place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t deadline_ns,
			   struct gm_hold *hold)
{
	struct gm_as *as = b->as;
	struct gm_mask one = gm_mask_span(page, page + 1), doubtful = gm_mask_none();
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	struct gm_plan plan;
	bool write = false, before = false;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!gm_hal_has(ctx->dev->hal, GM_CAP_HOST_MAP) || ctx->dev->hal->granule_bytes > GM_PAGE_BYTES)
		return gm_fail(GM_RET_NOTSUP, "0x%llx cannot move, and device %s cannot map host memory in place",
			       (unsigned long long)va, ctx->dev->hal->caps.name);
	if (access & GM_ATOMIC)
		return gm_fail(GM_RET_NOTSUP, "no atomic access to 0x%llx, which is host memory mapped in place",
			       (unsigned long long)va);
	ret = forget_other(b, page);
	if (ret)
		return ret;
	gm_lock(as->env, &b->lock);
	while (!ret && (gm_mask_test(&b->busy, page) || gm_mask_test(&b->doomed, page)))
		ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
	/* Only what is on the host for certain; anything else is looked at again. */
	if (!ret && !gm_mask_test(&b->edge, page) && !gm_mask_test(&b->host, page))
		ret = GM_RET_AGAIN;
	if (!ret) {
		struct gm_bmap *map = b->map[ctx->index];

		before = gm_mask_test(&map->read, page);
		gm_mask_set(&b->busy, page);
		gm_mask_set(&map->read, page);
		doubtful = gm_plan_take_doubt(b, ctx->index, &one);
		write = (access & GM_WRITE) || gm_mask_test(&map->write, page); /* rights only grow */
		if (write)
			gm_mask_set(&map->write, page);
	}
	gm_unlock(as->env, &b->lock);
	if (ret)
		return ret;
	ret = make_present(b, page, deadline_ns);
	if (!ret) {
		gm_plan_init(&plan, as, ctx->dev->hal, deadline_ns);
		gm_plan_settle(&plan, ctx, b, &doubtful);
		gm_plan_enter_host(&plan, ctx, b, page, page + 1, write);
		ret = gm_plan_run(&plan);
	}
	if (ret && before) /* and is so still: a working set may hold it */
		gm_plan_doubt(b, ctx->index, &one);
	else if (ret)
		(void)gm_plan_revoke_in(b, ctx, &one, deadline_ns, false);
	else
		gm_stat_add(as, GM_STAT_pages_in_place, 1);
	if (!ret && hold)
		gm_ws_hold(hold, b, &one);
	gm_txn_release(b, &one);
	return ret;
}

/* The aligned piece around the page, by the policy's advice. */
static uint32_t choose_unit(struct gm_ctx *ctx, uint64_t va, uint32_t access)
{
	struct gm_as *as = ctx->as;
	uint64_t last_end = __atomic_load_n(&as->dev_last_end[ctx->index], __ATOMIC_RELAXED);
	struct gm_policy_fault f = {
		.va = va,
		.access = access,
		.min_bytes = as->cfg.dev_unit_bytes,
		.max_bytes = as->cfg.dev_around_bytes,
		.adjacent = va / GM_PAGE_BYTES == last_end / GM_PAGE_BYTES,
		.last_bytes = __atomic_load_n(&as->dev_last_bytes[ctx->index], __ATOMIC_RELAXED),
	};
	uint32_t bytes;

	if (f.min_bytes < ctx->dev->hal->granule_bytes)
		f.min_bytes = ctx->dev->hal->granule_bytes;
	if (f.max_bytes < f.min_bytes)
		f.max_bytes = f.min_bytes;
	bytes = as->policy.unit(as->policy.state, &f);
	if (bytes < f.min_bytes || bytes > f.max_bytes || (bytes & (bytes - 1)))
		bytes = f.min_bytes;
	/* Bringing more than a quarter of the memory at once would evict what was just brought. */
	while (bytes > f.min_bytes && bytes > ctx->dev->node.total_units * (GM_UNIT_BYTES / 4))
		bytes /= 2;
	__atomic_store_n(&as->dev_last_end[ctx->index], (va & ~(uint64_t)(bytes - 1)) + bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&as->dev_last_bytes[ctx->index], bytes, __ATOMIC_RELAXED);
	return bytes;
}

/* Pages around one worth bringing along; the faulting granule itself is not optional. */
static gm_ret_t choose_pages(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask,
			     struct gm_host_vma *vma, struct gm_mask *want)
{
	struct gm_as *as = b->as;
	struct gm_env *env = as->env;
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES, page = gm_page_of(b, ask->va);
	uint64_t bytes = choose_unit(ctx, ask->va, ask->access), unit = ask->va & ~(bytes - 1);
	struct gm_mask need, avoid;
	bool whole;
	gm_ret_t ret = gm_fault_rights(as, ask->va, ask->access, vma);

	if (ret)
		return ret;
	need = gm_mask_span(page, page + 1);
	need = gm_mask_grow(&need, granule_pages);
	gm_lock(env, &b->lock);
	avoid = gm_mask_or(gm_mask_or(b->busy, b->doomed), gm_mask_or(b->held, b->poisoned));
	avoid = gm_mask_or(avoid, gm_slice_pages(&b->slice_cpu, as->cfg.slice_ns, gm_now_ns(env)));
	avoid = gm_mask_or(avoid, gm_mask_sub(gm_block_on_devs(b), gm_block_on_dev(b, ctx->dev->index)));
	*want = gm_mask_sub(gm_mask_and(gm_block_clip(b, unit, unit + bytes), b->managed), avoid);
	*want = gm_mask_and(*want, gm_block_clip(b, vma->va, vma->va + vma->bytes));
	*want = gm_mask_or(gm_mask_shrink(want, granule_pages), need);
	avoid = gm_mask_sub(need, b->managed);
	whole = gm_mask_empty(&avoid);
	gm_unlock(env, &b->lock);
	if (!whole)
		return gm_fail(GM_RET_NOTSUP, "0x%llx shares a %u KiB page of device %s with memory that is not managed: "
			       "align the buffer, or adopt it outward", (unsigned long long)ask->va,
			       (unsigned)(ctx->dev->hal->granule_bytes >> 10), ctx->dev->hal->caps.name);
	return GM_RET_SUCCESS;
}

/* May all of it be brought at once? More than a quarter of the memory would evict what others have just been given. */
static bool fits(const struct gm_dev *dev, const struct gm_mask *want)
{
	return (unsigned)__builtin_popcount(gm_mask_units(want)) <= dev->node.total_units / 4;
}

/*
 * What a transaction for the first of these pages is to do; *n: how many of them. A page
 * that another one's unit covers wants nothing more than its right.
 */
static gm_ret_t choose_all(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *const *ask, size_t *n,
			   struct gm_move *m)
{
	struct gm_host_vma vma = { .bytes = 0 };

	*m = (struct gm_move){ .block = b };
	for (size_t i = 0; i < *n; i++) {
		unsigned page = gm_page_of(b, ask[i]->va);
		struct gm_mask want = gm_mask_span(page, page + 1), all;
		gm_ret_t ret;

		if (gm_mask_test(&m->want, page)) {
			ret = gm_fault_rights(b->as, ask[i]->va, ask[i]->access, &vma);
			want = gm_mask_grow(&want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
		} else {
			ret = choose_pages(ctx, b, ask[i], &vma, &want);
		}
		if (ret)
			return ret;
		all = gm_mask_or(m->want, want);
		if (i && !fits(ctx->dev, &all))
			*n = i;
		if (i == *n)
			break;
		m->want = all;
		gm_mask_set(&m->waiters, page);
		if (ask[i]->access & (GM_WRITE | GM_ATOMIC))
			m->write = gm_mask_or(m->write, want);
	}
	m->map = m->want;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fault_bring(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *const *ask, size_t *n,
			uint64_t deadline_ns, struct gm_move *m)
{
	struct gm_txn t = { .as = b->as, .dev = ctx->dev, .ctx = ctx, .deadline_ns = deadline_ns, .move = m, .moves = 1 };
	gm_ret_t ret = choose_all(ctx, b, ask, n, m);

	while (!ret) {
		ret = gm_evict_reserve(ctx->dev, m, deadline_ns);
		if (ret)
			break;
		ret = gm_txn_run(&t);
		if (ret == GM_RET_FAULT) /* the mapping changed meanwhile */
			ret = GM_RET_AGAIN;
		else if (ret == GM_RET_AGAIN && t.why == GM_BLOCKED_ELSEWHERE) /* the rest of the granule is in another device */
			(void)gm_move_home(b, &t.what, 0, deadline_ns);
		if (ret != GM_RET_AGAIN || t.why != GM_BLOCKED_STALE)
			break;
		ret = GM_RET_SUCCESS;
	}
	gm_evict_unreserve(ctx->dev, m);
	return ret;
}

enum outcome { LOOK_AGAIN, WAS_MAPPED, BROUGHT };

/* It is the host's own page, or shares its granule with one. */
static gm_ret_t bring_one(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
			  enum outcome *outcome)
{
	unsigned page = gm_page_of(b, ask->va), granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_move m;
	size_t n = 1;
	gm_ret_t ret = gm_fault_bring(ctx, b, &ask, &n, deadline_ns, &m);

	/* It was there, whoever has taken it since: two devices that want one page must not undo each other for ever. */
	if (!ret && (gm_mask_test(&m.arrived, page) || gm_mask_test(&m.stay, page))) {
		*outcome = BROUGHT;
		return ret;
	}
	/* One page of a granule that cannot move keeps the others. */
	m.pinned = gm_mask_grow(&m.pinned, granule_pages);
	m.fixed = gm_mask_grow(&m.fixed, granule_pages);
	if (gm_mask_test(&m.pinned, page) || gm_mask_test(&m.fixed, page)) {
		ret = gm_fault_in_place(ctx, b, page, ask->access, deadline_ns, NULL);
		/* Not for ever: a system call that is under way pins what it reads. */
		if (ret == GM_RET_NOTSUP && gm_mask_test(&m.pinned, page))
			ret = gm_fail(GM_RET_BUSY, "0x%llx is pinned, and device %s cannot %s it in place",
				      (unsigned long long)ask->va, ctx->dev->hal->caps.name,
				      ask->access & GM_ATOMIC ? "use atomics on" : "map");
	}
	return ret == GM_RET_AGAIN ? GM_RET_SUCCESS : ret;
}

/* One round; *outcome if SUCCESS. */
static gm_ret_t round_once(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
			   enum outcome *outcome)
{
	unsigned page = gm_page_of(b, ask->va);
	struct gm_mask one = gm_mask_span(page, page + 1);
	struct gm_host_vma vma = { .bytes = 0 };
	gm_ret_t ret;

	switch (look(ctx, b, page, ask->access)) {
	case GM_SEEN_MAPPED:
		*outcome = WAS_MAPPED;
		return GM_RET_SUCCESS;
	case GM_SEEN_EDGE:
		ret = gm_fault_rights(b->as, ask->va, ask->access, &vma);
		if (!ret)
			ret = gm_fault_in_place(ctx, b, page, ask->access, deadline_ns, NULL);
		return ret == GM_RET_AGAIN ? GM_RET_SUCCESS : ret;
	case GM_SEEN_ELSEWHERE:
		ret = gm_move_home(b, &one, 0, deadline_ns);
		return ret == GM_RET_AGAIN || ret == GM_RET_EXIST || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	case GM_SEEN_POISONED:
		return gm_fail(GM_RET_FAULT, "the content of 0x%llx was lost with a device", (unsigned long long)ask->va);
	case GM_SEEN_UNMANAGED:
		return gm_fail(GM_RET_FAULT, "0x%llx is not managed memory: gm_alloc() or gm_adopt() it first",
			       (unsigned long long)ask->va);
	case GM_SEEN_MOVABLE:
		break;
	}
	return bring_one(ctx, b, ask, deadline_ns, outcome);
}

gm_ret_t gm_fault_one(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
		      bool *spurious)
{
	struct gm_as *as = ctx->as;
	enum outcome outcome = LOOK_AGAIN;
	unsigned rounds = 0;
	gm_ret_t ret;

	for (;;) {
		ret = round_once(ctx, b, ask, deadline_ns, &outcome);
		if (ret || outcome != LOOK_AGAIN)
			break;
		if (rounds++ && gm_now_ns(as->env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "0x%llx could not be brought in time", (unsigned long long)ask->va);
		if (rounds > 2)
			(void)gm_events_let_run(as); /* the mapping changes under us: learn how */
	}
	*spurious = !ret && outcome == WAS_MAPPED && !rounds;
	return ret;
}
