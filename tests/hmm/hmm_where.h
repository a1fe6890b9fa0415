/* SPDX-License-Identifier: MIT */
/*
 * Where are the bytes? Three witnesses, none of which is the library's own word
 * alone:
 *
 *     the kernel     its page map of the address: present, huge, the zero page,
 *                    a page of a file, a mark
 *     the device     its own memory at the frames of the page, read byte by byte,
 *                    and its own page table: local memory or host memory in place
 *     the library    gm_query()
 *
 * hmm_on_device() and hmm_on_host() ask all three and say which one objects. A
 * row of the table that also passed where nothing ever moves would prove nothing.
 */
#ifndef GM_TEST_HMM_WHERE_H
#define GM_TEST_HMM_WHERE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include <gmem/gmem.h>

#include "backends/mock/gm_mock_internal.h"
#include "core/gm_as.h"
#include "hal/host/gm_host_uffd.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)
#define UNIT ((uint64_t)GM_UNIT_BYTES)

/* Set in a forked child: there a failed assertion is an exit status, as the test framework belongs to the parent. */
static bool hmm_in_child;

#define HMM_TRUE(cond, ...)                                                                        \
	do {                                                                                       \
		if (cond)                                                                          \
			break;                                                                     \
		if (!hmm_in_child)                                                                 \
			cr_assert_fail(__VA_ARGS__);                                               \
		fprintf(stderr, "child, %s:%d: %s: ", __FILE__, __LINE__, #cond);                  \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		_exit(1);                                                                          \
	} while (0)

#define HMM_IS(call, want)                                                                                   \
	do {                                                                                                 \
		gm_ret_t is_ret_ = (call), is_want_ = (want);                                                \
		HMM_TRUE(is_ret_ == is_want_, "line %d: %s: %s instead of %s (%s)", __LINE__, #call,         \
			 gm_ret_name(is_ret_), gm_ret_name(is_want_), is_ret_ ? gm_last_error() : "success"); \
	} while (0)

#define HMM_OK(call) HMM_IS(call, GM_RET_SUCCESS)

/* ------------------------------------------------------------ the kernel */

#define HMM_PRESENT 1u
#define HMM_HUGE 2u   /* mapped as one page of 2 MiB */
#define HMM_ZERO 4u   /* the kernel's page of zeros */
#define HMM_FILE 8u   /* a page of a file, or shared */
#define HMM_MARKED 16u /* swapped out, or a mark that makes accesses fail */

/* As the kernel maps the page at va. */
static inline unsigned hmm_pagemap(uint64_t va)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct gm_page_region r = { .categories = 0 };
	uint64_t entry = 0, walked;
	unsigned flags = 0;

	va &= ~(PAGE - 1);
	HMM_TRUE(fd >= 0 && pread(fd, &entry, sizeof(entry), (off_t)(va / PAGE * sizeof(entry))) == sizeof(entry),
		 "no page map");
	flags |= entry >> 63 & 1 ? HMM_PRESENT : 0;
	flags |= entry >> 62 & 1 ? HMM_MARKED : 0;
	flags |= entry >> 61 & 1 ? HMM_FILE : 0;
	if (gm_pagemap_scan(fd, va, va + PAGE, GM_PAGE_HAS_CONTENT, &r, 1, &walked) == 1) {
		flags |= r.categories & GM_PAGE_IS_HUGE ? HMM_HUGE : 0;
		flags |= r.categories & GM_PAGE_IS_PFNZERO ? HMM_ZERO : 0;
	}
	close(fd);
	return flags;
}

/* How many pages of the range the kernel maps so: every flag of `all`, none of `none`. */
static inline uint64_t hmm_pages(const void *at, uint64_t bytes, unsigned all, unsigned none)
{
	uint64_t n = 0;

	for (uint64_t off = 0; off < bytes; off += PAGE) {
		unsigned flags = hmm_pagemap(GM_VA(at) + off);

		n += (flags & all) == all && !(flags & none);
	}
	return n;
}

/* ------------------------------------------------------------ the device */

/* The mock behind a device. */
static inline struct gm_mock *hmm_mock(struct gm_dev *dev)
{
	return gm_dev_backend(dev);
}

/* Where in the device's memory the page is; 0: not there. */
static inline uint64_t hmm_dev_pa(struct gm_as *as, struct gm_dev *dev, uint64_t va)
{
	struct gm_block *b = gm_block_find(as, va);
	struct gm_frame_map frames;
	uint64_t pa = 0;

	if (!b)
		return 0;
	gm_lock(as->env, &b->lock);
	if (b->node[dev->index] && gm_mask_test(&b->node[dev->index]->resident, gm_page_of(b, va))) {
		gm_block_frames(b, dev->index, &frames);
		pa = gm_frame_pa(&frames, gm_page_of(b, va));
	}
	gm_unlock(as->env, &b->lock);
	gm_block_put(b);
	return pa;
}

/* The bytes the device has for the page; NULL: none. */
static inline const void *hmm_dev_bytes(struct gm_as *as, struct gm_dev *dev, uint64_t va)
{
	uint64_t pa = hmm_dev_pa(as, dev, va);

	return pa ? gm_mock_vram(hmm_mock(dev), pa, PAGE) : NULL;
}

/* What the device's own page table has at va; false: nothing. */
static inline bool hmm_dev_walk(struct gm_ctx *ctx, uint64_t va, struct gm_mock_xlate *x)
{
	struct gm_mock_pmap *pmap = gm_ctx_pmap(ctx);

	return gm_mock_pt_walk(pmap->dev, pmap->vm, va, x);
}

/* The device reaches host memory at its own address there. */
static inline bool hmm_in_place(struct gm_ctx *ctx, const void *at)
{
	struct gm_mock_xlate x;

	return hmm_dev_walk(ctx, GM_VA(at), &x) && (x.pte & GM_PTE_HOST) && x.pa + (GM_VA(at) - x.va) == GM_VA(at);
}

/* One frame of 2 MiB holds the block. */
static inline bool hmm_dev_huge(struct gm_as *as, struct gm_dev *dev, const void *at)
{
	struct gm_block *b = gm_block_find(as, GM_VA(at));
	bool huge = false;

	if (!b)
		return false;
	gm_lock(as->env, &b->lock);
	if (b->node[dev->index] && b->node[dev->index]->unit[0])
		huge = b->node[dev->index]->unit[0]->order == GM_BLOCK_ORDER && gm_mask_full(&b->node[dev->index]->resident);
	gm_unlock(as->env, &b->lock);
	gm_block_put(b);
	return huge;
}

static inline uint64_t hmm_dev_free(struct gm_dev *dev)
{
	struct gm_dev_info info = { .mem_bytes = 0 };

	HMM_OK(gm_dev_query(dev, &info));
	return info.mem_free_bytes;
}

/* ------------------------------------------------------- all of them at once */

static inline struct gm_page_info hmm_info(struct gm_as *as, uint64_t va)
{
	struct gm_page_info info = { .place = GM_PLACE_OUTSIDE };

	HMM_OK(gm_query(as, va & ~(PAGE - 1), 1, &info));
	return info;
}

/* A page that has just come home may be used before the library has noted that it is there; then it is busy. */
static inline struct gm_page_info hmm_settled_info(struct gm_as *as, uint64_t va)
{
	struct gm_page_info info = hmm_info(as, va);

	for (unsigned i = 0; i < 60000 && (info.flags & GM_PAGE_BUSY); i++) {
		usleep(1000);
		info = hmm_info(as, va);
	}
	HMM_TRUE(!(info.flags & GM_PAGE_BUSY), "0x%llx is busy for ever", (unsigned long long)va);
	return info;
}

/* Every page: in the device's memory with exactly these bytes, and not at its address. `want` NULL: zeros. */
static inline void hmm_on_device(struct gm_as *as, struct gm_dev *dev, const void *at, uint64_t bytes, const void *want)
{
	static const char zeros[GM_PAGE_BYTES];

	for (uint64_t off = 0; off < bytes; off += PAGE) {
		uint64_t va = GM_VA(at) + off;
		struct gm_page_info info = hmm_info(as, va);
		const void *got = hmm_dev_bytes(as, dev, va);

		HMM_TRUE(info.place == GM_PLACE_DEVICE && info.dev == dev, "page %u: place %d, not on the device",
			 (unsigned)(off / PAGE), (int)info.place);
		HMM_TRUE(!(hmm_pagemap(va) & HMM_PRESENT), "page %u: the kernel has it, too", (unsigned)(off / PAGE));
		HMM_TRUE(got, "page %u: no device memory", (unsigned)(off / PAGE));
		HMM_TRUE(!memcmp(got, want ? (const char *)want + off : zeros, PAGE),
			 "page %u: other bytes in device memory", (unsigned)(off / PAGE));
	}
}

/* Every page: present at its address, on no device. The bytes are the caller's affair: reading them here would bring them. */
static inline void hmm_on_host(struct gm_as *as, const void *at, uint64_t bytes)
{
	for (uint64_t off = 0; off < bytes; off += PAGE) {
		uint64_t va = GM_VA(at) + off;
		enum gm_place place = hmm_settled_info(as, va).place;

		HMM_TRUE(hmm_pagemap(va) & HMM_PRESENT, "page %u is not at its address", (unsigned)(off / PAGE));
		HMM_TRUE(place != GM_PLACE_DEVICE && place != GM_PLACE_POISONED, "page %u: place %d",
			 (unsigned)(off / PAGE), (int)place);
	}
}

/* Pages of the range that a device has. */
static inline uint64_t hmm_away(struct gm_as *as, const void *at, uint64_t bytes)
{
	uint64_t n = 0;

	for (uint64_t off = 0; off < bytes; off += PAGE)
		n += hmm_info(as, GM_VA(at) + off).place == GM_PLACE_DEVICE;
	return n;
}

#endif
