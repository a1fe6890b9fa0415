/* SPDX-License-Identifier: MIT */
/*
 * malloc() and its relatives. Allocations of GM_EXEC_LARGE_BYTES and more are placed in the window; what is smaller the C
 * library's own malloc() serves, from the break's memory, which is managed:
 *  - one arena only (M_ARENA_MAX), and no mappings (M_MMAP_THRESHOLD) or giving back (M_TRIM_THRESHOLD), so that all
 *    of it is there;
 *  - the break rises in large steps (M_TOP_PAD), so that what is adopted is mostly untouched, and every first touch
 *    comes to the server. Who gets memory above what is adopted says so.
 *
 * An address in the window is ours, every other one the C library's. Without a server (before the start, in a child)
 * new memory is all the C library's; what was placed before can still be freed.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

/* The C library's own; exported by it for those who interpose. */
extern void *gm_libc_malloc(size_t bytes) __asm__("__libc_malloc");
extern void gm_libc_free(void *ptr) __asm__("__libc_free");
extern void *gm_libc_calloc(size_t n, size_t bytes) __asm__("__libc_calloc");
extern void *gm_libc_realloc(void *ptr, size_t bytes) __asm__("__libc_realloc");
extern void *gm_libc_memalign(size_t align, size_t bytes) __asm__("__libc_memalign");

static size_t (*usable_size)(void *ptr);

/* The break's memory is far from everything that is mapped. */
#define HEAP_REACH (UINT64_C(1) << 36)

/* The C library gave this; it may lie above what is adopted. */
static void *from_heap(void *ptr)
{
	uint64_t end = atomic_load_explicit(&gm_exec.heap_end, memory_order_relaxed);

	/* more than a step above, too: freed and taken in between by others */
	if (ptr && GM_VA(ptr) >= end && GM_VA(ptr) - end < HEAP_REACH && gm_exec_is_live() &&
	    GM_VA(ptr) < (uint64_t)syscall(SYS_brk, 0))
		(void)gm_exec_ask(GM_EXEC_HEAP, 0, 0, 0);
	return ptr;
}

static void *place(size_t bytes, size_t align)
{
	uint64_t va = gm_exec_ask(GM_EXEC_PLACE, bytes, align, true);

	return (void *)(uintptr_t)va;
}

static bool is_large(size_t bytes)
{
	return bytes >= GM_EXEC_LARGE_BYTES && gm_exec_is_live();
}

GM_EXEC_EXPORT void *malloc(size_t bytes)
{
	void *ptr = is_large(bytes) ? place(bytes, 0) : NULL;

	return ptr ? ptr : from_heap(gm_libc_malloc(bytes));
}

GM_EXEC_EXPORT void *calloc(size_t n, size_t bytes)
{
	size_t all;
	void *ptr = NULL;

	if (!__builtin_mul_overflow(n, bytes, &all) && is_large(all))
		ptr = place(all, 0);
	return ptr ? ptr : from_heap(gm_libc_calloc(n, bytes));
}

GM_EXEC_EXPORT void free(void *ptr)
{
	int err = errno;

	if (!gm_exec_window_has(GM_VA(ptr))) {
		gm_libc_free(ptr);
		return;
	}
	(void)gm_exec_window_unmap(GM_VA(ptr), (gm_exec_alloc_bytes(GM_VA(ptr)) + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1));
	errno = err;
}

GM_EXEC_EXPORT size_t malloc_usable_size(void *ptr)
{
	if (ptr && gm_exec_window_has(GM_VA(ptr)))
		return (gm_exec_alloc_bytes(GM_VA(ptr)) + GM_PAGE_BYTES - 1) & ~(size_t)(GM_PAGE_BYTES - 1);
	return ptr && usable_size ? usable_size(ptr) : 0;
}

/* Elsewhere, with what there was. */
static void *move(void *ptr, size_t have, size_t bytes)
{
	void *to = malloc(bytes);

	if (!to)
		return NULL;
	memcpy(to, ptr, have < bytes ? have : bytes);
	free(ptr);
	return to;
}

GM_EXEC_EXPORT void *realloc(void *ptr, size_t bytes)
{
	uint64_t va = GM_VA(ptr);
	size_t have;

	if (!ptr)
		return malloc(bytes);
	if (!gm_exec_window_has(va)) {
		if (!is_large(bytes) || !usable_size)
			return from_heap(gm_libc_realloc(ptr, bytes));
		return move(ptr, usable_size(ptr), bytes);
	}
	if (!bytes) {
		free(ptr);
		return NULL;
	}
	have = malloc_usable_size(ptr);
	if (bytes <= have && bytes >= have / 2)
		return ptr;
	if (bytes > have && gm_exec_ask(GM_EXEC_GROW, va, have, bytes))
		return ptr;
	va = is_large(bytes) ? gm_exec_window_move(va, have, bytes) : 0;
	return va ? (void *)(uintptr_t)va : move(ptr, have, bytes);
}

static bool is_power(size_t align)
{
	return align && !(align & (align - 1));
}

GM_EXEC_EXPORT void *memalign(size_t align, size_t bytes)
{
	void *ptr = is_large(bytes) && is_power(align) && align <= GM_BLOCK_BYTES ? place(bytes, align) : NULL;

	return ptr ? ptr : from_heap(gm_libc_memalign(align, bytes));
}

GM_EXEC_EXPORT void *aligned_alloc(size_t align, size_t bytes)
{
	return memalign(align, bytes);
}

GM_EXEC_EXPORT int posix_memalign(void **out, size_t align, size_t bytes)
{
	int err = errno;
	void *ptr;

	if (!is_power(align) || align % sizeof(void *))
		return EINVAL;
	ptr = memalign(align, bytes);
	errno = err;
	if (!ptr)
		return ENOMEM;
	*out = ptr;
	return 0;
}

void gm_exec_heap_init(void)
{
	uint64_t now;
	void *top;

	usable_size = (size_t(*)(void *))(uintptr_t)dlsym(RTLD_NEXT, "malloc_usable_size");
	(void)mallopt(M_ARENA_MAX, 1);
	(void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, INT32_MAX);
	(void)mallopt(M_TOP_PAD, (int)GM_EXEC_HEAP_STEP_BYTES);
	now = (uint64_t)syscall(SYS_brk, 0);
	/* more than the top can hold: the break rises */
	top = gm_libc_malloc(GM_EXEC_LARGE_BYTES);
	gm_libc_free(top);
	gm_exec.heap_va = (now + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
	atomic_store(&gm_exec.heap_end, gm_exec.heap_va);
}
