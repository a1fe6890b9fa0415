/* SPDX-License-Identifier: MIT */
/**
 * @file dev.h
 * @brief Devices: made from a backend's ops table, or by name.
 */
#ifndef GMEM_DEV_H
#define GMEM_DEV_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gm_mmu;

/** What a device is and can do, as negotiated when it was created. */
struct gm_dev_info {
	char name[64];          /**< given by the backend */
	uint32_t caps;          /**< GM_CAP_*, see hal.h */
	uint32_t va_bits;       /**< size of a device VA */
	uint64_t page_sizes;    /**< bit n set: pages of 2^n bytes */
	uint32_t granule_bytes; /**< unit of migration: max(host page, smallest device page) */
	uint32_t max_contexts;  /**< address spaces it can serve at once */
	uint64_t mem_bytes;     /**< device memory registered */
	uint64_t mem_free_bytes; /**< of that, not allocated now */
	uint32_t index;         /**< its place in gm_residency.dev_bytes */
};

/**
 * @brief Make a device from an ops table.
 *
 * The backend's dev_init() runs, its capabilities are checked against the
 * table, and the memory it announces is registered. A runtime that already
 * opened the device hands its own descriptor over in @p dev_data.
 *
 * @param[in]  lib       the instance
 * @param[in]  mmu       the ops table; must outlive the device
 * @param[in]  dev_data  for the backend's dev_init()
 * @param[out] dev       the device
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p lib is no instance that lives, @p mmu or @p dev is NULL, a wrong abi or size,
 *                         a required slot is missing, or capabilities contradict the table
 * @retval GM_RET_NOMEM    out of memory
 * @retval GM_RET_NOSPC    the instance has GM_MAX_DEVS devices already
 * @retval GM_RET_NODEV    there is no such device, or it is lost
 * @retval GM_RET_NOTSUP, GM_RET_PERM, GM_RET_BUSY  what dev_init() says: the device lacks something, the process may
 *                         not open it, somebody else has it. INVAL and NOMEM may be from there too
 * @threads any
 * @owner   the caller ends it with gm_dev_destroy()
 * @source  GMEM gm_dev_create()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_dev_create(struct gm_lib *lib, const struct gm_mmu *mmu, void *dev_data,
					    struct gm_dev **dev);

/**
 * @brief Make a device of a compiled-in backend by text.
 *
 * `"mock"`, or `"mock:vram=64M,faults=no"`; the words after the colon are the
 * backend's own.
 *
 * @param[in]  lib   the instance
 * @param[in]  spec  backend name, optionally a colon and options
 * @param[out] dev   the device
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p lib is no instance that lives, @p spec or @p dev is NULL, or an option the backend
 *                         does not know
 * @retval GM_RET_NOENT    no such backend; gm_last_error() lists those there are
 * @retval GM_RET_NOMEM, GM_RET_NOSPC, GM_RET_NODEV, GM_RET_NOTSUP, GM_RET_PERM, GM_RET_BUSY  as gm_dev_create()
 * @threads any
 * @owner   the caller ends it with gm_dev_destroy()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_dev_open(struct gm_lib *lib, const char *spec, struct gm_dev **dev);

/**
 * @brief End a device.
 * @param[in] dev  the device; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_BUSY     still attached to an address space, or a fence exported through it is pending
 *                         (gm_fence_export()); nothing changed
 * @retval GM_RET_INVAL    @p dev is no device that lives
 * @threads no other call on @p dev may be in flight
 */
GM_API gm_ret_t gm_dev_destroy(struct gm_dev *dev);

/**
 * @brief Give the library a piece of the device's memory to manage.
 *
 * For drivers, which know what memory their device has: the library takes the range
 * for memory that exists and that nobody else uses, and cannot check it.
 *
 * @param[in] dev    the device
 * @param[in] begin  first device-physical byte, multiple of GM_UNIT_BYTES
 * @param[in] end    one past the last byte, multiple of GM_UNIT_BYTES
 * @retval GM_RET_SUCCESS  registered
 * @retval GM_RET_INVAL    @p dev is no device that lives; unaligned, empty or beyond the device's address bits
 * @retval GM_RET_EXIST    overlaps memory registered before
 * @retval GM_RET_NOSPC    GM_MAX_SLABS pieces are registered already
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 * @source  GMEM gm_dev_register_physmem()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_dev_register_physmem(struct gm_dev *dev, uint64_t begin, uint64_t end);

/**
 * @brief Describe a device.
 * @param[in]  dev   the device
 * @param[out] info  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p dev is no device that lives, or @p info is NULL
 * @threads any
 */
GM_API gm_ret_t gm_dev_query(struct gm_dev *dev, struct gm_dev_info *info);

/**
 * @brief The backend's own object, as its dev_init() returned it.
 * @param[in] dev  the device
 * @return the object; NULL if @p dev is no device that lives
 * @threads any
 */
GM_API void *gm_dev_backend(struct gm_dev *dev);

#ifdef __cplusplus
}
#endif
#endif
