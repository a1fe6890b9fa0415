/* SPDX-License-Identifier: MIT */
/*
 * Group workset: what a launch with a declared working set asks of a device: many ranges mapped by one plan, held
 * while other pages move, and dropped by one plan. A device without submit() gets the same steps one by one.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

#define RANGES 1000u

/* Ranges are every other page; those between belong to others. */
struct set {
	struct gm_ct_stage s;
	struct gm_step *steps;
	uint32_t n;
	uint64_t seed; /* of the bytes of the next range */
	atomic_bool stop;
};

static void one_by_one(struct gm_ct_dev *d, struct gm_step *steps, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct gm_step *st = &steps[i];

		st->ret = GM_RET_SUCCESS;
		if (st->op == GM_STEP_ENTER)
			st->ret = gm_ct_enter(d, st->pmap, st->va, st->pa, st->bytes, st->pte);
		else if (st->op == GM_STEP_REMOVE)
			st->ret = gm_ct_remove(d, st->pmap, st->va, st->bytes);
		else if (st->op == GM_STEP_INVL)
			gm_ct_invl(d, st->pmap, st->va, st->bytes);
		else
			st->ret = gm_ct_copy(d, &st->copy, 1);
		gm_ct_ok(d->t, st->ret);
	}
}

static void run(struct set *w, uint32_t n)
{
	struct gm_ct *t = w->s.d->t;

	if (!gm_ct_has(w->s.d, GM_CAP_SUBMIT)) {
		one_by_one(w->s.d, w->steps, n);
		return;
	}
	gm_ct_ok(t, gm_ct_submit(w->s.d, w->steps, n));
	for (uint32_t i = 0; i < n; i++) {
		if (w->steps[i].ret != GM_RET_SUCCESS)
			gm_ct_fail(t, "step", "step %u of %u has result %s", (unsigned)i, (unsigned)n,
				   gm_ret_name(w->steps[i].ret));
	}
}

static void begin(struct set *w, struct gm_ct *t)
{
	gm_ct_begin(&w->s, t, (uint64_t)RANGES * 2 * GM_CT_PAGE);
	w->n = w->s.o.pages / 2 < RANGES ? w->s.o.pages / 2 : RANGES;
	w->steps = gm_ct_alloc(t, 3 * (size_t)w->n * sizeof(*w->steps));
}

static void finish(struct set *w)
{
	free(w->steps);
	gm_ct_finish(&w->s);
}

/* Bring everything: a copy and an entry per range. */
static void acquire(struct set *w)
{
	struct gm_ct_map *o = &w->s.o;
	struct gm_ct_mem *m = &w->s.m;
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->n; i++) {
		uint64_t at = UINT64_C(2) * i * o->d->granule;

		gm_ct_fill(m->is + at, o->d->granule, ++w->seed);
		w->steps[n] = (struct gm_step){ .op = GM_STEP_COPY, .after = GM_STEP_FREE };
		w->steps[n].copy = (struct gm_copy){ .kind = GM_COPY_TO_DEV, .pa = m->pa + at, .host = GM_VA(m->is) + at,
						     .bytes = o->d->granule };
		n++;
	}
	for (uint32_t i = 0; i < w->n; i++)
		w->steps[n++] = (struct gm_step){ .op = GM_STEP_ENTER, .after = w->n - 1, .pmap = o->pmap,
						  .va = gm_ct_va(o, 2 * i), .pa = gm_ct_pa(m, 2 * i),
						  .bytes = o->d->granule, .pte = 0 };
	run(w, n);
	for (uint32_t i = 0; i < w->n; i++)
		gm_ct_map_set(o, 2 * i, 2 * i, 1, 0);
}

static void release(struct set *w)
{
	struct gm_ct_map *o = &w->s.o;
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->n; i++)
		w->steps[n++] = (struct gm_step){ .op = GM_STEP_REMOVE, .after = GM_STEP_FREE, .pmap = o->pmap,
						  .va = gm_ct_va(o, 2 * i), .bytes = o->d->granule };
	w->steps[n] = (struct gm_step){ .op = GM_STEP_INVL, .after = n - 1, .pmap = o->pmap, .va = o->va,
					.bytes = w->s.m.bytes };
	run(w, n + 1);
	for (uint32_t i = 0; i < w->n; i++)
		gm_ct_map_unset(o, 2 * i, 1);
}

static void many(struct gm_ct *t)
{
	struct set w = { .n = 0 };

	begin(&w, t);
	for (unsigned k = 0; k < 3; k++) {
		acquire(&w);
		gm_ct_map_check(&w.s.o);
		release(&w);
		gm_ct_map_check(&w.s.o);
	}
	finish(&w);
}

/* Loads from what is held never fail and never see anything else. */
static void *holder(void *arg)
{
	struct set *w = arg;
	struct gm_ct_map *o = &w->s.o;
	struct gm_ct_random r = { .state = 77 };

	while (!atomic_load(&w->stop)) {
		uint32_t page = 2 * (uint32_t)gm_ct_below(&r, w->n);
		uint64_t got = 0, want;

		memcpy(&want, w->s.m.is + page * o->d->granule, 8);
		gm_ct_ok(o->d->t, gm_ct_access(o->d, o->pmap, gm_ct_va(o, page), &got, 8, false));
		if (got != want)
			gm_ct_fail(o->d->t, "bytes", "a page of the set that is held changed while others moved: va 0x%llx",
				   (unsigned long long)gm_ct_va(o, page));
	}
	return NULL;
}

static void held(struct gm_ct *t)
{
	struct set w = { .n = 0 };
	struct gm_ct_thread thread;

	begin(&w, t);
	acquire(&w);
	gm_ct_thread_start(t, &thread, holder, &w);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t page = 2 * (i % (w.n - 1)) + 1;
		struct gm_copy copy = { .kind = GM_COPY_TO_DEV, .pa = gm_ct_pa(&w.s.m, page),
					.host = GM_VA(w.s.m.is) + page * w.s.d->granule, .bytes = w.s.d->granule };

		gm_ct_ok(t, gm_ct_copy(w.s.d, &copy, 1));
		gm_ct_map_enter(&w.s.o, page, page, 1, GM_PTE_WRITE);
		gm_ct_map_probe(&w.s.o, page, true);
		gm_ct_map_remove(&w.s.o, page, 1);
	}
	atomic_store(&w.stop, true);
	gm_ct_thread_join(&thread);
	gm_ct_map_check(&w.s.o);
	release(&w);
	finish(&w);
}

const struct gm_ct_test gm_ct_workset_tests[] = {
	{ "many", GM_CAP_ACCESS, 0, many },
	{ "held", GM_CAP_ACCESS, 0, held },
	{ NULL, 0, 0, NULL },
};
