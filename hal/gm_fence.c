/* SPDX-License-Identifier: MIT */
/*
 * Fences: state and reference count.
 *
 *     PENDING --signal(ret)--> ret          under the lock, once; the loser gets EXIST
 *     PENDING --cancel-------> CANCELED
 *
 * The state is one atomic: whoever reads a result sees all that was written
 * before the signal, without the lock. The lock orders the change against
 * waiters that are about to sleep and against callbacks that are being added.
 *
 * Order of a signal: state set and waiters woken, under the lock; then, with
 * no lock held, the callbacks in the order in which they came. A waiter may
 * thus return before the callbacks have run.
 *
 * References: signal holds one while it runs, because a waiter it has woken
 * may give back the last one. Each callback that waits holds one, so a fence
 * with callbacks lives until it is done, whoever else forgot it. Giving back
 * the last reference to a pending fence is legal: nobody can wait for it.
 *
 * The public's references are counted apart as well (`shares`): with the last
 * of them the handle ends, though the library may need the fence for longer,
 * and one that is given back once too often takes none of the library's. A
 * backend gives back with its service what it had from there, which does not
 * tell whose it was: such a handle may live as long as the fence.
 */
#include "config.h"

#include <assert.h>
#include <stdatomic.h>

#include <bsd/sys/queue.h>

#include "hal/gm_fence.h"
#include "hal/gm_handle.h"

/* Not a result: those are 0 or negative. */
#define PENDING 1

struct fence_call {
	STAILQ_ENTRY(fence_call) link;
	void (*fn)(void *arg, gm_ret_t result);
	void *arg;
};

STAILQ_HEAD(fence_calls, fence_call);

struct gm_fence {
	struct gm_env *env; /* (c) const */
	atomic_uint refs;   /* (a) atomic */
	atomic_uint shares; /* (a) of those, the public's; 0: not published, or not any more */
	bool published;     /* (c) before the public has it */
	atomic_int state;   /* (a) PENDING or a gm_ret_t; changes under the lock */
	struct gm_mutex lock;
	struct gm_waitq waiters;
	struct fence_calls calls; /* (L) under the lock; empty once done */
};

struct gm_fence *gm_fence_new(struct gm_env *env)
{
	struct gm_fence *fence = gm_mem_alloc(env, sizeof(*fence));

	if (!fence)
		return NULL;
	fence->env = env;
	atomic_init(&fence->refs, 1);
	atomic_init(&fence->state, PENDING);
	gm_mutex_init(env, &fence->lock, GM_RANK_FENCE);
	gm_waitq_init(env, &fence->waiters);
	STAILQ_INIT(&fence->calls);
	return fence;
}

gm_ret_t gm_fence_publish(struct gm_fence *fence)
{
	gm_ret_t ret = gm_handle_add(fence, GM_HANDLE_FENCE);

	if (ret)
		return ret;
	fence->published = true;
	atomic_store_explicit(&fence->shares, 1, memory_order_relaxed);
	atomic_fetch_add(&fence->env->fences, 1);
	atomic_fetch_add(&fence->env->fences_held, 1);
	return GM_RET_SUCCESS;
}

/* The public has it no more. */
static void unpublish(struct gm_fence *fence)
{
	gm_handle_del(fence, GM_HANDLE_FENCE);
	atomic_fetch_sub(&fence->env->fences_held, 1);
}

struct gm_fence *gm_fence_ref(struct gm_fence *fence)
{
	unsigned refs = atomic_fetch_add_explicit(&fence->refs, 1, memory_order_relaxed);

	assert(refs > 0);
	(void)refs;
	return fence;
}

void gm_fence_unref(struct gm_fence *fence)
{
	struct gm_env *env;
	unsigned refs;
	bool published;

	if (!fence)
		return;
	env = fence->env;
	refs = atomic_fetch_sub_explicit(&fence->refs, 1, memory_order_acq_rel);
	assert(refs > 0);
	if (refs > 1)
		return;
	published = fence->published;
	assert(STAILQ_EMPTY(&fence->calls));
	if (atomic_load_explicit(&fence->shares, memory_order_relaxed))
		unpublish(fence);
	gm_waitq_fini(env, &fence->waiters);
	gm_mutex_fini(env, &fence->lock);
	gm_mem_free(env, fence, sizeof(*fence));
	if (published)
		atomic_fetch_sub(&env->fences, 1); /* last: the environment may go now */
}

struct gm_fence *gm_fence_get(struct gm_fence *fence)
{
	if (!fence || gm_handle_check(fence, GM_HANDLE_FENCE))
		return NULL;
	atomic_fetch_add_explicit(&fence->shares, 1, memory_order_relaxed);
	return gm_fence_ref(fence);
}

void gm_fence_put(struct gm_fence *fence)
{
	if (!fence || gm_handle_check(fence, GM_HANDLE_FENCE))
		return;
	if (atomic_fetch_sub_explicit(&fence->shares, 1, memory_order_acq_rel) == 1)
		unpublish(fence);
	gm_fence_unref(fence);
}

bool gm_fence_is_on(struct gm_fence *fence, struct gm_env *env)
{
	return fence->env == env;
}

static int fence_state(struct gm_fence *fence)
{
	return atomic_load_explicit(&fence->state, memory_order_acquire);
}

bool gm_fence_done(struct gm_fence *fence)
{
	return fence_state(fence) != PENDING;
}

/* Call and free what waited, giving back the reference of each. */
static void run_calls(struct gm_fence *fence, struct fence_calls *calls, gm_ret_t result)
{
	struct fence_call *call;

	while ((call = STAILQ_FIRST(calls))) {
		STAILQ_REMOVE_HEAD(calls, link);
		call->fn(call->arg, result);
		gm_mem_free(fence->env, call, sizeof(*call));
		gm_fence_unref(fence);
	}
}

bool gm_fence_finish(struct gm_fence *fence, gm_ret_t result)
{
	struct fence_calls calls = STAILQ_HEAD_INITIALIZER(calls);
	bool first;

	(void)gm_fence_ref(fence);
	gm_lock(fence->env, &fence->lock);
	first = !gm_fence_done(fence);
	if (first) {
		atomic_store_explicit(&fence->state, result, memory_order_release);
		STAILQ_CONCAT(&calls, &fence->calls);
		gm_wake(fence->env, &fence->waiters);
	}
	gm_unlock(fence->env, &fence->lock);
	if (!STAILQ_EMPTY(&calls)) {
		gm_env_assert_unlocked(fence->env, "callbacks of a fence");
		run_calls(fence, &calls, result);
	}
	gm_fence_unref(fence);
	return first;
}

gm_ret_t gm_fence_signal(struct gm_fence *fence, gm_ret_t result)
{
	gm_ret_t ret = gm_handle_check(fence, GM_HANDLE_FENCE);

	if (ret)
		return ret;
	if (!gm_ret_known(result))
		return gm_fail(GM_RET_INVAL, "gm_fence_signal: %d is not a result: pass one of enum gm_ret", (int)result);
	if (!gm_fence_finish(fence, result))
		return gm_fail(GM_RET_EXIST, "gm_fence_signal: the fence is done already");
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fence_cancel(struct gm_fence *fence)
{
	gm_ret_t ret = gm_handle_check(fence, GM_HANDLE_FENCE);

	if (ret)
		return ret;
	if (!gm_fence_finish(fence, GM_RET_CANCELED))
		return gm_fail(GM_RET_EXIST, "gm_fence_cancel: the fence is done already");
	return GM_RET_SUCCESS;
}

gm_ret_t gm_fence_wait_until(struct gm_fence *fence, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	int state = fence_state(fence);

	if (state != PENDING)
		return (gm_ret_t)state;
	gm_lock(fence->env, &fence->lock);
	while (!gm_fence_done(fence) && ret == GM_RET_SUCCESS)
		ret = gm_wait(fence->env, &fence->waiters, &fence->lock, deadline_ns);
	/* A result that came together with the deadline counts. */
	state = fence_state(fence);
	gm_unlock(fence->env, &fence->lock);
	return state == PENDING ? ret : (gm_ret_t)state;
}

gm_ret_t gm_fence_wait(struct gm_fence *fence, uint64_t timeout_ns)
{
	gm_ret_t ret = gm_handle_check(fence, GM_HANDLE_FENCE);

	if (ret)
		return ret;
	if (timeout_ns == 0 && !gm_fence_done(fence))
		return gm_fail(GM_RET_TIMEDOUT, "gm_fence_wait: the fence is pending");
	ret = gm_fence_wait_until(fence, gm_deadline_ns(fence->env, timeout_ns));
	if (ret != GM_RET_SUCCESS)
		return gm_fail(ret, "gm_fence_wait: %s", gm_ret_text(ret));
	return GM_RET_SUCCESS;
}

/* False if the fence is done: then `call` was not taken. */
static bool add_call(struct gm_fence *fence, struct fence_call *call)
{
	bool pending;

	gm_lock(fence->env, &fence->lock);
	pending = !gm_fence_done(fence);
	if (pending) {
		(void)gm_fence_ref(fence);
		STAILQ_INSERT_TAIL(&fence->calls, call, link);
	}
	gm_unlock(fence->env, &fence->lock);
	return pending;
}

gm_ret_t gm_fence_on_done(struct gm_fence *fence, void (*fn)(void *arg, gm_ret_t result), void *arg)
{
	struct fence_call *call;

	/* Now is also when a fence that is done would call: with no lock held either. */
	gm_env_assert_unlocked(fence->env, "gm_fence_on_done");
	if (!gm_fence_done(fence)) {
		call = gm_mem_alloc(fence->env, sizeof(*call));
		if (!call)
			return GM_RET_NOMEM;
		call->fn = fn;
		call->arg = arg;
		if (add_call(fence, call))
			return GM_RET_SUCCESS;
		gm_mem_free(fence->env, call, sizeof(*call));
	}
	fn(arg, (gm_ret_t)fence_state(fence));
	return GM_RET_SUCCESS;
}
