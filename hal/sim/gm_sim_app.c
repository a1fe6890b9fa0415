/* SPDX-License-Identifier: MIT */
/*
 * The application of the simulated process: its system calls and its loads
 * and stores. Each begins with a point of the scheduler, so that application
 * code without any other interleaves too.
 *
 *     access: no right -> FAULT; poisoned -> IO; present -> done;
 *             absent, unwatched -> zeros at once; absent, watched -> message, wait, look again;
 *             a store to a page that is protected -> the same
 *     munmap, mmap_at: pages and mapping gone -> events posted, one after the other, until read
 *
 * madvise() is in gm_sim_madvise.c, mremap() in gm_sim_remap.c.
 */
#include "config.h"

#include <string.h>

#include "hal/sim/gm_sim_internal.h"

bool gm_sim_bad_range(uint64_t va, uint64_t bytes)
{
	return va % GM_PAGE_BYTES || bytes % GM_PAGE_BYTES || bytes == 0 || va + bytes < va;
}

/* Stores imply loads. */
static uint32_t full_access(uint32_t access)
{
	return access & (GM_WRITE | GM_ATOMIC) ? GM_READ | GM_WRITE : access & GM_READ;
}

/* ----------------------------------------------------------- system calls */

static void watchers_add(struct gm_sim *sim, struct gm_sim_watchers *w, struct gm_sim_pmap *pmap)
{
	for (unsigned i = 0; i < w->n; i++) {
		if (w->pmap[i] == pmap)
			return;
	}
	if (w->n == GM_SIM_WATCHERS)
		gm_sim_panic(sim, "more than %u address spaces watch one range", GM_SIM_WATCHERS);
	gm_sim_event_prepare(pmap);
	w->pmap[w->n++] = pmap;
}

/* One UNMAP for each, over the whole range, as Linux does, is on its way from now on. */
struct gm_sim_watchers gm_sim_unmap_prepare(struct gm_sim *sim, uint64_t va, uint64_t end)
{
	struct gm_sim_watchers w = { .n = 0 };
	const struct gm_sim_vma *vma;

	for (uint64_t at = va; (vma = gm_sim_vma_after(sim, at)) != NULL && vma->va < end; at = vma->end) {
		if (vma->pmap)
			watchers_add(sim, &w, vma->pmap);
	}
	return w;
}

void gm_sim_unmap_post(const struct gm_sim_watchers *w, uint64_t va, uint64_t bytes)
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
	struct gm_sim_watchers w;

	if (gm_sim_bad_range(va, bytes) || va == 0)
		return 0;
	gm_sim_point(sim);
	w = gm_sim_unmap_prepare(sim, va, va + bytes);
	gm_sim_vma_cut(sim, va, va + bytes);
	gm_sim_vma_add(sim, &vma);
	gm_sim_vma_merge(sim, va, va + bytes);
	gm_sim_unmap_post(&w, va, bytes); /* by now the new mapping is in use */
	return va;
}

gm_ret_t gm_sim_unmap(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	struct gm_sim_watchers w = gm_sim_unmap_prepare(sim, va, va + bytes);

	gm_sim_vma_cut(sim, va, va + bytes);
	gm_sim_unmap_post(&w, va, bytes);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_munmap(struct gm_sim *sim, uint64_t va, uint64_t bytes)
{
	if (gm_sim_bad_range(va, bytes))
		return GM_RET_INVAL;
	gm_sim_point(sim);
	return gm_sim_unmap(sim, va, bytes);
}

gm_ret_t gm_sim_mprotect(struct gm_sim *sim, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct gm_sim_vma *vma;

	if (gm_sim_bad_range(va, bytes))
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

/* ------------------------------------------------------ loads and stores */

gm_ret_t gm_sim_touch(struct gm_sim *sim, uint64_t va, bool write, uint8_t **byte)
{
	return gm_sim_touch_by(sim, va, write, GM_SIM_NEVER, byte);
}

gm_ret_t gm_sim_touch_by(struct gm_sim *sim, uint64_t va, bool write, uint64_t deadline_ns, uint8_t **byte)
{
	for (;;) {
		struct gm_sim_vma *vma = gm_sim_vma_find(sim, va);
		struct gm_sim_page *page;

		if (!vma || !gm_sim_vma_allows(vma, write))
			return GM_RET_FAULT;
		page = gm_sim_page_get(sim, va, true);
		gm_sim_page_look(sim, page);
		if (page->poisoned)
			return GM_RET_IO;
		if (page->frame && !(write && page->protected)) {
			if (write)
				gm_sim_page_own(sim, page);
			*byte = page->frame + va % GM_PAGE_BYTES;
			return GM_RET_SUCCESS;
		}
		if (vma->pmap && sim->now_ns >= deadline_ns)
			return GM_RET_TIMEDOUT;
		if (vma->pmap)
			gm_sim_fault_wait(vma->pmap, va, write, page->frame, deadline_ns);
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
		gm_ret_t ret = gm_sim_touch(sim, va, from != NULL, &byte);

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
	ret = gm_sim_touch(sim, va, true, &byte);
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
	ret = gm_sim_touch(sim, va, true, &byte);
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

	if (gm_sim_bad_range(va, bytes))
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
		gm_ret_t ret = gm_sim_touch(sim, at, false, &byte);

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}
