/* SPDX-License-Identifier: MIT */
/*
 * The row hmm_gup_test of the HMM table, as far as a process can make the kernel take pages of its memory: the module
 * gup_test is the kernel's own. Short-term references: vmsplice(), process_vm_readv(), O_DIRECT. A long-term pin:
 * buffers registered with io_uring. Each finds the memory on the device, and must bring it to the host with the bytes
 * of the device; what is pinned for long does not move any more, and the device reaches it in place.
 */
#include "config.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "hmm.h"

struct scene {
	struct hmm h;
	struct hmm_buf b;
	char *want; /* what the device has written, and nobody else */
};

static struct scene on_device(void)
{
	struct scene s = { .h = hmm_open(1) };

	s.b = hmm_buffer(&s.h, HMM_BYTES, HMM_ANY_SIZE);
	s.want = hmm_pattern(s.b.bytes, 2);
	hmm_fill(s.b.at, s.b.bytes, 1);
	HMM_OK(hmm_to_dev(&s.h, 0, s.b.at, s.b.bytes));
	HMM_OK(hmm_dev_write(&s.h, 0, s.b.at, s.b.bytes, s.want));
	hmm_on_device(s.h.as, s.h.dev[0], s.b.at, s.b.bytes, s.want);
	return s;
}

static void done(struct scene *s)
{
	cr_assert_eq(hmm_wrong(s->b.at, s->b.bytes, 2), 0);
	free(s->want);
	hmm_unmap(&s->b);
	hmm_close(&s->h);
}

/* Pages of the buffer in a pipe are what the device wrote, and stay so while the buffer moves and changes. */
HMM_TEST(hmm_gup_test)
{
	struct scene s = on_device();
	uint64_t bytes = 8 * PAGE;
	struct iovec v = { s.b.at, bytes };
	char *got = hmm_private(bytes);
	int fd[2];

	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(vmsplice(fd[1], &v, 1, 0), (ssize_t)bytes);
	hmm_on_host(s.h.as, s.b.at, bytes);
	cr_assert_gt(hmm_away(s.h.as, s.b.at, s.b.bytes), 0, "the rest is still away");
	(void)hmm_to_dev(&s.h, 0, s.b.at, s.b.bytes); /* with these pages, or without: see below */
	cr_assert_eq(read(fd[0], got, bytes), (ssize_t)bytes);
	cr_assert_eq(memcmp(got, s.want, bytes), 0);
	hmm_away_all(&s.h, 0, &s.b, s.want); /* nobody has a reference any more */
	close(fd[0]);
	close(fd[1]);
	free(got);
	done(&s);
}

HMM_MORE(hmm_gup_test, process_vm_readv)
{
	struct scene s = on_device();
	char *got = hmm_private(s.b.bytes);
	struct iovec to = { got, s.b.bytes }, from = { s.b.at, s.b.bytes };

	cr_assert_eq(process_vm_readv(getpid(), &to, 1, &from, 1, 0), (ssize_t)s.b.bytes);
	cr_assert_eq(memcmp(got, s.want, s.b.bytes), 0);
	hmm_on_host(s.h.as, s.b.at, s.b.bytes);
	free(got);
	done(&s);
}

/* The disk reads the pages themselves, and writes them. */
HMM_MORE(hmm_gup_test, o_direct)
{
	struct scene s = on_device();
	char path[] = "./hmm_gup_XXXXXX", *got = aligned_alloc(PAGE, s.b.bytes);
	int fd = mkostemp(path, O_DIRECT);

	if (fd < 0 && errno == EINVAL)
		cr_skip_test("NOT TESTED: the file system of this directory has no O_DIRECT");
	cr_assert_geq(fd, 0);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(write(fd, s.b.at, s.b.bytes), (ssize_t)s.b.bytes);
	hmm_on_host(s.h.as, s.b.at, s.b.bytes);
	cr_assert_eq(pread(fd, got, s.b.bytes, 0), (ssize_t)s.b.bytes);
	cr_assert_eq(memcmp(got, s.want, s.b.bytes), 0);

	/* Back: over what the device has, which is other bytes by then. */
	memset(got, 0x55, s.b.bytes);
	HMM_OK(hmm_to_dev(&s.h, 0, s.b.at, s.b.bytes));
	HMM_OK(hmm_dev_write(&s.h, 0, s.b.at, s.b.bytes, got));
	cr_assert_eq(pread(fd, s.b.at, s.b.bytes, 0), (ssize_t)s.b.bytes);
	hmm_on_host(s.h.as, s.b.at, s.b.bytes);
	HMM_OK(hmm_to_dev(&s.h, 0, s.b.at, s.b.bytes));
	hmm_on_device(s.h.as, s.h.dev[0], s.b.at, s.b.bytes, s.want);
	close(fd);
	free(got);
	done(&s);
}

/* A long-term pin. The pages are the kernel's as long as it lasts, so nobody may move them. */
HMM_MORE(hmm_gup_test, long_term)
{
	struct scene s = on_device();
	struct io_uring_params params = { .flags = 0 };
	uint64_t bytes = 16 * PAGE;
	struct iovec v = { s.b.at, bytes };
	char *got = hmm_private(bytes), *other = hmm_pattern(bytes, 4);
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (ring < 0)
		cr_skip_test("NOT TESTED: no io_uring here (%s)", strerror(errno));
	cr_assert_eq(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &v, 1), 0);
	hmm_on_host(s.h.as, s.b.at, bytes);
	HMM_IS(hmm_to_dev(&s.h, 0, s.b.at, bytes), GM_RET_BUSY);
	cr_assert_eq(s.h.moved, 0);
	hmm_on_host(s.h.as, s.b.at, bytes);
	HMM_OK(hmm_dev_read(&s.h, 0, s.b.at, bytes, got));
	cr_assert_eq(memcmp(got, s.want, bytes), 0);
	HMM_OK(hmm_dev_write(&s.h, 0, s.b.at, bytes, other));
	cr_assert(hmm_in_place(s.h.ctx[0], s.b.at + bytes - PAGE));
	hmm_on_host(s.h.as, s.b.at, bytes);
	cr_assert_eq(hmm_wrong(s.b.at, bytes, 4), 0);
	close(ring);
	memcpy(s.want, other, bytes);
	for (unsigned i = 0; i < 10000 && hmm_to_dev(&s.h, 0, s.b.at, s.b.bytes); i++)
		usleep(1000); /* the kernel lets go a moment after close() */
	hmm_on_device(s.h.as, s.h.dev[0], s.b.at, s.b.bytes, s.want);
	cr_assert_eq(memcmp(s.b.at, s.want, s.b.bytes), 0);
	memcpy(s.b.at, got, bytes);
	free(got);
	free(other);
	done(&s);
}
