/* SPDX-License-Identifier: MIT */
/*
 * What an application pays when it uses memory with the CPU:
 *
 *     restore.2m              one access brings home 2 MiB that the device has written, in a huge
 *                             page, handler on the same CPU; against the ioctl UFFDIO_COPY of 2 MiB
 *     restore.2m.clean        the same when the device has not written: the kept frame moves home
 *     scan.device_data        read all of 32 MiB (huge pages, written by the device) in order, one
 *                             word of each cache line, default units; against memcpy of as much
 *     scan.device_data.64k    the same in small pages
 *     first_touch.unmigrated  first write to each page of memory of gm_alloc() that no device ever
 *                             saw; against plain anonymous memory
 */
#include "config.h"

#include "bench/bare_uffd.h"
#include "bench/bench.h"

#include <string.h>
#include <sys/mman.h>

#define BYTES (32u << 20)
#define BLOCKS (BYTES / BENCH_BLOCK)
#define LINE 64u

static const struct bench_spec restore_specs[] = {
	{ "restore.2m", "ns", BENCH_COST, 0.30, 0.20 },
	{ "restore.2m.clean", "ns", BENCH_COST, 0, 0 },
};
static const struct bench_spec scan_specs[] = {
	{ "scan.device_data", "GB/s", BENCH_RATE, 0.5, 0.9 },
	{ "scan.device_data.64k", "GB/s", BENCH_RATE, 0, 0 },
};
static const struct bench_spec first_spec = { "first_touch.unmigrated", "ns", BENCH_COST, 1.05, 1.01 };

/* One warm-up round, then each measured once in turn, first the one, then the other. */
static void run_rounds(const struct bench_opts *o, const struct bench_spec *spec, double (*lib)(void *),
		       double (*base)(void *), void *arg)
{
	static struct bench_series s;

	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double of_lib = 0, of_base;

		if (i % 2)
			of_lib = lib(arg);
		of_base = base(arg);
		if (i % 2 == 0)
			of_lib = lib(arg);
		if (i)
			bench_add(&s, of_lib, of_base);
	}
	bench_report(&s);
}

/* ------------------------------------------------------------ restore */

struct restore_bench {
	struct bench_gm gm;
	struct bare *bare;
	bool dirty;
};

static double restore_lib(void *arg)
{
	struct restore_bench *r = arg;
	double sample[BLOCKS];

	bench_gm_to_dev(&r->gm);
	if (r->dirty)
		bench_gm_dirty(&r->gm);
	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t page = (uint64_t)i * GM_BLOCK_PAGES + i * 37 % GM_BLOCK_PAGES;
		volatile uint64_t *at = (volatile uint64_t *)(void *)(r->gm.mem + page * BENCH_PAGE);
		uint64_t start = bench_now_ns(), got = *at;

		sample[i] = (double)(bench_now_ns() - start);
		if (got != bench_word(page, 1))
			bench_die("page %llu has wrong content", (unsigned long long)page);
	}
	bench_verify(r->gm.mem, r->gm.bytes, 1);
	if (!bench_is_huge(r->gm.mem, r->gm.bytes, true))
		bench_die("what came home is not in huge pages");
	return bench_median(sample, BLOCKS);
}

static double restore_base(void *arg)
{
	struct restore_bench *r = arg;
	double sample[BLOCKS];

	bare_empty(r->bare);
	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t start = bench_now_ns();

		bare_copy(r->bare, (uint64_t)i * BENCH_BLOCK, BENCH_BLOCK);
		sample[i] = (double)(bench_now_ns() - start);
	}
	return bench_median(sample, BLOCKS);
}

static void run_restore(const struct bench_opts *o, const struct bench_spec *spec, bool dirty)
{
	struct bench_gm_config config = {
		.bytes = BYTES,
		.huge = true,
		.cpu_unit_bytes = BENCH_BLOCK,
		.cpu_around_bytes = BENCH_BLOCK,
	};
	struct restore_bench r = { .dirty = dirty };

	bench_gm_open(&r.gm, &config);
	bench_fill(r.gm.mem, r.gm.bytes, 1);
	r.bare = bare_start(BARE_COPY, BYTES, BENCH_BLOCK, true, 0);
	bench_pin_self(0);
	bench_pin_threads("gm-handler", 0);
	bench_pin_threads("gm-worker", 0);
	run_rounds(o, spec, restore_lib, restore_base, &r);
	bench_unpin_self();
	bare_stop(r.bare);
	bench_gm_close(&r.gm);
}

/* --------------------------------------------------------------- scan */

struct scan_bench {
	struct bench_gm gm;
	char *from, *to;
};

/* Kept, so that the compiler keeps the loads. */
static volatile uint64_t scanned;

static double scan_lib(void *arg)
{
	struct scan_bench *s = arg;
	uint64_t start, ns, sum = 0;

	bench_gm_to_dev(&s->gm);
	bench_gm_dirty(&s->gm);
	start = bench_now_ns();
	for (uint64_t at = 0; at < s->gm.bytes; at += LINE)
		sum += *(const uint64_t *)(const void *)(s->gm.mem + at);
	ns = bench_now_ns() - start;
	scanned = sum;
	bench_verify(s->gm.mem, s->gm.bytes, 1);
	return bench_gb_per_s(s->gm.bytes, ns);
}

static double scan_base(void *arg)
{
	struct scan_bench *s = arg;
	uint64_t start = bench_now_ns();

	memcpy(s->to, s->from, s->gm.bytes);
	return bench_gb_per_s(s->gm.bytes, bench_now_ns() - start);
}

static void run_scan(const struct bench_opts *o, const struct bench_spec *spec, bool huge)
{
	struct bench_gm_config config = { .bytes = BYTES, .huge = huge };
	struct scan_bench s;

	bench_gm_open(&s.gm, &config);
	bench_fill(s.gm.mem, s.gm.bytes, 1);
	s.from = bench_buffer(BYTES, huge);
	s.to = bench_buffer(BYTES, huge);
	bench_pin_self(0);
	bench_pin_threads("gm-handler", 0);
	bench_pin_threads("gm-worker", 0);
	run_rounds(o, spec, scan_lib, scan_base, &s);
	bench_unpin_self();
	bench_buffer_free(s.from, BYTES);
	bench_buffer_free(s.to, BYTES);
	bench_gm_close(&s.gm);
}

/* -------------------------------------------------------- first touch */

#define TOUCH_BYTES (16u << 20)

/* Each page alone: a frame that the machine has to fetch from its own host costs many times more. */
static double touch_pages(char *mem)
{
	static double sample[TOUCH_BYTES / BENCH_PAGE];

	for (uint64_t page = 0; page < TOUCH_BYTES / BENCH_PAGE; page++) {
		uint64_t start = bench_now_ns();

		*(volatile char *)(mem + page * BENCH_PAGE) = 1;
		sample[page] = (double)(bench_now_ns() - start);
	}
	return bench_median(sample, TOUCH_BYTES / BENCH_PAGE);
}

static double first_lib(void *arg)
{
	struct bench_gm *g = arg;
	void *mem;
	double ns;

	BENCH_TRY(gm_alloc(g->as, TOUCH_BYTES, GM_MEM_NO_HUGE, &mem));
	ns = touch_pages(mem);
	BENCH_TRY(gm_free(g->as, mem));
	return ns;
}

static double first_base(void *arg)
{
	char *mem = mmap(NULL, TOUCH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	double ns;

	(void)arg;
	if (mem == MAP_FAILED || madvise(mem, TOUCH_BYTES, MADV_NOHUGEPAGE))
		bench_die("no memory");
	ns = touch_pages(mem);
	munmap(mem, TOUCH_BYTES);
	return ns;
}

/* In a space with a device, some of whose other memory is on it. */
static void run_first(const struct bench_opts *o)
{
	struct bench_gm_config config = { .bytes = BENCH_BLOCK };
	struct bench_gm g;

	bench_pin_self(0);
	bench_gm_open(&g, &config);
	bench_gm_to_dev(&g);
	run_rounds(o, &first_spec, first_lib, first_base, &g);
	bench_gm_close(&g);
	bench_unpin_self();
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	for (unsigned i = 0; i < 2; i++)
		if (bench_wanted(&o, restore_specs[i].name))
			run_restore(&o, &restore_specs[i], i == 0);
	for (unsigned i = 0; i < 2; i++)
		if (bench_wanted(&o, scan_specs[i].name))
			run_scan(&o, &scan_specs[i], i == 0);
	if (bench_wanted(&o, first_spec.name))
		run_first(&o);
	return 0;
}
