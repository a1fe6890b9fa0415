/* SPDX-License-Identifier: MIT */
/*
 * Lock rank checker; states and failures: see gm_rank.h. It allocates nothing
 * and takes no lock, because it runs inside every gm_lock() of a checked build.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hal/gm_rank.h"

const char *gm_rank_name(enum gm_rank rank)
{
	switch (rank) {
	case GM_RANK_LIB:
		return "LIB";
	case GM_RANK_AS:
		return "AS";
	case GM_RANK_BLOCK:
		return "BLOCK";
	case GM_RANK_NODE:
		return "NODE";
	case GM_RANK_QUEUE:
		return "QUEUE";
	case GM_RANK_FENCE:
		return "FENCE";
	case GM_RANK_LEAF:
		return "LEAF";
	}
	return "?";
}

/* Aborts, in checked builds only. Any build does where a backend breaks a rule and GM_VALIDATE_ABORT asks for it (gm_call.c). */
static void __attribute__((format(printf, 2, 3))) rank_fail(struct gm_rank_stack *stack, const char *fmt, ...)
{
	char message[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (stack->fail) {
		stack->fail(stack->fail_arg, message);
		return;
	}
	dprintf(STDERR_FILENO, "gmem: %s\n", message);
	abort();
}

static enum gm_rank top_rank(const struct gm_rank_stack *stack)
{
	return stack->rank[stack->n - 1];
}

void gm_rank_push(struct gm_rank_stack *stack, const struct gm_mutex *m, enum gm_rank rank)
{
	if (stack->n > 0 && rank <= top_rank(stack))
		rank_fail(stack, "lock order: rank %s taken while rank %s is held", gm_rank_name(rank),
			  gm_rank_name(top_rank(stack)));
	if (stack->n == GM_RANK_DEPTH) {
		rank_fail(stack, "lock order: more than %u locks held", GM_RANK_DEPTH);
		return;
	}
	stack->held[stack->n] = m;
	stack->rank[stack->n] = rank;
	stack->n++;
}

void gm_rank_pop(struct gm_rank_stack *stack, const struct gm_mutex *m)
{
	unsigned i = stack->n;

	while (i > 0 && stack->held[i - 1] != m)
		i--;
	if (i == 0) {
		rank_fail(stack, "unlock of a lock that is not held");
		return;
	}
	for (; i < stack->n; i++) {
		stack->held[i - 1] = stack->held[i];
		stack->rank[i - 1] = stack->rank[i];
	}
	stack->n--;
}

void gm_rank_assert_only(struct gm_rank_stack *stack, const struct gm_mutex *m)
{
	if (stack->n == 0)
		rank_fail(stack, "wait with a lock that is not held");
	for (unsigned i = 0; i < stack->n; i++) {
		if (stack->held[i] != m)
			rank_fail(stack, "wait while another lock of rank %s is held", gm_rank_name(stack->rank[i]));
	}
}

void gm_rank_assert_none(struct gm_rank_stack *stack, const char *where)
{
	if (stack->n > 0)
		rank_fail(stack, "%s: called while rank %s is held", where, gm_rank_name(top_rank(stack)));
}
