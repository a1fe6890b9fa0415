/* SPDX-License-Identifier: MIT */
/* The mock's descriptors of completion, through its ops table. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mock_fixture.h"

#define MAX_FD 256

static void pair(int end[2])
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end), 0);
}

static struct gm_fence *import(struct mock_fixture *fx, int fd)
{
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->sync_import(fx->m, fd, fence), GM_RET_SUCCESS);
	return fence;
}

/* What an import of this descriptor ends with. */
static gm_ret_t outcome(struct mock_fixture *fx, int fd)
{
	return fx_finish(fx, import(fx, fd));
}

/* The fences of imports are signalled once. */
static void finish_once(struct mock_fixture *fx, struct gm_fence *fence, gm_ret_t want)
{
	cr_assert_eq(mock_fence_wait(fence, LONG_MS), want);
	mock_sleep_ms(5);
	cr_assert_eq(fence->signals, 1);
	mock_svc_fence_put(&fx->s, fence);
}

Test(mock_sync, create_and_signal)
{
	struct pollfd p = { .events = POLLIN };
	struct mock_fixture fx;
	int32_t message = 1;
	void *sync;

	fx_open(&fx, "vram=1M");
	cr_assert(fx.caps.caps & GM_CAP_SYNC);
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &p.fd), GM_RET_SUCCESS);
	cr_assert_eq(poll(&p, 1, 0), 0);
	fx.mmu->sync_signal(fx.m, sync, GM_RET_IO);
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert(p.revents & POLLIN);
	cr_assert_eq(recv(p.fd, &message, sizeof(message), MSG_PEEK), (ssize_t)sizeof(message));
	cr_assert_eq(message, (int32_t)GM_RET_IO);
	/* It stays for whoever looks later. */
	cr_assert_eq(outcome(&fx, p.fd), GM_RET_IO);
	cr_assert_eq(outcome(&fx, p.fd), GM_RET_IO);
	close(p.fd);
	fx_close(&fx);
}

Test(mock_sync, nobody_listens)
{
	struct mock_fixture fx;
	void *sync;
	int fd;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_SUCCESS);
	close(fd);
	fx.mmu->sync_signal(fx.m, sync, GM_RET_SUCCESS); /* no SIGPIPE either */
	fx_close(&fx);
}

/* Three imports, through duplicates that are closed at once, and another device. */
Test(mock_sync, many_waiters)
{
	struct mock_fixture fx, other;
	struct gm_fence *fence[3];
	void *sync;
	int fd, copy;

	fx_open(&fx, "vram=1M");
	fx_open(&other, "vram=1M");
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_SUCCESS);
	copy = dup(fd);
	fence[0] = import(&fx, fd);
	fence[1] = import(&other, copy);
	fence[2] = import(&other, fd);
	close(fd);
	close(copy);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(mock_fence_wait(fence[i], 10), GM_RET_TIMEDOUT);
	fx.mmu->sync_signal(fx.m, sync, GM_RET_NOSPC);
	finish_once(&fx, fence[0], GM_RET_NOSPC);
	finish_once(&other, fence[1], GM_RET_NOSPC);
	finish_once(&other, fence[2], GM_RET_NOSPC);
	fx_close(&other);
	fx_close(&fx);
}

Test(mock_sync, maker_dies)
{
	struct mock_fixture fx;
	struct gm_fence *fence;
	int end[2];

	fx_open(&fx, "vram=1M");
	pair(end);
	fence = import(&fx, end[0]);
	cr_assert_eq(mock_fence_wait(fence, 10), GM_RET_TIMEDOUT);
	close(end[1]);
	finish_once(&fx, fence, GM_RET_IO);
	/* Dead before the import. */
	cr_assert_eq(outcome(&fx, end[0]), GM_RET_IO);
	close(end[0]);
	fx_close(&fx);
}

/* What comes must be a result, and nothing else. */
Test(mock_sync, nonsense_is_io)
{
	static const struct {
		size_t bytes;
		int32_t value;
		gm_ret_t want;
	} cases[] = {
		{ 4, GM_RET_TIMEDOUT, GM_RET_TIMEDOUT },
		{ 4, 7, GM_RET_IO },
		{ 4, -4000, GM_RET_IO },
		{ 3, 0, GM_RET_IO },
		{ 8, 0, GM_RET_IO },
	};
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int32_t message[2] = { cases[i].value, 0 };
		int end[2];

		pair(end);
		cr_assert_eq(send(end[1], message, cases[i].bytes, 0), (ssize_t)cases[i].bytes);
		cr_assert_eq(outcome(&fx, end[0]), cases[i].want, "case %zu", i);
		close(end[0]);
		close(end[1]);
	}
	fx_close(&fx);
}

Test(mock_sync, not_a_completion)
{
	struct mock_fixture fx;
	struct gm_fence *fence;
	int fds[5], end[2];

	fx_open(&fx, "vram=1M");
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(pipe(end), 0);
	fds[0] = open("/dev/null", O_RDONLY);
	fds[1] = socket(AF_UNIX, SOCK_STREAM, 0);
	fds[2] = socket(AF_UNIX, SOCK_SEQPACKET, 0); /* not connected */
	fds[3] = end[0];
	fds[4] = end[1];
	for (unsigned i = 0; i < 5; i++) {
		cr_assert_eq(fx.mmu->sync_import(fx.m, fds[i], fence), GM_RET_INVAL, "descriptor %u", i);
		close(fds[i]);
		cr_assert_eq(fx.mmu->sync_import(fx.m, fds[i], fence), GM_RET_INVAL);
	}
	cr_assert_eq(fence->signals, 0);
	mock_svc_fence_put(&fx.s, fence);
	fx_close(&fx);
}

/* dev_fini() cancels; what a lost device was given has ended before. */
Test(mock_sync, fini_cancels)
{
	for (unsigned lost = 0; lost < 2; lost++) {
		struct mock_fixture fx;
		struct gm_fence *fence;
		int end[2];

		fx_open(&fx, "vram=1M");
		pair(end);
		fence = import(&fx, end[0]);
		fx.mmu->pmap_destroy(fx.pmap);
		if (lost)
			gm_mock_dev_lose(fx.m);
		cr_assert_eq(fence->signals, lost);
		fx.mmu->dev_fini(fx.m);
		cr_assert_eq(mock_fence_wait(fence, 0), lost ? GM_RET_NODEV : GM_RET_CANCELED);
		cr_assert_eq(fence->signals, 1);
		mock_svc_fence_put(&fx.s, fence);
		cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
		cr_assert_eq(atomic_load(&fx.s.live_threads), 0);
		close(end[0]);
		close(end[1]);
	}
}

Test(mock_sync, lost)
{
	struct mock_fixture fx;
	struct gm_fence *fence;
	void *sync, *other;
	int fd, none = -2;

	fx_open(&fx, "vram=1M");
	fence = mock_svc_fence_create(&fx.s);
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_SUCCESS);
	gm_mock_dev_lose(fx.m);
	cr_assert_eq(fx.mmu->sync_create(fx.m, &other, &none), GM_RET_NODEV);
	cr_assert_eq(none, -2);
	cr_assert_eq(fx.mmu->sync_import(fx.m, fd, fence), GM_RET_NODEV);
	mock_svc_fence_put(&fx.s, fence);
	fx.mmu->sync_signal(fx.m, sync, GM_RET_NODEV);
	close(fd);
	fx.mmu->pmap_destroy(fx.pmap);
	fx.mmu->dev_fini(fx.m);
	cr_assert_eq(atomic_load(&fx.s.live_bytes), 0);
}

/* Which descriptors are open. */
static unsigned open_fds(bool open[MAX_FD])
{
	unsigned n = 0;

	for (int fd = 0; fd < MAX_FD; fd++) {
		open[fd] = fcntl(fd, F_GETFD) >= 0;
		n += open[fd];
	}
	return n;
}

/* What is opened is closed on exec, all of it, and closed at the end, all of it. */
Test(mock_sync, descriptors)
{
	bool before[MAX_FD], now[MAX_FD];
	unsigned n = open_fds(before);
	struct mock_fixture fx;
	struct gm_fence *fence;
	void *sync;
	int fd;

	fx_open(&fx, "vram=1M");
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_SUCCESS);
	fence = import(&fx, fd);
	cr_assert_eq(open_fds(now), n + 3);
	for (int i = 0; i < MAX_FD; i++)
		cr_assert(before[i] || !now[i] || (fcntl(i, F_GETFD) & FD_CLOEXEC), "descriptor %d", i);
	fx.mmu->sync_signal(fx.m, sync, GM_RET_SUCCESS);
	finish_once(&fx, fence, GM_RET_SUCCESS);
	close(fd);
	cr_assert_eq(open_fds(now), n);
	fx_close(&fx);
}

/* No memory, no thread, no descriptor: said, and nothing left. */
Test(mock_sync, nothing_left_to_have)
{
	struct rlimit old, none;
	struct mock_fixture fx;
	struct gm_fence *fence;
	void *sync = &fx;
	int end[2], fd = -2;

	fx_open(&fx, "vram=1M");
	pair(end);
	fence = mock_svc_fence_create(&fx.s);
	atomic_store(&fx.s.fail_alloc, 1);
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_NOMEM);
	for (long n = 1; n <= 2; n++) { /* the import, the thread */
		atomic_store(&fx.s.fail_alloc, n);
		cr_assert_eq(fx.mmu->sync_import(fx.m, end[0], fence), GM_RET_NOMEM, "allocation %ld", n);
	}
	atomic_store(&fx.s.fail_thread, 1);
	cr_assert_eq(fx.mmu->sync_import(fx.m, end[0], fence), GM_RET_NOMEM);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = old.rlim_max };
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	cr_assert_eq(fx.mmu->sync_create(fx.m, &sync, &fd), GM_RET_NOSPC);
	cr_assert_eq(fx.mmu->sync_import(fx.m, end[0], fence), GM_RET_NOMEM);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	cr_assert_eq(sync, (void *)&fx);
	cr_assert_eq(fd, -2);
	cr_assert_eq(fence->signals, 0);
	mock_svc_fence_put(&fx.s, fence);
	/* And then it works. */
	fence = import(&fx, end[0]);
	close(end[1]);
	finish_once(&fx, fence, GM_RET_IO);
	close(end[0]);
	fx_close(&fx);
}
