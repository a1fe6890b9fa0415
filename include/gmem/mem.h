/* SPDX-License-Identifier: MIT */
/**
 * @file mem.h
 * @brief Memory: owned (allocated here) and adopted (the application's own).
 *
 * Both kinds are private anonymous memory, usable by the CPU through its
 * ordinary address at any time, wherever the bytes are.
 */
#ifndef GMEM_MEM_H
#define GMEM_MEM_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** @name Flags of gm_alloc() and gm_adopt(). */
/**@{*/
#define GM_MEM_NO_HUGE 1u /**< small pages only (owned memory of 2 MiB and more asks for huge pages) */
#define GM_MEM_OUTWARD 2u /**< gm_adopt: round the range outward to whole pages instead of inward */
/**@}*/

/**
 * @brief Allocate memory shared with every attached device.
 *
 * Private, anonymous, zero-filled; aligned to 64 KiB, of 2 MiB and more to 2 MiB. A
 * forked child does not inherit it (an access there is SIGSEGV).
 *
 * @param[in]  as     the address space
 * @param[in]  bytes  length, > 0; rounded up to 64 KiB, from 2 MiB on to 2 MiB
 * @param[in]  flags  GM_MEM_NO_HUGE or 0
 * @param[out] ptr    the memory
 * @retval GM_RET_SUCCESS  allocated
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p ptr is NULL, zero or overflowing length,
 *                         unknown flag
 * @retval GM_RET_NOMEM    out of memory or address space
 * @threads any
 * @owner   the caller ends it with gm_free()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_alloc(struct gm_as *as, uint64_t bytes, uint32_t flags, void **ptr);

/**
 * @brief Free memory of gm_alloc(), on every device too.
 * @param[in] as   the address space
 * @param[in] ptr  what gm_alloc() returned; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_INVAL    @p as is no address space that lives
 * @retval GM_RET_NOENT    no allocation begins there; nothing changed
 * @retval GM_RET_BUSY     a working set holds part of it; nothing changed
 * @retval GM_RET_TIMEDOUT a device did not let go in time; nothing was freed
 * @retval GM_RET_NOMEM    out of memory; nothing changed
 * @threads any
 */
GM_API gm_ret_t gm_free(struct gm_as *as, void *ptr);

/**
 * @brief Share memory the application already has, e.g. a malloc()ed buffer.
 *
 * The whole pages inside the range become migratable. The partial pages at
 * its edges hold bytes of others too: they stay on the host and are mapped in
 * place, by devices that can (GM_CAP_HOST_MAP); or, with GM_MEM_OUTWARD, the
 * caller vouches that the pages around are his and they become migratable too.
 *
 * Call gm_release() before free(): only then is every device stopped before
 * the memory goes. If the memory is freed without it, the library notices by
 * event and never shows its old bytes to whoever gets the address next.
 *
 * The same goes for mremap(): gm_release() before it, gm_adopt() of the new place
 * after it. Without, what a device had of the range follows it by event. But where
 * no device has used the range lately nobody watches it: the new place is then not
 * adopted, and a device gets GM_RET_FAULT there until it is. No byte is lost. The
 * kernel may also refuse to move a range as one (EFAULT, part may have moved), as
 * what is watched of it is a mapping of its own.
 *
 * A fork brings what devices have home first, and the child inherits it all but
 * for what cannot come, as a working set holds it: there it gets SIGSEGV.
 *
 * @param[in] as     the address space
 * @param[in] ptr    first byte
 * @param[in] bytes  length, > 0
 * @param[in] flags  GM_MEM_OUTWARD or 0
 * @retval GM_RET_SUCCESS  shared
 * @retval GM_RET_INVAL    @p as is no address space that lives; NULL, empty, overflowing, outside the address space,
 *                         unknown flag
 * @retval GM_RET_FAULT    not mapped, or not all of it
 * @retval GM_RET_NOTSUP   not private anonymous memory, or locked; gm_last_error() says which
 * @retval GM_RET_EXIST    overlaps owned memory, or adopted memory that a device uses now
 * @retval GM_RET_BUSY     another userfaultfd user has the range
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 * @owner   the memory stays the application's
 */
GM_API GM_MUST_CHECK gm_ret_t gm_adopt(struct gm_as *as, void *ptr, uint64_t bytes, uint32_t flags);

/**
 * @brief Take adopted memory back: bring its bytes home, forget it.
 *
 * Pages whose content was lost with a device go on failing every access
 * (SIGBUS) until the application unmaps them or gives their content up:
 * adopted anew, gm_discard() does so. Until then gm_query() tells GM_PLACE_HOST,
 * as the device that had them is not known any more; devices get GM_RET_FAULT
 * there, and gm_migrate() to a device says GM_RET_BUSY.
 *
 * A page that the range covers whole is released, also where it is the edge of
 * this buffer or of others; a page that the range ends in is, once each buffer
 * that ends in it was released.
 *
 * @param[in] as     the address space
 * @param[in] ptr    first byte
 * @param[in] bytes  length; may be part of what was adopted
 * @retval GM_RET_SUCCESS  the bytes are home and no device uses them
 * @retval GM_RET_INVAL    @p as is no address space that lives; NULL, empty, overflowing, outside the address space
 * @retval GM_RET_NOENT    nothing adopted there; nothing changed
 * @retval GM_RET_BUSY     a working set holds part of it: nothing changed, or, if the set came
 *                         meanwhile and other memory lies between, what is before it is released
 * @retval GM_RET_NOMEM    out of memory; what is not released yet is adopted still
 * @retval other           bytes could not be brought home; still adopted
 * @threads any
 */
GM_API gm_ret_t gm_release(struct gm_as *as, void *ptr, uint64_t bytes);

/**
 * @brief Move a range now.
 *
 * Pages that cannot move (pinned, locked, held by a working set) stay where
 * they are. In a space that mirrors the process (GM_AS_MIRROR) what may be is
 * adopted on demand first; external memory is not managed.
 *
 * @param[in]  as     the address space
 * @param[in]  va     first byte; rounded down to a page
 * @param[in]  bytes  length, > 0; the end is rounded up to a page
 * @param[in]  dev    where to; NULL is the host
 * @param[out] moved_bytes  how much of it is there now; NULL if not wanted
 * @retval GM_RET_SUCCESS  all of it is there
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p dev none that is attached to it; empty, overflowing,
 *                         outside the address space
 * @retval GM_RET_FAULT    not all of it is managed memory; the rest was moved
 * @retval GM_RET_BUSY     some pages cannot move now; the others did
 * @retval GM_RET_NOSPC    the device's memory is too small, or held; told at once where the whole range does not fit, and
 *                         nothing moved; else part may have moved
 * @retval GM_RET_NODEV    @p dev is lost; or the content of some pages was lost with a device, the others moved
 * @retval GM_RET_IO, GM_RET_NOMEM, GM_RET_TIMEDOUT  part may have moved; no byte is lost
 * @threads any; blocks
 */
GM_API gm_ret_t gm_migrate(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev, uint64_t *moved_bytes);

/**
 * @brief Say that the content of a range no longer matters.
 *
 * From then on it reads as zeros, on every device and on the CPU, before the
 * call returns; also where the content was lost with a device, or accesses
 * failed at a bound (hold_ns): they fail no longer. Only whole pages inside
 * the range are discarded.
 *
 * @param[in] as     the address space
 * @param[in] va     first byte
 * @param[in] bytes  length, > 0
 * @retval GM_RET_SUCCESS  discarded
 * @retval GM_RET_INVAL    @p as is no address space that lives; empty, overflowing, outside the address space
 * @retval GM_RET_FAULT    not all of it is managed memory; nothing changed. Or part was unmapped meanwhile, or can neither
 *                         be moved nor written; then part may be discarded
 * @retval GM_RET_BUSY     a working set holds part of it: nothing changed, or, if the set came meanwhile, what is before it
 *                         is discarded
 * @retval GM_RET_TIMEDOUT a device did not let go in time; part may be discarded
 * @retval GM_RET_NOMEM    out of memory; part may be discarded
 * @threads any; blocks
 */
GM_API gm_ret_t gm_discard(struct gm_as *as, uint64_t va, uint64_t bytes);

/** Where a page is. */
enum gm_place {
	GM_PLACE_NONE,     /**< managed, no content: reads as zero wherever it is touched first */
	GM_PLACE_HOST,     /**< in host memory (or never touched there) */
	GM_PLACE_DEVICE,   /**< in the memory of `dev` */
	GM_PLACE_IN_PLACE, /**< in host memory for good: edge of an adopted buffer, or external and a device has it */
	GM_PLACE_POISONED, /**< the only copy was lost */
	GM_PLACE_OUTSIDE,  /**< not managed (in a space that mirrors the process: no device has it) */
};

/** @name Flags of a page. */
/**@{*/
#define GM_PAGE_BUSY 1u    /**< on its way */
#define GM_PAGE_DIRTY 2u   /**< the device copy may differ from the host's frame */
#define GM_PAGE_HELD 4u    /**< a working set holds it */
#define GM_PAGE_BACKED 8u  /**< the host keeps its frame while the device has it */
/**@}*/

/** State of one page. */
struct gm_page_info {
	enum gm_place place;      /**< where it is */
	uint32_t flags;           /**< GM_PAGE_* */
	struct gm_dev *dev;       /**< for GM_PLACE_DEVICE */
	uint32_t mapped_read;     /**< bit i set: context i of the space may read it */
	uint32_t mapped_write;    /**< ... and write it */
};

/**
 * @brief State of every page of a range.
 * @param[in]  as     the address space
 * @param[in]  va     first byte, multiple of GM_PAGE_BYTES
 * @param[in]  pages  how many
 * @param[out] info   array[pages], filled in completely
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p info is NULL; unaligned, empty or overflowing range
 * @threads any; a snapshot per block, not over blocks
 */
GM_API gm_ret_t gm_query(struct gm_as *as, uint64_t va, size_t pages, struct gm_page_info *info);

/**
 * @brief A device touched an address it has no mapping for: serve it now.
 *
 * Also the way to bring single pages before a launch on a device without
 * faults. A fault that another one has served already is success.
 *
 * @param[in] ctx     the device's view
 * @param[in] va      host VA that was touched
 * @param[in] access  GM_READ, GM_WRITE or GM_ATOMIC
 * @retval GM_RET_SUCCESS  mapped with the rights asked for
 * @retval GM_RET_INVAL    @p ctx is no context that lives, no access bit, or an unknown one
 * @retval GM_RET_FAULT    not managed memory (in a space that mirrors the process: nothing mapped), not mapped any more,
 *                         or poisoned
 * @retval GM_RET_PERM     the process itself may not access it so
 * @retval GM_RET_BUSY     pinned, and the device cannot map host memory, or GM_ATOMIC was asked for
 * @retval GM_RET_NOTSUP   memory that cannot move, and the device cannot map host memory, or GM_ATOMIC was asked for
 * @retval GM_RET_NOSPC    nothing could be evicted: all of the device's memory is held
 * @retval GM_RET_NOMEM, GM_RET_IO, GM_RET_NODEV, GM_RET_TIMEDOUT  nothing lost, not mapped
 * @threads any; blocks
 * @source  GMEM gm_dev_fault()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_dev_fault(struct gm_ctx *ctx, uint64_t va, uint32_t access);

#ifdef __cplusplus
}
#endif
#endif
