/* SPDX-License-Identifier: MIT */
/*
 * Memory whose faults are served in the thread that faults, beside what else there is: shared memory, calls that are handed
 * such memory, cancelled threads, forks, other memory at its address, another userfaultfd.
 */
#include "config.h"

#include <fcntl.h>

#include "inthread_fixture.h"

#include "hal/host/gm_host_internal.h"

TestSuite(inthread_with, .timeout = 300);

static struct forker f;

/* Two descriptors that came later than the keeper: it has both. In a child, as all descriptors are closed. */
static int both_sorts(bool shared_first)
{
	void *shared;

	child_signals();
	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	if (!shared_first && gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD))
		return 1;
	if (gm_alloc_shared(f.as, BYTES, 0, &shared))
		return 2;
	if (shared_first && gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD))
		return 3;
	for (unsigned round = 0; round < 4; round++) {
		dev_fill(f.ctx, GM_VA(f.at), PAGES, round);
		dev_fill(f.ctx, GM_VA(shared), PAGES, round + 10);
		if (syscall(SYS_close_range, 3u, ~0u, 0u))
			return 4;
		atomic_store(&bus.served, 0);
		if (wrong(shared, 0, PAGES, round + 10) || atomic_load(&bus.served)) /* a message comes for it */
			return 5;
		if (wrong(f.at, 0, PAGES, round) || !atomic_load(&bus.served))
			return 6;
		if (madvise(f.at, 8 * PAGE, MADV_DONTNEED) || nonzero(f.at, 0, 8)) /* its event is read */
			return 7;
	}
	if (gm_free(f.as, shared) || gm_as_destroy(f.as) || gm_dev_destroy(f.dev) || gm_lib_destroy(f.lib))
		return 8;
	return 0;
}

static void beside_shared(bool shared_first)
{
	pid_t pid;

	lib_begin(&f, NULL, NULL); /* or it is skipped */
	forker_end(&f);
	pid = fork();
	if (!pid)
		_exit(both_sorts(shared_first));
	cr_assert(exited(ended(pid), 0));
}

Test(inthread_with, shared_memory)
{
	beside_shared(false);
}

Test(inthread_with, shared_memory_that_was_first)
{
	beside_shared(true);
}

/* It is not such memory, and does not become so. */
Test(inthread_with, shared_memory_is_refused)
{
	void *shared;

	lib_begin(&f, NULL, NULL);
	IS(gm_alloc_shared(f.as, BLOCK, GM_MEM_INTHREAD, &shared), GM_RET_INVAL);
	cr_assert_not_null(strstr(gm_last_error(), "flags"), "%s", gm_last_error());
	OK(gm_alloc_shared(f.as, BLOCK, 0, &shared));
	IS(gm_adopt(f.as, shared, BLOCK, GM_MEM_INTHREAD), GM_RET_EXIST);
	cr_assert_not_null(strstr(gm_last_error(), "managed"), "%s", gm_last_error());
	cr_assert(!is_inthread(&f, shared));
	dev_fill(f.ctx, GM_VA(shared), GM_BLOCK_PAGES, 3);
	IS(gm_inthread_serve(f.as, GM_VA(shared)), GM_RET_NOENT);
	cr_assert_eq(wrong(shared, 0, GM_BLOCK_PAGES, 3), 0);
	OK(gm_free(f.as, shared));
	forker_end(&f);
}

/* A call reads its arguments, and writes its results, as its thread would: without a lock that the serving needs. */
Test(inthread_with, arguments_that_are_away)
{
	struct gm_ws_range *range;
	struct gm_page_info *info;
	struct gm_residency *sum;
	struct gm_ws *ws;
	char *other = app_block_memory();

	inthread_begin(&f, NULL, NULL);
	OK(gm_adopt(f.as, other, BYTES, 0));
	to_device(&f, other, 4);
	atomic_store(&bus.served, 0);
	info = (struct gm_page_info *)(void *)f.at;
	OK(gm_query(f.as, GM_VA(other), PAGES, info));
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert_eq(info[i].place, GM_PLACE_DEVICE);
	cr_assert_gt(atomic_load(&bus.served), 0);
	to_device(&f, f.at, 2);
	OK(gm_query(f.as, GM_VA(other) + BLOCK, GM_BLOCK_PAGES, info)); /* ... of what nobody tracks, beside it */
	OK(gm_query(f.as, GM_VA(other) + 64 * BLOCK, PAGES, info));
	to_device(&f, f.at, 2);
	OK(gm_query_host(f.as, GM_VA(other), PAGES, info));
	to_device(&f, f.at, 2);
	sum = (struct gm_residency *)(void *)f.at;
	OK(gm_residency(f.as, GM_VA(other), BYTES, sum));
	cr_assert_eq(sum->outside_bytes, 0);
	range = (struct gm_ws_range *)(void *)(f.at + BLOCK);
	*range = (struct gm_ws_range){ .va = GM_VA(other), .bytes = BYTES, .access = GM_READ };
	OK(gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
	OK(gm_ws_acquire(f.ctx, range, 1, GM_FOREVER_NS, &ws));
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(wrong(other, 0, PAGES, 4), 0);
	forker_end(&f);
}

static atomic_bool passed;

static void *touch_and_say(void *arg)
{
	*(volatile char *)arg += 1;
	atomic_store(&passed, true);
	pthread_testcancel();
	return NULL;
}

/* An access is no cancellation point, though its thread waits in the library. */
Test(inthread_with, a_cancelled_thread)
{
	struct gm_as_config config = { .size = sizeof(config), .hold_ns = 60 * SECOND };
	struct gm_ws_range range;
	struct gm_ws *ws;
	pthread_t t;
	void *result;

	inthread_begin(&f, NULL, &config);
	range = (struct gm_ws_range){ .va = GM_VA(f.at), .bytes = BYTES, .access = GM_READ };
	OK(gm_ws_acquire(f.ctx, &range, 1, GM_FOREVER_NS, &ws));
	cr_assert_eq(pthread_create(&t, NULL, touch_and_say, f.at + 3 * PAGE), 0);
	usleep(100000);
	cr_assert_eq(pthread_cancel(t), 0);
	usleep(100000);
	cr_assert(!atomic_load(&passed));
	OK(gm_ws_release(ws, NULL));
	cr_assert_eq(pthread_join(t, &result), 0);
	cr_assert_eq(result, PTHREAD_CANCELED);
	cr_assert(atomic_load(&passed));
	forker_end(&f);
}

static char *in_fork;
static volatile uint64_t in_fork_wrong = 1;

static void look_before_fork(void)
{
	if (in_fork)
		in_fork_wrong = wrong(in_fork, 0, 200, 7);
}

/* In a fork handler of the program, while nothing may move to a device; and in a child that shares all memory. */
Test(inthread_with, fork_handlers_and_vfork)
{
	void *owned;
	int status;
	pid_t pid;

	cr_assert_eq(pthread_atfork(look_before_fork, NULL, NULL), 0); /* so it runs last */
	inthread_begin(&f, NULL, NULL);
	OK(gm_alloc(f.as, BLOCK, GM_MEM_INTHREAD, &owned));
	dev_fill(f.ctx, GM_VA(owned), GM_BLOCK_PAGES, 7);
	in_fork = owned;
	cr_assert(exited(child_reads(f.at, 0, PAGES, 2), 0));
	cr_assert_eq(in_fork_wrong, 0);
	in_fork = NULL;
	in_fork_wrong = 1;
	dev_fill(f.ctx, GM_VA(owned), GM_BLOCK_PAGES, 8);
	atomic_store(&bus.served, 0);
	pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
	if (!pid) {
		in_fork_wrong = wrong(owned, 5, 6, 8); // NOLINT(clang-analyzer-unix.Vfork)
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(exited(status, 0));
	cr_assert_eq(in_fork_wrong, 0);
	cr_assert_eq(atomic_load(&bus.served), 1);
	cr_assert_eq(wrong(owned, 0, GM_BLOCK_PAGES, 8), 0);
	forker_end(&f);
}

/* Nobody watched, so nobody was told; what raises the signal now is not ours, and comes to an end. */
Test(inthread_with, a_file_at_its_address)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
	cr_assert(fd >= 0 && !ftruncate(fd, (off_t)PAGE));
	cr_assert_eq(mmap(f.at, BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0), f.at);
	IS(touch(f.at, false), GM_RET_SUCCESS);
	IS(touch(f.at + 5 * PAGE, false), GM_RET_NOENT);
	IS(touch(f.at + BLOCK + 5 * PAGE, false), GM_RET_NOENT);
	OK(gm_release(f.as, f.at, BYTES));
	IS(touch(f.at + 5 * PAGE, false), GM_RET_NOENT);
	close(fd);
	forker_end(&f);
}

static void *touch_strange(void *arg)
{
	*(volatile char *)arg = 1;
	return NULL;
}

/* It keeps what it has, and we say so when we are asked, not later. */
Test(inthread_with, another_userfaultfd)
{
	struct gm_host_way way = { GM_HOST_DOOR_CALL | GM_HOST_DOOR_DEVICE, GM_HOST_FEATURES_APP };
	struct gm_uffd_msg msg;
	pthread_t t;
	uint64_t ioctls;
	int fd;

	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	OK(gm_host_open(&way, &fd));
	cr_assert_eq(gm_uffd_register(fd, GM_VA(f.at) + BLOCK, BLOCK, &ioctls), 0);
	IS(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD), GM_RET_BUSY);
	cr_assert(!is_inthread(&f, f.at));
	cr_assert_eq(pthread_create(&t, NULL, touch_strange, f.at + BLOCK), 0);
	while (read(fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
		usleep(1000);
	cr_assert_eq(msg.event, GM_UFFD_EVENT_PAGEFAULT);
	cr_assert_eq(gm_uffd_zeropage(fd, GM_VA(f.at) + BLOCK, PAGE), PAGE);
	cr_assert_eq(pthread_join(t, NULL), 0);
	OK(gm_adopt(f.as, f.at, BLOCK, GM_MEM_INTHREAD));
	dev_fill(f.ctx, GM_VA(f.at), GM_BLOCK_PAGES, 3);
	cr_assert_eq(wrong(f.at, 0, GM_BLOCK_PAGES, 3), 0);
	close(fd);
	forker_end(&f);
}

static atomic_bool enough;

static void *look_all_the_time(void *arg)
{
	uint64_t *bad = arg;

	while (!atomic_load(&enough))
		*bad += wrong(f.at, 0, GM_BLOCK_PAGES, 2) + nonzero(f.at, GM_BLOCK_PAGES, PAGES);
	return NULL;
}

/* An access that was made before the memory is given back, whose signal comes after: it is made again. */
Test(inthread_with, given_back_while_it_is_read)
{
	pthread_t t[2];
	uint64_t bad[2] = { 0 };
	gm_ret_t ret;

	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	fill(f.at, 0, GM_BLOCK_PAGES, 2);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, look_all_the_time, &bad[i]), 0);
	for (unsigned round = 0; round < 300; round++) {
		OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
		ret = gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL);
		cr_assert(!ret || ret == GM_RET_BUSY, "some was served just now");
		OK(gm_discard(f.as, GM_VA(f.at) + BLOCK, BLOCK));
		OK(gm_release(f.as, f.at, BYTES));
	}
	atomic_store(&enough, true);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(pthread_join(t[i], NULL), 0);
	cr_assert_eq(bad[0] + bad[1], 0);
	forker_end(&f);
}
