/* SPDX-License-Identifier: MIT */
/*
 * Short reads of something that rarely changes, by many threads at once.
 *
 * Who reads takes a place near where it runs, so that readers do not take a line from each other; who changes holds
 * a lock of its own besides, and waits until all places are free. A reader does not wait: while somebody changes, or
 * where no place is free, it is refused, and takes that lock.
 *
 *     reader:  place taken --nobody changes--> reads --> place free
 *                          --somebody does--> place free, refused
 *     writer:  (lock) flag up --all places free--> changes --> flag down (unlock)
 *
 * A place has one owner: who finds it taken leaves it as it is and goes to the next. So giving it back is a plain
 * store, and reading costs one locked instruction.
 *
 * Both the reader's place and the writer's flag are raised before the other's is looked at, so at least one of them
 * sees the other. A reader waits for no lock (it may try one, gm_trylock()) and switches nowhere in between; in
 * simulation all places are therefore always free.
 */
#ifndef GM_HAL_READERS_H
#define GM_HAL_READERS_H

#include <sched.h>
#include <stdatomic.h>

#include "hal/gm_env.h"

#define GM_READERS_PLACES 8

struct gm_readers {
	struct {
		char before[64]; /* nothing that others read lies in the same line */
		atomic_bool taken;
		char behind[63];
	} place[GM_READERS_PLACES];
	atomic_bool changing;
};

/* The place; NULL: refused. */
static inline atomic_bool *gm_readers_enter(struct gm_env *env, struct gm_readers *r)
{
	unsigned near = gm_env_cpu(env);

	for (unsigned i = 0; i < GM_READERS_PLACES; i++) {
		atomic_bool *taken = &r->place[(near + i) % GM_READERS_PLACES].taken;

		if (atomic_exchange(taken, true)) /* was taken, and stays so: its owner has yet to give it back */
			continue;
		if (!atomic_load(&r->changing))
			return taken;
		atomic_store_explicit(taken, false, memory_order_release);
		break;
	}
	return NULL;
}

static inline void gm_readers_leave(atomic_bool *taken)
{
	atomic_store_explicit(taken, false, memory_order_release);
}

/* The caller has the lock of those who change. A reader may have lost its CPU: it gets ours after a while. */
static inline void gm_readers_keep_out(struct gm_readers *r)
{
	atomic_store(&r->changing, true);
	for (unsigned i = 0; i < GM_READERS_PLACES; i++)
		for (unsigned spins = 0; atomic_load(&r->place[i].taken);)
			if (++spins > 64)
				(void)sched_yield();
}

static inline void gm_readers_let_in(struct gm_readers *r)
{
	atomic_store(&r->changing, false);
}

#endif
