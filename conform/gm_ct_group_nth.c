/* SPDX-License-Identifier: MIT */
/*
 * Group nth: every operation with a result, with the first, second, third ... service that it asks for failing, until
 * it succeeds with none failing. After each failure everything visible is as before, and the same call then succeeds.
 *
 *     n = 1, 2, 3 ...: prepare -> arm n -> act --failed--> compare -> disarm -> act -> after -> nothing is left
 *                                             --nothing was asked for the n-th time--> the end
 *
 * No n is left out: each is a device of its own, a few milliseconds, and MAX_N of them are the most. Operations that
 * hal.h lists no failure for (tlb_invl, access, fault_done) or whose answer holds (peer_reach) must do without.
 * fault_next() is not here: it asks for nothing that can fail, which the shim watches.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define MAX_N 2000u
/* Two large pages, so that removing what lies between their outer ends splits both. */
#define NTH_WINDOW (UINT64_C(4) << 20)
#define STEPS 4u
#define MAX_PMAPS 64u

struct scene {
	struct gm_ct_stage s;
	struct gm_ct_dev *other;             /* peer_reach: the second device */
	gm_ret_t answer;                     /* peer_reach: what it says when nothing fails */
	void *sync;                          /* sync_import: what stands behind fd */
	int fd;
	struct gm_fence *imported;           /* sync_import: of the call that succeeded */
	uint8_t bits[GM_CT_MIN_PAGES];       /* pmap_harvest: what came */
	struct gm_ct_thread job;             /* fault_done: it waits */
	gm_ret_t job_ret;
};

struct scenario {
	const char *op;
	uint32_t caps, hooks;                 /* needed */
	bool firm;                            /* its failure is an answer: not made to fail by the hook */
	void (*prepare)(struct scene *c);     /* NULL: nothing */
	gm_ret_t (*act)(struct scene *c);
	void (*after)(struct scene *c);       /* what the oracle knows once it succeeded; NULL: nothing new */
	void (*end)(struct scene *c);         /* undo prepare; NULL: nothing */
	gm_ret_t allowed[2];                  /* results of a failure; GM_RET_SUCCESS: unused */
};

/* All pages but the first and the last. */
#define FIRST 1u

static uint32_t count(const struct scene *c)
{
	return c->s.o.pages - 2 * FIRST;
}

static uint64_t first_va(const struct scene *c)
{
	return gm_ct_va(&c->s.o, FIRST);
}

static uint64_t count_bytes(const struct scene *c)
{
	return count(c) * c->s.d->granule;
}

static void prepare_mapped(struct scene *c)
{
	gm_ct_map_enter(&c->s.o, 0, 0, c->s.o.pages, 0);
}

/* --- page tables --------------------------------------------------------------- */

/* Besides the one that the stage has. */
static void prepare_second(struct scene *c)
{
	if (c->s.d->caps.max_contexts < 2)
		gm_ct_need(c->s.d->t, "max_contexts of at least 2");
}

static gm_ret_t act_pmap(struct scene *c)
{
	void *pmap = NULL;
	gm_ret_t ret = gm_ct_pmap_create(c->s.d, &pmap);

	if (ret == GM_RET_SUCCESS)
		gm_ct_pmap_destroy(c->s.d, pmap);
	else if (pmap)
		gm_ct_fail(c->s.d->t, "out-parameter", "pmap_create() failed, but wrote a page table");
	return ret;
}

static gm_ret_t act_enter(struct scene *c)
{
	return gm_ct_enter(c->s.d, c->s.o.pmap, first_va(c), gm_ct_pa(&c->s.m, FIRST), count_bytes(c), 0);
}

static void after_enter(struct scene *c)
{
	gm_ct_map_set(&c->s.o, FIRST, FIRST, count(c), 0);
}

static gm_ret_t act_remove(struct scene *c)
{
	return gm_ct_remove(c->s.d, c->s.o.pmap, first_va(c), count_bytes(c));
}

static void after_remove(struct scene *c)
{
	gm_ct_invl(c->s.d, c->s.o.pmap, first_va(c), count_bytes(c));
	gm_ct_map_unset(&c->s.o, FIRST, count(c));
}

static void prepare_removed(struct scene *c)
{
	prepare_mapped(c);
	if (gm_ct_has(c->s.d, GM_CAP_ACCESS))
		gm_ct_map_check(&c->s.o);
	gm_ct_ok(c->s.d->t, act_remove(c));
	gm_ct_map_unset(&c->s.o, FIRST, count(c));
}

static gm_ret_t act_invl(struct scene *c)
{
	gm_ct_note(c->s.d->t, "tlb_invl", first_va(c), 0, count_bytes(c), 0);
	return c->s.d->mmu->tlb_invl(c->s.o.pmap, first_va(c), count_bytes(c));
}

static gm_ret_t act_protect(struct scene *c)
{
	return gm_ct_protect(c->s.d, c->s.o.pmap, first_va(c), count_bytes(c), GM_PTE_WRITE);
}

static void after_protect(struct scene *c)
{
	gm_ct_map_set(&c->s.o, FIRST, FIRST, count(c), GM_PTE_WRITE);
}

static gm_ret_t act_access(struct scene *c)
{
	uint64_t word, want;
	gm_ret_t ret = gm_ct_access(c->s.d, c->s.o.pmap, first_va(c), &word, sizeof(word), false);

	memcpy(&want, c->s.m.is + FIRST * c->s.d->granule, sizeof(want));
	if (ret == GM_RET_SUCCESS && word != want)
		gm_ct_fail(c->s.d->t, "bytes", "access returned GM_RET_SUCCESS, but read something else");
	return ret;
}

/* Some pages are stored to and then removed, which their bits outlive. */
static void prepare_stored(struct scene *c)
{
	struct gm_ct_map *o = &c->s.o;

	for (uint32_t i = 0; i < GM_CT_MIN_PAGES; i++)
		gm_ct_map_enter(o, i, GM_CT_MIN_PAGES - 1 - i, 1, GM_PTE_WRITE);
	for (uint32_t i = 0; gm_ct_has(o->d, GM_CAP_ACCESS) && i < GM_CT_MIN_PAGES; i += 2)
		gm_ct_map_probe(o, i, true);
	gm_ct_map_remove(o, 0, GM_CT_MIN_PAGES);
}

static gm_ret_t act_harvest(struct scene *c)
{
	uint64_t bytes = sizeof(c->bits) * c->s.d->granule;

	gm_ct_note(c->s.d->t, "pmap_harvest", c->s.o.va, 0, bytes, 0);
	return c->s.d->mmu->pmap_harvest(c->s.o.pmap, c->s.o.va, bytes, c->bits);
}

static void after_harvest(struct scene *c)
{
	bool stored = gm_ct_has(c->s.d, GM_CAP_ACCESS);

	for (uint32_t i = 0; i < GM_CT_MIN_PAGES; i++) {
		if ((c->bits[i] & GM_PAGE_DIRTY) != (stored && i % 2 == 0 ? GM_PAGE_DIRTY : 0))
			gm_ct_fail(c->s.d->t, "page bits", "page %u: dirty is %s", (unsigned)i,
				   i % 2 == 0 ? "lost" : "invented");
	}
}

/* --- copies and plans ------------------------------------------------------------ */

static gm_ret_t act_copy(struct scene *c)
{
	struct gm_copy copy[2] = {
		{ .kind = GM_COPY_ZERO, .pa = c->s.m.pa, .bytes = 2 * GM_CT_PAGE },
		{ .kind = GM_COPY_ZERO, .pa = c->s.m.pa + 4 * GM_CT_PAGE, .bytes = GM_CT_PAGE },
	};

	return gm_ct_copy(c->s.d, copy, 2);
}

static void after_copy(struct scene *c)
{
	memset(c->s.m.is, 0, 2 * GM_CT_PAGE);
	memset(c->s.m.is + 4 * GM_CT_PAGE, 0, GM_CT_PAGE);
}

/* A page goes, another one comes: what was mapped is removed, a frame is zeroed, and half is entered again. */
static void plan(const struct scene *c, struct gm_step *steps)
{
	for (uint32_t i = 0; i < STEPS; i++)
		steps[i] = (struct gm_step){ .after = i ? i - 1 : GM_STEP_FREE, .pmap = c->s.o.pmap, .va = first_va(c),
					     .bytes = count_bytes(c), .ret = GM_RET_EXIST };
	steps[0].op = GM_STEP_REMOVE;
	steps[1].op = GM_STEP_INVL;
	steps[2] = (struct gm_step){ .op = GM_STEP_COPY, .after = 1, .ret = GM_RET_EXIST };
	steps[2].copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = gm_ct_pa(&c->s.m, FIRST),
					  .bytes = c->s.d->granule };
	steps[3].op = GM_STEP_ENTER;
	steps[3].pa = gm_ct_pa(&c->s.m, FIRST);
	steps[3].bytes = count(c) / 2 * c->s.d->granule;
}

/* A plan that fails in the middle is done as far as its steps say. */
static void plan_done(struct scene *c, const struct gm_step *steps)
{
	if (steps[0].ret == GM_RET_SUCCESS)
		gm_ct_map_unset(&c->s.o, FIRST, count(c));
	if (steps[2].ret == GM_RET_SUCCESS)
		memset(c->s.m.is + FIRST * c->s.d->granule, 0, c->s.d->granule);
	if (steps[3].ret == GM_RET_SUCCESS)
		gm_ct_map_set(&c->s.o, FIRST, FIRST, count(c) / 2, 0);
	/* removed but not invalidated: the old translations may live on */
	if (steps[0].ret == GM_RET_SUCCESS && steps[1].ret != GM_RET_SUCCESS)
		gm_ct_invl(c->s.d, c->s.o.pmap, first_va(c), count_bytes(c));
}

static gm_ret_t act_submit(struct scene *c)
{
	struct gm_step *steps = gm_ct_alloc(c->s.d->t, STEPS * sizeof(*steps));
	gm_ret_t ret;

	plan(c, steps);
	ret = gm_ct_submit(c->s.d, steps, STEPS);
	plan_done(c, steps);
	free(steps);
	return ret;
}

/* --- completion, faults, peers ------------------------------------------------------ */

static gm_ret_t create_sync(struct scene *c, void **sync, int *fd)
{
	gm_ct_note(c->s.d->t, "sync_create", 0, 0, 0, 0);
	return c->s.d->mmu->sync_create(c->s.d->dev, sync, fd);
}

static gm_ret_t act_sync(struct scene *c)
{
	void *sync = NULL;
	int fd = -1;
	gm_ret_t ret = create_sync(c, &sync, &fd);

	if (ret == GM_RET_SUCCESS) {
		c->s.d->mmu->sync_signal(c->s.d->dev, sync, GM_RET_SUCCESS);
		(void)close(fd);
	} else if (sync || fd != -1) {
		gm_ct_fail(c->s.d->t, "out-parameter", "sync_create() failed, but wrote something");
	}
	return ret;
}

static void prepare_sync(struct scene *c)
{
	gm_ct_ok(c->s.d->t, create_sync(c, &c->sync, &c->fd));
}

static gm_ret_t act_import(struct scene *c)
{
	struct gm_fence *done = gm_ct_fence(c->s.d->t->services);
	gm_ret_t ret;

	gm_ct_note(c->s.d->t, "sync_import", 0, 0, 0, 0);
	ret = c->s.d->mmu->sync_import(c->s.d->dev, c->fd, done);
	if (ret)
		gm_ct_fence_refused(done);
	else
		c->imported = done;
	return ret;
}

static void end_sync(struct scene *c)
{
	struct gm_ct *t = c->s.d->t;

	(void)close(c->fd);
	gm_ct_note(t, "sync_signal", 0, 0, 0, 0);
	c->s.d->mmu->sync_signal(c->s.d->dev, c->sync, GM_RET_NOSPC);
	if (gm_ct_fence_wait(c->imported, t->bound_ns) != GM_RET_NOSPC)
		gm_ct_fail(t, "completion", "the import has not ended with the result that was signalled");
}

static gm_ret_t reach(struct scene *c)
{
	gm_ct_note(c->s.d->t, "peer_reach", 0, 0, 0, 0);
	return c->s.d->mmu->peer_reach(c->s.d->dev, c->other->dev);
}

/* The answer is asked of two other devices of the same kind, since it may not be asked twice with another result. */
static void prepare_peer(struct scene *c)
{
	struct gm_ct_dev *d = gm_ct_open(c->s.d->t);

	c->other = gm_ct_open(c->s.d->t);
	gm_ct_note(d->t, "peer_reach", 0, 0, 0, 0);
	c->answer = d->mmu->peer_reach(d->dev, c->other->dev);
	gm_ct_close(d);
}

static gm_ret_t act_peer(struct scene *c)
{
	gm_ret_t ret = reach(c);

	return ret == c->answer ? GM_RET_SUCCESS : ret == GM_RET_SUCCESS ? GM_RET_FAULT : ret;
}

static void end_peer(struct scene *c)
{
	gm_ct_close(c->other);
}

static void *job(void *arg)
{
	struct scene *c = arg;
	uint64_t word;

	c->job_ret = gm_ct_touch(c->s.d, c->s.o.pmap, first_va(c), &word, sizeof(word), false);
	return NULL;
}

static void prepare_fault(struct scene *c)
{
	struct gm_dev_fault fault;

	gm_ct_thread_start(c->s.d->t, &c->job, job, c);
	for (;;) {
		uint64_t seen = gm_ct_faults_ready(c->s.d->t->services);

		if (gm_ct_fault_next(c->s.d, &fault) == GM_RET_SUCCESS)
			return;
		if (!gm_ct_faults_wait(c->s.d->t->services, seen))
			gm_ct_fail(c->s.d->t, "fault", "an access without mapping waits, but no fault was named");
	}
}

/* A refusal: the access ends with it, and asks for nothing any more. */
static gm_ret_t act_fault_done(struct scene *c)
{
	gm_ct_note(c->s.d->t, "fault_done", first_va(c), 0, c->s.d->granule, 0);
	return c->s.d->mmu->fault_done(c->s.o.pmap, first_va(c), c->s.d->granule, GM_RET_PERM);
}

static void end_fault(struct scene *c)
{
	gm_ct_thread_join(&c->job);
	if (c->job_ret != GM_RET_PERM)
		gm_ct_fail(c->s.d->t, "answer", "the access of a job ended with %s, expected GM_RET_PERM",
			   gm_ret_name(c->job_ret));
}

/* --- all of them ---------------------------------------------------------------------- */

#define OP(op_, caps_) .op = (op_), .caps = (caps_)

static const struct scenario pmap_create = { OP("pmap_create", 0), .prepare = prepare_second, .act = act_pmap,
					     .allowed = { GM_RET_NOMEM } };
static const struct scenario pmap_enter = { OP("pmap_enter", 0), .act = act_enter, .after = after_enter,
					    .allowed = { GM_RET_NOMEM } };
static const struct scenario pmap_remove = { OP("pmap_remove", 0), .prepare = prepare_mapped, .act = act_remove,
					     .after = after_remove, .allowed = { GM_RET_NOMEM } };
static const struct scenario tlb_invl = { OP("tlb_invl", 0), .prepare = prepare_removed, .act = act_invl };
static const struct scenario pmap_protect = { OP("pmap_protect", GM_CAP_PROTECT), .prepare = prepare_mapped,
					      .act = act_protect, .after = after_protect,
					      .allowed = { GM_RET_NOMEM } };
static const struct scenario access_op = { OP("access", GM_CAP_ACCESS), .prepare = prepare_mapped, .act = act_access };
static const struct scenario copy_op = { OP("copy", 0), .act = act_copy, .after = after_copy,
					 .allowed = { GM_RET_NOMEM, GM_RET_IO } };
static const struct scenario submit = { OP("submit", GM_CAP_SUBMIT), .prepare = prepare_mapped, .act = act_submit,
					.allowed = { GM_RET_NOMEM, GM_RET_IO } };
static const struct scenario harvest = { OP("pmap_harvest", GM_CAP_DIRTY), .prepare = prepare_stored,
					 .act = act_harvest, .after = after_harvest, .allowed = { GM_RET_NOMEM } };
static const struct scenario sync_create = { OP("sync_create", GM_CAP_SYNC), .act = act_sync,
					     .allowed = { GM_RET_NOMEM, GM_RET_NOSPC } };
static const struct scenario sync_import = { OP("sync_import", GM_CAP_SYNC), .prepare = prepare_sync,
					     .act = act_import, .end = end_sync, .allowed = { GM_RET_NOMEM } };
static const struct scenario peer_reach = { OP("peer_reach", GM_CAP_PEER), .firm = true, .prepare = prepare_peer,
					    .act = act_peer, .end = end_peer };
static const struct scenario fault_done = { OP("fault_done", GM_CAP_FAULTS), .hooks = GM_CT_TOUCH, .firm = true,
					    .prepare = prepare_fault, .act = act_fault_done, .end = end_fault };

static const struct scenario *const scenarios[] = {
	&pmap_create, &pmap_enter, &pmap_remove, &tlb_invl, &pmap_protect, &access_op, &copy_op,
	&submit, &harvest, &sync_create, &sync_import, &peer_reach, &fault_done,
};

static void compare(struct scene *c)
{
	if (gm_ct_has(c->s.d, GM_CAP_ACCESS))
		gm_ct_map_check(&c->s.o);
}

static void want_failure(struct gm_ct *t, const struct scenario *sc, gm_ret_t ret, unsigned n)
{
	for (size_t i = 0; i < sizeof(sc->allowed) / sizeof(sc->allowed[0]); i++) {
		if (sc->allowed[i] == ret)
			return;
	}
	gm_ct_fail(t, "result", "%s returned %s when it was made to fail (%u): hal.h does not list that", sc->op,
		   gm_ret_name(ret), n);
}

static void begin(struct scene *c, struct gm_ct *t)
{
	*c = (struct scene){ .fd = -1 };
	gm_ct_begin(&c->s, t, NTH_WINDOW);
}

/* It failed, or went on without what it could not get: either way the state says which. */
static void settle(struct scene *c, const struct scenario *sc, gm_ret_t ret, unsigned n)
{
	if (ret != GM_RET_SUCCESS) {
		want_failure(c->s.d->t, sc, ret, n);
		compare(c);
		/* copies need the memory unmapped, or mapped without write, which it is */
		gm_ct_mem_check(&c->s.m);
		gm_ct_ok(c->s.d->t, sc->act(c));
	}
	if (sc->after)
		sc->after(c);
	compare(c);
	if (sc->end)
		sc->end(c);
}

static void services(struct gm_ct *t, const struct scenario *sc)
{
	bool hit = true;

	for (unsigned n = 1; hit; n++) {
		struct scene c;
		gm_ret_t ret;

		if (n > MAX_N)
			gm_ct_fail(t, "services", "%s asks for more than %u services in one call", sc->op, MAX_N);
		begin(&c, t);
		if (sc->prepare)
			sc->prepare(&c);
		atomic_store(&t->failed_service, false);
		atomic_store(&t->fail_service, n);
		ret = sc->act(&c);
		atomic_store(&t->fail_service, 0);
		hit = atomic_load(&t->failed_service);
		if (!hit)
			gm_ct_ok(t, ret);
		settle(&c, sc, ret, n);
		gm_ct_finish(&c.s);
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

/* Every place is still there. */
static void want_all_pmaps(struct gm_ct_dev *d)
{
	uint32_t n = d->caps.max_contexts < MAX_PMAPS ? d->caps.max_contexts : MAX_PMAPS;
	void *pmap[MAX_PMAPS];

	for (uint32_t i = 0; i < n; i++)
		gm_ct_ok(d->t, gm_ct_pmap_create(d, &pmap[i]));
	for (uint32_t i = 0; i < n; i++)
		gm_ct_pmap_destroy(d, pmap[i]);
}

/* One page table, made to come and go: nothing is copied or mapped, so that it can be run before those are written. */
static void nth_pmap(struct gm_ct *t)
{
	bool hit = true;

	for (unsigned n = 1; hit; n++) {
		struct scene c = { .s.d = gm_ct_open(t) };
		gm_ret_t ret;

		atomic_store(&t->failed_service, false);
		atomic_store(&t->fail_service, n);
		ret = act_pmap(&c);
		atomic_store(&t->fail_service, 0);
		hit = atomic_load(&t->failed_service);
		if (!hit)
			gm_ct_ok(t, ret);
		if (ret != GM_RET_SUCCESS) {
			want_failure(t, &pmap_create, ret, n);
			want_all_pmaps(c.s.d);
		}
		gm_ct_close(c.s.d);
		gm_ct_services_check(t->services);
	}
}

static bool possible(const struct gm_ct_dev *d, const struct scenario *sc)
{
	return !sc->firm && gm_ct_has(d, sc->caps) && (sc != &pmap_create || d->caps.max_contexts > 1);
}

/* The operations as the backend itself makes them fail. */
static void hooks(struct gm_ct *t)
{
	unsigned tried = 0;

	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		const struct scenario *sc = scenarios[i];
		bool prepared = false, armed = false;
		struct scene c;
		gm_ret_t ret;

		begin(&c, t);
		prepared = possible(c.s.d, sc);
		if (prepared && sc->prepare)
			sc->prepare(&c);
		armed = prepared && gm_ct_fail_op(c.s.d, sc->op, 1) != GM_RET_NOTSUP;
		if (armed) {
			tried++;
			ret = sc->act(&c);
			if (ret == GM_RET_SUCCESS)
				gm_ct_fail(t, "hook", "%s was made to fail by the hook, but succeeded", sc->op);
			settle(&c, sc, ret, 1);
		} else if (prepared) { /* and back to where nothing is left */
			gm_ct_ok(t, sc->act(&c));
			settle(&c, sc, GM_RET_SUCCESS, 1);
		}
		gm_ct_finish(&c.s);
	}
	if (tried == 0)
		gm_ct_fail(t, "hook", "the hook fail says GM_RET_NOTSUP for every operation: leave it NULL");
}

#define SERVICES(name_)                        \
	static void nth_##name_(struct gm_ct *t) \
	{                                        \
		services(t, &name_);             \
	}

SERVICES(pmap_enter)
SERVICES(pmap_remove)
SERVICES(tlb_invl)
SERVICES(pmap_protect)
SERVICES(access_op)
SERVICES(copy_op)
SERVICES(submit)
SERVICES(harvest)
SERVICES(sync_create)
SERVICES(sync_import)
SERVICES(peer_reach)
SERVICES(fault_done)

const struct gm_ct_test gm_ct_nth_tests[] = {
	{ "dev_init", 0, 0, nth_open },
	{ "pmap_create", 0, 0, nth_pmap },
	{ "pmap_enter", 0, 0, nth_pmap_enter },
	{ "pmap_remove", 0, 0, nth_pmap_remove },
	{ "tlb_invl", 0, 0, nth_tlb_invl },
	{ "pmap_protect", GM_CAP_PROTECT, 0, nth_pmap_protect },
	{ "access", GM_CAP_ACCESS, 0, nth_access_op },
	{ "copy", 0, 0, nth_copy_op },
	{ "submit", GM_CAP_SUBMIT, 0, nth_submit },
	{ "pmap_harvest", GM_CAP_DIRTY, 0, nth_harvest },
	{ "sync_create", GM_CAP_SYNC, 0, nth_sync_create },
	{ "sync_import", GM_CAP_SYNC, 0, nth_sync_import },
	{ "peer_reach", GM_CAP_PEER, 0, nth_peer_reach },
	{ "fault_done", GM_CAP_FAULTS, GM_CT_TOUCH, nth_fault_done },
	{ "hooks", 0, GM_CT_FAIL, hooks },
	{ NULL, 0, 0, NULL },
};
