/* SPDX-License-Identifier: MIT */
/*
 * The application of the simulated process: its system calls and its loads
 * and stores. Each begins with a point of the scheduler, so that application
 * code without any other interleaves too.
 *
 *     access: no right -> FAULT; poisoned -> IO; present -> done;
 *             absent, unwatched -> zeros at once; absent, watched -> message, wait, look again;
 *             a store to a page that is protected -> the same
 *     dontneed: REMOVE read -> (others may run) -> pages gone
 *     munmap, mmap_at, mremap: pages and mapping gone -> events posted, one after the other, until read
 *
 * Between the event and the pages of dontneed lies the window in which a
 * library can steal and later restore what the application has dropped.
 */
#include "config.h"

#include <string.h>

#include "hal/sim/gm_sim_internal.h"

#define MAX_WATCHERS 8u
#define LINGER_NS 20000u

static bool bad_range(uint64_t va, uint64_t bytes)
{
	return va % GM_PAGE_BYTES || bytes % GM_PAGE_BYTES || bytes == 0 || va + bytes < va;
}

/* Stores imply loads. */
static uint32_t full_access(uint32_t access)
{
	return access & (GM_WRITE | GM_ATOMIC) ? GM_READ | GM_WRITE : access & GM_READ;
}

/* ----------------------------------------------------------- system calls */

/* Who must be told that a range goes. */
struct watchers {
	struct gm_sim_pmap *pmap[MAX_WATCHERS];
	unsigned n;
};

static void watchers_add(struct gm_sim *sim, struct watchers *w, struct gm_sim_pmap *pmap)
{
	for (unsigned i = 0; i < w->n; i++) {
		if (w->pmap[i] == pmap)
			return;
	}
	if (w->n == MAX_WATCHERS)
		gm_sim_panic(sim, "more than %u address spaces watch one range", MAX_WATCHERS);
	gm_sim_event_prepare(pmap);
	w->pmap[w->n++] = pmap;
}

/* One UNMAP for each, over the whole range, as Linux does, is on its way from now on. */
static struct watchers unmap_prepare(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	struct watchers w = { .n = 0 };
	const struct gm_sim_vma *vma;

	for (uint64_t at = va; (vma = gm_sim_vma_after(sim, at)) != NULL && vma->va < end; at = vma->end) {
		if (vma->pmap)
			watchers_add(sim, &w, vma->pmap);
	}
	return w;
}

static void unmap_post(const struct watchers *w, uint64_t va, uint64_t bytes)
{
	for (unsigned i = 0; i < w->n; i++)
		gm_sim_event_post(w->pmap[i], (struct gm_host_msg){ .kind = GM_HOST_UNMAP, .va = va, .bytes = bytes });
}

static uint64_t map_anywhere(struct gm_sim *sim, uint64_t bytes, uint32_t access, bool shared)
{
	struct gm_sim_vma vma = { .access = full_access(access), .shared = shared };

	gm_sim_point(sim);
	bytes = (bytes + GM_PAGE_BYTES - 1) / GM_PAGE_BYTES * GM_PAGE_BYTES;
	vma.va = bytes ? gm_sim_va_pick(sim, bytes, GM_PAGE_BYTES) : 0;
	vma.end = vma.va + bytes;
	if (vma.va)
		gm_sim_vma_add(sim, &vma);
	return vma.va;
}

uint64_t gm_sim_mmap(struct gm_sim *sim, uint64_t bytes, uint32_t access)
{
	return map_anywhere(sim, bytes, access, false);
}

uint64_t gm_sim_mmap_shared(struct gm_sim *sim, uint64_t bytes)
{
	return map_anywhere(sim, bytes, GM_READ | GM_WRITE, true);
}

uint64_t gm_sim_mmap_at(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_sim_vma vma = { .va = va, .end = va + bytes, .access = full_access(access) };
	struct watchers w;

	if (bad_range(va, bytes) || va == 0)
		return 0;
	gm_sim_point(sim);
	w = unmap_prepare(sim, va, va + bytes);
	gm_sim_vma_cut(sim, va, va + bytes);
	gm_sim_vma_add(sim, &vma);
	gm_sim_vma_merge(sim, va, va + bytes);
	unmap_post(&w, va, bytes); /* by now the new mapping is in use */
	return va;
}

gm_ret_t gm_sim_munmap(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	struct watchers w;

	if (bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	w = unmap_prepare(sim, va, va + bytes);
	gm_sim_vma_cut(sim, va, va + bytes);
	unmap_post(&w, va, bytes);
	return GM_RET_SUCCESS;
}

/* After an event was read the kernel takes its lock again: anybody may come first. */
static void linger(struct gm_sim *sim)
{
	if (sim->spurious && gm_sim_random(sim, 2))
		gm_sim_sleep_ns(sim, gm_sim_random(sim, LINGER_NS));
	else
		gm_sim_point(sim);
}

/* One mapping's part of [va, end). *next: where to go on. */
static gm_ret_t drop_part(struct gm_sim *sim, struct gm_sim_vma *vma, uint64_t va, uint64_t end, uint64_t *next)
{
	uint64_t stop = vma->end < end ? vma->end : end;

	if (vma->locked)
		return GM_RET_INVAL;
	if (vma->pmap) {
		gm_sim_event_prepare(vma->pmap);
		gm_sim_event_post(vma->pmap, (struct gm_host_msg){ .kind = GM_HOST_REMOVE,
								   .va = va,
								   .bytes = stop - va });
		linger(sim);
		vma = gm_sim_vma_find(sim, va);
		if (!vma)
			return GM_RET_FAULT;
		stop = vma->end < stop ? vma->end : stop;
	}
	gm_sim_pages_zap(sim, va, stop);
	*next = stop;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_dontneed(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	uint64_t end = va + bytes;

	if (bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	while (va < end) {
		struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		gm_ret_t ret = vma ? drop_part(sim, vma, va, end, &va) : GM_RET_FAULT;

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_mprotect(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_sim_vma *vma;

	if (bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	if (!gm_sim_vma_covers(sim, va, va + bytes))
		return GM_RET_FAULT;
	gm_sim_vma_isolate(sim, va, va + bytes);
	for (vma = gm_sim_vma_find(sim, va); vma && vma->va < va + bytes; vma = gm_sim_vma_next(sim, vma))
		vma->access = full_access(access);
	gm_sim_vma_merge(sim, va, va + bytes);
	return GM_RET_SUCCESS;
}

uint64_t gm_sim_mremap(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	const struct gm_sim_vma *old;
	struct gm_sim_vma vma;
	struct watchers w;

	if (bad_range(va, bytes))
		return 0;
	gm_sim_point(sim);
	old = gm_sim_vma_find(sim, va);
	if (!old || old->end < va + bytes)
		return 0;
	vma = *old;
	vma.va = gm_sim_va_pick(sim, bytes, GM_PAGE_BYTES);
	vma.end = vma.va + bytes;
	if (!vma.va)
		return 0;
	if (vma.pmap)
		gm_sim_event_prepare(vma.pmap);
	w = unmap_prepare(sim, va, va + bytes);
	gm_sim_vma_add(sim, &vma);
	gm_sim_pages_move(sim, va, vma.va, bytes);
	gm_sim_vma_cut(sim, va, va + bytes);
	if (vma.pmap)
		gm_sim_event_post(vma.pmap, (struct gm_host_msg){ .kind = GM_HOST_REMAP,
								  .va = va,
								  .bytes = bytes,
								  .to = vma.va });
	unmap_post(&w, va, bytes);
	return vma.va;
}

/* ------------------------------------------------------ loads and stores */

/* The byte of memory at va, present and allowed; blocks as long as it takes. */
static gm_ret_t touch(struct gm_sim *sim, uint64_t va, bool write, uint8_t **byte)
{
	for (;;) {
		struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		struct gm_sim_page *page;

		if (!vma || !gm_sim_vma_allows(vma, write))
			return GM_RET_FAULT;
		page = gm_sim_page_get(sim, va, true);
		if (page->poisoned)
			return GM_RET_IO;
		if (page->frame && !(write && page->protected)) {
			*byte = page->frame + va % GM_PAGE_BYTES;
			return GM_RET_SUCCESS;
		}
		if (vma->pmap)
			gm_sim_fault_wait(vma->pmap, va, write, page->frame);
		else
			gm_sim_pages_populate(sim, vma, va);
	}
}

/* Page by page; what lies in one page is transferred at once. */
static gm_ret_t transfer(struct gm_sim *sim, uint64_t va, uint8_t *to, const uint8_t *from, size_t bytes)
{
	gm_sim_point(sim);
	while (bytes > 0) {
		size_t rest = (size_t)(GM_PAGE_BYTES - va % GM_PAGE_BYTES);
		size_t n = bytes < rest ? bytes : rest;
		uint8_t *byte;
		gm_ret_t ret = touch(sim, va, from != NULL, &byte);

		if (ret)
			return ret;
		if (from) {
			memcpy(byte, from, n); // NOLINT(clang-analyzer-core.NonNullParamChecker)
			from += n;
		} else {
			memcpy(to, byte, n); // NOLINT(clang-analyzer-core.NonNullParamChecker)
			to += n;
		}
		va += n;
		bytes -= n;
	}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_load(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes)
{
	return transfer(sim, va, buf, NULL, bytes);
}

gm_ret_t gm_sim_store(struct gm_sim *sim, uint64_t va, const void *buf, size_t bytes)
{
	return transfer(sim, va, NULL, buf, bytes);
}

gm_ret_t gm_sim_fetch_add(struct gm_sim *sim, uint64_t va, uint64_t add, uint64_t *old)
{
	uint64_t value;
	uint8_t *byte;
	gm_ret_t ret;

	if (va % sizeof(value))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	ret = touch(sim, va, true, &byte);
	if (ret)
		return ret;
	memcpy(&value, byte, sizeof(value));
	*old = value;
	value += add;
	memcpy(byte, &value, sizeof(value));
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_pin(struct gm_sim *sim, uint64_t va)
{
	uint8_t *byte;
	gm_ret_t ret;

	gm_sim_point(sim);
	ret = touch(sim, va, true, &byte);
	if (!ret)
		gm_sim_page_get(sim, va, true)->pins++;
	return ret;
}

void gm_sim_unpin(struct gm_sim *sim, uint64_t va)
{
	struct gm_sim_page *page = gm_sim_page_get(sim, va, false);

	gm_sim_point(sim);
	if (page && page->pins > 0)
		page->pins--;
}

gm_ret_t gm_sim_mlock(struct gm_sim *sim, uint64_t va, uint64_t bytes, bool on)
{
	struct gm_sim_vma *vma;

	if (bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	if (!gm_sim_vma_covers(sim, va, va + bytes))
		return GM_RET_FAULT;
	gm_sim_vma_isolate(sim, va, va + bytes);
	for (vma = gm_sim_vma_find(sim, va); vma && vma->va < va + bytes; vma = gm_sim_vma_next(sim, vma))
		vma->locked = on;
	gm_sim_vma_merge(sim, va, va + bytes);
	for (uint64_t at = va; on && at < va + bytes; at += GM_PAGE_BYTES) {
		uint8_t *byte;
		gm_ret_t ret = touch(sim, at, false, &byte);

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------------- fork */

/* What a child would read: it inherits neither the watch nor owned memory. */
static gm_ret_t child_read(struct gm_sim *sim, uint64_t va, uint8_t *to, size_t bytes)
{
	while (bytes > 0) {
		size_t rest = (size_t)(GM_PAGE_BYTES - va % GM_PAGE_BYTES);
		size_t n = bytes < rest ? bytes : rest;
		const struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		const struct gm_sim_page *page = gm_sim_page_get(sim, va, false);

		if (!vma || vma->owned || vma->not_inherited || !gm_sim_vma_allows(vma, false))
			return GM_RET_FAULT;
		if (page && page->poisoned)
			return GM_RET_IO;
		if (page && page->frame)
			memcpy(to, page->frame + va % GM_PAGE_BYTES, n);
		else
			memset(to, 0, n);
		va += n;
		to += n;
		bytes -= n;
	}
	return GM_RET_SUCCESS;
}

/* Freeze what has hooks; the pmaps whose freeze did its work, referenced, go to `frozen`. */
static unsigned freeze_all(struct gm_sim *sim, struct gm_sim_pmap **frozen)
{
	struct gm_sim_pmap *all[MAX_WATCHERS];
	struct gm_sim_pmap *pmap;
	unsigned n = 0;
	unsigned done = 0;

	LIST_FOREACH(pmap, &sim->pmaps, link) {
		if (n >= MAX_WATCHERS) {
			gm_sim_panic(sim, "more than %u address spaces at fork", MAX_WATCHERS);
			break;
		}
		pmap->refs++; /* freeze may block, and others may run */
		all[n++] = pmap;
	}
	for (unsigned i = 0; i < n; i++) {
		if (!all[i]->dead && all[i]->freeze && all[i]->freeze(all[i]->fork_arg) == GM_RET_SUCCESS)
			frozen[done++] = all[i];
		else
			gm_sim_pmap_put(all[i]);
	}
	return done;
}

gm_ret_t gm_sim_fork_snapshot(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes)
{
	struct gm_sim_pmap *frozen[MAX_WATCHERS];
	unsigned n;
	gm_ret_t ret;

	gm_sim_point(sim);
	while (sim->forking)
		gm_sim_queue_wait(sim, &sim->forkers, GM_SIM_NEVER, "another fork");
	sim->forking = true;
	n = freeze_all(sim, frozen);
	ret = child_read(sim, va, buf, bytes);
	while (n-- > 0) {
		if (!frozen[n]->dead)
			frozen[n]->thaw(frozen[n]->fork_arg);
		gm_sim_pmap_put(frozen[n]);
	}
	sim->forking = false;
	gm_sim_queue_wake(sim, &sim->forkers);
	return ret;
}
