/* SPDX-License-Identifier: MIT */
/*
 * An access of the process that somebody else may have to serve: a program may have registered memory with a
 * userfaultfd of its own, and fills a page when it is touched. Over the bus nobody touches it (gm_host_bus.c), and who
 * does so in a thread of the process waits for as long as the program likes. So a child touches it, which can be ended:
 *
 *     child made --MADV_POPULATE: as if the page was touched--> done, or refused --exits--> reaped --> SUCCESS, FAULT
 *                                 '--nobody fills it; deadline--> SIGKILL -------> reaped --> TIMEDOUT
 *
 * It shares the memory, so what it waits for is this process's; it is no thread, so it can be killed alone: the
 * kernel's wait for a userfaultfd ends by that. The page is filled all the same if the program had read of it, and is
 * there when the next one comes.
 *
 * Nobody else is to notice it. It has no signal of its end, so that a wait() of the program does not see it, and all
 * others blocked, so that it runs no handler; it has no descriptors of its own to keep open; it ends with the thread
 * that waits for it. Nothing in it may fail by a signal, or write where the C library has things of a thread, which
 * it shares with the one that waits: it does system calls, and of errno, which these write, the waiting one makes no use
 * before it has put the old value back. Its end is told by the word that the kernel clears (CLONE_CHILD_CLEARTID),
 * as for a thread: a descriptor could be closed by the program.
 *
 * If the program reaps it (__WALL), that is its end as well.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POPULATE_READ 22 /* Linux 5.14 */
#define POPULATE_WRITE 23
#define STACK_BYTES 16384
#define SLICE_NS 100000000

struct bring {
	uint64_t va;
	bool write;
	pid_t parent;
	int tid; /* the kernel clears it when the child is at its end */
	int err; /* EINTR: it did not come so far */
	_Alignas(16) char stack[STACK_BYTES];
};

#if defined(__has_attribute)
#if __has_attribute(no_sanitize)
#define PLAIN __attribute__((no_sanitize("address", "thread", "undefined")))
#endif
#endif
#ifndef PLAIN
#define PLAIN
#endif

/* In the child. */
PLAIN static int touch(void *arg)
{
	struct bring *g = arg;
	int advice = g->write ? POPULATE_WRITE : POPULATE_READ;

	(void)syscall(SYS_prctl, PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L);
	if (syscall(SYS_getppid) != g->parent)
		return 1;
	__atomic_store_n(&g->err, syscall(SYS_madvise, g->va, (size_t)GM_PAGE_BYTES, advice) ? errno : 0, __ATOMIC_RELEASE);
	return 0;
}

static bool start(struct bring *g, pid_t *pid)
{
	sigset_t all, old;

	sigfillset(&all);
	if (pthread_sigmask(SIG_SETMASK, &all, &old))
		return false;
	*pid = clone(touch, g->stack + sizeof(g->stack),
		     CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED | CLONE_CHILD_CLEARTID, g, NULL, NULL, &g->tid);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return *pid > 0;
}

/* True: it has ended. Whatever the call says: errno is not to be trusted here. */
static bool wait_end(struct bring *g, struct gm_env *env, uint64_t deadline_ns)
{
	while (__atomic_load_n(&g->tid, __ATOMIC_ACQUIRE)) {
		uint64_t now_ns = gm_now_ns(env), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
		struct timespec ts = { .tv_nsec = left_ns < SLICE_NS ? (long)left_ns : SLICE_NS };

		if (!left_ns)
			return false;
		(void)syscall(SYS_futex, &g->tid, FUTEX_WAIT, 1, &ts, NULL, 0);
	}
	return true;
}

/* Its memory is used no more when this returns. A process that was killed in such a wait ends at once. */
static void reap(struct bring *g, pid_t pid, bool ended)
{
	siginfo_t info;

	/* Still ours? Else its number may be another's. */
	if (!ended && !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL))
		(void)kill(pid, SIGKILL);
	while (__atomic_load_n(&g->tid, __ATOMIC_ACQUIRE))
		(void)syscall(SYS_futex, &g->tid, FUTEX_WAIT, 1, NULL, NULL, 0);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | __WALL) && errno == EINTR)
		;
}

static gm_ret_t result_of(int err, bool ended)
{
	switch (err) {
	case 0:
		return GM_RET_SUCCESS;
	case EINTR:
		return ended ? GM_RET_NOTSUP : GM_RET_TIMEDOUT;
	default: /* EINVAL as well: it may not be accessed so (or Linux before 5.14) */
		return GM_RET_FAULT;
	}
}

gm_ret_t gm_host_bus_bring(void *dev, uint64_t va, bool write, uint64_t deadline_ns)
{
	struct gm_host_dev *d = dev;
	struct bring *g = gm_mem_alloc(d->env, sizeof(*g));
	int err = errno, said;
	bool ended;
	pid_t pid;

	if (!g)
		return gm_fail(GM_RET_NOMEM, "no memory to wait for 0x%llx", (unsigned long long)va);
	g->va = va & ~(uint64_t)(GM_PAGE_BYTES - 1);
	g->write = write;
	g->parent = getpid();
	g->tid = 1;
	g->err = EINTR;
	if (!start(g, &pid)) {
		gm_mem_free(d->env, g, sizeof(*g));
		errno = err;
		return GM_RET_NOTSUP;
	}
	ended = wait_end(g, d->env, deadline_ns);
	reap(g, pid, ended);
	said = __atomic_load_n(&g->err, __ATOMIC_ACQUIRE);
	gm_mem_free(d->env, g, sizeof(*g));
	errno = err;
	return result_of(said, ended);
}
