/* SPDX-License-Identifier: MIT */
/*
 * Whose memory a space that mirrors the process meets (gm_mirror.c):
 *
 *     the host's answer --it cannot tell now---------------------------> NOMEM
 *                       --nothing, no right----------------------------> FAULT, PERM
 *                       --anything but plain memory of 2 MiB and more--> external
 *                       --small, but cut off from what is adopted------> as the rest of it
 *                       --another space of the instance manages it-----> external; if it is away there, brought home there
 *                       --else-----------------------------------------> may be adopted, as far as that is so around it
 */
#include "config.h"

#include <limits.h>

#include "core/gm_fault.h"
#include "core/gm_lib.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"

/* (A, of another space) Does it manage va? If not, [*begin, *end) around va is cut to where it manages nothing. */
static bool has_region(struct gm_as *as, uint64_t va, uint64_t *begin, uint64_t *end)
{
	struct gm_region buf, *r = gm_regions_first(&as->regions, *begin, *end, &buf);

	for (; r; r = gm_regions_next(&as->regions, r, *end)) {
		if (r->va > va) {
			*end = r->va;
			return false;
		}
		if (r->end > va)
			return true;
		*begin = r->end;
	}
	return false;
}

/* Another space that manages va, which does not go until gm_as_put(); NULL: none does, and as has_region(). */
static struct gm_as *other_space(struct gm_as *as, uint64_t va, uint64_t *begin, uint64_t *end)
{
	struct gm_lib *lib = as->lib;
	struct gm_as *o, *found = NULL;

	gm_lock(as->env, &lib->lock);
	TAILQ_FOREACH(o, &lib->as, in_lib) {
		if (o == as || found)
			continue;
		gm_lock(as->env, &o->lock);
		if (has_region(o, va, begin, end))
			found = o;
		gm_unlock(as->env, &o->lock);
	}
	if (found)
		gm_as_get(found);
	gm_unlock(as->env, &lib->lock);
	return found;
}

/* Small only because the rest of the mapping is adopted, and so another one for the kernel? */
static bool was_larger(struct gm_as *as, const struct gm_host_vma *vma)
{
	uint64_t end = vma->va + vma->bytes;
	struct gm_region buf, *r = NULL;

	gm_lock(as->env, &as->lock);
	if (vma->va % GM_BLOCK_BYTES == 0 && vma->va)
		r = gm_regions_find(&as->regions, vma->va - 1, &buf);
	if (!r && end % GM_BLOCK_BYTES == 0)
		r = gm_regions_find(&as->regions, end, &buf);
	gm_unlock(as->env, &as->lock);
	return r && r->kind == GM_REGION_ADOPTED;
}

gm_ret_t gm_mirror_look(struct gm_as *as, uint64_t va, uint32_t access, struct gm_host_vma *vma)
{
	uint64_t begin, end;
	struct gm_as *other;
	gm_ret_t ret;

	ret = va < as->begin || va >= as->end ? GM_RET_FAULT : gm_hal_mem_kind(as->host, as->hpmap, va, vma);
	if (ret && ret != GM_RET_FAULT)
		return ret;
	if (ret)
		return gm_fail(GM_RET_FAULT, "nothing is mapped at 0x%llx", (unsigned long long)va);
	ret = gm_fault_rights(as, va, access, vma);
	if (vma->kind == GM_HOST_SMALL && was_larger(as, vma))
		vma->kind = GM_HOST_ANON;
	if (ret || vma->kind != GM_HOST_ANON)
		return ret;
	begin = vma->va > as->begin ? vma->va : as->begin;
	end = vma->va + vma->bytes < as->end ? vma->va + vma->bytes : as->end;
	other = other_space(as, va, &begin, &end);
	if (other) {
		gm_as_put(other);
		vma->kind = GM_HOST_LIBRARY;
		begin = va & ~(uint64_t)(GM_PAGE_BYTES - 1);
		end = begin + GM_PAGE_BYTES;
	}
	vma->va = begin;
	vma->bytes = end - begin;
	return ret;
}

gm_ret_t gm_mirror_fetch(struct gm_as *as, uint64_t va, uint64_t deadline_ns)
{
	uint64_t begin = va, end = va + GM_PAGE_BYTES;
	struct gm_as *other = other_space(as, va, &begin, &end);
	gm_ret_t ret = GM_RET_NOENT;
	struct gm_mask one;
	struct gm_block *b;

	if (!other)
		return ret;
	b = gm_block_find(other, va);
	if (b) {
		one = gm_mask_span(gm_page_of(b, va), gm_page_of(b, va) + 1);
		ret = gm_move_home(b, &one, GM_TXN_FORCE, deadline_ns);
	}
	gm_block_put(b);
	gm_as_put(other);
	return ret == GM_RET_FAULT || ret == GM_RET_EXIST || ret == GM_RET_AGAIN ? GM_RET_SUCCESS : ret;
}

void gm_mirror_count_set(struct gm_as *as, bool begins)
{
	if (!gm_as_mirrors(as))
		return;
	atomic_fetch_add(&as->mirror.sets, begins ? 1 : UINT_MAX);
	atomic_fetch_add(&as->lib->mirror_sets, begins ? 1 : UINT_MAX);
}

static struct gm_mask held_elsewhere(struct gm_as *as, uint64_t va)
{
	struct gm_mask held = gm_mask_none();
	struct gm_lib *lib = as->lib;
	struct gm_as *o;

	if (atomic_load(&lib->mirror_sets) == atomic_load(&as->mirror.sets))
		return held;
	gm_lock(as->env, &lib->lock);
	TAILQ_FOREACH(o, &lib->as, in_lib) {
		struct gm_block *b;

		if (o == as || !atomic_load(&o->mirror.sets))
			continue;
		gm_lock(as->env, &o->lock);
		b = gm_block_first(o, va, va + GM_BLOCK_BYTES);
		if (b) {
			gm_lock(as->env, &b->lock);
			held = gm_mask_or(held, gm_mask_and(b->held, b->external));
			gm_unlock(as->env, &b->lock);
		}
		gm_unlock(as->env, &o->lock);
	}
	gm_unlock(as->env, &lib->lock);
	return held;
}

/* Also what was without content until recheck_none(): as in park(), it is the host's. */
void gm_mirror_leave_held(struct gm_move *m)
{
	struct gm_mask held = held_elsewhere(m->block->as, m->block->va);

	held = gm_mask_and(held, m->host);
	if (gm_mask_empty(&held))
		return;
	m->host = gm_mask_sub(m->host, held);
	m->pinned = gm_mask_or(m->pinned, held);
	gm_lock(m->block->as->env, &m->block->lock);
	m->block->host = gm_mask_or(m->block->host, gm_mask_and(held, m->block->managed));
	gm_unlock(m->block->as->env, &m->block->lock);
}
