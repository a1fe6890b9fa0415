/* SPDX-License-Identifier: MIT */
/*
 * Four threads on one environment: locks in rank order, a ring of turns on a
 * queue of waiters, fences that are replaced while others wait for them, and
 * the arena. For ThreadSanitizer and valgrind; usage: stress_env [seconds].
 * Prints "ok", or what was wrong and exits with 1.
 */
#include "config.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hal/gm_fence.h"

#define THREADS	   4
#define SLOTS	   8
#define PIECES	   64
#define DONE_VALUE 42u

/* What a fence is for: `value` is written before the signal and read after the wait, with nothing else between. */
struct job {
	struct gm_fence *fence;
	uint64_t value;
	atomic_uint refs;
};

struct world {
	struct gm_env *env;
	uint64_t end_ns;
	atomic_uint next_index;

	struct gm_mutex outer, inner; /* AS, then BLOCK */
	uint64_t outer_count, inner_count;
	atomic_ullong outer_want, inner_want;

	struct gm_mutex ring_lock;
	struct gm_waitq ring;
	unsigned turn;
	bool over;
	uint64_t turns;

	struct gm_mutex slots_lock;
	struct job *slot[SLOTS];
	atomic_ullong calls_want, calls;

	atomic_uint errors;
};

struct piece {
	unsigned char *ptr;
	size_t bytes;
	unsigned char pattern;
};

struct worker {
	struct world *w;
	unsigned index;
	uint64_t rng;
	struct piece pieces[PIECES];
};

static uint64_t rng(struct worker *me)
{
	me->rng ^= me->rng << 13;
	me->rng ^= me->rng >> 7;
	me->rng ^= me->rng << 17;
	return me->rng;
}

static void expect(struct world *w, bool ok, const char *what)
{
	if (ok)
		return;
	atomic_fetch_add(&w->errors, 1);
	fprintf(stderr, "wrong: %s\n", what);
}

static void use_locks(struct worker *me)
{
	struct world *w = me->w;

	gm_lock(w->env, &w->outer);
	w->outer_count++;
	if (rng(me) % 2) {
		gm_lock(w->env, &w->inner);
		w->inner_count++;
		gm_unlock(w->env, &w->inner);
		atomic_fetch_add(&w->inner_want, 1);
	}
	gm_unlock(w->env, &w->outer);
	atomic_fetch_add(&w->outer_want, 1);
}

/* Each passes the turn to the next; a turn that does not come is left at the deadline. */
static void use_ring(struct worker *me)
{
	struct world *w = me->w;
	uint64_t deadline = gm_deadline_ns(w->env, 200000);
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(w->env, &w->ring_lock);
	while (w->turn != me->index && !w->over && ret == GM_RET_SUCCESS)
		ret = gm_wait(w->env, &w->ring, &w->ring_lock, deadline);
	if (w->turn == me->index) {
		w->turn = (w->turn + 1) % THREADS;
		w->turns++;
		gm_wake(w->env, &w->ring);
	}
	gm_unlock(w->env, &w->ring_lock);
	expect(w, ret == GM_RET_SUCCESS || gm_now_ns(w->env) >= deadline, "a wait ended before its deadline");
}

static void on_done(void *arg, gm_ret_t result)
{
	struct world *w = arg;

	expect(w, result == GM_RET_SUCCESS || result == GM_RET_CANCELED, "result in a callback");
	atomic_fetch_add(&w->calls, 1);
}

static struct job *job_new(struct world *w)
{
	struct job *job = gm_mem_alloc(w->env, sizeof(*job));

	if (!job)
		return NULL;
	job->fence = gm_fence_new(w->env);
	if (job->fence && gm_fence_publish(job->fence)) {
		gm_fence_unref(job->fence);
		job->fence = NULL;
	}
	if (!job->fence) {
		gm_mem_free(w->env, job, sizeof(*job));
		return NULL;
	}
	atomic_init(&job->refs, 1);
	return job;
}

static void job_put(struct world *w, struct job *job)
{
	if (atomic_fetch_sub(&job->refs, 1) > 1)
		return;
	gm_fence_put(job->fence);
	gm_mem_free(w->env, job, sizeof(*job));
}

static struct job *slot_get(struct worker *me, unsigned i)
{
	struct job *job;

	gm_lock(me->w->env, &me->w->slots_lock);
	job = me->w->slot[i];
	atomic_fetch_add(&job->refs, 1);
	gm_unlock(me->w->env, &me->w->slots_lock);
	return job;
}

/* Take the job out of its slot and finish it; whoever still waits for it must hear. */
static void slot_replace(struct worker *me, unsigned i)
{
	struct world *w = me->w;
	struct job *fresh = job_new(w), *old;

	if (!fresh) {
		expect(w, false, "no memory for a fence");
		return;
	}
	gm_lock(w->env, &w->slots_lock);
	old = w->slot[i];
	w->slot[i] = fresh;
	gm_unlock(w->env, &w->slots_lock);
	if (rng(me) % 8) {
		old->value = DONE_VALUE;
		gm_fence_signal(old->fence, GM_RET_SUCCESS);
	} else {
		gm_fence_cancel(old->fence);
	}
	expect(w, gm_fence_done(old->fence), "a fence is pending after its signal");
	job_put(w, old);
}

/* Without the lock: the result alone must publish what was written before it. */
static gm_ret_t poll_fence(struct world *w, struct gm_fence *f)
{
	for (unsigned i = 0; i < 500 && !gm_fence_done(f); i++)
		gm_yield(w->env);
	return gm_fence_wait(f, 0);
}

static void use_fences(struct worker *me)
{
	unsigned i = (unsigned)(rng(me) % SLOTS);
	struct world *w = me->w;
	struct job *job;
	gm_ret_t ret;

	if (rng(me) % 2) {
		slot_replace(me, i);
		return;
	}
	job = slot_get(me, i);
	if (rng(me) % 2) {
		ret = rng(me) % 2 ? poll_fence(w, job->fence) : gm_fence_wait(job->fence, rng(me) % 100000);
		if (ret == GM_RET_SUCCESS)
			expect(w, job->value == DONE_VALUE, "what was written before the signal is not seen");
		else
			expect(w, ret == GM_RET_CANCELED || ret == GM_RET_TIMEDOUT, "result of a wait");
	} else if (gm_fence_on_done(job->fence, on_done, w) == GM_RET_SUCCESS) {
		atomic_fetch_add(&w->calls_want, 1);
	}
	job_put(w, job);
}

static bool all_are(const struct piece *p, unsigned char value)
{
	for (size_t i = 0; i < p->bytes; i++) {
		if (p->ptr[i] != value)
			return false;
	}
	return true;
}

static void use_memory(struct worker *me)
{
	struct piece *p = &me->pieces[rng(me) % PIECES];

	if (p->ptr) {
		expect(me->w, all_are(p, p->pattern), "a piece was changed by others");
		gm_mem_free(me->w->env, p->ptr, p->bytes);
		p->ptr = NULL;
		return;
	}
	p->bytes = rng(me) % 64 ? 1 + rng(me) % 1000 : 1 + rng(me) % 100000;
	p->pattern = (unsigned char)(1 + rng(me) % 255);
	p->ptr = gm_mem_alloc(me->w->env, p->bytes);
	expect(me->w, p->ptr && all_are(p, 0), "a piece is not zeroed");
	if (p->ptr)
		memset(p->ptr, p->pattern, p->bytes);
}

static void work(void *arg)
{
	static void (*const uses[])(struct worker *) = { use_locks, use_ring, use_fences, use_fences, use_memory };
	struct worker me = { .w = arg };
	struct world *w = arg;

	me.index = atomic_fetch_add(&w->next_index, 1);
	me.rng = 88172645463325252u + me.index;
	while (gm_now_ns(w->env) < w->end_ns && atomic_load(&w->errors) == 0)
		uses[rng(&me) % 5](&me);
	gm_lock(w->env, &w->ring_lock);
	w->over = true;
	gm_wake(w->env, &w->ring);
	gm_unlock(w->env, &w->ring_lock);
	for (unsigned i = 0; i < PIECES; i++)
		gm_mem_free(w->env, me.pieces[i].ptr, me.pieces[i].bytes);
}

static bool world_init(struct world *w, const char *seconds)
{
	gm_mutex_init(w->env, &w->outer, GM_RANK_AS);
	gm_mutex_init(w->env, &w->inner, GM_RANK_BLOCK);
	gm_mutex_init(w->env, &w->ring_lock, GM_RANK_QUEUE);
	gm_mutex_init(w->env, &w->slots_lock, GM_RANK_NODE);
	gm_waitq_init(w->env, &w->ring);
	for (unsigned i = 0; i < SLOTS; i++) {
		w->slot[i] = job_new(w);
		if (!w->slot[i])
			return false;
	}
	w->end_ns = gm_deadline_ns(w->env, (uint64_t)(strtod(seconds, NULL) * 1e9));
	return true;
}

static void world_fini(struct world *w)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		gm_fence_cancel(w->slot[i]->fence);
		job_put(w, w->slot[i]);
	}
	expect(w, w->calls == w->calls_want, "callbacks called as often as they were registered");
	expect(w, w->outer_count == w->outer_want && w->inner_count == w->inner_want, "a lock let two in");
	expect(w, w->turns > 0 && w->calls > 0 && w->inner_count > 0, "nothing happened");
	gm_waitq_fini(w->env, &w->ring);
	gm_mutex_fini(w->env, &w->slots_lock);
	gm_mutex_fini(w->env, &w->ring_lock);
	gm_mutex_fini(w->env, &w->inner);
	gm_mutex_fini(w->env, &w->outer);
}

static void listen(void *arg, enum gm_log_level level, const char *message)
{
	expect(arg, level != GM_LOG_ERROR, message);
}

int main(int argc, char **argv)
{
	static struct world w;
	struct gm_lib_config config = { .size = sizeof(config), .log = listen, .log_arg = &w };
	struct gm_thread *t[THREADS];
	unsigned started;

	if (gm_env_threads_create(&config, &w.env) != GM_RET_SUCCESS || !world_init(&w, argc > 1 ? argv[1] : "1")) {
		fprintf(stderr, "wrong: no memory to begin with\n");
		return 1;
	}
	for (started = 0; started < THREADS; started++) {
		if (w.env->ops->thread_start(w.env, "stress", started % 2 ? GM_THREAD_DEVICE : 0, work, &w,
					     &t[started]) != GM_RET_SUCCESS)
			break;
	}
	expect(&w, started == THREADS, "a thread was not started");
	for (unsigned i = 0; i < started; i++)
		w.env->ops->thread_join(w.env, t[i]);
	world_fini(&w);
	gm_env_threads_destroy(w.env);
	if (w.errors)
		return 1;
	puts("ok");
	return 0;
}
