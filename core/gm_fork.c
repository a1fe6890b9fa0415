/* SPDX-License-Identifier: MIT */
/*
 * Fork. A child sees a page that is away as zeros, so none may be away:
 *
 *     freeze: nothing moves to a device any more --> transactions under way end
 *             --> adopted memory comes home, block by block
 *                 block that cannot (held by a working set, a device that fails):
 *                 its adopted memory is not inherited: the child gets SIGSEGV there, never zeros
 *     fork
 *     thaw:   inherited again, as before; the devices go on
 *
 * Owned memory is never inherited.
 */
#include "config.h"

#include "core/gm_fork.h"

#include "core/gm_mem.h"

/* A range kept from the child; remembered by address, as regions may come and go until the fork is over. */
struct gm_kept {
	struct gm_kept *next;
	struct gm_range range;
};

static void keep(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	struct gm_kept *k = gm_mem_alloc(as->env, sizeof(*k));

	gm_hal_mem_inherit(as->host, as->hpmap, va, bytes, false);
	if (!k) {
		gm_log(as->env, GM_LOG_ERROR, "fork: no memory to remember that 0x%llx is inherited again afterwards",
		       (unsigned long long)va);
		return;
	}
	k->range = (struct gm_range){ .va = va, .bytes = bytes };
	gm_lock(as->env, &as->lock);
	k->next = as->kept;
	as->kept = k;
	gm_unlock(as->env, &as->lock);
}

/* The adopted ranges of a block. */
static void keep_block(struct gm_block *b)
{
	struct gm_as *as = b->as;
	uint64_t va = b->va, end = b->va + GM_BLOCK_BYTES;

	while (va < end) {
		struct gm_region *r;
		uint64_t lo = end, hi = end;
		bool adopted = false;

		gm_lock(as->env, &as->lock);
		r = gm_regions_first(&as->regions, va, end);
		if (r) {
			lo = r->va > va ? r->va : va;
			hi = r->end < end ? r->end : end;
			adopted = r->kind == GM_REGION_ADOPTED;
		}
		gm_unlock(as->env, &as->lock);
		if (adopted)
			keep(as, lo, hi - lo);
		va = hi;
	}
}

/* True if pages of the block are away and will not come. */
static bool cannot_come(struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask away;
	bool held;

	gm_lock(as->env, &b->lock);
	away = gm_block_on_devs(b);
	held = gm_mask_meets(&away, &b->held);
	gm_unlock(as->env, &b->lock);
	return held || gm_mem_block_home(b, b->va, b->va + GM_BLOCK_BYTES, deadline_ns);
}

gm_ret_t gm_fork_freeze(void *arg)
{
	struct gm_as *as = arg;
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns), va = 0;

	gm_lock(as->env, &as->lock);
	as->frozen++;
	while (as->moving && !gm_wait(as->env, &as->waitq, &as->lock, deadline_ns))
		;
	gm_unlock(as->env, &as->lock);
	for (struct gm_block *b; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		va = b->va + GM_BLOCK_BYTES;
		if (!cannot_come(b, deadline_ns))
			continue;
		keep_block(b);
		gm_log(as->env, GM_LOG_WARN, "fork: the child does not get the memory near 0x%llx, which a device holds",
		       (unsigned long long)b->va);
	}
	return GM_RET_SUCCESS;
}

void gm_fork_thaw(void *arg)
{
	struct gm_as *as = arg;
	struct gm_kept *k;

	do {
		gm_lock(as->env, &as->lock);
		k = as->kept;
		if (k)
			as->kept = k->next;
		gm_unlock(as->env, &as->lock);
		if (k)
			gm_hal_mem_inherit(as->host, as->hpmap, k->range.va, k->range.bytes, true);
		gm_mem_free(as->env, k, sizeof(*k));
	} while (k);
	gm_lock(as->env, &as->lock);
	as->frozen--;
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
}
