/* SPDX-License-Identifier: MIT */
/*
 * The lock rank checker: which locks a thread (or a coroutine) holds, in the
 * order in which it took them.
 *
 *     push(rank > top)   -> held
 *     push(rank <= top)  -> failure: two threads that do this in opposite
 *                           orders could block each other for ever
 *     pop(held)          -> gone, in any order
 *     pop(not held)      -> failure
 *
 * The environments call it only with GM_ENABLE_CHECKS. The state is an
 * argument, so that each coroutine of a simulation has its own. A failure is
 * a bug of the library: it goes to `fail`, or, where that is NULL, to stderr
 * and abort(). If `fail` returns, the call goes on as if it had been legal.
 */
#ifndef GM_HAL_RANK_H
#define GM_HAL_RANK_H

#include "hal/gm_env.h"

/* Ranks rise strictly, so nobody can hold more locks than there are ranks. */
#define GM_RANK_DEPTH 8u

struct gm_rank_stack {
	unsigned n;
	const struct gm_mutex *held[GM_RANK_DEPTH];
	enum gm_rank rank[GM_RANK_DEPTH];
	void (*fail)(void *arg, const char *message);
	void *fail_arg;
};

/* A constant string such as "BLOCK"; "?" for anything else. */
const char *gm_rank_name(enum gm_rank rank);

/* `m` is about to be taken (before, so that a deadlock is reported rather than reached). */
void gm_rank_push(struct gm_rank_stack *stack, const struct gm_mutex *m, enum gm_rank rank);

/* `m` is about to be given back. */
void gm_rank_pop(struct gm_rank_stack *stack, const struct gm_mutex *m);

/* `m`, and nothing else, is held: the condition for waiting with it. */
void gm_rank_assert_only(struct gm_rank_stack *stack, const struct gm_mutex *m);

/* Nothing is held; `where` is named in the message. */
void gm_rank_assert_none(struct gm_rank_stack *stack, const char *where);

#endif
