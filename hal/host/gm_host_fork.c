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
 * A freeze that fails is logged, and the fork goes on, as it cannot be
 * stopped. A child never uses its parent's pmaps: their memory may not even be
 * there, so their entries are forgotten without a look at them, and their
 * descriptors stay open there until exec or exit.
 */
#include "config.h"

#include "hal/host/gm_host_internal.h"

#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, gm_host_pmap) registry = LIST_HEAD_INITIALIZER(registry);

static void prepare(void)
{
	struct gm_host_pmap *p;

	pthread_mutex_lock(&registry_lock);
	LIST_FOREACH(p, &registry, link) {
		gm_ret_t ret = p->freeze(p->fork_arg);

		p->frozen = ret == GM_RET_SUCCESS;
		if (ret)
			gm_log(p->env, GM_LOG_ERROR, "fork: memory could not be brought home (%s): the child lacks it",
			       gm_ret_name(ret));
	}
}

static void parent(void)
{
	struct gm_host_pmap *p;

	LIST_FOREACH(p, &registry, link) {
		if (p->frozen)
			p->thaw(p->fork_arg);
		p->frozen = false;
	}
	pthread_mutex_unlock(&registry_lock);
}

static void child(void)
{
	LIST_INIT(&registry);
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
