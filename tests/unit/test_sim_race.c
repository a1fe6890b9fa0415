/* SPDX-License-Identifier: MIT */
/*
 * What the simulation is for: races that a machine shows once in thousands of
 * tries. A page is taken away from a writer and brought back again and again;
 * the writer counts. Copy-then-drop must lose updates, else the simulation
 * proves nothing; steal must not. And a discard must not be undone by a steal
 * that got in between its event and its effect.
 */
#include "sim_host_fixture.h"

#define SEEDS 60u
#define ADDS 60u

struct race {
	struct host_world w;
	bool naive;
	uint8_t copy[GM_PAGE_BYTES];
	bool away; /* the page's bytes are in `copy`, or in the slot */
	unsigned moves;
};

static void writer(void *arg)
{
	struct race *r = arg;
	uint64_t old;

	for (unsigned i = 0; i < ADDS; i++)
		cr_assert_eq(gm_sim_fetch_add(r->w.sim, r->w.va, 1, &old), GM_RET_SUCCESS);
	r->w.done = true;
}

/* Copy the bytes over the bus, drop the page: the writer may write in between. */
static void take_naively(struct race *r)
{
	if (gm_sim_host_mmu()->access(r->w.pmap, r->w.va, r->copy, PAGE, false))
		return;
	gm_yield(r->w.env);
	r->away = true;
	cr_assert_eq(gm_sim_dontneed(r->w.sim, r->w.va, PAGE), GM_RET_SUCCESS);
	r->moves++;
}

static void take_by_steal(struct race *r)
{
	struct gm_mask want = gm_mask_span(0, 1);
	struct gm_host_steal out;

	if (r->w.op->steal(r->w.pmap, r->w.va, &want, r->w.slot, &out) || gm_mask_count(&out.hole))
		return;
	r->away = true;
	r->moves++;
}

static void migrator(void *arg)
{
	struct race *r = arg;

	while (!r->w.done) {
		gm_sim_sleep_ns(r->w.sim, gm_sim_random(r->w.sim, 3000));
		if (r->away || r->w.done)
			continue;
		if (r->naive)
			take_naively(r);
		else
			take_by_steal(r);
	}
}

static void bring_back(struct race *r)
{
	uint64_t done;
	gm_ret_t ret;

	do {
		if (!r->away)
			ret = GM_RET_SUCCESS;
		else if (r->naive)
			ret = r->w.op->fill(r->w.pmap, r->w.va, r->copy, PAGE, &done);
		else
			ret = r->w.op->restore(r->w.pmap, r->w.va, r->w.slot, PAGE, &done);
		if (ret == GM_RET_AGAIN)
			gm_yield(r->w.env);
	} while (ret == GM_RET_AGAIN);
	r->away = r->away && ret != GM_RET_SUCCESS;
	r->w.op->wake(r->w.pmap, r->w.va, PAGE);
}

static void handler(void *arg)
{
	struct race *r = arg;

	while (!r->w.stop) {
		struct gm_host_msg msg[4];
		bool fault = false;

		r->w.op->msg_wait(r->w.pmap, UINT64_MAX);
		for (size_t n = r->w.op->msg_read(r->w.pmap, msg, 4); n-- > 0;)
			fault |= msg[n].kind == GM_HOST_FAULT;
		gm_yield(r->w.env);
		if (fault)
			bring_back(r);
	}
}

static void race_body(void *arg)
{
	struct race *r = arg;
	struct gm_thread *t[3];

	r->w.va = gm_sim_mmap(r->w.sim, BLOCK, RW);
	store_u64(&r->w, r->w.va, 0);
	r->w.op->watch(r->w.pmap, r->w.va, BLOCK);
	r->w.op->slot_alloc(r->w.pmap, &r->w.slot);
	t[0] = spawn(&r->w, handler, r);
	t[1] = spawn(&r->w, writer, r);
	t[2] = spawn(&r->w, migrator, r);
	join(&r->w, t[1]);
	join(&r->w, t[2]);
	r->w.value = load_u64(&r->w, r->w.va);
	r->w.stop = true;
	r->w.op->msg_kick(r->w.pmap);
	join(&r->w, t[0]);
	r->w.op->slot_free(r->w.pmap, r->w.slot);
}

/* Updates that were lost. */
static uint64_t run_race(uint64_t seed, bool naive, uint64_t *hash, unsigned *moves)
{
	static struct race r;

	memset(&r, 0, sizeof(r));
	host_world_open(&r.w, seed, true);
	r.naive = naive;
	cr_assert(gm_sim_run(r.w.sim, race_body, &r), "deadlock with seed %u", (unsigned)seed);
	*hash = gm_sim_hash(r.w.sim);
	*moves += r.moves;
	host_world_close(&r.w);
	cr_assert_leq(r.w.value, ADDS);
	return ADDS - r.w.value;
}

Test(sim_race, copy_then_drop_loses_updates)
{
	uint64_t lost = 0, hash;
	unsigned moves = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++)
		lost += run_race(seed, true, &hash, &moves);
	cr_assert_gt(moves, SEEDS);
	cr_assert_gt(lost, 0, "the race was never seen in %u moves", moves);
}

Test(sim_race, steal_loses_none)
{
	unsigned moves = 0;
	uint64_t hash;

	for (uint64_t seed = 0; seed < SEEDS; seed++)
		cr_assert_eq(run_race(seed, false, &hash, &moves), 0, "seed %u", (unsigned)seed);
	cr_assert_gt(moves, SEEDS);
}

Test(sim_race, same_seed_same_run)
{
	uint64_t hash, again, before = 0;
	unsigned moves = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		run_race(seed, false, &hash, &moves);
		run_race(seed, false, &again, &moves);
		cr_assert_eq(hash, again, "seed %u", (unsigned)seed);
		cr_assert_neq(hash, before);
		before = hash;
	}
}

/* ------------------------------------- a discard against a steal in its window */

static void discard(void *arg)
{
	struct race *r = arg;

	cr_assert_eq(gm_sim_dontneed(r->w.sim, r->w.va, PAGE), GM_RET_SUCCESS);
	r->w.done = true;
}

/* Reads the event, steals although it was told, and restores after the discard. */
static void window_body(void *arg)
{
	struct race *r = arg;
	struct gm_mask want = gm_mask_span(0, 1);
	struct gm_host_steal out = { .moved = gm_mask_none() };
	struct gm_thread *t;
	uint64_t done;

	r->w.va = gm_sim_mmap(r->w.sim, BLOCK, RW);
	store_u64(&r->w, r->w.va, 77);
	r->w.op->watch(r->w.pmap, r->w.va, BLOCK);
	r->w.op->slot_alloc(r->w.pmap, &r->w.slot);
	t = spawn(&r->w, discard, r);
	cr_assert_eq(next_msg(&r->w).kind, GM_HOST_REMOVE);
	while (!r->w.done && gm_mask_empty(&out.moved)) {
		gm_yield(r->w.env);
		r->w.op->steal(r->w.pmap, r->w.va, &want, r->w.slot, &out);
	}
	join(&r->w, t);
	if (!gm_mask_empty(&out.moved) && gm_mask_empty(&out.hole)) {
		while (r->w.op->restore(r->w.pmap, r->w.va, r->w.slot, PAGE, &done) == GM_RET_AGAIN)
			gm_yield(r->w.env);
		r->moves += load_u64(&r->w, r->w.va) == 77;
	}
	r->w.op->slot_free(r->w.pmap, r->w.slot);
}

Test(sim_race, the_window_of_a_discard_is_there)
{
	static struct race r;
	unsigned undone = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		memset(&r, 0, sizeof(r));
		host_world_open(&r.w, seed, true);
		cr_assert(gm_sim_run(r.w.sim, window_body, &r));
		host_world_close(&r.w);
		undone += r.moves;
	}
	cr_assert_gt(undone, 0, "a library that ignores REMOVE is never caught");
	cr_assert_lt(undone, SEEDS);
}
