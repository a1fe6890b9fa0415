/* SPDX-License-Identifier: MIT */
/*
 * Kernels: launches, their threads, and the accesses of those.
 *
 *     made --every thread started--> running --last kernel returned--> finished --reap--> gone
 *       \--one could not be started--> aborted: the others end without running the kernel
 *
 * The threads wait at a gate until all of them exist, because a kernel that
 * ran cannot be taken back. Nobody waits for a launch: those that finished are
 * joined at the next launch and, with all the others, when the page table or
 * the device goes away.
 *
 * An access is cut at 4 KiB boundaries. One that finds no translation, or not
 * the right, raises a fault and is tried again for as long as the answer is
 * SUCCESS. Host memory that the bus cannot reach counts as a fault as well,
 * but not for ever: the mapping may be there and its memory not.
 */
#include "config.h"

#include <string.h>

#include "backends/mock/gm_mock_internal.h"

/* Answers in a row after which host memory is still not accessible. */
#define MAX_HOST_TRIES 16u

enum gate {
	GATE_CLOSED,
	GATE_OPEN,
	GATE_ABORTED,
};

struct gm_mock_launch {
	TAILQ_ENTRY(gm_mock_launch) link; /* (L) */
	struct gm_mock_pmap *pmap;
	struct gm_fence *fence;           /* one reference, until signalled */
	gm_mock_kernel kernel;
	void *arg;
	unsigned n;
	enum gate gate;                   /* (L) */
	unsigned running;                 /* (L) */
	gm_ret_t ret;                     /* (L) first failure */
	atomic_bool finished;             /* the last thread does nothing more */
	size_t bytes;                     /* of this allocation */
	struct gm_mock_xlate *entries;    /* n TLBs, behind the threads */
	struct gm_mock_thread thread[];
};

static bool gate_pass(struct gm_mock *m, struct gm_mock_launch *launch)
{
	const struct gm_services *svc = m->svc;
	bool open;

	svc->lock(svc->self, &m->lock);
	while (launch->gate == GATE_CLOSED)
		(void)svc->wait(svc->self, &m->gate_waitq, &m->lock, GM_FOREVER_NS);
	open = launch->gate == GATE_OPEN;
	svc->unlock(svc->self, &m->lock);
	return open;
}

static void gate_set(struct gm_mock *m, struct gm_mock_launch *launch, enum gate gate)
{
	const struct gm_services *svc = m->svc;

	svc->lock(svc->self, &m->lock);
	launch->gate = gate;
	if (gate == GATE_OPEN)
		TAILQ_INSERT_TAIL(&m->launches, launch, link);
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->gate_waitq);
}

static void thread_main(void *arg)
{
	struct gm_mock_thread *thread = arg;
	struct gm_mock_launch *launch = thread->launch;
	struct gm_mock *m = thread->pmap->dev;
	const struct gm_services *svc = m->svc;
	gm_ret_t ret;
	bool last;

	if (!gate_pass(m, launch))
		return;
	ret = launch->kernel(thread, thread->index, launch->arg);
	gm_mock_dismiss_thread(thread);
	gm_mock_tlb_unlink(thread->pmap, &thread->tlb);
	svc->lock(svc->self, &m->lock);
	if (launch->ret == GM_RET_SUCCESS)
		launch->ret = ret;
	last = --launch->running == 0;
	ret = launch->ret;
	svc->unlock(svc->self, &m->lock);
	if (!last)
		return;
	svc->fence_signal(svc->self, launch->fence, ret);
	svc->fence_put(svc->self, launch->fence);
	atomic_store(&launch->finished, true);
}

static struct gm_mock_launch *launch_alloc(struct gm_mock_pmap *pmap, unsigned n)
{
	struct gm_mock *m = pmap->dev;
	size_t head = sizeof(struct gm_mock_launch) + n * sizeof(struct gm_mock_thread);
	size_t bytes = head + (size_t)n * m->config.tlb_entries * sizeof(struct gm_mock_xlate);
	struct gm_mock_launch *launch = m->svc->alloc(m->svc->self, bytes);

	_Static_assert(sizeof(struct gm_mock_launch) % _Alignof(struct gm_mock_xlate) == 0, "TLBs aligned");
	_Static_assert(sizeof(struct gm_mock_thread) % _Alignof(struct gm_mock_xlate) == 0, "TLBs aligned");
	if (!launch)
		return NULL;
	launch->bytes = bytes;
	launch->pmap = pmap;
	launch->n = n;
	launch->running = n;
	launch->entries = (struct gm_mock_xlate *)(void *)((char *)launch + head);
	return launch;
}

/* Join the first `n` threads and free the launch. */
static void launch_end(struct gm_mock *m, struct gm_mock_launch *launch, unsigned n)
{
	for (unsigned i = 0; i < launch->n; i++)
		gm_mock_dismiss_thread(&launch->thread[i]); /* those that did not run */
	for (unsigned i = 0; i < n; i++)
		m->svc->thread_join(m->svc->self, launch->thread[i].thread);
	m->svc->free(m->svc->self, launch, launch->bytes);
}

static struct gm_mock_launch *reap_next(struct gm_mock *m, struct gm_mock_pmap *pmap)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_launch *launch;

	svc->lock(svc->self, &m->lock);
	TAILQ_FOREACH(launch, &m->launches, link) {
		if (atomic_load(&launch->finished) || (pmap && launch->pmap == pmap))
			break;
	}
	if (launch)
		TAILQ_REMOVE(&m->launches, launch, link);
	svc->unlock(svc->self, &m->lock);
	return launch;
}

void gm_mock_launch_reap(struct gm_mock *m, struct gm_mock_pmap *pmap)
{
	struct gm_mock_launch *launch;

	while ((launch = reap_next(m, pmap)))
		launch_end(m, launch, launch->n);
}

gm_ret_t gm_mock_launch_start(struct gm_mock_pmap *pmap, gm_mock_kernel kernel, void *arg, unsigned threads,
			      struct gm_fence *fence)
{
	struct gm_mock *m = pmap->dev;
	struct gm_mock_launch *launch;
	gm_ret_t ret;

	gm_mock_launch_reap(m, NULL);
	launch = launch_alloc(pmap, threads);
	if (!launch)
		return GM_RET_NOMEM;
	launch->kernel = kernel;
	launch->arg = arg;
	launch->fence = fence;
	for (unsigned i = 0; i < threads; i++) {
		struct gm_mock_thread *thread = &launch->thread[i];

		thread->launch = launch;
		thread->pmap = pmap;
		thread->via = &thread->tlb;
		thread->index = i;
		ret = gm_mock_admit_thread(thread);
		if (ret == GM_RET_SUCCESS)
			ret = m->svc->thread_start(m->svc->self, "gm-mock", GM_THREAD_DEVICE, thread_main, thread,
						   &thread->thread);
		if (ret != GM_RET_SUCCESS) {
			gate_set(m, launch, GATE_ABORTED);
			launch_end(m, launch, i);
			return ret;
		}
	}
	for (unsigned i = 0; i < threads; i++)
		gm_mock_tlb_link(pmap, &launch->thread[i].tlb, &launch->entries[(size_t)i * m->config.tlb_entries]);
	gate_set(m, launch, GATE_OPEN);
	return GM_RET_SUCCESS;
}

static uint32_t fault_access(enum gm_mock_access kind)
{
	switch (kind) {
	case GM_MOCK_LOAD:
		return GM_READ;
	case GM_MOCK_STORE:
		return GM_WRITE;
	case GM_MOCK_ADD:
	case GM_MOCK_SWAP:
		break;
	}
	return GM_ATOMIC;
}

/* One access inside a 4 KiB page, tried again after each fault that was served. */
static gm_ret_t access_page(struct gm_mock_thread *thread, uint64_t va, void *buf, size_t bytes,
			    enum gm_mock_access kind)
{
	struct gm_mock_pmap *pmap = thread->pmap;
	unsigned host_tries = 0;
	gm_ret_t ret, answer;

	for (;;) {
		ret = gm_mock_tlb_access(pmap, thread->via, va, buf, bytes, kind);
		if (ret == GM_RET_AGAIN || ret == GM_RET_NOTSUP) { /* refused by the bus; an atomic access that it does not carry */
			if (++host_tries > MAX_HOST_TRIES || (ret == GM_RET_NOTSUP && pmap->dev->config.no_faults))
				return ret == GM_RET_AGAIN ? GM_RET_FAULT : ret;
			ret = GM_RET_FAULT;
		}
		if (ret != GM_RET_FAULT && ret != GM_RET_PERM)
			return ret;
		if (pmap->dev->config.no_faults)
			return ret;
		answer = gm_mock_fault_raise(thread, va, fault_access(kind));
		if (answer != GM_RET_SUCCESS)
			return answer;
	}
}

gm_ret_t gm_mock_access_range(struct gm_mock_thread *thread, uint64_t va, void *buf, size_t bytes,
			      enum gm_mock_access kind)
{
	uint64_t limit = UINT64_C(1) << thread->pmap->dev->config.va_bits;
	gm_ret_t ret = GM_RET_SUCCESS;

	if (va >= limit || bytes > limit - va)
		return GM_RET_FAULT;
	while (bytes > 0 && ret == GM_RET_SUCCESS) {
		size_t n = GM_PAGE_BYTES - va % GM_PAGE_BYTES;

		if (n > bytes)
			n = bytes;
		ret = access_page(thread, va, buf, n, kind);
		va += n;
		buf = (char *)buf + n;
		bytes -= n;
	}
	return ret;
}

gm_ret_t gm_mock_touch(struct gm_mock_pmap *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct gm_mock_thread thread = { .pmap = pmap, .via = &pmap->job };
	const struct gm_services *svc = pmap->dev->svc;
	gm_ret_t ret;

	svc->lock(svc->self, &pmap->dev->lock);
	pmap->touches++;
	svc->unlock(svc->self, &pmap->dev->lock);
	ret = gm_mock_access_range(&thread, va, buf, bytes, write ? GM_MOCK_STORE : GM_MOCK_LOAD);
	svc->lock(svc->self, &pmap->dev->lock);
	if (--pmap->touches == 0)
		svc->wake(svc->self, &pmap->dev->gate_waitq);
	svc->unlock(svc->self, &pmap->dev->lock);
	return ret;
}

void gm_mock_touch_drain(struct gm_mock_pmap *pmap)
{
	const struct gm_services *svc = pmap->dev->svc;

	svc->lock(svc->self, &pmap->dev->lock);
	while (pmap->touches > 0)
		(void)svc->wait(svc->self, &pmap->dev->gate_waitq, &pmap->dev->lock, GM_FOREVER_NS);
	svc->unlock(svc->self, &pmap->dev->lock);
}

void gm_mock_thread_yield(struct gm_mock_thread *thread)
{
	const struct gm_services *svc = thread->pmap->dev->svc;

	svc->yield(svc->self);
}
