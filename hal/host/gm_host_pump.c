/* SPDX-License-Identifier: MIT */
/*
 * Reading beside the reader, for rungs that take pages by mremap(): the kernel
 * tells a watched range's mremap() to the library itself, and lets the thread
 * that called it sleep until somebody has read that. The reader must not read
 * then, as whoever takes pages holds it (core/gm_events.c); so a thread of the
 * pmap reads, as long as pages are being taken and no longer.
 *
 *     idle --begin: no event unread--> taking --the event of the taking is read--> told --end--> idle
 *                                             '--mremap() ends without one: not watched memory, --end--> idle
 *
 * Messages of others that come before are kept for the reader, in the order in
 * which they came. That lets their threads go on before anybody has handled them;
 * so what gives pages (restore, fill...) asks first whether an event is kept, and
 * no message is read until it is done:
 *
 *     nobody --still: no event kept--> givers at work, nobody reads --go_on, the last one--> nobody
 *     nobody --read--> one reads, nobody gives --> nobody
 *
 * Room for events is reserved for as many threads as a process may have, since
 * the pump must get to the event it waits for. A fault without room is let go,
 * and comes again.
 *
 * On a rung without userfaultfd there is no thread and nothing to read; the same
 * queue has what the library finds out by itself (gm_host_explicit.c).
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <poll.h>
#include <sys/mman.h>

#define EVENTS 65536u
#define EVENTS_BYTES (EVENTS * sizeof(struct gm_host_msg))
#define POLL_MS 1 /* that the taking is over, too */

struct gm_host_pump {
	struct gm_mutex lock;
	struct gm_waitq waitq;
	struct gm_thread *thread; /* (c) or NULL */
	struct gm_host_msg *room; /* (c) of the events */
	/* (l) the pump's lock */
	bool reading, stop;
	unsigned still;           /* givers at work */
	bool taking, told;
	uint64_t to, end;         /* where to */
};

static void begin_reading(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;

	gm_lock(p->env, &u->lock);
	while (u->reading || u->still)
		(void)gm_wait(p->env, &u->waitq, &u->lock, UINT64_MAX);
	u->reading = true;
	gm_unlock(p->env, &u->lock);
}

static void end_reading(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;

	gm_lock(p->env, &u->lock);
	u->reading = false;
	gm_wake(p->env, &u->waitq);
	gm_unlock(p->env, &u->lock);
}

/* True: pages are being taken, and the event of that was not read yet. */
static bool is_awaited(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;
	bool yes;

	gm_lock(p->env, &u->lock);
	yes = u->taking && !u->told;
	gm_unlock(p->env, &u->lock);
	return yes;
}

static void read_some(struct gm_host_pmap *p)
{
	struct pollfd fd = { p->fd_app, POLLIN, 0 };
	gm_ret_t ret = GM_RET_SUCCESS;
	bool kept;

	(void)poll(&fd, 1, POLL_MS);
	begin_reading(p);
	/* One at a time: whose message is read goes on, and none needs to before it must. With the descriptor open
	 * again (AGAIN) it is polled anew. Lost for ever: the kernel lets mremap() go on, and the taking ends. */
	while (!ret && is_awaited(p))
		ret = gm_host_msg_pull(p);
	kept = p->events.count || p->faults.count;
	end_reading(p);
	if (kept)
		gm_host_msg_kick(p);
}

static void run(void *arg)
{
	struct gm_host_pmap *p = arg;
	struct gm_host_pump *u = p->pump;
	bool stop;

	do {
		gm_lock(p->env, &u->lock);
		while (!u->stop && !(u->taking && !u->told))
			(void)gm_wait(p->env, &u->waitq, &u->lock, UINT64_MAX);
		stop = u->stop;
		gm_unlock(p->env, &u->lock);
		if (!stop)
			read_some(p);
	} while (!stop);
}

gm_ret_t gm_host_pump_init(struct gm_host_pmap *p, bool reads)
{
	struct gm_host_pump *u = gm_mem_alloc(p->env, sizeof(*u));
	uint64_t at = u ? gm_host_reserve(EVENTS_BYTES) : 0;
	gm_ret_t ret;

	if (!at) {
		gm_mem_free(p->env, u, sizeof(*u));
		return gm_fail(GM_RET_NOMEM, "no memory for the events of the process");
	}
	u->room = (struct gm_host_msg *)(uintptr_t)at;
	gm_mutex_init(p->env, &u->lock, GM_RANK_LEAF);
	gm_waitq_init(p->env, &u->waitq);
	p->pump = u;
	p->events = (struct gm_host_queue){ .msgs = u->room, .size = EVENTS };
	ret = reads ? p->env->ops->thread_start(p->env, "gm-pump", 0, run, p, &u->thread) : GM_RET_SUCCESS;
	if (!ret)
		return ret;
	u->thread = NULL;
	gm_host_pump_fini(p);
	return gm_fail(GM_RET_NOMEM, "no thread to read events beside the handler");
}

void gm_host_pump_fini(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;

	gm_lock(p->env, &u->lock);
	u->stop = true;
	gm_wake(p->env, &u->waitq);
	gm_unlock(p->env, &u->lock);
	if (u->thread)
		p->env->ops->thread_join(p->env, u->thread);
	gm_waitq_fini(p->env, &u->waitq);
	gm_mutex_fini(p->env, &u->lock);
	munmap(u->room, EVENTS_BYTES);
	gm_mem_free(p->env, u, sizeof(*u));
	p->pump = NULL;
}

gm_ret_t gm_host_pump_begin(struct gm_host_pmap *p, uint64_t to, uint64_t bytes)
{
	struct gm_host_pump *u = p->pump;
	int changing;
	bool ok;

	gm_lock(p->env, &u->lock);
	while (u->taking || u->reading)
		(void)gm_wait(p->env, &u->waitq, &u->lock, UINT64_MAX);
	/* Nobody sits between a change and the reading of its event, and none was read that the reader has not seen. */
	changing = gm_uffd_changing(p->fd_app);
	ok = !atomic_load(&p->unread) && changing == 0;
	if (ok) {
		u->taking = true;
		u->told = false;
		u->to = to;
		u->end = to + bytes;
		gm_wake(p->env, &u->waitq);
	}
	gm_unlock(p->env, &u->lock);
	if (ok)
		return GM_RET_SUCCESS;
	return changing < 0 ? gm_host_lost(p) : GM_RET_AGAIN;
}

bool gm_host_pump_told(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;
	bool told;

	gm_lock(p->env, &u->lock);
	/* The kernel lets this thread go while the message is still on its way to who reads. */
	while (u->reading)
		(void)gm_wait(p->env, &u->waitq, &u->lock, UINT64_MAX);
	told = u->told;
	gm_unlock(p->env, &u->lock);
	return told;
}

void gm_host_pump_end(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;

	gm_lock(p->env, &u->lock);
	u->taking = false;
	gm_wake(p->env, &u->waitq);
	gm_unlock(p->env, &u->lock);
}

bool gm_host_pump_own(struct gm_host_pmap *p, uint64_t to)
{
	struct gm_host_pump *u = p->pump;
	bool own;

	gm_lock(p->env, &u->lock);
	own = u->taking && to >= u->to && to < u->end;
	u->told |= own;
	gm_unlock(p->env, &u->lock);
	return own;
}

bool gm_host_pump_still(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;
	bool ok;

	gm_lock(p->env, &u->lock);
	while (u->reading)
		(void)gm_wait(p->env, &u->waitq, &u->lock, UINT64_MAX);
	ok = !atomic_load(&p->unread);
	u->still += ok;
	gm_unlock(p->env, &u->lock);
	return ok;
}

void gm_host_pump_go_on(struct gm_host_pmap *p)
{
	struct gm_host_pump *u = p->pump;

	gm_lock(p->env, &u->lock);
	u->still--;
	gm_wake(p->env, &u->waitq);
	gm_unlock(p->env, &u->lock);
}

size_t gm_host_pump_read(void *pmap, struct gm_host_msg *msgs, size_t n)
{
	struct gm_host_pmap *p = pmap;
	size_t have;

	begin_reading(p);
	have = gm_host_msg_read(p, msgs, n);
	end_reading(p);
	return have;
}

gm_ret_t gm_host_pump_wait(void *pmap, uint64_t deadline_ns)
{
	struct gm_host_pmap *p = pmap;
	bool kept;

	begin_reading(p);
	kept = p->events.count || p->faults.count;
	end_reading(p);
	return kept ? GM_RET_SUCCESS : gm_host_msg_sleep(p, deadline_ns, false);
}

void gm_host_pump_post(struct gm_host_pmap *p, struct gm_host_msg m)
{
	begin_reading(p);
	if (p->events.count < p->events.size) /* else it is found out again */
		gm_host_msg_keep(p, m);
	end_reading(p);
	gm_host_msg_kick(p);
}

size_t gm_host_pump_posted(void *pmap, struct gm_host_msg *msgs, size_t n)
{
	struct gm_host_pmap *p = pmap;
	size_t have;
	bool left;

	begin_reading(p);
	have = gm_host_msg_take(p, msgs, n, &left);
	end_reading(p);
	if (left)
		gm_host_msg_kick(p);
	return have;
}
