/* SPDX-License-Identifier: MIT */
/*
 * The kernel reads and writes memory whose pages are away: files, O_DIRECT, pipes, sockets, buffers that io_uring has
 * registered. What a device has comes home for it; what is pinned stays, and devices reach it in place.
 */
#include "config.h"

#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "tests/process/process.h"

#define TMPFS_MAGIC_ 0x01021994

TestSuite(io, .timeout = 290);

/* An open file without a name. */
static int temp_file(const char *dir, int flags)
{
	char path[300];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/gm_test_io_XXXXXX", dir);
	fd = mkostemp(path, flags | O_CLOEXEC);
	if (fd >= 0)
		(void)unlink(path);
	return fd;
}

/* The whole range through a file, there and back, in pieces that begin and end nowhere in particular. */
static void through_file(struct proc *p, int fd, uint64_t piece)
{
	static uint64_t want[PAGES];

	for (uint64_t at = 0; at < BYTES; at += piece) {
		uint64_t n = BYTES - at < piece ? BYTES - at : piece;

		MUST(pwrite(fd, p->at + at, n, (off_t)at) == (ssize_t)n, "write at %llu", (unsigned long long)at);
	}
	memcpy(want, p->want, sizeof(want));
	dev_fill(p, p->at, 0, PAGES, 11);
	memcpy(p->want, want, sizeof(want));
	for (uint64_t at = 0; at < BYTES; at += piece) {
		uint64_t n = BYTES - at < piece ? BYTES - at : piece;

		MUST(pread(fd, p->at + at, n, (off_t)at) == (ssize_t)n, "read at %llu", (unsigned long long)at);
	}
	assert_same(p, p->at, 0, PAGES);
}

PLACE_TEST(io, read_and_write)
{
	int fd = memfd_create("gm-test", MFD_CLOEXEC);

	MUST(fd >= 0, "memfd");
	through_file(p, fd, 3 * PAGE + 1000);
	through_file(p, fd, BYTES);
	close(fd);
}

/* Many pieces in one call, some away, some not, some crossing. */
PLACE_TEST(io, vectors)
{
	int fd = memfd_create("gm-test", MFD_CLOEXEC);
	struct iovec iov[64];
	static uint64_t want[PAGES];

	for (unsigned i = 0; i < 64; i++)
		iov[i] = (struct iovec){ p->at + (uint64_t)i * BYTES / 64, BYTES / 64 };
	MUST(fd >= 0 && pwritev(fd, iov, 64, 0) == (ssize_t)BYTES, "pwritev");
	memcpy(want, p->want, sizeof(want));
	dev_fill(p, p->at, 100, PAGES - 100, 12);
	memcpy(p->want, want, sizeof(want));
	MUST(preadv(fd, iov, 64, 0) == (ssize_t)BYTES, "preadv");
	assert_same(p, p->at, 0, PAGES);
	close(fd);
}

/* On a file system that really does it; the build's own directory is one, mostly. */
static int direct_file(void)
{
	static const char *const dirs[] = { ".", "/var/tmp", "/tmp" };
	struct statfs fs;

	for (unsigned i = 0; i < 3; i++) {
		int fd = temp_file(dirs[i], O_DIRECT);

		if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC_)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

PLACE_TEST(io, direct)
{
	int fd = direct_file();

	if (fd < 0)
		cr_skip_test("NOT TESTED: no file system with O_DIRECT");
	through_file(p, fd, 16 * PAGE);
	through_file(p, fd, BYTES);
	close(fd);
}

/* The pipe has the pages themselves, while they leave for the device. */
PLACE_TEST(io, vmsplice)
{
	uint64_t first = BLOCK_PAGES - 4, pages = 8;
	struct iovec iov = { p->at + first * PAGE, pages * PAGE };
	static char got[8 * GM_PAGE_BYTES];
	int fd[2];

	SYS(pipe(fd));
	MUST(fcntl(fd[1], F_SETPIPE_SZ, 1 << 20) > 0, "pipe size");
	MUST(vmsplice(fd[1], &iov, 1, 0) == (ssize_t)(pages * PAGE), "vmsplice");
	(void)gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL);
	MUST(read(fd[0], got, sizeof(got)) == (ssize_t)sizeof(got), "read");
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t value;

		memcpy(&value, got + i * PAGE + (first + i) * 8 % PAGE, sizeof(value));
		MUST(value == p->want[first + i], "page %u", (unsigned)i);
	}
	close(fd[0]);
	close(fd[1]);
	assert_same(p, p->at, 0, PAGES);
}

/* Headers, vectors and control data lie there as well. */
PLACE_TEST(io, sendmsg_recvmsg)
{
	struct msghdr *out = (struct msghdr *)(p->at + 3 * PAGE - sizeof(*out)), *in = (struct msghdr *)(p->at + BLOCK);
	struct iovec *iov = (struct iovec *)(p->at + 200 * PAGE);
	char *value = p->at + 301 * PAGE - 4; /* over two pages */
	uint64_t got = 0, sent = 0x1234567890abcdef;
	int fd[2], pending = 0;

	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	memcpy(value, &sent, sizeof(sent));
	*iov = (struct iovec){ value, sizeof(sent) };
	*out = (struct msghdr){ .msg_iov = iov, .msg_iovlen = 1 };
	*in = *out;
	for (unsigned i = 0; i < 20; i++) {
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
		MUST(info_of(p, (char *)out).place == GM_PLACE_DEVICE, "away");
		MUST(sendmsg(fd[0], out, 0) == (ssize_t)sizeof(sent), "sendmsg");
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
		MUST(ioctl(fd[1], FIONREAD, p->at + 400 * PAGE) == 0, "FIONREAD into it");
		memcpy(&pending, p->at + 400 * PAGE, sizeof(pending));
		MUST(pending == (int)sizeof(sent), "%d bytes", pending);
		OK(gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL));
		MUST(recvmsg(fd[1], in, 0) == (ssize_t)sizeof(sent), "recvmsg");
		memcpy(&got, value, sizeof(got));
		MUST(got == sent, "%llx", (unsigned long long)got);
	}
	close(fd[0]);
	close(fd[1]);
}

/* -------------------------------------------------------------- io_uring */

struct ring {
	int fd;
	unsigned char *sq, *cq;
	struct io_uring_sqe *sqe;
	struct io_uring_params params;
};

/* One for the whole test: ending one takes the kernel long. */
static struct ring *ring_open(void)
{
	static struct ring the_ring, *r = &the_ring;

	if (r->sqe)
		return r;
	r->fd = (int)syscall(SYS_io_uring_setup, 4, &r->params);
	if (r->fd < 0)
		return NULL;
	r->sq = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->cq = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	r->sqe = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	MUST(r->sq != MAP_FAILED && r->cq != MAP_FAILED && (void *)r->sqe != MAP_FAILED, "rings");
	return r;
}

/* One request and its result. */
static int ring_do(struct ring *r, uint8_t op, int fd, void *at, uint32_t bytes, uint64_t off)
{
	unsigned *tail = (unsigned *)(r->sq + r->params.sq_off.tail), mask = r->params.sq_entries - 1, slot = *tail & mask;
	unsigned *head = (unsigned *)(r->cq + r->params.cq_off.head);
	const struct io_uring_cqe *cqe;
	int res;

	r->sqe[slot] = (struct io_uring_sqe){ .opcode = op, .fd = fd, .addr = GM_VA(at), .len = bytes, .off = off };
	((unsigned *)(r->sq + r->params.sq_off.array))[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	MUST(syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "io_uring_enter");
	cqe = (const struct io_uring_cqe *)(r->cq + r->params.cq_off.cqes);
	res = cqe[*head & (r->params.cq_entries - 1)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return res;
}

/* Registering pins it for good: it is home, does not move, and devices reach it in place, until it is let go. */
static void with_registered(struct proc *p, struct ring *r, int fd)
{
	uint32_t bytes = 64 * GM_PAGE_BYTES;
	char *at = p->at + BLOCK - bytes / 2;
	uint64_t first = BLOCK_PAGES - 32, end = BLOCK_PAGES + 32;
	struct iovec iov = { at, bytes };

	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1))
		cr_skip_test("NOT TESTED: io_uring takes no buffer: error %d", errno);
	MUST(pages_away(p, p->at, first, end) == 0, "home");
	MUST(ring_do(r, IORING_OP_WRITE_FIXED, fd, at, bytes, 0) == (int)bytes, "write");
	IS(gm_migrate(p->as, GM_VA(at), bytes, p->dev, NULL), GM_RET_BUSY);
	MUST(pages_away(p, p->at, first, end) == 0, "still home");
	MUST(dev_wrong(p, p->at, first, end) == 0, "the device reads in place");
	dev_fill(p, p->at, first, end, 13);
	MUST(ring_do(r, IORING_OP_WRITE_FIXED, fd, at, bytes, bytes) == (int)bytes, "write what the device stored");
	dev_fill(p, p->at, first, end, 14);
	MUST(ring_do(r, IORING_OP_READ_FIXED, fd, at, bytes, bytes) == (int)bytes, "read it back");
	for (uint64_t i = first; i < end; i++)
		p->want[i] = word(i, 13);
	MUST(cpu_wrong(p, p->at, 0, PAGES) == 0 && dev_wrong(p, p->at, first, end) == 0, "for both");
	SYS(syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
}

PLACE_TEST(io, io_uring)
{
	int fd = memfd_create("gm-test", MFD_CLOEXEC);
	struct ring *r = ring_open();

	if (!r)
		cr_skip_test("NOT TESTED: no io_uring here: error %d", errno);
	with_registered(p, r, fd);
	/* the kernel lets go of the pages a little later */
	WAIT_FOR(gm_migrate(p->as, GM_VA(p->at), BYTES, NULL, NULL) == GM_RET_SUCCESS &&
		 gm_migrate(p->as, GM_VA(p->at), BYTES, p->dev, NULL) == GM_RET_SUCCESS);
	MUST(pages_away(p, p->at, 0, PAGES) == PAGES, "moves again");
	assert_same(p, p->at, 0, PAGES);
	close(fd);
}

/* Not registered: each request finds the pages wherever they are. */
PLACE_TEST(io, io_uring_unregistered)
{
	int fd = memfd_create("gm-test", MFD_CLOEXEC);
	static uint64_t want[PAGES];
	struct ring *r = ring_open();

	if (!r)
		cr_skip_test("NOT TESTED: no io_uring here: error %d", errno);
	MUST(ring_do(r, IORING_OP_WRITE, fd, p->at, BYTES, 0) == (int)BYTES, "write");
	memcpy(want, p->want, sizeof(want));
	dev_fill(p, p->at, 0, PAGES, 15);
	memcpy(p->want, want, sizeof(want));
	MUST(ring_do(r, IORING_OP_READ, fd, p->at, BYTES, 0) == (int)BYTES, "read");
	close(fd);
	assert_same(p, p->at, 0, PAGES);
}
