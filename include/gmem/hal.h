/* SPDX-License-Identifier: MIT */
/**
 * @file hal.h
 * @brief What a driver vendor implements: the ops table, and what it gets.
 *
 * The core computes everything (which pages, which order, which rights); a
 * backend only does. Law for every operation:
 *
 *  - The core never calls an operation with a lock of its own held, except
 *    fault_next() which must not block.
 *  - Addresses and lengths are multiples of the device's smallest page, > 0,
 *    without overflow, inside the address bits the device announced: a
 *    backend asserts rather than checks.
 *  - Calls for different address ranges may come from several threads at
 *    once; calls for overlapping ranges of one pmap never do.
 *  - A backend calls only its services (struct gm_services), never the
 *    library's public functions.
 *  - A backend returns only what the operation lists. GM_RET_NODEV is allowed
 *    everywhere, means that the device is lost, and is for ever.
 *  - After a failure the operation has had no effect, unless it says otherwise.
 */
#ifndef GMEM_HAL_H
#define GMEM_HAL_H

#include <gmem/fence.h>
#include <gmem/lib.h>
#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of struct gm_mmu; a table with another one is refused. */
#define GM_HAL_ABI 1u

/** @name Capabilities, announced in struct gm_dev_caps. */
/**@{*/
#define GM_CAP_FAULTS 1u      /**< raises page faults and replays: fault_next, fault_done */
#define GM_CAP_HOST_MAP 2u    /**< can map host memory in place: pmap_enter with GM_PTE_HOST */
#define GM_CAP_CPU_VISIBLE 4u /**< the CPU can read all of its memory: cpu_ptr */
#define GM_CAP_FAST_INVL 8u   /**< tlb_invl never waits for an engine: it may run in the fault handler */
#define GM_CAP_SUBMIT 16u     /**< takes several steps in one call: submit */
#define GM_CAP_ACCESS 32u     /**< one access through the device's own translation: access */
#define GM_CAP_PROTECT 64u    /**< changes rights without unmapping: pmap_protect */
#define GM_CAP_HOST 128u      /**< it is the host: table gm_mmu.host (not for vendors) */
/**@}*/

/** Storage of a lock; made by mutex_init(). */
struct gm_mutex {
	uint64_t opaque[8]; /**< private to the services */
};
/** Storage of a queue of waiters; made by waitq_init(). */
struct gm_waitq {
	uint64_t opaque[8]; /**< private to the services */
};
struct gm_thread; /**< a thread, or a coroutine of the simulation */

/** This thread belongs to a device: it must never touch application addresses. */
#define GM_THREAD_DEVICE 1u

/**
 * What a backend gets. Threads, time and waiting come from here and from
 * nowhere else: in simulation they are coroutines on a virtual clock.
 */
struct gm_services {
	uint32_t abi;  /**< GM_HAL_ABI */
	uint32_t size; /**< sizeof(struct gm_services) */
	void *self;    /**< first argument of every service */

	/** Zeroed memory, 16-byte aligned; NULL when there is none. */
	void *(*alloc)(void *self, size_t bytes);
	/** `bytes` as given to alloc; NULL is allowed. */
	void (*free)(void *self, void *ptr, size_t bytes);
	/** Monotonic time. */
	uint64_t (*now_ns)(void *self);
	/** Make a lock. Backend locks are leaves: take at most one at a time. */
	void (*mutex_init)(void *self, struct gm_mutex *mutex);
	/** Unmake it. */
	void (*mutex_fini)(void *self, struct gm_mutex *mutex);
	/** Take it. */
	void (*lock)(void *self, struct gm_mutex *mutex);
	/** Give it back. */
	void (*unlock)(void *self, struct gm_mutex *mutex);
	/** Make a queue of waiters. */
	void (*waitq_init)(void *self, struct gm_waitq *queue);
	/** Unmake it; nobody waits on it. */
	void (*waitq_fini)(void *self, struct gm_waitq *queue);
	/**
	 * Give `mutex` back, sleep until wake() or `deadline_ns`, take it again.
	 * GM_RET_SUCCESS (look again: it may be spurious) or GM_RET_TIMEDOUT.
	 */
	gm_ret_t (*wait)(void *self, struct gm_waitq *queue, struct gm_mutex *mutex, uint64_t deadline_ns);
	/** Wake everybody who waits. */
	void (*wake)(void *self, struct gm_waitq *queue);
	/** Start a thread with all signals blocked. SUCCESS, NOMEM, AGAIN. */
	gm_ret_t (*thread_start)(void *self, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
				 struct gm_thread **thread);
	/** Wait for its end. */
	void (*thread_join)(void *self, struct gm_thread *thread);
	/** Let others run: called in loops that poll. */
	void (*yield)(void *self);
	/** Signal a fence that was given to copy() or submit(). */
	void (*fence_signal)(void *self, struct gm_fence *fence, gm_ret_t result);
	/** A new pending fence, one reference (for launches); NULL when out of memory. */
	struct gm_fence *(*fence_create)(void *self);
	/** Give a reference back. */
	void (*fence_put)(void *self, struct gm_fence *fence);
	/** fault_next() has something to return. */
	void (*fault_ready)(void *self);
	/**
	 * One access over the bus to host memory mapped with GM_PTE_HOST; the
	 * only way in which a device may touch it. SUCCESS, or FAULT when the
	 * address is not accessible (nothing or a part was transferred).
	 */
	gm_ret_t (*host_access)(void *self, uint64_t host_va, void *buf, size_t bytes, bool write);
	/** A line for the log. */
	void (*log)(void *self, enum gm_log_level level, const char *message);
};

/** A piece of device-physical memory. */
struct gm_slab {
	uint64_t begin; /**< first byte */
	uint64_t end;   /**< one past the last */
};

/** What a device says of itself in dev_init(). */
struct gm_dev_caps {
	char name[64];        /**< for people */
	uint32_t caps;        /**< GM_CAP_* */
	uint32_t va_bits;     /**< device VA is `[0, 2^va_bits)` */
	uint64_t page_sizes;  /**< bit n: pages of 2^n bytes; the smallest is 4 KiB, 64 KiB or 2 MiB */
	uint32_t max_contexts; /**< pmaps at once, > 0 */
	uint32_t slabs;       /**< used entries of slab */
	struct gm_slab slab[GM_MAX_SLABS]; /**< memory to register at once; multiples of GM_UNIT_BYTES */
};

/** @name Page table entry flags. */
/**@{*/
#define GM_PTE_WRITE GM_WRITE   /**< stores allowed */
#define GM_PTE_ATOMIC GM_ATOMIC /**< read-modify-write allowed */
#define GM_PTE_HOST 256u        /**< pa is a host VA, accessed over the bus */
/**@}*/

/** What a copy does. */
enum gm_copy_kind {
	GM_COPY_TO_DEV,  /**< host -> pa */
	GM_COPY_TO_HOST, /**< pa -> host */
	GM_COPY_ZERO,    /**< pa := 0 */
};

/** One piece of a copy. */
struct gm_copy {
	enum gm_copy_kind kind; /**< direction */
	uint64_t pa;    /**< device-physical, multiple of GM_PAGE_BYTES */
	uint64_t host;  /**< host address of library memory, stable until the fence is done; 0 for GM_COPY_ZERO */
	uint64_t bytes; /**< multiple of GM_PAGE_BYTES */
};

/** What a step of a plan does. */
enum gm_step_op {
	GM_STEP_REMOVE, /**< pmap_remove */
	GM_STEP_INVL,   /**< tlb_invl */
	GM_STEP_COPY,   /**< copy, and wait for it */
	GM_STEP_ENTER,  /**< pmap_enter */
};

/**
 * One step of a plan. Steps are in order; a step starts when the steps it
 * depends on are complete. `after` names the last of them: all steps with a
 * smaller or equal index count as its dependencies; GM_STEP_FREE has none.
 */
struct gm_step {
	enum gm_step_op op;  /**< what */
	uint32_t after;      /**< index of the last step it depends on, or GM_STEP_FREE */
	void *pmap;          /**< REMOVE, INVL, ENTER */
	uint64_t va;         /**< device VA: REMOVE, INVL, ENTER */
	uint64_t pa;         /**< ENTER */
	uint64_t bytes;      /**< REMOVE, INVL, ENTER */
	uint32_t pte;        /**< ENTER: GM_PTE_* */
	struct gm_copy copy; /**< COPY */
	gm_ret_t ret;        /**< out: result of the step; GM_RET_CANCELED if not reached */
};
/** `after` of a step that depends on none. */
#define GM_STEP_FREE UINT32_MAX

/** What a device fault is. */
struct gm_dev_fault {
	void *pmap;      /**< page table it was raised in */
	uint64_t va;     /**< device VA */
	uint32_t access; /**< GM_READ, GM_WRITE, GM_ATOMIC */
};

struct gm_host_ops;

/**
 * The ops table. Slots marked required must be filled; the others belong to
 * a capability and are used only where it was announced. Slots the table is
 * too short for (`size`) count as missing.
 */
struct gm_mmu {
	uint32_t abi;     /**< GM_HAL_ABI */
	uint32_t size;    /**< sizeof(struct gm_mmu) when the backend was compiled */
	const char *name; /**< backend name, for messages */

	/**
	 * Required. Open the device. `dev_data` is gm_dev_create()'s; `svc` stays
	 * valid until dev_fini(). May block. SUCCESS, INVAL, NOMEM, NODEV, NOTSUP, PERM.
	 */
	gm_ret_t (*dev_init)(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev);
	/** Required. Close it; no pmap and no fence is left. */
	void (*dev_fini)(void *dev);

	/** Required. An empty page table. May block. SUCCESS, NOMEM, NOSPC. */
	gm_ret_t (*pmap_create)(void *dev, void **pmap);
	/** Required. Destroy it; it has no mapping left. */
	void (*pmap_destroy)(void *pmap);
	/**
	 * Required. Map `[va, va + bytes)` to `[pa, pa + bytes)`, readable, plus
	 * `pte`. What was mapped there before: nothing, or the same pa (rights
	 * grow). Page sizes are the backend's choice. May block shortly.
	 * SUCCESS, NOMEM (nothing was mapped).
	 */
	gm_ret_t (*pmap_enter)(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
	/**
	 * Required. Drop every mapping in the range; holes are no error. Larger
	 * pages that the range cuts are split. Old translations may live on in
	 * TLBs until tlb_invl(). SUCCESS, NOMEM (a split failed, nothing dropped).
	 */
	gm_ret_t (*pmap_remove)(void *pmap, uint64_t va, uint64_t bytes);
	/**
	 * Required. When it returns, no access uses, or will use, a translation of
	 * the range that the page table no longer has; accesses that were in
	 * flight are complete. Must not wait for a fault to be served. SUCCESS.
	 */
	gm_ret_t (*tlb_invl)(void *pmap, uint64_t va, uint64_t bytes);
	/**
	 * Required. Copy `n` pieces (independent of each other) and signal `done`,
	 * possibly before returning. `copies` is valid only during the call. On a
	 * failure return `done` is never signalled; a failed transfer is signalled
	 * (IO) and may have changed any part of the destinations. SUCCESS, NOMEM, IO.
	 */
	gm_ret_t (*copy)(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);

	/** GM_CAP_PROTECT. Set the rights of mapped pages; shrinking them needs tlb_invl(). SUCCESS, NOMEM. */
	gm_ret_t (*pmap_protect)(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte);
	/**
	 * GM_CAP_SUBMIT. Do `n` steps respecting their dependencies, set each
	 * step's `ret`, then signal `done` with the first failure or SUCCESS. A
	 * step after a failed one is not started (CANCELED). The steps stay valid
	 * until `done`. On a failure return nothing was done. SUCCESS, NOMEM.
	 */
	gm_ret_t (*submit)(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done);
	/**
	 * GM_CAP_ACCESS. One access of a device thread through page table and
	 * TLB, without raising a fault. SUCCESS, FAULT (no mapping), PERM.
	 */
	gm_ret_t (*access)(void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
	/** GM_CAP_FAULTS. Take the next fault. Never blocks. SUCCESS, AGAIN (none). */
	gm_ret_t (*fault_next)(void *dev, struct gm_dev_fault *fault);
	/**
	 * GM_CAP_FAULTS. Faults in the range are served: SUCCESS replays the
	 * accesses, any other result makes them fail with it. SUCCESS.
	 */
	gm_ret_t (*fault_done)(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);
	/**
	 * GM_CAP_CPU_VISIBLE. Address at which the CPU reads and writes
	 * `[pa, pa + bytes)`; coherent with finished copies and with accesses
	 * drained by tlb_invl(). Valid as long as the device.
	 */
	void *(*cpu_ptr)(void *dev, uint64_t pa, uint64_t bytes);

	/** GM_CAP_HOST: what only a host has; see hal/gm_host.h. NULL for devices. */
	const struct gm_host_ops *host;
};

struct gm_dev;
struct gm_ctx;

/**
 * @brief The backend's page table of a context: how every launch begins.
 *
 * Waits until what the process did to its memory before (munmap, madvise) has
 * reached the devices.
 *
 * @param[in] ctx  a context; NULL is allowed
 * @return what pmap_create() returned; NULL for NULL
 * @threads any; may block, at most gm_as_config.wait_ns
 */
GM_API void *gm_ctx_pmap(struct gm_ctx *ctx);

/**
 * @brief The device of a context.
 * @param[in] ctx  a context; NULL is allowed
 * @return the device; NULL for NULL
 * @threads any
 */
GM_API struct gm_dev *gm_ctx_dev(struct gm_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif
