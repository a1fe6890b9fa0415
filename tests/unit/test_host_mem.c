/* SPDX-License-Identifier: MIT */
/* The real host: what it says of memory, staging slots, rights to userfaultfd, life of a pmap. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/host_fixture.h"
#include "failing_alloc.h"

#include "hal/host/gm_host_internal.h"

/* What goes wrong here tends to wait for ever. */
TestSuite(host_mem, .timeout = 60);
TestSuite(host_open, .timeout = 60);

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif

static struct gm_host_vma probe(struct host *h, const void *at)
{
	struct gm_host_vma vma = { .va = 0 };

	cr_assert_eq(h->ops->mem_probe(h->pmap, GM_VA(at), &vma), GM_RET_SUCCESS);
	cr_assert(vma.va <= GM_VA(at) && GM_VA(at) - vma.va < vma.bytes);
	return vma;
}

/* A temporary file of one page, with no name any more. */
static int temp_file(void)
{
	char path[] = "/tmp/gm_test_host_XXXXXX";
	int fd = mkstemp(path);

	cr_assert(fd >= 0);
	unlink(path);
	cr_assert_eq(ftruncate(fd, GM_PAGE_BYTES), 0);
	return fd;
}

Test(host_mem, probe_tells_the_kinds_apart)
{
	struct host h;
	struct gm_host_vma vma;
	char *anon, *shared, *file;
	int on_stack = 0;
	int fd = temp_file();

	host_begin(&h);
	anon = map_app(2 * BLOCK, false);
	shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert(shared != MAP_FAILED && file != MAP_FAILED);
	/* the neighbours have other rights, so this is a mapping of its own */
	cr_assert_eq(mprotect(anon + PAGE, 3 * PAGE, PROT_READ), 0);
	vma = probe(&h, anon + 2 * PAGE);
	cr_assert_eq(vma.va, GM_VA(anon) + PAGE);
	cr_assert_eq(vma.bytes, 3 * PAGE);
	cr_assert(vma.private_anon && vma.access == GM_READ && !vma.locked);
	vma = probe(&h, anon + BLOCK);
	cr_assert(vma.private_anon && vma.access == (GM_READ | GM_WRITE));
	cr_assert_eq(mprotect(anon + PAGE, PAGE, PROT_NONE), 0);
	cr_assert_eq(probe(&h, anon + PAGE).access, 0);
	cr_assert(!probe(&h, shared).private_anon);
	cr_assert(!probe(&h, file).private_anon);
	cr_assert(!probe(&h, (void *)(uintptr_t)probe).private_anon, "the program's code");
	cr_assert(probe(&h, &on_stack).private_anon);
	munmap(anon + BLOCK, PAGE);
	cr_assert_eq(h.ops->mem_probe(h.pmap, GM_VA(anon) + BLOCK, &vma), GM_RET_FAULT);
	cr_assert_eq(h.ops->mem_probe(h.pmap, UINT64_MAX - PAGE + 1, &vma), GM_RET_FAULT);
	close(fd);
	host_end(&h);
}

Test(host_mem, probe_finds_locked_memory)
{
	struct host h;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 8);
	cr_assert_not(probe(&h, at + 4 * PAGE).locked);
	cr_assert_eq(lock_pages(at + 4 * PAGE, 2 * PAGE), 0);
	cr_assert(probe(&h, at + 5 * PAGE).locked);
	cr_assert_not(probe(&h, at + 3 * PAGE).locked);
	cr_assert_not(probe(&h, at + 6 * PAGE).locked);
	cr_assert_eq(unlock_pages(at, BLOCK), 0);
	cr_assert_not(probe(&h, at + 5 * PAGE).locked);
	host_end(&h);
}

/* Old kernels answer only in text: both ways must say the same of the whole process. */
Test(host_mem, text_and_query_agree)
{
	struct gm_host_area a, b;
	struct host h;
	unsigned n = 0;

	host_begin(&h);
	for (uint64_t va = 0; gm_host_area(h.dev, va, &a) == GM_RET_SUCCESS; va = a.end, n++) {
		if (a.begin >= UINT64_MAX / 2)
			break; /* [vsyscall] is only in the text */
		cr_assert_eq(gm_host_area_maps(h.dev, va, &b), GM_RET_SUCCESS);
		cr_assert(a.begin == b.begin && a.end == b.end, "at 0x%llx", (unsigned long long)va);
		cr_assert(a.readable == b.readable && a.writable == b.writable && a.shared == b.shared);
		cr_assert_eq(a.file, b.file);
		if (!a.file)
			cr_assert_str_eq(a.name, b.name);
	}
	cr_assert_gt(n, 10);
	host_end(&h);
}

Test(host_mem, content_is_seen_without_touching)
{
	struct host h;
	struct gm_mask got;
	char *at;

	host_begin(&h);
	at = map_app(2 * BLOCK, false);
	put_marks(at, 3, 5);
	put_marks(at, 100, 101);
	cr_assert(present_is(&h, at, gm_mask_or(gm_mask_span(3, 5), gm_mask_span(100, 101))));
	/* every second page: more runs than one look reports */
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i += 2)
		put_marks(at, i, i + 1);
	cr_assert_eq(h.ops->mem_present(h.pmap, GM_VA(at), &got), GM_RET_SUCCESS);
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(gm_mask_test(&got, i), i % 2 == 0 || i == 3, "page %u", i);
	cr_assert(present_is(&h, at + BLOCK, gm_mask_none()));
	munmap(at + BLOCK, BLOCK - PAGE);
	cr_assert(present_is(&h, at + BLOCK, gm_mask_none()), "its last page is still mapped");
	munmap(at + BLOCK, BLOCK);
	cr_assert_eq(h.ops->mem_present(h.pmap, GM_VA(at) + BLOCK, &got), GM_RET_FAULT);
	host_end(&h);
}

/* Devices with pages of 64 KiB can map it, whatever was mapped before. */
Test(host_mem, owned_memory_is_aligned)
{
	struct host h;
	uint64_t va[8];

	host_begin(&h);
	for (unsigned i = 0; i < 8; i++) {
		void *odd = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		cr_assert_neq(odd, MAP_FAILED);
		cr_assert_eq(h.ops->mem_map(h.pmap, (i + 1) * GM_UNIT_BYTES, false, &va[i]), GM_RET_SUCCESS);
		cr_assert_eq(va[i] % GM_UNIT_BYTES, 0, "0x%llx", (unsigned long long)va[i]);
	}
	for (unsigned i = 0; i < 8; i++)
		h.ops->mem_unmap(h.pmap, va[i], (i + 1) * GM_UNIT_BYTES);
	host_end(&h);
}

Test(host_mem, owned_memory_is_aligned_writable_and_not_inherited)
{
	struct host h;
	uint64_t small, large;
	int status;
	pid_t pid;

	host_begin(&h);
	cr_assert_eq(h.ops->mem_map(h.pmap, 3 * PAGE, false, &small), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->mem_map(h.pmap, BLOCK + PAGE, true, &large), GM_RET_SUCCESS);
	cr_assert(small % PAGE == 0 && large % BLOCK == 0);
	memset((void *)small, 1, 3 * PAGE);
	memset((void *)large, 1, BLOCK + PAGE);
	cr_assert(probe(&h, (void *)large).private_anon);
	pid = fork();
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		signal(SIGSEGV, SIG_DFL);
		setrlimit(RLIMIT_CORE, &none);
		_exit(*(volatile char *)large ? 1 : 2);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "the child could read it: status %d", status);
	h.ops->mem_unmap(h.pmap, small, 3 * PAGE);
	h.ops->mem_unmap(h.pmap, large, BLOCK + PAGE);
	cr_assert_neq(msync((void *)small, 3 * PAGE, MS_ASYNC), 0);
	cr_assert_neq(msync((void *)(large + BLOCK), PAGE, MS_ASYNC), 0);
	cr_assert_eq(h.ops->mem_map(h.pmap, UINT64_MAX / 2, true, &large), GM_RET_NOMEM);
	cr_assert_eq(h.ops->mem_map(h.pmap, UINT64_MAX - 5, true, &large), GM_RET_NOMEM);
	cr_assert_eq(h.logs, 0, "%s", h.log);
	host_end(&h);
}

Test(host_mem, slots_are_distinct_and_come_back_empty)
{
	enum { N = GM_HOST_PIECE_SLOTS + 40 };
	static uint64_t slot[N];
	struct host h;
	struct gm_host_steal out;
	struct gm_mask want = gm_mask_span(0, 3);
	uint64_t again;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 3);
	for (unsigned i = 0; i < N; i++) {
		cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot[i]), GM_RET_SUCCESS, "%s", gm_last_error());
		cr_assert_eq(slot[i] % BLOCK, 0);
		for (unsigned k = 0; k < i; k++)
			cr_assert_neq(slot[i], slot[k]);
	}
	cr_assert_eq(h.ops->steal(h.pmap, GM_VA(at), &want, slot[N - 1], &out), GM_RET_SUCCESS);
	h.ops->slot_drop(h.pmap, slot[N - 1] + PAGE, PAGE);
	cr_assert(present_is(&h, (char *)slot[N - 1], gm_mask_or(gm_mask_span(0, 1), gm_mask_span(2, 3))));
	h.ops->slot_free(h.pmap, slot[N - 1]);
	h.ops->slot_free(h.pmap, slot[2]);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &again), GM_RET_SUCCESS);
	cr_assert_eq(again, slot[2], "a free slot comes before new ones");
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &again), GM_RET_SUCCESS);
	cr_assert_eq(again, slot[N - 1]);
	cr_assert(present_is(&h, (char *)again, gm_mask_none()));
	host_end(&h);
}

Test(host_mem, slots_end_at_the_limit_of_address_space)
{
	struct host h;
	struct rlimit lim;
	uint64_t slot;
	unsigned n = 0;

#ifdef WITH_ASAN
	cr_skip_test("the address sanitizer needs more address space than the limit leaves");
#endif
	host_begin(&h);
	cr_assert_eq(getrlimit(RLIMIT_AS, &lim), 0);
	lim.rlim_cur = 600u << 20;
	if (setrlimit(RLIMIT_AS, &lim))
		cr_skip_test("NOT TESTED: no limit on address space");
	while (n < 1000 && h.ops->slot_alloc(h.pmap, &slot) == GM_RET_SUCCESS)
		n++;
	cr_assert(n > 0, "smaller pieces should have fitted");
	cr_assert(n < 300, "%u slots in 600 MiB", n);
	h.ops->slot_free(h.pmap, slot);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot), GM_RET_SUCCESS);
	host_end(&h);
}

Test(host_mem, bounce_frames_can_be_given_away)
{
	struct host h;
	uint64_t done;
	char *at, *bounce;
	bool huge;

	host_begin(&h);
	at = map_app(2 * BLOCK, true);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), 2 * BLOCK), GM_RET_SUCCESS);
	for (unsigned round = 0; round < 2; round++) {
		bounce = h.ops->bounce(h.pmap, 1, 16 * PAGE);
		cr_assert_not_null(bounce);
		cr_assert(present_is(&h, bounce, gm_mask_span(0, 16)));
		put_marks(bounce, 0, 16);
		cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at) + round * 16 * PAGE, GM_VA(bounce), 16 * PAGE, &done),
			     GM_RET_SUCCESS);
		cr_assert_eq(wrong_marks(at + round * 16 * PAGE, 0, 16), 0);
		cr_assert(present_is(&h, bounce, gm_mask_none()));
	}
	cr_assert_neq(h.ops->bounce(h.pmap, 0, PAGE), h.ops->bounce(h.pmap, 1, PAGE));
	bounce = h.ops->bounce(h.pmap, 3, BLOCK);
	cr_assert_not_null(bounce);
	cr_assert(present_is(&h, bounce, gm_mask_span(0, GM_BLOCK_PAGES)));
	huge = h.ops->mem_huge(h.pmap, GM_VA(bounce));
	put_marks(bounce, 0, GM_BLOCK_PAGES);
	cr_assert_eq(h.ops->restore(h.pmap, GM_VA(at) + BLOCK, GM_VA(bounce), BLOCK, &done), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->mem_huge(h.pmap, GM_VA(at) + BLOCK), huge);
	cr_assert_eq(wrong_marks(at + BLOCK, 0, GM_BLOCK_PAGES), 0);
	cr_assert_null(h.ops->bounce(h.pmap, GM_HOST_BOUNCES, PAGE));
	cr_assert_null(h.ops->bounce(h.pmap, 0, BLOCK + PAGE));
	host_end(&h);
}

Test(host_mem, works_where_all_memory_is_locked)
{
	struct host h;
	struct gm_host_steal out;
	struct gm_mask want = gm_mask_span(0, 4);
	uint64_t va, slot;

	host_begin(&h);
	if (mlockall(MCL_FUTURE))
		cr_skip_test("NOT TESTED: no right to lock memory");
	cr_assert_eq(h.ops->mem_map(h.pmap, BLOCK, false, &va), GM_RET_SUCCESS);
	cr_assert_not(probe(&h, (void *)va).locked);
	cr_assert(present_is(&h, (char *)va, gm_mask_none()), "the mapping was filled");
	put_marks((char *)va, 0, 4);
	cr_assert_eq(h.ops->slot_alloc(h.pmap, &slot), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->steal(h.pmap, va, &want, slot, &out), GM_RET_SUCCESS);
	cr_assert(gm_mask_equal(&out.moved, &want));
	munlockall();
	h.ops->slot_free(h.pmap, slot);
	h.ops->mem_unmap(h.pmap, va, BLOCK);
	host_end(&h);
}

Test(host_mem, access_reads_and_writes_without_signals)
{
	struct host h;
	uint64_t value = 0;
	char *at;

	host_begin(&h);
	at = map_app(BLOCK, false);
	put_marks(at, 0, 2);
	cr_assert(h.caps.caps & GM_CAP_ACCESS);
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at) + PAGE + 8, &value, 8, false), GM_RET_SUCCESS);
	cr_assert_eq(value, mark(1));
	value = 77;
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at) + 100, &value, 8, true), GM_RET_SUCCESS);
	cr_assert_eq(memcmp(at + 100, &value, 8), 0);
	cr_assert_eq(mprotect(at, PAGE, PROT_READ), 0);
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at), &value, 8, true), GM_RET_FAULT);
	cr_assert_eq(munmap(at + PAGE, PAGE), 0);
	/* half of it is there */
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at) + PAGE - 4, &value, 8, false), GM_RET_FAULT);
	cr_assert_eq(h.mmu->access(h.pmap, GM_VA(at) + PAGE, &value, 8, false), GM_RET_FAULT);
	host_end(&h);
}

Test(host_mem, watch_refuses_what_cannot_move)
{
	struct host h, other;
	int fd = temp_file();
	char *at, *file;

	host_begin(&h);
	host_begin(&other);
	at = map_app(BLOCK, false);
	file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(file), PAGE), GM_RET_NOTSUP);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS, "repeated");
	cr_assert_eq(other.ops->watch(other.pmap, GM_VA(at) + PAGE, PAGE), GM_RET_BUSY);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at), BLOCK), GM_RET_SUCCESS, "repeated");
	cr_assert_eq(other.ops->watch(other.pmap, GM_VA(at) + PAGE, PAGE), GM_RET_SUCCESS);
	cr_assert_eq(other.ops->unwatch(other.pmap, GM_VA(at) + PAGE, PAGE), GM_RET_SUCCESS);
	munmap(at + 4 * PAGE, PAGE);
	cr_assert_eq(h.ops->watch(h.pmap, GM_VA(at), BLOCK), GM_RET_FAULT);
	cr_assert_eq(other.ops->watch(other.pmap, GM_VA(at), PAGE), GM_RET_SUCCESS, "a refused watch left something");
	cr_assert_eq(other.ops->unwatch(other.pmap, GM_VA(at), PAGE), GM_RET_SUCCESS);
	cr_assert_eq(h.ops->unwatch(h.pmap, GM_VA(at) + 4 * PAGE, PAGE), GM_RET_FAULT);
	close(fd);
	host_end(&other);
	host_end(&h);
}

Test(host_open, missing_features_are_named)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} need[] = {
		{ GM_UFFD_FEATURE_MOVE, "UFFDIO_MOVE" },
		{ GM_UFFD_FEATURE_POISON, "UFFDIO_POISON" },
		{ GM_UFFD_FEATURE_EVENT_REMAP, "REMAP" },
		{ GM_UFFD_FEATURE_EVENT_REMOVE, "REMOVE" },
		{ GM_UFFD_FEATURE_EVENT_UNMAP, "UNMAP" },
		{ GM_UFFD_FEATURE_THREAD_ID, "THREAD_ID" },
	};
	struct host h;

	host_begin(&h);
	cr_assert_eq(gm_host_probe(UINT64_MAX), GM_RET_SUCCESS);
	for (size_t i = 0; i < sizeof(need) / sizeof(need[0]); i++) {
		cr_assert_eq(gm_host_probe(~need[i].bit), GM_RET_NOTSUP);
		cr_assert_not_null(strstr(gm_last_error(), need[i].name), "%s", gm_last_error());
		cr_assert_not_null(strstr(gm_last_error(), "Linux 6.8"), "%s", gm_last_error());
	}
	host_end(&h);
}

Test(host_open, refusals_say_what_to_do)
{
	cr_assert_eq(gm_host_refusal(EPERM, EACCES, false), GM_RET_PERM);
	cr_assert_not_null(strstr(gm_last_error(), "vm.unprivileged_userfaultfd=1"));
	cr_assert_not_null(strstr(gm_last_error(), "/dev/userfaultfd"));
	cr_assert_null(strstr(gm_last_error(), "seccomp"));
	cr_assert_eq(gm_host_refusal(EPERM, ENOENT, true), GM_RET_PERM);
	cr_assert_not_null(strstr(gm_last_error(), "seccomp"));
	cr_assert_eq(gm_host_refusal(ENOSYS, ENOENT, true), GM_RET_PERM);
	cr_assert_not_null(strstr(gm_last_error(), "seccomp"));
	cr_assert_eq(gm_host_refusal(ENOSYS, ENOENT, false), GM_RET_NOTSUP);
	cr_assert_not_null(strstr(gm_last_error(), "CONFIG_USERFAULTFD"));
	cr_assert_eq(gm_host_refusal(EMFILE, EMFILE, false), GM_RET_NOMEM);
	cr_assert_not_null(strstr(gm_last_error(), "descriptor"));
}

/* A child without rights. Exit code: 0 refused with the right words, 2 it had the right, else the mistake. */
static int unprivileged(void)
{
	if (setgid(65534) || setuid(65534))
		return 3;
	switch (gm_host_probe(UINT64_MAX)) {
	case GM_RET_SUCCESS:
		return 2;
	case GM_RET_PERM:
		return strstr(gm_last_error(), "CAP_SYS_PTRACE") && strstr(gm_last_error(), "sysctl") ? 0 : 4;
	default:
		return 5;
	}
}

Test(host_open, without_the_right_it_is_perm)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unprivileged());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == 2 || (WEXITSTATUS(status) == 3 && getuid() != 0))
		cr_skip_test("NOT TESTED: everybody has the right here, or this user cannot give it up");
	cr_assert_eq(WEXITSTATUS(status), 0);
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

Test(host_open, descriptors_are_high_and_all_closed)
{
	struct host h;
	struct rlimit lim;
	unsigned before;
	int low;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lim), 0);
	before = open_fds();
	host_begin(&h);
	low = open("/dev/null", O_RDONLY);
	cr_assert_lt(low, h.ops->msg_fd(h.pmap));
	cr_assert(lim.rlim_cur < 512 || low < 100, "descriptor %d", low);
	close(low);
	host_end(&h);
	cr_assert_eq(open_fds(), before);
}

/* pmap_create() with only `room` free descriptors. */
static gm_ret_t create_with_fds(struct host *h, unsigned room, void **pmap)
{
	struct rlimit lim, few;
	int fds[64];
	unsigned n = 0;
	gm_ret_t ret;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &lim), 0);
	few = lim;
	few.rlim_cur = 64;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < 64 && (fds[n] = open("/dev/null", O_RDONLY)) >= 0)
		n++;
	cr_assert(n >= room && n < 64);
	for (unsigned i = 0; i < room; i++)
		close(fds[--n]);
	ret = h->mmu->pmap_create(h->dev, pmap);
	while (n)
		close(fds[--n]);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &lim), 0);
	return ret;
}

/* Fail each allocation, then each descriptor, in turn: an error, nothing left behind. */
Test(host_open, every_shortage_is_undone)
{
	struct failing_alloc fa;
	struct gm_lib_config config = { .size = sizeof(config), .allocator = &fa.table };
	struct host h;
	unsigned before;
	size_t live;
	void *pmap;

	failing_alloc_init(&fa);
	host_begin(&h);
	host_end(&h);
	cr_assert_eq(gm_env_threads_create(&config, &h.env), GM_RET_SUCCESS);
	live = atomic_load(&fa.live);
	failing_alloc_arm(&fa, 1);
	cr_assert_eq(h.mmu->dev_init(h.env, NULL, &h.caps, &h.dev), GM_RET_NOMEM);
	cr_assert_eq(atomic_load(&fa.live), live);
	cr_assert_eq(h.mmu->dev_init(h.env, NULL, &h.caps, &h.dev), GM_RET_SUCCESS);
	before = open_fds();
	failing_alloc_arm(&fa, 1);
	cr_assert_eq(h.mmu->pmap_create(h.dev, &pmap), GM_RET_NOMEM);
	failing_alloc_arm(&fa, 0);
	for (unsigned room = 0; room < 4; room++)
		cr_assert_eq(create_with_fds(&h, room, &pmap), GM_RET_NOMEM, "room for %u", room);
	cr_assert_eq(open_fds(), before);
	cr_assert_eq(h.mmu->pmap_create(h.dev, &pmap), GM_RET_SUCCESS);
	h.mmu->pmap_destroy(pmap);
	h.mmu->dev_fini(h.dev);
	cr_assert_eq(atomic_load(&fa.live), live);
	cr_assert_eq(atomic_load(&fa.bad_frees), 0);
	gm_env_threads_destroy(h.env);
}
