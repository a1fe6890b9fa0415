/* SPDX-License-Identifier: MIT */
/*
 * What a process does to memory whose faults are served in the thread that faults: its events come by a descriptor
 * of its own, and mean what they mean for other memory.
 */
#include "config.h"

#include <fcntl.h>

#include "inthread_fixture.h"

TestSuite(inthread_process, .timeout = 300);

static struct forker f;

static void settle(void)
{
	struct gm_residency r;

	OK(gm_residency(f.as, GM_VA(f.at), BYTES, &r));
	(void)gm_migrate(f.as, GM_VA(f.at), PAGE, NULL, NULL); /* every call that changes memory waits for events */
}

Test(inthread_process, dropped)
{
	inthread_begin(&f, NULL, NULL);
	cr_assert_eq(madvise(f.at, 100 * PAGE, MADV_DONTNEED), 0);
	cr_assert_eq(nonzero(f.at, 0, 100), 0);
	cr_assert_eq(wrong(f.at, 100, PAGES, 2), 0);
	cr_assert_eq(madvise(f.at + BLOCK, BLOCK, MADV_DONTNEED), 0, "at home, and watched still");
	cr_assert_eq(nonzero(f.at, GM_BLOCK_PAGES, PAGES), 0);
	forker_end(&f);
}

/* Part of it goes, and what comes to the address is not such memory. */
Test(inthread_process, unmapped)
{
	char *hole;
	gm_ret_t ret;

	inthread_begin(&f, NULL, NULL);
	hole = f.at + 64 * PAGE;
	cr_assert_eq(munmap(hole, 64 * PAGE), 0);
	cr_assert_eq(mmap(hole, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), hole);
	cr_assert_eq(nonzero(hole, 0, 64), 0);
	settle();
	cr_assert(!is_inthread(&f, hole) && is_inthread(&f, f.at) && is_inthread(&f, hole + 64 * PAGE));
	while ((ret = gm_inthread_serve(f.as, GM_VA(hole))) == GM_RET_SUCCESS)
		usleep(10000); /* for a second it could be of an access from before */
	IS(ret, GM_RET_NOENT);
	OK(gm_adopt(f.as, hole, 64 * PAGE, 0));
	dev_fill(f.ctx, GM_VA(hole), 64, 9);
	atomic_store(&bus.served, 0);
	cr_assert_eq(wrong(hole, 0, 64, 9), 0);
	cr_assert_eq(atomic_load(&bus.served), 0);
	cr_assert_eq(wrong(f.at, 0, 64, 2) + wrong(f.at, 128, PAGES, 2), 0);
	forker_end(&f);
}

Test(inthread_process, mapped_over)
{
	inthread_begin(&f, NULL, NULL);
	cr_assert_eq(mmap(f.at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), f.at);
	cr_assert_eq(nonzero(f.at, 0, PAGES), 0);
	OK(gm_adopt(f.as, f.at, BYTES, 0));
	cr_assert(!is_inthread(&f, f.at));
	to_device(&f, f.at, 3);
	cr_assert_eq(wrong(f.at, 0, PAGES, 3), 0);
	forker_end(&f);
}

static char *moved_to(char *from, uint64_t bytes, uint64_t to_bytes, char *to)
{
	char *now = mremap(from, bytes, to_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	cr_assert_eq(now, to, "%s", strerror(errno));
	return now;
}

/* All of it, on a block boundary and off it; the thread looks before anybody was told. */
static void moves(uint64_t off)
{
	char *room = app_block_memory();

	inthread_begin(&f, NULL, NULL);
	f.at = moved_to(f.at, BYTES, BYTES, room + off);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	IS(touch(f.at, true), GM_RET_SUCCESS);
	settle();
	cr_assert(is_inthread(&f, f.at));
	for (unsigned round = 3; round < 6; round++) {
		dev_fill(f.ctx, GM_VA(f.at), PAGES, round);
		cr_assert_gt(on_device(&f, f.at, PAGES), PAGES / 2);
		atomic_store(&bus.served, 0);
		cr_assert_eq(wrong(f.at, 0, PAGES, round), 0);
		cr_assert_gt(atomic_load(&bus.served), 0);
	}
	forker_end(&f);
}

Test(inthread_process, moved)
{
	moves(0);
}

Test(inthread_process, moved_off_the_boundary)
{
	moves(37 * PAGE);
}

/* Part of it moves into a block of other memory, and all that is there still moves to the device and back. */
Test(inthread_process, part_moved_among_others)
{
	char *plain = app_block_memory(), *part;

	inthread_begin(&f, NULL, NULL);
	OK(gm_adopt(f.as, plain, BYTES, 0));
	to_device(&f, plain, 5);
	part = moved_to(f.at + 32 * PAGE, 64 * PAGE, 64 * PAGE, plain + 200 * PAGE);
	for (unsigned i = 0; i < 64; i++)
		cr_assert_eq(*(volatile uint64_t *)ptr(word_va(GM_VA(f.at), 32 + i) - GM_VA(f.at) - 32 * PAGE + GM_VA(part)),
			     word(32 + i, 2), "page %u", i);
	settle();
	cr_assert(is_inthread(&f, part) && !is_inthread(&f, plain) && !is_inthread(&f, part + 64 * PAGE));
	cr_assert_eq(wrong(plain, 0, 200, 5) + wrong(plain, 264, PAGES, 5), 0);
	cr_assert_eq(wrong(f.at, 0, 32, 2) + wrong(f.at, 96, PAGES, 2), 0);
	for (unsigned round = 6; round < 9; round++) {
		dev_fill(f.ctx, GM_VA(plain), PAGES, round);
		cr_assert_gt(on_device(&f, plain, PAGES), PAGES / 2);
		cr_assert_eq(wrong(plain, 0, PAGES, round), 0);
	}
	forker_end(&f);
}

/* What mremap() adds is one mapping with it, of which nobody is told: zeros. */
Test(inthread_process, grown)
{
	char *room = mmap(NULL, 4 * BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;

	cr_assert_neq(room, MAP_FAILED);
	at = (char *)((GM_VA(room) + BLOCK - 1) & ~(BLOCK - 1));
	inthread_begin(&f, NULL, NULL);
	f.at = moved_to(f.at, BYTES, BYTES + 64 * PAGE, at);
	cr_assert_eq(nonzero(f.at, PAGES, PAGES + 64), 0);
	IS(touch(f.at + BYTES + 3 * PAGE, true), GM_RET_SUCCESS);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

/* The mapping stays, and is watched still: zeros; adopted again, of either sort, it is as any. */
static void stays(uint32_t flags)
{
	char *room = app_block_memory(), *old;

	inthread_begin(&f, NULL, NULL);
	old = f.at;
	cr_assert_eq(mremap(old, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, room), room);
	cr_assert_eq(nonzero(old, 0, PAGES / 2), 0);
	cr_assert_eq(wrong(room, 0, PAGES, 2), 0);
	settle();
	OK(gm_adopt(f.as, old, BYTES, flags));
	cr_assert_eq(is_inthread(&f, old), flags != 0);
	cr_assert(is_inthread(&f, room));
	dev_fill(f.ctx, GM_VA(old), PAGES, 3);
	dev_fill(f.ctx, GM_VA(room), PAGES, 4);
	cr_assert_gt(on_device(&f, old, PAGES), PAGES / 2);
	cr_assert_eq(wrong(old, 0, PAGES, 3) + wrong(room, 0, PAGES, 4), 0);
	forker_end(&f);
}

Test(inthread_process, moved_but_stays)
{
	stays(GM_MEM_INTHREAD);
}

Test(inthread_process, moved_but_stays_as_other_memory)
{
	stays(0);
}

Test(inthread_process, forked)
{
	void *owned;

	inthread_begin(&f, NULL, NULL);
	cr_assert(exited(child_reads(f.at, 0, PAGES, 2), 0), "adopted memory comes home before");
	to_device(&f, f.at, 3);
	OK(gm_alloc(f.as, BLOCK, GM_MEM_INTHREAD, &owned));
	dev_fill(f.ctx, GM_VA(owned), GM_BLOCK_PAGES, 4);
	cr_assert(killed(child_reads(owned, 0, 1, 4), SIGSEGV), "owned memory is not inherited");
	cr_assert_eq(wrong(owned, 0, GM_BLOCK_PAGES, 4) + wrong(f.at, 0, PAGES, 3), 0);
	OK(gm_fork_policy(f.as, GM_VA(f.at), BYTES, GM_FORK_EXCLUDE));
	to_device(&f, f.at, 5);
	cr_assert(killed(child_reads(f.at, 0, 1, 5), SIGSEGV));
	cr_assert_eq(wrong(f.at, 0, PAGES, 5), 0);
	forker_end(&f);
}

static int highest(void)
{
	return (int)syscall(SYS_close_range, 3u, ~0u, 0u);
}

/* The keeper has this descriptor too: no zeros, and events go on. */
Test(inthread_process, all_descriptors_closed)
{
	for (unsigned part = 0; part < 2; part++) {
		pid_t pid = fork();

		if (pid) {
			cr_assert(exited(ended(pid), 0), "part %u", part);
			continue;
		}
		child_signals();
		inthread_begin(&f, NULL, NULL);
		for (unsigned round = 3; round < 7; round++) {
			to_device(&f, f.at, round);
			if (highest() || wrong(f.at, 0, PAGES, round))
				_exit(1);
			to_device(&f, f.at, round + 10);
			if (highest() || madvise(f.at, 64 * PAGE, MADV_DONTNEED) || nonzero(f.at, 0, 64) ||
			    wrong(f.at, 64, PAGES, round + 10))
				_exit(2);
		}
		if (highest() || munmap(f.at + BLOCK, BLOCK) ||
		    gm_dev_fault(f.ctx, GM_VA(f.at) + BLOCK, GM_READ) != GM_RET_FAULT)
			_exit(3);
		if (part && highest())
			_exit(4);
		if (gm_as_destroy(f.as) || gm_dev_destroy(f.dev) || gm_lib_destroy(f.lib))
			_exit(5);
		_exit(0);
	}
}

/* Rights, locks: the kernel's answer is as for other memory. */
Test(inthread_process, protected)
{
	inthread_begin(&f, NULL, NULL);
	OK(gm_protect(f.as, GM_VA(f.at), BLOCK, GM_READ));
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	OK(gm_protect(f.as, GM_VA(f.at), BLOCK, GM_READ | GM_WRITE));
	to_device(&f, f.at, 3);
	OK(gm_pin(f.as, GM_VA(f.at), BLOCK, NULL));
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(kernel_writes(f.at + i * PAGE), 0);
	OK(gm_unpin(f.as, GM_VA(f.at), BLOCK));
	cr_assert_eq(wrong(f.at, GM_BLOCK_PAGES, PAGES, 3), 0);
	forker_end(&f);
}

/* In a space that watches what it adopts from the first moment on a first touch is a fault, and is served. */
Test(inthread_process, watched_from_the_start)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_WATCH };

	lib_begin(&f, NULL, &config);
	f.at = app_block_memory();
	OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
	cr_assert_eq(nonzero(f.at, 0, 100), 0);
	cr_assert_gt(atomic_load(&bus.served), 0);
	fill(f.at, 0, PAGES, 2);
	cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 2), 0);
	forker_end(&f);
}
