/* SPDX-License-Identifier: MIT */
/*
 * migrate.*: gm_migrate() of 32 MiB to the device and back in calls of 2 MiB,
 * against memcpy between the same buffers (the application's memory and the
 * device's). Each call is timed alone, a round's figure is their median.
 *
 *     round: host -> device | device writes all | device -> host (copy) |
 *            host -> device | device -> host (clean: no copy) | both memcpy
 *
 * .2m is memory in huge pages, .64k memory in small ones, moved in calls of 2 MiB.
 * .nt is the same library figure against a copy with non-temporal stores.
 * migrate.copy_share.2m: of the time of both directions, how much was copying.
 *
 * abort.migration: a copy to the device fails; from that moment until
 * gm_migrate() has returned and the 64 KiB are where they were, against one
 * UFFDIO_MOVE of 64 KiB.
 */
#include "config.h"

#include "bench/bare_uffd.h"
#include "bench/bench.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define BYTES (32u << 20)
#define BLOCKS (BYTES / BENCH_BLOCK)
#define ABORTS 128

enum { H2D, D2H, CLEAN, SHARE, NT, METRICS };

static const struct bench_spec huge_specs[METRICS] = {
	[H2D] = { "migrate.h2d.2m", "GB/s", BENCH_RATE, 0.90, 1.0 },
	[D2H] = { "migrate.d2h.2m", "GB/s", BENCH_RATE, 0.90, 1.0 },
	[CLEAN] = { "migrate.d2h.clean.2m", "GB/s", BENCH_RATE, 0, 0 },
	[SHARE] = { "migrate.copy_share.2m", "share", BENCH_RATE, 0.80, 0.95 },
	[NT] = { "migrate.h2d.2m.nt", "GB/s", BENCH_RATE, 0.90, 0.95 },
};

static const struct bench_spec small_specs[METRICS] = {
	[H2D] = { "migrate.h2d.64k", "GB/s", BENCH_RATE, 0.75, 0.85 },
	[D2H] = { "migrate.d2h.64k", "GB/s", BENCH_RATE, 0.75, 0.85 },
	[CLEAN] = { "migrate.d2h.clean.64k", "GB/s", BENCH_RATE, 0, 0 },
	[SHARE] = { "migrate.copy_share.64k", "share", BENCH_RATE, 0, 0 },
	[NT] = { "migrate.h2d.64k.nt", "GB/s", BENCH_RATE, 0, 0 },
};

static const struct bench_spec abort_spec = { "abort.migration", "ns", BENCH_COST, 1.2, 1.1 };

/* Nanoseconds for 2 MiB, and the share of copying in both directions together. */
struct times {
	double h2d, d2h, clean, share;
};

/* The calls of one direction; `copying` is increased by the library's own account of it. */
static void migrate(struct bench_gm *g, struct gm_dev *dev, double *ns, double *copying)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		struct gm_stats before, after;
		uint64_t start;

		BENCH_TRY(gm_as_stats(g->as, &before));
		start = bench_now_ns();
		BENCH_TRY(gm_migrate(g->as, GM_VA(g->mem) + (uint64_t)i * BENCH_BLOCK, BENCH_BLOCK, dev, NULL));
		ns[i] = (double)(bench_now_ns() - start);
		BENCH_TRY(gm_as_stats(g->as, &after));
		copying[i] = (double)(after.ns_copy - before.ns_copy);
	}
}

/* ... and whether all of it was copied. */
static void migrate_copying(struct bench_gm *g, struct gm_dev *dev, double *ns, double *copying)
{
	struct gm_stats before, after;

	BENCH_TRY(gm_as_stats(g->as, &before));
	migrate(g, dev, ns, copying);
	BENCH_TRY(gm_as_stats(g->as, &after));
	if (after.bytes_to_dev - before.bytes_to_dev + after.bytes_to_host - before.bytes_to_host != g->bytes)
		bench_die("not all bytes were copied");
}

static void round_lib(struct bench_gm *g, uint64_t seed, struct times *t)
{
	double to_dev[BLOCKS], to_host[BLOCKS], copy_dev[BLOCKS], copy_host[BLOCKS], share[BLOCKS];

	bench_fill(g->mem, g->bytes, seed);
	migrate_copying(g, g->dev, to_dev, copy_dev);
	bench_gm_dirty(g);
	migrate_copying(g, NULL, to_host, copy_host);
	bench_verify(g->mem, g->bytes, seed);
	for (unsigned i = 0; i < BLOCKS; i++)
		share[i] = (copy_dev[i] + copy_host[i]) / (to_dev[i] + to_host[i]);
	t->h2d = bench_median(to_dev, BLOCKS);
	t->d2h = bench_median(to_host, BLOCKS);
	t->share = bench_median(share, BLOCKS);
	migrate(g, g->dev, to_dev, copy_dev);
	migrate(g, NULL, to_host, copy_host);
	t->clean = bench_median(to_host, BLOCKS);
	bench_verify(g->mem, g->bytes, seed);
}

static double time_memcpy(char *to, const char *from)
{
	double ns[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t start = bench_now_ns();

		memcpy(to + (uint64_t)i * BENCH_BLOCK, from + (uint64_t)i * BENCH_BLOCK, BENCH_BLOCK);
		ns[i] = (double)(bench_now_ns() - start);
	}
	return bench_median(ns, BLOCKS);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void copy_nt(char *to, const char *from, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += 128) {
		for (unsigned i = 0; i < 128; i += 32)
			_mm256_stream_si256((__m256i *)(void *)(to + at + i),
					    _mm256_loadu_si256((const __m256i *)(const void *)(from + at + i)));
	}
	_mm_sfence();
}

/* 0: this processor cannot. */
static double time_nt(char *to, const char *from)
{
	double ns[BLOCKS];

	if (!__builtin_cpu_supports("avx2"))
		return 0;
	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t start = bench_now_ns();

		copy_nt(to + (uint64_t)i * BENCH_BLOCK, from + (uint64_t)i * BENCH_BLOCK, BENCH_BLOCK);
		ns[i] = (double)(bench_now_ns() - start);
	}
	return bench_median(ns, BLOCKS);
}
#else
static double time_nt(char *to, const char *from)
{
	(void)to, (void)from;
	return 0;
}
#endif

static void round_base(struct bench_gm *g, struct times *t, double *nt)
{
	char *vram = bench_gm_vram(g, g->bytes);

	t->h2d = time_memcpy(vram, g->mem);
	t->d2h = time_memcpy(g->mem, vram);
	*nt = time_nt(vram, g->mem);
}

static double rate(double ns)
{
	return BENCH_BLOCK / ns;
}

static void add(struct bench_series *s, const struct times *lib, const struct times *base, double nt)
{
	bench_add(&s[H2D], rate(lib->h2d), rate(base->h2d));
	bench_add(&s[D2H], rate(lib->d2h), rate(base->d2h));
	bench_add(&s[CLEAN], rate(lib->clean), rate(base->d2h));
	bench_add(&s[SHARE], lib->share, 1);
	if (nt > 0)
		bench_add(&s[NT], rate(lib->h2d), rate(nt));
}

static void run_migrate(const struct bench_opts *o, const struct bench_spec *specs, bool huge)
{
	struct bench_gm_config config = { .bytes = BYTES, .huge = huge };
	static struct bench_series s[METRICS];
	struct bench_gm g;

	bench_gm_open(&g, &config);
	if (!bench_is_huge(g.mem, g.bytes, huge))
		bench_die("the memory %s in huge pages", huge ? "is not" : "is");
	for (unsigned i = 0; i < METRICS; i++)
		bench_begin(&s[i], &specs[i]);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		struct times lib, base;
		double nt;

		if (i % 2)
			round_lib(&g, i, &lib);
		round_base(&g, &base, &nt);
		if (i % 2 == 0)
			round_lib(&g, i, &lib);
		if (i) /* the first warms up */
			add(s, &lib, &base, nt);
	}
	if (!bench_is_huge(g.mem, g.bytes, huge))
		bench_die("migration changed the size of the pages");
	bench_gm_close(&g);
	for (unsigned i = 0; i < METRICS; i++) {
		if (!bench_wanted(o, specs[i].name))
			continue;
		if (s[i].n)
			bench_report(&s[i]);
		else
			bench_skip(&specs[i], "this processor has no AVX2");
	}
}

static bool any_wanted(const struct bench_opts *o, const struct bench_spec *specs)
{
	for (unsigned i = 0; i < METRICS; i++)
		if (bench_wanted(o, specs[i].name))
			return true;
	return false;
}

/* ------------------------------------------------------------- abort */

/* When the device refused; a table of operations has no place for it. */
static uint64_t refused_ns;

static gm_ret_t copy_refused(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	(void)dev, (void)copies, (void)n, (void)done;
	refused_ns = bench_now_ns();
	return GM_RET_IO;
}

static double round_abort(struct bench_gm *g)
{
	double sample[ABORTS];

	for (unsigned i = 0; i < ABORTS; i++) {
		uint64_t va = GM_VA(g->mem) + (uint64_t)i * GM_UNIT_BYTES;
		gm_ret_t ret = gm_migrate(g->as, va, GM_UNIT_BYTES, g->dev, NULL);

		sample[i] = (double)(bench_now_ns() - refused_ns);
		if (ret != GM_RET_IO)
			bench_die("a migration whose copy failed returned %s", gm_ret_name(ret));
	}
	bench_verify(g->mem, g->bytes, 1);
	return bench_median(sample, ABORTS);
}

static double round_move(struct bare *b)
{
	double sample[ABORTS];

	bare_empty(b);
	for (unsigned i = 0; i < ABORTS; i++) {
		uint64_t start = bench_now_ns();

		bare_move_in(b, (uint64_t)i * GM_UNIT_BYTES, GM_UNIT_BYTES);
		sample[i] = (double)(bench_now_ns() - start);
	}
	return bench_median(sample, ABORTS);
}

static void run_abort(const struct bench_opts *o)
{
	struct bench_gm_config config = { .bytes = (uint64_t)ABORTS * GM_UNIT_BYTES, .copy = copy_refused };
	static struct bench_series s;
	struct bench_gm g;
	struct bare *b;

	bench_pin_self(0);
	bench_gm_open(&g, &config);
	bench_fill(g.mem, g.bytes, 1);
	b = bare_start(BARE_MOVE, config.bytes, GM_UNIT_BYTES, false, 0);
	bench_begin(&s, &abort_spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double lib = 0, base;

		if (i % 2)
			lib = round_abort(&g);
		base = round_move(b);
		if (i % 2 == 0)
			lib = round_abort(&g);
		if (i)
			bench_add(&s, lib, base);
	}
	bare_stop(b);
	bench_gm_close(&g);
	bench_unpin_self();
	bench_report(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	if (any_wanted(&o, huge_specs))
		run_migrate(&o, huge_specs, true);
	if (any_wanted(&o, small_specs))
		run_migrate(&o, small_specs, false);
	if (bench_wanted(&o, abort_spec.name))
		run_abort(&o);
	return 0;
}
