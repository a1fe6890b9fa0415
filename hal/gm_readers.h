/* SPDX-License-Identifier: MIT */
/*
 * Short reads of something that rarely changes, by many threads at once.
 *
 * Who reads is counted where it runs, so that readers do not take a line from
 * each other; who changes holds a lock of its own besides, and waits until the
 * counts are zero. A reader does not wait: while somebody changes it is
 * refused, and takes that lock.
 *
 *     reader:  count + 1 --nobody changes--> reads --> count - 1
 *                        --somebody does--> count - 1, refused
 *     writer:  (lock) flag up --all counts 0--> changes --> flag down (unlock)
 *
 * Both the reader's count and the writer's flag are raised before the other's is
 * looked at, so at least one of them sees the other. A reader takes no lock and
 * switches nowhere in between; in simulation the counts are therefore always 0.
 */
#ifndef GM_HAL_READERS_H
#define GM_HAL_READERS_H

#include <sched.h>
#include <stdatomic.h>

#include "hal/gm_env.h"

#define GM_READERS_SHARDS 8

struct gm_readers {
	struct {
		char before[64]; /* nothing that others read lies in the same line */
		atomic_uint n;
		char behind[60];
	} shard[GM_READERS_SHARDS];
	atomic_bool changing;
};

/* NULL: refused. */
static inline atomic_uint *gm_readers_enter(struct gm_env *env, struct gm_readers *r)
{
	atomic_uint *n = &r->shard[gm_env_cpu(env) % GM_READERS_SHARDS].n;

	atomic_fetch_add(n, 1);
	if (!atomic_load(&r->changing))
		return n;
	atomic_fetch_sub(n, 1);
	return NULL;
}

static inline void gm_readers_leave(atomic_uint *n)
{
	atomic_fetch_sub_explicit(n, 1, memory_order_release);
}

/* The caller has the lock of those who change. A reader may have lost its CPU. */
static inline void gm_readers_keep_out(struct gm_readers *r)
{
	atomic_store(&r->changing, true);
	for (unsigned i = 0; i < GM_READERS_SHARDS; i++)
		for (unsigned spins = 0; atomic_load(&r->shard[i].n);)
			if (++spins > 64)
				(void)sched_yield();
}

static inline void gm_readers_let_in(struct gm_readers *r)
{
	atomic_store(&r->changing, false);
}

#endif
