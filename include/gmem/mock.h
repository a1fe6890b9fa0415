/* SPDX-License-Identifier: MIT */
/**
 * @file mock.h
 * @brief The mock accelerator: a device in software, for tests and CI.
 *
 * It has its own page table in its own memory, TLBs that go stale when an
 * invalidation is forgotten, a copy engine, a fault queue, and threads that
 * run C kernels whose every access goes through the device's translation.
 *
 * Its descriptors of completion (gm_fence_export()) are ends of a socket pair,
 * AF_UNIX and SOCK_SEQPACKET. One becomes readable when the fence is done: one
 * message of four bytes, the gm_ret_t in the machine's byte order. Read it with
 * MSG_PEEK, so that others who hold the descriptor find it too. One that is
 * closed from the other side without a message (its maker died) counts as
 * GM_RET_IO. After fork() the maker's end is open in the child, too, until it
 * calls exec().
 */
#ifndef GMEM_MOCK_H
#define GMEM_MOCK_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gm_mmu;
struct gm_plugin;
struct gm_mock_hw; /**< hardware that a runtime opened itself; see gm_mock_hw_create() */

/** Errors planted in the device, for tests of tests: a correct suite must notice each. */
enum gm_mock_bug {
	GM_MOCK_BUG_NONE, /**< none */
	GM_MOCK_BUG_SKIP_INVL, /**< tlb_invl does nothing */
	GM_MOCK_BUG_SKIP_REMOVE, /**< pmap_remove leaves the last page mapped */
	GM_MOCK_BUG_SKIP_COPY, /**< every 64th copied page is not copied */
	GM_MOCK_BUG_SKIP_ZERO, /**< zero-fill does nothing */
	GM_MOCK_BUG_WRONG_PA, /**< pmap_enter of several pages maps the first one twice */
	GM_MOCK_BUG_EARLY_FENCE, /**< copies are signalled before they are done (async_copy) */
	GM_MOCK_BUG_LOST_FAULT, /**< every 64th fault is not reported: the thread waits for ever */
	GM_MOCK_BUG_IGNORE_RIGHTS, /**< stores pass through read-only mappings */
	GM_MOCK_BUG_ENTER_SHORT, /**< pmap_enter of several pages leaves the last one out */
	GM_MOCK_BUG_ENTER_HALF, /**< pmap_enter that fails has mapped the first half */
	GM_MOCK_BUG_ENTER_WRITABLE, /**< pmap_enter always gives write */
	GM_MOCK_BUG_ENTER_NO_GROW, /**< pmap_enter over a mapping does nothing: rights do not grow */
	GM_MOCK_BUG_ENTER_EXIST, /**< pmap_enter over a mapping fails with EXIST */
	GM_MOCK_BUG_ENTER_AGAIN, /**< pmap_enter without memory says AGAIN, not NOMEM */
	GM_MOCK_BUG_REMOVE_LARGE, /**< pmap_remove drops the whole of a larger page that the range cuts */
	GM_MOCK_BUG_REMOVE_NEIGHBOUR, /**< pmap_remove drops the page behind the range as well */
	GM_MOCK_BUG_REMOVE_HALF, /**< pmap_remove that fails has dropped the first half */
	GM_MOCK_BUG_REMOVE_NOENT, /**< pmap_remove of a range that begins with a hole fails with NOENT */
	GM_MOCK_BUG_SPLIT_RIGHTS, /**< what remains of a larger page that was cut has the opposite write right */
	GM_MOCK_BUG_PROTECT_FIRST, /**< pmap_protect changes the first page only */
	GM_MOCK_BUG_PROTECT_MOVES, /**< pmap_protect maps the first page to its neighbour's memory */
	GM_MOCK_BUG_PROTECT_DROPS, /**< pmap_protect unmaps the last page */
	GM_MOCK_BUG_PROTECT_FILLS, /**< pmap_protect maps the holes of the range */
	GM_MOCK_BUG_CREATE_EARLY, /**< pmap_create says NOSPC one page table too early */
	GM_MOCK_BUG_CREATE_UNBOUNDED, /**< pmap_create knows no max_contexts */
	GM_MOCK_BUG_DESTROY_LEAK, /**< pmap_destroy leaves memory behind */
	GM_MOCK_BUG_FINI_LEAK, /**< dev_fini leaves memory behind */
	GM_MOCK_BUG_INVL_FIRST, /**< tlb_invl drops the first page of the range only */
	GM_MOCK_BUG_INVL_ONE_TLB, /**< tlb_invl reaches one TLB only, that of access() */
	GM_MOCK_BUG_INVL_NO_WAIT, /**< tlb_invl does not wait for accesses in flight */
	GM_MOCK_BUG_RIGHTS_STICK, /**< a right that grew is not seen before the next tlb_invl */
	GM_MOCK_BUG_COPY_SHIFT, /**< in a piece of several pages each takes the bytes of the next one */
	GM_MOCK_BUG_COPY_SWAP, /**< two neighbouring pieces of one call exchange their host addresses */
	GM_MOCK_BUG_COPY_LAST, /**< the last of several pieces is not copied */
	GM_MOCK_BUG_FENCE_TWICE, /**< a fence is signalled twice (not async_copy) */
	GM_MOCK_BUG_FENCE_AFTER_ERROR, /**< copy and submit that fail signal their fence too */
	GM_MOCK_BUG_FENCE_NEVER, /**< every 8th fence is not signalled */
	GM_MOCK_BUG_FENCE_SUCCESS, /**< fences say SUCCESS, also where the transfer or the plan failed */
	GM_MOCK_BUG_PLAN_REVERSED, /**< steps of a plan run last to first */
	GM_MOCK_BUG_PLAN_NO_RET, /**< steps of a plan get no result */
	GM_MOCK_BUG_PLAN_GOES_ON, /**< a plan goes on after a step failed */
	GM_MOCK_BUG_PLAN_DROPS_LAST, /**< the last step of a plan of several is not done, but called a success */
	GM_MOCK_BUG_FAULT_TWICE, /**< fault_next names each fault twice */
	GM_MOCK_BUG_FAULT_VA, /**< fault_next names the page behind */
	GM_MOCK_BUG_FAULT_ACCESS, /**< fault_next names stores as loads */
	GM_MOCK_BUG_FAULT_ONE_WAITER, /**< fault_done serves the first waiter only */
	GM_MOCK_BUG_FAULT_ONE_PAGE, /**< fault_done serves the first page of the range only */
	GM_MOCK_BUG_FAULT_RESULT, /**< fault_done with a failure makes the access fail with IO, whatever was given */
	GM_MOCK_BUG_FAULT_BLOCKS, /**< fault_next sleeps */
	GM_MOCK_BUG_FAULT_SILENT, /**< a fault is queued but not announced */
	GM_MOCK_BUG_CPU_PTR_OFF, /**< cpu_ptr is a page off */
	GM_MOCK_BUG_SYNC_EARLY, /**< sync_import signals at once */
	GM_MOCK_BUG_SYNC_SUCCESS, /**< sync_signal tells SUCCESS, whatever the result */
	GM_MOCK_BUG_SYNC_SILENT, /**< sync_signal closes its end without telling the result */
	GM_MOCK_BUGS, /**< how many there are, with none */
};

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
	bool no_sync;          /**< no descriptors of completion */
	/** The hardware, opened by a runtime: memory, page sizes and VA bits are its own, whatever is said of them here, and
	 *  max_contexts is 1. NULL: the device is all the library's. */
	struct gm_mock_hw *hw;
	enum gm_mock_bug bug;  /**< planted from the start (default none); see gm_mock_plant() */
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
 * `vram=64M,pages=4K+64K+2M,faults=no,hostmap=no,visible=no,submit=no,copy=async,copyns=1000,tlb=64,vabits=48,contexts=8,sync=no`;
 * sizes take K, M, G; every word is optional. `bug=NAME` plants an error by its name (gm_mock_bug_name()).
 *
 * @param[in]  text    the words; NULL or "" for the defaults
 * @param[out] config  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    NULL @p config, unknown word, bad number; gm_last_error() names it
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_parse(const char *text, struct gm_mock_config *config);

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
 * and a line in the log.
 *
 * @param[in]  config  as for a device, vram_bytes, page_sizes and va_bits count; NULL for the defaults
 * @param[out] hw      the hardware
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p hw is NULL, or the configuration makes no sense or has `hw` set
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 * @owner   the caller ends it with gm_mock_hw_destroy()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_create(const struct gm_mock_config *config, struct gm_mock_hw **hw);

/**
 * @brief Close the hardware.
 * @param[in] hw  the hardware; NULL is allowed
 * @retval GM_RET_SUCCESS  gone, with memory and mappings
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
 * @retval GM_RET_INVAL    NULL, zero or not such a multiple
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
 * @retval GM_RET_INVAL    NULL, unaligned, empty, beyond the VA bits, not the runtime's memory, unknown rights
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
 * @retval GM_RET_INVAL    NULL, unaligned, empty, beyond the VA bits
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
 * @retval GM_RET_INVAL    NULL, or not the runtime's memory
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
 * @retval GM_RET_INVAL    NULL, or not the runtime's memory
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_hw_write(struct gm_mock_hw *hw, uint64_t pa, const void *buf, uint64_t bytes);

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
 * @retval GM_RET_INVAL    NULL, threads out of range, not a mock device
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
 * @return else as gm_mock_load()
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_fetch_add(struct gm_mock_thread *thread, uint64_t va, uint64_t add,
						uint64_t *old);

/**
 * @brief Give other threads a chance; for kernels that poll.
 * @param[in] thread  the kernel's thread
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
 * @retval GM_RET_INVAL    NULL, not a mock device, unknown operation
 * @threads any
 */
GM_API gm_ret_t gm_mock_fail(struct gm_dev *dev, enum gm_mock_op op, uint64_t nth, uint64_t count);

/**
 * @brief Plant an error in the device.
 * @param[in] dev  a mock device
 * @param[in] bug  which
 * @retval GM_RET_SUCCESS  planted
 * @retval GM_RET_INVAL    NULL, not a mock device, unknown bug
 * @threads any
 */
GM_API gm_ret_t gm_mock_plant(struct gm_dev *dev, enum gm_mock_bug bug);

/**
 * @brief Name of an error that can be planted, such as "skip_invl".
 * @param[in] bug  any value
 * @return a constant string; "none" for GM_MOCK_BUG_NONE, NULL for a value outside the enum
 * @threads any
 */
GM_API const char *gm_mock_bug_name(enum gm_mock_bug bug);

/**
 * @brief The mock as a backend for tools and tests: gmem/plugin.h.
 *
 * Its options are gm_mock_parse()'s. It has every hook. `skips` gives a reason for each capability and hook that some
 * configuration of it lacks; one list does for all of them, because a reason counts only where something is missing.
 *
 * @return a constant structure
 * @threads any
 */
GM_API const struct gm_plugin *gm_mock_plugin(void);

/**
 * @brief Read the device's counters.
 * @param[in]  dev    a mock device
 * @param[out] stats  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    NULL, or not a mock device
 * @threads any
 */
GM_API gm_ret_t gm_mock_stats(struct gm_dev *dev, struct gm_mock_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
