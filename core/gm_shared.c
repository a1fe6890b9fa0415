/* SPDX-License-Identifier: MIT */
/*
 * Shared memory. Until others may map it, it is a region OWNED like that of gm_alloc(), and only the host knows
 * that its pages move in another way (hal/host/gm_host_shared_move.c). From then on it is PLACED: its pages are edges, as
 * those that an adopted buffer shares with others.
 *
 *     gm_alloc_shared: OWNED --gm_shared_fd: region PLACED--> each block: home, edges --unwatched--> a descriptor leaves
 *                                                             --it fails--> OWNED, managed as before
 *     gm_map_shared: PLACED
 *     gm_free of PLACED (gm_alloc.c): region out --> no edges --> no set holds it --> mappings in place revoked --> host unmaps
 *
 * The region changes first, so that blocks that are made meanwhile have edges from the start. A block that is there
 * becomes so page by page: those that are home with nothing going on, in one moment under its lock. The others are
 * brought home again; so that devices which take pages back all the time do not keep us for ever, as what is an edge is
 * not taken any more. No device sees a page that is neither.
 *
 * One export at a time in a space (`exporting`): a descriptor must not leave while another call still brings pages home,
 * nor gm_free() meet a region that may become OWNED again.
 */
#include "config.h"

#include <gmem/shared.h>

#include "core/gm_shared.h"

#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_txn.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

gm_ret_t gm_shared_wait(struct gm_as *as, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	while (as->exporting && !ret)
		ret = gm_wait(as->env, &as->waitq, &as->lock, deadline_ns);
	return ret ? gm_fail(GM_RET_TIMEDOUT, "another gm_shared_fd() of this space did not end in time") : ret;
}

bool gm_shared_moves(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_region buf, *r;
	uint64_t slot, at = va;

	do {
		gm_lock(as->env, &as->lock);
		r = gm_regions_first(&as->regions, at, end, &buf);
		while (r && r->kind != GM_REGION_OWNED)
			r = gm_regions_next(&as->regions, r, end);
		at = r ? r->end : end;
		gm_unlock(as->env, &as->lock);
		if (r && gm_hal_share_slot(as->host, as->hpmap, gm_block_base(buf.va), &slot) != GM_RET_NOENT)
			return true;
	} while (at < end);
	return false;
}

/* The block's slot, which is empty, is not its any more. The worker may be about to give it back, with all pages busy. */
static gm_ret_t drop_slot(struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_mask none = gm_mask_none(), away;
	struct gm_as *as = b->as;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t slot;
	bool had;

	gm_lock(as->env, &b->lock);
	while (!ret && !gm_mask_equal(&b->busy, &none))
		ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
	away = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), b->leaving);
	if (!ret && !gm_mask_empty(&away))
		ret = GM_RET_BUSY; /* of other memory, which mremap() took away from here */
	had = !ret && b->has_slot;
	if (had)
		b->has_slot = false;
	slot = b->slot;
	gm_unlock(as->env, &b->lock);
	if (had)
		gm_hal_slot_free(as->host, as->hpmap, slot);
	return ret;
}

gm_ret_t gm_shared_drop_slots(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t slot;

	if (gm_hal_share_slot(as->host, as->hpmap, gm_block_base(va), &slot) == GM_RET_NOENT)
		return ret;
	for (struct gm_block *b; !ret && (b = gm_block_next(as, va, end)); gm_block_put(b)) {
		ret = drop_slot(b, deadline_ns);
		va = b->va + GM_BLOCK_BYTES;
	}
	return ret ? gm_fail(GM_RET_NOMEM, "the addresses below 0x%llx are in use still", (unsigned long long)va) : ret;
}

/* What begins at va and is owned or placed. */
static bool find(struct gm_as *as, uint64_t va, struct gm_region *out)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_find(&as->regions, va, &buf);
	if (r)
		*out = *r;
	gm_unlock(as->env, &as->lock);
	return r && r->va == va && (r->kind == GM_REGION_OWNED || r->kind == GM_REGION_PLACED);
}

void gm_shared_set_edges(struct gm_as *as, uint64_t va, uint64_t end, bool on)
{
	uint64_t at = va;

	for (struct gm_block *b; (b = gm_block_next(as, at, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end);

		gm_lock(as->env, &b->lock);
		b->edge = gm_mask_sub(b->edge, range);
		if (on) {
			b->edge = gm_mask_or(b->edge, range);
			b->managed = gm_mask_sub(b->managed, range);
			b->host = gm_mask_sub(b->host, range);
			b->mirrored = gm_mask_sub(b->mirrored, range);
			b->external = gm_mask_sub(b->external, range);
			gm_mirror_count(b);
		} else {
			b->kept = gm_mask_sub(b->kept, range);
		}
		gm_unlock(as->env, &b->lock);
		at = b->va + GM_BLOCK_BYTES;
	}
}

/* ------------------------------------------------------------ making it */

gm_ret_t gm_alloc_shared(struct gm_as *as, uint64_t bytes, uint32_t flags, void **ptr)
{
	struct gm_mem_source from = { .shared = true, .fd = -1 };
	uint64_t va;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return gm_fail(GM_RET_INVAL, "gm_alloc_shared: ptr must not be NULL");
	if (!bytes || bytes > UINT64_MAX / 8)
		return gm_fail(GM_RET_INVAL, "gm_alloc_shared: %llu bytes", (unsigned long long)bytes);
	if (flags)
		return gm_fail(GM_RET_INVAL, "gm_alloc_shared: flags 0x%x: none is known", (unsigned)flags);
	if (as->lib->rung.cannot & GM_RUNG_NO_SHARED)
		return gm_fail(GM_RET_NOTSUP, "gm_alloc_shared: on the rung \"%s\" shared memory does not move; it needs Linux 6.8: "
			       "see gm_lib_rung(); or make it elsewhere, and gm_map_shared() it here", gm_rung_name(as->lib->rung.rung));
	bytes = (bytes + GM_BLOCK_BYTES - 1) & ~(uint64_t)(GM_BLOCK_BYTES - 1);
	ret = gm_mem_obtain(as, &from, bytes, GM_FORK_EXCLUDE, &va);
	if (!ret)
		*ptr = (void *)(uintptr_t)va;
	return ret;
}

gm_ret_t gm_map_shared(struct gm_as *as, int fd, uint64_t offset, uint64_t bytes, uint32_t flags, void **ptr)
{
	struct gm_mem_source from = { .shared = true, .fd = fd, .offset = offset };
	uint64_t va;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr)
		return gm_fail(GM_RET_INVAL, "gm_map_shared: ptr must not be NULL");
	if (fd < 0)
		return gm_fail(GM_RET_INVAL, "gm_map_shared: %d is no descriptor", fd);
	if (!bytes || bytes > UINT64_MAX / 8 || offset % GM_PAGE_BYTES || offset > UINT64_MAX / 8)
		return gm_fail(GM_RET_INVAL, "gm_map_shared: %llu bytes at %llu: empty, unaligned or overflowing",
			       (unsigned long long)bytes, (unsigned long long)offset);
	if (flags)
		return gm_fail(GM_RET_INVAL, "gm_map_shared: flags 0x%x: none is known", (unsigned)flags);
	bytes = (bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	ret = gm_mem_obtain(as, &from, bytes, GM_FORK_DEFAULT, &va);
	if (ret)
		return ret;
	gm_shared_set_edges(as, va, va + bytes, true);
	gm_fork_begin_range(as, va, va + bytes, false);
	*ptr = (void *)(uintptr_t)va;
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------- exporting */

/* Pages of the block that are home and quiet become edges. Returns those that are not; *lost: of some the content is. */
static struct gm_mask place_quiet(struct gm_block *b, uint64_t va, uint64_t end, bool *lost)
{
	struct gm_mask range = gm_block_clip(b, va, end), quiet, away;

	gm_lock(b->as->env, &b->lock);
	away = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_mask_or(b->busy, b->doomed));
	away = gm_mask_or(away, gm_mask_or(b->leaving, gm_mask_or(b->poisoned, b->held)));
	quiet = gm_mask_sub(gm_mask_and(b->managed, range), away);
	b->managed = gm_mask_sub(b->managed, quiet);
	b->host = gm_mask_sub(b->host, quiet);
	b->edge = gm_mask_or(b->edge, quiet);
	*lost = gm_mask_meets(&b->poisoned, &range);
	range = gm_mask_and(b->managed, range);
	gm_unlock(b->as->env, &b->lock);
	return range;
}

static gm_ret_t place_block(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask left;
	bool lost;

	for (;;) {
		gm_ret_t ret = gm_mem_block_home(b, va, end, deadline_ns);

		if (ret)
			return ret;
		left = place_quiet(b, va, end, &lost);
		if (lost)
			return gm_fail(GM_RET_NODEV, "gm_shared_fd: content near 0x%llx was lost with a device: gm_discard() it first",
				       (unsigned long long)b->va);
		if (gm_mask_empty(&left))
			return GM_RET_SUCCESS;
		if (gm_mem_is_held(b->as, va, end))
			return gm_fail(GM_RET_BUSY, "gm_shared_fd: a working set has just taken pages near 0x%llx",
				       (unsigned long long)b->va);
		if (gm_now_ns(env) >= deadline_ns)
			return gm_fail(GM_RET_TIMEDOUT, "gm_shared_fd: pages near 0x%llx did not become free in time",
				       (unsigned long long)b->va);
	}
}

static gm_ret_t place_all(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	uint64_t at = va;
	struct gm_block *b;
	gm_ret_t ret;

	do {
		ret = gm_block_next_by(as, at, end, deadline_ns, &b);
		if (ret || !b)
			return ret;
		at = b->va + GM_BLOCK_BYTES;
		ret = place_block(b, va, end, deadline_ns);
		gm_block_put(b);
	} while (!ret);
	return ret;
}

/* OWNED becomes PLACED; that it can become OWNED again is promised. NOENT: it is not OWNED (any more). */
static gm_ret_t begin_placing(struct gm_as *as, const struct gm_region *was)
{
	struct gm_regions *rs = &as->regions;
	bool done = false, there = true;

	while (there && !done) {
		struct gm_region buf, *r;
		gm_ret_t ret = gm_mem_stock(as, 4);

		if (ret)
			return ret;
		gm_lock(as->env, &as->lock);
		r = gm_regions_find(rs, was->va, &buf);
		there = r && r->kind == GM_REGION_OWNED && r->va == was->va && r->end == was->end;
		done = there && gm_regions_room(rs) >= 4 && gm_regions_promise(rs);
		if (done && !gm_regions_promise(rs)) {
			gm_regions_redeem(rs);
			done = false;
		}
		if (done) {
			(void)gm_regions_carve(rs, was->va, was->end, GM_REGION_OWNED);
			(void)gm_regions_insert(rs, was->va, was->end, GM_REGION_PLACED);
		}
		gm_unlock(as->env, &as->lock);
	}
	return done ? GM_RET_SUCCESS : gm_fail(GM_RET_NOENT, "gm_shared_fd: 0x%llx was freed", (unsigned long long)was->va);
}

/* What was promised is not needed, or is. */
static void end_placing(struct gm_as *as, const struct gm_region *was, bool back)
{
	struct gm_regions *rs = &as->regions;

	gm_lock(as->env, &as->lock);
	gm_regions_redeem(rs);
	if (back)
		(void)gm_regions_carve(rs, was->va, was->end, GM_REGION_PLACED);
	gm_regions_redeem(rs);
	if (back)
		(void)gm_regions_insert(rs, was->va, was->end, GM_REGION_OWNED);
	gm_unlock(as->env, &as->lock);
	if (back)
		gm_mem_set_managed(as, was->va, was->end, true);
	gm_mem_trim_stock(as);
}

static gm_ret_t export(struct gm_as *as, const struct gm_region *r, uint64_t deadline_ns, int *fd)
{
	uint64_t slot;
	gm_ret_t ret = gm_hal_share_slot(as->host, as->hpmap, r->va, &slot);

	if (ret == GM_RET_NOENT)
		return gm_fail(ret, "gm_shared_fd: no shared memory begins at 0x%llx", (unsigned long long)r->va);
	if (gm_mem_is_held(as, r->va, r->end))
		return gm_fail(GM_RET_BUSY, "gm_shared_fd: a working set holds part of 0x%llx: release it first",
			       (unsigned long long)r->va);
	ret = begin_placing(as, r);
	if (ret)
		return ret;
	ret = place_all(as, r->va, r->end, deadline_ns);
	if (!ret) {
		gm_mem_unwatch(as, r->va, r->end);
		ret = gm_hal_share_fd(as->host, as->hpmap, r->va, fd);
	}
	end_placing(as, r, ret != GM_RET_SUCCESS);
	if (ret)
		return ret;
	(void)gm_fork_set(as, r->va, r->end, GM_FORK_DEFAULT); /* no memory: it is excluded by name, as it was */
	gm_fork_begin_range(as, r->va, r->end, false);
	return GM_RET_SUCCESS;
}

static gm_ret_t export_alone(struct gm_as *as, void *ptr, uint64_t deadline_ns, int *fd)
{
	struct gm_region r;

	if (!find(as, GM_VA(ptr), &r))
		return gm_fail(GM_RET_NOENT, "gm_shared_fd: no shared memory begins at %p", ptr);
	if (r.kind == GM_REGION_PLACED)
		return gm_hal_share_fd(as->host, as->hpmap, r.va, fd);
	return export(as, &r, deadline_ns, fd);
}

gm_ret_t gm_shared_fd(struct gm_as *as, void *ptr, int *fd)
{
	uint64_t deadline_ns;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!ptr || !fd)
		return gm_fail(GM_RET_INVAL, "gm_shared_fd: %s must not be NULL", ptr ? "fd" : "ptr");
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_events_settle(as, deadline_ns);
	if (ret)
		return ret;
	gm_lock(as->env, &as->lock);
	ret = gm_shared_wait(as, deadline_ns);
	as->exporting |= !ret;
	gm_unlock(as->env, &as->lock);
	if (ret)
		return ret;
	ret = export_alone(as, ptr, deadline_ns, fd);
	gm_lock(as->env, &as->lock);
	as->exporting = false;
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
	return ret;
}

/* --------------------------------------------------------------- freeing */

gm_ret_t gm_shared_unmap_devices(struct gm_as *as, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	uint64_t at = va;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (struct gm_block *b; !ret && (b = gm_block_next(as, at, end)); gm_block_put(b)) {
		ret = gm_mem_unmap_in_place(b, va, end, deadline_ns);
		at = b->va + GM_BLOCK_BYTES;
		gm_work_queue(b, 0); /* forget it, if nothing else is in it */
	}
	return ret;
}
