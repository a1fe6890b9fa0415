/* SPDX-License-Identifier: MIT */
/**
 * @file mockhw.h
 * @brief Bring your own device: mock hardware that a runtime opened itself.
 */
#ifndef GMEM_MOCKHW_H
#define GMEM_MOCKHW_H

#include <gmem/mock.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @brief Open mock hardware as a runtime does that knows nothing of this library.
 *
 * It has memory and one page table. The runtime takes memory for itself, maps it, and may then give the hardware to
 * gm_dev_create() in gm_mock_config.hw, as dev_data of gm_mock_mmu(): the library manages what memory is left, and
 * works in the same page table, so that kernels see the runtime's mappings and managed memory alike. The library never
 * touches the runtime's memory or mappings. When the device is destroyed the hardware is as it was, and another device
 * can be made on it.
 *
 * To keep its addresses apart from those of managed memory is the runtime's job. Addresses that no program has (on
 * x86-64 those from 2^47 on), or that the runtime reserves with mmap(PROT_NONE), never meet. Where they do meet,
 * whoever comes second is refused: gm_mock_hw_map() with GM_RET_EXIST, the library with GM_RET_NOMEM from pmap_enter()
 * and a line in the log. After a NOMEM of pmap_enter() the contract in hal.h wants nothing mapped, and the validation
 * shim, which knows the library's mappings only, reports the runtime's page that it finds there
 * (GM_RULE_FAILED_EFFECT); with GM_VALIDATE_ABORT, the default of builds with checks, the program ends there.
 *
 * @param[in]  config  as for a device, vram_bytes, page_sizes and va_bits count; NULL for the defaults
 * @param[out] hw      the hardware
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p hw is NULL, @p config makes no sense or has `hw` set
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 * @owner   the caller ends it with gm_mock_hw_destroy()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_create(const struct gm_mock_config *config, struct gm_mock_hw **hw);

/**
 * @brief Close the hardware.
 * @param[in] hw  the hardware; NULL is allowed
 * @retval GM_RET_SUCCESS  gone, with memory and mappings
 * @retval GM_RET_INVAL    @p hw is no hardware that is open
 * @retval GM_RET_BUSY     a device uses it; nothing changed
 * @threads no other call on @p hw may be in flight
 */
GM_API gm_ret_t gm_mock_hw_destroy(struct gm_mock_hw *hw);

/**
 * @brief Take memory for the runtime, for as long as the hardware is open.
 * @param[in]  hw     the hardware
 * @param[in]  bytes  multiple of GM_UNIT_BYTES and of the smallest page
 * @param[out] pa     device-physical address; reads as zeros if no device had it before
 * @retval GM_RET_SUCCESS  taken
 * @retval GM_RET_INVAL    @p hw is no hardware that is open, @p pa is NULL, @p bytes zero or not such a multiple
 * @retval GM_RET_NOSPC    there is not so much left
 * @retval GM_RET_BUSY     a device uses the hardware: what is left belongs to the library
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_alloc(struct gm_mock_hw *hw, uint64_t bytes, uint64_t *pa);

/**
 * @brief Map the runtime's memory, for kernels.
 * @param[in] hw      the hardware
 * @param[in] va      device VA, multiple of the smallest page
 * @param[in] pa      memory of gm_mock_hw_alloc(), multiple of the smallest page
 * @param[in] bytes   multiple of the smallest page
 * @param[in] rights  GM_READ, GM_WRITE, GM_ATOMIC; loads are always allowed
 * @retval GM_RET_SUCCESS  mapped
 * @retval GM_RET_INVAL    @p hw is no hardware that is open; unaligned, empty, beyond the VA bits, not the runtime's
 *                         memory, unknown rights
 * @retval GM_RET_EXIST    something is mapped in the range; nothing changed
 * @retval GM_RET_NOMEM    out of memory; nothing changed
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_map(struct gm_mock_hw *hw, uint64_t va, uint64_t pa, uint64_t bytes,
					     uint32_t rights);

/**
 * @brief Unmap what the runtime mapped; mappings of the library stay.
 *
 * When it returns no kernel uses the mappings any more.
 *
 * @param[in] hw     the hardware
 * @param[in] va     device VA, multiple of the smallest page
 * @param[in] bytes  multiple of the smallest page; holes are no error
 * @retval GM_RET_SUCCESS  unmapped
 * @retval GM_RET_INVAL    @p hw is no hardware that is open; unaligned, empty, beyond the VA bits
 * @retval GM_RET_NOMEM    no memory to split a larger page; nothing changed
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_unmap(struct gm_mock_hw *hw, uint64_t va, uint64_t bytes);

/**
 * @brief Copy out of the runtime's memory.
 * @param[in]  hw     the hardware
 * @param[in]  pa     memory of gm_mock_hw_alloc()
 * @param[out] buf    receives the bytes
 * @param[in]  bytes  how many
 * @retval GM_RET_SUCCESS  copied
 * @retval GM_RET_INVAL    @p hw is no hardware that is open, @p buf is NULL, or it is not the runtime's memory
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_read(struct gm_mock_hw *hw, uint64_t pa, void *buf, uint64_t bytes);

/**
 * @brief Copy into the runtime's memory.
 * @param[in] hw     the hardware
 * @param[in] pa     memory of gm_mock_hw_alloc()
 * @param[in] buf    the bytes
 * @param[in] bytes  how many
 * @retval GM_RET_SUCCESS  copied
 * @retval GM_RET_INVAL    @p hw is no hardware that is open, @p buf is NULL, or it is not the runtime's memory
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_write(struct gm_mock_hw *hw, uint64_t pa, const void *buf, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
