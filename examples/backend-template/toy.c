/* SPDX-License-Identifier: MIT */
/*
 * A backend to begin with: a device of 16 MiB with pages of 4 KiB, a page table of four levels like that of most
 * devices, copies that are done when copy() returns, and no faults. Everything is in memory of this process; in a
 * driver of your own, replace what the functions do, not what they promise (gmem/hal.h says what that is).
 *
 *     toy_init --> toy_pmap_create --> enter, remove, invl, access --> toy_pmap_destroy --> toy_fini
 *
 * One lock covers the walk and the access itself, so that when toy_tlb_invl() has had it no access is in flight.
 * There is no TLB: a device that has one drops its entries there.
 */
#include <stdio.h>
#include <string.h>

#include <gmem/plugin.h>

#define PAGE_BITS 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_BITS)
#define LEVEL_BITS 9
#define ENTRIES (1u << LEVEL_BITS)
#define TABLE_BYTES (ENTRIES * sizeof(uint64_t))
#define VA_BITS 48
#define TOP_SHIFT (VA_BITS - LEVEL_BITS)
#define MEMORY_BYTES (UINT64_C(16) << 20)
#define MEMORY_PA UINT64_C(0x100000000) /* not 0, so that a forgotten address is no valid one */
#define MAX_PMAPS 16

/* An entry of the last level is pa | bits; one of an upper level is the address of the next table. */
#define ENTRY_VALID UINT64_C(1)
#define ENTRY_WRITE UINT64_C(2)
#define ENTRY_PA (~(PAGE_BYTES - 1))

struct toy {
	const struct gm_services *svc;
	char *memory;
	struct gm_mutex lock; /* of everything below, and of all page tables */
	unsigned pmaps;
};

struct toy_pmap {
	struct toy *toy;
	uint64_t *root; /* a table of ENTRIES */
};

static void *get(struct toy *toy, size_t bytes)
{
	return toy->svc->alloc(toy->svc->self, bytes);
}

static void put(struct toy *toy, void *ptr, size_t bytes)
{
	toy->svc->free(toy->svc->self, ptr, bytes);
}

static void lock(struct toy *toy)
{
	toy->svc->lock(toy->svc->self, &toy->lock);
}

static void unlock(struct toy *toy)
{
	toy->svc->unlock(toy->svc->self, &toy->lock);
}

/* --- the device --------------------------------------------------------------- */

static gm_ret_t toy_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct toy *toy = svc->alloc(svc->self, sizeof(*toy));

	(void)dev_data; /* where yours would find its device */
	if (!toy)
		return GM_RET_NOMEM;
	toy->svc = svc;
	toy->memory = get(toy, MEMORY_BYTES);
	if (!toy->memory) {
		put(toy, toy, sizeof(*toy));
		return GM_RET_NOMEM;
	}
	svc->mutex_init(svc->self, &toy->lock);
	(void)snprintf(caps->name, sizeof(caps->name), "toy device, 16 MiB");
	caps->caps = GM_CAP_ACCESS | GM_CAP_CPU_VISIBLE;
	caps->va_bits = VA_BITS;
	caps->page_sizes = PAGE_BYTES; /* bit n is set for pages of 2^n bytes */
	caps->max_contexts = MAX_PMAPS;
	caps->slabs = 1;
	caps->slab[0] = (struct gm_slab){ .begin = MEMORY_PA, .end = MEMORY_PA + MEMORY_BYTES };
	*dev = toy;
	return GM_RET_SUCCESS;
}

static void toy_fini(void *dev)
{
	struct toy *toy = dev;

	toy->svc->mutex_fini(toy->svc->self, &toy->lock);
	put(toy, toy->memory, MEMORY_BYTES);
	put(toy, toy, sizeof(*toy));
}

static char *at_pa(struct toy *toy, uint64_t pa)
{
	return toy->memory + (pa - MEMORY_PA);
}

static void *toy_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	(void)bytes; /* the CPU sees all of it */
	return at_pa(dev, pa);
}

/* --- page tables ----------------------------------------------------------------- */

static gm_ret_t toy_pmap_create(void *dev, void **pmap)
{
	struct toy *toy = dev;
	struct toy_pmap *p = get(toy, sizeof(*p));
	uint64_t *root = get(toy, TABLE_BYTES);
	gm_ret_t ret = p && root ? GM_RET_SUCCESS : GM_RET_NOMEM;

	lock(toy);
	if (ret == GM_RET_SUCCESS && toy->pmaps == MAX_PMAPS)
		ret = GM_RET_NOSPC;
	if (ret == GM_RET_SUCCESS)
		toy->pmaps++;
	unlock(toy);
	if (ret != GM_RET_SUCCESS) {
		put(toy, p, sizeof(*p)); /* NULL is allowed */
		put(toy, root, TABLE_BYTES);
		return ret;
	}
	*p = (struct toy_pmap){ .toy = toy, .root = root };
	*pmap = p;
	return GM_RET_SUCCESS;
}

static void free_table(struct toy *toy, uint64_t *table, unsigned shift)
{
	for (unsigned i = 0; shift > PAGE_BITS && i < ENTRIES; i++) {
		if (table[i])
			free_table(toy, (uint64_t *)(uintptr_t)table[i], shift - LEVEL_BITS);
	}
	put(toy, table, TABLE_BYTES);
}

static void toy_pmap_destroy(void *pmap)
{
	struct toy_pmap *p = pmap;
	struct toy *toy = p->toy;

	free_table(toy, p->root, TOP_SHIFT);
	lock(toy);
	toy->pmaps--;
	unlock(toy);
	put(toy, p, sizeof(*p));
}

/* The entry of the last level for va; NULL: its table is not there, or with `make`, no memory for it. */
static uint64_t *find_entry(struct toy_pmap *p, uint64_t va, bool make)
{
	uint64_t *table = p->root;

	for (unsigned shift = TOP_SHIFT; shift > PAGE_BITS; shift -= LEVEL_BITS) {
		uint64_t *entry = &table[va >> shift & (ENTRIES - 1)];

		if (!*entry && make)
			*entry = (uintptr_t)get(p->toy, TABLE_BYTES);
		if (!*entry)
			return NULL;
		table = (uint64_t *)(uintptr_t)*entry;
	}
	return &table[va >> PAGE_BITS & (ENTRIES - 1)];
}

static gm_ret_t toy_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct toy_pmap *p = pmap;
	uint64_t bits = ENTRY_VALID | (pte & GM_PTE_WRITE ? ENTRY_WRITE : 0);
	gm_ret_t ret = GM_RET_SUCCESS;

	lock(p->toy);
	/* First everything that can fail: after a failure nothing may be mapped. Empty tables do no harm. */
	for (uint64_t at = 0; at < bytes && ret == GM_RET_SUCCESS; at += PAGE_BYTES) {
		if (!find_entry(p, va + at, true))
			ret = GM_RET_NOMEM;
	}
	for (uint64_t at = 0; at < bytes && ret == GM_RET_SUCCESS; at += PAGE_BYTES)
		*find_entry(p, va + at, false) |= (pa + at) | bits; /* the same frame with more rights, perhaps */
	unlock(p->toy);
	return ret;
}

static gm_ret_t toy_pmap_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	struct toy_pmap *p = pmap;

	lock(p->toy);
	for (uint64_t at = 0; at < bytes; at += PAGE_BYTES) {
		uint64_t *entry = find_entry(p, va + at, false);

		if (entry)
			*entry = 0;
	}
	unlock(p->toy);
	return GM_RET_SUCCESS;
}

static gm_ret_t toy_tlb_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	struct toy_pmap *p = pmap;

	(void)va;
	(void)bytes;
	/* an access holds the lock from the walk to its last byte */
	lock(p->toy);
	unlock(p->toy);
	return GM_RET_SUCCESS;
}

/* --- what moves bytes -------------------------------------------------------------- */

static void move(char *device, void *host, size_t bytes, bool to_device)
{
	if (to_device)
		memcpy(device, host, bytes);
	else
		memcpy(host, device, bytes);
}

static gm_ret_t toy_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	struct toy *toy = dev;

	for (const struct gm_copy *c = copies; c < copies + n; c++) {
		if (c->kind == GM_COPY_ZERO)
			memset(at_pa(toy, c->pa), 0, c->bytes);
		else
			move(at_pa(toy, c->pa), (void *)(uintptr_t)c->host, c->bytes, c->kind == GM_COPY_TO_DEV);
	}
	toy->svc->fence_signal(toy->svc->self, done, GM_RET_SUCCESS);
	return GM_RET_SUCCESS;
}

static gm_ret_t toy_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct toy_pmap *p = pmap;
	gm_ret_t ret = GM_RET_SUCCESS;

	lock(p->toy);
	for (size_t n; bytes > 0 && ret == GM_RET_SUCCESS; va += n, buf = (char *)buf + n, bytes -= n) {
		uint64_t *entry = find_entry(p, va, false);

		n = PAGE_BYTES - va % PAGE_BYTES;
		n = n < bytes ? n : bytes;
		if (!entry || !*entry)
			ret = GM_RET_FAULT;
		else if (write && !(*entry & ENTRY_WRITE))
			ret = GM_RET_PERM;
		else
			move(at_pa(p->toy, (*entry & ENTRY_PA) + va % PAGE_BYTES), buf, n, write);
	}
	unlock(p->toy);
	return ret;
}

/* --- what the library, gmem check and main.c see ------------------------------------ */

static const struct gm_mmu toy_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "toy",
	.dev_init = toy_init,
	.dev_fini = toy_fini,
	.pmap_create = toy_pmap_create,
	.pmap_destroy = toy_pmap_destroy,
	.pmap_enter = toy_pmap_enter,
	.pmap_remove = toy_pmap_remove,
	.tlb_invl = toy_tlb_invl,
	.copy = toy_copy,
	.access = toy_access,
	.cpu_ptr = toy_cpu_ptr,
};

#define SKIP(test_, reason_) { .test = (test_), .reason = (reason_) }

static const struct gm_plugin_skip toy_skips[] = {
	SKIP("protect", "rights change by removing and entering anew"),
	SKIP("invalidate/rights", "rights change by removing and entering anew"),
	SKIP("invalidate/jobs", "there is no job but access()"),
	SKIP("fence/refused", "copies of this device cannot be made to fail"),
	SKIP("plan", "no queue in hardware: the library walks plans step by step"),
	SKIP("fault", "this device has no page faults"),
	SKIP("dirty", "the page table has no accessed and dirty bits"),
	SKIP("sync", "completion is immediate, nobody waits for it"),
	SKIP("peer", "there is one device"),
	SKIP("host", "it maps its own memory only"),
	SKIP("nth", "an operation that this device does not have cannot fail"),
	SKIP("lost", "memory of this process is never unplugged"),
	{ .test = NULL },
};

const struct gm_plugin gm_plugin = {
	.abi = GM_PLUGIN_ABI,
	.size = sizeof(struct gm_plugin),
	.name = "toy",
	.mmu = &toy_mmu,
	.skips = toy_skips,
};
