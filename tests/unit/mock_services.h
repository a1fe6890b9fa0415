/* SPDX-License-Identifier: MIT */
/*
 * Services for a backend that is tested without the rest of the library:
 * plain threads of the C library, malloc, and a way to make things fail.
 *
 *  - the nth allocation, or the nth thread, from now can be made to fail;
 *  - what is alive (bytes, fences, threads) is counted, so that a test can
 *    demand that nothing is left;
 *  - "host memory" is one buffer, reached through host_access() only; a test
 *    may put a hook in front.
 */
#ifndef MOCK_SERVICES_H
#define MOCK_SERVICES_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gmem/hal.h>

struct mock_services {
	struct gm_services svc;
	_Atomic long live_bytes, live_fences, live_threads;
	_Atomic long fail_alloc, fail_thread; /* 1: the next one fails; 0: none */
	_Atomic long faults_ready, logged;
	char *host; /* the buffer that the bus reaches */
	size_t host_bytes;
	/* Asked first, if set: what host_access() returns without touching anything. */
	gm_ret_t (*host_hook)(void *arg, uint64_t va, size_t bytes, bool write);
	void *host_hook_arg;
};

struct gm_thread {
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
	uint32_t flags;
};

struct gm_fence {
	struct mock_services *s;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned refs, signals;
	gm_ret_t result; /* of the first signal */
};

static inline uint64_t mock_now_ns(void *self)
{
	struct timespec ts;

	(void)self;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void mock_sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* Count down; true when it is this one's turn to fail. */
static inline bool mock_turn(_Atomic long *nth)
{
	long n = atomic_load(nth);

	while (n > 0) {
		if (atomic_compare_exchange_weak(nth, &n, n - 1))
			return n == 1;
	}
	return false;
}

static inline void *mock_svc_alloc(void *self, size_t bytes)
{
	struct mock_services *s = self;
	void *ptr = mock_turn(&s->fail_alloc) ? NULL : calloc(1, bytes);

	if (ptr)
		atomic_fetch_add(&s->live_bytes, (long)bytes);
	return ptr;
}

static inline void mock_svc_free(void *self, void *ptr, size_t bytes)
{
	struct mock_services *s = self;

	if (ptr)
		atomic_fetch_sub(&s->live_bytes, (long)bytes);
	free(ptr);
}

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct gm_mutex), "room for a lock");
_Static_assert(sizeof(pthread_cond_t) <= sizeof(struct gm_waitq), "room for a queue");

static inline void mock_svc_mutex_init(void *self, struct gm_mutex *m)
{
	(void)self;
	pthread_mutex_init((pthread_mutex_t *)(void *)m, NULL);
}

static inline void mock_svc_mutex_fini(void *self, struct gm_mutex *m)
{
	(void)self;
	pthread_mutex_destroy((pthread_mutex_t *)(void *)m);
}

static inline void mock_svc_lock(void *self, struct gm_mutex *m)
{
	(void)self;
	pthread_mutex_lock((pthread_mutex_t *)(void *)m);
}

static inline void mock_svc_unlock(void *self, struct gm_mutex *m)
{
	(void)self;
	pthread_mutex_unlock((pthread_mutex_t *)(void *)m);
}

static inline void mock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static inline bool mock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	struct timespec ts;

	if (deadline_ns == UINT64_MAX)
		return pthread_cond_wait(cond, lock) == 0;
	ts.tv_sec = (time_t)(deadline_ns / 1000000000u);
	ts.tv_nsec = (long)(deadline_ns % 1000000000u);
	return pthread_cond_timedwait(cond, lock, &ts) == 0;
}

static inline void mock_svc_waitq_init(void *self, struct gm_waitq *q)
{
	(void)self;
	mock_cond_init((pthread_cond_t *)(void *)q);
}

static inline void mock_svc_waitq_fini(void *self, struct gm_waitq *q)
{
	(void)self;
	pthread_cond_destroy((pthread_cond_t *)(void *)q);
}

static inline gm_ret_t mock_svc_wait(void *self, struct gm_waitq *q, struct gm_mutex *m, uint64_t deadline_ns)
{
	(void)self;
	return mock_cond_wait((pthread_cond_t *)(void *)q, (pthread_mutex_t *)(void *)m, deadline_ns)
		? GM_RET_SUCCESS : GM_RET_TIMEDOUT;
}

static inline void mock_svc_wake(void *self, struct gm_waitq *q)
{
	(void)self;
	pthread_cond_broadcast((pthread_cond_t *)(void *)q);
}

static inline void *mock_thread_main(void *arg)
{
	struct gm_thread *t = arg;

	t->fn(t->arg);
	return NULL;
}

static inline gm_ret_t mock_svc_thread_start(void *self, const char *name, uint32_t flags, void (*fn)(void *),
					     void *arg, struct gm_thread **out)
{
	struct mock_services *s = self;
	struct gm_thread *t;

	(void)name;
	if (mock_turn(&s->fail_thread))
		return GM_RET_AGAIN;
	t = mock_svc_alloc(s, sizeof(*t));
	if (!t)
		return GM_RET_NOMEM;
	*t = (struct gm_thread){ .fn = fn, .arg = arg, .flags = flags };
	atomic_fetch_add(&s->live_threads, 1);
	if (pthread_create(&t->thread, NULL, mock_thread_main, t) != 0) {
		atomic_fetch_sub(&s->live_threads, 1);
		mock_svc_free(s, t, sizeof(*t));
		return GM_RET_AGAIN;
	}
	*out = t;
	return GM_RET_SUCCESS;
}

static inline void mock_svc_thread_join(void *self, struct gm_thread *t)
{
	struct mock_services *s = self;

	pthread_join(t->thread, NULL);
	atomic_fetch_sub(&s->live_threads, 1);
	mock_svc_free(s, t, sizeof(*t));
}

static inline void mock_svc_yield(void *self)
{
	(void)self;
	sched_yield();
}

static inline struct gm_fence *mock_svc_fence_create(void *self)
{
	struct mock_services *s = self;
	struct gm_fence *f = mock_svc_alloc(s, sizeof(*f));

	if (!f)
		return NULL;
	f->s = s;
	f->refs = 1;
	pthread_mutex_init(&f->lock, NULL);
	mock_cond_init(&f->cond);
	atomic_fetch_add(&s->live_fences, 1);
	return f;
}

static inline void mock_svc_fence_signal(void *self, struct gm_fence *f, gm_ret_t result)
{
	(void)self;
	pthread_mutex_lock(&f->lock);
	if (f->signals++ == 0)
		f->result = result;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

static inline void mock_svc_fence_put(void *self, struct gm_fence *f)
{
	struct mock_services *s = self;
	bool last;

	pthread_mutex_lock(&f->lock);
	last = --f->refs == 0;
	pthread_mutex_unlock(&f->lock);
	if (!last)
		return;
	pthread_cond_destroy(&f->cond);
	pthread_mutex_destroy(&f->lock);
	atomic_fetch_sub(&s->live_fences, 1);
	mock_svc_free(s, f, sizeof(*f));
}

static inline void mock_fence_ref(struct gm_fence *f)
{
	pthread_mutex_lock(&f->lock);
	f->refs++;
	pthread_mutex_unlock(&f->lock);
}

/* The result, or TIMEDOUT when it is not signalled after so many milliseconds. */
static inline gm_ret_t mock_fence_wait(struct gm_fence *f, unsigned ms)
{
	uint64_t deadline = mock_now_ns(NULL) + (uint64_t)ms * 1000000u;
	gm_ret_t ret;

	pthread_mutex_lock(&f->lock);
	while (f->signals == 0 && mock_cond_wait(&f->cond, &f->lock, deadline))
		;
	ret = f->signals ? f->result : GM_RET_TIMEDOUT;
	pthread_mutex_unlock(&f->lock);
	return ret;
}

static inline void mock_svc_fault_ready(void *self)
{
	struct mock_services *s = self;

	atomic_fetch_add(&s->faults_ready, 1);
}

static inline gm_ret_t mock_svc_host_access(void *self, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct mock_services *s = self;
	uint64_t begin = (uint64_t)(uintptr_t)s->host;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (s->host_hook)
		ret = s->host_hook(s->host_hook_arg, va, bytes, write);
	if (ret != GM_RET_SUCCESS)
		return ret;
	if (va < begin || va - begin > s->host_bytes || bytes > s->host_bytes - (va - begin))
		return GM_RET_FAULT;
	if (write)
		memcpy(s->host + (va - begin), buf, bytes);
	else
		memcpy(buf, s->host + (va - begin), bytes);
	return GM_RET_SUCCESS;
}

static inline void mock_svc_log(void *self, enum gm_log_level level, const char *message)
{
	struct mock_services *s = self;

	(void)level;
	(void)message;
	atomic_fetch_add(&s->logged, 1);
}

static inline void mock_services_init(struct mock_services *s)
{
	*s = (struct mock_services){ .svc = {
		.abi = GM_HAL_ABI,
		.size = sizeof(struct gm_services),
		.self = s,
		.alloc = mock_svc_alloc,
		.free = mock_svc_free,
		.now_ns = mock_now_ns,
		.mutex_init = mock_svc_mutex_init,
		.mutex_fini = mock_svc_mutex_fini,
		.lock = mock_svc_lock,
		.unlock = mock_svc_unlock,
		.waitq_init = mock_svc_waitq_init,
		.waitq_fini = mock_svc_waitq_fini,
		.wait = mock_svc_wait,
		.wake = mock_svc_wake,
		.thread_start = mock_svc_thread_start,
		.thread_join = mock_svc_thread_join,
		.yield = mock_svc_yield,
		.fence_signal = mock_svc_fence_signal,
		.fence_create = mock_svc_fence_create,
		.fence_put = mock_svc_fence_put,
		.fault_ready = mock_svc_fault_ready,
		.host_access = mock_svc_host_access,
		.log = mock_svc_log,
	} };
}

#endif
