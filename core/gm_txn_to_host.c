/* SPDX-License-Identifier: MIT */
/*
 * To the host:
 *
 *   2a revoke   every device mapping of the pages, and drain: from here the
 *               device copy does not change.
 *   3  copy     frames -> slot, for pages whose parked host frame is older.
 *               A clean page needs none: its frame is given back as it is.
 *   4/5 give    the page appears at its VA: parked frames move there, pages
 *               without one are filled. The application may write to it at
 *               once; that is no race, as its page is still busy for us and the
 *               device copy is never read again.
 *   commit      residency, for exactly the pages that are back.
 *
 * Each page decides for itself whether it is back: a copy that fails with IO is
 * done again page by page, and a page that still fails stays on the device. One
 * that cannot be given (its mapping is gone, something is there) stays where it
 * was, and its slot frame, if it was just copied, is as new as the device's
 * copy: clean.
 */
#include "config.h"

#include <string.h>

#include "core/gm_events.h"
#include "core/gm_lost.h"
#include "core/gm_txn.h"

/* A step towards the host, for one run: `done` of `bytes`. */
typedef gm_ret_t (*give_fn)(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t from, uint64_t bytes,
			    uint64_t *done);

static gm_ret_t give_restore(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t from, uint64_t bytes, uint64_t *done)
{
	return gm_hal_restore(h, pmap, va, from, bytes, done);
}

static gm_ret_t give_fill(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t from, uint64_t bytes, uint64_t *done)
{
	return gm_hal_fill(h, pmap, va, (const void *)(uintptr_t)from, bytes, done);
}

static gm_ret_t give_protected(struct gm_hal_dev *h, void *pmap, uint64_t va, uint64_t from, uint64_t bytes,
			       uint64_t *done)
{
	return gm_hal_fill_protected(h, pmap, va, (const void *)(uintptr_t)from, bytes, done);
}

/*
 * (unlocked) How far from `first` pages may be given: the application did not give their content up meanwhile,
 * nor move them away (or it did, and that is what this transaction is about).
 */
static unsigned may_give(const struct gm_txn *t, struct gm_block *b, unsigned first, unsigned end)
{
	gm_lock(b->as->env, &b->lock);
	while (first < end && !gm_mask_test(&b->doomed, first) && gm_mask_test(&b->leaving, first) == t->moved)
		first++;
	gm_unlock(b->as->env, &b->lock);
	return first;
}

/* (unlocked) Where page `first` belongs, and how far from it the pages go to one place. False: nowhere any more. */
static bool home_of(const struct gm_txn *t, const struct gm_block *b, unsigned first, unsigned *stop, uint64_t *va)
{
	uint64_t run;

	*va = b->va + (uint64_t)first * GM_PAGE_BYTES;
	if (!t->moved)
		return true;
	if (!gm_remap_target(b->as, *va, va, &run))
		return false;
	*stop = run < *stop - first ? first + (unsigned)run : *stop;
	return true;
}

/*
 * One call of `give` for pages from `first` on, up to *stop. What the application
 * gave up must not come back: no event is unread (the host's check), none is read
 * but not handled (gm_events_hold_reader(); the handler itself has handled those
 * before the fault it serves), and what was handled is doomed.
 */
static gm_ret_t give_some(struct gm_txn *t, struct gm_block *b, give_fn give, unsigned first, unsigned *stop,
			  uint64_t from, uint64_t *done)
{
	struct gm_as *as = b->as;
	bool guard = !(t->flags & GM_TXN_INLINE);
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t va;

	*done = 0;
	if (guard && !gm_events_hold_reader(as))
		return GM_RET_AGAIN;
	*stop = may_give(t, b, first, *stop);
	if (*stop > first && !home_of(t, b, first, stop, &va))
		ret = GM_RET_FAULT;
	else if (*stop > first)
		ret = give(as->host, as->hpmap, va, from, (uint64_t)(*stop - first) * GM_PAGE_BYTES, done);
	if (guard)
		gm_events_release_reader(as);
	return ret;
}

/* Give pages [first, end) of a block, whose bytes begin at `from`; adds those that are back. */
static void give_run(struct gm_txn *t, struct gm_block *b, give_fn give, unsigned first, unsigned end, uint64_t from,
		     struct gm_mask *back)
{
	while (first < end) {
		unsigned stop = end, pages;
		uint64_t done;
		gm_ret_t ret = give_some(t, b, give, first, &stop, from, &done);

		pages = (unsigned)(done / GM_PAGE_BYTES);
		*back = gm_mask_or(*back, gm_mask_span(first, first + pages));
		first += pages;
		from += done;
		if (ret == GM_RET_AGAIN) {
			if (gm_txn_let_reader_run(t))
				continue;
			gm_txn_fail(t, t->flags & GM_TXN_INLINE ? GM_RET_AGAIN : GM_RET_TIMEDOUT);
			break;
		}
		if (ret)
			gm_txn_fail(t, ret);
		if (ret && ret != GM_RET_EXIST && ret != GM_RET_FAULT)
			break;
		if (ret)
			gm_mask_set(&t->refused, first);
		first++; /* this page cannot, or need not; the next may */
		from += GM_PAGE_BYTES;
	}
}

void gm_txn_restore(struct gm_txn *t, struct gm_block *b, const struct gm_mask *pages, struct gm_mask *back,
		    uint64_t *now_ns)
{
	GM_MASK_FOR_RUN(pages, first, end)
		give_run(t, b, give_restore, first, end, b->slot + (uint64_t)first * GM_PAGE_BYTES, back);
	gm_stat_lap(b->as, GM_STAT_ns_restore, now_ns);
}

void gm_txn_give_protected(struct gm_txn *t, struct gm_block *b, const struct gm_mask *pages, uint64_t base,
			   struct gm_mask *back)
{
	static const char zeros[GM_PAGE_BYTES];

	const give_fn give = GM_PLANTED(b->as, GM_PLANT_DUP_OPEN) ? give_fill : give_protected;

	GM_MASK_FOR_RUN(pages, first, end) {
		if (base)
			give_run(t, b, give, first, end, base + (uint64_t)first * GM_PAGE_BYTES, back);
		for (unsigned page = first; page < end && !base; page++)
			give_run(t, b, give, page, page + 1, GM_VA(zeros), back);
	}
}

/* What the move needs, read once under the lock: the pages are busy, so it stays true. */
struct home {
	struct gm_mask staged, dirty; /* staged: a frame is parked; dirty: it is older than the device's */
	struct gm_mask bare;          /* no frame is parked */
	struct gm_mask back;
	struct gm_frame_map frames;
};

/* False: this device has none of them. */
static bool look(struct gm_move *m, unsigned dev, struct home *h)
{
	struct gm_block *b = m->block;
	struct gm_bnode *n;
	struct gm_mask here;

	if (!atomic_load_explicit(&b->has_node[dev], memory_order_acquire))
		return false;
	gm_lock(b->as->env, &b->lock);
	n = b->node[dev];
	here = gm_mask_and(m->devs, n->resident);
	h->staged = gm_mask_and(here, b->staged);
	h->dirty = gm_mask_and(h->staged, n->dirty);
	h->bare = gm_mask_sub(here, b->staged);
	h->back = gm_mask_none();
	if (!gm_mask_empty(&h->dirty) || !gm_mask_empty(&h->bare)) /* else nobody asks for the frames */
		gm_block_frames(b, dev, &h->frames);
	gm_unlock(b->as->env, &b->lock);
	if (GM_PLANTED(b->as, GM_PLANT_DROP_DIRTY))
		h->dirty = gm_mask_none();
	return !gm_mask_empty(&here);
}

/* The CPU itself reads device memory: in the fault handler, where an engine would be waited for. */
static gm_ret_t copy_by_cpu(struct gm_dev *dev, const struct gm_mask *pages, const struct gm_frame_map *frames,
			    uint64_t base)
{
	GM_MASK_FOR_RUN(pages, first, end)
		for (unsigned i = first, next; i < end; i = next) {
			uint64_t bytes;
			void *src;

			next = gm_frame_run(frames, i, end);
			bytes = (uint64_t)(next - i) * GM_PAGE_BYTES;
			src = gm_hal_cpu_ptr(dev->hal, gm_frame_pa(frames, i), bytes);
			if (!src)
				return GM_RET_AGAIN;
			memcpy((void *)(uintptr_t)(base + (uint64_t)i * GM_PAGE_BYTES), src, bytes);
		}
	/* Lost before or meanwhile: nobody knows what was read. */
	return atomic_load(&dev->hal->lost) ? GM_RET_NODEV : GM_RET_SUCCESS;
}

static gm_ret_t copy_by_engine(struct gm_txn *t, struct gm_dev *dev, const struct gm_mask *pages,
			       const struct gm_frame_map *frames, uint64_t base)
{
	struct gm_plan plan;

	gm_plan_init(&plan, t->as, dev->hal, t->deadline_ns);
	gm_plan_copy(&plan, GM_COPY_TO_HOST, pages, frames, base);
	return gm_plan_run(&plan);
}

/* A page that cannot be read must not keep its neighbours away: each alone. */
static gm_ret_t copy_each(struct gm_txn *t, struct gm_dev *dev, const struct gm_mask *pages,
			  const struct gm_frame_map *frames, uint64_t base, struct gm_mask *got)
{
	gm_ret_t first = GM_RET_SUCCESS;

	GM_MASK_FOR_RUN(pages, begin, end)
		for (unsigned i = begin; i < end && (!first || first == GM_RET_IO); i++) {
			struct gm_mask one = gm_mask_span(i, i + 1);
			gm_ret_t ret = copy_by_engine(t, dev, &one, frames, base);

			if (!ret)
				gm_mask_set(got, i);
			else if (!first || ret != GM_RET_IO)
				first = ret;
		}
	return first;
}

/* `got` is set to what is there: all of it on success. */
static gm_ret_t copy_home(struct gm_txn *t, struct gm_dev *dev, const struct gm_mask *pages,
			  const struct gm_frame_map *frames, uint64_t base, struct gm_mask *got)
{
	uint64_t start;
	gm_ret_t ret;

	*got = gm_mask_none();
	if (gm_mask_empty(pages))
		return GM_RET_SUCCESS;
	start = gm_now_ns(t->as->env);
	if (t->flags & GM_TXN_INLINE)
		ret = copy_by_cpu(dev, pages, frames, base);
	else
		ret = copy_by_engine(t, dev, pages, frames, base);
	if (!ret)
		*got = *pages;
	else if (ret == GM_RET_IO)
		ret = copy_each(t, dev, pages, frames, base, got);
	gm_stat_add(t->as, GM_STAT_bytes_to_host, (uint64_t)gm_mask_count(got) * GM_PAGE_BYTES);
	gm_stat_time(t->as, GM_STAT_ns_copy, start);
	return ret;
}

/* Pages with a parked frame: bring it up to date, give it back. */
static gm_ret_t home_staged(struct gm_txn *t, struct gm_move *m, struct gm_dev *dev, struct home *h)
{
	struct gm_block *b = m->block;
	struct gm_mask clean = gm_mask_sub(h->staged, h->dirty), got;
	gm_ret_t ret = copy_home(t, dev, &h->dirty, &h->frames, b->slot, &got);
	uint64_t now_ns;

	h->staged = gm_mask_or(clean, got);
	if (!gm_mask_empty(&got)) {
		gm_lock(b->as->env, &b->lock);
		b->node[dev->index]->dirty = gm_mask_sub(b->node[dev->index]->dirty, got);
		gm_unlock(b->as->env, &b->lock);
		h->dirty = gm_mask_sub(h->dirty, got); /* the slot has them now */
	}
	if (gm_mask_empty(&h->staged))
		return ret;
	now_ns = gm_now_ns(t->as->env);
	gm_txn_restore(t, b, &h->staged, &h->back, &now_ns);
	clean = gm_mask_and(clean, h->back);
	gm_stat_add(t->as, GM_STAT_pages_clean, gm_mask_count(&clean));
	return ret;
}

/* Without a parked frame, from memory the CPU sees: straight from the frames. Returns what it does not see. */
static struct gm_mask fill_visible(struct gm_txn *t, struct gm_block *b, struct gm_dev *dev, struct home *h)
{
	struct gm_mask unseen = gm_mask_none();

	GM_MASK_FOR_RUN(&h->bare, first, end)
		for (unsigned i = first, next; i < end; i = next) {
			uint64_t bytes;
			void *src;

			next = gm_frame_run(&h->frames, i, end);
			bytes = (uint64_t)(next - i) * GM_PAGE_BYTES;
			src = gm_hal_cpu_ptr(dev->hal, gm_frame_pa(&h->frames, i), bytes);
			if (src) {
				give_run(t, b, give_fill, i, next, GM_VA(src), &h->back);
				gm_stat_add(t->as, GM_STAT_bytes_to_host, bytes);
			} else {
				unseen = gm_mask_or(unseen, gm_mask_span(i, next));
			}
		}
	return unseen;
}

/* Without a parked frame, from memory the CPU does not see: through scratch memory. */
static gm_ret_t fill_bounced(struct gm_txn *t, struct gm_block *b, struct gm_dev *dev, struct home *h,
			     const struct gm_mask *pages)
{
	struct gm_env *env = t->as->env;
	void *scratch = gm_mem_alloc(env, GM_BLOCK_BYTES);
	struct gm_mask got;
	gm_ret_t ret;

	if (!scratch)
		return gm_fail(GM_RET_NOMEM, "no scratch memory to bring 0x%llx home", (unsigned long long)b->va);
	ret = copy_home(t, dev, pages, &h->frames, GM_VA(scratch), &got);
	GM_MASK_FOR_RUN(&got, first, end)
		give_run(t, b, give_fill, first, end, GM_VA(scratch) + (uint64_t)first * GM_PAGE_BYTES, &h->back);
	gm_mem_free(env, scratch, GM_BLOCK_BYTES);
	return ret;
}

static gm_ret_t home_bare(struct gm_txn *t, struct gm_move *m, struct gm_dev *dev, struct home *h)
{
	struct gm_mask unseen = h->bare;
	gm_ret_t ret = GM_RET_SUCCESS;
	uint64_t start;

	if (gm_mask_empty(&h->bare))
		return ret;
	start = gm_now_ns(t->as->env);
	if (gm_hal_has(dev->hal, GM_CAP_CPU_VISIBLE) && !atomic_load(&dev->hal->lost))
		unseen = fill_visible(t, m->block, dev, h);
	if (!gm_mask_empty(&unseen)) /* all of it, or what lies beyond the part that is visible */
		ret = t->flags & GM_TXN_INLINE ? GM_RET_AGAIN : fill_bounced(t, m->block, dev, h, &unseen);
	gm_stat_time(t->as, GM_STAT_ns_restore, start);
	return ret;
}

/* The device is lost, and with it these pages: say so at every access, for ever. */
static void poison(struct gm_txn *t, struct gm_move *m, struct gm_dev *dev, const struct home *h)
{
	struct gm_block *b = m->block;
	struct gm_mask lost = gm_mask_sub(gm_mask_or(h->dirty, h->bare), h->back);

	if (gm_mask_empty(&lost))
		return;
	/* First, as the process may not survive what follows. */
	gm_log(b->as->env, GM_LOG_ERROR, "device %s took %u pages near 0x%llx with it", dev->hal->caps.name,
	       gm_mask_count(&lost), (unsigned long long)b->va);
	GM_MASK_FOR_RUN(&lost, first, end) {
		for (unsigned page = first, stop; page < end; page = stop) {
			uint64_t va, done;

			if (!gm_events_hold_reader(b->as))
				break; /* the state is enough: each access asks, and is told */
			/* What was moved meanwhile is lost elsewhere: here may be other memory. */
			stop = may_give(t, b, page, end);
			if (stop > page && home_of(t, b, page, &stop, &va))
				(void)gm_hal_poison(b->as->host, b->as->hpmap, va, (uint64_t)(stop - page) * GM_PAGE_BYTES,
						    &done);
			gm_events_release_reader(b->as);
			stop = stop > page ? stop : page + 1;
		}
		if (b->has_slot && !gm_mask_empty(&h->dirty))
			gm_hal_slot_drop(b->as->host, b->as->hpmap, b->slot + (uint64_t)first * GM_PAGE_BYTES,
					 (uint64_t)(end - first) * GM_PAGE_BYTES);
	}
	gm_lock(b->as->env, &b->lock);
	b->node[dev->index]->resident = gm_mask_sub(b->node[dev->index]->resident, lost);
	b->node[dev->index]->dirty = gm_mask_sub(b->node[dev->index]->dirty, lost);
	b->staged = gm_mask_sub(b->staged, lost);
	gm_block_share(b, &lost);
	b->poisoned = gm_mask_or(b->poisoned, lost); /* also what is leaving: who delivers it sees to the marks */
	gm_unlock(b->as->env, &b->lock);
	gm_lost_tell(b, &lost, t->moved, GM_RET_NODEV);
}

static void home_from(struct gm_txn *t, struct gm_move *m, unsigned index)
{
	struct gm_dev *dev;
	gm_ret_t ret, bare;
	struct home h;

	if (!look(m, index, &h))
		return;
	dev = t->as->lib->devs[index];
	ret = home_staged(t, m, dev, &h);
	bare = home_bare(t, m, dev, &h);
	gm_commit_host(m->block, &h.back);
	m->arrived = gm_mask_or(m->arrived, h.back);
	if (ret == GM_RET_NODEV || bare == GM_RET_NODEV || atomic_load(&dev->hal->lost))
		poison(t, m, dev, &h);
	if (ret || bare)
		gm_txn_fail(t, ret ? ret : bare);
}

static void home_parked(struct gm_txn *t, struct gm_move *m)
{
	struct gm_mask back = gm_mask_none();
	uint64_t now_ns;

	if (gm_mask_empty(&m->parked))
		return;
	now_ns = gm_now_ns(t->as->env);
	gm_txn_restore(t, m->block, &m->parked, &back, &now_ns);
	gm_commit_host(m->block, &back);
	m->arrived = gm_mask_or(m->arrived, back);
}

static void count(struct gm_txn *t, const struct gm_move *m)
{
	unsigned pages = gm_mask_count(&m->arrived);

	if (!pages)
		return;
	gm_stat_add(t->as, GM_STAT_migrations_to_host, 1);
	gm_stat_add(t->as, GM_STAT_pages_to_host, pages);
	if (t->flags & GM_TXN_EVICT) {
		gm_stat_add(t->as, GM_STAT_evictions, 1);
		gm_stat_add(t->as, GM_STAT_pages_evicted, pages);
	}
}

/* Devices let go of the pages; all of them, unless an error is planted. */
static gm_ret_t revoke(struct gm_txn *t, struct gm_move *m)
{
	struct gm_mask pages = m->devs;

	if (GM_PLANTED(t->as, GM_PLANT_EXCLUSIVE_KEEP))
		pages = gm_mask_sub(pages, m->block->exclusive);
	if (GM_PLANTED(t->as, GM_PLANT_COPY_EARLY))
		return GM_RET_SUCCESS;
	return gm_plan_revoke(m->block, &pages, t->deadline_ns, t->flags & GM_TXN_INLINE);
}

gm_ret_t gm_txn_to_host(struct gm_txn *t)
{
	for (size_t i = 0; i < t->moves; i++) {
		struct gm_move *m = &t->move[i];
		gm_ret_t ret = revoke(t, m);

		if (ret) {
			gm_txn_fail(t, ret);
			continue;
		}
		home_parked(t, m);
		for (unsigned d = 0; d < GM_MAX_DEVS; d++)
			home_from(t, m, d);
		if (GM_PLANTED(t->as, GM_PLANT_COPY_EARLY))
			(void)gm_plan_revoke(m->block, &m->devs, t->deadline_ns, false);
		count(t, m);
	}
	return t->ret;
}
