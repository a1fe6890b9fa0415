/* SPDX-License-Identifier: MIT */
/*
 * Completion as a descriptor: one end of a socket pair whose messages keep
 * their bounds (SOCK_SEQPACKET).
 *
 *     create: pair made, one end given out --signal--> result sent on the other end, which is closed
 *     import: descriptor duplicated, in the list --result readable--> fence signalled
 *                                                --closed without a result--> IO
 *                                                --device lost or halted--> NODEV
 *                                                --dev_fini--> CANCELED
 *
 * The result is one message of four bytes, in the machine's order. It is only
 * ever peeked at, so that any number of holders of the descriptor, or of
 * duplicates of it in other processes, learn it. Whoever wants to wait without
 * this library polls for POLLIN.
 *
 * Imports are watched by one thread, started with the first of them. It looks
 * every millisecond, with waits of the services only, so that it works in a
 * simulation as well; without an import it sleeps. The list is (L).
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/mock/gm_mock_internal.h"

#define LOOK_NS UINT64_C(1000000)

struct gm_mock_sync {
	int fd; /* the end that tells */
};

struct gm_mock_import {
	TAILQ_ENTRY(gm_mock_import) link;
	int fd; /* our own duplicate */
	struct gm_fence *done;
	gm_ret_t result;
};

gm_ret_t gm_mock_sync_create(void *dev, void **out, int *fd)
{
	struct gm_mock *m = dev;
	struct gm_mock_sync *sync;
	int end[2];

	if (m->config.no_sync)
		return GM_RET_UNIMPLEMENTED;
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	sync = m->svc->alloc(m->svc->self, sizeof(*sync));
	if (!sync) {
		if (gm_mock_has_bug(m, GM_MOCK_BUG_SYNC_WRITES))
			*out = m;
		return GM_RET_NOMEM;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end) != 0) {
		gm_ret_t ret = errno == EMFILE || errno == ENFILE ? GM_RET_NOSPC : GM_RET_NOMEM;

		m->svc->free(m->svc->self, sync, sizeof(*sync));
		return ret;
	}
	sync->fd = end[1];
	atomic_fetch_add(&m->syncs, 1);
	*out = sync;
	*fd = end[0];
	return GM_RET_SUCCESS;
}

void gm_mock_sync_signal(void *dev, void *sync_ptr, gm_ret_t result)
{
	struct gm_mock *m = dev;
	struct gm_mock_sync *sync = sync_ptr;
	int32_t message = gm_mock_has_bug(m, GM_MOCK_BUG_SYNC_SUCCESS) ? GM_RET_SUCCESS : result;

	/* The pair is empty, so there is room; if the other end is closed, nobody wants to know. */
	if (!gm_mock_has_bug(m, GM_MOCK_BUG_SYNC_SILENT))
		(void)send(sync->fd, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(sync->fd);
	m->svc->free(m->svc->self, sync, sizeof(*sync));
	atomic_fetch_sub(&m->syncs, 1);
}

static bool is_result(int32_t value)
{
	switch (value) {
#define RESULT(name, number, text) case GM_RET_##name:
		GM_RET_LIST(RESULT)
#undef RESULT
		return true;
	default:
		return false;
	}
}

/* Look without taking. False: nothing has come yet. */
static bool look(int fd, gm_ret_t *result)
{
	int32_t message = 0;
	ssize_t n = recv(fd, &message, sizeof(message), MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	*result = n == (ssize_t)sizeof(message) && is_result(message) ? (gm_ret_t)message : GM_RET_IO;
	return true;
}

static bool has_option(int fd, int option, int want)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 && value == want;
}

/* An end of such a pair; also when the other end is closed. */
static bool is_sync(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	return has_option(fd, SO_DOMAIN, AF_UNIX) && has_option(fd, SO_TYPE, SOCK_SEQPACKET) &&
	       getpeername(fd, (struct sockaddr *)(void *)&addr, &len) == 0;
}

static void import_end(struct gm_mock *m, struct gm_mock_import *import, gm_ret_t result)
{
	(void)close(import->fd);
	m->svc->fence_signal(m->svc->self, import->done, result);
	m->svc->free(m->svc->self, import, sizeof(*import));
	atomic_fetch_sub(&m->importing, 1);
}

/* One at a time, as the thread that looks takes from the list as well. */
void gm_mock_sync_end(struct gm_mock *m, gm_ret_t result)
{
	const struct gm_services *svc = m->svc;
	struct gm_mock_import *import;

	do {
		svc->lock(svc->self, &m->lock);
		import = TAILQ_FIRST(&m->imports);
		if (import)
			TAILQ_REMOVE(&m->imports, import, link);
		svc->unlock(svc->self, &m->lock);
		if (import)
			import_end(m, import, result);
	} while (import);
}

/* Take those whose result is there out of the list. Under the lock. */
static void take_done(struct gm_mock *m, struct gm_mock_imports *done)
{
	struct gm_mock_import *import, *next;

	TAILQ_FOREACH_SAFE(import, &m->imports, link, next) {
		if (!look(import->fd, &import->result))
			continue;
		TAILQ_REMOVE(&m->imports, import, link);
		TAILQ_INSERT_TAIL(done, import, link);
	}
}

static void end_all(struct gm_mock *m, struct gm_mock_imports *list)
{
	struct gm_mock_import *import;

	while ((import = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, import, link);
		import_end(m, import, import->result);
	}
}

static void sync_main(void *arg)
{
	struct gm_mock *m = arg;
	const struct gm_services *svc = m->svc;
	struct gm_mock_imports done = TAILQ_HEAD_INITIALIZER(done);

	svc->lock(svc->self, &m->lock);
	while (!m->sync_stop) {
		uint64_t deadline = GM_FOREVER_NS;

		take_done(m, &done);
		if (!TAILQ_EMPTY(&done)) {
			svc->unlock(svc->self, &m->lock);
			end_all(m, &done);
			svc->lock(svc->self, &m->lock);
			continue;
		}
		if (!TAILQ_EMPTY(&m->imports))
			deadline = svc->now_ns(svc->self) + LOOK_NS;
		(void)svc->wait(svc->self, &m->sync_waitq, &m->lock, deadline);
	}
	svc->unlock(svc->self, &m->lock);
}

/* There is a thread that looks, from now on. One caller starts it; the others wait for how that ends. */
static gm_ret_t sync_start(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;
	struct gm_thread *thread = NULL;
	gm_ret_t ret = GM_RET_SUCCESS;
	bool mine;

	svc->lock(svc->self, &m->lock);
	while (m->sync_starting)
		(void)svc->wait(svc->self, &m->sync_waitq, &m->lock, GM_FOREVER_NS);
	mine = !m->sync_thread;
	m->sync_starting = mine;
	svc->unlock(svc->self, &m->lock);
	if (!mine)
		return GM_RET_SUCCESS;
	ret = svc->thread_start(svc->self, "gm-mock-sync", GM_THREAD_DEVICE, sync_main, m, &thread);
	svc->lock(svc->self, &m->lock);
	m->sync_thread = thread;
	m->sync_starting = false;
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->sync_waitq);
	/* What is short is memory or processes; sync_import() knows only the one word. */
	return ret == GM_RET_SUCCESS ? ret : GM_RET_NOMEM;
}

gm_ret_t gm_mock_sync_import(void *dev, int fd, struct gm_fence *done)
{
	struct gm_mock *m = dev;
	const struct gm_services *svc = m->svc;
	struct gm_mock_import *import;
	gm_ret_t ret = GM_RET_NOMEM;

	if (m->config.no_sync)
		return GM_RET_UNIMPLEMENTED;
	if (gm_mock_is_lost(m))
		return GM_RET_NODEV;
	if (!is_sync(fd))
		return GM_RET_INVAL;
	if (gm_mock_has_bug(m, GM_MOCK_BUG_SYNC_EARLY)) {
		svc->fence_signal(svc->self, done, GM_RET_SUCCESS);
		return GM_RET_SUCCESS;
	}
	import = svc->alloc(svc->self, sizeof(*import));
	if (!import)
		return gm_mock_bug_refuse(m, done, GM_RET_NOMEM);
	import->done = done;
	import->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (import->fd < 0)
		goto err_import;
	if (sync_start(m) != GM_RET_SUCCESS)
		goto err_fd;
	svc->lock(svc->self, &m->lock);
	/* Looked at under the lock: who loses it ends what is in the list. */
	ret = gm_mock_is_lost(m) ? GM_RET_NODEV : GM_RET_SUCCESS;
	if (ret == GM_RET_SUCCESS) {
		TAILQ_INSERT_TAIL(&m->imports, import, link);
		atomic_fetch_add(&m->importing, 1);
	}
	svc->unlock(svc->self, &m->lock);
	if (ret != GM_RET_SUCCESS)
		goto err_fd;
	svc->wake(svc->self, &m->sync_waitq);
	return GM_RET_SUCCESS;

err_fd:
	(void)close(import->fd);
err_import:
	svc->free(svc->self, import, sizeof(*import));
	return gm_mock_bug_refuse(m, done, ret);
}

void gm_mock_sync_init(struct gm_mock *m)
{
	TAILQ_INIT(&m->imports);
	m->svc->waitq_init(m->svc->self, &m->sync_waitq);
}

void gm_mock_sync_fini(struct gm_mock *m)
{
	m->svc->waitq_fini(m->svc->self, &m->sync_waitq);
}

void gm_mock_sync_stop(struct gm_mock *m)
{
	const struct gm_services *svc = m->svc;

	assert(atomic_load(&m->syncs) == 0);
	svc->lock(svc->self, &m->lock);
	m->sync_stop = true;
	svc->unlock(svc->self, &m->lock);
	svc->wake(svc->self, &m->sync_waitq);
	if (m->sync_thread)
		svc->thread_join(svc->self, m->sync_thread);
	gm_mock_sync_end(m, GM_RET_CANCELED);
}
