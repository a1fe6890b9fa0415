/* SPDX-License-Identifier: MIT */
/*
 * The environment's ops table over the coroutines, and the making of a world.
 *
 * A lock is a flag with an owner: since it is never held across a point, one
 * that is found taken is a bug and aborts, whether or not checks are enabled;
 * so is a lock out of rank. Taking a second lock is no point for that reason.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "hal/sim/gm_sim_internal.h"

struct sim_mutex {
	struct gm_thread *owner;
	uint64_t rank;
} __attribute__((may_alias));

struct sim_waitq {
	struct gm_sim_threads waiters;
} __attribute__((may_alias));

_Static_assert(sizeof(struct sim_mutex) <= sizeof(struct gm_mutex), "a mutex fits");
_Static_assert(sizeof(struct sim_waitq) <= sizeof(struct gm_waitq), "a queue of waiters fits");

static struct gm_sim *to_sim(struct gm_env *env)
{
	return (struct gm_sim *)env;
}

static struct sim_mutex *to_mutex(struct gm_mutex *m)
{
	return (struct sim_mutex *)m;
}

static struct sim_waitq *to_waitq(struct gm_waitq *q)
{
	return (struct sim_waitq *)q;
}

static uint64_t sim_now_ns(struct gm_env *env)
{
	return to_sim(env)->now_ns;
}

static void sim_mutex_init(struct gm_env *env, struct gm_mutex *m, enum gm_rank rank)
{
	(void)env;
	*to_mutex(m) = (struct sim_mutex){ .rank = (uint64_t)rank };
}

static void sim_mutex_fini(struct gm_env *env, struct gm_mutex *m)
{
	if (to_mutex(m)->owner)
		gm_sim_panic(to_sim(env), "a lock is unmade while %s holds it", to_mutex(m)->owner->name);
}

static void take(struct gm_sim *sim, struct gm_mutex *m)
{
	struct sim_mutex *mutex = to_mutex(m);

	if (mutex->owner)
		gm_sim_panic(sim, "takes a lock of rank %s that %s holds", gm_rank_name((enum gm_rank)mutex->rank),
			     mutex->owner->name);
	gm_rank_push(&sim->current->locks, m, (enum gm_rank)mutex->rank);
	mutex->owner = sim->current;
}

static void sim_lock(struct gm_env *env, struct gm_mutex *m)
{
	struct gm_sim *sim = to_sim(env);

	if (sim->current->locks.n == 0)
		gm_sim_point(sim);
	take(sim, m);
}

/* Locks are not held where others run, so this one is free. */
static bool sim_trylock(struct gm_env *env, struct gm_mutex *m)
{
	take(to_sim(env), m);
	return true;
}

static void sim_unlock(struct gm_env *env, struct gm_mutex *m)
{
	struct gm_sim *sim = to_sim(env);

	gm_rank_pop(&sim->current->locks, m);
	to_mutex(m)->owner = NULL;
}

static void sim_waitq_init(struct gm_env *env, struct gm_waitq *q)
{
	(void)env;
	TAILQ_INIT(&to_waitq(q)->waiters);
}

static void sim_waitq_fini(struct gm_env *env, struct gm_waitq *q)
{
	if (!TAILQ_EMPTY(&to_waitq(q)->waiters))
		gm_sim_panic(to_sim(env), "a queue is unmade while %s waits in it",
			     TAILQ_FIRST(&to_waitq(q)->waiters)->name);
}

static gm_ret_t sim_wait(struct gm_env *env, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns)
{
	struct gm_sim *sim = to_sim(env);
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_rank_assert_only(&sim->current->locks, m);
	sim_unlock(env, m);
	if (gm_sim_inside(sim) && gm_sim_rarely(sim))
		gm_sim_point(sim);
	else if (!gm_sim_queue_wait(sim, &to_waitq(q)->waiters, deadline_ns, "gm_wait"))
		ret = GM_RET_TIMEDOUT;
	take(sim, m);
	return ret;
}

static void sim_wake(struct gm_env *env, struct gm_waitq *q)
{
	gm_sim_queue_wake(to_sim(env), &to_waitq(q)->waiters);
}

static void sim_yield(struct gm_env *env)
{
	gm_sim_point(to_sim(env));
}

static void sim_assert_unlocked(struct gm_env *env, const char *where)
{
	gm_rank_assert_none(&to_sim(env)->current->locks, where);
}

static bool sim_is_device_thread(struct gm_env *env, uint32_t tid)
{
	struct gm_thread *t;

	TAILQ_FOREACH(t, &to_sim(env)->all, all) {
		if (t->id == tid)
			return t->flags & GM_THREAD_DEVICE;
	}
	return false;
}

static void sim_thread_join(struct gm_env *env, struct gm_thread *t)
{
	struct gm_sim *sim = to_sim(env);

	gm_rank_assert_none(&sim->current->locks, "gm_thread_join");
	gm_sim_point(sim);
	while (t->state != GM_SIM_DONE)
		gm_sim_queue_wait(sim, &t->joiners, GM_SIM_NEVER, "gm_thread_join");
	gm_sim_thread_free(sim, t);
}

static const struct gm_env_ops sim_env_ops = {
	.name = "simulation",
	.simulated = true,
	.now_ns = sim_now_ns,
	.mutex_init = sim_mutex_init,
	.mutex_fini = sim_mutex_fini,
	.lock = sim_lock,
	.trylock = sim_trylock,
	.unlock = sim_unlock,
	.waitq_init = sim_waitq_init,
	.waitq_fini = sim_waitq_fini,
	.wait = sim_wait,
	.wake = sim_wake,
	.thread_start = gm_sim_thread_start,
	.thread_join = sim_thread_join,
	.yield = sim_yield,
	.is_device_thread = sim_is_device_thread,
	.assert_unlocked = sim_assert_unlocked,
};

static void rank_failed(void *arg, const char *message)
{
	gm_sim_panic(arg, "%s", message);
}

static void *plain_alloc(void *arg, size_t bytes)
{
	(void)arg;
	return calloc(1, bytes ? bytes : 1);
}

static void plain_free(void *arg, void *ptr, size_t bytes)
{
	(void)arg;
	(void)bytes;
	free(ptr);
}

struct gm_sim *gm_sim_create(uint64_t seed, const struct gm_lib_config *config)
{
	struct gm_sim *sim = calloc(1, sizeof(*sim));

	if (!sim)
		return NULL;
	sim->env.ops = &sim_env_ops;
	sim->env.mem = (struct gm_allocator){ plain_alloc, plain_free, NULL };
	if (config) {
		if (config->allocator)
			sim->env.mem = *config->allocator;
		sim->env.log = config->log;
		sim->env.log_arg = config->log_arg;
		sim->env.log_level = config->log_level;
		sim->env.validate = config->validate;
	}
	sim->rng = seed;
	sim->now_ns = 1000000; /* not zero: nobody may take 0 for "no time" */
	sim->horizon_ns = GM_SIM_NEVER;
	sim->next_timer_ns = GM_SIM_NEVER;
	sim->spurious = true;
	sim->main.sim = sim;
	snprintf(sim->main.name, sizeof(sim->main.name), "main");
	sim->main.deadline_ns = GM_SIM_NEVER;
	sim->main.locks.fail = rank_failed;
	sim->main.locks.fail_arg = sim;
	sim->current = &sim->main;
	TAILQ_INIT(&sim->all);
	TAILQ_INIT(&sim->forkers);
	RB_INIT(&sim->timers);
	RB_INIT(&sim->vmas);
	RB_INIT(&sim->blocks);
	RB_INIT(&sim->slots);
	LIST_INIT(&sim->pmaps);
	LIST_INIT(&sim->dead_pmaps);
	return sim;
}

void gm_sim_destroy(struct gm_sim *sim)
{
	if (!sim)
		return;
	while (!TAILQ_EMPTY(&sim->all))
		gm_sim_thread_free(sim, TAILQ_FIRST(&sim->all));
	while (sim->free_stacks) {
		struct gm_sim_stack *stack = sim->free_stacks;

		sim->free_stacks = stack->next;
		gm_sim_stack_destroy(stack);
	}
	while (!LIST_EMPTY(&sim->dead_pmaps)) { /* of coroutines that never ran again */
		struct gm_sim_pmap *pmap = LIST_FIRST(&sim->dead_pmaps);

		pmap->refs = 1;
		gm_sim_pmap_put(pmap);
	}
	gm_sim_slot_fini(sim);
	gm_sim_mem_fini(sim);
	free(sim->ready);
	free(sim);
}

struct gm_env *gm_sim_env(struct gm_sim *sim)
{
	return &sim->env;
}
