/* SPDX-License-Identifier: MIT */
/*
 * A device's memory: order of use, victims, holds, pieces that are split,
 * room for working sets. Blocks are only names here: nothing looks into them.
 */
#include "config.h"

#include <sys/mman.h>

#include "core_fixture.h"

#include "core/gm_policy_lru.h"

#define BLOCKS 80u

static struct gm_block block[BLOCKS];
static struct gm_node node;
static struct gm_policy lru;

static void node_open(struct world *w, uint64_t units, uint32_t granule_bytes)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		block[i] = (struct gm_block){ .va = i * BLOCK };
		atomic_init(&block[i].refs, 1);
	}
	OK(gm_policy_complete(&lru, NULL));
	gm_node_init(&node, w->env, granule_bytes);
	OK(gm_node_add_slab(&node, 16 * UNIT, (16 + units) * UNIT));
}

static void check(void)
{
	const char *wrong = gm_node_check(&node);

	cr_assert_null(wrong, "%s", wrong);
}

static void node_close(void)
{
	check();
	for (unsigned i = 0; i < BLOCKS; i++)
		cr_assert_eq(atomic_load(&block[i].refs), 1, "a reference to a block was lost");
	gm_node_fini(&node);
}

static struct gm_chunk *settle(unsigned order, unsigned which, unsigned first)
{
	struct gm_chunk *c = gm_node_take(&node, order);

	cr_assert_not_null(c);
	gm_node_settle(&node, c, &block[which], first);
	return c;
}

/* The next victim; checks its reference. */
static struct gm_victim pick(const struct gm_policy *policy)
{
	struct gm_victim v;

	cr_assert(gm_node_pick(&node, policy, &v));
	cr_assert_eq(atomic_load(&v.block->refs), 2);
	atomic_store(&v.block->refs, 1);
	return v;
}

CORE_TEST(node, least_recently_used_first, .bare = true)
{
	struct gm_chunk *c[4];

	node_open(w, 8, PAGE);
	for (unsigned i = 0; i < 4; i++)
		c[i] = settle(0, i, 16 * i);
	gm_node_touch(&node, c[0]);
	cr_assert_eq(pick(&lru).block, &block[1]);
	cr_assert_eq(pick(&lru).block, &block[2], "what was picked goes to the end");
	cr_assert_eq(pick(&lru).block, &block[3]);
	cr_assert_eq(pick(&lru).block, &block[0]);
	cr_assert_eq(pick(&lru).block, &block[1]);
	gm_node_put(&node, c[2]);
	cr_assert_eq(pick(&lru).block, &block[3]);
	cr_assert_eq(pick(&lru).first, 0);
	cr_assert_eq(pick(&lru).end, 32);
	check();
	node_close();
}

CORE_TEST(node, what_is_busy_is_no_victim, .bare = true)
{
	struct gm_victim v = { .first = 77 };
	struct gm_chunk *c;

	node_open(w, 2, PAGE);
	cr_assert_not(gm_node_pick(&node, &lru, &v));
	c = gm_node_take(&node, 0);
	cr_assert_not(gm_node_pick(&node, &lru, &v));
	check();
	gm_node_settle(&node, c, &block[0], 0);
	gm_node_hold(&node, (struct gm_chunk *[]){ c }, 1);
	gm_node_hold(&node, (struct gm_chunk *[]){ c }, 1);
	cr_assert_not(gm_node_pick(&node, &lru, &v), "it is held");
	gm_node_unhold(&node, (struct gm_chunk *[]){ c }, 1);
	cr_assert_not(gm_node_pick(&node, &lru, &v), "still, by another");
	cr_assert_eq(v.first, 77);
	gm_node_unhold(&node, (struct gm_chunk *[]){ c }, 1);
	cr_assert_eq(pick(&lru).block, &block[0]);
	node_close();
}

CORE_TEST(node, held_ones_are_passed_over, .bare = true)
{
	struct gm_chunk *c[40];

	node_open(w, 40, PAGE);
	for (unsigned i = 0; i < 40; i++) {
		c[i] = settle(0, i, 0);
		if (i < 39)
			gm_node_hold(&node, (struct gm_chunk *[]){ c[i] }, 1);
	}
	cr_assert_eq(pick(&lru).block, &block[39], "the only one, at the very end");
	node_close();
}

CORE_TEST(node, take_until_full, .bare = true)
{
	struct gm_chunk *c[8];
	uint64_t total, avail, reserved;

	node_open(w, 8, PAGE);
	for (unsigned i = 0; i < 8; i++) {
		c[i] = gm_node_take(&node, 0);
		cr_assert_not_null(c[i]);
		cr_assert_eq(c[i]->pa % UNIT, 0);
		check();
	}
	cr_assert_null(gm_node_take(&node, 0));
	gm_node_room(&node, &total, &avail, &reserved);
	cr_assert(total == 8 && avail == 0 && reserved == 0);
	gm_node_put(&node, c[3]);
	cr_assert_null(gm_node_take(&node, 1));
	cr_assert_eq(gm_node_take(&node, 0), c[3]);
	node_close();
}

/* Of 128 GiB: the bitmaps of the frames, and what is beside the units that are in use. */
CORE_TEST(node, books_of_what_is_not_used_cost_nothing, .bare = true)
{
	static unsigned char there[1 << 15];
	uint64_t units = (uint64_t)1 << 21, va, pages, present = 0;

	node_open(w, units, PAGE);
	(void)settle(0, 0, 0);
	(void)settle(GM_BLOCK_ORDER, 1, 0);
	va = ((uintptr_t)node.slab[0].chunk + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	pages = units * sizeof(struct gm_chunk) / PAGE - 1;
	cr_assert_leq(pages, sizeof(there));
	cr_assert_eq(mincore((void *)(uintptr_t)va, pages * PAGE, there), 0);
	for (uint64_t i = 0; i < pages; i++)
		present += there[i] & 1;
	cr_assert_leq(present, 8, "%llu pages of books", (unsigned long long)present);
	gm_node_fini(&node);
}

CORE_TEST(node, granule_of_two_megabytes, .bare = true)
{
	struct gm_chunk *c;

	node_open(w, 64, BLOCK);
	c = gm_node_take(&node, 0);
	cr_assert_not_null(c);
	cr_assert_eq(c->order, GM_BLOCK_ORDER);
	cr_assert_not_null(gm_node_take(&node, 0));
	cr_assert_null(gm_node_take(&node, 0));
	node_close();
}

CORE_TEST(node, a_large_piece_is_split, .bare = true)
{
	struct gm_chunk *c;

	node_open(w, 33, PAGE);
	c = settle(GM_BLOCK_ORDER, 7, 0);
	(void)settle(0, 9, 48);
	gm_node_split(&node, c);
	check();
	for (unsigned i = 0; i < 32; i++) {
		struct gm_victim v = pick(&lru);

		cr_assert_eq(v.block, &block[7]);
		cr_assert_eq(v.first, i * 16, "in place, in order");
		cr_assert_eq(v.end, i * 16 + 16);
		cr_assert_eq(c[i].pa, c[0].pa + i * UNIT);
	}
	cr_assert_eq(pick(&lru).block, &block[9]);
	gm_node_hold(&node, (struct gm_chunk *[]){ &c[5] }, 1);
	for (unsigned i = 0; i < 32; i++) {
		if (i != 5)
			gm_node_put(&node, &c[i]);
		check();
	}
	cr_assert_null(gm_node_take(&node, GM_BLOCK_ORDER));
	gm_node_unhold(&node, (struct gm_chunk *[]){ &c[5] }, 1);
	gm_node_put(&node, &c[5]);
	cr_assert_not_null(gm_node_take(&node, GM_BLOCK_ORDER), "merged again");
	node_close();
}

CORE_TEST(node, room_for_working_sets, .bare = true)
{
	uint64_t total, avail, reserved;

	node_open(w, 10, PAGE);
	IS(gm_node_reserve(&node, 11, 0), GM_RET_NOSPC);
	OK(gm_node_reserve(&node, 6, 0));
	IS(gm_node_reserve(&node, 5, 0), GM_RET_TIMEDOUT);
	OK(gm_node_reserve(&node, 4, 0));
	IS(gm_node_reserve(&node, 1, 0), GM_RET_TIMEDOUT);
	OK(gm_node_reserve(&node, 0, 0));
	gm_node_unreserve(&node, 6);
	OK(gm_node_reserve(&node, 5, 0));
	gm_node_room(&node, &total, &avail, &reserved);
	cr_assert(total == 10 && avail == 10 && reserved == 9, "a reservation takes no frames");
	gm_node_unreserve(&node, 9);
	node_close();
}

CORE_TEST(node, slabs, .bare = true)
{
	unsigned taken = 0;

	node_open(w, 4, PAGE);
	IS(gm_node_add_slab(&node, 19 * UNIT, 21 * UNIT), GM_RET_EXIST);
	IS(gm_node_add_slab(&node, 15 * UNIT, 17 * UNIT), GM_RET_EXIST);
	for (unsigned i = 1; i < GM_MAX_SLABS; i++)
		OK(gm_node_add_slab(&node, (100 + i) * UNIT, (101 + i) * UNIT));
	IS(gm_node_add_slab(&node, 200 * UNIT, 201 * UNIT), GM_RET_NOSPC);
	while (gm_node_take(&node, 0))
		taken++;
	cr_assert_eq(taken, 4 + GM_MAX_SLABS - 1);
	node_close();
}

struct putting {
	struct world *w;
	struct gm_chunk *chunk;
};

static void put_later(void *arg)
{
	struct putting *p = arg;

	gm_sim_sleep_ns(p->w->sim, 5 * MS);
	gm_node_put(&node, p->chunk);
}

CORE_TEST(node, waiting_for_memory, .bare = true)
{
	struct putting p = { .w = w };
	struct gm_thread *t;
	uint64_t start;

	node_open(w, 1, PAGE);
	p.chunk = gm_node_take(&node, 0);
	start = gm_now_ns(w->env);
	IS(gm_node_wait(&node, start + MS), GM_RET_TIMEDOUT);
	t = spawn(w, put_later, &p);
	OK(gm_node_wait(&node, gm_now_ns(w->env) + SECOND));
	cr_assert_geq(gm_now_ns(w->env) - start, 5 * MS);
	join(w, t);
	cr_assert_not_null(gm_node_take(&node, 0));
	node_close();
}

/* What a policy is shown, and answers of all sorts. */
static struct gm_policy_victim seen[32];
static size_t seen_n, answer;

static size_t any_victim(void *state, const struct gm_policy_victim *candidates, size_t n)
{
	cr_assert_eq(state, &answer);
	cr_assert(n > 0 && n <= 32);
	memcpy(seen, candidates, n * sizeof(*candidates));
	seen_n = n;
	return answer;
}

CORE_TEST(node, the_policy_chooses, .bare = true)
{
	struct gm_policy policy = { .size = sizeof(policy), .state = &answer, .victim = any_victim };

	node_open(w, 8, PAGE);
	for (unsigned i = 0; i < 4; i++)
		(void)settle(i == 2, 10 + i, 32 * i);
	answer = 2;
	cr_assert_eq(pick(&policy).block, &block[12]);
	cr_assert_eq(seen_n, 4);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(seen[i].va, (10 + i) * BLOCK + 32 * PAGE * i);
		cr_assert_eq(seen[i].bytes, UNIT << (i == 2));
		cr_assert(i == 0 || seen[i].served_ns >= seen[i - 1].served_ns);
	}
	answer = 4; /* one too many */
	cr_assert_eq(pick(&policy).block, &block[10], "an index out of range means the first");
	answer = SIZE_MAX;
	cr_assert_eq(pick(&policy).block, &block[11]);
	node_close();
}

CORE_TEST(node, random_operations, .bare = true)
{
	struct gm_chunk *c[64];
	unsigned n = 0;

	node_open(w, 50, PAGE);
	for (unsigned step = 0; step < 3000; step++) {
		unsigned what = (unsigned)gm_sim_random(w->sim, 8);

		if (what < 3) {
			struct gm_chunk *fresh = gm_node_take(&node, (unsigned)gm_sim_random(w->sim, 6));

			if (fresh && gm_sim_random(w->sim, 4))
				gm_node_settle(&node, fresh, &block[step % BLOCKS], 0);
			if (fresh)
				c[n++] = fresh;
		} else if (n && what < 6) {
			unsigned i = (unsigned)gm_sim_random(w->sim, n);

			gm_node_put(&node, c[i]);
			c[i] = c[--n];
		} else if (n && what == 6) {
			unsigned i = (unsigned)gm_sim_random(w->sim, n);
			unsigned units = 1u << c[i]->order;

			if (c[i]->state == GM_CHUNK_RESIDENT && n + units <= 64) {
				gm_node_split(&node, c[i]);
				for (unsigned k = 1; k < units; k++)
					c[n++] = &c[i][k];
			}
		} else {
			struct gm_victim v;

			if (gm_node_pick(&node, &lru, &v))
				atomic_fetch_sub(&v.block->refs, 1);
		}
		check();
	}
	while (n)
		gm_node_put(&node, c[--n]);
	cr_assert_eq(node.free_units, 50);
	node_close();
}
