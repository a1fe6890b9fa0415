/* SPDX-License-Identifier: MIT */
/*
 * The coroutine scheduler: reproducible, and different for different seeds;
 * deadlocks and deadlines; coroutines that come and go.
 */
#include <criterion/criterion.h>

#include <string.h>

#include "failing_alloc.h"
#include "sim_fixture.h"

static void note(struct world *w, char c)
{
	if (w->logged < LOG_MAX - 1)
		w->log[w->logged++] = c;
}

/* ------------------------------------------------------------ interleaving */

struct actor {
	struct world *w;
	char name;
	enum { BY_YIELD, BY_LOCK, BY_SLEEP } how;
};

static void act(void *arg)
{
	struct actor *a = arg;

	for (int i = 0; i < 50; i++) {
		note(a->w, a->name);
		if (a->how == BY_YIELD) {
			gm_yield(a->w->env);
		} else if (a->how == BY_LOCK) {
			gm_lock(a->w->env, &a->w->lock);
			gm_unlock(a->w->env, &a->w->lock);
		} else {
			gm_sim_sleep_ns(a->w->sim, gm_sim_random(a->w->sim, 1000));
		}
	}
}

static void three_actors(void *arg)
{
	struct world *w = arg;
	struct actor a[3] = { { w, 'a', BY_YIELD }, { w, 'b', BY_LOCK }, { w, 'c', BY_SLEEP } };
	struct gm_thread *t[3];

	for (int i = 0; i < 3; i++)
		t[i] = start(w, "actor", act, &a[i]);
	for (int i = 0; i < 3; i++)
		join(w, t[i]);
}

static void two_lockers(void *arg)
{
	struct world *w = arg;
	struct actor a[2] = { { w, 'a', BY_LOCK }, { w, 'b', BY_LOCK } };
	struct gm_thread *t[2];

	for (int i = 0; i < 2; i++)
		t[i] = start(w, "locker", act, &a[i]);
	for (int i = 0; i < 2; i++)
		join(w, t[i]);
}

static uint64_t hash_of(uint64_t seed, void (*fn)(void *arg), char *log)
{
	struct world w;
	uint64_t hash;

	world_open(&w, seed);
	cr_assert(gm_sim_run(w.sim, fn, &w));
	hash = gm_sim_hash(w.sim);
	strcpy(log, w.log);
	world_close(&w);
	return hash;
}

/* Both worlds exist at once, so that their coroutines are at different addresses. */
Test(sim_sched, same_seed_same_run)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct world one, two;

		world_open(&one, seed);
		world_open(&two, seed);
		cr_assert(gm_sim_run(one.sim, three_actors, &one));
		cr_assert(gm_sim_run(two.sim, three_actors, &two));
		cr_assert_eq(gm_sim_hash(one.sim), gm_sim_hash(two.sim), "seed %u", (unsigned)seed);
		cr_assert_eq(gm_now_ns(one.env), gm_now_ns(two.env));
		cr_assert_str_eq(one.log, two.log);
		cr_assert_eq(strlen(one.log), 150);
		world_close(&two);
		world_close(&one);
	}
}

Test(sim_sched, other_seed_other_run)
{
	static char log[SEEDS][LOG_MAX];
	uint64_t hash[SEEDS];

	for (unsigned i = 0; i < SEEDS; i++) {
		hash[i] = hash_of(i, three_actors, log[i]);
		for (unsigned j = 0; j < i; j++) {
			cr_assert_neq(hash[i], hash[j], "seeds %u and %u", i, j);
			cr_assert_str_neq(log[i], log[j], "seeds %u and %u", i, j);
		}
	}
}

static void note_once(void *arg)
{
	struct actor *a = arg;

	note(a->w, a->name);
}

static void three_notes(void *arg)
{
	struct world *w = arg;
	struct actor a[3] = { { w, 'a', BY_YIELD }, { w, 'b', BY_YIELD }, { w, 'c', BY_YIELD } };
	struct gm_thread *t[3];

	for (int i = 0; i < 3; i++)
		t[i] = start(w, "note", note_once, &a[i]);
	gm_sim_sleep_ns(w->sim, 1000000);
	for (int i = 0; i < 3; i++)
		join(w, t[i]);
}

/* Whoever is ready may be next: every order comes up. */
Test(sim_sched, every_order_comes_up)
{
	static const char *const order[] = { "abc", "acb", "bac", "bca", "cab", "cba" };
	static char log[LOG_MAX];
	unsigned seen = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		hash_of(seed, three_notes, log);
		for (unsigned i = 0; i < 6; i++)
			seen |= strcmp(log, order[i]) == 0 ? 1u << i : 0;
	}
	cr_assert_eq(seen, 63);
}

/* Taking a lock is a point, but not every time. */
Test(sim_sched, lock_is_a_point_now_and_then)
{
	static char log[LOG_MAX];
	unsigned changes = 0;

	hash_of(7, two_lockers, log);
	for (size_t i = 1; log[i]; i++)
		changes += log[i] != log[i - 1];
	cr_assert_gt(changes, 5);
	cr_assert_lt(changes, 80);
}

/* ------------------------------------------------------ deadlock, deadlines */

static void wait_for_flag(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	while (!w->flag)
		gm_wait(w->env, &w->queue, &w->lock, UINT64_MAX);
	gm_unlock(w->env, &w->lock);
	w->count++;
}

static void set_flag(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	w->flag = true;
	gm_wake(w->env, &w->queue);
	gm_unlock(w->env, &w->lock);
	while (w->count < 2)
		gm_yield(w->env);
}

static void wait_with_another(void *arg)
{
	struct world *w = arg;

	start(w, "sleeper", wait_for_flag, w);
	wait_for_flag(w);
}

Test(sim_sched, deadlock_is_found_and_told)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct world w;
		char text[512];

		world_open(&w, seed);
		cr_assert_not(gm_sim_run(w.sim, wait_with_another, &w));
		gm_sim_report(w.sim, text, sizeof(text));
		cr_assert_not_null(strstr(text, "sleeper (2): blocked in gm_wait"), "%s", text);
		cr_assert_not_null(strstr(text, "first (1): blocked in gm_wait"), "%s", text);
		/* they go on at the next run */
		cr_assert(gm_sim_run(w.sim, set_flag, &w));
		cr_assert_eq(w.count, 2);
		world_close(&w);
	}
}

static void poll_for_ever(void *arg)
{
	struct world *w = arg;

	for (;;)
		gm_yield(w->env);
}

static void sleep_for_ever(void *arg)
{
	struct world *w = arg;

	for (;;)
		gm_sim_sleep_ns(w->sim, 1000000);
}

Test(sim_sched, horizon_ends_a_livelock)
{
	void (*const fn[])(void *) = { poll_for_ever, sleep_for_ever };

	for (int i = 0; i < 2; i++) {
		struct world w;

		world_open(&w, 1);
		gm_sim_set_horizon_ns(w.sim, gm_now_ns(w.env) + 50000000);
		cr_assert_not(gm_sim_run(w.sim, fn[i], &w));
		gm_sim_set_horizon_ns(w.sim, UINT64_MAX);
		cr_assert(gm_sim_run(w.sim, nothing, NULL), "the world is usable afterwards");
		world_close(&w);
	}
}

struct sleeper {
	struct world *w;
	uint64_t ns;
	char name;
};

static void sleep_and_note(void *arg)
{
	struct sleeper *s = arg;
	uint64_t begin = gm_now_ns(s->w->env);

	gm_sim_sleep_ns(s->w->sim, s->ns);
	cr_assert_geq(gm_now_ns(s->w->env), begin + s->ns);
	cr_assert_lt(gm_now_ns(s->w->env), begin + s->ns + 100000, "woken long after its deadline");
	note(s->w, s->name);
}

static void five_sleepers(void *arg)
{
	struct world *w = arg;
	struct sleeper s[5] = { { w, UINT64_C(3600000000000), 'e' }, { w, 300000, 'c' }, { w, 100000, 'a' },
				{ w, 400000, 'd' }, { w, 200000, 'b' } };
	struct gm_thread *t[5];

	for (int i = 0; i < 5; i++)
		t[i] = start(w, "sleeper", sleep_and_note, &s[i]);
	for (int i = 0; i < 5; i++)
		join(w, t[i]);
}

Test(sim_sched, deadlines_in_order_and_the_clock_jumps)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct world w;

		world_open(&w, seed);
		cr_assert(gm_sim_run(w.sim, five_sleepers, &w));
		cr_assert_str_eq(w.log, "abcde", "seed %u", (unsigned)seed);
		cr_assert_lt(gm_sim_switches(w.sim), 1000, "an hour was waited through, not jumped over");
		world_close(&w);
	}
}

static void wait_times_out(void *arg)
{
	struct world *w = arg;
	uint64_t deadline = gm_deadline_ns(w->env, 500000);

	gm_lock(w->env, &w->lock);
	cr_assert_eq(gm_wait(w->env, &w->queue, &w->lock, deadline), GM_RET_TIMEDOUT);
	cr_assert_geq(gm_now_ns(w->env), deadline);
	/* the lock is held again, and a deadline in the past is no wait */
	cr_assert_eq(gm_wait(w->env, &w->queue, &w->lock, 0), GM_RET_TIMEDOUT);
	gm_unlock(w->env, &w->lock);
}

static void wait_is_woken(void *arg)
{
	struct world *w = arg;
	struct gm_thread *t = start(w, "setter", set_flag, w);
	uint64_t begin = gm_now_ns(w->env);

	gm_lock(w->env, &w->lock);
	while (!w->flag)
		cr_assert_eq(gm_wait(w->env, &w->queue, &w->lock, begin + 1000000000), GM_RET_SUCCESS);
	gm_unlock(w->env, &w->lock);
	cr_assert_lt(gm_now_ns(w->env), begin + 1000000);
	w->count = 2;
	join(w, t);
}

Test(sim_sched, wait_ends_by_wake_or_deadline)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct world w;

		world_open(&w, seed);
		gm_sim_set_spurious(w.sim, false);
		cr_assert(gm_sim_run(w.sim, wait_times_out, &w));
		cr_assert(gm_sim_run(w.sim, wait_is_woken, &w));
		world_close(&w);
	}
}

static void count_spurious(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	for (int i = 0; i < 2000; i++)
		w->count += gm_wait(w->env, &w->queue, &w->lock, gm_now_ns(w->env) + 1000) == GM_RET_SUCCESS;
	gm_unlock(w->env, &w->lock);
}

Test(sim_sched, wakes_for_nothing_if_wanted)
{
	struct world w;

	world_open(&w, 3);
	cr_assert(gm_sim_run(w.sim, count_spurious, &w));
	cr_assert_gt(w.count, 5);
	cr_assert_lt(w.count, 200);
	w.count = 0;
	gm_sim_set_spurious(w.sim, false);
	cr_assert(gm_sim_run(w.sim, count_spurious, &w));
	cr_assert_eq(w.count, 0);
	world_close(&w);
}

/* --------------------------------------------------------------- coroutines */

/* Values in registers must survive what others do meanwhile. NULL: alone. */
static uint64_t compute(struct world *w, uint64_t salt)
{
	uint64_t a = salt, b = 2, c = 3, d = 5, e = 8, f = 13;
	double x = 1.0;

	for (int i = 0; i < 200; i++) {
		a += b * 3;
		b ^= c << 5;
		c += d;
		d = d * 7 + e;
		e ^= f;
		f += a;
		x = x * 1.25 + (double)(a % 7);
		if (x > 1e6)
			x /= 1e6;
		if (w)
			gm_yield(w->env);
	}
	return (a ^ b ^ c ^ d ^ e ^ f) + (uint64_t)(x * 1000);
}

struct sum {
	struct world *w;
	uint64_t salt;
};

static void compute_among_others(void *arg)
{
	struct sum *s = arg;

	s->w->count += compute(s->w, s->salt) == compute(NULL, s->salt);
}

static void many_sums(void *arg)
{
	struct world *w = arg;
	struct sum s[10];
	struct gm_thread *t[10];

	for (unsigned i = 0; i < 10; i++) {
		s[i] = (struct sum){ w, i };
		t[i] = start(w, "sum", compute_among_others, &s[i]);
	}
	for (unsigned i = 0; i < 10; i++)
		join(w, t[i]);
}

Test(sim_sched, registers_survive_a_switch)
{
	struct world w;

	world_open(&w, 11);
	cr_assert(gm_sim_run(w.sim, many_sums, &w));
	cr_assert_eq(w.count, 10);
	cr_assert_gt(gm_sim_switches(w.sim), 200);
	world_close(&w);
}

/* A frame of 64 KiB, so that a stack that is used again is used deeply. */
static void use_stack(void *arg)
{
	struct world *w = arg;
	volatile char deep[64 << 10];

	for (size_t i = 0; i < sizeof(deep); i += 512)
		deep[i] = (char)i;
	gm_yield(w->env);
	for (size_t i = 0; i < sizeof(deep); i += 512)
		w->count += deep[i] != (char)i;
}

static void start_and_join(void *arg)
{
	struct world *w = arg;

	for (int i = 0; i < 300; i++) {
		struct gm_thread *t[3];

		for (int j = 0; j < 3; j++)
			t[j] = start(w, "short", use_stack, w);
		for (int j = 3; j-- > 0;)
			join(w, t[j]);
	}
}

Test(sim_sched, threads_come_and_go_without_a_trace)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &fa.table };
	struct world w = { .count = 0 };

	failing_alloc_init(&fa);
	w.sim = gm_sim_create(5, &config);
	w.env = gm_sim_env(w.sim);
	cr_assert(gm_sim_run(w.sim, start_and_join, &w));
	cr_assert_eq(w.count, 0);
	cr_assert_eq(fa.live, 0);
	cr_assert_eq(fa.bad_frees, 0);
	gm_sim_destroy(w.sim);
}

static void start_without_memory(void *arg)
{
	struct world *w = arg;
	struct gm_thread *t = (struct gm_thread *)w;

	cr_assert_eq(w->env->ops->thread_start(w->env, "no", 0, nothing, w, &t), GM_RET_NOMEM);
	cr_assert_eq(t, (struct gm_thread *)w, "out-parameters stay");
}

Test(sim_sched, no_memory_no_thread)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &fa.table };
	struct world w = { .count = 0 };

	failing_alloc_init(&fa);
	w.sim = gm_sim_create(5, &config);
	w.env = gm_sim_env(w.sim);
	failing_alloc_arm(&fa, 2); /* the first coroutine is the first */
	cr_assert(gm_sim_run(w.sim, start_without_memory, &w));
	cr_assert(failing_alloc_fired(&fa));
	cr_assert_eq(fa.live, 0);
	gm_sim_destroy(w.sim);
}

static void tell_id(void *arg)
{
	struct world *w = arg;

	w->count = gm_sim_thread_id(w->sim);
}

static void device_threads(void *arg)
{
	struct world *w = arg;
	struct gm_thread *t;

	cr_assert_eq(w->env->ops->thread_start(w->env, "engine", GM_THREAD_DEVICE, tell_id, w, &t), GM_RET_SUCCESS);
	cr_assert_eq(gm_sim_thread_id(w->sim), 1);
	while (!w->count)
		gm_yield(w->env);
	cr_assert(w->env->ops->is_device_thread(w->env, w->count));
	cr_assert_not(w->env->ops->is_device_thread(w->env, gm_sim_thread_id(w->sim)));
	cr_assert_not(w->env->ops->is_device_thread(w->env, 0));
	join(w, t);
	cr_assert_not(w->env->ops->is_device_thread(w->env, w->count), "gone");
}

Test(sim_sched, device_threads_are_known)
{
	struct world w;

	world_open(&w, 1);
	cr_assert(gm_sim_run(w.sim, device_threads, &w));
	cr_assert_eq(gm_sim_thread_id(w.sim), 0);
	world_close(&w);
}

Test(sim_sched, outside_of_a_run_locks_work)
{
	struct world w;

	world_open(&w, 1);
	gm_lock(w.env, &w.lock);
	gm_lock(w.env, &w.other);
	gm_wake(w.env, &w.queue);
	gm_unlock(w.env, &w.other);
	gm_unlock(w.env, &w.lock);
	gm_yield(w.env);
	cr_assert_eq(gm_sim_switches(w.sim), 0);
	world_close(&w);
}

Test(sim_sched, random_is_uniform)
{
	struct gm_sim *sim = gm_sim_create(1, NULL);
	unsigned hit[10] = { 0 };

	for (int i = 0; i < 10000; i++) {
		uint64_t r = gm_sim_random(sim, 10);

		cr_assert_lt(r, 10);
		hit[r]++;
	}
	for (int i = 0; i < 10; i++)
		cr_assert(hit[i] > 850 && hit[i] < 1150, "%d came %u times", i, hit[i]);
	gm_sim_destroy(sim);
}
