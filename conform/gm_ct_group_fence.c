/* SPDX-License-Identifier: MIT */
/*
 * Group fence: a fence is signalled once, and not before every byte is where it belongs. That it is not signalled
 * a second time, nor after a failed call, the services watch in every test.
 */
#include "config.h"

#include <string.h>

#include "conform/gm_ct.h"

#define ROUNDS 50u
#define IN_FLIGHT 16u
#define THREADS 3u
#define LINKS 8u
#define BURST 200u

/* The last page, in another way than by a copy, which the engine might do in order. */
static void look(struct gm_ct_mem *m)
{
	uint64_t pa = m->pa + m->bytes - m->d->granule, word = 0;
	unsigned char *is = m->is + m->bytes - m->d->granule, *at = NULL;
	struct gm_ct_dev *d = m->d;
	void *pmap;

	if (gm_ct_has(d, GM_CAP_CPU_VISIBLE))
		at = gm_ct_cpu_ptr(d, pa, m->d->granule);
	if (at && memcmp(at, is, d->granule) != 0)
		gm_ct_fail(d->t, "early fence", "copy signalled its fence before the bytes were there (seen by the CPU)");
	if (at || !gm_ct_has(d, GM_CAP_ACCESS))
		return;
	gm_ct_ok(d->t, gm_ct_pmap_create(d, &pmap));
	gm_ct_ok(d->t, gm_ct_enter(d, pmap, GM_CT_VA, pa, d->granule, 0));
	gm_ct_ok(d->t, gm_ct_access(d, pmap, GM_CT_VA, &word, sizeof(word), false));
	if (memcmp(&word, is, sizeof(word)) != 0)
		gm_ct_fail(d->t, "early fence", "copy signalled its fence before the bytes were there (seen by access)");
	gm_ct_ok(d->t, gm_ct_remove(d, pmap, GM_CT_VA, d->granule));
	gm_ct_invl(d, pmap, GM_CT_VA, d->granule);
	gm_ct_pmap_destroy(d, pmap);
}

/*
 * The source is overwritten as soon as the fence says that it may be, and the destination looked at as soon as it is
 * said to be there.
 */
static void not_early(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	unsigned char *host;
	struct gm_ct_mem m;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	host = gm_ct_pages(t, m.bytes);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct gm_copy in = { .kind = i % 4 == 3 ? GM_COPY_ZERO : GM_COPY_TO_DEV, .pa = m.pa, .bytes = m.bytes };

		gm_ct_fill(m.is, m.bytes, t->seed + i);
		memcpy(host, m.is, m.bytes);
		if (in.kind == GM_COPY_ZERO)
			memset(m.is, 0, m.bytes);
		else
			in.host = GM_VA(host);
		gm_ct_ok(t, gm_ct_copy(d, &in, 1));
		look(&m);
		memset(host, 0xee, m.bytes);
		gm_ct_mem_check(&m);
	}
	gm_ct_pages_free(host, m.bytes);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* Several at once, on different pages, waited for in reverse order. */
static void in_flight(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_fence *done[IN_FLIGHT];
	struct gm_ct_mem m;
	uint64_t part;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	part = m.bytes / IN_FLIGHT / GM_CT_PAGE * GM_CT_PAGE;
	for (unsigned round = 0; round < 8; round++) {
		gm_ct_fill(m.is, part * IN_FLIGHT, t->seed + round);
		for (unsigned i = 0; i < IN_FLIGHT; i++) {
			struct gm_copy copy = { .kind = GM_COPY_TO_DEV, .pa = m.pa + i * part,
						.host = GM_VA(m.is) + i * part, .bytes = part };

			done[i] = gm_ct_fence(t->services);
			gm_ct_note(t, "copy", 0, copy.pa, copy.bytes, 0);
			gm_ct_ok(t, d->mmu->copy(d->dev, &copy, 1, done[i]));
			/* valid during the call only */
			memset(&copy, 0xff, sizeof(copy));
		}
		for (unsigned i = IN_FLIGHT; i-- > 0;)
			gm_ct_ok(t, gm_ct_fence_wait(done[i], t->bound_ns));
		gm_ct_mem_check(&m);
	}
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

struct copier {
	struct gm_ct_mem *m;
	uint64_t begin, bytes;
	uint64_t seed;
};

/* There and back, on pages of its own. */
static void *copier(void *arg)
{
	struct copier *c = arg;
	struct gm_ct *t = c->m->d->t;
	unsigned char *host = gm_ct_pages(t, c->bytes);
	struct gm_copy copy = { .pa = c->m->pa + c->begin, .bytes = c->bytes };

	for (unsigned i = 0; i < ROUNDS; i++) {
		gm_ct_fill(c->m->is + c->begin, c->bytes, c->seed + i);
		copy.kind = GM_COPY_TO_DEV;
		copy.host = GM_VA(c->m->is) + c->begin;
		gm_ct_ok(t, gm_ct_copy(c->m->d, &copy, 1));
		copy.kind = GM_COPY_TO_HOST;
		copy.host = GM_VA(host);
		memset(host, 0, c->bytes);
		gm_ct_ok(t, gm_ct_copy(c->m->d, &copy, 1));
		if (memcmp(host, c->m->is + c->begin, c->bytes) != 0)
			gm_ct_fail(t, "bytes", "with %u threads that copy, round %u: a thread read back something else",
				   THREADS, i);
	}
	gm_ct_pages_free(host, c->bytes);
	return NULL;
}

static void threads(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_thread thread[THREADS];
	struct copier c[THREADS];
	struct gm_ct_mem m;
	uint64_t part;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	part = m.bytes / THREADS / GM_CT_PAGE * GM_CT_PAGE;
	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct copier){ .m = &m, .begin = i * part, .bytes = part, .seed = t->seed + UINT64_C(1000) * i };
		gm_ct_thread_start(t, &thread[i], copier, &c[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		gm_ct_thread_join(&thread[i]);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* A call that fails changes nothing and signals nothing, also later. */
static void refused(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_mem m;
	struct gm_copy copy;
	gm_ret_t ret;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	if (gm_ct_fail_op(d, "copy", 1) == GM_RET_NOTSUP)
		gm_ct_need(t, "hook fail for copy");
	copy = (struct gm_copy){ .kind = GM_COPY_ZERO, .pa = m.pa, .bytes = m.bytes };
	ret = gm_ct_copy(d, &copy, 1);
	if (ret != GM_RET_NOMEM && ret != GM_RET_IO)
		gm_ct_fail(t, "result", "copy that was made to fail returned %s, expected GM_RET_NOMEM or GM_RET_IO",
			   gm_ret_name(ret));
	gm_ct_sleep_ns(20000000);
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

struct chain {
	struct gm_ct_dev *d;
	struct gm_ct_mem *m;
	unsigned char *host;        /* [BURST] pages */
	unsigned links;             /* so far; one at a time */
	struct gm_fence *burst[BURST];
	struct gm_fence *all;       /* of the suite alone: done when the last link has done its work */
};

/* From the last link: many at once, all of the same page. A queue that is full may say so, but not wait. */
static void start_burst(struct chain *c)
{
	struct gm_ct *t = c->d->t;

	for (unsigned i = 0; i < BURST; i++) {
		struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = c->m->pa,
					.host = GM_VA(c->host) + i * GM_CT_PAGE, .bytes = GM_CT_PAGE };
		gm_ret_t ret;

		c->burst[i] = gm_ct_fence(t->services);
		gm_ct_note(t, "copy (from a callback)", 0, copy.pa, copy.bytes, 0);
		ret = c->d->mmu->copy(c->d->dev, &copy, 1, c->burst[i]);
		if (ret == GM_RET_SUCCESS)
			continue;
		if (ret != GM_RET_NOMEM)
			gm_ct_ok(t, ret);
		gm_ct_fence_refused(c->burst[i]);
		c->burst[i] = NULL;
	}
	c->d->svc.fence_signal(c->d->svc.self, c->all, GM_RET_SUCCESS);
}

/* The signal of one copy starts the next, on the thread that signals. */
static void next_link(void *arg, gm_ret_t result)
{
	struct chain *c = arg;
	struct gm_ct *t = c->d->t;
	struct gm_copy copy = { .kind = GM_COPY_TO_DEV, .bytes = GM_CT_PAGE };
	struct gm_fence *done;

	if (result != GM_RET_SUCCESS)
		gm_ct_fail(t, "fence", "copy was signalled with %s", gm_ret_name(result));
	if (c->links == LINKS) {
		start_burst(c);
		return;
	}
	copy.pa = c->m->pa + c->links * GM_CT_PAGE;
	copy.host = GM_VA(c->m->is) + c->links * GM_CT_PAGE;
	c->links++;
	done = gm_ct_fence(t->services);
	gm_ct_fence_on_done(done, next_link, c);
	gm_ct_note(t, c->links == 1 ? "copy" : "copy (from a callback)", 0, copy.pa, copy.bytes, 0);
	gm_ct_ok(t, c->d->mmu->copy(c->d->dev, &copy, 1, done));
}

/* A callback of a fence may copy: who waits in copy() for what its own thread has to do first never ends. */
static void chained(struct gm_ct *t)
{
	struct gm_ct_dev *d = gm_ct_open(t);
	struct chain c = { .d = d };
	struct gm_ct_mem m;

	gm_ct_mem_init(&m, d, GM_CT_SMALL, t->seed);
	gm_ct_fill(m.is, LINKS * GM_CT_PAGE, t->seed + 9);
	c.m = &m;
	c.host = gm_ct_pages(t, BURST * GM_CT_PAGE);
	c.all = gm_ct_fence(t->services);
	next_link(&c, GM_RET_SUCCESS);
	if (gm_ct_fence_wait(c.all, t->bound_ns) == GM_RET_TIMEDOUT)
		gm_ct_fail(t, "callback", "copy() called from a callback of a fence does not return, or never signals");
	for (unsigned i = 0; i < BURST; i++) {
		if (!c.burst[i])
			continue;
		gm_ct_ok(t, gm_ct_fence_wait(c.burst[i], t->bound_ns));
		if (memcmp(c.host + i * GM_CT_PAGE, m.is, GM_CT_PAGE) != 0)
			gm_ct_fail(t, "bytes", "copy %u of those started by a callback brought something else", i);
	}
	gm_ct_mem_check(&m);
	gm_ct_pages_free(c.host, BURST * GM_CT_PAGE);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

/* What may be in flight when a call returns must be possible to stop. */
static void can_halt(struct gm_ct *t)
{
	const struct gm_mmu *mmu = t->plugin->mmu;
	bool halts = mmu->size >= offsetof(struct gm_mmu, dev_halt) + sizeof(mmu->dev_halt) && mmu->dev_halt;
	struct gm_ct_dev *d = gm_ct_open(t);
	struct gm_ct_mem m;

	gm_ct_mem_init(&m, d, GM_CT_WINDOW, t->seed);
	for (unsigned i = 0; i < 2 * ROUNDS; i++) {
		struct gm_copy copy = { .kind = GM_COPY_TO_DEV, .pa = m.pa, .host = GM_VA(m.is), .bytes = m.bytes };
		struct gm_step step = { .op = GM_STEP_COPY, .after = GM_STEP_FREE, .copy = copy };
		bool plan = i % 2 && gm_ct_has(d, GM_CAP_SUBMIT);
		struct gm_fence *done = gm_ct_fence(t->services);

		gm_ct_note(t, plan ? "submit" : "copy", 0, copy.pa, copy.bytes, 0);
		gm_ct_ok(t, plan ? d->mmu->submit(d->dev, &step, 1, done) : d->mmu->copy(d->dev, &copy, 1, done));
		if (!halts && gm_ct_fence_wait(done, 0) == GM_RET_TIMEDOUT)
			gm_ct_fail(t, "dev_halt", "%s() returned before its signal, but dev_halt is NULL",
				   plan ? "submit" : "copy");
		gm_ct_ok(t, gm_ct_fence_wait(done, t->bound_ns));
	}
	gm_ct_mem_check(&m);
	gm_ct_mem_fini(&m);
	gm_ct_close(d);
}

const struct gm_ct_test gm_ct_fence_tests[] = {
	{ "not_early", 0, 0, not_early },
	{ "in_flight", 0, 0, in_flight },
	{ "threads", 0, 0, threads },
	{ "refused", 0, GM_CT_FAIL, refused },
	{ "chained", 0, 0, chained },
	{ "can_halt", 0, 0, can_halt },
	{ NULL, 0, 0, NULL },
};
