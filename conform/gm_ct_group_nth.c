/* SPDX-License-Identifier: MIT */
/*
 * Group nth: every operation, with the first, second, third ... service that it asks for failing, until it succeeds
 * with none failing. After each failure everything visible is as before, and the same call then succeeds.
 *
 *     n = 1, 2, 3 ...: prepare -> arm n -> act --failed--> compare -> disarm -> act -> compare -> nothing is left
 *                                             --nothing was asked for the n-th time--> the end
 */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define MAX_N 2000u
/* Two large pages, so that removing what lies between their outer ends splits both. */
#define NTH_WINDOW (UINT64_C(4) << 20)

struct scenario {
	const char *op;
	void (*prepare)(struct gm_ct_stage *s);
	gm_ret_t (*act)(struct gm_ct_stage *s);
	void (*after)(struct gm_ct_stage *s); /* what the oracle knows once it succeeded */
	gm_ret_t allowed[3];                  /* results of a failure; GM_RET_SUCCESS: unused */
};

/* All pages but the first and the last. */
#define FIRST 1u

static uint32_t count(const struct gm_ct_stage *s)
{
	return s->o.pages - 2 * FIRST;
}

static void prepare_none(struct gm_ct_stage *s)
{
	(void)s;
}

static void prepare_mapped(struct gm_ct_stage *s)
{
	gm_ct_map_enter(&s->o, 0, 0, s->o.pages, 0);
}

static gm_ret_t act_enter(struct gm_ct_stage *s)
{
	return gm_ct_enter(s->d, s->o.pmap, gm_ct_va(&s->o, FIRST), gm_ct_pa(&s->m, FIRST), count(s) * s->d->granule,
			   0);
}

static void after_enter(struct gm_ct_stage *s)
{
	gm_ct_map_set(&s->o, FIRST, FIRST, count(s), 0);
}

static gm_ret_t act_remove(struct gm_ct_stage *s)
{
	return gm_ct_remove(s->d, s->o.pmap, gm_ct_va(&s->o, FIRST), count(s) * s->d->granule);
}

static void after_remove(struct gm_ct_stage *s)
{
	gm_ct_invl(s->d, s->o.pmap, gm_ct_va(&s->o, FIRST), count(s) * s->d->granule);
	gm_ct_map_unset(&s->o, FIRST, count(s));
}

static gm_ret_t act_protect(struct gm_ct_stage *s)
{
	return gm_ct_protect(s->d, s->o.pmap, gm_ct_va(&s->o, FIRST), count(s) * s->d->granule, GM_PTE_WRITE);
}

static void after_protect(struct gm_ct_stage *s)
{
	gm_ct_map_set(&s->o, FIRST, FIRST, count(s), GM_PTE_WRITE);
}

static gm_ret_t act_copy(struct gm_ct_stage *s)
{
	struct gm_copy copy[2] = {
		{ .kind = GM_COPY_ZERO, .pa = s->m.pa, .bytes = 2 * GM_CT_PAGE },
		{ .kind = GM_COPY_ZERO, .pa = s->m.pa + 4 * GM_CT_PAGE, .bytes = GM_CT_PAGE },
	};

	return gm_ct_copy(s->d, copy, 2);
}

static void after_copy(struct gm_ct_stage *s)
{
	memset(s->m.is, 0, 2 * GM_CT_PAGE);
	memset(s->m.is + 4 * GM_CT_PAGE, 0, GM_CT_PAGE);
}

static gm_ret_t act_submit(struct gm_ct_stage *s)
{
	struct gm_step step = { .op = GM_STEP_COPY, .after = GM_STEP_FREE };

	step.copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = s->m.pa, .bytes = GM_CT_PAGE };
	return gm_ct_submit(s->d, &step, 1);
}

static void after_submit(struct gm_ct_stage *s)
{
	memset(s->m.is, 0, GM_CT_PAGE);
}

/* Besides the one that the stage has. */
static void prepare_second(struct gm_ct_stage *s)
{
	if (s->d->caps.max_contexts < 2)
		gm_ct_need(s->d->t, "max_contexts of at least 2");
}

static gm_ret_t act_pmap(struct gm_ct_stage *s)
{
	void *pmap = NULL;
	gm_ret_t ret = gm_ct_pmap_create(s->d, &pmap);

	if (ret == GM_RET_SUCCESS)
		gm_ct_pmap_destroy(s->d, pmap);
	else if (pmap)
		gm_ct_fail(s->d->t, "out-parameter", "pmap_create() failed, but wrote a page table");
	return ret;
}

static gm_ret_t act_harvest(struct gm_ct_stage *s)
{
	uint8_t bits[GM_CT_MIN_PAGES];

	gm_ct_note(s->d->t, "pmap_harvest", s->o.va, 0, sizeof(bits) * s->d->granule, 0);
	return s->d->mmu->pmap_harvest(s->o.pmap, s->o.va, sizeof(bits) * s->d->granule, bits);
}

static gm_ret_t act_sync(struct gm_ct_stage *s)
{
	void *sync = NULL;
	int fd = -1;
	gm_ret_t ret;

	gm_ct_note(s->d->t, "sync_create", 0, 0, 0, 0);
	ret = s->d->mmu->sync_create(s->d->dev, &sync, &fd);
	if (ret == GM_RET_SUCCESS) {
		s->d->mmu->sync_signal(s->d->dev, sync, GM_RET_SUCCESS);
		(void)close(fd);
	} else if (sync || fd != -1) {
		gm_ct_fail(s->d->t, "out-parameter", "sync_create() failed, but wrote something");
	}
	return ret;
}

enum {
	PMAP_CREATE,
	ENTER,
	REMOVE,
	PROTECT,
	COPY,
	SUBMIT,
	HARVEST,
	SYNC,
	SCENARIOS,
};

static const struct scenario scenarios[SCENARIOS] = {
	[PMAP_CREATE] = { "pmap_create", prepare_second, act_pmap, prepare_none, { GM_RET_NOMEM } },
	[ENTER] = { "pmap_enter", prepare_none, act_enter, after_enter, { GM_RET_NOMEM } },
	[REMOVE] = { "pmap_remove", prepare_mapped, act_remove, after_remove, { GM_RET_NOMEM } },
	[PROTECT] = { "pmap_protect", prepare_mapped, act_protect, after_protect, { GM_RET_NOMEM } },
	[COPY] = { "copy", prepare_none, act_copy, after_copy, { GM_RET_NOMEM, GM_RET_IO } },
	[SUBMIT] = { "submit", prepare_none, act_submit, after_submit, { GM_RET_NOMEM } },
	[HARVEST] = { "pmap_harvest", prepare_mapped, act_harvest, prepare_none, { GM_RET_NOMEM } },
	[SYNC] = { "sync_create", prepare_none, act_sync, prepare_none, { GM_RET_NOMEM, GM_RET_NOSPC } },
};

static void compare(struct gm_ct_stage *s)
{
	if (gm_ct_has(s->d, GM_CAP_ACCESS))
		gm_ct_map_check(&s->o);
}

static void want_failure(struct gm_ct *t, const struct scenario *c, gm_ret_t ret, unsigned n)
{
	for (size_t i = 0; i < sizeof(c->allowed) / sizeof(c->allowed[0]); i++) {
		if (c->allowed[i] == ret)
			return;
	}
	gm_ct_fail(t, "result", "%s returned %s when it was made to fail (%u): hal.h does not list that", c->op,
		   gm_ret_name(ret), n);
}

/* It failed, or went on without what it could not get: either way the state says which. */
static void settle(struct gm_ct_stage *s, const struct scenario *c, gm_ret_t ret, unsigned n)
{
	if (ret != GM_RET_SUCCESS) {
		want_failure(s->d->t, c, ret, n);
		compare(s);
		/* copies need the memory unmapped, or mapped without write, which it is */
		gm_ct_mem_check(&s->m);
		gm_ct_ok(s->d->t, c->act(s));
	}
	c->after(s);
	compare(s);
}

static void services(struct gm_ct *t, int which)
{
	const struct scenario *c = &scenarios[which];
	bool hit = true;

	for (unsigned n = 1; hit; n += 1 + n / 16) {
		struct gm_ct_stage s;
		gm_ret_t ret;

		if (n > MAX_N)
			gm_ct_fail(t, "services", "%s asks for more than %u services in one call", c->op, MAX_N);
		gm_ct_begin(&s, t, NTH_WINDOW);
		c->prepare(&s);
		atomic_store(&t->failed_service, false);
		atomic_store(&t->fail_service, n);
		ret = c->act(&s);
		atomic_store(&t->fail_service, 0);
		hit = atomic_load(&t->failed_service);
		if (!hit)
			gm_ct_ok(t, ret);
		settle(&s, c, ret, n);
		gm_ct_finish(&s);
		gm_ct_services_check(t->services);
	}
}

static void nth_open(struct gm_ct *t)
{
	bool hit = true;

	for (unsigned n = 1; hit; n++) {
		struct gm_ct_dev *d = NULL;
		gm_ret_t ret;

		atomic_store(&t->failed_service, false);
		atomic_store(&t->fail_service, n);
		ret = gm_ct_try_open(t, &d);
		atomic_store(&t->fail_service, 0);
		hit = atomic_load(&t->failed_service);
		if (!hit)
			gm_ct_ok(t, ret);
		else if (ret != GM_RET_SUCCESS && ret != GM_RET_NOMEM && ret != GM_RET_BUSY)
			gm_ct_fail(t, "result", "dev_init returned %s when service %u failed, expected GM_RET_NOMEM",
				   gm_ret_name(ret), n);
		if (ret == GM_RET_SUCCESS)
			gm_ct_close(d);
		gm_ct_services_check(t->services);
	}
}

static bool possible(const struct gm_ct_dev *d, int which)
{
	static const uint32_t caps[SCENARIOS] = {
		[PROTECT] = GM_CAP_PROTECT, [SUBMIT] = GM_CAP_SUBMIT, [HARVEST] = GM_CAP_DIRTY, [SYNC] = GM_CAP_SYNC,
	};

	return gm_ct_has(d, caps[which]) && (which != PMAP_CREATE || d->caps.max_contexts > 1);
}

/* The operations as the backend itself makes them fail. */
static void hooks(struct gm_ct *t)
{
	unsigned tried = 0;

	for (int which = 0; which < SCENARIOS; which++) {
		const struct scenario *c = &scenarios[which];
		struct gm_ct_stage s;
		bool possible_now = false;
		gm_ret_t ret;

		gm_ct_begin(&s, t, NTH_WINDOW);
		if (possible(s.d, which)) {
			c->prepare(&s);
			possible_now = gm_ct_fail_op(s.d, c->op, 1) != GM_RET_NOTSUP;
		}
		if (possible_now) {
			tried++;
			ret = c->act(&s);
			if (ret == GM_RET_SUCCESS)
				gm_ct_fail(t, "hook", "%s was made to fail by the hook, but succeeded", c->op);
			settle(&s, c, ret, 1);
		}
		gm_ct_finish(&s);
	}
	if (tried == 0)
		gm_ct_fail(t, "hook", "the hook fail says GM_RET_NOTSUP for every operation: leave it NULL");
}

static void nth_pmap_create(struct gm_ct *t)
{
	services(t, PMAP_CREATE);
}

static void nth_enter(struct gm_ct *t)
{
	services(t, ENTER);
}

static void nth_remove(struct gm_ct *t)
{
	services(t, REMOVE);
}

static void nth_protect(struct gm_ct *t)
{
	services(t, PROTECT);
}

static void nth_copy(struct gm_ct *t)
{
	services(t, COPY);
}

static void nth_submit(struct gm_ct *t)
{
	services(t, SUBMIT);
}

static void nth_harvest(struct gm_ct *t)
{
	services(t, HARVEST);
}

static void nth_sync(struct gm_ct *t)
{
	services(t, SYNC);
}

const struct gm_ct_test gm_ct_nth_tests[] = {
	{ "dev_init", 0, 0, nth_open },
	{ "pmap_create", 0, 0, nth_pmap_create },
	{ "pmap_enter", 0, 0, nth_enter },
	{ "pmap_remove", 0, 0, nth_remove },
	{ "pmap_protect", GM_CAP_PROTECT, 0, nth_protect },
	{ "copy", 0, 0, nth_copy },
	{ "submit", GM_CAP_SUBMIT, 0, nth_submit },
	{ "pmap_harvest", GM_CAP_DIRTY, 0, nth_harvest },
	{ "sync_create", GM_CAP_SYNC, 0, nth_sync },
	{ "hooks", 0, GM_CT_FAIL, hooks },
	{ NULL, 0, 0, NULL },
};
