/* SPDX-License-Identifier: MIT */
/* Options, rounds, statistics, reports: see bench.h. */
#include "config.h"

#include "bench/bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_RUNS 11
#define QUICK_RUNS 3

_Noreturn void bench_die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("bench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

struct bench_opts bench_options(int argc, char **argv)
{
	struct bench_opts o = { .runs = DEFAULT_RUNS };

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0) {
			o.runs = QUICK_RUNS;
		} else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
			o.only = argv[++i];
		} else if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
			char *end;
			unsigned long n = strtoul(argv[++i], &end, 10);

			if (*end || n < 1 || n > BENCH_MAX_RUNS)
				bench_die("--runs takes 1 to %d", BENCH_MAX_RUNS);
			o.runs = (unsigned)n;
		} else {
			bench_die("usage: %s [--runs N] [--only METRIC] [--quick]", argv[0]);
		}
	}
#ifdef GM_ENABLE_CHECKS
	fputs("bench: built with --enable-checks: the figures are not those of the product\n", stderr);
#endif
	return o;
}

bool bench_wanted(const struct bench_opts *o, const char *metric)
{
	return !o->only || strncmp(metric, o->only, strlen(o->only)) == 0;
}

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void bench_shuffle(uint32_t *order, size_t n)
{
	uint64_t x = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (size_t i = n; i > 1; i--) {
		uint32_t swap;
		size_t k;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		k = x % i;
		swap = order[i - 1];
		order[i - 1] = order[k];
		order[k] = swap;
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Value at rank n * num / den of a copy. */
static double rank_of(const double *values, size_t n, size_t num, size_t den)
{
	double sorted[BENCH_MAX_RUNS];

	memcpy(sorted, values, n * sizeof(*values));
	qsort(sorted, n, sizeof(*sorted), compare);
	return sorted[n * num / den];
}

double bench_median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

void bench_begin(struct bench_series *s, const struct bench_spec *spec)
{
	s->spec = spec;
	s->n = 0;
}

void bench_add(struct bench_series *s, double lib, double base)
{
	s->lib[s->n] = lib;
	s->base[s->n] = base;
	s->n++;
}

static bool meets(const struct bench_spec *spec, double ratio, double bound)
{
	return spec->kind == BENCH_COST ? ratio <= bound : ratio >= bound;
}

static const char *verdict(const struct bench_spec *spec, double ratio)
{
	if (spec->must == 0)
		return "-";
	if (meets(spec, ratio, spec->aim))
		return "aim";
	return meets(spec, ratio, spec->must) ? "must" : "SHORT";
}

static void heading(void)
{
	static bool done;

	if (!done)
		fprintf(stderr, "%-32s %12s %12s %-5s %7s  %-15s %8s %8s  %s\n", "metric", "value", "baseline", "unit",
			"ratio", "p10 .. p90", "must", "aim", "verdict");
	done = true;
}

static void bounds(const struct bench_spec *spec)
{
	const char *sign = spec->kind == BENCH_COST ? "<=" : ">=";

	if (spec->must == 0)
		fprintf(stderr, " %8s %8s", "", "");
	else
		fprintf(stderr, " %s %5.2f %s %5.2f", sign, spec->must, sign, spec->aim);
}

void bench_report(const struct bench_series *s)
{
	const struct bench_spec *spec = s->spec;
	double lib = rank_of(s->lib, s->n, 1, 2), base = rank_of(s->base, s->n, 1, 2), ratio = lib / base;
	double each[BENCH_MAX_RUNS];

	for (unsigned i = 0; i < s->n; i++)
		each[i] = s->lib[i] / s->base[i];
	printf("{\"metric\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"baseline\":%.6g,\"ratio\":%.4f,\"runs\":%u}\n",
	       spec->name, lib, spec->unit, base, ratio, s->n);
	fflush(stdout);
	heading();
	fprintf(stderr, "%-32s %12.6g %12.6g %-5s %7.3f  %6.3f ..%6.3f", spec->name, lib, base, spec->unit, ratio,
		rank_of(each, s->n, 1, 10), rank_of(each, s->n, 9, 10));
	bounds(spec);
	fprintf(stderr, "  %s\n", verdict(spec, ratio));
}

void bench_report_value(const struct bench_spec *spec, double value)
{
	printf("{\"metric\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"baseline\":null,\"ratio\":null,\"runs\":1}\n", spec->name,
	       value, spec->unit);
	fflush(stdout);
	heading();
	fprintf(stderr, "%-32s %12.6g %12s %-5s %7s  %-15s", spec->name, value, "", spec->unit, "", "");
	bounds(spec);
	fprintf(stderr, "  %s\n", verdict(spec, value));
}

void bench_skip(const struct bench_spec *spec, const char *why)
{
	printf("{\"metric\":\"%s\",\"value\":null,\"unit\":\"%s\",\"baseline\":null,\"ratio\":null,\"runs\":0}\n",
	       spec->name, spec->unit);
	fflush(stdout);
	heading();
	fprintf(stderr, "%-32s not measured: %s\n", spec->name, why);
}
