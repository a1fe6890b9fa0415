/* SPDX-License-Identifier: MIT */
/*
 * Regions. Each case of the drawings at the top of core/gm_region.c is a test
 * of its name; then random operations against an array of pages.
 */
#include "config.h"

#include "region_fixture.h"

TestSuite(region, .init = setup, .fini = teardown);

Test(region, i1_alone)
{
	cr_assert(insert(4, 6, ADOPTED));
	cr_assert(insert(10, 12, ADOPTED));
	cr_assert(insert(7, 8, OWNED));
	is("A4-6 O7-8 A10-12");
	cr_assert_eq(rs.stock.count, stocked - 2);
}

Test(region, i2_merges_with_the_left)
{
	insert(4, 6, ADOPTED);
	cr_assert(insert(6, 9, ADOPTED));
	is("A4-9");
	cr_assert_eq(rs.stock.count, stocked - 2, "a node and a leaf for the first, nothing for the second");
}

Test(region, i3_merges_with_the_right)
{
	insert(6, 9, ADOPTED);
	cr_assert(insert(4, 6, ADOPTED));
	is("A4-9");
	cr_assert_eq(rs.stock.count, stocked - 2);
	cr_assert_not_null(find(4 * PAGE), "the tree still finds it");
}

Test(region, i4_joins_both)
{
	insert(2, 4, ADOPTED);
	insert(6, 9, ADOPTED);
	cr_assert(insert(4, 6, ADOPTED));
	is("A2-9");
	cr_assert_eq(rs.stock.count, stocked - 2);
	cr_assert_eq(rs.count, 1);
}

Test(region, i5_an_edge_on_an_edge)
{
	cr_assert(insert(5, 6, EDGE));
	cr_assert(insert(5, 6, EDGE));
	is("E5-6*2");
	cr_assert_eq(rs.stock.count, stocked - 2);
}

Test(region, only_adopted_merges_and_only_with_adopted)
{
	insert(2, 4, OWNED);
	insert(4, 6, OWNED);
	insert(6, 8, ADOPTED);
	insert(8, 9, EDGE);
	insert(9, 10, EDGE);
	insert(10, 12, ADOPTED);
	is("O2-4 O4-6 A6-8 E8-9*1 E9-10*1 A10-12");
	insert(12, 13, OWNED);
	insert(13, 14, ADOPTED);
	is("O2-4 O4-6 A6-8 E8-9*1 E9-10*1 A10-12 O12-13 A13-14");
}

Test(region, the_first_page_of_all_has_no_left)
{
	cr_assert(insert(0, 2, ADOPTED));
	cr_assert(insert(2, 3, ADOPTED));
	is("A0-3");
	cr_assert(carve(0, 1, ADOPTED));
	is("A1-3");
}

Test(region, c1_all_of_it)
{
	insert(4, 6, ADOPTED);
	cr_assert(carve(4, 6, ADOPTED));
	is("");
	insert(4, 6, OWNED);
	cr_assert(carve(3, 9, OWNED));
	is("");
	cr_assert_eq(rs.stock.count, stocked, "pieces come back");
}

Test(region, c2_its_beginning)
{
	insert(4, 8, ADOPTED);
	cr_assert(carve(2, 6, ADOPTED));
	is("A6-8");
	cr_assert(carve(6, 7, ADOPTED));
	is("A7-8");
	cr_assert_null(find(6 * PAGE));
}

Test(region, c3_its_end)
{
	insert(4, 8, ADOPTED);
	cr_assert(carve(6, 10, ADOPTED));
	is("A4-6");
	cr_assert(carve(5, 6, ADOPTED));
	is("A4-5");
}

Test(region, c4_its_middle)
{
	insert(4, 8, OWNED);
	cr_assert(carve(5, 6, OWNED));
	is("O4-5 O6-8");
	cr_assert_eq(rs.stock.count, stocked - 2, "there is room in the leaf");
}

Test(region, c4_without_a_spare_changes_nothing)
{
	insert(4, 8, OWNED);
	while (rs.count < LEAF)
		insert(100 + 2 * (unsigned)rs.count, 101 + 2 * (unsigned)rs.count, OWNED);
	take_stock(rs.stock.count);
	cr_assert_not(carve(5, 6, OWNED));
	cr_assert_not(insert(50, 51, OWNED));
	cr_assert_not(insert(50, 51, ADOPTED));
	cr_assert_not(insert(50, 51, EDGE));
	cr_assert_eq(find(5 * PAGE)->end, 8 * PAGE);
	cr_assert_null(find(50 * PAGE));
	cr_assert_null(gm_regions_check(&rs));
	stock(1);
	cr_assert(carve(5, 6, OWNED));
	cr_assert_eq(find(4 * PAGE)->end, 5 * PAGE);
	cr_assert_eq(find(7 * PAGE)->va, 6 * PAGE);
}

Test(region, c5_an_edge)
{
	insert(5, 6, EDGE);
	insert(5, 6, EDGE);
	cr_assert(carve(5, 6, EDGE));
	is("E5-6*1");
	cr_assert(carve(5, 6, EDGE));
	is("");
	cr_assert_eq(rs.stock.count, stocked);
}

Test(region, c6_several)
{
	insert(2, 6, ADOPTED);  /* by C3 */
	insert(7, 8, ADOPTED);  /* by C1 */
	insert(9, 12, ADOPTED); /* by C2 */
	cr_assert(carve(4, 10, ADOPTED));
	is("A2-4 A10-12");
}

Test(region, c6_leaves_other_kinds)
{
	insert(2, 4, ADOPTED);
	insert(4, 6, OWNED);
	insert(6, 7, EDGE);
	insert(7, 9, ADOPTED);
	cr_assert(carve(0, 20, ADOPTED));
	is("O4-6 E6-7*1");
	cr_assert(carve(0, 20, OWNED));
	is("E6-7*1");
}

Test(region, carving_nothing)
{
	cr_assert(carve(0, 20, ADOPTED));
	insert(4, 6, ADOPTED);
	cr_assert(carve(0, 4, ADOPTED));
	cr_assert(carve(6, 9, ADOPTED));
	cr_assert(carve(0, 20, OWNED));
	is("A4-6");
}

Test(region, lookup_is_exact)
{
	insert(4, 6, ADOPTED);
	insert(8, 9, OWNED);
	cr_assert_null(find(4 * PAGE - 1));
	cr_assert_not_null(find(4 * PAGE));
	cr_assert_not_null(find(6 * PAGE - 1));
	cr_assert_null(find(6 * PAGE));
	cr_assert_null(first_in(6 * PAGE, 8 * PAGE));
	cr_assert_not_null(first_in(6 * PAGE, 8 * PAGE + 1));
	cr_assert_not_null(first_in(5 * PAGE, 5 * PAGE + 1));
	cr_assert_null(gm_regions_next(&rs, find(4 * PAGE), 8 * PAGE));
}

Test(region, excess_nodes_are_handed_out)
{
	void *piece;
	unsigned n = 0;

	cr_assert_null(gm_regions_excess(&rs));
	stock(40);
	for (; (piece = gm_regions_excess(&rs)); n++)
		gm_mem_free(&env, piece, GM_REGION_PIECE_BYTES);
	cr_assert(n > 30 && n <= 40, "%u", n);
	cr_assert_eq(gm_regions_room(&rs), GM_REGION_SPARES);
}

static void damaged(unsigned at, int tag, uint16_t value, const char *what)
{
	int16_t was_tag = only_leaf()->tag[at];
	uint16_t *values = gm_leaf_small_values(only_leaf()), was = values[at];

	only_leaf()->tag[at] = (int16_t)tag;
	values[at] = value;
	cr_assert_not_null(gm_regions_check(&rs), "%s", what);
	only_leaf()->tag[at] = was_tag;
	values[at] = was;
	cr_assert_null(gm_regions_check(&rs));
}

Test(region, the_check_sees_damage)
{
	const int page = 1 << GM_LEAF_PAGE_SHIFT;
	int a, b;

	stock_small();
	insert(4, 6, ADOPTED);
	insert(8, 9, EDGE);
	a = only_leaf()->tag[0];
	b = only_leaf()->tag[1];
	damaged(0, a, 5, "overlap");
	damaged(0, a | 1, 2, "overlap, by the value's high part");
	damaged(0, a, 0, "empty");
	damaged(1, b, 0, "an edge nobody uses");
	damaged(0, b + page, 1, "order");
	damaged(1, a, 1, "twice the same page");
	damaged(1, GM_LEAF_NO_TAG, 1, "fewer than it says");
	damaged(2, b + page, 1, "more than it says");
	damaged(0, a | -32768, 2, "no page");
	only_leaf()->n = 0;
	cr_assert_not_null(gm_regions_check(&rs), "an empty leaf");
	only_leaf()->n = 2;
	rs.count++;
	cr_assert_not_null(gm_regions_check(&rs), "miscounted");
	rs.count--;
	((struct gm_radix_node *)rs.tree.root)->used |= 2;
	cr_assert_not_null(gm_regions_check(&rs), "a child that is not there");
	((struct gm_radix_node *)rs.tree.root)->used &= ~UINT64_C(2);
	insert(10, 11, ADOPTED);
	insert(11, 12, OWNED);
	cr_assert_null(gm_regions_check(&rs));
	only_leaf()->tag[3] |= 1 << GM_LEAF_KIND_SHIFT; /* adopted as well */
	cr_assert_not_null(gm_regions_check(&rs), "neighbours that should be one");
}

Test(region, edges_go_whoever_uses_them)
{
	insert(2, 4, ADOPTED);
	for (unsigned i = 0; i < 3; i++)
		insert(5, 6, EDGE);
	insert(7, 8, EDGE);
	insert(9, 10, EDGE);
	gm_regions_drop_edges(&rs, 3 * PAGE, 8 * PAGE);
	is("A2-4 E9-10*1");
}

/* ---------------------------------------------------------------- oracle */

#define PAGES 48

/* One page: nothing, or what; owned memory also which allocation. */
struct cell {
	bool used;
	enum gm_region_kind kind;
	unsigned id, users;
};

static struct cell cell[PAGES];
static uint64_t seed = 88172645463325252u;

static unsigned rnd(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static bool same(const struct cell *a, const struct cell *b)
{
	return a->used && b->used && a->kind == b->kind && a->id == b->id && a->kind != EDGE;
}

static unsigned runs(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += cell[i].used && !(i && same(&cell[i - 1], &cell[i]));
	return n;
}

/* The regions are exactly the runs of equal cells. */
static void compare(void)
{
	const char *wrong = gm_regions_check(&rs);
	unsigned count = 0;

	cr_assert_null(wrong, "%s", wrong);
	for (unsigned i = 0; i < PAGES; i++) {
		struct gm_region *r = find(base + i * PAGE);

		cr_assert_eq(r != NULL, cell[i].used, "page %u", i);
		if (!r)
			continue;
		cr_assert_eq(r->kind, cell[i].kind);
		cr_assert(r->kind != EDGE || r->users == cell[i].users);
		cr_assert_eq(r->va == base + i * PAGE, !(i && same(&cell[i - 1], &cell[i])), "page %u begins a region", i);
		cr_assert_eq(r->end == base + (i + 1) * PAGE, !(i + 1 < PAGES && same(&cell[i], &cell[i + 1])),
			     "page %u ends one", i);
	}
	for (struct gm_region *r = first_in(0, UINT64_MAX); r; r = gm_regions_next(&rs, r, UINT64_MAX))
		count++;
	cr_assert_eq(count, runs());
}

static void random_insert(unsigned first, unsigned end, enum gm_region_kind kind, unsigned id)
{
	bool on_edge, ok;
	unsigned room = gm_regions_room(&rs);

	if (kind == EDGE)
		end = first + 1;
	else if (!cell[first].used && rnd(3) == 0) { /* exactly the gap */
		for (end = first + 1; end < PAGES && !cell[end].used;)
			end++;
		while (first && !cell[first - 1].used)
			first--;
	}
	on_edge = kind == EDGE && cell[first].used && cell[first].kind == EDGE;
	for (unsigned i = first; i < end && !on_edge; i++)
		if (cell[i].used)
			return; /* not allowed by the contract */
	ok = insert(first, end, kind);
	cr_assert(ok || !room, "insert refused with room in stock");
	if (!ok)
		return;
	if (on_edge)
		cell[first].users++;
	else
		for (unsigned i = first; i < end; i++)
			cell[i] = (struct cell){ .used = true, .kind = kind, .id = kind == OWNED ? id : 0, .users = 1 };
}

static void random_carve(unsigned first, unsigned end, enum gm_region_kind kind)
{
	unsigned room = gm_regions_room(&rs);
	bool ok;

	if (kind == EDGE)
		end = first + 1;
	ok = carve(first, end, kind);
	cr_assert(ok || !room, "carve refused with room in stock");
	for (unsigned i = first; i < end && ok; i++)
		if (cell[i].used && cell[i].kind == kind && (kind != EDGE || --cell[i].users == 0))
			cell[i] = (struct cell){ .used = false };
}

static unsigned pieces_below(const struct gm_radix_node *n, unsigned height)
{
	unsigned pieces = 1;

	for (unsigned i = 0; i < GM_RADIX_WAYS; i++) {
		if (!n->child[i])
			continue;
		if (height > 1)
			pieces += pieces_below(n->child[i], height - 1);
		else
			pieces++; /* the random rounds stay below what a leaf takes */
	}
	return pieces;
}

/* In the tree and in stock. */
static unsigned pieces(void)
{
	return rs.stock.count + (rs.tree.root ? pieces_below(rs.tree.root, rs.tree.height) : 0);
}

static void random_round(unsigned round)
{
	unsigned first = rnd(PAGES), end = first + 1 + rnd(PAGES - first < 9 ? PAGES - first : 9);
	unsigned dice = rnd(8), before = pieces();
	enum gm_region_kind kind = dice < 4 ? ADOPTED : dice < 7 ? OWNED : EDGE;

	if (rnd(2))
		random_insert(first, end, kind, round);
	else
		random_carve(first, end, kind);
	for (unsigned i = 0; i < PAGES && round % 64 == 0; i++) /* or they would fill everything */
		while (cell[i].used && cell[i].kind == EDGE)
			random_carve(i, i + 1, EDGE);
	cr_assert_eq(pieces(), before, "a piece was lost");
	compare();
	if (rs.stock.count && rnd(4) == 0) /* now and then without any */
		take_stock(1 + rnd(rs.stock.count));
	else if (!gm_regions_room(&rs) && rnd(3) == 0)
		stock(1 + rnd(32));
}

/* Across a border of pieces, so that regions begin in one and end in the other. */
Test(region, random_operations)
{
	base = GM_BLOCK_BYTES - 20 * PAGE;
	for (unsigned round = 0; round < 20000; round++)
		random_round(round);
}
