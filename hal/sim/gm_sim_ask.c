/* SPDX-License-Identifier: MIT */
/*
 * What the simulated host says of the process's memory: mem_probe() to mem_present() of gm_host.h.
 *
 *     asked --yes or no, as of this moment--> answered
 *           --told to fail (gm_sim_fail())--> NOMEM: cannot tell now; nothing is written
 */
#include "config.h"

#include "hal/sim/gm_sim_internal.h"

gm_ret_t gm_sim_cannot_tell(struct gm_sim *sim, enum gm_sim_op op)
{
	if (!gm_sim_trapped(sim, op))
		return GM_RET_SUCCESS;
	return gm_fail(GM_RET_NOMEM, "the simulated host cannot tell now (question %u)", (unsigned)op);
}

static gm_ret_t look(struct gm_sim *sim, uint64_t va, struct gm_host_vma *out)
{
	const struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);

	if (!vma)
		return GM_RET_FAULT;
	*out = (struct gm_host_vma){ .va = vma->va,
				     .bytes = vma->end - vma->va,
				     .access = vma->access,
				     .private_anon = !vma->shared,
				     .locked = vma->locked };
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_mem_probe(void *pmap, uint64_t va, struct gm_host_vma *out)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	gm_ret_t ret = gm_sim_cannot_tell(sim, GM_SIM_MEM_PROBE);

	return ret ? ret : look(sim, va, out);
}

gm_ret_t gm_sim_mem_rights(void *pmap, uint64_t va, struct gm_host_vma *out)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	gm_ret_t ret = gm_sim_cannot_tell(sim, GM_SIM_MEM_RIGHTS);

	return ret ? ret : look(sim, va, out);
}

/* It knows no heaps, stacks and libraries: the simulated process is the application alone. */
gm_ret_t gm_sim_mem_kind(void *pmap, uint64_t va, struct gm_host_vma *out)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	const struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
	uint64_t block = va & ~(GM_BLOCK_BYTES - 1ull), end;

	gm_ret_t ret = gm_sim_cannot_tell(sim, GM_SIM_MEM_KIND);

	if (!ret)
		ret = look(sim, va, out);
	if (ret)
		return ret;
	out->kind = vma->shared				       ? GM_HOST_SHARED
		    : vma->locked			       ? GM_HOST_LOCKED
		    : vma->access != (GM_READ | GM_WRITE)      ? GM_HOST_RIGHTS
		    : vma->end - vma->va < GM_BLOCK_BYTES      ? GM_HOST_SMALL
							       : GM_HOST_ANON;
	end = vma->end < block + GM_BLOCK_BYTES ? vma->end : block + GM_BLOCK_BYTES;
	out->va = vma->va > block ? vma->va : block;
	out->bytes = end - out->va;
	return GM_RET_SUCCESS;
}

bool gm_sim_mem_huge(void *pmap, uint64_t va)
{
	const struct gm_sim_block *block = gm_sim_block_get(((struct gm_sim_pmap *)pmap)->sim, va, false);

	return block && block->huge;
}

/* It has no shared page of zeros: each page is its own. */
gm_ret_t gm_sim_mem_content(void *pmap, uint64_t va, struct gm_host_content *out)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	struct gm_sim_block *block = gm_sim_block_get(sim, va, false);

	if (gm_sim_cannot_tell(sim, GM_SIM_MEM_CONTENT))
		return GM_RET_NOMEM;
	if (block)
		gm_sim_block_look(sim, block);
	*out = (struct gm_host_content){ .huge = block && block->huge };
	for (unsigned i = 0; block && i < GM_BLOCK_PAGES; i++)
		if (block->page[i].frame || block->page[i].poisoned)
			gm_mask_set(&out->some, i);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_mem_present(void *pmap, uint64_t va, struct gm_mask *present)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	uint64_t begin = va - va % GM_BLOCK_BYTES;
	const struct gm_sim_vma *vma = gm_sim_vma_after(sim, begin);
	struct gm_sim_block *block = gm_sim_block_get(sim, va, false);

	if (gm_sim_cannot_tell(sim, GM_SIM_MEM_PRESENT))
		return GM_RET_NOMEM;
	if (!vma || vma->va >= begin + GM_BLOCK_BYTES)
		return GM_RET_FAULT;
	if (block)
		gm_sim_block_look(sim, block);
	*present = gm_mask_none();
	for (unsigned i = 0; block && i < GM_BLOCK_PAGES; i++) {
		if (block->page[i].frame || block->page[i].poisoned) /* the kernel takes the mark for a page swapped out */
			gm_mask_set(present, i);
	}
	return GM_RET_SUCCESS;
}
