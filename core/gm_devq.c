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
 * does not keep the whole device waiting; the pauses between attempts grow, as
 * an attempt may cost the application its pages for a moment. Over all it gets wait_ns,
 * and then fails. The last attempt is as long as the others, or it would fail
 * for want of time instead of naming what is in the way. One thread per device,
 * for all spaces it is attached to.
 */
#include "config.h"

#include "core/gm_devq.h"
#include "core/gm_events.h"
#include "core/gm_fault.h"

#define ATTEMPT_NS (UINT64_C(2) * 1000 * 1000)
#define FIRST_PAUSE_NS (UINT64_C(1) * 1000 * 1000)
#define LONGEST_PAUSE_NS (UINT64_C(8) * 1000 * 1000)

/*
 * By address, and in order of arrival where that is equal: nothing that is decided depends on where a
 * pmap happens to be. In place: qsort() may take memory from malloc(), whose lock may be held by who
 * waits for this fault.
 */
static void sort(struct gm_dev *dev)
{
	for (size_t i = 1; i < dev->faults; i++) {
		struct gm_devq_entry e = dev->fault[i];
		size_t k = i;

		for (; k && e.fault.va < dev->fault[k - 1].fault.va; k--)
			dev->fault[k] = dev->fault[k - 1];
		dev->fault[k] = e;
	}
}

static void fetch(struct gm_dev *dev)
{
	uint64_t now_ns = gm_now_ns(dev->lib->env);

	while (dev->faults < GM_DEVQ_BATCH) {
		struct gm_devq_entry *e = &dev->fault[dev->faults];

		if (gm_hal_fault_next(dev->hal, &e->fault))
			break;
		e->fault.va &= ~(uint64_t)(dev->hal->granule_bytes - 1);
		e->since_ns = e->not_before_ns = now_ns;
		e->pause_ns = FIRST_PAUSE_NS;
		dev->faults++;
	}
}

/* Among the first n, the one of the same granule; NULL: none. */
static struct gm_devq_entry *same(struct gm_dev *dev, size_t n, const struct gm_dev_fault *f)
{
	while (n && dev->fault[n - 1].fault.va == f->va)
		if (dev->fault[--n].fault.pmap == f->pmap)
			return &dev->fault[n];
	return NULL;
}

/* Sorted, one entry per granule. */
static void merge(struct gm_dev *dev)
{
	size_t kept = 0;

	sort(dev);
	for (size_t i = 0; i < dev->faults; i++) {
		struct gm_devq_entry *e = same(dev, kept, &dev->fault[i].fault);

		if (e) {
			e->fault.access |= dev->fault[i].fault.access;
			if (dev->fault[i].since_ns < e->since_ns)
				e->since_ns = dev->fault[i].since_ns;
		} else {
			dev->fault[kept++] = dev->fault[i];
		}
	}
	dev->faults = kept;
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

/* After the next pause; the last time when its time is up. */
static void try_later(struct gm_devq_entry *e, uint64_t now_ns, uint64_t limit_ns)
{
	e->not_before_ns = now_ns + e->pause_ns < limit_ns ? now_ns + e->pause_ns : limit_ns;
	if (e->pause_ns < LONGEST_PAUSE_NS)
		e->pause_ns *= 2;
}

/* True: answered. */
static bool serve(struct gm_dev *dev, struct gm_devq_entry *e)
{
	struct gm_env *env = dev->lib->env;
	struct gm_ctx *ctx = gm_ctx_enter_pmap(dev, e->fault.pmap);
	uint64_t until_ns = gm_deadline_ns(env, ATTEMPT_NS), limit_ns, now_ns;
	gm_ret_t ret;

	if (!ctx) { /* being detached: nobody will serve it */
		gm_hal_fault_done(dev->hal, e->fault.pmap, e->fault.va, dev->hal->granule_bytes, GM_RET_FAULT);
		return true;
	}
	limit_ns = gm_deadline_after_ns(e->since_ns, ctx->as->cfg.wait_ns);
	ret = gm_fault_dev(ctx, e->fault.va - ctx->to_dev, e->fault.access, until_ns);
	if (ret == GM_RET_FAULT)
		ret = learned(ctx->as, until_ns) ? gm_fault_dev(ctx, e->fault.va - ctx->to_dev, e->fault.access, until_ns)
						 : GM_RET_TIMEDOUT;
	gm_ctx_leave(ctx);
	now_ns = gm_now_ns(env);
	if ((ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY || ret == GM_RET_NOSPC) && now_ns < limit_ns) {
		try_later(e, now_ns, limit_ns);
		return false;
	}
	if (ret)
		gm_log(env, GM_LOG_WARN, "device %s: fault at 0x%llx cannot be served: %s", dev->hal->caps.name,
		       (unsigned long long)e->fault.va, gm_last_error());
	gm_hal_fault_done(dev->hal, e->fault.pmap, e->fault.va, dev->hal->granule_bytes, ret);
	return true;
}

/* False: somebody else is at it. */
static bool begin_round(struct gm_dev *dev)
{
	bool mine;

	gm_lock(dev->lib->env, &dev->lock);
	mine = !dev->serving;
	dev->serving = true;
	dev->missed |= !mine;
	gm_unlock(dev->lib->env, &dev->lock);
	return mine;
}

/* Who was turned away looks again: what he came for may have been reported too late for us. */
static void end_round(struct gm_dev *dev)
{
	bool missed;

	gm_lock(dev->lib->env, &dev->lock);
	missed = dev->missed;
	dev->serving = dev->missed = false;
	gm_unlock(dev->lib->env, &dev->lock);
	if (missed)
		gm_devq_ready(dev);
}

void gm_devq_destroy_pmap(struct gm_dev *dev, void *pmap)
{
	size_t kept = 0;

	while (!begin_round(dev)) /* a round takes as long as its attempts */
		gm_yield(dev->lib->env);
	gm_hal_pmap_destroy(dev->hal, pmap); /* which answers what still waits */
	for (size_t i = 0; i < dev->faults; i++)
		if (dev->fault[i].fault.pmap != pmap)
			dev->fault[kept++] = dev->fault[i];
	dev->faults = kept;
	end_round(dev);
}

bool gm_devq_round(struct gm_dev *dev, uint64_t *again_ns)
{
	uint64_t now_ns = gm_now_ns(dev->lib->env);
	size_t kept = 0, n;

	if (!begin_round(dev)) /* the device's thread, or another caller that serves */
		return false;
	fetch(dev);
	merge(dev);
	n = dev->faults;
	for (size_t i = 0; i < n; i++) {
		struct gm_devq_entry *e = &dev->fault[i];

		if (e->not_before_ns <= now_ns && serve(dev, e))
			continue;
		*again_ns = e->not_before_ns < *again_ns ? e->not_before_ns : *again_ns;
		dev->fault[kept++] = *e;
	}
	dev->faults = kept;
	end_round(dev);
	return kept < n;
}

static void devq_thread(void *arg)
{
	struct gm_dev *dev = arg;
	struct gm_env *env = dev->lib->env;
	bool stop = false;

	while (!stop) {
		uint64_t again_ns;

		do {
			again_ns = UINT64_MAX;
		} while (gm_devq_round(dev, &again_ns)); /* there may be more than a batch */
		gm_lock(env, &dev->lock);
		while (!dev->ready && !dev->stop && !gm_wait(env, &dev->waitq, &dev->lock, again_ns))
			;
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
