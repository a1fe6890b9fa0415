/* SPDX-License-Identifier: MIT */
/**
 * @file ws.h
 * @brief Declared working sets: the launch path of devices without faults.
 *
 *     acquire --all resident, mapped, held--> [launch] --release(fence)--> released when the fence is done
 *
 * Room for the whole set is reserved before anything moves, so two sets never
 * wait for each other while each holds half of what the other needs.
 */
#ifndef GMEM_WS_H
#define GMEM_WS_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * With GM_WRITE: the old content does not matter, do not copy it in. Read before it is written, it is zeros or the old
 * content. After a failure of gm_ws_acquire() too the content of such a range may be gone: it reads as zeros then,
 * where pages had moved already.
 */
#define GM_WS_DISCARD 16u

/** One range of a working set. */
struct gm_ws_range {
	uint64_t va;     /**< first byte */
	uint64_t bytes;  /**< length, > 0 */
	uint32_t access; /**< GM_READ, GM_WRITE or GM_ATOMIC; or'ed with GM_WS_DISCARD */
};

/** What a working set needs and what is there, in bytes of device memory. */
struct gm_ws_room {
	uint64_t need_bytes;  /**< device memory this set occupies */
	uint64_t held_bytes;  /**< held by other sets now */
	uint64_t total_bytes; /**< the device's memory */
};

/**
 * @brief Would this set fit?
 * @param[in]  ctx     the device's view
 * @param[in]  ranges  array[n]; may overlap, any order
 * @param[in]  n       1 .. GM_MAX_WS_RANGES
 * @param[out] room    filled in
 * @retval GM_RET_SUCCESS  it fits now
 * @retval GM_RET_BUSY     it fits once others release; @p room is filled in
 * @retval GM_RET_NOSPC    it never fits; @p room is filled in
 * @retval GM_RET_INVAL    @p ctx is no context that lives; NULL, too many or no ranges, an empty or overflowing
 *                         range, unknown access
 * @retval GM_RET_FAULT    a range is not managed memory; where the space mirrors the process (GM_AS_MIRROR): nothing is
 *                         mapped there, or the process may not access it at all
 * @retval GM_RET_PERM     the space mirrors the process, and that may not access a range so
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 */
GM_API gm_ret_t gm_ws_room(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_room *room);

/**
 * @brief Make a set of ranges resident and mapped, and hold it so.
 *
 * While it is held no page of it moves; a CPU access to one of its pages that
 * the device has waits for the release (see gm_as_config.hold_ns). A partial
 * page at the edge of an adopted buffer is mapped in place where the device
 * can; a page that cannot move at all (pinned) likewise.
 *
 * @param[in]  ctx         the device's view
 * @param[in]  ranges      array[n]; may overlap, any order
 * @param[in]  n           1 .. GM_MAX_WS_RANGES
 * @param[in]  timeout_ns  bound of the whole call
 * @param[out] ws          the set
 * @retval GM_RET_SUCCESS  held
 * @retval GM_RET_INVAL    @p ctx is no context that lives; NULL, too many or no ranges, an empty or overflowing
 *                         range, unknown access
 * @retval GM_RET_FAULT    a range is not managed memory, or poisoned
 * @retval GM_RET_PERM     the process itself may not access it so
 * @retval GM_RET_NOSPC    larger than the device's memory; gm_last_error() gives the shortfall
 * @retval GM_RET_BUSY     a pinned page that this device cannot map in place
 * @retval GM_RET_NOTSUP   memory that cannot move, or an edge page, that this device cannot map in place
 * @retval GM_RET_TIMEDOUT others hold the memory, or the device did not answer in time
 * @retval GM_RET_NOMEM, GM_RET_IO, GM_RET_NODEV  nothing is held; pages may have moved
 * @threads any; blocks
 * @owner   the caller ends it with gm_ws_release()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_ws_acquire(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n,
					    uint64_t timeout_ns, struct gm_ws **ws);

/**
 * @brief Let a set go, at once or when a fence is done.
 *
 * The set is gone for the caller when the call returns. The fence is waited
 * for by the library; whatever its result, the hold ends with it (who waits for the fence
 * may be told a moment earlier). Where there is no memory to be called back when the fence is done, the call itself
 * waits for it, as long as that takes. Without a fence, pages whose accesses failed, as they had waited too long
 * (gm_as_config.hold_ns), are home when the call returns, unless that takes longer than gm_as_config.wait_ns; with one they
 * come home a moment after it.
 *
 * @param[in] ws     the set; NULL is allowed
 * @param[in] fence  the launch that uses it; NULL: release now
 * @retval GM_RET_SUCCESS  released, or will be
 * @retval GM_RET_INVAL    @p ws is no set that is held, or @p fence no fence that lives; still held
 * @threads any; blocks only as said
 */
GM_API gm_ret_t gm_ws_release(struct gm_ws *ws, struct gm_fence *fence);

#ifdef __cplusplus
}
#endif
#endif
