/* SPDX-License-Identifier: MIT */
/*
 * Devices that report faults in a queue: fetch a batch, sort it by address, make one of those at one page (which asks
 * for all that they ask for), serve block by block, replay.
 *
 *     fetched --served, with the others of its block--> replayed
 *             --in the way for long--> kept for a later batch, others go first
 *             --cannot be served--> the access fails with the reason
 *             --one of several, and the least of them can be served--> replayed: who asks for more comes again, alone,
 *                                                                      and has waited since it came first
 *
 * So a load neither fails nor waits for the sake of a store to memory that may only be read. Nor does an access that began after
 * the rights were asked for: a failure is for what the device had named before (hal.h), which all of a batch was.
 *
 * Where all faults of a block were served one replay covers them all; an access
 * between them that was not asked for merely faults again.
 *
 * A fault gets a short time per attempt, so that one page that somebody holds
 * does not keep the whole device waiting; the pauses between attempts grow, as
 * an attempt may cost the application its pages for a moment. Over all it gets wait_ns,
 * and then fails. The last attempt is as long as the others, or it would fail
 * for want of time instead of naming what is in the way. One thread per device,
 * for all spaces it is attached to.
 *
 * What is kept waits outside of the batch, of which a quarter is always for new faults.
 * Its place is the device's, not allocated: an allocator's lock may be held by who
 * waits for this fault.
 */
#include "config.h"

#include "core/gm_devq.h"
#include "core/gm_events.h"
#include "core/gm_fault.h"

#define ATTEMPT_NS (UINT64_C(2) * 1000 * 1000)
#define DEBT_NS (UINT64_C(100) * 1000 * 1000)
#define FIRST_PAUSE_NS (UINT64_C(1) * 1000 * 1000)
#define LONGEST_PAUSE_NS (UINT64_C(8) * 1000 * 1000)

/* Page and place of arrival in one word: such words compare as the faults are to be sorted. */
#define PLACE_BITS 6
_Static_assert(GM_DEVQ_BATCH == 1u << PLACE_BITS && PLACE_BITS <= 12, "the place takes the bits of the page's offset");

/* Those whose time has come are of this round; a part of it is left for new ones. */
static void take_due(struct gm_dev *dev, uint64_t now_ns)
{
	size_t left = 0;

	for (size_t i = 0; i < dev->n_kept; i++) {
		struct gm_devq_entry e = dev->kept[i];

		if (e.not_before_ns <= now_ns && dev->faults < GM_DEVQ_BATCH * 3 / 4)
			dev->fault[dev->faults++] = e;
		else
			dev->kept[left++] = e;
	}
	dev->n_kept = left;
}

/* An entry for what another one asks for, too. Fewer rights are a smaller number where one has the other. */
static void join(struct gm_devq_entry *e, uint32_t access, uint32_t least)
{
	e->fault.access |= access;
	e->least = least < e->least ? least : e->least;
}

/* One more for a page that waits already: it has the same answer. */
static bool joins_kept(struct gm_dev *dev, const struct gm_dev_fault *f)
{
	for (size_t i = 0; i < dev->n_kept; i++) {
		struct gm_dev_fault *k = &dev->kept[i].fault;

		if (k->va == f->va && k->pmap == f->pmap) {
			join(&dev->kept[i], f->access, f->access);
			return true;
		}
	}
	return false;
}

static void remember(struct gm_dev *dev, const struct gm_devq_entry *e, uint64_t now_ns)
{
	dev->debt[dev->next_debt++ % GM_DEVQ_DEBTS] = (struct gm_devq_debt){ e->fault.pmap, e->fault.va, e->since_ns, now_ns,
									       e->fault.access & ~e->least };
}

/* Since when who faults has waited. */
static uint64_t since(const struct gm_dev *dev, const struct gm_dev_fault *f, uint64_t now_ns)
{
	uint64_t first_ns = now_ns;

	for (unsigned i = 0; i < GM_DEVQ_DEBTS; i++) {
		const struct gm_devq_debt *d = &dev->debt[i];

		if (d->va == f->va && d->pmap == f->pmap && (d->more & f->access) && now_ns < d->at_ns + DEBT_NS &&
		    d->since_ns < first_ns)
			first_ns = d->since_ns;
	}
	return first_ns;
}

/* No more than there is a place for, should all of them have to be kept. */
static void fetch(struct gm_dev *dev, uint64_t now_ns)
{
	while (dev->faults < GM_DEVQ_BATCH && dev->n_kept + dev->faults < GM_DEVQ_KEPT) {
		struct gm_devq_entry *e = &dev->fault[dev->faults];

		if (gm_hal_fault_next(dev->hal, &e->fault))
			break;
		e->fault.va &= ~(uint64_t)(dev->hal->granule_bytes - 1);
		if (joins_kept(dev, &e->fault))
			continue;
		e->least = e->fault.access;
		e->since_ns = since(dev, &e->fault, now_ns);
		e->not_before_ns = now_ns;
		e->pause_ns = FIRST_PAUSE_NS;
		dev->faults++;
	}
}

/*
 * By address, and in order of arrival where that is equal: nothing that is decided depends on where a
 * pmap happens to be. In place: qsort() may take memory from malloc(), whose lock may be held by who
 * waits for this fault.
 */
static void sort(uint64_t *key, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		uint64_t k = key[i];
		size_t at = i;

		for (; at && k < key[at - 1]; at--)
			key[at] = key[at - 1];
		key[at] = k;
	}
}

/* Among the last of the n kept, the one of the same granule; NULL: none. */
static struct gm_devq_entry *same(struct gm_dev *dev, const uint8_t *order, size_t n, const struct gm_dev_fault *f)
{
	for (; n && dev->fault[order[n - 1]].fault.va == f->va; n--)
		if (dev->fault[order[n - 1]].fault.pmap == f->pmap)
			return &dev->fault[order[n - 1]];
	return NULL;
}

/* The faults in order, one for each granule: order[] says where they are. Returns how many. */
static size_t merge(struct gm_dev *dev, uint8_t *order)
{
	uint64_t key[GM_DEVQ_BATCH];
	size_t kept = 0;

	for (size_t i = 0; i < dev->faults; i++)
		key[i] = dev->fault[i].fault.va | i;
	sort(key, dev->faults);
	for (size_t i = 0; i < dev->faults; i++) {
		uint8_t at = (uint8_t)(key[i] % GM_DEVQ_BATCH);
		struct gm_devq_entry *e = same(dev, order, kept, &dev->fault[at].fault);

		if (e) {
			join(e, dev->fault[at].fault.access, dev->fault[at].least);
			if (dev->fault[at].since_ns < e->since_ns)
				e->since_ns = dev->fault[at].since_ns;
		} else {
			order[kept++] = at;
		}
	}
	return kept;
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

/* Faults of one block and one page table, by address. */
struct group {
	struct gm_dev *dev;
	size_t n;
	uint8_t place[GM_DEVQ_BATCH]; /* among those in order */
	struct gm_devq_entry *entry[GM_DEVQ_BATCH];
	struct gm_fault_ask ask[GM_DEVQ_BATCH];
};

static void done(struct gm_dev *dev, const struct gm_devq_entry *first, const struct gm_devq_entry *last, gm_ret_t ret)
{
	uint64_t bytes = last->fault.va - first->fault.va + dev->hal->granule_bytes;

	gm_hal_fault_done(dev->hal, first->fault.pmap, first->fault.va, bytes, ret);
}

/* In the way now, and not for too long yet; or the host could not tell what is there (gm_host.h). */
static bool is_for_later(const struct gm_ctx *ctx, const struct gm_devq_entry *e, gm_ret_t ret, uint64_t now_ns)
{
	bool untold = ret == GM_RET_NOMEM && atomic_load(&ctx->as->host->untold) != e->untold;

	return (ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY || ret == GM_RET_NOSPC || untold) &&
	       now_ns < gm_deadline_after_ns(e->since_ns, ctx->as->cfg.wait_ns);
}

/* What is refused to all of them together, or has to wait, may be allowed to who asks for least. */
static void ask_for_less(struct gm_ctx *ctx, const struct gm_devq_entry *e, struct gm_fault_ask *ask)
{
	struct gm_fault_ask less = { ask->va, e->least, 0 };
	uint64_t now_ns;

	gm_fault_block(ctx, &less, 1, ATTEMPT_NS);
	now_ns = gm_now_ns(ctx->as->env);
	if (!less.ret)
		remember(ctx->dev, e, now_ns);
	if (!less.ret || is_for_later(ctx, e, less.ret, now_ns))
		*ask = less;
}

/* One of several that were not all served. True: answered. */
static bool conclude(struct gm_dev *dev, struct gm_ctx *ctx, struct gm_devq_entry *e, struct gm_fault_ask *ask,
		     bool alone)
{
	struct gm_env *env = dev->lib->env;
	uint64_t now_ns = gm_now_ns(env);

	if (ask->ret == GM_RET_FAULT && !learned(ctx->as, gm_deadline_after_ns(now_ns, ATTEMPT_NS)))
		ask->ret = GM_RET_TIMEDOUT;
	else if (ask->ret == GM_RET_FAULT || (ask->ret && !alone && !is_for_later(ctx, e, ask->ret, now_ns)))
		gm_fault_block(ctx, ask, 1, ATTEMPT_NS); /* alone: the message is its own */
	if (ask->ret && e->least != e->fault.access)
		ask_for_less(ctx, e, ask);
	now_ns = gm_now_ns(env);
	if (is_for_later(ctx, e, ask->ret, now_ns)) {
		try_later(e, now_ns, gm_deadline_after_ns(e->since_ns, ctx->as->cfg.wait_ns));
		return false;
	}
	if (ask->ret)
		gm_log(env, GM_LOG_WARN, "device %s: fault at 0x%llx cannot be served: %s", dev->hal->caps.name,
		       (unsigned long long)e->fault.va, gm_last_error());
	done(dev, e, e, ask->ret);
	return true;
}

/* Which of them, by place, are to be tried again. */
static uint64_t serve(struct group *g)
{
	struct gm_dev *dev = g->dev;
	struct gm_ctx *ctx = gm_ctx_enter_pmap(dev, g->entry[0]->fault.pmap);
	uint64_t again = 0;
	size_t served = 0;

	if (!ctx) { /* being detached: nobody will serve it */
		for (size_t i = 0; i < g->n; i++)
			done(dev, g->entry[i], g->entry[i], GM_RET_FAULT);
		return 0;
	}
	for (size_t i = 0; i < g->n; i++)
		g->entry[i]->untold = atomic_load(&ctx->as->host->untold);
	for (size_t i = 0; i < g->n; i++)
		g->ask[i] = (struct gm_fault_ask){ g->entry[i]->fault.va - ctx->to_dev, g->entry[i]->fault.access, 0 };
	gm_fault_block(ctx, g->ask, g->n, ATTEMPT_NS);
	for (size_t i = 0; i < g->n; i++)
		served += !g->ask[i].ret;
	if (served == g->n)
		done(dev, g->entry[0], g->entry[g->n - 1], GM_RET_SUCCESS);
	for (size_t i = 0; i < g->n && served < g->n; i++)
		if (!conclude(dev, ctx, g->entry[i], &g->ask[i], g->n == 1))
			again |= UINT64_C(1) << g->place[i];
	gm_ctx_leave(ctx);
	return again;
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
	size_t left = 0;

	while (!begin_round(dev)) /* a round takes as long as its attempts */
		gm_yield(dev->lib->env);
	gm_hal_pmap_destroy(dev->hal, pmap); /* which answers what still waits */
	for (size_t i = 0; i < dev->n_kept; i++)
		if (dev->kept[i].fault.pmap != pmap)
			dev->kept[left++] = dev->kept[i];
	dev->n_kept = left;
	for (unsigned i = 0; i < GM_DEVQ_DEBTS; i++) /* another one may come to lie where it was */
		if (dev->debt[i].pmap == pmap)
			dev->debt[i].pmap = NULL;
	end_round(dev);
}

/* Of the faults left (bits: places in order[]), the first and those of its block and page table; they are left no more. */
static void gather(struct gm_dev *dev, const uint8_t *order, uint64_t *left, struct group *g)
{
	const struct gm_dev_fault *f = NULL;

	g->dev = dev;
	g->n = 0;
	for (uint64_t rest = *left; rest; rest &= rest - 1) {
		unsigned i = (unsigned)__builtin_ctzll(rest);
		struct gm_devq_entry *e = &dev->fault[order[i]];

		if (f && e->fault.va / GM_BLOCK_BYTES != f->va / GM_BLOCK_BYTES)
			break;
		if (f && e->fault.pmap != f->pmap)
			continue;
		f = f ? f : &e->fault;
		g->place[g->n] = (uint8_t)i;
		g->entry[g->n++] = e;
		*left &= ~(UINT64_C(1) << i);
	}
}

/* Those that are not answered. */
static void keep(struct gm_dev *dev, const uint8_t *order, uint64_t kept, uint64_t *again_ns)
{
	for (; kept; kept &= kept - 1)
		dev->kept[dev->n_kept++] = dev->fault[order[__builtin_ctzll(kept)]];
	dev->faults = 0;
	for (size_t i = 0; i < dev->n_kept; i++)
		*again_ns = dev->kept[i].not_before_ns < *again_ns ? dev->kept[i].not_before_ns : *again_ns;
}

bool gm_devq_round(struct gm_dev *dev, uint64_t *again_ns)
{
	uint8_t order[GM_DEVQ_BATCH];
	uint64_t now_ns, all, kept = 0, left;
	struct group g;
	bool full;
	size_t n;

	if (!gm_hal_has(dev->hal, GM_CAP_FAULTS))
		return false;
	if (!begin_round(dev)) /* the device's thread, or another caller that serves */
		return false;
	now_ns = gm_now_ns(dev->lib->env);
	take_due(dev, now_ns);
	fetch(dev, now_ns);
	full = dev->faults == GM_DEVQ_BATCH;
	n = merge(dev, order);
	left = all = n ? UINT64_MAX >> (64 - n) : 0;
	while (left) {
		gather(dev, order, &left, &g);
		kept |= serve(&g);
	}
	keep(dev, order, kept, again_ns);
	end_round(dev);
	return kept != all || full;
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
	while (dev->starting)
		(void)gm_wait(env, &dev->waitq, &dev->lock, GM_FOREVER_NS);
	first = !dev->started;
	dev->started = true;
	dev->starting = first;
	gm_unlock(env, &dev->lock);
	if (!first)
		return GM_RET_SUCCESS;
	ret = env->ops->thread_start(env, "gm-devfault", 0, devq_thread, dev, &thread);
	gm_lock(env, &dev->lock);
	dev->started = !ret;
	dev->starting = false;
	dev->thread = ret ? NULL : thread;
	gm_unlock(env, &dev->lock);
	gm_wake(env, &dev->waitq);
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
