/* SPDX-License-Identifier: MIT */
/*
 * Adopted memory.
 *
 *     events of the range's former life are through --> probed --> region adopted, edges (--> gm_release.c)
 *
 * The partial pages at the ends of a buffer hold bytes of others too. They
 * become edges: never moved, mapped in place by devices that can. Two buffers
 * may share one.
 *
 * Adopted memory that was freed without gm_release(), while no device was
 * involved with it, leaves regions behind that mean nothing, and its edges do
 * so always: no event comes for memory that is not watched. A new gm_adopt()
 * over such regions takes their place, unless a device uses them now.
 *
 * With GM_AS_WATCH a region is watched from its first moment, and its adoption
 * undone if the host does not do that; it is until it is released.
 */
#include "config.h"

#include "core/gm_adopt.h"

#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_txn.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

struct gm_span gm_span_of(uint64_t va, uint64_t bytes, uint32_t flags)
{
	uint64_t mask = GM_PAGE_BYTES - 1, end = va + bytes;
	struct gm_span s = { .va = (va + mask) & ~mask, .end = end & ~mask };

	if (flags & GM_MEM_OUTWARD)
		return (struct gm_span){ .va = va & ~mask, .end = (end + mask) & ~mask };
	if (va & mask)
		s.edge[0] = va & ~mask;
	if ((end & mask) && (end & ~mask) != s.edge[0])
		s.edge[1] = end & ~mask;
	if (s.va > s.end) /* all within one page */
		s.va = s.end;
	return s;
}

/* The kind of memory that can be managed, all of it. */
static gm_ret_t probe(struct gm_as *as, uint64_t va, uint64_t end)
{
	while (va < end) {
		struct gm_host_vma vma;
		gm_ret_t ret = gm_hal_mem_probe(as->host, as->hpmap, va, &vma);

		if (ret && ret != GM_RET_FAULT)
			return ret;
		if (ret)
			return gm_fail(GM_RET_FAULT, "gm_adopt: nothing is mapped at 0x%llx", (unsigned long long)va);
		if (!vma.private_anon)
			return gm_fail(GM_RET_NOTSUP, "gm_adopt: memory at 0x%llx is not private and anonymous "
				       "(file, shared or device memory)", (unsigned long long)va);
		if (vma.locked)
			return gm_fail(GM_RET_NOTSUP, "gm_adopt: memory at 0x%llx is locked: munlock() it first",
				       (unsigned long long)va);
		va = vma.va + vma.bytes;
	}
	return GM_RET_SUCCESS;
}

/* (A) May the span become adopted? SUCCESS, or EXIST: owned memory is there, or something that is being moved. */
static gm_ret_t check_overlap(struct gm_as *as, const struct gm_span *s)
{
	struct gm_region buf, *r;

	if (gm_remap_meets(as, s->va, s->end))
		return GM_RET_EXIST; /* moved from or to there just now */
	for (unsigned i = 0; i < 2; i++) {
		r = s->edge[i] ? gm_regions_find(&as->regions, s->edge[i], &buf) : NULL;
		if (r && (r->kind == GM_REGION_OWNED || r->kind == GM_REGION_PLACED))
			return GM_RET_EXIST;
	}
	if (s->va == s->end)
		return GM_RET_SUCCESS;
	for (r = gm_regions_first(&as->regions, s->va, s->end, &buf); r; r = gm_regions_next(&as->regions, r, s->end))
		if (r->kind == GM_REGION_OWNED || r->kind == GM_REGION_PLACED)
			return GM_RET_EXIST;
	return GM_RET_SUCCESS;
}

static gm_ret_t watch(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns)
{
	gm_ret_t ret;

	do
		ret = gm_hal_watch(as->host, as->hpmap, s->va, s->end - s->va);
	while (ret == GM_RET_AGAIN && gm_now_ns(as->env) < deadline_ns && gm_events_let_run(as));
	if (ret == GM_RET_AGAIN)
		ret = gm_fail(GM_RET_TIMEDOUT, "gm_adopt: events of 0x%llx were not read in time", (unsigned long long)s->va);
	return ret;
}

/*
 * Before it is adopted the span becomes memory of the sort asked for. What is adopted already may be watched, so it stays
 * as it is: EXIST, where that would be another sort.
 */
static gm_ret_t mark_sort(struct gm_as *as, const struct gm_span *s, uint32_t flags, uint64_t deadline_ns)
{
	struct gm_region buf;
	gm_ret_t ret;
	bool some;

	if (s->va >= s->end || (!(flags & GM_MEM_INTHREAD) && !gm_hal_inthread_has(as->host, as->hpmap, s->va, s->end - s->va)))
		return GM_RET_SUCCESS;
	gm_lock(as->env, &as->lock);
	some = gm_regions_first(&as->regions, s->va, s->end, &buf);
	ret = some ? GM_RET_EXIST : check_overlap(as, s);
	gm_unlock(as->env, &as->lock);
	if (ret)
		return gm_fail(ret, "gm_adopt: part of [0x%llx, 0x%llx) is managed already, with or without GM_MEM_INTHREAD: "
			       "gm_release() it first", (unsigned long long)s->va, (unsigned long long)s->end);
	/* mremap() may have left, or added, what is watched. It is not another's, if we can watch it. */
	ret = watch(as, s, deadline_ns);
	if (ret)
		return ret;
	(void)gm_hal_unwatch(as->host, as->hpmap, s->va, s->end - s->va);
	return gm_inthread_mark(as, s->va, s->end, flags);
}

void gm_mem_clear_stale(struct gm_as *as, uint64_t va, uint64_t end)
{
	gm_regions_drop_edges(&as->regions, va, end);
	(void)gm_regions_carve(&as->regions, va, end, GM_REGION_ADOPTED);
}

/* Does a device have anything to do with the range? */
static bool in_use(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	bool used = false;

	for (struct gm_block *b; !used && (b = gm_block_next(as, va, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end), any;
		gm_ret_t ret = GM_RET_SUCCESS;

		gm_lock(as->env, &b->lock);
		while (!ret && gm_mask_meets(&b->busy, &range)) /* also while a block is being forgotten */
			ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
		any = gm_mask_or(gm_block_on_devs(b), gm_mask_or(b->staged, gm_block_mapped(b)));
		any = gm_mask_sub(gm_mask_or(any, b->doomed), gm_mask_or(b->mirrored, b->external)); /* nobody asked for those */
		used = ret || gm_mask_meets(&any, &range);
		gm_unlock(as->env, &b->lock);
		va = b->va + GM_BLOCK_BYTES;
	}
	return used;
}

/* ... also pages that are adopted and are to become edges. */
static bool span_in_use(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns)
{
	bool used = s->va < s->end && in_use(as, s->va, s->end, deadline_ns);

	for (unsigned i = 0; i < 2 && !used; i++) {
		struct gm_region buf, *r;
		bool adopted;

		if (!s->edge[i])
			continue;
		gm_lock(as->env, &as->lock);
		r = gm_regions_find(&as->regions, s->edge[i], &buf);
		adopted = r && r->kind == GM_REGION_ADOPTED;
		gm_unlock(as->env, &as->lock);
		used = adopted && in_use(as, s->edge[i], s->edge[i] + GM_PAGE_BYTES, deadline_ns);
	}
	return used;
}

static void mark_edges(struct gm_as *as, const struct gm_span *s)
{
	for (unsigned i = 0; i < 2; i++) {
		struct gm_block *b = s->edge[i] ? gm_block_find(as, s->edge[i]) : NULL;

		if (!b)
			continue;
		gm_lock(as->env, &b->lock);
		gm_mask_set(&b->edge, gm_page_of(b, s->edge[i]));
		gm_mask_clear(&b->managed, gm_page_of(b, s->edge[i]));
		gm_mask_clear(&b->host, gm_page_of(b, s->edge[i]));
		gm_mask_clear(&b->mirrored, gm_page_of(b, s->edge[i]));
		gm_mask_clear(&b->external, gm_page_of(b, s->edge[i]));
		gm_mirror_count(b);
		gm_unlock(as->env, &b->lock);
		gm_block_put(b);
	}
}

/* A device may have got the page in the moment before; if it does not come home now, gm_release() brings it. */
static void settle_edges(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns)
{
	for (unsigned i = 0; i < 2; i++) {
		struct gm_block *b = s->edge[i] ? gm_block_find(as, s->edge[i]) : NULL;

		if (b && gm_mem_block_home(b, s->edge[i], s->edge[i] + GM_PAGE_BYTES, deadline_ns))
			gm_log(as->env, GM_LOG_WARN, "gm_adopt: 0x%llx is shared with other memory, but still on a device",
			       (unsigned long long)s->edge[i]);
		gm_block_put(b);
	}
}

/* SUCCESS, EXIST, or AGAIN: others took of the stock, which must be filled again. */
static gm_ret_t try_enter(struct gm_as *as, const struct gm_span *s)
{
	gm_ret_t ret;

	gm_lock(as->env, &as->lock);
	ret = check_overlap(as, s);
	if (!ret && gm_regions_room(&as->regions) < 6)
		ret = GM_RET_AGAIN;
	if (!ret && s->va < s->end) {
		gm_mem_clear_stale(as, s->va, s->end);
		(void)gm_regions_insert(&as->regions, s->va, s->end, GM_REGION_ADOPTED);
	}
	for (unsigned i = 0; !ret && i < 2; i++) {
		if (!s->edge[i])
			continue;
		(void)gm_regions_carve(&as->regions, s->edge[i], s->edge[i] + GM_PAGE_BYTES, GM_REGION_ADOPTED);
		(void)gm_regions_insert(&as->regions, s->edge[i], s->edge[i] + GM_PAGE_BYTES, GM_REGION_EDGE);
	}
	gm_unlock(as->env, &as->lock);
	return ret;
}

static gm_ret_t enter_regions(struct gm_as *as, const struct gm_span *s)
{
	gm_ret_t ret;

	do {
		ret = gm_mem_stock(as, 6);
		if (!ret)
			ret = try_enter(as, s);
	} while (ret == GM_RET_AGAIN);
	return ret;
}

/* Before anything of it is waited for. */
static bool is_owned(struct gm_as *as, const struct gm_span *s)
{
	bool owned;

	gm_lock(as->env, &as->lock);
	owned = check_overlap(as, s) && !gm_remap_meets(as, s->va, s->end);
	gm_unlock(as->env, &as->lock);
	return owned;
}

/* GM_AS_WATCH: from the first moment on, or not adopted. */
static gm_ret_t watch_all(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns)
{
	bool some;
	gm_ret_t ret = watch(as, s, deadline_ns);

	if (!ret)
		return ret;
	(void)gm_release_span(as, s, deadline_ns, &some);
	return ret;
}

gm_ret_t gm_adopt(struct gm_as *as, void *ptr, uint64_t bytes, uint32_t flags)
{
	uint64_t va = GM_VA(ptr), outer = va & ~(uint64_t)(GM_PAGE_BYTES - 1), deadline_ns;
	struct gm_span s;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return gm_fail(GM_RET_INVAL, "gm_adopt: ptr must not be NULL");
	if (flags & ~(GM_MEM_OUTWARD | GM_MEM_INTHREAD))
		return gm_fail(GM_RET_INVAL, "gm_adopt: flags 0x%x: only GM_MEM_OUTWARD and GM_MEM_INTHREAD are known",
			       (unsigned)flags);
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_as_check_range(as, "gm_adopt", va, bytes);
	if (!ret && va + bytes > UINT64_MAX - GM_PAGE_BYTES)
		ret = gm_fail(GM_RET_INVAL, "gm_adopt: the range overflows");
	if (!ret)
		ret = gm_events_settle(as, deadline_ns);
	if (!ret)
		ret = probe(as, outer, (va + bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1));
	if (!ret)
		ret = gm_mem_wait_dropped(as, outer, va + bytes, deadline_ns);
	if (!ret)
		ret = gm_pack_open_range(as, outer, va + bytes);
	if (!ret)
		ret = gm_mem_stock(as, 6);
	if (ret)
		return ret;
	s = gm_span_of(va, bytes, flags);
	gm_mirror_yield(as, s.va, s.end, deadline_ns);
	if (is_owned(as, &s))
		return gm_fail(GM_RET_EXIST, "gm_adopt: [0x%llx, 0x%llx) overlaps memory that gm_alloc() or gm_map_shared() gave: it is "
			       "managed already", (unsigned long long)va, (unsigned long long)(va + bytes));
	if (span_in_use(as, &s, deadline_ns))
		return gm_fail(GM_RET_EXIST, "gm_adopt: part of [0x%llx, 0x%llx) is adopted and in use: gm_release() it first",
			       (unsigned long long)s.va, (unsigned long long)s.end);
	ret = mark_sort(as, &s, flags, deadline_ns);
	if (ret)
		return ret;
	ret = s.va < s.end ? gm_fork_set(as, s.va, s.end, GM_FORK_DEFAULT) : GM_RET_SUCCESS;
	if (!ret)
		ret = enter_regions(as, &s);
	if (ret && s.va < s.end && (flags & GM_MEM_INTHREAD))
		(void)gm_inthread_mark(as, s.va, s.end, 0);
	if (ret && ret != GM_RET_EXIST)
		return ret;
	if (ret)
		return gm_fail(ret, "gm_adopt: [0x%llx, 0x%llx) overlaps memory that is managed already",
			       (unsigned long long)va, (unsigned long long)(va + bytes));
	if (s.va < s.end)
		gm_mem_set_managed(as, s.va, s.end, true);
	gm_fork_begin_range(as, s.va, s.end, false);
	mark_edges(as, &s);
	settle_edges(as, &s, deadline_ns);
	if ((as->cfg.flags & GM_AS_WATCH) && s.va < s.end)
		ret = watch_all(as, &s, deadline_ns);
	gm_mem_trim_stock(as);
	return ret;
}
