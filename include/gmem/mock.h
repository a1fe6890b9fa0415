/* SPDX-License-Identifier: MIT */
/**
 * @file mock.h
 * @brief The mock accelerator: a device in software, for tests and CI.
 *
 * It has its own page table in its own memory, TLBs that go stale when an
 * invalidation is forgotten, a copy engine, a fault queue, and threads that
 * run C kernels whose every access goes through the device's translation.
 */
#ifndef GMEM_MOCK_H
#define GMEM_MOCK_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gm_mmu;

/** What a mock device is made with: gm_dev_create()'s dev_data. */
struct gm_mock_config {
	size_t size;           /**< sizeof(struct gm_mock_config) */
	uint64_t vram_bytes;   /**< device memory; multiple of GM_UNIT_BYTES (default 64 MiB) */
	uint64_t page_sizes;   /**< bit n: 2^n bytes; any of 4 KiB, 64 KiB, 2 MiB (default all) */
	uint32_t va_bits;      /**< default 48 */
	uint32_t max_contexts; /**< default 8 */
	uint32_t tlb_entries;  /**< per thread, a power of two (default 64) */
	bool no_faults;        /**< an access without a mapping fails instead of faulting */
	bool no_host_map;      /**< cannot map host memory in place */
	bool no_cpu_visible;   /**< the CPU cannot read its memory */
	bool no_submit;        /**< basic operations only */
	bool async_copy;       /**< copies run on an engine thread (default: done when copy() returns) */
	uint64_t copy_ns;      /**< async_copy: the engine sleeps this long per copy call */
};

/** The operations of the ops table that can be made to fail. */
enum gm_mock_op {
	GM_MOCK_PMAP_CREATE, /**< fails with NOMEM */
	GM_MOCK_PMAP_ENTER,  /**< NOMEM */
	GM_MOCK_PMAP_REMOVE, /**< NOMEM */
	GM_MOCK_COPY,        /**< the call fails with IO */
	GM_MOCK_COPY_LATE,   /**< the transfer fails: garbage at the destination, fence signalled with IO */
	GM_MOCK_PROTECT,     /**< NOMEM */
	GM_MOCK_SUBMIT,      /**< NOMEM */
	GM_MOCK_OPS,         /**< how many there are */
};

/** Errors planted in the device, for tests of tests: a correct suite must notice each. */
enum gm_mock_bug {
	GM_MOCK_BUG_NONE,          /**< none */
	GM_MOCK_BUG_SKIP_INVL,     /**< tlb_invl does nothing */
	GM_MOCK_BUG_SKIP_REMOVE,   /**< pmap_remove leaves the last page mapped */
	GM_MOCK_BUG_SKIP_COPY,     /**< every 64th copied page is not copied */
	GM_MOCK_BUG_SKIP_ZERO,     /**< zero-fill does nothing */
	GM_MOCK_BUG_WRONG_PA,      /**< pmap_enter of several pages maps the first one twice */
	GM_MOCK_BUG_EARLY_FENCE,   /**< copies are signalled before they are done (async_copy) */
	GM_MOCK_BUG_LOST_FAULT,    /**< every 64th fault is not reported: the thread waits for ever */
	GM_MOCK_BUG_IGNORE_RIGHTS, /**< stores pass through read-only mappings */
};

/** Counters of a mock device. */
struct gm_mock_stats {
	uint64_t accesses;    /**< translated accesses */
	uint64_t tlb_misses;  /**< of those, walked the page table */
	uint64_t faults;      /**< reported */
	uint64_t copies;      /**< copy pieces */
	uint64_t bytes_to_dev;  /**< copied there */
	uint64_t bytes_to_host; /**< copied back */
	uint64_t invalidations; /**< tlb_invl calls */
	uint64_t submits;     /**< submit calls */
};

/**
 * @brief The mock's ops table, for gm_dev_create().
 * @return a constant table
 * @threads any
 */
GM_API const struct gm_mmu *gm_mock_mmu(void);

/**
 * @brief Fill a configuration from text.
 *
 * `vram=64M,pages=4K+64K+2M,faults=no,hostmap=no,visible=no,submit=no,copy=async,copyns=1000,tlb=64,vabits=48,contexts=8`;
 * sizes take K, M, G; every word is optional.
 *
 * @param[in]  text    the words; NULL or "" for the defaults
 * @param[out] config  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    NULL @p config, unknown word, bad number; gm_last_error() names it
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_parse(const char *text, struct gm_mock_config *config);

struct gm_mock_thread; /**< one thread of a running kernel */

/**
 * @brief A kernel: runs in every thread of a launch.
 * @param thread  pass it to the access functions
 * @param index   which thread, 0 .. threads - 1
 * @param arg     as given to gm_mock_launch()
 * @return GM_RET_SUCCESS, or the result of the access that failed
 */
typedef gm_ret_t (*gm_mock_kernel)(struct gm_mock_thread *thread, unsigned index, void *arg);

/**
 * @brief Run a kernel on the device.
 * @param[in]  ctx      a context of a mock device
 * @param[in]  kernel   the code; it must reach application memory only through the access functions
 * @param[in]  arg      handed to it; must not lie in managed memory
 * @param[in]  threads  1 .. 64
 * @param[out] fence    done when every thread has returned, with the first failure or SUCCESS
 * @retval GM_RET_SUCCESS  started
 * @retval GM_RET_INVAL    @p ctx is no context that lives, or not of a mock device; NULL, threads out of range
 * @retval GM_RET_NOMEM    out of memory
 * @retval GM_RET_AGAIN    no thread could be started
 * @threads any
 * @owner   the caller ends the fence with gm_fence_put(); the context must outlive the launch
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_launch(struct gm_ctx *ctx, gm_mock_kernel kernel, void *arg, unsigned threads,
					     struct gm_fence **fence);

/**
 * @brief Load bytes through the device's translation.
 * @param[in]  thread  the kernel's thread
 * @param[in]  va      device VA
 * @param[out] buf     receives the bytes
 * @param[in]  bytes   any length; accesses that fit into 8 aligned bytes are single-copy atomic
 * @retval GM_RET_SUCCESS  loaded
 * @retval GM_RET_INVAL    @p thread is none of a kernel that runs, or @p buf is NULL
 * @retval GM_RET_FAULT    no mapping (device without faults), or the fault could not be served
 * @retval GM_RET_PERM     no right
 * @retval other           what the fault was answered with
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_load(struct gm_mock_thread *thread, uint64_t va, void *buf, size_t bytes);

/**
 * @brief Store bytes through the device's translation.
 * @param[in] thread  the kernel's thread
 * @param[in] va      device VA
 * @param[in] buf     the bytes
 * @param[in] bytes   any length; accesses that fit into 8 aligned bytes are single-copy atomic
 * @return as gm_mock_load()
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_store(struct gm_mock_thread *thread, uint64_t va, const void *buf, size_t bytes);

/**
 * @brief Add to an aligned 64-bit counter atomically (device memory only).
 * @param[in]  thread  the kernel's thread
 * @param[in]  va      device VA, multiple of 8
 * @param[in]  add     what to add
 * @param[out] old     value before; NULL if not wanted
 * @retval GM_RET_NOTSUP  the page is host memory mapped in place
 * @retval GM_RET_INVAL   @p thread is none of a kernel that runs, or @p va is unaligned
 * @return else as gm_mock_load()
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_fetch_add(struct gm_mock_thread *thread, uint64_t va, uint64_t add,
						uint64_t *old);

/**
 * @brief Give other threads a chance; for kernels that poll.
 * @param[in] thread  the kernel's thread; what is none is left alone
 * @threads the kernel's own
 */
GM_API void gm_mock_yield(struct gm_mock_thread *thread);

/**
 * @brief Make an operation fail.
 * @param[in] dev    a mock device
 * @param[in] op     which
 * @param[in] nth    the nth call from now fails, 1 is the next; 0 clears
 * @param[in] count  how many calls fail from there on
 * @retval GM_RET_SUCCESS  set
 * @retval GM_RET_INVAL    @p dev is no mock device that lives; unknown operation
 * @threads any
 */
GM_API gm_ret_t gm_mock_fail(struct gm_dev *dev, enum gm_mock_op op, uint64_t nth, uint64_t count);

/**
 * @brief Plant an error in the device.
 * @param[in] dev  a mock device
 * @param[in] bug  which
 * @retval GM_RET_SUCCESS  planted
 * @retval GM_RET_INVAL    @p dev is no mock device that lives; unknown bug
 * @threads any
 */
GM_API gm_ret_t gm_mock_plant(struct gm_dev *dev, enum gm_mock_bug bug);

/**
 * @brief Read the device's counters.
 * @param[in]  dev    a mock device
 * @param[out] stats  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    @p dev is no mock device that lives, or @p stats is NULL
 * @threads any
 */
GM_API gm_ret_t gm_mock_stats(struct gm_dev *dev, struct gm_mock_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
