/* SPDX-License-Identifier: MIT */
/**
 * @file types.h
 * @brief Words shared by every header: results, ranges, access rights, limits.
 *
 * Conventions of the whole interface:
 *  - ranges are half-open, `[va, va + bytes)`; units are in the names;
 *  - a VA is a `uint64_t` (it may belong to a simulated process), see GM_VA();
 *  - on failure nothing visible changed and out-parameters are untouched,
 *    unless the function says otherwise;
 *  - configuration structures begin with `size`, set by the caller to
 *    `sizeof` the structure; NULL stands for all defaults;
 *  - bad input is answered with GM_RET_INVAL, never with a crash;
 *  - GM_RET_NOMEM stands for the lack of file descriptors as well: where the program has closed those by which the
 *    library asks the kernel what is mapped, and there is none left to open them again, that cannot be told for the
 *    moment. Nothing is taken for unmapped then; gm_last_error() says what to do, and the call works when that is done.
 *
 * Handles: what the functions make (struct gm_lib, gm_dev, gm_as, gm_ctx,
 * gm_ws, gm_fence) *lives* from its making to its end. A pointer to nothing
 * that lives and is of the type asked for (destroyed, of another type, garbage,
 * made by another copy of the library, made before a fork() by the parent) is
 * not followed: the function answers GM_RET_INVAL, or NULL or -1 where it
 * returns no result, or does nothing where it returns nothing; gm_last_error()
 * names function and argument. What cannot be told: an object that has the
 * address of a destroyed one of its type, and one that another thread destroys
 * at that moment. Pointers that are no handles (buffers, configurations, ops
 * tables, text) are checked for NULL and followed.
 */
#ifndef GMEM_TYPES_H
#define GMEM_TYPES_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Marks the functions that libgmem.a exports; everything else is local to it. */
#define GM_API __attribute__((visibility("default")))
/** The caller must look at the result. */
#define GM_MUST_CHECK __attribute__((warn_unused_result))

/** @name Version of the interface (semantic versioning). */
/**@{*/
#define GM_VERSION_MAJOR 0 /**< rises when programs must change */
#define GM_VERSION_MINOR 1 /**< rises when something is added */
#define GM_VERSION_PATCH 0 /**< rises when something is mended */
/**@}*/

/** Every result: name, value, what it means. One list, so that names cannot drift. */
#define GM_RET_LIST(X) \
	X(SUCCESS, 0, "success") \
	X(NOMEM, -ENOMEM, "no host memory left for the library") \
	X(INVAL, -EINVAL, "an argument is not valid") \
	X(EXIST, -EEXIST, "something is there already") \
	X(NOENT, -ENOENT, "there is nothing there") \
	X(AGAIN, -EAGAIN, "try again; nothing changed") \
	X(BUSY, -EBUSY, "in use by somebody else") \
	X(FAULT, -EFAULT, "the address is not accessible") \
	X(PERM, -EPERM, "not permitted") \
	X(NOTSUP, -EOPNOTSUPP, "this device, kernel or argument cannot do that") \
	X(UNIMPLEMENTED, -ENOSYS, "the backend has no such operation") \
	X(NODEV, -ENODEV, "the device is lost") \
	X(NOSPC, -ENOSPC, "does not fit into the device's memory") \
	X(TIMEDOUT, -ETIMEDOUT, "not finished within the time given") \
	X(CANCELED, -ECANCELED, "cancelled") \
	X(IO, -EIO, "a transfer failed")

/** Result of nearly every function: GMEM's names, negative errno values. */
typedef enum gm_ret {
#define GM_RET_ENUM_(name, value, text) GM_RET_##name = (value),
	GM_RET_LIST(GM_RET_ENUM_)
#undef GM_RET_ENUM_
} gm_ret_t;

/**
 * @brief Name of a result, such as "GM_RET_BUSY".
 * @param[in] ret  any value
 * @return a constant string; "GM_RET_?" for a value outside the enum
 * @threads any
 */
GM_API const char *gm_ret_name(gm_ret_t ret);

/**
 * @brief One line of English for a result.
 * @param[in] ret  any value
 * @return a constant string
 * @threads any
 */
GM_API const char *gm_ret_text(gm_ret_t ret);

/**
 * @brief What went wrong in the last call of this thread that failed.
 *
 * Names the thing, the value and what to do. It is not cleared by success:
 * look at it only after a failure.
 *
 * @return a string owned by the library, valid until the thread's next failing call
 * @threads any; every thread has its own
 */
GM_API const char *gm_last_error(void);

/**
 * @brief Version of the library that is linked.
 * @return "MAJOR.MINOR.PATCH"
 * @threads any
 */
GM_API const char *gm_version(void);

/** Host page and smallest unit of page state. */
#define GM_PAGE_BYTES 4096u
/** Page state is kept per aligned piece of this size. */
#define GM_BLOCK_BYTES (2u << 20)
/** Pages in a block. */
#define GM_BLOCK_PAGES (GM_BLOCK_BYTES / GM_PAGE_BYTES)
/** Unit of device memory: what one frame allocation covers at least. */
#define GM_UNIT_BYTES (64u << 10)

/** @name Limits. */
/**@{*/
#define GM_MAX_DEVS 8    /**< devices with memory of one library instance */
#define GM_MAX_CTXS 8    /**< devices attached to one address space */
#define GM_MAX_SLABS 8   /**< pieces of physical memory of one device */
#define GM_MAX_WS_RANGES 65536 /**< ranges of one working set */
/**@}*/

/** @name Access rights, a bit mask. Atomic implies write implies read. */
/**@{*/
#define GM_READ 1u   /**< loads */
#define GM_WRITE 2u  /**< loads and stores */
#define GM_ATOMIC 4u /**< loads, stores and read-modify-write */
/**@}*/

/** What the child of a fork() gets of memory that is on a device at that moment. */
enum gm_fork {
	GM_FORK_DEFAULT, /**< the space's; without one: owned memory is excluded, adopted memory comes home */
	GM_FORK_EXCLUDE, /**< the child does not inherit the memory: an access is SIGSEGV */
	GM_FORK_HOME,    /**< its bytes: they come home before the fork; what cannot is not inherited (SIGSEGV) */
	GM_FORK_SERVE,   /**< its bytes as of the fork: they stay on the device; see GM_AS_FORK_SERVE */
};

/** The VA of a pointer. */
#define GM_VA(ptr) ((uint64_t)(uintptr_t)(ptr))

/** A timeout that never ends (in `_ns` parameters). */
#define GM_FOREVER_NS UINT64_MAX

/** A half-open VA range. */
struct gm_range {
	uint64_t va;    /**< first byte */
	uint64_t bytes; /**< length */
};

struct gm_lib;   /**< one instance of the library; owns nothing global */
struct gm_dev;   /**< a device */
struct gm_as;    /**< an address space */
struct gm_ctx;   /**< one device's view of an address space */
struct gm_ws;    /**< a declared working set that is held */
struct gm_fence; /**< completion of asynchronous work */

#ifdef __cplusplus
}
#endif
#endif
