/* SPDX-License-Identifier: MIT */
/*
 * The buddy allocator against an oracle that knows only which unit belongs to
 * which allocation: no overlap, alignment, and NOSPC exactly where no aligned
 * free piece of the size is left. Its own check must hold after every step.
 */
#include "config.h"

#include <criterion/criterion.h>

#include <string.h>

#include "core/gm_frames.h"

#include "failing_alloc.h"

#define SHIFT 16u
#define UNIT (UINT64_C(1) << SHIFT)
#define BEGIN (UINT64_C(5) * UNIT) /* alignment is relative to the slab */
#define UNITS_MAX 1200u

struct used {
	uint32_t first;
	unsigned order;
};

static struct failing_alloc fa;
static struct gm_env env;
static struct gm_frames f;
static bool taken[UNITS_MAX];
static struct used live[UNITS_MAX];
static unsigned lives;
static uint64_t seed;

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
	seed = 88172645463325252u;
}

static void teardown(void)
{
	cr_assert_eq(atomic_load(&fa.live), 0);
	cr_assert_eq(atomic_load(&fa.bad_frees), 0);
}

TestSuite(frames, .init = setup, .fini = teardown);

static void frames_open(uint32_t units)
{
	memset(taken, 0, sizeof(taken));
	lives = 0;
	cr_assert_eq(gm_frames_init(&f, &env, BEGIN, BEGIN + units * UNIT, SHIFT), GM_RET_SUCCESS);
}

static void check(void)
{
	const char *wrong = gm_frames_check(&f);
	uint32_t avail = 0;

	cr_assert_null(wrong, "%s", wrong);
	for (uint32_t i = 0; i < f.units; i++)
		avail += !taken[i];
	cr_assert_eq(f.free_units, avail);
}

/* Is there an aligned free piece of this order? */
static bool fits(unsigned order)
{
	uint32_t size = 1u << order;

	for (uint32_t i = 0; i + size <= f.units; i += size) {
		uint32_t k = 0;

		while (k < size && !taken[i + k])
			k++;
		if (k == size)
			return true;
	}
	return false;
}

static bool take(unsigned order)
{
	bool possible = fits(order);
	uint64_t pa = 1;
	gm_ret_t ret = gm_frames_alloc(&f, order, &pa);
	uint32_t first;

	cr_assert_eq(ret, possible ? GM_RET_SUCCESS : GM_RET_NOSPC, "order %u", order);
	if (ret) {
		cr_assert_eq(pa, 1, "out-parameter of a failure");
		return false;
	}
	cr_assert_eq((pa - BEGIN) % (UNIT << order), 0, "alignment");
	first = (uint32_t)((pa - BEGIN) / UNIT);
	cr_assert(pa >= BEGIN && first + (1u << order) <= f.units);
	for (uint32_t k = 0; k < 1u << order; k++) {
		cr_assert_not(taken[first + k], "unit %u is given out twice", first + k);
		taken[first + k] = true;
	}
	live[lives++] = (struct used){ first, order };
	return true;
}

static void give(unsigned which)
{
	struct used u = live[which];

	live[which] = live[--lives];
	gm_frames_free(&f, BEGIN + u.first * UNIT, u.order);
	memset(&taken[u.first], 0, 1u << u.order);
}

/* What is allocated has no books: its parts can be given back alone. */
static void split(unsigned which, unsigned to)
{
	struct used u = live[which];

	live[which] = live[--lives];
	for (uint32_t k = 0; k < 1u << u.order; k += 1u << to)
		live[lives++] = (struct used){ u.first + k, to };
}

static void give_all(void)
{
	while (lives) {
		give(rnd(lives));
		check();
	}
}

/* Everything is free: as few and large pieces as the size of the slab has bits. */
static void assert_merged_size(uint32_t units)
{
	uint32_t chunks = 0;

	cr_assert_eq(f.free_units, units);
	gm_frames_merge(&f);
	cr_assert_null(gm_frames_check(&f));
	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++)
		for (uint32_t w = 0; w < ((f.units >> o) + 64) / 64; w++)
			chunks += (uint32_t)__builtin_popcountll(f.set[o].level[0][w]);
	cr_assert_eq(chunks, (uint32_t)__builtin_popcount(units), "free memory stayed in pieces");
}

static void assert_whole(void)
{
	check();
	assert_merged_size(f.units);
}

static const uint32_t sizes[] = {
	1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 96, 100, 127, 128, 200, 511, 1000, 1023, 1024, 1025
};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

Test(frames, odd_sizes_begin_whole)
{
	for (unsigned i = 0; i < SIZES; i++) {
		frames_open(sizes[i]);
		assert_whole();
		gm_frames_fini(&f);
	}
}

Test(frames, every_unit_can_be_had)
{
	for (unsigned i = 0; i < SIZES; i++) {
		frames_open(sizes[i]);
		while (take(0))
			check();
		cr_assert_eq(lives, sizes[i]);
		give_all();
		assert_whole();
		gm_frames_fini(&f);
	}
}

/* The largest possible first: nothing is wasted whatever the size. */
Test(frames, largest_first_takes_all)
{
	for (unsigned i = 0; i < SIZES; i++) {
		frames_open(sizes[i]);
		for (int order = 12; order >= 0; order--)
			while (take((unsigned)order))
				check();
		cr_assert_eq(f.free_units, 0);
		cr_assert_eq(lives, (unsigned)__builtin_popcount(sizes[i]));
		give_all();
		assert_whole();
		gm_frames_fini(&f);
	}
}

Test(frames, random_orders)
{
	for (unsigned i = 0; i < SIZES; i++) {
		frames_open(sizes[i]);
		for (unsigned step = 0; step < 1500; step++) {
			unsigned what = rnd(10);

			if (what < 5)
				take(rnd(7));
			else if (what < 9 && lives)
				give(rnd(lives));
			else if (lives) {
				unsigned which = rnd(lives);

				split(which, rnd(live[which].order + 1));
			}
			check();
		}
		give_all();
		assert_whole();
		gm_frames_fini(&f);
	}
}

/* Every second unit stays: nothing larger fits, however much is free; then the rest goes. */
Test(frames, fragmented_frees)
{
	frames_open(256);
	while (take(0))
		;
	for (unsigned i = 0; i < lives;) {
		if (live[i].first % 2) {
			give(i);
			check();
		} else {
			i++;
		}
	}
	cr_assert_eq(f.free_units, 128);
	cr_assert_not(take(1));
	while (lives) {
		give(rnd(lives));
		check();
	}
	assert_whole();
	cr_assert(take(8), "all of it is one piece again");
	give_all();
	gm_frames_fini(&f);
}

Test(frames, split_pieces_are_freed_one_by_one_and_merge)
{
	frames_open(32);
	cr_assert(take(5));
	split(0, 0);
	check();
	cr_assert_eq(lives, 32);
	give_all();
	assert_whole();
	cr_assert(take(5));
	split(0, 3);
	check();
	cr_assert_eq(lives, 4);
	give(1);
	check();
	cr_assert(take(3));
	cr_assert_not(take(0));
	give_all();
	assert_whole();
	gm_frames_fini(&f);
}

Test(frames, orders_out_of_range)
{
	frames_open(64);
	cr_assert_not(take(7), "larger than the slab");
	uint64_t pa = 1;

	cr_assert_eq(gm_frames_alloc(&f, GM_FRAMES_ORDERS, &pa), GM_RET_NOSPC);
	cr_assert_eq(gm_frames_alloc(&f, 40, &pa), GM_RET_NOSPC);
	cr_assert_eq(pa, 1);
	assert_whole();
	gm_frames_fini(&f);
}

Test(frames, refuses_an_empty_slab)
{
	cr_assert_eq(gm_frames_init(&f, &env, BEGIN, BEGIN, SHIFT), GM_RET_INVAL);
	cr_assert_eq(gm_frames_init(&f, &env, 0, UINT64_C(1) << 60, SHIFT), GM_RET_INVAL,
		     "more units than an index counts");
}

Test(frames, out_of_memory)
{
	for (size_t n = 1;; n++) {
		gm_ret_t ret;

		failing_alloc_arm(&fa, n);
		ret = gm_frames_init(&f, &env, BEGIN, BEGIN + 100 * UNIT, SHIFT);
		if (!failing_alloc_fired(&fa)) {
			cr_assert_eq(ret, GM_RET_SUCCESS);
			cr_assert_gt(n, 1);
			break;
		}
		cr_assert_eq(ret, GM_RET_NOMEM);
		cr_assert_eq(atomic_load(&fa.live), 0);
	}
	gm_frames_fini(&f);
}

/* The books of all orders and levels against the oracle, in a slab that needs three levels. */
Test(frames, large_slab)
{
	static uint32_t unit[9000];
	static bool out[3 * 64 * 64 + 77];
	uint32_t units = 3 * 64 * 64 + 77, n = 0;
	uint64_t pa;

	cr_assert_eq(gm_frames_init(&f, &env, BEGIN, BEGIN + units * UNIT, SHIFT), GM_RET_SUCCESS);
	cr_assert_eq(f.set[0].top, 2);
	for (unsigned round = 0; round < 3; round++) {
		while (n < 9000 && !gm_frames_alloc(&f, 0, &pa)) {
			unit[n] = (uint32_t)((pa - BEGIN) / UNIT);
			cr_assert(unit[n] < units && !out[unit[n]], "unit %u is given out twice", unit[n]);
			out[unit[n++]] = true;
		}
		cr_assert_eq(f.free_units, units - n);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t k = rnd(n), swap = unit[i];

			unit[i] = unit[k];
			unit[k] = swap;
		}
		while (n > 4000 * (2 - round)) {
			gm_frames_free(&f, BEGIN + unit[--n] * UNIT, 0);
			out[unit[n]] = false;
		}
		cr_assert_null(gm_frames_check(&f));
	}
	cr_assert_eq(n, 0);
	assert_merged_size(units);
	gm_frames_fini(&f);
}

/* What was given back last is the first to be taken, and is merged when something larger is wanted. */
Test(frames, recent_chunks)
{
	frames_open(64);
	for (unsigned i = 0; i < 8; i++)
		cr_assert(take(0));
	for (unsigned i = 0; i < 3; i++)
		give(0);
	cr_assert_eq(f.recent[0].n, 3);
	check();
	uint32_t last = f.recent[0].unit[2];

	cr_assert(take(0));
	cr_assert_eq(live[lives - 1].first, last, "the one given back last");
	while (lives)
		give(0);
	check();
	cr_assert_gt(f.recent[0].n, 0);
	cr_assert(take(6), "all of it, though parts of it were not merged yet");
	cr_assert_eq(f.recent[0].n, 0);
	give_all();
	gm_frames_fini(&f);
}

/* More than fit: the others are merged at once. */
Test(frames, more_given_back_than_remembered)
{
	frames_open(4 * GM_FRAMES_RECENT);
	while (take(0))
		;
	give_all();
	cr_assert_eq(f.recent[0].n, GM_FRAMES_RECENT);
	cr_assert_neq(f.nonempty, 0);
	assert_whole();
	gm_frames_fini(&f);
}

Test(frames, the_check_sees_damage)
{
	frames_open(64);
	cr_assert(take(2));
	f.free_units--;
	cr_assert_str_eq(gm_frames_check(&f), "free units are miscounted");
	f.free_units++;
	f.nonempty ^= 1u << 5;
	cr_assert_str_eq(gm_frames_check(&f), "the bitmap of orders is wrong");
	f.nonempty ^= 1u << 5;
	f.set[0].level[0][0] ^= 1u; /* unit 0, which is taken or free in a larger chunk */
	cr_assert_not_null(gm_frames_check(&f), "a unit free behind the back of the count, or twice");
	f.set[0].level[0][0] ^= 1u;
	f.recent[0] = (struct gm_frames_recent){ .n = 1, .unit = { 32 } };
	f.free_units++;
	cr_assert_str_eq(gm_frames_check(&f), "a chunk given back last is free twice");
	f.free_units--;
	f.recent[0].n = 0;
	f.set[2].level[0][0] ^= UINT64_C(1) << 63; /* beyond the slab */
	f.nonempty ^= 1u << 2;
	cr_assert_not_null(gm_frames_check(&f));
	f.nonempty ^= 1u << 2;
	f.set[2].level[0][0] ^= UINT64_C(1) << 63;
	cr_assert_null(gm_frames_check(&f));
	give_all();
	gm_frames_fini(&f);
}

Test(frames, the_check_sees_a_wrong_summary)
{
	frames_open(1100);
	f.set[0].level[1][0] ^= 2;
	cr_assert_str_eq(gm_frames_check(&f), "the summary of a set of free chunks is wrong");
	f.set[0].level[1][0] ^= 2;
	cr_assert_null(gm_frames_check(&f));
	gm_frames_fini(&f);
}
