/* SPDX-License-Identifier: MIT */
/*
 * A space that mirrors the process: a device may access what is in no region. (Whose it is: gm_mirror_look.c.)
 *
 *     not in a region --fault; the host says whose it is--
 *         nobody's, or no rights ------------------> FAULT, PERM; a mapping in place that is still recorded goes
 *         certainly the application's --> adopted:   region --> watched --> asked once more --the same--> managed
 *                                                                                           '--else--> undone
 *         anything else --> external:                edge, without a region --> mapped in place
 *
 *     adopted --all of its block at home for a while--> watched no more, and in no region (gm_work.c, forget())
 *             --unmapped, moved--> by event, as any adopted memory
 *     external --fault, whatever is mapped--> as above: asked anew
 *              --no device has it--> not external
 *
 * What is adopted on demand is so only while it is watched, so nothing can happen to it unnoticed: let go, its
 * region goes, and the next device asks the host again. That is asked twice: what was mapped at the first answer may be
 * gone, and something else be there, before it is watched; from then on an event tells (gm_events.c), and nothing is
 * taken while one is unread. Its pages are busy meanwhile.
 *
 * External memory raises no event, and nothing of it is kept but what devices have mapped. A mapping in place is of
 * the address: an access of the device is refused where the process has no right to it, or nothing there, and then
 * faults. So a fault on a page that is mapped is taken seriously: the rights are asked, the access is tried, and
 * what fails is unmapped. Blocks with external pages are not packed; when there are twice as many as were of use
 * at the last look, the worker drops those under which nothing is mapped any more.
 *
 * What another space of the instance manages is external here. Where that has it on a device, it is brought home.
 * What the program watches with a userfaultfd of its own is external too: the page is touched, and waited for, as far
 * as the deadline lets (gm_mirror_bring()); with working sets before anything is reserved or held for them.
 */
#include "config.h"

#include "core/gm_events.h"
#include "core/gm_fault.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"
#include "core/gm_work.h"

static uint64_t va_of(const struct gm_block *b, unsigned page)
{
	return b->va + (uint64_t)page * GM_PAGE_BYTES;
}

/* (block) */
void gm_mirror_count(struct gm_block *b)
{
	bool has = !gm_mask_empty(&b->external);

	if (has && !b->has_external)
		atomic_fetch_add(&b->as->mirror.blocks, 1);
	if (!has && b->has_external)
		atomic_fetch_sub(&b->as->mirror.blocks, 1);
	b->has_external = has;
}

/* ------------------------------------------------------------- adopting */

/* (block) Pages that something goes on with, though they are not managed. */
static struct gm_mask taken(const struct gm_block *b)
{
	struct gm_mask m = gm_mask_or(gm_mask_or(b->busy, b->doomed), gm_mask_or(b->leaving, b->staged));

	return gm_mask_or(m, gm_mask_or(b->poisoned, gm_block_on_devs(b)));
}

/* (block) The pages around one that vma covers and that are in no region; none: it is not one of them. */
static struct gm_mask run_around(const struct gm_block *b, unsigned page, const struct gm_host_vma *vma)
{
	struct gm_mask pages = gm_block_clip(b, vma->va, vma->va + vma->bytes);

	pages = gm_mask_sub(pages, gm_mask_or(b->managed, gm_mask_sub(b->edge, b->external)));
	GM_MASK_FOR_RUN(&pages, first, end)
		if (page >= first && page < end)
			return gm_mask_span(first, end);
	return gm_mask_none();
}

/* (A, block) Managed from here on, and busy. That it can be undone is promised. */
static void become_managed(struct gm_block *b, const struct gm_mask *pages)
{
	b->managed = gm_mask_or(b->managed, *pages);
	b->mirrored = gm_mask_or(b->mirrored, *pages);
	b->host = gm_mask_or(b->host, *pages);
	b->busy = gm_mask_or(b->busy, *pages);
	b->edge = gm_mask_sub(b->edge, *pages);
	b->external = gm_mask_sub(b->external, *pages);
	gm_mirror_count(b);
	gm_pin_keep_new(b, pages);
	b->watched = b->stores = false;
	b->renewed++;
	b->used_ns = gm_now_ns(b->as->env);
}

/* What is in the way of claiming; NOTHING: it is done. */
enum in_the_way { NOTHING, CHANGED, PAGES, OTHERS, MEMORY };

/* (A, block) */
static enum in_the_way claim(struct gm_block *b, unsigned page, const struct gm_host_vma *vma, struct gm_mask *pages)
{
	struct gm_as *as = b->as;
	struct gm_mask busy = taken(b);
	struct gm_region buf;
	unsigned first = 0, end = 0;
	uint64_t va, stop;

	*pages = run_around(b, page, vma);
	if (!gm_mask_next_run(pages, &first, &end))
		return CHANGED;
	if (gm_mask_meets(pages, &busy))
		return PAGES;
	va = va_of(b, first);
	stop = va_of(b, end);
	/* Somebody adopts, releases or frees it now, or mremap() brings something. */
	if (atomic_load(&as->releasing) || gm_remap_meets(as, va, stop) ||
	    gm_regions_first(&as->regions, va, stop, &buf))
		return OTHERS;
	if (!gm_regions_room(&as->regions) || !gm_regions_promise(&as->regions))
		return MEMORY;
	if (gm_regions_insert(&as->regions, va, stop, GM_REGION_ADOPTED)) {
		become_managed(b, pages);
		return NOTHING;
	}
	gm_regions_redeem(&as->regions);
	return MEMORY;
}

/* Until the block's pages are not as they were, for a millisecond at most. */
static void wait_block(struct gm_block *b)
{
	gm_lock(b->as->env, &b->lock);
	(void)gm_wait(b->as->env, &b->waitq, &b->lock, gm_deadline_ns(b->as->env, GM_WORK_RETRY_NS));
	gm_unlock(b->as->env, &b->lock);
}

/* SUCCESS: `pages` are ours; none: something else is there, look again. */
static gm_ret_t take(struct gm_block *b, unsigned page, const struct gm_host_vma *vma, uint64_t deadline_ns,
		     struct gm_mask *pages)
{
	struct gm_as *as = b->as;
	enum in_the_way what;
	gm_ret_t ret;

	for (;;) {
		ret = gm_events_settle(as, deadline_ns); /* of its former life */
		if (!ret)
			ret = gm_mem_stock(as, 2);
		if (ret)
			return ret;
		gm_lock(as->env, &as->lock);
		gm_lock(as->env, &b->lock);
		what = claim(b, page, vma, pages);
		gm_unlock(as->env, &b->lock);
		gm_unlock(as->env, &as->lock);
		if (what == NOTHING || what == CHANGED)
			break;
		if (what == MEMORY)
			continue; /* others took from the stock: filled again */
		if (gm_now_ns(as->env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "0x%llx could not be adopted in time",
				       (unsigned long long)va_of(b, page));
		if (what == PAGES)
			wait_block(b);
		else
			(void)gm_events_let_run(as);
	}
	*pages = what == CHANGED ? gm_mask_none() : *pages;
	gm_inthread_forget(b, pages);
	return ret;
}

/* Now that an event would tell otherwise: is it still what it was? SUCCESS, AGAIN (no), NOMEM (it cannot be told now). */
static gm_ret_t is_ours(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_host_vma vma;
	struct gm_mask lost;
	unsigned first = 0, end = 0;
	gm_ret_t ret;

	(void)gm_mask_next_run(pages, &first, &end);
	ret = gm_mirror_look(b->as, va_of(b, first), GM_WRITE, &vma);
	if (ret)
		return ret == GM_RET_FAULT || ret == GM_RET_PERM ? GM_RET_AGAIN : ret;
	/* Small: we cut it off. */
	if (vma.kind > GM_HOST_SMALL || vma.va + vma.bytes < va_of(b, end))
		return GM_RET_AGAIN;
	gm_lock(b->as->env, &b->lock);
	lost = gm_mask_sub(*pages, b->mirrored); /* an event did tell */
	gm_unlock(b->as->env, &b->lock);
	return gm_mask_empty(&lost) ? GM_RET_SUCCESS : GM_RET_AGAIN;
}

static void stop_watching(struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end)
		(void)gm_hal_unwatch(b->as->host, b->as->hpmap, va_of(b, first),
				     (uint64_t)(end - first) * GM_PAGE_BYTES);
}

/*
 * Watched no more first, and again at the end: if somebody's stack is there now, who has it may have a lock that is
 * wanted here.
 */
static void undo(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_as *as = b->as;
	struct gm_mask mine, mapped;

	stop_watching(b, pages);
	gm_lock(as->env, &as->lock);
	gm_lock(as->env, &b->lock);
	mine = gm_mask_and(*pages, b->mirrored);
	gm_regions_redeem(&as->regions);
	GM_MASK_FOR_RUN(&mine, first, end)
		(void)gm_regions_carve(&as->regions, va_of(b, first), va_of(b, end), GM_REGION_ADOPTED);
	b->managed = gm_mask_sub(b->managed, mine);
	b->host = gm_mask_sub(b->host, mine);
	b->kept = gm_mask_sub(b->kept, mine);
	b->mirrored = gm_mask_sub(b->mirrored, mine);
	mapped = gm_mask_and(mine, gm_block_mapped(b)); /* in place, since they were external: again they are */
	b->edge = gm_mask_or(b->edge, mapped);
	b->external = gm_mask_or(b->external, mapped);
	gm_mirror_count(b);
	gm_unlock(as->env, &b->lock);
	gm_unlock(as->env, &as->lock);
	gm_lock(as->env, &b->lock);
	while (b->watching) /* who registers the block looked at it before, and would register them again */
		(void)gm_wait(as->env, &b->waitq, &b->lock, gm_deadline_ns(as->env, GM_WORK_RETRY_NS));
	gm_unlock(as->env, &b->lock);
	stop_watching(b, pages);
	gm_lock(as->env, &b->lock);
	b->registered = gm_mask_sub(b->registered, *pages);
	b->watched = b->stores = false; /* somebody may have asked for them meanwhile: registered anew before they move */
	b->renewed++;
	gm_unlock(as->env, &b->lock);
	gm_txn_release_unmoved(b, pages);
}

static void end_promise(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	gm_regions_redeem(&as->regions);
	gm_unlock(as->env, &as->lock);
}

gm_ret_t gm_mirror_adopt(struct gm_block *b, unsigned page, const struct gm_host_vma *vma, uint64_t deadline_ns)
{
	struct gm_txn t = { .as = b->as, .deadline_ns = deadline_ns };
	struct gm_mask pages;
	gm_ret_t ret = take(b, page, vma, deadline_ns, &pages);

	if (ret || gm_mask_empty(&pages))
		return ret;
	ret = gm_txn_need_host(&t, b);
	if (!ret)
		ret = is_ours(b, &pages);
	if (!ret) {
		end_promise(b->as);
		gm_txn_release_unmoved(b, &pages);
		gm_work_queue(b, gm_deadline_ns(b->as->env, GM_WORK_IDLE_NS)); /* it may be that nothing moves */
		return ret;
	}
	undo(b, &pages);
	gm_work_queue(b, 0);
	/* Watched by somebody else: not ours to take. Not what it was: the caller looks again. */
	if (ret == GM_RET_BUSY || ret == GM_RET_NOTSUP || ret == GM_RET_FAULT)
		return GM_RET_NOTSUP;
	return ret == GM_RET_AGAIN ? GM_RET_SUCCESS : ret;
}

/* (A, block) */
static unsigned count_runs(const struct gm_mask *pages)
{
	unsigned n = 0;

	GM_MASK_FOR_RUN(pages, first, end)
		n += end > first;
	return n;
}

bool gm_mirror_let_go(struct gm_block *b)
{
	struct gm_as *as = b->as;
	bool ok;

	if (!gm_as_mirrors(as))
		return true;
	(void)gm_mem_stock(as, 4);
	gm_lock(as->env, &as->lock);
	gm_lock(as->env, &b->lock);
	ok = gm_regions_room(&as->regions) >= count_runs(&b->mirrored);
	if (ok) {
		GM_MASK_FOR_RUN(&b->mirrored, first, end)
			(void)gm_regions_carve(&as->regions, va_of(b, first), va_of(b, end), GM_REGION_ADOPTED);
		b->managed = gm_mask_sub(b->managed, b->mirrored);
		b->host = gm_mask_sub(b->host, b->mirrored);
		b->mirrored = gm_mask_none();
	}
	gm_unlock(as->env, &b->lock);
	gm_unlock(as->env, &as->lock);
	gm_mem_trim_stock(as);
	return ok;
}

/* ------------------------------------------------------------- external */

/* Too many: the worker looks which of them are of use. */
static void want_sweep(struct gm_as *as)
{
	if (atomic_load(&as->mirror.blocks) <= atomic_load(&as->mirror.limit) || atomic_load(&as->mirror.sweep))
		return;
	gm_lock(as->env, &as->queue_lock); /* the worker looks at it before it goes to sleep */
	atomic_store(&as->mirror.sweep, true);
	gm_unlock(as->env, &as->queue_lock);
	gm_work_kick(as);
}

gm_ret_t gm_mirror_mark(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask fresh, busy;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(env, &b->lock);
	for (;;) {
		busy = taken(b);
		fresh = gm_mask_sub(*pages, gm_mask_or(b->managed, b->edge));
		if (ret || !gm_mask_meets(&fresh, &busy))
			break;
		ret = gm_wait(env, &b->waitq, &b->lock, deadline_ns);
	}
	if (!ret) {
		b->edge = gm_mask_or(b->edge, fresh);
		b->external = gm_mask_or(b->external, fresh);
		b->touched = true;
		gm_mirror_count(b);
	}
	gm_unlock(env, &b->lock);
	want_sweep(b->as);
	return ret ? gm_fail(ret, "pages near 0x%llx did not become free in time", (unsigned long long)b->va) : ret;
}

void gm_mirror_tidy(struct gm_block *b)
{
	struct gm_mask idle;
	bool empty;

	gm_lock(b->as->env, &b->lock);
	idle = gm_mask_sub(b->external, gm_mask_or(b->busy, gm_block_mapped(b)));
	b->edge = gm_mask_sub(b->edge, idle);
	b->external = gm_mask_sub(b->external, idle);
	gm_mirror_count(b);
	empty = gm_block_all_host(b);
	gm_unlock(b->as->env, &b->lock);
	if (empty)
		gm_work_queue(b, 0);
}

/* Devices let go of external pages of [va, end). What a working set holds stays: its accesses are refused. */
static void drop(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	(void)gm_mem_unmap_in_place(b, va, end, deadline_ns);
	gm_mirror_tidy(b);
}

/* (unlocked) As asked, for certain? */
static bool is_mapped(const struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access)
{
	struct gm_mask mapped;

	gm_lock(b->as->env, &b->lock);
	mapped = gm_mask_sub(gm_block_mapped_by(b, ctx->index, access), b->map[ctx->index]->unsure);
	gm_unlock(b->as->env, &b->lock);
	return !(access & GM_ATOMIC) && gm_mask_test(&mapped, page);
}

/* The device has it, and was refused all the same: was that for the moment? */
static gm_ret_t try_access(struct gm_block *b, unsigned page, uint32_t access, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	uint64_t va = va_of(b, page);
	gm_ret_t ret;
	char byte;

	ret = gm_hal_bus_access(as->host, va, &byte, 1, false);
	if (!ret && (access & GM_WRITE))
		ret = gm_hal_bus_touch(as->host, va);
	if (ret != GM_RET_FAULT)
		return ret;
	ret = gm_mirror_fetch(as, va, deadline_ns);
	if (ret == GM_RET_NOENT)
		ret = gm_mirror_bring(as, va, access, deadline_ns);
	if (ret != GM_RET_FAULT)
		return ret;
	drop(b, va, va + GM_PAGE_BYTES, deadline_ns);
	return gm_fail(GM_RET_FAULT, "0x%llx is mapped, but nothing can be accessed there (beyond the end of a file, or no "
		       "room in it, for example)", (unsigned long long)va);
}

static gm_ret_t place(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t rights,
		      uint64_t deadline_ns, enum gm_mirrored *did)
{
	struct gm_mask one = gm_mask_span(page, page + 1);
	gm_ret_t ret = gm_mirror_mark(b, &one, deadline_ns);

	if (!ret && is_mapped(ctx, b, page, access)) {
		*did = GM_MIRRORED_WAS;
		return try_access(b, page, access, deadline_ns);
	}
	*did = GM_MIRRORED_PLACED;
	if (!ret)
		ret = gm_fault_in_place(ctx, b, page, access, rights, deadline_ns, NULL);
	if (ret)
		gm_mirror_tidy(b);
	if (ret != GM_RET_AGAIN)
		return ret;
	*did = GM_MIRRORED_AGAIN;
	return GM_RET_SUCCESS;
}

/* What is mapped in place there, as it was external before, goes: it is to move. False: a working set holds it. */
static bool gives_way(struct gm_block *b, unsigned page, const struct gm_host_vma *vma, uint64_t deadline_ns)
{
	bool external;

	gm_lock(b->as->env, &b->lock);
	external = gm_mask_test(&b->external, page);
	gm_unlock(b->as->env, &b->lock);
	if (!external)
		return true;
	drop(b, vma->va, vma->va + vma->bytes, deadline_ns);
	gm_lock(b->as->env, &b->lock);
	external = gm_mask_test(&b->external, page);
	gm_unlock(b->as->env, &b->lock);
	return !external;
}

gm_ret_t gm_mirror_serve(struct gm_ctx *ctx, struct gm_block *b, unsigned page, uint32_t access, uint64_t deadline_ns,
			 enum gm_mirrored *did)
{
	struct gm_host_vma vma = { .bytes = 0 };
	uint64_t va = va_of(b, page), rights = gm_rights_seen(&b->as->rights, va);
	gm_ret_t ret = gm_mirror_look(b->as, va, access, &vma);
	bool refused = false;

	if (ret == GM_RET_FAULT || ret == GM_RET_PERM)
		drop(b, va, va + GM_PAGE_BYTES, deadline_ns);
	if (ret)
		return ret;
	*did = GM_MIRRORED_AGAIN;
	if (vma.kind == GM_HOST_ANON && gives_way(b, page, &vma, deadline_ns)) {
		ret = gm_mirror_adopt(b, page, &vma, deadline_ns);
		if (ret != GM_RET_NOTSUP)
			return ret;
		refused = true;
	}
	ret = place(ctx, b, page, access, rights, deadline_ns, did);
	/* It gave way before, so that it was mapped, and the device refused, cannot be told: tried at once. */
	if (!ret && refused && *did == GM_MIRRORED_PLACED)
		ret = try_access(b, page, access, deadline_ns);
	return ret;
}

/* Nothing is mapped in the whole block. */
static bool is_gone(struct gm_block *b)
{
	struct gm_mask present;

	return gm_hal_mem_present(b->as->host, b->as->hpmap, b->va, &present) == GM_RET_FAULT;
}

void gm_mirror_sweep(struct gm_as *as)
{
	uint64_t va = 0, deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);

	if (!atomic_load(&as->mirror.sweep) || !atomic_exchange(&as->mirror.sweep, false))
		return;
	for (struct gm_block *b; (b = gm_block_next_live(as, va, UINT64_MAX)); gm_block_put(b)) {
		bool has;

		va = b->va + GM_BLOCK_BYTES;
		gm_lock(as->env, &b->lock);
		has = b->has_external;
		gm_unlock(as->env, &b->lock);
		if (has && is_gone(b))
			drop(b, b->va, va, deadline_ns);
		else if (has)
			gm_mirror_tidy(b);
	}
	atomic_store(&as->mirror.limit, 2 * atomic_load(&as->mirror.blocks) + GM_MIRROR_BLOCKS);
}
