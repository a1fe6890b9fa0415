/* SPDX-License-Identifier: MIT */
/* Fences that leave an instance as descriptors, and come in as such. */
#include "config.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <gmem/plugin.h>

#include "hal/gm_fence.h"

#include "core_fixture.h"

/* Seconds of the virtual clock: for what comes anyway. */
#define SOON (5 * SECOND)

static struct gm_fence *fence_new(struct world *w)
{
	struct gm_fence *fence;

	OK(gm_fence_create(w->lib, &fence));
	return fence;
}

static int fence_fd(struct gm_fence *fence, struct gm_dev *dev)
{
	int fd = -1;

	OK(gm_fence_export(fence, dev, &fd));
	cr_assert_geq(fd, 0);
	return fd;
}

static gm_ret_t wait_put(struct gm_fence *fence)
{
	gm_ret_t ret = gm_fence_wait(fence, SOON);

	gm_fence_put(fence);
	return ret;
}

CORE_TEST(sync, from_one_device_to_the_other, .dev = { "mock:vram=1M", "mock:vram=1M" })
{
	struct gm_fence *fence = fence_new(w), *in, *late;
	int fd = fence_fd(fence, w->dev[0]);

	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	OK(gm_fence_import(w->dev[1], fd, &in));
	IS(gm_fence_wait(in, MS), GM_RET_TIMEDOUT);
	OK(gm_fence_signal(fence, GM_RET_NOSPC));
	IS(wait_put(in), GM_RET_NOSPC);
	gm_fence_put(fence);
	/* It stays true when the fence is gone. */
	OK(gm_fence_import(w->dev[0], fd, &late));
	close(fd);
	IS(wait_put(late), GM_RET_NOSPC);
}

CORE_TEST(sync, two_instances, .bare = true)
{
	struct gm_fence *fence = fence_new(w), *in;
	struct gm_lib *lib;
	struct gm_dev *dev;
	int fd;

	OK(gm_dev_open(w->lib, "mock:vram=1M", &w->dev[0]));
	fd = fence_fd(fence, w->dev[0]);
	OK(gm_lib_create_on(w->env, gm_sim_host_mmu(), gm_sim_host_data(w->sim), &lib));
	OK(gm_dev_open(lib, "mock:vram=1M", &dev));
	OK(gm_fence_import(dev, fd, &in));
	close(fd);
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	OK(wait_put(in));
	OK(gm_dev_destroy(dev));
	OK(gm_lib_destroy(lib));
	gm_fence_put(fence);
}

CORE_TEST(sync, done_before_the_export)
{
	struct gm_fence *fence = fence_new(w), *in;
	int fd;

	OK(gm_fence_cancel(fence));
	fd = fence_fd(fence, w->dev[0]);
	OK(gm_fence_import(w->dev[0], fd, &in));
	IS(wait_put(in), GM_RET_CANCELED);
	close(fd);
	gm_fence_put(fence);
}

/* The one who exported may forget the fence; whoever has to signal it holds it. */
CORE_TEST(sync, fence_that_only_the_worker_holds)
{
	struct gm_fence *fence = fence_new(w), *in;
	int fd = fence_fd(fence, w->dev[0]);

	OK(gm_fence_import(w->dev[0], fd, &in));
	(void)gm_fence_get(fence);
	gm_fence_put(fence);
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	gm_fence_put(fence);
	OK(wait_put(in));
	close(fd);
}

CORE_TEST(sync, destroy_waits_for_exports)
{
	struct gm_fence *fence = fence_new(w);
	struct gm_dev *dev;
	int fd;

	OK(gm_dev_open(w->lib, "mock:vram=1M", &dev));
	fd = fence_fd(fence, dev);
	close(fd);
	IS(gm_dev_destroy(dev), GM_RET_BUSY);
	cr_assert_not_null(strstr(gm_last_error(), "exported"));
	OK(gm_fence_cancel(fence));
	OK(gm_dev_destroy(dev));
	gm_fence_put(fence);
}

CORE_TEST(sync, destroy_cancels_imports)
{
	struct gm_fence *in, *forgotten;
	struct gm_dev *dev;
	int end[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, end), 0);
	OK(gm_dev_open(w->lib, "mock:vram=1M", &dev));
	OK(gm_fence_import(dev, end[0], &in));
	OK(gm_fence_import(dev, end[0], &forgotten));
	gm_fence_put(forgotten);
	OK(gm_dev_destroy(dev));
	IS(wait_put(in), GM_RET_CANCELED);
	close(end[0]);
	close(end[1]);
}

/* A cancelled import keeps its result, whatever comes later, and takes nothing from others. */
CORE_TEST(sync, cancelled_import)
{
	struct gm_fence *fence = fence_new(w), *in, *other;
	int fd = fence_fd(fence, w->dev[0]);

	OK(gm_fence_import(w->dev[0], fd, &in));
	OK(gm_fence_import(w->dev[0], fd, &other));
	OK(gm_fence_cancel(in));
	IS(gm_fence_wait(in, 0), GM_RET_CANCELED);
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	OK(wait_put(other));
	IS(wait_put(in), GM_RET_CANCELED);
	close(fd);
	gm_fence_put(fence);
}

CORE_TEST(sync, maker_dies)
{
	struct gm_fence *in;
	int end[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, end), 0);
	OK(gm_fence_import(w->dev[0], end[0], &in));
	close(end[1]);
	IS(wait_put(in), GM_RET_IO);
	close(end[0]);
}

CORE_TEST(sync, bad_arguments, .dev = { "mock:vram=1M", "mock:vram=1M,sync=no" })
{
	struct gm_fence *fence = fence_new(w), *in = fence;
	int fd = -3, file = open("/dev/null", O_RDONLY);
	struct gm_dev_info info;

	IS(gm_fence_export(NULL, w->dev[0], &fd), GM_RET_INVAL);
	IS(gm_fence_export(fence, NULL, &fd), GM_RET_INVAL);
	IS(gm_fence_export(fence, w->dev[0], NULL), GM_RET_INVAL);
	IS(gm_fence_import(NULL, file, &in), GM_RET_INVAL);
	IS(gm_fence_import(w->dev[0], file, NULL), GM_RET_INVAL);
	IS(gm_fence_import(w->dev[0], -1, &in), GM_RET_INVAL);
	IS(gm_fence_import(w->dev[0], file, &in), GM_RET_INVAL);
	close(file);
	IS(gm_fence_import(w->dev[0], file, &in), GM_RET_INVAL);
	OK(gm_dev_query(w->dev[1], &info));
	cr_assert_not(info.caps & GM_CAP_SYNC);
	IS(gm_fence_export(fence, w->dev[1], &fd), GM_RET_NOTSUP);
	IS(gm_fence_import(w->dev[1], 0, &in), GM_RET_NOTSUP);
	cr_assert_eq(fd, -3);
	cr_assert_eq(in, fence);
	gm_fence_put(fence);
}

/* A fence of another instance would be signalled on another environment. */
CORE_TEST(sync, foreign_fence)
{
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &w->fa.table };
	struct gm_env *env;
	struct gm_fence *fence;
	int fd = -3;

	OK(gm_env_threads_create(&config, &env));
	fence = gm_fence_new(env);
	cr_assert_not_null(fence);
	OK(gm_fence_publish(fence));
	IS(gm_fence_export(fence, w->dev[0], &fd), GM_RET_INVAL);
	cr_assert_eq(fd, -3);
	gm_fence_put(fence);
	gm_env_threads_destroy(env);
}

CORE_TEST(sync, lost_device)
{
	struct gm_fence *fence, *in;
	struct gm_dev *dev;
	int fd, none = -3;

	OK(gm_dev_open(w->lib, "mock:vram=1M", &dev));
	fence = fence_new(w);
	fd = fence_fd(fence, dev);
	gm_mock_plugin()->hooks->lose(gm_dev_backend(dev));
	IS(gm_fence_export(fence, dev, &none), GM_RET_NODEV);
	IS(gm_fence_import(dev, fd, &in), GM_RET_NODEV);
	/* Whoever waits elsewhere learns the result all the same. */
	OK(gm_fence_import(w->dev[0], fd, &in));
	OK(gm_fence_signal(fence, GM_RET_NODEV));
	IS(wait_put(in), GM_RET_NODEV);
	OK(gm_dev_destroy(dev));
	close(fd);
	gm_fence_put(fence);
}

/* Whoever waits for an import of a device that is lost or stopped learns that: nobody looks at its descriptor. */
CORE_TEST(sync, imports_of_a_lost_device)
{
	for (unsigned halt = 0; halt < 2; halt++) {
		struct gm_fence *in, *other;
		struct gm_dev *dev;
		int end[2];

		cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, end), 0);
		OK(gm_dev_open(w->lib, "mock:vram=1M", &dev));
		OK(gm_fence_import(dev, end[0], &in));
		OK(gm_fence_import(w->dev[0], end[0], &other));
		IS(gm_fence_wait(in, MS), GM_RET_TIMEDOUT);
		if (halt) {
			dev->hal->mmu.dev_halt(dev->hal->dev);
			IS(gm_fence_wait(in, 0), GM_RET_NODEV); /* when it returns, all it was given is signalled */
		} else {
			OK(gm_mock_lose(dev));
		}
		IS(wait_put(in), GM_RET_NODEV);
		IS(gm_fence_wait(other, MS), GM_RET_TIMEDOUT);
		OK(gm_dev_destroy(dev));
		close(end[1]);
		IS(wait_put(other), GM_RET_IO);
		close(end[0]);
	}
}

CORE_TEST(sync, no_descriptors_left)
{
	struct gm_fence *fence = fence_new(w);
	struct rlimit was, few;
	int fd = -3;
	gm_ret_t ret;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = (struct rlimit){ .rlim_cur = 0, .rlim_max = was.rlim_max };
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = gm_fence_export(fence, w->dev[0], &fd);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
	IS(ret, GM_RET_NOSPC);
	cr_assert_eq(fd, -3);
	cr_assert_not_null(strstr(gm_last_error(), "descriptors"), "%s", gm_last_error());
	OK(gm_fence_export(fence, w->dev[0], &fd));
	close(fd);
	OK(gm_fence_cancel(fence));
	gm_fence_put(fence);
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/*
 * Every allocation fails in turn: nothing is left, no descriptor either. Bare, so that nobody else allocates; nor the shim, which lets the
 * operation pass where it has no memory for its books.
 */
CORE_TEST(sync, failing_allocations, .bare = true, .validate = GM_VALIDATE_OFF)
{
	struct gm_fence *fence = fence_new(w), *in = NULL;
	unsigned fds = count_fds();
	size_t n = 1, tried = 0;
	gm_ret_t ret;
	int fd = -3;

	OK(gm_dev_open(w->lib, "mock:vram=1M", &w->dev[0]));
	for (;; n++, tried++) {
		failing_alloc_arm(&w->fa, n);
		ret = gm_fence_export(fence, w->dev[0], &fd);
		if (!failing_alloc_fired(&w->fa))
			break;
		IS(ret, GM_RET_NOMEM);
		cr_assert_eq(fd, -3);
		cr_assert_eq(count_fds(), fds);
	}
	failing_alloc_arm(&w->fa, 0);
	OK(ret);
	for (n = 1;; n++, tried++) {
		failing_alloc_arm(&w->fa, n);
		ret = gm_fence_import(w->dev[0], fd, &in);
		if (!failing_alloc_fired(&w->fa))
			break;
		cr_assert_eq(ret, GM_RET_NOMEM, "allocation %zu: %s", n, gm_ret_name(ret));
		cr_assert_null(in);
		cr_assert_eq(count_fds(), fds + 2);
	}
	failing_alloc_arm(&w->fa, 0);
	OK(ret);
	cr_assert_geq(tried, 7);
	OK(gm_fence_signal(fence, GM_RET_SUCCESS));
	OK(wait_put(in));
	gm_fence_put(fence);
	close(fd);
	cr_assert_eq(count_fds(), fds);
}

static gm_ret_t store_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word = 42;

	(void)index;
	return gm_mock_store(thread, *(const uint64_t *)arg, &word, sizeof(word));
}

/* What it is for: a launch on one device, waited for with a descriptor of another one. */
CORE_TEST(sync, launch, .dev = { "mock:vram=1M", "mock:vram=1M" })
{
	uint64_t va = app_map(w, PAGE);
	struct gm_fence *fence, *in;
	int fd;

	OK(gm_adopt(w->as, (void *)(uintptr_t)va, PAGE, 0));
	OK(gm_mock_launch(w->ctx[0], store_kernel, &va, 1, &fence));
	fd = fence_fd(fence, w->dev[0]);
	gm_fence_put(fence);
	OK(gm_fence_import(w->dev[1], fd, &in));
	close(fd);
	OK(wait_put(in));
	cr_assert_eq(app_get(w, va), 42);
}
