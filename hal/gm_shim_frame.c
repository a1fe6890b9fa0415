/* SPDX-License-Identifier: MIT */
/*
 * Books of memory, per 2 MiB of address: how many translations lead to each page, and whether it belongs to somebody.
 * There are two sets: device memory, and host memory that is mapped in place.
 *
 *     free --gm_shim_frames(used)--> used --mapped, copied--> used --gm_shim_frames(not used)--> free
 *
 * A device whose caller never says which frames are used has none that are free.
 */
#include "config.h"

#include "hal/gm_shim.h"

static int memory_compare(const struct gm_shim_memory *a, const struct gm_shim_memory *b)
{
	return (a->pa > b->pa) - (a->pa < b->pa);
}

RB_GENERATE_INTERNAL(gm_shim_memories, gm_shim_memory, link, memory_compare, static __attribute__((unused)))

static uint64_t chunk_pa(uint64_t pa)
{
	return pa & ~(uint64_t)(GM_BLOCK_BYTES - 1);
}

struct gm_shim_memory *gm_shim_memory_of(struct gm_shim_memories *all, uint64_t pa)
{
	struct gm_shim_memory key = { .pa = chunk_pa(pa) };

	return RB_FIND(gm_shim_memories, all, &key);
}

struct gm_shim_frame *gm_shim_frame_of(struct gm_shim_memories *all, uint64_t pa)
{
	struct gm_shim_memory *m = gm_shim_memory_of(all, pa);

	return m ? &m->frame[(pa - m->pa) / GM_PAGE_BYTES] : NULL;
}

bool gm_shim_need_memory(struct gm_shim_dev *d, struct gm_shim_memories *all, uint64_t pa, uint64_t bytes)
{
	for (uint64_t at = chunk_pa(pa); at - chunk_pa(pa) < pa - chunk_pa(pa) + bytes; at += GM_BLOCK_BYTES) {
		struct gm_shim_memory *m;
		bool there;

		gm_shim_lock(d);
		there = gm_shim_memory_of(all, at) != NULL;
		gm_shim_unlock(d);
		if (there)
			continue;
		m = d->out->alloc(d->out->self, GM_SHIM_MEMORY_BYTES);
		if (!m)
			return false;
		m->pa = at;
		gm_shim_lock(d);
		there = RB_INSERT(gm_shim_memories, all, m) != NULL;
		gm_shim_unlock(d);
		if (there)
			d->out->free(d->out->self, m, GM_SHIM_MEMORY_BYTES);
	}
	return true;
}

bool gm_shim_registered(struct gm_shim_dev *d, uint64_t pa, uint64_t bytes)
{
	const struct gm_shim_frame *f;

	for (uint32_t i = 0; i < d->caps.slabs && i < GM_MAX_SLABS; i++)
		if (pa >= d->caps.slab[i].begin && pa < d->caps.slab[i].end && bytes <= d->caps.slab[i].end - pa)
			return true;
	/* What was registered later is known by being used. */
	for (uint64_t at = 0; at < bytes; at += GM_PAGE_BYTES) {
		f = gm_shim_frame_of(&d->frames, pa + at);
		if (!f || !f->used)
			return false;
	}
	return true;
}

void gm_shim_forget_memory(struct gm_shim_dev *d, struct gm_shim_memories *all)
{
	struct gm_shim_memory *m;

	while ((m = RB_MIN(gm_shim_memories, all))) {
		RB_REMOVE(gm_shim_memories, all, m);
		d->out->free(d->out->self, m, GM_SHIM_MEMORY_BYTES);
	}
}

static bool says_nothing(const struct gm_shim_memory *m)
{
	unsigned any = 0;

	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		any |= m->frame[i].maps | m->frame[i].old_maps;
	return !any;
}

void gm_shim_sweep_hosts(struct gm_shim_dev *d)
{
	SLIST_HEAD(, gm_shim_memory) dropped = SLIST_HEAD_INITIALIZER(dropped);
	struct gm_shim_memory *m, *next;

	gm_shim_lock(d);
	for (m = d->pins ? NULL : RB_MIN(gm_shim_memories, &d->hosts); m; m = next) {
		next = RB_NEXT(gm_shim_memories, &d->hosts, m);
		if (!says_nothing(m))
			continue;
		RB_REMOVE(gm_shim_memories, &d->hosts, m);
		SLIST_INSERT_HEAD(&dropped, m, dropped);
	}
	gm_shim_unlock(d);
	while ((m = SLIST_FIRST(&dropped))) {
		SLIST_REMOVE_HEAD(&dropped, dropped);
		d->out->free(d->out->self, m, GM_SHIM_MEMORY_BYTES);
	}
}

void gm_shim_found_at(struct gm_shim_found *found, enum gm_rule rule, const struct gm_shim_at *at, uint64_t va,
		      uint64_t pa)
{
	if (found->rule != GM_RULES)
		return;
	found->rule = rule;
	found->at = *at;
	found->at.va = va;
	found->at.pa = pa;
	found->at.bytes = at->bytes - (at->va ? va - at->va : pa - at->pa);
}

/* (S) What stands in the way of giving a page back; NULL: nothing. */
static const char *busy(struct gm_shim_dev *d, const struct gm_shim_frame *f, uint64_t pa)
{
	if (f->maps)
		return "a page table maps it";
	if (f->old_maps)
		return "an old translation to it waits for tlb_invl()";
	return gm_shim_copying(d, pa, GM_PAGE_BYTES, true) ? "a copy is in flight" : NULL;
}

void gm_shim_frames(void *dev, uint64_t pa, uint64_t bytes, bool used)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = used ? "frames taken" : "frames given back", .step = GM_STEP_FREE, .pa = pa,
				 .bytes = bytes };
	uint64_t now_ns = gm_shim_now(d), where = 0;
	const char *why = NULL;

	if (!gm_shim_need_memory(d, &d->frames, pa, bytes)) {
		atomic_store(&d->blind, true);
		return;
	}
	gm_shim_lock(d);
	d->tracked = true;
	gm_shim_note(d, &at, now_ns, false, GM_RET_SUCCESS);
	for (uint64_t off = 0; off < bytes; off += GM_PAGE_BYTES) {
		struct gm_shim_frame *f = gm_shim_frame_of(&d->frames, pa + off);

		f->used = used;
		if (used || why || d->lost || d->given_up || atomic_load(&d->blind))
			continue;
		why = busy(d, f, pa + off);
		where = pa + off;
	}
	gm_shim_unlock(d);
	if (!why)
		return;
	at.pa = where;
	gm_shim_report(d, GM_RULE_FREED_BUSY, &at, "%s", why);
}
