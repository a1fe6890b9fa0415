/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: memory that does not move: files, shared memory, hugetlb. The space mirrors the process
 * (GM_AS_MIRROR), as the kernel's driver does, and nothing is adopted: the device reaches it all in place. So "where"
 * is: pages at their address, of the file where they should be, no device memory used, the device's page table on the host.
 */
#include "config.h"

#include "hmm.h"

#include "hal/host/gm_host_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HMM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HMM_SANITIZED 1
#endif
#endif

static struct hmm mirror(void)
{
	struct hmm h = { .faults = 0 };

	hmm_open_with(&h, 1, "64M", GM_AS_MIRROR);
#ifdef HMM_SANITIZED
	((struct gm_host_pmap *)h.as->hpmap)->knows_malloc = true; /* that is another one */
#endif
	return h;
}

/* Every page: at its address, mapped as `all` and not `none` say, reached in place by the device, which has nothing. */
static void stays(struct hmm *h, const char *at, uint64_t bytes, unsigned all, unsigned none)
{
	HMM_TRUE(hmm_pages(at, bytes, HMM_PRESENT | all, none) == bytes / PAGE, "%u of %u pages are where they should be",
		 (unsigned)hmm_pages(at, bytes, HMM_PRESENT | all, none), (unsigned)(bytes / PAGE));
	HMM_TRUE(!hmm_away(h->as, at, bytes), "something moved");
	HMM_TRUE(hmm_dev_free(h->dev[0]) == UINT64_C(64) << 20, "device memory is in use");
	for (uint64_t off = 0; off < bytes; off += PAGE)
		HMM_TRUE(hmm_in_place(h->ctx[0], at + off), "page %u is not mapped in place", (unsigned)(off / PAGE));
}

/* A file of the size of a buffer with a pattern; its descriptor. */
static int file_of(uint32_t salt)
{
	char path[] = "./hmm_file_XXXXXX", *bytes = hmm_pattern(HMM_BYTES, salt);
	int fd = mkostemp(path, O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(write(fd, bytes, HMM_BYTES), (ssize_t)HMM_BYTES);
	free(bytes);
	return fd;
}

/* What the file itself has, whoever has mapped it. */
static uint64_t wrong_in_file(int fd, uint32_t salt)
{
	char *bytes = hmm_private(HMM_BYTES);
	uint64_t wrong;

	cr_assert_eq(pread(fd, bytes, HMM_BYTES, 0), (ssize_t)HMM_BYTES);
	wrong = hmm_wrong(bytes, HMM_BYTES, salt);
	free(bytes);
	return wrong;
}

/* Of 4 MiB in place, as one range. */
static void one_call(const struct hmm *h)
{
	cr_assert(h->raises ? h->faults >= 1 : h->faults == 1, "%u fault calls", (unsigned)h->faults);
}

HMM_TEST(file_read)
{
	struct hmm h = mirror();
	int fd = file_of(1);
	char *got = hmm_private(HMM_BYTES), *p = mmap(NULL, HMM_BYTES, PROT_READ, MAP_SHARED, fd, 0);

	cr_assert_neq(p, MAP_FAILED);
	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	one_call(&h);
	cr_assert_eq(hmm_wrong(got, HMM_BYTES, 1), 0);
	stays(&h, p, HMM_BYTES, HMM_FILE, 0);
	HMM_IS(hmm_dev_write(&h, 0, p, HMM_BYTES, got), GM_RET_PERM);
	cr_assert_eq(wrong_in_file(fd, 1), 0);
	cr_assert_eq(munmap(p, HMM_BYTES), 0);
	HMM_IS(hmm_dev_read(&h, 0, p, PAGE, got), GM_RET_FAULT);
	close(fd);
	free(got);
	hmm_close(&h);
}

HMM_TEST(file_write)
{
	struct hmm h = mirror();
	int fd = file_of(1);
	char *want = hmm_pattern(HMM_BYTES, 2), *p = mmap(NULL, HMM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert_neq(p, MAP_FAILED);
	HMM_OK(hmm_dev_write(&h, 0, p, HMM_BYTES, want));
	one_call(&h);
	stays(&h, p, HMM_BYTES, HMM_FILE, 0);
	cr_assert_eq(hmm_wrong(p, HMM_BYTES, 2), 0);
	cr_assert_eq(wrong_in_file(fd, 2), 0, "the file has it");
	cr_assert_eq(munmap(p, HMM_BYTES), 0);
	close(fd);
	free(want);
	hmm_close(&h);
}

/*
 * Private pages of a file. They do not migrate here, but a device's store makes the same copy as the CPU's would: the
 * page is the process's own then, and the file keeps what it had.
 */
HMM_TEST(migrate_file_private)
{
	struct hmm h = mirror();
	int fd = file_of(1);
	char *want = hmm_pattern(HMM_BYTES, 2), *got = hmm_private(HMM_BYTES);
	char *p = mmap(NULL, HMM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	uint64_t half = HMM_BYTES / 2;

	cr_assert_neq(p, MAP_FAILED);
	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	cr_assert_eq(hmm_wrong(got, HMM_BYTES, 1), 0);
	hmm_fill(p, half, 2); /* the CPU's copies, */
	HMM_OK(hmm_dev_write(&h, 0, p + half, half, want + half)); /* the device's */
	stays(&h, p + half, half, 0, HMM_FILE);
	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	cr_assert_eq(memcmp(got, want, HMM_BYTES), 0);
	cr_assert_eq(hmm_wrong(p, HMM_BYTES, 2), 0);
	stays(&h, p, HMM_BYTES, 0, HMM_FILE);
	cr_assert_eq(wrong_in_file(fd, 1), 0, "the file has changed");

	HMM_IS(gm_adopt(h.as, p, HMM_BYTES, 0), GM_RET_NOTSUP);
	cr_assert_neq(hmm_to_dev(&h, 0, p, HMM_BYTES), GM_RET_SUCCESS);
	cr_assert_eq(h.moved, 0);
	cr_assert_eq(hmm_wrong(p, HMM_BYTES, 2), 0);
	cr_assert_eq(munmap(p, HMM_BYTES), 0);
	close(fd);
	free(want);
	free(got);
	hmm_close(&h);
}

static void write_as_child(void *arg)
{
	struct hmm h = mirror();
	char *p = arg, *want = hmm_pattern(HMM_BYTES, 2), *got = hmm_private(HMM_BYTES);

	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	HMM_TRUE(!hmm_wrong(got, HMM_BYTES, 1), "not what the parent wrote");
	HMM_OK(hmm_dev_write(&h, 0, p, HMM_BYTES, want));
	stays(&h, p, HMM_BYTES, HMM_FILE, 0);
	hmm_close(&h);
	free(want);
	free(got);
}

/* Shared memory: what the child's device writes the parent sees, and its device, which had it mapped before. */
HMM_TEST(anon_write_child_shared)
{
	struct hmm h = mirror();
	char *got = hmm_private(HMM_BYTES);
	char *p = mmap(NULL, HMM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	hmm_fill(p, HMM_BYTES, 1);
	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	cr_assert_eq(hmm_wrong(got, HMM_BYTES, 1), 0);
	stays(&h, p, HMM_BYTES, HMM_FILE, 0);
	cr_assert_eq(hmm_child(write_as_child, p), 0);
	cr_assert_eq(hmm_wrong(p, HMM_BYTES, 2), 0);
	HMM_OK(hmm_dev_read(&h, 0, p, HMM_BYTES, got));
	cr_assert_eq(hmm_wrong(got, HMM_BYTES, 2), 0);
	stays(&h, p, HMM_BYTES, HMM_FILE, 0);
	cr_assert_eq(munmap(p, HMM_BYTES), 0);
	free(got);
	hmm_close(&h);
}

HMM_TEST(anon_write_hugetlbfs)
{
	struct hmm h = mirror();
	char *want = hmm_pattern(2 * BLOCK, 2);
	char *p = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		cr_skip_test("NOT TESTED: the system has no pages of hugetlb (vm.nr_hugepages)");
	hmm_fill(p, 2 * BLOCK, 1);
	HMM_OK(hmm_dev_write(&h, 0, p, 2 * BLOCK, want));
	one_call(&h);
	stays(&h, p, 2 * BLOCK, HMM_HUGE, HMM_FILE);
	cr_assert_eq(hmm_wrong(p, 2 * BLOCK, 2), 0);
	HMM_IS(gm_adopt(h.as, p, 2 * BLOCK, 0), GM_RET_NOTSUP);
	cr_assert_eq(munmap(p, 2 * BLOCK), 0);
	free(want);
	hmm_close(&h);
}

static char in_data[3 * GM_PAGE_BYTES] = { 1 };

/* Any pointer of the process, without a word to the library before: static data, the heap, the stack, a mapping. */
HMM_MORE(anon_read, any_pointer)
{
	struct hmm h = mirror();
	char on_stack[3 * GM_PAGE_BYTES], *heap = malloc(3 * PAGE), *got = hmm_private(HMM_BYTES);
	char *big = mmap((void *)(uintptr_t)0x60000000, HMM_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	char *const at[] = { in_data, on_stack, heap };

	for (unsigned i = 0; i < 3; i++) {
		hmm_fill(at[i], 3 * PAGE, i + 1);
		HMM_OK(hmm_dev_read(&h, 0, at[i], 3 * PAGE, got));
		cr_assert_eq(hmm_wrong(got, 3 * PAGE, i + 1), 0, "pointer %u", i);
		stays(&h, (char *)(uintptr_t)(GM_VA(at[i]) & ~(PAGE - 1)), 3 * PAGE, 0, 0);
	}
	cr_assert_neq(big, MAP_FAILED);
	hmm_fill(big, HMM_BYTES, 4);
	HMM_OK(hmm_dev_read(&h, 0, big, HMM_BYTES, got));
	hmm_on_device(h.as, h.dev[0], big, HMM_BYTES, got); /* large enough to be adopted */
	cr_assert_eq(hmm_wrong(got, HMM_BYTES, 4), 0);
	cr_assert_eq(hmm_wrong(big, HMM_BYTES, 4), 0);
	cr_assert_eq(munmap(big, HMM_BYTES), 0);
	free(heap);
	free(got);
	hmm_close(&h);
}
