/* SPDX-License-Identifier: MIT */
/*
 * A radix tree of 64 ways over block numbers (VA / 2 MiB). What is looked up at
 * each fault lies in few, small, hot nodes: five dependent loads for 47 bits of
 * VA, no comparison, no branch that depends on the key.
 *
 *     root (height 2) ---> [ used: 1 0 1 ... ]       bits 11..6 of the key
 *                            |       |
 *                          [ values ] [ values ]     bits 5..0
 *
 * `used` has a bit for each child, so the neighbour of a key is found by
 * counting zeros: one word per level, and nothing is searched.
 *
 *     put    the tree first grows at the root until the key has a place (a new
 *            root whose child 0 is the old one), then downwards
 *     drop   a node whose last child goes, goes; so does the root at last. The
 *            tree does not become lower otherwise: its next key is as high
 *
 * Nothing in here allocates or fails: nodes come from spares, which the caller
 * has counted before (gm_radix_lacks()), and go there. Not locked: the owner is.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_radix.h"

#define LAST (GM_RADIX_WAYS - 1)

static unsigned way_of(uint64_t key, unsigned shift)
{
	return (unsigned)(key >> shift) & LAST;
}

/* Bits 0 to i - 1. */
static uint64_t bits_below(unsigned i)
{
	return (UINT64_C(1) << i) - 1;
}

static bool has_place(const struct gm_radix *t, uint64_t key)
{
	return t->root && !(key >> (t->height * GM_RADIX_BITS));
}

/* --------------------------------------------------------------- spares */

void gm_radix_spares_give(struct gm_radix_spares *s, struct gm_radix_node *n)
{
	n->child[0] = s->first;
	s->first = n;
	s->count++;
}

struct gm_radix_node *gm_radix_spares_take(struct gm_radix_spares *s)
{
	struct gm_radix_node *n = s->first;

	if (n) {
		s->first = n->child[0];
		s->count--;
		n->child[0] = NULL;
	}
	return n;
}

bool gm_radix_more(struct gm_env *env, struct gm_radix_spares *s)
{
	struct gm_radix_node *n = gm_mem_alloc(env, sizeof(*n));

	if (n)
		gm_radix_spares_give(s, n);
	return n;
}

void gm_radix_spares_free(struct gm_env *env, struct gm_radix_spares *s)
{
	struct gm_radix_node *n;

	while ((n = gm_radix_spares_take(s)))
		gm_mem_free(env, n, sizeof(*n));
}

/* ----------------------------------------------------------- neighbours */

/* The last value under a slot, or the first; *key has its upper bits already. */
static void **outermost(void **slot, unsigned shift, uint64_t *key, bool last)
{
	while (shift) {
		struct gm_radix_node *n = *slot;
		unsigned way = last ? LAST - (unsigned)__builtin_clzll(n->used) : (unsigned)__builtin_ctzll(n->used);

		shift -= GM_RADIX_BITS;
		*key = (*key & ~((UINT64_C(1) << (shift + GM_RADIX_BITS)) - 1)) | (uint64_t)way << shift;
		slot = &n->child[way];
	}
	return slot;
}

/*
 * Down along the key as far as it goes, and the last turn off that way that
 * leads to a neighbour; from there straight down.
 */
static void **neighbour(const struct gm_radix *t, uint64_t *key, bool below)
{
	unsigned shift = t->height * GM_RADIX_BITS, turn_shift = 0, way;
	struct gm_radix_node *n = t->root, *turn = NULL;
	uint64_t others = 0;

	while (n && shift) {
		uint64_t side;

		shift -= GM_RADIX_BITS;
		way = way_of(*key, shift);
		side = n->used & (below ? bits_below(way) : ~bits_below(way) & ~(UINT64_C(1) << way));
		if (side) {
			turn = n;
			turn_shift = shift;
			others = side;
		}
		if (!shift && n->child[way])
			return &n->child[way];
		n = n->child[way];
	}
	if (!turn)
		return NULL;
	way = below ? LAST - (unsigned)__builtin_clzll(others) : (unsigned)__builtin_ctzll(others);
	*key = ((*key >> turn_shift & ~(uint64_t)LAST) | way) << turn_shift;
	return outermost(&turn->child[way], turn_shift, key, below);
}

void **gm_radix_floor(const struct gm_radix *t, uint64_t *key)
{
	if (t->root && !has_place(t, *key))
		*key = bits_below(t->height * GM_RADIX_BITS);
	return neighbour(t, key, true);
}

void **gm_radix_ceil(const struct gm_radix *t, uint64_t *key)
{
	return has_place(t, *key) ? neighbour(t, key, false) : NULL;
}

/* -------------------------------------------------------------- changes */

unsigned gm_radix_lacks(const struct gm_radix *t, uint64_t key)
{
	unsigned height = t->height, lacks = 0;
	const struct gm_radix_node *n = t->root;

	while (!height || key >> (height * GM_RADIX_BITS)) {
		height++;
		lacks += t->root != NULL;
	}
	if (!t->root)
		return height;
	if (lacks)
		return lacks + height - 1; /* all of the way below the new root but the root itself */
	for (unsigned shift = (height - 1) * GM_RADIX_BITS; shift; shift -= GM_RADIX_BITS) {
		n = n->child[way_of(key, shift)];
		if (!n)
			return shift / GM_RADIX_BITS;
	}
	return 0;
}

static void set_child(struct gm_radix_node *n, unsigned way, void *child)
{
	n->child[way] = child;
	if (child)
		n->used |= UINT64_C(1) << way;
	else
		n->used &= ~(UINT64_C(1) << way);
}

/* Until the key has a place below the root. */
static void grow(struct gm_radix *t, uint64_t key, struct gm_radix_spares *s)
{
	if (!t->root)
		t->height = 0;
	while (!t->height || key >> (t->height * GM_RADIX_BITS)) {
		if (t->root) {
			struct gm_radix_node *above = gm_radix_spares_take(s);

			set_child(above, 0, t->root);
			t->root = above;
		}
		t->height++;
	}
	if (!t->root)
		t->root = gm_radix_spares_take(s);
}

void gm_radix_put(struct gm_radix *t, uint64_t key, void *value, struct gm_radix_spares *s)
{
	struct gm_radix_node *n;

	grow(t, key, s);
	n = t->root;
	for (unsigned shift = (t->height - 1) * GM_RADIX_BITS; shift; shift -= GM_RADIX_BITS) {
		unsigned way = way_of(key, shift);

		if (!n->child[way])
			set_child(n, way, gm_radix_spares_take(s));
		n = n->child[way];
	}
	assert(value && !n->child[way_of(key, 0)]);
	set_child(n, way_of(key, 0), value);
}

void gm_radix_drop(struct gm_radix *t, uint64_t key, struct gm_radix_spares *s)
{
	struct gm_radix_node *path[GM_RADIX_MAX_HEIGHT], *n = t->root;
	unsigned depth = 0;

	for (unsigned shift = (t->height - 1) * GM_RADIX_BITS; shift; shift -= GM_RADIX_BITS) {
		path[depth++] = n;
		n = n->child[way_of(key, shift)];
	}
	path[depth] = n;
	assert(n->child[way_of(key, 0)]);
	for (unsigned shift = 0; ; shift += GM_RADIX_BITS) {
		n = path[depth];
		set_child(n, way_of(key, shift), NULL);
		if (n->used)
			return;
		gm_radix_spares_give(s, n);
		if (!depth--)
			break;
	}
	t->root = NULL;
	t->height = 0;
}

static const char *check_node(const struct gm_radix_node *n, unsigned height)
{
	const char *wrong = n->used ? NULL : "an empty node stands in the tree";

	for (unsigned i = 0; i < GM_RADIX_WAYS && !wrong; i++) {
		if ((n->child[i] != NULL) != (n->used >> i & 1))
			wrong = "the children of a node are not those it says";
		else if (n->child[i] && height > 1)
			wrong = check_node(n->child[i], height - 1);
	}
	return wrong;
}

const char *gm_radix_check(const struct gm_radix *t)
{
	if (!t->root != !t->height || t->height > GM_RADIX_MAX_HEIGHT)
		return "the height of a tree is wrong";
	return t->root ? check_node(t->root, t->height) : NULL;
}
