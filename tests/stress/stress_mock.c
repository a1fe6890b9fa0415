/* SPDX-License-Identifier: MIT */
/*
 * Kernels, faults, mappings that change, copies and invalidations on one mock
 * device at once; meant for ThreadSanitizer and valgrind as much as for its
 * own checks:
 *
 *  - every page is moved between two frames over and over, by the order that
 *    the library uses: unmap, invalidate, copy, map the other frame;
 *  - kernels add to counters in the pages all the while, faulting where a
 *    page is away; the sum at the end says whether an addition went to a
 *    frame that had been left, or was lost on the way.
 */
#include "config.h"

#include <stdio.h>

#include "backends/mock/gm_mock_internal.h"

#include "tests/unit/mock_services.h"

#define VA UINT64_C(0x7ffff0000000)
#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define N_PAGES 24u /* on both sides of a 64 KiB border */
#define N_MOVERS 2u
#define N_THREADS 3u

struct world {
	struct mock_services s;
	const struct gm_mmu *mmu;
	struct gm_mock *m;
	void *pmap;
	unsigned rounds, adds;
	struct page {
		pthread_mutex_t lock; /* as the library's page state: one owner of a change at a time */
		bool mapped, second;
	} page[N_PAGES];
	atomic_bool stop;
	_Atomic long movers; /* that still run */
	_Atomic uint64_t added;
	_Atomic long failures;
};

static void check(struct world *w, bool ok, const char *what)
{
	if (ok)
		return;
	atomic_fetch_add(&w->failures, 1);
	fprintf(stderr, "stress_mock: %s\n", what);
}

static uint64_t frame(unsigned page, bool second)
{
	return GM_MOCK_PA_BASE + (2 * page + second) * PAGE;
}

static void transfer(struct world *w, enum gm_copy_kind kind, uint64_t pa, char *buf)
{
	struct gm_copy c = { .kind = kind, .pa = pa, .host = GM_VA(buf), .bytes = PAGE };
	struct gm_fence *fence = mock_svc_fence_create(&w->s);

	check(w, w->mmu->copy(w->m, &c, 1, fence) == GM_RET_SUCCESS, "copy");
	check(w, mock_fence_wait(fence, 60000) == GM_RET_SUCCESS, "copy fence");
	mock_svc_fence_put(&w->s, fence);
}

static void map_page(struct world *w, unsigned i)
{
	struct page *p = &w->page[i];

	if (!p->mapped)
		check(w, w->mmu->pmap_enter(w->pmap, VA + i * PAGE, frame(i, p->second), PAGE, GM_PTE_WRITE) ==
				 GM_RET_SUCCESS, "enter");
	p->mapped = true;
}

static void move_page(struct world *w, unsigned i, char *buf)
{
	struct page *p = &w->page[i];

	pthread_mutex_lock(&p->lock);
	check(w, w->mmu->pmap_remove(w->pmap, VA + i * PAGE, PAGE) == GM_RET_SUCCESS, "remove");
	check(w, w->mmu->tlb_invl(w->pmap, VA + i * PAGE, PAGE) == GM_RET_SUCCESS, "invl");
	p->mapped = false;
	transfer(w, GM_COPY_TO_HOST, frame(i, p->second), buf);
	/* What is left behind is destroyed, so that a late access shows. */
	memset(w->mmu->cpu_ptr(w->m, frame(i, p->second), PAGE), 0xee, PAGE);
	p->second = !p->second;
	transfer(w, GM_COPY_TO_DEV, frame(i, p->second), buf);
	if (i % 2)
		map_page(w, i); /* the others wait for a fault */
	pthread_mutex_unlock(&p->lock);
}

static void *mover_main(void *arg)
{
	struct world *w = arg;
	char *buf = aligned_alloc(GM_PAGE_BYTES, PAGE);

	for (unsigned r = 0; r < w->rounds; r++) {
		for (unsigned i = 0; i < N_PAGES; i++) {
			move_page(w, (i * 7 + r) % N_PAGES, buf);
			sched_yield();
		}
	}
	free(buf);
	atomic_fetch_sub(&w->movers, 1);
	return NULL;
}

static void *server_main(void *arg)
{
	struct gm_dev_fault fault;
	struct gm_mock_stats stats;
	struct world *w = arg;

	while (!atomic_load(&w->stop)) {
		unsigned i;

		if (w->mmu->fault_next(w->m, &fault) != GM_RET_SUCCESS) {
			gm_mock_dev_stats(w->m, &stats);
			sched_yield();
			continue;
		}
		i = (unsigned)((fault.va - VA) / PAGE);
		check(w, fault.pmap == w->pmap && i < N_PAGES, "fault");
		pthread_mutex_lock(&w->page[i].lock);
		map_page(w, i);
		pthread_mutex_unlock(&w->page[i].lock);
		check(w, w->mmu->fault_done(w->pmap, fault.va, PAGE, GM_RET_SUCCESS) == GM_RET_SUCCESS, "done");
	}
	return NULL;
}

/* In each page: a counter for all, and a word per thread that it alone counts up by load and store. */
static gm_ret_t kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct world *w = arg;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t word;

	for (unsigned i = 0; i < w->adds && ret == GM_RET_SUCCESS; i++) {
		uint64_t va = VA + (i * 5 + index) % N_PAGES * PAGE;

		ret = gm_mock_fetch_add(thread, va, 1, NULL);
		if (ret == GM_RET_SUCCESS)
			ret = gm_mock_load(thread, va + 8 + UINT64_C(8) * index, &word, 8);
		if (ret == GM_RET_SUCCESS) {
			word++;
			ret = gm_mock_store(thread, va + 8 + UINT64_C(8) * index, &word, 8);
		}
		atomic_fetch_add_explicit(&w->added, 1, memory_order_relaxed);
	}
	return ret;
}

/* One launch after the other for as long as pages move. */
static void run_kernels(struct world *w)
{
	while (atomic_load(&w->movers) > 0 && atomic_load(&w->failures) == 0) {
		struct gm_fence *fence = mock_svc_fence_create(&w->s);

		mock_fence_ref(fence);
		check(w, gm_mock_launch_start(w->pmap, kernel, w, N_THREADS, fence) == GM_RET_SUCCESS, "launch");
		check(w, mock_fence_wait(fence, 300000) == GM_RET_SUCCESS, "kernel");
		mock_svc_fence_put(&w->s, fence);
	}
}

static void check_sums(struct world *w)
{
	uint64_t shared = 0, own = 0, want = atomic_load(&w->added);

	for (unsigned i = 0; i < N_PAGES; i++) {
		const uint64_t *word = w->mmu->cpu_ptr(w->m, frame(i, w->page[i].second), PAGE);

		shared += word[0];
		for (unsigned t = 0; t < N_THREADS; t++)
			own += word[1 + t];
	}
	check(w, shared == want, "an atomic addition was lost");
	check(w, own == want, "a store was lost");
}

static void run_world(const char *options, unsigned rounds, unsigned adds)
{
	struct world *w = calloc(1, sizeof(*w));
	pthread_t mover[N_MOVERS], server;
	struct gm_mock_config config;
	struct gm_dev_caps caps;
	void *dev = NULL;

	w->mmu = gm_mock_mmu();
	w->rounds = rounds;
	w->adds = adds;
	mock_services_init(&w->s);
	if (gm_mock_parse(options, &config) != GM_RET_SUCCESS ||
	    w->mmu->dev_init(&config, &w->s.svc, &caps, &dev) != GM_RET_SUCCESS ||
	    w->mmu->pmap_create(dev, &w->pmap) != GM_RET_SUCCESS) {
		fprintf(stderr, "stress_mock: cannot open '%s'\n", options);
		exit(1);
	}
	w->m = dev;
	for (unsigned i = 0; i < N_PAGES; i++)
		pthread_mutex_init(&w->page[i].lock, NULL);
	atomic_store(&w->movers, N_MOVERS);
	pthread_create(&server, NULL, server_main, w);
	for (unsigned i = 0; i < N_MOVERS; i++)
		pthread_create(&mover[i], NULL, mover_main, w);
	run_kernels(w);
	for (unsigned i = 0; i < N_MOVERS; i++)
		pthread_join(mover[i], NULL);
	atomic_store(&w->stop, true);
	pthread_join(server, NULL);
	check(w, w->mmu->pmap_remove(w->pmap, VA, N_PAGES * PAGE) == GM_RET_SUCCESS, "last remove");
	check(w, w->mmu->tlb_invl(w->pmap, VA, N_PAGES * PAGE) == GM_RET_SUCCESS, "last invl");
	check_sums(w);
	w->mmu->pmap_destroy(w->pmap);
	w->mmu->dev_fini(dev);
	check(w, atomic_load(&w->s.live_bytes) == 0 && atomic_load(&w->s.live_threads) == 0, "something is left");
	for (unsigned i = 0; i < N_PAGES; i++)
		pthread_mutex_destroy(&w->page[i].lock);
	if (atomic_load(&w->failures))
		exit(1);
	free(w);
}

int main(void)
{
	run_world("vram=1M,tlb=16", 600, 500);
	run_world("vram=1M,tlb=4,copy=async,copyns=1000", 80, 500);
	run_world("vram=1M,tlb=4,engines=4,reorder=9,dirty=yes,todev=1000000,opns=5,missns=5,faultns=9", 200, 500);
	return 0;
}
