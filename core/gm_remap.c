/* SPDX-License-Identifier: MIT */
/*
 * mremap(): the process moved a range, and what is away of it has to follow.
 * The kernel tells afterwards, when the new place is in use already and the
 * old one may be somebody else's.
 *
 *     noted --every byte given at the new place--> delivered --managed there--> gone
 *       |  ^                                           |
 *       +--+ moved again: another target               +-- moved again: the same, the kernel took the bytes along
 *
 * noted      The old place stops being managed at once: nothing is brought from
 *            there any more. What a block has of it (on a device, parked, busy, lost)
 *            is `leaving`: it belongs to another address. Nobody takes it home,
 *            and nothing that happens at the old address concerns it; where it
 *            goes is looked up in the list at the moment it is given. An access
 *            at the new place waits.
 * delivered  Nothing is leaving. A page that is absent at the new place is a hole;
 *            one that was lost has the mark there, so that accesses fail.
 * gone       The new place is managed, and all on the host. This waits
 *            until nothing is leaving from it, as ranges may change places in a circle.
 *
 * An event at the new place means what is under way to it. REMOVE gives its
 * content up; the kernel has yet to zap what is there, so that for a while nothing
 * may be taken from that place. UNMAP may be older than the move: another thread
 * freed the addresses before they were the target, and its event came late. So it
 * only casts doubt: whether the place is ours shows when something is given there.
 * Another move to the same place leaves no doubt, as that unmaps what was there.
 *
 * The handler changes the list and never allocates: entries come from a stock.
 * The worker delivers (gm_remap_deliver.c). A call that puts bytes somewhere keeps the handler from
 * reading on (gm_events_hold_reader()), so a target cannot change under it.
 */
#include "config.h"

#include "core/gm_remap.h"

#include "core/gm_events.h"
#include "core/gm_work.h"

void gm_remap_init(struct gm_as *as)
{
	TAILQ_INIT(&as->remaps.list);
	TAILQ_INIT(&as->remaps.kept);
	TAILQ_INIT(&as->remaps.spare);
}

void gm_remap_fini(struct gm_as *as)
{
	struct gm_remap *e;

	TAILQ_CONCAT(&as->remaps.spare, &as->remaps.list, link);
	TAILQ_CONCAT(&as->remaps.spare, &as->remaps.kept, link);
	while ((e = TAILQ_FIRST(&as->remaps.spare))) {
		TAILQ_REMOVE(&as->remaps.spare, e, link);
		gm_mem_free(as->env, e, sizeof(*e));
	}
}

bool gm_remap_stock(struct gm_as *as)
{
	struct gm_remaps *rs = &as->remaps;
	bool want = true, some = false;

	while (want) {
		struct gm_remap *e = gm_mem_alloc(as->env, sizeof(*e));

		if (!e)
			break;
		gm_lock(as->env, &as->lock);
		want = rs->spares < GM_REMAP_SPARES;
		if (want) {
			TAILQ_INSERT_HEAD(&rs->spare, e, link);
			rs->spares++;
			some = true;
			e = NULL;
		}
		gm_unlock(as->env, &as->lock);
		gm_mem_free(as->env, e, sizeof(*e));
	}
	return some;
}

/* ------------------------------------------------------ the list; all (A) */

/* A copy of `like`, for the caller to put into the list. There is a spare. */
static struct gm_remap *take_spare(struct gm_remaps *rs, const struct gm_remap *like)
{
	struct gm_remap *e = TAILQ_FIRST(&rs->spare);

	TAILQ_REMOVE(&rs->spare, e, link);
	rs->spares--;
	*e = *like;
	return e;
}

static void drop(struct gm_remaps *rs, struct gm_remap_list *from, struct gm_remap *e)
{
	TAILQ_REMOVE(from, e, link);
	TAILQ_INSERT_HEAD(&rs->spare, e, link);
	rs->spares++;
	if (from == &rs->list)
		atomic_fetch_sub(&rs->count, 1);
}

void gm_remap_remove(struct gm_remaps *rs, struct gm_remap *e)
{
	drop(rs, &rs->list, e);
}

/* Cut in two so that the second begins with target `at`, which is inside. */
static struct gm_remap *split(struct gm_remaps *rs, struct gm_remap_list *in, struct gm_remap *e, uint64_t at)
{
	struct gm_remap *tail = take_spare(rs, e);

	tail->va = e->va + (at - e->to);
	tail->to = at;
	e->end = tail->va;
	TAILQ_INSERT_AFTER(in, e, tail, link);
	if (in == &rs->list)
		atomic_fetch_add(&rs->count, 1);
	return tail;
}

/*
 * The next entry, from *e on, that goes to [va, end) as a whole: cut to it where
 * it goes to more. *e NULL: there is none. False: no spare to cut with.
 */
static bool next_inside(struct gm_remaps *rs, struct gm_remap_list *in, struct gm_remap **e, uint64_t va, uint64_t end)
{
	while (*e && (gm_remap_to_end(*e) <= va || (*e)->to >= end))
		*e = TAILQ_NEXT(*e, link);
	if (!*e)
		return true;
	if (rs->spares < 2)
		return false;
	if ((*e)->to < va)
		*e = split(rs, in, *e, va);
	if (gm_remap_to_end(*e) > end)
		(void)split(rs, in, *e, end);
	return true;
}

bool gm_remap_meets(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_remap *e;

	TAILQ_FOREACH(e, &as->remaps.list, link)
		if ((e->to < end && gm_remap_to_end(e) > va) || (!e->delivered && e->va < end && e->end > va))
			return true;
	return false;
}

/* ------------------------------------------------------------- the handler */

/* (A) What blocks have of [va, end), none of which is packed, belongs elsewhere from now on. */
static void start_leaving(struct gm_as *as, uint64_t va, uint64_t end)
{
	for (struct gm_block *b = gm_block_first(as, va, end); b; b = gm_block_after(b, end)) {
		struct gm_mask pages = gm_block_clip(b, va, end), here;

		gm_lock(as->env, &b->lock);
		here = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_mask_or(gm_block_mapped(b), b->busy));
		here = gm_mask_or(here, b->dup); /* these go where they are, the host's copy was moved */
		here = gm_mask_or(here, b->poisoned); /* the kernel took its marks along, but not all have one */
		b->leaving = gm_mask_or(b->leaving, gm_mask_and(here, pages));
		b->managed = gm_mask_sub(b->managed, pages);
		b->mirrored = gm_mask_sub(b->mirrored, pages);
		b->host = gm_mask_sub(b->host, pages);
		b->failed = gm_mask_sub(b->failed, pages);
		b->registered = gm_mask_sub(b->registered, pages);
		b->kept = gm_mask_sub(b->kept, pages);
		gm_unlock(as->env, &b->lock);
	}
}

/* The content of what is leaving from [va, end) is given up; `ends`: it goes nowhere any more. */
static void doom_leaving(struct gm_as *as, uint64_t va, uint64_t end, bool ends)
{
	uint64_t now_ns = gm_now_ns(as->env);

	for (struct gm_block *b; (b = gm_block_next_live(as, va, end)); gm_block_put(b)) {
		struct gm_mask pages = gm_block_clip(b, va, end);

		gm_lock(as->env, &b->lock);
		pages = gm_mask_and(pages, b->leaving);
		gm_block_doom(b, &pages, now_ns);
		if (ends)
			b->leaving = gm_mask_sub(b->leaving, pages);
		gm_unlock(as->env, &b->lock);
		gm_work_queue(b, 0);
		va = b->va + GM_BLOCK_BYTES;
	}
}

/* (A) What was on its way to [va, end) goes on to where that is now. */
static bool retarget(struct gm_as *as, struct gm_remap_list *in, uint64_t va, uint64_t end, uint64_t to)
{
	struct gm_remap *e = TAILQ_FIRST(in);

	while (next_inside(&as->remaps, in, &e, va, end)) {
		if (!e)
			return true;
		e->to += to - va;
		e = TAILQ_NEXT(e, link);
	}
	return false;
}

/* (A) What is managed of [va, end) goes to `to`. An edge stays: it was not moved by us, nor will be. */
static bool note_regions(struct gm_as *as, uint64_t va, uint64_t end, uint64_t to)
{
	struct gm_region buf, *r = gm_regions_first(&as->regions, va, end, &buf);

	while (r) {
		struct gm_remap e = { .va = r->va > va ? r->va : va, .end = r->end < end ? r->end : end,
				      .kind = r->kind, .noted_ns = gm_now_ns(as->env) };
		struct gm_remap *kept;

		if (gm_region_stays(r)) {
			r = gm_regions_next(&as->regions, r, end);
			continue;
		}
		if (!as->remaps.spares || !gm_regions_carve(&as->regions, e.va, e.end, e.kind))
			return false;
		e.to = to + (e.va - va);
		kept = take_spare(&as->remaps, &e);
		TAILQ_INSERT_TAIL(&as->remaps.list, kept, link);
		atomic_fetch_add(&as->remaps.count, 1);
		start_leaving(as, e.va, e.end);
		r = gm_regions_first(&as->regions, e.end, end, &buf);
	}
	return true;
}

/* What to do with the next entry that goes to [va, end). */
enum at_target { SUPERSEDE, EMPTY, DOUBT };

/* Each of them, from the first on. False: the stock is empty; call again. */
static bool each_target(struct gm_as *as, uint64_t va, uint64_t end, enum at_target what)
{
	struct gm_remaps *rs = &as->remaps;
	struct gm_remap *e = TAILQ_FIRST(&rs->list), *next = NULL, r;
	bool ok;

	for (;; e = next) {
		gm_lock(as->env, &as->lock);
		ok = next_inside(rs, &rs->list, &e, va, end);
		if (ok && e) {
			next = TAILQ_NEXT(e, link); /* nobody but us takes entries out while a message is handled */
			if (what == EMPTY)
				e->not_before_ns = gm_deadline_ns(as->env, GM_ZAP_GRACE_NS);
			e->doubted |= what == DOUBT;
			r = *e;
			if (what == SUPERSEDE)
				gm_remap_remove(rs, e);
		}
		gm_unlock(as->env, &as->lock);
		if (!ok || !e)
			return ok;
		if (what != DOUBT && !r.delivered)
			doom_leaving(as, r.va, r.end, what == SUPERSEDE);
	}
}

bool gm_remap_note(struct gm_as *as, const struct gm_host_msg *msg)
{
	struct gm_remaps *rs = &as->remaps;
	uint64_t end = msg->va + msg->bytes;
	bool ok = true;

	/* What was under way to where this goes now was unmapped before. */
	if (!rs->noting)
		ok = each_target(as, msg->to, msg->to + msg->bytes, SUPERSEDE);
	rs->noting = ok; /* the rest may take several attempts, this must not be done again */
	gm_lock(as->env, &as->lock);
	ok = ok && retarget(as, &rs->kept, msg->va, end, msg->to) && retarget(as, &rs->list, msg->va, end, msg->to) &&
	     note_regions(as, msg->va, end, msg->to);
	gm_unlock(as->env, &as->lock);
	if (ok)
		rs->noting = false;
	atomic_fetch_add(&rs->gen, 1);
	gm_work_remap(as);
	return ok;
}

/* An event at the new place of what is under way. */
static bool at_target(struct gm_as *as, uint64_t va, uint64_t end, enum at_target what)
{
	bool ok;

	if (!atomic_load(&as->remaps.count))
		return true;
	ok = each_target(as, va, end, what);
	atomic_fetch_add(&as->remaps.gen, 1);
	if (what == DOUBT) /* who waited there for bytes under way, and sees for itself */
		gm_hal_wake(as->host, as->hpmap, va, end - va);
	gm_work_remap(as);
	return ok;
}

bool gm_remap_empty(struct gm_as *as, uint64_t va, uint64_t end)
{
	return at_target(as, va, end, EMPTY);
}

bool gm_remap_doubt(struct gm_as *as, uint64_t va, uint64_t end)
{
	return at_target(as, va, end, DOUBT);
}

bool gm_remap_awaits(struct gm_as *as, uint64_t va)
{
	struct gm_remap *e;
	bool yes = false;

	if (!atomic_load_explicit(&as->remaps.count, memory_order_relaxed)) /* only the handler, who asks, adds some */
		return false;
	gm_lock(as->env, &as->lock);
	TAILQ_FOREACH(e, &as->remaps.list, link)
		yes |= !e->delivered && va >= e->to && va < gm_remap_to_end(e);
	gm_unlock(as->env, &as->lock);
	return yes;
}

/* --------------------------------------------------------------- questions */

bool gm_remap_target(struct gm_as *as, uint64_t va, uint64_t *to, uint64_t *run)
{
	struct gm_remap *e;
	bool found = false;

	gm_lock(as->env, &as->lock);
	TAILQ_FOREACH(e, &as->remaps.list, link) {
		if (e->delivered || va < e->va || va >= e->end)
			continue;
		*to = e->to + (va - e->va);
		*run = (e->end - va) / GM_PAGE_BYTES;
		found = true;
	}
	gm_unlock(as->env, &as->lock);
	return found;
}

bool gm_remap_pending(struct gm_as *as)
{
	struct gm_remap *e;
	bool yes = false;

	if (!atomic_load(&as->remaps.count))
		return false;
	gm_lock(as->env, &as->lock);
	TAILQ_FOREACH(e, &as->remaps.list, link)
		yes |= !e->held;
	gm_unlock(as->env, &as->lock);
	return yes;
}

void gm_remap_unheld(struct gm_as *as)
{
	struct gm_remap *e;

	if (!atomic_load(&as->remaps.count))
		return;
	gm_lock(as->env, &as->lock);
	as->remaps.releases++;
	TAILQ_FOREACH(e, &as->remaps.list, link)
		e->held = false; /* if another set keeps it, the next round says so */
	gm_unlock(as->env, &as->lock);
	gm_work_remap(as);
}

void gm_remap_each_target(struct gm_as *as, bool held, void (*fn)(struct gm_as *as, uint64_t va, uint64_t bytes))
{
	struct gm_remap *e, now;
	uint64_t after = 0;

	do { /* in order of the targets, as the list may change between two calls */
		struct gm_remap *next = NULL;

		gm_lock(as->env, &as->lock);
		TAILQ_FOREACH(e, &as->remaps.list, link)
			if (!e->delivered && (e->held || !held) && e->to >= after && (!next || e->to < next->to))
				next = e;
		if (next)
			now = *next;
		gm_unlock(as->env, &as->lock);
		if (!next)
			return;
		fn(as, now.to, now.end - now.va);
		after = gm_remap_to_end(&now);
	} while (true);
}

bool gm_remap_keep(struct gm_as *as, uint64_t va, uint64_t end)
{
	const struct gm_remap here = { .va = va, .end = end, .to = va };
	struct gm_remap *e = gm_mem_alloc(as->env, sizeof(*e));

	gm_lock(as->env, &as->lock);
	if (e)
		*e = here;
	else if (as->remaps.spares)
		e = take_spare(&as->remaps, &here);
	if (e)
		TAILQ_INSERT_TAIL(&as->remaps.kept, e, link);
	gm_unlock(as->env, &as->lock);
	return e;
}

bool gm_remap_kept(struct gm_as *as, uint64_t *va, uint64_t *end)
{
	struct gm_remap *e;

	gm_lock(as->env, &as->lock);
	e = TAILQ_FIRST(&as->remaps.kept);
	if (e) {
		*va = e->to;
		*end = gm_remap_to_end(e);
	}
	gm_unlock(as->env, &as->lock);
	return e != NULL;
}

void gm_remap_forget(struct gm_as *as)
{
	struct gm_remap *e;

	gm_lock(as->env, &as->lock);
	e = TAILQ_FIRST(&as->remaps.kept);
	TAILQ_REMOVE(&as->remaps.kept, e, link);
	gm_unlock(as->env, &as->lock);
	gm_mem_free(as->env, e, sizeof(*e));
}
