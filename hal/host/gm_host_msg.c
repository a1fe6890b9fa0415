/* SPDX-License-Identifier: MIT */
/*
 * Messages of the kernel. It hands out page faults before older events, while
 * an event decides what a fault means: each read therefore drains the
 * descriptor into two queues, and events leave first.
 *
 *     kernel --drain--> events --msg_read--> core
 *                   \-> faults --when no event is kept--> core
 *
 * The queues have fixed room. When one is full the rest stays in the kernel;
 * then an event may come after a fault that is younger, which does no harm:
 * while an event is unread the kernel answers EAGAIN to whatever would make a
 * page present.
 *
 * Reading lets the thread that caused an event go on. So "settled" asks the
 * kernel first (does anyone sit between change and event?) and then looks at
 * what was read and not handed out; `unread` is raised before each drain, so
 * that an event is seen in one place or the other.
 *
 * What one mremap() tells: the UNMAP of what was at the new place, the REMAP,
 * and (seen on Linux 6.18) an UNMAP of the old place.
 *
 * One thread at a time may read and wait. When the program closes our
 * descriptors they are opened again (gm_host_keep.c), or msg_wait() says NODEV; for
 * the accesses that wait then, see gm_host_lost().
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define DRAIN 64 /* messages per read() */
#define LOOK_MS 1000 /* sleep so long at most before the descriptors are looked at */
#define MOMENT_NS UINT64_C(250000) /* so long the descriptor is taken for ours without a look: see gm_host_keep.c */

static unsigned room(const struct gm_host_queue *q)
{
	return q->size - q->count;
}

static void push(struct gm_host_queue *q, const struct gm_host_msg *m)
{
	unsigned at = q->head + q->count++;

	q->msgs[at < q->size ? at : at - q->size] = *m; /* no division: it shows in every fault */
}

static struct gm_host_msg pop(struct gm_host_queue *q)
{
	struct gm_host_msg m = q->msgs[q->head];

	q->head = q->head + 1 < q->size ? q->head + 1 : 0;
	q->count--;
	return m;
}

static void keep_fault(struct gm_host_pmap *p, const struct gm_uffd_msg *u)
{
	struct gm_host_msg m = {
		.kind = GM_HOST_FAULT,
		.va = u->arg.pagefault.address / GM_PAGE_BYTES * GM_PAGE_BYTES,
		.bytes = GM_PAGE_BYTES,
		.write = u->arg.pagefault.flags & GM_UFFD_PAGEFAULT_WRITE,
		.wp = u->arg.pagefault.flags & GM_UFFD_PAGEFAULT_WP,
		.thread_id = u->arg.pagefault.thread_id,
	};

	push(&p->faults, &m);
}

void gm_host_msg_keep(struct gm_host_pmap *p, struct gm_host_msg m)
{
	push(&p->events, &m);
	atomic_fetch_add(&p->unread, 1);
}

bool gm_host_event(const struct gm_uffd_msg *u, struct gm_host_msg *m)
{
	switch (u->event) {
	case GM_UFFD_EVENT_REMOVE:
	case GM_UFFD_EVENT_UNMAP:
		*m = (struct gm_host_msg){
			.kind = u->event == GM_UFFD_EVENT_REMOVE ? GM_HOST_REMOVE : GM_HOST_UNMAP,
			.va = u->arg.range.begin,
			.bytes = u->arg.range.end - u->arg.range.begin,
		};
		return true;
	case GM_UFFD_EVENT_REMAP:
		*m = (struct gm_host_msg){
			.kind = GM_HOST_REMAP,
			.va = u->arg.remap.from,
			.bytes = u->arg.remap.bytes,
			.to = u->arg.remap.to,
		};
		return true;
	case GM_UFFD_EVENT_FORK:
		*m = (struct gm_host_msg){ .kind = GM_HOST_FORK, .child = gm_host_fd_high((int)u->arg.fork.fd) };
		return true;
	default:
		return false;
	}
}

/* `inthread`: it came from that descriptor. False: that is no message; another file's data, maybe. */
static bool keep(struct gm_host_pmap *p, const struct gm_uffd_msg *u, bool inthread)
{
	struct gm_host_msg m;

	if (u->event == GM_UFFD_EVENT_PAGEFAULT)
		keep_fault(p, u);
	else if (u->event == GM_UFFD_EVENT_REMAP && p->pump && gm_host_pump_own(p, u->arg.remap.to))
		return true;
	else if (gm_host_event(u, &m)) {
		m.inthread = inthread && m.kind == GM_HOST_UNMAP;
		gm_host_inthread_event(p, &m, inthread);
		gm_host_msg_keep(p, m);
	} else {
		gm_log(p->env, GM_LOG_ERROR, "userfaultfd: unknown event 0x%x", (unsigned)u->event);
		return false;
	}
	return true;
}

/* The same of inthread.fd, which has no faults: while nothing is unread there, no more than a look. */
static void drain_inthread(struct gm_host_pmap *p)
{
	struct gm_uffd_msg raw[DRAIN];
	int changing = gm_uffd_changing(p->inthread.fd);

	if (changing < 0)
		(void)gm_host_lost(p);
	else if (!changing)
		gm_host_inthread_quiet(p);
	while (changing > 0) {
		unsigned n = room(&p->events) < DRAIN ? room(&p->events) : DRAIN;
		ssize_t got = n ? read(p->inthread.fd, raw, n * sizeof(raw[0])) : 0;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return;
		for (size_t i = 0; i < (size_t)got / sizeof(raw[0]); i++)
			(void)keep(p, &raw[i], true);
		changing = (size_t)got == n * sizeof(raw[0]);
	}
}

/*
 * Another file's data are not ours to read. What answered, or gave messages and nothing else, a moment ago is ours: the look
 * shows in every fault, and in every munmap(). Not lost may mean: not now, as there is no descriptor left.
 */
static bool fd_is_ours(struct gm_host_pmap *p, uint64_t now_ns)
{
	if (now_ns - p->ours_ns < MOMENT_NS)
		return true;
	if (gm_uffd_changing(p->fd_app) < 0 && (gm_host_lost(p) == GM_RET_NODEV || gm_uffd_changing(p->fd_app) < 0))
		return false;
	p->ours_ns = now_ns;
	return true;
}

/* Everything the kernel has, as far as there is room for it. */
static void drain(struct gm_host_pmap *p)
{
	struct gm_uffd_msg raw[DRAIN];
	uint64_t now_ns = gm_now_ns(p->env);

	if (!fd_is_ours(p, now_ns))
		return;
	for (;;) {
		unsigned n = DRAIN;
		ssize_t got;

		n = room(&p->events) < n ? room(&p->events) : n;
		n = room(&p->faults) < n ? room(&p->faults) : n;
		if (n == 0)
			return;
		got = read(p->fd_app, raw, n * sizeof(raw[0]));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno != EAGAIN)
			(void)gm_host_lost(p);
		if (got <= 0)
			return;
		p->ours_ns = now_ns;
		for (size_t i = 0; i < (size_t)got / sizeof(raw[0]); i++)
			if (!keep(p, &raw[i], false))
				p->ours_ns = 0;
		/* a read() ends short only when the kernel has nothing more */
		if ((size_t)got < n * sizeof(raw[0]))
			return;
	}
}

/*
 * Beside the reader (gm_host_pump.c) reading must go on: a fault for which there is no room is let go, and
 * comes again.
 */
gm_ret_t gm_host_msg_pull(struct gm_host_pmap *p)
{
	struct gm_uffd_msg raw;
	ssize_t got;

	if (!room(&p->events))
		return GM_RET_TIMEDOUT;
	if (gm_uffd_changing(p->fd_app) < 0) /* seldom enough to look each time */
		return gm_host_lost(p);
	do
		got = read(p->fd_app, &raw, sizeof(raw));
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno != EAGAIN)
		return gm_host_lost(p);
	if (got != (ssize_t)sizeof(raw))
		return GM_RET_TIMEDOUT;
	if (raw.event != GM_UFFD_EVENT_PAGEFAULT || room(&p->faults))
		(void)keep(p, &raw, false);
	else
		(void)gm_host_wake(p, raw.arg.pagefault.address / GM_PAGE_BYTES * GM_PAGE_BYTES, GM_PAGE_BYTES);
	return GM_RET_SUCCESS;
}

size_t gm_host_msg_take(struct gm_host_pmap *p, struct gm_host_msg *msgs, size_t n, bool *left)
{
	size_t have = 0;

	while (have < n && p->events.count) {
		msgs[have++] = pop(&p->events);
		atomic_fetch_sub(&p->unread, 1);
	}
	while (have < n && !p->events.count && p->faults.count)
		msgs[have++] = pop(&p->faults);
	*left = p->events.count || p->faults.count;
	return have;
}

size_t gm_host_msg_read(void *pmap, struct gm_host_msg *msgs, size_t n)
{
	struct gm_host_pmap *p = pmap;
	size_t have;
	bool left;

	atomic_fetch_add(&p->unread, 1);
	drain(p);
	if (gm_host_has_inthread(p))
		drain_inthread(p);
	have = gm_host_msg_take(p, msgs, n, &left);
	/* who polls the descriptor must learn of what is kept here */
	if (left)
		gm_host_msg_kick(p);
	atomic_fetch_sub(&p->unread, 1);
	return have;
}

void gm_host_msg_kick(void *pmap)
{
	struct gm_host_pmap *p = pmap;

	int fd = gm_host_kick_fd(p);

	/* fails only when the counter is full: then it is kicked already */
	if (fd >= 0)
		(void)eventfd_write(fd, 1);
}

int gm_host_msg_fd(void *pmap)
{
	const struct gm_host_pmap *p = pmap;
	struct epoll_event ev = { .events = EPOLLIN };

	/* Not before somebody asks: each fault tells whoever polls the descriptor, and takes the longer for it. */
	if (epoll_ctl(p->fd_poll, EPOLL_CTL_ADD, p->fd_app, &ev) && errno != EEXIST)
		return -1;
	/* another one, maybe, than when it was made */
	if (p->shared.fd >= 0 && epoll_ctl(p->fd_poll, EPOLL_CTL_ADD, p->shared.fd, &ev) && errno != EEXIST)
		return -1;
	if (p->inthread.fd >= 0 && epoll_ctl(p->fd_poll, EPOLL_CTL_ADD, p->inthread.fd, &ev) && errno != EEXIST)
		return -1;
	return p->fd_poll;
}

gm_ret_t gm_host_settled(void *pmap)
{
	struct gm_host_pmap *p = pmap;
	int changing = gm_uffd_changing(p->fd_app);

	if (changing < 0)
		return gm_host_lost(p);
	if (!changing && p->inthread.fd >= 0)
		changing = gm_uffd_changing(p->inthread.fd);
	if (changing < 0)
		return gm_host_lost(p);
	if (atomic_load_explicit(&p->lost, memory_order_relaxed)) /* another one than fd_app, maybe */
		return GM_RET_NODEV;
	return changing || atomic_load(&p->unread) ? GM_RET_AGAIN : GM_RET_SUCCESS;
}

/* True: the deadline comes within LOOK_MS, in *ts. */
static bool time_left(struct gm_host_pmap *p, uint64_t deadline_ns, struct timespec *ts)
{
	uint64_t now = gm_now_ns(p->env);
	uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

	ts->tv_sec = (time_t)(left / 1000000000);
	ts->tv_nsec = (long)(left % 1000000000);
	return left <= LOOK_MS * UINT64_C(1000000);
}

/*
 * Until one of them is readable: the number of those, 0 at the end of the time (NULL: LOOK_MS), a negative errno. ppoll()
 * reads and writes the time; who waits for what comes spares that.
 */
static int wait_once(struct gm_host_pmap *p, const struct timespec *ts)
{
	struct pollfd fds[4] = { { p->fd_app, POLLIN, 0 }, { p->fd_kick, POLLIN, 0 } };
	short bad = 0;
	nfds_t use = 2;
	eventfd_t kicks;
	int n;

	if (p->shared.fd >= 0)
		fds[use++] = (struct pollfd){ p->shared.fd, POLLIN, 0 };
	if (p->inthread.fd >= 0)
		fds[use++] = (struct pollfd){ p->inthread.fd, POLLIN, 0 };
	n = ts ? ppoll(fds, use, ts, NULL) : poll(fds, use, LOOK_MS);
	if (n < 0)
		return -errno;
	for (nfds_t i = 0; i < use; i++)
		bad |= fds[i].revents;
	if (bad & (POLLNVAL | POLLERR))
		return -EBADF;
	if (fds[1].revents && gm_host_kick_fd(p) == fds[1].fd)
		(void)eventfd_read(fds[1].fd, &kicks);
	return n;
}

gm_ret_t gm_host_msg_sleep(struct gm_host_pmap *p, uint64_t deadline_ns, bool looks)
{
	for (;;) {
		struct timespec ts;
		bool last = time_left(p, deadline_ns, &ts);
		int n;

		if (atomic_load(&p->lost))
			return GM_RET_NODEV;
		n = wait_once(p, last ? &ts : NULL);
		if (n == -EINTR)
			continue;
		if (n < 0 && gm_host_lost(p) == GM_RET_NODEV)
			return GM_RET_NODEV;
		if (n || (looks && (p->events.count || p->faults.count)))
			return GM_RET_SUCCESS;
		if (last)
			return GM_RET_TIMEDOUT;
		if ((!gm_host_owns_all(p) || gm_host_kick_fd(p) < 0) && gm_host_lost(p) == GM_RET_NODEV)
			return GM_RET_NODEV;
	}
}

gm_ret_t gm_host_msg_wait(void *pmap, uint64_t deadline_ns)
{
	return gm_host_msg_sleep(pmap, deadline_ns, true);
}

static int make_epoll(const struct gm_host_pmap *p)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -1;
	if (epoll_ctl(fd, EPOLL_CTL_ADD, p->fd_kick, &ev)) {
		close(fd);
		return -1;
	}
	return gm_host_fd_high(fd);
}

void gm_host_msg_repoll(struct gm_host_pmap *p)
{
	if (!gm_host_fd_is(p->fd_poll, "[eventpoll]"))
		p->fd_poll = make_epoll(p);
}

gm_ret_t gm_host_msg_init(struct gm_host_pmap *p)
{
	int fd;

	p->events = (struct gm_host_queue){ .msgs = p->event_msgs, .size = GM_HOST_EVENTS };
	p->faults = (struct gm_host_queue){ .msgs = p->fault_msgs, .size = GM_HOST_FAULTS };
	atomic_init(&p->unread, 0);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return gm_fail(GM_RET_NOMEM, "no eventfd for the message reader: error %d", errno);
	p->fd_kick = gm_host_fd_high(fd);
	p->fd_poll = make_epoll(p);
	if (p->fd_poll < 0) {
		close(p->fd_kick);
		return gm_fail(GM_RET_NOMEM, "no epoll descriptor for the message reader: error %d", errno);
	}
	return GM_RET_SUCCESS;
}

void gm_host_msg_fini(struct gm_host_pmap *p)
{
	close(p->fd_poll);
	close(p->fd_kick);
}
