/* SPDX-License-Identifier: MIT */
/*
 * Ranges of a space that mirrors the process: working sets, and what is moved by address.
 *
 *     pieces --survey--> which pages stay where they are, so need no room on the device
 *     whole set --fill, and what is external and absent is touched--> the program has filled it, or the set fails
 *     block of a group --fill--> every page is managed, or an edge; then as in any space
 *
 * What stays by the survey stays, though it may have become memory that could be adopted: no room was kept for it.
 */
#include "config.h"

#include "core/gm_mirror.h"

#include "core/gm_fault.h"
#include "core/gm_mem.h"

static uint64_t va_of(uint64_t block, unsigned page)
{
	return block + (uint64_t)page * GM_PAGE_BYTES;
}

/* How far from page `first` vma reaches, at most to `end`. */
static unsigned reach(uint64_t block, const struct gm_host_vma *vma, unsigned end)
{
	uint64_t pages = (vma->va + vma->bytes - block) / GM_PAGE_BYTES;

	return pages < end ? (unsigned)pages : end;
}

/* Pages of a piece that are in no region. */
static struct gm_mask outside(struct gm_as *as, const struct gm_ws_piece *p)
{
	struct gm_mask in = gm_mask_none();
	uint64_t end = p->va + GM_BLOCK_BYTES;
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	for (r = gm_regions_first(&as->regions, p->va, end, &buf); r; r = gm_regions_next(&as->regions, r, end)) {
		uint64_t lo = r->va > p->va ? r->va : p->va, hi = r->end < end ? r->end : end;

		gm_mask_add_span(&in, (unsigned)((lo - p->va) / GM_PAGE_BYTES),
				 (unsigned)((hi - p->va) / GM_PAGE_BYTES));
	}
	gm_unlock(as->env, &as->lock);
	return gm_mask_sub(p->read, in);
}

/* From page `first` on as far as it is the same, at most to *end, which becomes that; with the rights asked for there. */
static gm_ret_t look(struct gm_as *as, const struct gm_ws_piece *p, unsigned first, unsigned *end,
		     struct gm_host_vma *vma)
{
	struct gm_mask span;
	gm_ret_t ret = gm_mirror_look(as, va_of(p->va, first), GM_READ, vma);

	if (ret)
		return ret;
	*end = reach(p->va, vma, *end);
	span = gm_mask_span(first, *end);
	span = gm_mask_and(span, p->write);
	GM_MASK_FOR_RUN(&span, at, stop)
		return stop > at ? gm_fault_rights(as, va_of(p->va, at), GM_WRITE, vma) : ret;
	return ret;
}

static gm_ret_t survey_piece(struct gm_as *as, struct gm_ws_piece *p)
{
	struct gm_mask todo = outside(as, p);

	GM_MASK_FOR_RUN(&todo, first, stop)
		for (unsigned at = first, end; at < stop; at = end) {
			struct gm_host_vma vma;
			gm_ret_t ret;

			end = stop;
			ret = look(as, p, at, &end, &vma);
			if (ret)
				return ret;
			if (vma.kind != GM_HOST_ANON)
				gm_mask_add_span(&p->stays, at, end);
		}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mirror_survey(struct gm_as *as, struct gm_ws_piece *piece, size_t pieces)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (size_t i = 0; i < pieces && !ret; i++)
		ret = survey_piece(as, &piece[i]);
	return ret;
}

/* Pages of the piece that are neither managed nor an edge. */
static struct gm_mask unknown(struct gm_block *b, const struct gm_ws_piece *p)
{
	struct gm_mask todo;

	gm_lock(b->as->env, &b->lock);
	todo = gm_mask_sub(p->read, gm_mask_or(b->managed, b->edge));
	gm_unlock(b->as->env, &b->lock);
	return todo;
}

gm_ret_t gm_mirror_fill(struct gm_block *b, const struct gm_ws_piece *p, uint64_t deadline_ns)
{
	struct gm_mask todo = unknown(b, p), some;
	unsigned first = 0, end = 0, stop;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && gm_mask_next_run(&todo, &first, &end)) {
		struct gm_host_vma vma;

		stop = end;
		ret = look(b->as, p, first, &stop, &vma);
		if (ret)
			break;
		some = gm_mask_span(first, stop);
		ret = GM_RET_NOTSUP;
		if (vma.kind == GM_HOST_ANON && !gm_mask_test(&p->stays, first))
			ret = gm_mirror_adopt(b, first, &vma, deadline_ns);
		if (ret == GM_RET_NOTSUP)
			ret = gm_mirror_mark(b, &some, deadline_ns);
		some = todo;
		todo = unknown(b, p);
		if (!ret && gm_mask_equal(&some, &todo) && gm_now_ns(b->as->env) >= deadline_ns)
			ret = gm_fail(GM_RET_TIMEDOUT, "memory near 0x%llx changes all the time",
				      (unsigned long long)b->va);
		first = end = 0;
	}
	return ret;
}

gm_ret_t gm_mirror_bring(struct gm_as *as, uint64_t va, uint32_t access, uint64_t deadline_ns)
{
	gm_ret_t ret = gm_hal_bus_bring(as->host, va, access & GM_WRITE, deadline_ns);

	if (ret == GM_RET_TIMEDOUT)
		return gm_fail(ret, "0x%llx was not filled in time by who watches it", (unsigned long long)va);
	return ret == GM_RET_NOTSUP ? GM_RET_FAULT : ret;
}

/* External pages of the piece that have nothing at their address yet. SUCCESS, NOMEM: it cannot be told now. */
static gm_ret_t absent(struct gm_block *b, const struct gm_ws_piece *p, struct gm_mask *pages)
{
	struct gm_mask present = gm_mask_none();
	gm_ret_t ret = GM_RET_SUCCESS;

	*pages = gm_mask_none();
	gm_lock(b->as->env, &b->lock);
	if (b->has_external)
		*pages = gm_mask_and(p->read, b->external);
	gm_unlock(b->as->env, &b->lock);
	if (!gm_mask_empty(pages))
		ret = gm_hal_mem_present(b->as->host, b->as->hpmap, b->va, &present);
	if (!ret)
		*pages = gm_mask_sub(*pages, present);
	return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

static gm_ret_t bring_piece(struct gm_block *b, const struct gm_ws_piece *p, uint64_t deadline_ns)
{
	struct gm_mask pages;
	gm_ret_t ret = absent(b, p, &pages);
	char byte;

	if (ret)
		return ret;
	GM_MASK_FOR_RUN(&pages, first, end)
		for (unsigned page = first; page < end; page++) {
			uint64_t va = va_of(p->va, page);

			ret = gm_hal_bus_access(b->as->host, va, &byte, 1, false);
			if (ret == GM_RET_NOMEM)
				return ret;
			if (ret != GM_RET_FAULT)
				continue;
			ret = gm_mirror_fetch(b->as, va, deadline_ns);
			if (ret == GM_RET_NOENT)
				ret = gm_mirror_bring(b->as, va, gm_mask_test(&p->write, page) ? GM_WRITE : GM_READ, deadline_ns);
			if (ret == GM_RET_BUSY) /* BUSY would be one that no time makes free */
				return gm_fail(GM_RET_TIMEDOUT, "0x%llx is held in another space", (unsigned long long)va);
			if (ret && ret != GM_RET_FAULT) /* a device that takes sets need not fault on what is not there */
				return ret;
		}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mirror_bring_set(struct gm_as *as, const struct gm_ws_piece *piece, size_t pieces, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (size_t i = 0; i < pieces && !ret; i++) {
		const struct gm_ws_piece *p = &piece[i];
		unsigned first = 0, end;
		struct gm_block *b;

		(void)gm_mask_next_run(&p->read, &first, &end);
		ret = gm_block_obtain(as, va_of(p->va, first), &b);
		if (ret)
			break;
		ret = gm_mirror_fill(b, p, deadline_ns);
		if (!ret)
			ret = bring_piece(b, p, deadline_ns);
		gm_mirror_tidy(b);
		gm_block_put(b);
	}
	return ret;
}

void gm_mirror_yield(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	uint64_t at = va;

	if (!gm_as_mirrors(as))
		return;
	for (struct gm_block *b; (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		bool has;

		gm_lock(as->env, &b->lock);
		has = b->has_external;
		gm_unlock(as->env, &b->lock);
		if (has) { /* what a set holds stays: its accesses are refused */
			(void)gm_mem_unmap_in_place(b, va, end, deadline_ns);
			gm_mirror_tidy(b);
		}
		at = b->va + GM_BLOCK_BYTES;
	}
}

/*
 * The next piece of [*at, end) that may be adopted, after which *at is. SUCCESS, NOENT (none), NOMEM (it cannot be told
 * now).
 */
static gm_ret_t next_anon(struct gm_as *as, uint64_t *at, uint64_t end, struct gm_host_vma *vma)
{
	while (*at < end) {
		uint64_t va = *at, next = gm_block_base(va) + GM_BLOCK_BYTES;
		struct gm_mask present;
		gm_ret_t ret = gm_mirror_look(as, va, GM_WRITE, vma);

		if (!ret) {
			*at = vma->va + vma->bytes;
			if (vma->kind == GM_HOST_ANON)
				return ret;
		} else if (ret == GM_RET_FAULT || ret == GM_RET_PERM) {
			ret = gm_hal_mem_present(as->host, as->hpmap, gm_block_base(va), &present);
			*at = ret ? next : va + GM_PAGE_BYTES; /* FAULT: there is nothing in the whole block */
		}
		if (ret && ret != GM_RET_FAULT)
			return ret;
	}
	return GM_RET_NOENT;
}

gm_ret_t gm_mirror_adopt_range(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_host_vma vma;

	for (uint64_t at = va; !ret && !(ret = next_anon(as, &at, end, &vma));) {
		struct gm_block *b;
		uint64_t lo = vma.va > va ? vma.va : va, hi = vma.va + vma.bytes < end ? vma.va + vma.bytes : end;

		ret = gm_block_obtain(as, lo, &b);
		for (; !ret && lo < hi; lo += GM_PAGE_BYTES) {
			bool managed;

			gm_lock(as->env, &b->lock);
			managed = gm_mask_test(&b->managed, gm_page_of(b, lo));
			gm_unlock(as->env, &b->lock);
			if (!managed)
				ret = gm_mirror_adopt(b, gm_page_of(b, lo), &vma, deadline_ns);
		}
		gm_block_put(b);
		ret = ret == GM_RET_NOTSUP ? GM_RET_SUCCESS : ret;
	}
	return ret == GM_RET_NOENT ? GM_RET_SUCCESS : ret;
}

gm_ret_t gm_mirror_at_home(struct gm_as *as, uint64_t va, uint64_t end, uint64_t *pages)
{
	struct gm_host_vma vma;
	gm_ret_t ret;

	*pages = 0;
	for (uint64_t at = va; !(ret = next_anon(as, &at, end, &vma));) {
		uint64_t lo = vma.va > va ? vma.va : va, hi = at < end ? at : end;
		struct gm_region buf;

		gm_lock(as->env, &as->lock);
		for (; lo < hi; lo += GM_PAGE_BYTES)
			*pages += !gm_regions_find(&as->regions, lo, &buf);
		gm_unlock(as->env, &as->lock);
	}
	return ret == GM_RET_NOENT ? GM_RET_SUCCESS : ret;
}
