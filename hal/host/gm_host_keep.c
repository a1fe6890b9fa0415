/* SPDX-License-Identifier: MIT */
/*
 * Programs that close all descriptors (close_range(), daemonising loops) close
 * ours with them. With the last descriptor of the userfaultfd the kernel would
 * give zeros for all that is away. So a thread, the keeper, has a table of
 * descriptors of its own, with copies of ours and nothing else; it sleeps.
 *
 *     keep: keeper starts --unshare(CLONE_FILES)--> closes what is not ours --> sleeps --pmap_destroy--> ends
 *     a descriptor of ours is closed, or its number is another file's now
 *           --gm_host_revive(): pidfd_getfd() from the keeper--> ours again, under another number
 *
 * It has a pagemap of its own as well, and looks for who cannot: after a steal bytes hang on what is a hole in the slot, and a
 * program that has closed all and has no descriptor free can neither open its pagemap nor give the pages back
 * (gm_host_content_surely()).
 *
 * Who finds a number closed (EBADF) or another file's (ENOTTY) revives and does it
 * again. Where nothing would tell, it is looked at before: read() of another file's data
 * (drain(), but where it answered or gave messages within the last 250 us), the counter of another's eventfd
 * (gm_host_kick_fd()), close(). A sleep of the reader is interrupted each second for a look. Between a look and the call
 * there is a moment left in which the program could close our descriptor and give its number to another file; the numbers
 * are high, so that it does not by chance.
 *
 * Worst would be another userfaultfd under the number of one that was closed: it answers. So the library remembers
 * which numbers its spaces know (`taken`) and opens none there. If the program does, who waits meanwhile is not
 * woken; therefore all are when the descriptor is back.
 *
 * Needs Linux 6.9 (PIDFD_THREAD). Without it, or without a keeper, the
 * descriptors are lost, see gm_host_lost(); gm_host_reopen() makes new ones, with which nothing is watched yet.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIDFD_THREAD_ O_EXCL
#define KCMP_FILE_    0
#define SHORT_NS      1000000
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* Only the keeper's. */
static bool close_others(const struct gm_host_keep *k)
{
	int lo = k->app < k->kick ? k->app : k->kick, hi = k->app < k->kick ? k->kick : k->app;

	return (lo == 0 || !syscall(SYS_close_range, 0u, (unsigned)lo - 1, 0u)) &&
	       (hi == lo + 1 || !syscall(SYS_close_range, (unsigned)lo + 1, (unsigned)hi - 1, 0u)) &&
	       !syscall(SYS_close_range, (unsigned)hi + 1, ~0u, 0u);
}

/* What the keeper is asked; in the stack of who waits for it. */
struct gm_host_look {
	uint64_t va;
	struct gm_mask *some, *zero;
	bool *huge, done;
	gm_ret_t ret;
};

/* A descriptor of a thread of the process, which may have another table. Negative: none. */
static int copy_from(int tid, int fd)
{
	int pidfd = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD_), copy, err;

	if (pidfd < 0)
		return -1;
	copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0u);
	err = errno;
	close(pidfd);
	errno = err;
	return copy;
}

/* (lock) Keeper: what it is asked to keep besides. */
static void grant(struct gm_host_pmap *p)
{
	struct gm_host_keep *k = &p->keep;

	if (k->wish < 0)
		return;
	*k->wish_for = copy_from(k->wish_tid, k->wish);
	k->wish = -1;
	gm_wake(p->env, &k->waitq);
}

/* (lock) Keeper: what it is asked to look at. */
static void look(struct gm_host_pmap *p)
{
	struct gm_host_keep *k = &p->keep;
	struct gm_host_look *l = k->look;

	if (!l)
		return;
	l->ret = gm_host_content_by(p, &k->pagemap, l->va, l->some, l->zero, l->huge);
	l->done = true;
	k->look = NULL;
	gm_wake(p->env, &k->waitq);
}

static void keeper(void *arg)
{
	struct gm_host_pmap *p = arg;
	struct gm_host_keep *k = &p->keep;
	bool own = unshare(CLONE_FILES) == 0;

	own = own && close_others(k);
	if (own) /* tried again when it is needed */
		(void)gm_host_open_pagemap(&k->pagemap);
	gm_lock(p->env, &k->lock);
	k->tid = gettid();
	k->ready = true;
	k->own = own;
	gm_wake(p->env, &k->waitq);
	while (own && !k->stop) {
		grant(p);
		look(p);
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	}
	gm_unlock(p->env, &k->lock);
}

/* Keep it too, from now on: *kept is its number there. */
static void keep_too(struct gm_host_pmap *p, int fd, int *kept, const char *what)
{
	struct gm_host_keep *k = &p->keep;
	bool has;

	if (!k->own)
		return;
	gm_lock(p->env, &k->lock);
	while (k->wish >= 0) /* another thread's */
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	k->wish = fd;
	k->wish_tid = gettid();
	k->wish_for = kept;
	gm_wake(p->env, &k->waitq);
	while (k->wish >= 0)
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	has = *kept >= 0;
	gm_unlock(p->env, &k->lock);
	if (!has)
		gm_log(p->env, GM_LOG_WARN, "the descriptor of %s cannot be kept: a program that closes all loses memory", what);
}

gm_ret_t gm_host_content_surely(struct gm_host_pmap *p, uint64_t va, struct gm_mask *some, struct gm_mask *zero, bool *huge)
{
	struct gm_host_keep *k = &p->keep;
	struct gm_host_look l = { .va = va, .some = some, .zero = zero, .huge = huge };
	gm_ret_t ret = gm_host_content(p, va, some, zero, huge);

	if (!ret || !k->own)
		return ret;
	gm_lock(p->env, &k->lock);
	while (k->look) /* another thread's */
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	k->look = &l;
	gm_wake(p->env, &k->waitq);
	while (!l.done)
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	gm_unlock(p->env, &k->lock);
	return l.ret;
}

gm_ret_t gm_host_add_late(struct gm_host_pmap *p, int fd, atomic_int *which, int *kept, const char *what)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int none = -1;

	if (epoll_ctl(p->fd_poll, EPOLL_CTL_ADD, fd, &ev)) {
		close(fd);
		return gm_fail(GM_RET_NOMEM, "no room to poll the descriptor of %s: error %d", what, errno);
	}
	if (!atomic_compare_exchange_strong(which, &none, fd)) {
		close(fd); /* another thread was faster */
		return GM_RET_SUCCESS;
	}
	gm_host_number_take(fd);
	keep_too(p, fd, kept, what);
	gm_host_msg_kick(p); /* who sleeps does not know of it */
	return GM_RET_SUCCESS;
}

gm_ret_t gm_host_keep(void *pmap)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_keep *k = &p->keep;
	gm_ret_t ret;

	k->app = p->fd_app;
	k->kick = p->fd_kick;
	k->ready = k->stop = false;
	ret = p->env->ops->thread_start(p->env, "gm-keeper", 0, keeper, p, &k->thread);
	if (ret)
		return gm_fail(ret, "the thread that keeps the descriptors could not be started");
	gm_lock(p->env, &k->lock);
	while (!k->ready)
		(void)gm_wait(p->env, &k->waitq, &k->lock, UINT64_MAX);
	gm_unlock(p->env, &k->lock);
	if (!k->own)
		gm_log(p->env, GM_LOG_WARN, "a thread cannot have descriptors of its own: a program that closes all loses memory");
	return GM_RET_SUCCESS;
}

void gm_host_keep_init(struct gm_host_pmap *p)
{
	p->keep.shared = p->keep.inthread = p->keep.wish = -1;
	gm_mutex_init(p->env, &p->keep.lock, GM_RANK_LEAF);
	gm_waitq_init(p->env, &p->keep.waitq);
}

void gm_host_keep_fini(struct gm_host_pmap *p)
{
	struct gm_host_keep *k = &p->keep;

	gm_lock(p->env, &k->lock);
	k->stop = true;
	gm_wake(p->env, &k->waitq);
	gm_unlock(p->env, &k->lock);
	if (k->thread)
		p->env->ops->thread_join(p->env, k->thread);
	gm_waitq_fini(p->env, &k->waitq);
	gm_mutex_fini(p->env, &k->lock);
}

/* Of the process: fd + 1, 0 where there is none. With more spaces at once the others are not protected so. */
static atomic_int taken[1024];

void gm_host_number_take(int fd)
{
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		int none = 0;

		if (!atomic_load_explicit(&taken[i], memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&taken[i], &none, fd + 1))
			return;
	}
}

void gm_host_number_give(int fd)
{
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		int mine = fd + 1;

		if (atomic_compare_exchange_strong(&taken[i], &mine, 0))
			return;
	}
}

bool gm_host_number_taken(int fd)
{
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (atomic_load_explicit(&taken[i], memory_order_relaxed) == fd + 1)
			return true;
	return false;
}

void gm_host_set_app(struct gm_host_pmap *p, int fd)
{
	int old = atomic_exchange(&p->fd_app, fd);

	if (fd >= 0)
		gm_host_number_take(fd);
	if (old >= 0)
		gm_host_number_give(old);
}

void gm_host_set_late(atomic_int *which, int fd)
{
	int old = atomic_exchange(which, fd);

	gm_host_number_take(fd);
	gm_host_number_give(old);
}

bool gm_host_fd_is(int fd, const char *what)
{
	char path[64], link[128];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return false;
	link[n] = '\0';
	return strstr(link, what);
}

/* Is it the file that the keeper has there? Where the kernel cannot compare: one of that sort. */
static bool is_ours(const struct gm_host_pmap *p, int fd, int kept, const char *what)
{
	long diff = p->keep.own ? syscall(SYS_kcmp, gettid(), p->keep.tid, KCMP_FILE_, (unsigned long)fd, (unsigned long)kept) : -1;

	return diff < 0 ? gm_host_fd_is(fd, what) : diff == 0;
}

bool gm_host_owns_app(const struct gm_host_pmap *p)
{
	return !p->dev->way.features || is_ours(p, p->fd_app, p->keep.app, "[userfaultfd]");
}

bool gm_host_owns_shared(const struct gm_host_pmap *p)
{
	int fd = p->shared.fd;

	return fd < 0 || is_ours(p, fd, p->keep.shared, "[userfaultfd]");
}

bool gm_host_owns_inthread(const struct gm_host_pmap *p)
{
	int fd = p->inthread.fd;

	return fd < 0 || is_ours(p, fd, p->keep.inthread, "[userfaultfd]");
}

static bool owns_kick(const struct gm_host_pmap *p)
{
	return is_ours(p, p->fd_kick, p->keep.kick, "[eventfd]");
}

bool gm_host_owns_all(const struct gm_host_pmap *p)
{
	return gm_host_owns_app(p) && gm_host_owns_shared(p) && gm_host_owns_inthread(p) && owns_kick(p);
}

/* A copy of the keeper's; -1: none, errno says why. */
static int fetch(const struct gm_host_pmap *p, int kept)
{
	int fd;

	if (kept < 0) {
		errno = ENOENT;
		return -1;
	}
	fd = copy_from(p->keep.tid, kept);
	return fd < 0 ? -1 : gm_host_fd_high(fd);
}

/* Who waits where another's descriptor was used to make something present. */
static void put_back(struct gm_host_pmap *p, int fd)
{
	gm_host_set_app(p, fd);
	(void)gm_uffd_wake(fd, UINT64_C(1) << 20, GM_HOST_VA_END - (UINT64_C(1) << 21));
}

/* No descriptors, no memory; or the program closed all once more while one was copied: what the keeper has is there still. */
static bool will_pass(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM || err == EBADF;
}

bool gm_host_revive(struct gm_host_pmap *p)
{
	struct gm_host_keep *k = &p->keep;
	bool again = false, ok;
	int fd;

	if (!k->own)
		return false;
	gm_lock(p->env, &k->lock);
	ok = gm_host_owns_app(p);
	if (!ok) {
		fd = fetch(p, k->app);
		ok = fd >= 0;
		again = ok;
		if (ok)
			put_back(p, fd);
	}
	if (ok && !owns_kick(p)) {
		fd = fetch(p, k->kick);
		ok = fd >= 0;
		again = ok;
		if (ok)
			p->fd_kick = fd;
	}
	if (ok && !gm_host_owns_shared(p)) {
		fd = fetch(p, k->shared);
		ok = fd >= 0;
		again = ok;
		if (ok)
			gm_host_shared_put_back(p, fd);
	}
	if (ok && !gm_host_owns_inthread(p)) {
		fd = fetch(p, k->inthread);
		ok = fd >= 0;
		again = ok;
		if (ok)
			gm_host_set_late(&p->inthread.fd, fd);
	}
	again &= !k->told;
	k->told |= again;
	if (!ok && will_pass(errno)) { /* some other time */
		(void)gm_wait(p->env, &k->waitq, &k->lock, gm_deadline_ns(p->env, SHORT_NS));
		ok = true;
	}
	gm_unlock(p->env, &k->lock);
	if (again)
		gm_log(p->env, GM_LOG_WARN, "the program closed the library's descriptors: they are open again");
	return ok;
}

int gm_host_kick_fd(struct gm_host_pmap *p)
{
	return owns_kick(p) || (gm_host_revive(p) && owns_kick(p)) ? p->fd_kick : -1;
}

bool gm_host_again(struct gm_host_pmap *p, int64_t err)
{
	return (err == -EBADF || err == -ENOTTY) && gm_host_revive(p);
}

/* Whoever polled the descriptor of gm_host_msg_fd() has to ask for it anew. */
gm_ret_t gm_host_reopen(void *pmap)
{
	struct gm_host_pmap *p = pmap;
	struct gm_host_keep *k = &p->keep;
	gm_ret_t ret = GM_RET_EXIST;
	int fd;

	gm_lock(p->env, &k->lock);
	/* First, so that what fails afterwards has changed nothing that counts. */
	if (atomic_load(&p->lost) && !owns_kick(p)) {
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd < 0)
			ret = gm_fail(GM_RET_NOMEM, "no eventfd for the message reader: error %d", errno);
		else
			p->fd_kick = gm_host_fd_high(fd);
	}
	if (ret == GM_RET_EXIST && atomic_load(&p->lost) && !gm_host_owns_inthread(p))
		ret = gm_host_inthread_reopen(p);
	if ((!ret || ret == GM_RET_EXIST) && atomic_load(&p->lost) && !gm_host_owns_app(p)) {
		ret = gm_host_open_app(p, p->serves ? GM_UFFD_FEATURE_EVENT_FORK : 0, &fd, &p->protects);
		if (!ret && !gm_host_slots_watch(p, fd)) {
			close(fd);
			ret = GM_RET_BUSY;
		}
		if (!ret)
			gm_host_set_app(p, fd);
	}
	if (atomic_load(&p->lost) && (!ret || ret == GM_RET_EXIST) && !gm_host_owns_shared(p)) {
		ret = gm_host_open_shared(p, &fd);
		if (!ret) {
			atomic_store(&p->shared.gap, true);
			gm_host_shared_put_back(p, fd);
		}
	}
	if (!ret || (atomic_load(&p->lost) && ret == GM_RET_EXIST)) {
		gm_host_msg_repoll(p);
		atomic_store(&p->lost, false);
	}
	gm_unlock(p->env, &k->lock);
	return ret;
}

void gm_host_close_ours(struct gm_host_pmap *p)
{
	if (p->fd_app >= 0 && gm_host_owns_app(p))
		close(p->fd_app);
	if (p->inthread.fd >= 0 && gm_host_owns_inthread(p))
		close(p->inthread.fd);
	if (owns_kick(p))
		close(p->fd_kick);
	if (gm_host_fd_is(p->fd_poll, "[eventpoll]"))
		close(p->fd_poll);
	gm_host_fd_fini(&p->pagemap);
}
