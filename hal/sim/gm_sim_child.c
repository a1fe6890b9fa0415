/* SPDX-License-Identifier: MIT */
/*
 * Children of the simulated process: what fork() copies, and what becomes of it.
 *
 *     fork: hooks freeze --> mappings copied, frames shared --> (gm_sim_serve.c) --> hooks thaw
 *     a shared frame --stored to by either--> a copy for who stores
 *                    --stolen--> the bytes go, the other one keeps the frame
 *
 * A child has no watch but that by which it is served, nothing of what is not inherited, and a frame of its own at once where DMA is under way (as
 * Linux has it: the pin stays with the parent's frame). It does nothing by itself: who made it reads and stores for it, at
 * any time, also long after, until it exits.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "hal/sim/gm_sim_internal.h"

#define MAX_PMAPS 8u

struct child_page {
	uint64_t va;
	uint8_t *frame; /* NULL: poisoned */
	bool filled;    /* by who serves the child */
};

struct gm_sim_child {
	struct gm_sim *sim;
	struct gm_sim_vma *vma; /* in order */
	size_t vmas;
	struct child_page *page; /* in order; what is not there is zeros */
	size_t pages, room;
	bool ended;
};

/* ------------------------------------------------------------------ made */

static bool is_inherited(const struct gm_sim_vma *vma)
{
	return !vma->not_inherited;
}

/* Pages of one mapping; with `to` NULL only counted. */
static size_t copy_pages(struct gm_sim *sim, const struct gm_sim_vma *vma, struct child_page *to)
{
	size_t n = 0;

	for (uint64_t va = vma->va; va < vma->end; va += GM_PAGE_BYTES) {
		struct gm_sim_page *page = gm_sim_page_get(sim, va, false);

		if (!page || (!page->frame && !page->poisoned))
			continue;
		if (to && page->frame)
			to[n] = (struct child_page){ .va = va, .frame = gm_sim_frame_share(page->frame) };
		else if (to)
			to[n] = (struct child_page){ .va = va };
		if (to && page->pins)
			gm_sim_frame_own(sim, &to[n].frame);
		n++;
	}
	return n;
}

/* Everything at one moment: nothing here is a point of the scheduler. */
static struct gm_sim_child *copy_process(struct gm_sim *sim)
{
	struct gm_sim_child *c = gm_sim_calloc(sim, sizeof(*c));
	struct gm_sim_vma *vma;

	c->sim = sim;
	for (vma = gm_sim_vma_after(sim, 0); vma; vma = gm_sim_vma_next(sim, vma)) {
		c->vmas += is_inherited(vma);
		c->pages += is_inherited(vma) ? copy_pages(sim, vma, NULL) : 0;
	}
	c->vma = gm_sim_calloc(sim, (c->vmas + 1) * sizeof(*c->vma));
	c->room = c->pages + 1;
	c->page = gm_sim_calloc(sim, c->room * sizeof(*c->page));
	c->vmas = c->pages = 0;
	for (vma = gm_sim_vma_after(sim, 0); vma; vma = gm_sim_vma_next(sim, vma)) {
		if (!is_inherited(vma))
			continue;
		c->vma[c->vmas++] = *vma;
		c->pages += copy_pages(sim, vma, &c->page[c->pages]);
	}
	return c;
}

/* Freeze what has hooks; the pmaps whose freeze did its work, referenced, go to `frozen`. */
static unsigned freeze_all(struct gm_sim *sim, struct gm_sim_pmap **frozen)
{
	struct gm_sim_pmap *all[MAX_PMAPS];
	struct gm_sim_pmap *pmap;
	unsigned n = 0;
	unsigned done = 0;

	LIST_FOREACH(pmap, &sim->pmaps, link) {
		if (n >= MAX_PMAPS) {
			gm_sim_panic(sim, "more than %u address spaces at fork", MAX_PMAPS);
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

struct gm_sim_child *gm_sim_fork(struct gm_sim *sim)
{
	return gm_sim_fork_at(sim, NULL, NULL);
}

struct gm_sim_child *gm_sim_fork_at(struct gm_sim *sim, void (*at)(void *arg), void *arg)
{
	struct gm_sim_pmap *frozen[MAX_PMAPS], *served[MAX_PMAPS];
	struct gm_sim_child *child;
	unsigned n;

	gm_sim_point(sim);
	while (sim->forking)
		gm_sim_queue_wait(sim, &sim->forkers, GM_SIM_NEVER, "another fork");
	sim->forking = true;
	n = freeze_all(sim, frozen);
	child = copy_process(sim);
	if (at)
		at(arg);
	sim->newborn = child;
	memcpy(served, frozen, n * sizeof(frozen[0]));
	gm_sim_serve_begin(sim, child, served, n);
	while (n-- > 0) {
		if (!frozen[n]->dead)
			frozen[n]->thaw(frozen[n]->fork_arg);
		gm_sim_pmap_put(frozen[n]);
	}
	gm_sim_serve_end(sim, child);
	sim->newborn = NULL;
	sim->forking = false;
	gm_sim_queue_wake(sim, &sim->forkers);
	return child;
}

void gm_sim_child_exit(struct gm_sim_child *child)
{
	for (size_t i = 0; i < child->pages; i++)
		gm_sim_frame_free(child->page[i].frame);
	free(child->page);
	free(child->vma);
	free(child);
}

/* ------------------------------------------------------------------ used */

const struct gm_sim_vma *gm_sim_child_vma(const struct gm_sim_child *child, uint64_t va)
{
	for (size_t i = 0; i < child->vmas; i++)
		if (va >= child->vma[i].va && va < child->vma[i].end)
			return &child->vma[i];
	return NULL;
}

static bool may(const struct gm_sim_child *child, uint64_t va, bool write)
{
	const struct gm_sim_vma *vma = gm_sim_child_vma(child, va);

	return vma && gm_sim_vma_allows(vma, write);
}

static int page_cmp(const void *key, const void *page)
{
	uint64_t va = *(const uint64_t *)key, at = ((const struct child_page *)page)->va;

	return (va > at) - (va < at);
}

static struct child_page *find(const struct gm_sim_child *child, uint64_t va)
{
	va -= va % GM_PAGE_BYTES;
	return bsearch(&va, child->page, child->pages, sizeof(*child->page), page_cmp);
}

bool gm_sim_child_has(const struct gm_sim_child *child, uint64_t va)
{
	return find(child, va);
}

bool gm_sim_child_was_filled(const struct gm_sim_child *child, uint64_t va)
{
	const struct child_page *page = find(child, va);

	return page && page->filled;
}

void gm_sim_child_put(struct gm_sim_child *child, uint64_t va, uint8_t *frame)
{
	size_t at = child->pages;

	if (child->pages == child->room) {
		struct child_page *more = gm_sim_calloc(child->sim, 2 * child->room * sizeof(*more));

		memcpy(more, child->page, child->pages * sizeof(*more));
		free(child->page);
		child->page = more;
		child->room *= 2;
	}
	while (at > 0 && child->page[at - 1].va > va)
		at--;
	memmove(&child->page[at + 1], &child->page[at], (child->pages - at) * sizeof(*child->page));
	child->page[at] = (struct child_page){ .va = va, .frame = frame, .filled = true };
	child->pages++;
}

void gm_sim_child_kill(struct gm_sim_child *child)
{
	child->ended = true;
}

gm_ret_t gm_sim_child_load(const struct gm_sim_child *child, uint64_t va, void *buf, size_t bytes)
{
	uint8_t *to = buf;

	if (child->ended)
		return GM_RET_IO;
	while (bytes > 0) {
		size_t rest = (size_t)(GM_PAGE_BYTES - va % GM_PAGE_BYTES), n = bytes < rest ? bytes : rest;
		const struct child_page *page = find(child, va);

		if (!may(child, va, false))
			return GM_RET_FAULT;
		if (page && !page->frame)
			return GM_RET_IO;
		if (page)
			memcpy(to, page->frame + va % GM_PAGE_BYTES, n);
		else
			memset(to, 0, n);
		va += n;
		to += n;
		bytes -= n;
	}
	return GM_RET_SUCCESS;
}

gm_ret_t gm_sim_child_store(struct gm_sim_child *child, uint64_t va, const void *buf, size_t bytes)
{
	struct child_page *page = find(child, va);

	if (va % GM_PAGE_BYTES + bytes > GM_PAGE_BYTES)
		return GM_RET_INVAL;
	if (child->ended)
		return GM_RET_IO;
	if (!may(child, va, true))
		return GM_RET_FAULT;
	if (!page)
		return GM_RET_NOTSUP;
	if (!page->frame)
		return GM_RET_IO;
	gm_sim_frame_own(child->sim, &page->frame);
	memcpy(page->frame + va % GM_PAGE_BYTES, buf, bytes);
	return GM_RET_SUCCESS;
}

/* A child that is looked at once. */
gm_ret_t gm_sim_fork_snapshot(struct gm_sim *sim, uint64_t va, void *buf, size_t bytes)
{
	struct gm_sim_child *child = gm_sim_fork(sim);
	gm_ret_t ret = gm_sim_child_load(child, va, buf, bytes);

	gm_sim_child_exit(child);
	return ret;
}
