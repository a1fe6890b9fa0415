/* SPDX-License-Identifier: MIT */
/* Fences inside the library: made on an environment rather than an instance. Public face: gmem/fence.h. */
#ifndef GM_HAL_FENCE_H
#define GM_HAL_FENCE_H

#include <gmem/fence.h>

#include "hal/gm_env.h"

/* One reference; NULL when out of memory. Unknown to the public functions: the library's own. */
struct gm_fence *gm_fence_new(struct gm_env *env);

/* Make it known to them, with its one reference, before the public gets it. SUCCESS, NOMEM. */
gm_ret_t gm_fence_publish(struct gm_fence *fence);

/*
 * What gm_fence_get(), gm_fence_put() and gm_fence_signal() do, for a fence that is certain to live; unref
 * takes NULL too.
 */
struct gm_fence *gm_fence_ref(struct gm_fence *fence);
void gm_fence_unref(struct gm_fence *fence);
/* True if this call decided the result, which is no other than those of gm_ret_t. */
bool gm_fence_finish(struct gm_fence *fence, gm_ret_t result);

/* As gm_fence_wait() with an absolute deadline on the environment's clock. */
gm_ret_t gm_fence_wait_until(struct gm_fence *fence, uint64_t deadline_ns);

/* Was it made on this environment? */
bool gm_fence_is_on(struct gm_fence *fence, struct gm_env *env);

/* True once it is done. */
bool gm_fence_done(struct gm_fence *fence);

/*
 * Call fn(arg, result) once, when the fence is done: at once if it is done
 * already, else by the thread that signals, with no lock held. SUCCESS, NOMEM.
 */
gm_ret_t gm_fence_on_done(struct gm_fence *fence, void (*fn)(void *arg, gm_ret_t result), void *arg);

#endif
