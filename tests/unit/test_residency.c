/* SPDX-License-Identifier: MIT */
/* gm_residency(): for any range and whatever its pages are, the sums of what gm_query() says page by page. */
#include "config.h"

#include "pack_fixture.h"

static struct gm_residency residency(struct world *w, uint64_t va, uint64_t bytes)
{
	struct gm_residency r;

	memset(&r, 0xa5, sizeof(r));
	OK(gm_residency(w->as, va, bytes, &r));
	return r;
}

static void add(struct gm_residency *r, const struct gm_page_info *i)
{
	struct gm_dev_info dev = { .index = 0 };

	r->busy_bytes += i->flags & GM_PAGE_BUSY ? PAGE : 0;
	r->held_bytes += i->flags & GM_PAGE_HELD ? PAGE : 0;
	switch (i->place) {
	case GM_PLACE_NONE:
		r->none_bytes += PAGE;
		break;
	case GM_PLACE_HOST:
		r->host_bytes += PAGE;
		break;
	case GM_PLACE_DEVICE:
		OK(gm_dev_query(i->dev, &dev));
		r->dev_bytes[dev.index] += PAGE;
		break;
	case GM_PLACE_IN_PLACE:
		r->in_place_bytes += PAGE;
		break;
	case GM_PLACE_POISONED:
		r->poisoned_bytes += PAGE;
		break;
	case GM_PLACE_OUTSIDE:
		r->outside_bytes += PAGE;
		break;
	}
}

static void compare(struct world *w, uint64_t va, uint64_t pages)
{
	struct gm_page_info *info = calloc(pages, sizeof(*info));
	struct gm_residency want = { .outside_bytes = 0 }, r = residency(w, va, pages * PAGE);

	cr_assert_not_null(info);
	OK(gm_query(w->as, va, pages, info));
	for (uint64_t i = 0; i < pages; i++)
		add(&want, &info[i]);
	free(info);
	cr_assert_eq(memcmp(&r, &want, sizeof(r)), 0,
		     "outside %lu/%lu host %lu/%lu none %lu/%lu edge %lu/%lu dev %lu/%lu %lu/%lu busy %lu/%lu held %lu/%lu",
		     r.outside_bytes, want.outside_bytes, r.host_bytes, want.host_bytes, r.none_bytes, want.none_bytes,
		     r.in_place_bytes, want.in_place_bytes, r.dev_bytes[0], want.dev_bytes[0], r.dev_bytes[1],
		     want.dev_bytes[1], r.busy_bytes, want.busy_bytes, r.held_bytes, want.held_bytes);
}

/* The whole, pieces that begin and end in the middle of blocks, single pages. */
static void compare_all(struct world *w, uint64_t va, uint64_t pages)
{
	compare(w, va, pages);
	for (uint64_t i = 1; i < pages / 2; i += 97)
		compare(w, va + i * PAGE, pages - 2 * i);
	for (uint64_t i = 0; i < pages; i += 61)
		compare(w, va + i * PAGE, 1);
}

CORE_TEST(residency, untracked)
{
	uint64_t va = app_map_blocks(w, 4);
	struct gm_residency r;

	OK(gm_adopt(w->as, ptr(va + BLOCK + 100), 2 * BLOCK - 200, 0)); /* edges at both ends */
	r = residency(w, va, 4 * BLOCK);
	cr_assert_eq(r.outside_bytes, 2 * BLOCK);
	cr_assert_eq(r.host_bytes, 2 * BLOCK - 2 * PAGE);
	cr_assert_eq(r.in_place_bytes, 2 * PAGE);
	compare_all(w, va, 4 * BLOCK / PAGE);
	r = residency(w, va + BLOCK + 5, 10); /* rounded to pages */
	cr_assert_eq(r.in_place_bytes, PAGE);
	cr_assert_eq(r.outside_bytes, 0);
}

CORE_TEST(residency, the_whole_address_space)
{
	struct gm_residency r;

	(void)app_adopted(w, 3, 1);
	r = residency(w, 0, UINT64_MAX - 2 * PAGE);
	cr_assert_eq(r.host_bytes, 3 * BLOCK);
	cr_assert_eq(r.outside_bytes, 0 - 2 * PAGE - 3 * BLOCK);
}

/* Every place at once, in several blocks, as they are and packed. */
CORE_TEST(residency, every_place, .dev = { BIG, "mock:vram=8M" })
{
	uint64_t va = app_adopted(w, 5, 1);
	struct gm_residency r;

	OK(gm_release(w->as, ptr(va + BLOCK), PAGE * 3 / 2)); /* no more ours, in the middle */
	OK(gm_migrate(w->as, va, BLOCK, w->dev[1], NULL));
	OK(gm_dev_fault(w->ctx[0], va + 2 * BLOCK, GM_WRITE));
	for (uint64_t i = 0; i < BLOCK / PAGE; i += 2)
		OK(gm_migrate(w->as, va + 3 * BLOCK + i * PAGE, PAGE, w->dev[i / 2 % 2], NULL));
	OK(gm_dev_fault(w->ctx[0], va + BLOCK + 9 * UNIT, GM_READ));
	OK(gm_discard(w->as, va + 2 * BLOCK + 40 * PAGE, 30 * PAGE));
	r = residency(w, va, 5 * BLOCK);
	cr_assert_geq(r.dev_bytes[1], BLOCK + BLOCK / 4);
	cr_assert_gt(r.none_bytes, 0);
	cr_assert_gt(r.outside_bytes, 0);
	compare_all(w, va, 5 * BLOCK / PAGE);
	rest(w);
	cr_assert_geq(packed(w), 2);
	compare_all(w, va, 5 * BLOCK / PAGE);
	cr_assert_geq(packed(w), 2, "to look does not open");
}

/* Blocks all in one place, packed: what their codes say. */
CORE_TEST(residency, uniform_and_packed, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 6, 1);

	OK(gm_migrate(w->as, va, 6 * BLOCK, w->dev[0], NULL));
	compare_all(w, va, 6 * BLOCK / PAGE);
	rest(w);
	cr_assert_eq(packed(w), 6);
	cr_assert_eq(residency(w, va, 6 * BLOCK).dev_bytes[0], 6 * BLOCK);
	compare_all(w, va, 6 * BLOCK / PAGE);
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	cr_assert_eq(residency(w, va, 6 * BLOCK).host_bytes, BLOCK);
	compare_all(w, va - BLOCK, 8 * BLOCK / PAGE);
}

CORE_TEST(residency, held_and_busy)
{
	uint64_t va = app_adopted(w, 1, 1);
	struct gm_ws_range range = { .va = va, .bytes = 5 * PAGE, .access = GM_READ };
	struct gm_mask some = gm_mask_span(100, 103);
	struct gm_block *b;
	struct gm_ws *ws;

	OK(gm_ws_acquire(w->ctx[0], &range, 1, SECOND, &ws));
	cr_assert_eq(residency(w, va, BLOCK).held_bytes, 5 * PAGE);
	OK(gm_block_obtain(w->as, va, &b));
	gm_lock(w->env, &b->lock);
	b->busy = gm_mask_or(b->busy, some);
	gm_unlock(w->env, &b->lock);
	cr_assert_eq(residency(w, va, BLOCK).busy_bytes, 3 * PAGE);
	compare_all(w, va, BLOCK / PAGE);
	gm_lock(w->env, &b->lock);
	b->busy = gm_mask_sub(b->busy, some);
	gm_unlock(w->env, &b->lock);
	gm_block_put(b);
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(residency(w, va, BLOCK).held_bytes, 0);
}

/* More blocks than are looked at under one lock. */
CORE_TEST(residency, many_blocks, .dev = { "mock:vram=256M" })
{
	uint64_t va = app_map_blocks(w, 1100);

	OK(gm_adopt(w->as, ptr(va), 1100 * BLOCK, 0));
	for (uint64_t i = 0; i < 1100; i++) /* a block each, on the host but for one page */
		OK(gm_migrate(w->as, va + i * BLOCK, PAGE, w->dev[0], NULL));
	cr_assert_eq(residency(w, va, 1100 * BLOCK).dev_bytes[0], 1100 * PAGE);
	cr_assert_eq(residency(w, va, 1100 * BLOCK).host_bytes, 1100 * (BLOCK - PAGE));
}
