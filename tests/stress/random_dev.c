/* SPDX-License-Identifier: MIT */
/*
 * What devices do: single accesses, kernels, kernels inside working sets; and
 * failures. A kernel owns the cells that it was launched with until it ends,
 * long after whoever launched it went on.
 *
 * Inside a working set no access may fail. Outside of one, a device without
 * faults may fail any; a device with faults only for a reason that the books
 * know: not managed, read-only, pinned, failures armed.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT) | RND_RET(NOSPC))
#define REFUSED (RND_RET(FAULT) | RND_RET(PERM) | RND_RET(BUSY) | RND_RET(NOTSUP))
/* A kernel may wait at each of its accesses. */
#define FENCE_NS (3 * RND_STALL_NS)
/* An attempt to serve a fault takes no longer. */
#define LATE_NS 3000000u

/* ------------------------------------------------------- single accesses */

static bool is_odd(const struct rnd_page *p)
{
	return p->pins || p->kept || p->locked || p->read_only || p->edge || p->alone || p->managed != RND_MANAGED;
}

/* No device may reach what nobody has adopted. */
static void check_reach(struct rnd_world *w, const struct rnd_page *p, uint32_t changes, enum rnd_managed before,
			gm_ret_t ret)
{
	if (!ret && !p->space->mirrors && before == RND_UNMANAGED && p->managed == RND_UNMANAGED && changes == p->changes)
		rnd_fail(w, "a device reaches 0x%" PRIx64 ", which was released", p->va);
}

bool rnd_dev_access(struct rnd_world *w)
{
	struct rnd_page *p = rnd_page(w);
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_ctx *c = &p->space->ctx[d - w->dev];
	unsigned cell = 1 + (unsigned)rnd(w, RND_CELLS - 1), cells = 1 + (unsigned)rnd(w, RND_CELLS - cell);
	bool write = rnd_one_in(w, 2);
	struct rnd_watch watch = rnd_watch(w);
	enum rnd_managed managed = p->managed;
	size_t bytes = (size_t)cells * RND_CELL_BYTES;
	uint32_t changes = p->changes;
	uint8_t buf[GM_PAGE_BYTES];
	gm_ret_t ret;

	if (!rnd_ctx_use(c))
		return false;
	if (!rnd_claim(p, cell, cells, write)) {
		rnd_ctx_unuse(c);
		return false;
	}
	rnd_random_bytes(w, buf, bytes);
	ret = gm_hal_access(d->dev->hal, c->ctx->pmap, p->va + cell * RND_CELL_BYTES + c->ctx->to_dev, buf, bytes,
			    write);
	rnd_ctx_unuse(c);
	rnd_expect(w, &watch, ret, RND_RET(FAULT) | RND_RET(PERM), 0, "a device access", p->va);
	check_reach(w, p, changes, managed, ret);
	if (!ret)
		rnd_check_obeyed(w, p, changes, write);
	if (!ret && write)
		memcpy(p->want + cell * RND_CELL_BYTES, buf, bytes);
	else if (!ret)
		rnd_compare(w, p, cell * RND_CELL_BYTES, buf, bytes, "a device access");
	rnd_unclaim(p, cell, cells, write);
	rnd_step(w, "device access", &watch);
	return true;
}

/* --------------------------------------------------------------- kernels */

/* The process itself dropped content next to a page, within one page of a device: its mapping may be gone. */
static bool lost_neighbour(const struct rnd_job *job)
{
	return job->dev->granule_bytes > GM_PAGE_BYTES && job->w->drops != job->drops;
}

/* What an access of a kernel may be answered with besides success, for reasons other than failures. */
static uint32_t legal(struct rnd_job *job, const struct rnd_page *p, const struct rnd_watch *watch, uint32_t changes,
		      bool odd)
{
	const struct rnd_dev *d = job->dev;
	struct rnd_world *w = job->w;
	uint32_t set = 0;

	/* An answer to a fault is for everybody who waits at the page: also who came late. */
	odd |= is_odd(p) || p->changes != changes || watch->start_ns < p->changed_ns + LATE_NS;
	if (job->held && lost_neighbour(job)) /* then it faults, if it can */
		return REFUSED;
	if (job->held) /* only a right that was taken away */
		return p->read_only || p->changes != changes ? RND_RET(FAULT) | RND_RET(PERM) : 0;
	if (!d->faults)
		return RND_RET(FAULT) | RND_RET(PERM) | RND_RET(NOTSUP);
	if (odd || d->granule_bytes > GM_PAGE_BYTES)
		set |= REFUSED;
	if (rnd_held(w, watch, &w->dev[0]) || rnd_held(w, watch, &w->dev[1]))
		set |= RND_RET(NOSPC) | RND_RET(TIMEDOUT) | RND_RET(BUSY);
	/* Registered still, and managed no more: nobody but who serves this fault could fill it (docs/design.md, Limits). */
	if (job->space->mirrors && job->space->server && p->managed == RND_PERHAPS)
		set |= RND_RET(TIMEDOUT);
	return set;
}

/* Was the answer to an access of a kernel legal? */
static gm_ret_t judged(struct rnd_job *job, struct rnd_page *p, const struct rnd_watch *watch, uint32_t changes,
		       enum rnd_managed managed, bool odd, gm_ret_t ret)
{
	struct rnd_world *w = job->w;
	uint32_t set = legal(job, p, watch, changes, odd);
	bool faults = !job->held || lost_neighbour(job);

	if (faults && watch->start_ns < w->quiet_ns + LATE_NS)
		set |= TROUBLE;
	/* A device that does not fault cannot wait for a host that cannot tell now. */
	rnd_expect(w, watch, ret, set, (faults ? TROUBLE : 0) | (job->dev->faults ? 0 : RND_RET(FAULT)),
		   job->held ? "a kernel's access inside a working set" : "a kernel's access", p->va);
	check_reach(w, p, changes, managed, ret);
	return ret;
}

static void kernel_add(struct gm_mock_thread *thread, struct rnd_job *job, struct rnd_page *p)
{
	struct rnd_world *w = job->w;
	struct rnd_counter *c = &w->counter[p == w->counter[1].page];
	struct rnd_watch watch = rnd_watch(w);
	uint64_t add = 1 + rnd(w, 5), old = 0, before = c->done;
	uint32_t changes = p->changes;
	bool odd = is_odd(p);
	gm_ret_t ret;

	c->started += add;
	ret = gm_mock_fetch_add(thread, p->va + c->offset + job->ctx->ctx->to_dev, add, &old);
	ret = judged(job, p, &watch, changes, p->managed, odd, ret);
	if (!ret)
		rnd_check_obeyed(w, p, changes, true);
	if (ret)
		c->started -= add;
	else
		c->done += add;
	if (!ret && (old < before || old + add > c->started))
		rnd_fail(w, "a device sees a counter of %" PRIu64 ", not %" PRIu64 " to %" PRIu64, old, before,
			 c->started - add);
	rnd_step(w, "kernel add", &watch);
}

static void kernel_access(struct gm_mock_thread *thread, struct rnd_job *job, struct rnd_access *a)
{
	struct rnd_world *w = job->w;
	struct rnd_page *p = a->page;
	struct rnd_watch watch = rnd_watch(w);
	enum rnd_managed managed = p->managed;
	unsigned cell = a->cell + (unsigned)rnd(w, a->cells), cells = 1 + (unsigned)rnd(w, a->cell + a->cells - cell);
	uint64_t va = p->va + cell * RND_CELL_BYTES + job->ctx->ctx->to_dev;
	size_t bytes = (size_t)cells * RND_CELL_BYTES;
	bool odd = is_odd(p), write = a->write && rnd_one_in(w, 2);
	uint32_t changes = p->changes;
	uint8_t buf[GM_PAGE_BYTES];
	gm_ret_t ret;

	if (write) {
		rnd_random_bytes(w, buf, bytes);
		ret = gm_mock_store(thread, va, buf, bytes);
	} else {
		ret = gm_mock_load(thread, va, buf, bytes);
	}
	ret = judged(job, p, &watch, changes, managed, odd, ret);
	if (!ret)
		rnd_check_obeyed(w, p, changes, write);
	if (!ret && write)
		memcpy(p->want + cell * RND_CELL_BYTES, buf, bytes);
	else if (!ret)
		rnd_compare(w, p, cell * RND_CELL_BYTES, buf, bytes, "a kernel");
	rnd_step(w, write ? "kernel store" : "kernel load", &watch);
}

/* A page of somebody else, whatever happens to it: the access ends, that is all. */
static void kernel_touch(struct gm_mock_thread *thread, struct rnd_job *job)
{
	struct rnd_world *w = job->w;
	struct rnd_page *p = rnd_page(w);
	struct rnd_watch watch = rnd_watch(w);
	uint8_t byte;
	gm_ret_t ret;

	if ((p->space != job->space || w->spaces > 1) && !job->space->mirrors)
		return;
	ret = gm_mock_load(thread, p->va + job->ctx->ctx->to_dev, &byte, 1);
	rnd_expect(w, &watch, ret, REFUSED | TROUBLE, 0, "a kernel's touch", p->va);
	rnd_step(w, "kernel touch", &watch);
}

/* GM_WS_DISCARD: the page reads as zeros, or, if it was there already, as it was. */
static void settle_discard(struct gm_mock_thread *thread, struct rnd_job *job, struct rnd_access *a)
{
	static const uint8_t zeros[GM_PAGE_BYTES];
	struct rnd_watch watch = rnd_watch(job->w);
	uint32_t changes = a->page->changes;
	uint8_t buf[GM_PAGE_BYTES];
	gm_ret_t ret = gm_mock_load(thread, a->page->va + job->ctx->ctx->to_dev, buf, sizeof(buf));

	if (judged(job, a->page, &watch, changes, RND_MANAGED, is_odd(a->page), ret))
		return;
	if (memcmp(buf, zeros, sizeof(buf)) == 0)
		memset(a->page->want, 0, sizeof(buf));
	rnd_compare(job->w, a->page, 0, buf, sizeof(buf), "a kernel, in a discarded page,");
	a->discard = false;
}

static void job_unclaim(struct rnd_job *job)
{
	for (unsigned i = 0; i < job->n; i++)
		if (job->access[i].cells)
			rnd_unclaim(job->access[i].page, job->access[i].cell, job->access[i].cells, job->access[i].write);
}

static gm_ret_t kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	struct rnd_job *job = arg;
	struct rnd_world *w = job->w;

	for (unsigned i = index; i < job->n; i += job->threads)
		if (job->access[i].discard)
			settle_discard(thread, job, &job->access[i]);
	for (unsigned i = 0; i < job->rounds; i++) {
		unsigned k = index + job->threads * (unsigned)rnd(w, (job->n - index + job->threads - 1) / job->threads);
		struct rnd_access *a = &job->access[k];

		if (!job->held && job->dev->faults && rnd_one_in(w, 6))
			kernel_touch(thread, job);
		if (a->cells == 0)
			kernel_add(thread, job, a->page);
		else if (!a->discard)
			kernel_access(thread, job, a);
		gm_mock_yield(thread);
	}
	if (--job->running == 0 && !job->held)
		job_unclaim(job);
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------------ jobs */

static void job_end(struct rnd_job *job)
{
	job->dev->holds++;
	job->dev->asking -= job->held;
	rnd_ctx_unuse(job->ctx);
	job->used = false;
}

void rnd_dev_reap(struct rnd_world *w, bool all)
{
	for (unsigned i = 0; i < RND_JOBS; i++) {
		struct rnd_job *job = &w->job[i];
		gm_ret_t ret;

		if (!job->used || !job->fence || job->busy)
			continue;
		ret = gm_fence_wait(job->fence, all ? FENCE_NS : 0);
		if (!all && ret == GM_RET_TIMEDOUT)
			continue;
		if (ret)
			rnd_fail(w, "a kernel ends with %s", gm_ret_name(ret));
		gm_fence_put(job->fence);
		job->fence = NULL;
		if (job->held) /* it may be held a moment longer, until the library has been called back */
			job_unclaim(job);
		job_end(job);
	}
}

/* Cells for one access; a counter has none. */
static bool choose_access(struct rnd_world *w, struct rnd_job *job, struct rnd_access *a)
{
	struct rnd_region *r = rnd_region(w);
	struct rnd_page *near = job->n ? job->access[job->n - 1].page : NULL;

	*a = (struct rnd_access){ .page = &r->page[rnd(w, r->pages)], .write = rnd_one_in(w, 2) };
	if (near && near->space == job->space && rnd_one_in(w, 2)) {
		struct rnd_region *same = near->region;

		a->page = &same->page[((size_t)(near - same->page) + rnd(w, 3)) % same->pages];
	}
	if (a->page->space != job->space || a->page->region->lost)
		return false;
	if (a->page->counter && rnd_one_in(w, 2))
		return true;
	a->cell = a->page->counter + (unsigned)rnd(w, 3) * 4;
	a->cells = 1 + (unsigned)rnd(w, RND_CELLS - a->cell);
	return rnd_claim(a->page, a->cell, a->cells, a->write);
}

/* A job with a context and claims, or NULL. */
static struct rnd_job *job_begin(struct rnd_world *w, unsigned max)
{
	struct rnd_space *s = &w->space[rnd(w, w->spaces)];
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_job *job = w->job;
	unsigned n = 1 + (unsigned)rnd(w, max);

	while (job < w->job + RND_JOBS && job->used)
		job++;
	if (job == w->job + RND_JOBS || !rnd_ctx_use(&s->ctx[d - w->dev]))
		return NULL;
	*job = (struct rnd_job){ .w = w, .space = s, .ctx = &s->ctx[d - w->dev], .dev = d, .used = true };
	for (unsigned i = 0; i < n; i++)
		if (choose_access(w, job, &job->access[job->n]))
			job->n++;
	if (job->n)
		return job;
	job_end(job);
	return NULL;
}

static bool job_launch(struct rnd_world *w, struct rnd_job *job)
{
	struct rnd_watch watch = rnd_watch(w);
	struct gm_fence *fence = NULL;
	gm_ret_t ret;

	job->threads = job->n > 1 ? 1 + (unsigned)rnd(w, 2) : 1;
	job->running = job->threads;
	job->rounds = 1 + (unsigned)rnd(w, 12);
	if (!job->held) /* else since the set was asked for */
		job->drops = rnd_drops(w);
	ret = gm_mock_launch(job->ctx->ctx, kernel, job, job->threads, &fence);
	rnd_expect(w, &watch, ret, 0, RND_RET(NOMEM) | RND_RET(AGAIN), "gm_mock_launch", 0);
	job->fence = fence;
	return !ret;
}

bool rnd_dev_kernel(struct rnd_world *w)
{
	struct rnd_watch watch = rnd_watch(w);
	struct rnd_job *job;

	rnd_dev_reap(w, false);
	job = job_begin(w, RND_JOB_ACCESSES);
	if (!job)
		return false;
	if (!job_launch(w, job)) {
		job_unclaim(job);
		job_end(job);
	} else if (rnd_one_in(w, 3)) {
		struct gm_fence *fence = gm_fence_get(job->fence);
		gm_ret_t ret = gm_fence_wait(fence, FENCE_NS);

		if (ret)
			rnd_fail(w, "a kernel ends with %s", gm_ret_name(ret));
		gm_fence_put(fence);
		watch = rnd_watch(w); /* its steps had a bound each */
	}
	rnd_step(w, "kernel", &watch);
	return true;
}

/* ---------------------------------------------------------- working sets */

static void range_of(struct rnd_world *w, struct rnd_access *a, struct gm_ws_range *r)
{
	r->va = a->page->va + a->cell * RND_CELL_BYTES;
	r->bytes = a->cells ? a->cells * RND_CELL_BYTES : 8;
	r->access = a->cells == 0 ? GM_ATOMIC : a->write ? GM_WRITE : GM_READ;
	if (a->write && a->cells == RND_CELLS && rnd_one_in(w, 2)) {
		a->discard = true;
		r->access |= GM_WS_DISCARD;
	}
}

/* Why this set may be refused. */
static uint32_t set_legal(struct rnd_world *w, struct rnd_job *job, const struct rnd_watch *watch)
{
	uint32_t set = RND_RET(TIMEDOUT);
	bool odd = watch->odd != w->odd;

	for (unsigned i = 0; i < job->n; i++)
		odd |= is_odd(job->access[i].page);
	if (odd || job->dev->granule_bytes > GM_PAGE_BYTES)
		set |= REFUSED;
	return set;
}

/* While it is held, all of it is where it should be. */
static void check_set(struct rnd_world *w, struct rnd_job *job, const struct gm_ws_range *range)
{
	uint32_t bit = UINT32_C(1) << job->ctx->ctx->index;

	for (unsigned i = 0; i < job->n; i++) {
		const struct rnd_page *p = job->access[i].page;
		struct gm_page_info info;

		if (gm_query(job->space->as, p->va, 1, &info))
			rnd_fail(w, "gm_query: %s", gm_last_error());
		if (lost_neighbour(job))
			continue;
		if (!(info.flags & GM_PAGE_HELD) || !(info.mapped_read & bit))
			rnd_fail(w, "0x%" PRIx64 " is in a working set but not held, or not mapped", p->va);
		if (range[i].access != GM_READ && !(info.mapped_write & bit))
			rnd_fail(w, "0x%" PRIx64 " is in a working set for writing but not mapped so", p->va);
	}
}

/* After a refusal: discarded pages may have been, or not. */
static void resolve_discards(struct rnd_world *w, struct rnd_job *job)
{
	static const uint8_t zeros[GM_PAGE_BYTES];
	uint8_t buf[GM_PAGE_BYTES];

	for (unsigned i = 0; i < job->n; i++) {
		struct rnd_page *p = job->access[i].page;

		if (!job->access[i].discard)
			continue;
		if (gm_sim_load(w->sim, p->va, buf, sizeof(buf)))
			rnd_fail(w, "a CPU load of 0x%" PRIx64 " fails", p->va);
		if (memcmp(buf, zeros, sizeof(buf)) == 0)
			memset(p->want, 0, sizeof(buf));
		rnd_compare(w, p, 0, buf, sizeof(buf), "the CPU, after a set that discards was refused,");
	}
}

/* The set is held: use it, let it go. */
static void use_set(struct rnd_world *w, struct rnd_job *job, struct gm_ws *ws, const struct gm_ws_range *range)
{
	bool with_fence = rnd_one_in(w, 2);

	job->held = job->busy = true;
	check_set(w, job, range);
	if (rnd_one_in(w, 4))
		gm_sim_sleep_ns(w->sim, rnd(w, 300000));
	if (!job_launch(w, job)) {
		(void)gm_ws_release(ws, NULL);
		resolve_discards(w, job);
		job_unclaim(job);
		job_end(job);
		return;
	}
	if (with_fence) {
		(void)gm_ws_release(ws, job->fence);
	} else {
		if (gm_fence_wait(job->fence, FENCE_NS))
			rnd_fail(w, "a kernel in a working set does not end");
		check_set(w, job, range);
		(void)gm_ws_release(ws, NULL);
	}
	job->busy = false; /* others may forget it now */
}

bool rnd_dev_set(struct rnd_world *w)
{
	static const uint64_t timeouts_ns[] = { 100000, 2000000, 100000000 };
	struct gm_ws_range range[RND_JOB_ACCESSES];
	struct gm_ws_room room = { .need_bytes = 0 };
	struct rnd_watch watch = rnd_watch(w);
	struct gm_ws *ws = NULL;
	struct rnd_job *job;
	uint32_t set;
	gm_ret_t ret;

	rnd_dev_reap(w, false);
	job = job_begin(w, RND_JOB_ACCESSES);
	if (!job)
		return false;
	for (unsigned i = 0; i < job->n; i++)
		range_of(w, &job->access[i], &range[i]);
	ret = gm_ws_room(job->ctx->ctx, range, job->n, &room);
	set = set_legal(w, job, &watch);
	if (room.need_bytes > room.total_bytes)
		set |= RND_RET(NOSPC);
	rnd_expect(w, &watch, ret, set | RND_RET(BUSY), TROUBLE, "gm_ws_room", range[0].va);
	job->dev->holds++;
	job->dev->asking++;
	job->drops = rnd_drops(w);
	ret = gm_ws_acquire(job->ctx->ctx, range, job->n, timeouts_ns[rnd(w, 3)], &ws);
	job->dev->asking -= ret != GM_RET_SUCCESS; /* else until it ends: what is all in place takes no memory */
	job->dev->holds++;
	rnd_expect(w, &watch, ret, set | set_legal(w, job, &watch) | RND_RET(NOSPC), TROUBLE, "gm_ws_acquire", range[0].va);
	if (!ret) {
		use_set(w, job, ws, range);
		watch = rnd_watch(w);
	} else {
		resolve_discards(w, job);
		job_unclaim(job);
		job_end(job);
	}
	rnd_step(w, "working set", &watch);
	return true;
}

/* -------------------------------------------------------------- failures */

/* Copies and mappings of a part of the memory are late. */
static void slow_down(struct rnd_world *w, struct gm_dev *dev)
{
	static const enum gm_mock_op ops[] = { GM_MOCK_PMAP_ENTER, GM_MOCK_COPY, GM_MOCK_COPY_LATE };
	struct gm_mock_rule rule = { .size = sizeof(rule), .where = GM_MOCK_AT_PA, .count = 20 };

	rule.op = ops[rnd(w, 3)];
	rule.begin = GM_MOCK_PA_BASE + rnd(w, 4) * GM_UNIT_BYTES;
	rule.end = rule.begin + (1 + rnd(w, 4)) * GM_UNIT_BYTES;
	rule.nth = 1 + rnd(w, 6);
	rule.delay_ns = 1 + rnd(w, 50000);
	if (gm_mock_rule_add(dev, &rule) == GM_RET_INVAL)
		rnd_fail(w, "a rule was refused");
}

/* The last ones are questions, answered with "cannot tell now". */
static const char *const host_ops[] = { "steal", "restore", "fill", "zero", "watch", "slot_alloc", "mem_map",
					"child_fill", "mem_probe", "mem_rights", "mem_kind", "mem_content",
					"mem_present", "bus_access" };
#define HOST_OPS (sizeof(host_ops) / sizeof(host_ops[0]))

bool rnd_inject(struct rnd_world *w)
{
	unsigned n = 1 + (unsigned)rnd(w, 3);

	if (w->noisy || w->quieting)
		return false;
	w->noisy = true;
	w->noise++;
	w->noisy_until = w->steps + 20 + rnd(w, 60);
	while (n--) {
		switch (rnd(w, 4)) {
		case 0:
			(void)gm_mock_fail(w->dev[rnd(w, RND_DEVS)].dev, (enum gm_mock_op)rnd(w, GM_MOCK_OPS), 1 + rnd(w, 6),
					   1 + rnd(w, 3));
			break;
		case 1:
			(void)gm_sim_fail(w->sim, host_ops[rnd(w, HOST_OPS)], 1 + rnd(w, 6), 1 + rnd(w, 3));
			break;
		case 2:
			slow_down(w, w->dev[rnd(w, RND_DEVS)].dev);
			break;
		default:
			w->fail_alloc_in = 1 + rnd(w, 40);
			break;
		}
	}
	return false; /* no step of its own */
}

void rnd_quiet(struct rnd_world *w)
{
	if (w->quieting) /* by another coroutine: each of these calls is a point of the scheduler */
		return;
	w->quieting = true;
	for (unsigned i = 0; i < HOST_OPS; i++)
		(void)gm_sim_fail(w->sim, host_ops[i], 0, 0);
	for (unsigned i = 0; i < RND_DEVS; i++)
		(void)gm_mock_rule_clear(w->dev[i].dev);
	w->fail_alloc_in = 0;
	w->noise += w->noisy;
	w->noisy = w->quieting = false;
	w->quiet_ns = gm_now_ns(gm_sim_env(w->sim));
}
