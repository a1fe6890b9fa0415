/* SPDX-License-Identifier: MIT */
/*
 * Contexts: one device's view of an address space.
 *
 *     attaching --> attached --detach--> closing --no call in flight--> emptied --> gone
 *
 * Closing refuses new calls and waits for those in flight. Then everything the
 * device has comes home, or nothing is detached: a byte that cannot come home
 * keeps its context.
 */
#include "config.h"

#include "core/gm_devq.h"
#include "core/gm_dup.h"
#include "core/gm_events.h"
#include "core/gm_mirror.h"
#include "core/gm_work.h"
#include "hal/gm_handle.h"

bool gm_ctx_enter(struct gm_ctx *ctx)
{
	unsigned users = atomic_load_explicit(&ctx->users, memory_order_relaxed);

	do {
		if (users & GM_CTX_CLOSING)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&ctx->users, &users, users + 1, memory_order_acquire,
							memory_order_relaxed));
	return true;
}

struct gm_ctx *gm_ctx_enter_pmap(struct gm_dev *dev, void *pmap)
{
	struct gm_ctx *ctx;

	gm_lock(dev->lib->env, &dev->lock);
	TAILQ_FOREACH(ctx, &dev->ctxs, in_dev)
		if (ctx->pmap == pmap)
			break;
	if (ctx && !gm_ctx_enter(ctx))
		ctx = NULL;
	gm_unlock(dev->lib->env, &dev->lock);
	return ctx;
}

/* Who closes waits: woken, and let go, under the lock, since context and device may be gone right after. */
static void leave_closing(struct gm_ctx *ctx)
{
	struct gm_dev *dev = ctx->dev;
	struct gm_env *env = dev->lib->env;

	gm_lock(env, &dev->lock);
	/* it may have been opened again meanwhile */
	if ((atomic_fetch_sub(&ctx->users, 1) - 1) == GM_CTX_CLOSING)
		gm_wake(env, &dev->waitq);
	gm_unlock(env, &dev->lock);
}

void gm_ctx_leave(struct gm_ctx *ctx)
{
	unsigned users = atomic_load_explicit(&ctx->users, memory_order_relaxed);

	do {
		if (users & GM_CTX_CLOSING) {
			leave_closing(ctx);
			return;
		}
	} while (!atomic_compare_exchange_weak_explicit(&ctx->users, &users, users - 1, memory_order_release,
							memory_order_relaxed));
}

struct gm_ctx *gm_as_ctx_of(struct gm_as *as, struct gm_dev *dev)
{
	struct gm_ctx *found = NULL;

	gm_lock(as->env, &as->lock);
	for (unsigned i = 0; i < GM_MAX_CTXS; i++)
		if (as->ctx[i] && as->ctx[i]->dev == dev)
			found = as->ctx[i];
	if (found && !gm_ctx_enter(found)) /* under the lock: a moment later it may be gone */
		found = NULL;
	gm_unlock(as->env, &as->lock);
	return found;
}

void *gm_ctx_pmap(struct gm_ctx *ctx)
{
	if (!ctx || gm_handle_check(ctx, GM_HANDLE_CTX))
		return NULL;
	/* What the process did to its memory before a launch has happened for the launch. If the events do
	 * not come through in time, the launch is no worse off than an access that is under way already. */
	(void)gm_events_settle(ctx->as, gm_deadline_ns(ctx->as->env, ctx->as->cfg.wait_ns));
	return gm_hal_backend_pmap(ctx->dev->hal, ctx->pmap);
}

struct gm_dev *gm_ctx_dev(struct gm_ctx *ctx)
{
	return gm_handle_check(ctx, GM_HANDLE_CTX) ? NULL : ctx->dev;
}

static gm_ret_t check_window(const struct gm_dev *dev, enum gm_attach_mode mode, const struct gm_window *w)
{
	uint32_t bits = dev->hal->caps.va_bits;

	if (mode == GM_ATTACH_IDENTITY)
		return w ? gm_fail(GM_RET_INVAL, "GM_ATTACH_IDENTITY takes no window") : GM_RET_SUCCESS;
	if (mode != GM_ATTACH_WINDOW)
		return gm_fail(GM_RET_INVAL, "unknown attach mode %d", (int)mode);
	if (!w || !w->bytes || (w->va | w->bytes | w->dev_va) % GM_BLOCK_BYTES)
		return gm_fail(GM_RET_INVAL, "a window needs va, bytes > 0 and dev_va, all multiples of %u", GM_BLOCK_BYTES);
	if (w->va + w->bytes < w->va || w->dev_va + w->bytes < w->dev_va ||
	    (bits < 64 && w->dev_va + w->bytes > UINT64_C(1) << bits))
		return gm_fail(GM_RET_INVAL, "the window of %llu bytes at device VA 0x%llx leaves the device's %u address bits",
			       (unsigned long long)w->bytes, (unsigned long long)w->dev_va, (unsigned)bits);
	return GM_RET_SUCCESS;
}

static void set_window(struct gm_ctx *ctx, const struct gm_window *w)
{
	uint32_t bits = ctx->dev->hal->caps.va_bits;

	if (w) {
		ctx->va = w->va;
		ctx->end = w->va + w->bytes;
		ctx->to_dev = w->dev_va - w->va;
	} else {
		ctx->va = 0;
		ctx->end = bits < 64 ? UINT64_C(1) << bits : UINT64_MAX;
	}
}

/* Enter it in both lists, or say why not. */
static gm_ret_t publish(struct gm_ctx *ctx)
{
	struct gm_as *as = ctx->as;
	struct gm_dev *dev = ctx->dev;
	unsigned slot = GM_MAX_CTXS;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(as->env, &as->lock);
	for (unsigned i = GM_MAX_CTXS; i-- > 0;) {
		if (!as->ctx[i])
			slot = i;
		else if (as->ctx[i]->dev == dev)
			ret = GM_RET_EXIST;
	}
	if (!ret && slot == GM_MAX_CTXS)
		ret = GM_RET_NOSPC;
	gm_lock(as->env, &dev->lock);
	if (!ret && dev->contexts == dev->hal->caps.max_contexts)
		ret = GM_RET_NOSPC;
	if (!ret) {
		ctx->index = slot;
		as->ctx[slot] = ctx;
		dev->contexts++;
		TAILQ_INSERT_TAIL(&dev->ctxs, ctx, in_dev);
	}
	gm_unlock(as->env, &dev->lock);
	gm_unlock(as->env, &as->lock);
	return ret;
}

static void unpublish(struct gm_ctx *ctx)
{
	struct gm_as *as = ctx->as;
	struct gm_dev *dev = ctx->dev;

	gm_lock(as->env, &as->lock);
	gm_lock(as->env, &dev->lock);
	as->ctx[ctx->index] = NULL;
	dev->contexts--;
	TAILQ_REMOVE(&dev->ctxs, ctx, in_dev);
	gm_unlock(as->env, &dev->lock);
	gm_unlock(as->env, &as->lock);
}

gm_ret_t gm_as_attach(struct gm_as *as, struct gm_dev *dev, enum gm_attach_mode mode, const struct gm_window *window,
		      struct gm_ctx **out)
{
	struct gm_ctx *ctx;
	unsigned granule_pages, before;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret)
		ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (ret)
		return ret;
	if (!out)
		return gm_fail(GM_RET_INVAL, "gm_as_attach: ctx must not be NULL");
	if (as->lib != dev->lib)
		return gm_fail(GM_RET_INVAL, "gm_as_attach: the device belongs to another instance");
	ret = check_window(dev, mode, window);
	if (ret)
		return ret;
	ctx = gm_as_ctx_of(as, dev);
	if (ctx) { /* before the backend says that it has no room for another */
		gm_ctx_leave(ctx);
		return gm_fail(GM_RET_EXIST, "device %s is attached to this space already", dev->hal->caps.name);
	}
	ctx = gm_mem_alloc(as->env, sizeof(*ctx));
	if (!ctx || gm_handle_add(ctx, GM_HANDLE_CTX)) {
		gm_mem_free(as->env, ctx, sizeof(*ctx));
		return gm_fail(GM_RET_NOMEM, "no memory for a context");
	}
	ctx->as = as;
	ctx->dev = dev;
	set_window(ctx, window);
	ret = gm_hal_pmap_create(dev->hal, &ctx->pmap);
	if (ret)
		goto err_free;
	granule_pages = dev->hal->granule_bytes / GM_PAGE_BYTES;
	before = atomic_load(&as->granule_pages);
	while (before < granule_pages && !atomic_compare_exchange_weak(&as->granule_pages, &before, granule_pages))
		;
	ret = publish(ctx);
	if (ret) {
		ret = gm_fail(ret, ret == GM_RET_EXIST ? "device %s is attached to this space already"
						       : "device %s: no room for another context", dev->hal->caps.name);
		goto err_pmap;
	}
	ret = as->cfg.flags & GM_AS_NO_THREADS ? GM_RET_SUCCESS : gm_devq_start(dev);
	if (ret)
		goto err_unpublish;
	*out = ctx;
	return GM_RET_SUCCESS;
err_unpublish:
	unpublish(ctx);
err_pmap:
	gm_hal_pmap_destroy(dev->hal, ctx->pmap);
err_free:
	gm_handle_del(ctx, GM_HANDLE_CTX);
	gm_mem_free(as->env, ctx, sizeof(*ctx));
	return ret;
}

/* (block) What the device has of it, duplicates included. */
static struct gm_mask pages_of(const struct gm_ctx *ctx, const struct gm_block *b)
{
	const struct gm_bnode *n = b->node[ctx->dev->index];

	return n ? gm_mask_or(n->resident, n->copy) : gm_mask_none();
}

static bool has_pages(const struct gm_ctx *ctx, struct gm_block *b)
{
	struct gm_mask pages;

	gm_lock(b->as->env, &b->lock);
	pages = pages_of(ctx, b);
	gm_unlock(b->as->env, &b->lock);
	return !gm_mask_empty(&pages);
}

/* Pages of this device, and its mappings, out of one block. */
static gm_ret_t empty_block(struct gm_ctx *ctx, struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask pages, mapped;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(env, &b->lock);
	pages = pages_of(ctx, b);
	mapped = gm_mask_and(pages, b->leaving);
	gm_unlock(env, &b->lock);
	if (!gm_mask_empty(&mapped)) { /* moved by mremap(): has another way home */
		ret = gm_events_settle(b->as, deadline_ns);
		return ret ? ret : gm_now_ns(env) < deadline_ns ? GM_RET_AGAIN : GM_RET_TIMEDOUT;
	}
	ret = gm_dup_end(b, &pages, ctx->dev, deadline_ns);
	if (!ret && !gm_mask_empty(&pages))
		ret = gm_move_home(b, &pages, GM_TXN_FORCE, deadline_ns);
	if (ret && (ret != GM_RET_NODEV || has_pages(ctx, b)))
		return ret;
	/* What is left, also of a device that lost the rest just now, is mapped in place. */
	ret = GM_RET_SUCCESS;
	gm_lock(env, &b->lock);
	mapped = gm_block_mapped_by(b, ctx->index, GM_READ);
	while (!ret && gm_mask_meets(&b->busy, &mapped))
		ret = gm_wait(env, &b->waitq, &b->lock, deadline_ns);
	mapped = gm_block_mapped_by(b, ctx->index, GM_READ);
	if (!ret)
		b->busy = gm_mask_or(b->busy, mapped);
	gm_unlock(env, &b->lock);
	if (ret || gm_mask_empty(&mapped))
		return ret;
	ret = gm_plan_revoke_in(b, ctx, &mapped, deadline_ns, false);
	gm_txn_release(b, &mapped);
	return ret;
}

/* (block) Nothing of the device is left in it. */
static bool is_empty(const struct gm_ctx *ctx, struct gm_block *b)
{
	struct gm_mask pages, mapped;

	gm_lock(b->as->env, &b->lock);
	pages = pages_of(ctx, b);
	mapped = gm_block_mapped_by(b, ctx->index, GM_READ);
	gm_unlock(b->as->env, &b->lock);
	return gm_mask_empty(&pages) && gm_mask_empty(&mapped);
}

static gm_ret_t empty_whole(struct gm_ctx *ctx, struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_as *as = ctx->as;
	gm_ret_t ret = GM_RET_SUCCESS;

	while (!ret && !is_empty(ctx, b)) {
		ret = empty_block(ctx, b, deadline_ns);
		/* The application changes its mappings meanwhile: learn how, and look again. */
		if ((ret == GM_RET_FAULT || ret == GM_RET_EXIST || ret == GM_RET_AGAIN) &&
		    gm_now_ns(as->env) < deadline_ns && gm_events_let_run(as))
			ret = GM_RET_SUCCESS;
		/* What a lost device had is poisoned now: nothing of it is left. */
		if (ret == GM_RET_NODEV && is_empty(ctx, b))
			ret = GM_RET_SUCCESS;
	}
	return ret;
}

static gm_ret_t empty_all(struct gm_ctx *ctx, uint64_t deadline_ns)
{
	struct gm_block *b = NULL;
	uint64_t va = 0;
	gm_ret_t ret;

	do {
		ret = gm_block_next_by(ctx->as, va, UINT64_MAX, deadline_ns, &b);
		if (ret || !b)
			return ret;
		va = b->va + GM_BLOCK_BYTES;
		ret = empty_whole(ctx, b, deadline_ns);
		if (gm_as_mirrors(ctx->as))
			gm_mirror_tidy(b);
		gm_block_put(b);
	} while (!ret);
	return ret;
}

/* SUCCESS: it is closing now and no call is in flight. BUSY, TIMEDOUT: it is open as before. */
static gm_ret_t close_ctx(struct gm_ctx *ctx, uint64_t deadline_ns)
{
	struct gm_dev *dev = ctx->dev;
	struct gm_env *env = dev->lib->env;
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(env, &dev->lock);
	if (ctx->sets)
		ret = GM_RET_BUSY;
	else
		atomic_fetch_or(&ctx->users, GM_CTX_CLOSING);
	while (!ret && atomic_load(&ctx->users) != GM_CTX_CLOSING)
		ret = gm_wait(env, &dev->waitq, &dev->lock, deadline_ns);
	if (ret && ret != GM_RET_BUSY)
		atomic_fetch_and(&ctx->users, ~GM_CTX_CLOSING);
	gm_unlock(env, &dev->lock);
	return ret;
}

gm_ret_t gm_ctx_close(struct gm_ctx *ctx)
{
	uint64_t deadline_ns = gm_deadline_ns(ctx->as->env, ctx->as->cfg.wait_ns);
	gm_ret_t ret = close_ctx(ctx, deadline_ns);

	if (ret)
		return gm_fail(ret, ret == GM_RET_BUSY ? "a working set is held on device %s: release it first"
						       : "calls on device %s are still in flight", ctx->dev->hal->caps.name);
	ret = empty_all(ctx, deadline_ns);
	if (ret)
		gm_ctx_reopen(ctx);
	return ret;
}

void gm_ctx_reopen(struct gm_ctx *ctx)
{
	gm_lock(ctx->as->env, &ctx->dev->lock);
	atomic_fetch_and(&ctx->users, ~GM_CTX_CLOSING);
	gm_unlock(ctx->as->env, &ctx->dev->lock);
}

void gm_ctx_drop(struct gm_ctx *ctx)
{
	struct gm_as *as = ctx->as;

	gm_handle_del(ctx, GM_HANDLE_CTX);
	unpublish(ctx);
	gm_devq_destroy_pmap(ctx->dev, ctx->pmap);
	gm_mem_free(as->env, ctx, sizeof(*ctx));
}

gm_ret_t gm_as_detach(struct gm_ctx *ctx)
{
	gm_ret_t ret;

	if (!ctx)
		return GM_RET_SUCCESS;
	ret = gm_handle_check(ctx, GM_HANDLE_CTX);
	if (ret)
		return ret;
	ret = gm_ctx_close(ctx);
	if (!ret)
		gm_ctx_drop(ctx);
	return ret;
}
