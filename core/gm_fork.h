/* SPDX-License-Identifier: MIT */
/*
 * What happens around fork(); see gm_fork.c, gm_fork_policy.c, gm_fork_serve.c, and hal/host/gm_host_fork.c (the gate),
 * gm_host_child.c (the child's descriptor).
 *
 * What a child gets of a page that is on a device when the process forks, by what gm_fork_policy() says there:
 *
 *               it comes home, or is copied aside   it does neither (held by a set or a pin,   clone() without the
 *                                                   a device that fails, no memory)            handlers of fork()
 *     home      it, as ever                         SIGSEGV                                    zeros; SIGBUS in a space
 *     served    its bytes as of the fork            SIGSEGV; marked (SIGBUS) if only the       that serves
 *                                                   filling fails
 *     excluded  SIGSEGV                             SIGSEGV                                    SIGSEGV
 *
 * "SIGSEGV" is not inherited (MADV_DONTFORK), for one fork where it is not excluded (keep_block()). If not even marks
 * can be made the child ends by SIGBUS before it looks (the gate). What comes home does so by blocks: of one in which a
 * page is held, all that is away is not inherited. Children of a child that is being filled get what it has not yet.
 */
#ifndef GM_CORE_FORK_H
#define GM_CORE_FORK_H

#include "core/gm_as.h"

/* Before, and after in the parent; the argument is the space. */
gm_ret_t gm_fork_freeze(void *as);
void gm_fork_thaw(void *as);

/* What a child gets of the page at va, never DEFAULT; and *end, which comes as a limit: how far that is so. */
enum gm_fork gm_fork_policy_at(struct gm_as *as, uint64_t va, uint64_t *end);
/* The program said so; DEFAULT: nothing any more. SUCCESS, NOMEM (nothing changed). */
gm_ret_t gm_fork_set(struct gm_as *as, uint64_t va, uint64_t end, enum gm_fork policy);
/* Two looks that are the same, and not UINT64_MAX: no fork was under way between them. */
uint64_t gm_fork_look(struct gm_as *as);
/* The kernel hands on what the table says. */
void gm_fork_tell_kernel(struct gm_as *as, uint64_t va, uint64_t end);
/* Memory that has just become owned or adopted: the kernel hands it on as the space's default says. */
void gm_fork_begin_range(struct gm_as *as, uint64_t va, uint64_t end, bool owned);
/* Adopted memory that is the application's alone again: inherited. */
void gm_fork_end_adopted(struct gm_as *as, uint64_t va, uint64_t end);
/* The same for all, at the end of the space. */
void gm_fork_end_all(struct gm_as *as);

#endif
