/* SPDX-License-Identifier: MIT */
/**
 * @file query.h
 * @brief Where is everything? Per page, and in sum.
 *
 * | call | tells | reads | costs about |
 * | --- | --- | --- | --- |
 * | gm_residency() | bytes per place of a range | the library's own state | a region lookup per 2 MiB: made to be polled |
 * | gm_query() | each page: place, device, mappings | the same | some ns per page |
 * | gm_query_host() | also what the kernel has there: rights, zero page, huge page | `/proc/self`, per 2 MiB and mapping | some us per 2 MiB |
 *
 * Nothing is changed by looking: nothing moves, no page is touched, packed page state stays packed.
 */
#ifndef GMEM_QUERY_H
#define GMEM_QUERY_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Where a page is. */
enum gm_place {
	GM_PLACE_NONE,     /**< managed, no content: reads as zero wherever it is touched first */
	GM_PLACE_HOST,     /**< in host memory (or never touched there) */
	GM_PLACE_DEVICE,   /**< in the memory of `dev` */
	GM_PLACE_IN_PLACE, /**< in host memory for good: edge of an adopted buffer, external and a device has it, or shared
			        with other processes */
	GM_PLACE_POISONED, /**< the only copy was lost */
	GM_PLACE_OUTSIDE,  /**< not managed (in a space that mirrors the process: no device has it) */
};

/** @name Flags of a page. */
/**@{*/
#define GM_PAGE_BUSY 1u    /**< on its way */
#define GM_PAGE_DIRTY 2u   /**< the device copy may differ from the host's frame */
#define GM_PAGE_HELD 4u    /**< a working set holds it */
#define GM_PAGE_BACKED 8u  /**< the library keeps the host's frame: while a device has the page, or until it is back */
#define GM_PAGE_DUPLICATED 16u /**< on the host, and devices have duplicates: gm_duplicate() */
#define GM_PAGE_EXCLUSIVE 32u  /**< of `dev` alone, as gm_exclusive() was asked for */
#define GM_PAGE_ABSENT 64u /**< gm_query_host(): nobody has a frame of it: never touched, or content given up */
#define GM_PAGE_ZERO 128u  /**< gm_query_host(): the kernel's shared page of zeros */
#define GM_PAGE_PINNED 256u /**< by gm_pin() */
#define GM_PAGE_INTHREAD 512u /**< GM_MEM_INTHREAD: a fault of the CPU is served in its thread */
/**@}*/

/** State of one page. */
struct gm_page_info {
	enum gm_place place;      /**< where it is */
	uint32_t flags;           /**< GM_PAGE_* */
	struct gm_dev *dev;       /**< for GM_PLACE_DEVICE */
	uint32_t mapped_read;     /**< bit i set: context i of the space may read it */
	uint32_t mapped_write;    /**< ... and write it */
	uint32_t access;          /**< gm_query_host(): what the process itself may do, GM_READ and GM_WRITE; else 0 */
	uint64_t map_bytes;       /**< on a device: size of the device memory it is part of (64 KiB or 2 MiB);
				       gm_query_host(), on the host: of the mapping of it (a page, or 2 MiB); else 0 */
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
 * @brief The same, with what the kernel has of each page.
 *
 * Also of memory that is not managed: where nothing is mapped, or without any right, `access` is 0. A page that
 * moves while it is looked at has GM_PAGE_BUSY, and nothing is said of the kernel's part of it but `access`.
 *
 * @param[in]  as     the address space
 * @param[in]  va     first byte, multiple of GM_PAGE_BYTES
 * @param[in]  pages  how many
 * @param[out] info   array[pages], filled in completely
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p info is NULL; unaligned, empty or overflowing range
 * @retval GM_RET_NOMEM    the kernel cannot be asked: the program closed the descriptors for that, and has none left to open
 *                         them again (types.h); @p info is that of gm_query() for a part of the range at least
 * @threads any; a snapshot per block, not over blocks
 */
GM_API gm_ret_t gm_query_host(struct gm_as *as, uint64_t va, size_t pages, struct gm_page_info *info);

/** How many bytes of a range are where; whole pages. The places together are all of it. */
struct gm_residency {
	uint64_t outside_bytes;         /**< GM_PLACE_OUTSIDE */
	uint64_t host_bytes;            /**< GM_PLACE_HOST: home, or on the way home, or never touched */
	uint64_t none_bytes;            /**< GM_PLACE_NONE */
	uint64_t in_place_bytes;        /**< GM_PLACE_IN_PLACE */
	uint64_t poisoned_bytes;        /**< GM_PLACE_POISONED */
	uint64_t dev_bytes[GM_MAX_DEVS]; /**< GM_PLACE_DEVICE, by gm_dev_info.index */
	uint64_t busy_bytes;            /**< of all that: GM_PAGE_BUSY */
	uint64_t held_bytes;            /**< of all that: GM_PAGE_HELD */
};

/**
 * @brief How much of a range is where, in one call.
 * @param[in]  as     the address space
 * @param[in]  va     first byte; rounded down to a page
 * @param[in]  bytes  length, > 0; the end is rounded up to a page
 * @param[out] out    filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p as is no address space that lives, @p out is NULL; empty or overflowing range
 * @threads any; a snapshot per block, not over blocks
 */
GM_API gm_ret_t gm_residency(struct gm_as *as, uint64_t va, uint64_t bytes, struct gm_residency *out);

#ifdef __cplusplus
}
#endif
#endif
