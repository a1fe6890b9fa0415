/* SPDX-License-Identifier: MIT */
/*
 * Group lost: the device goes away, or is given up. Every operation with a result says GM_RET_NODEV from then on, every
 * fence is signalled, nobody hangs, and pmap_destroy() and dev_fini() still give everything back.
 *
 *     unplugged:  lose --> one operation, GM_RET_NODEV --> nothing any more but what hal.h allows on a lost device
 *     given up:   copies in flight, or hung --> dev_halt() --> all signalled, host memory is not touched again
 */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "conform/gm_ct.h"

#define IN_FLIGHT 8u
#define QUIET_NS 30000000u

struct scene {
	struct gm_ct_stage s;
	struct gm_ct_dev *other; /* with GM_CAP_PEER */
	void *sync;              /* with GM_CAP_SYNC */
	int fd;
	atomic_bool ended;       /* the job that waited */
};

static gm_ret_t op_pmap_create(struct scene *c)
{
	void *pmap;

	return gm_ct_pmap_create(c->s.d, &pmap);
}

static gm_ret_t op_enter(struct scene *c)
{
	return gm_ct_enter(c->s.d, c->s.o.pmap, gm_ct_va(&c->s.o, 8), gm_ct_pa(&c->s.m, 8), c->s.d->granule, 0);
}

static gm_ret_t op_remove(struct scene *c)
{
	return gm_ct_remove(c->s.d, c->s.o.pmap, c->s.o.va, c->s.d->granule);
}

static gm_ret_t op_invl(struct scene *c)
{
	gm_ct_note(c->s.d->t, "tlb_invl", c->s.o.va, 0, c->s.d->granule, 0);
	return c->s.d->mmu->tlb_invl(c->s.o.pmap, c->s.o.va, c->s.d->granule);
}

static gm_ret_t op_copy(struct scene *c)
{
	/* a page that no test here maps */
	struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = gm_ct_pa(&c->s.m, 12),
				.host = GM_VA(c->s.m.buf), .bytes = GM_CT_PAGE };

	return gm_ct_copy(c->s.d, &copy, 1);
}

static gm_ret_t op_protect(struct scene *c)
{
	return gm_ct_protect(c->s.d, c->s.o.pmap, c->s.o.va, c->s.d->granule, 0);
}

static gm_ret_t op_submit(struct scene *c)
{
	struct gm_step step = { .op = GM_STEP_REMOVE, .after = GM_STEP_FREE, .pmap = c->s.o.pmap, .va = c->s.o.va,
				.bytes = c->s.d->granule };

	return gm_ct_submit(c->s.d, &step, 1);
}

static gm_ret_t op_access(struct scene *c)
{
	uint64_t word;

	return gm_ct_access(c->s.d, c->s.o.pmap, c->s.o.va, &word, 8, false);
}

static gm_ret_t op_harvest(struct scene *c)
{
	uint8_t bit;

	gm_ct_note(c->s.d->t, "pmap_harvest", c->s.o.va, 0, c->s.d->granule, 0);
	return c->s.d->mmu->pmap_harvest(c->s.o.pmap, c->s.o.va, c->s.d->granule, &bit);
}

static gm_ret_t op_fault_next(struct scene *c)
{
	struct gm_dev_fault fault;

	return gm_ct_fault_next(c->s.d, &fault);
}

static gm_ret_t op_fault_done(struct scene *c)
{
	gm_ct_note(c->s.d->t, "fault_done", c->s.o.va, 0, c->s.d->granule, 0);
	return c->s.d->mmu->fault_done(c->s.o.pmap, c->s.o.va, c->s.d->granule, GM_RET_SUCCESS);
}

static gm_ret_t op_sync_create(struct scene *c)
{
	void *sync;
	int fd;

	gm_ct_note(c->s.d->t, "sync_create", 0, 0, 0, 0);
	return c->s.d->mmu->sync_create(c->s.d->dev, &sync, &fd);
}

static gm_ret_t op_sync_import(struct scene *c)
{
	struct gm_fence *done = gm_ct_fence(c->s.d->t->services);
	gm_ret_t ret;

	gm_ct_note(c->s.d->t, "sync_import", 0, 0, 0, 0);
	ret = c->s.d->mmu->sync_import(c->s.d->dev, c->fd, done);
	if (ret)
		gm_ct_fence_refused(done);
	return ret;
}

static gm_ret_t op_peer_reach(struct scene *c)
{
	gm_ct_note(c->s.d->t, "peer_reach", 0, 0, 0, 0);
	return c->s.d->mmu->peer_reach(c->s.d->dev, c->other->dev);
}

static const struct {
	const char *name;
	uint32_t cap;
	gm_ret_t (*op)(struct scene *c);
} ops[] = {
	{ "pmap_create", 0, op_pmap_create },
	{ "pmap_enter", 0, op_enter },
	{ "pmap_remove", 0, op_remove },
	{ "tlb_invl", 0, op_invl },
	{ "copy", 0, op_copy },
	{ "pmap_protect", GM_CAP_PROTECT, op_protect },
	{ "submit", GM_CAP_SUBMIT, op_submit },
	{ "access", GM_CAP_ACCESS, op_access },
	{ "fault_next", GM_CAP_FAULTS, op_fault_next },
	{ "fault_done", GM_CAP_FAULTS, op_fault_done },
	{ "pmap_harvest", GM_CAP_DIRTY, op_harvest },
	{ "sync_create", GM_CAP_SYNC, op_sync_create },
	{ "sync_import", GM_CAP_SYNC, op_sync_import },
	{ "peer_reach", GM_CAP_PEER, op_peer_reach },
};

static void begin(struct scene *c, struct gm_ct *t)
{
	*c = (struct scene){ .fd = -1 };
	gm_ct_begin(&c->s, t, GM_CT_SMALL);
	if (gm_ct_has(c->s.d, GM_CAP_PEER))
		c->other = gm_ct_open(t);
	if (!gm_ct_has(c->s.d, GM_CAP_SYNC))
		return;
	gm_ct_note(t, "sync_create", 0, 0, 0, 0);
	gm_ct_ok(t, c->s.d->mmu->sync_create(c->s.d->dev, &c->sync, &c->fd));
}

/* What is called on a lost device still. */
static void end(struct scene *c)
{
	if (c->fd >= 0) {
		(void)close(c->fd);
		gm_ct_note(c->s.d->t, "sync_signal", 0, 0, 0, 0);
		c->s.d->mmu->sync_signal(c->s.d->dev, c->sync, GM_RET_NODEV);
	}
	gm_ct_map_abandon(&c->s.o);
	gm_ct_mem_fini(&c->s.m);
	gm_ct_close(c->s.d);
	if (c->other)
		gm_ct_close(c->other);
}

/* One device each: after the first GM_RET_NODEV nothing else may be called. */
static void operations(struct gm_ct *t)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct scene c;
		gm_ret_t ret;
		bool has;

		begin(&c, t);
		has = gm_ct_has(c.s.d, ops[i].cap);
		if (has)
			gm_ct_map_enter(&c.s.o, 0, 0, 4, GM_PTE_WRITE);
		gm_ct_lose(c.s.d);
		ret = has ? ops[i].op(&c) : GM_RET_NODEV;
		if (ret != GM_RET_NODEV)
			gm_ct_fail(t, "lost", "%s of a lost device returned %s, expected GM_RET_NODEV", ops[i].name,
				   gm_ret_name(ret));
		end(&c);
		gm_ct_services_check(t->services);
	}
}

struct copier {
	struct scene *c;
	_Atomic unsigned rounds;
};

static void *copies(void *arg)
{
	struct copier *k = arg;
	gm_ret_t ret;

	do {
		ret = op_copy(k->c);
		atomic_fetch_add(&k->rounds, 1);
	} while (ret == GM_RET_SUCCESS);
	if (ret != GM_RET_NODEV)
		gm_ct_fail(k->c->s.d->t, "lost", "a copy while the device was lost ended with %s, expected GM_RET_SUCCESS or "
			   "GM_RET_NODEV", gm_ret_name(ret));
	return NULL;
}

/*
 * In the middle of copies: the one in flight ends, one way or the other. Nobody but the thread that copies calls
 * anything, so that nothing begins after the first GM_RET_NODEV.
 */
static void in_flight(struct gm_ct *t)
{
	for (unsigned i = 0; i < 5; i++) {
		struct scene c;
		struct copier k = { .c = &c };
		struct gm_ct_thread thread;

		begin(&c, t);
		gm_ct_map_enter(&c.s.o, 8, 8, 4, 0);
		gm_ct_thread_start(t, &thread, copies, &k);
		while (atomic_load(&k.rounds) < 3 + i)
			gm_ct_sleep_ns(10000);
		gm_ct_lose(c.s.d);
		gm_ct_thread_join(&thread);
		end(&c);
		gm_ct_services_check(t->services);
	}
}

static void *touch(void *arg)
{
	struct scene *c = arg;
	uint64_t word;
	gm_ret_t ret = gm_ct_touch(c->s.d, c->s.o.pmap, gm_ct_va(&c->s.o, 3), &word, 8, false);

	if (ret != GM_RET_NODEV)
		gm_ct_fail(c->s.d->t, "lost", "an access that waited for its fault ended with %s, expected GM_RET_NODEV",
			   gm_ret_name(ret));
	atomic_store(&c->ended, true);
	return NULL;
}

/* The device is lost: who waits goes on, before the page table goes. */
static void faults(struct gm_ct *t)
{
	struct gm_ct_thread thread;
	struct scene c;
	uint64_t deadline;

	begin(&c, t);
	gm_ct_thread_start(t, &thread, touch, &c);
	if (!gm_ct_faults_wait(t->services, 0))
		gm_ct_fail(t, "fault", "an access without mapping waits, but fault_ready was not called");
	gm_ct_lose(c.s.d);
	deadline = gm_ct_now_ns() + t->bound_ns;
	while (!atomic_load(&c.ended)) {
		if (gm_ct_now_ns() > deadline)
			gm_ct_fail(t, "lost", "an access still waits for its fault although the device is lost");
		gm_ct_sleep_ns(100000);
	}
	gm_ct_thread_join(&thread);
	end(&c);
}

/* --- given up -------------------------------------------------------------------- */

/* Copies out of the window into parts of m.buf, none waited for. */
static void start_copies(struct scene *c, struct gm_fence **done)
{
	struct gm_ct *t = c->s.d->t;
	uint64_t part = c->s.m.bytes / IN_FLIGHT / GM_CT_PAGE * GM_CT_PAGE;

	memset(c->s.m.buf, 0x5a, c->s.m.bytes);
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = c->s.m.pa + i * part,
					.host = GM_VA(c->s.m.buf) + i * part, .bytes = part };

		done[i] = gm_ct_fence(t->services);
		gm_ct_note(t, "copy", 0, copy.pa, copy.bytes, 0);
		gm_ct_ok(t, c->s.d->mmu->copy(c->s.d->dev, &copy, 1, done[i]));
	}
}

static void halt(struct gm_ct_dev *d)
{
	gm_ct_note(d->t, "dev_halt", 0, 0, 0, 0);
	d->mmu->dev_halt(d->dev);
}

/* Signalled by now; with success only where every byte is there. */
static void want_ended(struct gm_ct *t, struct gm_fence *done, bool whole)
{
	gm_ret_t ret = gm_ct_fence_wait(done, 0);

	if (ret == GM_RET_TIMEDOUT)
		gm_ct_fail(t, "halt", "dev_halt() returned, but a fence is pending");
	if (ret != GM_RET_NODEV && !(ret == GM_RET_SUCCESS && whole))
		gm_ct_fail(t, "halt", "a fence ended with %s, expected GM_RET_NODEV%s", gm_ret_name(ret),
			   ret == GM_RET_SUCCESS ? ": not all bytes were there" : "");
}

/* The host's memory is the host's again: what it writes there stays. */
static void want_quiet(struct scene *c)
{
	struct gm_ct_mem *m = &c->s.m;

	memset(m->buf, 0xc3, m->bytes);
	gm_ct_sleep_ns(QUIET_NS);
	for (uint64_t i = 0; i < m->bytes; i++) {
		if (m->buf[i] != 0xc3)
			gm_ct_fail(m->d->t, "halt", "the device wrote to host memory after dev_halt() had returned");
	}
}

/* Copies are in flight, where the device has an engine; then they have ended, and it is lost. */
static void halted(struct gm_ct *t)
{
	const struct gm_mmu *mmu = t->plugin->mmu;
	bool slot = mmu->size >= offsetof(struct gm_mmu, dev_halt) + sizeof(mmu->dev_halt) && mmu->dev_halt;
	struct gm_fence *done[IN_FLIGHT];
	struct scene c;
	uint64_t part;

	begin(&c, t);
	part = c.s.m.bytes / IN_FLIGHT / GM_CT_PAGE * GM_CT_PAGE;
	start_copies(&c, done);
	halt(c.s.d);
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		want_ended(t, done[i], memcmp(c.s.m.buf + i * part, c.s.m.is + i * part, part) == 0);
	want_quiet(&c);
	halt(c.s.d);
	if (slot)
		gm_ct_want(t, op_copy(&c), GM_RET_NODEV);
	end(&c);
}

/* The same with an engine that hangs: only dev_halt() ends it, and no byte was moved. */
static void hung(struct gm_ct *t)
{
	struct gm_fence *done[IN_FLIGHT];
	struct scene c;

	begin(&c, t);
	gm_ct_hang(c.s.d);
	start_copies(&c, done);
	if (gm_ct_fence_wait(done[0], QUIET_NS) != GM_RET_TIMEDOUT)
		gm_ct_fail(t, "hook", "the engine was made to hang, but a fence is signalled");
	halt(c.s.d);
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		want_ended(t, done[i], false);
	want_quiet(&c);
	gm_ct_want(t, op_copy(&c), GM_RET_NODEV);
	end(&c);
}

/* A plan that hangs in a copy: what depends on it is not begun, not by dev_halt() either. */
static void hung_plan(struct gm_ct *t)
{
	struct gm_fence *done = gm_ct_fence(t->services);
	struct gm_step steps[2];
	struct scene c;

	begin(&c, t);
	steps[0] = (struct gm_step){ .op = GM_STEP_COPY, .after = GM_STEP_FREE };
	steps[0].copy = (struct gm_copy){ .kind = GM_COPY_TO_HOST, .pa = c.s.m.pa, .host = GM_VA(c.s.m.buf),
					  .bytes = GM_CT_PAGE };
	steps[1] = (struct gm_step){ .op = GM_STEP_ENTER, .after = 0, .pmap = c.s.o.pmap, .va = c.s.o.va,
				     .pa = gm_ct_pa(&c.s.m, 4), .bytes = c.s.d->granule };
	gm_ct_hang(c.s.d);
	gm_ct_note(t, "submit", 0, 0, 0, 0);
	gm_ct_ok(t, c.s.d->mmu->submit(c.s.d->dev, steps, 2, done));
	if (gm_ct_fence_wait(done, QUIET_NS) != GM_RET_TIMEDOUT)
		gm_ct_fail(t, "hook", "the engine was made to hang, but the fence of a plan is signalled");
	halt(c.s.d);
	want_ended(t, done, false);
	want_quiet(&c);
	end(&c);
}

const struct gm_ct_test gm_ct_lost_tests[] = {
	{ "operations", 0, GM_CT_LOSE, operations },
	{ "in_flight", 0, GM_CT_LOSE, in_flight },
	{ "faults", GM_CAP_FAULTS, GM_CT_LOSE | GM_CT_TOUCH, faults },
	{ "halt", 0, 0, halted },
	{ "hang", 0, GM_CT_HANG, hung },
	{ "hang_plan", GM_CAP_SUBMIT, GM_CT_HANG, hung_plan },
	{ NULL, 0, 0, NULL },
};
