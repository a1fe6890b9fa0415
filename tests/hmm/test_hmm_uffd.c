/* SPDX-License-Identifier: MIT */
/*
 * Rows of the HMM table: memory that the program itself watches, with a userfaultfd of its own, and fills when it is
 * touched. The space mirrors the process, and the library never saw the memory before.
 */
#include "config.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "hmm.h"

static struct hmm mirror(uint64_t wait_ns)
{
	struct hmm h = { .wait_ns = wait_ns };

	hmm_open_with(&h, 1, "64M", GM_AS_MIRROR);
	return h;
}

/* A program that fills memory when it is touched. */
struct filler {
	int fd;
	const struct hmm_buf *b;
	const char *from;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint filled;
};

static void watch(struct filler *f, const struct hmm_buf *b)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { GM_VA(b->at), b->bytes }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	*f = (struct filler){ .fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), .b = b };
	if (f->fd < 0)
		cr_skip_test("NOT TESTED: no userfaultfd for the program itself");
	cr_assert_eq(ioctl(f->fd, UFFDIO_API, &api), 0);
	cr_assert_eq(ioctl(f->fd, UFFDIO_REGISTER, &reg), 0);
}

static void fill_one(struct filler *f, uint64_t va)
{
	struct uffdio_copy c = { .dst = va / PAGE * PAGE, .len = PAGE };

	c.src = GM_VA(f->from) + (c.dst - GM_VA(f->b->at));
	if (ioctl(f->fd, UFFDIO_COPY, &c) == 0)
		atomic_fetch_add(&f->filled, 1);
}

static void *fill(void *arg)
{
	struct filler *f = arg;
	struct pollfd p = { .fd = f->fd, .events = POLLIN };
	struct uffd_msg m;

	while (!atomic_load(&f->stop))
		if (poll(&p, 1, 10) > 0 && read(f->fd, &m, sizeof(m)) == (ssize_t)sizeof(m) && m.event == UFFD_EVENT_PAGEFAULT)
			fill_one(f, m.arg.pagefault.address);
	return NULL;
}

static void serve(struct filler *f, const char *from)
{
	f->from = from;
	cr_assert_eq(pthread_create(&f->thread, NULL, fill, f), 0);
}

static void end(struct filler *f)
{
	atomic_store(&f->stop, true);
	cr_assert_eq(pthread_join(f->thread, NULL), 0);
	close(f->fd);
}

/* At its address, reached in place, and the device has nothing. */
static void stays(struct hmm *h, const struct hmm_buf *b)
{
	HMM_TRUE(hmm_pages(b->at, b->bytes, HMM_PRESENT, 0) == b->bytes / PAGE, "not all of it is there");
	HMM_TRUE(!hmm_away(h->as, b->at, b->bytes), "something moved");
	HMM_TRUE(hmm_dev_free(h->dev[0]) == UINT64_C(64) << 20, "device memory is in use");
	for (uint64_t off = 0; off < b->bytes; off += PAGE)
		HMM_TRUE(hmm_in_place(h->ctx[0], b->at + off), "page %u is not mapped in place", (unsigned)(off / PAGE));
}

static atomic_uint told;

static void count_signal(int sig)
{
	(void)sig;
	atomic_fetch_add(&told, 1);
}

/* No child of ours is seen by the program, and none is left. */
static void expect_no_child(void)
{
	int status;

	cr_assert_eq(atomic_load(&told), 0, "a signal of a child's end");
	cr_assert_eq(waitpid(-1, &status, WNOHANG | __WALL), -1, "a child is left");
}

/* What the device reads is what the program fills in, page by page; also where it has dropped a page since. */
HMM_TEST(userfaultfd_read)
{
	struct hmm h = mirror(0);
	struct hmm_buf b = hmm_map(HMM_BYTES, HMM_NO_THP);
	char *first = hmm_pattern(b.bytes, 1), *second = hmm_pattern(b.bytes, 2), *got = hmm_private(b.bytes);
	struct filler f;

	signal(SIGCHLD, count_signal);
	watch(&f, &b);
	serve(&f, first);
	cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, 0), 0);
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	cr_assert_eq(hmm_wrong(got, b.bytes, 1), 0);
	cr_assert_eq(atomic_load(&f.filled), HMM_PAGES, "each page once");
	stays(&h, &b);
	cr_assert_eq(hmm_wrong(b.at, b.bytes, 1), 0);

	cr_assert_eq(madvise(b.at + BLOCK, BLOCK, MADV_DONTNEED), 0);
	f.from = second;
	HMM_OK(hmm_dev_read(&h, 0, b.at, b.bytes, got));
	cr_assert_eq(hmm_wrong(got, BLOCK, 1), 0);
	cr_assert_eq(memcmp(got + BLOCK, second + BLOCK, BLOCK), 0, "an old page, or zeros");
	cr_assert_eq(atomic_load(&f.filled), HMM_PAGES * 3 / 2);
	stays(&h, &b);
	expect_no_child();
	end(&f);
	hmm_unmap(&b);
	hmm_close(&h);
	free(first);
	free(second);
	free(got);
}

/* A store to a page that is not there yet: the rest of it is what the program filled in. */
HMM_MORE(userfaultfd_read, write)
{
	struct hmm h = mirror(0);
	struct hmm_buf b = hmm_map(64 * PAGE, HMM_NO_THP);
	char *first = hmm_pattern(b.bytes, 1), *other = hmm_pattern(b.bytes, 2);
	struct filler f;

	watch(&f, &b);
	serve(&f, first);
	HMM_OK(hmm_dev_write(&h, 0, b.at + 8 * PAGE, 8 * PAGE, other));
	cr_assert_eq(atomic_load(&f.filled), 8);
	cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, 0), 8);
	cr_assert_eq(memcmp(b.at + 8 * PAGE, other, 8 * PAGE), 0);
	cr_assert_eq(memcmp(b.at, first, 8 * PAGE), 0);
	end(&f);
	hmm_unmap(&b);
	hmm_close(&h);
	free(first);
	free(other);
}

/* Nobody fills it: the access ends, shows nothing, and leaves nothing behind; once somebody does it goes through. */
HMM_TEST(userfaultfd_timeout)
{
	struct hmm h = mirror(HMM_SECOND / 2);
	struct hmm_buf b = hmm_map(64 * PAGE, HMM_NO_THP);
	char *first = hmm_pattern(b.bytes, 1), *got = hmm_private(b.bytes), *same = hmm_private(b.bytes);
	struct filler f;
	gm_ret_t ret;

	signal(SIGCHLD, count_signal);
	watch(&f, &b);
	ret = hmm_dev_read(&h, 0, b.at, b.bytes, got);
	cr_assert(ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY, "%s", gm_ret_name(ret));
	cr_assert_eq(memcmp(got, same, b.bytes), 0, "it has read something");
	ret = hmm_dev_write(&h, 0, b.at, b.bytes, first);
	cr_assert(ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY, "%s", gm_ret_name(ret));
	cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, 0), 0, "something is there");
	expect_no_child();

	h.wait_ns = 0;
	serve(&f, first);
	do /* half a second may be short on this machine */
		ret = hmm_dev_read(&h, 0, b.at, b.bytes, got);
	while (ret == GM_RET_TIMEDOUT || ret == GM_RET_BUSY);
	HMM_OK(ret);
	cr_assert_eq(hmm_wrong(got, b.bytes, 1), 0);
	cr_assert_eq(hmm_pages(b.at, b.bytes, HMM_PRESENT, 0), 64);
	cr_assert_eq(atomic_load(&f.filled), 64);
	expect_no_child();
	end(&f);
	hmm_unmap(&b);
	hmm_close(&h);
	free(first);
	free(got);
	free(same);
}
