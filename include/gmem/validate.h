/* SPDX-License-Identifier: MIT */
/**
 * @file validate.h
 * @brief The validation shim: a backend around a backend, which names the rule that was broken.
 *
 * The shim is an ops table like any other. Its dev_init() opens the backend it wraps, hands it services of its
 * own, and from then on compares every call, every result and every use of a service with the contract in
 * gmem/hal.h: of the backend, and of whoever calls it. A broken rule becomes one report with the operation, the
 * step of the plan, and what happened to the page before. The shim changes nothing it sees, with two exceptions:
 * what the receiver could not survive (a second signal of a fence, memory freed that is not there, a fault in an
 * unknown page table) is reported and goes no further; and where the backend has GM_CAP_ACCESS, the shim looks
 * with it at pages of a range it was called for, so that pages count as accessed.
 *
 *     core, or conformance suite --> shim (shadow of page tables, frames, fences, locks) --> backend
 *                                      ^------------- services, checked -----------------------'
 *
 * gm_lib_config.validate puts it around every device of an instance. Device pointers and page tables that go in
 * and out are the shim's own; the backend's public functions need what gm_validate_dev() and gm_validate_pmap() say.
 */
#ifndef GMEM_VALIDATE_H
#define GMEM_VALIDATE_H

#include <gmem/hal.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Every rule: name, who must keep it (the word BACKEND or CALLER), the rule. A name becomes GM_RULE_name.
 */
#define GM_RULE_LIST(X) \
	/* opening and closing */ \
	X(DEV_NULL, BACKEND, "dev_init() fills in a device that is not NULL") \
	X(CAPS, BACKEND, "what dev_init() announces makes sense: page sizes, address bits, contexts, memory") \
	X(CAP_SLOT, BACKEND, "a capability that is announced has its slots filled") \
	X(LEAK, BACKEND, "all memory is given back before dev_fini() returns, or dev_init() fails") \
	X(FREE_UNKNOWN, BACKEND, "what is freed was allocated and not freed before") \
	X(FREE_BYTES, BACKEND, "memory is freed with the size it was allocated with") \
	X(THREAD_LEFT, BACKEND, "all threads are joined before dev_fini() returns, or dev_init() fails") \
	X(LOCK_LEFT, BACKEND, "all locks and queues are unmade before dev_fini() returns, or dev_init() fails") \
	/* results */ \
	X(RESULT, BACKEND, "an operation returns only what its block lists") \
	X(LOST_ALIVE, BACKEND, "a lost device stays lost: every later operation says NODEV") \
	X(OUT_TOUCHED, BACKEND, "after a failure out-parameters are as before") \
	X(PMAP_NULL, BACKEND, "pmap_create() fills in a page table that is not NULL") \
	X(PMAP_TWICE, BACKEND, "pmap_create() fills in a page table that is not one that lives") \
	X(CONTEXTS_FEWER, BACKEND, "pmap_create() says NOSPC only when max_contexts page tables are there") \
	X(CONTEXTS_MORE, BACKEND, "there are at most max_contexts page tables at once") \
	X(SLOW, BACKEND, "a bounded operation returns in bounded time") \
	/* locks and waiting */ \
	X(LOCK_UNMADE, BACKEND, "a lock or queue is used between its init and its fini only") \
	X(LOCK_TWO, BACKEND, "no two locks are held at a time") \
	X(LOCK_KEPT, BACKEND, "no operation returns with a lock held") \
	X(UNLOCK_FREE, BACKEND, "only a lock that is held is given back") \
	X(WAIT_UNLOCKED, BACKEND, "who waits holds the lock it waits with") \
	X(CALL_LOCKED, BACKEND, "no lock is held when a fence is signalled, a fault announced, or a thread joined") \
	X(FAULT_BLOCKS, BACKEND, "fault_next() never blocks: no service but lock, unlock and now_ns") \
	X(INVL_BLOCKS, BACKEND, "with GM_CAP_FAST_INVL tlb_invl() sleeps for nothing") \
	/* mappings */ \
	X(ENTER_LOST, BACKEND, "when pmap_enter() returns accesses may use the mapping") \
	X(ENTER_ELSEWHERE, BACKEND, "a page is mapped to the address it was entered with") \
	X(WRITE_ALLOWED, BACKEND, "a store never passes where no right was given") \
	X(STALE, BACKEND, "after tlb_invl() no access uses a translation that the page table no longer has") \
	X(FAILED_EFFECT, BACKEND, "after a failure the operation has had no effect on mappings") \
	X(CUT, BACKEND, "what lies outside of the range of an operation stays mapped") \
	X(PROTECT_HOLE, BACKEND, "pmap_protect() leaves pages mapped") \
	X(PROTECT_FILLED, BACKEND, "pmap_protect() leaves holes holes") \
	/* copies, plans, fences */ \
	X(COPY_BYTES, BACKEND, "when a copy is signalled with SUCCESS, the bytes are where they belong") \
	X(COPY_ZERO, BACKEND, "when a zero-fill is signalled with SUCCESS, the memory is zero") \
	X(SIGNAL_TWICE, BACKEND, "a fence is signalled once") \
	X(SIGNAL_FAILED, BACKEND, "the fence of a call that failed is never signalled") \
	X(SIGNAL_RESULT, BACKEND, "a fence is signalled with a result that its operation lists") \
	X(SIGNAL_UNKNOWN, BACKEND, "only a fence that was given to an operation, or created, is signalled") \
	X(SIGNAL_NEVER, BACKEND, "a fence is signalled in bounded time") \
	X(HALT_PENDING, BACKEND, "when dev_halt() returns, every fence that was given is signalled") \
	X(STEP_RET, BACKEND, "each step gets a result its operation lists, or CANCELED if a step failed") \
	X(STEP_AFTER_FAILURE, BACKEND, "a step is CANCELED when one it depends on failed") \
	X(PLAN_RESULT, BACKEND, "a plan is signalled with the first failure by index, or SUCCESS") \
	/* faults */ \
	X(FAULT_PMAP, BACKEND, "a fault names a page table that lives") \
	X(FAULT_VA, BACKEND, "a fault names an address inside the address bits") \
	X(FAULT_ACCESS, BACKEND, "a fault names the right that was missing") \
	X(FAULT_SILENT, BACKEND, "a fault is announced by fault_ready()") \
	/* memory of the host, and what the CPU sees */ \
	X(HOST_UNMAPPED, BACKEND, "host memory is touched only where it is mapped with GM_PTE_HOST") \
	X(HOST_WRITE, BACKEND, "host memory is stored to only where it is mapped with GM_PTE_WRITE") \
	X(CPU_PTR, BACKEND, "cpu_ptr() says the same address each time") \
	/* dirty bits, descriptors, peers */ \
	X(HARVEST_BITS, BACKEND, "pmap_harvest() reports GM_PAGE_* bits only") \
	X(HARVEST_UNMAPPED, BACKEND, "pmap_harvest() reports 0 for what was not mapped") \
	X(HARVEST_LOST, BACKEND, "dirty is never lost") \
	X(SYNC_FD, BACKEND, "sync_create() gives a descriptor that is open, and closed by exec") \
	X(PEER_CHANGED, BACKEND, "the answer of peer_reach() holds as long as both devices live") \
	/* what the caller must keep */ \
	X(RANGE, CALLER, "addresses and lengths are whole granules, more than none, and inside the address bits") \
	X(PTE, CALLER, "pte has known bits only, and GM_PTE_HOST only where it is allowed") \
	X(NO_CAP, CALLER, "an optional operation is called only where its capability is announced") \
	X(DEAD_PMAP, CALLER, "a page table is used while it lives only") \
	X(OVERLAP, CALLER, "calls for overlapping ranges of one page table never run at once") \
	X(ENTER_OVER, CALLER, "what is entered over is nothing, or the same address with fewer rights") \
	X(ENTER_STALE, CALLER, "nothing that was removed where one enters still waits for tlb_invl()") \
	X(ENTER_COPYING, CALLER, "no copy writes to memory that is entered, nor reads what may then be written") \
	X(REUSE_STALE, CALLER, "frames are not reused while an old translation to them waits for tlb_invl()") \
	X(USED_FREE, CALLER, "frames are used only while they belong to somebody") \
	X(FREED_BUSY, CALLER, "frames are given back only when nothing maps them, waits for tlb_invl(), or copies") \
	X(OUTSIDE, CALLER, "device addresses lie in registered memory") \
	X(COPY_SOURCE, CALLER, "nobody can write to the source of a copy") \
	X(COPY_MAPPED, CALLER, "nothing maps the destination of a copy") \
	X(COPY_OVERLAP, CALLER, "no piece of a copy overlaps what another one writes, or one in flight reads") \
	X(PLAN_AFTER, CALLER, "`after` is smaller than the step's own index, or GM_STEP_FREE") \
	X(PLAN_ORDER, CALLER, "a step depends on the steps of its plan that make it legal") \
	X(LOST_CALLED, CALLER, "who gave a lost device up calls only sync_signal, dev_halt, pmap_destroy, dev_fini") \
	X(DESTROY_MAPPED, CALLER, "a page table has no mapping left when it is destroyed") \
	X(FINI_BUSY, CALLER, "no page table is left when the device is closed")

/** Every rule as a number. */
enum gm_rule {
#define GM_RULE_ENUM_(name, who, text) GM_RULE_##name,
	GM_RULE_LIST(GM_RULE_ENUM_)
#undef GM_RULE_ENUM_
	GM_RULES, /**< how many there are */
};

/** A broken rule. Valid during the call of gm_validate_config.report. */
struct gm_violation {
	enum gm_rule rule;   /**< which */
	const char *name;    /**< its name, such as "GM_RULE_ENTER_OVER" */
	const char *text;    /**< the rule, one sentence */
	bool by_backend;     /**< else by whoever called it */
	const char *backend; /**< name of the wrapped ops table */
	const char *op;      /**< operation or service */
	uint32_t step;       /**< index in the plan of submit(); GM_STEP_FREE for none */
	uint64_t va;         /**< device VA; 0 where there is none */
	uint64_t pa;         /**< device-physical, or host VA; 0 where there is none */
	uint64_t bytes;      /**< how much of it */
	const char *message; /**< all of it in words, with the history of the page: several lines */
};

/** What the shim is made with: dev_data for gm_validate_mmu(). */
struct gm_validate_config {
	size_t size;              /**< sizeof(struct gm_validate_config) */
	const struct gm_mmu *mmu; /**< the backend to wrap; outlives the device */
	void *dev_data;           /**< for its dev_init() */
	/**
	 * Receives each broken rule, on the thread that broke it, perhaps with locks of the backend or the core held: it
	 * calls neither. NULL: the log, at GM_LOG_ERROR. Each rule is reported at most 100 times per device.
	 */
	void (*report)(void *arg, const struct gm_violation *violation);
	void *arg;                /**< handed to report */
	uint64_t bound_ns;        /**< what "bounded time" is; 0: 10 s */
};

/**
 * @brief The shim's ops table, for gm_dev_create() or to be driven by hand.
 *
 * Its dev_init() returns what the wrapped one returns, INVAL for a configuration that makes no sense, and NOMEM.
 *
 * @return a constant table; it fills every slot, and announces what the wrapped backend announces
 * @threads any
 */
GM_API const struct gm_mmu *gm_validate_mmu(void);

/**
 * @brief The wrapped backend's own device.
 * @param[in] dev  any pointer; it is not followed unless it is what the shim's dev_init() returned
 * @return what the backend's dev_init() returned; @p dev itself where it is no device of the shim that lives
 * @threads any
 */
GM_API void *gm_validate_dev(void *dev);

/**
 * @brief The wrapped backend's own page table.
 * @param[in] pmap  any pointer; it is not followed unless it is what the shim's pmap_create() returned
 * @return what the backend's pmap_create() returned; @p pmap itself where it is no page table of the shim that lives
 * @threads any
 */
GM_API void *gm_validate_pmap(void *pmap);

/**
 * @brief Name of a rule, such as "GM_RULE_ENTER_OVER".
 * @param[in] rule  any value
 * @return a constant string; "GM_RULE_?" for a value outside the enum
 * @threads any
 */
GM_API const char *gm_rule_name(enum gm_rule rule);

#ifdef __cplusplus
}
#endif
#endif
