/* SPDX-License-Identifier: MIT */
/*
 * Fork. A child has no userfaultfd for the pages that are away: it would read
 * zeros where there are data. So every pmap may have a pair of hooks: freeze
 * brings home what a child inherits, before the fork; thaw ends the freeze, in
 * the parent.
 *
 *     fork() in any thread: lock the registry, freeze each -> the kernel's fork
 *     parent: thaw those frozen, unlock      child: forget the registry, unlock
 *
 * pthread_atfork() knows no argument and cannot be undone, so this is the one
 * piece of state the library keeps for the process: the list of the pmaps that
 * asked, and its lock. It is empty as long as nobody asks. The lock is held
 * over the fork, so a pmap does not go away under it; freeze and thaw must not
 * call at_fork() or pmap_destroy(), nor wait for a thread that does.
 *
 * Children that are served (gm_host_child.c) are filled in thaw. Until then the
 * child waits, in its own fork handler: so no code of the program runs in it
 * that could see zeros, not even if this process dies meanwhile. For this the
 * two share a page, the gate:
 *
 *     prepare: a ticket is drawn   parent: thaw, then the ticket is done (or failed: child_fail())
 *     child: waits until its ticket is done; failed, or the parent is gone: SIGBUS
 *
 * There is one gate for the process, made at the first serve_forks() and never
 * given back. A child makes one of its own when it needs it.
 *
 * A freeze that fails is logged, and the fork goes on, as it cannot be
 * stopped. A child never uses its parent's pmaps: their memory may not even be
 * there, so their entries are forgotten without a look at them, and their
 * descriptors stay open there until exec or exit.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define GATE_FAILURES 64 /* remembered: a child that looks so much later ends, though its own fork was right */
#define GATE_LOOK_NS  20000000
#define GATE_LOOKS    3000 /* without a parent to look for: in another namespace of processes */

struct gate {
	atomic_uint done;		     /* tickets up to here */
	atomic_uint failed[GATE_FAILURES];   /* by ticket; 0: none */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, gm_host_pmap) registry = LIST_HEAD_INITIALIZER(registry);
/* (f), and what the child of this fork inherits */
static struct gate *gate;
static unsigned ticket; /* of this fork; 0: none */
static unsigned last_ticket;
static pid_t parent_pid;

static unsigned next_ticket(void)
{
	return ++last_ticket ? last_ticket : ++last_ticket;
}

static void open_gate(bool failed)
{
	if (failed)
		atomic_store(&gate->failed[ticket % GATE_FAILURES], ticket);
	atomic_store(&gate->done, ticket);
	(void)syscall(SYS_futex, &gate->done, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void prepare(void)
{
	struct gm_host_pmap *p;

	pthread_mutex_lock(&registry_lock);
	ticket = 0;
	LIST_FOREACH(p, &registry, link) {
		gm_ret_t ret = p->freeze(p->fork_arg);

		p->frozen = ret == GM_RET_SUCCESS;
		if (ret)
			gm_log(p->env, GM_LOG_ERROR, "fork: memory could not be brought home (%s): the child lacks it",
			       gm_ret_name(ret));
		if (p->serves && !ticket)
			ticket = next_ticket();
	}
	parent_pid = getpid();
}

static void parent(void)
{
	struct gm_host_pmap *p;
	bool failed = false;

	LIST_FOREACH(p, &registry, link) {
		p->failed = p->serves && !p->frozen;
		if (p->frozen)
			p->thaw(p->fork_arg);
		p->frozen = false;
		failed |= p->failed;
	}
	if (ticket)
		open_gate(failed);
	pthread_mutex_unlock(&registry_lock);
}

/* As an access to a page that is lost. */
static void end_by_sigbus(void)
{
	struct sigaction deadly = { .sa_handler = SIG_DFL };
	sigset_t set;

	sigaction(SIGBUS, &deadly, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(SIGBUS);
	_exit(128 + SIGBUS);
}

static bool parent_lives(unsigned looks)
{
	pid_t pid = getppid();

	return pid == parent_pid || (pid == 0 && looks < GATE_LOOKS);
}

/* False: what this child lacks will not come. */
static bool pass_gate(void)
{
	unsigned failed;

	for (unsigned looks = 0, done; (int)((done = atomic_load(&gate->done)) - ticket) < 0; looks++) {
		struct timespec ts = { 0, GATE_LOOK_NS };

		if (!parent_lives(looks) && (int)(atomic_load(&gate->done) - ticket) < 0)
			return false;
		(void)syscall(SYS_futex, &gate->done, FUTEX_WAIT, done, &ts, NULL, 0);
	}
	failed = atomic_load(&gate->failed[ticket % GATE_FAILURES]);
	return !failed || (int)(failed - ticket) < 0;
}

static void child(void)
{
	LIST_INIT(&registry);
	if (ticket && !pass_gate())
		end_by_sigbus();
	if (gate)
		munmap(gate, sizeof(*gate));
	gate = NULL;
	ticket = 0;
	pthread_mutex_unlock(&registry_lock);
}

static void install(void)
{
	once_error = pthread_atfork(prepare, parent, child);
}

void gm_host_at_fork(void *pmap, gm_ret_t (*freeze)(void *arg), void (*thaw)(void *arg), void *arg)
{
	struct gm_host_pmap *p = pmap;

	if (!freeze) {
		gm_host_fork_forget(p);
		return;
	}
	pthread_once(&once, install);
	if (once_error)
		gm_log(p->env, GM_LOG_ERROR, "pthread_atfork: error %d: a child will lack memory",
		       once_error);
	pthread_mutex_lock(&registry_lock);
	p->freeze = freeze;
	p->thaw = thaw;
	p->fork_arg = arg;
	if (!p->listed)
		LIST_INSERT_HEAD(&registry, p, link);
	p->listed = true;
	pthread_mutex_unlock(&registry_lock);
}

void gm_host_fork_forget(struct gm_host_pmap *p)
{
	pthread_mutex_lock(&registry_lock);
	if (p->listed)
		LIST_REMOVE(p, link);
	p->listed = false;
	pthread_mutex_unlock(&registry_lock);
}

gm_ret_t gm_host_fork_gate(void)
{
	pthread_mutex_lock(&registry_lock);
	if (!gate) {
		void *page = mmap(NULL, sizeof(*gate), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		gate = page == MAP_FAILED ? NULL : page;
		last_ticket = 0;
	}
	pthread_mutex_unlock(&registry_lock);
	return gate ? GM_RET_SUCCESS : gm_fail(GM_RET_NOMEM, "no memory for what a fork shares with its child");
}

void gm_host_child_fail(void *pmap)
{
	struct gm_host_pmap *p = pmap;

	p->failed = true;
}
