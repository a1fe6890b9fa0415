/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks share: rounds, statistics, reports, pinning, buffers.
 *
 *     for every metric: set up --> (library, baseline) x runs --> median of each --> report
 *
 * One round measures the library and the baseline once each, and every other
 * round in the opposite order, so that drift of the machine hits both. The
 * figures of a round are medians themselves where single operations are timed.
 *
 * Reports: one JSON object per metric to stdout; a table with the goals to
 * stderr. A benchmark that cannot do what it should (no second CPU, no huge
 * pages) says so with null in place of figures. Any call that fails where it
 * should not ends the program: a figure of something else is worse than none.
 */
#ifndef GM_BENCH_H
#define GM_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gmem/gmem.h>
#include <gmem/hal.h>

#define BENCH_MAX_RUNS 101
#define BENCH_BLOCK (2u << 20)
#define BENCH_PAGE 4096u

struct bench_opts {
	unsigned runs;
	const char *only; /* a metric, or the beginning of its name; NULL: all */
};

/* --runs N, --only METRIC, --quick. Ends the program on anything else. */
struct bench_opts bench_options(int argc, char **argv);

/* Which way is better. */
enum bench_kind { BENCH_COST, BENCH_RATE };

/* A metric and its goals; must and aim are bounds of the ratio, 0 where none was set. */
struct bench_spec {
	const char *name;
	const char *unit;
	enum bench_kind kind;
	double must, aim;
};

struct bench_series {
	const struct bench_spec *spec;
	unsigned n;
	double lib[BENCH_MAX_RUNS], base[BENCH_MAX_RUNS];
};

bool bench_wanted(const struct bench_opts *o, const char *metric);
void bench_begin(struct bench_series *s, const struct bench_spec *spec);
void bench_add(struct bench_series *s, double lib, double base);
void bench_report(const struct bench_series *s);
/* A figure that stands alone, measured once: the goals are bounds of it. */
void bench_report_value(const struct bench_spec *spec, double value);
/* The same with null for figures. */
void bench_skip(const struct bench_spec *spec, const char *why);

/* The lower median; sorts in place. */
double bench_median(double *values, size_t n);

/* The arithmetic of one sample. */
static inline double bench_gb_per_s(uint64_t bytes, uint64_t ns)
{
	return ns ? (double)bytes / (double)ns : 0;
}

uint64_t bench_now_ns(void);
/* A fixed pseudo-random order of 0 .. n - 1. */
void bench_shuffle(uint32_t *order, size_t n);

_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A call of the library that must succeed. */
#define BENCH_TRY(call) \
	do { \
		gm_ret_t ret_ = (call); \
		if (ret_) \
			bench_die("%s: %s (%s)", #call, gm_ret_name(ret_), gm_last_error()); \
	} while (0)

/* Pinning. CPU numbers are those of the process's own set, from 0. */
unsigned bench_cpus(void);
void bench_pin_self(unsigned cpu);
void bench_unpin_self(void);
/* All threads of the process whose name begins so; ends the program if there is none. */
void bench_pin_threads(const char *name, unsigned cpu);

/* Private anonymous memory, aligned to 2 MiB, every page written. */
void *bench_buffer(uint64_t bytes, bool huge);
void bench_buffer_free(void *buf, uint64_t bytes);
/* Does all of it stand in huge pages (or, `huge` false, none of it)? */
bool bench_is_huge(const void *buf, uint64_t bytes, bool huge);
/* Different in every page, and told apart by `seed`. */
void bench_fill(void *buf, uint64_t bytes, uint64_t seed);
/* What the first word of a page is after bench_fill(). */
uint64_t bench_word(uint64_t page, uint64_t seed);
/* Ends the program if a page's first word is wrong: a copy that did not happen is fast. */
void bench_verify(const void *buf, uint64_t bytes, uint64_t seed);

/* An instance of the library with one mock device, and one allocation. */
struct bench_gm {
	struct gm_mmu mmu;             /* the mock's table, with what the benchmark puts in its place */
	struct gm_mock_config mock;
	uint64_t vram;                 /* device-physical address of its first byte */
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	char *mem;
	uint64_t bytes;
};

struct bench_gm_config {
	uint64_t bytes;
	bool huge;
	uint32_t cpu_unit_bytes, cpu_around_bytes; /* 0: defaults */
	bool exclusive;
	bool inthread; /* GM_MEM_INTHREAD */
	/* in place of the mock's, NULL: none */
	gm_ret_t (*copy)(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);
};

void bench_gm_open(struct bench_gm *g, const struct bench_gm_config *c);
void bench_gm_close(struct bench_gm *g);
void bench_gm_to_dev(struct bench_gm *g);
/* Let the device have written all of it: bringing it home needs a copy. */
void bench_gm_dirty(struct bench_gm *g);
/* The device's memory as the CPU sees it, from its first byte. */
void *bench_gm_vram(struct bench_gm *g, uint64_t bytes);

#endif
