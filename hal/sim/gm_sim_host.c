/* SPDX-License-Identifier: MIT */
/*
 * The simulated process as a host: the ops of gm_host.h over gm_sim_mem.
 *
 * Stricter than Linux on purpose. A bug of the library that the kernel would
 * let pass, and pay back later in lost bytes or a hanging thread, aborts here:
 * stealing what is not watched, into a slot page that is in use; restoring
 * from, or filling out of, a slot page that has no frame; unmapping what is
 * watched; leaving slots behind. Nothing here is a point of the scheduler
 * except msg_wait() and bus_bring(); each other call is atomic.
 *
 * One race is no bug: the application unmaps a watched range and maps another
 * one at the address after the event was read and before the library has acted
 * on it. Linux would then steal from the new mapping; the contract is FAULT.
 */
#include "config.h"

#include <string.h>

#include "hal/sim/gm_sim_internal.h"

void gm_sim_stats(struct gm_sim *sim, struct gm_sim_stats *stats)
{
	struct gm_sim_vma *vma;

	*stats = sim->stats;
	stats->watched_pages = 0;
	for (vma = gm_sim_vma_after(sim, 0); vma; vma = gm_sim_vma_next(sim, vma)) {
		if (vma->pmap)
			stats->watched_pages += (vma->end - vma->va) / GM_PAGE_BYTES;
	}
}

/* --------------------------------------------------------- the device side */

static gm_ret_t host_dev_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	(void)svc;
	memset(caps, 0, sizeof(*caps));
	memcpy(caps->name, "simulated host", sizeof("simulated host"));
	caps->caps = GM_CAP_HOST | GM_CAP_ACCESS;
	caps->va_bits = 47;
	caps->page_sizes = GM_PAGE_BYTES | GM_BLOCK_BYTES;
	caps->max_contexts = UINT32_MAX;
	*dev = dev_data;
	return GM_RET_SUCCESS;
}

static void host_dev_fini(void *dev)
{
	struct gm_sim *sim = dev;

	if (!LIST_EMPTY(&sim->pmaps))
		gm_sim_panic(sim, "the host is closed while an address space uses it");
}

static gm_ret_t host_pmap_create(void *dev, void **pmap)
{
	struct gm_sim *sim = dev;
	struct gm_sim_pmap *p = sim->env.mem.alloc(sim->env.mem.arg, sizeof(*p));

	if (!p)
		return GM_RET_NOMEM;
	p->sim = sim;
	p->refs = 1;
	TAILQ_INIT(&p->faults);
	TAILQ_INIT(&p->events);
	TAILQ_INIT(&p->readers);
	LIST_INSERT_HEAD(&sim->pmaps, p, link);
	*pmap = p;
	return GM_RET_SUCCESS;
}

/* What is not watched is not protected. */
static void clear_protected(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	for (; va < end; va += GM_PAGE_BYTES) {
		struct gm_sim_page *page = gm_sim_page_get(sim, va, false);

		if (page)
			page->protected = false;
	}
}

/* As closing a userfaultfd: what is still watched is so no more, and its absent pages become zeros. */
static void host_pmap_destroy(void *pmap)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim *sim = p->sim;
	struct gm_sim_vma *vma;

	for (vma = gm_sim_vma_after(sim, 0); vma; vma = gm_sim_vma_next(sim, vma)) {
		if (vma->pmap != p)
			continue;
		if (vma->stores)
			clear_protected(sim, vma->va, vma->end);
		vma->pmap = NULL;
		vma->stores = false;
	}
	gm_sim_vma_merge(sim, 0, UINT64_MAX);
	for (unsigned i = 0; i < GM_SIM_BOUNCES; i++) {
		if (p->bounce[i])
			gm_sim_slot_free(p->bounce[i]);
	}
	if (p->slots)
		gm_sim_panic(sim, "pmap destroyed while %u slots are allocated", p->slots);
	p->dead = true;
	gm_sim_msg_release(p);
	LIST_REMOVE(p, link);
	LIST_INSERT_HEAD(&sim->dead_pmaps, p, link);
	gm_sim_pmap_put(p);
}

/* As the bus does it: what is present and allowed, else FAULT; nobody is asked and nothing waits. */
static gm_ret_t access_pages(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes, bool write)
{
	uint8_t *at = buf;

	while (bytes > 0) {
		uint64_t offset = va % GM_PAGE_BYTES;
		size_t n = bytes < GM_PAGE_BYTES - offset ? bytes : (size_t)(GM_PAGE_BYTES - offset);
		struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		struct gm_sim_page *page;

		if (!vma || !gm_sim_vma_allows(vma, write))
			return GM_RET_FAULT;
		page = gm_sim_page_get(sim, va, true);
		gm_sim_page_look(sim, page);
		if (!page->frame && (vma->pmap || page->poisoned))
			return GM_RET_FAULT;
		if (!page->frame) /* first touch of memory that nobody watches */
			gm_sim_pages_populate(sim, vma, va);
		if (write && page->protected)
			return GM_RET_FAULT;
		if (write)
			gm_sim_page_own(sim, page);
		if (write)
			memcpy(page->frame + offset, at, n); // NOLINT(clang-analyzer-core.NonNullParamChecker)
		else
			memcpy(at, page->frame + offset, n); // NOLINT(clang-analyzer-core.NonNullParamChecker)
		va += n;
		at += n;
		bytes -= n;
	}
	return GM_RET_SUCCESS;
}

static gm_ret_t host_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	return access_pages(((struct gm_sim_pmap *)pmap)->sim, va, buf, bytes, write);
}

static gm_ret_t host_bus_access(void *dev, uint64_t va, void *buf, size_t bytes, bool write)
{
	gm_ret_t ret = gm_sim_cannot_tell(dev, GM_SIM_BUS_ACCESS);

	return ret ? ret : access_pages(dev, va, buf, bytes, write);
}

/* Reads and writes the byte back: nothing here is a point of the scheduler. */
static gm_ret_t host_bus_touch(void *dev, uint64_t va)
{
	uint8_t byte;
	gm_ret_t ret = gm_sim_cannot_tell(dev, GM_SIM_BUS_ACCESS);

	if (!ret)
		ret = access_pages(dev, va, &byte, 1, false);
	return ret ? ret : access_pages(dev, va, &byte, 1, true);
}

/* As the process's own access: who watches the page gives it. The other point of the scheduler. */
static gm_ret_t host_bus_bring(void *dev, uint64_t va, bool write, uint64_t deadline_ns)
{
	uint8_t *byte;
	gm_ret_t ret = gm_sim_touch_by(dev, va, write, deadline_ns, &byte);

	return ret == GM_RET_IO ? GM_RET_FAULT : ret;
}

/* ------------------------------------------------------------ its mappings */

static gm_ret_t host_mem_map(void *pmap, uint64_t bytes, bool huge, uint64_t *va)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	struct gm_sim_vma vma = { .access = GM_READ | GM_WRITE, .owned = true, .not_inherited = true, .huge = huge };

	if (gm_sim_trapped(sim, GM_SIM_MEM_MAP))
		return GM_RET_NOMEM;
	vma.va = gm_sim_va_pick(sim, bytes, bytes >= GM_UNIT_BYTES ? GM_UNIT_BYTES : GM_PAGE_BYTES);
	if (!vma.va)
		return GM_RET_NOMEM;
	vma.end = vma.va + bytes;
	gm_sim_vma_add(sim, &vma);
	*va = vma.va;
	return GM_RET_SUCCESS;
}

static void host_mem_unmap(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	const struct gm_sim_vma *vma;

	for (uint64_t at = va; at < va + bytes; at = vma->end) {
		vma = gm_sim_vma_after(sim, at);
		if (!vma)
			break;
		if (vma->va < va + bytes && vma->pmap)
			gm_sim_panic(sim, "mem_unmap of [0x%llx, 0x%llx): still watched at 0x%llx",
				     (unsigned long long)va, (unsigned long long)(va + bytes),
				     (unsigned long long)vma->va);
	}
	gm_sim_vma_cut(sim, va, va + bytes);
}

static void host_mem_inherit(void *pmap, uint64_t va, uint64_t bytes, bool inherit)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;

	/* as madvise() does: what is mapped of the range, even if that is not all of it */
	gm_sim_vma_isolate(sim, va, va + bytes);
	for (struct gm_sim_vma *vma = gm_sim_vma_after(sim, va); vma && vma->va < va + bytes;
	     vma = gm_sim_vma_next(sim, vma))
		vma->not_inherited = !inherit;
	gm_sim_vma_merge(sim, va, va + bytes);
}

static gm_ret_t host_mem_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_sim *sim = ((struct gm_sim_pmap *)pmap)->sim;
	gm_ret_t ret = gm_sim_cannot_tell(sim, GM_SIM_MEM_PROTECT);

	return ret ? ret : gm_sim_mprotect(sim, va, bytes, access);
}

/* ---------------------------------------------------------------- watching */

/* What the library asked for, whatever the application does to the mappings. */
static void set_wanted(struct gm_sim *sim, uint64_t va, uint64_t end, bool wanted)
{
	for (; va < end; va += GM_PAGE_BYTES) {
		struct gm_sim_block *block = gm_sim_block_get(sim, va, true);

		if (wanted)
			gm_mask_set(&block->wanted, (unsigned)(va % GM_BLOCK_BYTES / GM_PAGE_BYTES));
		else
			gm_mask_clear(&block->wanted, (unsigned)(va % GM_BLOCK_BYTES / GM_PAGE_BYTES));
	}
}

static void set_watcher(struct gm_sim *sim, uint64_t va, uint64_t end, struct gm_sim_pmap *pmap)
{
	struct gm_sim_vma *vma;

	gm_sim_vma_isolate(sim, va, end);
	for (vma = gm_sim_vma_after(sim, va); vma && vma->va < end; vma = gm_sim_vma_next(sim, vma)) {
		if (vma->stores && !pmap)
			clear_protected(sim, vma->va, vma->end);
		vma->pmap = pmap;
		vma->stores = vma->stores && pmap;
	}
	gm_sim_vma_merge(sim, va, end);
	set_wanted(sim, va, end, pmap != NULL);
}

static gm_ret_t host_watch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim *sim = p->sim;
	const struct gm_sim_vma *vma;

	if (gm_sim_trapped(sim, GM_SIM_WATCH))
		return GM_RET_NOMEM;
	if (!gm_sim_vma_covers(sim, va, va + bytes))
		return GM_RET_FAULT;
	for (uint64_t at = va; at < va + bytes; at = vma->end) {
		vma = gm_sim_vma_find(sim, at);
		if (vma->shared)
			return GM_RET_NOTSUP;
		if (vma->pmap && vma->pmap != p)
			return GM_RET_BUSY;
	}
	set_watcher(sim, va, va + bytes, p);
	return GM_RET_SUCCESS;
}

static gm_ret_t host_watch_stores(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim *sim = p->sim;
	gm_ret_t ret = gm_sim_trapped(sim, GM_SIM_WATCH_STORES) ? GM_RET_NOMEM : host_watch(pmap, va, bytes);

	if (ret)
		return ret;
	gm_sim_vma_isolate(sim, va, va + bytes);
	for (struct gm_sim_vma *vma = gm_sim_vma_after(sim, va); vma && vma->va < va + bytes; vma = gm_sim_vma_next(sim, vma))
		vma->stores = true;
	gm_sim_vma_merge(sim, va, va + bytes);
	return GM_RET_SUCCESS;
}

static gm_ret_t host_unwatch(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim *sim = p->sim;
	const struct gm_sim_vma *vma;

	if (!gm_sim_vma_covers(sim, va, va + bytes))
		return GM_RET_FAULT;
	for (uint64_t at = va; at < va + bytes; at = vma->end) {
		vma = gm_sim_vma_find(sim, at);
		if (vma->pmap && vma->pmap != p)
			return GM_RET_BUSY;
	}
	set_watcher(sim, va, va + bytes, NULL);
	gm_sim_fault_wake(p, va, va + bytes); /* as Linux does: nobody else would */
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------------- slots */

static gm_ret_t host_slot_alloc(void *pmap, uint64_t *slot)
{
	struct gm_sim_pmap *p = pmap;

	if (gm_sim_trapped(p->sim, GM_SIM_SLOT_ALLOC))
		return GM_RET_NOMEM;
	*slot = GM_VA(gm_sim_slot_alloc(p, GM_BLOCK_BYTES, false)->base);
	p->slots++;
	return GM_RET_SUCCESS;
}

/* The pmap's slot, or buffer, that contains the range; everything else is a bug of the caller. */
static struct gm_sim_slot *must_find(struct gm_sim_pmap *p, uint64_t addr, uint64_t bytes, const char *op)
{
	struct gm_sim_slot *slot = gm_sim_slot_find(p->sim, addr, bytes);

	if (!slot || slot->pmap != p)
		gm_sim_panic(p->sim, "%s: no slot or bounce buffer of this address space there", op);
	return slot;
}

static void host_slot_free(void *pmap, uint64_t addr)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim_slot *slot = must_find(p, addr, GM_BLOCK_BYTES, "slot_free");

	if (slot->bounce || GM_VA(slot->base) != addr)
		gm_sim_panic(p->sim, "slot_free: not what slot_alloc returned");
	p->slots--;
	gm_sim_slot_free(slot);
}

static void host_slot_drop(void *pmap, uint64_t addr, uint64_t bytes)
{
	struct gm_sim_slot *slot = must_find(pmap, addr, bytes, "slot_drop");

	for (uint64_t at = 0; at < bytes; at += GM_PAGE_BYTES)
		gm_sim_slot_clear(slot, addr + at);
}

static void *host_bounce(void *pmap, unsigned index, uint64_t bytes)
{
	struct gm_sim_pmap *p = pmap;
	struct gm_sim_slot *slot;

	if (index >= GM_SIM_BOUNCES)
		return NULL;
	bytes = (bytes + GM_PAGE_BYTES - 1) / GM_PAGE_BYTES * GM_PAGE_BYTES;
	slot = p->bounce[index];
	if (slot && slot->bytes < bytes) {
		gm_sim_slot_free(slot);
		slot = NULL;
	}
	if (!slot)
		slot = gm_sim_slot_alloc(p, bytes, true);
	p->bounce[index] = slot;
	for (uint64_t at = 0; at < slot->bytes; at += GM_PAGE_BYTES)
		gm_sim_slot_put(slot, GM_VA(slot->base) + at, NULL);
	slot->huge = slot->bytes >= GM_BLOCK_BYTES;
	return slot->base;
}

static gm_ret_t host_wake(void *pmap, uint64_t va, uint64_t bytes)
{
	gm_sim_fault_wake(pmap, va, va + bytes);
	return GM_RET_SUCCESS;
}

static int host_msg_fd(void *pmap)
{
	(void)pmap;
	return -1;
}

static void host_at_fork(void *pmap, gm_ret_t (*freeze)(void *arg), void (*thaw)(void *arg), void *arg)
{
	struct gm_sim_pmap *p = pmap;

	p->freeze = freeze;
	p->thaw = thaw;
	p->fork_arg = arg;
}

/* There are no descriptors that could be closed. */
static gm_ret_t host_keep(void *pmap)
{
	(void)pmap;
	return GM_RET_SUCCESS;
}

static gm_ret_t host_reopen(void *pmap)
{
	(void)pmap;
	return GM_RET_EXIST;
}

static const struct gm_host_ops host_ops = {
	.mem_map = host_mem_map,
	.mem_unmap = host_mem_unmap,
	.mem_inherit = host_mem_inherit,
	.mem_protect = host_mem_protect,
	.mem_probe = gm_sim_mem_probe,
	.mem_rights = gm_sim_mem_rights,
	.mem_kind = gm_sim_mem_kind,
	.mem_huge = gm_sim_mem_huge,
	.mem_content = gm_sim_mem_content,
	.mem_present = gm_sim_mem_present,
	.watch = host_watch,
	.unwatch = host_unwatch,
	.watch_stores = host_watch_stores,
	.slot_alloc = host_slot_alloc,
	.slot_free = host_slot_free,
	.slot_drop = host_slot_drop,
	.steal = gm_sim_steal,
	.restore = gm_sim_restore,
	.fill = gm_sim_fill,
	.fill_protected = gm_sim_fill_protected,
	.unprotect = gm_sim_unprotect,
	.zero = gm_sim_zero,
	.poison = gm_sim_poison,
	.unmark = gm_sim_unmark,
	.wake = host_wake,
	.bounce = host_bounce,
	.msg_read = gm_sim_msg_read,
	.msg_wait = gm_sim_msg_wait,
	.msg_kick = gm_sim_msg_kick,
	.settled = gm_sim_msg_settled,
	.bus_access = host_bus_access,
	.bus_touch = host_bus_touch,
	.bus_bring = host_bus_bring,
	.msg_fd = host_msg_fd,
	.at_fork = host_at_fork,
	.keep = host_keep,
	.reopen = host_reopen,
	.serve_forks = gm_sim_serve_forks,
	.child_fill = gm_sim_child_fill,
	.child_read = gm_sim_child_read,
	.child_close = gm_sim_child_close,
	.child_fail = gm_sim_child_fail,
	.share_map = gm_sim_share_map,
	.share_slot = gm_sim_share_slot,
	.share_fd = gm_sim_share_fd,
	.mem_inthread = gm_sim_mem_inthread,
	.inthread_has = gm_sim_inthread_has,
};

static const struct gm_mmu host_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "simulated host",
	.dev_init = host_dev_init,
	.dev_fini = host_dev_fini,
	.pmap_create = host_pmap_create,
	.pmap_destroy = host_pmap_destroy,
	.access = host_access,
	.host = &host_ops,
};

const struct gm_mmu *gm_sim_host_mmu(void)
{
	return &host_mmu;
}

void *gm_sim_host_data(struct gm_sim *sim)
{
	return sim;
}
