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
	return m->vram + (pa - GM_MOCK_PA_BASE);
}

bool gm_mock_fails(struct gm_mock *m, enum gm_mock_op op)
{
	struct gm_mock_failure *f = &m->failure[op];
	bool hit = false;

	m->svc->lock(m->svc->self, &m->lock);
	if (f->nth > 1) {
		f->nth--;
	} else if (f->nth == 1 && f->count > 0) {
		f->count--;
		hit = true;
	}
	m->svc->unlock(m->svc->self, &m->lock);
	return hit;
}

static gm_ret_t vram_map(struct gm_mock *m)
{
	size_t bytes = (size_t)m->config.vram_bytes, reserve = bytes + VRAM_ALIGN;
	char *area, *aligned;

	/* Straight from the kernel: it may be larger than the machine's memory, and most is never touched. */
	area = mmap(NULL, reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return GM_RET_NOMEM;
	aligned = area + (VRAM_ALIGN - (uintptr_t)area % VRAM_ALIGN) % VRAM_ALIGN;
	if (aligned > area)
		(void)munmap(area, (size_t)(aligned - area));
	if (aligned + bytes < area + reserve)
		(void)munmap(aligned + bytes, (size_t)(area + reserve - (aligned + bytes)));
	/* Only a matter of speed. */
	(void)madvise(aligned, bytes, MADV_HUGEPAGE);
	m->vram = aligned;
	return GM_RET_SUCCESS;
}

static uint32_t config_caps(const struct gm_mock_config *config)
{
	uint32_t caps = GM_CAP_FAST_INVL | GM_CAP_ACCESS | GM_CAP_PROTECT;

	caps |= config->no_faults ? 0 : GM_CAP_FAULTS;
	caps |= config->no_host_map ? 0 : GM_CAP_HOST_MAP;
	caps |= config->no_cpu_visible ? 0 : GM_CAP_CPU_VISIBLE;
	caps |= config->no_submit ? 0 : GM_CAP_SUBMIT;
	return caps;
}

static void fill_caps(const struct gm_mock *m, struct gm_dev_caps *caps)
{
	*caps = (struct gm_dev_caps){
		.caps = config_caps(&m->config),
		.va_bits = m->config.va_bits,
		.page_sizes = m->config.page_sizes,
		.max_contexts = m->config.max_contexts,
		.slabs = 1,
	};
	caps->slab[0].begin = GM_MOCK_PA_BASE;
	caps->slab[0].end = GM_MOCK_PA_BASE + m->config.vram_bytes;
	(void)snprintf(caps->name, sizeof(caps->name), "mock accelerator, %llu MiB",
		       (unsigned long long)(m->config.vram_bytes >> 20));
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
	svc->mutex_init(svc->self, &m->lock);
	svc->waitq_init(svc->self, &m->fault_waitq);
	svc->waitq_init(svc->self, &m->gate_waitq);
	svc->waitq_init(svc->self, &m->engine_waitq);
}

static void fini_queues(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

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
	m = svc->alloc(svc->self, sizeof(*m));
	if (!m)
		return GM_RET_NOMEM;
	m->svc = svc;
	m->config = config;
	m->granule_bytes = config.page_sizes & (~config.page_sizes + 1);
	init_queues(m);
	ret = vram_map(m);
	if (ret != GM_RET_SUCCESS)
		goto err_queues;
	ret = gm_mock_engine_start(m);
	if (ret != GM_RET_SUCCESS)
		goto err_vram;
	ret = gm_mock_admit_dev(m);
	if (ret != GM_RET_SUCCESS)
		goto err_engine;
	fill_caps(m, caps);
	*dev = m;
	return GM_RET_SUCCESS;

err_engine:
	gm_mock_engine_stop(m);
err_vram:
	(void)munmap(m->vram, (size_t)config.vram_bytes);
err_queues:
	fini_queues(m);
	svc->free(svc->self, m, sizeof(*m));
	return ret;
}

static void mock_dev_fini(void *dev)
{
	struct gm_mock *m = dev;
	const struct gm_services *svc = m->svc;

	assert(m->n_pmaps == 0);
	gm_mock_engine_stop(m);
	gm_mock_launch_reap(m, NULL);
	assert(TAILQ_EMPTY(&m->launches) && TAILQ_EMPTY(&m->fault_waiters));
	gm_mock_dismiss_dev(m);
	(void)munmap(m->vram, (size_t)m->config.vram_bytes);
	fini_queues(m);
	svc->free(svc->self, m, sizeof(*m));
}

/* One of max_contexts, before the page table is made. */
static bool context_take(struct gm_mock *m)
{
	bool room;

	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	room = m->n_pmaps < m->config.max_contexts;
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

/* A page table, and behind it the TLB of access(). */
static size_t pmap_bytes(const struct gm_mock *m)
{
	return sizeof(struct gm_mock_pmap) + m->config.tlb_entries * sizeof(struct gm_mock_xlate);
}

static gm_ret_t mock_pmap_create(void *dev, void **out)
{
	struct gm_mock *m = dev;
	struct gm_mock_pmap *pmap;

	_Static_assert(sizeof(struct gm_mock_pmap) % _Alignof(struct gm_mock_xlate) == 0, "TLB aligned");
	if (gm_mock_fails(m, GM_MOCK_PMAP_CREATE))
		return GM_RET_NOMEM;
	if (!context_take(m))
		return GM_RET_NOSPC;
	pmap = m->svc->alloc(m->svc->self, pmap_bytes(m));
	if (!pmap)
		goto err_context;
	if (gm_mock_pt_init(m, &pmap->pt) != GM_RET_SUCCESS)
		goto err_pmap;
	pmap->dev = m;
	atomic_flag_clear(&pmap->tlbs_lock.held);
	TAILQ_INIT(&pmap->tlbs);
	gm_mock_tlb_link(pmap, &pmap->own, (struct gm_mock_xlate *)(void *)(pmap + 1));
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_INSERT_HEAD(&m->pmaps, pmap, link);
	gm_mock_spin_unlock(&m->pmaps_lock);
	*out = pmap;
	return GM_RET_SUCCESS;

err_pmap:
	m->svc->free(m->svc->self, pmap, pmap_bytes(m));
err_context:
	context_give(m);
	return GM_RET_NOMEM;
}

static void mock_pmap_destroy(void *pmap_ptr)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	assert(atomic_load(&m->unsound) || gm_mock_pt_empty(m, &pmap->pt));
	gm_mock_fault_cancel(pmap);
	gm_mock_launch_reap(m, pmap);
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_REMOVE(pmap, link);
	gm_mock_tlb_unlink(pmap, &pmap->own);
	gm_mock_spin_unlock(&m->pmaps_lock);
	gm_mock_pt_fini(m, &pmap->pt);
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

/* The planted bug: the second page gets the address of the first. */
static gm_ret_t enter_wrong(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			    uint32_t pte)
{
	uint64_t page = m->granule_bytes;
	gm_ret_t ret;

	ret = gm_mock_pt_enter(m, pt, va, pa, page, pte);
	if (ret == GM_RET_SUCCESS)
		ret = gm_mock_pt_enter(m, pt, va + page, pa, page, pte);
	if (ret == GM_RET_SUCCESS && bytes > 2 * page)
		ret = gm_mock_pt_enter(m, pt, va + 2 * page, pa + 2 * page, bytes - 2 * page, pte);
	return ret;
}

gm_ret_t gm_mock_pmap_enter(void *pmap_ptr, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	check_range(m, va, bytes);
	assert(pa % m->granule_bytes == 0);
	assert(!(pte & GM_PTE_HOST) || !m->config.no_host_map);
	if (!(pte & GM_PTE_HOST))
		(void)gm_mock_vram(m, pa, bytes);
	if (gm_mock_fails(m, GM_MOCK_PMAP_ENTER))
		return GM_RET_NOMEM;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_WRONG_PA) && bytes > m->granule_bytes)
		return enter_wrong(m, &pmap->pt, va, pa, bytes, pte);
	return gm_mock_pt_enter(m, &pmap->pt, va, pa, bytes, pte);
}

gm_ret_t gm_mock_pmap_remove(void *pmap_ptr, uint64_t va, uint64_t bytes)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	check_range(m, va, bytes);
	if (gm_mock_fails(m, GM_MOCK_PMAP_REMOVE))
		return GM_RET_NOMEM;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_SKIP_REMOVE))
		bytes -= m->granule_bytes;
	return bytes > 0 ? gm_mock_pt_remove(m, &pmap->pt, va, bytes) : GM_RET_SUCCESS;
}

static gm_ret_t mock_pmap_protect(void *pmap_ptr, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;

	check_range(m, va, bytes);
	if (gm_mock_fails(m, GM_MOCK_PROTECT))
		return GM_RET_NOMEM;
	return gm_mock_pt_protect(m, &pmap->pt, va, bytes, pte);
}

static void *mock_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	struct gm_mock *m = dev;

	return m->config.no_cpu_visible ? NULL : gm_mock_vram(m, pa, bytes);
}

static const struct gm_mmu mock_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "mock",
	.dev_init = mock_dev_init,
	.dev_fini = mock_dev_fini,
	.pmap_create = mock_pmap_create,
	.pmap_destroy = mock_pmap_destroy,
	.pmap_enter = gm_mock_pmap_enter,
	.pmap_remove = gm_mock_pmap_remove,
	.tlb_invl = gm_mock_tlb_invl,
	.copy = gm_mock_copy,
	.pmap_protect = mock_pmap_protect,
	.submit = gm_mock_submit,
	.access = gm_mock_access,
	.fault_next = gm_mock_fault_next,
	.fault_done = gm_mock_fault_done,
	.cpu_ptr = mock_cpu_ptr,
};

const struct gm_mmu *gm_mock_mmu(void)
{
	return &mock_mmu;
}

gm_ret_t gm_mock_dev_fail(struct gm_mock *m, enum gm_mock_op op, uint64_t nth, uint64_t count)
{
	if ((unsigned)op >= GM_MOCK_OPS)
		return GM_RET_INVAL;
	m->svc->lock(m->svc->self, &m->lock);
	m->failure[op] = (struct gm_mock_failure){ .nth = nth, .count = count };
	m->svc->unlock(m->svc->self, &m->lock);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_dev_plant(struct gm_mock *m, enum gm_mock_bug bug)
{
	if ((unsigned)bug > GM_MOCK_BUG_IGNORE_RIGHTS)
		return GM_RET_INVAL;
	if (bug != GM_MOCK_BUG_NONE)
		atomic_store(&m->unsound, true);
	atomic_store(&m->bug_pages, 0);
	atomic_store(&m->bug_faults, 0);
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
	};
	gm_mock_spin_lock(m->svc, &m->pmaps_lock);
	LIST_FOREACH(pmap, &m->pmaps, link)
		add_pmap_stats(m, pmap, stats);
	stats->accesses += atomic_load(&m->accesses);
	stats->tlb_misses += atomic_load(&m->tlb_misses);
	gm_mock_spin_unlock(&m->pmaps_lock);
}
