/* SPDX-License-Identifier: MIT */
/*
 * For tests of memory whose faults are served in the thread that faults: a library on this machine's real host
 * with a mock device, BYTES of such memory that are on it, and a handler of SIGBUS as a program would have it.
 *
 *     access --SIGBUS--> gm_inthread_serve() --SUCCESS--> counted, again
 *                                            '--else--> `last` says why, and touch() tells the test; else SIGBUS kills
 */
#ifndef GM_TEST_INTHREAD_FIXTURE_H
#define GM_TEST_INTHREAD_FIXTURE_H

#include <setjmp.h>

#include "fork_fixture.h"

static struct {
	struct gm_as *as;
	atomic_uint served; /* in signal handlers */
	atomic_int last;    /* what was not SUCCESS */
} bus;
static _Thread_local sigjmp_buf bus_jump;
static _Thread_local bool bus_armed;

static inline void on_sigbus(int sig, siginfo_t *info, void *context)
{
	gm_ret_t ret = gm_inthread_serve(bus.as, GM_VA(info->si_addr));

	(void)context;
	if (!ret) {
		atomic_fetch_add(&bus.served, 1);
		return;
	}
	atomic_store(&bus.last, ret);
	if (bus_armed)
		siglongjmp(bus_jump, 1);
	(void)signal(sig, SIG_DFL);
}

/* An access; GM_RET_SUCCESS, or why it failed. */
static inline gm_ret_t touch(char *at, bool write)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	bus_armed = true;
	if (sigsetjmp(bus_jump, 1))
		ret = (gm_ret_t)atomic_load(&bus.last);
	else if (write)
		*(volatile char *)at = *(volatile char *)at;
	else
		(void)*(volatile char *)at;
	bus_armed = false;
	return ret;
}

static inline void catch_sigbus(struct gm_as *as)
{
	struct sigaction on = { .sa_flags = SA_SIGINFO | SA_ONSTACK };

	bus.as = as;
	on.sa_sigaction = on_sigbus;
	cr_assert_eq(sigaction(SIGBUS, &on, NULL), 0);
}

static inline void lib_begin(struct forker *f, const char *dev, const struct gm_as_config *config)
{
	struct gm_lib_config lc = { .size = sizeof(lc), .log = forker_log, .log_level = GM_LOG_WARN };
	gm_ret_t ret = gm_lib_create(&lc, &f->lib);

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	alarm(300);
	OK(gm_dev_open(f->lib, dev ? dev : "mock:vram=32M", &f->dev));
	OK(gm_as_create(f->lib, 0, 0, config, &f->as));
	OK(gm_as_attach(f->as, f->dev, GM_ATTACH_IDENTITY, NULL, &f->ctx));
	catch_sigbus(f->as);
}

/* BYTES are on the device, with salt 2. */
static inline void inthread_begin(struct forker *f, const char *dev, const struct gm_as_config *config)
{
	lib_begin(f, dev, config);
	f->at = app_block_memory();
	OK(gm_adopt(f->as, f->at, BYTES, GM_MEM_INTHREAD));
	to_device(f, f->at, 2);
}

static inline struct gm_stats counters_of(struct forker *f)
{
	struct gm_stats s;

	OK(gm_as_stats(f->as, &s));
	return s;
}

static inline bool is_inthread(struct forker *f, const char *at)
{
	struct gm_page_info info;

	OK(gm_query(f->as, GM_VA(at), 1, &info));
	return info.flags & GM_PAGE_INTHREAD;
}

/* read(2) of a byte to there, as of a program that was told nothing: errno or 0. */
static inline int kernel_writes(char *at)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), err = 0;

	cr_assert_geq(fd, 0);
	if (read(fd, at, 1) != 1)
		err = errno;
	close(fd);
	return err;
}

#endif
