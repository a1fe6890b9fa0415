/* SPDX-License-Identifier: MIT */
/*
 * Which region is an address in? lookup.*: the index that each space uses for its
 * regions (core/gm_region.c), filled in random order; ranges of 1 to 32 pages with
 * as much between them, looked up in random order.
 *
 *                          library                          baseline
 *     lookup.1e6           one lookup among 1,000,000       binary search in a sorted array of the same
 *     .chained             the same where each lookup has to wait for the one before, as in a fault
 *     .sparse              the same with one range in each 2 MiB
 *     .dense               the same with every other page a range
 *     lookup.growth        among 1,000,000                  among 1,000
 *     lookup.growth.1e7    among 10,000,000                 among 1,000
 *
 * scale.regions: gm_adopt() and gm_release() of 64 KiB in a space in which 1,000,000 other
 * ranges are adopted; against one with 100. scale.regions.index: the same change in the index
 * alone, without system calls.
 */
#include "config.h"

#include "bench/bench.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "core/gm_lib.h"
#include "core/gm_region.h"

#define MILLION 1000000u
#define LOOKUPS (1u << 19)
#define BASE UINT64_C(0x7e0000000000)
#define UNIT (64u << 10)

enum { APART, CHAINED, SPARSE, DENSE };

static const struct bench_spec specs[] = {
	[APART] = { "lookup.1e6", "ns", BENCH_COST, 0.30, 0.15 },
	[CHAINED] = { "lookup.1e6.chained", "ns", BENCH_COST, 0, 0 },
	[SPARSE] = { "lookup.1e6.sparse", "ns", BENCH_COST, 0, 0 },
	[DENSE] = { "lookup.1e6.dense", "ns", BENCH_COST, 0, 0 },
};
static const struct bench_spec growth_specs[] = {
	{ "lookup.growth", "ns", BENCH_COST, 10, 6 },
	{ "lookup.growth.1e7", "ns", BENCH_COST, 0, 0 },
};
static const struct bench_spec index_spec = { "scale.regions.index", "ns", BENCH_COST, 0, 0 };
static const struct bench_spec scale_spec = { "scale.regions", "ns", BENCH_COST, 4, 2 };

struct range {
	uint64_t va, end;
};

/* The same ranges twice, and where to look. */
struct index {
	struct gm_lib *lib;
	struct gm_regions regions;
	struct range *range;  /* sorted */
	uint32_t ranges;
	uint64_t *look;       /* [LOOKUPS], each inside some range */
	bool chained;
};

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void *array(size_t n, size_t bytes)
{
	void *a = calloc(n, bytes);

	if (!a)
		bench_die("no memory");
	return a;
}

/* ---------------------------------------------------------- the ranges */

static void lay_out(struct index *x, int how)
{
	uint64_t va = BASE;

	for (uint32_t i = 0; i < x->ranges; i++) {
		uint64_t pages = how == DENSE ? 1 : 1 + (rnd() >> 20) % 32, gap = how == DENSE ? 1 : (rnd() >> 20) % 32;

		if (how == SPARSE)
			gap = BENCH_BLOCK / BENCH_PAGE - pages;
		x->range[i] = (struct range){ va, va + pages * BENCH_PAGE };
		va = x->range[i].end + gap * BENCH_PAGE;
	}
}

static void stock(struct index *x, unsigned room)
{
	void *piece;

	while (gm_regions_room(&x->regions) < room) {
		piece = gm_region_new(x->lib->env);
		if (piece)
			gm_regions_stock(&x->regions, piece);
		else
			bench_die("no memory");
	}
	if (gm_regions_lack_small(&x->regions)) {
		piece = gm_region_new_small(x->lib->env);
		if (piece)
			gm_regions_stock_small(&x->regions, piece);
		else
			bench_die("no memory");
	}
}

static void index_open(struct index *x, uint32_t ranges, int how)
{
	uint32_t *order = array(ranges, sizeof(*order));

	BENCH_TRY(gm_lib_create(NULL, &x->lib));
	gm_regions_init(&x->regions);
	x->ranges = ranges;
	x->range = array(ranges, sizeof(*x->range));
	x->look = array(LOOKUPS, sizeof(*x->look));
	x->chained = how == CHAINED;
	lay_out(x, how);
	bench_shuffle(order, ranges);
	for (uint32_t i = 0; i < ranges; i++) {
		const struct range *r = &x->range[order[i]];

		stock(x, 1);
		if (!gm_regions_insert(&x->regions, r->va, r->end, GM_REGION_OWNED))
			bench_die("a range was not inserted");
	}
	for (uint32_t i = 0; i < LOOKUPS; i++) {
		const struct range *r = &x->range[(rnd() >> 20) % ranges];

		x->look[i] = r->va + (rnd() >> 20) % (r->end - r->va);
	}
	free(order);
}

static void index_close(struct index *x)
{
	gm_regions_fini(&x->regions, x->lib->env);
	BENCH_TRY(gm_lib_destroy(x->lib));
	free(x->range);
	free(x->look);
}

/* ---------------------------------------------------------- the lookups */

/* Kept, so that the compiler keeps the lookups. */
static volatile uint64_t found;

static uint64_t look_regions(struct index *x)
{
	uint64_t sum = 0, wait = 0;

	for (uint32_t i = 0; i < LOOKUPS; i++) {
		struct gm_region r;

		if (!gm_regions_find(&x->regions, x->look[i] + wait, &r))
			bench_die("a region is not found");
		sum += r.end;
		wait = x->chained ? r.end & 1 : 0; /* ends are even: 0, but not before it is loaded */
	}
	return sum;
}

static const struct range *search(const struct range *range, uint32_t n, uint64_t va)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (range[mid].end <= va)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && range[lo].va <= va ? &range[lo] : NULL;
}

static uint64_t look_array(struct index *x)
{
	uint64_t sum = 0, wait = 0;

	for (uint32_t i = 0; i < LOOKUPS; i++) {
		const struct range *r = search(x->range, x->ranges, x->look[i] + wait);

		sum += r->end;
		wait = x->chained ? r->end & 1 : 0;
	}
	return sum;
}

/* Of one lookup. */
static double time_lookups(struct index *x, uint64_t (*look)(struct index *x), uint64_t *sum)
{
	uint64_t start = bench_now_ns();

	*sum = look(x);
	return (double)(bench_now_ns() - start) / LOOKUPS;
}

static void run_lookup(const struct bench_opts *o, int how)
{
	struct index x;
	static struct bench_series s;

	index_open(&x, MILLION, how);
	bench_begin(&s, &specs[how]);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		uint64_t sum[2];
		double lib = 0, base;

		if (i % 2)
			lib = time_lookups(&x, look_regions, &sum[0]);
		base = time_lookups(&x, look_array, &sum[1]);
		if (i % 2 == 0)
			lib = time_lookups(&x, look_regions, &sum[0]);
		if (sum[0] != sum[1])
			bench_die("%s: the index and the array do not agree", specs[how].name);
		found = sum[0];
		if (i)
			bench_add(&s, lib, base);
	}
	index_close(&x);
	bench_report(&s);
}

static void run_growth(const struct bench_opts *o, const struct bench_spec *spec, uint32_t ranges)
{
	struct index few, many;
	static struct bench_series s;

	index_open(&few, 1000, APART);
	index_open(&many, ranges, APART);
	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		uint64_t sum;
		double lib = 0, base;

		if (i % 2)
			lib = time_lookups(&many, look_regions, &sum);
		base = time_lookups(&few, look_regions, &sum);
		if (i % 2 == 0)
			lib = time_lookups(&many, look_regions, &sum);
		if (i)
			bench_add(&s, lib, base);
	}
	index_close(&many);
	index_close(&few);
	bench_report(&s);
}

/* -------------------------------------------------------------- changes */

#define CHANGES 65536u

/* In and out, of one page behind some range. */
static double change_index(void *arg)
{
	struct index *x = arg;
	uint64_t start;

	stock(x, 2);
	start = bench_now_ns();
	for (uint32_t i = 0; i < CHANGES; i++) {
		uint64_t va = x->range[(rnd() >> 20) % x->ranges].end;

		if (!gm_regions_insert(&x->regions, va, va + BENCH_PAGE, GM_REGION_OWNED) ||
		    !gm_regions_carve(&x->regions, va, va + BENCH_PAGE, GM_REGION_OWNED))
			bench_die("a range was not inserted or not carved");
	}
	return (double)(bench_now_ns() - start) / CHANGES;
}

/* A space with so many units adopted, each with three free ones behind it. */
struct space {
	struct bench_gm gm;
	char *mem;
	uint64_t bytes;
	uint32_t ranges;
};

#define STRIDE ((uint64_t)UNIT * 4)
#define ADOPTIONS 1024u

static void space_open(struct space *p, uint32_t ranges)
{
	struct bench_gm_config config = { .bytes = BENCH_BLOCK };

	bench_gm_open(&p->gm, &config);
	p->ranges = ranges;
	p->bytes = ranges * STRIDE;
	p->mem = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED)
		bench_die("no address space for %u ranges", ranges);
	for (uint32_t i = 0; i < ranges; i++)
		BENCH_TRY(gm_adopt(p->gm.as, p->mem + i * STRIDE, UNIT, 0));
}

static void space_close(struct space *p)
{
	BENCH_TRY(gm_release(p->gm.as, p->mem, p->bytes));
	munmap(p->mem, p->bytes);
	bench_gm_close(&p->gm);
}

static double change_space(void *arg)
{
	struct space *p = arg;
	uint64_t start = bench_now_ns();

	for (uint32_t i = 0; i < ADOPTIONS; i++) {
		char *at = p->mem + (rnd() >> 20) % p->ranges * STRIDE + STRIDE / 2;

		BENCH_TRY(gm_adopt(p->gm.as, at, UNIT, 0));
		BENCH_TRY(gm_release(p->gm.as, at, UNIT));
	}
	return (double)(bench_now_ns() - start) / ADOPTIONS;
}

/* The same with many others and with few. */
static void run_changes(const struct bench_opts *o, const struct bench_spec *spec, double (*change)(void *), void *many,
			void *few)
{
	static struct bench_series s;

	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double lib = 0, base;

		if (i % 2)
			lib = change(many);
		base = change(few);
		if (i % 2 == 0)
			lib = change(many);
		if (i)
			bench_add(&s, lib, base);
	}
	bench_report(&s);
}

static void run_scale_index(const struct bench_opts *o)
{
	struct index few, many;

	index_open(&few, 100, SPARSE);
	index_open(&many, MILLION, SPARSE);
	run_changes(o, &index_spec, change_index, &many, &few);
	index_close(&many);
	index_close(&few);
}

static void run_scale(const struct bench_opts *o)
{
	static struct space few, many;

	space_open(&few, 100);
	space_open(&many, MILLION);
	run_changes(o, &scale_spec, change_space, &many, &few);
	space_close(&many);
	space_close(&few);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	bench_pin_self(0);
	for (int how = APART; how <= DENSE; how++)
		if (bench_wanted(&o, specs[how].name))
			run_lookup(&o, how);
	for (unsigned i = 0; i < 2; i++)
		if (bench_wanted(&o, growth_specs[i].name))
			run_growth(&o, &growth_specs[i], i ? 10 * MILLION : MILLION);
	bench_unpin_self();
	if (bench_wanted(&o, scale_spec.name))
		run_scale(&o);
	if (bench_wanted(&o, index_spec.name))
		run_scale_index(&o);
	return 0;
}
