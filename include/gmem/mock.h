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
struct gm_mock_hw; /**< hardware that a runtime opened itself; see gmem/mockhw.h */

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
	GM_MOCK_BUG_VA_ALIAS, /**< accesses ignore the highest address bit */
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
	GM_MOCK_BUG_FENCE_AFTER_ERROR, /**< copy, submit and sync_import that fail signal their fence too */
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
	GM_MOCK_BUG_FAULT_UNNAMED, /**< fault_done with a failure is also for faults that were not named yet */
	GM_MOCK_BUG_FAULT_BLOCKS, /**< fault_next sleeps */
	GM_MOCK_BUG_FAULT_SILENT, /**< a fault is queued but not announced */
	GM_MOCK_BUG_CPU_PTR_OFF, /**< cpu_ptr is a page off */
	GM_MOCK_BUG_SYNC_EARLY, /**< sync_import signals at once */
	GM_MOCK_BUG_SYNC_SUCCESS, /**< sync_signal tells SUCCESS, whatever the result */
	GM_MOCK_BUG_SYNC_SILENT, /**< sync_signal closes its end without telling the result */
	GM_MOCK_BUG_DIRTY_LOST, /**< pmap_harvest says of no page that it was stored to */
	GM_MOCK_BUG_ACCESS_STRAIGHT, /**< access over several pages goes on behind the frame of the first one */
	GM_MOCK_BUG_ENTER_TOP, /**< pmap_enter leaves out the last page of the address bits */
	GM_MOCK_BUG_ENTER_ALL, /**< pmap_enter maps in all page tables of the device */
	GM_MOCK_BUG_PROTECT_HALF, /**< pmap_protect that fails has changed the first half */
	GM_MOCK_BUG_DESTROY_OTHER, /**< pmap_destroy drops the mappings of the other page tables, too */
	GM_MOCK_BUG_DESTROY_RESULT, /**< pmap_destroy answers faults with FAULT */
	GM_MOCK_BUG_CREATE_HALF, /**< pmap_create that fails keeps its place of max_contexts */
	GM_MOCK_BUG_INIT_LEAK, /**< dev_init that fails leaves memory behind */
	GM_MOCK_BUG_DEVICES_SHARE, /**< all devices have the memory of the first one */
	GM_MOCK_BUG_PEER_WRONG, /**< copies from another device read this one */
	GM_MOCK_BUG_HARVEST_CLEARS, /**< pmap_harvest asks for memory, and fails without after it has cleared the bits */
	GM_MOCK_BUG_SYNC_WRITES, /**< sync_create that fails writes its out-parameters */
	GM_MOCK_BUG_NEEDS_MEMORY, /**< tlb_invl, access, fault_done and peer_reach ask for memory, and fail without */
	GM_MOCK_BUG_LOST_ALIVE, /**< pmap_create of a lost device succeeds */
	GM_MOCK_BUG_LOST_FENCE, /**< fences that are pending when the device is lost stay so (async_copy) */
	GM_MOCK_BUG_LOST_WAITS, /**< accesses that wait for a fault when the device is lost go on waiting */
	GM_MOCK_BUG_HALT_IGNORED, /**< dev_halt does nothing */
	GM_MOCK_BUG_HALT_LATE, /**< dev_halt signals the fences, but the engine goes on (async_copy) */
	GM_MOCK_BUGS, /**< how many there are, with none */
};

/** Copy engines of one device at most. */
#define GM_MOCK_MAX_ENGINES 8

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
	/* Shape. */
	uint64_t visible_bytes; /**< the CPU sees only so many first bytes of device memory; 0: all */
	uint32_t engines;       /**< copy engines, 1 .. GM_MOCK_MAX_ENGINES; more than 1 implies async_copy (default 1) */
	uint32_t peer_group;    /**< devices of the same group read each other's memory; 0: none */
	uint64_t reorder_seed;  /**< independent work is done in an order drawn from this seed; 0: as it came */
	bool dirty_bits;        /**< GM_CAP_DIRTY */
	bool no_protect;        /**< without GM_CAP_PROTECT */
	bool no_access;         /**< without GM_CAP_ACCESS */
	bool no_fast_invl;      /**< without GM_CAP_FAST_INVL */
	bool no_sync;           /**< without GM_CAP_SYNC */
	/* What things cost in modelled time; 0: nothing. docs/mock.md has the equations. */
	bool timing_wait;       /**< operations take their time (default: it is only added up) */
	uint64_t to_dev_bps;    /**< bytes per second from host to device */
	uint64_t to_host_bps;   /**< from device to host */
	uint64_t peer_bps;      /**< from another device */
	uint64_t zero_bps;      /**< filled with zeros */
	uint64_t latency_ns;    /**< per piece of a copy */
	uint64_t op_ns;         /**< per call of an operation */
	uint64_t step_ns;       /**< per step of a plan that is no copy */
	uint64_t fault_ns;      /**< from an access that faults until the host is told */
	uint64_t miss_ns;       /**< per walk of the page table */
	/** The hardware, opened by a runtime: memory, page sizes and VA bits are its own, whatever is said of them here, and
	 *  max_contexts is 1. NULL: the device is all the library's; what is no hardware that is open is refused. */
	struct gm_mock_hw *hw;
	/* Errors. */
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
	GM_MOCK_INVL,        /**< cannot fail, but be late, or find the device lost */
	GM_MOCK_HARVEST,     /**< NOMEM */
	GM_MOCK_PEER_REACH,  /**< NOTSUP */
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
	uint64_t bytes_from_peer; /**< copied from other devices */
	uint64_t modelled_ns; /**< what all of it would have taken */
	uint64_t stall_ns;    /**< of that, kernel threads stood still: faults and walks, summed over threads */
	uint64_t mmu_ns;      /**< of that, page table work was done */
	uint64_t fault_ns;    /**< of that, the fault unit was busy */
	uint64_t busy_ns[GM_MOCK_MAX_ENGINES]; /**< of that, each engine was busy */
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
 * sizes take K, M, G; every word is optional; of a word given twice the last one counts. `bug=NAME` plants an error by
 * its name (gm_mock_bug_name()). docs/mock.md lists all words.
 *
 * @param[in]  text    the words; NULL or "" for the defaults
 * @param[out] config  filled in
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_INVAL    NULL @p config, unknown word, bad number; gm_last_error() names it
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_parse(const char *text, struct gm_mock_config *config);

/**
 * @brief The presets, one by one: shapes of devices with a name (`preset=NAME`).
 * @param[in]  index  0 for the first one
 * @param[out] name   its name, a constant; NULL if not wanted
 * @param[out] words  the words it stands for, a constant; NULL if not wanted
 * @param[out] text   one sentence on what it is like, a constant; NULL if not wanted
 * @retval GM_RET_SUCCESS  filled in
 * @retval GM_RET_NOENT    there are not so many
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_preset(unsigned index, const char **name, const char **words, const char **text);

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
 * @retval GM_RET_NOTSUP  the page is host memory mapped in place; a device that takes faults asks for it first
 * @retval GM_RET_INVAL   @p thread is none of a kernel that runs, or @p va is unaligned
 * @return else as gm_mock_load()
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_fetch_add(struct gm_mock_thread *thread, uint64_t va, uint64_t add,
						uint64_t *old);

/**
 * @brief Replace an aligned 64-bit word, if it is as expected, atomically (device memory only).
 * @param[in]  thread    the kernel's thread
 * @param[in]  va        device VA, multiple of 8
 * @param[in]  expected  what must be there
 * @param[in]  desired   what is there then
 * @param[out] old       value before: it was replaced if that is @p expected; NULL if not wanted
 * @retval GM_RET_NOTSUP  the page is host memory mapped in place; a device that takes faults asks for it first
 * @retval GM_RET_INVAL   @p thread is none of a kernel that runs, or @p va is unaligned
 * @return else as gm_mock_load()
 * @threads the kernel's own
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_compare_swap(struct gm_mock_thread *thread, uint64_t va, uint64_t expected,
						   uint64_t desired, uint64_t *old);

/**
 * @brief Give other threads a chance; for kernels that poll.
 * @param[in] thread  the kernel's thread; what is none is left alone
 * @threads the kernel's own
 */
GM_API void gm_mock_yield(struct gm_mock_thread *thread);

/**
 * @brief Make an operation fail, as enum gm_mock_op says it fails.
 *
 * A rule (gm_mock_rule_add()) for every place; it replaces the one that was made like this for the same operation.
 *
 * @param[in] dev    a mock device
 * @param[in] op     which
 * @param[in] nth    the nth call from now fails, 1 is the next; 0 clears
 * @param[in] count  how many calls fail from there on; 0 clears
 * @retval GM_RET_SUCCESS  set
 * @retval GM_RET_INVAL    @p dev is no mock device that lives; unknown operation, or one that cannot fail
 * @retval GM_RET_NOMEM    out of memory
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
 * @retval GM_RET_INVAL    @p dev is no mock device that lives, or @p stats is NULL
 * @threads any
 */
GM_API gm_ret_t gm_mock_stats(struct gm_dev *dev, struct gm_mock_stats *stats);

/**
 * @brief Where the device's memory lies in this process: what a count of the process's own memory leaves out.
 * @param[in]  dev    a mock device
 * @param[out] ptr    its first byte; the library's and the device's, to be looked at with mincore() at most
 * @param[out] bytes  its length
 * @retval GM_RET_SUCCESS  told; it stays there as long as the device lives
 * @retval GM_RET_INVAL    @p dev is no mock device that lives, @p ptr or @p bytes is NULL
 * @threads any
 */
GM_API gm_ret_t gm_mock_memory(struct gm_dev *dev, void **ptr, uint64_t *bytes);

/** What the place of a rule is. */
enum gm_mock_where {
	GM_MOCK_ANYWHERE, /**< every call */
	GM_MOCK_AT_VA,    /**< calls whose range of device VA meets `[begin, end)`: enter, remove, protect, invl, harvest */
	GM_MOCK_AT_PA,    /**< calls that meet `[begin, end)` of device memory: enter, copy */
};

/** A failure by place and count. What does not match is not counted. */
struct gm_mock_rule {
	size_t size;               /**< sizeof(struct gm_mock_rule) */
	uint64_t begin;            /**< first byte of the place */
	uint64_t end;              /**< one past its last */
	uint64_t nth;              /**< the nth match is the first one that counts; 1: the next */
	uint64_t count;            /**< so many in a row; UINT64_MAX: all from there on */
	uint64_t delay_ns;         /**< it takes so much longer, in real and in modelled time */
	enum gm_mock_op op;        /**< the operation */
	enum gm_mock_where where;  /**< the kind of place */
	gm_ret_t result;           /**< what gmem/hal.h lists for the operation; SUCCESS: it is only late, or hangs;
				    *   NODEV: the device is lost from then on */
	bool hang;                 /**< copies and plans: nothing is done, and the fence stays pending */
	bool garbage;              /**< GM_MOCK_COPY_LATE: the destinations are overwritten with nonsense */
};

/**
 * @brief Script a failure.
 *
 * Rules are asked in the order in which they were added; the first one whose turn it is decides the result, the
 * delays of all add up.
 *
 * @param[in] dev   a mock device
 * @param[in] rule  copied
 * @retval GM_RET_SUCCESS  added
 * @retval GM_RET_INVAL    @p dev is no mock device that lives; NULL, a wrong size, unknown numbers, nth or count 0, an
 *                         empty place, a place that the operation does not have, a result that it may not have,
 *                         nothing that would happen; a delay of an invalidation that never waits (GM_CAP_FAST_INVL)
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 */
GM_API gm_ret_t gm_mock_rule_add(struct gm_dev *dev, const struct gm_mock_rule *rule);

/**
 * @brief Forget all rules, those of gm_mock_fail() included; what hangs ends with GM_RET_IO.
 * @param[in] dev  a mock device
 * @retval GM_RET_SUCCESS  done
 * @retval GM_RET_INVAL    @p dev is no mock device that lives
 * @threads any
 */
GM_API gm_ret_t gm_mock_rule_clear(struct gm_dev *dev);

/**
 * @brief The device is gone, as if unplugged, and for ever.
 *
 * Every operation answers GM_RET_NODEV, fences that are pending, imported ones too, are signalled with it, kernel
 * threads that wait for a fault wake up with it, and so does every later access of a kernel.
 *
 * @param[in] dev  a mock device
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_INVAL    @p dev is no mock device that lives
 * @threads any, also in a kernel
 */
GM_API gm_ret_t gm_mock_lose(struct gm_dev *dev);

/**
 * @brief A page of device memory cannot be read any more.
 *
 * Transfers from it fail with GM_RET_IO, accesses of kernels to it too, and the CPU does not see it. What is written
 * there by transfers is not missed. The operation `access` has no result for it, because the mapping is there: it says
 * SUCCESS, loads show bytes of 0xff, stores are lost. It stays so until the device is closed.
 *
 * @param[in] dev  a mock device
 * @param[in] pa   any device-physical address in the page
 * @retval GM_RET_SUCCESS  broken
 * @retval GM_RET_INVAL    @p dev is no mock device that lives; @p pa is no device memory
 * @retval GM_RET_NOSPC    GM_MOCK_MAX_BAD_PAGES are broken already
 * @threads any
 */
GM_API gm_ret_t gm_mock_bad_page(struct gm_dev *dev, uint64_t pa);

/** Broken pages of one device at most. */
#define GM_MOCK_MAX_BAD_PAGES 64

/** What an event is. The first six are steps: what expectations are about. */
enum gm_mock_event_kind {
	GM_MOCK_EV_REMOVE,  /**< pmap_remove */
	GM_MOCK_EV_INVL,    /**< tlb_invl */
	GM_MOCK_EV_COPY,    /**< one piece of a copy; `copy` says which kind */
	GM_MOCK_EV_ENTER,   /**< pmap_enter */
	GM_MOCK_EV_PROTECT, /**< pmap_protect */
	GM_MOCK_EV_HARVEST, /**< pmap_harvest */
	GM_MOCK_EV_CREATE,  /**< pmap_create */
	GM_MOCK_EV_DESTROY, /**< pmap_destroy */
	GM_MOCK_EV_FAULT,   /**< a fault was raised */
	GM_MOCK_EV_DONE,    /**< fault_done */
};

/** Something the device did, alone or as a step of a plan. */
struct gm_mock_event {
	enum gm_mock_event_kind kind; /**< what */
	int copy;        /**< enum gm_copy_kind of gmem/hal.h */
	const void *pmap; /**< page table; NULL for copies */
	uint64_t va;     /**< device VA */
	uint64_t pa;     /**< device memory; a host VA when entered with GM_PTE_HOST */
	uint64_t host;   /**< copies: the other side */
	uint64_t bytes;  /**< length */
	uint32_t pte;    /**< rights: GM_PTE_* of gmem/hal.h; of a fault GM_READ, GM_WRITE, GM_ATOMIC */
	gm_ret_t ret;    /**< how it ended; of a fault_done the answer */
};

/**
 * @brief Write an event as text, as an expectation would say it: "copy to-dev 0x40000000+64K".
 * @param[in]  event  an event
 * @param[out] buf    receives the text, cut where it does not fit; always ends with '\0'
 * @param[in]  bytes  of @p buf
 * @retval GM_RET_SUCCESS  all of it fits
 * @retval GM_RET_NOSPC    it was cut
 * @retval GM_RET_INVAL    NULL, no bytes, an unknown kind
 * @threads any
 */
GM_API gm_ret_t gm_mock_event_text(const struct gm_mock_event *event, char *buf, size_t bytes);

/** Told of every event, in order. With locks held: it calls nothing of the library, and does not wait. */
typedef void (*gm_mock_trace_fn)(void *arg, const struct gm_mock_event *event);

/**
 * @brief Be told of everything the device does.
 * @param[in] dev  a mock device
 * @param[in] fn   called for each event, by the thread that caused it; NULL ends it
 * @param[in] arg  handed to it
 * @retval GM_RET_SUCCESS  set; after NULL it is not called any more
 * @retval GM_RET_INVAL    @p dev is no mock device that lives
 * @threads any, but not from @p fn
 */
GM_API gm_ret_t gm_mock_trace(struct gm_dev *dev, gm_mock_trace_fn fn, void *arg);

/**
 * @brief From now on the device does exactly these steps.
 *
 * Steps are separated by `;`. `*` is any one step, `...` any number of them. A step is its name and any of: what kind
 * of copy (`to-dev`, `to-host`, `zero`, `from-peer`), a range `0xADDRESS+SIZE` (device VA; of copies device memory),
 * its beginning `0xADDRESS`, its `SIZE`, rights `ro` or `rw`, `host` or `local` memory, how often in a row `xN`, how
 * it ended `=NAME` (`=NOMEM`; `=*`: whatever; else it must have succeeded). What is not said is not looked at:
 * `"remove 0x10000+64K; invl; copy to-dev 64K x2; enter rw"`.
 *
 * @param[in] dev   a mock device
 * @param[in] text  the steps; "" for none
 * @retval GM_RET_SUCCESS  it is being watched
 * @retval GM_RET_INVAL    @p dev is no mock device that lives, @p text is NULL or not understood: the log says where
 * @retval GM_RET_BUSY     something is expected already
 * @retval GM_RET_NOMEM    out of memory
 * @threads any
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_expect(struct gm_dev *dev, const char *text);

/**
 * @brief Did it?
 * @param[in]  dev    a mock device
 * @param[out] why    on FAULT: what was expected and what was seen instead, one line; NULL if not wanted
 * @param[in]  bytes  of @p why
 * @retval GM_RET_SUCCESS  exactly so
 * @retval GM_RET_FAULT    it did something else, or more than GM_MOCK_MAX_EXPECT steps
 * @retval GM_RET_NOENT    nothing is expected
 * @retval GM_RET_INVAL    @p dev is no mock device that lives
 * @threads any; nothing is expected afterwards
 */
GM_API GM_MUST_CHECK gm_ret_t gm_mock_expect_end(struct gm_dev *dev, char *why, size_t bytes);

/** Steps between gm_mock_expect() and gm_mock_expect_end() at most. */
#define GM_MOCK_MAX_EXPECT 4096

#ifdef __cplusplus
}
#endif
#endif
