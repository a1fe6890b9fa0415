/* SPDX-License-Identifier: MIT */
/*
 * What a program asks the kernel for memory with.
 *
 *     mmap      private, anonymous, writable, anywhere, GM_EXEC_MAP_BYTES and more: in the window. Else as it is: over
 *               managed memory it unmaps that, of which the kernel tells; in the window mremap() is the kernel's then
 *     munmap    what lies in the window is mapped over with the reservation, then free
 *     mremap    remap.c
 *     mprotect  rights.c
 *     fork      the library brings everything home in the caller's thread, with locks held: no signal handler may
 *               touch managed memory meanwhile, so signals are blocked
 *
 * madvise() needs nothing: the kernel tells of it. Calls that the C library makes inside itself do not come here: the
 * stacks of threads, for example, stay unmanaged.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

/* Around the caller's frame: what he and what fork() calls may touch. */
#define STACK_BELOW_BYTES ((uint64_t)256 << 10)
#define STACK_BYTES ((uint64_t)320 << 10)
#define PAGE_MASK ((uint64_t)GM_PAGE_BYTES - 1)

/* The functions that libgmem's own calls in this object are bound to (-Wl,--wrap). */
void *gm_own_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset) __asm__("__wrap_mmap");
int gm_own_munmap(void *at, size_t bytes) __asm__("__wrap_munmap");
int gm_own_close(int fd) __asm__("__wrap_close");

void *gm_own_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return gm_raw_mmap(at, bytes, prot, flags, fd, offset);
}

int gm_own_munmap(void *at, size_t bytes)
{
	return gm_raw_munmap(at, bytes);
}

int gm_own_close(int fd)
{
	return gm_raw_close(fd);
}

/* ---------------------------------------------------------------- mapping */

static bool is_for_us(const void *at, size_t bytes, int prot, int flags)
{
	const int only = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE;

	return !at && bytes >= GM_EXEC_MAP_BYTES && prot == (PROT_READ | PROT_WRITE) && (flags & ~only) == 0 &&
	       (flags & MAP_PRIVATE) && (flags & MAP_ANONYMOUS) && gm_exec_is_live();
}

static bool in_window(uint64_t *va, uint64_t *end);

GM_EXEC_EXPORT void *mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	uint64_t lo, hi;
	void *p;

	if (is_for_us(at, bytes, prot, flags)) {
		uint64_t va = gm_exec_ask(GM_EXEC_PLACE, bytes, 0, false);

		if (va)
			return (void *)(uintptr_t)va;
	}
	p = gm_raw_mmap(at, bytes, prot, flags, fd, offset);
	lo = GM_VA(p), hi = lo + bytes;
	/* MAP_FIXED: a file, or other rights, where mremap() would else grow or copy plain memory */
	if (p != MAP_FAILED && in_window(&lo, &hi))
		gm_exec_window_set_odd(lo, hi - lo);
	return p;
}

GM_EXEC_EXPORT void *mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return mmap(at, bytes, prot, flags, fd, offset);
}

/* The part of a range that lies in the window. */
static bool in_window(uint64_t *va, uint64_t *end)
{
	uint64_t lo = gm_exec_window_base(), hi = gm_exec_window_limit();

	*va = *va < lo ? lo : *va;
	*end = *end > hi ? hi : *end;
	return *va < *end;
}

bool gm_exec_is_managed(uint64_t va, uint64_t bytes)
{
	uint64_t lo = va, hi = va + bytes;

	return in_window(&lo, &hi) || (va < atomic_load(&gm_exec.heap_end) && va + bytes > gm_exec.heap_va);
}

GM_EXEC_EXPORT int munmap(void *at, size_t bytes)
{
	uint64_t va = GM_VA(at), end = va + ((bytes + PAGE_MASK) & ~PAGE_MASK), lo = va, hi = end;

	if (!bytes || va & PAGE_MASK || end < va || !in_window(&lo, &hi))
		return gm_raw_munmap(at, bytes);
	if (va < lo && gm_raw_munmap(at, lo - va))
		return -1;
	if (gm_exec_window_unmap(lo, hi - lo))
		return -1;
	return end > hi ? gm_raw_munmap((void *)(uintptr_t)hi, end - hi) : 0;
}

/* ------------------------------------------------------------------ fork */

/* Who forks on a stack in managed memory (coroutines) must not wait for its pages while he has the library's locks. */
static uint64_t release_stack(void)
{
	uint64_t va = (GM_VA(__builtin_frame_address(0)) & ~PAGE_MASK) - STACK_BELOW_BYTES;

	if (!gm_exec_is_live() || !gm_exec_is_managed(va, STACK_BYTES))
		return 0;
	(void)gm_exec_ask(GM_EXEC_RELEASE, va, STACK_BYTES, 0);
	return va;
}

GM_EXEC_EXPORT pid_t fork(void)
{
	static pid_t (*real)(void);
	uint64_t signals, stack;
	pid_t child;

	if (!real)
		real = (pid_t(*)(void))(uintptr_t)dlsym(RTLD_NEXT, "fork");
	signals = gm_raw_block_signals();
	stack = release_stack();
	child = real();
	if (stack)
		(void)gm_exec_ask(GM_EXEC_ADOPT, stack, STACK_BYTES, 0);
	gm_raw_restore_signals(signals);
	return child;
}
