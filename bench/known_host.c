/* SPDX-License-Identifier: MIT */
/* The host, asked or not: see known_host.h. */
#include "config.h"

#include "bench/known_host.h"

static uint64_t known_va, known_bytes;

static gm_ret_t rights_known(void *pmap, uint64_t va, struct gm_host_vma *vma)
{
	(void)pmap;
	if (va < known_va || va - known_va >= known_bytes)
		return GM_RET_FAULT;
	*vma = (struct gm_host_vma){
		.va = known_va,
		.bytes = known_bytes,
		.access = GM_READ | GM_WRITE,
		.private_anon = true,
	};
	return GM_RET_SUCCESS;
}

static gm_ret_t settled_known(void *pmap)
{
	(void)pmap;
	return GM_RET_SUCCESS;
}

static gm_ret_t zero_known(void *pmap, uint64_t va, uint64_t bytes, uint64_t *done)
{
	(void)pmap, (void)va, (void)bytes, (void)done;
	return GM_RET_FAULT;
}

void known_host_init(struct known_host *k, const void *mem, uint64_t bytes, bool ask)
{
	known_va = GM_VA(mem);
	known_bytes = bytes;
	k->mmu = *gm_host_mmu();
	k->ops = *k->mmu.host;
	k->mmu.host = &k->ops;
	if (ask)
		return;
	k->ops.mem_rights = rights_known;
	k->ops.settled = settled_known;
	k->ops.zero = zero_known;
}
