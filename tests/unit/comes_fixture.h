/* SPDX-License-Identifier: MIT */
/*
 * For tests of what lies between two looks: while one call runs, another comes, before the 1st, the 2nd ... the last
 * lock that the first takes with empty hands. That is every moment in which others can see a difference.
 */
#ifndef GM_TEST_COMES_FIXTURE_H
#define GM_TEST_COMES_FIXTURE_H

#include "core_fixture.h"

typedef gm_ret_t (*comes_fn)(struct gm_as *as, uint64_t va);

static struct {
	struct world *w;
	const struct gm_env_ops *ops; /* the real ones */
	uint64_t va;
	unsigned at;      /* it comes before this lock; 0: it came */
	unsigned depth;   /* locks that the call has */
	uint32_t caller;
	comes_fn comes;
	gm_ret_t ret;     /* what it said; AGAIN: it did not come */
} other;

static inline void comes_lock(struct gm_env *env, struct gm_mutex *m)
{
	bool mine = gm_sim_thread_id(other.w->sim) == other.caller;

	if (mine && !other.depth && other.at && !--other.at)
		other.ret = other.comes(other.w->as, other.va);
	other.ops->lock(env, m);
	other.depth += mine;
}

static inline bool comes_trylock(struct gm_env *env, struct gm_mutex *m)
{
	bool got = other.ops->trylock(env, m);

	other.depth += got && gm_sim_thread_id(other.w->sim) == other.caller;
	return got;
}

static inline void comes_unlock(struct gm_env *env, struct gm_mutex *m)
{
	other.depth -= gm_sim_thread_id(other.w->sim) == other.caller;
	other.ops->unlock(env, m);
}

/* The result of `call`, with `comes` coming before its lock number `at`. */
static inline gm_ret_t meet(struct world *w, comes_fn call, comes_fn comes, uint64_t va, unsigned at)
{
	struct gm_env_ops ops = *w->env->ops;
	gm_ret_t ret;

	memset(&other, 0, sizeof(other));
	other.w = w;
	other.va = va;
	other.comes = comes;
	other.at = at;
	other.ops = w->env->ops;
	other.caller = gm_sim_thread_id(w->sim);
	other.ret = GM_RET_AGAIN;
	ops.lock = comes_lock;
	ops.trylock = comes_trylock;
	ops.unlock = comes_unlock;
	w->env->ops = &ops;
	ret = call(w->as, va);
	w->env->ops = other.ops;
	return ret;
}

#endif
