/* SPDX-License-Identifier: MIT */
/* The rules of the simulated environment: breaking one aborts, with a message that names who and what. */
#include <criterion/criterion.h>

#include <signal.h>

#include "sim_fixture.h"

static void yields_with_a_lock(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	gm_yield(w->env);
}

static void waits_with_two_locks(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	gm_lock(w->env, &w->other);
	gm_wait(w->env, &w->queue, &w->other, 0);
}

static void sleeps_with_a_lock(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	gm_sim_sleep_ns(w->sim, 1);
}

static void joins_with_a_lock(void *arg)
{
	struct world *w = arg;
	struct gm_thread *t = start(w, "other", nothing, NULL);

	gm_lock(w->env, &w->lock);
	join(w, t);
}

static void locks_twice(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
	gm_lock(w->env, &w->lock);
}

static void locks_out_of_rank(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->other);
	gm_lock(w->env, &w->lock);
}

static void unlocks_what_it_has_not(void *arg)
{
	struct world *w = arg;

	gm_unlock(w->env, &w->lock);
}

static void ends_with_a_lock(void *arg)
{
	struct world *w = arg;

	gm_lock(w->env, &w->lock);
}

static void runs_inside_a_run(void *arg)
{
	struct world *w = arg;

	gm_sim_run(w->sim, nothing, NULL);
}

static void run_forbidden(void (*fn)(void *arg))
{
	struct world w;

	world_open(&w, 1);
	gm_sim_run(w.sim, fn, &w);
}

#define FORBIDDEN(fn) \
	Test(sim_sched, abort_if_##fn, .signal = SIGABRT) \
	{ \
		run_forbidden(fn); \
	}

FORBIDDEN(yields_with_a_lock)
FORBIDDEN(waits_with_two_locks)
FORBIDDEN(sleeps_with_a_lock)
FORBIDDEN(joins_with_a_lock)
FORBIDDEN(locks_twice)
FORBIDDEN(locks_out_of_rank)
FORBIDDEN(unlocks_what_it_has_not)
FORBIDDEN(ends_with_a_lock)
FORBIDDEN(runs_inside_a_run)

Test(sim_sched, abort_if_waiting_outside, .signal = SIGABRT)
{
	struct world w;

	world_open(&w, 1);
	gm_sim_set_spurious(w.sim, false);
	gm_lock(w.env, &w.lock);
	gm_wait(w.env, &w.queue, &w.lock, UINT64_MAX);
}
