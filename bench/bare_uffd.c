/* SPDX-License-Identifier: MIT */
/*
 * A bare handler: see bare_uffd.h. The memory is registered with one
 * descriptor, the staging with another that nobody reads, since pages can only
 * be moved into a registered range.
 *
 * The thread stops by a fault like any other, at a page that means it.
 */
#include "config.h"

#include "bench/bare_uffd.h"
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's interface, which some systems' headers do not have yet. */
struct bare_msg {
	uint8_t event, reserved[7];
	uint64_t flags, address, more;
};
struct bare_api {
	uint64_t api, features, ioctls;
};
struct bare_register {
	uint64_t start, bytes, mode, ioctls;
};
struct bare_transfer {
	uint64_t dst, src, bytes, mode;
	int64_t result;
};
#define API_NUMBER UINT64_C(0xAA)
#define REQUEST_API _IOWR(0xAA, 0x3F, struct bare_api)
#define REQUEST_REGISTER _IOWR(0xAA, 0x00, struct bare_register)
#define REQUEST_COPY _IOWR(0xAA, 0x03, struct bare_transfer)
#define REQUEST_MOVE _IOWR(0xAA, 0x05, struct bare_transfer)
#define MODE_MISSING UINT64_C(1)
#define MODE_DONTWAKE UINT64_C(1)
#define MODE_HOLES UINT64_C(2)
#define EVENT_PAGEFAULT 0x12

struct bare {
	enum bare_kind kind;
	uint64_t bytes, unit_bytes;
	unsigned cpu;
	int fd, staging_fd;
	char *memory, *staging, *buffer;
	char *stop; /* touching it ends the thread */
	pthread_t thread;
};

static int open_uffd(void)
{
	struct bare_api api = { .api = API_NUMBER };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		bench_die("userfaultfd is refused: error %d", errno);
	if (ioctl(fd, REQUEST_API, &api))
		bench_die("UFFDIO_API failed: error %d", errno);
	return fd;
}

static void watch(int fd, const void *at, uint64_t bytes)
{
	struct bare_register r = { .start = GM_VA(at), .bytes = bytes, .mode = MODE_MISSING };

	if (ioctl(fd, REQUEST_REGISTER, &r))
		bench_die("UFFDIO_REGISTER failed: error %d", errno);
}

static void transfer(int fd, unsigned long request, const void *dst, const void *src, uint64_t bytes, uint64_t mode)
{
	struct bare_transfer t = { .dst = GM_VA(dst), .src = GM_VA(src), .bytes = bytes, .mode = mode };

	if (ioctl(fd, request, &t) || t.result != (int64_t)bytes)
		bench_die("a transfer of %llu bytes failed: error %d", (unsigned long long)bytes, errno);
}

static void resolve(struct bare *b, uint64_t offset)
{
	switch (b->kind) {
	case BARE_COPY:
		transfer(b->fd, REQUEST_COPY, b->memory + offset, b->buffer + offset, b->unit_bytes, 0);
		break;
	case BARE_COPY_MOVE:
		memcpy(b->staging + offset, b->buffer + offset, b->unit_bytes);
		transfer(b->fd, REQUEST_MOVE, b->memory + offset, b->staging + offset, b->unit_bytes, 0);
		break;
	case BARE_MOVE:
		transfer(b->fd, REQUEST_MOVE, b->memory + offset, b->staging + offset, b->unit_bytes, 0);
		break;
	}
}

static void *serve(void *arg)
{
	static const char zeros[BENCH_PAGE] __attribute__((aligned(BENCH_PAGE)));
	struct bare *b = arg;
	struct bare_msg msg;

	for (;;) {
		if (read(b->fd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != EVENT_PAGEFAULT)
			bench_die("the bare handler read something else than a fault");
		if ((msg.address & ~(uint64_t)(BENCH_PAGE - 1)) == GM_VA(b->stop))
			break;
		resolve(b, (msg.address - GM_VA(b->memory)) & ~(b->unit_bytes - 1));
	}
	transfer(b->fd, REQUEST_COPY, b->stop, zeros, BENCH_PAGE, 0);
	return NULL;
}

struct bare *bare_start(enum bare_kind kind, uint64_t bytes, uint64_t unit_bytes, bool huge, unsigned cpu)
{
	struct bare *b = calloc(1, sizeof(*b));
	cpu_set_t self;

	if (!b)
		bench_die("no memory");
	*b = (struct bare){ .kind = kind, .bytes = bytes, .unit_bytes = unit_bytes, .cpu = cpu };
	b->fd = open_uffd();
	b->staging_fd = open_uffd();
	b->memory = bench_buffer(bytes, huge);
	b->staging = bench_buffer(bytes, huge);
	b->buffer = bench_buffer(bytes, true);
	b->stop = mmap(NULL, BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->stop == MAP_FAILED)
		bench_die("no memory");
	watch(b->fd, b->memory, bytes);
	watch(b->fd, b->stop, BENCH_PAGE);
	watch(b->staging_fd, b->staging, bytes);
	/* The new thread inherits the pinning. */
	if (pthread_getaffinity_np(pthread_self(), sizeof(self), &self))
		bench_die("pthread_getaffinity_np failed");
	bench_pin_self(cpu);
	if (pthread_create(&b->thread, NULL, serve, b))
		bench_die("no thread");
	if (pthread_setaffinity_np(pthread_self(), sizeof(self), &self))
		bench_die("pthread_setaffinity_np failed");
	usleep(1000);
	return b;
}

void bare_stop(struct bare *b)
{
	(void)*(volatile char *)b->stop;
	pthread_join(b->thread, NULL);
	close(b->fd);
	close(b->staging_fd);
	bench_buffer_free(b->memory, b->bytes);
	bench_buffer_free(b->staging, b->bytes);
	bench_buffer_free(b->buffer, b->bytes);
	munmap(b->stop, BENCH_PAGE);
	free(b);
}

char *bare_memory(struct bare *b)
{
	return b->memory;
}

char *bare_buffer(struct bare *b)
{
	return b->buffer;
}

void bare_copy(struct bare *b, uint64_t offset, uint64_t bytes)
{
	transfer(b->fd, REQUEST_COPY, b->memory + offset, b->buffer + offset, bytes, MODE_DONTWAKE);
}

void bare_move_out(struct bare *b, uint64_t offset, uint64_t bytes)
{
	transfer(b->staging_fd, REQUEST_MOVE, b->staging + offset, b->memory + offset, bytes,
		 MODE_DONTWAKE | MODE_HOLES);
}

void bare_move_in(struct bare *b, uint64_t offset, uint64_t bytes)
{
	transfer(b->fd, REQUEST_MOVE, b->memory + offset, b->staging + offset, bytes, MODE_DONTWAKE);
}

void bare_empty(struct bare *b)
{
	if (madvise(b->kind == BARE_COPY ? b->memory : b->staging, b->bytes, MADV_DONTNEED))
		bench_die("MADV_DONTNEED failed");
	for (uint64_t at = 0; b->kind != BARE_COPY && at < b->bytes; at += BENCH_BLOCK)
		bare_move_out(b, at, b->bytes - at < BENCH_BLOCK ? b->bytes - at : BENCH_BLOCK);
}
