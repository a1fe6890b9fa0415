/* SPDX-License-Identifier: MIT */
/*
 * Faults of kernel threads.
 *
 *     raise: waiting, queued --fault_next--> waiting, reported
 *     waiting (queued or not) --fault_done(SUCCESS) that covers the page--> done(SUCCESS)
 *     waiting, reported --fault_done(failure) that covers the page--> done(failure)
 *     waiting --page table destroyed--> done(CANCELED)
 *     waiting --device lost--> done(NODEV)
 *
 * Each thread has one record, so the queue has no size that could overflow,
 * and several threads at one page are several faults. SUCCESS as the answer
 * makes the thread try its access again, which may fault again. A fault that
 * is served before it was reported leaves the queue.
 *
 * fault_next() may be called with locks of the core held and must never block:
 * it takes a spin flag only, whose holders do not switch.
 */
#include "config.h"

#include <assert.h>

#include "backends/mock/gm_mock_internal.h"

static void fifo_insert(struct gm_mock *m, struct gm_mock_fault *fault)
{
	gm_mock_spin_lock_short(&m->fault_lock);
	TAILQ_INSERT_TAIL(&m->fault_fifo, fault, fifo_link);
	fault->queued = true;
	gm_mock_spin_unlock(&m->fault_lock);
	gm_mock_count(&m->faults, 1);
}

static void fifo_remove(struct gm_mock *m, struct gm_mock_fault *fault)
{
	gm_mock_spin_lock_short(&m->fault_lock);
	if (fault->queued)
		TAILQ_REMOVE(&m->fault_fifo, fault, fifo_link);
	fault->queued = false;
	gm_mock_spin_unlock(&m->fault_lock);
}

/* Whether this fault is one that the planted bug loses. */
static bool is_lost(struct gm_mock *m)
{
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_LOST_FAULT))
		return false;
	return (atomic_fetch_add(&m->bug_faults, 1) + 1) % GM_MOCK_BUG_PERIOD == 0;
}

gm_ret_t gm_mock_fault_raise(struct gm_mock_thread *thread, uint64_t va, uint32_t access)
{
	struct gm_mock_fault *fault = &thread->fault;
	struct gm_mock *m = thread->pmap->dev;
	const struct gm_services *svc = m->svc;
	struct gm_mock_event event = { .kind = GM_MOCK_EV_FAULT, .pmap = thread->pmap, .pte = access,
				       .va = va & ~(m->granule_bytes - 1), .bytes = m->granule_bytes };
	uint64_t raised_ns = gm_mock_cost_fault(m);
	bool lost = is_lost(m);

	svc->lock(svc->self, &m->lock);
	if (thread->pmap->dying || gm_mock_is_lost(m)) {
		svc->unlock(svc->self, &m->lock);
		return gm_mock_is_lost(m) ? GM_RET_NODEV : GM_RET_CANCELED;
	}
	*fault = (struct gm_mock_fault){
		.pmap = thread->pmap,
		.va = event.va,
		.access = access,
	};
	TAILQ_INSERT_TAIL(&m->fault_waiters, fault, wait_link);
	if (!lost)
		fifo_insert(m, fault);
	svc->unlock(svc->self, &m->lock);
	gm_mock_note(m, &event);
	if (!lost && !gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_SILENT))
		svc->fault_ready(svc->self);

	svc->lock(svc->self, &m->lock);
	while (!fault->done)
		(void)svc->wait(svc->self, &m->fault_waitq, &m->lock, GM_FOREVER_NS);
	svc->unlock(svc->self, &m->lock);
	gm_mock_cost_answer(m, raised_ns);
	return fault->result;
}

static void answer_one(struct gm_mock *m, struct gm_mock_fault *fault, gm_ret_t result)
{
	TAILQ_REMOVE(&m->fault_waiters, fault, wait_link);
	fifo_remove(m, fault);
	fault->result = result;
	fault->done = true;
}

/* Whether this result is for it: a failure is for what was reported. */
static bool is_meant(struct gm_mock *m, struct gm_mock_fault *fault, gm_ret_t result)
{
	bool reported;

	gm_mock_spin_lock_short(&m->fault_lock);
	reported = fault->reported;
	gm_mock_spin_unlock(&m->fault_lock);
	return result == GM_RET_SUCCESS || reported || fault->pmap->dying || gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_UNNAMED);
}

/* Let the waiters of a range go on. */
static void answer(struct gm_mock_pmap *pmap, uint64_t va, uint64_t end, gm_ret_t result)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_fault *fault, *next;

	TAILQ_FOREACH_SAFE(fault, &m->fault_waiters, wait_link, next) {
		if (fault->pmap != pmap || fault->va >= end || va >= fault->va + m->granule_bytes ||
		    !is_meant(m, fault, result))
			continue;
		answer_one(m, fault, result);
		if (gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_ONE_WAITER) && !pmap->dying)
			return;
	}
}

void gm_mock_fault_answer_all(struct gm_mock *m, gm_ret_t result)
{
	struct gm_mock_fault *fault, *next;

	m->svc->lock(m->svc->self, &m->lock);
	TAILQ_FOREACH_SAFE(fault, &m->fault_waiters, wait_link, next)
		answer_one(m, fault, result);
	m->svc->unlock(m->svc->self, &m->lock);
	m->svc->wake(m->svc->self, &m->fault_waitq);
}

void gm_mock_fault_cancel(struct gm_mock_pmap *pmap)
{
	struct gm_mock *m = pmap->dev;

	m->svc->lock(m->svc->self, &m->lock);
	pmap->dying = true;
	answer(pmap, 0, UINT64_MAX, gm_mock_has_bug(m, GM_MOCK_BUG_DESTROY_RESULT) ? GM_RET_FAULT : GM_RET_CANCELED);
	m->svc->unlock(m->svc->self, &m->lock);
	m->svc->wake(m->svc->self, &m->fault_waitq);
}

gm_ret_t gm_mock_fault_next(void *dev, struct gm_dev_fault *out)
{
	struct gm_mock *m = dev;
	struct gm_mock_fault *fault;

	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	gm_mock_bug_fault_next(m);
	gm_mock_spin_lock_short(&m->fault_lock);
	fault = TAILQ_FIRST(&m->fault_fifo);
	if (fault) {
		fault->reported = true;
		fault->repeated = gm_mock_has_bug(m, GM_MOCK_BUG_FAULT_TWICE) && !fault->repeated;
		if (!fault->repeated) {
			TAILQ_REMOVE(&m->fault_fifo, fault, fifo_link);
			fault->queued = false;
		}
		*out = (struct gm_dev_fault){ .pmap = fault->pmap, .va = fault->va, .access = fault->access };
		gm_mock_bug_fault_named(m, out);
	}
	gm_mock_spin_unlock(&m->fault_lock);
	return fault ? GM_RET_SUCCESS : GM_RET_AGAIN;
}

gm_ret_t gm_mock_fault_done(void *pmap_ptr, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	struct gm_mock_pmap *pmap = pmap_ptr;
	struct gm_mock *m = pmap->dev;
	struct gm_mock_event event = { .kind = GM_MOCK_EV_DONE, .pmap = pmap, .va = va, .bytes = bytes, .ret = result };

	assert(va % m->granule_bytes == 0 && bytes > 0 && bytes % m->granule_bytes == 0);
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	if (gm_mock_bug_short(m, GM_MOCK_BUG_NEEDS_MEMORY))
		return GM_RET_NOMEM;
	gm_mock_bug_fault_done(m, &bytes, &result);
	gm_mock_note(m, &event);
	m->svc->lock(m->svc->self, &m->lock);
	answer(pmap, va, va + bytes, result);
	m->svc->unlock(m->svc->self, &m->lock);
	m->svc->wake(m->svc->self, &m->fault_waitq);
	return GM_RET_SUCCESS;
}
