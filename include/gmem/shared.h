/* SPDX-License-Identifier: MIT */
/**
 * @file shared.h
 * @brief Shared memory: memory of the library that other processes and other spaces may map too.
 *
 * It has two lives:
 *
 *  - from gm_alloc_shared() on nobody else can map it. It is usable, and moves, as memory of gm_alloc() does, but it
 *    has small pages only;
 *  - from gm_shared_fd() on others may, and see its pages without the library. So they come home and stay there for
 *    good (GM_PLACE_IN_PLACE): every device maps them in place (GM_CAP_HOST_MAP), without atomics, and what any of them or
 *    any process writes all others see. gm_map_shared() maps such memory of another process or space.
 *
 * Not for either: mremap(), and munmap() other than by gm_free(); gm_duplicate(). In the second life it is no memory of
 * the space's that could be discarded: gm_discard() says GM_RET_FAULT. While it moves (the first life): no
 * madvise(MADV_REMOVE), use gm_discard(); and it is not noticed that hardware uses a page beside the library (O_DIRECT that is in flight, buffers
 * registered with io_uring): gm_shared_fd() before that, or hold such memory with a working set.
 */
#ifndef GMEM_SHARED_H
#define GMEM_SHARED_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @brief Allocate shared memory.
 *
 * Zero-filled, aligned to 2 MiB. Until gm_shared_fd() a forked child does not inherit it (an access there is SIGSEGV),
 * whatever the space's default is.
 *
 * @param[in]  as     the address space
 * @param[in]  bytes  length, > 0; rounded up to 2 MiB
 * @param[in]  flags  0
 * @param[out] ptr    the memory
 * @retval GM_RET_SUCCESS  allocated
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p ptr is NULL, zero or overflowing length, unknown flag
 * @retval GM_RET_NOMEM    out of memory, address space or descriptors
 * @retval GM_RET_NOTSUP   the host has no such memory: a simulated one, or a rung with GM_RUNG_NO_SHARED
 * @threads any
 * @owner   the caller ends it with gm_free()
 * @source  memfd_create(); userfaultfd minor faults and UFFDIO_CONTINUE
 */
GM_API GM_MUST_CHECK gm_ret_t gm_alloc_shared(struct gm_as *as, uint64_t bytes, uint32_t flags, void **ptr);

/**
 * @brief A descriptor with which others may map shared memory; from now on it stays in host memory.
 *
 * Pages on devices come home first. Afterwards children of fork() inherit the memory, as any shared memory, unless
 * the space's default or gm_fork_policy() excludes it. There is no
 * way back; the memory is ended with gm_free(), by which others lose nothing. The file has the size of the memory, which
 * cannot be changed. A second call gives a second descriptor.
 *
 * @param[in]  as   the address space
 * @param[in]  ptr  what gm_alloc_shared() or gm_map_shared() returned
 * @param[out] fd   the descriptor, close-on-exec; offset 0 is the first byte that gm_alloc_shared() returned
 * @retval GM_RET_SUCCESS  done
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p ptr or @p fd is NULL
 * @retval GM_RET_NOENT    no shared memory begins there
 * @retval GM_RET_BUSY     a working set holds part of it; nothing changed
 * @retval GM_RET_NODEV    the content of some pages was lost with a device: gm_discard() them first. Or the program closed the
 *                         library's descriptor of it. It moves as before
 * @retval GM_RET_TIMEDOUT pages could not be brought home in time, or another call of gm_shared_fd() for this space did not end;
 *                         it moves as before
 * @retval GM_RET_NOMEM    out of memory or descriptors; some may be home
 * @threads any; blocks
 * @owner   the caller closes the descriptor
 */
GM_API GM_MUST_CHECK gm_ret_t gm_shared_fd(struct gm_as *as, void *ptr, int *fd);

/**
 * @brief Map shared memory of another process or space.
 *
 * Mapped in place, aligned to 2 MiB: nothing of it is ever moved, so every rung has it. Children of fork() inherit it, unless
 * the space's default or gm_fork_policy() excludes it.
 *
 * @param[in]  as      the address space
 * @param[in]  fd      a descriptor of gm_shared_fd(); not needed any more afterwards
 * @param[in]  offset  where in it, multiple of GM_PAGE_BYTES
 * @param[in]  bytes   length, > 0; rounded up to whole pages
 * @param[in]  flags   0
 * @param[out] ptr     the memory
 * @retval GM_RET_SUCCESS  mapped
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p fd is no descriptor, @p ptr is NULL, unaligned @p offset, zero
 *                         length, unknown flag, or not all of it is inside the file
 * @retval GM_RET_NOTSUP   the descriptor is not one of gm_shared_fd(); or the host is a simulated one
 * @retval GM_RET_PERM     it cannot be mapped for writing
 * @retval GM_RET_NOMEM    out of memory, address space or descriptors
 * @threads any
 * @owner   the caller ends it with gm_free(), by which others lose nothing
 */
GM_API GM_MUST_CHECK gm_ret_t gm_map_shared(struct gm_as *as, int fd, uint64_t offset, uint64_t bytes, uint32_t flags,
					    void **ptr);

#ifdef __cplusplus
}
#endif
#endif
