/* SPDX-License-Identifier: MIT */
/*
 * Between shim and backend: the services that can fail, do when a test says so.
 *
 *     fail_service: 0 none; n: the n-th call from now of alloc, thread_start or fence_create fails, once
 *
 * It sits inside the shim, so that what the shim allocates for itself never fails. The table is the backend's own
 * but for dev_init(), which gives the backend changed services. There is one test per process, and the services'
 * first argument is the shim's, so what a test says is found through the one pointer below.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

static struct gm_ct *running; /* set once, by the thread that begins the test */
static struct gm_services outer;
static struct gm_mmu gap;

enum service {
	ALLOC,
	THREAD_START,
	FENCE_CREATE,
	SERVICES,
};

/* Is it this call's turn to fail? For messages it is counted by name as well. */
static bool turn(enum service service)
{
	static const char *const names[SERVICES] = { "alloc", "thread_start", "fence_create" };
	static _Atomic unsigned calls[SERVICES]; /* since the last one that failed */
	long n = atomic_load(&running->fail_service);

	while (n > 0) {
		if (!atomic_compare_exchange_weak(&running->fail_service, &n, n - 1))
			continue;
		atomic_fetch_add(&calls[service], 1);
		if (n > 1)
			return false;
		atomic_store(&running->failed_call, atomic_load(&calls[service]));
		atomic_store(&running->failed_name, names[service]);
		atomic_store(&running->failed_service, true);
		for (int i = 0; i < SERVICES; i++)
			atomic_store(&calls[i], 0);
		return true;
	}
	return false;
}

static void *gap_alloc(void *self, size_t bytes)
{
	return turn(ALLOC) ? NULL : outer.alloc(self, bytes);
}

static gm_ret_t gap_thread_start(void *self, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
				 struct gm_thread **thread)
{
	return turn(THREAD_START) ? GM_RET_AGAIN : outer.thread_start(self, name, flags, fn, arg, thread);
}

static struct gm_fence *gap_fence_create(void *self)
{
	return turn(FENCE_CREATE) ? NULL : outer.fence_create(self);
}

/*
 * The changed services live as long as the process: a backend may keep the pointer until dev_fini() has returned.
 * They differ between devices in `self` only.
 */
static gm_ret_t gap_dev_init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	static struct gm_services given[64];
	static unsigned n;
	struct gm_services *mine = &given[n++ % (sizeof(given) / sizeof(given[0]))];

	outer = *svc;
	*mine = *svc;
	mine->alloc = gap_alloc;
	mine->thread_start = gap_thread_start;
	mine->fence_create = gap_fence_create;
	return running->plugin->mmu->dev_init(dev_data, mine, caps, dev);
}

const struct gm_mmu *gm_ct_gap(struct gm_ct *t)
{
	const struct gm_mmu *mmu = t->plugin->mmu;

	running = t;
	memset(&gap, 0, sizeof(gap));
	memcpy(&gap, mmu, mmu->size < sizeof(gap) ? mmu->size : sizeof(gap));
	gap.size = sizeof(gap);
	gap.dev_init = gap_dev_init;
	return &gap;
}
