/* SPDX-License-Identifier: MIT */
/* An ordered map from small integers (block numbers) to pointers; see gm_radix.c. */
#ifndef GM_CORE_RADIX_H
#define GM_CORE_RADIX_H

#include "hal/gm_env.h"

#define GM_RADIX_BITS 6
#define GM_RADIX_WAYS (1u << GM_RADIX_BITS)
/* 2 MiB pieces of a 64-bit address space have numbers of 43 bits. */
#define GM_RADIX_MAX_HEIGHT 8

struct gm_radix_node {
	uint64_t used;              /* bit i: child[i] is there */
	void *child[GM_RADIX_WAYS]; /* nodes; on the lowest level the values. [0] links spare nodes */
};

struct gm_radix {
	void *root;      /* NULL: nothing in it */
	unsigned height; /* levels of nodes; keys below 2^(height * GM_RADIX_BITS) have a place */
};

/* Spare nodes. */
struct gm_radix_spares {
	struct gm_radix_node *first;
	unsigned count;
};

/* The address of the value of `key`, or NULL. Good until the next change. */
static inline void **gm_radix_slot(const struct gm_radix *t, uint64_t key)
{
	unsigned shift = t->height * GM_RADIX_BITS;
	const void *at = t->root;
	void **slot = NULL;

	if (!at || key >> shift)
		return NULL;
	while (shift) {
		struct gm_radix_node *n = (struct gm_radix_node *)at;

		shift -= GM_RADIX_BITS;
		slot = &n->child[key >> shift & (GM_RADIX_WAYS - 1)];
		at = *slot;
		if (!at)
			return NULL;
	}
	return slot;
}

/* The value, or NULL. */
static inline void *gm_radix_get(const struct gm_radix *t, uint64_t key)
{
	void **slot = gm_radix_slot(t, key);

	return slot ? *slot : NULL;
}

/* The slot of the last key at or below *key, of the first at or above it; *key becomes that key. NULL: none. */
void **gm_radix_floor(const struct gm_radix *t, uint64_t *key);
void **gm_radix_ceil(const struct gm_radix *t, uint64_t *key);

/* So many slots, that of `key` the first, lie side by side in its node. */
static inline unsigned gm_radix_rest(uint64_t key)
{
	return GM_RADIX_WAYS - (unsigned)(key % GM_RADIX_WAYS);
}

/*
 * How many nodes gm_radix_put() of this key would use: 2 * GM_RADIX_MAX_HEIGHT - 2 at most, where a tree of one level
 * becomes as high as it can get.
 */
unsigned gm_radix_lacks(const struct gm_radix *t, uint64_t key);
/* Store a value (not NULL) for a key that has none, with nodes of `s`, which has as many as it lacks. */
void gm_radix_put(struct gm_radix *t, uint64_t key, void *value, struct gm_radix_spares *s);
/* Take a key that is there out; nodes that are empty then become spares. */
void gm_radix_drop(struct gm_radix *t, uint64_t key, struct gm_radix_spares *s);

/* False: no memory for another one. */
bool gm_radix_more(struct gm_env *env, struct gm_radix_spares *s);
void gm_radix_spares_give(struct gm_radix_spares *s, struct gm_radix_node *n);
struct gm_radix_node *gm_radix_spares_take(struct gm_radix_spares *s);
void gm_radix_spares_free(struct gm_env *env, struct gm_radix_spares *s);

/* Every invariant; NULL or what is wrong. */
const char *gm_radix_check(const struct gm_radix *t);

#endif
