/* SPDX-License-Identifier: MIT */
/* System calls that the library itself makes: the C library's names for them are taken by interposed functions. */
#ifndef GM_TOOLS_PRELOAD_RAW_H
#define GM_TOOLS_PRELOAD_RAW_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void *gm_raw_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, at, bytes, prot, flags, fd, offset); /* NOLINT(performance-no-int-to-ptr) */
}

static inline int gm_raw_munmap(void *at, size_t bytes)
{
	return (int)syscall(SYS_munmap, at, bytes);
}

static inline int gm_raw_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

/* Memory of this library, never managed; NULL: none left. Pages that nobody touches cost nothing. */
static inline void *gm_raw_table(size_t bytes)
{
	void *p = gm_raw_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The kernel's set of signals has 64 bits; with the C library's functions two of them cannot be blocked. */
static inline uint64_t gm_raw_block_signals(void)
{
	uint64_t all = UINT64_MAX, old = 0;

	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	return old;
}

static inline void gm_raw_restore_signals(uint64_t old)
{
	(void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
}

#endif
