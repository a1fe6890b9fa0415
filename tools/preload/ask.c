/* SPDX-License-Identifier: MIT */
/*
 * Asking the server.
 *
 *     FREE --a thread takes it--> FILLING --> POSTED --the server answers--> DONE --the thread has read it--> FREE
 *
 * The table is static: what is asked with must never be in managed memory. A thread asks with all signals blocked, so
 * no handler runs between, and none leaves by longjmp() with an entry taken. When every entry is taken others wait for
 * one. A process without a server (a child that the C library did not make, so nobody told it) notices by its id.
 */
#include "config.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define ASKS 64
#define LOOK_AGAIN_SECONDS 1

enum { FREE, FILLING, POSTED, DONE };

struct ask {
	_Atomic uint32_t state;
	enum gm_exec_op op;
	uint64_t a, b, c, answer;
} __attribute__((aligned(64)));

static struct ask asks[ASKS];
static _Atomic uint32_t posted;
static int kick_fd = -1;

int gm_exec_ask_init(void)
{
	kick_fd = gm_exec_fd_high(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	return kick_fd;
}

bool gm_exec_is_live(void)
{
	return atomic_load_explicit(&gm_exec.live, memory_order_relaxed) && (int)syscall(SYS_getpid) == gm_exec.pid;
}

static struct ask *take(void)
{
	for (;;) {
		for (unsigned i = 0; i < ASKS; i++) {
			uint32_t is = FREE;

			if (atomic_compare_exchange_strong(&asks[i].state, &is, FILLING))
				return &asks[i];
		}
		(void)sched_yield();
	}
}

/* False: there is no server here. */
static bool wait_for(struct ask *ask)
{
	struct timespec bound = { .tv_sec = LOOK_AGAIN_SECONDS };

	while (atomic_load(&ask->state) != DONE) {
		(void)syscall(SYS_futex, &ask->state, FUTEX_WAIT_PRIVATE, POSTED, &bound, NULL, 0);
		if (atomic_load(&ask->state) != DONE && !gm_exec_is_live())
			return false;
	}
	return true;
}

uint64_t gm_exec_ask(enum gm_exec_op op, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t one = 1, answer = 0, signals;
	int err = errno;
	struct ask *ask;

	if (!gm_exec_is_live())
		return 0;
	signals = gm_raw_block_signals();
	ask = take();
	ask->op = op;
	ask->a = a;
	ask->b = b;
	ask->c = c;
	atomic_store(&ask->state, POSTED);
	atomic_fetch_add(&posted, 1);
	/* fails only when the counter is full: then the server is awake */
	(void)syscall(SYS_write, kick_fd, &one, sizeof(one));
	if (wait_for(ask))
		answer = ask->answer;
	atomic_store(&ask->state, FREE);
	gm_raw_restore_signals(signals);
	errno = err;
	return answer;
}

void gm_exec_ask_serve(uint64_t (*answer)(enum gm_exec_op op, uint64_t a, uint64_t b, uint64_t c))
{
	if (!atomic_load(&posted))
		return;
	for (unsigned i = 0; i < ASKS; i++) {
		struct ask *ask = &asks[i];

		if (atomic_load(&ask->state) != POSTED)
			continue;
		atomic_fetch_sub(&posted, 1);
		ask->answer = answer(ask->op, ask->a, ask->b, ask->c);
		atomic_store(&ask->state, DONE);
		(void)syscall(SYS_futex, &ask->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}
