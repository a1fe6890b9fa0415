/* SPDX-License-Identifier: MIT */
/*
 * Group lost: the device goes away. Every operation says GM_RET_NODEV from then on, every fence is signalled, nobody
 * hangs, and pmap_destroy() and dev_fini() still give everything back.
 */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

static gm_ret_t op_pmap_create(struct gm_ct_stage *s)
{
	void *pmap;

	return gm_ct_pmap_create(s->d, &pmap);
}

static gm_ret_t op_enter(struct gm_ct_stage *s)
{
	return gm_ct_enter(s->d, s->o.pmap, gm_ct_va(&s->o, 8), gm_ct_pa(&s->m, 8), s->d->granule, 0);
}

static gm_ret_t op_remove(struct gm_ct_stage *s)
{
	return gm_ct_remove(s->d, s->o.pmap, s->o.va, s->d->granule);
}

static gm_ret_t op_invl(struct gm_ct_stage *s)
{
	gm_ct_note(s->d->t, "tlb_invl", s->o.va, 0, s->d->granule, 0);
	return s->d->mmu->tlb_invl(s->o.pmap, s->o.va, s->d->granule);
}

static gm_ret_t op_copy(struct gm_ct_stage *s)
{
	/* a page that no test here maps */
	struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = gm_ct_pa(&s->m, 12),
				.host = GM_VA(s->m.buf), .bytes = GM_CT_PAGE };

	return gm_ct_copy(s->d, &copy, 1);
}

static gm_ret_t op_protect(struct gm_ct_stage *s)
{
	return gm_ct_protect(s->d, s->o.pmap, s->o.va, s->d->granule, 0);
}

static gm_ret_t op_submit(struct gm_ct_stage *s)
{
	struct gm_step step = { .op = GM_STEP_REMOVE, .after = GM_STEP_FREE, .pmap = s->o.pmap, .va = s->o.va,
				.bytes = s->d->granule };

	return gm_ct_submit(s->d, &step, 1);
}

static gm_ret_t op_access(struct gm_ct_stage *s)
{
	uint64_t word;

	return gm_ct_access(s->d, s->o.pmap, s->o.va, &word, 8, false);
}

static gm_ret_t op_harvest(struct gm_ct_stage *s)
{
	uint8_t bit;

	gm_ct_note(s->d->t, "pmap_harvest", s->o.va, 0, s->d->granule, 0);
	return s->d->mmu->pmap_harvest(s->o.pmap, s->o.va, s->d->granule, &bit);
}

static const struct {
	const char *name;
	uint32_t cap;
	gm_ret_t (*op)(struct gm_ct_stage *s);
} ops[] = {
	{ "pmap_create", 0, op_pmap_create }, { "pmap_enter", 0, op_enter },
	{ "pmap_remove", 0, op_remove },      { "tlb_invl", 0, op_invl },
	{ "copy", 0, op_copy },               { "pmap_protect", GM_CAP_PROTECT, op_protect },
	{ "submit", GM_CAP_SUBMIT, op_submit }, { "access", GM_CAP_ACCESS, op_access },
	{ "pmap_harvest", GM_CAP_DIRTY, op_harvest },
};

static void end(struct gm_ct_stage *s)
{
	gm_ct_map_abandon(&s->o);
	gm_ct_mem_fini(&s->m);
	gm_ct_close(s->d);
}

/* One device each: after the first GM_RET_NODEV nothing else may be called. */
static void operations(struct gm_ct *t)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct gm_ct_stage s;
		gm_ret_t ret;

		gm_ct_begin(&s, t, GM_CT_SMALL);
		if (!gm_ct_has(s.d, ops[i].cap)) {
			gm_ct_finish(&s);
			continue;
		}
		gm_ct_map_enter(&s.o, 0, 0, 4, GM_PTE_WRITE);
		gm_ct_lose(s.d);
		ret = ops[i].op(&s);
		if (ret != GM_RET_NODEV)
			gm_ct_fail(t, "lost", "%s of a lost device returned %s, expected GM_RET_NODEV", ops[i].name,
				   gm_ret_name(ret));
		end(&s);
		gm_ct_services_check(t->services);
	}
}

struct copier {
	struct gm_ct_stage *s;
	_Atomic unsigned rounds;
};

static void *copies(void *arg)
{
	struct copier *c = arg;
	gm_ret_t ret;

	do {
		ret = op_copy(c->s);
		atomic_fetch_add(&c->rounds, 1);
	} while (ret == GM_RET_SUCCESS);
	if (ret != GM_RET_NODEV)
		gm_ct_fail(c->s->d->t, "lost", "a copy while the device was lost ended with %s, expected GM_RET_SUCCESS or "
			   "GM_RET_NODEV", gm_ret_name(ret));
	return NULL;
}

/* In the middle of copies: the one in flight ends, one way or the other. */
static void in_flight(struct gm_ct *t)
{
	for (unsigned i = 0; i < 5; i++) {
		struct gm_ct_stage s;
		struct copier c = { .s = &s };
		struct gm_ct_thread thread;

		gm_ct_begin(&s, t, GM_CT_SMALL);
		gm_ct_map_enter(&s.o, 8, 8, 4, 0);
		gm_ct_thread_start(t, &thread, copies, &c);
		while (atomic_load(&c.rounds) < 3 + i)
			gm_ct_sleep_ns(10000);
		gm_ct_lose(s.d);
		gm_ct_want(t, op_invl(&s), GM_RET_NODEV);
		gm_ct_thread_join(&thread);
		end(&s);
		gm_ct_services_check(t->services);
	}
}

static void *touch(void *arg)
{
	struct gm_ct_stage *s = arg;
	uint64_t word;
	gm_ret_t ret = gm_ct_touch(s->d, s->o.pmap, gm_ct_va(&s->o, 3), &word, 8, false);

	if (ret != GM_RET_NODEV && ret != GM_RET_CANCELED)
		gm_ct_fail(s->d->t, "lost", "an access that waited for its fault ended with %s, expected GM_RET_NODEV or "
			   "GM_RET_CANCELED", gm_ret_name(ret));
	return NULL;
}

static void faults(struct gm_ct *t)
{
	struct gm_ct_stage s;
	struct gm_ct_thread thread;

	gm_ct_begin(&s, t, GM_CT_SMALL);
	gm_ct_thread_start(t, &thread, touch, &s);
	if (!gm_ct_faults_wait(t->services, 0))
		gm_ct_fail(t, "fault", "an access without mapping waits, but fault_ready was not called");
	gm_ct_lose(s.d);
	gm_ct_pmap_destroy(s.d, s.o.pmap);
	gm_ct_thread_join(&thread);
	s.o.shared = true;
	end(&s);
}

const struct gm_ct_test gm_ct_lost_tests[] = {
	{ "operations", 0, GM_CT_LOSE, operations },
	{ "in_flight", 0, GM_CT_LOSE, in_flight },
	{ "faults", GM_CAP_FAULTS, GM_CT_LOSE | GM_CT_TOUCH, faults },
	{ NULL, 0, 0, NULL },
};
