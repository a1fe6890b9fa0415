/* SPDX-License-Identifier: MIT */
/*
 * gm_protect(): mprotect() that devices obey before it returns. The kernel tells nobody of an mprotect(), so what devices
 * have mapped is taken away here.
 *
 *     begun --no page busy or dropped, no set loses a right--> quiet --mprotect()--> changed --revoked--> ended
 *       '--a set would lose a right (BUSY), or in time it is not quiet (TIMEDOUT)--> ended, nothing changed
 *
 * Who maps a page asks first what the process itself may do; how it is known that the answer still holds when the
 * mapping is recorded is told in gm_protect.h.
 *
 * The first wait is for the sake of sets: what was recorded before the change began may be held a moment later, and is
 * busy until then. So when it is quiet, all sets there will be until the end are seen, and nothing has changed yet.
 *
 * Rights that grow concern nobody: devices ask again. A mapping with more than the new rights goes as a whole, and its
 * granule with it; the next fault maps what is allowed. Pages stay where they are: in a device's memory also under
 * PROT_NONE, until somebody wants them home (the host fills a new frame where the kernel will not move one there).
 *
 * What can still fail after mprotect(): a page that somebody has busy past the bound, or no memory for a packed block.
 * The process has its new rights then, and devices perhaps their old ones; the caller calls again.
 */
#include "config.h"

#include "core/gm_txn.h"
#include "hal/gm_handle.h"

/* Those of [va, end) whose mappings lose. */
struct change {
	struct gm_as *as;
	uint64_t va, end;
	uint32_t access;
	uint64_t deadline_ns;
};

static void count(struct change *c, uint64_t by)
{
	uint64_t first = c->va / GM_BLOCK_BYTES, n = (c->end - 1) / GM_BLOCK_BYTES - first + 1;

	atomic_fetch_add(&c->as->rights.changes, 1);
	for (uint64_t i = 0; i < n && i < GM_RIGHTS_COUNTERS; i++)
		atomic_fetch_add(&c->as->rights.of[(first + i) % GM_RIGHTS_COUNTERS], by);
}

/* (block) Of the range, what context i has mapped beyond the new rights. */
static struct gm_mask beyond(const struct change *c, const struct gm_block *b, unsigned i)
{
	struct gm_mask pages = gm_mask_none();

	if (!b->map[i])
		return pages;
	pages = gm_block_clip(b, c->va, c->end);
	return gm_mask_and(pages, c->access & GM_READ ? b->map[i]->write : b->map[i]->read);
}

/* (block) Would a set lose some of it, or of what goes with it? */
static bool set_loses(const struct change *c, const struct gm_block *b)
{
	bool held = false;

	for (unsigned i = 0; i < GM_MAX_CTXS; i++) {
		struct gm_mask pages = beyond(c, b, i);

		if (gm_mask_empty(&pages))
			continue;
		pages = gm_mask_grow(&pages, c->as->ctx[i]->dev->hal->granule_bytes / GM_PAGE_BYTES);
		held |= gm_mask_meets(&pages, &b->held);
	}
	return held;
}

/* (block) Nobody has pages of the range, or of their granules, busy or yet to drop. SUCCESS, TIMEDOUT. */
static gm_ret_t wait_quiet(const struct change *c, struct gm_block *b)
{
	struct gm_mask pages = gm_block_clip(b, c->va, c->end);
	gm_ret_t ret = GM_RET_SUCCESS;

	pages = gm_mask_grow(&pages, atomic_load(&c->as->granule_pages));
	while (!ret) {
		struct gm_mask away = gm_mask_or(b->busy, b->doomed);

		if (!gm_mask_meets(&away, &pages))
			break;
		ret = gm_wait(c->as->env, &b->waitq, &b->lock, c->deadline_ns);
	}
	return ret;
}

static gm_ret_t quiet_block(const struct change *c, struct gm_block *b)
{
	bool held = false;
	gm_ret_t ret;

	gm_lock(c->as->env, &b->lock);
	ret = wait_quiet(c, b);
	if (!ret)
		held = set_loses(c, b);
	gm_unlock(c->as->env, &b->lock);
	if (held)
		return gm_fail(GM_RET_BUSY, "gm_protect: a working set holds pages near 0x%llx that would lose a right",
			       (unsigned long long)b->va);
	return ret ? gm_fail(ret, "gm_protect: pages near 0x%llx did not become free in time; nothing changed",
			     (unsigned long long)b->va) : ret;
}

/* The pages are busy. A context that has some mapped cannot be detached: detaching revokes first. */
static gm_ret_t revoke_busy(const struct change *c, struct gm_block *b, const struct gm_mask *pages)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (!ret && !gm_mask_empty(&pages[i]))
			ret = gm_plan_revoke_in(b, c->as->ctx[i], &pages[i], c->deadline_ns, false);
	return ret;
}

static gm_ret_t revoke_block(const struct change *c, struct gm_block *b)
{
	struct gm_mask pages[GM_MAX_CTXS], all = gm_mask_none();
	gm_ret_t ret;

	gm_lock(c->as->env, &b->lock);
	ret = wait_quiet(c, b);
	for (unsigned i = 0; i < GM_MAX_CTXS && !ret; i++) {
		pages[i] = beyond(c, b, i); /* of no set: none came since it was quiet */
		all = gm_mask_or(all, pages[i]);
	}
	b->busy = gm_mask_or(b->busy, all);
	gm_unlock(c->as->env, &b->lock);
	if (!ret && !gm_mask_empty(&all)) {
		ret = revoke_busy(c, b, pages);
		gm_txn_release_unmoved(b, &all);
	}
	return ret ? gm_fail(ret, "gm_protect: devices may still access memory near 0x%llx as before: try again",
			     (unsigned long long)b->va) : ret;
}

/* The first failure; what comes behind it is seen to all the same. */
static gm_ret_t each_block(const struct change *c, gm_ret_t (*what)(const struct change *c, struct gm_block *b))
{
	gm_ret_t ret = GM_RET_SUCCESS, one = GM_RET_SUCCESS;
	uint64_t at = c->va;
	struct gm_block *b;

	while (at < c->end && !(one = gm_block_next_by(c->as, at, c->end, c->deadline_ns, &b)) && b) {
		one = what(c, b);
		ret = ret ? ret : one;
		at = b->va + GM_BLOCK_BYTES;
		gm_block_put(b);
	}
	return ret ? ret : one;
}

static gm_ret_t take_rights(struct change *c)
{
	gm_ret_t ret, revoked;

	count(c, GM_RIGHTS_BEGUN);
	ret = each_block(c, quiet_block);
	if (!ret) {
		ret = gm_hal_mem_protect(c->as->host, c->as->hpmap, c->va, c->end - c->va, c->access);
		revoked = GM_PLANTED(c->as, GM_PLANT_PROTECT_KEEP) ? ret : each_block(c, revoke_block); /* also if it failed, which may be half way */
		ret = ret ? ret : revoked;
	}
	count(c, GM_RIGHTS_ENDED);
	return ret;
}

gm_ret_t gm_protect(struct gm_as *as, uint64_t va, uint64_t bytes, uint32_t access)
{
	struct change c = { .as = as, .va = va, .end = va + bytes, .access = access };
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (access & ~(GM_READ | GM_WRITE))
		return gm_fail(GM_RET_INVAL, "gm_protect: access 0x%x is not made of GM_READ and GM_WRITE",
			       (unsigned)access);
	if (va % GM_PAGE_BYTES || !bytes || c.end < va || c.end > UINT64_MAX - GM_PAGE_BYTES)
		return gm_fail(GM_RET_INVAL, "gm_protect: 0x%llx + 0x%llx is unaligned, empty or overflows",
			       (unsigned long long)va, (unsigned long long)bytes);
	c.end = (c.end + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	if (access & GM_WRITE)
		return gm_hal_mem_protect(as->host, as->hpmap, va, c.end - va, GM_READ | GM_WRITE);
	c.deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	return take_rights(&c);
}
