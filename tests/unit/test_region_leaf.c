/* SPDX-License-Identifier: MIT */
/*
 * Leaves of regions: small ones and large ones, one in place of another, what that takes from the stock, and what is
 * promised of that.
 */
#include "config.h"

#include "region_fixture.h"

TestSuite(region_leaf, .init = setup, .fini = teardown);

/* More than a leaf in one piece, and all of it out again in another order. */
Test(region_leaf, a_piece_full_of_pages)
{
	stock_small();
	while (gm_regions_room(&rs) < 20)
		stock(1);
	for (unsigned i = 0; i < 256; i++)
		cr_assert(insert(i * 77 % 256 * 2, i * 77 % 256 * 2 + 1, ADOPTED));
	cr_assert_null(gm_regions_check(&rs));
	for (unsigned i = 0; i < 512; i++)
		cr_assert_eq(find(i * PAGE) != NULL, i % 2 == 0);
	cr_assert(insert(1, 2, ADOPTED), "joins two");
	cr_assert_eq(rs.count, 255);
	for (unsigned i = 0; i < 256; i++)
		cr_assert(carve(i * 91 % 256 * 2, i * 91 % 256 * 2 + 2, ADOPTED));
	is("");
	cr_assert_not(gm_regions_lack_small(&rs), "the small leaf came back when a large one took its place");
}

Test(region_leaf, small_leaves)
{
	unsigned before = rs.stock.count;

	for (unsigned i = 0; i <= GM_REGION_SPARES; i++)
		stock_small();
	for (unsigned i = 0; i < SMALL_LEAF; i++)
		cr_assert(insert(i * 2, i * 2 + 1, OWNED));
	cr_assert_eq(rs.stock.count, before - 1, "a node only");
	cr_assert_eq(rs.smalls, GM_REGION_SPARES);
	cr_assert_null(gm_regions_excess_small(&rs));
	cr_assert(insert(31, 32, OWNED));
	cr_assert_eq(rs.stock.count, before - 2, "a large leaf took its place");
	cr_assert_null(gm_regions_check(&rs));
	gm_mem_free(&env, gm_regions_excess_small(&rs), GM_REGION_SMALL_BYTES);
	cr_assert_null(gm_regions_excess_small(&rs));
	cr_assert(carve(0, 100, OWNED));
	cr_assert_eq(rs.stock.count, before);
}

/* More pages than a small leaf has bits for. */
#define LONG (1u << 20)

static bool in_small_leaf(void)
{
	return gm_leaf_is_small(only_leaf());
}

Test(region_leaf, long_ones_need_a_large_leaf)
{
	unsigned before = rs.stock.count;

	stock_small();
	cr_assert(insert(1, LONG, OWNED));
	cr_assert(in_small_leaf());
	cr_assert_eq(find((LONG - 1) * PAGE)->end, LONG * PAGE);
	cr_assert_eq(rs.stock.count, before - 1, "a node only");
	cr_assert(carve(1, LONG, OWNED));
	cr_assert(insert(3, 4, EDGE));
	cr_assert(insert(5, 5 + LONG, OWNED));
	cr_assert_not(in_small_leaf());
	cr_assert_eq(rs.stock.count, before - 2);
	is("E3-4*1 O5-1048581");
	cr_assert(carve(0, 3 * LONG, OWNED));
	cr_assert(carve(3, 4, EDGE));
	cr_assert_eq(rs.stock.count, before);
	cr_assert(insert(5, 5 + LONG, OWNED), "as the first of a piece");
	cr_assert_not(in_small_leaf());
	is("O5-1048581");
	cr_assert_not(gm_regions_lack_small(&rs));
}

/* Merging makes it longer than its leaf has bits for; nothing changes where there is no large leaf in stock. */
static void becomes_long(unsigned first, unsigned end, const char *before, const char *after)
{
	unsigned room = rs.stock.count;

	cr_assert(in_small_leaf());
	is(before);
	take_stock(room);
	cr_assert_not(insert(first, end, ADOPTED));
	is(before);
	cr_assert(in_small_leaf());
	stock(1);
	cr_assert(insert(first, end, ADOPTED));
	is(after);
	cr_assert_not(in_small_leaf());
	cr_assert_eq(rs.stock.count, 0);
}

Test(region_leaf, i2_becomes_long)
{
	stock_small();
	insert(2, 3, EDGE);
	insert(4, 6, ADOPTED);
	becomes_long(6, 4 + LONG, "E2-3*1 A4-6", "E2-3*1 A4-1048580");
}

Test(region_leaf, i3_becomes_long)
{
	stock_small();
	insert(6, 5 + LONG, ADOPTED);
	becomes_long(4, 6, "A6-1048581", "A4-1048581");
}

Test(region_leaf, i4_becomes_long)
{
	stock_small();
	insert(4, 6, ADOPTED);
	insert(8, 4 + LONG, ADOPTED);
	becomes_long(6, 8, "A4-6 A8-1048580", "A4-1048580");
	cr_assert_eq(rs.count, 1);
}

Test(region_leaf, i5_more_users_than_a_small_leaf_counts)
{
	stock_small();
	for (unsigned i = 1; i < LONG; i++)
		insert(4, 5, EDGE);
	cr_assert(in_small_leaf());
	is("E4-5*1048575");
	cr_assert(insert(4, 5, EDGE));
	cr_assert_not(in_small_leaf());
	is("E4-5*1048576");
	for (unsigned i = 0; i < LONG; i++)
		carve(4, 5, EDGE);
	is("");
}

/* What is promised is no room for others, whether they need a new leaf, a larger one or half of one. */
static void promise_survives(unsigned leaf)
{
	const uint64_t far = UINT64_C(1) << 56;
	const unsigned blocks = 20;
	unsigned kept;

	for (unsigned b = 0; b < blocks; b++) {
		while (gm_regions_room(&rs) < 2)
			stock(1);
		for (unsigned i = 0; i < leaf; i++) {
			if (leaf < LEAF && !rs.small)
				stock_small();
			cr_assert(insert(b * GM_BLOCK_PAGES + i * 2, b * GM_BLOCK_PAGES + i * 2 + 1, OWNED));
		}
	}
	while (rs.small)
		gm_mem_free(&env, gm_regions_take_small(&rs), GM_REGION_SMALL_BYTES);
	while (gm_regions_room(&rs) > 1)
		take_stock(1);
	cr_assert(gm_regions_promise(&rs));
	kept = gm_regions_kept(&rs);
	cr_assert_geq(rs.stock.count, kept);
	for (unsigned b = 0; b < blocks; b++) {
		uint64_t page = b * GM_BLOCK_PAGES + leaf * 2;
		unsigned before = rs.stock.count;

		cr_assert_eq(insert(page, page + 1, OWNED), before > kept, "block %u", b);
		cr_assert_geq(rs.stock.count, kept);
	}
	cr_assert_null(gm_regions_check(&rs));
	while (rs.small)
		gm_mem_free(&env, gm_regions_take_small(&rs), GM_REGION_SMALL_BYTES);
	gm_regions_redeem(&rs);
	cr_assert(gm_regions_insert(&rs, far, far + PAGE, OWNED), "what was promised");
}

Test(region_leaf, splits_leave_what_is_promised)
{
	promise_survives(LEAF);
}

Test(region_leaf, larger_leaves_leave_what_is_promised)
{
	promise_survives(SMALL_LEAF);
}

/* Two are promised while all there is lies low; the first that is made lies high, and the tree has to grow for it. */
Test(region_leaf, each_promise_is_kept)
{
	const uint64_t high = UINT64_C(0x7f0000000000), apart = UINT64_C(64) * 64 * GM_BLOCK_BYTES;

	while (!gm_regions_room(&rs))
		stock(1);
	cr_assert(insert(4 * GM_BLOCK_PAGES, 5 * GM_BLOCK_PAGES, GM_REGION_ADOPTED));
	take_stock(rs.stock.count);
	for (unsigned i = 0; i < 2; i++)
		while (!gm_regions_promise(&rs))
			stock(1);
	for (unsigned i = 0; i < 2; i++) {
		gm_regions_redeem(&rs);
		cr_assert(gm_regions_insert(&rs, high + i * apart, high + i * apart + PAGE, OWNED), "number %u", i);
	}
}
