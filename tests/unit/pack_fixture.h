/* SPDX-License-Identifier: MIT */
/* For tests of packed blocks: how many there are, and pauses long enough for all that is fit. */
#ifndef GM_TEST_PACK_FIXTURE_H
#define GM_TEST_PACK_FIXTURE_H

#include "core_fixture.h"

#include "core/gm_events.h"
#include "core/gm_work.h"

#define IDLE (3 * SECOND)
#define BIG "mock:vram=64M"

static inline uint64_t packed(struct world *w)
{
	return atomic_load(&w->as->pack.count);
}

/* Long enough for all that is fit. */
static inline void rest(struct world *w)
{
	gm_sim_sleep_ns(w->sim, IDLE);
}

#endif
