/* SPDX-License-Identifier: MIT */
/*
 * The server: one thread, with all signals blocked, that does everything there is to do with libgmem.
 *
 *     answer what is asked --> is there room on the host? make it --> serve one batch of the kernel's messages
 *              ^                                                              '-- none: sleep until there is
 *              '--------------------- every GM_EXEC_SAMPLE_NS: measure -----------------------'
 *
 * The space has no threads of its own (GM_AS_NO_THREADS): while room is made nobody brings a page. gm_migrate() and
 * the other calls handle events themselves while they wait for them.
 *
 * The break's memory: at the start its top is raised by a large step (heap.c), and what is new is adopted. When the C
 * library raises it again whoever sees it first asks (GM_EXEC_HEAP); that it fell is seen at the next measurement.
 */
#include "config.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define STACK_BYTES ((size_t)512 << 10)
#define SAMPLE_NS (UINT64_C(10) * 1000 * 1000)
/* Who was just served often faults again at once: a look is cheaper than a sleep. */
#define YIELDS 3
/* Who moves memory waits so long for it. */
#define ARRIVAL_ROUNDS 1000
#define ARRIVAL_NS (UINT64_C(1) * 1000 * 1000)

static int kick_fd, serve_fd;
static uint64_t sampled_ns;

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static gm_ret_t adopt(uint64_t va, uint64_t bytes)
{
	return gm_adopt(gm_exec.as, (void *)(uintptr_t)va, bytes, 0);
}

static gm_ret_t heap_adopt(void)
{
	uint64_t end = (uint64_t)syscall(SYS_brk, 0) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint64_t was = atomic_load(&gm_exec.heap_end);
	gm_ret_t ret = GM_RET_SUCCESS;

	if (end > was)
		ret = adopt(was, end - was);
	/* what the kernel took back told of itself */
	if (!ret && end != was)
		atomic_store(&gm_exec.heap_end, end > gm_exec.heap_va ? end : gm_exec.heap_va);
	return ret;
}

static uint64_t place(uint64_t bytes, uint64_t align, bool alloc)
{
	uint64_t va = gm_exec_window_place(bytes, align, alloc);

	/* not adopted is not lost: it is ordinary memory, and counted as such */
	if (va)
		(void)adopt(va, (bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1));
	return va;
}

static uint64_t grow(uint64_t va, uint64_t bytes, uint64_t want)
{
	uint64_t end = (va + bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	uint64_t to = (va + want + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);

	if (!gm_exec_window_grow(va, bytes, want))
		return 0;
	if (to > end)
		(void)adopt(end, to - end);
	return 1;
}

static uint64_t release(uint64_t va, uint64_t bytes)
{
	gm_ret_t ret;

	gm_exec_limit_make_way(bytes);
	ret = gm_release(gm_exec.as, (void *)(uintptr_t)va, bytes);

	return !ret || ret == GM_RET_NOENT;
}

/* Bytes that are not managed. */
static uint64_t outside(uint64_t va, uint64_t bytes)
{
	struct gm_residency r;

	return gm_residency(gm_exec.as, va, bytes, &r) ? 0 : r.outside_bytes;
}

/* What mremap() moved is there, and managed as far as it was: so it is counted. In time, or it comes by and by. */
static uint64_t arrived(uint64_t va, uint64_t bytes, uint64_t was_outside)
{
	for (unsigned i = 0; i < ARRIVAL_ROUNDS; i++) {
		if (outside(va, bytes) <= was_outside)
			return 1;
		gm_exec_limit_check();
		(void)gm_as_serve(gm_exec.as, ARRIVAL_NS);
	}
	return 0;
}

static uint64_t answer(enum gm_exec_op op, uint64_t a, uint64_t b, uint64_t c)
{
	switch (op) {
	case GM_EXEC_PLACE:
		return place(a, b, c);
	case GM_EXEC_SPACE:
		return gm_exec_window_space(a, b);
	case GM_EXEC_TAKEN:
		gm_exec_window_taken(a, b);
		return 1;
	case GM_EXEC_MAKE_WAY:
		gm_exec_limit_make_way(gm_exec_limit_absent(a, b));
		return outside(a, b);
	case GM_EXEC_ARRIVED:
		return arrived(a, b, c);
	case GM_EXEC_GROW:
		return grow(a, b, c);
	case GM_EXEC_FREED:
		gm_exec_window_freed(a, b);
		return 1;
	case GM_EXEC_ADOPT:
		return !adopt(a, b);
	case GM_EXEC_RELEASE:
		return release(a, b);
	case GM_EXEC_PROTECT:
		return 1 + (uint64_t)gm_exec_protect(a, b, (int)c);
	case GM_EXEC_HEAP:
		return !heap_adopt();
	case GM_EXEC_CLOSE:
		if (syscall(SYS_kcmp, syscall(SYS_gettid), (pid_t)c, KCMP_FILES, 0, 0) > 0) /* not where it is not to be had */
			return GM_EXEC_APART;
		return gm_exec_fds_close_range((unsigned)a, (unsigned)b, 0) ? (uint64_t)errno : 0;
	case GM_EXEC_PUBLISH:
		gm_exec_limit_sample();
		return 1;
	}
	return 0;
}

/* Nothing is to be done: sleep until there is, or it is time to measure. The longer nothing was, the longer. */
static void rest(unsigned idle)
{
	struct pollfd fds[] = { { serve_fd, POLLIN, 0 }, { kick_fd, POLLIN, 0 } };
	uint64_t kicks;

	if (idle <= YIELDS) {
		(void)sched_yield();
		return;
	}
	(void)poll(fds, 2, idle < 100 ? 2 : 10);
	if (fds[1].revents)
		(void)syscall(SYS_read, kick_fd, &kicks, sizeof(kicks));
}

static void *serve(void *arg)
{
	unsigned idle = 0;

	(void)arg;
	for (;;) {
		uint64_t now = now_ns();

		gm_exec_ask_serve(answer);
		if (now - sampled_ns >= SAMPLE_NS) {
			sampled_ns = now;
			if (atomic_load(&gm_exec.live))
				(void)heap_adopt();
			gm_exec_limit_sample();
		}
		gm_exec_limit_check();
		if (gm_as_serve(gm_exec.as, 0) == GM_RET_SUCCESS)
			idle = 0;
		else
			rest(++idle);
	}
	return NULL;
}

gm_ret_t gm_exec_server_start(void)
{
	uint64_t signals = gm_raw_block_signals();
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	kick_fd = gm_exec_ask_init();
	serve_fd = gm_as_fd(gm_exec.as);
	err = kick_fd < 0 || serve_fd < 0 ? errno : pthread_attr_init(&attr);
	if (!err) {
		err = pthread_attr_setstacksize(&attr, STACK_BYTES);
		if (!err)
			err = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		if (!err)
			err = pthread_create(&thread, &attr, serve, NULL);
		(void)pthread_attr_destroy(&attr);
	}
	gm_raw_restore_signals(signals);
	return err ? GM_RET_AGAIN : GM_RET_SUCCESS;
}
