/* SPDX-License-Identifier: MIT */
/* What happens around fork(); see gm_fork.c. */
#ifndef GM_CORE_FORK_H
#define GM_CORE_FORK_H

#include "core/gm_as.h"

/* Before, and after in the parent; the argument is the space. */
gm_ret_t gm_fork_freeze(void *as);
void gm_fork_thaw(void *as);

#endif
