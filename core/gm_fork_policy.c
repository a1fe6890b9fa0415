/* SPDX-License-Identifier: MIT */
/*
 * What a child gets of which memory. Ranges for which the program said so lie
 * in an ordered table of their own; for all others the space's default counts,
 * and without one the kind of memory: owned memory is excluded, adopted memory comes
 * home.
 *
 *     excluded   the kernel does not hand it on (MADV_DONTFORK), always
 *     home       it comes home before the fork      - who is excluded here and not there
 *     served     see gm_fork_serve.c                   would see zeros: so the order is
 *
 *     to excluded: DONTFORK --> table --> DONTFORK (a thaw may have come between)
 *     from it:     table --> DOFORK
 *
 * An entry that is older than the memory there now does no harm: whatever it
 * says, pages that are away are kept from the child, or served; only what a fork
 * kept from one child stays kept from the next. gm_alloc() and gm_adopt() clear it.
 * What mremap() moves is by default from then on, though the kernel goes on not to
 * hand on what was excluded.
 */
#include "config.h"

#include <string.h>

#include "core/gm_fork.h"
#include "core/gm_mem.h"
#include "core/gm_shared.h"
#include "hal/gm_handle.h"

/* (A) The first entry that ends above va. */
static unsigned find(const struct gm_fork_table *t, uint64_t va)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (t->range[mid].end > va)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* (A) */
static enum gm_fork by_kind(struct gm_as *as, uint64_t va, uint64_t *end)
{
	struct gm_region buf, *r = gm_regions_first(&as->regions, va, *end, &buf);

	if (r && r->va > va) {
		*end = r->va;
		r = NULL;
	} else if (r && r->end < *end) {
		*end = r->end;
	}
	if (as->cfg.fork && r)
		return (enum gm_fork)as->cfg.fork;
	return r && r->kind == GM_REGION_OWNED ? GM_FORK_EXCLUDE : GM_FORK_HOME;
}

enum gm_fork gm_fork_policy_at(struct gm_as *as, uint64_t va, uint64_t *end)
{
	const struct gm_fork_table *t = &as->forks;
	enum gm_fork policy = GM_FORK_DEFAULT;
	unsigned i;

	gm_lock(as->env, &as->lock);
	i = find(t, va);
	if (i < t->n && t->range[i].va <= va) {
		policy = t->range[i].policy;
		*end = t->range[i].end < *end ? t->range[i].end : *end;
	} else if (i < t->n && t->range[i].va < *end) {
		*end = t->range[i].va;
	}
	if (!policy)
		policy = by_kind(as, va, end);
	gm_unlock(as->env, &as->lock);
	return policy;
}

/* (A) Out of the table: entries that [va, end) cuts are shortened, or become two. There is room for one more. */
static void cut(struct gm_fork_table *t, uint64_t va, uint64_t end)
{
	unsigned first = find(t, va), n = 0;

	if (first < t->n && t->range[first].va < va) {
		struct gm_fork_range *e = &t->range[first++];

		if (e->end > end) { /* the middle of one */
			memmove(e + 2, e + 1, (t->n - first) * sizeof(*e));
			e[1] = (struct gm_fork_range){ .va = end, .end = e->end, .policy = e->policy };
			t->n++;
		}
		e->end = va;
	}
	while (first + n < t->n && t->range[first + n].end <= end)
		n++;
	memmove(&t->range[first], &t->range[first + n], (t->n - first - n) * sizeof(t->range[0]));
	t->n -= n;
	if (first < t->n && t->range[first].va < end)
		t->range[first].va = end;
}

/* (A) */
static void put(struct gm_fork_table *t, uint64_t va, uint64_t end, enum gm_fork policy)
{
	unsigned at = find(t, va);

	memmove(&t->range[at + 1], &t->range[at], (t->n - at) * sizeof(t->range[0]));
	t->range[at] = (struct gm_fork_range){ .va = va, .end = end, .policy = policy };
	t->n++;
}

/* (A) A larger table in place of this one; what is to be freed is in *old. */
static void grow(struct gm_fork_table *t, struct gm_fork_table *old)
{
	struct gm_fork_table bigger = *old;

	if (t->n)
		memcpy(bigger.range, t->range, t->n * sizeof(t->range[0]));
	bigger.n = t->n;
	*old = *t;
	*t = bigger;
}

gm_ret_t gm_fork_set(struct gm_as *as, uint64_t va, uint64_t end, enum gm_fork policy)
{
	struct gm_fork_table *t = &as->forks, more = { .range = NULL };
	bool done = false;

	do {
		unsigned room;

		gm_lock(as->env, &as->lock);
		if (more.room > t->room)
			grow(t, &more);
		done = (!t->n && !policy) || t->room >= t->n + 2;
		if (done && t->n)
			cut(t, va, end);
		if (done && policy)
			put(t, va, end, policy);
		room = t->room * 2 + 8;
		gm_unlock(as->env, &as->lock);
		gm_mem_free(as->env, more.range, more.room * sizeof(more.range[0]));
		more = (struct gm_fork_table){ .range = NULL };
		if (!done) {
			more.range = gm_mem_alloc(as->env, room * sizeof(more.range[0]));
			more.room = room;
		}
	} while (!done && more.range);
	return done ? GM_RET_SUCCESS : gm_fail(GM_RET_NOMEM, "no memory to note what a child is to get");
}

void gm_fork_tell_kernel(struct gm_as *as, uint64_t va, uint64_t end)
{
	while (va < end) {
		uint64_t stop = end;
		enum gm_fork policy = gm_fork_policy_at(as, va, &stop);

		gm_hal_mem_inherit(as->host, as->hpmap, va, stop - va, policy != GM_FORK_EXCLUDE);
		va = stop;
	}
}

void gm_fork_begin_range(struct gm_as *as, uint64_t va, uint64_t end, bool owned)
{
	bool inherits = as->cfg.fork ? as->cfg.fork != GM_FORK_EXCLUDE : !owned;

	if (va < end && inherits == owned)
		gm_hal_mem_inherit(as->host, as->hpmap, va, end - va, inherits);
}

void gm_fork_end_adopted(struct gm_as *as, uint64_t va, uint64_t end)
{
	for (uint64_t at = va, stop; at < end; at = stop) {
		stop = end;
		/* by the table, as its region may be out: then the default, if there is one */
		if (gm_fork_policy_at(as, at, &stop) == GM_FORK_EXCLUDE || as->cfg.fork == GM_FORK_EXCLUDE)
			gm_hal_mem_inherit(as->host, as->hpmap, at, stop - at, true);
	}
	(void)gm_fork_set(as, va, end, GM_FORK_DEFAULT); /* no memory: see the top */
}

void gm_fork_end_all(struct gm_as *as)
{
	struct gm_region buf, *r = gm_regions_first(&as->regions, 0, UINT64_MAX, &buf);

	for (; r; r = gm_regions_next(&as->regions, r, UINT64_MAX))
		if (r->kind == GM_REGION_ADOPTED)
			gm_fork_end_adopted(as, r->va, r->end);
	gm_mem_free(as->env, as->forks.range, as->forks.room * sizeof(as->forks.range[0]));
	as->forks = (struct gm_fork_table){ .range = NULL };
}

/* All of it owned or adopted? */
static bool is_managed(struct gm_as *as, uint64_t va, uint64_t end)
{
	struct gm_region buf, *r;

	gm_lock(as->env, &as->lock);
	r = gm_regions_first(&as->regions, va, end, &buf);
	while (r && r->va <= va && r->kind != GM_REGION_EDGE && va < end) {
		va = r->end;
		r = va < end ? gm_regions_next(&as->regions, r, end) : NULL;
	}
	gm_unlock(as->env, &as->lock);
	return va >= end;
}

static gm_ret_t change(struct gm_as *as, uint64_t va, uint64_t end, enum gm_fork policy)
{
	gm_ret_t ret;

	if (policy == GM_FORK_EXCLUDE)
		gm_hal_mem_inherit(as->host, as->hpmap, va, end - va, false);
	ret = gm_fork_set(as, va, end, policy);
	gm_fork_tell_kernel(as, va, end); /* after a failure: as it was */
	return ret;
}

gm_ret_t gm_fork_policy(struct gm_as *as, uint64_t va, uint64_t bytes, enum gm_fork policy)
{
	uint64_t first = (va + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1), end;
	gm_ret_t ret = gm_handle_check(as, GM_HANDLE_AS);

	if (ret)
		return ret;
	if ((unsigned)policy > GM_FORK_SERVE)
		return gm_fail(GM_RET_INVAL, "gm_fork_policy: %u is no policy", (unsigned)policy);
	ret = gm_as_check_range(as, "gm_fork_policy", va, bytes);
	if (ret)
		return ret;
	end = (va + bytes) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	if (first < va || first >= end)
		return GM_RET_SUCCESS; /* no whole page */
	if (policy == GM_FORK_SERVE && !as->serve.on)
		return gm_fail(GM_RET_NOTSUP, "gm_fork_policy: children can be served in a space made with GM_AS_FORK_SERVE only");
	if (!is_managed(as, first, end))
		return gm_fail(GM_RET_FAULT, "gm_fork_policy: not all of [0x%llx, 0x%llx) is owned or adopted memory",
			       (unsigned long long)first, (unsigned long long)end);
	if (policy != GM_FORK_EXCLUDE && gm_shared_moves(as, first, end))
		return gm_fail(GM_RET_NOTSUP, "gm_fork_policy: shared memory in [0x%llx, 0x%llx) is not inherited before gm_shared_fd()",
			       (unsigned long long)first, (unsigned long long)end);
	return change(as, first, end, policy);
}
