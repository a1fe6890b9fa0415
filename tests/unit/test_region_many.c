/* SPDX-License-Identifier: MIT */
/* Many regions, over the whole space, dense in places: against a sorted array. */
#include "config.h"

#include <criterion/criterion.h>

#include <string.h>

#include "core/gm_region.h"

#include "failing_alloc.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define OWNED GM_REGION_OWNED

static struct failing_alloc fa;
static struct gm_env env;
static struct gm_regions rs;
static struct gm_region buf;
static uint64_t seed = 88172645463325252u;

static void setup(void)
{
	failing_alloc_init(&fa);
	env.mem = fa.table;
	gm_regions_init(&rs);
}

static void teardown(void)
{
	gm_regions_fini(&rs, &env);
	cr_assert_eq(atomic_load(&fa.live), 0, "pieces were lost");
	cr_assert_eq(atomic_load(&fa.bad_frees), 0);
}

TestSuite(region_many, .init = setup, .fini = teardown);

static unsigned rnd(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static void stock(unsigned pieces)
{
	while (pieces--)
		gm_regions_stock(&rs, gm_region_new(&env));
}

static void take_stock(unsigned pieces)
{
	while (pieces--)
		gm_mem_free(&env, gm_radix_spares_take(&rs.stock), GM_REGION_PIECE_BYTES);
}

#define MANY 3000

struct range {
	uint64_t va, end;
};

/* Sorted. */
static struct range range[MANY];
static unsigned ranges;

/* The first range that ends above va. */
static unsigned first_above(uint64_t va)
{
	unsigned lo = 0, hi = ranges;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (range[mid].end <= va)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Dense in places, far apart in others. */
static uint64_t random_va(void)
{
	static const unsigned bits[] = { 9, 12, 16, 26, 35, 44 };
	uint64_t pages = (uint64_t)rnd(1u << 31) << 20 | rnd(1u << 20);

	return (pages & ((UINT64_C(1) << bits[rnd(6)]) - 1)) * PAGE;
}

static void add_range(uint64_t va, uint64_t end)
{
	unsigned at = first_above(va);

	if (ranges == MANY || (at < ranges && range[at].va < end))
		return;
	while (!gm_regions_room(&rs))
		stock(1);
	if (gm_regions_lack_small(&rs) && rnd(2))
		gm_regions_stock_small(&rs, gm_region_new_small(&env));
	cr_assert(gm_regions_insert(&rs, va, end, OWNED));
	memmove(range + at + 1, range + at, (ranges - at) * sizeof(*range));
	range[at] = (struct range){ va, end };
	ranges++;
}

/* Whole ranges only. */
static void remove_ranges(uint64_t va, uint64_t end)
{
	unsigned at = first_above(va), stop = at;

	if (at < ranges && range[at].va < va)
		va = range[at].va;
	while (stop < ranges && range[stop].va < end)
		stop++;
	if (stop > at && range[stop - 1].end > end)
		end = range[stop - 1].end;
	take_stock(rs.stock.count);
	cr_assert(gm_regions_carve(&rs, va, end, OWNED), "to take whole ones out needs nothing");
	memmove(range + at, range + stop, (ranges - stop) * sizeof(*range));
	ranges -= stop - at;
}

static void look(uint64_t va, uint64_t end)
{
	unsigned at = first_above(va);
	struct gm_region *r = gm_regions_find(&rs, va, &buf);

	cr_assert_eq(r != NULL, at < ranges && range[at].va <= va);
	r = gm_regions_first(&rs, va, end, &buf);
	for (; at < ranges && range[at].va < end; at++, r = gm_regions_next(&rs, r, end)) {
		cr_assert_not_null(r);
		cr_assert(r->va == range[at].va && r->end == range[at].end);
	}
	cr_assert_null(r);
}

Test(region_many, against_a_sorted_array)
{
	for (unsigned round = 0; round < 60000; round++) {
		uint64_t va = random_va(), end = va + (1 + random_va() / PAGE % (rnd(8) ? 32 : 100000)) * PAGE;
		unsigned dice = rnd(ranges > MANY / 2 ? 5 : 8);

		if (dice > 2)
			add_range(va, end);
		else if (dice)
			look(va, end);
		else
			remove_ranges(va, rnd(4) ? va + PAGE : end);
		if (round % 500 == 0) {
			cr_assert_null(gm_regions_check(&rs));
			look(0, UINT64_MAX);
			cr_assert_eq(rs.count, ranges);
		}
	}
	cr_assert(ranges > 100);
	remove_ranges(0, UINT64_MAX);
	cr_assert_null(rs.tree.root, "an empty set has no tree");
}
