/* SPDX-License-Identifier: MIT */
/* The default policy; see gm_policy_lru.c. */
#ifndef GM_CORE_POLICY_LRU_H
#define GM_CORE_POLICY_LRU_H

#include <gmem/policy.h>

/* The caller's table, completed by defaults. SUCCESS, INVAL (wrong size). */
gm_ret_t gm_policy_complete(struct gm_policy *out, const struct gm_policy *in);

#endif
