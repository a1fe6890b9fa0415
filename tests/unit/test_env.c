/* SPDX-License-Identifier: MIT */
/* The environment of real threads; in checked builds also that it reports wrong locking. */
#include "config.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "hal/gm_env.h"

#include "failing_alloc.h"

#define MS UINT64_C(1000000)
/* What a loaded machine may add to a timeout before we call it unbounded. */
#define SLACK_NS (5000 * MS)

static struct gm_env *env_new(void)
{
	struct gm_env *env = NULL;

	cr_assert_eq(gm_env_threads_create(NULL, &env), GM_RET_SUCCESS);
	return env;
}

/* ---- making and ending ---- */

struct heard {
	unsigned errors;
	char text[256];
};

static void listen(void *arg, enum gm_log_level level, const char *message)
{
	struct heard *heard = arg;

	heard->errors += level == GM_LOG_ERROR;
	snprintf(heard->text, sizeof(heard->text), "%s", message);
}

Test(env, destroy_tells_what_leaked)
{
	struct heard heard = { 0 };
	struct gm_lib_config config = { .size = sizeof(config), .log = listen, .log_arg = &heard };
	struct gm_env *env;

	cr_assert_eq(gm_env_threads_create(&config, &env), GM_RET_SUCCESS);
	gm_mem_free(env, gm_mem_alloc(env, 500), 500);
	gm_env_threads_destroy(env);
	cr_assert_eq(heard.errors, 0u, "nothing leaked, but: %s", heard.text);

	cr_assert_eq(gm_env_threads_create(&config, &env), GM_RET_SUCCESS);
	cr_assert_not_null(gm_mem_alloc(env, 4321));
	gm_env_threads_destroy(env);
	cr_assert_eq(heard.errors, 1u);
	cr_assert_not_null(strstr(heard.text, "4321 bytes"), "said: %s", heard.text);
	gm_env_threads_destroy(NULL);
}

Test(env, bad_config_is_refused)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config) - 1 };
	struct gm_env *env = (struct gm_env *)&fa;

	cr_assert_eq(gm_env_threads_create(&config, &env), GM_RET_INVAL);
	failing_alloc_init(&fa);
	fa.table.free = NULL;
	config = (struct gm_lib_config){ .size = sizeof(config), .allocator = &fa.table };
	cr_assert_eq(gm_env_threads_create(&config, &env), GM_RET_INVAL);
	cr_assert_eq((void *)env, (void *)&fa, "the out-parameter was touched");
}

Test(env, all_memory_comes_from_the_callers_allocator)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &fa.table };
	struct gm_env *env = NULL;
	size_t n;

	failing_alloc_init(&fa);
	for (n = 1; n < 10; n++) {
		failing_alloc_arm(&fa, n);
		if (gm_env_threads_create(&config, &env) == GM_RET_SUCCESS)
			break;
		cr_assert(failing_alloc_fired(&fa));
		cr_assert_null(env);
		cr_assert_eq(fa.live, 0u);
	}
	cr_assert(n > 1 && n < 10, "no allocation, or it never succeeds");
	cr_assert_gt(fa.live, 0u);
	gm_env_threads_destroy(env);
	cr_assert_eq(fa.live, 0u);
	cr_assert_eq(fa.bad_frees, 0u);
}

Test(env, two_environments_side_by_side)
{
	struct gm_env *a = env_new(), *b = env_new();
	void *pa = gm_mem_alloc(a, 64), *pb = gm_mem_alloc(b, 64);

	cr_assert(a != b && pa && pb && pa != pb);
	gm_mem_free(a, pa, 64);
	gm_env_threads_destroy(a);
	memset(pb, 1, 64);
	gm_mem_free(b, pb, 64);
	gm_env_threads_destroy(b);
}

/* ---- time ---- */

Test(env, clock_goes_forward)
{
	struct gm_env *env = env_new();
	uint64_t before = gm_now_ns(env), after;
	struct timespec ts = { .tv_nsec = 20 * (long)MS };

	cr_assert_eq(nanosleep(&ts, NULL), 0);
	after = gm_now_ns(env);
	cr_assert(after >= before + 20 * MS && after <= before + 20 * MS + SLACK_NS);
	cr_assert_eq(gm_deadline_ns(env, UINT64_MAX), UINT64_MAX);
	cr_assert_eq(gm_deadline_ns(env, UINT64_MAX - 1), UINT64_MAX);
	cr_assert_geq(gm_deadline_ns(env, 1000), after + 1000);
	gm_env_threads_destroy(env);
}

/* ---- locks and waiting ---- */

struct shared {
	struct gm_env *env;
	struct gm_mutex lock;
	struct gm_waitq waiters;
	uint64_t counter;
	unsigned turn;
	unsigned rounds;
	bool go;
	atomic_uint ready;
	atomic_uint errors;
};

static void shared_init(struct shared *s)
{
	memset(s, 0, sizeof(*s));
	s->env = env_new();
	gm_mutex_init(s->env, &s->lock, GM_RANK_QUEUE);
	gm_waitq_init(s->env, &s->waiters);
}

static void shared_fini(struct shared *s)
{
	cr_assert_eq(s->errors, 0u);
	gm_waitq_fini(s->env, &s->waiters);
	gm_mutex_fini(s->env, &s->lock);
	gm_env_threads_destroy(s->env);
}

static void run_threads(struct shared *s, void (*fn)(void *), unsigned n)
{
	struct gm_thread *t[8];

	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(s->env->ops->thread_start(s->env, "test", 0, fn, s, &t[i]), GM_RET_SUCCESS);
	for (unsigned i = 0; i < n; i++)
		s->env->ops->thread_join(s->env, t[i]);
}

static void add_many(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < 20000; i++) {
		gm_lock(s->env, &s->lock);
		uint64_t seen = s->counter;
		/* Give the others a chance to come between, if the lock lets them. */
		if (i % 512 == 0)
			sched_yield();
		s->counter = seen + 1;
		gm_unlock(s->env, &s->lock);
	}
}

Test(env, lock_excludes)
{
	struct shared s;

	shared_init(&s);
	run_threads(&s, add_many, 4);
	cr_assert_eq(s.counter, 80000u);
	shared_fini(&s);
}

static void *try_once(void *arg)
{
	struct shared *s = arg;

	if (gm_trylock(s->env, &s->lock)) {
		s->counter++;
		gm_unlock(s->env, &s->lock);
	}
	return NULL;
}

static void try_elsewhere(struct shared *s)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, try_once, s), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(env, trylock_never_waits)
{
	struct shared s;

	shared_init(&s);
	cr_assert(gm_trylock(s.env, &s.lock));
	try_elsewhere(&s);
	cr_assert_eq(s.counter, 0u, "somebody has it");
	gm_unlock(s.env, &s.lock);
	try_elsewhere(&s);
	cr_assert_eq(s.counter, 1u, "it was free");
	gm_lock(s.env, &s.lock);
	gm_unlock(s.env, &s.lock);
	shared_fini(&s);
}

static void play(struct shared *s, unsigned me)
{
	gm_lock(s->env, &s->lock);
	for (unsigned i = 0; i < s->rounds; i++) {
		uint64_t deadline = gm_deadline_ns(s->env, 30000 * MS);

		while (s->turn % 2 != me) {
			if (gm_wait(s->env, &s->waiters, &s->lock, deadline) != GM_RET_SUCCESS && s->turn % 2 != me) {
				atomic_fetch_add(&s->errors, 1);
				gm_unlock(s->env, &s->lock);
				return;
			}
		}
		s->turn++;
		gm_wake(s->env, &s->waiters);
	}
	gm_unlock(s->env, &s->lock);
}

static void ping_or_pong(void *arg)
{
	struct shared *s = arg;

	play(s, atomic_fetch_add(&s->ready, 1));
}

Test(env, ping_pong)
{
	struct shared s;

	shared_init(&s);
	s.rounds = 3000;
	run_threads(&s, ping_or_pong, 2);
	cr_assert_eq(s.turn, 6000u);
	shared_fini(&s);
}

Test(env, wait_ends_at_its_deadline, .timeout = 60)
{
	static const uint64_t timeouts[] = { 0, 1, 5 * MS, 60 * MS };
	struct shared s;

	shared_init(&s);
	gm_lock(s.env, &s.lock);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t begin = gm_now_ns(s.env), end;

		while (gm_wait(s.env, &s.waiters, &s.lock, begin + timeouts[i]) != GM_RET_TIMEDOUT)
			;
		end = gm_now_ns(s.env);
		cr_assert_geq(end, begin + timeouts[i], "too early");
		cr_assert_leq(end, begin + timeouts[i] + SLACK_NS, "too late");
	}
	cr_assert_eq(gm_wait(s.env, &s.waiters, &s.lock, 0), GM_RET_TIMEDOUT, "a deadline long ago");
	gm_unlock(s.env, &s.lock);
	shared_fini(&s);
}

/* If wait() came back without the lock, the others would come between. */
static void time_out_and_add(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < 300; i++) {
		gm_lock(s->env, &s->lock);
		if (gm_wait(s->env, &s->waiters, &s->lock, gm_now_ns(s->env) + 50000) == GM_RET_SUCCESS)
			gm_wake(s->env, &s->waiters);
		uint64_t seen = s->counter;
		sched_yield();
		s->counter = seen + 1;
		gm_unlock(s->env, &s->lock);
	}
}

Test(env, lock_is_held_after_a_timeout)
{
	struct shared s;

	shared_init(&s);
	run_threads(&s, time_out_and_add, 4);
	cr_assert_eq(s.counter, 1200u);
	shared_fini(&s);
}

static void wait_for_go(void *arg)
{
	struct shared *s = arg;

	gm_lock(s->env, &s->lock);
	s->counter++;
	while (!s->go) {
		if (gm_wait(s->env, &s->waiters, &s->lock, UINT64_MAX) != GM_RET_SUCCESS)
			atomic_fetch_add(&s->errors, 1);
	}
	gm_unlock(s->env, &s->lock);
}

Test(env, wake_wakes_everybody, .timeout = 60)
{
	struct gm_thread *t[3];
	uint64_t waiting = 0;
	struct shared s;

	shared_init(&s);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(s.env->ops->thread_start(s.env, "waiter", 0, wait_for_go, &s, &t[i]), GM_RET_SUCCESS);
	while (waiting < 3) {
		gm_yield(s.env);
		gm_lock(s.env, &s.lock);
		waiting = s.counter;
		gm_unlock(s.env, &s.lock);
	}
	/* All three have the lock behind them: they sleep. One wake must do. */
	gm_lock(s.env, &s.lock);
	s.go = true;
	gm_wake(s.env, &s.waiters);
	gm_unlock(s.env, &s.lock);
	for (unsigned i = 0; i < 3; i++)
		s.env->ops->thread_join(s.env, t[i]);
	shared_fini(&s);
}

/* ---- threads ---- */

struct look {
	struct gm_env *env;
	sigset_t mask;
	char name[32];
	uint32_t tid;
	bool is_device;
};

static void look_around(void *arg)
{
	struct look *look = arg;

	pthread_sigmask(SIG_SETMASK, NULL, &look->mask);
	pthread_getname_np(pthread_self(), look->name, sizeof(look->name));
	look->tid = (uint32_t)gettid();
	look->is_device = look->env->ops->is_device_thread(look->env, look->tid);
}

static void look_in_thread(struct look *look, const char *name, uint32_t flags)
{
	struct gm_thread *t;

	cr_assert_eq(look->env->ops->thread_start(look->env, name, flags, look_around, look, &t), GM_RET_SUCCESS);
	look->env->ops->thread_join(look->env, t);
}

Test(env, threads_have_all_signals_blocked)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGCHLD, SIGPROF, SIGSEGV, SIGBUS };
	struct look look = { .env = env_new() };
	sigset_t before, after;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	look_in_thread(&look, "signals", 0);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		cr_assert_eq(sigismember(&look.mask, signals[i]), 1, "signal %d is open", signals[i]);
	cr_assert_eq(sigismember(&look.mask, SIGRTMIN), 1);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	cr_assert_eq(sigismember(&before, SIGUSR1), 0);
	for (int sig = 1; sig < 32; sig++)
		cr_assert_eq(sigismember(&before, sig), sigismember(&after, sig), "the caller's mask changed");
	gm_env_threads_destroy(look.env);
}

Test(env, threads_are_named)
{
	struct look look = { .env = env_new() };

	look_in_thread(&look, "gmem-fault", 0);
	cr_assert_str_eq(look.name, "gmem-fault");
	look_in_thread(&look, "a-name-that-is-much-too-long", 0);
	cr_assert_str_eq(look.name, "a-name-that-is-");
	gm_env_threads_destroy(look.env);
}

Test(env, device_threads_are_known)
{
	struct look look = { .env = env_new() };
	struct gm_env *env = look.env, *other = env_new();

	look_in_thread(&look, "plain", 0);
	cr_assert_not(look.is_device);
	look_in_thread(&look, "device", GM_THREAD_DEVICE);
	cr_assert(look.is_device);
	cr_assert_not(env->ops->is_device_thread(env, look.tid), "the thread is over");
	cr_assert_not(env->ops->is_device_thread(env, (uint32_t)gettid()));
	cr_assert_not(env->ops->is_device_thread(env, 0));
	look.env = other;
	look_in_thread(&look, "device", GM_THREAD_DEVICE);
	cr_assert(look.is_device);
	gm_env_threads_destroy(env);
	gm_env_threads_destroy(other);
}

struct crowd {
	struct shared s;
	struct gm_thread *t[1024];
	unsigned n;
};

static gm_ret_t crowd_fill(struct crowd *c)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (c->n = 0; c->n < 1024 && ret == GM_RET_SUCCESS; c->n += ret == GM_RET_SUCCESS)
		ret = c->s.env->ops->thread_start(c->s.env, "crowd", GM_THREAD_DEVICE, wait_for_go, &c->s, &c->t[c->n]);
	return ret;
}

static void crowd_end(struct crowd *c)
{
	gm_lock(c->s.env, &c->s.lock);
	c->s.go = true;
	gm_wake(c->s.env, &c->s.waiters);
	gm_unlock(c->s.env, &c->s.lock);
	for (unsigned i = 0; i < c->n; i++)
		c->s.env->ops->thread_join(c->s.env, c->t[i]);
	c->s.go = false;
}

Test(env, device_threads_are_limited, .timeout = 60)
{
	static struct crowd c;
	struct gm_env *env;

	shared_init(&c.s);
	env = c.s.env;
	for (unsigned round = 0; round < 2; round++) {
		cr_assert_eq(crowd_fill(&c), GM_RET_AGAIN);
		cr_assert_eq(c.n, 256u);
		cr_assert_not(env->ops->is_device_thread(env, 0));
		cr_assert_not(env->ops->is_device_thread(env, UINT32_MAX));
		crowd_end(&c);
	}
	shared_fini(&c.s);
}

Test(env, thread_start_without_memory)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &fa.table };
	struct gm_thread *t = NULL;
	struct look look;
	size_t live;

	failing_alloc_init(&fa);
	cr_assert_eq(gm_env_threads_create(&config, &look.env), GM_RET_SUCCESS);
	live = fa.live;
	failing_alloc_arm(&fa, 1);
	cr_assert_eq(look.env->ops->thread_start(look.env, "none", GM_THREAD_DEVICE, look_around, &look, &t),
		     GM_RET_NOMEM);
	cr_assert_null(t);
	failing_alloc_arm(&fa, 0);
	look_in_thread(&look, "some", GM_THREAD_DEVICE);
	cr_assert_eq(fa.live, live);
	gm_env_threads_destroy(look.env);
	cr_assert_eq(fa.live, 0u);
}

Test(env, thread_start_when_the_system_refuses)
{
	struct look look = { .env = env_new() };
	struct gm_env *env = look.env;
	struct gm_thread *t = NULL;
	gm_ret_t ret = GM_RET_AGAIN;
	pthread_attr_t attr;
	unsigned tries;

	/* A stack that no address space has room for. */
	cr_assert_eq(pthread_attr_init(&attr), 0);
	cr_assert_eq(pthread_attr_setstacksize(&attr, (size_t)1 << 50), 0);
	cr_assert_eq(pthread_setattr_default_np(&attr), 0);
	for (tries = 0; tries < 600 && ret == GM_RET_AGAIN; tries++)
		ret = env->ops->thread_start(env, "huge", GM_THREAD_DEVICE, look_around, &look, &t);
	cr_assert_eq(tries, 600u, "it was started");
	cr_assert_null(t);
	cr_assert_eq(pthread_attr_setstacksize(&attr, 1 << 20), 0);
	cr_assert_eq(pthread_setattr_default_np(&attr), 0);
	pthread_attr_destroy(&attr);
	/* More refusals than slots: each of them gave its slot back. */
	look_in_thread(&look, "device", GM_THREAD_DEVICE);
	cr_assert(look.is_device);
	gm_env_threads_destroy(env);
}

/* ---- what a checked build refuses ---- */

#ifdef GM_ENABLE_CHECKS
static void two_locks(struct gm_env *env, struct gm_mutex *a, enum gm_rank first, struct gm_mutex *b,
		      enum gm_rank second)
{
	gm_mutex_init(env, a, first);
	gm_mutex_init(env, b, second);
	gm_lock(env, a);
	gm_lock(env, b);
}

Test(checks, right_order_passes)
{
	struct gm_env *env = env_new();
	struct gm_mutex a, b;

	two_locks(env, &a, GM_RANK_AS, &b, GM_RANK_BLOCK);
	gm_unlock(env, &a);
	gm_unlock(env, &b);
	gm_env_assert_unlocked(env, "here");
	gm_mutex_fini(env, &a);
	gm_mutex_fini(env, &b);
	gm_env_threads_destroy(env);
}

Test(checks, wrong_order_aborts, .signal = SIGABRT)
{
	struct gm_mutex a, b;

	two_locks(env_new(), &a, GM_RANK_BLOCK, &b, GM_RANK_AS);
}

Test(checks, wait_with_a_second_lock_aborts, .signal = SIGABRT)
{
	struct gm_env *env = env_new();
	struct gm_mutex a, b;
	struct gm_waitq q;

	two_locks(env, &a, GM_RANK_AS, &b, GM_RANK_BLOCK);
	gm_waitq_init(env, &q);
	(void)gm_wait(env, &q, &b, 0);
}

Test(checks, log_under_a_lock_aborts, .signal = SIGABRT)
{
	struct gm_env *env = env_new();
	struct gm_mutex a, b;

	two_locks(env, &a, GM_RANK_AS, &b, GM_RANK_BLOCK);
	gm_log(env, GM_LOG_DEBUG, "nobody listens, but the lock is held");
}

Test(checks, unlock_of_a_free_lock_aborts, .signal = SIGABRT)
{
	struct gm_env *env = env_new();
	struct gm_mutex m;

	gm_mutex_init(env, &m, GM_RANK_AS);
	gm_unlock(env, &m);
}

Test(checks, yield_under_a_lock_aborts, .signal = SIGABRT)
{
	struct gm_env *env = env_new();
	struct gm_mutex a, b;

	two_locks(env, &a, GM_RANK_AS, &b, GM_RANK_BLOCK);
	gm_yield(env);
}
#endif
