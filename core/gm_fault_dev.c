/* SPDX-License-Identifier: MIT */
/*
 * Device faults, one page at a time and whatever is in the way; gm_fault_block.c
 * comes here with what is not simple.
 *
 *     look --mapped already--> done (somebody else's fault served it)
 *          --edge page--> map in place
 *          --on another device--> bring home, look again
 *          --only to be read, and duplicated--> gm_dup.c --mapped--> done
 *          --else--> choose a unit, reserve frames, run a transaction --mapped--> done
 *                                                                     --else--> look again
 *
 * The loop ends because a round in which the page was mapped is the last, and each
 * other one names a reason why it cannot be mapped, or waits for something that is
 * bounded; and because a page once served is protected from everybody else for a
 * slice, which starts when its mapping is there: before its transaction ends.
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_evict.h"
#include "core/gm_events.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_ws.h"

gm_ret_t gm_fault_rights(struct gm_as *as, uint64_t va, uint32_t access, struct gm_host_vma *vma)
{
	uint32_t need = GM_READ | (access & (GM_WRITE | GM_ATOMIC) ? GM_WRITE : 0);
	gm_ret_t ret = GM_RET_SUCCESS;

	if (va < vma->va || va - vma->va >= vma->bytes)
		ret = gm_hal_mem_rights(as->host, as->hpmap, va, vma);
	if (ret)
		vma->bytes = 0;
	if (ret == GM_RET_FAULT)
		return gm_fail(GM_RET_FAULT, "nothing is mapped at 0x%llx any more", (unsigned long long)va);
	if (ret)
		return ret;
	if (!(vma->access & GM_READ))
		return gm_fail(GM_RET_FAULT, "the process itself may not access 0x%llx", (unsigned long long)va);
	if (need & ~vma->access)
		return gm_fail(GM_RET_PERM, "0x%llx is read-only for the process", (unsigned long long)va);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fault_granule_rights(struct gm_ctx *ctx, uint64_t va, uint32_t access, struct gm_host_vma *vma)
{
	uint64_t granule = ctx->dev->hal->granule_bytes, at = va & ~(granule - 1), end = at + granule;
	gm_ret_t ret = gm_fault_rights(ctx->as, va, access, vma);
	struct gm_host_vma other = *vma;

	for (; !ret && at < end && (at < vma->va || end - vma->va > vma->bytes); at = other.va + other.bytes) {
		ret = gm_fault_rights(ctx->as, at, access, &other);
		if (ret == GM_RET_FAULT || ret == GM_RET_PERM)
			return gm_fail(GM_RET_NOTSUP, "0x%llx shares a %u KiB page of device %s with memory that the process "
				       "itself may not access so", (unsigned long long)va, (unsigned)(granule >> 10),
				       ctx->dev->hal->caps.name);
	}
	return ret;
}

bool gm_fault_is_home(const struct gm_block *b, unsigned page)
{
	return gm_mask_test(&b->managed, page) && !gm_mask_test(&b->staged, page) && !gm_mask_test(&b->poisoned, page);
}

enum gm_seen gm_fault_look(const struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access)
{
	const struct gm_bmap *map = b->map[ctx->index];
	bool mapped = gm_mask_test(access & (GM_WRITE | GM_ATOMIC) ? &map->write : &map->read, page);
	bool edge = gm_mask_test(&b->edge, page);
	struct gm_dev *dev = edge ? NULL : gm_block_dev_of(b, page);

	edge |= !dev && gm_mask_test(&b->kept, page) && gm_fault_is_home(b, page);
	if (b->has_external && gm_mask_test(&b->external, page))
		return GM_SEEN_EXTERNAL;
	if (!dev && (access & GM_ATOMIC)) /* in place there are no atomics, whatever is mapped */
		mapped = false;
	mapped &= !gm_mask_test(&b->busy, page) && !gm_mask_test(&b->doomed, page);
	if (mapped && gm_mask_test(&map->unsure, page))
		mapped = !dev && gm_mask_test(&b->host, page) && gm_mask_test(&b->held, page); /* it does not move: mapped once more */
	if (mapped)
		return dev || (b->any_dup && gm_mask_test(&b->dup, page)) ? GM_SEEN_MAPPED : GM_SEEN_PLACED;
	if (edge)
		return GM_SEEN_EDGE;
	if (gm_mask_test(&b->poisoned, page))
		return GM_SEEN_POISONED;
	if (!gm_mask_test(&b->managed, page))
		return GM_SEEN_UNMANAGED;
	if (b->any_dup && gm_mask_test(&b->dup, page) && !(access & (GM_WRITE | GM_ATOMIC)))
		return GM_SEEN_DUP;
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
		gm_ret_t ret = gm_hal_mem_present(as->host, as->hpmap, b->va, &present);
		bool marked = false;

		*yes = !ret && gm_mask_test(&present, page);
		if (*yes)
			ret = gm_mem_is_marked(as, va, &marked);
		if (!marked)
			return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
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
	gm_ret_t ret;
	bool edge;

	gm_lock(as->env, &b->lock);
	edge = gm_mask_test(&b->edge, page);
	gm_unlock(as->env, &b->lock);
	if (edge)
		return GM_RET_SUCCESS;
	ret = gm_hal_mem_rights(as->host, as->hpmap, va, &vma);
	if (ret || vma.private_anon)
		return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	return gm_events_forget_gone(as, b, va, va + GM_PAGE_BYTES) == GM_RET_NOMEM ? GM_RET_NOMEM : GM_RET_AGAIN;
}

/*
 * (block) May a page that is not busy be mapped where it is? *none: it is pinned to the host, and has no content; it is
 * the host's from now on, where zeros are put. What the kernel has yet to drop is not shown: then it is looked at again.
 */
static bool stays(struct gm_block *b, unsigned page, bool *none)
{
	struct gm_mask pending;

	*none = false;
	if (gm_mask_test(&b->edge, page) || gm_mask_test(&b->host, page))
		return true;
	pending = gm_zap_pending(&b->zap, gm_now_ns(b->as->env));
	*none = gm_mask_test(&b->kept, page) && gm_fault_is_home(b, page) && !gm_block_dev_of(b, page) &&
		!gm_mask_test(&pending, page);
	return *none;
}

/* A mapping in place on its way. */
struct placing {
	bool before;   /* it was mapped, for reading at least */
	bool there;    /* as asked, for certain: it has only to be present */
	bool external; /* see gm_mirror.c */
	bool none;     /* pinned to the host, and without content */
	bool write;    /* map it writable */
	struct gm_mask doubtful;
};

/* (block) Recorded, and busy. */
static void claim_in_place(struct gm_block *b, const struct gm_ctx *ctx, unsigned page, uint32_t access, bool hold,
			   struct placing *p)
{
	struct gm_bmap *map = b->map[ctx->index];
	struct gm_mask one = gm_mask_span(page, page + 1);

	p->external = gm_mask_test(&b->external, page);
	p->before = gm_mask_test(&map->read, page);
	p->there = !hold && !gm_mask_test(&map->unsure, page) &&
		   gm_mask_test(access & GM_WRITE ? &map->write : &map->read, page);
	p->write = (access & GM_WRITE) || gm_mask_test(&map->write, page); /* rights only grow */
	gm_mask_set(&b->busy, page);
	if (p->none)
		gm_mask_set(&b->host, page);
	gm_mask_set(&map->read, page);
	p->doubtful = gm_plan_take_doubt(b, ctx->index, &one);
	if (p->write)
		gm_mask_set(&map->write, page);
}

/* Over the bus nobody waits, be it for a page or for a store. An edge is never protected. */
static gm_ret_t make_ready(struct gm_block *b, unsigned page, bool write, uint64_t deadline_ns)
{
	gm_ret_t ret = make_present(b, page, deadline_ns);
	bool edge;

	if (ret || !write)
		return ret;
	gm_lock(b->as->env, &b->lock);
	edge = gm_mask_test(&b->edge, page);
	gm_unlock(b->as->env, &b->lock);
	return edge ? GM_RET_SUCCESS : gm_dup_let_store(b, page, deadline_ns);
}

/* The page is busy. */
static gm_ret_t place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, const struct placing *p,
		      uint64_t deadline_ns)
{
	struct gm_plan plan;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!p->external) /* what is there may be another one's to fill; an access that finds nothing comes back */
		ret = make_ready(b, page, p->write, deadline_ns);
	if (ret || p->there)
		return ret;
	gm_plan_init(&plan, b->as, ctx->dev->hal, deadline_ns);
	gm_plan_settle(&plan, ctx, b, &p->doubtful);
	gm_plan_enter_host(&plan, ctx, b, page, page + 1, p->write);
	return gm_plan_run(&plan);
}

gm_ret_t gm_fault_in_place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t rights,
			   uint64_t deadline_ns, struct gm_hold *hold)
{
	struct gm_as *as = b->as;
	struct gm_mask one = gm_mask_span(page, page + 1);
	uint64_t va = b->va + (uint64_t)page * GM_PAGE_BYTES;
	struct placing p = { .none = false };
	bool dup;
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
	/* Only what is on the host for certain, with rights that hold; anything else is looked at again. */
	dup = !ret && gm_mask_test(&b->dup, page);
	if (!ret && (dup || !stays(b, page, &p.none) || !gm_rights_same(&as->rights, b->va, rights)))
		ret = GM_RET_AGAIN;
	if (!ret)
		claim_in_place(b, ctx, page, access, hold, &p);
	gm_unlock(as->env, &b->lock);
	if (dup) /* what is mapped in place has no duplicates, or a device would be asked about each store */
		(void)gm_dup_end(b, &one, NULL, deadline_ns);
	if (ret)
		return ret;
	ret = place(ctx, b, page, &p, deadline_ns);
	if (ret && p.before) /* and is so still: a working set may hold it */
		gm_plan_doubt(b, ctx->index, &one);
	else if (ret)
		(void)gm_plan_revoke_in(b, ctx, &one, deadline_ns, false);
	else if (!p.there)
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
			     struct gm_host_vma *vma, struct gm_mask *want, struct gm_mask *fixed)
{
	struct gm_as *as = b->as;
	struct gm_env *env = as->env;
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES, page = gm_page_of(b, ask->va);
	uint64_t bytes = choose_unit(ctx, ask->va, ask->access), unit = ask->va & ~(bytes - 1);
	struct gm_mask need, avoid;
	bool whole, gone;
	gm_ret_t ret = gm_fault_granule_rights(ctx, ask->va, ask->access, vma);

	if (ret)
		return ret;
	need = gm_mask_span(page, page + 1);
	need = gm_mask_grow(&need, granule_pages);
	gm_lock(env, &b->lock);
	avoid = gm_mask_or(gm_mask_or(b->busy, b->doomed), gm_mask_or(b->held, b->poisoned));
	avoid = gm_mask_or(avoid, gm_slice_pages(&b->slice_cpu, as->cfg.slice_ns, gm_now_ns(env)));
	avoid = gm_mask_or(avoid, gm_mask_sub(gm_block_on_devs(b), gm_block_on_dev(b, ctx->dev->index)));
	avoid = gm_mask_or(avoid, b->dup); /* others read these */
	if (granule_pages == 1 && !(vma->access & GM_WRITE)) {
		/* The host would refuse to move it, after others were made to let go of it. */
		avoid = gm_mask_or(avoid, b->host);
		*fixed = gm_mask_or(*fixed, gm_mask_and(need, b->host));
		need = gm_mask_sub(need, b->host);
	}
	*want = gm_mask_sub(gm_mask_and(gm_block_clip(b, unit, unit + bytes), b->managed), avoid);
	*want = gm_mask_and(*want, gm_block_clip(b, vma->va, vma->va + vma->bytes));
	*want = gm_mask_or(gm_mask_shrink(want, granule_pages), need);
	avoid = gm_mask_sub(need, b->managed);
	whole = gm_mask_empty(&avoid);
	gone = gm_mask_test(&avoid, page);
	gm_unlock(env, &b->lock);
	if (gone) /* since it was looked at */
		return GM_RET_AGAIN;
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
 * that another one's unit covers wants nothing more than its right. *fixed: of the pages asked for, those that cannot move.
 */
static gm_ret_t choose_all(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *const *ask, size_t *n,
			   struct gm_move *m, struct gm_mask *fixed)
{
	struct gm_host_vma vma = { .bytes = 0 };

	*m = (struct gm_move){ .block = b, .rights = gm_rights_seen(&b->as->rights, b->va) };
	for (size_t i = 0; i < *n; i++) {
		unsigned page = gm_page_of(b, ask[i]->va);
		struct gm_mask want = gm_mask_span(page, page + 1), all;
		gm_ret_t ret;

		if (gm_mask_test(&m->want, page)) {
			ret = gm_fault_granule_rights(ctx, ask[i]->va, ask[i]->access, &vma);
			want = gm_mask_grow(&want, ctx->dev->hal->granule_bytes / GM_PAGE_BYTES);
		} else {
			ret = choose_pages(ctx, b, ask[i], &vma, &want, fixed);
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
	struct gm_mask fixed = gm_mask_none();
	gm_ret_t ret = choose_all(ctx, b, ask, n, m, &fixed);

	while (!ret && !gm_mask_empty(&m->want)) {
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
	m->fixed = gm_mask_or(m->fixed, fixed);
	gm_evict_unreserve(ctx->dev, m);
	return ret;
}

/* (unlocked) */
static bool is_kept(struct gm_block *b, unsigned page)
{
	bool kept;

	gm_lock(b->as->env, &b->lock);
	kept = gm_mask_test(&b->kept, page);
	gm_unlock(b->as->env, &b->lock);
	return kept;
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
		ret = gm_fault_in_place(ctx, b, page, ask->access, m.rights, deadline_ns, NULL);
		/* Not for ever: a system call that is under way pins what it reads. */
		if (ret == GM_RET_NOTSUP && gm_mask_test(&m.pinned, page))
			ret = gm_fail(GM_RET_BUSY, "0x%llx is pinned, and device %s cannot %s it in place",
				      (unsigned long long)ask->va, ctx->dev->hal->caps.name,
				      ask->access & GM_ATOMIC ? "use atomics on" : "map");
	}
	return ret == GM_RET_AGAIN ? GM_RET_SUCCESS : ret;
}

/*
 * It stays on the host. A device that has it mapped was refused, as the process may not access it so any more, or
 * found nothing present; or two of its threads asked for it.
 */
static gm_ret_t serve_in_place(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, bool mapped,
			       uint64_t deadline_ns, enum outcome *outcome)
{
	uint64_t rights = gm_rights_seen(&b->as->rights, b->va);
	struct gm_host_vma vma = { .bytes = 0 };
	unsigned page = gm_page_of(b, ask->va);
	gm_ret_t ret = gm_fault_rights(b->as, ask->va, ask->access, &vma);

	if ((ret == GM_RET_FAULT || ret == GM_RET_PERM) && mapped)
		(void)gm_mem_unmap_in_place(b, ask->va, ask->va + GM_PAGE_BYTES, deadline_ns);
	if (!ret)
		ret = gm_fault_in_place(ctx, b, page, ask->access, rights, deadline_ns, NULL);
	if (ret == GM_RET_NOTSUP && !(ask->access & GM_ATOMIC) && is_kept(b, page))
		ret = gm_fail(GM_RET_BUSY, "0x%llx is pinned to the host, and device %s cannot map host memory in place",
			      (unsigned long long)ask->va, ctx->dev->hal->caps.name);
	if (ret == GM_RET_AGAIN)
		return GM_RET_SUCCESS;
	*outcome = mapped ? WAS_MAPPED : BROUGHT;
	return ret;
}

/* In a space that mirrors the process. */
static gm_ret_t serve_mirrored(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask,
			       uint64_t deadline_ns, enum outcome *outcome)
{
	enum gm_mirrored did = GM_MIRRORED_AGAIN;
	gm_ret_t ret = gm_mirror_serve(ctx, b, gm_page_of(b, ask->va), ask->access, deadline_ns, &did);

	if (!ret && did != GM_MIRRORED_AGAIN)
		*outcome = did == GM_MIRRORED_WAS ? WAS_MAPPED : BROUGHT;
	return ret;
}

/* One round; *outcome if SUCCESS. */
static gm_ret_t round_once(struct gm_ctx *ctx, struct gm_block *b, const struct gm_fault_ask *ask, uint64_t deadline_ns,
			   enum outcome *outcome)
{
	unsigned page = gm_page_of(b, ask->va);
	struct gm_mask one = gm_mask_span(page, page + 1);
	bool served = false;
	gm_ret_t ret;

	switch (look(ctx, b, page, ask->access)) {
	case GM_SEEN_MAPPED:
		*outcome = WAS_MAPPED;
		return GM_RET_SUCCESS;
	case GM_SEEN_PLACED:
		return serve_in_place(ctx, b, ask, true, deadline_ns, outcome);
	case GM_SEEN_EDGE:
		return serve_in_place(ctx, b, ask, false, deadline_ns, outcome);
	case GM_SEEN_EXTERNAL:
		return serve_mirrored(ctx, b, ask, deadline_ns, outcome);
	case GM_SEEN_ELSEWHERE:
		ret = gm_move_home(b, &one, 0, deadline_ns);
		return ret == GM_RET_AGAIN || ret == GM_RET_EXIST || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	case GM_SEEN_DUP:
		ret = gm_dup_fault(ctx, b, ask, deadline_ns, &served);
		*outcome = served ? BROUGHT : LOOK_AGAIN;
		return ret;
	case GM_SEEN_POISONED:
		return gm_fail(GM_RET_FAULT, "the content of 0x%llx was lost with a device", (unsigned long long)ask->va);
	case GM_SEEN_UNMANAGED:
		if (gm_as_mirrors(b->as))
			return serve_mirrored(ctx, b, ask, deadline_ns, outcome);
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
