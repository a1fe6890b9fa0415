/* SPDX-License-Identifier: MIT */
/*
 * The mock accelerator: its ops table, the life of device and page tables.
 *
 *     dev_init --> open --(pmap_create, pmap_destroy)*--> dev_fini
 *
 * Whatever a failure leaves half made is taken apart in reverse order. The
 * operations that can be made to fail do so before they change anything,
 * except the late copy, which is about what happens when they do not.
 */
#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/mock/gm_mock_internal.h"

/* Device memory begins at a 2 MiB boundary, so that its large pages are large for the CPU too. */
#define VRAM_ALIGN ((size_t)2 << 20)

void *gm_mock_vram(struct gm_mock *m, uint64_t pa, uint64_t bytes)
{
	assert(pa >= GM_MOCK_PA_BASE && pa - GM_MOCK_PA_BASE <= m->config.vram_bytes);
	assert(bytes <= m->config.vram_bytes - (pa - GM_MOCK_PA_BASE));
	(void)bytes;
	return gm_mock_bug_vram(m) + (pa - GM_MOCK_PA_BASE);
}

gm_ret_t gm_mock_vram_map(uint64_t vram_bytes, char **vram)
{
	size_t bytes = (size_t)vram_bytes, reserve = bytes + VRAM_ALIGN + GM_PAGE_BYTES;
	char *area, *aligned, *guard;

	/* Straight from the kernel: it may be larger than the machine's memory, and most is never touched. */
	area = mmap(NULL, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return GM_RET_NOMEM;
	guard = area + (VRAM_ALIGN - ((uintptr_t)area + GM_PAGE_BYTES) % VRAM_ALIGN) % VRAM_ALIGN;
	aligned = guard + GM_PAGE_BYTES;
	/* A page below that nobody may access says whose it is: a space that mirrors the process leaves it alone. */
	if (mprotect(guard, GM_PAGE_BYTES, PROT_NONE)) {
		(void)munmap(area, reserve);
		return GM_RET_NOMEM;
	}
	if (guard > area)
		(void)munmap(area, (size_t)(guard - area));
	if (aligned + bytes < area + reserve)
		(void)munmap(aligned + bytes, (size_t)(area + reserve - (aligned + bytes)));
	/* Only a matter of speed. */
	(void)madvise(aligned, bytes, MADV_HUGEPAGE);
	*vram = aligned;
	return GM_RET_SUCCESS;
}

void gm_mock_vram_unmap(uint64_t vram_bytes, char *vram)
{
	(void)munmap(vram - GM_PAGE_BYTES, (size_t)vram_bytes + GM_PAGE_BYTES);
}

/* Memory of its own, or the hardware's that a runtime opened. */
static gm_ret_t memory_init(struct gm_mock *m)
{
	m->slab_end = GM_MOCK_PA_BASE + m->config.vram_bytes;
	return m->config.hw ? gm_mock_hw_claim(m->config.hw, m) : gm_mock_vram_map(m->config.vram_bytes, &m->vram);
}

static void memory_fini(struct gm_mock *m)
{
	if (m->config.hw)
		gm_mock_hw_release(m->config.hw);
	else
		gm_mock_vram_unmap(m->config.vram_bytes, m->vram);
}

static uint32_t config_caps(const struct gm_mock_config *config)
{
	uint32_t caps = config->dirty_bits ? GM_CAP_DIRTY : 0;

	caps |= config->no_fast_invl ? 0 : GM_CAP_FAST_INVL;
	caps |= config->no_access ? 0 : GM_CAP_ACCESS;
	caps |= config->no_protect ? 0 : GM_CAP_PROTECT;
	caps |= config->peer_group ? GM_CAP_PEER : 0;
	caps |= config->no_faults ? 0 : GM_CAP_FAULTS;
	caps |= config->no_host_map ? 0 : GM_CAP_HOST_MAP;
	caps |= config->no_cpu_visible ? 0 : GM_CAP_CPU_VISIBLE;
	caps |= config->no_submit ? 0 : GM_CAP_SUBMIT;
	caps |= config->no_sync ? 0 : GM_CAP_SYNC;
	return caps;
}

static void fill_caps(const struct gm_mock *m, struct gm_dev_caps *caps)
{
	bool small = m->config.vram_bytes < UINT64_C(1) << 20;

	*caps = (struct gm_dev_caps){
		.caps = config_caps(&m->config),
		.va_bits = m->config.va_bits,
		.page_sizes = m->config.page_sizes,
		.max_contexts = m->config.max_contexts,
		.slabs = m->slab_end > GM_MOCK_PA_BASE,
	};
	caps->slab[0].begin = GM_MOCK_PA_BASE;
	caps->slab[0].end = m->slab_end;
	(void)snprintf(caps->name, sizeof(caps->name), "mock accelerator, %llu %s",
		       (unsigned long long)(m->config.vram_bytes >> (small ? 10 : 20)), small ? "KiB" : "MiB");
}

static void init_queues(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	atomic_flag_clear(&m->pmaps_lock.held);
	atomic_flag_clear(&m->fault_lock.held);
	LIST_INIT(&m->pmaps);
	TAILQ_INIT(&m->fault_fifo);
	TAILQ_INIT(&m->fault_waiters);
	TAILQ_INIT(&m->launches);
	TAILQ_INIT(&m->jobs);
	TAILQ_INIT(&m->hung);
	TAILQ_INIT(&m->rules);
	svc->mutex_init(svc->self, &m->lock);
	svc->waitq_init(svc->self, &m->fault_waitq);
	svc->waitq_init(svc->self, &m->gate_waitq);
	svc->waitq_init(svc->self, &m->engine_waitq);
	gm_mock_sync_init(m);
}

static void fini_queues(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	gm_mock_sync_fini(m);
	svc->waitq_fini(svc->self, &m->engine_waitq);
	svc->waitq_fini(svc->self, &m->gate_waitq);
	svc->waitq_fini(svc->self, &m->fault_waitq);
	svc->mutex_fini(svc->self, &m->lock);
}

static gm_ret_t mock_dev_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct gm_mock_config config;
	struct gm_mock *m;
	gm_ret_t ret;

	ret = gm_mock_config_complete(dev_data, &config);
	if (ret != GM_RET_SUCCESS) {
		svc->log(svc->self, GM_LOG_ERROR, "mock: the configuration makes no sense, see gmem/mock.h");
		return ret;
	}
	if (config.hw)
		gm_mock_hw_adapt(config.hw, &config);
	m = svc->alloc(svc->self, sizeof(*m));
	if (!m)
		return GM_RET_NOMEM;
	m->svc = svc;
	m->config = config;
	m->granule_bytes = config.page_sizes & (~config.page_sizes + 1);
	init_queues(m);
	ret = memory_init(m);
	if (ret != GM_RET_SUCCESS)
		goto err_queues;
	ret = gm_mock_engine_start(m);
	if (ret != GM_RET_SUCCESS)
		goto err_memory;
	ret = gm_mock_admit_dev(m);
	if (ret != GM_RET_SUCCESS)
		goto err_engine;
	if (config.bug != GM_MOCK_BUG_NONE)
		(void)gm_mock_dev_plant(m, config.bug); /* it is one that exists: config_complete() has looked */
	fill_caps(m, caps);
	*dev = m;
	return GM_RET_SUCCESS;

err_engine:
	gm_mock_engine_stop(m);
err_memory:
	memory_fini(m);
err_queues:
	fini_queues(m);
	if (config.bug != GM_MOCK_BUG_INIT_LEAK)
		svc->free(svc->self, m, sizeof(*m));
	return ret;
}

static void mock_dev_fini(void *dev)
{
	struct gm_mock *m = dev;
	const struct gm_services *svc = m->svc;

	assert(m->n_pmaps == 0 || atomic_load(&m->unsound));
	gm_mock_engine_stop(m);
	gm_mock_dev_rule_clear(m);
	(void)gm_mock_dev_expect_end(m, NULL, 0);
	gm_mock_launch_reap(m, NULL);
	gm_mock_sync_stop(m);
	assert(TAILQ_EMPTY(&m->launches) && TAILQ_EMPTY(&m->fault_waiters));
	gm_mock_dismiss_dev(m);
	gm_mock_bug_fini(m);
	memory_fini(m);
	fini_queues(m);
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_FINI_LEAK))
		svc->free(svc->self, m, sizeof(*m));
}

/* One of max_contexts, before the page table is made. */
static bool context_take(struct gm_mock *m)
{
	bool room;

	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	room = m->n_pmaps < m->config.max_contexts - gm_mock_has_bug(m, GM_MOCK_BUG_CREATE_EARLY) ||
	       (gm_mock_has_bug(m, GM_MOCK_BUG_CREATE_UNBOUNDED) && !m->config.hw);
	m->n_pmaps += room;
	gm_mock_spin_unlock(&m->pmaps_lock);
	return room;
}

static void context_give(struct gm_mock *m)
{
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	m->n_pmaps--;
	gm_mock_spin_unlock(&m->pmaps_lock);
}

/* A page table, and behind it the TLBs of access() and of touch(). */
static size_t pmap_bytes(const struct gm_mock *m)
{
	return sizeof(struct gm_mock_pmap) + (size_t)2 * m->config.tlb_entries * sizeof(struct gm_mock_xlate);
}

static gm_ret_t pmap_make(void *dev, void **out)
{
	struct gm_mock *m = dev;
	struct gm_mock_xlate *entries;
	struct gm_mock_pmap *pmap;

	_Static_assert(sizeof(struct gm_mock_pmap) % _Alignof(struct gm_mock_xlate) == 0, "TLB aligned");
	if (!context_take(m))
		return GM_RET_NOSPC;
	pmap = m->svc->alloc(m->svc->self, pmap_bytes(m));
	if (!pmap)
		goto err_context;
	pmap->vm = &pmap->pt;
	if (!m->config.hw && gm_mock_pt_init(m, &pmap->pt) != GM_RET_SUCCESS)
		goto err_pmap;
	pmap->dev = m;
	if (gm_mock_dirty_init(pmap) != GM_RET_SUCCESS)
		goto err_pt;
	atomic_flag_clear(&pmap->tlbs_lock.held);
	TAILQ_INIT(&pmap->tlbs);
	entries = (struct gm_mock_xlate *)(void *)(pmap + 1);
	gm_mock_tlb_link(pmap, &pmap->own, entries);
	gm_mock_tlb_link(pmap, &pmap->job, entries + m->config.tlb_entries);
	if (m->config.hw) /* now that it can be told to invalidate */
		pmap->vm = gm_mock_hw_attach(m->config.hw, pmap);
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_INSERT_HEAD(&m->pmaps, pmap, link);
	gm_mock_spin_unlock(&m->pmaps_lock);
	*out = pmap;
	return GM_RET_SUCCESS;

err_pt:
	if (!m->config.hw)
		gm_mock_pt_fini(m, &pmap->pt);
err_pmap:
	m->svc->free(m->svc->self, pmap, pmap_bytes(m));
err_context:
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_CREATE_HALF))
		context_give(m);
	return GM_RET_NOMEM;
}

static gm_ret_t mock_pmap_create(void *dev, void **out)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_CREATE };
	struct gm_mock *m = dev;
	gm_ret_t ret = gm_mock_begin(m, &(struct gm_mock_call){ .op = GM_MOCK_PMAP_CREATE });

	if (ret == GM_RET_SUCCESS || (ret == GM_RET_NODEV && gm_mock_has_bug(m, GM_MOCK_BUG_LOST_ALIVE)))
		ret = pmap_make(dev, out);
	event.ret = ret;
	event.pmap = ret == GM_RET_SUCCESS ? *out : NULL;
	gm_mock_note(m, &event);
	gm_mock_cost_op(m, true);
	return ret;
}

static void mock_pmap_destroy(void *pmap_ptr)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_DESTROY, .pmap = pmap_ptr };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	gm_mock_note(m, &event);
	assert(gm_mock_is_lost(m) || atomic_load(&m->unsound) || gm_mock_pt_empty(m, pmap->vm));
	gm_mock_fault_cancel(pmap);
	gm_mock_touch_drain(pmap);
	if (m->config.hw)
		gm_mock_hw_detach(m->config.hw, m->svc);
	gm_mock_launch_reap(m, pmap);
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_REMOVE(pmap, link);
	gm_mock_tlb_unlink(pmap, &pmap->job);
	gm_mock_tlb_unlink(pmap, &pmap->own);
	gm_mock_bug_destroyed(m);
	gm_mock_spin_unlock(&m->pmaps_lock);
	gm_mock_dirty_fini(pmap);
	if (m->config.hw)
		gm_mock_pt_drop(m, pmap->vm);
	else
		gm_mock_pt_fini(m, pmap->vm);
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_DESTROY_LEAK))
		m->svc->free(m->svc->self, pmap, pmap_bytes(m));
	context_give(m);
}

static void check_range(struct gm_mock *m, uint64_t va, uint64_t bytes)
{
	uint64_t limit = UINT64_C(1) << m->config.va_bits;

	assert(bytes > 0 && va < limit && bytes <= limit - va);
	assert(va % m->granule_bytes == 0 && bytes % m->granule_bytes == 0);
	(void)limit;
	(void)m;
	(void)va;
	(void)bytes;
}

static gm_ret_t enter(struct gm_mock_pmap *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct gm_mock *m = pmap->dev;
	gm_ret_t ret;

	ret = gm_mock_dirty_enter(pmap, va, bytes);
	if (ret != GM_RET_SUCCESS)
		return ret;
	ret = gm_mock_bug_enter(m, pmap->vm, va, pa, bytes, pte);
	if (ret == GM_RET_EXIST && m->config.hw) {
		m->svc->log(m->svc->self, GM_LOG_ERROR, "mock: the runtime that opened the hardware uses this address");
		ret = GM_RET_NOMEM;
	}
	gm_mock_dirty_entered(pmap, va, bytes, ret);
	if (ret == GM_RET_SUCCESS)
		gm_mock_bug_entered(pmap, va, pa, bytes, pte);
	return ret;
}

gm_ret_t gm_mock_pmap_enter(void *pmap_ptr, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_ENTER, .pmap = pmap_ptr, .va = va, .pa = pa, .bytes = bytes,
				       .pte = pte };
	struct gm_mock_call call = { .op = GM_MOCK_PMAP_ENTER, .va = va, .bytes = bytes };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	check_range(m, va, bytes);
	assert(pa % m->granule_bytes == 0);
	assert(!(pte & GM_PTE_HOST) || !m->config.no_host_map);
	if (!(pte & GM_PTE_HOST)) {
		(void)gm_mock_vram(m, pa, bytes);
		call.pa = pa;
	}
	event.ret = gm_mock_begin(m, &call);
	if (event.ret == GM_RET_SUCCESS)
		event.ret = enter(pmap, va, pa, bytes, pte);
	else if (event.ret == GM_RET_NOMEM)
		event.ret = gm_mock_bug_enter_failed(m, pmap->vm, va, pa, bytes, pte);
	gm_mock_note(m, &event);
	return event.ret;
}

gm_ret_t gm_mock_pmap_remove(void *pmap_ptr, uint64_t va, uint64_t bytes)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_REMOVE, .pmap = pmap_ptr, .va = va, .bytes = bytes };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	check_range(m, va, bytes);
	event.ret = gm_mock_begin(m, &(struct gm_mock_call){ .op = GM_MOCK_PMAP_REMOVE, .va = va, .bytes = bytes });
	if (event.ret == GM_RET_SUCCESS)
		event.ret = gm_mock_bug_remove(m, pmap->vm, va, bytes);
	else if (event.ret == GM_RET_NOMEM)
		event.ret = gm_mock_bug_remove_failed(m, pmap->vm, va, bytes);
	gm_mock_note(m, &event);
	return event.ret;
}

static gm_ret_t mock_pmap_protect(void *pmap_ptr, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct gm_mock_event event = { .kind = GM_MOCK_EV_PROTECT, .pmap = pmap_ptr, .va = va, .bytes = bytes, .pte = pte };
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	if (m->config.no_protect)
		return GM_RET_UNIMPLEMENTED;
	check_range(m, va, bytes);
	event.ret = gm_mock_begin(m, &(struct gm_mock_call){ .op = GM_MOCK_PROTECT, .va = va, .bytes = bytes });
	if (event.ret == GM_RET_SUCCESS)
		event.ret = gm_mock_bug_protect(m, pmap->vm, va, bytes, pte);
	gm_mock_note(m, &event);
	gm_mock_cost_op(m, true);
	return event.ret;
}

/* Alone, not as a step of a plan: a call of its own, which costs. */
static gm_ret_t mock_pmap_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	gm_ret_t ret = gm_mock_pmap_enter(pmap, va, pa, bytes, pte);

	gm_mock_cost_op(((struct gm_mock_pmap *)pmap)->dev, true);
	return ret;
}

static gm_ret_t mock_pmap_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	gm_ret_t ret = gm_mock_pmap_remove(pmap, va, bytes);

	gm_mock_cost_op(((struct gm_mock_pmap *)pmap)->dev, true);
	return ret;
}

static gm_ret_t mock_tlb_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_mock *m = ((struct gm_mock_pmap *)pmap)->dev;
	gm_ret_t ret = gm_mock_tlb_invl(pmap, va, bytes);

	if (gm_mock_bug_short(m, GM_MOCK_BUG_NEEDS_MEMORY))
		return GM_RET_NOMEM;
	gm_mock_cost_op(m, m->config.no_fast_invl);
	return ret;
}

static gm_ret_t mock_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits)
{
	struct gm_mock *m = ((struct gm_mock_pmap *)pmap)->dev;
	gm_ret_t ret = gm_mock_harvest(pmap, va, bytes, bits);

	if (ret == GM_RET_SUCCESS && gm_mock_has_bug(m, GM_MOCK_BUG_DIRTY_LOST)) {
		for (uint64_t i = 0; i < bytes / m->granule_bytes; i++)
			bits[i] &= GM_PAGE_ACCESSED;
	}
	if (gm_mock_bug_short(m, GM_MOCK_BUG_HARVEST_CLEARS))
		ret = GM_RET_NOMEM;
	gm_mock_cost_op(m, true);
	return ret;
}

static gm_ret_t mock_peer_reach(void *dev, void *other)
{
	gm_ret_t ret = gm_mock_begin(dev, &(struct gm_mock_call){ .op = GM_MOCK_PEER_REACH });

	if (gm_mock_bug_short(dev, GM_MOCK_BUG_NEEDS_MEMORY))
		return GM_RET_NOTSUP;
	return ret == GM_RET_SUCCESS ? gm_mock_peer_reach(dev, other) : ret;
}

static void *mock_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	struct gm_mock *m = dev;
	bool off = gm_mock_has_bug(m, GM_MOCK_BUG_CPU_PTR_OFF);

	uint64_t end = pa - GM_MOCK_PA_BASE + bytes;
	void *at = gm_mock_vram(m, pa, bytes);

	if (m->config.no_cpu_visible || gm_mock_is_lost(m) || gm_mock_is_bad(m, pa, bytes))
		return NULL;
	if (m->config.visible_bytes && end > m->config.visible_bytes)
		return NULL;
	/* Not beyond the end of the memory. */
	return off && end < m->config.vram_bytes ? (char *)at + GM_PAGE_BYTES : at;
}

const struct gm_mmu gm_mock_table = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "mock",
	.dev_init = mock_dev_init,
	.dev_fini = mock_dev_fini,
	.pmap_create = mock_pmap_create,
	.pmap_destroy = mock_pmap_destroy,
	.pmap_enter = mock_pmap_enter,
	.pmap_remove = mock_pmap_remove,
	.tlb_invl = mock_tlb_invl,
	.copy = gm_mock_copy,
	.pmap_protect = mock_pmap_protect,
	.submit = gm_mock_submit,
	.access = gm_mock_access,
	.fault_next = gm_mock_fault_next,
	.fault_done = gm_mock_fault_done,
	.cpu_ptr = mock_cpu_ptr,
	.sync_create = gm_mock_sync_create,
	.sync_signal = gm_mock_sync_signal,
	.sync_import = gm_mock_sync_import,
	.pmap_harvest = mock_harvest,
	.peer_reach = mock_peer_reach,
	.dev_halt = gm_mock_halt,
};

const struct gm_mmu *gm_mock_mmu(void)
{
	return &gm_mock_table;
}

gm_ret_t gm_mock_dev_plant(struct gm_mock *m, enum gm_mock_bug bug)
{
	if (!gm_mock_bug_name(bug))
		return GM_RET_INVAL;
	if (bug != GM_MOCK_BUG_NONE)
		atomic_store(&m->unsound, true);
	atomic_store(&m->bug_pages, 0);
	atomic_store(&m->bug_faults, 0);
	atomic_store(&m->bug_fences, 0);
	atomic_store(&m->bug, (int)bug);
	return GM_RET_SUCCESS;
}

static void add_pmap_stats(struct gm_mock *m, struct gm_mock_pmap *pmap, struct gm_mock_stats *stats)
{
	struct gm_mock_tlb *tlb;

	gm_mock_spin_lock(m->svc, &pmap->tlbs_lock);
	TAILQ_FOREACH(tlb, &pmap->tlbs, link) {
		stats->accesses += atomic_load_explicit(&tlb->accesses, memory_order_relaxed);
		stats->tlb_misses += atomic_load_explicit(&tlb->misses, memory_order_relaxed);
	}
	gm_mock_spin_unlock(&pmap->tlbs_lock);
}

void gm_mock_dev_stats(struct gm_mock *m, struct gm_mock_stats *stats)
{
	struct gm_mock_pmap *pmap;

	*stats = (struct gm_mock_stats){
		.faults = atomic_load(&m->faults),
		.copies = atomic_load(&m->copies),
		.bytes_to_dev = atomic_load(&m->bytes_to_dev),
		.bytes_to_host = atomic_load(&m->bytes_to_host),
		.invalidations = atomic_load(&m->invalidations),
		.submits = atomic_load(&m->submits),
		.bytes_from_peer = atomic_load(&m->bytes_from_peer),
	};
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_FOREACH(pmap, &m->pmaps, link)
		add_pmap_stats(m, pmap, stats);
	stats->accesses += atomic_load(&m->accesses);
	stats->tlb_misses += atomic_load(&m->tlb_misses);
	gm_mock_spin_unlock(&m->pmaps_lock);
	gm_mock_cost_stats(m, stats);
}
