/* SPDX-License-Identifier: MIT */
/**
 * @file inthread.h
 * @brief Latency mode: faults of the CPU served in the thread that faults.
 *
 * Usually a thread that touches a page which is away sleeps until the library's
 * handler thread has brought it home: two switches of threads, on another CPU
 * an interrupt besides. In memory made with GM_MEM_INTHREAD (gm_alloc(),
 * gm_adopt()) the kernel sends the thread SIGBUS instead, and the program's own signal
 * handler has the page brought home by gm_inthread_serve(), in that thread. Threads then fault beside
 * each other. All else is as of other memory.
 *
 * The library installs no signal handler. The program does, like this:
 *
 * @code
 *	static struct gm_as *the_as;
 *	static struct sigaction before;
 *
 *	static void on_sigbus(int sig, siginfo_t *info, void *context)
 *	{
 *		if (!gm_inthread_serve(the_as, GM_VA(info->si_addr)))
 *			return;                         // the access is made again
 *		sigaction(SIGBUS, &before, NULL);       // not ours, or lost: as if we were not here
 *		(void)sig, (void)context;
 *	}
 *
 *	struct sigaction on = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK };
 *	sigfillset(&on.sa_mask);
 *	sigaction(SIGBUS, &on, &before);
 * @endcode
 *
 * With several spaces it asks one after the other, until one does not say GM_RET_NOENT. examples/inthread.c is whole.
 *
 * What it costs:
 * - The kernel's own accesses to a page that is away, or duplicated and written to, do not wait but fail: read(2)
 *   into it says EFAULT, mlock() ENOMEM. gm_prefault() before such a call; for a guarantee gm_pin() to the host. The same
 *   is true of pages that nobody has touched yet, if devices use memory nearby.
 * - A thread in which SIGBUS is blocked is killed by such an access. So is one whose stack is such memory, without an
 *   alternate stack (sigaltstack(), of 64 KiB at least); the alternate stack itself must not be such memory.
 * - A signal handler that interrupted a function of this library must not touch it. gm_inthread_serve() is one: therefore
 *   the full sa_mask above; around other calls see gmem/as.h. What calls are handed may be such memory.
 * - Where the library is part of a shared object that dlopen() loaded, a thread's first call of it may allocate: not to be in the
 *   signal handler if malloc()'s own memory (a heap adopted as a whole) is such memory.
 * - Where a caller's own allocator (gm_lib_config.allocator) is used, it is called in the signal handler: it must allow that.
 *   So is what is called by the threads that serve faults: the policy's unit(), the log, and gm_as_config.lost.
 * - Children are not served (GM_AS_FORK_SERVE): GM_RET_NOTSUP in such a space.
 * - A fault is a call on the space: before gm_as_destroy() all such memory is released, or no thread touches it any more. A signal
 *   that comes to the handler more than a second after its memory was released or unmapped is GM_RET_NOENT; sooner, if 32 more
 *   pieces of such memory were in that time.
 * - After mremap() it is such memory at its new place, whatever is next to it there.
 * - What is unmapped while no device is involved with it is to be released before (gm_release()): else private anonymous
 *   memory that is mapped there later may be taken for it.
 */
#ifndef GMEM_INTHREAD_H
#define GMEM_INTHREAD_H

#include <gmem/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @brief In the program's handler of SIGBUS: have a page of GM_MEM_INTHREAD memory brought home.
 *
 * Async-signal-safe, as far as what is said above is kept. errno and, on success, gm_last_error() are
 * as before. Where nothing has to be waited for, this thread does all of it; else (the device needs an engine to copy,
 * a working set holds the page, a transfer is in flight) the library's worker does, and it waits.
 *
 * @param[in] as  the address space
 * @param[in] va  what was touched: si_addr of the signal
 * @retval GM_RET_SUCCESS   return from the handler: the access is made again
 * @retval GM_RET_NOENT     this is no such memory of @p as, or no more: the signal is somebody else's
 * @retval GM_RET_NODEV     the content was lost with a device; or the page is there, and cannot be read (broken memory)
 * @retval GM_RET_TIMEDOUT  held by a working set for longer than gm_as_config.hold_ns, or not to be brought home within
 *                          wait_ns: as any access it fails; the hook `stuck` was told
 * @retval GM_RET_INVAL     @p as is no address space that lives
 * @threads any, in a signal handler too; no cancellation point; bounded by hold_ns and wait_ns
 */
GM_API GM_MUST_CHECK gm_ret_t gm_inthread_serve(struct gm_as *as, uint64_t va);

/**
 * @brief Bring a range home so that a system call can use it now: to be called before.
 *
 * For memory whose kernel accesses fail while it is away (GM_MEM_INTHREAD, and all on a rung with
 * GM_RUNG_NO_KERNEL_ACCESS); other memory comes home by it too, in one go. Afterwards no page of the range is on
 * a device, absent where it is watched, or duplicated. It is no promise: a device that touches it again takes it
 * again, see gm_pin(). What is not managed is left alone.
 *
 * @param[in] as     the address space
 * @param[in] va     first byte; rounded down to a page
 * @param[in] bytes  length, > 0; the end is rounded up to a page
 * @retval GM_RET_SUCCESS   a system call can use it
 * @retval GM_RET_INVAL     @p as is no address space that lives; empty, overflowing, outside the address space
 * @retval GM_RET_BUSY      a working set, or a pin to a device, holds part of it
 * @retval GM_RET_NODEV     content of it was lost with a device
 * @retval GM_RET_TIMEDOUT, GM_RET_IO, GM_RET_NOMEM  not all of it is home; nothing is lost
 * @threads any, not in a signal handler; blocks
 */
GM_API GM_MUST_CHECK gm_ret_t gm_prefault(struct gm_as *as, uint64_t va, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
