/* SPDX-License-Identifier: MIT */
/*
 * A small backend that keeps every rule of gmem/hal.h, and breaks the one that `toy_breaks` names; and the shim around
 * it, on services with a clock of its own, driven by hand.
 *
 *     device memory   1 MiB at TOY_PA, half of it announced; each page has bytes of its own
 *     page table      an array of entries, and beside it what a TLB keeps until tlb_invl()
 *     copies, plans   done before the call returns
 */
#ifndef SHIM_TOY_H
#define SHIM_TOY_H

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <gmem/validate.h>

#include "mock_services.h"
#include "shim_breaks.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define TOY_PAGES 64u
#define TOY_VA UINT64_C(0x400000)
#define TOY_PA UINT64_C(0x10000000)
#define TOY_MEM ((size_t)1 << 20)
#define TOY_CONTEXTS 2u
#define SECOND_NS UINT64_C(1000000000)
#define ENTRY_M UINT64_C(1)
#define ENTRY_FLAGS UINT64_C(4095)

struct toy {
	const struct gm_services *svc;
	struct gm_mutex lock, spare;
	struct gm_waitq queue;
	uint8_t *mem;
	unsigned pmaps, calls;
	bool kept, lost;
	struct gm_thread *thread;
	struct gm_dev_fault fault;
	bool has_fault;
	struct gm_fence *late;
};

struct toy_pmap {
	struct toy *toy;
	uint64_t cur[TOY_PAGES + 1], tlb[TOY_PAGES + 1]; /* one that is never entered behind */
	uint8_t bits[TOY_PAGES];
};

/* The one device of a test. */
static struct toy *toy_last;
static struct toy_pmap *toy_twice;

/* What an operation returns that succeeds: unless it is the one that says something unlisted. */
static inline gm_ret_t done(struct toy *t, int op)
{
	if (t->lost && !breaks(GM_RULE_LOST_ALIVE))
		return GM_RET_NODEV;
	return breaks(TOY_RESULT + op) ? GM_RET_EXIST : GM_RET_SUCCESS;
}

enum { OP_CREATE, OP_ENTER, OP_REMOVE, OP_INVL, OP_COPY, OP_PROTECT, OP_SUBMIT, OP_ACCESS, OP_NEXT, OP_DONE, OP_HARVEST,
       OP_SYNC, OP_IMPORT, OP_PEER, TOY_OPS };

static inline void toy_idle(void *arg)
{
	(void)arg;
}

static inline gm_ret_t toy_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct toy *t = svc->alloc(svc->self, sizeof(*t));

	(void)dev_data;
	if (fails()) {
		if (breaks(TOY_INIT_TOUCHED))
			*dev = t;
		if (breaks(TOY_INIT_LEAK))
			toy_leaked = t;
		else
			svc->free(svc->self, t, sizeof(*t));
		return GM_RET_NOMEM;
	}
	*t = (struct toy){ .svc = svc };
	t->mem = svc->alloc(svc->self, TOY_MEM);
	for (size_t i = 0; i < TOY_MEM; i++)
		t->mem[i] = (uint8_t)(i / PAGE + 1);
	svc->mutex_init(svc->self, &t->lock);
	svc->mutex_init(svc->self, &t->spare);
	svc->waitq_init(svc->self, &t->queue);
	*caps = (struct gm_dev_caps){
		.name = "toy",
		.caps = GM_CAP_FAULTS | GM_CAP_HOST_MAP | GM_CAP_CPU_VISIBLE | GM_CAP_FAST_INVL | GM_CAP_SUBMIT |
			GM_CAP_ACCESS | GM_CAP_PROTECT | GM_CAP_DIRTY | GM_CAP_SYNC | GM_CAP_PEER,
		.va_bits = 40,
		.page_sizes = PAGE,
		.max_contexts = TOY_CONTEXTS,
		.slabs = breaks(GM_RULE_CAPS) ? 2 : 1, /* the second overlaps the first */
		.slab = { { TOY_PA, TOY_PA + TOY_MEM / 2 }, { TOY_PA, TOY_PA + GM_UNIT_BYTES } },
	};
	caps->caps &= ~toy_no_caps;
	toy_last = t;
	*dev = breaks(GM_RULE_DEV_NULL) ? NULL : t;
	return GM_RET_SUCCESS;
}

static inline void toy_fini(void *dev)
{
	struct toy *t = toy_last;
	const struct gm_services *svc = t->svc;

	(void)dev;
	if (t->kept)
		svc->unlock(svc->self, &t->spare);
	if (breaks(GM_RULE_PMAP_TWICE) || t->pmaps)
		svc->free(svc->self, toy_twice, sizeof(*toy_twice));
	if (breaks(GM_RULE_THREAD_LEFT))
		(void)svc->thread_start(svc->self, "toy", 0, toy_idle, NULL, &t->thread);
	if (breaks(GM_RULE_LEAK))
		toy_leaked = svc->alloc(svc->self, 64);
	if (breaks(GM_RULE_FREE_UNKNOWN))
		svc->free(svc->self, &toy_clock_ns, 8);
	if (!breaks(GM_RULE_LOCK_LEFT))
		svc->mutex_fini(svc->self, &t->lock);
	if (!breaks(TOY_QUEUE_LEFT))
		svc->waitq_fini(svc->self, &t->queue);
	svc->mutex_fini(svc->self, &t->spare);
	svc->free(svc->self, t->mem, breaks(GM_RULE_FREE_BYTES) ? TOY_MEM - 1 : TOY_MEM);
	toy_leaked = breaks(GM_RULE_THREAD_LEFT) ? t->thread : toy_leaked;
	svc->free(svc->self, t, sizeof(*t));
}

static inline gm_ret_t toy_create(void *dev, void **pmap)
{
	struct toy *t = toy_last;
	struct toy_pmap *p;

	(void)dev;
	if (fails()) {
		if (breaks(GM_RULE_OUT_TOUCHED))
			*pmap = t;
		return GM_RET_NOMEM;
	}
	if (breaks(GM_RULE_PMAP_NULL))
		return GM_RET_SUCCESS;
	if (breaks(GM_RULE_CONTEXTS_FEWER) || (t->pmaps >= TOY_CONTEXTS && !breaks(GM_RULE_CONTEXTS_MORE)))
		return GM_RET_NOSPC;
	if (done(t, OP_CREATE))
		return done(t, OP_CREATE);
	if (breaks(GM_RULE_PMAP_TWICE) && toy_twice) {
		*pmap = toy_twice;
		return GM_RET_SUCCESS;
	}
	p = t->svc->alloc(t->svc->self, sizeof(*p));
	p->toy = t;
	t->pmaps++;
	*pmap = toy_twice = p;
	return GM_RET_SUCCESS;
}

static inline void toy_destroy(void *pmap)
{
	struct toy_pmap *p = pmap;

	if (!p || breaks(GM_RULE_PMAP_TWICE)) /* there is one, for all; it goes with the device */
		return;
	p->toy->pmaps--;
	p->toy->svc->free(p->toy->svc->self, p, sizeof(*p));
}

static inline unsigned toy_index(uint64_t va)
{
	return (unsigned)((va - TOY_VA) / PAGE);
}

static inline void toy_lock_wrongly(struct toy *t)
{
	static struct gm_mutex never;
	static struct gm_waitq none;
	const struct gm_services *svc = t->svc;

	if (breaks(GM_RULE_LOCK_UNMADE)) {
		svc->lock(svc->self, &never);
		svc->unlock(svc->self, &never);
	}
	if (breaks(TOY_QUEUE_UNMADE))
		svc->wake(svc->self, &none);
	if (breaks(GM_RULE_UNLOCK_FREE))
		svc->unlock(svc->self, &t->lock);
	if (breaks(GM_RULE_WAIT_UNLOCKED))
		(void)svc->wait(svc->self, &t->queue, &t->lock, 0);
	svc->lock(svc->self, &t->lock);
	if (breaks(GM_RULE_LOCK_TWO)) {
		svc->lock(svc->self, &t->spare);
		svc->unlock(svc->self, &t->spare);
	}
	svc->unlock(svc->self, &t->lock);
	if (breaks(GM_RULE_LOCK_KEPT) && !t->kept) {
		svc->lock(svc->self, &t->spare);
		t->kept = true;
	}
}

static inline gm_ret_t toy_enter(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte)
{
	struct toy_pmap *p = pmap;
	bool fail = fails(), elsewhere = breaks(GM_RULE_ENTER_ELSEWHERE);

	toy_lock_wrongly(p->toy);
	if (p->toy->late)
		p->toy->svc->fence_signal(p->toy->svc->self, p->toy->late, GM_RET_SUCCESS);
	if (breaks(GM_RULE_SLOW))
		toy_clock_ns += 20 * SECOND_NS;
	if (fail && !breaks(GM_RULE_FAILED_EFFECT))
		return GM_RET_NOMEM;
	for (uint64_t off = 0; off < bytes && !breaks(GM_RULE_ENTER_LOST); off += PAGE) {
		if (breaks(TOY_ENTER_MOST) && off == bytes - PAGE)
			continue;
		if (!p->cur[toy_index(va + off)] || breaks(TOY_ENTER_CLEARS))
			p->bits[toy_index(va + off)] = 0;
		p->cur[toy_index(va + off)] = ((pa + off) ^ (elsewhere ? PAGE : 0)) | pte | ENTRY_M;
	}
	return fail ? GM_RET_NOMEM : done(p->toy, OP_ENTER);
}

static inline gm_ret_t toy_remove(void *pmap, uint64_t va, uint64_t bytes)
{
	struct toy_pmap *p = pmap;
	bool fail = fails();

	if (fail && !breaks(TOY_REMOVE_FAILED))
		return GM_RET_NOMEM;
	if (breaks(GM_RULE_LOST_ALIVE)) {
		p->toy->lost = true;
		return GM_RET_NODEV;
	}
	for (uint64_t off = 0; off < bytes; off += PAGE)
		p->cur[toy_index(va + off)] = 0;
	if (breaks(GM_RULE_CUT)) /* one more, and at once */
		p->cur[toy_index(va + bytes)] = p->tlb[toy_index(va + bytes)] = 0;
	for (uint64_t off = 0; off < bytes && fail; off += PAGE)
		p->tlb[toy_index(va + off)] = 0;
	return fail ? GM_RET_NOMEM : done(p->toy, OP_REMOVE);
}

static inline gm_ret_t toy_invl(void *pmap, uint64_t va, uint64_t bytes)
{
	struct toy_pmap *p = pmap;
	const struct gm_services *svc = p->toy->svc;

	if (breaks(GM_RULE_INVL_BLOCKS)) {
		svc->lock(svc->self, &p->toy->lock);
		(void)svc->wait(svc->self, &p->toy->queue, &p->toy->lock, 0);
		svc->unlock(svc->self, &p->toy->lock);
	}
	for (uint64_t off = 0; off < bytes && !breaks(GM_RULE_STALE); off += PAGE)
		if (!breaks(TOY_STALE_RIGHT) || !p->cur[toy_index(va + off)])
			p->tlb[toy_index(va + off)] = 0;
	if (breaks(TOY_INVL_CUT))
		p->cur[toy_index(va)] = 0;
	return done(p->toy, OP_INVL);
}

static inline gm_ret_t toy_protect(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct toy_pmap *p = pmap;

	if (fails())
		return GM_RET_NOMEM;
	for (uint64_t off = 0; off < bytes; off += PAGE) {
		uint64_t *e = &p->cur[toy_index(va + off)];

		if (*e && !breaks(TOY_PROTECT_GROWS))
			*e = (*e & ~(uint64_t)(GM_PTE_WRITE | GM_PTE_ATOMIC)) | pte;
		if (!*e && breaks(GM_RULE_PROTECT_FILLED))
			*e = TOY_PA | pte | ENTRY_M;
		if (*e && pte && breaks(TOY_PROTECT_MOVED)) {
			*e ^= PAGE;
			p->tlb[toy_index(va + off)] = 0;
		}
		if (breaks(GM_RULE_PROTECT_HOLE))
			*e = p->tlb[toy_index(va + off)] = 0;
	}
	return done(p->toy, OP_PROTECT);
}

/* One page of an access. */
static inline gm_ret_t toy_touch(struct toy_pmap *p, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct toy *t = p->toy;
	unsigned i = toy_index(va);
	uint64_t e, pa;

	if (i >= TOY_PAGES)
		return GM_RET_FAULT;
	if (!p->tlb[i] || (write && !(p->tlb[i] & GM_PTE_WRITE)))
		p->tlb[i] = p->cur[i];
	e = p->tlb[i];
	if (!e)
		return GM_RET_FAULT;
	if (write && !(e & GM_PTE_WRITE) && !breaks(GM_RULE_WRITE_ALLOWED))
		return GM_RET_PERM;
	p->bits[i] |= GM_PAGE_ACCESSED | (write ? GM_PAGE_DIRTY : 0);
	pa = (e & ~ENTRY_FLAGS) + va % PAGE;
	if (e & GM_PTE_HOST) {
		if (breaks(GM_RULE_HOST_UNMAPPED))
			pa += PAGE;
		return t->svc->host_access(t->svc->self, pa, buf, bytes, write || breaks(GM_RULE_HOST_WRITE));
	}
	if (write)
		memcpy(&t->mem[pa - TOY_PA], buf, bytes);
	else
		memcpy(buf, &t->mem[pa - TOY_PA], bytes);
	return GM_RET_SUCCESS;
}

static inline gm_ret_t toy_access(void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	struct toy_pmap *p = pmap;
	gm_ret_t ret = done(p->toy, OP_ACCESS);

	return ret ? ret : toy_touch(p, va, buf, bytes, write);
}

static inline void toy_piece(struct toy *t, const struct gm_copy *c)
{
	uint8_t *mem = &t->mem[c->pa - TOY_PA];
	void *host = (void *)(uintptr_t)c->host;

	if (c->kind == GM_COPY_ZERO)
		memset(mem, 0, c->bytes - (breaks(GM_RULE_COPY_ZERO) ? 8 : 0));
	else if (c->kind == GM_COPY_TO_DEV)
		memcpy(mem, host, c->bytes - (breaks(GM_RULE_COPY_BYTES) || breaks(TOY_PLAN_COPY) ? 8 : 0));
	else
		memcpy(host, mem, c->bytes - (breaks(TOY_COPY_HOME) ? 8 : 0));
}

static inline void toy_signal(struct toy *t, struct gm_fence *fence, gm_ret_t ret)
{
	static char other[256];
	const struct gm_services *svc = t->svc;

	if (toy_defers)
		t->late = fence;
	if (toy_defers || breaks(GM_RULE_SIGNAL_NEVER))
		return;
	if (breaks(GM_RULE_CALL_LOCKED))
		svc->lock(svc->self, &t->lock);
	svc->fence_signal(svc->self, fence, breaks(GM_RULE_SIGNAL_RESULT) ? GM_RET_BUSY : ret);
	if (breaks(GM_RULE_SIGNAL_TWICE))
		svc->fence_signal(svc->self, fence, ret);
	if (breaks(GM_RULE_SIGNAL_UNKNOWN))
		svc->fence_signal(svc->self, (struct gm_fence *)(void *)other, ret);
	if (breaks(GM_RULE_CALL_LOCKED))
		svc->unlock(svc->self, &t->lock);
}

static inline gm_ret_t toy_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *fence)
{
	struct toy *t = dev;
	bool fail = fails();

	if (breaks(TOY_SIGNAL_LATE))
		t->late = fence;
	if (fail && !breaks(GM_RULE_SIGNAL_FAILED))
		return GM_RET_IO;
	if (done(t, OP_COPY))
		return done(t, OP_COPY);
	for (size_t i = 0; i < n; i++)
		toy_piece(t, &copies[i]);
	toy_signal(t, fence, GM_RET_SUCCESS);
	return fail ? GM_RET_IO : GM_RET_SUCCESS;
}

static inline gm_ret_t toy_step(struct toy *t, const struct gm_step *s)
{
	switch (s->op) {
	case GM_STEP_REMOVE:
		return toy_remove(s->pmap, s->va, s->bytes);
	case GM_STEP_INVL:
		return breaks(TOY_PLAN_STALE) ? GM_RET_SUCCESS : toy_invl(s->pmap, s->va, s->bytes);
	case GM_STEP_ENTER:
		return breaks(TOY_PLAN_LOST) ? GM_RET_SUCCESS : toy_enter(s->pmap, s->va, s->pa, s->bytes, s->pte);
	case GM_STEP_COPY:
		break;
	}
	toy_piece(t, &s->copy);
	return GM_RET_SUCCESS;
}

static inline gm_ret_t toy_submit(void *dev, struct gm_step *steps, size_t n, struct gm_fence *fence)
{
	struct toy *t = dev;
	gm_ret_t first = GM_RET_SUCCESS;

	if (done(t, OP_SUBMIT))
		return done(t, OP_SUBMIT);
	for (size_t i = 0; i < n; i++) {
		bool run = !first || breaks(GM_RULE_STEP_AFTER_FAILURE);
		gm_ret_t ret = run ? toy_step(t, &steps[i]) : GM_RET_CANCELED;

		if (breaks(TOY_STEP_UNLISTED) && i == 1)
			ret = GM_RET_BUSY;
		if (breaks(TOY_STEP_CANCELED) && i == 1)
			ret = GM_RET_CANCELED;
		if (!(breaks(GM_RULE_STEP_RET) && i == 1))
			steps[i].ret = ret;
		if (!first && ret != GM_RET_CANCELED)
			first = ret;
	}
	toy_signal(t, fence, breaks(GM_RULE_PLAN_RESULT) ? GM_RET_SUCCESS : first);
	return GM_RET_SUCCESS;
}

static inline void toy_raise(struct toy *t, void *pmap, uint64_t va)
{
	const struct gm_services *svc = t->svc;

	t->fault = (struct gm_dev_fault){ .pmap = breaks(GM_RULE_FAULT_PMAP) ? t : pmap,
					  .va = breaks(GM_RULE_FAULT_VA) ? UINT64_C(1) << 40 : va,
					  .access = breaks(GM_RULE_FAULT_ACCESS) ? 0 : GM_READ };
	t->has_fault = true;
	if (breaks(TOY_READY_LOCKED))
		svc->lock(svc->self, &t->lock);
	if (!breaks(GM_RULE_FAULT_SILENT))
		svc->fault_ready(svc->self);
	if (breaks(TOY_READY_LOCKED))
		svc->unlock(svc->self, &t->lock);
}

static inline gm_ret_t toy_next(void *dev, struct gm_dev_fault *fault)
{
	struct toy *t = dev;

	if (breaks(GM_RULE_FAULT_BLOCKS))
		t->svc->yield(t->svc->self);
	if (done(t, OP_NEXT))
		return done(t, OP_NEXT);
	if (t->has_fault || breaks(TOY_FAULT_TOUCHED))
		*fault = t->fault;
	if (!t->has_fault)
		return GM_RET_AGAIN;
	t->has_fault = false;
	return GM_RET_SUCCESS;
}

static inline gm_ret_t toy_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	struct toy_pmap *p = pmap;

	(void)va, (void)bytes, (void)result;
	return done(p->toy, OP_DONE);
}

static inline void *toy_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	struct toy *t = dev;

	(void)bytes;
	return &t->mem[pa - TOY_PA + (breaks(GM_RULE_CPU_PTR) ? t->calls++ : 0)];
}

static inline gm_ret_t toy_harvest(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits)
{
	struct toy_pmap *p = pmap;

	if (done(p->toy, OP_HARVEST))
		return done(p->toy, OP_HARVEST);
	for (uint64_t i = 0; i < bytes / PAGE; i++) {
		bits[i] = p->bits[toy_index(va) + i];
		if (breaks(GM_RULE_HARVEST_BITS))
			bits[i] |= 0x80;
		if (breaks(GM_RULE_HARVEST_UNMAPPED) && !bits[i])
			bits[i] = GM_PAGE_ACCESSED;
		if (breaks(GM_RULE_HARVEST_LOST))
			bits[i] = 0;
		p->bits[toy_index(va) + i] = 0;
	}
	return GM_RET_SUCCESS;
}

static inline gm_ret_t toy_sync_create(void *dev, void **sync, int *fd)
{
	if (fails()) {
		if (breaks(TOY_SYNC_TOUCHED))
			*fd = 77;
		return GM_RET_NOMEM;
	}
	if (done(dev, OP_SYNC))
		return done(dev, OP_SYNC);
	*fd = eventfd(0, breaks(TOY_FD_INHERITED) ? 0 : EFD_CLOEXEC);
	*sync = dev;
	if (breaks(GM_RULE_SYNC_FD)) {
		close(*fd);
		*fd = 999;
	}
	return GM_RET_SUCCESS;
}

static inline void toy_sync_signal(void *dev, void *sync, gm_ret_t result)
{
	(void)dev, (void)sync, (void)result;
}

static inline gm_ret_t toy_sync_import(void *dev, int fd, struct gm_fence *fence)
{
	struct toy *t = dev;

	(void)fd;
	if (done(t, OP_IMPORT))
		return done(t, OP_IMPORT);
	t->svc->fence_signal(t->svc->self, fence, GM_RET_SUCCESS);
	return GM_RET_SUCCESS;
}

static inline gm_ret_t toy_peer_reach(void *dev, void *other)
{
	struct toy *t = dev;

	(void)other;
	if (done(t, OP_PEER))
		return done(t, OP_PEER);
	return breaks(GM_RULE_PEER_CHANGED) && t->calls++ % 2 ? GM_RET_SUCCESS : GM_RET_NOTSUP;
}

static inline void toy_halt(void *dev)
{
	struct toy *t = dev;

	t->lost = true;
	if (t->late && !breaks(GM_RULE_HALT_PENDING))
		t->svc->fence_signal(t->svc->self, t->late, GM_RET_NODEV);
	t->late = NULL;
}

static const struct gm_mmu toy_mmu = {
	.abi = GM_HAL_ABI,
	.size = sizeof(struct gm_mmu),
	.name = "toy",
	.dev_init = toy_init,
	.dev_fini = toy_fini,
	.pmap_create = toy_create,
	.pmap_destroy = toy_destroy,
	.pmap_enter = toy_enter,
	.pmap_remove = toy_remove,
	.tlb_invl = toy_invl,
	.copy = toy_copy,
	.pmap_protect = toy_protect,
	.submit = toy_submit,
	.access = toy_access,
	.fault_next = toy_next,
	.fault_done = toy_done,
	.cpu_ptr = toy_cpu_ptr,
	.pmap_harvest = toy_harvest,
	.sync_create = toy_sync_create,
	.sync_signal = toy_sync_signal,
	.sync_import = toy_sync_import,
	.peer_reach = toy_peer_reach,
	.dev_halt = toy_halt,
};

#endif
