/* SPDX-License-Identifier: MIT */
/*
 * Coroutines on a virtual clock, chosen by a seed.
 *
 *     start -> READY --chosen--> RUNNING --point, yield--> READY
 *                                RUNNING --block---------> BLOCKED --unblock, deadline--> READY
 *                                RUNNING --fn returns----> DONE --join--> freed
 *
 * The clock advances a little at each point and, when nobody is ready, jumps
 * to the next deadline. If there is none either, everybody is blocked for
 * ever and gm_sim_run() returns false.
 *
 * At a point a coroutine gives way only now and then: that keeps runs cheap
 * and lets one of them get ahead of the others, where the rarer bugs are.
 * Locks are flags that are never held across a point, so nobody waits for one.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "hal/sim/gm_sim_internal.h"

/* At one of so many points others get their turn. */
#define SWITCH_ONE_IN 4u

static int timer_cmp(const struct gm_thread *a, const struct gm_thread *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

RB_GENERATE_INTERNAL(gm_sim_timers, gm_thread, timer, timer_cmp, __attribute__((unused)) static)

void gm_sim_panic(struct gm_sim *sim, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "gm_sim: %s (%u) at %llu ns: ", sim->current->name, (unsigned)sim->current->id,
		(unsigned long long)sim->now_ns);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	abort();
}

void *gm_sim_calloc(struct gm_sim *sim, size_t bytes)
{
	void *ptr = calloc(1, bytes);

	if (!ptr)
		gm_sim_panic(sim, "no memory for the simulation itself");
	return ptr;
}

/* splitmix64 */
static uint64_t random_bits(struct gm_sim *sim)
{
	uint64_t z = sim->rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t gm_sim_random(struct gm_sim *sim, uint64_t n)
{
	return n > 1 ? random_bits(sim) % n : 0;
}

bool gm_sim_rarely(struct gm_sim *sim)
{
	return sim->spurious && random_bits(sim) % GM_SIM_RARELY == 0;
}

/* ------------------------------------------------------------- choosing */

static void make_ready(struct gm_sim *sim, struct gm_thread *t)
{
	t->state = GM_SIM_READY;
	sim->ready[sim->n_ready++] = t;
}

static void timer_remove(struct gm_sim *sim, struct gm_thread *t)
{
	const struct gm_thread *next;

	if (t->deadline_ns == GM_SIM_NEVER)
		return;
	RB_REMOVE(gm_sim_timers, &sim->timers, t);
	t->deadline_ns = GM_SIM_NEVER;
	next = RB_MIN(gm_sim_timers, &sim->timers);
	sim->next_timer_ns = next ? next->deadline_ns : GM_SIM_NEVER;
}

static void expire(struct gm_sim *sim)
{
	while (sim->next_timer_ns <= sim->now_ns && !RB_EMPTY(&sim->timers)) {
		struct gm_thread *t = RB_MIN(gm_sim_timers, &sim->timers);

		timer_remove(sim, t);
		make_ready(sim, t);
	}
}

static void advance(struct gm_sim *sim, uint64_t ns)
{
	sim->now_ns += ns;
	if (sim->next_timer_ns <= sim->now_ns)
		expire(sim);
}

/* Who runs next, among the first `n` of sim->ready, or of all if `n` is 0. NULL: nobody ever, or the horizon. */
static struct gm_thread *choose(struct gm_sim *sim, size_t n)
{
	struct gm_thread *t;
	size_t i;

	if (sim->n_ready == 0 && sim->next_timer_ns != GM_SIM_NEVER && sim->next_timer_ns <= sim->horizon_ns)
		advance(sim, sim->next_timer_ns > sim->now_ns ? sim->next_timer_ns - sim->now_ns : 0);
	if (sim->n_ready == 0 || sim->now_ns > sim->horizon_ns)
		return NULL;
	i = (size_t)gm_sim_random(sim, n ? n : sim->n_ready);
	t = sim->ready[i];
	sim->ready[i] = sim->ready[--sim->n_ready];
	sim->hash = (sim->hash ^ t->id ^ sim->now_ns << 16) * UINT64_C(0xff51afd7ed558ccd);
	sim->hash ^= sim->hash >> 32;
	return t;
}

static void switch_to(struct gm_sim *sim, struct gm_thread *t)
{
	struct gm_thread *from = sim->current;

	t->state = GM_SIM_RUNNING;
	if (t == from)
		return;
	sim->switches++;
	sim->previous = from;
	sim->current = t;
	gm_sim_ctx_switch(&from->ctx, &t->ctx, from->state == GM_SIM_DONE);
}

/* The running coroutine is READY, BLOCKED or DONE by now: let somebody else run. */
static void reschedule(struct gm_sim *sim, size_t n)
{
	struct gm_thread *t = choose(sim, n);

	if (!t)
		sim->stuck = true;
	switch_to(sim, t ? t : &sim->main);
}

void gm_sim_point(struct gm_sim *sim)
{
	uint64_t bits;

	gm_rank_assert_none(&sim->current->locks, "a point of the simulation");
	if (!gm_sim_inside(sim))
		return;
	bits = random_bits(sim);
	advance(sim, 50 + bits % 150);
	if (sim->now_ns > sim->horizon_ns) {
		make_ready(sim, sim->current);
		reschedule(sim, 0);
	} else if (sim->n_ready > 0 && (bits >> 32) % SWITCH_ONE_IN == 0) {
		size_t others = sim->n_ready;

		make_ready(sim, sim->current);
		reschedule(sim, others);
	}
}

void gm_sim_block(struct gm_sim *sim, uint64_t deadline_ns, const char *what)
{
	struct gm_thread *self = sim->current;

	if (!gm_sim_inside(sim))
		gm_sim_panic(sim, "%s would block outside gm_sim_run()", what);
	gm_rank_assert_none(&self->locks, what);
	advance(sim, 50 + random_bits(sim) % 150);
	self->state = GM_SIM_BLOCKED;
	self->what = what;
	self->deadline_ns = deadline_ns;
	if (deadline_ns != GM_SIM_NEVER) {
		RB_INSERT(gm_sim_timers, &sim->timers, self);
		if (deadline_ns < sim->next_timer_ns)
			sim->next_timer_ns = deadline_ns;
		expire(sim);
	}
	reschedule(sim, 0);
}

void gm_sim_unblock(struct gm_sim *sim, struct gm_thread *thread)
{
	if (thread->state != GM_SIM_BLOCKED)
		return;
	timer_remove(sim, thread);
	make_ready(sim, thread);
}

bool gm_sim_queue_wait(struct gm_sim *sim, struct gm_sim_threads *queue, uint64_t deadline_ns, const char *what)
{
	struct gm_thread *self = sim->current;

	if (gm_sim_inside(sim)) {
		TAILQ_INSERT_TAIL(queue, self, waiting);
		self->queue = queue;
	}
	gm_sim_block(sim, deadline_ns, what);
	if (!self->queue)
		return true; /* woken, even if the deadline passed too */
	TAILQ_REMOVE(self->queue, self, waiting);
	self->queue = NULL;
	return false;
}

void gm_sim_queue_wake(struct gm_sim *sim, struct gm_sim_threads *queue)
{
	struct gm_thread *t;

	while ((t = TAILQ_FIRST(queue)) != NULL) {
		TAILQ_REMOVE(queue, t, waiting);
		t->queue = NULL;
		gm_sim_unblock(sim, t);
	}
}

/* ----------------------------------------------------------- coroutines */

static void thread_main(void *arg)
{
	struct gm_thread *self = arg;
	struct gm_sim *sim = self->sim;

	gm_sim_ctx_started(&sim->previous->ctx);
	self->fn(self->arg);
	gm_rank_assert_none(&self->locks, "end of a coroutine");
	self->state = GM_SIM_DONE;
	gm_sim_queue_wake(sim, &self->joiners);
	/* Nobody can start a coroutine, and so use the stack, before it is left. */
	self->stack->next = sim->free_stacks;
	sim->free_stacks = self->stack;
	self->stack = NULL;
	if (self == sim->first)
		switch_to(sim, &sim->main);
	else
		reschedule(sim, 0);
}

/* Room in sim->ready for everybody, so that waking cannot fail. */
static gm_ret_t reserve_ready(struct gm_sim *sim)
{
	struct gm_thread **ready;
	const struct gm_thread *t;
	size_t n = 1;

	TAILQ_FOREACH(t, &sim->all, all)
		n++;
	if (n <= sim->max_ready)
		return GM_RET_SUCCESS;
	ready = realloc(sim->ready, 2 * n * sizeof(*ready));
	if (!ready)
		return GM_RET_NOMEM;
	sim->ready = ready;
	sim->max_ready = 2 * n;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_thread_start(struct gm_env *env, const char *name, uint32_t flags, void (*fn)(void *), void *arg,
			     struct gm_thread **out)
{
	struct gm_sim *sim = (struct gm_sim *)env;
	struct gm_thread *t;

	if (reserve_ready(sim))
		return GM_RET_NOMEM;
	t = env->mem.alloc(env->mem.arg, sizeof(*t));
	if (!t)
		return GM_RET_NOMEM;
	t->stack = sim->free_stacks;
	if (t->stack)
		sim->free_stacks = t->stack->next;
	else
		t->stack = gm_sim_stack_create();
	if (!t->stack) {
		env->mem.free(env->mem.arg, t, sizeof(*t));
		return GM_RET_NOMEM;
	}
	t->sim = sim;
	t->id = ++sim->next_id;
	t->flags = flags;
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->fn = fn;
	t->arg = arg;
	t->deadline_ns = GM_SIM_NEVER;
	TAILQ_INIT(&t->joiners);
	t->locks.fail = sim->main.locks.fail;
	t->locks.fail_arg = sim;
	gm_sim_ctx_init(&t->ctx, t->stack, thread_main, t);
	TAILQ_INSERT_TAIL(&sim->all, t, all);
	make_ready(sim, t);
	*out = t;
	return GM_RET_SUCCESS;
}

void gm_sim_thread_free(struct gm_sim *sim, struct gm_thread *t)
{
	TAILQ_REMOVE(&sim->all, t, all);
	if (t->stack)
		gm_sim_stack_destroy(t->stack);
	sim->env.mem.free(sim->env.mem.arg, t, sizeof(*t));
}

bool gm_sim_run(struct gm_sim *sim, void (*fn)(void *arg), void *arg)
{
	struct gm_thread *t;

	if (gm_sim_inside(sim))
		gm_sim_panic(sim, "gm_sim_run() inside gm_sim_run()");
	if (gm_sim_thread_start(&sim->env, "first", 0, fn, arg, &sim->first))
		gm_sim_panic(sim, "no memory for the first coroutine");
	sim->stuck = false;
	t = choose(sim, 0);
	if (t)
		switch_to(sim, t);
	if (!t || sim->stuck)
		return false;
	gm_sim_thread_free(sim, sim->first);
	sim->first = NULL;
	return true;
}

void gm_sim_report(struct gm_sim *sim, char *text, size_t bytes)
{
	static const char *const state[] = { "ready", "running", "blocked in ", "done" };
	const struct gm_thread *t;
	size_t at = 0;

	if (bytes > 0)
		text[0] = '\0';
	TAILQ_FOREACH(t, &sim->all, all) {
		int n = snprintf(text + at, bytes - at, "%s (%u): %s%s\n", t->name, (unsigned)t->id, state[t->state],
				 t->state == GM_SIM_BLOCKED ? t->what : "");

		if (n < 0 || (size_t)n >= bytes - at)
			return;
		at += (size_t)n;
	}
}

uint64_t gm_sim_switches(struct gm_sim *sim)
{
	return sim->switches;
}

uint64_t gm_sim_hash(struct gm_sim *sim)
{
	return sim->hash;
}

void gm_sim_sleep_ns(struct gm_sim *sim, uint64_t ns)
{
	gm_sim_block(sim, gm_deadline_ns(&sim->env, ns), "gm_sim_sleep_ns");
}

void gm_sim_set_spurious(struct gm_sim *sim, bool on)
{
	sim->spurious = on;
}

void gm_sim_set_horizon_ns(struct gm_sim *sim, uint64_t ns)
{
	sim->horizon_ns = ns;
}

uint32_t gm_sim_thread_id(struct gm_sim *sim)
{
	return sim->current->id;
}
