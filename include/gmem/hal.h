/* SPDX-License-Identifier: MIT */
/**
 * @file hal.h
 * @brief What a driver vendor implements: the ops table, and what it gets.
 *
 * The core computes everything (which pages, which order, which rights); a
 * backend only does. This file is the contract; the validation shim
 * (gmem/validate.h) checks it at run time around any backend, the conformance
 * suite (gmem/conform.h) proves a backend by it. Law for every operation:
 *
 *  - The core never calls an operation with a lock of its own held, except
 *    fault_next() which must not block (and msg_kick(), which only a host has).
 *  - Addresses and lengths are multiples of the device's smallest page, > 0,
 *    without overflow, inside the address bits the device announced: a
 *    backend asserts rather than checks.
 *  - Calls for different address ranges may come from several threads at
 *    once; calls that change mappings or end translations in overlapping
 *    ranges of one pmap never do, while access(), fault_done() and
 *    pmap_harvest() may meet them.
 *  - A backend calls only its services (struct gm_services), never the
 *    library's public functions.
 *  - Memory that a backend or its engine touches must never be taken by the library: it would be waited for by who
 *    has to bring it back. What the services allocate is safe; so are malloc() (glibc's), static and shared memory, and
 *    mappings of less than 2 MiB. A private anonymous mapping of 2 MiB or more of its own needs an inaccessible
 *    page directly below it (or a lock, or a name): that tells a space which mirrors the process whose it is.
 *  - A backend returns only what the operation lists. GM_RET_NODEV is allowed
 *    everywhere, means that the device is lost, and is for ever: every later
 *    operation with a result says it too, and nothing but sync_signal(),
 *    dev_halt(), pmap_destroy() and dev_fini() is called any more.
 *  - After a failure the operation has had no effect, unless it says otherwise;
 *    out-parameters are as before.
 *  - No operation returns with a lock of the services held, and none holds two.
 *
 * Each operation says: whether it is required, or which capability promises it
 * (a slot that is missing answers with its default, and the core does not call
 * it); when it is called; whether it may block; what the core guarantees; the
 * closed list of results; the state after a failure; what a second call does.
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
#define GM_CAP_HOST_MAP 2u    /**< can map host memory in place: pmap_enter with GM_PTE_HOST, see there */
#define GM_CAP_CPU_VISIBLE 4u /**< the CPU reaches its memory, or a part of it: cpu_ptr */
#define GM_CAP_FAST_INVL 8u   /**< tlb_invl never waits for an engine: it may run in the fault handler */
#define GM_CAP_SUBMIT 16u     /**< takes several steps in one call: submit */
#define GM_CAP_ACCESS 32u     /**< one access through the device's own translation: access */
#define GM_CAP_PROTECT 64u    /**< changes rights without unmapping: pmap_protect */
#define GM_CAP_HOST 128u      /**< it is the host: table gm_mmu.host (not for vendors) */
#define GM_CAP_DIRTY 256u     /**< knows which pages were accessed and written: pmap_harvest */
#define GM_CAP_SYNC 512u      /**< completion leaves and enters as descriptors: sync_create, sync_signal, sync_import */
#define GM_CAP_PEER 1024u     /**< reads memory of other devices: peer_reach, GM_COPY_FROM_PEER */
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

/**
 * This thread belongs to a device: it must never touch application addresses. For threads of engines and of jobs;
 * what gm_copy.host names is memory of the library, which it may touch.
 */
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
	 * Give `mutex` back, sleep until wake() or `deadline_ns`, take it again. The deadline is a time of now_ns(), or
	 * GM_FOREVER_NS. GM_RET_SUCCESS (look again: it may be spurious) or GM_RET_TIMEDOUT.
	 */
	gm_ret_t (*wait)(void *self, struct gm_waitq *queue, struct gm_mutex *mutex, uint64_t deadline_ns);
	/** Wake everybody who waits; with or without the lock they wait with. */
	void (*wake)(void *self, struct gm_waitq *queue);
	/** Start a thread with all signals blocked. SUCCESS, NOMEM, AGAIN (no thread to be had: operations say NOMEM). */
	gm_ret_t (*thread_start)(void *self, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
				 struct gm_thread **thread);
	/** Wait for its end; no lock is held. */
	void (*thread_join)(void *self, struct gm_thread *thread);
	/** Let others run: called in loops that poll. */
	void (*yield)(void *self);
	/**
	 * Signal a fence that was given to copy(), submit() or sync_import(), or made by fence_create(): once. No lock is
	 * held, nor anything an operation would wait for: callbacks of the fence run here, and may call any of them but
	 * pmap_destroy(), dev_halt() and dev_fini(); copy() on the thread of the engine, for example.
	 */
	void (*fence_signal)(void *self, struct gm_fence *fence, gm_ret_t result);
	/** A new pending fence, one reference (for launches); NULL when out of memory. */
	struct gm_fence *(*fence_create)(void *self);
	/** Give a reference back. */
	void (*fence_put)(void *self, struct gm_fence *fence);
	/** fault_next() has something to return. No lock is held: fault_next() may be called from here. */
	void (*fault_ready)(void *self);
	/**
	 * One access over the bus to host memory mapped with GM_PTE_HOST; the
	 * only way in which a device may touch it. SUCCESS, or FAULT when the
	 * process itself has nothing there now, may not access it so, or what is
	 * there is away (nothing or a part was transferred), or that cannot be told
	 * now: then the device faults anew, as if there were no mapping.
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
	/** Memory to register at once; multiples of GM_UNIT_BYTES, or of the granule where that is larger. */
	struct gm_slab slab[GM_MAX_SLABS];
};

/** @name Page table entry flags. */
/**@{*/
#define GM_PTE_WRITE GM_WRITE   /**< stores allowed */
#define GM_PTE_ATOMIC GM_ATOMIC /**< read-modify-write allowed; only with WRITE: a device without atomics ignores it */
/**
 * pa is a host VA, accessed over the bus. The mapping is of the address, not of the frame that is there when it is
 * entered: an access reaches what the process has mapped there at that moment, with the rights that it has at that
 * moment, never the old frame; where there is nothing, or no right, the device faults again, and the core asks anew.
 * So does hardware with address translation services, or a driver that drops the frames of a user pointer when an MMU
 * notifier tells it to. The core removes such mappings like any other, but not always before the memory goes: in
 * a space that mirrors the process (GM_AS_MIRROR) no event tells.
 */
#define GM_PTE_HOST 256u
/**@}*/

/** What a copy does. */
enum gm_copy_kind {
	GM_COPY_TO_DEV,    /**< host -> pa */
	GM_COPY_TO_HOST,   /**< pa -> host */
	GM_COPY_ZERO,      /**< pa := 0 */
	GM_COPY_FROM_PEER, /**< `pa` of device `peer` at `host` -> pa; only where peer_reach() said SUCCESS */
};

/** One piece of a copy. */
struct gm_copy {
	enum gm_copy_kind kind; /**< direction */
	uint64_t pa;    /**< device-physical, multiple of GM_PAGE_BYTES */
	/** Host address of library memory, stable until the fence is done; device-physical in `peer` for
	 *  GM_COPY_FROM_PEER; 0 for GM_COPY_ZERO. */
	uint64_t host;
	uint64_t bytes; /**< multiple of GM_PAGE_BYTES, > 0 */
	void *peer;     /**< GM_COPY_FROM_PEER: what the other device's dev_init() returned; else NULL */
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

/** @name Bits of pmap_harvest(). */
/**@{*/
#define GM_PAGE_ACCESSED 1u /**< loaded from or stored to */
#define GM_PAGE_DIRTY 2u    /**< stored to */
/**@}*/

/**
 * The ops table. Slots the table is too short for (`size`) count as missing.
 *
 * Words used below. *granule*: the device's smallest page. *bounded*: may
 * sleep for locks and for memory, never for a fault to be served, for another
 * operation, or for a job of the application to end. *engine*: may besides
 * wait until the engine has done what was queued before.
 */
struct gm_mmu {
	uint32_t abi;     /**< GM_HAL_ABI */
	uint32_t size;    /**< sizeof(struct gm_mmu) when the backend was compiled */
	const char *name; /**< backend name, for messages; a constant */

	/**
	 * Open the device. **Required.**
	 * - Called: once per gm_dev_create(), before everything else.
	 * - Blocks: as long as opening takes.
	 * - Core: `dev_data` is gm_dev_create()'s, untouched; `caps` is zeroed; `svc` stays valid until
	 *   dev_fini() has returned.
	 * - Backend: fills `caps` (slabs: aligned, disjoint) and `dev` (never NULL).
	 * - Returns: SUCCESS, INVAL (`dev_data` makes no sense), NOMEM, NODEV, NOTSUP, PERM, BUSY (somebody has it).
	 * - After failure: nothing is left; every service object made is unmade; `caps` and `dev` are as before.
	 * - Again: a second device, independent of the first.
	 */
	gm_ret_t (*dev_init)(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev);
	/**
	 * Close it. **Required.**
	 * - Called: once, last; no pmap, no fence of the core and no pending sync is left. Also for a lost device.
	 * - Blocks: until threads and engines of the backend have ended.
	 * - Backend: gives back all memory, joins all threads, unmakes all locks and queues. No service is
	 *   called after the return.
	 */
	void (*dev_fini)(void *dev);

	/**
	 * An empty page table. **Required.**
	 * - Called: when a device is attached to an address space. Blocks: bounded.
	 * - Backend: `pmap` is not NULL and not one that lives. Nothing is mapped in it that the core could see.
	 * - Returns: SUCCESS, NOMEM, NOSPC (max_contexts are there; never before).
	 * - After failure: nothing changed. Again: another page table.
	 */
	gm_ret_t (*pmap_create)(void *dev, void **pmap);
	/**
	 * Destroy it. **Required.**
	 * - Called: once per page table; it has no mapping left, unless the device is lost: those go with it, unseen.
	 * - Blocks: until accesses of the application's jobs through it have ended; faults that wait are
	 *   answered with CANCELED.
	 * - Backend: fault_next() never names it again.
	 */
	void (*pmap_destroy)(void *pmap);
	/**
	 * Map `[va, va + bytes)` to `[pa, pa + bytes)`, readable, plus `pte`. **Required.**
	 * - Called: step 5 of a migration, and to map host memory in place. Blocks: bounded.
	 * - Core: what was mapped there before is nothing, or the same pa with fewer rights; nothing that
	 *   was removed there still waits for tlb_invl(); the frames are registered memory, of one slab or of slabs that
	 *   adjoin, or with GM_PTE_HOST (needs GM_CAP_HOST_MAP) `pa` is a host VA; no copy writes to them.
	 * - Backend: page sizes are its choice. When it returns accesses may use the mapping, with rights that grew as
	 *   well: no tlb_invl() follows. Write is never allowed where `pte` does not say so.
	 * - Returns: SUCCESS, NOMEM. After failure: nothing was mapped, no right grew.
	 * - Again: no effect; what was mapped keeps its accessed and dirty bits, also where a right grows.
	 */
	gm_ret_t (*pmap_enter)(void *pmap, uint64_t va, uint64_t pa, uint64_t bytes, uint32_t pte);
	/**
	 * Drop every mapping in the range. **Required.**
	 * - Called: step 2a of a migration, and before pmap_destroy(). Blocks: bounded.
	 * - Core: calls tlb_invl() for the range before it reuses frames or addresses.
	 * - Backend: holes are no error. Larger pages that the range cuts are split; what lies outside stays
	 *   mapped without a gap. Old translations may live on in TLBs until tlb_invl().
	 * - Returns: SUCCESS, NOMEM (a split failed). After failure: everything is mapped as before.
	 * - Again: no effect.
	 */
	gm_ret_t (*pmap_remove)(void *pmap, uint64_t va, uint64_t bytes);
	/**
	 * Make old translations of the range end. **Required.**
	 * - Called: after pmap_remove(), and after pmap_protect() that took rights away.
	 * - Blocks: until accesses in flight are complete; never for a fault to be served. With GM_CAP_FAST_INVL
	 *   it sleeps for nothing at all.
	 * - Backend: when it returns, no access uses, or will use, a translation of the range that the page table
	 *   no longer has, and stores that used one are visible to copies and through cpu_ptr().
	 * - Returns: SUCCESS. Again: no effect.
	 */
	gm_ret_t (*tlb_invl)(void *pmap, uint64_t va, uint64_t bytes);
	/**
	 * Copy `n` pieces and signal `done`. **Required.**
	 * - Called: step 3 of a migration. Blocks: engine.
	 * - Core: `n` > 0; a piece lies in registered memory, in one slab or in slabs that adjoin. No piece overlaps
	 *   another's destination, nor what a copy in flight reads or writes; sources and destinations are not written by
	 *   anybody until `done`: device mappings of a source are read-only or gone and invalidated, those of a destination
	 *   are gone and invalidated. `copies` is valid during the call only.
	 * - Backend: pieces are in any order. Signals `done` once, possibly before returning: SUCCESS when all bytes
	 *   are where they belong, IO when the transfer failed (any part of the destinations may have changed), NODEV.
	 *   Ends within the time its engine needs: a fence that stays pending is a lost device, see dev_halt().
	 * - Returns: SUCCESS, NOMEM, IO. After failure: nothing was changed and `done` is never signalled.
	 */
	gm_ret_t (*copy)(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done);

	/**
	 * Set the rights of mapped pages. **GM_CAP_PROTECT**; default UNIMPLEMENTED.
	 * - Called: to take or give write without moving. Blocks: bounded.
	 * - Core: `pte` has no GM_PTE_HOST; shrinking is followed by tlb_invl().
	 * - Backend: holes stay holes; where the page goes stays. Pages that the range cuts are split.
	 * - Returns: SUCCESS, NOMEM (a split failed). After failure: rights as before. Again: no effect.
	 */
	gm_ret_t (*pmap_protect)(void *pmap, uint64_t va, uint64_t bytes, uint32_t pte);
	/**
	 * Do `n` steps respecting their dependencies. **GM_CAP_SUBMIT**; default: the hal walks the steps one by one.
	 * - Called: with whole plans. Blocks: engine.
	 * - Core: each step alone obeys its operation's block, given that exactly the steps it depends on are complete;
	 *   `after` is smaller than the step's own index. The steps stay valid until `done`.
	 * - Backend: sets each step's `ret` to what the operation would return, then signals `done` with the first
	 *   failure by index, or SUCCESS. No step starts before those it depends on are complete, nor after one of
	 *   them failed; once any step has failed those not started are CANCELED.
	 * - Returns: SUCCESS, NOMEM. After failure: nothing was done and `done` is never signalled.
	 */
	gm_ret_t (*submit)(void *dev, struct gm_step *steps, size_t n, struct gm_fence *done);
	/**
	 * One access of a device thread through page table and TLB. **GM_CAP_ACCESS**; default UNIMPLEMENTED.
	 * - Called: by tests, tools, the shim and the conformance suite, never by the core. Blocks: bounded.
	 * - Core: `bytes` > 0, without overflow; not necessarily aligned.
	 * - Backend: raises no fault. What it read or wrote is what a job would have.
	 * - Returns: SUCCESS, FAULT (no mapping), PERM (not the right).
	 * - After failure: the part before the page that failed may have been transferred.
	 */
	gm_ret_t (*access)(void *pmap, uint64_t va, void *buf, size_t bytes, bool write);
	/**
	 * Take the next fault. **GM_CAP_FAULTS**; default AGAIN.
	 * - Called: after the service fault_ready, until it says AGAIN; perhaps with locks of the core held.
	 * - Blocks: never; no service but lock, unlock and now_ns is used.
	 * - Backend: names a page table that lives, an address in the VA bits (of any byte of the page) and the right
	 *   that was missing. Each fault is named once; it waits until fault_done() or pmap_destroy(), or
	 *   until the device is lost: then the access fails with NODEV.
	 * - Core: keeps what something is in the way of (a working set, memory that is full), 1024 at most: with so many
	 *   it takes no more, not even what could be served. Each is answered, served or failed, when
	 *   gm_as_config.wait_ns has passed since it was taken and its turn has come again; then others are taken.
	 * - Returns: SUCCESS, AGAIN (none). Order: oldest first, where the device knows.
	 */
	gm_ret_t (*fault_next)(void *dev, struct gm_dev_fault *fault);
	/**
	 * Faults in the range are served. **GM_CAP_FAULTS**; default UNIMPLEMENTED.
	 * - Called: after fault_next() named a fault there, or for a range in which faults may be. Blocks: bounded.
	 * - Backend: SUCCESS replays the accesses (they may fault again), also of faults that were not named yet. Any other
	 *   result makes the accesses fail with it whose faults were named; one that was not is named later, as the answer
	 *   was found before it was there: its rights may be others. No fault there is no error.
	 * - Returns: SUCCESS. Again: no effect.
	 */
	gm_ret_t (*fault_done)(void *pmap, uint64_t va, uint64_t bytes, gm_ret_t result);
	/**
	 * Where the CPU reads and writes `[pa, pa + bytes)`. **GM_CAP_CPU_VISIBLE**; default NULL.
	 * - Called: any time, also in the fault handler. Blocks: never.
	 * - Backend: NULL if any byte is out of the CPU's sight; else the same address each time, valid as long as
	 *   the device, coherent with finished copies and with accesses drained by tlb_invl().
	 */
	void *(*cpu_ptr)(void *dev, uint64_t pa, uint64_t bytes);

	/** GM_CAP_HOST: what only a host has; see hal/gm_host.h. NULL for devices. */
	const struct gm_host_ops *host;

	/**
	 * Read and clear the accessed and dirty bits of a range. **GM_CAP_DIRTY**; default UNIMPLEMENTED.
	 * - Called: any time; exact only for pages removed and invalidated since. Blocks: bounded.
	 * - Core: `bits` has one byte per granule of the range.
	 * - Backend: `bits[i]` becomes GM_PAGE_* of granule i since the last harvest, or since it was mapped; 0 where nothing
	 *   was mapped. A page larger than a granule reports for each of its granules. The bits of a page outlive its
	 *   pmap_remove() until the next pmap_enter() or harvest. Dirty is never lost; accessed may be.
	 * - Returns: SUCCESS, NOMEM. After failure: no bit was cleared.
	 */
	gm_ret_t (*pmap_harvest)(void *pmap, uint64_t va, uint64_t bytes, uint8_t *bits);
	/**
	 * A pending completion as a descriptor that others can wait for. **GM_CAP_SYNC**; default UNIMPLEMENTED.
	 * - Called: gm_fence_export(). Blocks: bounded.
	 * - Backend: `fd` (close-on-exec) belongs to the caller; it can be waited for in the vendor's way.
	 * - Returns: SUCCESS, NOMEM, NOSPC (descriptors). After failure: nothing is left.
	 */
	gm_ret_t (*sync_create)(void *dev, void **sync, int *fd);
	/**
	 * The completion has come: tell `result` to whoever waits, and free `sync`. **GM_CAP_SYNC.**
	 * - Called: once per sync_create(), by any thread. Blocks: bounded. Also when `fd` was closed long ago.
	 */
	void (*sync_signal)(void *dev, void *sync, gm_ret_t result);
	/**
	 * Signal `done` when what `fd` stands for is complete. **GM_CAP_SYNC**; default UNIMPLEMENTED.
	 * - Called: gm_fence_import(). Blocks: bounded. `fd` stays the caller's, who may close it at once.
	 * - Backend: signals `done` once: the result of a completion made by sync_create(), SUCCESS or IO for others,
	 *   NODEV at dev_halt(), CANCELED at dev_fini().
	 * - Returns: SUCCESS, INVAL (no completion is behind `fd`), NOMEM. After failure `done` is never signalled.
	 */
	gm_ret_t (*sync_import)(void *dev, int fd, struct gm_fence *done);
	/**
	 * Can this device's engine read the memory of `other`, a device of the same backend? **GM_CAP_PEER**; default NOTSUP.
	 * - Called: once per pair; the answer holds as long as both live. Blocks: bounded.
	 * - Returns: SUCCESS, NOTSUP.
	 */
	gm_ret_t (*peer_reach)(void *dev, void *other);
	/**
	 * Stop: the device is given up. **Required where copy() or submit() may return before their work is done**;
	 * default: nothing that could be stopped.
	 * - Called: when a fence stayed pending beyond its bound; by several threads, perhaps at once. Afterwards the
	 *   device is lost. Blocks: until it has stopped.
	 * - Backend: when it returns nothing of the device reads or writes host memory or steps any more, and every
	 *   `done` it was given is signalled (NODEV). What it cannot stop otherwise it resets.
	 * - Again: no effect.
	 */
	void (*dev_halt)(void *dev);
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
 * @return what pmap_create() returned; NULL if @p ctx is no context that lives
 * @threads any; may block, at most gm_as_config.wait_ns
 */
GM_API void *gm_ctx_pmap(struct gm_ctx *ctx);

/**
 * @brief The device of a context.
 * @param[in] ctx  a context; NULL is allowed
 * @return the device; NULL if @p ctx is no context that lives
 * @threads any
 */
GM_API struct gm_dev *gm_ctx_dev(struct gm_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif
