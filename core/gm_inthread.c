/* SPDX-License-Identifier: MIT */
/*
 * Faults served in the thread that faulted (GM_MEM_INTHREAD), and bringing memory home before a system call.
 *
 *     SIGBUS --the program's signal handler--> gm_inthread_serve()
 *
 *         reader held --no such memory--> NOENT        nothing that was told is unhandled, so this is known
 *              |      --it was, less than a second ago--> SUCCESS    as the access was made before
 *              |      --a few pages, nothing in the way; a hole; a store that ends duplicates; a transaction
 *              |        in which nothing has to be waited for-----------------------------------> SUCCESS
 *              |      --lost--> NODEV          --gave up on it before (`failed`)--> TIMEDOUT
 *              |      --busy, held, on a device that makes one wait--> `wanted`, as by the handler: the worker
 *              |        does it; looked at again when its block says so, a millisecond later at most --.
 *              |      --no page of a block: asked of the handler, which alone may serve that ----------|
 *              '---<-----------------------------------------------------------------------------------'
 *
 * Who holds the reader (gm_events_hold_reader()) stands where the handler stands: every event that was read is handled,
 * and none is read meanwhile; what is unread the kernel knows (the host says AGAIN). So the steps are the handler's own
 * (gm_fault_cpu_own()), those that make their page busy first. What the handler does without, because nobody takes
 * pages while it handles a message, is not for us: several may hold the reader at once. That is only
 * memory which no block and no region know, such as what mremap() added; it is rare, and the handler is asked.
 *
 * Why a signal handler may do this. The signal is of the access itself, so the thread is in the program's code, or in libc
 * on its behalf, or where a call of ours reads what it was handed or hands something out, which it does without a lock (where
 * locks are checked, any other place aborts). So it holds none of ours: a lock is free, or another thread has it, which runs on. That
 * one may be waiting for our thread only if the program makes it, in a callback, which may not touch managed memory. Memory
 * comes from the library's own arena, not from malloc(), whose lock the thread may hold (race_inthread.c counts). No
 * operation of a device is called but those that may be called in the fault handler. errno, the text of the last error and
 * whether the thread can be cancelled are put back.
 *
 * Failure: nothing has changed. Bounds: the worker's (hold_ns, wait_ns); after both, and a second, TIMEDOUT whatever happens.
 */
#include "config.h"

#include <gmem/inthread.h>
#include <gmem/mem.h>

#include <errno.h>
#include <string.h>

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_fault.h"
#include "core/gm_mem.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

#define YIELDS 16 /* the handler's rounds are short: so often before we sleep for one */
#define LAST_NS UINT64_C(1000000000)

void gm_inthread_init(struct gm_as *as)
{
	STAILQ_INIT(&as->asks.queue);
}

gm_ret_t gm_inthread_mark(struct gm_as *as, uint64_t va, uint64_t end, uint32_t mem_flags)
{
	bool on = mem_flags & GM_MEM_INTHREAD;

	if (on && (as->cfg.flags & GM_AS_FORK_SERVE))
		return gm_fail(GM_RET_NOTSUP, "GM_MEM_INTHREAD: not in a space whose children are served (GM_AS_FORK_SERVE)");
	if (on)
		atomic_store(&as->asks.used, true);
	return va < end ? gm_hal_mem_inthread(as->host, as->hpmap, va, end - va, on) : GM_RET_SUCCESS;
}

void gm_inthread_end(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_inthread_asks *asks = &as->asks;
	uint64_t now_ns;

	if (!atomic_load_explicit(&asks->used, memory_order_relaxed))
		return;
	now_ns = gm_now_ns(as->env);
	gm_lock(as->env, &as->lock);
	asks->ended[asks->next].va = va;
	asks->ended[asks->next].end = end;
	asks->ended[asks->next].until_ns = now_ns + LAST_NS;
	asks->next = (asks->next + 1) % GM_INTHREAD_ENDED;
	gm_unlock(as->env, &as->lock);
}

static bool has_just_ended(struct gm_as *as, uint64_t va)
{
	uint64_t now_ns = gm_now_ns(as->env);
	bool yes = false;

	gm_lock(as->env, &as->lock);
	for (unsigned i = 0; i < GM_INTHREAD_ENDED; i++)
		yes |= va >= as->asks.ended[i].va && va < as->asks.ended[i].end && now_ns < as->asks.ended[i].until_ns;
	gm_unlock(as->env, &as->lock);
	return yes;
}

void gm_inthread_forget(struct gm_block *b, const struct gm_mask *pages)
{
	GM_MASK_FOR_RUN(pages, first, end)
		(void)gm_inthread_mark(b->as, b->va + (uint64_t)first * GM_PAGE_BYTES, b->va + (uint64_t)end * GM_PAGE_BYTES, 0);
}

/* ----------------------------------------------------------- the handler's part */

void gm_inthread_answer(struct gm_as *as)
{
	struct gm_inthread_ask *a;

	while (atomic_load(&as->asks.n)) {
		gm_lock(as->env, &as->lock);
		a = STAILQ_FIRST(&as->asks.queue);
		if (a) {
			STAILQ_REMOVE_HEAD(&as->asks.queue, link);
			atomic_fetch_sub(&as->asks.n, 1);
			a->state = GM_ASK_TAKEN;
		}
		gm_unlock(as->env, &as->lock);
		if (!a)
			return;
		(void)gm_fault_cpu(as, a->va, true, 0); /* no memory: it is asked again */
		gm_lock(as->env, &as->lock);
		a->state = GM_ASK_DONE;
		gm_unlock(as->env, &as->lock);
	}
}

static void ask_handler(struct gm_as *as, uint64_t va, uint64_t deadline_ns)
{
	struct gm_inthread_ask a = { .va = va, .state = GM_ASK_QUEUED };
	bool done = false;

	gm_lock(as->env, &as->lock);
	STAILQ_INSERT_TAIL(&as->asks.queue, &a, link);
	atomic_fetch_add(&as->asks.n, 1);
	gm_unlock(as->env, &as->lock);
	while (!done) {
		gm_hal_msg_kick(as->host, as->hpmap);
		(void)gm_events_let_run(as);
		gm_lock(as->env, &as->lock);
		if (a.state == GM_ASK_QUEUED && gm_now_ns(as->env) >= deadline_ns) {
			STAILQ_REMOVE(&as->asks.queue, &a, gm_inthread_ask, link);
			atomic_fetch_sub(&as->asks.n, 1);
			a.state = GM_ASK_DONE;
		}
		done = a.state == GM_ASK_DONE;
		gm_unlock(as->env, &as->lock);
	}
}

/* ------------------------------------------------------------ the thread's part */

/* Is the page there? SUCCESS, EXIST (no), FAULT (nothing is mapped), AGAIN (it cannot be told now). */
static gm_ret_t is_present(struct gm_as *as, uint64_t va)
{
	uint64_t block = gm_block_base(va);
	struct gm_mask present;
	gm_ret_t ret = gm_hal_mem_present(as->host, as->hpmap, block, &present);

	if (ret)
		return ret == GM_RET_FAULT ? ret : GM_RET_AGAIN;
	return gm_mask_test(&present, (unsigned)((va - block) / GM_PAGE_BYTES)) ? GM_RET_SUCCESS : GM_RET_EXIST;
}

/*
 * (reader held) In no block, or not as its block says. Not such memory any more, of which nobody was told: NOENT. Present:
 * SUCCESS, or NODEV as it has a mark, or is broken. Absent: EXIST, the handler's. AGAIN: look again.
 */
static gm_ret_t look_at_strange(struct gm_as *as, uint64_t va)
{
	struct gm_host_vma vma;
	bool marked = false;
	gm_ret_t ret = gm_hal_mem_rights(as->host, as->hpmap, va, &vma);

	if (ret == GM_RET_FAULT)
		return GM_RET_SUCCESS; /* nothing is mapped: the next access says so */
	if (!ret && !vma.private_anon)
		return GM_RET_NOENT;
	ret = ret ? GM_RET_AGAIN : is_present(as, va);
	if (!ret && gm_mem_is_marked(as, va, &marked))
		ret = GM_RET_AGAIN;
	if (ret || !marked)
		return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret;
	/* Or it was taken between the two looks, as somebody has just adopted it. */
	ret = is_present(as, va);
	if (ret == GM_RET_FAULT)
		return GM_RET_SUCCESS;
	return ret ? GM_RET_AGAIN : GM_RET_NODEV;
}

/* (reader held) Such memory, or grown from it in one mapping, of which nobody is told? SUCCESS, NOENT; AGAIN: look again. */
static gm_ret_t is_ours(struct gm_as *as, uint64_t va)
{
	struct gm_host_vma vma;
	gm_ret_t ret;

	if (gm_hal_inthread_has(as->host, as->hpmap, va, GM_PAGE_BYTES))
		return GM_RET_SUCCESS;
	ret = gm_hal_mem_rights(as->host, as->hpmap, va, &vma);
	if (ret)
		return ret == GM_RET_FAULT ? GM_RET_NOENT : GM_RET_AGAIN;
	return vma.private_anon && gm_hal_inthread_has(as->host, as->hpmap, vma.va, vma.bytes) ? ret : GM_RET_NOENT;
}

static bool is_managed(struct gm_as *as, uint64_t va)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_find(&as->regions, va, &buf);
	gm_unlock(as->env, &as->lock);
	return r && r->kind != GM_REGION_EDGE;
}

/* (reader held) *b: where to wait. EXIST: ask the handler. AGAIN: look again. */
static gm_ret_t attempt(struct gm_as *as, uint64_t va, struct gm_block **b)
{
	gm_ret_t ret;

	if (gm_remap_awaits(as, va) || gm_block_seek(as, va, b))
		return GM_RET_AGAIN;
	if (!*b && is_managed(as, va) && gm_block_obtain(as, va, b))
		return GM_RET_AGAIN;
	if (!*b)
		return look_at_strange(as, va);
	ret = gm_fault_cpu_own(*b, gm_page_of(*b, va), gm_now_ns(as->env));
	return ret == GM_RET_EXIST ? look_at_strange(as, va) : ret;
}

/* Until its page is free, or a millisecond. */
static void wait_at(struct gm_block *b, uint64_t va)
{
	struct gm_env *env = b->as->env;
	unsigned page = gm_page_of(b, va);

	gm_lock(env, &b->lock);
	if (gm_mask_test(&b->busy, page) || gm_mask_test(&b->doomed, page) || gm_mask_test(&b->wanted, page))
		(void)gm_wait(env, &b->waitq, &b->lock, gm_deadline_ns(env, GM_WORK_RETRY_NS));
	gm_unlock(env, &b->lock);
}

static void wait_a_moment(struct gm_as *as, struct gm_block *b, uint64_t va, unsigned tries)
{
	if (b)
		wait_at(b, va);
	else if (tries < YIELDS)
		gm_yield(as->env);
	else
		(void)gm_events_let_run(as);
}

/* `any`: also memory that is not such. */
static gm_ret_t serve(struct gm_as *as, uint64_t va, bool any)
{
	uint64_t now_ns = gm_now_ns(as->env), deadline_ns = gm_deadline_after_ns(now_ns, as->cfg.hold_ns);
	gm_ret_t ret = GM_RET_AGAIN;

	deadline_ns = gm_deadline_after_ns(gm_deadline_after_ns(deadline_ns, as->cfg.wait_ns), LAST_NS);
	for (unsigned tries = 0; ret == GM_RET_AGAIN; tries++) {
		struct gm_block *b = NULL;

		if (tries > YIELDS && gm_now_ns(as->env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "0x%llx did not come home in time", (unsigned long long)va);
		if (gm_events_hold_reader(as)) {
			ret = any ? GM_RET_SUCCESS : is_ours(as, va);
			if (!ret)
				ret = attempt(as, va, &b);
			else if (ret == GM_RET_NOENT && has_just_ended(as, va))
				ret = GM_RET_SUCCESS;
			gm_events_release_reader(as);
		}
		if (ret == GM_RET_AGAIN)
			wait_a_moment(as, b, va, tries);
		gm_block_put(b);
	}
	if (ret == GM_RET_EXIST) {
		ask_handler(as, va, deadline_ns);
		return GM_RET_SUCCESS; /* the access is made again, and comes again where it was in vain */
	}
	return ret;
}

gm_ret_t gm_inthread_serve(struct gm_as *as, uint64_t va)
{
	int err = errno, cancel = gm_env_cancel_off(); /* the thread makes an access, which is no cancellation point */
	char text[GM_MESSAGE_BYTES];
	gm_ret_t ret;

	memcpy(text, gm_last_error(), strlen(gm_last_error()) + 1);
	ret = gm_handle_check(as, GM_HANDLE_AS);
	if (!ret)
		ret = va < as->begin || va >= as->end ? GM_RET_NOENT : serve(as, va & ~(uint64_t)(GM_PAGE_BYTES - 1), false);
	if (!ret && strcmp(text, gm_last_error()) != 0)
		gm_fail_note("%s", text);
	gm_env_cancel_back(cancel);
	errno = err;
	return ret;
}

/* ---------------------------------------------------------------- before a system call */

/* What is watched of the block's part and absent. */
static gm_ret_t fill_holes(struct gm_block *b, uint64_t va, uint64_t end)
{
	struct gm_as *as = b->as;
	struct gm_mask present, absent;
	gm_ret_t ret;

	ret = gm_hal_mem_present(as->host, as->hpmap, b->va, &present);
	if (ret)
		return ret == GM_RET_FAULT ? GM_RET_SUCCESS : ret; /* nothing is mapped */
	gm_lock(as->env, &b->lock);
	absent = gm_mask_sub(gm_mask_and(gm_block_clip(b, va, end), b->registered), present);
	gm_unlock(as->env, &b->lock);
	GM_MASK_FOR_RUN(&absent, first, stop)
		for (unsigned page = first; page < stop && !ret; page++)
			ret = serve(as, b->va + (uint64_t)page * GM_PAGE_BYTES, true);
	return ret;
}

static gm_ret_t prefault_block(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_mask pages = gm_block_clip(b, va, end);
	struct gm_env *env = b->as->env;
	gm_ret_t ret = gm_mem_pages_home(b, &pages, deadline_ns);
	bool lost;

	if (!ret)
		ret = gm_dup_end(b, &pages, NULL, deadline_ns);
	if (!ret)
		ret = fill_holes(b, va, end);
	gm_lock(env, &b->lock);
	lost = gm_mask_meets(&b->poisoned, &pages);
	gm_unlock(env, &b->lock);
	return !ret && lost ? gm_fail(GM_RET_NODEV, "content near 0x%llx was lost with a device", (unsigned long long)b->va) : ret;
}

gm_ret_t gm_prefault(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	uint64_t end, at, deadline_ns;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);
	struct gm_block *b = NULL;

	if (!ret)
		ret = gm_as_check_range(as, "gm_prefault", va, bytes);
	if (ret)
		return ret;
	end = (va + bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_events_settle(as, deadline_ns);
	for (at = va; !ret && at < end;) {
		ret = gm_block_next_by(as, at, end, deadline_ns, &b);
		if (ret || !b)
			return ret;
		ret = prefault_block(b, va, end, deadline_ns);
		at = b->va + GM_BLOCK_BYTES;
		gm_block_put(b);
	}
	return ret;
}
