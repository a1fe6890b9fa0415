/* SPDX-License-Identifier: MIT */
/*
 * Regions: an ordered set of disjoint VA ranges. Insert and carve by case;
 * `[==]` is what there is, `(--)` the request, each case is a test:
 *
 * insert (adopted memory merges with adopted neighbours, so that a range taken
 * out and put back is what it was; owned ranges keep their identity, because
 * gm_free() is given their beginning):
 *
 *   I1          (---)            ->        [===]           alone
 *   I2   [=====](---)            ->  [=========]           merges with the left
 *   I3          (---)[=====]     ->  [=========]           merges with the right
 *   I4   [=====](---)[=====]     ->  [===============]     joins both; one node becomes a spare
 *   I5   an edge on an edge      ->  users + 1
 *
 * carve:
 *
 *   C1        [=====]      C2    [=====]       C3     [=====]     C4    [=====]
 *           (---------)        (---)                      (---)           (-)
 *      ->   nothing             ->  [==]        ->    [===]        ->   [=] [=]   uses a spare
 *   C5   an edge: users - 1, gone at 0 (a page has no inside, so C2..C4 cannot occur)
 *   C6   several regions: each by its own case, at most one of them by C4
 *
 * Where they are: a radix tree (gm_radix.c) over the 2 MiB piece in which a region
 * begins, and there a short chain of leaves in the order of addresses, of up to 16
 * regions each. A region stands once, however long it is: who is not found in the
 * piece of an address lies in the nearest piece below that has any.
 *
 *     [ node ]-->[ node ]-- 2 MiB --> [ pages | regions ] --> [ pages | regions ]
 *
 * So a lookup costs a walk down the tree, sixteen comparisons of 16-bit page numbers
 * at once, and the region beside them: two lines that are cold, in one page of memory.
 * A leaf that is full is split in halves; one that becomes empty goes.
 *
 * Pointers to regions are good until the next change.
 *
 * Memory: the fault handler carves (an unmap event), and it must not allocate,
 * so pieces come from a small stock that others fill beforehand. Tree nodes and
 * leaves are pieces of one size. An insertion or a carving (C2, C4) takes at most
 * a leaf and the nodes above it, and, the first time at such an address, some
 * on top: gm_regions_room() says how many are sure to succeed.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "core/gm_region.h"

#define NO_PAGE UINT16_MAX
/* Nodes for a tree that has to become as high as it can get. */
#define GROWTH 10u
/* Higher than that only where a processor has more than 57 bits of VA. */
#define USUAL_HEIGHT 6u

_Static_assert(sizeof(struct gm_region_leaf) <= sizeof(struct gm_radix_node), "a leaf fits a piece");

static uint64_t key_of(uint64_t va)
{
	return va / GM_BLOCK_BYTES;
}

static unsigned page_of(uint64_t va)
{
	return (unsigned)(va % GM_BLOCK_BYTES / GM_PAGE_BYTES);
}

/* ---------------------------------------------------------------- stock */

unsigned gm_regions_room(const struct gm_regions *rs)
{
	unsigned each = rs->tree.height > USUAL_HEIGHT ? rs->tree.height : USUAL_HEIGHT; /* a leaf, and no second root */

	return rs->stock.count > GROWTH ? (rs->stock.count - GROWTH) / each : 0;
}

void gm_regions_stock(struct gm_regions *rs, void *piece)
{
	gm_radix_spares_give(&rs->stock, piece);
}

void *gm_regions_excess(struct gm_regions *rs)
{
	return gm_regions_room(rs) > GM_REGION_SPARES ? gm_radix_spares_take(&rs->stock) : NULL;
}

void *gm_region_new(struct gm_env *env)
{
	return gm_mem_alloc(env, GM_REGION_PIECE_BYTES);
}

static struct gm_region_leaf *leaf_take(struct gm_regions *rs)
{
	struct gm_region_leaf *leaf = (void *)gm_radix_spares_take(&rs->stock);

	if (leaf) {
		*leaf = (struct gm_region_leaf){ .n = 0 };
		memset(leaf->page, 0xff, sizeof(leaf->page));
	}
	return leaf;
}

static void leaf_give(struct gm_regions *rs, struct gm_region_leaf *leaf)
{
	memset(leaf, 0, GM_REGION_PIECE_BYTES); /* as a fresh node */
	gm_regions_stock(rs, leaf);
}

void gm_regions_init(struct gm_regions *rs)
{
	*rs = (struct gm_regions){ .count = 0 };
}

void gm_regions_fini(struct gm_regions *rs, struct gm_env *env)
{
	uint64_t key = 0;

	for (void **slot; (slot = gm_radix_ceil(&rs->tree, &key)); key = 0) {
		for (struct gm_region_leaf *leaf = *slot, *next; leaf; leaf = next) {
			next = leaf->next;
			leaf_give(rs, leaf);
		}
		gm_radix_drop(&rs->tree, key, &rs->stock);
	}
	gm_radix_spares_free(env, &rs->stock);
	rs->count = 0;
}

/* --------------------------------------------------------------- lookup */

/* How many regions of a leaf begin at or below a page: branchless, so that the compiler compares many at once. */
static unsigned begun(const struct gm_region_leaf *leaf, unsigned page)
{
	uint16_t n = 0;

	for (unsigned i = 0; i < GM_REGION_LEAF; i++)
		n = (uint16_t)(n + (leaf->page[i] <= page));
	return n;
}

/* The leaf of a chain in which a page is, or would be. */
static struct gm_region_leaf *leaf_of(struct gm_region_leaf *leaf, unsigned page)
{
	while (leaf->next && leaf->next->page[0] <= page)
		leaf = leaf->next;
	return leaf;
}

/* The last region of the nearest piece below. */
static struct gm_region *in_piece_below(struct gm_regions *rs, uint64_t key)
{
	struct gm_region_leaf *leaf;
	void **slot;

	if (!key--)
		return NULL;
	slot = gm_radix_floor(&rs->tree, &key);
	if (!slot)
		return NULL;
	leaf = leaf_of(*slot, NO_PAGE - 1);
	return &leaf->region[leaf->n - 1];
}

/* The last region that begins at or below va, or NULL. */
static struct gm_region *at_or_below(struct gm_regions *rs, uint64_t va)
{
	struct gm_region_leaf *leaf = gm_radix_get(&rs->tree, key_of(va));

	if (leaf) {
		unsigned n;

		leaf = leaf_of(leaf, page_of(va));
		n = begun(leaf, page_of(va));
		if (n)
			return &leaf->region[n - 1];
	}
	return in_piece_below(rs, key_of(va));
}

/* The first region that begins above va, or NULL. */
static struct gm_region *above(struct gm_regions *rs, uint64_t va)
{
	struct gm_region_leaf *leaf = gm_radix_get(&rs->tree, key_of(va));
	uint64_t key = key_of(va) + 1;
	void **slot;

	if (leaf) {
		unsigned n;

		leaf = leaf_of(leaf, page_of(va));
		n = begun(leaf, page_of(va));
		if (n < leaf->n)
			return &leaf->region[n];
		if (leaf->next)
			return &leaf->next->region[0];
	}
	slot = gm_radix_ceil(&rs->tree, &key);
	return slot ? ((struct gm_region_leaf *)*slot)->region : NULL;
}

struct gm_region *gm_regions_find(struct gm_regions *rs, uint64_t va)
{
	struct gm_region *r = at_or_below(rs, va);

	return r && va < r->end ? r : NULL;
}

struct gm_region *gm_regions_first(struct gm_regions *rs, uint64_t va, uint64_t end)
{
	struct gm_region *r = at_or_below(rs, va);

	if (!r || r->end <= va)
		r = above(rs, va);
	return r && r->va < end ? r : NULL;
}

struct gm_region *gm_regions_next(struct gm_regions *rs, struct gm_region *r, uint64_t end)
{
	r = above(rs, r->va);
	return r && r->va < end ? r : NULL;
}

/* -------------------------------------------------------------- changes */

/* Upper half into a new leaf behind it. */
static void split(struct gm_region_leaf *leaf, struct gm_region_leaf *fresh)
{
	const unsigned half = GM_REGION_LEAF / 2;

	memcpy(fresh->page, leaf->page + half, half * sizeof(leaf->page[0]));
	memcpy(fresh->region, leaf->region + half, half * sizeof(leaf->region[0]));
	memset(leaf->page + half, 0xff, half * sizeof(leaf->page[0]));
	fresh->n = leaf->n - half;
	leaf->n = half;
	fresh->next = leaf->next;
	leaf->next = fresh;
}

static void leaf_insert(struct gm_region_leaf *leaf, const struct gm_region *r)
{
	unsigned at = begun(leaf, page_of(r->va)), after = leaf->n - at;

	memmove(leaf->page + at + 1, leaf->page + at, after * sizeof(leaf->page[0]));
	memmove(leaf->region + at + 1, leaf->region + at, after * sizeof(leaf->region[0]));
	leaf->page[at] = (uint16_t)page_of(r->va);
	leaf->region[at] = *r;
	leaf->n++;
}

/* False: not enough in stock, nothing changed. */
static bool add(struct gm_regions *rs, struct gm_region r)
{
	struct gm_region_leaf *leaf = gm_radix_get(&rs->tree, key_of(r.va)), *fresh;

	if (leaf) {
		leaf = leaf_of(leaf, page_of(r.va));
		if (leaf->n == GM_REGION_LEAF) {
			fresh = leaf_take(rs);
			if (!fresh)
				return false;
			split(leaf, fresh);
			leaf = leaf_of(leaf, page_of(r.va));
		}
	} else {
		if (rs->stock.count < gm_radix_lacks(&rs->tree, key_of(r.va)) + 1)
			return false;
		leaf = leaf_take(rs);
		gm_radix_put(&rs->tree, key_of(r.va), leaf, &rs->stock);
	}
	leaf_insert(leaf, &r);
	rs->count++;
	return true;
}

/* Take one out; what becomes empty goes back into stock. */
static void drop(struct gm_regions *rs, const struct gm_region *r)
{
	uint64_t key = key_of(r->va);
	void **slot = gm_radix_slot(&rs->tree, key);
	struct gm_region_leaf *head = *slot, *leaf = leaf_of(head, page_of(r->va));
	unsigned at = begun(leaf, page_of(r->va)) - 1, after = leaf->n - at - 1;

	assert(&leaf->region[at] == r);
	memmove(leaf->page + at, leaf->page + at + 1, after * sizeof(leaf->page[0]));
	memmove(leaf->region + at, leaf->region + at + 1, after * sizeof(leaf->region[0]));
	leaf->page[--leaf->n] = NO_PAGE;
	rs->count--;
	if (leaf->n)
		return;
	if (leaf != head) {
		while (head->next != leaf)
			head = head->next;
		head->next = leaf->next;
	} else if (leaf->next) {
		*slot = leaf->next;
	} else {
		gm_radix_drop(&rs->tree, key, &rs->stock);
	}
	leaf_give(rs, leaf);
}

/* Its beginning goes elsewhere, past no other region. False: not enough in stock, nothing changed. */
static bool move_va(struct gm_regions *rs, struct gm_region *r, uint64_t va)
{
	struct gm_region moved = *r;

	moved.va = va;
	if (key_of(va) == key_of(r->va)) {
		struct gm_region_leaf *leaf = leaf_of(gm_radix_get(&rs->tree, key_of(va)), page_of(r->va));

		leaf->page[r - leaf->region] = (uint16_t)page_of(va);
		r->va = va;
		return true;
	}
	if (rs->stock.count < gm_radix_lacks(&rs->tree, key_of(va)) + 1)
		return false;
	drop(rs, r); /* gives, so there is still enough */
	(void)add(rs, moved);
	return true;
}

bool gm_regions_insert(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region *meets = gm_regions_first(rs, va, end);
	struct gm_region *left, *right;
	bool ok = true;

	rs->inserts++;
	if (meets) {
		assert(kind == GM_REGION_EDGE && meets->kind == GM_REGION_EDGE && meets->va == va);
		meets->users++; /* I5 */
		return true;
	}
	if (kind != GM_REGION_ADOPTED)
		return add(rs, (struct gm_region){ .va = va, .end = end, .kind = kind, .users = 1 });
	left = va ? gm_regions_find(rs, va - 1) : NULL;
	right = gm_regions_find(rs, end);
	if (left && left->kind != kind)
		left = NULL;
	if (right && right->kind != kind)
		right = NULL;
	if (left && right) { /* I4 */
		left->end = right->end;
		drop(rs, right);
	} else if (left) { /* I2 */
		left->end = end;
	} else if (right) { /* I3: the order does not change, nothing lies between */
		ok = move_va(rs, right, va);
	} else { /* I1 */
		ok = add(rs, (struct gm_region){ .va = va, .end = end, .kind = kind, .users = 1 });
	}
	return ok;
}

/* C1..C5 for one region that the range meets. */
static bool carve_one(struct gm_regions *rs, struct gm_region *r, uint64_t va, uint64_t end)
{
	bool ok = true;

	if (r->kind == GM_REGION_EDGE) {
		if (--r->users == 0)
			drop(rs, r);
	} else if (va <= r->va && end >= r->end) {
		drop(rs, r); /* C1 */
	} else if (va <= r->va) {
		ok = move_va(rs, r, end); /* C2 */
	} else if (end >= r->end) {
		r->end = va; /* C3 */
	} else { /* C4 */
		struct gm_region head = *r;

		ok = add(rs, (struct gm_region){ .va = end, .end = r->end, .kind = r->kind, .users = 1 });
		if (ok) /* a split may have moved it */
			gm_regions_find(rs, head.va)->end = va;
	}
	return ok;
}

/*
 * From the last one down: only that one can lack something from the stock, so
 * that nothing has changed yet when it does.
 */
bool gm_regions_carve(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region *r = at_or_below(rs, end - 1);

	while (r && r->end > va) {
		uint64_t begin = r->va;

		if (r->kind == kind && !carve_one(rs, r, va, end))
			return false;
		r = begin > va ? at_or_below(rs, begin - 1) : NULL;
	}
	return true;
}

/* One chain: leaves in order and not empty, pages as their regions say. */
static const char *check_chain(const struct gm_region_leaf *leaf, uint64_t key)
{
	unsigned last = 0;

	for (; leaf; leaf = leaf->next) {
		if (!leaf->n || leaf->n > GM_REGION_LEAF)
			return "a leaf of the regions is empty";
		for (unsigned i = 0; i < GM_REGION_LEAF; i++) {
			if (i >= leaf->n && leaf->page[i] != NO_PAGE)
				return "an unused place of a leaf is not marked so";
			if (i >= leaf->n)
				continue;
			if (key_of(leaf->region[i].va) != key || page_of(leaf->region[i].va) != leaf->page[i])
				return "a region does not stand where it is looked for";
			if (last > leaf->page[i])
				return "regions overlap";
			last = leaf->page[i] + 1u;
		}
	}
	return NULL;
}

static const char *check_tree(struct gm_regions *rs)
{
	const char *wrong = gm_radix_check(&rs->tree);
	uint64_t key = 0;

	for (void **slot; !wrong && (slot = gm_radix_ceil(&rs->tree, &key)); key++)
		wrong = check_chain(*slot, key);
	return wrong;
}

const char *gm_regions_check(struct gm_regions *rs)
{
	struct gm_region *before = NULL;
	const char *wrong = check_tree(rs);
	uint64_t count = 0;

	for (struct gm_region *r = gm_regions_first(rs, 0, UINT64_MAX); r && !wrong; r = gm_regions_next(rs, r, UINT64_MAX)) {
		count++;
		if (r->va >= r->end || r->va % GM_PAGE_BYTES || r->end % GM_PAGE_BYTES)
			return "a region is empty or not made of whole pages";
		if (r->kind == GM_REGION_EDGE && (r->end - r->va != GM_PAGE_BYTES || !r->users))
			return "an edge is not one page in use";
		if (before && before->end > r->va)
			return "regions overlap";
		if (before && before->end == r->va && before->kind == r->kind && r->kind == GM_REGION_ADOPTED)
			return "adopted neighbours are not merged";
		before = r;
	}
	return wrong || count == rs->count ? wrong : "regions are miscounted";
}
