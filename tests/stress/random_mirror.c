/* SPDX-License-Identifier: MIT */
/*
 * Spaces that mirror the process: a device uses what nobody has registered, or what another space manages.
 *
 *     the page is            of 2 MiB and more          less, locked, pinned, read-only, of another space
 *     a device gets it       adopted on demand, moved   in place, with the rights of the process
 *     it must get it         always                     if it maps host memory, and has pages of 4 KiB
 *
 * A page of another space is one that it manages, as long as the access lasts: then it is external here, and brought
 * home from that space's device.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "tests/stress/random_world.h"

#define TROUBLE (RND_RET(IO) | RND_RET(NOMEM) | RND_RET(TIMEDOUT) | RND_RET(NOSPC))
#define REFUSED (RND_RET(FAULT) | RND_RET(PERM) | RND_RET(BUSY) | RND_RET(NOTSUP))
#define LAST (RND_CELLS - 1)
#define TRIES 4u

/* Why it may be refused, for reasons other than failures. */
static uint32_t legal(struct rnd_world *w, const struct rnd_page *p, const struct rnd_dev *d, const struct rnd_watch *watch,
		      uint32_t changes)
{
	uint32_t set = 0;

	if (p->pins || p->kept || p->locked || p->edge)
		set |= RND_RET(BUSY) | RND_RET(NOTSUP);
	if (p->read_only || p->no_read)
		set |= RND_RET(FAULT) | RND_RET(PERM) | RND_RET(NOTSUP);
	if (p->changes != changes || d->granule_bytes > GM_PAGE_BYTES || !d->hostmap)
		set |= REFUSED;
	if (rnd_held(w, watch, &w->dev[0]) || rnd_held(w, watch, &w->dev[1]))
		set |= RND_RET(NOSPC) | RND_RET(TIMEDOUT) | RND_RET(BUSY);
	return set;
}

/* Mappings come and go: tried a few times. True: done. */
static bool access_cell(struct rnd_world *w, struct rnd_page *p, struct rnd_dev *d, struct rnd_ctx *c, bool write)
{
	uint64_t va = p->va + LAST * RND_CELL_BYTES;
	uint8_t buf[RND_CELL_BYTES];
	uint32_t changes = p->changes;
	gm_ret_t ret = GM_RET_FAULT;

	rnd_random_bytes(w, buf, sizeof(buf));
	for (unsigned i = 0; ret && i < TRIES; i++) {
		struct rnd_watch watch = rnd_watch(w);

		ret = gm_dev_fault(c->ctx, va, write ? GM_WRITE : GM_READ);
		rnd_expect(w, &watch, ret, legal(w, p, d, &watch, changes), TROUBLE, "gm_dev_fault of what is mirrored", va);
		if (ret)
			break;
		ret = gm_hal_access(d->dev->hal, c->ctx->pmap, va + c->ctx->to_dev, buf, sizeof(buf), write);
	}
	if (ret)
		return false;
	rnd_check_obeyed(w, p, changes, write);
	if (write)
		memcpy(p->want + (size_t)LAST * RND_CELL_BYTES, buf, sizeof(buf));
	else
		rnd_compare(w, p, LAST * RND_CELL_BYTES, buf, sizeof(buf), "a device, of what is mirrored,");
	return true;
}

/* Pinned to the host it stays there, though nobody has adopted it. */
static void pin_it(struct rnd_world *w, struct rnd_page *p, struct rnd_ctx *c)
{
	struct gm_page_info info;
	gm_ret_t ret;

	p->kept++;
	rnd_changed(w, p);
	if (!gm_pin(p->space->as, p->va, GM_PAGE_BYTES, NULL)) {
		ret = gm_dev_fault(c->ctx, p->va, GM_WRITE);
		(void)ret; /* whatever it says */
		if (gm_query(p->space->as, p->va, 1, &info) || info.place == GM_PLACE_DEVICE)
			rnd_fail(w, "0x%" PRIx64 " is pinned to the host, but it is on a device", p->va);
		if (gm_unpin(p->space->as, p->va, GM_PAGE_BYTES))
			rnd_fail(w, "gm_unpin: %s", gm_last_error());
	}
	p->kept--;
	rnd_changed(w, p);
}

/* Rather one that nobody has registered. */
static struct rnd_page *choose(struct rnd_world *w)
{
	struct rnd_page *p = rnd_page(w);

	for (unsigned i = 0; i < 3 && p->managed == RND_MANAGED; i++)
		p = rnd_page(w);
	return p;
}

bool rnd_dev_mirror(struct rnd_world *w)
{
	struct rnd_space *s = &w->space[rnd(w, w->spaces)];
	struct rnd_dev *d = &w->dev[rnd(w, RND_DEVS)];
	struct rnd_ctx *c = &s->ctx[d - w->dev];
	struct rnd_page *p = choose(w);
	struct rnd_watch watch = rnd_watch(w);
	bool write = rnd_one_in(w, 2);

	if (!s->mirrors || (p->space != s && p->managed != RND_MANAGED) || !rnd_ctx_use(c))
		return false;
	if (!rnd_claim(p, LAST, 1, write)) { /* nobody adopts or releases it meanwhile */
		rnd_ctx_unuse(c);
		return false;
	}
	if (p->space == s && rnd_one_in(w, 2)) /* while nobody has adopted it, perhaps */
		pin_it(w, p, c);
	if (access_cell(w, p, d, c, write) && p->managed != RND_MANAGED)
		w->result->mirrored++;
	rnd_unclaim(p, LAST, 1, write);
	rnd_ctx_unuse(c);
	rnd_step(w, "mirror", &watch);
	return true;
}
