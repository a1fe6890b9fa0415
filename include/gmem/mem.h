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
#define GM_MEM_INTHREAD 4u /**< latency mode: the CPU's faults are served in their threads, in the program's own handler of
			        SIGBUS. Read gmem/inthread.h before */
/**@}*/

/**
 * @brief Allocate memory shared with every attached device.
 *
 * Private, anonymous, zero-filled; aligned to 64 KiB, of 2 MiB and more to 2 MiB. A
 * forked child does not inherit it (an access there is SIGSEGV), unless the space's default or
 * gm_fork_policy() says otherwise.
 *
 * @param[in]  as     the address space
 * @param[in]  bytes  length, > 0; rounded up to 64 KiB, from 2 MiB on to 2 MiB
 * @param[in]  flags  GM_MEM_NO_HUGE, GM_MEM_INTHREAD
 * @param[out] ptr    the memory
 * @retval GM_RET_SUCCESS  allocated
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p ptr is NULL, zero or overflowing length,
 *                         unknown flag
 * @retval GM_RET_NOMEM    out of memory or address space; with GM_MEM_INTHREAD: too many pieces (512)
 * @retval GM_RET_NOTSUP   GM_MEM_INTHREAD on a rung (gmem/rung.h) with GM_RUNG_NO_INTHREAD, or in a space with GM_AS_FORK_SERVE
 * @threads any
 * @owner   the caller ends it with gm_free()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_alloc(struct gm_as *as, uint64_t bytes, uint32_t flags, void **ptr);

/**
 * @brief Free memory of gm_alloc(), on every device too; and shared memory (gmem/shared.h), by which others lose nothing.
 * @param[in] as   the address space
 * @param[in] ptr  what gm_alloc(), gm_alloc_shared() or gm_map_shared() returned; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_INVAL    @p as is no address space that lives
 * @retval GM_RET_NOENT    no allocation begins there; nothing changed
 * @retval GM_RET_BUSY     a working set holds part of it; nothing changed
 * @retval GM_RET_TIMEDOUT a device, or gm_shared_fd(), did not let go in time; nothing was freed
 * @retval GM_RET_NOMEM    out of memory; nothing changed
 * @threads any; blocks
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
 * for what cannot come, as a working set holds it: there it gets SIGSEGV. gm_fork_policy()
 * and gm_as_config.fork say otherwise.
 *
 * @param[in] as     the address space
 * @param[in] ptr    first byte
 * @param[in] bytes  length, > 0
 * @param[in] flags  GM_MEM_OUTWARD, GM_MEM_INTHREAD
 * @retval GM_RET_SUCCESS  shared
 * @retval GM_RET_INVAL    @p as is no address space that lives; NULL, empty, overflowing, outside the address space,
 *                         unknown flag
 * @retval GM_RET_FAULT    not mapped, or not all of it
 * @retval GM_RET_NOTSUP   not private anonymous memory, or locked; gm_last_error() says which; GM_MEM_INTHREAD as gm_alloc()
 * @retval GM_RET_EXIST    overlaps owned memory, or adopted memory that a device uses now; or any that is managed, if
 *                         GM_MEM_INTHREAD is asked for, or was before
 * @retval GM_RET_BUSY     another userfaultfd user has the range
 * @retval GM_RET_NOMEM    out of memory, or of descriptors to tell what is mapped (types.h); not shared
 * @retval GM_RET_TIMEDOUT with GM_AS_WATCH: what the process did to the range before was not handled in time
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
 * @retval GM_RET_IO       a device failed to copy; adopted still, as after the following
 * @retval GM_RET_TIMEDOUT what the process did was not handled, or a device did not answer, in time
 * @retval GM_RET_NODEV    a device was lost meanwhile; or the program closed the library's descriptors and none can
 *                         be had
 * @threads any; blocks
 */
GM_API gm_ret_t gm_release(struct gm_as *as, void *ptr, uint64_t bytes);

/**
 * @brief Move a range now.
 *
 * Pages that cannot move (pinned, locked, held by a working set) stay where
 * they are. Duplicates (gm_duplicate()) of what goes to a device, or is asked
 * to be on the host, end. In a space that mirrors the process (GM_AS_MIRROR) what
 * may be is adopted on demand first; external memory is not managed.
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
 * @brief Say what children of fork() get of a range.
 *
 * From the next fork on; a fork that another thread makes meanwhile sees one or the other. It ends with gm_free(),
 * gm_release(), munmap() and mremap(). Only whole pages inside the range are concerned. posix_spawn(), vfork() and exec
 * need nothing of this: their child has this process's memory, or none of it.
 *
 * A child must not use what its parent made with the library (GM_RET_INVAL).
 *
 * @param[in] as      the address space
 * @param[in] va      first byte
 * @param[in] bytes   length, > 0
 * @param[in] policy  GM_FORK_*
 * @retval GM_RET_SUCCESS  noted
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p policy is none; empty, overflowing, outside the address
 *                         space
 * @retval GM_RET_FAULT    not all of it is owned or adopted memory; nothing changed
 * @retval GM_RET_NOTSUP   GM_FORK_SERVE in a space made without GM_AS_FORK_SERVE (or gm_as_config.fork); or shared memory
 *                         (gmem/shared.h) is in it that still moves: no child has that
 * @retval GM_RET_NOMEM    out of memory; nothing changed
 * @threads any
 * @source  MADV_DONTFORK; UFFD_FEATURE_EVENT_FORK
 */
GM_API gm_ret_t gm_fork_policy(struct gm_as *as, uint64_t va, uint64_t bytes, enum gm_fork policy);

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
 *                         is discarded. Or another userfaultfd has part of it; then what is before it is discarded
 * @retval GM_RET_TIMEDOUT a device did not let go in time; part may be discarded
 * @retval GM_RET_NODEV    the program closed the library's descriptors, and none can be had; part may be discarded
 * @retval GM_RET_NOTSUP   part of it is locked, or other memory than was adopted: it cannot be watched; what is before
 *                         it is discarded
 * @retval GM_RET_NOMEM    out of memory; part may be discarded
 * @threads any; blocks
 */
GM_API gm_ret_t gm_discard(struct gm_as *as, uint64_t va, uint64_t bytes);

/**
 * @brief Do what mprotect() does, for devices too.
 *
 * Does mprotect() on the whole range, managed or not, and when it returns no device reads or writes there through this
 * space beyond the new rights, wherever the bytes are (what devices have in place through another space follows the
 * rights of the process at each access). Pages stay where they are. A device's access against the rights of the process
 * gives GM_RET_FAULT (it may do nothing) or GM_RET_PERM (it may only read). On a device with larger pages than 4 KiB one
 * such page loses all that any part of it loses, and is GM_RET_NOTSUP for what only part of it allows.
 *
 * The kernel tells nobody of a bare mprotect(): after that rights are read anew at each new mapping, and a device that
 * was given a right before keeps it until its mapping goes.
 *
 * @param[in] as      the address space
 * @param[in] va      first byte, multiple of GM_PAGE_BYTES
 * @param[in] bytes   length, > 0; rounded up to whole pages
 * @param[in] access  0, GM_READ, or GM_WRITE with or without GM_READ: what the process may do from now on
 * @retval GM_RET_SUCCESS  done
 * @retval GM_RET_INVAL    @p as is no address space that lives; unaligned, empty or overflowing range; unknown access
 * @retval GM_RET_FAULT    not all of it is mapped; nothing changed
 * @retval GM_RET_PERM     the kernel refuses (sealed memory)
 * @retval GM_RET_BUSY     a working set holds pages with a right that would go; nothing changed
 * @retval GM_RET_TIMEDOUT pages did not become free in time: nothing changed, or, as gm_last_error() says, devices may have
 *                         their old rights still: call again
 * @retval GM_RET_NOMEM    out of memory, or the process has too many mappings: part may have changed; or out of
 *                         descriptors to tell what is mapped (types.h): nothing changed
 * @retval GM_RET_NOTSUP   on a rung (gmem/rung.h) with GM_RUNG_NO_POISON: part of it is away or lost; nothing changed
 * @threads any; blocks
 */
GM_API GM_MUST_CHECK gm_ret_t gm_protect(struct gm_as *as, uint64_t va, uint64_t bytes, uint32_t access);

/**
 * @brief Pages stay where they are told to, until gm_unpin(): a promise, no hint.
 *
 * To the host: they are brought home and never go to a device; devices map them in place, those that cannot get
 * GM_RET_BUSY. To a device: they are brought there and mapped for reading, and are neither evicted nor moved by anybody; a
 * CPU access waits, and fails loudly after gm_as_config.hold_ns through the hook `stuck` (whose `ws` is NULL then), as
 * for a working set that is held. The edge of an adopted buffer, which cannot move, is mapped there in place. The room
 * counts as held by a working set; nobody is waited for who holds it. A fork finds what is on a device as of a set.
 *
 * Pins nest and overlap: a page is pinned as long as one of them is there. A page that is unmapped loses its pin, as does
 * one that mremap() moves, from the host; from a device it is at its new place after gm_unpin() of the old one.
 * gm_discard(), gm_free() and gm_release() of what is pinned to a device: GM_RET_BUSY; of what is pinned to the host
 * they are allowed, and the latter two end the pin. A space, and a context, with a pin to a device is not ended (GM_RET_BUSY).
 *
 * In a space that mirrors the process (GM_AS_MIRROR) a pin to the host is of the addresses, also where nothing is adopted
 * yet: what is adopted there later, on demand or by gm_adopt(), is pinned, also after what was there has been unmapped or
 * released. Until it is adopted gm_query() does not show the pin. External memory goes to no device, and is not pinned.
 *
 * @param[in] as     the address space
 * @param[in] va     first byte; rounded down to a page
 * @param[in] bytes  length, > 0; the end is rounded up to a page
 * @param[in] dev    where; NULL is the host
 * @retval GM_RET_SUCCESS  pinned, all of it
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p dev none that is attached to it; empty, overflowing,
 *                         outside the address space
 * @retval GM_RET_FAULT    not all of it is managed memory (where a space mirrors: such as may be adopted, to the host), or
 *                         its content was lost, or the process may not read it
 * @retval GM_RET_BUSY     pages that cannot move now: held by a set, pinned elsewhere, in use by a system call, external
 * @retval GM_RET_NOSPC    it does not fit beside what is held already; gm_last_error() gives the shortfall
 * @retval GM_RET_NODEV    @p dev is lost, or content was lost with a device
 * @retval GM_RET_NOTSUP   a page shares a large page of the device with memory that is not managed
 * @retval GM_RET_IO, GM_RET_NOMEM, GM_RET_TIMEDOUT  nothing is pinned; pages may have moved
 * @threads any; blocks
 */
GM_API GM_MUST_CHECK gm_ret_t gm_pin(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_dev *dev);

/**
 * @brief End the last pin that was made of exactly this range.
 * @param[in] as     the address space
 * @param[in] va     as it was given to gm_pin()
 * @param[in] bytes  as it was given to gm_pin()
 * @retval GM_RET_SUCCESS  ended
 * @retval GM_RET_INVAL    @p as is no address space that lives; empty, overflowing, outside the address space
 * @retval GM_RET_NOENT    there is no pin of this range
 * @threads any
 */
GM_API gm_ret_t gm_unpin(struct gm_as *as, uint64_t va, uint64_t bytes);

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
