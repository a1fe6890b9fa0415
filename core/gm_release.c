/* SPDX-License-Identifier: MIT */
/*
 * Adopted memory is released.
 *
 *     region out --> bytes home --> unwatched
 *
 * "Region out" comes first, so that no new access brings pages back while the
 * rest is being done; if the rest fails, the region is put back and nothing
 * has changed but where some bytes are. A range that was adopted in several
 * pieces is released piece by piece: those before the one that fails are.
 * Edges follow; one that another buffer ends in too stays its.
 */
#include "config.h"

#include "core/gm_adopt.h"

#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_inthread.h"
#include "core/gm_mem.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

/* Devices let go of an edge that ends no buffer any more. */
static gm_ret_t stop_edge(struct gm_as *as, uint64_t va, uint64_t deadline_ns)
{
	struct gm_block *b = gm_block_find(as, va);
	gm_ret_t ret;

	if (!b)
		return GM_RET_SUCCESS;
	ret = gm_mem_block_home(b, va, va + GM_PAGE_BYTES, deadline_ns); /* one may have got it as it became an edge */
	if (!ret)
		ret = gm_mem_unmap_in_place(b, va, va + GM_PAGE_BYTES, deadline_ns);
	if (!ret)
		gm_work_queue(b, 0);
	gm_block_put(b);
	return ret;
}

/* (A) The block, which is not packed, learns what the region says. */
static void note_edge(struct gm_as *as, uint64_t va)
{
	struct gm_block *b = gm_block_first(as, va, va + GM_PAGE_BYTES);
	struct gm_region buf, *r = gm_regions_find(&as->regions, va, &buf);

	if (!b)
		return;
	gm_lock(as->env, &b->lock);
	if (r && r->kind == GM_REGION_EDGE)
		gm_mask_set(&b->edge, gm_page_of(b, va));
	else if (!gm_mask_test(&b->external, gm_page_of(b, va)))
		gm_mask_clear(&b->edge, gm_page_of(b, va));
	gm_unlock(as->env, &b->lock);
}

/* (A) */
static bool is_packed(struct gm_as *as, uint64_t va)
{
	return gm_packed_of(gm_radix_get(&as->blocks, va / GM_BLOCK_BYTES));
}

/*
 * One user less. *last: it was the last and took the region along, so that nobody learns of the edge any more; that
 * it can be put back is promised. SUCCESS, or NOMEM: nothing done.
 */
static gm_ret_t carve_edge(struct gm_as *as, uint64_t va, bool *last)
{
	struct gm_region buf, *r;
	bool done;
	gm_ret_t ret;

	do {
		ret = gm_mem_stock(as, 1);
		if (!ret)
			ret = gm_pack_open_range(as, va, va + GM_PAGE_BYTES);
		if (ret)
			return ret;
		gm_lock(as->env, &as->lock);
		r = gm_regions_find(&as->regions, va, &buf);
		r = r && r->kind == GM_REGION_EDGE ? r : NULL;
		*last = r && r->users == 1;
		done = !is_packed(as, va) && (!*last || gm_regions_promise(&as->regions));
		if (r && done)
			(void)gm_regions_carve(&as->regions, va, va + GM_PAGE_BYTES, GM_REGION_EDGE);
		if (*last && done)
			note_edge(as, va); /* at once: who adopts it anew sets it again */
		gm_unlock(as->env, &as->lock);
	} while (!done);
	return GM_RET_SUCCESS;
}

/* What was promised when [va, end) was taken out. Back it goes unless others have the address meanwhile; true: it is. */
static bool end_promise(struct gm_as *as, uint64_t va, uint64_t end, enum gm_region_kind kind, bool back)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	gm_regions_redeem(&as->regions);
	r = gm_regions_first(&as->regions, va, end, &buf);
	back = back && (!r || (kind == GM_REGION_EDGE && r->kind == kind)) && gm_regions_insert(&as->regions, va, end, kind);
	gm_unlock(as->env, &as->lock);
	return back;
}

/* It was not let go. */
static void back_to_edge(struct gm_as *as, uint64_t va)
{
	struct gm_block *b = gm_block_find(as, va); /* not packed, for as long as we have it */

	gm_lock(as->env, &as->lock);
	note_edge(as, va);
	gm_unlock(as->env, &as->lock);
	gm_block_put(b);
}

/* One user less, and if that was the last the page is let go. */
static gm_ret_t release_edge(struct gm_as *as, uint64_t va, uint64_t deadline_ns)
{
	bool last = false;
	gm_ret_t ret = carve_edge(as, va, &last);

	if (ret || !last)
		return ret;
	ret = stop_edge(as, va, deadline_ns);
	(void)end_promise(as, va, va + GM_PAGE_BYTES, GM_REGION_EDGE, ret != GM_RET_SUCCESS);
	if (ret)
		back_to_edge(as, va);
	return ret;
}

/* The first edge in [*va, end), whose address *va becomes. */
static bool next_edge(struct gm_as *as, uint64_t *va, uint64_t end)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_first(&as->regions, *va, end, &buf);
	while (r && r->kind != GM_REGION_EDGE)
		r = gm_regions_next(&as->regions, r, end);
	if (r)
		*va = r->va;
	gm_unlock(as->env, &as->lock);
	return r;
}

/*
 * Edges wholly inside the span are released with it, whosever they are; of one that the range ends in, only this
 * buffer's part. *some: there was one.
 */
static gm_ret_t release_edges(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns, bool *some)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t va = s->va; !ret && va < s->end && next_edge(as, &va, s->end);) {
		*some = true;
		ret = release_edge(as, va, deadline_ns); /* comes again as long as there are users */
	}
	for (unsigned i = 0; i < 2 && !ret; i++) {
		*some |= s->edge[i] != 0;
		if (s->edge[i])
			ret = release_edge(as, s->edge[i], deadline_ns);
	}
	return ret;
}

static gm_ret_t bring_range_home(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	uint64_t at = va;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (struct gm_block *b; !ret && (b = gm_block_next(as, at, end)); gm_block_put(b)) {
		ret = gm_mem_block_home(b, va, end, deadline_ns);
		if (!ret)
			ret = gm_mem_unmap_in_place(b, va, end, deadline_ns);
		at = b->va + GM_BLOCK_BYTES;
	}
	return ret;
}

/* The first adopted piece of [*va, *end); false: there is none. */
static bool next_piece(struct gm_as *as, uint64_t *va, uint64_t *end)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = *va < *end ? gm_regions_first(&as->regions, *va, *end, &buf) : NULL;
	while (r && r->kind != GM_REGION_ADOPTED)
		r = gm_regions_next(&as->regions, r, *end);
	if (r) {
		*va = r->va > *va ? r->va : *va;
		*end = r->end < *end ? r->end : *end;
	}
	gm_unlock(as->env, &as->lock);
	return r;
}

/* Its region out, and that it can be put back promised; false: not enough in stock, nothing done. */
static bool carve_piece(struct gm_as *as, uint64_t va, uint64_t end)
{
	bool ok;

	gm_lock(as->env, &as->lock);
	ok = gm_regions_promise(&as->regions);
	if (ok && !gm_regions_carve(&as->regions, va, end, GM_REGION_ADOPTED)) {
		gm_regions_redeem(&as->regions);
		ok = false;
	}
	gm_unlock(as->env, &as->lock);
	return ok;
}

/* As gm_span_of(), by what is there: an end page that was adopted outward goes with the rest. */
static struct gm_span release_span(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	struct gm_span s = gm_span_of(va, bytes, 0);
	uint64_t page[2] = { va & ~(uint64_t)(GM_PAGE_BYTES - 1), (va + bytes - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1) };

	gm_lock(as->env, &as->lock);
	for (unsigned i = 0; i < 2; i++) {
		struct gm_region buf, *r = gm_regions_find(&as->regions, page[i], &buf);
		bool outermost = r && r->kind == GM_REGION_ADOPTED && (i ? r->end == page[i] + GM_PAGE_BYTES : r->va == page[i]);

		if (outermost && s.va >= s.end)
			s.va = page[i], s.end = page[i] + GM_PAGE_BYTES;
		else if (outermost && page[i] < s.va)
			s.va = page[i];
		else if (outermost && page[i] + GM_PAGE_BYTES > s.end)
			s.end = page[i] + GM_PAGE_BYTES;
	}
	for (unsigned i = 0; i < 2; i++) {
		struct gm_region buf, *r = s.edge[i] ? gm_regions_find(&as->regions, s.edge[i], &buf) : NULL;

		if (!r || r->kind != GM_REGION_EDGE)
			s.edge[i] = 0;
	}
	gm_unlock(as->env, &as->lock);
	return s;
}

/* Its region is out; now the bytes. Puts the region back if that fails. */
static gm_ret_t take_back(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	gm_ret_t ret;

	gm_mem_set_managed(as, va, end, false);
	/* A set that came since it was asked for has it; one that comes from here on does not take what is not managed. */
	if (gm_mem_is_held(as, va, end))
		ret = gm_fail(GM_RET_BUSY, "gm_release: a working set has just taken part of [0x%llx, 0x%llx)",
			      (unsigned long long)va, (unsigned long long)end);
	else
		ret = bring_range_home(as, va, end, deadline_ns);
	if (end_promise(as, va, end, GM_REGION_ADOPTED, ret != GM_RET_SUCCESS))
		gm_mem_set_managed(as, va, end, true);
	if (ret)
		return ret;
	gm_inthread_end(as, va, end);
	gm_mem_unwatch(as, va, end);
	(void)gm_inthread_mark(as, va, end, 0);
	gm_fork_end_adopted(as, va, end);
	return GM_RET_SUCCESS;
}

/* Every adopted piece of the span, until one has to stay; the rest is left as it is. *some: there was one. */
static gm_ret_t release_pieces(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns, bool *some)
{
	uint64_t va = s->va, end = s->end;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (*some = false; !ret && next_piece(as, &va, &end); va = end, end = s->end) {
		*some = true;
		do
			ret = gm_mem_stock(as, 2);
		while (!ret && !carve_piece(as, va, end)); /* somebody was faster */
		if (!ret)
			ret = take_back(as, va, end, deadline_ns);
	}
	return ret;
}

gm_ret_t gm_release_span(struct gm_as *as, const struct gm_span *s, uint64_t deadline_ns, bool *some)
{
	gm_ret_t ret = release_pieces(as, s, deadline_ns, some);

	return ret ? ret : release_edges(as, s, deadline_ns, some);
}

gm_ret_t gm_release(struct gm_as *as, void *ptr, uint64_t bytes)
{
	uint64_t va = GM_VA(ptr), deadline_ns;
	struct gm_span s;
	bool some;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return gm_fail(GM_RET_INVAL, "gm_release: ptr must not be NULL");
	ret = gm_as_check_range(as, "gm_release", va, bytes);
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	if (!ret)
		ret = gm_events_settle(as, deadline_ns);
	if (!ret)
		ret = gm_pack_open_range(as, va, va + bytes);
	if (ret)
		return ret;
	s = release_span(as, va, bytes);
	if (gm_mem_is_held(as, va & ~(uint64_t)(GM_PAGE_BYTES - 1), va + bytes))
		return gm_fail(GM_RET_BUSY, "gm_release: a working set holds part of %p: release it first", ptr);
	atomic_fetch_add(&as->releasing, 1);
	ret = gm_release_span(as, &s, deadline_ns, &some);
	if (!ret && !some)
		ret = gm_fail(GM_RET_NOENT, "gm_release: nothing is adopted at %p", ptr);
	atomic_fetch_sub(&as->releasing, 1);
	gm_mem_trim_stock(as);
	return ret;
}
