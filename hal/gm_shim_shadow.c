/* SPDX-License-Identifier: MIT */
/*
 * The shadow of a page table: per 2 MiB of device VA an array of pages, each with what the page table has, and what
 * TLBs may have besides.
 *
 *     nothing --enter begins--> mapped, NEW --success--> mapped
 *                                   \-------failure----> as before
 *     mapped --remove--> nothing, old translation --tlb_invl--> nothing
 *     mapped, writable --protect--> mapped, old translation with write --tlb_invl--> mapped
 *     any --a plan failed half-way--> UNSURE --enter, or remove and tlb_invl--> known again
 *
 * A mapping counts from before pmap_enter() is called until after tlb_invl() has returned: what the device does in
 * between is legal. Steps of a plan count from submit(), because only the backend knows when each is done.
 *
 * Everything here runs under (S), but gm_shim_need(), which makes room before.
 */
#include "config.h"

#include <string.h>

#include "hal/gm_shim.h"

static int chunk_compare(const struct gm_shim_chunk *a, const struct gm_shim_chunk *b)
{
	return (a->va > b->va) - (a->va < b->va);
}

RB_GENERATE_INTERNAL(gm_shim_chunks, gm_shim_chunk, link, chunk_compare, static __attribute__((unused)))

static uint64_t chunk_va(uint64_t va)
{
	return va & ~(uint64_t)(GM_BLOCK_BYTES - 1);
}

struct gm_shim_chunk *gm_shim_chunk_at(struct gm_shim_pmap *p, uint64_t va)
{
	struct gm_shim_chunk key = { .va = chunk_va(va) };

	return RB_NFIND(gm_shim_chunks, &p->chunks, &key);
}

struct gm_shim_page *gm_shim_page(struct gm_shim_pmap *p, uint64_t va)
{
	struct gm_shim_chunk *chunk = gm_shim_chunk_at(p, va);

	if (!chunk || chunk->va != chunk_va(va))
		return NULL;
	return &chunk->page[(va - chunk->va) / GM_PAGE_BYTES];
}

/* One chunk; false: no memory. */
static bool need_chunk(struct gm_shim_pmap *p, uint64_t va)
{
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_chunk *chunk;
	bool there;

	gm_shim_lock(d);
	there = gm_shim_page(p, va) != NULL;
	gm_shim_unlock(d);
	if (there)
		return true;
	chunk = d->out->alloc(d->out->self, GM_SHIM_CHUNK_BYTES);
	if (!chunk)
		return false;
	chunk->va = chunk_va(va);
	gm_shim_lock(d);
	there = RB_INSERT(gm_shim_chunks, &p->chunks, chunk) != NULL;
	gm_shim_unlock(d);
	if (there)
		d->out->free(d->out->self, chunk, GM_SHIM_CHUNK_BYTES);
	return true;
}

void gm_shim_need(struct gm_shim_pmap *p, uint64_t va, uint64_t pa, uint64_t bytes, bool host)
{
	struct gm_shim_dev *d = p->dev;
	bool ok = gm_shim_need_memory(d, host ? &d->hosts : &d->frames, pa, bytes);

	for (uint64_t at = chunk_va(va); ok && at < va + bytes; at += GM_BLOCK_BYTES)
		ok = need_chunk(p, at);
	if (!ok)
		atomic_store(&d->blind, true);
}

void gm_shim_pin(struct gm_shim_dev *d, int n)
{
	gm_shim_lock(d);
	d->pins += (unsigned)n;
	gm_shim_unlock(d);
}

static bool says_nothing(const struct gm_shim_chunk *chunk)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		any |= (chunk->page[i].cur & (GM_SHIM_M | GM_SHIM_UNSURE)) | chunk->page[i].old;
	return !any;
}

/* A plan that may fail: then its ranges are doubted, for which there must be books. */
static bool plan_pending(const struct gm_shim_dev *d)
{
	const struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		if (f->kind == GM_SHIM_FENCE_PLAN && !f->done)
			return true;
	return false;
}

void gm_shim_sweep(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	SLIST_HEAD(, gm_shim_chunk) dropped = SLIST_HEAD_INITIALIZER(dropped);
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_chunk *chunk, *next;

	if (gm_shim_has(d, GM_CAP_DIRTY)) /* the bits of a page outlive its mapping */
		return;
	gm_shim_lock(d);
	chunk = d->pins || plan_pending(d) ? NULL : gm_shim_chunk_at(p, at->va);
	for (; chunk && chunk->va <= at->va + (at->bytes - 1); chunk = next) {
		next = RB_NEXT(gm_shim_chunks, &p->chunks, chunk);
		if (!says_nothing(chunk))
			continue;
		RB_REMOVE(gm_shim_chunks, &p->chunks, chunk);
		SLIST_INSERT_HEAD(&dropped, chunk, dropped);
	}
	gm_shim_unlock(d);
	if (SLIST_EMPTY(&dropped))
		return;
	while ((chunk = SLIST_FIRST(&dropped))) {
		SLIST_REMOVE_HEAD(&dropped, dropped);
		d->out->free(d->out->self, chunk, GM_SHIM_CHUNK_BYTES);
	}
	gm_shim_sweep_hosts(d);
}

uint64_t gm_shim_pte_flags(uint32_t pte)
{
	return GM_SHIM_M | (pte & (GM_PTE_WRITE | GM_PTE_ATOMIC) ? GM_SHIM_W : 0) |
	       (pte & GM_PTE_ATOMIC ? GM_SHIM_A : 0) | (pte & GM_PTE_HOST ? GM_SHIM_H : 0);
}

static struct gm_shim_frame *frame_of(struct gm_shim_dev *d, uint64_t entry)
{
	return gm_shim_frame_of(entry & GM_SHIM_H ? &d->hosts : &d->frames, entry & ~GM_SHIM_FLAGS);
}

/* As long as there is one such page, accesses to host memory that is not mapped prove nothing. */
static bool maybe_host(uint64_t entry)
{
	return entry & GM_SHIM_UNSURE && entry & (GM_SHIM_H | GM_SHIM_NEW);
}

/* What stays of an entry that is removed. */
static uint64_t removed_entry(uint64_t entry)
{
	return entry & (GM_SHIM_USES | GM_SHIM_UNSURE | (entry & GM_SHIM_UNSURE ? GM_SHIM_H : 0));
}

/* Change what the page table has, and the books of the frames. */
static void set_cur(struct gm_shim_dev *d, struct gm_shim_page *page, uint64_t entry)
{
	struct gm_shim_frame *f;

	if (page->cur & GM_SHIM_M && (f = frame_of(d, page->cur))) {
		f->maps--;
		f->writers -= (page->cur & GM_SHIM_W) != 0;
	}
	if (entry & GM_SHIM_M && (f = frame_of(d, entry))) {
		f->maps++;
		f->writers += (entry & GM_SHIM_W) != 0;
	}
	d->unsure_hosts -= maybe_host(page->cur);
	d->unsure_hosts += maybe_host(entry);
	page->cur = entry;
}

static void set_old(struct gm_shim_dev *d, struct gm_shim_page *page, uint64_t entry)
{
	struct gm_shim_frame *f;

	if (page->old & GM_SHIM_M && (f = frame_of(d, page->old))) {
		f->old_maps--;
		f->old_writers -= (page->old & GM_SHIM_W) != 0;
	}
	if (entry & GM_SHIM_M && (f = frame_of(d, entry))) {
		f->old_maps++;
		f->old_writers += (entry & GM_SHIM_W) != 0;
	}
	page->old = entry;
}

/* The translation that TLBs may keep; one that waits already for the same address lends its rights. */
static void make_old(struct gm_shim_dev *d, struct gm_shim_page *page, uint64_t entry)
{
	uint64_t kept = entry & ~(GM_SHIM_FLAGS & ~(GM_SHIM_M | GM_SHIM_RIGHTS | GM_SHIM_H));

	if (page->old && !((page->old ^ entry) & (~GM_SHIM_FLAGS | GM_SHIM_H)))
		kept |= page->old & GM_SHIM_RIGHTS;
	set_old(d, page, kept);
}

void gm_shim_forget(struct gm_shim_pmap *p)
{
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_chunk *chunk;

	gm_shim_lock(d);
	while ((chunk = RB_MIN(gm_shim_chunks, &p->chunks))) {
		for (unsigned i = 0; i < GM_BLOCK_PAGES; i++) { /* out of the books of frames as well */
			set_old(d, &chunk->page[i], 0);
			set_cur(d, &chunk->page[i], 0);
		}
		RB_REMOVE(gm_shim_chunks, &p->chunks, chunk);
		gm_shim_unlock(d);
		d->out->free(d->out->self, chunk, GM_SHIM_CHUNK_BYTES);
		gm_shim_lock(d);
	}
	gm_shim_unlock(d);
}

bool gm_shim_mapped_any(struct gm_shim_pmap *p)
{
	struct gm_shim_chunk *chunk;

	RB_FOREACH(chunk, gm_shim_chunks, &p->chunks)
		for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
			if (chunk->page[i].cur & GM_SHIM_M && !(chunk->page[i].cur & GM_SHIM_UNSURE))
				return true;
	return false;
}

/* Visit the pages of a range for which there are books. */
#define FOR_PAGES(p, at, page_, va_) \
	for (struct gm_shim_chunk *c_ = gm_shim_chunk_at((p), (at)->va); \
	     c_ && c_->va <= (at)->va + ((at)->bytes - 1); c_ = RB_NEXT(gm_shim_chunks, &(p)->chunks, c_)) \
		for (uint64_t va_ = c_->va > (at)->va ? c_->va : (at)->va, i_ = (va_ - c_->va) / GM_PAGE_BYTES; \
		     i_ < GM_BLOCK_PAGES && va_ - (at)->va < (at)->bytes; i_++, va_ += GM_PAGE_BYTES) \
			for (struct gm_shim_page *page_ = &c_->page[i_]; page_; page_ = NULL)

static void check_frame(struct gm_shim_pmap *p, const struct gm_shim_at *at, uint64_t va, uint64_t entry,
			const struct gm_shim_page *page, struct gm_shim_found *found)
{
	struct gm_shim_dev *d = p->dev;
	uint64_t pa = entry & ~GM_SHIM_FLAGS;
	const struct gm_shim_frame *f = frame_of(d, entry);
	bool same = (page->cur & GM_SHIM_M) && !((page->cur ^ entry) & (~GM_SHIM_FLAGS | GM_SHIM_H));

	if (entry & GM_SHIM_H || !f)
		return;
	if (d->tracked && !f->used)
		gm_shim_found_at(found, GM_RULE_USED_FREE, at, va, pa);
	else if (!gm_shim_registered(d, pa, GM_PAGE_BYTES))
		gm_shim_found_at(found, GM_RULE_OUTSIDE, at, va, pa);
	else if (f->old_maps && !same && !page->old)
		gm_shim_found_at(found, GM_RULE_REUSE_STALE, at, va, pa);
	else if (gm_shim_copying(d, pa, GM_PAGE_BYTES, (entry & GM_SHIM_W) != 0))
		gm_shim_found_at(found, GM_RULE_ENTER_COPYING, at, va, pa);
}

bool gm_shim_hosts_any(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	uint64_t any = 0;

	FOR_PAGES(p, at, page, va) {
		any |= page->cur | page->old;
		(void)va;
	}
	return (any & GM_SHIM_H) != 0;
}

void gm_shim_check_enter(struct gm_shim_pmap *p, const struct gm_shim_at *at, struct gm_shim_found *found)
{
	uint64_t flags = gm_shim_pte_flags(at->pte);

	FOR_PAGES(p, at, page, va) {
		uint64_t pa = at->pa + (va - at->va), entry = pa | flags;

		if (page->cur & GM_SHIM_UNSURE)
			continue;
		if (page->cur & GM_SHIM_M) {
			if ((page->cur ^ entry) & (~GM_SHIM_FLAGS | GM_SHIM_H) || (page->cur & ~entry & GM_SHIM_RIGHTS))
				gm_shim_found_at(found, GM_RULE_ENTER_OVER, at, va, pa);
		} else if (page->old) {
			gm_shim_found_at(found, GM_RULE_ENTER_STALE, at, va, pa);
		}
		check_frame(p, at, va, entry, page, found);
	}
}

void gm_shim_enter(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	uint64_t flags = gm_shim_pte_flags(at->pte);

	FOR_PAGES(p, at, page, va) {
		uint64_t pa = at->pa + (va - at->va), marks = GM_SHIM_NEW;
		uint64_t grown = flags & ~page->cur;

		if (page->cur & GM_SHIM_M)
			marks = (grown & GM_SHIM_W ? GM_SHIM_NEW_W : 0) | (grown & GM_SHIM_A ? GM_SHIM_NEW_A : 0);
		set_cur(p->dev, page, pa | flags | (page->cur & (GM_SHIM_USES | GM_SHIM_UNSURE)) | marks);
	}
}

void gm_shim_entered(struct gm_shim_pmap *p, const struct gm_shim_at *at, bool failed)
{
	const uint64_t marks = GM_SHIM_NEW | GM_SHIM_NEW_W | GM_SHIM_NEW_A;

	FOR_PAGES(p, at, page, va) {
		uint64_t entry = page->cur & ~marks;

		if (!failed && page->cur & GM_SHIM_NEW) /* the bits of a harvest begin anew */
			entry = (entry & ~(GM_SHIM_USES | GM_SHIM_UNSURE)) | GM_SHIM_EVER;
		else if (!failed)
			entry |= GM_SHIM_EVER;
		else if (page->cur & GM_SHIM_NEW) /* what it was if it was not known is not known */
			entry = (page->cur & (GM_SHIM_USES | GM_SHIM_UNSURE)) | (page->cur & GM_SHIM_UNSURE ? GM_SHIM_H : 0);
		else
			entry &= ~((page->cur & GM_SHIM_NEW_W ? GM_SHIM_W : 0) | (page->cur & GM_SHIM_NEW_A ? GM_SHIM_A : 0));
		set_cur(p->dev, page, entry);
		(void)va;
	}
}

void gm_shim_removed(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	FOR_PAGES(p, at, page, va) {
		if (page->cur & GM_SHIM_M)
			make_old(p->dev, page, page->cur);
		set_cur(p->dev, page, removed_entry(page->cur));
		(void)va;
	}
}

void gm_shim_invalidated(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	FOR_PAGES(p, at, page, va) {
		set_old(p->dev, page, 0);
		if (!(page->cur & GM_SHIM_M))
			set_cur(p->dev, page, page->cur & ~(GM_SHIM_UNSURE | GM_SHIM_H));
		(void)va;
	}
}

void gm_shim_protected(struct gm_shim_pmap *p, const struct gm_shim_at *at)
{
	uint64_t rights = gm_shim_pte_flags(at->pte) & GM_SHIM_RIGHTS;

	FOR_PAGES(p, at, page, va) {
		if (!(page->cur & GM_SHIM_M))
			continue;
		if (page->cur & ~rights & GM_SHIM_RIGHTS)
			make_old(p->dev, page, page->cur);
		set_cur(p->dev, page, (page->cur & ~GM_SHIM_RIGHTS) | rights);
		(void)va;
	}
}

void gm_shim_doubt(struct gm_shim_pmap *p, const struct gm_shim_at *at, bool hosts)
{
	FOR_PAGES(p, at, page, va) {
		uint64_t host = hosts ? GM_SHIM_H : (page->cur | page->old) & GM_SHIM_H;

		set_old(p->dev, page, 0);
		set_cur(p->dev, page, (page->cur & GM_SHIM_USES) | GM_SHIM_UNSURE | host);
		(void)va;
	}
}
