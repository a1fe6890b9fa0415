/* SPDX-License-Identifier: MIT */
/**
 * @file rung.h
 * @brief The ladder: how the library learns of the CPU's accesses, and what it cannot do then.
 *
 * An access of the CPU to a page that is on a device must wait until the page is
 * home. What the kernel offers for that depends on its version and on the rights
 * of the process. gm_lib_create() takes the best way (rung) that
 * gm_lib_config.lowest_rung admits; gm_lib_rung() tells which it is.
 *
 * On every rung: no byte is lost in a migration, and no page that is away reads
 * as zeros. What differs is what else works; each difference has a bit, and the
 * caller who admits a rung takes its bits on himself.
 */
#ifndef GMEM_RUNG_H
#define GMEM_RUNG_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Rungs, best first. */
enum gm_rung {
	GM_RUNG_DEFAULT,  /**< gm_lib_config only: lowest GM_RUNG_DEVICE, highest GM_RUNG_FULL */
	GM_RUNG_FULL,     /**< userfaultfd(2) with the right to serve the kernel's own accesses */
	GM_RUNG_DEVICE,   /**< the same through /dev/userfaultfd */
	GM_RUNG_NO_MOVE,  /**< userfaultfd of Linux 5.7 to 6.7: without UFFDIO_MOVE, UFFDIO_POISON, PAGEMAP_SCAN */
	GM_RUNG_USER,     /**< UFFD_USER_MODE_ONLY, which needs no right; with MOVE, or as GM_RUNG_NO_MOVE without */
	GM_RUNG_EXPLICIT, /**< no userfaultfd: memory comes home by calls only */
};

/** @name What a rung cannot do. */
/**@{*/
/** System calls that touch a page that is away fail (EFAULT) instead of waiting for it: gm_migrate() it home before. */
#define GM_RUNG_NO_KERNEL_ACCESS 1u
/**
 * gm_release() before munmap(), mmap() over it and mremap() is required where another thread may map something
 * at that moment: while pages are taken by address, memory mapped there in the same instant can lose what was written to
 * it until it is given back. What is noticed of it is logged at GM_LOG_ERROR. So GM_AS_MIRROR, which takes what nobody
 * releases, is GM_RET_NOTSUP, and so is serving the children of a fork.
 */
#define GM_RUNG_NO_UNMAP_GUARD 2u
/** What was lost with a device fails with SIGSEGV (the page is inaccessible) instead of SIGBUS; gm_protect() leaves it alone. */
#define GM_RUNG_NO_POISON 4u
/** Memory that hardware uses (O_DIRECT in flight, registered buffers) is not noticed: do not share it with a device. */
#define GM_RUNG_NO_PIN_CHECK 8u
/** No read duplication: nothing tells of a first write. gm_duplicate() is GM_RET_NOTSUP. */
#define GM_RUNG_NO_DUPLICATION 16u
/** A CPU access to a page that is away fails (SIGSEGV): gm_migrate() it home before, with `dev` NULL. */
#define GM_RUNG_NO_CPU_FAULTS 32u
/**
 * Nobody tells what the process does to its memory: gm_release() before munmap(), mremap(), and mmap() over
 * it; gm_discard() in place of madvise().
 */
#define GM_RUNG_NO_EVENTS 64u
/** A huge page comes home as small ones. */
#define GM_RUNG_NO_HUGE 128u
/** Shared memory does not move: gm_alloc_shared() is GM_RET_NOTSUP. That of others works, in place: gm_map_shared(). */
#define GM_RUNG_NO_SHARED 256u
/** No latency mode (gmem/inthread.h): GM_MEM_INTHREAD is GM_RET_NOTSUP. */
#define GM_RUNG_NO_INTHREAD 512u
/**@}*/

/** What gm_lib_rung() tells. */
struct gm_rung_info {
	enum gm_rung rung; /**< in use */
	uint32_t cannot;   /**< GM_RUNG_NO_* */
	char why[512];     /**< why no better rung is in use, for people; empty on the highest one admitted */
};

/**
 * @brief Which rung is in use, and what it cannot do.
 * @param[in]  lib   the instance
 * @param[out] info  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p lib is no instance that lives, or @p info is NULL
 * @threads any
 */
GM_API gm_ret_t gm_lib_rung(const struct gm_lib *lib, struct gm_rung_info *info);

/**
 * @brief Name of a rung, such as "full".
 * @param[in] rung  any value
 * @return a constant string; "?" for a value outside the enum
 * @threads any
 */
GM_API const char *gm_rung_name(enum gm_rung rung);

#ifdef __cplusplus
}
#endif
#endif
