/* SPDX-License-Identifier: MIT */
/*
 * Fork. A child sees a page that is away as zeros, so none may be away:
 *
 *     freeze: nothing moves to a device any more --> transactions under way end
 *             --> what mremap() moved is delivered, or kept back as below
 *             --> memory comes home, block by block
 *                 block that cannot (held by a working set, a device that fails):
 *                 its adopted memory is not inherited: the child gets SIGSEGV there, never zeros
 *             --> another thread's mremap() came in between: once more
 *     fork
 *     thaw:   inherited again, as before, wherever mremap() moved it; the devices go on
 *
 * What is excluded (gm_fork_policy.c; owned memory unless the program says otherwise) is never inherited, though it
 * comes home with the rest of its block. What is served stays where it is, and is copied aside (gm_fork_serve.c).
 */
#include "config.h"

#include "core/gm_fork.h"

#include "core/gm_events.h"
#include "core/gm_mem.h"

static void keep(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	/* Remembered first: from here on it may be moved. */
	if (!gm_remap_keep(as, va, va + bytes))
		gm_log(as->env, GM_LOG_ERROR, "fork: no memory to remember that 0x%llx is inherited again afterwards",
		       (unsigned long long)va);
	gm_hal_mem_inherit(as->host, as->hpmap, va, bytes, false);
}

/* What of [va, end) is of one policy goes by itself: thaw gives each back, or not. */
static void keep_each(struct gm_as *as, uint64_t va, uint64_t end)
{
	for (uint64_t hi; va < end; va = hi) {
		hi = end;
		(void)gm_fork_policy_at(as, va, &hi);
		keep(as, va, hi - va);
	}
}

/*
 * What of a block is away, and has not been given up: zeros are right for that; nor is served. It is watched, so if
 * mremap() moves it meanwhile we are told.
 */
static void keep_block(struct gm_block *b, const struct gm_mask *served)
{
	struct gm_mask away;

	gm_lock(b->as->env, &b->lock);
	away = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), b->busy);
	away = gm_mask_sub(gm_mask_sub(away, gm_mask_or(b->leaving, b->doomed)), *served);
	gm_unlock(b->as->env, &b->lock);
	GM_MASK_FOR_RUN(&away, first, end)
		keep_each(b->as, b->va + (uint64_t)first * GM_PAGE_BYTES, b->va + (uint64_t)end * GM_PAGE_BYTES);
}

/* True if pages of the block are away and will not come. */
static bool cannot_come(struct gm_block *b, const struct gm_mask *served, uint64_t deadline_ns)
{
	struct gm_as *as = b->as;
	struct gm_mask away, others = gm_mask_not(*served);
	bool held;

	gm_lock(as->env, &b->lock);
	away = gm_block_on_devs(b);
	held = gm_mask_meets(&away, &b->held);
	gm_unlock(as->env, &b->lock);
	return held || gm_mem_pages_home(b, &others, deadline_ns);
}

/* Bytes that mremap() moved and that do not get there now. */
static void keep_moved(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	keep(as, va, bytes);
	gm_log(as->env, GM_LOG_WARN, "fork: the child does not get the memory near 0x%llx, which a device holds",
	       (unsigned long long)va);
}

static void bring_home(struct gm_as *as, uint64_t deadline_ns)
{
	uint64_t va = 0;

	for (struct gm_block *b; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		struct gm_mask served = gm_serve_copy(b, deadline_ns);
		bool stays = cannot_come(b, &served, deadline_ns);

		va = b->va + GM_BLOCK_BYTES;
		(void)gm_mem_mark_poison(b, b->va, va); /* a child asks nobody: where there is no mark it sees zeros */
		if (!stays)
			continue;
		if (!GM_PLANTED(as, GM_PLANT_FORK_OPEN))
			keep_block(b, &served);
		gm_log(as->env, GM_LOG_WARN, "fork: the child does not get the memory near 0x%llx, which a device holds",
		       (unsigned long long)b->va);
	}
}

gm_ret_t gm_fork_freeze(void *arg)
{
	struct gm_as *as = arg;
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns);
	gm_ret_t late;
	unsigned gen;

	gm_lock(as->env, &as->lock);
	as->frozen++;
	as->forks_begun++;
	while (as->moving && !gm_wait(as->env, &as->waitq, &as->lock, deadline_ns))
		;
	gm_unlock(as->env, &as->lock);
	do {
		gen = atomic_load(&as->remaps.gen);
		late = gm_events_settle(as, deadline_ns);
		gm_remap_each_target(as, !late, keep_moved);
		gm_serve_begin(as);
		bring_home(as, deadline_ns);
		if (!late)
			late = gm_events_settle(as, deadline_ns);
	} while (!late && atomic_load(&as->remaps.gen) != gen && gm_now_ns(as->env) < deadline_ns);
	if (late || atomic_load(&as->remaps.gen) != gen) /* no time to do it once more */
		gm_remap_each_target(as, !late, keep_moved);
	gm_serve_open(as);
	return GM_RET_SUCCESS;
}

/*
 * But for what is excluded, such as owned memory, also where a gm_free() was under way when the fork began, and failed;
 * or where a gm_alloc() is, which has not said so yet: it, or we, see that afterwards.
 */
static void give_back(struct gm_as *as, uint64_t va, uint64_t end)
{
	for (uint64_t hi; va < end; va = hi) {
		hi = end;
		if (gm_fork_policy_at(as, va, &hi) == GM_FORK_EXCLUDE)
			continue;
		gm_hal_mem_inherit(as->host, as->hpmap, va, hi - va, true);
		gm_fork_tell_kernel(as, va, hi);
	}
}

uint64_t gm_fork_look(struct gm_as *as)
{
	uint64_t look;

	gm_lock(as->env, &as->lock);
	look = as->frozen ? UINT64_MAX : as->forks_begun;
	gm_unlock(as->env, &as->lock);
	return look;
}

/* Inherited again, wherever it is now. False: not before the handler has read what is there. */
static bool give_back_one(struct gm_as *as, uint64_t va, uint64_t end)
{
	bool ok = gm_events_hold_reader(as);

	if (!ok)
		return false;
	ok = !gm_hal_settled(as->host, as->hpmap) && gm_remap_kept(as, &va, &end);
	if (ok) {
		give_back(as, va, end);
		gm_remap_forget(as);
	}
	gm_events_release_reader(as);
	return ok;
}

void gm_fork_thaw(void *arg)
{
	struct gm_as *as = arg;
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns), va, end;

	gm_serve_close(as, deadline_ns);
	while (gm_remap_kept(as, &va, &end)) {
		if (give_back_one(as, va, end))
			continue;
		if (gm_now_ns(as->env) < deadline_ns && gm_events_let_run(as))
			continue;
		gm_log(as->env, GM_LOG_ERROR, "fork: 0x%llx stays kept from children: events were not handled in time",
		       (unsigned long long)va);
		gm_remap_forget(as);
	}
	gm_lock(as->env, &as->lock);
	as->frozen--;
	gm_wake(as->env, &as->waitq);
	gm_unlock(as->env, &as->lock);
}
