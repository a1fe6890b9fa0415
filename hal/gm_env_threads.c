/* SPDX-License-Identifier: MIT */
/*
 * The environment of a real machine: POSIX threads, the monotonic clock.
 *
 * A gm_mutex is an adaptive pthread mutex (sections are short, so a waiter
 * spins first) with its rank in the last word; a gm_waitq is a condition on
 * the monotonic clock. Both live in the caller's storage: making one cannot
 * fail.
 *
 *     thread_start: a slot in the table of device threads is reserved (if it
 *     is to be one), all signals are blocked around pthread_create() so that
 *     the new thread never has one open, then
 *     start -> name, tid into the slot -> fn(arg) -> slot free -> joined
 *
 * The table of device threads is an array of atomics: the fault handler looks
 * up a faulting thread in it and may neither lock nor allocate.
 *
 * With GM_ENABLE_CHECKS every lock, unlock and wait goes through the rank
 * checker, with one stack per thread.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "hal/gm_arena.h"
#include "hal/gm_env.h"
#include "hal/gm_rank.h"

#define NS_PER_S       UINT64_C(1000000000)
#define DEVICE_THREADS 256
/* A slot that is taken by a thread that does not run yet; never a tid. */
#define SLOT_RESERVED UINT32_MAX
/* Index in gm_mutex.opaque. */
#define RANK_WORD 7

_Static_assert(sizeof(pthread_mutex_t) <= RANK_WORD * sizeof(uint64_t), "a mutex and its rank fit");
_Static_assert(sizeof(pthread_cond_t) <= sizeof(struct gm_waitq), "a condition fits");
_Static_assert(_Alignof(pthread_mutex_t) <= _Alignof(struct gm_mutex), "a mutex is aligned");
_Static_assert(_Alignof(pthread_cond_t) <= _Alignof(struct gm_waitq), "a condition is aligned");
_Static_assert(sizeof(time_t) >= 8, "every deadline fits a timespec");

struct env_threads {
	struct gm_env env;
	struct gm_arena *arena;			     /* NULL: the caller's allocator */
	_Atomic uint32_t device_tid[DEVICE_THREADS]; /* 0: free */
	_Atomic unsigned device_top;		     /* none was ever used from here on */
};

struct gm_thread {
	struct gm_env *env;
	pthread_t id;
	char name[16];
	_Atomic uint32_t *slot; /* NULL: not a device's */
	void (*fn)(void *arg);
	void *arg;
};

#ifdef GM_ENABLE_CHECKS
static _Thread_local struct gm_rank_stack held;
#endif

static struct env_threads *to_threads(struct gm_env *env)
{
	return (struct env_threads *)env;
}

static pthread_mutex_t *to_mutex(struct gm_mutex *m)
{
	return (pthread_mutex_t *)m->opaque;
}

static pthread_cond_t *to_cond(struct gm_waitq *q)
{
	return (pthread_cond_t *)q->opaque;
}

/* For calls that fail only where we broke their rules. */
static void must(int err)
{
	assert(err == 0);
	(void)err;
}

static uint64_t threads_now_ns(struct gm_env *env)
{
	struct timespec ts;

	(void)env;
	must(clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void threads_assert_unlocked(struct gm_env *env, const char *where)
{
	(void)env;
#ifdef GM_ENABLE_CHECKS
	gm_rank_assert_none(&held, where);
#else
	(void)where;
#endif
}

static void threads_mutex_init(struct gm_env *env, struct gm_mutex *m, enum gm_rank rank)
{
	pthread_mutexattr_t attr;

	(void)env;
	must(pthread_mutexattr_init(&attr));
	must(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP));
	must(pthread_mutex_init(to_mutex(m), &attr));
	must(pthread_mutexattr_destroy(&attr));
	m->opaque[RANK_WORD] = (uint64_t)rank;
}

static void threads_mutex_fini(struct gm_env *env, struct gm_mutex *m)
{
	(void)env;
	must(pthread_mutex_destroy(to_mutex(m)));
}

static void threads_lock(struct gm_env *env, struct gm_mutex *m)
{
	(void)env;
#ifdef GM_ENABLE_CHECKS
	gm_rank_push(&held, m, (enum gm_rank)m->opaque[RANK_WORD]);
#endif
	must(pthread_mutex_lock(to_mutex(m)));
}

static bool threads_trylock(struct gm_env *env, struct gm_mutex *m)
{
	int err = pthread_mutex_trylock(to_mutex(m));

	(void)env;
	assert(err == 0 || err == EBUSY);
#ifdef GM_ENABLE_CHECKS
	if (!err)
		gm_rank_push(&held, m, (enum gm_rank)m->opaque[RANK_WORD]);
#endif
	return !err;
}

static void threads_unlock(struct gm_env *env, struct gm_mutex *m)
{
	(void)env;
#ifdef GM_ENABLE_CHECKS
	gm_rank_pop(&held, m);
#endif
	must(pthread_mutex_unlock(to_mutex(m)));
}

static void threads_waitq_init(struct gm_env *env, struct gm_waitq *q)
{
	pthread_condattr_t attr;

	(void)env;
	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(to_cond(q), &attr));
	must(pthread_condattr_destroy(&attr));
}

static void threads_waitq_fini(struct gm_env *env, struct gm_waitq *q)
{
	(void)env;
	must(pthread_cond_destroy(to_cond(q)));
}

static gm_ret_t threads_wait(struct gm_env *env, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};
	int err;

	(void)env;
#ifdef GM_ENABLE_CHECKS
	gm_rank_assert_only(&held, m);
#endif
	if (deadline_ns == UINT64_MAX)
		err = pthread_cond_wait(to_cond(q), to_mutex(m));
	else
		err = pthread_cond_timedwait(to_cond(q), to_mutex(m), &ts);
	assert(err == 0 || err == ETIMEDOUT);
	return err ? GM_RET_TIMEDOUT : GM_RET_SUCCESS;
}

static void threads_wake(struct gm_env *env, struct gm_waitq *q)
{
	(void)env;
	must(pthread_cond_broadcast(to_cond(q)));
}

static void *thread_main(void *arg)
{
	struct gm_thread *t = arg;

	must(pthread_setname_np(pthread_self(), t->name));
	if (t->slot)
		atomic_store(t->slot, (uint32_t)gettid());
	t->fn(t->arg);
	threads_assert_unlocked(t->env, "end of a thread");
	if (t->slot)
		atomic_store(t->slot, 0);
	return NULL;
}

/* NULL when the table is full. */
static _Atomic uint32_t *slot_reserve(struct env_threads *threads)
{
	for (unsigned i = 0; i < DEVICE_THREADS; i++) {
		uint32_t none = 0;

		if (!atomic_compare_exchange_strong(&threads->device_tid[i], &none, SLOT_RESERVED))
			continue;
		for (unsigned top = atomic_load(&threads->device_top); top <= i;)
			if (atomic_compare_exchange_strong(&threads->device_top, &top, i + 1))
				break;
		return &threads->device_tid[i];
	}
	return NULL;
}

/* The new thread inherits the mask: there is no moment at which a signal could reach it. */
static int create_blocked(struct gm_thread *t)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	must(pthread_sigmask(SIG_SETMASK, &all, &old));
	err = pthread_create(&t->id, NULL, thread_main, t);
	must(pthread_sigmask(SIG_SETMASK, &old, NULL));
	return err;
}

static gm_ret_t threads_thread_start(struct gm_env *env, const char *name, uint32_t flags, void (*fn)(void *),
				     void *arg, struct gm_thread **out)
{
	struct gm_thread *t = gm_mem_alloc(env, sizeof(*t));

	if (!t)
		return GM_RET_NOMEM;
	t->env = env;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	if (flags & GM_THREAD_DEVICE) {
		t->slot = slot_reserve(to_threads(env));
		if (!t->slot)
			goto err_free;
	}
	if (create_blocked(t) != 0)
		goto err_slot;
	*out = t;
	return GM_RET_SUCCESS;

err_slot:
	if (t->slot)
		atomic_store(t->slot, 0);
err_free:
	gm_mem_free(env, t, sizeof(*t));
	return GM_RET_AGAIN;
}

static void threads_thread_join(struct gm_env *env, struct gm_thread *t)
{
	threads_assert_unlocked(env, "thread_join");
	must(pthread_join(t->id, NULL));
	gm_mem_free(env, t, sizeof(*t));
}

static void threads_yield(struct gm_env *env)
{
	threads_assert_unlocked(env, "yield");
	sched_yield();
}

static bool threads_is_device_thread(struct gm_env *env, uint32_t tid)
{
	struct env_threads *threads = to_threads(env);

	if (tid == 0 || tid == SLOT_RESERVED)
		return false;
	for (unsigned i = 0; i < atomic_load(&threads->device_top); i++) {
		if (atomic_load(&threads->device_tid[i]) == tid)
			return true;
	}
	return false;
}

/* Here, since a kernel's answer is real: in simulation all run on one. */
unsigned gm_env_cpu(struct gm_env *env)
{
	return env->ops->simulated ? 0 : (unsigned)sched_getcpu();
}

int gm_env_cancel_off(void)
{
	int before;

	must(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before));
	return before;
}

void gm_env_cancel_back(int before)
{
	must(pthread_setcancelstate(before, NULL));
}

static bool threads_is_own(struct gm_env *env, uint64_t va, uint64_t *begin, uint64_t *end)
{
	struct env_threads *threads = to_threads(env);

	return !threads->arena || gm_arena_has(threads->arena, va, begin, end);
}

static const struct gm_env_ops threads_ops = {
	.name = "threads",
	.simulated = false,
	.now_ns = threads_now_ns,
	.mutex_init = threads_mutex_init,
	.mutex_fini = threads_mutex_fini,
	.lock = threads_lock,
	.trylock = threads_trylock,
	.unlock = threads_unlock,
	.waitq_init = threads_waitq_init,
	.waitq_fini = threads_waitq_fini,
	.wait = threads_wait,
	.wake = threads_wake,
	.thread_start = threads_thread_start,
	.thread_join = threads_thread_join,
	.yield = threads_yield,
	.is_device_thread = threads_is_device_thread,
	.assert_unlocked = threads_assert_unlocked,
	.is_own = threads_is_own,
};

static bool config_valid(const struct gm_lib_config *config)
{
	if (config->size != sizeof(*config) || (unsigned)config->validate > GM_VALIDATE_ABORT)
		return false;
	return !config->allocator || (config->allocator->alloc && config->allocator->free);
}

gm_ret_t gm_env_threads_create(const struct gm_lib_config *config, struct gm_env **env)
{
	struct gm_env base = { .ops = &threads_ops };
	struct gm_arena *arena = NULL;
	struct env_threads *threads;

	if (config && !config_valid(config))
		return gm_fail(GM_RET_INVAL, "struct gm_lib_config: wrong size, unknown validate, or an allocator without functions");
	if (config && config->allocator) {
		base.mem = *config->allocator;
	} else {
		arena = gm_arena_create();
		if (!arena)
			return gm_fail(GM_RET_NOMEM, "no memory for the library's arena");
		base.mem = gm_arena_allocator(arena);
	}
	if (config) {
		base.log = config->log;
		base.log_arg = config->log_arg;
		base.log_level = config->log_level;
		base.validate = config->validate;
	}
	threads = gm_mem_alloc(&base, sizeof(*threads));
	if (!threads) {
		gm_arena_destroy(arena);
		return gm_fail(GM_RET_NOMEM, "no memory for the environment");
	}
	threads->env = base;
	threads->arena = arena;
	*env = &threads->env;
	return GM_RET_SUCCESS;
}

void gm_env_threads_destroy(struct gm_env *env)
{
	struct env_threads *threads = to_threads(env);
	struct gm_arena *arena;
	struct gm_env rest;
	size_t leaked;

	if (!env)
		return;
	/* What is needed after the environment's own memory is gone. */
	rest = *env;
	arena = threads->arena;
	gm_mem_free(&rest, threads, sizeof(*threads));
	leaked = gm_arena_destroy(arena);
	if (leaked > 0)
		gm_log(&rest, GM_LOG_ERROR, "%zu bytes of the library's own memory were never freed", leaked);
}
