/* SPDX-License-Identifier: MIT */
/*
 * Group plan: submit() does what the single operations do, in an order that keeps every dependency, and says for
 * each step how it ended.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

#define MOVES 8u

static struct gm_step step_map(const struct gm_ct_map *o, enum gm_step_op op, uint32_t page, uint32_t n)
{
	/* what a backend must not read, and a result that none may leave */
	return (struct gm_step){ .op = op, .after = GM_STEP_FREE, .pmap = o->pmap, .va = gm_ct_va(o, page),
				 .bytes = n * o->d->granule, .ret = GM_RET_EXIST };
}

static struct gm_step step_enter(const struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n, uint32_t pte)
{
	struct gm_step step = step_map(o, GM_STEP_ENTER, page, n);

	step.pa = gm_ct_pa(o->m, frame);
	step.pte = pte;
	return step;
}

static struct gm_step step_copy(const struct gm_ct_map *o, enum gm_copy_kind kind, uint32_t frame, void *host, uint32_t n)
{
	struct gm_step step = { .op = GM_STEP_COPY, .after = GM_STEP_FREE, .ret = GM_RET_EXIST };

	step.copy = (struct gm_copy){ .kind = kind, .pa = gm_ct_pa(o->m, frame), .host = GM_VA(host),
				      .bytes = n * o->d->granule };
	return step;
}

/* Each step's own result. */
static void want_steps(struct gm_ct *t, const struct gm_step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (steps[i].ret != GM_RET_SUCCESS)
			gm_ct_fail(t, "step", "step %zu of %zu has result %s, expected GM_RET_SUCCESS", i, n,
				   gm_ret_name(steps[i].ret));
	}
}

static void run(struct gm_ct_stage *s, struct gm_step *steps, size_t n)
{
	gm_ct_ok(s->d->t, gm_ct_submit(s->d, steps, n));
	want_steps(s->d->t, steps, n);
}

/* One step alone. */
static void single(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_step step;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	step = step_enter(&s.o, 1, 2, 4, 0);
	run(&s, &step, 1);
	gm_ct_map_set(&s.o, 1, 2, 4, 0);
	gm_ct_map_check(&s.o);
	step = step_copy(&s.o, GM_COPY_ZERO, 8, NULL, 2);
	run(&s, &step, 1);
	memset(s.m.is + 8 * s.d->granule, 0, 2 * s.d->granule);
	step = step_map(&s.o, GM_STEP_REMOVE, 1, 2);
	run(&s, &step, 1);
	step = step_map(&s.o, GM_STEP_INVL, 1, 2);
	run(&s, &step, 1);
	gm_ct_map_unset(&s.o, 1, 2);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/*
 * A whole migration in one plan: pages 0 .. MOVES-1 go home, other bytes come to other frames and are mapped at the
 * same addresses.
 */
static void migrate(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_step *steps = gm_ct_alloc(t, (2 * MOVES + 3) * sizeof(*steps));
	unsigned char *home, *away;
	uint64_t g, bytes;
	size_t n = 0;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	g = s.d->granule;
	bytes = MOVES * g;
	home = gm_ct_pages(t, bytes);
	away = gm_ct_pages(t, bytes);
	gm_ct_fill(away, bytes, t->seed + 9);
	gm_ct_map_enter(&s.o, 0, 0, MOVES, 0);
	gm_ct_map_check(&s.o);
	steps[n++] = step_map(&s.o, GM_STEP_REMOVE, 0, MOVES);
	steps[n] = step_map(&s.o, GM_STEP_INVL, 0, MOVES);
	steps[n++].after = 0;
	for (uint32_t i = 0; i < MOVES; i++) {
		steps[n] = step_copy(&s.o, GM_COPY_TO_HOST, i, home + i * g, 1);
		steps[n++].after = 1;
		steps[n] = step_copy(&s.o, GM_COPY_TO_DEV, MOVES + i, away + i * g, 1);
		steps[n++].after = 1;
	}
	steps[n] = step_enter(&s.o, 0, MOVES, MOVES, 0);
	steps[n].after = (uint32_t)n - 1;
	n++;
	run(&s, steps, n);
	if (memcmp(home, s.m.is, bytes) != 0)
		gm_ct_fail(t, "bytes", "what came home in a plan is not what was in the frames");
	memcpy(s.m.is + bytes, away, bytes);
	gm_ct_map_unset(&s.o, 0, MOVES);
	gm_ct_map_set(&s.o, 0, MOVES, MOVES, 0);
	gm_ct_map_check(&s.o);
	gm_ct_pages_free(home, bytes);
	gm_ct_pages_free(away, bytes);
	free(steps);
	gm_ct_finish(&s);
}

/* A chain in which each copy needs the one before: host -> frame 0 -> host -> frame 1 -> ... */
static void chain(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_step *steps = gm_ct_alloc(t, (size_t)2 * MOVES * sizeof(*steps));
	unsigned char *host;
	uint64_t g;
	size_t n = 0;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	g = s.d->granule;
	host = gm_ct_pages(t, (MOVES + 1) * g);
	gm_ct_fill(host, g, t->seed + 5);
	for (uint32_t i = 0; i < MOVES; i++) {
		memcpy(s.m.is + i * g, host, g);
		steps[n] = step_copy(&s.o, GM_COPY_TO_DEV, i, host + i * g, 1);
		steps[n].after = n ? (uint32_t)n - 1 : GM_STEP_FREE;
		n++;
		steps[n] = step_copy(&s.o, GM_COPY_TO_HOST, i, host + (i + 1) * g, 1);
		steps[n].after = (uint32_t)n - 1;
		n++;
	}
	run(&s, steps, n);
	if (memcmp(host, host + MOVES * g, g) != 0)
		gm_ct_fail(t, "order", "a step began before one that it depends on was complete");
	gm_ct_pages_free(host, (MOVES + 1) * g);
	free(steps);
	gm_ct_finish(&s);
}

/* The 2nd pmap_enter fails: what it depends on is done, what depends on it is CANCELED and not done. */
static void failed(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_step *steps = gm_ct_alloc(t, 4 * sizeof(*steps));

	gm_ct_begin(&s, t, GM_CT_SMALL);
	if (gm_ct_fail_op(s.d, "pmap_enter", 2) == GM_RET_NOTSUP)
		gm_ct_need(t, "hook fail for pmap_enter");
	for (uint32_t i = 0; i < 4; i++) {
		steps[i] = i == 2 ? step_copy(&s.o, GM_COPY_ZERO, 10, NULL, 1) : step_enter(&s.o, i, i, 1, 0);
		steps[i].after = i ? i - 1 : GM_STEP_FREE;
	}
	gm_ct_want(t, gm_ct_submit(s.d, steps, 4), GM_RET_NOMEM);
	gm_ct_map_set(&s.o, 0, 0, 1, 0);
	for (uint32_t i = 0; i < 4; i++) {
		gm_ret_t want = i == 0 ? GM_RET_SUCCESS : i == 1 ? GM_RET_NOMEM : GM_RET_CANCELED;

		if (steps[i].ret != want)
			gm_ct_fail(t, "step", "step %u has result %s, expected %s (step 1 was made to fail)", (unsigned)i,
				   gm_ret_name(steps[i].ret), gm_ret_name(want));
	}
	free(steps);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

/* The call itself fails: nothing is done. */
static void refused(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_step steps[2];

	gm_ct_begin(&s, t, GM_CT_SMALL);
	if (gm_ct_fail_op(s.d, "submit", 1) == GM_RET_NOTSUP)
		gm_ct_need(t, "hook fail for submit");
	steps[0] = step_enter(&s.o, 0, 0, 1, 0);
	steps[1] = step_copy(&s.o, GM_COPY_ZERO, 10, NULL, 1);
	gm_ct_want(t, gm_ct_submit(s.d, steps, 2), GM_RET_NOMEM);
	gm_ct_sleep_ns(20000000);
	gm_ct_map_check(&s.o);
	gm_ct_finish(&s);
}

const struct gm_ct_test gm_ct_plan_tests[] = {
	{ "single", GM_CAP_SUBMIT | GM_CAP_ACCESS, 0, single },
	{ "migrate", GM_CAP_SUBMIT | GM_CAP_ACCESS, 0, migrate },
	{ "chain", GM_CAP_SUBMIT | GM_CAP_ACCESS, 0, chain },
	{ "failed", GM_CAP_SUBMIT | GM_CAP_ACCESS, GM_CT_FAIL, failed },
	{ "refused", GM_CAP_SUBMIT | GM_CAP_ACCESS, GM_CT_FAIL, refused },
	{ NULL, 0, 0, NULL },
};
