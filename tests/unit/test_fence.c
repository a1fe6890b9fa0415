/* SPDX-License-Identifier: MIT */
/* Fences: one signal decides, everybody hears of it, nothing is left behind. */
#include "config.h"

#include <signal.h>
#include <stdatomic.h>

#include <criterion/criterion.h>

#include "hal/gm_fence.h"

#include "failing_alloc.h"

#define MS	 UINT64_C(1000000)
#define SLACK_NS (5000 * MS)

struct world {
	struct failing_alloc fa;
	struct gm_env *env;
	size_t idle; /* live allocations of the environment itself */
};

static void world_init(struct world *w)
{
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &w->fa.table };

	failing_alloc_init(&w->fa);
	cr_assert_eq(gm_env_threads_create(&config, &w->env), GM_RET_SUCCESS);
	w->idle = w->fa.live;
}

static void world_fini(struct world *w)
{
	cr_assert_eq(w->fa.live, w->idle, "%zu allocations leaked", w->fa.live - w->idle);
	gm_env_threads_destroy(w->env);
	cr_assert_eq(w->fa.live, 0u);
	cr_assert_eq(w->fa.bad_frees, 0u);
}

/* One that the public functions take. */
static struct gm_fence *fence_new(struct gm_env *env)
{
	struct gm_fence *f = gm_fence_new(env);

	if (f)
		cr_assert_eq(gm_fence_publish(f), GM_RET_SUCCESS);
	return f;
}

Test(fence, signalled_once)
{
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	cr_assert_not_null(f);
	cr_assert_not(gm_fence_done(f));
	cr_assert_eq(gm_fence_wait(f, 0), GM_RET_TIMEDOUT);
	cr_assert_eq(gm_fence_signal(f, GM_RET_IO), GM_RET_SUCCESS);
	cr_assert(gm_fence_done(f));
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_EXIST);
	cr_assert_eq(gm_fence_cancel(f), GM_RET_EXIST);
	cr_assert_eq(gm_fence_wait(f, 0), GM_RET_IO, "the first result stays");
	cr_assert_eq(gm_fence_wait(f, GM_FOREVER_NS), GM_RET_IO);
	cr_assert_eq(gm_fence_wait_until(f, 0), GM_RET_IO);
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, success_and_cancel)
{
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_wait(f, 0), GM_RET_SUCCESS);
	gm_fence_put(f);
	f = fence_new(w.env);
	cr_assert_eq(gm_fence_cancel(f), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_cancel(f), GM_RET_EXIST);
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_EXIST);
	cr_assert_eq(gm_fence_wait(f, GM_FOREVER_NS), GM_RET_CANCELED);
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, bad_arguments)
{
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	cr_assert_eq(gm_fence_signal(NULL, GM_RET_SUCCESS), GM_RET_INVAL);
	cr_assert_eq(gm_fence_cancel(NULL), GM_RET_INVAL);
	cr_assert_eq(gm_fence_wait(NULL, 0), GM_RET_INVAL);
	cr_assert_null(gm_fence_get(NULL));
	gm_fence_put(NULL);
	f = fence_new(w.env);
	cr_assert_eq(gm_fence_signal(f, (gm_ret_t)1), GM_RET_INVAL);
	cr_assert_not(gm_fence_done(f));
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, references)
{
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(gm_fence_get(f), f);
	for (unsigned i = 0; i < 10; i++)
		gm_fence_put(f);
	cr_assert_eq(w.fa.live, w.idle + 1);
	cr_assert_not(gm_fence_done(f));
	/* The last one, of a pending fence: it just goes. */
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, wait_is_bounded)
{
	struct gm_fence *f;
	uint64_t begin, end;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	begin = gm_now_ns(w.env);
	cr_assert_eq(gm_fence_wait(f, 40 * MS), GM_RET_TIMEDOUT);
	end = gm_now_ns(w.env);
	cr_assert(end >= begin + 40 * MS && end <= begin + 40 * MS + SLACK_NS);
	cr_assert_eq(gm_fence_wait_until(f, begin), GM_RET_TIMEDOUT, "a deadline that is over");
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_SUCCESS, "a timeout changes nothing");
	gm_fence_put(f);
	world_fini(&w);
}

struct call {
	unsigned n;
	gm_ret_t result;
	unsigned order;
	unsigned *clock;
};

static void called(void *arg, gm_ret_t result)
{
	struct call *call = arg;

	call->n++;
	call->result = result;
	if (call->clock)
		call->order = ++*call->clock;
}

Test(fence, on_done_before_and_after)
{
	unsigned clock = 0;
	struct call early[3], late = { .clock = &clock };
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	for (unsigned i = 0; i < 3; i++) {
		early[i] = (struct call){ .clock = &clock };
		cr_assert_eq(gm_fence_on_done(f, called, &early[i]), GM_RET_SUCCESS);
		cr_assert_eq(early[i].n, 0u, "too early");
	}
	cr_assert_eq(gm_fence_signal(f, GM_RET_NODEV), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_on_done(f, called, &late), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_cancel(f), GM_RET_EXIST);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(early[i].n, 1u);
		cr_assert_eq(early[i].result, GM_RET_NODEV);
		cr_assert_eq(early[i].order, i + 1);
	}
	cr_assert_eq(late.n, 1u);
	cr_assert_eq(late.result, GM_RET_NODEV);
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, cancel_calls_too)
{
	struct call call = { 0 };
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	cr_assert_eq(gm_fence_on_done(f, called, &call), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_cancel(f), GM_RET_SUCCESS);
	cr_assert_eq(call.n, 1u);
	cr_assert_eq(call.result, GM_RET_CANCELED);
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, pending_callback_keeps_it_alive)
{
	struct call call = { 0 };
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	cr_assert_eq(gm_fence_on_done(f, called, &call), GM_RET_SUCCESS);
	gm_fence_put(f);
	cr_assert_eq(call.n, 0u);
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_INVAL, "who signals needs a reference");
	gm_fence_put(f); /* nor does this take the callback's */
	cr_assert_eq(call.n, 0u);
	cr_assert(gm_fence_finish(f, GM_RET_SUCCESS), "the library has one");
	cr_assert_eq(call.n, 1u);
	world_fini(&w);
}

struct reentrant {
	struct gm_env *env;
	struct gm_fence *f;
	struct call inner;
	bool ok;
};

/* Everything a callback may do with its fence; blocks for ever if the lock is held. */
static void use_the_fence(void *arg, gm_ret_t result)
{
	struct reentrant *r = arg;

	gm_env_assert_unlocked(r->env, "callback");
	r->ok = gm_fence_wait(r->f, GM_FOREVER_NS) == result;
	r->ok = gm_fence_signal(r->f, GM_RET_IO) == GM_RET_EXIST && r->ok;
	r->ok = gm_fence_on_done(r->f, called, &r->inner) == GM_RET_SUCCESS && r->ok;
	gm_fence_put(r->f);
}

Test(fence, callback_may_use_and_release_the_fence, .timeout = 30)
{
	struct reentrant r = { 0 };
	struct world w;

	world_init(&w);
	r.env = w.env;
	r.f = fence_new(w.env);
	cr_assert_eq(gm_fence_on_done(r.f, use_the_fence, &r), GM_RET_SUCCESS);
	cr_assert_eq(gm_fence_signal(r.f, GM_RET_AGAIN), GM_RET_SUCCESS);
	cr_assert(r.ok);
	cr_assert_eq(r.inner.n, 1u);
	cr_assert_eq(r.inner.result, GM_RET_AGAIN);
	world_fini(&w);
}

Test(fence, no_memory)
{
	struct call call = { 0 };
	struct gm_fence *f;
	struct world w;

	world_init(&w);
	failing_alloc_arm(&w.fa, 1);
	cr_assert_null(fence_new(w.env));
	failing_alloc_arm(&w.fa, 2);
	f = fence_new(w.env);
	cr_assert_not_null(f);
	cr_assert_eq(gm_fence_on_done(f, called, &call), GM_RET_NOMEM);
	cr_assert_eq(gm_fence_signal(f, GM_RET_SUCCESS), GM_RET_SUCCESS);
	cr_assert_eq(call.n, 0u, "what was refused is not called");
	/* A fence that is done needs no memory. */
	failing_alloc_arm(&w.fa, 1);
	cr_assert_eq(gm_fence_on_done(f, called, &call), GM_RET_SUCCESS);
	cr_assert_eq(call.n, 1u);
	gm_fence_put(f);
	world_fini(&w);
}

struct waiter {
	struct gm_fence *f;
	atomic_uint *started;
	const unsigned *payload; /* written before the signal, not atomic */
	gm_ret_t ret;
	unsigned seen;
};

static void wait_for_fence(void *arg)
{
	struct waiter *waiter = arg;

	atomic_fetch_add(waiter->started, 1);
	waiter->ret = gm_fence_wait(waiter->f, GM_FOREVER_NS);
	waiter->seen = *waiter->payload;
	gm_fence_put(waiter->f);
}

static void wake_waiters(bool cancel, unsigned delay_ms)
{
	struct gm_thread *t[4];
	struct waiter waiter[4];
	atomic_uint started = 0;
	unsigned payload = 0;
	struct gm_fence *f, *nap;
	struct world w;

	world_init(&w);
	f = fence_new(w.env);
	nap = fence_new(w.env);
	for (unsigned i = 0; i < 4; i++) {
		waiter[i] = (struct waiter){ .f = gm_fence_get(f), .started = &started, .payload = &payload };
		cr_assert_eq(w.env->ops->thread_start(w.env, "waiter", 0, wait_for_fence, &waiter[i], &t[i]),
			     GM_RET_SUCCESS);
	}
	while (atomic_load(&started) < 4)
		gm_yield(w.env);
	/* With a delay they sleep when it comes, without one they race with it. */
	cr_assert_eq(gm_fence_wait(nap, delay_ms * MS), GM_RET_TIMEDOUT);
	payload = 99;
	cr_assert_eq(cancel ? gm_fence_cancel(f) : gm_fence_signal(f, GM_RET_FAULT), GM_RET_SUCCESS);
	for (unsigned i = 0; i < 4; i++) {
		w.env->ops->thread_join(w.env, t[i]);
		cr_assert_eq(waiter[i].ret, cancel ? GM_RET_CANCELED : GM_RET_FAULT);
		cr_assert_eq(waiter[i].seen, 99u);
	}
	gm_fence_put(nap);
	gm_fence_put(f);
	world_fini(&w);
}

Test(fence, signal_wakes_all_waiters, .timeout = 60)
{
	wake_waiters(false, 50);
	for (unsigned i = 0; i < 50; i++)
		wake_waiters(false, 0);
}

Test(fence, cancel_wakes_all_waiters, .timeout = 60)
{
	wake_waiters(true, 50);
}

#define RACES 3000

struct race {
	struct gm_fence *f[RACES];
	atomic_uint arrived[RACES]; /* both sides are at this fence */
	atomic_uint calls[RACES];
	gm_ret_t signal_ret[RACES];
	struct gm_env *env;
};

static void meet(struct race *r, unsigned i)
{
	atomic_fetch_add(&r->arrived[i], 1);
	for (unsigned spins = 0; atomic_load(&r->arrived[i]) < 2; spins++) {
		if (spins > 100)
			gm_yield(r->env);
	}
}

static void signal_all(void *arg)
{
	struct race *r = arg;

	for (unsigned i = 0; i < RACES; i++) {
		meet(r, i);
		r->signal_ret[i] = gm_fence_signal(r->f[i], GM_RET_IO);
		gm_fence_put(r->f[i]);
	}
}

static void race_start(struct world *w, struct race *r, struct gm_thread **t)
{
	world_init(w);
	r->env = w->env;
	for (unsigned i = 0; i < RACES; i++) {
		r->f[i] = fence_new(w->env);
		cr_assert_eq(gm_fence_get(r->f[i]), r->f[i], "one for each thread");
	}
	cr_assert_eq(w->env->ops->thread_start(w->env, "signal", 0, signal_all, r, t), GM_RET_SUCCESS);
}

Test(fence, signal_against_cancel, .timeout = 60)
{
	static gm_ret_t cancel_ret[RACES];
	static struct race r;
	struct gm_thread *t;
	struct world w;

	race_start(&w, &r, &t);
	for (unsigned i = 0; i < RACES; i++) {
		meet(&r, i);
		cancel_ret[i] = gm_fence_cancel(r.f[i]);
	}
	w.env->ops->thread_join(w.env, t);
	for (unsigned i = 0; i < RACES; i++) {
		bool canceled = cancel_ret[i] == GM_RET_SUCCESS;

		cr_assert_eq(r.signal_ret[i], canceled ? GM_RET_EXIST : GM_RET_SUCCESS, "two winners or none");
		cr_assert_eq(gm_fence_wait(r.f[i], 0), canceled ? GM_RET_CANCELED : GM_RET_IO);
		gm_fence_put(r.f[i]);
	}
	world_fini(&w);
}

static void count_call(void *arg, gm_ret_t result)
{
	if (result == GM_RET_IO)
		atomic_fetch_add((atomic_uint *)arg, 1);
}

Test(fence, on_done_against_signal, .timeout = 60)
{
	static struct race r;
	struct gm_thread *t;
	struct world w;

	race_start(&w, &r, &t);
	for (unsigned i = 0; i < RACES; i++) {
		meet(&r, i);
		for (unsigned k = 0; k < 3; k++)
			cr_assert_eq(gm_fence_on_done(r.f[i], count_call, &r.calls[i]), GM_RET_SUCCESS);
		gm_fence_put(r.f[i]);
	}
	w.env->ops->thread_join(w.env, t);
	for (unsigned i = 0; i < RACES; i++)
		cr_assert_eq(r.calls[i], 3u, "fence %u: %u calls", i, r.calls[i]);
	world_fini(&w);
}

#ifdef GM_ENABLE_CHECKS
Test(fence, on_done_under_a_lock_aborts, .signal = SIGABRT)
{
	struct call call = { 0 };
	struct gm_mutex m;
	struct world w;

	world_init(&w);
	gm_mutex_init(w.env, &m, GM_RANK_AS);
	gm_lock(w.env, &m);
	(void)gm_fence_on_done(fence_new(w.env), called, &call);
}
#endif
