/* SPDX-License-Identifier: MIT */
/*
 * Services for a backend that is tested without the library: threads, locks and memory of the C library, counted.
 * All devices of a test share them; when the last one is closed every count must be zero.
 *
 *     fence given to copy(), submit(), sync_import():
 *         pending --fence_signal--> done
 *         pending --the call itself failed--> refused
 *
 * These fences live until the end, so that a signal that comes too late meets memory that is still there. What the
 * shim catches before it comes here (a fence signalled twice or after a failure, a lock given back that is not held,
 * taken twice, or not made) is not looked for again.
 */
#include "config.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

struct gm_thread {
	struct gm_ct_services *s;
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
};

enum fence_state {
	FENCE_PENDING,
	FENCE_DONE,
	FENCE_REFUSED,
};

struct gm_fence {
	struct gm_fence *next; /* of those that live until the end */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum fence_state state;
	unsigned refs;         /* of a fence that the backend made */
	gm_ret_t result;
	void (*fn)(void *arg, gm_ret_t result); /* called by the signal; NULL: nothing */
	void *arg;
};

struct host_range {
	char *at;
	size_t bytes;
};

struct gm_ct_services {
	struct gm_ct *t;
	_Atomic long bytes, locks, queues, threads, fences; /* alive */
	pthread_mutex_t lock;
	pthread_cond_t cond;      /* something below has changed */
	uint64_t faults;          /* under lock: how often fault_ready was called */
	bool gate_closed;         /* under lock: host accesses wait */
	unsigned at_gate;         /* under lock: how many do */
	struct gm_fence *kept;    /* under lock */
	struct host_range host[GM_CT_MAX_HOST];
	unsigned n_host;
};

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct gm_mutex), "room for a lock");
_Static_assert(sizeof(pthread_cond_t) <= sizeof(struct gm_waitq), "room for a queue");

static void *svc_alloc(void *self, size_t bytes)
{
	struct gm_ct_services *s = self;
	void *ptr = NULL;

	if (posix_memalign(&ptr, 16, bytes) != 0)
		return NULL;
	memset(ptr, 0, bytes);
	atomic_fetch_add(&s->bytes, (long)bytes);
	return ptr;
}

static void svc_free(void *self, void *ptr, size_t bytes)
{
	struct gm_ct_services *s = self;

	if (ptr)
		atomic_fetch_sub(&s->bytes, (long)bytes);
	free(ptr);
}

static uint64_t svc_now_ns(void *self)
{
	(void)self;
	return gm_ct_now_ns();
}

static void svc_mutex_init(void *self, struct gm_mutex *mutex)
{
	struct gm_ct_services *s = self;

	(void)pthread_mutex_init((pthread_mutex_t *)(void *)mutex, NULL);
	atomic_fetch_add(&s->locks, 1);
}

static void svc_mutex_fini(void *self, struct gm_mutex *mutex)
{
	struct gm_ct_services *s = self;

	if (pthread_mutex_destroy((pthread_mutex_t *)(void *)mutex) != 0)
		gm_ct_fail(s->t, "lock", "mutex_fini of a lock that is held");
	atomic_fetch_sub(&s->locks, 1);
}

static void svc_lock(void *self, struct gm_mutex *mutex)
{
	(void)self;
	(void)pthread_mutex_lock((pthread_mutex_t *)(void *)mutex);
}

static void svc_unlock(void *self, struct gm_mutex *mutex)
{
	(void)self;
	(void)pthread_mutex_unlock((pthread_mutex_t *)(void *)mutex);
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attr);
	(void)pthread_condattr_destroy(&attr);
}

/* False: the deadline is over. */
static bool cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u) };

	if (deadline_ns == UINT64_MAX)
		return pthread_cond_wait(cond, lock) == 0;
	return pthread_cond_timedwait(cond, lock, &ts) != ETIMEDOUT;
}

static void svc_waitq_init(void *self, struct gm_waitq *queue)
{
	struct gm_ct_services *s = self;

	cond_init((pthread_cond_t *)(void *)queue);
	atomic_fetch_add(&s->queues, 1);
}

static void svc_waitq_fini(void *self, struct gm_waitq *queue)
{
	struct gm_ct_services *s = self;

	(void)pthread_cond_destroy((pthread_cond_t *)(void *)queue);
	atomic_fetch_sub(&s->queues, 1);
}

static gm_ret_t svc_wait(void *self, struct gm_waitq *queue, struct gm_mutex *mutex, uint64_t deadline_ns)
{
	(void)self;
	return cond_wait((pthread_cond_t *)(void *)queue, (pthread_mutex_t *)(void *)mutex, deadline_ns)
		       ? GM_RET_SUCCESS : GM_RET_TIMEDOUT;
}

static void svc_wake(void *self, struct gm_waitq *queue)
{
	(void)self;
	(void)pthread_cond_broadcast((pthread_cond_t *)(void *)queue);
}

static void *thread_main(void *arg)
{
	struct gm_thread *t = arg;

	t->fn(t->arg);
	return NULL;
}

static gm_ret_t svc_thread_start(void *self, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
				 struct gm_thread **thread)
{
	struct gm_ct_services *s = self;
	struct gm_thread *t = calloc(1, sizeof(*t));
	sigset_t all, before;
	int err;

	(void)name;
	(void)flags;
	atomic_store(&s->t->shared->threads, true);
	if (!t)
		return GM_RET_NOMEM;
	*t = (struct gm_thread){ .s = s, .fn = fn, .arg = arg };
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&t->thread, NULL, thread_main, t);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		free(t);
		return GM_RET_AGAIN;
	}
	atomic_fetch_add(&s->threads, 1);
	*thread = t;
	return GM_RET_SUCCESS;
}

static void svc_thread_join(void *self, struct gm_thread *thread)
{
	struct gm_ct_services *s = self;

	(void)pthread_join(thread->thread, NULL);
	free(thread);
	atomic_fetch_sub(&s->threads, 1);
}

static void svc_yield(void *self)
{
	(void)self;
	(void)sched_yield();
}

static void fence_init(struct gm_fence *f)
{
	f->refs = 1;
	(void)pthread_mutex_init(&f->lock, NULL);
	cond_init(&f->cond);
}

static void fence_free(struct gm_fence *f)
{
	(void)pthread_cond_destroy(&f->cond);
	(void)pthread_mutex_destroy(&f->lock);
	free(f);
}

static void svc_fence_signal(void *self, struct gm_fence *fence, gm_ret_t result)
{
	struct gm_ct_services *s = self;

	(void)pthread_mutex_lock(&fence->lock);
	fence->state = FENCE_DONE;
	fence->result = result;
	(void)pthread_cond_broadcast(&fence->cond);
	(void)pthread_mutex_unlock(&fence->lock);
	atomic_fetch_add(&s->t->shared->progress, 1);
	if (fence->fn)
		fence->fn(fence->arg, result);
}

static struct gm_fence *svc_fence_create(void *self)
{
	struct gm_ct_services *s = self;
	struct gm_fence *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	fence_init(f);
	atomic_fetch_add(&s->fences, 1);
	return f;
}

static void svc_fence_put(void *self, struct gm_fence *fence)
{
	struct gm_ct_services *s = self;
	bool last;

	(void)pthread_mutex_lock(&fence->lock);
	last = --fence->refs == 0;
	(void)pthread_mutex_unlock(&fence->lock);
	if (!last)
		return;
	fence_free(fence);
	atomic_fetch_sub(&s->fences, 1);
}

static void svc_fault_ready(void *self)
{
	struct gm_ct_services *s = self;

	(void)pthread_mutex_lock(&s->lock);
	s->faults++;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
}

static void pass_gate(struct gm_ct_services *s)
{
	(void)pthread_mutex_lock(&s->lock);
	s->at_gate++;
	(void)pthread_cond_broadcast(&s->cond);
	while (s->gate_closed)
		(void)pthread_cond_wait(&s->cond, &s->lock);
	s->at_gate--;
	(void)pthread_mutex_unlock(&s->lock);
}

static gm_ret_t svc_host_access(void *self, uint64_t host_va, void *buf, size_t bytes, bool write)
{
	struct gm_ct_services *s = self;

	pass_gate(s);
	for (unsigned i = 0; i < s->n_host; i++) {
		uint64_t at = (uint64_t)(uintptr_t)s->host[i].at;

		if (host_va < at || host_va - at > s->host[i].bytes || bytes > s->host[i].bytes - (host_va - at))
			continue;
		if (write)
			memcpy(s->host[i].at + (host_va - at), buf, bytes);
		else
			memcpy(buf, s->host[i].at + (host_va - at), bytes);
		return GM_RET_SUCCESS;
	}
	return GM_RET_FAULT;
}

static void svc_log(void *self, enum gm_log_level level, const char *message)
{
	(void)self;
	if (level <= GM_LOG_WARN)
		fprintf(stderr, "%s\n", message);
}

struct gm_ct_services *gm_ct_services_create(struct gm_ct *t)
{
	struct gm_ct_services *s = gm_ct_alloc(t, sizeof(*s));

	s->t = t;
	(void)pthread_mutex_init(&s->lock, NULL);
	cond_init(&s->cond);
	return s;
}

void gm_ct_services_fill(struct gm_ct_services *s, struct gm_services *svc)
{
	*svc = (struct gm_services){
		.abi = GM_HAL_ABI, .size = sizeof(*svc), .self = s,
		.alloc = svc_alloc, .free = svc_free, .now_ns = svc_now_ns,
		.mutex_init = svc_mutex_init, .mutex_fini = svc_mutex_fini, .lock = svc_lock, .unlock = svc_unlock,
		.waitq_init = svc_waitq_init, .waitq_fini = svc_waitq_fini, .wait = svc_wait, .wake = svc_wake,
		.thread_start = svc_thread_start, .thread_join = svc_thread_join, .yield = svc_yield,
		.fence_signal = svc_fence_signal, .fence_create = svc_fence_create, .fence_put = svc_fence_put,
		.fault_ready = svc_fault_ready, .host_access = svc_host_access, .log = svc_log,
	};
}

void gm_ct_services_check(struct gm_ct_services *s)
{
	const struct {
		const char *name;
		long left;
	} rows[] = {
		{ "bytes of memory", atomic_load(&s->bytes) },
		{ "threads", atomic_load(&s->threads) },
		{ "locks", atomic_load(&s->locks) },
		{ "queues of waiters", atomic_load(&s->queues) },
		{ "fences", atomic_load(&s->fences) },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].left != 0)
			gm_ct_fail(s->t, "leak", "%ld %s are left after the device was closed", rows[i].left, rows[i].name);
	}
	while (s->kept) {
		struct gm_fence *f = s->kept;

		if (f->state == FENCE_PENDING)
			gm_ct_fail(s->t, "fence", "still pending after the device was closed");
		s->kept = f->next;
		fence_free(f);
	}
}

void gm_ct_host_add(struct gm_ct_services *s, void *at, size_t bytes)
{
	if (s->n_host == GM_CT_MAX_HOST)
		gm_ct_fail(s->t, "host", "too many pieces of host memory: an error of the suite");
	s->host[s->n_host++] = (struct host_range){ .at = at, .bytes = bytes };
}

void gm_ct_host_gate(struct gm_ct_services *s, bool closed)
{
	(void)pthread_mutex_lock(&s->lock);
	s->gate_closed = closed;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
}

bool gm_ct_host_wait(struct gm_ct_services *s)
{
	uint64_t deadline = gm_ct_now_ns() + s->t->bound_ns;
	bool there;

	(void)pthread_mutex_lock(&s->lock);
	while (s->at_gate == 0 && cond_wait(&s->cond, &s->lock, deadline))
		;
	there = s->at_gate > 0;
	(void)pthread_mutex_unlock(&s->lock);
	return there;
}

uint64_t gm_ct_faults_ready(struct gm_ct_services *s)
{
	uint64_t n;

	(void)pthread_mutex_lock(&s->lock);
	n = s->faults;
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

bool gm_ct_faults_wait(struct gm_ct_services *s, uint64_t seen)
{
	uint64_t deadline = gm_ct_now_ns() + s->t->bound_ns;
	bool more;

	(void)pthread_mutex_lock(&s->lock);
	while (s->faults <= seen && cond_wait(&s->cond, &s->lock, deadline))
		;
	more = s->faults > seen;
	(void)pthread_mutex_unlock(&s->lock);
	return more;
}

struct gm_fence *gm_ct_fence(struct gm_ct_services *s)
{
	struct gm_fence *f = gm_ct_alloc(s->t, sizeof(*f));

	fence_init(f);
	(void)pthread_mutex_lock(&s->lock);
	f->next = s->kept;
	s->kept = f;
	(void)pthread_mutex_unlock(&s->lock);
	return f;
}

gm_ret_t gm_ct_fence_wait(struct gm_fence *f, uint64_t ns)
{
	uint64_t deadline = gm_ct_now_ns() + ns;
	gm_ret_t ret;

	(void)pthread_mutex_lock(&f->lock);
	while (f->state == FENCE_PENDING && cond_wait(&f->cond, &f->lock, deadline))
		;
	ret = f->state == FENCE_PENDING ? GM_RET_TIMEDOUT : f->result;
	(void)pthread_mutex_unlock(&f->lock);
	return ret;
}

void gm_ct_fence_refused(struct gm_fence *f)
{
	(void)pthread_mutex_lock(&f->lock);
	f->state = FENCE_REFUSED;
	(void)pthread_mutex_unlock(&f->lock);
}

void gm_ct_fence_on_done(struct gm_fence *f, void (*fn)(void *arg, gm_ret_t result), void *arg)
{
	f->fn = fn;
	f->arg = arg;
}

void gm_ct_thread_start(struct gm_ct *t, struct gm_ct_thread *thread, void *(*fn)(void *arg), void *arg)
{
	if (pthread_create(&thread->thread, NULL, fn, arg) != 0)
		gm_ct_fail(t, "host", "no thread for the suite itself");
}

void gm_ct_thread_join(struct gm_ct_thread *thread)
{
	(void)pthread_join(thread->thread, NULL);
}
