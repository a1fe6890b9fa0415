/* SPDX-License-Identifier: MIT */
/* The real host: moving pages between the program and staging. Needs userfaultfd, else skips. */
#include "config.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "hal/host/gm_host_internal.h"
#include "tests/unit/host_fixture.h"

/* What goes wrong here tends to wait for ever. */
TestSuite(host_move, .timeout = 60);

static struct gm_mask all_pages(void)
{
	return gm_mask_span(0, GM_BLOCK_PAGES);
}

static bool mask_is(struct gm_mask a, struct gm_mask b)
{
	return gm_mask_equal(&a, &b);
}

static struct gm_host_steal steal(struct host *h, const char *at, struct gm_mask want, uint64_t slot, gm_ret_t expect)
{
	struct gm_host_steal out;

	cr_assert_eq(h->ops->steal(h->pmap, GM_VA(at), &want, slot, &out), expect, "%s", gm_last_error());
	return out;
}

/* Put pages [first, end) back from the slot; they must all go. */
static void restore(struct host *h, const char *at, uint64_t slot, unsigned first, unsigned end)
{
	uint64_t done = 0;
	uint64_t off = first * PAGE;
	gm_ret_t ret = h->ops->restore(h->pmap, GM_VA(at) + off, slot + off, (end - first) * PAGE, &done);

	cr_assert_eq(ret, GM_RET_SUCCESS, "%s after %llu bytes", gm_ret_name(ret), (unsigned long long)done);
	cr_assert_eq(done, (end - first) * PAGE);
}

static uint64_t new_slot(struct host *h)
{
	uint64_t slot = 0;

	cr_assert_eq(h->ops->slot_alloc(h->pmap, &slot), GM_RET_SUCCESS, "%s", gm_last_error());
	return slot;
}

static void watch(struct host *h, const char *at, uint64_t bytes)
{
	cr_assert_eq(h->ops->watch(h->pmap, GM_VA(at), bytes), GM_RET_SUCCESS, "%s", gm_last_error());
}

static void unwatch(struct host *h, const char *at, uint64_t bytes)
{
	cr_assert_eq(h->ops->unwatch(h->pmap, GM_VA(at), bytes), GM_RET_SUCCESS);
}

Test(host_move, round_trip_keeps_data_and_holes)
{
	struct host h;
	struct gm_mask holes = gm_mask_or(gm_mask_span(5, 9), gm_mask_span(511, 512));
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 5);
	put_marks(at, 9, 511);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.moved, all_pages()));
	cr_assert(mask_is(out.hole, holes));
	cr_assert(gm_mask_empty(&out.pinned) && gm_mask_empty(&out.fixed) && !out.huge);
	cr_assert(present_is(&h, at, gm_mask_none()), "a stolen page is still there");
	cr_assert(present_is(&h, (char *)slot, gm_mask_not(holes)));
	cr_assert_eq(wrong_marks((char *)slot, 0, 5) + wrong_marks((char *)slot, 9, 511), 0);
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	cr_assert(present_is(&h, (char *)slot, gm_mask_none()), "the slot kept a frame");
	cr_assert(present_is(&h, at, gm_mask_not(holes)));
	unwatch(&h, at, BLOCK);
	cr_assert_eq(wrong_marks(at, 0, 5) + wrong_marks(at, 9, 511), 0);
	cr_assert_eq(at[5 * PAGE], 0);
	cr_assert_eq(h.logs, 0, "%s", h.log);
	host_end(&h);
}

Test(host_move, only_wanted_pages_move)
{
	struct host h;
	struct gm_mask want = gm_mask_or(gm_mask_span(0, 1), gm_mask_span(64, 130));
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, GM_BLOCK_PAGES);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, want, slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.moved, want));
	cr_assert(gm_mask_empty(&out.hole));
	cr_assert(present_is(&h, at, gm_mask_not(want)));
	cr_assert(present_is(&h, (char *)slot, want));
	restore(&h, at, slot, 0, 1);
	restore(&h, at, slot, 64, 130);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, page_that_was_only_read_is_a_hole)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 2);
	cr_assert_eq(*(volatile char *)(at + 2 * PAGE), 0);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, gm_mask_span(0, 4), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.moved, gm_mask_span(0, 4)));
	cr_assert(mask_is(out.hole, gm_mask_span(2, 4)));
	cr_assert(present_is(&h, (char *)slot, gm_mask_span(0, 2)), "a hole has nothing in the slot");
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, huge_page_moves_as_one_and_comes_back_huge)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot, va;
	char *at;

	host_begin(&h);
	cr_assert_eq(h.ops->mem_map(h.pmap, BLOCK, true, &va), GM_RET_SUCCESS);
	at = (char *)va;
	put_marks(at, 0, GM_BLOCK_PAGES);
	if (!h.ops->mem_huge(h.pmap, va))
		cr_skip_test("NOT TESTED: this kernel gave no huge page");
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(out.huge && mask_is(out.moved, all_pages()) && gm_mask_empty(&out.hole));
	cr_assert(h.ops->mem_huge(h.pmap, slot));
	cr_assert(!h.ops->mem_huge(h.pmap, va));
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	cr_assert(h.ops->mem_huge(h.pmap, va), "the huge page was split");
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	out = steal(&h, at, gm_mask_span(0, 511), slot, GM_RET_SUCCESS);
	cr_assert(!out.huge && mask_is(out.moved, gm_mask_span(0, 511)));
	restore(&h, at, slot, 0, 511);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	unwatch(&h, at, BLOCK);
	h.ops->mem_unmap(h.pmap, va, BLOCK);
	host_end(&h);
}

/* Does emptying a block also take its page table away? Else a huge page finds it in its way. */
static bool kernel_reclaims_tables(struct host *h)
{
	char *at = map_app(BLOCK, false);

	put_marks(at, 0, 1);
	madvise(at, BLOCK, MADV_DONTNEED);
	madvise(at, BLOCK, MADV_HUGEPAGE);
	put_marks(at, 0, 1);
	return h->ops->mem_huge(h->pmap, GM_VA(at));
}

Test(host_move, huge_page_moves_as_one_into_a_used_slot)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at, *small;

	host_begin(&h);
	if (!kernel_reclaims_tables(&h))
		cr_skip_test("NOT TESTED: this kernel keeps empty page tables (before Linux 6.14)");
	small = map_app(BLOCK, false);
	at = map_app(BLOCK, true);
	put_marks(small, 0, 4);
	put_marks(at, 0, GM_BLOCK_PAGES);
	watch(&h, small, BLOCK);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	steal(&h, small, gm_mask_span(0, 4), slot, GM_RET_SUCCESS);
	restore(&h, small, slot, 0, 4);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(out.huge, "what small pages left in the slot split a huge page");
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES) + wrong_marks(small, 0, 4), 0);
	unwatch(&h, small, BLOCK);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

/* A ring with [at, at + bytes) as its registered buffer: pinned for DMA while it is open. -1: not here. */
static int pin(const char *at, uint64_t bytes)
{
	struct io_uring_params params = { .flags = 0 };
	struct iovec buf = { (void *)(uintptr_t)at, bytes };
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (ring < 0)
		return -1;
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buf, 1)) {
		close(ring);
		return -1;
	}
	return ring;
}

static void unpin(int ring)
{
	cr_assert_eq(syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0), 0);
	close(ring);
}

Test(host_move, pinned_pages_are_refused_and_the_others_move)
{
	struct host h;
	struct gm_mask pinned = gm_mask_span(7, 10);
	struct gm_host_steal out;
	uint64_t slot;
	char *at;
	int ring;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, GM_BLOCK_PAGES);
	ring = pin(at + 7 * PAGE, 3 * PAGE);
	if (ring < 0)
		cr_skip_test("NOT TESTED: no io_uring to pin pages with (error %d)", errno);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.pinned, pinned));
	cr_assert(mask_is(out.moved, gm_mask_not(pinned)));
	cr_assert(gm_mask_empty(&out.fixed));
	cr_assert(present_is(&h, at, pinned));
	cr_assert_eq(wrong_marks(at, 7, 10), 0);
	unpin(ring);
	out = steal(&h, at, pinned, slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.moved, pinned), "it is not pinned any more");
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, pinned_huge_page_is_refused_whole_and_stays_huge)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at;
	int ring;

	host_begin(&h);
	at = map_app(BLOCK, true);
	put_marks(at, 0, GM_BLOCK_PAGES);
	ring = pin(at + 100 * PAGE, PAGE);
	if (ring < 0 || !h.ops->mem_huge(h.pmap, GM_VA(at)))
		cr_skip_test("NOT TESTED: no io_uring to pin pages with, or no huge page");
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.pinned, all_pages()) && gm_mask_empty(&out.moved));
	cr_assert(h.ops->mem_huge(h.pmap, GM_VA(at)), "a refusal split the program's huge page");
	unpin(ring);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(out.huge);
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

/* Fork a child that looks at its marks when told to, and exits with how many are wrong. */
static pid_t fork_looker(const char *at, unsigned end, int *tell)
{
	int fds[2];
	pid_t pid;
	char c;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		close(fds[1]);
		if (read(fds[0], &c, 1) < 0)
			_exit(100);
		_exit(wrong_marks(at, 0, end) ? 1 : 0);
	}
	close(fds[0]);
	*tell = fds[1];
	return pid;
}

static void check_shared(bool huge)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at;
	pid_t pid;
	int tell, status;

	host_begin(&h);
	at = map_app(BLOCK, huge);
	put_marks(at, 0, GM_BLOCK_PAGES);
	pid = fork_looker(at, GM_BLOCK_PAGES, &tell);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.moved, all_pages()), "only %u pages moved", gm_mask_count(&out.moved));
	memset((void *)slot, 0, BLOCK);
	close(tell);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child saw its parent's changes");
	restore(&h, at, slot, 0, GM_BLOCK_PAGES);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, pages_shared_with_a_child_are_unshared)
{
	check_shared(false);
}

Test(host_move, huge_page_shared_with_a_child_is_unshared)
{
	check_shared(true);
}

Test(host_move, locked_and_read_only_pages_are_fixed)
{
	struct host h;
	struct gm_mask fixed = gm_mask_or(gm_mask_span(3, 5), gm_mask_span(100, 101));
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(lock_pages(at + 3 * PAGE, 2 * PAGE), 0);
	cr_assert_eq(mprotect(at + 100 * PAGE, PAGE, PROT_READ), 0);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.fixed, fixed));
	cr_assert(mask_is(out.moved, gm_mask_not(fixed)));
	cr_assert(gm_mask_empty(&out.pinned));
	cr_assert(present_is(&h, at, fixed));
	restore(&h, at, slot, 0, 3);
	restore(&h, at, slot, 5, 100);
	restore(&h, at, slot, 101, GM_BLOCK_PAGES);
	cr_assert_eq(wrong_marks(at, 0, GM_BLOCK_PAGES), 0);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, steal_of_a_gone_mapping_says_what_moved)
{
	struct host h;
	struct gm_host_steal out;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, GM_BLOCK_PAGES);
	cr_assert_eq(munmap(at + 200 * PAGE, PAGE), 0);
	slot = new_slot(&h);
	out = steal(&h, at, all_pages(), slot, GM_RET_FAULT);
	cr_assert(mask_is(out.moved, gm_mask_span(0, 200)));
	cr_assert(gm_mask_empty(&out.hole) && gm_mask_empty(&out.fixed));
	cr_assert_eq(wrong_marks((char *)slot, 0, 200), 0);
	host_end(&h);
}

Test(host_move, restore_works_after_mprotect)
{
	struct host h;
	uint64_t slot;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 20);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	steal(&h, at, gm_mask_span(0, 22), slot, GM_RET_SUCCESS);
	cr_assert_eq(mprotect(at + 4 * PAGE, 4 * PAGE, PROT_READ), 0);
	cr_assert_eq(mprotect(at + 18 * PAGE, 4 * PAGE, PROT_NONE), 0);
	/* pages 20 and 21 are holes: reading them in the slot would hang */
	restore(&h, at, slot, 0, 22);
	cr_assert(present_is(&h, at, gm_mask_span(0, 20)));
	cr_assert(present_is(&h, (char *)slot, gm_mask_none()), "a frame was left in the slot");
	cr_assert_eq(mprotect(at, 22 * PAGE, PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(wrong_marks(at, 0, 20), 0);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, nothing_present_is_overwritten)
{
	struct host h;
	char page[GM_PAGE_BYTES];
	uint64_t slot, done;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 16);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	steal(&h, at, gm_mask_span(0, 16), slot, GM_RET_SUCCESS);
	memset(page, 0x77, sizeof(page));
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at) + 5 * PAGE, page, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, PAGE);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, 16 * PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, 5 * PAGE);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at) + 5 * PAGE, page, PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at) + 5 * PAGE, PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at) + 5 * PAGE, PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, 0);
	cr_assert_eq(at[5 * PAGE], 0x77);
	cr_assert(present_is(&h, (char *)slot, gm_mask_span(5, 16)), "the refused page must stay in the slot");
	cr_assert_eq(wrong_marks((char *)slot, 5, 16), 0);
	restore(&h, at, slot, 6, 16);
	cr_assert_eq(wrong_marks(at, 0, 5) + wrong_marks(at, 6, 16), 0);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, poison_gives_way_to_content)
{
	struct host h;
	char page[GM_PAGE_BYTES];
	struct gm_host_steal out;
	uint64_t slot, done;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 1);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	steal(&h, at, gm_mask_span(0, 1), slot, GM_RET_SUCCESS);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at), 4 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, 4 * PAGE);
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at), page, 8, false), GM_RET_FAULT);
	out = steal(&h, at, gm_mask_span(3, 4), slot, GM_RET_SUCCESS);
	cr_assert(mask_is(out.fixed, gm_mask_span(3, 4)));
	memset(page, 0x77, sizeof(page));
	restore(&h, at, slot, 0, 1);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at) + PAGE, PAGE, &done), GM_RET_EXIST, "a mark is no hole");
	cr_assert_eq(h.ops->unmark(h.pmap, GM_VA(at) + PAGE, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->unmark(h.pmap, GM_VA(at), PAGE, &done), GM_RET_EXIST, "bytes are no mark");
	cr_assert_eq(h.ops->unmark(h.pmap, GM_VA(at) + 4 * PAGE, PAGE, &done), GM_RET_SUCCESS, "a hole");
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at) + 2 * PAGE, page, PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(wrong_marks(at, 0, 1), 0);
	cr_assert(at[PAGE] == 0 && at[2 * PAGE] == 0x77);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

/* A guard page is the program's own mark: content that is given up does not take it away. */
#define GUARD_INSTALL 102 /* MADV_GUARD_INSTALL */

Test(host_move, guards_stay)
{
	struct host h;
	struct gm_page_region r;
	uint64_t done, walked;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	watch(&h, at, BLOCK);
	if (madvise(at, PAGE, GUARD_INSTALL) ||
	    gm_pagemap_scan(gm_host_fd_last(&((struct gm_host_pmap *)h.pmap)->pagemap), GM_VA(at), GM_VA(at) + PAGE,
			    GM_PAGE_IS_GUARD, &r, 1, &walked) == -EINVAL)
		cr_skip_test("NOT TESTED: the kernel has no guard pages, or does not tell of them (before Linux 6.15)");
	cr_assert_eq(h.ops->unmark(h.pmap, GM_VA(at), 2 * PAGE, &done), GM_RET_EXIST);
	cr_assert_eq(done, 0);
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at), &done, 8, false), GM_RET_FAULT);
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, ranges_may_cross_mappings)
{
	struct host h;
	uint64_t slot, done;
	char *at, *src;

	host_begin(&h);
	at = map_app(BLOCK, false);
	src = map_app(BLOCK, false);
	put_marks(at, 0, 32);
	put_marks(src, 0, 64);
	/* three mappings with equal rights */
	cr_assert_eq(madvise(at + 9 * PAGE, 30 * PAGE, MADV_DONTDUMP), 0);
	watch(&h, at, BLOCK);
	slot = new_slot(&h);
	cr_assert(mask_is(steal(&h, at, gm_mask_span(0, 32), slot, GM_RET_SUCCESS).moved, gm_mask_span(0, 32)));
	restore(&h, at, slot, 0, 32);
	cr_assert_eq(wrong_marks(at, 0, 32), 0);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at) + 32 * PAGE, src + 32 * PAGE, 32 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, 32 * PAGE);
	cr_assert_eq(wrong_marks(at, 0, 64), 0);
	cr_assert_eq(madvise(at + 80 * PAGE, 10 * PAGE, MADV_DONTDUMP), 0);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at) + 64 * PAGE, 64 * PAGE, &done), GM_RET_SUCCESS);
	cr_assert_eq(done, 64 * PAGE);
	cr_assert(present_is(&h, at, gm_mask_span(0, 128)));
	unwatch(&h, at, BLOCK);
	host_end(&h);
}

Test(host_move, no_mapping_no_page)
{
	struct host h;
	char page[GM_PAGE_BYTES] = { 1 };
	uint64_t slot, done;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 4);
	slot = new_slot(&h);
	steal(&h, at, gm_mask_span(0, 4), slot, GM_RET_SUCCESS);
	cr_assert_eq(h.ops->fill(h.pmap, GM_VA(at), page, PAGE, &done), GM_RET_FAULT, "not watched");
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, PAGE, &done), GM_RET_FAULT, "not watched");
	cr_assert_eq(munmap(at + 2 * PAGE, PAGE), 0);
	watch(&h, at, 2 * PAGE);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at), slot, 4 * PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(done, 2 * PAGE);
	cr_assert_eq(h.ops->zero(h.pmap, GM_VA(at) + 2 * PAGE, PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(h.ops->poison(h.pmap, GM_VA(at) + 2 * PAGE, PAGE, &done), GM_RET_FAULT);
	cr_assert_eq(done, 0);
	cr_assert_eq(wrong_marks(at, 0, 2), 0);
	cr_assert(present_is(&h, (char *)slot, gm_mask_span(2, 4)), "what could not be put back must stay");
	unwatch(&h, at, 2 * PAGE);
	host_end(&h);
}
