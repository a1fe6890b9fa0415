/* SPDX-License-Identifier: MIT */
/*
 * Children that are served: pages stay on their devices over a fork, and the
 * child gets their bytes as of the fork.
 *
 *     freeze: a block's pages on devices: revoked --> copied aside (devices cannot write them before thaw)
 *             --> the next block ... --> open
 *     kernel's fork: FORK comes with the child's descriptor
 *     thaw:   the child is filled from what was copied aside --> its descriptor is closed --> gone
 *
 * Nothing can change from the copy of a page to the fork but what the process does: a
 * page that comes home is the kernel's to hand on, and where the child has a
 * page it is not filled (EXIST). madvise(), munmap() and gm_discard() take the page out of the list
 * (gm_serve_note()), mremap() changes where it belongs. After FORK nothing changes
 * the list: it is a snapshot. Of a second child in the same freeze (a clone()
 * without fork handlers) the list is right only if there was no such event between.
 *
 * The child waits until thaw is over (hal/host/gm_host_fork.c), unless it is
 * such a clone. All the same, what it does to its memory meanwhile (a fork
 * handler of the program, a clone) comes as events and is followed; a child of its own gets
 * what it has not got yet.
 *
 * What cannot be given gets a mark (SIGBUS), and if not even that is possible the child
 * ends before it could look (child_fail()): never zeros. A clone() outside of a freeze gets
 * marks for all that is away, at once: while the message is not handled
 * nothing comes home, so what is away now was away then.
 *
 * No memory, a held page, a device that does not answer: such pages are not
 * taken here, and come home as without this (gm_fork.c).
 */
#include "config.h"

#include "core/gm_fork_serve.h"

#include "core/gm_events.h"
#include "core/gm_fork.h"
#include "core/gm_txn.h"

#define POISON_TRIES 1000 /* of a clone: rounds of its events */

gm_ret_t gm_serve_init(struct gm_as *as)
{
	gm_ret_t ret;

	if (as->cfg.flags & GM_AS_NO_THREADS)
		return gm_fail(GM_RET_NOTSUP, "GM_FORK_SERVE needs the threads of the library: who forks cannot serve itself");
	ret = gm_hal_serve_forks(as->host, as->hpmap);
	as->serve.on = !ret;
	return ret;
}

/* ------------------------------------------------------------ copy aside */

static void free_aside(struct gm_as *as, struct gm_aside *a)
{
	gm_mem_free(as->env, a->bytes, (size_t)a->pages * GM_PAGE_BYTES);
	gm_mem_free(as->env, a, sizeof(*a));
}

/* `copying`: from now on events are followed. */
static void start_over(struct gm_as *as, bool copying)
{
	struct gm_aside *list, *a;

	gm_lock(as->env, &as->lock);
	list = as->serve.list;
	as->serve.list = NULL;
	as->serve.copying = copying;
	as->serve.open = false;
	as->serve.children = 0;
	as->serve.good = GM_SERVE_CHILDREN;
	gm_unlock(as->env, &as->lock);
	while ((a = list)) {
		list = a->next;
		free_aside(as, a);
	}
}

void gm_serve_begin(struct gm_as *as)
{
	if (as->serve.on)
		start_over(as, true);
}

/* Pages of the block that children are to be served. */
static struct gm_mask wanted(struct gm_block *b)
{
	uint64_t va = b->va, end = b->va + GM_BLOCK_BYTES;
	struct gm_mask want = gm_mask_none();

	while (va < end) {
		uint64_t stop = end;

		if (gm_fork_policy_at(b->as, va, &stop) == GM_FORK_SERVE) {
			struct gm_mask run = gm_block_clip(b, va, stop);

			want = gm_mask_or(want, run);
		}
		va = stop;
	}
	return want;
}

/* (block) What devices have of `want`, and can be kept from writing. */
static struct gm_mask to_take(struct gm_block *b, const struct gm_mask *want)
{
	struct gm_mask not = gm_mask_or(gm_mask_or(b->held, b->leaving), gm_mask_or(b->doomed, b->poisoned));

	return gm_mask_sub(gm_mask_and(gm_block_on_devs(b), *want), not);
}

/* As a transaction does: they are busy from here on. Empty: nothing to take. */
static struct gm_mask take(struct gm_block *b, const struct gm_mask *want, uint64_t deadline_ns)
{
	struct gm_env *env = b->as->env;
	struct gm_mask pages;

	gm_lock(env, &b->lock);
	for (pages = to_take(b, want); gm_mask_meets(&b->busy, &pages); pages = to_take(b, want))
		if (gm_wait(env, &b->waitq, &b->lock, deadline_ns))
			break;
	if (gm_mask_meets(&b->busy, &pages))
		pages = gm_mask_none();
	b->busy = gm_mask_or(b->busy, pages);
	gm_unlock(env, &b->lock);
	return pages;
}

/* What one device has of the pages, to `bytes`, where page i of the block is at place[i]. */
static gm_ret_t copy_from(struct gm_block *b, unsigned index, const struct gm_mask *pages, const uint16_t *place,
			  char *bytes, uint64_t deadline_ns)
{
	struct gm_frame_map frames;
	struct gm_plan plan;
	struct gm_mask here;

	gm_lock(b->as->env, &b->lock);
	here = gm_mask_and(gm_block_on_dev(b, index), *pages);
	if (!gm_mask_empty(&here))
		gm_block_frames(b, index, &frames);
	gm_unlock(b->as->env, &b->lock);
	if (gm_mask_empty(&here))
		return GM_RET_SUCCESS;
	gm_plan_init(&plan, b->as, b->as->lib->devs[index]->hal, deadline_ns);
	GM_MASK_FOR_RUN(pages, first, end) {
		struct gm_mask run = gm_mask_span(first, end);

		run = gm_mask_and(run, here);
		gm_plan_copy(&plan, GM_COPY_TO_HOST, &run, &frames,
			     GM_VA(bytes) + (uint64_t)place[first] * GM_PAGE_BYTES - (uint64_t)first * GM_PAGE_BYTES);
	}
	return gm_plan_run(&plan);
}

static struct gm_aside *new_aside(struct gm_block *b, const struct gm_mask *pages, uint16_t *place)
{
	struct gm_env *env = b->as->env;
	struct gm_aside *a = gm_mem_alloc(env, sizeof(*a));

	if (!a)
		return NULL;
	GM_MASK_FOR_RUN(pages, first, end)
		for (unsigned i = first; i < end; i++) {
			place[i] = (uint16_t)a->pages;
			a->to[a->pages++] = b->va + (uint64_t)i * GM_PAGE_BYTES;
		}
	a->bytes = gm_mem_alloc(env, (size_t)a->pages * GM_PAGE_BYTES);
	if (a->bytes)
		return a;
	gm_mem_free(env, a, sizeof(*a));
	return NULL;
}

/* Given up while they were copied: then no event follows any more. (One that moves them makes the freeze begin anew.) */
static void leave_doomed(struct gm_block *b, struct gm_aside *a, const struct gm_mask *pages, const uint16_t *place)
{
	struct gm_mask gone;

	gm_lock(b->as->env, &b->lock);
	gone = gm_mask_and(*pages, b->doomed);
	gm_unlock(b->as->env, &b->lock);
	gm_lock(b->as->env, &b->as->lock);
	GM_MASK_FOR_RUN(&gone, first, end)
		for (unsigned i = first; i < end; i++)
			a->to[place[i]] = 0;
	gm_unlock(b->as->env, &b->as->lock);
}

/* The pages are busy. */
static gm_ret_t put_aside(struct gm_block *b, const struct gm_mask *pages, uint64_t deadline_ns)
{
	uint16_t place[GM_BLOCK_PAGES];
	struct gm_aside *a = new_aside(b, pages, place);
	gm_ret_t ret;

	if (!a)
		return GM_RET_NOMEM;
	ret = GM_PLANTED(b->as, GM_PLANT_SERVE_OPEN) ? GM_RET_SUCCESS : gm_plan_revoke(b, pages, deadline_ns, false);
	for (unsigned d = 0; d < GM_MAX_DEVS && !ret; d++)
		if (atomic_load_explicit(&b->has_node[d], memory_order_acquire))
			ret = copy_from(b, d, pages, place, a->bytes, deadline_ns);
	if (ret || GM_PLANTED(b->as, GM_PLANT_SERVE_LOSE)) {
		free_aside(b->as, a);
		return ret;
	}
	gm_lock(b->as->env, &b->as->lock);
	a->next = b->as->serve.list;
	b->as->serve.list = a;
	gm_unlock(b->as->env, &b->as->lock);
	leave_doomed(b, a, pages, place);
	return GM_RET_SUCCESS;
}

struct gm_mask gm_serve_copy(struct gm_block *b, uint64_t deadline_ns)
{
	struct gm_mask none = gm_mask_none(), want, pages;
	gm_ret_t ret;

	if (!b->as->serve.on)
		return none;
	want = wanted(b);
	if (gm_mask_empty(&want))
		return none;
	pages = take(b, &want, deadline_ns);
	if (gm_mask_empty(&pages))
		return none;
	ret = put_aside(b, &pages, deadline_ns);
	gm_txn_release_unmoved(b, &pages);
	return ret ? none : pages;
}

void gm_serve_open(struct gm_as *as)
{
	gm_lock(as->env, &as->lock);
	as->serve.open = as->serve.on;
	gm_unlock(as->env, &as->lock);
}

/* --------------------------------------------------------------- events */

/* One event, said of what is to be given. */
static void follow(struct gm_aside *list, const struct gm_host_msg *msg)
{
	for (struct gm_aside *a = list; a; a = a->next)
		for (unsigned i = 0; i < a->pages; i++)
			if (a->to[i] && a->to[i] - msg->va < msg->bytes)
				a->to[i] = msg->kind == GM_HOST_REMAP ? a->to[i] - msg->va + msg->to : 0;
}

void gm_serve_note(struct gm_as *as, const struct gm_host_msg *msg)
{
	struct gm_serving *s = &as->serve;

	if (!s->on || msg->kind == GM_HOST_FAULT)
		return;
	gm_lock(as->env, &as->lock);
	if (s->copying && !s->children)
		follow(s->list, msg);
	else if (s->copying && s->good > s->children)
		s->good = s->children;
	gm_unlock(as->env, &as->lock);
}

/* One page, or a run of them, that the child must not see as zeros. False: no mark there. */
static bool mark(struct gm_as *as, int child, uint64_t va, uint64_t bytes)
{
	uint64_t end = va + bytes;

	for (unsigned tries = 0; va < end;) {
		uint64_t done;
		gm_ret_t ret = gm_hal_child_fill(as->host, as->hpmap, child, va, NULL, end - va, &done);

		va += done;
		if (!ret || ret == GM_RET_NODEV)
			return true;
		if (ret == GM_RET_EXIST || ret == GM_RET_FAULT) {
			va += GM_PAGE_BYTES; /* it has a page, or no mapping */
		} else if (ret == GM_RET_AGAIN && ++tries < POISON_TRIES) {
			struct gm_host_msg msg;

			/* What it gives up may keep its mark; a child of it is none of ours. */
			if (gm_hal_child_read(as->host, as->hpmap, child, &msg, 1) && msg.kind == GM_HOST_FORK)
				gm_hal_child_close(as->host, as->hpmap, msg.child);
		} else {
			return false;
		}
	}
	return true;
}

/* A clone() that ran no fork handlers, in the handler. */
static void mark_all_away(struct gm_as *as, int child)
{
	uint64_t va = 0;
	bool ok = true;

	for (struct gm_block *b; (b = gm_block_next(as, va, UINT64_MAX)); gm_block_put(b)) {
		struct gm_mask away;

		va = b->va + GM_BLOCK_BYTES;
		gm_lock(as->env, &b->lock);
		away = gm_mask_or(gm_mask_or(gm_block_on_devs(b), b->staged), gm_mask_or(b->busy, b->poisoned));
		away = gm_mask_sub(away, gm_mask_or(b->doomed, b->leaving));
		gm_unlock(as->env, &b->lock);
		GM_MASK_FOR_RUN(&away, first, end)
			ok &= mark(as, child, b->va + (uint64_t)first * GM_PAGE_BYTES, (uint64_t)(end - first) * GM_PAGE_BYTES);
	}
	gm_log(as->env, ok ? GM_LOG_WARN : GM_LOG_ERROR,
	       ok ? "clone() without fork handlers: the child gets SIGBUS where devices have the bytes" :
		    "clone() without fork handlers: the child sees zeros where devices have the bytes");
	gm_hal_child_close(as->host, as->hpmap, child);
}

void gm_serve_child(struct gm_as *as, int child)
{
	struct gm_serving *s = &as->serve;
	bool mine;

	gm_lock(as->env, &as->lock);
	mine = s->open && s->children < GM_SERVE_CHILDREN;
	if (mine)
		s->child[s->children++] = child;
	gm_unlock(as->env, &as->lock);
	if (!mine)
		mark_all_away(as, child);
}

/* ----------------------------------------------------------------- fill */

/* A child that is being filled, and children of its own that come meanwhile. */
struct heir {
	struct heir *next;
	int child;
	bool marks;            /* everything gets a mark */
	struct gm_aside *list; /* its own `to`; the bytes are the space's */
};

static void end_heir(struct gm_as *as, struct heir *h)
{
	for (struct gm_aside *a; (a = h->list);) {
		h->list = a->next;
		gm_mem_free(as->env, a, sizeof(*a));
	}
	gm_hal_child_close(as->host, as->hpmap, h->child);
	gm_mem_free(as->env, h, sizeof(*h));
}

/* What `list` says it lacks, for a child of its own. NULL: no memory. */
static struct heir *new_heir(struct gm_as *as, int child, const struct gm_aside *list)
{
	struct heir *h = gm_mem_alloc(as->env, sizeof(*h));
	struct gm_aside **at = h ? &h->list : NULL;

	if (!h)
		return NULL;
	h->child = child;
	for (; list; list = list->next, at = &(*at)->next) {
		*at = gm_mem_alloc(as->env, sizeof(**at));
		if (!*at) {
			h->child = -1;
			break;
		}
		**at = *list;
		(*at)->next = NULL;
	}
	if (h->child == child)
		return h;
	for (struct gm_aside *a; (a = h->list);) {
		h->list = a->next;
		gm_mem_free(as->env, a, sizeof(*a));
	}
	gm_mem_free(as->env, h, sizeof(*h));
	return NULL;
}

/* For who gets no bytes: by what is in the list. Also when there is no memory for more. */
static bool mark_list(struct gm_as *as, int child, const struct gm_aside *list)
{
	bool ok = true;

	for (; list; list = list->next)
		for (unsigned i = 0; i < list->pages; i++)
			ok &= !list->to[i] || mark(as, child, list->to[i], GM_PAGE_BYTES);
	return ok;
}

/* It did something to its memory. False: nothing was to be read. */
static bool hear(struct gm_as *as, struct heir *h)
{
	struct gm_host_msg msg;
	struct heir *more;

	if (!gm_hal_child_read(as->host, as->hpmap, h->child, &msg, 1))
		return false;
	if (msg.kind != GM_HOST_FORK) {
		follow(h->list, &msg);
		return true;
	}
	more = new_heir(as, msg.child, h->list);
	if (more) {
		more->marks = h->marks; /* what is wrong for its parent is wrong for it */
		more->next = h->next;
		h->next = more;
	} else {
		(void)mark_list(as, msg.child, h->list);
		gm_hal_child_close(as->host, as->hpmap, msg.child);
	}
	return true;
}

/* As many pages from i on as go to one place, one after the other. */
static unsigned run_of(const struct gm_aside *a, unsigned i)
{
	unsigned n = 1;

	while (i + n < a->pages && a->to[i + n] == a->to[i] + (uint64_t)n * GM_PAGE_BYTES)
		n++;
	return n;
}

/* Pages of one block. SUCCESS, NODEV (it is gone), or what is wrong. */
static gm_ret_t give(struct gm_as *as, struct heir *h, struct gm_aside *a, uint64_t deadline_ns)
{
	for (unsigned i = 0; i < a->pages;) {
		uint64_t done = 0;
		gm_ret_t ret;

		if (!a->to[i]) {
			i++;
			continue;
		}
		ret = gm_hal_child_fill(as->host, as->hpmap, h->child, a->to[i],
					h->marks ? NULL : a->bytes + (size_t)i * GM_PAGE_BYTES,
					(uint64_t)run_of(a, i) * GM_PAGE_BYTES, &done);
		/* It has them: a child of its own inherits them, or what became of them. */
		for (; done; done -= GM_PAGE_BYTES)
			a->to[i++] = 0;
		if (ret == GM_RET_EXIST || ret == GM_RET_FAULT)
			a->to[i++] = 0;
		else if (ret == GM_RET_AGAIN && gm_now_ns(as->env) < deadline_ns)
			hear(as, h) ? (void)0 : gm_yield(as->env);
		else if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

/* False: not all of it is there, or has a mark. */
static bool fill(struct gm_as *as, struct heir *h, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (struct gm_aside *a = h->list; a && !ret; a = a->next)
		ret = give(as, h, a, deadline_ns);
	if (!ret || ret == GM_RET_NODEV)
		return true;
	gm_log(as->env, GM_LOG_ERROR, "fork: the child does not get all its bytes: %s", gm_ret_name(ret));
	return mark_list(as, h->child, h->list);
}

static bool fill_child(struct gm_as *as, int child, bool marks, uint64_t deadline_ns)
{
	struct heir *h = new_heir(as, child, as->serve.list), *next;
	bool ok;

	if (!h) {
		ok = mark_list(as, child, as->serve.list);
		gm_hal_child_close(as->host, as->hpmap, child);
		return ok;
	}
	h->marks = marks;
	for (ok = true; h; h = next) {
		ok &= fill(as, h, deadline_ns);
		next = h->next; /* what came meanwhile */
		end_heir(as, h);
	}
	return ok;
}

/* The child's message was read before fork() went on: it is handled, or will be at once. */
static bool wait_heard(struct gm_as *as, uint64_t deadline_ns)
{
	while (gm_hal_settled(as->host, as->hpmap) || atomic_load(&as->msgs_busy))
		if (gm_now_ns(as->env) >= deadline_ns || !gm_events_let_run(as))
			return false;
	return true;
}

void gm_serve_close(struct gm_as *as, uint64_t deadline_ns)
{
	struct gm_serving *s = &as->serve;
	bool ok;

	if (!s->on)
		return;
	ok = wait_heard(as, deadline_ns);
	gm_lock(as->env, &as->lock);
	s->open = s->copying = false; /* who comes now gets marks */
	gm_unlock(as->env, &as->lock);
	for (unsigned i = 0; i < s->children; i++) {
		bool good = i < s->good;

		ok &= fill_child(as, s->child[i], !good, deadline_ns) && good;
	}
	if (!ok)
		gm_hal_child_fail(as->host, as->hpmap);
	start_over(as, false);
}
