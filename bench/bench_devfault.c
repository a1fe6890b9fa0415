/* SPDX-License-Identifier: MIT */
/*
 * Device faults on memory that is on the host and stays there (partial pages at the ends of adopted
 * buffers), so that serving one is: find the state, plan, map in place.
 *
 *     devfault.map.4k          gm_dev_fault() of one page, each page once, in random order
 *     devfault.batch           the queue: 64 faults over 16 blocks (4 pages each) in one batch, in random
 *                              order, per touched block
 *     devfault.batch.dup       the same with each fault reported four times by different threads of the
 *                              device (16 faults that differ)
 *     devfault.kernel.map.4k   as the first, with the kernel asked
 *     scale.threads            two pinned threads, each serving the faults of a device of its own on blocks
 *                              of its own, in one space, against one: faults per second. Only rounds in
 *                              which both had a CPU all the time, and a whole one: see probe_ns()
 *     scale.threads.shared     the same in rounds in which a CPU was slower than it can be
 *
 * What is measured is the library, not the kernel: how the host answers whether events are unread and
 * what the process may access is fixed beforehand (in .kernel it is asked, in both). The device is the
 * mock with a queue of faults that the benchmark fills.
 *
 * Baseline: an uncontended lock pair, a binary search among the blocks, the mock's pmap_enter on a page
 * table of its own; for a batch once per block, all its pages in one call.
 */
#include "config.h"

#include "bench/bench.h"
#include "bench/known_host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/gm_as.h"
#include "core/gm_devq.h"

#define BLOCKS 64u
#define BYTES ((uint64_t)BLOCKS * BENCH_BLOCK)
#define PER_BLOCK 64u /* pages used of each block, in a row */
#define PAGES 4096u /* of all blocks */
_Static_assert(PAGES == BLOCKS * PER_BLOCK, "all pages");
#define BATCH 64u
#define BATCH_BLOCKS 16u

static const struct bench_spec map_spec = { "devfault.map.4k", "ns", BENCH_COST, 2, 1.3 };
static const struct bench_spec kernel_spec = { "devfault.kernel.map.4k", "ns", BENCH_COST, 0, 0 };
static const struct bench_spec batch_spec = { "devfault.batch", "ns", BENCH_COST, 3, 1.5 };
static const struct bench_spec dup_spec = { "devfault.batch.dup", "ns", BENCH_COST, 0, 0 };
static const struct bench_spec scale_spec = { "scale.threads", "1/us", BENCH_RATE, 1.4, 1.8 };
static const struct bench_spec shared_spec = { "scale.threads.shared", "1/us", BENCH_RATE, 0, 0 };

/* One instance: what the tables below need to know of it stands here. */
static struct bench {
	struct gm_mmu mmu;
	struct known_host host;
	struct gm_mock_config mock;
	struct gm_env *env;
	struct gm_lib *lib;
	struct gm_dev *dev[2];
	struct gm_as *as;
	struct gm_ctx *ctx[2];
	unsigned devs;
	char *mem;
	uint64_t block[BLOCKS];  /* sorted */
	uint32_t order[PAGES];
	pthread_mutex_t lock;    /* the baseline's */
	void *pmap;              /* the baseline's page table */
	/* the device's queue */
	struct gm_dev_fault fault[BATCH];
	unsigned faults, next, answers;
} g;

static uint64_t page_va(uint32_t page)
{
	return g.block[page / PER_BLOCK] + (uint64_t)(page % PER_BLOCK) * BENCH_PAGE;
}

/* ------------------------------------------------------ the device's queue */

static gm_ret_t queue_next(void *dev, struct gm_dev_fault *fault)
{
	(void)dev;
	if (g.next == g.faults)
		return GM_RET_AGAIN;
	*fault = g.fault[g.next++];
	return GM_RET_SUCCESS;
}

static gm_ret_t queue_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	(void)pmap, (void)va, (void)bytes;
	if (result)
		bench_die("a fault was answered with %s", gm_ret_name(result));
	g.answers++;
	return GM_RET_SUCCESS;
}

/* ---------------------------------------------------------------- set-up */

/* Part of each page used is adopted: the whole is never moved. */
static void adopt_parts(void)
{
	for (uint32_t p = 0; p < PAGES; p++) {
		void *at = (void *)(uintptr_t)(page_va(p) + 128);

		BENCH_TRY(gm_adopt(g.as, at, 256, 0));
	}
}

static void attach(void)
{
	for (unsigned i = 0; i < g.devs; i++)
		BENCH_TRY(gm_as_attach(g.as, g.dev[i], GM_ATTACH_IDENTITY, NULL, &g.ctx[i]));
	BENCH_TRY(gm_mock_mmu()->pmap_create(gm_dev_backend(g.dev[0]), &g.pmap));
}

static void detach(void)
{
	for (unsigned i = 0; i < g.devs; i++)
		BENCH_TRY(gm_as_detach(g.ctx[i]));
	BENCH_TRY(gm_mock_mmu()->pmap_remove(g.pmap, GM_VA(g.mem), BYTES));
	BENCH_TRY(gm_mock_mmu()->tlb_invl(g.pmap, GM_VA(g.mem), BYTES));
	gm_mock_mmu()->pmap_destroy(g.pmap);
}

static void open_all(bool kernel, unsigned devs)
{
	struct gm_as_config as = { .size = sizeof(as), .flags = GM_AS_NO_THREADS };

	memset(&g, 0, sizeof(g));
	g.devs = devs;
	pthread_mutex_init(&g.lock, NULL);
	g.mock = (struct gm_mock_config){ .size = sizeof(g.mock), .vram_bytes = BENCH_BLOCK };
	g.mmu = *gm_mock_mmu();
	g.mmu.fault_next = queue_next;
	g.mmu.fault_done = queue_done;
	g.mem = bench_buffer(BYTES, false);
	known_host_init(&g.host, g.mem, BYTES, kernel);
	for (unsigned i = 0; i < BLOCKS; i++)
		g.block[i] = GM_VA(g.mem) + (uint64_t)i * BENCH_BLOCK;
	bench_shuffle(g.order, PAGES);
	BENCH_TRY(gm_env_threads_create(NULL, &g.env));
	BENCH_TRY(gm_lib_create_on(g.env, &g.host.mmu, g.env, &g.lib));
	for (unsigned i = 0; i < devs; i++)
		BENCH_TRY(gm_dev_create(g.lib, &g.mmu, &g.mock, &g.dev[i]));
	BENCH_TRY(gm_as_create(g.lib, 0, 0, &as, &g.as));
	adopt_parts();
	attach();
}

static void close_all(void)
{
	detach();
	for (uint32_t p = 0; p < PAGES; p++)
		BENCH_TRY(gm_release(g.as, (void *)(uintptr_t)(page_va(p) + 128), 256));
	BENCH_TRY(gm_as_destroy(g.as));
	for (unsigned i = 0; i < g.devs; i++)
		BENCH_TRY(gm_dev_destroy(g.dev[i]));
	BENCH_TRY(gm_lib_destroy(g.lib));
	gm_env_threads_destroy(g.env);
	bench_buffer_free(g.mem, BYTES);
	pthread_mutex_destroy(&g.lock);
}

/* -------------------------------------------------------------- baseline */

static uint64_t *volatile found; /* so that the search is made */

static uint64_t *search(uint64_t va)
{
	uint64_t *at = g.block;

	for (unsigned n = BLOCKS; n > 1; n -= n / 2)
		at += at[n / 2] <= va ? n / 2 : 0;
	return at;
}

static void map_directly(uint64_t va, uint64_t bytes)
{
	pthread_mutex_lock(&g.lock);
	found = search(va);
	pthread_mutex_unlock(&g.lock);
	if (gm_mock_mmu()->pmap_enter(g.pmap, va, va, bytes, GM_PTE_HOST | GM_PTE_WRITE))
		bench_die("the mock has no memory for page tables");
}

/* What the library asks the kernel for each fault, asked directly. */
static void ask_kernel(uint64_t va)
{
	struct gm_host_vma vma;

	if (g.host.ops.settled(g.as->hpmap) || g.host.ops.mem_rights(g.as->hpmap, va, &vma))
		bench_die("the kernel does not answer");
}

/* --------------------------------------------------------------- one page */

static double map_lib(void)
{
	uint64_t start = bench_now_ns();

	for (uint32_t i = 0; i < PAGES; i++)
		BENCH_TRY(gm_dev_fault(g.ctx[0], page_va(g.order[i]), GM_WRITE));
	return (double)(bench_now_ns() - start) / PAGES;
}

static double map_base(bool kernel)
{
	uint64_t start = bench_now_ns();

	for (uint32_t i = 0; i < PAGES; i++) {
		if (kernel)
			ask_kernel(page_va(g.order[i]));
		map_directly(page_va(g.order[i]), BENCH_PAGE);
	}
	return (double)(bench_now_ns() - start) / PAGES;
}

static void run_map(const struct bench_opts *o, const struct bench_spec *spec, bool kernel)
{
	static struct bench_series s;

	open_all(kernel, 1);
	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		struct gm_stats before, after;
		double lib = 0, base;

		BENCH_TRY(gm_as_stats(g.as, &before));
		if (i % 2)
			lib = map_lib();
		base = map_base(kernel);
		if (i % 2 == 0)
			lib = map_lib();
		BENCH_TRY(gm_as_stats(g.as, &after));
		if (after.pages_in_place - before.pages_in_place != PAGES)
			bench_die("%s: not every page was mapped in place", spec->name);
		if (i)
			bench_add(&s, lib, base);
		detach();
		attach();
	}
	bench_report(&s);
	close_all();
}

/* ---------------------------------------------------------------- batches */

/* Batch `b`: pages of 16 blocks, each of them `repeat` times; 64 faults. */
static void fill_queue(unsigned b, unsigned repeat)
{
	static uint32_t shuffled[BATCH];
	static bool done;
	unsigned per_block = BATCH / BATCH_BLOCKS / repeat;

	if (!done)
		bench_shuffle(shuffled, BATCH);
	done = true;
	for (unsigned i = 0; i < BATCH; i++) {
		unsigned k = shuffled[i] / repeat, block = k / per_block, page = k % per_block;
		unsigned first = b / (BLOCKS / BATCH_BLOCKS) * per_block;
		uint64_t va = g.block[block + b % (BLOCKS / BATCH_BLOCKS) * BATCH_BLOCKS];

		g.fault[i] = (struct gm_dev_fault){
			.pmap = g.ctx[0]->pmap,
			.va = va + (uint64_t)(first + page) * BENCH_PAGE,
			.access = GM_WRITE,
		};
	}
	g.faults = BATCH;
	g.next = 0;
}

/* All pages of all blocks, in batches. */
static unsigned batches(unsigned repeat)
{
	return PAGES * repeat / BATCH;
}

static double batch_lib(unsigned repeat)
{
	uint64_t ns = 0;

	for (unsigned b = 0; b < batches(repeat); b++) {
		uint64_t again_ns = UINT64_MAX, start;

		fill_queue(b, repeat);
		start = bench_now_ns();
		(void)gm_devq_round(g.dev[0], &again_ns);
		ns += bench_now_ns() - start;
		if (again_ns != UINT64_MAX)
			bench_die("a fault was not answered at once: %s", gm_last_error());
	}
	return (double)ns / (batches(repeat) * BATCH_BLOCKS);
}

static double batch_base(unsigned repeat)
{
	unsigned per_block = BATCH / BATCH_BLOCKS / repeat;
	uint64_t ns = 0;

	for (unsigned b = 0; b < batches(repeat); b++) {
		unsigned first = b / (BLOCKS / BATCH_BLOCKS) * per_block;
		uint64_t start = bench_now_ns();

		for (unsigned i = 0; i < BATCH_BLOCKS; i++) {
			uint64_t va = g.block[i + b % (BLOCKS / BATCH_BLOCKS) * BATCH_BLOCKS] + (uint64_t)first * BENCH_PAGE;

			map_directly(va, (uint64_t)per_block * BENCH_PAGE);
		}
		ns += bench_now_ns() - start;
	}
	return (double)ns / (batches(repeat) * BATCH_BLOCKS);
}

static void run_batch(const struct bench_opts *o, const struct bench_spec *spec, unsigned repeat)
{
	static struct bench_series s;

	open_all(false, 1);
	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		struct gm_stats before, after;
		double lib = 0, base;

		BENCH_TRY(gm_as_stats(g.as, &before));
		if (i % 2)
			lib = batch_lib(repeat);
		base = batch_base(repeat);
		if (i % 2 == 0)
			lib = batch_lib(repeat);
		BENCH_TRY(gm_as_stats(g.as, &after));
		if (after.pages_in_place - before.pages_in_place != PAGES || !g.answers)
			bench_die("%s: not every page was mapped in place", spec->name);
		if (i)
			bench_add(&s, lib, base);
		detach();
		attach();
	}
	bench_report(&s);
	close_all();
}

/* ------------------------------------------------------------- two threads */

struct runner {
	atomic_uint *arrived;
	unsigned runners;
	unsigned dev; /* also its CPU */
	unsigned first, blocks; /* its part of the blocks */
	uint64_t wall_ns, cpu_ns, probe_ns;
	unsigned faults;
};

#define PROBE_TURNS 100000u

/*
 * Two CPUs of a virtual machine may be two hardware threads of one core, or share theirs with a neighbour's, for some
 * time: then they run all the time, but each does much less. No clock tells, but this does: all adders of a core, and
 * no memory. It takes up to twice as long there.
 */
static uint64_t probe_ns(void)
{
	uint64_t start = bench_now_ns(), a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, p = 0, q = 0;

	for (uint32_t i = 0; i < PROBE_TURNS; i++) {
		a++, b++, c++, d++, e++, f++, p++, q++;
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(p), "+r"(q));
	}
	return bench_now_ns() - start;
}

/* Spinning: who is woken comes late, and the other would be alone so long. */
static void meet(const struct runner *r, unsigned time)
{
	atomic_fetch_add(r->arrived, 1);
	while (atomic_load(r->arrived) < time * r->runners)
		;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Faults on those of pages [from, end) that are in its part; how many. */
static unsigned fault_part(const struct runner *r, uint32_t from, uint32_t end)
{
	unsigned n = 0;

	for (uint32_t i = from; i < end; i++) {
		uint32_t block = g.order[i] / PER_BLOCK;

		if (block < r->first || block >= r->first + r->blocks)
			continue;
		BENCH_TRY(gm_dev_fault(g.ctx[r->dev], page_va(g.order[i]), GM_WRITE));
		n++;
	}
	return n;
}

/* The first quarter warms the CPU: what is made ready between rounds is made on one of them. */
static void *run_part(void *arg)
{
	struct runner *r = arg;
	uint64_t start, start_cpu, after;

	bench_pin_self(r->dev);
	(void)fault_part(r, 0, PAGES / 4);
	meet(r, 1);
	r->probe_ns = probe_ns();
	meet(r, 2);
	start = bench_now_ns();
	start_cpu = cpu_ns();
	r->faults = fault_part(r, PAGES / 4, PAGES);
	r->cpu_ns = cpu_ns() - start_cpu;
	r->wall_ns = bench_now_ns() - start;
	meet(r, 3);
	after = probe_ns();
	r->probe_ns = after > r->probe_ns ? after : r->probe_ns;
	return NULL;
}

/* What a round tells of the machine. */
struct ran {
	bool always;       /* each thread had its CPU all the time */
	uint64_t probe_ns; /* the slowest */
};

/* Faults per microsecond of `n` threads. */
static double run_parts(unsigned n, struct ran *ran)
{
	struct runner r[2];
	pthread_t thread[2];
	atomic_uint arrived = 0;
	uint64_t longest = 1;
	unsigned faults = 0;

	for (unsigned i = 0; i < n; i++) {
		r[i] = (struct runner){ .arrived = &arrived, .runners = n,
				      .dev = i, .first = i * BLOCKS / 2, .blocks = BLOCKS / 2 };
		if (pthread_create(&thread[i], NULL, run_part, &r[i]))
			bench_die("no thread");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(thread[i], NULL);
		faults += r[i].faults;
		if (r[i].wall_ns > longest)
			longest = r[i].wall_ns;
		ran->always = ran->always && r[i].cpu_ns >= r[i].wall_ns - r[i].wall_ns / 20;
		ran->probe_ns = r[i].probe_ns > ran->probe_ns ? r[i].probe_ns : ran->probe_ns;
	}
	return faults / ((double)longest / 1000);
}

/* What the probe takes on a CPU that is a whole one: the fastest of many, on both. */
static uint64_t probe_alone_ns(void)
{
	uint64_t fastest = UINT64_MAX;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t ns;

		bench_pin_self(i % 2);
		ns = probe_ns();
		fastest = ns < fastest ? ns : fastest;
	}
	bench_pin_self(0);
	return fastest;
}

#define SCALE_TRIES 40
#define PAUSE_NS 10000000 /* between rounds that do not count: what is in the way lasts longer than a round */

static void run_scale(const struct bench_opts *o)
{
	static struct bench_series s, shared;
	uint64_t alone_ns;

	if (bench_cpus() < 2) {
		bench_skip(&scale_spec, "there is only one CPU");
		return;
	}
	open_all(false, 2);
	bench_begin(&s, &scale_spec);
	bench_begin(&shared, &shared_spec);
	alone_ns = probe_alone_ns();
	for (unsigned i = 0; i < SCALE_TRIES * o->runs && s.n < o->runs; i++) {
		struct ran ran = { .always = true };
		double two = run_parts(2, &ran), one;

		detach();
		attach();
		one = run_parts(1, &ran);
		detach();
		attach();
		if (!i || !ran.always)
			continue;
		if (ran.probe_ns <= alone_ns + alone_ns / 8) {
			bench_add(&s, two, one);
			continue;
		}
		if (shared.n < o->runs)
			bench_add(&shared, two, one);
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
	if (s.n == o->runs)
		bench_report(&s);
	else
		bench_skip(&scale_spec, "in too few rounds both CPUs ran, and were whole ones");
	if (shared.n)
		bench_report(&shared);
	close_all();
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	bench_pin_self(0);
	if (bench_wanted(&o, map_spec.name))
		run_map(&o, &map_spec, false);
	if (bench_wanted(&o, kernel_spec.name))
		run_map(&o, &kernel_spec, true);
	if (bench_wanted(&o, batch_spec.name))
		run_batch(&o, &batch_spec, 1);
	if (bench_wanted(&o, dup_spec.name))
		run_batch(&o, &dup_spec, 4);
	if (bench_wanted(&o, scale_spec.name))
		run_scale(&o);
	return 0;
}
