/* SPDX-License-Identifier: MIT */
/**
 * @file fence.h
 * @brief Completion of asynchronous work.
 *
 *     pending --signal(ret)--> done(ret)      (once; the first signal wins)
 *     pending --cancel-------> done(CANCELED)
 *
 * A fence is reference counted and keeps the result of its work for as long
 * as somebody holds it. Whoever uses it needs a reference, who signals it too:
 * when the last one is given back the handle is over, though the library may
 * need the fence a while longer.
 */
#ifndef GMEM_FENCE_H
#define GMEM_FENCE_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @brief Make a pending fence that the caller will signal.
 * @param[in]  lib    the instance
 * @param[out] fence  the fence, one reference
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p lib is no instance that lives, or @p fence is NULL
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 * @owner   the caller ends its reference with gm_fence_put()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_fence_create(struct gm_lib *lib, struct gm_fence **fence);

/**
 * @brief Take one more reference.
 * @param[in] fence  a fence; NULL is allowed
 * @return @p fence; NULL if it is no fence that lives
 * @threads any
 */
GM_API struct gm_fence *gm_fence_get(struct gm_fence *fence);

/**
 * @brief Give a reference back.
 * @param[in] fence  a fence; NULL is allowed, and what is no fence that lives is left alone
 * @threads any
 */
GM_API void gm_fence_put(struct gm_fence *fence);

/**
 * @brief Say that the work is done.
 * @param[in] fence  a fence
 * @param[in] result how the work ended
 * @retval GM_RET_SUCCESS  this call decided the result
 * @retval GM_RET_EXIST    it was done already; its result stays
 * @retval GM_RET_INVAL    @p fence is no fence that lives, or @p result none of enum gm_ret
 * @threads any
 */
GM_API gm_ret_t gm_fence_signal(struct gm_fence *fence, gm_ret_t result);

/**
 * @brief Wait until the work is done.
 * @param[in] fence       a fence
 * @param[in] timeout_ns  how long at most; 0 only looks, GM_FOREVER_NS has no bound
 * @return the result the fence was signalled with
 * @retval GM_RET_TIMEDOUT  still pending
 * @retval GM_RET_CANCELED  cancelled
 * @retval GM_RET_INVAL     @p fence is no fence that lives
 * @threads any; blocks
 */
GM_API gm_ret_t gm_fence_wait(struct gm_fence *fence, uint64_t timeout_ns);

/**
 * @brief Wake every waiter with GM_RET_CANCELED; the work itself may still run.
 * @param[in] fence  a fence
 * @retval GM_RET_SUCCESS  cancelled by this call
 * @retval GM_RET_EXIST    it was done already
 * @retval GM_RET_INVAL    @p fence is no fence that lives
 * @threads any
 */
GM_API gm_ret_t gm_fence_cancel(struct gm_fence *fence);

/**
 * @brief Let others wait for a fence: a descriptor in the device's own way.
 *
 * When the fence is done, whoever holds the descriptor, in this process or
 * another, learns its result. It stays true for as long as it is open, also
 * when fence and device are gone. How one waits for it is the device's own
 * affair (a mock's becomes readable, see gmem/mock.h); gm_fence_import() on
 * a device of the same backend, in any instance, understands it.
 *
 * The fence need not be kept: it lives until it is done. The device cannot be
 * destroyed before that; gm_fence_cancel() ends what will never be done.
 *
 * @param[in]  fence  a fence, pending or done
 * @param[in]  dev    a device with GM_CAP_SYNC, of the fence's instance
 * @param[out] fd     the descriptor, close-on-exec
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p fence or @p dev is none that lives, @p fd is NULL, or they are of different instances
 * @retval GM_RET_NOTSUP   the device has no such descriptors
 * @retval GM_RET_NOMEM    out of memory
 * @retval GM_RET_NOSPC    the process or the machine has no descriptor left
 * @retval GM_RET_NODEV    the device is lost
 * @threads any
 * @owner   the caller closes the descriptor
 */
GM_API GM_MUST_CHECK gm_ret_t gm_fence_export(struct gm_fence *fence, struct gm_dev *dev, int *fd);

/**
 * @brief Make a fence of a descriptor that stands for completion.
 *
 * Done with the result of the fence that was exported, or as the backend says
 * for other descriptors that it understands: SUCCESS, or IO where whoever
 * should have completed it is gone. Cancelling it, or giving it back early, is
 * allowed and changes nothing for others who wait.
 *
 * @param[in]  dev    a device with GM_CAP_SYNC; where it is destroyed first, the fence is done with
 *                    GM_RET_CANCELED
 * @param[in]  fd     the descriptor; it stays the caller's, who may close it at once
 * @param[out] fence  the fence, one reference
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p dev is no device that lives, @p fence is NULL, or no completion that the device
 *                         understands is behind @p fd
 * @retval GM_RET_NOTSUP   the device has no such descriptors
 * @retval GM_RET_NOMEM    out of memory, threads or descriptors
 * @retval GM_RET_NODEV    the device is lost
 * @threads any
 * @owner   the caller ends its reference with gm_fence_put()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_fence_import(struct gm_dev *dev, int fd, struct gm_fence **fence);

#ifdef __cplusplus
}
#endif
#endif
