/* SPDX-License-Identifier: MIT */
/**
 * @file coherence.h
 * @brief Who has a page at the same time: duplicates for reading, one device alone.
 *
 * Whatever is asked for here is undone by the access that needs it: a store ends
 * duplicates, an access of anybody else ends exclusive use. Nobody has to say
 * that it is over, and nobody ever sees old bytes; what is lost is time.
 */
#ifndef GMEM_COHERENCE_H
#define GMEM_COHERENCE_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @brief Let the process and a device read the same pages, each in its own memory.
 *
 * The pages stay on the host at their address, and the device gets a copy of them, mapped for loads. Several devices
 * may have one. Loads of all of them find their page; a device with faults that lost its mapping gets it back without
 * a move.
 *
 * The first store ends it, page by page and with what lies around it in one unit: a store of the process waits until
 * no device maps the page and no access to it is under way, so that once it is done no device reads what was there
 * before. A store of a device takes the page to that device, which copies nothing if it has a duplicate. Memory of
 * the device that is wanted for something else ends it too (a duplicate costs nothing to evict), and
 * gm_migrate(), gm_release(), gm_discard(), gm_as_detach() do.
 *
 * What it costs: each page is copied once by the device and once by the kernel, which gives the process a new frame; a
 * huge page becomes small ones. A store to a duplicated page costs a fault.
 *
 * Pages that cannot move are left out: pinned ones (DMA may be under way to them), locked ones, pages a working set
 * holds, and memory that the process itself cannot write.
 *
 * @param[in]  as     the address space
 * @param[in]  va     first byte; rounded down to a page
 * @param[in]  bytes  length, > 0; the end is rounded up to a page
 * @param[in]  dev    who gets the duplicates; attached to @p as
 * @param[out] duplicated_bytes  of how much it has one now; NULL if not wanted
 * @retval GM_RET_SUCCESS  of all of it
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p dev none that is attached to it; empty, overflowing,
 *                         outside the address space
 * @retval GM_RET_FAULT    not all of it is managed memory; the rest is duplicated
 * @retval GM_RET_BUSY     some pages cannot be duplicated now; the others are
 * @retval GM_RET_NOTSUP   this kernel cannot protect pages against stores (userfaultfd without write protection), or the
 *                         library runs on a rung with GM_RUNG_NO_DUPLICATION; or it is shared memory (gmem/shared.h)
 * @retval GM_RET_NOSPC    the device's memory is too small, or held; told at once where the whole range does not fit,
 *                         and nothing was done; else part may be duplicated
 * @retval GM_RET_NODEV    @p dev is lost; or the content of some pages was lost with a device, the others are duplicated
 * @retval GM_RET_IO, GM_RET_NOMEM, GM_RET_TIMEDOUT  part may be duplicated; no byte is lost
 * @threads any; blocks
 * @source  Linux NUMA text replication and HMM's double mapping (`hmm2_double_map`); ended as in Li's shared virtual memory
 */
GM_API gm_ret_t gm_duplicate(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev,
			     uint64_t *duplicated_bytes);

/**
 * @brief Give pages to one device alone, so that its atomic operations on them are atomic for everybody.
 *
 * The pages are brought to the device and mapped with all rights (GM_ATOMIC). Nobody else maps them: not the process, no
 * other device. So it stays until somebody else touches a page: the process's access, or another device's, waits until
 * the device has let go, and the page comes home. gm_query() tells which pages are exclusive still (GM_PAGE_EXCLUSIVE).
 *
 * @param[in]  ctx    the device's view
 * @param[in]  va     first byte; rounded down to a page
 * @param[in]  bytes  length, > 0; the end is rounded up to a page
 * @param[out] exclusive_bytes  how much of it the device has alone now; NULL if not wanted
 * @retval GM_RET_SUCCESS  all of it
 * @retval GM_RET_INVAL    @p ctx is no context that lives; empty, overflowing, outside the address space
 * @retval GM_RET_FAULT    not all of it is managed memory; the rest is exclusive
 * @retval GM_RET_PERM     the process itself may not write some of it; what is before it is exclusive
 * @retval GM_RET_BUSY     some pages cannot move now (pinned, locked, held by a working set of another device); the
 *                         others are exclusive
 * @retval GM_RET_NOSPC    the device's memory is too small, or held; as gm_duplicate()
 * @retval GM_RET_NODEV    the device is lost; or the content of some pages was
 * @retval GM_RET_IO, GM_RET_NOMEM, GM_RET_TIMEDOUT  part may be exclusive; no byte is lost
 * @threads any; blocks
 * @source  Linux make_device_exclusive() and HMM_DMIRROR_EXCLUSIVE of the HMM self-test
 */
GM_API gm_ret_t gm_exclusive(struct gm_ctx *ctx, uint64_t va, uint64_t bytes, uint64_t *exclusive_bytes);

#ifdef __cplusplus
}
#endif
#endif
