/* SPDX-License-Identifier: MIT */
/*
 * Devices that report faults in a queue: fetch a batch, sort it by address,
 * drop duplicates (the strongest access stays), serve, replay.
 *
 *     fetched --served--> replayed
 *             --in the way for long--> kept for the next batch, others go first
 *             --cannot be served--> the access fails with the reason
 *
 * A fault gets a short time per attempt, so that one page that somebody holds
 * does not keep the whole device waiting; over all attempts it gets wait_ns,
 * and then fails. One thread per device, for all spaces it is attached to.
 */
#include "config.h"

#include "core/gm_devq.h"
#include "core/gm_events.h"
#include "core/gm_fault.h"

#define BATCH 64
#define ATTEMPT_NS (UINT64_C(2) * 1000 * 1000)

struct entry {
	struct gm_dev_fault fault;
	uint64_t since_ns;
};

/* What one round has in its hands. */
struct batch {
	struct entry entry[BATCH];
	size_t n;
};

/* By address first: nothing that is decided depends on where a pmap happens to be. */
static int by_address(const struct entry *x, const struct entry *y)
{
	if (x->fault.va != y->fault.va)
		return x->fault.va < y->fault.va ? -1 : 1;
	return (x->fault.pmap > y->fault.pmap) - (x->fault.pmap < y->fault.pmap);
}

/* In place: qsort() may take memory from malloc(), whose lock may be held by who waits for this fault. */
static void sort(struct batch *b)
{
	for (size_t i = 1; i < b->n; i++) {
		struct entry e = b->entry[i];
		size_t k = i;

		for (; k && by_address(&e, &b->entry[k - 1]) < 0; k--)
			b->entry[k] = b->entry[k - 1];
		b->entry[k] = e;
	}
}

static void fetch(struct gm_dev *dev, struct batch *b)
{
	uint64_t now_ns = gm_now_ns(dev->lib->env);

	while (b->n < BATCH) {
		struct entry *e = &b->entry[b->n];

		if (gm_hal_fault_next(dev->hal, &e->fault))
			break;
		e->fault.va &= ~(uint64_t)(dev->hal->granule_bytes - 1);
		e->since_ns = now_ns;
		b->n++;
	}
}

/* Sorted, one entry per granule. */
static void merge(struct batch *b)
{
	size_t kept = 0;

	sort(b);
	for (size_t i = 0; i < b->n; i++) {
		struct entry *last = kept ? &b->entry[kept - 1] : NULL;

		if (last && by_address(last, &b->entry[i]) == 0) {
			last->fault.access |= b->entry[i].fault.access;
			if (b->entry[i].since_ns < last->since_ns)
				last->since_ns = b->entry[i].since_ns;
		} else {
			b->entry[kept++] = b->entry[i];
		}
	}
	b->n = kept;
}

/* An address nobody knows may be one that the application has just moved memory to: learn of it, and look again. */
static bool learned(struct gm_as *as, uint64_t until_ns)
{
	if (as->cfg.flags & GM_AS_NO_THREADS) { /* this is the thread that does it */
		(void)gm_events_let_run(as);
		gm_remap_work(as);
	}
	return !gm_events_settle(as, until_ns);
}

/* True: answered. */
static bool serve(struct gm_dev *dev, const struct entry *e)
{
	struct gm_env *env = dev->lib->env;
	struct gm_ctx *ctx = gm_ctx_enter_pmap(dev, e->fault.pmap);
	uint64_t now_ns = gm_now_ns(env), limit_ns, until_ns;
	gm_ret_t ret;

	if (!ctx) { /* being detached: nobody will serve it */
		gm_hal_fault_done(dev->hal, e->fault.pmap, e->fault.va, dev->hal->granule_bytes, GM_RET_FAULT);
		return true;
	}
	limit_ns = e->since_ns + ctx->as->cfg.wait_ns;
	until_ns = now_ns + ATTEMPT_NS < limit_ns ? now_ns + ATTEMPT_NS : limit_ns;
	ret = gm_fault_dev(ctx, e->fault.va - ctx->to_dev, e->fault.access, until_ns);
	if (ret == GM_RET_FAULT)
		ret = learned(ctx->as, until_ns) ? gm_fault_dev(ctx, e->fault.va - ctx->to_dev, e->fault.access, until_ns)
						 : GM_RET_TIMEDOUT;
	gm_ctx_leave(ctx);
	if ((ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY || ret == GM_RET_NOSPC) && gm_now_ns(env) < limit_ns)
		return false;
	if (ret)
		gm_log(env, GM_LOG_WARN, "device %s: fault at 0x%llx cannot be served: %s", dev->hal->caps.name,
		       (unsigned long long)e->fault.va, gm_last_error());
	gm_hal_fault_done(dev->hal, e->fault.pmap, e->fault.va, dev->hal->granule_bytes, ret);
	return true;
}

/* Serve the batch; what has to wait stays in it. */
static void serve_all(struct gm_dev *dev, struct batch *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->n; i++)
		if (!serve(dev, &b->entry[i]))
			b->entry[kept++] = b->entry[i];
	b->n = kept;
}

bool gm_devq_once(struct gm_dev *dev)
{
	struct batch b = { .n = 0 };
	bool some;

	fetch(dev, &b);
	some = b.n > 0;
	merge(&b);
	while (b.n)
		serve_all(dev, &b);
	return some;
}

static void devq_thread(void *arg)
{
	struct gm_dev *dev = arg;
	struct gm_env *env = dev->lib->env;
	struct batch b = { .n = 0 };
	bool stop = false;

	while (!stop) {
		fetch(dev, &b);
		merge(&b);
		serve_all(dev, &b);
		gm_lock(env, &dev->lock);
		while (!b.n && !dev->ready && !dev->stop)
			(void)gm_wait(env, &dev->waitq, &dev->lock, UINT64_MAX);
		dev->ready = false;
		stop = dev->stop;
		gm_unlock(env, &dev->lock);
	}
}

void gm_devq_ready(void *arg)
{
	struct gm_dev *dev = arg;
	struct gm_env *env = dev->lib->env;
	struct gm_ctx *ctx;

	gm_lock(env, &dev->lock);
	dev->ready = true;
	TAILQ_FOREACH(ctx, &dev->ctxs, in_dev)
		if (ctx->as->cfg.flags & GM_AS_NO_THREADS)
			gm_hal_msg_kick(ctx->as->host, ctx->as->hpmap);
	gm_unlock(env, &dev->lock);
	gm_wake(env, &dev->waitq);
}

gm_ret_t gm_devq_start(struct gm_dev *dev)
{
	struct gm_env *env = dev->lib->env;
	struct gm_thread *thread;
	bool first;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (!gm_hal_has(dev->hal, GM_CAP_FAULTS))
		return GM_RET_SUCCESS;
	gm_lock(env, &dev->lock);
	first = !dev->started;
	dev->started = true;
	gm_unlock(env, &dev->lock);
	if (!first)
		return GM_RET_SUCCESS;
	ret = env->ops->thread_start(env, "gm-devfault", 0, devq_thread, dev, &thread);
	gm_lock(env, &dev->lock);
	dev->started = !ret;
	dev->thread = ret ? NULL : thread;
	gm_unlock(env, &dev->lock);
	return ret;
}

void gm_devq_stop(struct gm_dev *dev)
{
	struct gm_env *env = dev->lib->env;

	if (!dev->thread)
		return;
	gm_lock(env, &dev->lock);
	dev->stop = true;
	gm_unlock(env, &dev->lock);
	gm_wake(env, &dev->waitq);
	env->ops->thread_join(env, dev->thread);
	dev->thread = NULL;
}
