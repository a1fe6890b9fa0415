/* SPDX-License-Identifier: MIT */
/*
 * The short way of CPU faults. Most faults want a few neighbouring pages of one device that nobody maps and
 * with nothing in the way. They lie in one word of every mask. This is the
 * transaction of gm_txn_to_host.c for them, with its questions asked of that
 * word; commit and end are the common ones. Whatever is not as simple, or does
 * not come back, is left to the general way.
 */
#include "config.h"

#include <string.h>

#include "core/gm_fault.h"

struct few {
	struct gm_dev *dev;
	unsigned first, end; /* the run of pages, all busy now */
	bool kept;           /* their frames are parked; else there are none */
	uint64_t dirty;      /* of those, older than the device's: bit i is page first + i */
	uint64_t pa;         /* where the device has them: one after the other */
};

static uint64_t bits_of(unsigned pages)
{
	return pages < 64 ? (UINT64_C(1) << pages) - 1 : UINT64_MAX;
}

/* (block) Nobody has, holds, drops or maps any of these pages (bits of a word), nor was a device just served. */
static bool nothing_in_the_way(const struct gm_block *b, unsigned word, uint64_t pages, uint64_t now_ns)
{
	uint64_t slice_ns = b->as->cfg.slice_ns, epoch = now_ns / slice_ns;
	const struct gm_slice *s = &b->slice_dev;

	if ((b->busy.w[word] | b->doomed.w[word] | b->poisoned.w[word] | b->held.w[word] | b->leaving.w[word]) & pages)
		return false;
	for (unsigned i = 0; i < 2; i++)
		if ((s->epoch[i] == epoch || s->epoch[i] + 1 == epoch) && (s->page[i].w[word] & pages))
			return false;
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && (b->map[i]->read.w[word] & pages))
			return false;
	return true;
}

/* (block) The device that has pages of them, if it is one. */
static struct gm_bnode *only_node(const struct gm_block *b, unsigned word, uint64_t pages, struct gm_dev **dev)
{
	struct gm_bnode *n = NULL;

	for (unsigned i = 0; i < GM_MAX_DEVS; i++) {
		if (!b->node[i] || !(b->node[i]->resident.w[word] & pages))
			continue;
		if (n)
			return NULL;
		n = b->node[i];
		*dev = b->as->lib->devs[i];
	}
	return n;
}

/* (block) Make them busy, if they are such. */
static bool begin_few(struct gm_block *b, unsigned page, uint32_t bytes, uint64_t now_ns, struct few *f)
{
	unsigned pages = bytes / GM_PAGE_BYTES, word = page / 64, low;
	uint64_t unit, kept, here, run;
	const struct gm_chunk *c;
	struct gm_bnode *n;

	if (pages > 64 || b->huge || atomic_load_explicit(&b->as->granule_pages, memory_order_relaxed) > pages)
		return false;
	unit = bits_of(pages) << (page % 64 & ~(pages - 1));
	n = nothing_in_the_way(b, word, unit, now_ns) ? only_node(b, word, unit, &f->dev) : NULL;
	here = n ? n->resident.w[word] & unit : 0;
	kept = b->staged.w[word] & unit;
	if (!(here >> (page % 64) & 1) || (kept && kept != here))
		return false;
	low = (unsigned)__builtin_ctzll(here);
	run = here >> low;
	f->first = word * 64 + low;
	f->end = f->first + (unsigned)__builtin_popcountll(here);
	c = n->unit[f->first / GM_UNIT_PAGES];
	if ((run & (run + 1)) || n->unit[(f->end - 1) / GM_UNIT_PAGES] != c)
		return false;
	f->kept = kept;
	f->dirty = GM_PLANTED(b->as, GM_PLANT_DROP_DIRTY) ? 0 : (n->dirty.w[word] & kept) >> low;
	f->pa = c->pa + (uint64_t)(f->first - c->first) * GM_PAGE_BYTES;
	b->busy.w[word] |= here;
	return true;
}

/* How many of them are back, from the first on. */
static unsigned give_few(struct gm_block *b, const struct few *f, uint64_t *now_ns)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va + (uint64_t)f->first * GM_PAGE_BYTES, slot = b->slot + (uint64_t)f->first * GM_PAGE_BYTES;
	uint64_t bytes = (uint64_t)(f->end - f->first) * GM_PAGE_BYTES, done = 0;
	const char *src = NULL;

	if (f->dirty || !f->kept) {
		if (gm_hal_has(f->dev->hal, GM_CAP_CPU_VISIBLE) && !atomic_load(&f->dev->hal->lost))
			src = gm_hal_cpu_ptr(f->dev->hal, f->pa, bytes);
		if (!src)
			return 0;
		gm_stat_add(as, GM_STAT_bytes_to_host,
			    f->kept ? (uint64_t)__builtin_popcountll(f->dirty) * GM_PAGE_BYTES : bytes);
	}
	for (uint64_t left = f->dirty; left; left &= left - 1) {
		uint64_t at = (uint64_t)__builtin_ctzll(left) * GM_PAGE_BYTES;

		memcpy((char *)(uintptr_t)slot + at, src + at, GM_PAGE_BYTES);
	}
	if (f->dirty)
		gm_stat_lap(as, GM_STAT_ns_copy, now_ns);
	if (f->dirty && atomic_load(&f->dev->hal->lost)) /* meanwhile: nobody knows what was read */
		return 0;
	if (f->kept)
		(void)gm_hal_restore(as->host, as->hpmap, va, slot, bytes, &done);
	else
		(void)gm_hal_fill(as->host, as->hpmap, va, src, bytes, &done);
	gm_stat_lap(as, GM_STAT_ns_restore, now_ns);
	return (unsigned)(done / GM_PAGE_BYTES);
}

static void count_few(struct gm_as *as, const struct few *f, unsigned pages)
{
	if (!pages)
		return;
	gm_stat_add(as, GM_STAT_migrations_to_host, 1);
	gm_stat_add(as, GM_STAT_pages_to_host, pages);
	if (f->kept)
		gm_stat_add(as, GM_STAT_pages_clean, (uint64_t)__builtin_popcountll(bits_of(pages) & ~f->dirty));
}

bool gm_fault_few(struct gm_block *b, unsigned page, uint32_t bytes, uint64_t now_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask busy = gm_mask_none(), back = gm_mask_none();
	struct few f = { .dev = NULL };
	unsigned pages;
	bool ok;

	gm_lock(as->env, &b->lock);
	ok = begin_few(b, page, bytes, now_ns, &f);
	gm_unlock(as->env, &b->lock);
	if (!ok)
		return false;
	pages = give_few(b, &f, &now_ns);
	busy.w[f.first / 64] = bits_of(f.end - f.first) << (f.first % 64);
	back.w[f.first / 64] = bits_of(pages) << (f.first % 64);
	gm_txn_end_home(b, &busy, &back, page, now_ns);
	count_few(as, &f, pages);
	return page < f.first + pages;
}
