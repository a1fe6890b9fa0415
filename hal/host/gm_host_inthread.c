/* SPDX-License-Identifier: MIT */
/*
 * Memory whose faults are served in the thread that faults (GM_MEM_INTHREAD).
 *
 * It is registered with a userfaultfd of its own, made with UFFD_FEATURE_SIGBUS: an access to a page that is away sends
 * SIGBUS to its thread, and no message comes. Events do, and are read together with those of the other descriptor
 * (gm_host_msg.c). Whether the next access waits or fails is a matter of the descriptor alone, so nothing else differs: pages
 * are stolen, restored and so on by the same calls, of that one of the two with which the mapping is registered.
 *
 *     plain --mem_inthread(on), before anything of it is watched--> span --off, UNMAP--> plain
 *                                                                    '--REMAP--> span at the new place too
 *
 * Spans are what says which descriptor: whole pages, in order, a fixed number, as an event may need one where nobody can
 * allocate. The kernel would take COPY, ZEROPAGE and WRITEPROTECT by either descriptor, but MOVE, and the refusal while
 * an event is unread (docs/decisions/0003), are of the one: who takes or gives pages by the wrong one is not
 * fenced against what the process does to that memory. So spans change when an event is read, before
 * anybody learns of it; nobody takes or gives from then until it is handled.
 *
 * After REMAP the old place is one still: UNMAP follows, and with MREMAP_DONTUNMAP, where it does not, the mapping that is left
 * there is registered as before.
 *
 * An UNMAP may be older than the REMAP that was read before it: another thread freed the addresses before the move took them,
 * and its event came late. Until no event has been under way for a moment, what is mapped at the new place is taken for what was
 * moved there. If it is not (unmapped again, and somebody maps there at once), a span is left behind, as below.
 *
 * Memory that nobody watches raises no events: what is unmapped then leaves its span behind, as it leaves its
 * region. Whoever makes something else of these addresses says so (mem_inthread(off)).
 *
 * For a steal the slot must be registered with the same descriptor. It changes over then (gm_host_slot_register()): a
 * block may have memory of both sorts, after mremap().
 *
 * The descriptor is made, given to the keeper, polled and read with the first such memory: other spaces do not pay for it. Where
 * the kernel has no such feature, or no descriptor is left, mem_inthread() says so.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static gm_ret_t open_fd(struct gm_host_pmap *p, int *fd)
{
	bool protects;
	gm_ret_t ret;

	if (!(p->dev->way.features & GM_UFFD_FEATURE_MOVE))
		return gm_fail(GM_RET_NOTSUP, "faults can be served in the thread that faults only where userfaultfd has "
			       "UFFDIO_MOVE: Linux 6.8 or newer, and a rung not below it (gm_lib_rung() tells)");
	ret = gm_host_open_app(p, GM_UFFD_FEATURE_SIGBUS, fd, &protects);
	if (!ret)
		atomic_store(&p->inthread.protects, protects);
	return ret;
}

/* With the first such memory. */
static gm_ret_t need_fd(struct gm_host_pmap *p)
{
	int fd;
	gm_ret_t ret;

	if (gm_host_has_inthread(p))
		return GM_RET_SUCCESS;
	ret = open_fd(p, &fd);
	return ret ? ret : gm_host_add_late(p, fd, &p->inthread.fd, &p->keep.inthread, "memory with GM_MEM_INTHREAD");
}

void gm_host_inthread_init(struct gm_host_pmap *p)
{
	gm_mutex_init(p->env, &p->inthread.lock, GM_RANK_LEAF);
	atomic_init(&p->inthread.fd, -1);
}

gm_ret_t gm_host_inthread_reopen(struct gm_host_pmap *p)
{
	int fd;
	gm_ret_t ret = open_fd(p, &fd);

	if (ret)
		return ret;
	gm_host_set_late(&p->inthread.fd, fd);
	gm_host_slots_plain(p);
	return gm_host_owns_app(p) && !gm_host_slots_watch(p, p->fd_app) ? GM_RET_BUSY : GM_RET_SUCCESS;
}

void gm_host_inthread_fini(struct gm_host_pmap *p)
{
	if (gm_host_has_inthread(p))
		gm_host_number_give(p->inthread.fd);
	gm_mutex_fini(p->env, &p->inthread.lock);
}

/* ------------------------------------------------------- spans; all (lock) */

/* The first that ends above va. */
static unsigned find(const struct gm_host_inthread *t, uint64_t va)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (t->span[mid].end > va)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Make room for one at `at`, or take one out of there. */
static void shift(struct gm_host_inthread *t, unsigned at, int by)
{
	unsigned from = by > 0 ? at : at + 1;

	memmove(&t->span[(int)from + by], &t->span[from], (t->n - from) * sizeof(t->span[0]));
	atomic_store_explicit(&t->n, (unsigned)((int)t->n + by), memory_order_release);
}

/* False: it would become two, and there is no room. */
static bool cut(struct gm_host_inthread *t, uint64_t va, uint64_t end)
{
	unsigned i = find(t, va);

	if (i < t->n && t->span[i].va < va) {
		if (t->span[i].end > end) {
			if (t->n == GM_HOST_INTHREAD_SPANS)
				return false;
			shift(t, i, 1);
			t->span[i + 1].va = end;
		}
		t->span[i++].end = va;
	}
	while (i < t->n && t->span[i].end <= end)
		shift(t, i, -1);
	if (i < t->n && t->span[i].va < end)
		t->span[i].va = end;
	return true;
}

/* Nothing of it is in a span. */
static bool put(struct gm_host_inthread *t, uint64_t va, uint64_t end)
{
	unsigned i = find(t, va);
	bool before = i > 0 && t->span[i - 1].end == va, after = i < t->n && t->span[i].va == end;

	if (before && after) {
		t->span[i - 1].end = t->span[i].end;
		shift(t, i, -1);
	} else if (before) {
		t->span[i - 1].end = end;
	} else if (after) {
		t->span[i].va = va;
	} else {
		if (t->n == GM_HOST_INTHREAD_SPANS)
			return false;
		shift(t, i, 1);
		t->span[i].va = va;
		t->span[i].end = end;
	}
	return true;
}

/* What there is of [va, end) is at `to` too, where there is none, part by part. */
static bool copy(struct gm_host_inthread *t, uint64_t va, uint64_t end, uint64_t to)
{
	uint64_t at = va;

	for (unsigned i; at < end && (i = find(t, at)) < t->n && t->span[i].va < end;) {
		uint64_t lo = t->span[i].va > at ? t->span[i].va : at, hi = t->span[i].end < end ? t->span[i].end : end;

		if (!put(t, to + (lo - va), to + (hi - va)))
			return false;
		at = hi;
	}
	return true;
}

/* Of many at once the oldest is forgotten. */
static void note_move(struct gm_host_inthread *t, uint64_t va, uint64_t end)
{
	if (t->moves == GM_HOST_INTHREAD_MOVED) {
		memmove(&t->moved[0], &t->moved[1], (GM_HOST_INTHREAD_MOVED - 1) * sizeof(t->moved[0]));
		t->moves--;
	}
	t->moved[t->moves++] = (struct gm_host_span){ va, end };
}

/* From va on, as far as *end: was it moved there a moment ago? */
static bool is_moved(const struct gm_host_inthread *t, uint64_t va, uint64_t *end)
{
	for (unsigned i = 0; i < t->moves; i++) {
		const struct gm_host_span *m = &t->moved[i];

		if (va >= m->va && va < m->end) {
			*end = m->end < *end ? m->end : *end;
			return true;
		}
		if (m->va > va && m->va < *end)
			*end = m->va;
	}
	return false;
}

/* True also if it cannot be told now: what is there is not given up for that. */
static bool is_mapped(struct gm_host_dev *d, uint64_t va)
{
	struct gm_host_area a;
	gm_ret_t ret = gm_host_area(d, va, &a);

	return ret ? ret != GM_RET_FAULT : a.begin <= va && gm_host_is_anon(&a);
}

/*
 * (r) The process is asked without the lock: that takes one, too. What moved only the reader changes, and who maps and marks
 * anew at such an address waits until this event is through.
 */
static bool cut_unmapped(struct gm_host_pmap *p, uint64_t va, uint64_t end)
{
	struct gm_host_inthread *t = &p->inthread;
	bool ok = true;

	for (uint64_t stop; va < end; va = stop) {
		stop = end;
		if (is_moved(t, va, &stop) && is_mapped(p->dev, va))
			continue;
		gm_lock(p->env, &t->lock);
		ok &= cut(t, va, stop);
		gm_unlock(p->env, &t->lock);
	}
	return ok;
}

/* ---------------------------------------------------------------------- */

void gm_host_inthread_quiet(struct gm_host_pmap *p)
{
	struct gm_host_inthread *t = &p->inthread;

	if (!atomic_load_explicit(&t->moves, memory_order_relaxed))
		return;
	gm_lock(p->env, &t->lock);
	t->moves = 0;
	gm_unlock(p->env, &t->lock);
}

int gm_host_inthread_fd(struct gm_host_pmap *p, uint64_t va, uint64_t *bytes)
{
	struct gm_host_inthread *t = &p->inthread;
	bool own = false;
	uint64_t stop;
	unsigned i;

	gm_lock(p->env, &t->lock);
	i = find(t, va);
	stop = i < t->n ? t->span[i].va : UINT64_MAX;
	if (stop <= va) {
		own = true;
		stop = t->span[i].end;
	}
	gm_unlock(p->env, &t->lock);
	if (stop - va < *bytes)
		*bytes = stop - va;
	return own ? t->fd : p->fd_app;
}

void gm_host_inthread_event(struct gm_host_pmap *p, const struct gm_host_msg *m, bool own)
{
	struct gm_host_inthread *t = &p->inthread;
	bool ok = true;

	if (!atomic_load(&t->n) || (m->kind != GM_HOST_REMAP && (m->kind != GM_HOST_UNMAP || !own)))
		return;
	if (m->kind == GM_HOST_UNMAP) {
		ok = cut_unmapped(p, m->va, m->va + m->bytes);
	} else {
		gm_lock(p->env, &t->lock);
		ok = cut(t, m->to, m->to + m->bytes) && (!own || copy(t, m->va, m->va + m->bytes, m->to));
		if (own)
			note_move(t, m->to, m->to + m->bytes);
		gm_unlock(p->env, &t->lock);
	}
	if (!ok)
		gm_log(p->env, GM_LOG_ERROR, "memory at 0x%llx: faults of too many pieces are served in their threads: it is not known "
		       "any more that these are", (unsigned long long)m->va);
}

gm_ret_t gm_host_mem_inthread(void *pmap, uint64_t va, uint64_t bytes, bool on)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_inthread *t = &p->inthread;
	gm_ret_t ret = on ? need_fd(p) : GM_RET_SUCCESS;
	bool ok;

	if (ret || (!on && !atomic_load(&t->n)))
		return ret;
	gm_lock(p->env, &t->lock);
	ok = (!on || t->n < GM_HOST_INTHREAD_ASKED) && cut(t, va, va + bytes);
	if (ok && on)
		(void)put(t, va, va + bytes); /* there is room, see above */
	gm_unlock(p->env, &t->lock);
	return ok ? ret : gm_fail(GM_RET_NOMEM, "too many pieces of memory whose faults are served in their threads");
}

bool gm_host_inthread_has(void *pmap, uint64_t va, uint64_t bytes)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_inthread *t = &p->inthread;
	bool has;
	unsigned i;

	if (!atomic_load(&t->n))
		return false;
	gm_lock(p->env, &t->lock);
	i = find(t, va);
	has = i < t->n && t->span[i].va < va + bytes;
	gm_unlock(p->env, &t->lock);
	return has;
}
