/* SPDX-License-Identifier: MIT */
/*
 * Address spaces.
 *
 *     create: host's view --> threads (or none) --> ready
 *     destroy: no working set held --> contexts closed, all bytes home --> contexts gone, threads stopped
 *              --> owned memory unmapped --> gone
 *
 * Destroying fails rather than loses: as long as a byte cannot come home the
 * space stays, complete and usable, all its contexts included. (While they are
 * closed, faults of devices fail.)
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "core/gm_as.h"
#include "core/gm_devq.h"
#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_lost.h"
#include "core/gm_mem.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"
#include "core/gm_policy_lru.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

/* Nothing is ever mapped in the last block; without it, the end of no block overflows. */
#define LAST_END (UINT64_MAX - GM_BLOCK_BYTES + 1)
#define DEFAULT_SLICE_NS (UINT64_C(100) * 1000)
#define DEFAULT_WAIT_NS (UINT64_C(10) * 1000 * 1000 * 1000)

gm_ret_t gm_as_check_range(const struct gm_as *as, const char *what, uint64_t va, uint64_t bytes)
{
	if (!bytes || va + bytes < va)
		return gm_fail(GM_RET_INVAL, "%s: the range of %llu bytes at 0x%llx is empty or overflows", what,
			       (unsigned long long)bytes, (unsigned long long)va);
	if (va < as->begin || va + bytes > as->end)
		return gm_fail(GM_RET_INVAL, "%s: [0x%llx, 0x%llx) is outside of the address space", what,
			       (unsigned long long)va, (unsigned long long)(va + bytes));
	return GM_RET_SUCCESS;
}

static bool is_unit(uint32_t bytes)
{
	return bytes >= GM_PAGE_BYTES && bytes <= GM_BLOCK_BYTES && !(bytes & (bytes - 1));
}

static void default_u32(uint32_t *field, uint32_t value)
{
	if (!*field)
		*field = value;
}

static void default_u64(uint64_t *field, uint64_t value)
{
	if (!*field)
		*field = value;
}

/* The caller's configuration over the defaults. */
static gm_ret_t configure(struct gm_as *as, const struct gm_as_config *config)
{
	struct gm_as_config *c = &as->cfg;

	if (config) {
		/* An older program's may be shorter, but ends with a member. */
		if (config->size < offsetof(struct gm_as_config, policy) || config->size > sizeof(*c) ||
		    config->size % _Alignof(struct gm_as_config))
			return gm_fail(GM_RET_INVAL, "gm_as_config.size is %zu, not %zu", config->size, sizeof(*c));
		memcpy(c, config, config->size);
	}
	if (c->flags & ~(GM_AS_EXCLUSIVE | GM_AS_NO_THREADS | GM_AS_MIRROR | GM_AS_WATCH | GM_AS_FORK_SERVE))
		return gm_fail(GM_RET_INVAL, "gm_as_config.flags 0x%x has unknown bits", (unsigned)c->flags);
	if ((c->flags & GM_AS_MIRROR) && (as->lib->rung.cannot & GM_RUNG_NO_UNMAP_GUARD))
		return gm_fail(GM_RET_NOTSUP, "GM_AS_MIRROR: nobody calls gm_release() for memory that is taken unasked, as the rung "
			       "\"%s\" needs it before munmap(); gm_adopt() what devices use, in a space without it",
			       gm_rung_name(as->lib->rung.rung));
	if (c->fork > GM_FORK_SERVE)
		return gm_fail(GM_RET_INVAL, "gm_as_config.fork %u is no policy", (unsigned)c->fork);
	default_u64(&c->slice_ns, DEFAULT_SLICE_NS);
	default_u64(&c->wait_ns, DEFAULT_WAIT_NS);
	default_u64(&c->hold_ns, DEFAULT_WAIT_NS);
	default_u32(&c->cpu_unit_bytes, GM_UNIT_BYTES);
	default_u32(&c->cpu_around_bytes, GM_BLOCK_BYTES);
	default_u32(&c->dev_unit_bytes, GM_UNIT_BYTES);
	default_u32(&c->dev_around_bytes, GM_BLOCK_BYTES);
	if (!is_unit(c->cpu_unit_bytes) || !is_unit(c->cpu_around_bytes) || !is_unit(c->dev_unit_bytes) ||
	    !is_unit(c->dev_around_bytes) || c->cpu_around_bytes < c->cpu_unit_bytes ||
	    c->dev_around_bytes < c->dev_unit_bytes)
		return gm_fail(GM_RET_INVAL, "units must be powers of two from %u to %u bytes, the smallest first",
			       GM_PAGE_BYTES, GM_BLOCK_BYTES);
	return gm_policy_complete(&as->policy, c->policy);
}

static void init(struct gm_as *as)
{
	gm_mutex_init(as->env, &as->lock, GM_RANK_AS);
	gm_waitq_init(as->env, &as->waitq);
	gm_mutex_init(as->env, &as->queue_lock, GM_RANK_QUEUE);
	gm_waitq_init(as->env, &as->queue_waitq);
	gm_regions_init(&as->regions);
	gm_remap_init(as);
	gm_inthread_init(as);
	as->pack.idle_ns = GM_PACK_IDLE_NS;
	as->forget_ns = GM_WORK_IDLE_NS;
	atomic_init(&as->mirror.limit, GM_MIRROR_BLOCKS);
	TAILQ_INIT(&as->work);
	atomic_init(&as->granule_pages, 1);
	as->refill = true;
}

static void fini(struct gm_as *as)
{
	gm_handle_del(as, GM_HANDLE_AS);
	gm_remap_fini(as);
	gm_regions_fini(&as->regions, as->env);
	gm_waitq_fini(as->env, &as->queue_waitq);
	gm_mutex_fini(as->env, &as->queue_lock);
	gm_waitq_fini(as->env, &as->waitq);
	gm_mutex_fini(as->env, &as->lock);
	gm_mem_free(as->env, as, sizeof(*as));
}

/* -------------------------------------------------------------- threads */

static void stop_threads(struct gm_as *as)
{
	gm_lock(as->env, &as->queue_lock);
	as->stop = true;
	gm_unlock(as->env, &as->queue_lock);
	gm_wake(as->env, &as->queue_waitq);
	gm_hal_msg_kick(as->host, as->hpmap);
	if (as->worker)
		as->env->ops->thread_join(as->env, as->worker);
	if (as->handler)
		as->env->ops->thread_join(as->env, as->handler);
}

static gm_ret_t start_threads(struct gm_as *as)
{
	struct gm_thread *worker = NULL, *handler = NULL;
	gm_ret_t ret;

	if (as->cfg.flags & GM_AS_NO_THREADS)
		return GM_RET_SUCCESS;
	ret = as->env->ops->thread_start(as->env, "gm-worker", 0, gm_work_thread, as, &worker);
	if (!ret)
		ret = as->env->ops->thread_start(as->env, "gm-handler", 0, gm_events_thread, as, &handler);
	as->worker = worker;
	as->handler = handler;
	if (ret) {
		stop_threads(as);
		return gm_fail(ret, "the threads of an address space could not be started");
	}
	return ret;
}

gm_ret_t gm_as_create(struct gm_lib *lib, uint64_t begin, uint64_t end, const struct gm_as_config *config,
		      struct gm_as **out)
{
	struct gm_as *as;
	gm_ret_t ret = gm_handle_check(lib, GM_HANDLE_LIB);

	if (ret)
		return ret;
	if (!out)
		return gm_fail(GM_RET_INVAL, "gm_as_create: as must not be NULL");
	if ((begin || end) && (begin >= end || begin >= LAST_END || begin % GM_PAGE_BYTES || end % GM_PAGE_BYTES))
		return gm_fail(GM_RET_INVAL, "gm_as_create: [0x%llx, 0x%llx) is empty or not made of whole pages",
			       (unsigned long long)begin, (unsigned long long)end);
	as = gm_mem_alloc(lib->env, sizeof(*as));
	if (!as || gm_handle_add(as, GM_HANDLE_AS)) {
		gm_mem_free(lib->env, as, sizeof(*as));
		return gm_fail(GM_RET_NOMEM, "no memory for an address space");
	}
	as->lib = lib;
	as->env = lib->env;
	as->host = lib->host;
	as->begin = begin;
	as->end = end && end < LAST_END ? end : LAST_END;
	init(as);
	ret = configure(as, config);
	if (ret)
		goto err_fini;
	ret = gm_hal_pmap_create(as->host, &as->hpmap);
	if (ret)
		goto err_fini;
	if (as->cfg.fork == GM_FORK_SERVE || (as->cfg.flags & GM_AS_FORK_SERVE))
		ret = gm_serve_init(as);
	if (!ret && !(as->cfg.flags & GM_AS_NO_THREADS))
		ret = gm_hal_keep(as->host, as->hpmap);
	if (!ret)
		ret = start_threads(as);
	if (ret)
		goto err_pmap;
	gm_hal_at_fork(as->host, as->hpmap, gm_fork_freeze, gm_fork_thaw, as);
	gm_lock(lib->env, &lib->lock);
	lib->spaces++;
	TAILQ_INSERT_TAIL(&lib->as, as, in_lib);
	gm_unlock(lib->env, &lib->lock);
	*out = as;
	return GM_RET_SUCCESS;
err_pmap:
	gm_hal_pmap_destroy(as->host, as->hpmap);
err_fini:
	fini(as);
	return ret;
}

/* ------------------------------------------------------------- destroy */

/* All contexts or none: who called has pointers to them, and needs them if the space stays. */
static gm_ret_t detach_all(struct gm_as *as)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (unsigned i = 0; i < GM_MAX_CTXS && !ret; i++)
		if (as->ctx[i])
			ret = gm_ctx_close(as->ctx[i]);
	if (!ret)
		ret = gm_mem_all_home(as, gm_deadline_ns(as->env, as->cfg.wait_ns));
	for (unsigned i = 0; i < GM_MAX_CTXS; i++) {
		if (as->ctx[i] && ret)
			gm_ctx_reopen(as->ctx[i]);
		else if (as->ctx[i])
			gm_ctx_drop(as->ctx[i]);
	}
	return ret;
}

/* Threads are gone: what is queued is of no interest any more. */
static void drain_queue(struct gm_as *as)
{
	struct gm_block *b;

	for (;;) {
		gm_lock(as->env, &as->queue_lock);
		b = TAILQ_FIRST(&as->work);
		if (b) {
			TAILQ_REMOVE(&as->work, b, work_link);
			b->queued = false;
		}
		gm_unlock(as->env, &as->queue_lock);
		if (!b)
			return;
		gm_block_put(b);
	}
}

static void drop_blocks(struct gm_as *as)
{
	struct gm_block *b;

	while ((b = gm_block_next(as, 0, UINT64_MAX))) {
		gm_block_unindex(b);
		if (b->has_slot) /* empty: all is home, and nothing moves any more */
			gm_hal_slot_free(as->host, as->hpmap, b->slot);
		b->has_slot = false;
		gm_block_put(b);
	}
	/* Another space that looks for victims may still have one in its hands. */
	while (atomic_load(&as->live_blocks)) {
		drain_queue(as); /* ... and put it there when it is done with it */
		gm_yield(as->env);
	}
}

gm_ret_t gm_as_destroy(struct gm_as *as)
{
	struct gm_lib *lib;
	unsigned sets;
	gm_ret_t ret;

	if (!as)
		return GM_RET_SUCCESS;
	ret = gm_handle_check(as, GM_HANDLE_AS);
	if (ret)
		return ret;
	lib = as->lib;
	gm_lock(as->env, &as->lock);
	sets = as->sets;
	gm_unlock(as->env, &as->lock);
	if (sets)
		return gm_fail(GM_RET_BUSY, "%u working sets are still held: release them first", sets);
	ret = gm_events_settle(as, gm_deadline_ns(as->env, as->cfg.wait_ns));
	if (!ret)
		ret = detach_all(as);
	if (ret)
		return ret;
	gm_pin_forget(as);
	gm_lock(as->env, &lib->lock); /* who has pinned it meanwhile is waited for at the end */
	TAILQ_REMOVE(&lib->as, as, in_lib);
	gm_unlock(as->env, &lib->lock);
	gm_hal_at_fork(as->host, as->hpmap, NULL, NULL, NULL);
	gm_mem_unwatch_all(as);
	stop_threads(as);
	drain_queue(as);
	drop_blocks(as);
	gm_fork_end_all(as);
	gm_mem_unmap_owned(as);
	gm_hal_pmap_destroy(as->host, as->hpmap);
	fini(as);
	gm_lock(lib->env, &lib->lock);
	lib->spaces--;
	gm_unlock(lib->env, &lib->lock);
	return GM_RET_SUCCESS;
}

/* ---------------------------------------------------- without own threads */

int gm_as_fd(struct gm_as *as)
{
	if (gm_handle_check(as, GM_HANDLE_AS))
		return -1;
	return as->cfg.flags & GM_AS_NO_THREADS ? gm_hal_msg_fd(as->host, as->hpmap) : -1;
}

static bool serve_devices(struct gm_as *as, uint64_t *next_ns)
{
	bool some = false;

	for (unsigned i = 0; i < GM_MAX_CTXS; i++) {
		struct gm_ctx *ctx;

		gm_lock(as->env, &as->lock);
		ctx = as->ctx[i];
		if (ctx && !gm_ctx_enter(ctx)) /* under the lock: a moment later it may be gone */
			ctx = NULL;
		gm_unlock(as->env, &as->lock);
		if (ctx) {
			some |= gm_devq_round(ctx->dev, next_ns);
			gm_ctx_leave(ctx);
		}
	}
	return some;
}

static bool serve_once(struct gm_as *as, uint64_t *next_ns)
{
	bool some = gm_events_once(as);

	some |= gm_work_once(as, next_ns);
	return serve_devices(as, next_ns) || some;
}

gm_ret_t gm_as_serve(struct gm_as *as, uint64_t timeout_ns)
{
	uint64_t deadline_ns, next_ns;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!(as->cfg.flags & GM_AS_NO_THREADS))
		return gm_fail(GM_RET_INVAL, "gm_as_serve: only for a space made with GM_AS_NO_THREADS");
	deadline_ns = gm_deadline_ns(as->env, timeout_ns);
	while (!serve_once(as, &next_ns)) {
		if (gm_now_ns(as->env) >= deadline_ns)
			return GM_RET_TIMEDOUT;
		if (gm_hal_msg_wait(as->host, as->hpmap, next_ns < deadline_ns ? next_ns : deadline_ns) == GM_RET_NODEV &&
		    gm_lost_recover(as, deadline_ns))
			return GM_RET_TIMEDOUT;
	}
	return GM_RET_SUCCESS;
}

static uint64_t stat_sum(struct gm_as *as, enum gm_stat which)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < GM_STAT_SHARDS; i++)
		sum += atomic_load_explicit(&as->stat[i].n[which], memory_order_relaxed);
	return sum;
}

gm_ret_t gm_as_stats(struct gm_as *as, struct gm_stats *stats)
{
	uint64_t edges;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if (!stats)
		return gm_fail(GM_RET_INVAL, "gm_as_stats: stats must not be NULL");
#define GM_STAT_READ_(name, text) stats->name = stat_sum(as, GM_STAT_##name);
	GM_STAT_LIST(GM_STAT_READ_)
#undef GM_STAT_READ_
	edges = stat_sum(as, GM_STAT_EDGES);
	stats->dev_faults += edges;
	stats->pages_in_place += edges;
	return GM_RET_SUCCESS;
}
