/* SPDX-License-Identifier: MIT */
/**
 * @file lib.h
 * @brief An instance of the library: memory, log, host.
 *
 * Everything hangs off an instance; two instances, also two copies of the
 * library, live in one process without knowing of each other.
 */
#ifndef GMEM_LIB_H
#define GMEM_LIB_H

#include <gmem/rung.h>
#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Severity of a message. */
enum gm_log_level {
	GM_LOG_ERROR, /**< something the caller must know */
	GM_LOG_WARN,  /**< something it will want to know */
	GM_LOG_INFO,  /**< what the library decided */
	GM_LOG_DEBUG, /**< for the library's developers */
};

/**
 * @brief Receives messages; the library itself never prints.
 *
 * Called with no lock of the library held, except for what the validation shim
 * reports. It must not touch managed memory and must not call back into the library.
 */
typedef void (*gm_log_fn)(void *arg, enum gm_log_level level, const char *message);

/**
 * @brief Where the library takes its own memory from.
 *
 * The fault handler's work depends on it: it must not be malloc() if buffers
 * of malloc() are adopted (a thread that holds malloc's lock may be the one
 * that waits for the fault), nor wait for anything. The default is an arena of the library's own.
 */
struct gm_allocator {
	void *(*alloc)(void *arg, size_t bytes); /**< zeroed, 16-byte aligned; NULL when out of memory */
	void (*free)(void *arg, void *ptr, size_t bytes); /**< `bytes` as given to alloc */
	void *arg; /**< handed to both */
};

/** Is every device of an instance watched by the validation shim (gmem/validate.h)? */
enum gm_validate {
	GM_VALIDATE_DEFAULT, /**< no; a library built with --enable-checks: as GM_VALIDATE_ABORT */
	GM_VALIDATE_OFF,     /**< no */
	GM_VALIDATE_LOG,     /**< a broken rule is logged at GM_LOG_ERROR */
	GM_VALIDATE_ABORT,   /**< a broken rule is logged, then the process is aborted, as a failed assertion does */
};

/** What an instance is made with. It belongs to the process that made it: a forked child makes its own. */
struct gm_lib_config {
	size_t size;                         /**< sizeof(struct gm_lib_config) */
	const struct gm_allocator *allocator; /**< copied; NULL: own arena */
	gm_log_fn log;                       /**< NULL: silent */
	void *log_arg;                       /**< handed to log */
	enum gm_log_level log_level;         /**< least severe level that is reported */
	enum gm_validate validate;           /**< what watches backends, and how the core calls them */
	enum gm_rung lowest_rung;            /**< the least that is accepted; 0: GM_RUNG_DEVICE, everything works */
	enum gm_rung highest_rung;           /**< better ones are not tried (tests); 0: GM_RUNG_FULL */
};

/**
 * @brief Make an instance on this machine's host memory.
 *
 * Takes the best rung of the ladder (gmem/rung.h) from `highest_rung` down to
 * `lowest_rung`. By default that needs Linux 6.8 or newer (UFFDIO_MOVE) and the
 * right to full userfaultfd: root, CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1,
 * or read-write access to /dev/userfaultfd.
 *
 * @param[in]  config  NULL for the defaults
 * @param[out] lib     the instance
 * @retval GM_RET_SUCCESS  made
 * @retval GM_RET_INVAL    @p lib is NULL, @p config has a wrong size, an unknown `validate` or rung, a `lowest_rung` better
 *                         than its `highest_rung`, or an allocator that lacks a function
 * @retval GM_RET_NOMEM    out of memory
 * @retval GM_RET_NOTSUP   the kernel is too old for every rung admitted; gm_last_error() says what is missing
 * @retval GM_RET_PERM     no right to a rung admitted; gm_last_error() says how to get it
 * @threads any
 * @owner  the caller ends it with gm_lib_destroy()
 */
GM_API GM_MUST_CHECK gm_ret_t gm_lib_create(const struct gm_lib_config *config, struct gm_lib **lib);

/**
 * @brief End an instance.
 * @param[in] lib  the instance; NULL is allowed
 * @retval GM_RET_SUCCESS  gone
 * @retval GM_RET_BUSY     it still has devices, address spaces, or fences that were not given back; nothing changed
 * @retval GM_RET_INVAL    @p lib is no instance that lives
 * @threads no other call on @p lib may be in flight
 */
GM_API gm_ret_t gm_lib_destroy(struct gm_lib *lib);

#ifdef __cplusplus
}
#endif
#endif
