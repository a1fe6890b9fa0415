/* SPDX-License-Identifier: MIT */
/*
 * The operations that are neither mappings nor copies: faults, what the CPU sees, descriptors, peers.
 *
 * fault_next() and cpu_ptr() are called where nothing may block, so nothing is allocated here: what cpu_ptr() says is
 * compared for memory of which there are books, because it was taken or mapped before. A fault in a page table that
 * the shim does not know is not passed on; the next one is asked for instead.
 */
#include "config.h"

#include <fcntl.h>
#include <limits.h>

#include "hal/gm_shim.h"

#define MAX_BAD_FAULTS 64u

/* (S) One that died after the call began: the fault is a late one, not a wrong one. */
static bool died_since(struct gm_shim_dev *d, const void *inner, uint64_t seq)
{
	struct gm_shim_pmap *p;

	TAILQ_FOREACH(p, &d->dead, link)
		if (p->pmap == inner && p->died >= seq)
			return true;
	return false;
}

/* (S) Was it announced? If not now, then perhaps in a moment: remember since when. */
static void judge_announced(struct gm_shim_dev *d, uint64_t now_ns)
{
	if (d->ready <= d->ready_seen && !d->silent_ns)
		d->silent_ns = now_ns ? now_ns : 1;
}

/* Check a fault and translate its page table; false: not to be passed on. */
static bool judge_fault(struct gm_shim_call *c, struct gm_dev_fault *fault)
{
	struct gm_shim_dev *d = c->dev;
	struct gm_shim_pmap *p;
	bool late;

	gm_shim_lock(d);
	p = gm_shim_pmap_of(d, fault->pmap);
	late = !p && died_since(d, fault->pmap, c->seq);
	judge_announced(d, c->start_ns);
	gm_shim_unlock(d);
	c->at.pmap = p;
	c->at.va = fault->va;
	if (!p && !late)
		gm_shim_report(d, GM_RULE_FAULT_PMAP, &c->at, "page table %p", fault->pmap);
	if (d->caps.va_bits < 64 && fault->va >> d->caps.va_bits)
		gm_shim_report(d, GM_RULE_FAULT_VA, &c->at, "the device has %u address bits", (unsigned)d->caps.va_bits);
	if (!fault->access || fault->access & ~(GM_READ | GM_WRITE | GM_ATOMIC))
		gm_shim_report(d, GM_RULE_FAULT_ACCESS, &c->at, "access 0x%x", (unsigned)fault->access);
	fault->pmap = p;
	return p != NULL;
}

gm_ret_t gm_shim_fault_next(void *dev, struct gm_dev_fault *out)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "fault_next", .step = GM_STEP_FREE };
	const struct gm_dev_fault before = { .pmap = &at, .va = UINT64_C(0x5a5a), .access = 0x5a5a };
	struct gm_dev_fault fault = before;
	struct gm_shim_call c;
	uint64_t ready;
	bool good = false;
	gm_ret_t ret;

	if (!d->mmu.fault_next || !gm_shim_cap_ok(d, GM_CAP_FAULTS, &at))
		return GM_RET_AGAIN;
	gm_shim_begin(d, &c, GM_SHIM_OP_FAULT_NEXT, &at);
	gm_shim_lock(d);
	ready = d->ready;
	gm_shim_unlock(d);
	for (unsigned i = 0; i < MAX_BAD_FAULTS && !good; i++) {
		fault = before;
		ret = d->mmu.fault_next(d->dev, &fault);
		if (ret)
			break;
		good = judge_fault(&c, &fault);
	}
	if (good) {
		*out = fault;
	} else if (ret == GM_RET_SUCCESS) {
		ret = GM_RET_AGAIN;
	} else if (fault.pmap != before.pmap || fault.va != before.va || fault.access != before.access) {
		gm_shim_report(d, GM_RULE_OUT_TOUCHED, &c.at, "it returned %s", gm_ret_name(ret));
	}
	gm_shim_lock(d);
	if (ret == GM_RET_AGAIN && ready > d->ready_seen)
		d->ready_seen = ready;
	gm_shim_unlock(d);
	gm_shim_end(&c, ret);
	return ret;
}

gm_ret_t gm_shim_fault_done(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result)
{
	struct gm_shim_pmap *p = pmap;
	struct gm_shim_dev *d = p->dev;
	struct gm_shim_at at = { .op = "fault_done", .step = GM_STEP_FREE, .pmap = p, .va = va, .bytes = bytes };
	struct gm_shim_call c;
	gm_ret_t ret;

	if (!gm_shim_alive(p, &at))
		return GM_RET_FAULT;
	if (!gm_shim_cap_ok(d, GM_CAP_FAULTS, &at) || !d->mmu.fault_done)
		return GM_RET_UNIMPLEMENTED;
	(void)gm_shim_range_ok(d, &at);
	gm_shim_begin(d, &c, GM_SHIM_OP_FAULT_DONE, &at);
	ret = d->mmu.fault_done(p->pmap, va, bytes, result);
	gm_shim_end(&c, ret);
	return ret;
}

/* (S) False: it was another address before. */
static bool same_cpu_ptr(struct gm_shim_dev *d, uint64_t pa, void *ptr)
{
	struct gm_shim_frame *f = gm_shim_frame_of(&d->frames, pa);

	if (!f || !ptr || pa % GM_PAGE_BYTES)
		return true;
	if (!f->cpu)
		f->cpu = ptr;
	return f->cpu == ptr;
}

void *gm_shim_cpu_ptr(void *dev, uint64_t pa, uint64_t bytes)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "cpu_ptr", .step = GM_STEP_FREE, .pa = pa, .bytes = bytes };
	struct gm_shim_call c;
	bool same;
	void *ptr;

	if (!gm_shim_cap_ok(d, GM_CAP_CPU_VISIBLE, &at) || !d->mmu.cpu_ptr)
		return NULL;
	gm_shim_begin(d, &c, GM_SHIM_OP_CPU_PTR, &at);
	ptr = d->mmu.cpu_ptr(d->dev, pa, bytes);
	gm_shim_lock(d);
	same = same_cpu_ptr(d, pa, ptr);
	gm_shim_unlock(d);
	if (!same)
		gm_shim_report(d, GM_RULE_CPU_PTR, &at, "%p this time", ptr);
	gm_shim_end_void(&c);
	return ptr;
}

/* ------------------------------------------------------- descriptors, peers */

static void judge_fd(struct gm_shim_call *c, int fd)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0)
		gm_shim_report(c->dev, GM_RULE_SYNC_FD, &c->at, "descriptor %d is not open", fd);
	else if (!(flags & FD_CLOEXEC))
		gm_shim_report(c->dev, GM_RULE_SYNC_FD, &c->at, "descriptor %d is not close-on-exec", fd);
}

gm_ret_t gm_shim_sync_create(void *dev, void **sync, int *fd)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "sync_create", .step = GM_STEP_FREE };
	void *const before = &at; /* none that it could come upon */
	void *inner = before;
	int inner_fd = INT_MIN;
	struct gm_shim_call c;
	gm_ret_t ret;

	if (!gm_shim_cap_ok(d, GM_CAP_SYNC, &at) || !d->mmu.sync_create)
		return GM_RET_UNIMPLEMENTED;
	gm_shim_begin(d, &c, GM_SHIM_OP_SYNC_CREATE, &at);
	ret = d->mmu.sync_create(d->dev, &inner, &inner_fd);
	if (!ret) {
		judge_fd(&c, inner_fd);
		*sync = inner;
		*fd = inner_fd;
	} else if (inner != before || inner_fd != INT_MIN) {
		gm_shim_report(d, GM_RULE_OUT_TOUCHED, &at, "it returned %s", gm_ret_name(ret));
	}
	gm_shim_end(&c, ret);
	return ret;
}

void gm_shim_sync_signal(void *dev, void *sync, gm_ret_t result)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "sync_signal", .step = GM_STEP_FREE };
	struct gm_shim_call c;

	if (!gm_shim_cap_ok(d, GM_CAP_SYNC, &at) || !d->mmu.sync_signal)
		return;
	gm_shim_begin(d, &c, GM_SHIM_OP_SYNC_SIGNAL, &at);
	d->mmu.sync_signal(d->dev, sync, result);
	gm_shim_end_void(&c);
}

gm_ret_t gm_shim_sync_import(void *dev, int fd, struct gm_fence *done)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "sync_import", .step = GM_STEP_FREE };
	struct gm_shim_fence *f;
	struct gm_shim_call c;
	gm_ret_t ret;

	if (!gm_shim_cap_ok(d, GM_CAP_SYNC, &at) || !d->mmu.sync_import)
		return GM_RET_UNIMPLEMENTED;
	f = gm_shim_fence_new(d, done, GM_SHIM_FENCE_IMPORT, 0);
	if (!f)
		return GM_RET_NOMEM;
	gm_shim_begin(d, &c, GM_SHIM_OP_SYNC_IMPORT, &at);
	gm_shim_fence_given(d, f);
	ret = d->mmu.sync_import(d->dev, fd, done);
	gm_shim_fence_sent(d, f, &at, ret);
	gm_shim_end(&c, ret);
	return ret;
}

/* (S) False: it said something else before. */
static bool same_answer(struct gm_shim_dev *d, const void *other, uint64_t born_ns, gm_ret_t ret)
{
	for (unsigned i = 0; i < d->peers; i++)
		if (d->peer[i].other == other && d->peer[i].born_ns == born_ns)
			return d->peer[i].ret == ret;
	if (d->peers < GM_MAX_DEVS) {
		d->peer[d->peers].other = other;
		d->peer[d->peers].born_ns = born_ns;
		d->peer[d->peers++].ret = ret;
	}
	return true;
}

gm_ret_t gm_shim_peer_reach(void *dev, void *other)
{
	struct gm_shim_dev *d = dev, *o = other;
	struct gm_shim_at at = { .op = "peer_reach", .step = GM_STEP_FREE };
	struct gm_shim_call c;
	bool same;
	gm_ret_t ret;

	if (!gm_shim_cap_ok(d, GM_CAP_PEER, &at) || !d->mmu.peer_reach)
		return GM_RET_NOTSUP;
	gm_shim_begin(d, &c, GM_SHIM_OP_PEER_REACH, &at);
	ret = d->mmu.peer_reach(d->dev, gm_validate_dev(other));
	gm_shim_lock(d);
	same = ret == GM_RET_NODEV || same_answer(d, other, gm_handle_live(o, GM_HANDLE_SHIM) ? o->born_ns : 0, ret);
	gm_shim_unlock(d);
	if (!same)
		gm_shim_report(d, GM_RULE_PEER_CHANGED, &at, "now it says %s", gm_ret_name(ret));
	gm_shim_end(&c, ret);
	return ret;
}
