/* SPDX-License-Identifier: MIT */
/*
 * Pins: pages that stay where they are, whatever anybody wants.
 *
 *     to a device:   room reserved --brought, mapped, held (a working set of the library's own)--> pinned --unpin--> let go
 *                       '--does not fit, cannot move--> nothing is held
 *     to the host:   kept (block) --brought home--> pinned --unpin--> kept no more
 *                       '--held, or lost--> kept no more
 *
 * A device's pin is a working set without a handle: what holds a set's pages (no victim, not home, mapped for reading,
 * room accounted for, a CPU access waits for hold_ns and then fails) is what is promised here. A set maps in place what
 * cannot move; that is no pin, so afterwards all but edges must be there.
 *
 * A host's pin is a bit per page (`kept`). Pages are kept before they are brought home: from then on no transaction
 * begins to move them to a device (begin_to_dev() in gm_txn.c leaves them out, as refused), and those that had begun are
 * waited for. Devices map them in place. What becomes of a page without content is decided there (gm_fault_dev.c).
 *
 * What makes a host's pin hold:
 *   begin_to_dev() in gm_txn.c, block_to_dev() in gm_migrate.c  no transaction to a device takes a page that is kept
 *   gm_fault_look(), stays() in gm_fault_dev.c                  a device that faults there maps it in place, or gets BUSY
 *   gm_block_all_host(), is_uneasy() in gm_pack_work.c          its block keeps its state, in its full form
 *   gm_pin_keep_new()                                           in a space that mirrors, what is adopted there later
 * What ends it before the unpin: an unmap (gm_events.c), an mremap() (gm_remap.c), gm_release() and gm_free() that have
 * done it (gm_mem_unwatch() in gm_mem.c).
 *
 * A space that mirrors the process adopts when a device comes, and lets go again. There a host's pin is one of the
 * addresses: what no device has used yet is at home, and is kept as soon as it is adopted, whoever adopts it, also after it
 * was unmapped or released and until the unpin. What is external goes to no device anyway, and is not pinned: FAULT to the
 * host, BUSY to a device.
 *
 * Each call makes an entry of a list, and an unpin takes the last one of the same range: pins nest, and add up. A page that
 * the application unmaps, or moves with mremap(), is kept no more, whoever has the address next (but for spaces that
 * mirror, see above): an unpin only takes away.
 * A block with kept pages is neither packed nor forgotten.
 */
#include "config.h"

#include "core/gm_events.h"
#include "core/gm_mirror.h"
#include "core/gm_pin.h"
#include "core/gm_txn.h"
#include "core/gm_ws.h"
#include "hal/gm_handle.h"

struct gm_pin {
	LIST_ENTRY(gm_pin) link; /* (A) */
	uint64_t va, end;
	struct gm_ws *ws; /* NULL: to the host */
	bool made;        /* (A) to the host: its pages are home */
};

static gm_ret_t check_range(const struct gm_as *as, const char *what, uint64_t *va, uint64_t bytes, uint64_t *end)
{
	gm_ret_t ret = gm_as_check_range(as, what, *va, bytes);

	*end = *va + bytes;
	if (ret)
		return ret;
	if (*end > UINT64_MAX - GM_PAGE_BYTES)
		return gm_fail(GM_RET_INVAL, "%s: the range overflows", what);
	*va &= ~(uint64_t)(GM_PAGE_BYTES - 1);
	*end = (*end + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	return GM_RET_SUCCESS;
}

/* ------------------------------------------------------------ to the host */

static gm_ret_t keep(struct gm_as *as, uint64_t va, uint64_t end)
{
	for (uint64_t at = va; at < end; at = gm_block_base(at) + GM_BLOCK_BYTES) {
		struct gm_mask pages;
		struct gm_block *b;
		gm_ret_t ret = gm_block_obtain(as, at, &b);

		if (ret)
			return ret;
		pages = gm_block_clip(b, va, end);
		gm_lock(as->env, &b->lock);
		b->kept = gm_mask_or(b->kept, gm_mask_and(pages, b->managed));
		gm_unlock(as->env, &b->lock);
		gm_block_put(b);
	}
	return GM_RET_SUCCESS;
}

/* What had begun before the pages were kept may be taking them to a device: until that is over. SUCCESS, TIMEDOUT. */
static gm_ret_t wait_begun(struct gm_as *as, uint64_t va, uint64_t end)
{
	uint64_t deadline_ns = gm_deadline_ns(as->env, as->cfg.wait_ns), at = va;
	gm_ret_t ret = GM_RET_SUCCESS;

	for (struct gm_block *b; !ret && (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_clip(b, va, end);

		gm_lock(as->env, &b->lock);
		while (!ret && gm_mask_meets(&b->busy, &pages))
			ret = gm_wait(as->env, &b->waitq, &b->lock, deadline_ns);
		gm_unlock(as->env, &b->lock);
		at = b->va + GM_BLOCK_BYTES;
	}
	return ret ? gm_fail(ret, "gm_pin: pages near 0x%llx did not become free in time",
			     (unsigned long long)(at - GM_BLOCK_BYTES)) : ret;
}

/* (A) Of block b, what the host's pins keep; `begun`: those that are not made yet. */
static struct gm_mask all_kept(const struct gm_as *as, const struct gm_block *b, bool begun)
{
	struct gm_mask pages = gm_mask_none();
	struct gm_pin *p;

	LIST_FOREACH(p, &as->pins, link)
		if (!p->ws && !(begun && p->made))
			pages = gm_mask_or(pages, gm_block_clip(b, p->va, p->end));
	return pages;
}

void gm_pin_keep_new(struct gm_block *b, const struct gm_mask *pages)
{
	struct gm_mask kept;

	if (!gm_as_mirrors(b->as) || LIST_EMPTY(&b->as->pins) || GM_PLANTED(b->as, GM_PLANT_MIRROR_PIN))
		return;
	kept = all_kept(b->as, b, false);
	b->kept = gm_mask_or(b->kept, gm_mask_and(kept, *pages));
}

const char *gm_pin_check(struct gm_as *as)
{
	struct gm_mask bad = gm_mask_none();

	for (struct gm_block *b = gm_block_first(as, 0, UINT64_MAX); b && gm_mask_empty(&bad); b = gm_block_after(b, UINT64_MAX)) {
		struct gm_mask begun = all_kept(as, b, true);

		gm_lock(as->env, &b->lock);
		bad = gm_mask_sub(gm_mask_and(b->kept, gm_block_on_devs(b)), gm_mask_or(b->busy, begun));
		gm_unlock(as->env, &b->lock);
	}
	return gm_mask_empty(&bad) ? NULL : "a page pinned to the host is on a device";
}

/* (A) Out of the list; its pages are kept by those pins only that are in it still. At once, for gm_pin_check(). */
static void take_out(struct gm_as *as, struct gm_pin *p)
{
	LIST_REMOVE(p, link);
	if (p->ws)
		return;
	for (struct gm_block *b = gm_block_first(as, p->va, p->end); b; b = gm_block_after(b, p->end)) {
		struct gm_mask range = gm_block_clip(b, p->va, p->end), kept = all_kept(as, b, false);

		gm_lock(as->env, &b->lock);
		b->kept = gm_mask_sub(b->kept, gm_mask_sub(range, kept));
		gm_unlock(as->env, &b->lock);
	}
}

/* Out of the list, or never in it: a set ends, and what was kept may be fit to be forgotten now. */
static void let_go(struct gm_as *as, struct gm_pin *p)
{
	struct gm_mask none = gm_mask_none();
	uint64_t at = p->va;

	if (p->ws)
		gm_ws_unpin(p->ws);
	for (struct gm_block *b; !p->ws && (b = gm_block_next_live(as, at, p->end)); gm_block_put(b)) {
		gm_txn_release_unmoved(b, &none); /* nothing was busy */
		at = b->va + GM_BLOCK_BYTES;
	}
}

/* -------------------------------------------------------------- to a device */

/* (unlocked) Pages of the block's part that the device has not, and that can go there no more: edges are no concern. */
static bool lacks(struct gm_block *b, const struct gm_dev *dev, uint64_t va, uint64_t end, bool held_only)
{
	struct gm_mask lack = gm_block_clip(b, va, end);

	gm_lock(b->as->env, &b->lock);
	lack = gm_mask_sub(gm_mask_sub(lack, gm_block_on_dev(b, dev->index)), gm_mask_sub(b->edge, b->external));
	if (held_only)
		lack = gm_mask_and(lack, b->held);
	gm_unlock(b->as->env, &b->lock);
	return !gm_mask_empty(&lack);
}

/* Before: nothing is held elsewhere, or it would be waited for in vain. After (`held_only` false): all is there. */
static gm_ret_t check_there(struct gm_as *as, const struct gm_dev *dev, uint64_t va, uint64_t end, bool held_only)
{
	uint64_t at = va;
	bool bad = false;

	for (struct gm_block *b; !bad && (b = gm_block_next_live(as, at, end)); gm_block_put(b)) {
		bad = lacks(b, dev, va, end, held_only);
		at = b->va + GM_BLOCK_BYTES;
	}
	return bad ? gm_fail(GM_RET_BUSY, "gm_pin: pages near 0x%llx cannot move: pinned or held elsewhere, or in use by a "
			     "system call", (unsigned long long)(at - GM_BLOCK_BYTES)) : GM_RET_SUCCESS;
}

/* ------------------------------------------------------------------ the list */

static void add(struct gm_as *as, struct gm_pin *p)
{
	gm_lock(as->env, &as->lock);
	LIST_INSERT_HEAD(&as->pins, p, link);
	gm_unlock(as->env, &as->lock);
}

/* The last one made of exactly this range, out of the list; NULL: there is none. One that is being made is its maker's. */
static struct gm_pin *find(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_pin *p;

	gm_lock(as->env, &as->lock);
	LIST_FOREACH(p, &as->pins, link)
		if (p->va == va && p->end == end && (p->ws || p->made))
			break;
	if (p)
		take_out(as, p);
	gm_unlock(as->env, &as->lock);
	return p;
}

void gm_pin_forget(struct gm_as *as)
{
	struct gm_pin *p;

	while ((p = LIST_FIRST(&as->pins))) {
		gm_lock(as->env, &as->lock);
		take_out(as, p);
		gm_unlock(as->env, &as->lock);
		let_go(as, p);
		gm_mem_free(as->env, p, sizeof(*p));
	}
}

/* ------------------------------------------------------------------ the calls */

static gm_ret_t pin_host(struct gm_as *as, struct gm_pin *p)
{
	gm_ret_t ret;

	add(as, p); /* first: another one's unpin must not take away what is kept here */
	ret = keep(as, p->va, p->end);
	if (!ret)
		ret = wait_begun(as, p->va, p->end);
	if (!ret)
		ret = gm_migrate(as, p->va, p->end - p->va, NULL, NULL);
	gm_lock(as->env, &as->lock);
	p->made = !ret;
	if (ret)
		take_out(as, p);
	gm_unlock(as->env, &as->lock);
	if (ret)
		let_go(as, p);
	return ret;
}

static gm_ret_t pin_dev(struct gm_as *as, struct gm_pin *p, struct gm_dev *dev)
{
	struct gm_ws_range range = { .va = p->va, .bytes = p->end - p->va, .access = GM_READ };
	struct gm_ctx *ctx = gm_as_ctx_of(as, dev);
	struct gm_ws_room room;
	gm_ret_t ret;

	if (!ctx)
		return gm_fail(GM_RET_INVAL, "gm_pin: the device is not attached to this space");
	ret = gm_ws_room(ctx, &range, 1, &room);
	if (ret == GM_RET_NOSPC || ret == GM_RET_BUSY) /* who holds may do so for good: nobody is waited for */
		ret = gm_fail(GM_RET_NOSPC, "gm_pin: 0x%llx + %llu KiB needs %llu KiB; device %s lacks %llu of them, "
			      "others hold %llu", (unsigned long long)p->va, (unsigned long long)(range.bytes >> 10),
			      (unsigned long long)(room.need_bytes >> 10), dev->hal->caps.name,
			      (unsigned long long)((room.need_bytes + room.held_bytes - room.total_bytes) >> 10),
			      (unsigned long long)(room.held_bytes >> 10));
	else if (!ret)
		ret = check_there(as, dev, p->va, p->end, true);
	if (ret) {
		gm_ctx_leave(ctx);
		return ret;
	}
	ret = gm_ws_pin(ctx, &range, as->cfg.wait_ns, &p->ws); /* leaves ctx */
	if (!ret)
		ret = check_there(as, dev, p->va, p->end, false);
	if (!ret)
		add(as, p);
	else if (p->ws)
		let_go(as, p);
	return ret;
}

gm_ret_t gm_pin(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev)
{
	struct gm_pin *p;
	uint64_t end;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret && dev)
		ret = gm_handle_check(dev, GM_HANDLE_DEV);
	if (!ret)
		ret = check_range(as, "gm_pin", &va, bytes, &end);
	if (!ret)
		ret = gm_events_settle(as, gm_deadline_ns(as->env, as->cfg.wait_ns));
	if (ret)
		return ret;
	p = gm_mem_alloc(as->env, sizeof(*p));
	if (!p)
		return gm_fail(GM_RET_NOMEM, "no memory for a pin");
	*p = (struct gm_pin){ .va = va, .end = end };
	ret = dev ? pin_dev(as, p, dev) : pin_host(as, p);
	if (ret)
		gm_mem_free(as->env, p, sizeof(*p));
	return ret;
}

gm_ret_t gm_unpin(struct gm_as *as, uint64_t va, uint64_t bytes)
{
	struct gm_pin *p;
	uint64_t end;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (!ret)
		ret = check_range(as, "gm_unpin", &va, bytes, &end);
	if (ret)
		return ret;
	p = find(as, va, end);
	if (!p)
		return gm_fail(GM_RET_NOENT, "gm_unpin: no pin of 0x%llx + %llu KiB", (unsigned long long)va,
			       (unsigned long long)((end - va) >> 10));
	let_go(as, p);
	gm_mem_free(as->env, p, sizeof(*p));
	return GM_RET_SUCCESS;
}
