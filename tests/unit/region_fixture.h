/* SPDX-License-Identifier: MIT */
/* Regions of a space, without the space: by pages, and as text. */
#ifndef REGION_FIXTURE_H
#define REGION_FIXTURE_H

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "core/gm_region_leaf.h"

#include "failing_alloc.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define OWNED GM_REGION_OWNED
#define ADOPTED GM_REGION_ADOPTED
#define EDGE GM_REGION_EDGE
/* Regions of a leaf. */
#define LEAF GM_LEAF_LARGE
#define SMALL_LEAF GM_LEAF_SMALL

static struct failing_alloc fa;
static struct gm_env env;
static struct gm_regions rs;

/* Where page 0 of a test is. */
static uint64_t base;
/* What is in stock at the beginning. */
static unsigned stocked;

static inline void stock(unsigned pieces)
{
	while (pieces--)
		gm_regions_stock(&rs, gm_region_new(&env));
}

static inline void stock_small(void)
{
	gm_regions_stock_small(&rs, gm_region_new_small(&env));
}

static inline void take_stock(unsigned pieces)
{
	while (pieces--)
		gm_mem_free(&env, gm_radix_spares_take(&rs.stock), GM_REGION_PIECE_BYTES);
}

static inline void setup(void)
{
	failing_alloc_init(&fa);
	env.mem = fa.table;
	gm_regions_init(&rs);
	while (gm_regions_room(&rs) < GM_REGION_SPARES)
		stock(1);
	base = 0;
	stocked = rs.stock.count;
}

static inline void teardown(void)
{
	gm_regions_fini(&rs, &env);
	cr_assert_eq(atomic_load(&fa.live), 0, "nodes were lost");
	cr_assert_eq(atomic_load(&fa.bad_frees), 0);
}

static struct gm_region buf;

/* Good until the next one. */
static inline struct gm_region *find(uint64_t va)
{
	return gm_regions_find(&rs, va, &buf);
}

static inline struct gm_region *first_in(uint64_t va, uint64_t end)
{
	return gm_regions_first(&rs, va, end, &buf);
}

static inline bool insert(unsigned first, unsigned end, enum gm_region_kind kind)
{
	return gm_regions_insert(&rs, base + first * PAGE, base + end * PAGE, kind);
}

static inline bool carve(unsigned first, unsigned end, enum gm_region_kind kind)
{
	return gm_regions_carve(&rs, base + first * PAGE, base + end * PAGE, kind);
}

/* All regions as text: kind, pages, users of an edge. */
static inline void is(const char *want)
{
	char text[400] = "";
	size_t n = 0;
	const char *wrong = gm_regions_check(&rs);

	cr_assert_null(wrong, "%s", wrong);
	for (struct gm_region *r = first_in(0, UINT64_MAX); r; r = gm_regions_next(&rs, r, UINT64_MAX)) {
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%u-%u", n ? " " : "", "OAE"[r->kind],
				      (unsigned)(r->va / PAGE), (unsigned)(r->end / PAGE));
		if (r->kind == EDGE)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "*%u", (unsigned)r->users);
	}
	cr_assert_str_eq(text, want);
}

static inline struct gm_region_leaf *only_leaf(void)
{
	return gm_radix_get(&rs.tree, 0);
}

#endif
