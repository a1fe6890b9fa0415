/* SPDX-License-Identifier: MIT */
/*
 * The kernel interfaces of the host, raw: one function per ioctl. The kernel
 * headers of a build machine may be older than the kernel the program runs on,
 * so the structures and numbers are spelled out here, under names of our own.
 *
 * Result of every function that moves or makes pages: bytes done (> 0, less
 * than asked when the kernel stopped half way: call again behind them to learn
 * why), or a negative errno when not even the first page was done. The meaning
 * of these errnos is in gm_host_move.c.
 */
#ifndef GM_HAL_HOST_UFFD_H
#define GM_HAL_HOST_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GM_UFFD_API 0xAAu

#define GM_UFFD_FEATURE_WP (UINT64_C(1) << 0)
#define GM_UFFD_FEATURE_EVENT_FORK (UINT64_C(1) << 1)
#define GM_UFFD_FEATURE_EVENT_REMAP (UINT64_C(1) << 2)
#define GM_UFFD_FEATURE_EVENT_REMOVE (UINT64_C(1) << 3)
#define GM_UFFD_FEATURE_MISSING_SHMEM (UINT64_C(1) << 5)
#define GM_UFFD_FEATURE_EVENT_UNMAP (UINT64_C(1) << 6)
#define GM_UFFD_FEATURE_SIGBUS (UINT64_C(1) << 7)
#define GM_UFFD_FEATURE_THREAD_ID (UINT64_C(1) << 8)
#define GM_UFFD_FEATURE_MINOR_SHMEM (UINT64_C(1) << 10)
#define GM_UFFD_FEATURE_POISON (UINT64_C(1) << 14)
#define GM_UFFD_FEATURE_MOVE (UINT64_C(1) << 16)

#define GM_UFFD_EVENT_PAGEFAULT 0x12u
#define GM_UFFD_EVENT_FORK 0x13u
#define GM_UFFD_EVENT_REMAP 0x14u
#define GM_UFFD_EVENT_REMOVE 0x15u
#define GM_UFFD_EVENT_UNMAP 0x16u
#define GM_UFFD_PAGEFAULT_WRITE UINT64_C(1)
#define GM_UFFD_PAGEFAULT_WP UINT64_C(2) /* a store to a page that is protected */

/* Number of an ioctl, also its bit in the set of ioctls that a registered range takes. */
#define GM_UFFD_NR_MOVE 0x05
#define GM_UFFD_NR_PROTECT 0x06

struct gm_uffd_msg {
	uint8_t event;
	uint8_t reserved1;
	uint16_t reserved2;
	uint32_t reserved3;
	union {
		struct {
			uint64_t flags, address;
			uint32_t thread_id, reserved;
		} pagefault;
		struct {
			uint32_t fd; /* the reader's now */
		} fork;
		struct {
			uint64_t from, to, bytes;
		} remap;
		struct {
			uint64_t begin, end;
		} range; /* REMOVE, UNMAP */
	} arg;
};

#define GM_PAGE_IS_PRESENT UINT64_C(8)
#define GM_PAGE_IS_SWAPPED UINT64_C(16) /* also set for markers, such as poison */
#define GM_PAGE_IS_PFNZERO UINT64_C(32)
#define GM_PAGE_IS_HUGE UINT64_C(64)
#define GM_PAGE_HAS_CONTENT (GM_PAGE_IS_PRESENT | GM_PAGE_IS_SWAPPED)
#define GM_PAGE_IS_GUARD UINT64_C(256) /* Linux 6.15; before, asking for it is EINVAL */

/* A run of pages with the same categories, as PAGEMAP_SCAN reports it. */
struct gm_page_region {
	uint64_t begin, end, categories;
};

/* Handshake: asks for `want`, reports all the kernel has if `want` is 0. 0 or a negative errno. */
int gm_uffd_api(int fd, uint64_t want, uint64_t *features);

/* Watch for missing pages. `ioctls` receives the set of ioctls for the range. 0 or a negative errno. */
int gm_uffd_register(int fd, uint64_t va, uint64_t bytes, uint64_t *ioctls);
/* The same, and pages may be protected. What is registered already keeps that when registered without it. */
int gm_uffd_register_stores(int fd, uint64_t va, uint64_t bytes, uint64_t *ioctls);
/* The same of shared memory, also for pages that only this mapping lacks. */
int gm_uffd_register_minor(int fd, uint64_t va, uint64_t bytes);
int gm_uffd_unregister(int fd, uint64_t va, uint64_t bytes);
int gm_uffd_wake(int fd, uint64_t va, uint64_t bytes);
/* Stores to pages that are present wait, each with a message; no longer, and those that wait go on. 0 or a negative errno. */
int gm_uffd_protect(int fd, uint64_t va, uint64_t bytes, bool on);
/* Is a thread of the process between the start of an munmap, madvise or mremap of a watched range and
 * the reading of its event? 1, 0 or a negative errno. */
int gm_uffd_changing(int fd);

/*
 * Copy, zeropage and move (not take and poison) wake the accesses that wait for
 * what they make present. Take and move are the same, out of a watched range and
 * back into it. Holes of the source of either count as moved.
 */
int64_t gm_uffd_take(int fd, uint64_t dst, uint64_t src, uint64_t bytes);
int64_t gm_uffd_move(int fd, uint64_t dst, uint64_t src, uint64_t bytes);
int64_t gm_uffd_copy(int fd, uint64_t dst, uint64_t src, uint64_t bytes);
/* Copy, and what was made is protected. */
int64_t gm_uffd_copy_protected(int fd, uint64_t dst, uint64_t src, uint64_t bytes);
int64_t gm_uffd_zeropage(int fd, uint64_t dst, uint64_t bytes);
/* The pages that the memory itself has, into the mapping. EFAULT: it has none there. */
int64_t gm_uffd_continue(int fd, uint64_t dst, uint64_t bytes);
int64_t gm_uffd_poison(int fd, uint64_t dst, uint64_t bytes);

/*
 * Runs of pages in [begin, end) of any of these categories; PRESENT | SWAPPED
 * is what has content. Returns how many of vec[n] were filled, or a negative
 * errno; *walked is where to go on (== end when done).
 */
int gm_pagemap_scan(int fd, uint64_t begin, uint64_t end, uint64_t anyof, struct gm_page_region *vec, size_t n,
		    uint64_t *walked);

#endif
