/* SPDX-License-Identifier: MIT */
/*
 * Group fault: an access of a job without mapping, or without the right, is named once by fault_next(), waits until
 * it is answered, and is then tried again or fails with the answer.
 *
 *     job thread: touch() ------ waits ------> result
 *     test:         fault_ready --> fault_next() --> pmap_enter() --> fault_done()
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "conform/gm_ct.h"

#define THREADS 4u
#define PER_THREAD 50u
#define QUIET_NS 30000000u

/* One job: an access to the first word of a page. */
struct job {
	struct gm_ct_stage *s;
	struct gm_ct_thread thread;
	uint64_t word;    /* loaded, or to store */
	uint32_t page, n; /* pages one after the other */
	gm_ret_t ret;
	bool store;
	atomic_bool ended;
};

static void *job_main(void *arg)
{
	struct job *j = arg;
	struct gm_ct_map *o = &j->s->o;

	for (uint32_t i = 0; i < j->n; i++) {
		j->ret = gm_ct_touch(o->d, o->pmap, gm_ct_va(o, j->page + i), &j->word, 8, j->store);
		if (j->ret != GM_RET_SUCCESS)
			break;
	}
	atomic_store(&j->ended, true);
	return NULL;
}

static void job_start(struct job *j, struct gm_ct_stage *s, uint32_t page, uint32_t n, bool store)
{
	*j = (struct job){ .s = s, .page = page, .n = n, .store = store, .word = 0x1234567 };
	gm_ct_thread_start(s->d->t, &j->thread, job_main, j);
}

static void job_end(struct job *j, gm_ret_t want)
{
	uint64_t deadline = gm_ct_now_ns() + j->s->d->t->bound_ns;

	while (!atomic_load(&j->ended)) {
		if (gm_ct_now_ns() > deadline)
			gm_ct_fail(j->s->d->t, "replay", "an access still waits although its fault was answered with %s",
				   gm_ret_name(want));
		gm_ct_sleep_ns(100000);
	}
	gm_ct_thread_join(&j->thread);
	if (j->ret != want)
		gm_ct_fail(j->s->d->t, "answer", "the access of a job ended with %s, expected %s", gm_ret_name(j->ret),
			   gm_ret_name(want));
}

/* The next fault, within the bound. */
static struct gm_dev_fault next_fault(struct gm_ct_dev *d)
{
	for (;;) {
		uint64_t seen = gm_ct_faults_ready(d->t->services);
		struct gm_dev_fault fault = { .va = 1, .access = 99 };
		gm_ret_t ret = gm_ct_fault_next(d, &fault);

		if (ret == GM_RET_SUCCESS)
			return fault;
		gm_ct_want(d->t, ret, GM_RET_AGAIN);
		if (!gm_ct_faults_wait(d->t->services, seen))
			gm_ct_fail(d->t, "fault", "an access without mapping waits, but no fault was named");
	}
}

static void want_fault(struct gm_ct_stage *s, const struct gm_dev_fault *f, uint32_t page, uint32_t access)
{
	if (f->pmap != s->o.pmap)
		gm_ct_fail(s->d->t, "fault", "the fault names another page table than the access used");
	if (f->va / s->d->granule != gm_ct_va(&s->o, page) / s->d->granule)
		gm_ct_fail(s->d->t, "fault", "the fault names va 0x%" PRIx64 ", expected the page at 0x%" PRIx64, f->va,
			   gm_ct_va(&s->o, page));
	if (f->access != access)
		gm_ct_fail(s->d->t, "fault", "the fault names access %u, expected %u (GM_READ 1, GM_WRITE 2)",
			   (unsigned)f->access, (unsigned)access);
}

/* Nothing is named, for a moment. */
static void want_none(struct gm_ct_dev *d)
{
	struct gm_dev_fault fault;

	gm_ct_sleep_ns(QUIET_NS);
	if (gm_ct_fault_next(d, &fault) != GM_RET_AGAIN)
		gm_ct_fail(d->t, "named once", "fault_next() names va 0x%" PRIx64 ", expected GM_RET_AGAIN: no access waits "
			   "that was not named", fault.va);
}

static void done(struct gm_ct_stage *s, uint32_t page, uint32_t n, gm_ret_t result)
{
	gm_ct_fault_done(s->d, s->o.pmap, gm_ct_va(&s->o, page), n * s->d->granule, result);
}

static void served(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_dev_fault fault;
	struct job j;
	uint64_t want;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	want_none(s.d);
	job_start(&j, &s, 3, 1, false);
	fault = next_fault(s.d);
	want_fault(&s, &fault, 3, GM_READ);
	want_none(s.d);
	gm_ct_map_enter(&s.o, 3, 5, 1, 0);
	done(&s, 3, 1, GM_RET_SUCCESS);
	job_end(&j, GM_RET_SUCCESS);
	memcpy(&want, s.m.is + 5 * s.d->granule, 8);
	if (j.word != want)
		gm_ct_fail(t, "bytes", "after its fault was served a load read %016" PRIx64 ", expected %016" PRIx64, j.word,
			   want);
	want_none(s.d);
	gm_ct_finish(&s);
}

/* A store to a page that may only be read is a fault that names the right. */
static void right(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_dev_fault fault;
	struct job j;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_map_enter(&s.o, 2, 2, 1, 0);
	job_start(&j, &s, 2, 1, true);
	fault = next_fault(s.d);
	want_fault(&s, &fault, 2, GM_WRITE);
	gm_ct_map_enter(&s.o, 2, 2, 1, GM_PTE_WRITE);
	done(&s, 2, 1, GM_RET_SUCCESS);
	job_end(&j, GM_RET_SUCCESS);
	memcpy(s.m.is + 2 * s.d->granule, &j.word, 8);
	gm_ct_finish(&s);
}

static void refused(struct gm_ct *t)
{
	static const gm_ret_t answers[] = { GM_RET_FAULT, GM_RET_PERM, GM_RET_NOMEM };
	struct gm_ct_stage s;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct gm_dev_fault fault;
		struct job j;

		job_start(&j, &s, 1, 1, i % 2);
		fault = next_fault(s.d);
		want_fault(&s, &fault, 1, i % 2 ? GM_WRITE : GM_READ);
		done(&s, 1, 1, answers[i]);
		job_end(&j, answers[i]);
	}
	gm_ct_finish(&s);
}

/* A failure is for what was named. Who came later to the same page is named later, and has an answer of its own. */
static void refused_later(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_dev_fault fault;
	struct job j[2];
	uint64_t seen;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	job_start(&j[0], &s, 1, 1, true);
	fault = next_fault(s.d);
	want_fault(&s, &fault, 1, GM_WRITE);
	seen = gm_ct_faults_ready(t->services);
	job_start(&j[1], &s, 1, 1, false);
	if (!gm_ct_faults_wait(t->services, seen))
		gm_ct_fail(t, "fault", "an access without mapping waits, but fault_ready was not called");
	done(&s, 1, 1, GM_RET_PERM);
	job_end(&j[0], GM_RET_PERM);
	fault = next_fault(s.d);
	want_fault(&s, &fault, 1, GM_READ);
	gm_ct_map_enter(&s.o, 1, 1, 1, 0);
	done(&s, 1, 1, GM_RET_SUCCESS);
	job_end(&j[1], GM_RET_SUCCESS);
	want_none(s.d);
	gm_ct_finish(&s);
}

/* Answered with success, but still not mapped: it faults again. */
static void again(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_dev_fault fault;
	struct job j;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	job_start(&j, &s, 4, 1, false);
	for (unsigned i = 0; i < 3; i++) {
		fault = next_fault(s.d);
		want_fault(&s, &fault, 4, GM_READ);
		done(&s, 4, 1, GM_RET_SUCCESS);
	}
	fault = next_fault(s.d);
	want_fault(&s, &fault, 4, GM_READ);
	gm_ct_map_enter(&s.o, 4, 4, 1, 0);
	done(&s, 4, 1, GM_RET_SUCCESS);
	job_end(&j, GM_RET_SUCCESS);
	gm_ct_finish(&s);
}

/* One answer for a range serves all faults in it, named or not; an answer for nothing is no error. */
static void range(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct job j[THREADS];

	gm_ct_begin(&s, t, GM_CT_SMALL);
	done(&s, 0, s.o.pages, GM_RET_SUCCESS);
	for (uint32_t i = 0; i < THREADS; i++)
		job_start(&j[i], &s, i, 1, false);
	(void)next_fault(s.d);
	gm_ct_sleep_ns(QUIET_NS);
	gm_ct_map_enter(&s.o, 0, 0, THREADS, 0);
	done(&s, 0, THREADS, GM_RET_SUCCESS);
	for (uint32_t i = 0; i < THREADS; i++)
		job_end(&j[i], GM_RET_SUCCESS);
	done(&s, 0, s.o.pages, GM_RET_SUCCESS);
	want_none(s.d);
	gm_ct_finish(&s);
}

/* Who waits when the page table goes is cancelled, named or not. */
static void canceled(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct job j[2];
	uint64_t seen;
	void *pmap;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	pmap = s.o.pmap;
	job_start(&j[0], &s, 0, 1, false);
	(void)next_fault(s.d);
	want_none(s.d);
	seen = gm_ct_faults_ready(t->services);
	job_start(&j[1], &s, 1, 1, true);
	if (!gm_ct_faults_wait(t->services, seen))
		gm_ct_fail(t, "fault", "an access without mapping waits, but fault_ready was not called");
	gm_ct_pmap_destroy(s.d, pmap);
	job_end(&j[0], GM_RET_CANCELED);
	job_end(&j[1], GM_RET_CANCELED);
	want_none(s.d);
	gm_ct_ok(t, gm_ct_pmap_create(s.d, &s.o.pmap));
	gm_ct_finish(&s);
}

/* Many threads over many pages: every fault is named, every access ends. */
static void many(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct job j[THREADS];
	uint32_t per, all, mapped = 0;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	per = s.o.pages / THREADS < PER_THREAD ? s.o.pages / THREADS : PER_THREAD;
	for (uint32_t i = 0; i < THREADS; i++)
		job_start(&j[i], &s, i * per, per, i % 2);
	all = per * THREADS;
	while (mapped < all) {
		struct gm_dev_fault fault = next_fault(s.d);
		uint64_t page = (fault.va - s.o.va) / s.d->granule;

		if (fault.va < s.o.va || page >= all)
			gm_ct_fail(t, "fault", "the fault names va 0x%" PRIx64 ", where nobody accesses", fault.va);
		if (s.o.frame[page] != GM_CT_NONE)
			gm_ct_fail(t, "named once", "va 0x%" PRIx64 " is named again although it is mapped", fault.va);
		gm_ct_map_enter(&s.o, (uint32_t)page, (uint32_t)page, 1, page / per % 2 ? GM_PTE_WRITE : 0);
		done(&s, (uint32_t)page, 1, GM_RET_SUCCESS);
		mapped++;
	}
	for (uint32_t i = 0; i < THREADS; i++)
		job_end(&j[i], GM_RET_SUCCESS);
	for (uint32_t i = 0; i < all; i++) {
		if (i / per % 2)
			memcpy(s.m.is + i * s.d->granule, &j[i / per].word, 8);
	}
	gm_ct_map_check(&s.o);
	want_none(s.d);
	gm_ct_finish(&s);
}

#define NEEDS GM_CAP_FAULTS, GM_CT_TOUCH

const struct gm_ct_test gm_ct_fault_tests[] = {
	{ "served", NEEDS, served },
	{ "right", NEEDS, right },
	{ "refused", NEEDS, refused },
	{ "refused_later", NEEDS, refused_later },
	{ "again", NEEDS, again },
	{ "range", NEEDS, range },
	{ "canceled", NEEDS, canceled },
	{ "many", NEEDS, many },
	{ NULL, 0, 0, NULL },
};
