/* SPDX-License-Identifier: MIT */
/*
 * mremap() of the simulated process, in all its ways, in the kernel's order:
 *
 *     shrink            tail cut --> UNMAP of it
 *     grow in place     the mapping is longer, and watched as a whole if it was so; no event
 *     grow, move        new mapping of the new size, pages moved, old one cut --> REMAP (of the old size) --> UNMAP of the old
 *     onto others       the target cut --> tail cut, if it shrinks --> as above --> UNMAP of the target, REMAP, UNMAPs
 *     DONTUNMAP         pages moved, the old mapping stays, empty, and watched --> REMAP
 *
 * All that changes does so at one moment, before the first event: whoever takes or gives pages of a pmap that is about to
 * be told gets AGAIN from there on. The events come one by one, each until it was read.
 */
#include "config.h"

#include "hal/sim/gm_sim_internal.h"

/* What one call asks for. */
struct remap {
	uint64_t va, bytes, new_bytes, to;
	uint32_t flags;
};

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

static bool is_sound(const struct remap *r)
{
	if (gm_sim_bad_range(r->va, r->bytes) || gm_sim_bad_range(r->va, r->new_bytes))
		return false;
	if ((r->flags & (GM_SIM_FIXED | GM_SIM_DONTUNMAP)) && !(r->flags & GM_SIM_MAYMOVE))
		return false;
	if ((r->flags & GM_SIM_DONTUNMAP) && r->bytes != r->new_bytes)
		return false;
	return !(r->flags & GM_SIM_FIXED) ||
	       (r->to && !gm_sim_bad_range(r->to, r->new_bytes) && !overlap(r->va, r->bytes, r->to, r->new_bytes));
}

/* Behind its own end, if nothing is mapped there. */
static bool grow_in_place(struct gm_sim *sim, struct gm_sim_vma *vma, const struct remap *r)
{
	const struct gm_sim_vma *next = gm_sim_vma_next(sim, vma);
	struct gm_sim_vma more = *vma;

	if (vma->end != r->va + r->bytes || (next && next->va < r->va + r->new_bytes))
		return false;
	more.va = vma->end;
	more.end = r->va + r->new_bytes;
	gm_sim_vma_add(sim, &more);
	gm_sim_vma_merge(sim, r->va, more.end);
	return true;
}

/* The mapping to `r->to`, where nothing is. */
static void move(struct gm_sim *sim, const struct gm_sim_vma *old, const struct remap *r)
{
	struct gm_sim_vma vma = *old;

	vma.va = r->to;
	vma.end = r->to + r->new_bytes;
	gm_sim_vma_add(sim, &vma);
	gm_sim_pages_move(sim, r->va, r->to, r->bytes);
	if (!(r->flags & GM_SIM_DONTUNMAP))
		gm_sim_vma_cut(sim, r->va, r->va + r->bytes);
	gm_sim_vma_merge(sim, r->to, vma.end);
}

/* `r` is sound, and moves. */
static gm_ret_t remap_away(struct gm_sim *sim, struct remap *r)
{
	struct gm_sim_watchers target = { .n = 0 }, tail = { .n = 0 }, whole = { .n = 0 };
	uint64_t asked = r->bytes;
	const struct gm_sim_vma *old;
	struct gm_sim_pmap *pmap;

	if (r->flags & GM_SIM_FIXED) {
		target = gm_sim_unmap_prepare(sim, r->to, r->to + r->new_bytes);
		gm_sim_vma_cut(sim, r->to, r->to + r->new_bytes);
	}
	if (r->bytes > r->new_bytes) {
		tail = gm_sim_unmap_prepare(sim, r->va + r->new_bytes, r->va + r->bytes);
		gm_sim_vma_cut(sim, r->va + r->new_bytes, r->va + r->bytes);
		r->bytes = r->new_bytes;
	}
	old = gm_sim_vma_find(sim, r->va);
	pmap = old->pmap;
	if (pmap)
		gm_sim_event_prepare(pmap);
	if (!(r->flags & GM_SIM_DONTUNMAP))
		whole = gm_sim_unmap_prepare(sim, r->va, r->va + r->bytes);
	move(sim, old, r);
	gm_sim_unmap_post(&target, r->to, r->new_bytes);
	if (pmap)
		gm_sim_event_post(pmap, (struct gm_host_msg){ .kind = GM_HOST_REMAP, .va = r->va, .bytes = r->bytes, .to = r->to });
	gm_sim_unmap_post(&tail, r->va + r->new_bytes, asked - r->bytes);
	gm_sim_unmap_post(&whole, r->va, r->bytes);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_mremap_to(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint64_t new_bytes, uint32_t flags, uint64_t *to)
{
	struct remap r = { .va = va, .bytes = bytes, .new_bytes = new_bytes, .to = *to, .flags = flags };
	struct gm_sim_vma *vma;

	if (!is_sound(&r))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	vma = gm_sim_vma_find(sim, va);
	if (!vma || vma->end < va + bytes)
		return GM_RET_FAULT;
	if (!(flags & (GM_SIM_FIXED | GM_SIM_DONTUNMAP))) {
		*to = va;
		if (new_bytes < bytes)
			return gm_sim_unmap(sim, va + new_bytes, bytes - new_bytes);
		if (new_bytes == bytes || grow_in_place(sim, vma, &r))
			return GM_RET_SUCCESS;
		if (!(flags & GM_SIM_MAYMOVE))
			return GM_RET_NOMEM;
	}
	if (!(flags & GM_SIM_FIXED))
		r.to = gm_sim_va_pick(sim, new_bytes, GM_PAGE_BYTES);
	*to = r.to;
	return r.to ? remap_away(sim, &r) : GM_RET_NOMEM;
}

uint64_t gm_sim_mremap(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	struct remap r = { .va = va, .bytes = bytes, .new_bytes = bytes, .flags = GM_SIM_MAYMOVE };
	const struct gm_sim_vma *vma;

	if (!is_sound(&r))
		return 0;
	gm_sim_point(sim);
	vma = gm_sim_vma_find(sim, va);
	if (!vma || vma->end < va + bytes)
		return 0;
	r.to = gm_sim_va_pick(sim, bytes, GM_PAGE_BYTES);
	return r.to && !remap_away(sim, &r) ? r.to : 0;
}
