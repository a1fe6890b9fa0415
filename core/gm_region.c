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
 *   I4   [=====](---)[=====]     ->  [===============]     joins both; a leaf that is empty goes back into stock
 *   I5   an edge on an edge      ->  users + 1
 *
 * carve:
 *
 *   C1        [=====]      C2    [=====]       C3     [=====]     C4    [=====]
 *           (---------)        (---)                      (---)           (-)
 *      ->   nothing             ->  [==]        ->    [===]        ->   [=] [=]   needs a place more
 *   C5   an edge: users - 1, gone at 0 (a page has no inside, so C2..C4 cannot occur)
 *   C6   several regions: each by its own case, at most one of them by C4
 *
 * Where they are: a radix tree (gm_radix.c) over the 2 MiB piece in which a region
 * begins, and there its regions in a leaf, or in a chain of leaves (gm_region_leaf.h). A region
 * stands once, however long it is: who is not found in the piece of an address lies in the
 * nearest piece below that has any. So a lookup is a walk down the tree and two cache lines side
 * by side, and a million regions fit the cache.
 *
 * A small leaf that is too small is replaced by a large one, a large one that is full split
 * in halves; one that becomes empty goes. Each of the cases above may so take from the stock, C1 and C3 but where a
 * region's beginning comes into another piece.
 *
 * Memory comes from a stock that others fill beforehand: gm_region_stock.c.
 */
#include "config.h"

#include <assert.h>
#include <string.h>

#include "core/gm_region_leaf.h"

static uint64_t key_of(uint64_t va)
{
	return va / GM_BLOCK_BYTES;
}

static unsigned page_of(uint64_t va)
{
	return (unsigned)(va % GM_BLOCK_BYTES / GM_PAGE_BYTES);
}

/* --------------------------------------------------------------- leaves */

static struct gm_region_leaf *take_large(struct gm_regions *rs)
{
	void *piece = gm_radix_spares_take(&rs->stock);

	assert(piece); /* the caller has counted */
	return gm_leaf_init(piece, GM_LEAF_LARGE);
}

static void leaf_give(struct gm_regions *rs, struct gm_region_leaf *leaf)
{
	if (gm_leaf_is_small(leaf)) {
		gm_regions_stock_small(rs, leaf);
		return;
	}
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
	while (rs->small)
		gm_mem_free(env, gm_regions_take_small(rs), GM_REGION_SMALL_BYTES);
	rs->count = 0;
}

/* --------------------------------------------------------- what is in them */

static unsigned tag_of(const struct gm_region *r)
{
	return page_of(r->va) << GM_LEAF_PAGE_SHIFT | (unsigned)r->kind << GM_LEAF_KIND_SHIFT;
}

static uint64_t value_of(const struct gm_region *r)
{
	return r->kind == GM_REGION_EDGE ? r->users : (r->end - r->va) / GM_PAGE_BYTES;
}

static bool fits_small(const struct gm_region *r)
{
	return value_of(r) < (r->kind == GM_REGION_PLACED ? GM_LEAF_SMALL_PLACED : GM_LEAF_SMALL_VALUES);
}

static bool fits(const struct gm_region_leaf *leaf, const struct gm_region *r)
{
	return !gm_leaf_is_small(leaf) || fits_small(r);
}

/* Where a region stands. */
struct place {
	void **slot; /* of the chain */
	uint64_t key;
	struct gm_region_leaf *leaf;
	unsigned at;
};

/* --------------------------------------------------------------- lookup */

/* The last region of the nearest piece below. */
static bool in_piece_below(struct gm_regions *rs, uint64_t key, struct place *p)
{
	if (!key--)
		return false;
	p->slot = gm_radix_floor(&rs->tree, &key);
	if (!p->slot)
		return false;
	p->key = key;
	p->leaf = gm_leaf_of(*p->slot, GM_BLOCK_PAGES - 1);
	p->at = (unsigned)p->leaf->n - 1;
	return true;
}

/* The last region that begins at or below va. */
static bool at_or_below(struct gm_regions *rs, uint64_t va, struct place *p)
{
	unsigned n;

	p->key = key_of(va);
	p->slot = gm_radix_slot(&rs->tree, p->key);
	if (!p->slot)
		return in_piece_below(rs, p->key, p);
	__builtin_prefetch((const char *)*p->slot + 64); /* its values, while its tags come */
	p->leaf = gm_leaf_of(*p->slot, page_of(va));
	n = gm_leaf_begun(p->leaf, page_of(va));
	p->at = n - 1;
	return n || in_piece_below(rs, p->key, p);
}

/* The first region that begins above va. */
static bool above(struct gm_regions *rs, uint64_t va, struct place *p)
{
	p->key = key_of(va);
	p->slot = gm_radix_slot(&rs->tree, p->key);
	if (p->slot) {
		p->leaf = gm_leaf_of(*p->slot, page_of(va));
		p->at = gm_leaf_begun(p->leaf, page_of(va));
		if (p->at < p->leaf->n)
			return true;
		p->leaf = p->leaf->next;
		p->at = 0;
		if (p->leaf)
			return true;
	}
	p->key++;
	p->at = 0;
	p->slot = gm_radix_ceil(&rs->tree, &p->key);
	p->leaf = p->slot ? *p->slot : NULL;
	return p->slot;
}

static struct gm_region *read_place(const struct place *p, struct gm_region *r)
{
	unsigned tag = (unsigned)p->leaf->tag[p->at];
	uint64_t value = gm_leaf_value(p->leaf, p->at);

	r->va = p->key * GM_BLOCK_BYTES + (uint64_t)(tag >> GM_LEAF_PAGE_SHIFT) * GM_PAGE_BYTES;
	r->kind = (enum gm_region_kind)(tag >> GM_LEAF_KIND_SHIFT & GM_LEAF_KIND_MASK);
	r->end = r->va + (r->kind == GM_REGION_EDGE ? 1 : value) * GM_PAGE_BYTES;
	r->users = r->kind == GM_REGION_EDGE ? (uint32_t)value : 1;
	return r;
}

struct gm_region *gm_regions_find(struct gm_regions *rs, uint64_t va, struct gm_region *r)
{
	struct place p;

	return at_or_below(rs, va, &p) && va < read_place(&p, r)->end ? r : NULL;
}

struct gm_region *gm_regions_first(struct gm_regions *rs, uint64_t va, uint64_t end, struct gm_region *r)
{
	if (gm_regions_find(rs, va, r))
		return va < end ? r : NULL;
	r->va = va;
	return gm_regions_next(rs, r, end);
}

struct gm_region *gm_regions_next(struct gm_regions *rs, struct gm_region *r, uint64_t end)
{
	struct place p;

	return above(rs, r->va, &p) && read_place(&p, r)->va < end ? r : NULL;
}

/* -------------------------------------------------------------- changes */

/* Are there so many pieces beyond what is promised? */
static bool have(const struct gm_regions *rs, unsigned pieces)
{
	return !pieces || rs->stock.count >= pieces + gm_regions_kept(rs);
}

/* All of a small one into a large one that takes its place. */
static void enlarge(struct gm_regions *rs, void **slot, struct gm_region_leaf *leaf, struct gm_region_leaf *fresh)
{
	gm_leaf_move(fresh, leaf, 0);
	fresh->next = leaf->next;
	while (*slot != leaf)
		slot = (void **)&((struct gm_region_leaf *)*slot)->next;
	*slot = fresh;
	leaf_give(rs, leaf);
}

/* Upper half into a new leaf behind it. */
static void split(struct gm_region_leaf *leaf, struct gm_region_leaf *fresh)
{
	gm_leaf_move(fresh, leaf, GM_LEAF_LARGE / 2);
	fresh->next = leaf->next;
	leaf->next = fresh;
}

static void leaf_insert(struct gm_region_leaf *leaf, const struct gm_region *r)
{
	unsigned at = gm_leaf_begun(leaf, page_of(r->va));

	gm_leaf_open(leaf, at);
	gm_leaf_put(leaf, at, tag_of(r), value_of(r));
}

/* Of the leaf that a page belongs to and that is too small; the one it belongs to then. */
static struct gm_region_leaf *make_room(struct gm_regions *rs, void **slot, struct gm_region_leaf *leaf, unsigned page)
{
	struct gm_region_leaf *fresh = take_large(rs);

	if (gm_leaf_is_small(leaf))
		enlarge(rs, slot, leaf, fresh);
	else
		split(leaf, fresh);
	return gm_leaf_of(*slot, page);
}

/* The first of a piece. */
static struct gm_region_leaf *new_leaf(struct gm_regions *rs, const struct gm_region *r, bool small)
{
	struct gm_region_leaf *leaf = small ? gm_leaf_init(gm_regions_take_small(rs), GM_LEAF_SMALL) : take_large(rs);

	gm_radix_put(&rs->tree, key_of(r->va), leaf, &rs->stock);
	return leaf;
}

/* False: not enough in stock beyond what is promised, nothing changed. */
static bool add(struct gm_regions *rs, const struct gm_region *r)
{
	void **slot = gm_radix_slot(&rs->tree, key_of(r->va));
	struct gm_region_leaf *leaf = slot ? gm_leaf_of(*slot, page_of(r->va)) : NULL;
	bool full = leaf && (leaf->n == leaf->max || !fits(leaf, r)), small = rs->small && fits_small(r);

	if (!have(rs, slot ? full : gm_radix_lacks(&rs->tree, key_of(r->va)) + !small))
		return false;
	if (full)
		leaf = make_room(rs, slot, leaf, page_of(r->va));
	else if (!slot)
		leaf = new_leaf(rs, r, small);
	assert(leaf);
	leaf_insert(leaf, r);
	rs->count++;
	return true;
}

static bool add_new(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	return add(rs, &(struct gm_region){ .va = va, .end = end, .kind = kind, .users = 1 });
}

static void find_place(struct gm_regions *rs, const struct gm_region *r, struct place *p)
{
	bool there = at_or_below(rs, r->va, p);

	assert(there && p->key == key_of(r->va) && p->leaf->tag[p->at] >> GM_LEAF_PAGE_SHIFT == (int)page_of(r->va));
	(void)there;
}

/* Where `r` stands stands `now`, past no other region. False: its leaf is too small, and not enough in stock. */
static bool replace(struct gm_regions *rs, const struct gm_region *r, const struct gm_region *now)
{
	struct place p;

	find_place(rs, r, &p);
	if (!fits(p.leaf, now)) {
		if (!have(rs, 1))
			return false;
		(void)make_room(rs, p.slot, p.leaf, page_of(r->va));
		find_place(rs, r, &p);
	}
	gm_leaf_put(p.leaf, p.at, tag_of(now), value_of(now));
	return true;
}

/* Another end, or other users. False as of replace(): not where it becomes less. */
static bool store(struct gm_regions *rs, const struct gm_region *r)
{
	return replace(rs, r, r);
}

/* Take one out; what becomes empty goes back into stock. */
static void drop(struct gm_regions *rs, const struct gm_region *r)
{
	struct gm_region_leaf *head;
	struct place p;

	find_place(rs, r, &p);
	head = *p.slot;
	gm_leaf_close(p.leaf, p.at);
	rs->count--;
	if (p.leaf->n)
		return;
	if (p.leaf != head) {
		while (head->next != p.leaf)
			head = head->next;
		head->next = p.leaf->next;
	} else if (head->next) {
		*p.slot = head->next;
	} else {
		gm_radix_drop(&rs->tree, p.key, &rs->stock);
	}
	leaf_give(rs, p.leaf);
}

/* Its beginning goes elsewhere, past no other region. False: not enough in stock, nothing changed. */
static bool move_va(struct gm_regions *rs, const struct gm_region *r, uint64_t va)
{
	struct gm_region moved = *r;

	moved.va = va;
	if (key_of(va) == key_of(r->va))
		return replace(rs, r, &moved);
	if (!add(rs, &moved))
		return false;
	drop(rs, r);
	return true;
}

bool gm_regions_insert(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	struct gm_region left, right;
	bool on_left, on_right;

	rs->inserts++;
	if (gm_regions_first(rs, va, end, &left)) {
		assert(kind == GM_REGION_EDGE && left.kind == GM_REGION_EDGE && left.va == va);
		left.users++; /* I5 */
		return store(rs, &left);
	}
	if (kind != GM_REGION_ADOPTED)
		return add_new(rs, va, end, kind);
	on_left = va && gm_regions_find(rs, va - 1, &left) && left.kind == kind;
	on_right = gm_regions_find(rs, end, &right) && right.kind == kind;
	if (on_left) { /* I2, I4: first what may fail; the right one is found by where it begins */
		left.end = on_right ? right.end : end;
		if (!store(rs, &left))
			return false;
		if (on_right)
			drop(rs, &right);
		return true;
	}
	if (on_right) /* I3: the order does not change, nothing lies between */
		return move_va(rs, &right, va);
	return add_new(rs, va, end, kind); /* I1 */
}

/* C1..C5 for one region that the range meets. */
static bool carve_one(struct gm_regions *rs, struct gm_region *r, uint64_t va, uint64_t end)
{
	if (r->kind == GM_REGION_EDGE) {
		if (--r->users)
			return store(rs, r);
		drop(rs, r);
	} else if (va <= r->va && end >= r->end) {
		drop(rs, r); /* C1 */
	} else if (va <= r->va) {
		return move_va(rs, r, end); /* C2 */
	} else if (end >= r->end || add_new(rs, end, r->end, r->kind)) {
		r->end = va; /* C3, C4 */
		return store(rs, r);
	} else {
		return false;
	}
	return true;
}

/*
 * From the last one down: only that one can lack something from the stock, so
 * that nothing has changed yet when it does.
 */
bool gm_regions_carve(struct gm_regions *rs, uint64_t va, uint64_t end, enum gm_region_kind kind)
{
	uint64_t below = end - 1;
	struct gm_region r;
	struct place p;

	while (at_or_below(rs, below, &p) && read_place(&p, &r)->end > va) {
		below = r.va - 1;
		if (r.kind == kind && !carve_one(rs, &r, va, end))
			return false;
		if (below + 1 <= va) /* nothing lies between this one and va */
			break;
	}
	return true;
}

void gm_regions_drop_edges(struct gm_regions *rs, uint64_t va, uint64_t end)
{
	struct gm_region buf;

	for (struct gm_region *r = gm_regions_first(rs, va, end, &buf); r; r = gm_regions_next(rs, r, end))
		if (r->kind == GM_REGION_EDGE)
			drop(rs, r); /* its address is still good to go on from */
}

static const char *check_tree(struct gm_regions *rs)
{
	const char *wrong = gm_radix_check(&rs->tree);
	uint64_t key = 0;

	for (void **slot; !wrong && (slot = gm_radix_ceil(&rs->tree, &key)); key++)
		wrong = gm_leaf_check(*slot);
	return wrong;
}

const char *gm_regions_check(struct gm_regions *rs)
{
	struct gm_region buf, before = { .end = 0, .kind = GM_REGION_OWNED };
	const char *wrong = check_tree(rs);
	uint64_t count = 0;

	if (wrong)
		return wrong;
	for (struct gm_region *r = gm_regions_first(rs, 0, UINT64_MAX, &buf); r; r = gm_regions_next(rs, r, UINT64_MAX)) {
		count++;
		if (r->va >= r->end)
			return "a region is empty";
		if (!r->users)
			return "an edge that nobody uses";
		if (before.end > r->va)
			return "regions overlap";
		if (before.end == r->va && before.kind == r->kind && r->kind == GM_REGION_ADOPTED)
			return "adopted neighbours are not merged";
		before = *r;
	}
	return count == rs->count ? NULL : "regions are miscounted";
}
