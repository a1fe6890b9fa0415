/* SPDX-License-Identifier: MIT */
/* The radix tree against a sorted array of keys; and how many nodes each change takes and gives. */
#include "config.h"

#include <criterion/criterion.h>

#include <string.h>

#include "core/gm_radix.h"

#include "failing_alloc.h"

#define KEYS 2000

static struct failing_alloc fa;
static struct gm_env env;
static struct gm_radix tree;
static struct gm_radix_spares spares;
static uint64_t key[KEYS]; /* sorted */
static unsigned keys;
static uint64_t seed = 88172645463325252u;

static unsigned rnd(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static void setup(void)
{
	failing_alloc_init(&fa);
	env.mem = fa.table;
}

static void teardown(void)
{
	while (keys)
		gm_radix_drop(&tree, key[--keys], &spares);
	cr_assert_null(tree.root);
	gm_radix_spares_free(&env, &spares);
	cr_assert_eq(atomic_load(&fa.live), 0, "nodes were lost");
}

TestSuite(radix, .init = setup, .fini = teardown);

/* The first key that is not below k. */
static unsigned at_or_above(uint64_t k)
{
	unsigned lo = 0, hi = keys;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (key[mid] < k)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* A value that tells its key. */
static void *value_of(uint64_t k)
{
	return (void *)(uintptr_t)(k * 2 + 1);
}

static void put(uint64_t k)
{
	unsigned at = at_or_above(k), lacks = gm_radix_lacks(&tree, k);

	if (keys == KEYS || (at < keys && key[at] == k))
		return;
	gm_radix_spares_free(&env, &spares);
	while (spares.count < lacks)
		cr_assert(gm_radix_more(&env, &spares));
	gm_radix_put(&tree, k, value_of(k), &spares);
	cr_assert_eq(spares.count, 0, "it takes what it said");
	memmove(key + at + 1, key + at, (keys - at) * sizeof(*key));
	key[at] = k;
	keys++;
}

static void drop(unsigned at)
{
	gm_radix_drop(&tree, key[at], &spares);
	memmove(key + at, key + at + 1, (keys - at - 1) * sizeof(*key));
	keys--;
}

static void look(uint64_t k)
{
	unsigned at = at_or_above(k);
	bool there = at < keys && key[at] == k;
	uint64_t above = k, below = k;
	void **slot;

	cr_assert_eq(gm_radix_get(&tree, k), there ? value_of(k) : NULL);
	slot = gm_radix_ceil(&tree, &above);
	cr_assert_eq(slot != NULL, at < keys);
	cr_assert(!slot || (above == key[at] && *slot == value_of(above)));
	slot = gm_radix_floor(&tree, &below);
	cr_assert_eq(slot != NULL, there || at > 0);
	cr_assert(!slot || (below == (there ? k : key[at - 1]) && *slot == value_of(below)));
}

static uint64_t random_key(void)
{
	static const unsigned bits[] = { 3, 6, 7, 12, 13, 18, 26, 35, 43 };
	uint64_t all = (uint64_t)rnd(1u << 31) << 20 | rnd(1u << 20);

	return all & ((UINT64_C(1) << bits[rnd(9)]) - 1);
}

Test(radix, random_keys_against_a_sorted_array)
{
	for (unsigned round = 0; round < 60000; round++) {
		unsigned dice = rnd(keys > KEYS / 2 ? 6 : 9);

		if (dice < 2 && keys)
			drop(rnd(keys));
		else if (dice < 4)
			look(random_key());
		else
			put(random_key());
		if (keys && rnd(4) == 0)
			look(key[rnd(keys)] + rnd(3) - 1);
		if (round % 1000 == 0)
			cr_assert_null(gm_radix_check(&tree));
		if (round % 20000 == 19999)
			while (keys)
				drop(rnd(keys));
	}
}

Test(radix, an_empty_tree)
{
	uint64_t k = 5;

	cr_assert_null(gm_radix_get(&tree, 0));
	cr_assert_null(gm_radix_slot(&tree, 5));
	cr_assert_null(gm_radix_floor(&tree, &k));
	cr_assert_null(gm_radix_ceil(&tree, &k));
	cr_assert_null(gm_radix_check(&tree));
}

Test(radix, a_key_beyond_the_root_makes_it_grow)
{
	put(5);
	cr_assert_eq(tree.height, 1);
	cr_assert_null(gm_radix_get(&tree, 64 + 5), "not child 5");
	put(UINT64_C(1) << 42);
	cr_assert_eq(tree.height, GM_RADIX_MAX_HEIGHT);
	look(5);
	look(6);
	look(UINT64_C(1) << 42);
	drop(1);
	look(5);
	drop(0);
	cr_assert_eq(tree.height, 0);
}

Test(radix, no_memory_for_a_node)
{
	failing_alloc_arm(&fa, 1);
	cr_assert_not(gm_radix_more(&env, &spares));
	cr_assert_eq(spares.count, 0);
	failing_alloc_arm(&fa, 0);
}

Test(radix, the_check_sees_damage)
{
	struct gm_radix_node *root;

	put(5);
	put(70);
	root = tree.root;
	cr_assert_null(gm_radix_check(&tree));
	root->used |= 4;
	cr_assert_not_null(gm_radix_check(&tree), "a child that is not there");
	root->used = 1;
	cr_assert_not_null(gm_radix_check(&tree), "one it does not say");
	root->used = 3;
	tree.height = 0;
	cr_assert_not_null(gm_radix_check(&tree), "no height");
	tree.height = 2;
	((struct gm_radix_node *)root->child[1])->used = 0;
	cr_assert_not_null(gm_radix_check(&tree), "an empty node");
	((struct gm_radix_node *)root->child[1])->used = 1u << 6;
	cr_assert_null(gm_radix_check(&tree));
}
