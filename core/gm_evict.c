/* SPDX-License-Identifier: MIT */
/*
 * Eviction: device memory is made free before a transaction begins, never in
 * the middle of one.
 *
 *     take --all that is wanted is free--> done
 *          --none--> pick a victim --brought home--> take again
 *                                  --in the way (busy, just served)--> the next victim
 *                    no victim --> wait for one until the deadline
 *
 * Which one is the policy's word, least recently used by default. Pages of a
 * held working set are never victims; pages just served are left alone for
 * their slice, so a device and the one who needs its memory both make progress.
 * The victim may belong to any address space on the device.
 */
#include "config.h"

#include "core/gm_dup.h"
#include "core/gm_evict.h"
#include "core/gm_events.h"

/* A packed one as a block. False: there is no memory for it, or it is gone meanwhile. */
static bool open_victim(struct gm_victim *v)
{
	if (!v->block) {
		(void)gm_pack_open(v->as, v->va, &v->block); /* NOMEM is no victim */
		gm_as_put(v->as);
	}
	return v->block;
}

/* True if memory may have become free. */
static bool evict_one(struct gm_dev *dev, const struct gm_policy *policy, uint64_t deadline_ns)
{
	struct gm_victim v;
	struct gm_move m = { .want = gm_mask_none() };
	struct gm_txn t = { .flags = GM_TXN_EVICT, .deadline_ns = deadline_ns, .move = &m, .moves = 1 };
	bool progress = false;

	if (!gm_node_pick(&dev->node, policy, &v) || !open_victim(&v))
		return false;
	t.as = v.block->as;
	m.block = v.block;
	m.want = gm_mask_span(v.first, v.end);
	progress = gm_dup_evict(dev, v.block, &m.want, deadline_ns);
	if (!gm_txn_begin(&t)) {
		gm_ret_t ret = gm_txn_to_host(&t);

		gm_txn_end(&t);
		progress |= !gm_mask_empty(&m.arrived);
		if (ret == GM_RET_FAULT || ret == GM_RET_EXIST) /* the application changed the mapping: learn of it */
			(void)gm_events_let_run(t.as);
	}
	gm_block_put(v.block);
	return progress;
}

/* What is wanted: one chunk of the largest order, or a unit for each bit. */
struct want {
	uint32_t units; /* 0: one chunk that spans the block */
	struct gm_chunk **chunk;
};

static bool take(struct gm_node *node, const struct want *w)
{
	if (w->units)
		return gm_node_take_units(node, w->units, w->chunk);
	w->chunk[0] = gm_node_take(node, GM_BLOCK_ORDER);
	return w->chunk[0];
}

/* Evict until all of it is free at once: who had a part and waited for more could wait for another who does the same. */
static gm_ret_t evict_take(struct gm_as *as, struct gm_dev *dev, const struct want *w, uint64_t deadline_ns)
{
	uint64_t start = gm_now_ns(as->env);
	unsigned fruitless = 0;

	while (!take(&dev->node, w)) {
		uint64_t now = gm_now_ns(as->env), total, avail, reserved;

		if (atomic_load(&dev->hal->lost))
			return gm_fail(GM_RET_NODEV, "device %s is lost", dev->hal->caps.name);
		if (now >= deadline_ns) {
			gm_node_room(&dev->node, &total, &avail, &reserved);
			return gm_fail(reserved || !total ? GM_RET_NOSPC : GM_RET_TIMEDOUT,
				       "no memory of device %s could be made free: %llu of %llu KiB are held by working sets",
				       dev->hal->caps.name, (unsigned long long)(reserved * (GM_UNIT_BYTES >> 10)),
				       (unsigned long long)(total * (GM_UNIT_BYTES >> 10)));
		}
		if (evict_one(dev, &as->policy, deadline_ns)) {
			fruitless = 0;
		} else if (++fruitless >= 4) {
			uint64_t until = gm_deadline_after_ns(now, as->cfg.slice_ns);

			(void)gm_node_wait(&dev->node, until < deadline_ns ? until : deadline_ns);
			fruitless = 0;
		}
	}
	gm_stat_time(as, GM_STAT_ns_evict, start);
	return GM_RET_SUCCESS;
}

/* (unlocked) Which units of the block lack frames for pages of m->want; `bare`: the block has no frames at all. */
static uint32_t units_lacking(struct gm_dev *dev, const struct gm_move *m, bool *bare)
{
	struct gm_block *b = m->block;
	uint32_t lacking;

	gm_lock(b->as->env, &b->lock);
	*bare = !b->backed[dev->index];
	lacking = gm_mask_units(&m->want) & ~b->backed[dev->index];
	gm_unlock(b->as->env, &b->lock);
	return lacking;
}

/* Units that have none yet; those that are reserved already count only if the rest is free now. */
static gm_ret_t reserve_units(struct gm_dev *dev, struct gm_move *m, uint32_t lacking, uint64_t deadline_ns)
{
	struct want w = { .units = lacking, .chunk = m->fresh };

	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++)
		if (m->fresh[u])
			w.units &= ~(UINT32_C(1) << u);
	if (!w.units || gm_node_take_units(&dev->node, w.units, m->fresh))
		return GM_RET_SUCCESS;
	gm_evict_unreserve(dev, m);
	w.units = lacking;
	return evict_take(m->block->as, dev, &w, deadline_ns);
}

gm_ret_t gm_evict_reserve(struct gm_dev *dev, struct gm_move *m, uint64_t deadline_ns)
{
	bool bare, whole = m->fresh[0] && m->fresh[0]->order == GM_BLOCK_ORDER;
	uint32_t lacking = units_lacking(dev, m, &bare);

	if (whole && !bare) { /* reserved for a bare block, which it is no more */
		gm_evict_unreserve(dev, m);
		whole = false;
	}
	if (!lacking || whole)
		return GM_RET_SUCCESS;
	if (dev->node.min_order == GM_BLOCK_ORDER)
		return evict_take(m->block->as, dev, &(struct want){ .units = 0, .chunk = m->fresh }, deadline_ns);
	if (bare && lacking == UINT32_MAX) {
		gm_evict_unreserve(dev, m);
		m->fresh[0] = gm_node_take(&dev->node, GM_BLOCK_ORDER);
		if (m->fresh[0])
			return GM_RET_SUCCESS;
	}
	return reserve_units(dev, m, lacking, deadline_ns);
}

void gm_evict_unreserve(struct gm_dev *dev, struct gm_move *m)
{
	for (unsigned u = 0; u < GM_BLOCK_UNITS; u++) {
		if (m->fresh[u])
			gm_node_put(&dev->node, m->fresh[u]);
		m->fresh[u] = NULL;
	}
}
