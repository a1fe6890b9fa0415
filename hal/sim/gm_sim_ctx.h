/* SPDX-License-Identifier: MIT */
/*
 * The bare switch between two stacks, and what the checkers must be told about
 * it. On x86-64 and AArch64 it saves just the registers that a function call
 * preserves (swapcontext() makes a system call per switch); elsewhere it is
 * ucontext.
 *
 *     init --switch to--> running --switch away--> saved --switch to--> running
 *     running --leave--> gone (its stack may be used again, after init)
 */
#ifndef GM_SIM_CTX_H
#define GM_SIM_CTX_H

#include <stdbool.h>
#include <stddef.h>

/* May be set to 1 from outside, to try it where it is not needed. */
#ifndef GM_SIM_CTX_UCONTEXT
#if defined(__x86_64__) || defined(__aarch64__)
#define GM_SIM_CTX_UCONTEXT 0
#else
#define GM_SIM_CTX_UCONTEXT 1
#endif
#endif
#if GM_SIM_CTX_UCONTEXT
#include <ucontext.h>
#endif

/* A stack: `bytes` at `base`, below it a page that cannot be touched. */
struct gm_sim_stack {
	char *base;
	size_t bytes;
	size_t map_bytes; /* with the guard */
	unsigned valgrind_id;
	struct gm_sim_stack *next; /* in the list of free ones */
};

struct gm_sim_ctx {
#if GM_SIM_CTX_UCONTEXT
	ucontext_t uc;
#else
	void *sp;
#endif
	const void *bottom; /* of its stack, for the address sanitizer */
	size_t bytes;
	void *fake; /* the address sanitizer's shadow frames */
};

/* NULL when there is no memory. */
struct gm_sim_stack *gm_sim_stack_create(void);
void gm_sim_stack_destroy(struct gm_sim_stack *stack);

/* The first switch to `ctx` calls fn(arg), which begins with gm_sim_ctx_started() and never returns. */
void gm_sim_ctx_init(struct gm_sim_ctx *ctx, struct gm_sim_stack *stack, void (*fn)(void *arg), void *arg);
/* Go on with `to`; returns when somebody switches to `from`. With `leave` nobody ever will. */
void gm_sim_ctx_switch(struct gm_sim_ctx *from, struct gm_sim_ctx *to, bool leave);
/* `from`: who made the first switch. */
void gm_sim_ctx_started(struct gm_sim_ctx *from);

#endif
