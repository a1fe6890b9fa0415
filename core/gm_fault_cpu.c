/* SPDX-License-Identifier: MIT */
/*
 * CPU faults. The handler answers a message by the page's state, not by what
 * the message says; a message only says that somebody waits at this address.
 *
 *     unknown, unmanaged    zero-fill what is absent, as the kernel would; wake
 *     HOST, NONE            a hole: zero-fill. Present all the same: let go on (gm_dup_end.c)
 *     HOST, duplicated      a store: the duplicates end - here and now, or by the worker, as below
 *     POISONED              make the access fail (SIGBUS), wake
 *     DEVICE, parked        bring home        - here and now if nothing of it waits,
 *                                               else by the worker
 *     busy, doomed          leave it `wanted`: who ends the transaction queues it
 *     held                  leave it `wanted`: who releases the working set queues it
 *
 * Here and now means: the device's memory is visible to the CPU, no mapping of
 * it needs an engine to be invalidated, nobody was just served. Everything else
 * goes to the worker, because the handler must stay free to read the events
 * that others wait to be read. Giving a page its content is what wakes the
 * accesses that wait for it (gm_host.h); the rest of the transaction then runs
 * beside the program.
 *
 * Bounds: a waiting access is looked at again at the end of a slice, when its
 * page is free, when its working set is released; if none of that comes within
 * as_config.hold_ns (held) or wait_ns (a device that fails every copy), the
 * access fails with SIGBUS and the hook is told. The bytes stay where they are.
 */
#include "config.h"

#include <assert.h>
#include <unistd.h>

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_mem.h"
#include "core/gm_work.h"
#include "core/gm_ws.h"

enum cpu_state { CPU_PRESENT, CPU_HOLE, CPU_POISONED, CPU_AWAY, CPU_BUSY, CPU_HELD, CPU_DUP };

/* (block) */
static enum cpu_state state_of(const struct gm_block *b, unsigned page)
{
	struct gm_mask away = gm_mask_or(gm_block_on_devs(b), b->staged);

	if (gm_mask_test(&b->busy, page) || gm_mask_test(&b->doomed, page))
		return CPU_BUSY;
	if (gm_mask_test(&b->leaving, page))
		return CPU_PRESENT; /* what is here belongs elsewhere */
	if (gm_mask_test(&b->poisoned, page))
		return CPU_POISONED;
	if (gm_mask_test(&away, page))
		return gm_mask_test(&b->held, page) ? CPU_HELD : CPU_AWAY;
	if (b->any_dup && gm_mask_test(&b->dup, page))
		return CPU_DUP;
	return gm_mask_test(&b->managed, page) ? CPU_HOLE : CPU_PRESENT;
}

static void wake_page(struct gm_block *b, unsigned page)
{
	gm_hal_wake(b->as->host, b->as->hpmap, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_PAGE_BYTES);
}

/*
 * There is a page. Who waits may wait because it is protected, though nobody has a duplicate of it (gm_dup_end.c); or
 * the message is old. The caller has the page busy, or is the handler, beside whom no page is being protected.
 */
static void let_go_on(struct gm_as *as, uint64_t va)
{
	if (gm_hal_unprotect(as->host, as->hpmap, va, GM_PAGE_BYTES))
		gm_hal_wake(as->host, as->hpmap, va, GM_PAGE_BYTES);
}

/*
 * NONE -> HOST, or a hole of HOST filled. The page is marked busy by the caller. Unguarded only the handler does so, and who
 * serves the fault of its own thread with the reader held: every event that came before is handled. SUCCESS, AGAIN; EXIST,
 * and *marked, unless NULL: the page that is there has the mark, or is broken; FAULT.
 */
static gm_ret_t fill_hole(struct gm_block *b, unsigned page, bool guarded, bool *marked)
{
	struct gm_as *as = b->as;
	struct gm_mask one = gm_mask_span(page, page + 1);
	uint64_t done;
	gm_ret_t ret = guarded ? gm_txn_zero(b, page)
			       : gm_hal_zero(as->host, as->hpmap, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_PAGE_BYTES, &done);

	gm_lock(as->env, &b->lock);
	if (!ret)
		b->host = gm_mask_or(b->host, gm_mask_and(one, b->managed));
	gm_unlock(as->env, &b->lock);
	if (ret == GM_RET_EXIST)
		let_go_on(as, b->va + (uint64_t)page * GM_PAGE_BYTES);
	if (marked && ret == GM_RET_EXIST) /* while nobody takes it. Where it cannot be told now, the access is made again */
		(void)gm_mem_is_marked(as, b->va + (uint64_t)page * GM_PAGE_BYTES, marked);
	gm_txn_release(b, &one);
	/*
	 * EXIST: there is a page after all. Of a page without content that does not make one of the
	 * host: the kernel may be about to zap what is there. FAULT: the mapping went, and the wait for it.
	 */
	if (ret == GM_RET_FAULT)
		wake_page(b, page);
	return ret;
}

static gm_ret_t touch_hole(struct gm_block *b, unsigned page, bool guarded)
{
	gm_ret_t ret = fill_hole(b, page, guarded, NULL);

	return ret == GM_RET_EXIST || ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
}

static void fail_access(struct gm_block *b, unsigned page)
{
	struct gm_as *as = b->as;
	uint64_t done;

	(void)gm_hal_poison(as->host, as->hpmap, b->va + (uint64_t)page * GM_PAGE_BYTES, GM_PAGE_BYTES, &done);
	wake_page(b, page);
}

/* The same for the worker, who looks at what is mapped there now. If it is not ours the access sees for itself. */
static void fail_access_guarded(struct gm_block *b, unsigned page)
{
	struct gm_as *as = b->as;
	bool ours;

	while (!gm_events_hold_reader(as))
		if (!gm_events_let_run(as))
			return;
	gm_lock(as->env, &b->lock);
	ours = gm_mask_test(&b->managed, page) && !gm_mask_test(&b->doomed, page);
	gm_unlock(as->env, &b->lock);
	if (ours)
		fail_access(b, page);
	else
		wake_page(b, page);
	gm_events_release_reader(as);
}

/* The unit around a page that is away. */
static uint32_t choose_unit(struct gm_as *as, uint64_t va, bool write)
{
	struct gm_policy_fault f = {
		.va = va,
		.access = write ? GM_WRITE : GM_READ,
		.from_cpu = true,
		.min_bytes = as->cfg.cpu_unit_bytes,
		.max_bytes = as->cfg.cpu_around_bytes,
		.adjacent = va / GM_PAGE_BYTES == atomic_load_explicit(&as->cpu_last_end, memory_order_relaxed) / GM_PAGE_BYTES,
		.last_bytes = atomic_load_explicit(&as->cpu_last_bytes, memory_order_relaxed),
	};
	uint32_t bytes = as->policy.unit(as->policy.state, &f);

	if (bytes < f.min_bytes || bytes > f.max_bytes || (bytes & (bytes - 1)))
		bytes = f.min_bytes;
	return bytes;
}

static void remember_unit(struct gm_as *as, uint64_t va, uint32_t bytes)
{
	atomic_store_explicit(&as->cpu_last_end, (va & ~(uint64_t)(bytes - 1)) + bytes, memory_order_relaxed);
	atomic_store_explicit(&as->cpu_last_bytes, bytes, memory_order_relaxed);
}

/* (block) What comes home together with a page; a parked huge page is not torn apart. */
static struct gm_mask choose_pages(struct gm_block *b, unsigned page, uint64_t now_ns, uint32_t *bytes)
{
	uint64_t unit = (b->va + (uint64_t)page * GM_PAGE_BYTES) & ~(uint64_t)(*bytes - 1);
	struct gm_mask want, avoid;

	avoid = gm_mask_or(gm_mask_or(b->busy, b->doomed), gm_mask_or(b->held, b->leaving));
	avoid = gm_mask_or(avoid, gm_slice_pages(&b->slice_dev, b->as->cfg.slice_ns, now_ns));
	if (b->huge && !gm_mask_meets(&avoid, &b->staged)) {
		want = b->staged;
		*bytes = GM_BLOCK_BYTES;
	} else {
		want = gm_mask_sub(gm_block_clip(b, unit, unit + *bytes), avoid);
	}
	gm_mask_set(&want, page);
	return want;
}

/* (block) Every device that maps or has the pages answers at once. */
static bool nothing_waits(const struct gm_block *b, const struct gm_mask *pages)
{
	const struct gm_as *as = b->as;

	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (b->map[i] && gm_mask_meets(&b->map[i]->read, pages) &&
		    !gm_hal_has(as->ctx[i]->dev->hal, GM_CAP_FAST_INVL))
			return false;
	for (unsigned i = 0; i < GM_MAX_DEVS; i++)
		if (b->node[i] && gm_mask_meets(&b->node[i]->resident, pages) &&
		    !gm_hal_has(as->lib->devs[i]->hal, GM_CAP_CPU_VISIBLE))
			return false;
	return true;
}

/* Bring a page and its unit home. SUCCESS: the page is there; giving it has woken its waiters. */
static gm_ret_t bring_home(struct gm_block *b, unsigned page, uint32_t bytes, uint32_t flags, uint64_t now_ns,
			   uint64_t *until_ns)
{
	struct gm_as *as = b->as;
	struct gm_move m = { .block = b, .waiters = gm_mask_span(page, page + 1) };
	struct gm_txn t = { .as = as, .flags = flags, .move = &m, .moves = 1,
			    .deadline_ns = gm_deadline_after_ns(now_ns, as->cfg.wait_ns) };
	bool fast;
	gm_ret_t ret;

	gm_lock(as->env, &b->lock);
	m.want = choose_pages(b, page, now_ns, &bytes);
	fast = nothing_waits(b, &m.want);
	gm_unlock(as->env, &b->lock);
	if ((flags & GM_TXN_INLINE) && !fast)
		return GM_RET_AGAIN;
	*until_ns = 0;
	if (gm_txn_begin_at(&t, now_ns)) {
		if (t.why == GM_BLOCKED_SLICE)
			*until_ns = t.until_ns;
		return GM_RET_AGAIN;
	}
	ret = gm_txn_to_host(&t);
	if (gm_mask_test(&m.arrived, page)) {
		remember_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, bytes);
		ret = GM_RET_SUCCESS;
	} else if (!ret) {
		ret = GM_RET_AGAIN;
	}
	gm_txn_end(&t);
	return ret;
}

static void leave_wanted(struct gm_block *b, unsigned page, uint32_t thread_id, bool queue, uint64_t not_before_ns)
{
	struct gm_env *env = b->as->env;
	bool still;

	gm_lock(env, &b->lock);
	(void)gm_block_wait(b, page, thread_id, gm_now_ns(env));
	gm_mask_set(&b->wanted, page);
	/* What was in the way may have gone between the look and now: then nobody else will queue it. */
	still = state_of(b, page) == CPU_BUSY;
	gm_unlock(env, &b->lock);
	if (queue || !still)
		gm_work_queue(b, not_before_ns);
}

/* A device's own thread must never come here: it would wait for itself. */
static void check_thread(struct gm_as *as, uint64_t va, uint32_t thread_id)
{
	if (!thread_id || !as->env->ops->is_device_thread(as->env, thread_id))
		return;
	gm_log(as->env, GM_LOG_ERROR, "device thread %u touched application address 0x%llx directly", (unsigned)thread_id,
	       (unsigned long long)va);
	assert(!"a device thread must reach application memory only through its translation");
}

/*
 * A page that no region has, or whose block nobody tracks: nothing of it is
 * away. It may be registered all the same, as a mapping that mremap() made
 * larger stays registered as a whole, and then nobody else gives it its zeros.
 * No page can be stolen while a message is being handled, so an absent page is
 * a hole.
 */
static void serve_untracked(struct gm_as *as, uint64_t va)
{
	uint64_t done;

	/* AGAIN: the access faults again. EXIST, FAULT: it finds what there is. */
	if (gm_hal_zero(as->host, as->hpmap, va, GM_PAGE_BYTES, &done))
		let_go_on(as, va);
}

static void serve(struct gm_block *b, unsigned page, bool write, uint32_t thread_id, uint64_t now_ns)
{
	struct gm_as *as = b->as;
	uint32_t bytes = choose_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, write);
	enum cpu_state state;
	uint64_t until_ns = 0;

	if (gm_fault_few(b, page, bytes, now_ns)) {
		remember_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, bytes);
		gm_stat_add(as, GM_STAT_cpu_faults_inline, 1);
		return;
	}
	gm_lock(as->env, &b->lock);
	state = state_of(b, page);
	if (state == CPU_HOLE)
		gm_mask_set(&b->busy, page);
	gm_unlock(as->env, &b->lock);
	switch (state) {
	case CPU_PRESENT:
		serve_untracked(as, b->va + (uint64_t)page * GM_PAGE_BYTES);
		break;
	case CPU_HOLE:
		if (touch_hole(b, page, false))
			leave_wanted(b, page, thread_id, true, 0);
		break;
	case CPU_POISONED:
		fail_access(b, page);
		break;
	case CPU_BUSY:
		leave_wanted(b, page, thread_id, false, 0);
		break;
	case CPU_HELD:
		leave_wanted(b, page, thread_id, true, 0); /* the worker keeps its time */
		break;
	case CPU_DUP:
		if (gm_dup_store(b, page, true, now_ns, &until_ns))
			leave_wanted(b, page, thread_id, true, until_ns);
		else
			gm_stat_add(as, GM_STAT_cpu_faults_inline, 1);
		break;
	case CPU_AWAY:
		if (bring_home(b, page, bytes, GM_TXN_INLINE, now_ns, &until_ns))
			leave_wanted(b, page, thread_id, true, until_ns);
		else
			gm_stat_add(as, GM_STAT_cpu_faults_inline, 1);
		break;
	}
}

bool gm_fault_cpu(struct gm_as *as, uint64_t va, bool write, uint32_t thread_id)
{
	uint64_t start = gm_now_ns(as->env);
	struct gm_block *b = NULL;
	bool awaits;

	va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	check_thread(as, va, thread_id);
	awaits = gm_remap_awaits(as, va);
	if (!awaits && gm_block_seek(as, va, &b))
		return false;
	gm_stat_add(as, GM_STAT_cpu_faults, 1);
	if (awaits)
		return true; /* woken when it has arrived */
	if (!b) {
		serve_untracked(as, va);
		return true;
	}
	serve(b, gm_page_of(b, va), write, thread_id, start);
	gm_block_put(b);
	gm_stat_time(as, GM_STAT_ns_cpu_fault, start);
	return true;
}

/* ------------------------------------------------- the thread that faulted */

/* What is not done here and now, as by the handler. */
static gm_ret_t leave_own(struct gm_block *b, unsigned page, enum cpu_state state, uint64_t until_ns)
{
	bool noted;

	gm_lock(b->as->env, &b->lock);
	noted = gm_mask_test(&b->wanted, page);
	gm_unlock(b->as->env, &b->lock);
	if (!noted || state == CPU_BUSY) /* else the worker knows of it, and keeps its time */
		leave_wanted(b, page, (uint32_t)gettid(), state != CPU_BUSY, until_ns);
	return GM_RET_AGAIN;
}

static gm_ret_t serve_own(struct gm_block *b, unsigned page, enum cpu_state state, uint32_t bytes, uint64_t now_ns)
{
	uint64_t until_ns = 0;
	bool marked = false;
	gm_ret_t ret;

	switch (state) {
	case CPU_PRESENT:
		return GM_RET_EXIST;
	case CPU_HOLE:
		ret = fill_hole(b, page, false, &marked);
		if (ret == GM_RET_EXIST)
			return marked ? GM_RET_NODEV : GM_RET_SUCCESS;
		return ret == GM_RET_FAULT ? GM_RET_EXIST : ret;
	case CPU_POISONED:
		return GM_RET_NODEV;
	case CPU_DUP: /* a load finds the page: it was a store */
		if (!gm_dup_store(b, page, true, now_ns, &until_ns))
			return GM_RET_SUCCESS;
		break;
	case CPU_AWAY:
		if (!bring_home(b, page, bytes, GM_TXN_INLINE, now_ns, &until_ns))
			return GM_RET_SUCCESS;
		break;
	case CPU_BUSY:
	case CPU_HELD:
		break;
	}
	return leave_own(b, page, state, until_ns);
}

gm_ret_t gm_fault_cpu_own(struct gm_block *b, unsigned page, uint64_t now_ns)
{
	struct gm_as *as = b->as;
	uint32_t bytes = choose_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, false);
	enum cpu_state state;
	bool failed;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (gm_fault_few(b, page, bytes, now_ns)) {
		remember_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, bytes);
	} else {
		gm_lock(as->env, &b->lock);
		state = state_of(b, page);
		failed = gm_mask_test(&b->failed, page) && (state == CPU_AWAY || state == CPU_HELD);
		if (state == CPU_HOLE)
			gm_mask_set(&b->busy, page);
		gm_unlock(as->env, &b->lock);
		ret = failed ? GM_RET_TIMEDOUT : serve_own(b, page, state, bytes, now_ns);
	}
	if (!ret) {
		gm_stat_add(as, GM_STAT_cpu_faults, 1);
		gm_stat_add(as, GM_STAT_cpu_faults_inthread, 1);
		gm_stat_time(as, GM_STAT_ns_cpu_fault, now_ns);
	}
	return ret;
}

/* ---------------------------------------------------------------- worker */

/* A page that is held, or that no copy brings home: its time is bounded. */
static bool give_up(struct gm_block *b, unsigned page, bool held, uint64_t now_ns, uint64_t *again_ns)
{
	struct gm_as *as = b->as;
	struct gm_stuck stuck = { .va = b->va + (uint64_t)page * GM_PAGE_BYTES };
	struct gm_wait wait = { .since_ns = now_ns, .page = page }, *noted;
	uint64_t limit_ns;
	struct gm_hold *h;

	gm_lock(as->env, &b->lock);
	noted = gm_block_wait(b, page, 0, now_ns);
	if (noted) /* else its time begins when a note is free */
		wait = *noted;
	limit_ns = gm_deadline_after_ns(wait.since_ns, held ? as->cfg.hold_ns : as->cfg.wait_ns);
	gm_unlock(as->env, &b->lock);
	if (now_ns < limit_ns) {
		uint64_t next = held ? limit_ns : now_ns + GM_WORK_RETRY_NS;

		if (next < *again_ns)
			*again_ns = next;
		return false;
	}
	gm_lock(as->env, &b->lock);
	stuck.held_ns = now_ns - wait.since_ns;
	stuck.thread_id = wait.thread_id;
	SLIST_FOREACH(h, &b->holds, in_block)
		if (gm_mask_test(&h->pages, page))
			stuck.ws = h->ws->pin ? NULL : h->ws;
	gm_unlock(as->env, &b->lock);
	gm_log(as->env, GM_LOG_ERROR, "thread %u waited %llu ms for 0x%llx, which is %s: its access fails",
	       (unsigned)stuck.thread_id, (unsigned long long)(stuck.held_ns / 1000000), (unsigned long long)stuck.va,
	       held ? "held by a working set" : "not coming home from its device");
	if (as->cfg.stuck)
		as->cfg.stuck(as->cfg.stuck_arg, &stuck);
	gm_lock(as->env, &b->lock);
	gm_mask_set(&b->failed, page);
	gm_unlock(as->env, &b->lock);
	fail_access_guarded(b, page);
	return true;
}

/* True: this page no longer wants anything. */
static bool work_page(struct gm_block *b, unsigned page, uint64_t *again_ns)
{
	struct gm_as *as = b->as;
	uint64_t now_ns = gm_now_ns(as->env), until_ns = 0;
	enum cpu_state state;
	gm_ret_t ret;

	gm_lock(as->env, &b->lock);
	state = state_of(b, page);
	if (state == CPU_HOLE)
		gm_mask_set(&b->busy, page);
	gm_unlock(as->env, &b->lock);
	switch (state) {
	case CPU_PRESENT:
		wake_page(b, page);
		return true;
	case CPU_HOLE:
		ret = touch_hole(b, page, true);
		if (ret) {
			(void)gm_events_let_run(as);
			*again_ns = 0;
			return false;
		}
		return true;
	case CPU_POISONED:
		fail_access_guarded(b, page);
		return true;
	case CPU_BUSY:
		return false; /* queued when it is free */
	case CPU_HELD:
		return give_up(b, page, true, now_ns, again_ns);
	case CPU_DUP:
	case CPU_AWAY:
		break;
	}
	if (state == CPU_DUP)
		ret = gm_dup_store(b, page, false, now_ns, &until_ns);
	else
		ret = bring_home(b, page, choose_unit(as, b->va + (uint64_t)page * GM_PAGE_BYTES, true), 0, now_ns, &until_ns);
	if (!ret)
		return true;
	if (until_ns && until_ns < *again_ns)
		*again_ns = until_ns;
	/* AGAIN with no time to wait for: something is busy, and will queue the block when it is done. */
	return ret == GM_RET_AGAIN ? false : give_up(b, page, false, now_ns, again_ns);
}

bool gm_fault_cpu_work(struct gm_block *b, uint64_t *again_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask wanted, idle, done = gm_mask_none();
	uint64_t start = gm_now_ns(env);
	bool left;

	gm_lock(env, &b->lock);
	wanted = b->wanted;
	/* Cleared first: who wants a page from here on, wants it again. */
	b->wanted = gm_mask_none();
	gm_unlock(env, &b->lock);
	if (gm_mask_empty(&wanted))
		return false;
	GM_MASK_FOR_RUN(&wanted, first, end)
		for (unsigned page = first; page < end; page++)
			if (work_page(b, page, again_ns))
				gm_mask_set(&done, page);
	gm_lock(env, &b->lock);
	wanted = gm_mask_sub(wanted, done);
	b->wanted = gm_mask_or(b->wanted, wanted);
	gm_block_trim_waits(b);
	left = !gm_mask_empty(&b->wanted);
	/* Free again since we looked? Then its transaction did not see that it was wanted. */
	idle = gm_mask_sub(gm_mask_sub(gm_mask_sub(wanted, b->busy), b->doomed), b->held);
	if (!gm_mask_empty(&idle)) {
		uint64_t soon = start + GM_WORK_RETRY_NS;

		if (soon < *again_ns)
			*again_ns = soon;
	}
	gm_unlock(env, &b->lock);
	gm_stat_time(b->as, GM_STAT_ns_cpu_fault, start);
	return left;
}
