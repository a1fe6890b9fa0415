/* SPDX-License-Identifier: MIT */
/*
 * munmap() of managed memory by the program, 64 KiB at a time in order of address, each timed alone; a round's figure is
 * their median. Between two a pause, so that what an event leaves to do is not part of the next.
 *
 *                             library                                    baseline
 *     event.munmap.clean      adopted, no device has or maps it          memory that is not managed
 *     .clean.used             the same, a device had it a second ago     the same
 *     event.munmap.device     all of it on the device: the call returns  bare userfaultfd: absent pages, a thread that
 *                             when the handler has read the event        polls, reads the event and does nothing
 *     .device.other           the same, both handlers on another CPU     the same
 *     .device.read            as event.munmap.device                     a thread that sleeps in read()
 *
 * Polls, the event and a descriptor by which it is stopped: the library's reader has to be told to stop, too, and a reader
 * asleep in read() cannot say "I am about to read" before the thread that called munmap() goes on, so nobody could tell whether all
 * events of the past are known. What that is worth is .device.read.
 */
#include "config.h"

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECE (64u << 10)
#define PIECES 128u
#define BYTES ((uint64_t)PIECE * PIECES)
#define PAUSE_US 100

static const struct bench_spec clean_spec = { "event.munmap.clean", "ns", BENCH_COST, 1.10, 1.02 };
static const struct bench_spec used_spec = { "event.munmap.clean.used", "ns", BENCH_COST, 0, 0 };
static const struct bench_spec device_specs[] = {
	{ "event.munmap.device", "ns", BENCH_COST, 1.10, 1.04 },
	{ "event.munmap.device.other", "ns", BENCH_COST, 0, 0 },
};
static const struct bench_spec read_spec = { "event.munmap.device.read", "ns", BENCH_COST, 0, 0 };

/* ------------------------------------------------------------ a bare reader */

struct bare_msg {
	uint8_t event, reserved[7];
	uint64_t start, end, more;
};
struct bare_api {
	uint64_t api, features, ioctls;
};
struct bare_register {
	uint64_t start, bytes, mode, ioctls;
};
#define REQUEST_API _IOWR(0xAA, 0x3F, struct bare_api)
#define REQUEST_REGISTER _IOWR(0xAA, 0x00, struct bare_register)
#define FEATURE_EVENT_UNMAP (UINT64_C(1) << 6)
#define EVENT_UNMAP 0x16

struct reader {
	int fd, stop; /* stop: -1, it sleeps in read() */
	uint64_t last; /* the event that ends it begins here */
	pthread_t thread;
};

static void *read_events(void *arg)
{
	struct reader *r = arg;
	struct pollfd fds[] = { { r->fd, POLLIN, 0 }, { r->stop, POLLIN, 0 } };
	struct bare_msg msg;

	do {
		if (r->stop >= 0 && poll(fds, 2, -1) != 1)
			bench_die("the bare reader cannot poll: error %d", errno);
		if (read(r->fd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != EVENT_UNMAP)
			bench_die("the bare reader read something else than an event");
	} while (msg.start != r->last);
	return NULL;
}

static void reader_start(struct reader *r, const char *mem, bool polls, unsigned cpu)
{
	struct bare_api api = { .api = 0xAA, .features = FEATURE_EVENT_UNMAP };
	struct bare_register reg = { .start = GM_VA(mem), .bytes = BYTES, .mode = 1 };

	r->stop = polls ? eventfd(0, EFD_CLOEXEC) : -1;
	r->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | (polls ? O_NONBLOCK : 0));
	if (polls && r->stop < 0)
		bench_die("no eventfd");
	if (r->fd < 0 || ioctl(r->fd, REQUEST_API, &api) || ioctl(r->fd, REQUEST_REGISTER, &reg))
		bench_die("userfaultfd with events is refused: error %d", errno);
	r->last = GM_VA(mem) + BYTES - PIECE;
	bench_pin_self(cpu);
	if (pthread_create(&r->thread, NULL, read_events, r))
		bench_die("no thread");
	bench_pin_self(0);
}

static void reader_stop(struct reader *r)
{
	pthread_join(r->thread, NULL);
	close(r->fd);
	if (r->stop >= 0)
		close(r->stop);
}

/* ----------------------------------------------------------------- a round */

/* Every page written, small ones: so page tables are there in any case. */
static char *memory(void)
{
	char *mem = mmap(NULL, BYTES + BENCH_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t skip;

	if (mem == MAP_FAILED)
		bench_die("no memory");
	skip = BENCH_BLOCK - GM_VA(mem) % BENCH_BLOCK;
	munmap(mem, skip);
	if (skip < BENCH_BLOCK)
		munmap(mem + skip + BYTES, BENCH_BLOCK - skip);
	mem += skip;
	madvise(mem, BYTES, MADV_NOHUGEPAGE);
	memset(mem, 1, BYTES);
	return mem;
}

static double unmap_all(char *mem)
{
	double sample[PIECES];

	for (unsigned i = 0; i < PIECES; i++) {
		uint64_t start;

		usleep(PAUSE_US);
		start = bench_now_ns();
		if (munmap(mem + (uint64_t)i * PIECE, PIECE))
			bench_die("munmap failed: error %d", errno);
		sample[i] = (double)(bench_now_ns() - start);
	}
	return bench_median(sample, PIECES);
}

enum how { CLEAN, USED, DEVICE, DEVICE_READ };

static double round_lib(struct bench_gm *g, enum how how)
{
	char *mem = memory();
	struct gm_residency r;
	double ns;

	BENCH_TRY(gm_adopt(g->as, mem, BYTES, 0));
	if (how != CLEAN)
		BENCH_TRY(gm_migrate(g->as, GM_VA(mem), BYTES, g->dev, NULL));
	if (how == USED) {
		BENCH_TRY(gm_migrate(g->as, GM_VA(mem), BYTES, NULL, NULL));
		sleep(1);
	}
	BENCH_TRY(gm_residency(g->as, GM_VA(mem), BYTES, &r));
	if ((how >= DEVICE ? r.dev_bytes[0] : r.host_bytes) != BYTES)
		bench_die("the memory is not where it should be");
	ns = unmap_all(mem);
	(void)gm_release(g->as, mem, BYTES); /* where no event told */
	BENCH_TRY(gm_residency(g->as, GM_VA(mem), BYTES, &r));
	if (r.outside_bytes != BYTES)
		bench_die("memory that was unmapped is managed still");
	return ns;
}

static double round_base(enum how how, unsigned cpu)
{
	char *mem = memory();
	struct reader r;
	double ns;

	if (how < DEVICE)
		return unmap_all(mem);
	if (madvise(mem, BYTES, MADV_DONTNEED))
		bench_die("MADV_DONTNEED failed");
	reader_start(&r, mem, how == DEVICE, cpu);
	ns = unmap_all(mem);
	reader_stop(&r);
	return ns;
}

static void run(const struct bench_opts *o, const struct bench_spec *spec, enum how how, unsigned cpu)
{
	struct bench_gm_config config = { .bytes = BENCH_BLOCK };
	static struct bench_series s;
	struct bench_gm g;

	if (!bench_wanted(o, spec->name))
		return;
	if (cpu >= bench_cpus()) {
		bench_skip(spec, "there is one CPU only");
		return;
	}
	bench_gm_open(&g, &config);
	bench_pin_threads("gm-handler", cpu);
	bench_pin_threads("gm-worker", cpu);
	bench_pin_self(0);
	bench_begin(&s, spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double lib = 0, base;

		if (i % 2)
			lib = round_lib(&g, how);
		base = round_base(how, cpu);
		if (i % 2 == 0)
			lib = round_lib(&g, how);
		if (i)
			bench_add(&s, lib, base);
	}
	bench_unpin_self();
	bench_gm_close(&g);
	bench_report(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	run(&o, &clean_spec, CLEAN, 0);
	run(&o, &used_spec, USED, 0);
	for (unsigned i = 0; i < 2; i++)
		run(&o, &device_specs[i], DEVICE, i);
	run(&o, &read_spec, DEVICE_READ, 0);
	return 0;
}
