/* SPDX-License-Identifier: MIT */
/* For tests of the simulation's scheduler: a world, two locks in rising rank, a queue, a log. */
#ifndef GM_TEST_SIM_FIXTURE_H
#define GM_TEST_SIM_FIXTURE_H

#include <criterion/criterion.h>

#include <string.h>

#include "hal/sim/gm_sim.h"

#define SEEDS 40u
#define LOG_MAX 4096u

struct world {
	struct gm_sim *sim;
	struct gm_env *env;
	struct gm_mutex lock, other;
	struct gm_waitq queue;
	bool flag;
	unsigned count;
	unsigned steps;
	char log[LOG_MAX]; /* who did what, in order */
	size_t logged;
};

static inline void world_open(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->sim = gm_sim_create(seed, NULL);
	cr_assert_not_null(w->sim);
	w->env = gm_sim_env(w->sim);
	gm_mutex_init(w->env, &w->lock, GM_RANK_AS);
	gm_mutex_init(w->env, &w->other, GM_RANK_BLOCK);
	gm_waitq_init(w->env, &w->queue);
}

static inline void world_close(struct world *w)
{
	gm_waitq_fini(w->env, &w->queue);
	gm_mutex_fini(w->env, &w->other);
	gm_mutex_fini(w->env, &w->lock);
	gm_sim_destroy(w->sim);
}

static inline struct gm_thread *start(struct world *w, const char *name, void (*fn)(void *arg), void *arg)
{
	struct gm_thread *t = NULL;

	cr_assert_eq(w->env->ops->thread_start(w->env, name, 0, fn, arg, &t), GM_RET_SUCCESS);
	return t;
}

static inline void join(struct world *w, struct gm_thread *t)
{
	w->env->ops->thread_join(w->env, t);
}

static inline void nothing(void *arg)
{
	(void)arg;
}

#endif
