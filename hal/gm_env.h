/* SPDX-License-Identifier: MIT */
/*
 * The environment: threads, locks, waiting, time, memory. Two of them exist:
 * real threads (hal/gm_env_threads.c) and seeded coroutines on a virtual
 * clock (hal/sim/gm_sim_sched.c). Everything above, core and backends alike,
 * blocks only in gm_wait() and takes locks only through here, so the whole
 * library runs under either.
 *
 * Lock ranks: a thread takes locks in rising rank. With --enable-checks the
 * order is checked on every lock and a violation aborts with both names; also
 * that no lock is held at gm_wait() except its own, and none where an
 * operation of a backend is called (gm_env_assert_unlocked()).
 *
 * In simulation a coroutine switches only inside gm_yield(), gm_lock() (before
 * the lock is taken), gm_wait() and gm_thread_join(). Locks are never held
 * across these, so they never contend there.
 */
#ifndef GM_HAL_ENV_H
#define GM_HAL_ENV_H

#include <gmem/hal.h>

enum gm_rank {
	GM_RANK_LIB = 1, /* list of devices and spaces of an instance */
	GM_RANK_AS,      /* regions, contexts, block index of a space */
	GM_RANK_BLOCK,   /* page state of one block */
	GM_RANK_NODE,    /* frames and recency of a device's memory */
	GM_RANK_QUEUE,   /* work queues */
	GM_RANK_FENCE,   /* one fence */
	GM_RANK_LEAF,    /* backends, hosts, arenas; two of them never nest */
};

struct gm_env;

struct gm_env_ops {
	const char *name;
	bool simulated;
	uint64_t (*now_ns)(struct gm_env *env);
	void (*mutex_init)(struct gm_env *env, struct gm_mutex *m, enum gm_rank rank);
	void (*mutex_fini)(struct gm_env *env, struct gm_mutex *m);
	void (*lock)(struct gm_env *env, struct gm_mutex *m);
	bool (*trylock)(struct gm_env *env, struct gm_mutex *m);
	void (*unlock)(struct gm_env *env, struct gm_mutex *m);
	void (*waitq_init)(struct gm_env *env, struct gm_waitq *q);
	void (*waitq_fini)(struct gm_env *env, struct gm_waitq *q);
	gm_ret_t (*wait)(struct gm_env *env, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns);
	void (*wake)(struct gm_env *env, struct gm_waitq *q);
	gm_ret_t (*thread_start)(struct gm_env *env, const char *name, uint32_t flags, void (*fn)(void *), void *arg,
				 struct gm_thread **out);
	void (*thread_join)(struct gm_env *env, struct gm_thread *t);
	void (*yield)(struct gm_env *env);
	/* Is `tid` (gettid) a thread started with GM_THREAD_DEVICE? */
	bool (*is_device_thread)(struct gm_env *env, uint32_t tid);
	void (*assert_unlocked)(struct gm_env *env, const char *where);
	/*
	 * Is va memory that the library has allocated? If not, [*begin, *end) around it is cut to where none is. True also
	 * where that cannot be told: with an allocator of the caller's. NULL: the memory in question is another one's.
	 */
	bool (*is_own)(struct gm_env *env, uint64_t va, uint64_t *begin, uint64_t *end);
};

struct gm_env {
	const struct gm_env_ops *ops;
	struct gm_allocator mem;
	gm_log_fn log;
	void *log_arg;
	enum gm_log_level log_level;
	enum gm_validate validate; /* for gm_hal_open() */
	_Atomic unsigned fences;      /* published, and not freed yet */
	_Atomic unsigned fences_held; /* of those, the ones that the public has */
};

/* Real threads. `mem` NULL: an arena of its own. */
gm_ret_t gm_env_threads_create(const struct gm_lib_config *config, struct gm_env **env);
void gm_env_threads_destroy(struct gm_env *env);

static inline uint64_t gm_now_ns(struct gm_env *env)
{
	return env->ops->now_ns(env);
}

/* now + timeout, saturating */
static inline uint64_t gm_deadline_after_ns(uint64_t now_ns, uint64_t timeout_ns)
{
	return timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
}

static inline uint64_t gm_deadline_ns(struct gm_env *env, uint64_t timeout_ns)
{
	return gm_deadline_after_ns(gm_now_ns(env), timeout_ns);
}

static inline void gm_mutex_init(struct gm_env *env, struct gm_mutex *m, enum gm_rank rank)
{
	env->ops->mutex_init(env, m, rank);
}

static inline void gm_mutex_fini(struct gm_env *env, struct gm_mutex *m)
{
	env->ops->mutex_fini(env, m);
}

static inline void gm_lock(struct gm_env *env, struct gm_mutex *m)
{
	env->ops->lock(env, m);
}

/* False: somebody has it. Never waits, and the simulation does not switch. */
static inline bool gm_trylock(struct gm_env *env, struct gm_mutex *m)
{
	return env->ops->trylock(env, m);
}

static inline void gm_unlock(struct gm_env *env, struct gm_mutex *m)
{
	env->ops->unlock(env, m);
}

static inline void gm_waitq_init(struct gm_env *env, struct gm_waitq *q)
{
	env->ops->waitq_init(env, q);
}

static inline void gm_waitq_fini(struct gm_env *env, struct gm_waitq *q)
{
	env->ops->waitq_fini(env, q);
}

/* The one wait of the library. SUCCESS (look again) or TIMEDOUT; `m` is held again in both cases. */
static inline gm_ret_t gm_wait(struct gm_env *env, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns)
{
	return env->ops->wait(env, q, m, deadline_ns);
}

static inline void gm_wake(struct gm_env *env, struct gm_waitq *q)
{
	env->ops->wake(env, q);
}

static inline void gm_yield(struct gm_env *env)
{
	env->ops->yield(env);
}

/* The CPU this runs on, a moment ago: for what is better kept apart. */
unsigned gm_env_cpu(struct gm_env *env);

/* This thread is not cancelled (pthread_cancel()) until the other is called with what this returns. */
int gm_env_cancel_off(void);
void gm_env_cancel_back(int before);

/* Where the simulation may switch and nobody wants to let others run: nothing on a real machine. */
static inline void gm_may_switch(struct gm_env *env)
{
	if (env->ops->simulated)
		env->ops->yield(env);
}

static inline void gm_env_assert_unlocked(struct gm_env *env, const char *where)
{
#ifdef GM_ENABLE_CHECKS
	env->ops->assert_unlocked(env, where);
#else
	(void)env;
	(void)where;
#endif
}

/* Zeroed; NULL when there is none. Every allocation of core and hal comes from here. */
void *gm_mem_alloc(struct gm_env *env, size_t bytes);
void gm_mem_free(struct gm_env *env, void *ptr, size_t bytes);

/* Is it a value of the enum? */
bool gm_ret_known(gm_ret_t ret);

/* Log, if the level is wanted. No lock may be held. */
void gm_log(struct gm_env *env, enum gm_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Remember the message for gm_last_error(). */
#define GM_MESSAGE_BYTES 512 /* of gm_last_error(), and of a line of the log, with the end */
void gm_fail_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Remember the message and be `ret`: a macro, so that the compiler sees which result leaves. */
#define gm_fail(ret, ...) (gm_fail_note(__VA_ARGS__), (ret))

/* The same for texts one after the other, where printf's time would show: up to NULL. */
void gm_fail_texts(const char *const *texts);
#define gm_fail_join(ret, ...) (gm_fail_texts((const char *const[]){ __VA_ARGS__, NULL }), (ret))

#endif
