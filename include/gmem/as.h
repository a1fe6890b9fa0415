/* SPDX-License-Identifier: MIT */
/**
 * @file as.h
 * @brief Address spaces and the devices attached to them.
 *
 * An address space is a set of VA ranges and where their bytes are. A process
 * may have many; a page belongs to one of them at most (where two claim it, the
 * second one that lets a device use it is refused with GM_RET_BUSY). Each has at most three
 * threads of the library's own, a fault handler, a worker, and a keeper of descriptors, which sleeps, with all
 * signals blocked; and one more per device that raises faults, from its first
 * attachment until it is destroyed. With
 * GM_AS_NO_THREADS it has none, and the caller runs gm_as_serve(). On the rung "no move" (gmem/rung.h) each has one
 * more, in both cases: it reads what the library's own calls raise.
 *
 * A program may close all descriptors (close_range(), daemonising loops): the keeper has
 * copies in a table of its own, and nothing is lost (Linux 6.9 and newer). Without threads, or before Linux 6.9,
 * what the program touches of memory that is away before the library notices reads as zeros; gm_as_config.lost is told.
 *
 * A signal handler runs inside of whatever its thread was doing. If that was a call of the library it may hold what the
 * threads above need to serve a CPU access, and a handler that then touches memory which is away waits for itself, for ever.
 * Where handlers touch managed memory, their signals are blocked around calls of the library (pthread_sigmask()), or a
 * thread with these signals blocked makes the calls.
 */
#ifndef GMEM_AS_H
#define GMEM_AS_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gm_policy;

/** @name Flags of an address space. */
/**@{*/
#define GM_AS_EXCLUSIVE 1u  /**< give host frames back while the device has the page (default: keep them) */
#define GM_AS_NO_THREADS 2u /**< the caller runs gm_as_serve() */
/**
 * GM_FORK_SERVE is possible: children of fork() get a userfaultfd of their own, which needs CAP_SYS_PTRACE. fork() returns in
 * the child when its bytes are there; should this process die before, the child ends by SIGBUS, and what cannot be
 * given is SIGBUS there. The child of a clone() without fork handlers gets SIGBUS where devices have the bytes.
 */
#define GM_AS_FORK_SERVE 32u
/** Adopted memory is watched from gm_adopt() to gm_release(), not only while a device is involved: every first touch of
 *  one of its pages comes to the handler, which gives it zeros, and whatever is done to it is told. For who
 *  counts or bounds what the host has; a first touch costs a message. */
#define GM_AS_WATCH 8u
#define GM_AS_MIRROR 4u     /**< devices reach all memory of the process, see below */
/**@}*/

/**
 * @name A space that mirrors the process (GM_AS_MIRROR)
 *
 * A device may access whatever the process may, without gm_alloc() or gm_adopt():
 * by a fault, gm_dev_fault(), or in a working set. Nothing mapped there, or no
 * access at all, is GM_RET_FAULT; a write to read-only memory GM_RET_PERM.
 *
 * - Private anonymous mappings of 2 MiB and more that are certainly the
 *   application's are adopted on demand, 2 MiB at a time, and then move like
 *   any memory. Once all of such a piece has been at home for a while it is let
 *   go, and looked at anew the next time.
 * - Everything else is *external*: mapped in place, by devices that can
 *   (GM_CAP_HOST_MAP and pages of 4 KiB; else GM_RET_NOTSUP), never moved, with the rights the
 *   process has there. A store to a shared file reaches the file, one to a
 *   private mapping of a file makes a copy of the page, as the CPU's would.
 *   External are: small mappings, the heap, stacks with thread-local storage,
 *   arenas of an allocator, .data and .bss, files, shared memory, hugetlb,
 *   locked memory, what somebody has named (PR_SET_VMA_ANON_NAME), what another
 *   space manages, the library's own memory.
 *   There are no atomics in place (GM_RET_NOTSUP).
 *
 * Why the rest is not taken: the threads that bring memory home, the library's and a
 * backend's, must never wait for memory that is away, or they wait for
 * themselves. So memory in which stacks, locks or queues of theirs may live stays
 * where it is, and where it cannot be told whose it is nothing is adopted on
 * demand: with an allocator of the caller's own (gm_lib_config.allocator), and
 * in processes whose malloc() is not the one of glibc. gm_adopt() says that it may: it works for any
 * private anonymous memory, and wins over what is mapped in place there.
 * Two things cannot be told: stacks that the program makes itself of plain
 * memory of 2 MiB and more (coroutines, sigaltstack()), and main-arena pieces that
 * glibc takes by mmap() when the heap cannot grow. Lock such memory, name it, or
 * keep an inaccessible page below it, and it stays; call the library on ordinary stacks.
 *
 * External memory raises no events. A mapping in place is of the address, not
 * of what is there: an access sees what is mapped there at that moment, with the
 * rights of that moment, and faults again where there is none. After mremap()
 * memory that was adopted is as any memory of the process at its new place.
 *
 * gm_discard() and gm_release() are for memory that was asked for: of what was adopted on demand they know
 * only as long as a device has to do with it.
 */
/**@{*/
/**@}*/

/** What happens to an access that a held working set keeps waiting too long. */
struct gm_stuck {
	uint64_t va;   /**< page that the thread touched */
	uint64_t held_ns; /**< how long it has waited */
	uint32_t thread_id; /**< the waiting thread, as gettid() */
	struct gm_ws *ws; /**< the working set that holds the page; NULL: it is pinned (gm_pin()), or no copy brings it home */
};
/** Told about it; may log, must not call back into the library. */
typedef void (*gm_stuck_fn)(void *arg, const struct gm_stuck *stuck);

/** Content that nobody has any more. */
struct gm_lost {
	uint64_t va;    /**< first byte */
	uint64_t bytes; /**< length, whole pages */
	gm_ret_t why;   /**< NODEV: a device is lost, the pages fail every access (SIGBUS). CANCELED: the program closed the
			     library's descriptors, nobody kept them, and it touched these pages before that was
			     noticed: it saw zeros there */
};
/** Told about it, by the thread that finds out, also the fault handler; may log, must not call back into the library. */
typedef void (*gm_lost_fn)(void *arg, const struct gm_lost *lost);

/** What an address space is made with; zero fields mean the default. */
struct gm_as_config {
	size_t size;                    /**< sizeof(struct gm_as_config) */
	uint32_t flags;                 /**< GM_AS_* */
	const struct gm_policy *policy; /**< decisions; must outlive the space; NULL: least recently used */
	uint64_t slice_ns;              /**< a served page stays with its accessor this long (default 100 us) */
	uint64_t wait_ns;               /**< bound of an internal wait (default 10 s); those without one: docs/design.md */
	uint64_t hold_ns;               /**< a CPU access to a held page waits this long, then it fails: SIGBUS (default 10 s) */
	uint32_t cpu_unit_bytes;        /**< brought home by one CPU fault at least (default 64 KiB) */
	uint32_t cpu_around_bytes;      /**< ... and at most, when faults are adjacent (default 2 MiB) */
	uint32_t dev_unit_bytes;        /**< brought by one device fault at least (default 64 KiB) */
	uint32_t dev_around_bytes;      /**< ... and at most (default 2 MiB) */
	gm_stuck_fn stuck;              /**< hook; NULL: the log only */
	void *stuck_arg;                /**< handed to the hook */
	uint32_t fork;                  /**< enum gm_fork: for all memory of which gm_fork_policy() says nothing else */
	gm_lost_fn lost;                /**< hook; NULL: the log only */
	void *lost_arg;                 /**< handed to the hook */
};

/**
 * @brief Make an address space.
 * @param[in]  lib     the instance
 * @param[in]  begin   lowest VA it may contain, multiple of GM_PAGE_BYTES
 * @param[in]  end     one past the highest; 0 and 0 mean everything
 * @param[in]  config  NULL for the defaults
 * @param[out] as      the address space
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p lib is no instance that lives, @p as is NULL, wrong size, unknown flag, empty or
 *                         unaligned range, a unit that is no power of two between a page and a block
 * @retval GM_RET_NOMEM    out of memory
 * @retval GM_RET_AGAIN    no thread can be started
 * @retval GM_RET_PERM, GM_RET_NOTSUP  what the host says of userfaultfd; GM_FORK_SERVE without the right to it, or without
 *                         threads of the library; GM_FORK_SERVE or GM_AS_MIRROR on a rung (gmem/rung.h) with
 *                         GM_RUNG_NO_UNMAP_GUARD
 * @threads any
 * @owner   the caller ends it with gm_as_destroy()
 * @source  GMEM gm_as_create()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_as_create(struct gm_lib *lib, uint64_t begin, uint64_t end,
					   const struct gm_as_config *config, struct gm_as **as);

/**
 * @brief End an address space: bring every byte home, detach, stop its threads.
 *
 * Owned memory is unmapped; adopted memory stays with its owner, complete.
 *
 * @param[in] as  the address space; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_BUSY     a working set is still held; nothing changed
 * @retval GM_RET_INVAL    @p as is no address space that lives
 * @retval GM_RET_IO       a device failed to copy; the space is still there and usable, as after the following
 * @retval GM_RET_TIMEDOUT what the process did was not handled, or a device did not answer, in time
 * @retval GM_RET_NODEV    a device was lost meanwhile; or the program closed the library's descriptors and none can
 *                         be had
 * @retval GM_RET_NOMEM    out of memory
 * @threads no other call on @p as may be in flight; not from a hook
 */
GM_API gm_ret_t gm_as_destroy(struct gm_as *as);

/** How a device uses an address space. */
enum gm_attach_mode {
	GM_ATTACH_IDENTITY, /**< device VA = host VA */
	GM_ATTACH_WINDOW,   /**< a window of it, elsewhere in the device's VA space */
};

/** The window of GM_ATTACH_WINDOW: `[va, va + bytes)` is seen at `dev_va`. */
struct gm_window {
	uint64_t va;     /**< host side, multiple of GM_BLOCK_BYTES */
	uint64_t bytes;  /**< length, multiple of GM_BLOCK_BYTES */
	uint64_t dev_va; /**< device side, multiple of GM_BLOCK_BYTES */
};

/**
 * @brief Let a device use an address space.
 * @param[in]  as      the address space
 * @param[in]  dev     the device
 * @param[in]  mode    identity or window
 * @param[in]  window  for GM_ATTACH_WINDOW, else NULL
 * @param[out] ctx     the device's view
 * @retval GM_RET_SUCCESS  attached
 * @retval GM_RET_INVAL    @p as or @p dev is none that lives, or they are of two instances; @p ctx is NULL,
 *                         unknown mode, a window that is unaligned, overflows, or is given for identity
 * @retval GM_RET_EXIST    this device is attached to this space already
 * @retval GM_RET_NOSPC    GM_MAX_CTXS, or the device's own limit, is reached
 * @retval GM_RET_NOMEM    out of memory, also of the device
 * @retval GM_RET_AGAIN    no thread can be started for the device's faults
 * @retval GM_RET_NODEV    the device is lost
 * @threads any
 * @owner   the caller ends it with gm_as_detach()
 * @source  GMEM gm_as_attach()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_as_attach(struct gm_as *as, struct gm_dev *dev, enum gm_attach_mode mode,
					   const struct gm_window *window, struct gm_ctx **ctx);

/**
 * @brief Take a device out of an address space; pages in its memory come home.
 * @param[in] ctx  the device's view; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_BUSY     a working set is held on it; nothing changed
 * @retval GM_RET_INVAL    @p ctx is no context that lives
 * @retval GM_RET_IO       the device failed to copy; still attached, as after the following
 * @retval GM_RET_TIMEDOUT what the process did was not handled, or the device did not answer, in time
 * @retval GM_RET_NODEV    the device was lost meanwhile; or the program closed the library's descriptors and none can
 *                         be had
 * @retval GM_RET_NOMEM    out of memory
 * @threads no other call on @p ctx may be in flight; not from a hook
 */
GM_API gm_ret_t gm_as_detach(struct gm_ctx *ctx);

/**
 * @brief Bring everything home: for a core dump, a debugger, a checkpoint.
 *
 * Who looks at the process from outside does not see what is on a device: a core
 * dump has holes there (docs/debugging.md). A block that cannot come does not
 * keep the others. What devices touch afterwards they have again: stop launching
 * before. Not to be called in a signal handler; wake a thread that calls it.
 *
 * @param[in]  as          the address space
 * @param[in]  timeout_ns  bound of all of it; a device that is at work on a copy then has gm_as_config.wait_ns more
 * @param[out] left_bytes  how much is not home; NULL if not wanted. Set if everything was looked at: with SUCCESS, BUSY
 *                         and NODEV, and where single blocks failed
 * @retval GM_RET_SUCCESS  no byte is on a device
 * @retval GM_RET_INVAL    @p as is no address space that lives
 * @retval GM_RET_BUSY     what a working set holds, or what went to a device meanwhile, is not home; all else is
 * @retval GM_RET_NODEV    the content of some pages was lost with a device: they fail every access; all else is home
 * @retval GM_RET_TIMEDOUT, GM_RET_IO, GM_RET_NOMEM  the first failure of a block; what could come is home, no byte is lost
 * @threads any; blocks
 */
GM_API gm_ret_t gm_as_home(struct gm_as *as, uint64_t timeout_ns, uint64_t *left_bytes);

/**
 * @brief Descriptor that becomes readable when gm_as_serve() has work.
 * @param[in] as  an address space made with GM_AS_NO_THREADS
 * @return a descriptor owned by the address space (a program that closes all of its descriptors asks for it again); -1 if it has threads of its own, or is none that lives
 * @threads any
 */
GM_API int gm_as_fd(struct gm_as *as);

/**
 * @brief Serve what is pending: host faults and events, device faults, work put off.
 *
 * Call it from one thread that itself never touches managed memory.
 *
 * @param[in] as          an address space made with GM_AS_NO_THREADS
 * @param[in] timeout_ns  wait this long for work at most
 * @retval GM_RET_SUCCESS   served something
 * @retval GM_RET_TIMEDOUT  there was nothing to do
 * @retval GM_RET_INVAL     @p as is no address space that lives, or it has threads of its own
 * @threads one at a time
 */
GM_API gm_ret_t gm_as_serve(struct gm_as *as, uint64_t timeout_ns);

#ifdef __cplusplus
}
#endif
#endif
