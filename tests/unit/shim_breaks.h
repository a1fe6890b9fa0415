/* SPDX-License-Identifier: MIT */
/* How the toy of shim_toy.h misbehaves: set by a test, looked at by the toy. */
#ifndef SHIM_BREAKS_H
#define SHIM_BREAKS_H

#include <gmem/validate.h>

/* Other ways to break a rule, behind the rules themselves. */
enum toy_other {
	TOY_ENTER_MOST = GM_RULES + 1, /* ENTER_LOST: of the last page only */
	TOY_REMOVE_FAILED,             /* FAILED_EFFECT: a remove that fails */
	TOY_PROTECT_MOVED,             /* PROTECT_HOLE: the page is another one */
	TOY_PROTECT_GROWS,             /* WRITE_ALLOWED: takes no right away */
	TOY_STALE_RIGHT,               /* WRITE_ALLOWED: invalidation leaves the right to write */
	TOY_ENTER_CLEARS,              /* HARVEST_LOST: what is mapped and entered again */
	TOY_INVL_CUT,                  /* CUT: tlb_invl unmaps */
	TOY_COPY_HOME,                 /* COPY_BYTES: to the host */
	TOY_SIGNAL_LATE,               /* SIGNAL_FAILED: after the call returned */
	TOY_STEP_UNLISTED,             /* STEP_RET: a result that the operation does not list */
	TOY_STEP_CANCELED,             /* STEP_RET: CANCELED, but nothing failed */
	TOY_PLAN_STALE,                /* STALE: in a plan */
	TOY_PLAN_LOST,                 /* ENTER_LOST: in a plan */
	TOY_PLAN_COPY,                 /* COPY_BYTES: in a plan */
	TOY_FAULT_TOUCHED,             /* OUT_TOUCHED: fault_next says AGAIN */
	TOY_SYNC_TOUCHED,              /* OUT_TOUCHED: sync_create fails */
	TOY_INIT_TOUCHED,              /* OUT_TOUCHED: dev_init fails */
	TOY_INIT_LEAK,                 /* LEAK: dev_init fails */
	TOY_READY_LOCKED,              /* CALL_LOCKED: fault_ready */
	TOY_QUEUE_UNMADE,              /* LOCK_UNMADE: wake */
	TOY_QUEUE_LEFT,                /* LOCK_LEFT */
	TOY_FD_INHERITED,              /* SYNC_FD: not close-on-exec */
	TOY_RESULT,                    /* + number of an operation: it returns EXIST */
};

/* How the one device of a test misbehaves: a rule, or one of toy_other. */
static int toy_breaks;
static bool toy_fails; /* the next operation that can fails with NOMEM */
static uint64_t toy_clock_ns;
static uint32_t toy_no_caps; /* capabilities that it does not announce */
static bool toy_defers;      /* fences are signalled by the next enter */
static void *toy_leaked;

static inline bool breaks(int how)
{
	return toy_breaks == how;
}

static inline bool fails(void)
{
	bool now = toy_fails;

	toy_fails = false;
	return now;
}

#endif
