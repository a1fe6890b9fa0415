/* SPDX-License-Identifier: MIT */
/*
 * What the caller asks for by address: move now, serve a fault. (What is given up: gm_discard.c.)
 *
 * gm_migrate() goes block by block and stops at nothing but the end: pages in
 * the way (held, pinned) are left out and counted.
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_evict.h"
#include "core/gm_fault.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "hal/gm_handle.h"

/* Rounded outward to pages. */
static void round_out(uint64_t *va, uint64_t *end)
{
	*va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	*end = (*end + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
}

/* One transaction to a device; AGAIN: look again. */
static gm_ret_t push(struct gm_ctx *ctx, struct gm_move *m, uint64_t deadline_ns)
{
	struct gm_txn t = { .as = ctx->as, .dev = ctx->dev, .flags = GM_TXN_FORCE, .deadline_ns = deadline_ns,
			    .move = m, .moves = 1 };
	gm_ret_t ret = gm_evict_reserve(ctx->dev, m, deadline_ns);

	if (ret)
		return ret;
	ret = gm_txn_run(&t);
	if (ret == GM_RET_AGAIN && t.why == GM_BLOCKED_ELSEWHERE)
		(void)gm_move_home(m->block, &t.what, GM_TXN_FORCE, deadline_ns);
	if (ret == GM_RET_FAULT || (ret == GM_RET_AGAIN && t.why == GM_BLOCKED_NOT))
		(void)gm_events_let_run(ctx->as);
	return ret;
}

static gm_ret_t block_to_dev(struct gm_ctx *ctx, struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	unsigned granule_pages = ctx->dev->hal->granule_bytes / GM_PAGE_BYTES;
	struct gm_move m = { .block = b };
	gm_ret_t ret = gm_block_need_node(b, ctx->dev->index);

	if (!ret)
		ret = gm_block_need_map(b, ctx->index);
	while (!ret) {
		gm_lock(as->env, &b->lock);
		m.want = gm_mask_and(gm_block_clip(b, va, end), b->managed);
		m.want = gm_mask_sub(m.want, gm_mask_or(b->held, b->poisoned));
		if (!GM_PLANTED(as, GM_PLANT_PIN_MOVE))
			m.want = gm_mask_sub(m.want, b->kept);
		m.want = gm_mask_sub(m.want, gm_block_on_dev(b, ctx->dev->index));
		m.want = gm_mask_shrink(&m.want, granule_pages);
		gm_unlock(as->env, &b->lock);
		if (gm_mask_empty(&m.want))
			break;
		ret = push(ctx, &m, deadline_ns);
		if (!ret)
			break;
		if ((ret == GM_RET_AGAIN || ret == GM_RET_FAULT) && gm_now_ns(as->env) < deadline_ns)
			ret = GM_RET_SUCCESS;
		else if (ret == GM_RET_AGAIN)
			ret = gm_fail(GM_RET_TIMEDOUT, "pages near 0x%llx could not be moved in time", (unsigned long long)b->va);
	}
	gm_evict_unreserve(ctx->dev, &m);
	return ret;
}

static gm_ret_t block_to_host(struct gm_block *b, uint64_t va, uint64_t end, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask range = gm_block_clip(b, va, end), away;
	gm_ret_t ended = gm_dup_end(b, &range, NULL, deadline_ns);

	if (ended)
		return ended;
	gm_lock(as->env, &b->lock);
	away = gm_mask_and(gm_mask_or(gm_block_on_devs(b), b->staged), gm_mask_sub(range, gm_mask_or(b->held, b->leaving)));
	gm_unlock(as->env, &b->lock);
	GM_MASK_FOR_RUN(&away, first, stop) {
		gm_ret_t ret = gm_mem_block_home(b, b->va + (uint64_t)first * GM_PAGE_BYTES,
						 b->va + (uint64_t)stop * GM_PAGE_BYTES, deadline_ns);

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* How many pages of the range were lost with a device. */
static uint64_t count_lost(struct gm_as *as, uint64_t va, uint64_t end)
{
	uint64_t at = va, lost = 0;

	for (struct gm_block *b; (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_clip(b, va, end);

		gm_lock(as->env, &b->lock);
		pages = gm_mask_sub(gm_mask_and(pages, b->poisoned), b->leaving);
		gm_unlock(as->env, &b->lock);
		lost += gm_mask_count(&pages);
		at = b->va + GM_BLOCK_BYTES;
	}
	return lost;
}

/* How many pages of the range are where they should be, and how many are managed at all. NOMEM: all cannot be told now. */
static gm_ret_t count(struct gm_as *as, uint64_t va, uint64_t end, const struct gm_dev *dev, uint64_t *there,
		      uint64_t *managed)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t at = va, home = 0;
	struct gm_region buf, *r;

	*there = *managed = 0;
	gm_lock(as->env, &as->lock);
	for (r = gm_regions_first(&as->regions, va, end, &buf); r; r = gm_regions_next(&as->regions, r, end))
		*managed += ((r->end < end ? r->end : end) - (r->va > va ? r->va : va)) / GM_PAGE_BYTES;
	gm_unlock(as->env, &as->lock);
	if (!dev && gm_as_mirrors(as))
		ret = gm_mirror_at_home(as, va, end, &home);
	*managed += home;
	if (!dev)
		*there = *managed;
	for (struct gm_block *b; (b = gm_block_next(as, at, end)); gm_block_put(b)) {
		struct gm_mask range = gm_block_clip(b, va, end), pages;

		gm_lock(as->env, &b->lock);
		pages = dev ? gm_block_on_dev(b, dev->index) : gm_mask_or(gm_block_on_devs(b), b->poisoned);
		pages = gm_mask_sub(pages, b->leaving);
		gm_unlock(as->env, &b->lock);
		pages = gm_mask_and(pages, range);
		*there = dev ? *there + gm_mask_count(&pages) : *there - gm_mask_count(&pages);
		at = b->va + GM_BLOCK_BYTES;
	}
	return ret;
}

/* On to the first managed address at or above *at; false: there is none below `end`. */
static bool next_managed(struct gm_as *as, uint64_t *at, uint64_t end)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_first(&as->regions, *at, end, &buf);
	if (r && r->va > *at)
		*at = r->va;
	gm_unlock(as->env, &as->lock);
	return r;
}

static gm_ret_t move_range(struct gm_as *as, uint64_t va, uint64_t end, struct gm_ctx *ctx, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (uint64_t at = va; at < end && !ret; at = gm_block_base(at) + GM_BLOCK_BYTES) {
		struct gm_block *b = gm_block_find(as, at);

		if (!b) {
			if (!next_managed(as, &at, end))
				break;
			b = gm_block_find(as, at);
		}
		if (!b && !ctx)
			continue; /* untracked: on the host */
		if (!b)
			ret = gm_block_obtain(as, at, &b);
		if (ret == GM_RET_NOMEM)
			break;
		if (ret) {
			ret = GM_RET_SUCCESS; /* not managed any more: counted at the end */
			continue;
		}
		ret = ctx ? block_to_dev(ctx, b, va, end, deadline_ns) : block_to_host(b, va, end, deadline_ns);
		gm_block_put(b);
	}
	return ret;
}

static uint64_t up(uint64_t va, uint64_t align)
{
	return (va + align - 1) & ~(align - 1);
}

/*
 * How many units of the device's memory the range takes, whole granules of managed memory only. Regions come in order;
 * two that meet are one run, and two runs may share a frame, which is counted once.
 */
static uint64_t count_units(struct gm_as *as, const struct gm_dev *dev, uint64_t va, uint64_t end)
{
	uint64_t granule = dev->hal->granule_bytes, frame = dev->node.min_order ? GM_BLOCK_BYTES : GM_UNIT_BYTES;
	uint64_t bytes = 0, counted = 0;
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_first(&as->regions, va, end, &buf);
	while (r) {
		uint64_t lo = r->va > va ? r->va : va, hi = lo;

		for (; r && r->va <= hi && !gm_region_stays(r); r = gm_regions_next(&as->regions, r, end))
			hi = r->end < end ? r->end : end;
		if (r && gm_region_stays(r))
			r = gm_regions_next(&as->regions, r, end);
		lo = up(lo, granule);
		hi &= ~(granule - 1);
		if (lo >= hi)
			continue;
		lo &= ~(frame - 1);
		hi = up(hi, frame);
		bytes += hi - (lo > counted ? lo : counted);
		counted = hi;
	}
	gm_unlock(as->env, &as->lock);
	return bytes / GM_UNIT_BYTES;
}

/* Of those, how many a working set has there already: they are among what is reserved. */
static uint64_t count_held(struct gm_as *as, const struct gm_dev *dev, uint64_t va, uint64_t end)
{
	uint64_t at = va, units = 0;

	for (struct gm_block *b; (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		struct gm_mask held = gm_block_clip(b, va, end);

		held = gm_mask_shrink(&held, dev->hal->granule_bytes / GM_PAGE_BYTES);
		gm_lock(as->env, &b->lock);
		held = gm_mask_and(gm_mask_and(held, b->held), gm_block_on_dev(b, dev->index));
		gm_unlock(as->env, &b->lock);
		if (!gm_mask_empty(&held))
			units += dev->node.min_order ? GM_BLOCK_UNITS : (unsigned)__builtin_popcount(gm_mask_units(&held));
		at = b->va + GM_BLOCK_BYTES;
	}
	return units;
}

/* Nobody could bring what does not fit, however long they wait. */
gm_ret_t gm_mem_check_fit(struct gm_as *as, const char *what, struct gm_dev *dev, uint64_t va, uint64_t end)
{
	uint64_t total, avail, reserved, there, managed, units, held;

	(void)count(as, va, end, dev, &there, &managed); /* fails only for the host */
	if (there == managed)
		return GM_RET_SUCCESS; /* all of it is there, held or not */
	units = count_units(as, dev, va, end);
	held = count_held(as, dev, va, end);
	gm_node_room(&dev->node, &total, &avail, &reserved);
	if (units <= total - reserved + held)
		return GM_RET_SUCCESS;
	return gm_fail(GM_RET_NOSPC, "%s: 0x%llx + %llu KiB needs %llu KiB; device %s has %llu KiB, of which "
		       "working sets hold %llu KiB", what, (unsigned long long)va, (unsigned long long)((end - va) >> 10),
		       (unsigned long long)(units * (GM_UNIT_BYTES >> 10)), dev->hal->caps.name,
		       (unsigned long long)(total * (GM_UNIT_BYTES >> 10)),
		       (unsigned long long)(reserved * (GM_UNIT_BYTES >> 10)));
}

/* Everything was tried, and `there` of the `managed` pages are where they should be. */
static gm_ret_t judge(struct gm_as *as, uint64_t va, uint64_t end, uint64_t there, uint64_t managed)
{
	uint64_t lost = there < managed ? count_lost(as, va, end) : 0;

	if (lost)
		return gm_fail(GM_RET_NODEV, "gm_migrate: the content of %llu pages was lost with a device",
			       (unsigned long long)lost);
	if (managed * GM_PAGE_BYTES < end - va)
		return gm_fail(GM_RET_FAULT, "gm_migrate: %llu KiB of the range are not managed memory",
			       (unsigned long long)((end - va - managed * GM_PAGE_BYTES) >> 10));
	if (there < managed)
		return gm_fail(GM_RET_BUSY, "gm_migrate: %llu pages cannot move now", (unsigned long long)(managed - there));
	return GM_RET_SUCCESS;
}

gm_ret_t gm_migrate(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev, uint64_t *moved_bytes)
{
	uint64_t end = va + bytes, there, managed, deadline_ns;
	struct gm_ctx *ctx;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS), counted;

	if (!ret && dev)
		ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (ret)
		return ret;
	ret = gm_as_check_range(as, "gm_migrate", va, bytes);
	if (!ret && end > UINT64_MAX - GM_PAGE_BYTES)
		ret = gm_fail(GM_RET_INVAL, "gm_migrate: the range overflows");
	if (ret)
		return ret;
	ctx = dev ? gm_as_ctx_of(as, dev) : NULL;
	if (dev && !ctx)
		return gm_fail(GM_RET_INVAL, "gm_migrate: the device is not attached to this space");
	round_out(&va, &end);
	deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	ret = gm_events_settle(as, deadline_ns);
	if (!ret)
		ret = gm_pack_open_range(as, va, end);
	if (!ret && ctx && gm_as_mirrors(as))
		ret = gm_mirror_adopt_range(as, va, end, deadline_ns);
	if (!ret && ctx)
		ret = gm_mem_check_fit(as, "gm_migrate", dev, va, end);
	if (!ret)
		ret = move_range(as, va, end, ctx, deadline_ns);
	if (ctx)
		gm_ctx_leave(ctx);
	if (ret && !moved_bytes)
		return ret;
	counted = count(as, va, end, dev, &there, &managed);
	if (moved_bytes)
		*moved_bytes = there * GM_PAGE_BYTES;
	ret = ret ? ret : counted;
	return ret ? ret : judge(as, va, end, there, managed);
}

/* ------------------------------------------------------- everything home */

/* What a device has of it, or what is parked in staging. */
static uint64_t count_away(struct gm_block *b)
{
	struct gm_mask away;

	gm_lock(b->as->env, &b->lock);
	away = gm_mask_sub(gm_mask_or(gm_block_on_devs(b), b->staged), b->leaving);
	gm_unlock(b->as->env, &b->lock);
	return gm_mask_count(&away);
}

/* A block that cannot come does not keep the others; the first failure counts. */
static gm_ret_t home_all(struct gm_as *as, uint64_t deadline_ns, uint64_t *left, uint64_t *lost)
{
	gm_ret_t ret = GM_RET_SUCCESS;
	struct gm_block *b = NULL;
	uint64_t va = 0;

	for (;;) {
		struct gm_mask poisoned;
		gm_ret_t one = gm_block_next_by(as, va, UINT64_MAX, deadline_ns, &b);

		if (one || !b)
			return ret ? ret : one;
		va = b->va + GM_BLOCK_BYTES;
		one = block_to_host(b, b->va, va, deadline_ns);
		poisoned = gm_mem_mark_poison(b, b->va, va); /* who looks from outside asks nobody, and would see zeros */
		*lost += gm_mask_count(&poisoned);
		*left += count_away(b);
		gm_block_put(b);
		ret = ret ? ret : one;
	}
}

gm_ret_t gm_as_home(struct gm_as *as, uint64_t timeout_ns, uint64_t *left_bytes)
{
	uint64_t left = 0, lost = 0, deadline_ns;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	deadline_ns = gm_deadline_ns(as->env, timeout_ns);
	ret = gm_events_settle(as, deadline_ns);
	if (ret)
		return ret;
	ret = home_all(as, deadline_ns, &left, &lost);
	if (left_bytes)
		*left_bytes = left * GM_PAGE_BYTES;
	if (!ret && lost)
		ret = gm_fail(GM_RET_NODEV, "gm_as_home: the content of %llu pages was lost with a device", (unsigned long long)lost);
	if (!ret && left)
		ret = gm_fail(GM_RET_BUSY, "gm_as_home: %llu pages are held by a working set, or went to a device meanwhile",
			      (unsigned long long)left);
	return ret;
}

/* --------------------------------------------------------------- faults */

gm_ret_t gm_dev_fault(struct gm_ctx *ctx, uint64_t va, uint32_t access)
{
	struct gm_fault_ask ask = { .va = va & ~(uint64_t)(GM_PAGE_BYTES - 1), .access = access };
	gm_ret_t ret = gm_handle_check(ctx, GM_HANDLE_CTX);

	if (ret)
		return ret;
	if (!(access & (GM_READ | GM_WRITE | GM_ATOMIC)) || (access & ~(GM_READ | GM_WRITE | GM_ATOMIC)))
		return gm_fail(GM_RET_INVAL, "gm_dev_fault: access 0x%x is not made of GM_READ, GM_WRITE, GM_ATOMIC",
			       (unsigned)access);
	if (!gm_ctx_enter(ctx))
		return gm_fail(GM_RET_INVAL, "gm_dev_fault: the context is being detached");
	if (!gm_events_settled(ctx->as))
		ask.ret = gm_events_settle(ctx->as, gm_deadline_ns(ctx->as->env, ctx->as->cfg.wait_ns));
	if (!ask.ret)
		gm_fault_block(ctx, &ask, 1, ctx->as->cfg.wait_ns);
	gm_ctx_leave(ctx);
	return ask.ret;
}
