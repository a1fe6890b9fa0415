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
 * Memory: the fault handler carves (an unmap event), and it must not allocate,
 * so nodes come from a small stock that others fill beforehand.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_region.h"

static int region_cmp(struct gm_region *a, struct gm_region *b)
{
	return a->va < b->va ? -1 : a->va > b->va;
}

RB_GENERATE_INTERNAL(gm_region_tree, gm_region, link, region_cmp, static __attribute__((unused)))

static struct gm_region *take_spare(struct gm_regions *rs)
{
	struct gm_region *r = rs->spare;

	if (r) {
		rs->spare = r->next_spare;
		rs->spares--;
	}
	return r;
}

void gm_regions_stock(struct gm_regions *rs, struct gm_region *spare)
{
	spare->next_spare = rs->spare;
	rs->spare = spare;
	rs->spares++;
}

struct gm_region *gm_regions_excess(struct gm_regions *rs)
{
	return rs->spares > GM_REGION_SPARES ? take_spare(rs) : NULL;
}

void gm_regions_init(struct gm_regions *rs)
{
	*rs = (struct gm_regions){ .count = 0 };
	RB_INIT(&rs->tree);
}

void gm_regions_fini(struct gm_regions *rs, struct gm_env *env)
{
	struct gm_region *r;

	while ((r = RB_MIN(gm_region_tree, &rs->tree))) {
		RB_REMOVE(gm_region_tree, &rs->tree, r);
		gm_mem_free(env, r, sizeof(*r));
	}
	while ((r = take_spare(rs)))
		gm_mem_free(env, r, sizeof(*r));
	rs->count = 0;
}

struct gm_region *gm_region_new(struct gm_env *env)
{
	return gm_mem_alloc(env, sizeof(struct gm_region));
}

/* The last region that begins at or below va, or NULL. */
static struct gm_region *at_or_below(struct gm_regions *rs, uint64_t va)
{
	struct gm_region *r = RB_ROOT(&rs->tree), *best = NULL;

	while (r) {
		if (r->va <= va) {
			best = r;
			r = RB_RIGHT(r, link);
		} else {
			r = RB_LEFT(r, link);
		}
	}
	return best;
}

struct gm_region *gm_regions_find(struct gm_regions *rs, uint64_t va)
{
	struct gm_region *r = at_or_below(rs, va);

	return r && va < r->end ? r : NULL;
}

struct gm_region *gm_regions_first(struct gm_regions *rs, uint64_t va, uint64_t end)
{
	struct gm_region *r = at_or_below(rs, va);

	if (!r)
		r = RB_MIN(gm_region_tree, &rs->tree);
	else if (r->end <= va)
		r = RB_NEXT(gm_region_tree, &rs->tree, r);
	return r && r->va < end ? r : NULL;
}

struct gm_region *gm_regions_next(struct gm_regions *rs, struct gm_region *r, uint64_t end)
{
	(void)rs;
	r = RB_NEXT(gm_region_tree, &rs->tree, r);
	return r && r->va < end ? r : NULL;
}

/* Take a node out; it becomes a spare. */
static void drop(struct gm_regions *rs, struct gm_region *r)
{
	RB_REMOVE(gm_region_tree, &rs->tree, r);
	rs->count--;
	gm_regions_stock(rs, r);
}

static bool add(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region *r, *there;

	r = take_spare(rs);
	if (!r)
		return false;
	*r = (struct gm_region){ .va = va, .end = end, .kind = kind, .users = 1 };
	there = RB_INSERT(gm_region_tree, &rs->tree, r);
	assert(!there);
	(void)there;
	rs->count++;
	return true;
}

bool gm_regions_insert(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region *meets = gm_regions_first(rs, va, end);
	struct gm_region *left, *right;

	rs->inserts++;
	if (meets) {
		assert(kind == GM_REGION_EDGE && meets->kind == GM_REGION_EDGE && meets->va == va);
		meets->users++; /* I5 */
		return true;
	}
	if (kind != GM_REGION_ADOPTED)
		return add(rs, va, end, kind);
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
	} else if (right) { /* I3: the order of the tree does not change, nothing lies between */
		right->va = va;
	} else {
		return add(rs, va, end, kind); /* I1 */
	}
	return true;
}

/* C1..C5 for one region that the range meets. */
static void carve_one(struct gm_regions *rs, struct gm_region *r, uint64_t va, uint64_t end)
{
	if (r->kind == GM_REGION_EDGE) {
		if (--r->users == 0)
			drop(rs, r);
	} else if (va <= r->va && end >= r->end) {
		drop(rs, r); /* C1 */
	} else if (va <= r->va) {
		r->va = end; /* C2 */
	} else if (end >= r->end) {
		r->end = va; /* C3 */
	} else {
		uint64_t tail = r->end;
		bool added;

		r->end = va; /* C4 */
		added = add(rs, end, tail, r->kind);
		assert(added);
		(void)added;
	}
}

bool gm_regions_carve(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region *r = gm_regions_first(rs, va, end), *next;

	if (r && r->kind == kind && kind != GM_REGION_EDGE && r->va < va && r->end > end && !rs->spares)
		return false;
	for (; r; r = next) {
		next = gm_regions_next(rs, r, end);
		if (r->kind == kind)
			carve_one(rs, r, va, end);
	}
	return true;
}

const char *gm_regions_check(struct gm_regions *rs)
{
	struct gm_region *r, *before = NULL;
	uint64_t count = 0;

	RB_FOREACH(r, gm_region_tree, &rs->tree) {
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
	return count != rs->count ? "regions are miscounted" : NULL;
}
