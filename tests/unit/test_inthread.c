/* SPDX-License-Identifier: MIT */
/*
 * Memory whose faults are served in the thread that faults: who serves, what the answer is, and what is refused.
 * What the process does to such memory: test_inthread_process.c.
 */
#include "config.h"

#include <fcntl.h>
#include <sys/uio.h>

#include "inthread_fixture.h"
#include "losing_mock.h"

TestSuite(inthread, .timeout = 300);

#define THREADS 4u

static struct forker f;

struct reader {
	pthread_t thread;
	uint64_t first, end, wrong;
};

static void *read_part(void *arg)
{
	struct reader *r = arg;

	r->wrong = wrong(f.at, r->first, r->end, 2);
	return NULL;
}

/* All of it by several threads at once. */
static void read_all(uint64_t pages)
{
	struct reader r[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		r[i] = (struct reader){ .first = pages * i / THREADS, .end = pages * (i + 1) / THREADS };
		cr_assert_eq(pthread_create(&r[i].thread, NULL, read_part, &r[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(r[i].thread, NULL), 0);
		cr_assert_eq(r[i].wrong, 0, "thread %u", i);
	}
}

static void served_on(const char *dev, uint32_t flags, bool by_worker)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = flags };
	struct gm_stats before, after;

	inthread_begin(&f, dev, &config);
	before = counters_of(&f);
	atomic_store(&bus.served, 0);
	read_all(PAGES);
	after = counters_of(&f);
	cr_assert_eq(on_device(&f, f.at, PAGES), 0);
	cr_assert_gt(atomic_load(&bus.served), 0);
	cr_assert_eq(after.cpu_faults_inline, before.cpu_faults_inline, "the handler has served some");
	if (!by_worker) {
		cr_assert_eq(after.cpu_faults - before.cpu_faults, after.cpu_faults_inthread - before.cpu_faults_inthread);
		cr_assert_eq(after.cpu_faults_inthread - before.cpu_faults_inthread, atomic_load(&bus.served));
	}
	forker_end(&f);
}

Test(inthread, in_its_thread)
{
	served_on(NULL, 0, false);
}

Test(inthread, in_its_thread_without_frames)
{
	served_on(NULL, GM_AS_EXCLUSIVE, false);
}

/* What the thread cannot do in a signal handler the worker does, and the thread waits. */
Test(inthread, by_the_worker)
{
	served_on("mock:vram=32M,visible=no", 0, true);
	served_on("mock:vram=32M,submit=no,copy=async", 0, true);
	served_on("mock:vram=32M,visible=no", GM_AS_EXCLUSIVE, true);
}

/* Nobody else has to run for it. */
Test(inthread, without_threads)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_NO_THREADS };
	struct gm_stats before;

	lib_begin(&f, NULL, &config);
	f.at = app_block_memory();
	fill(f.at, 0, PAGES, 2);
	OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
	OK(gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
	before = counters_of(&f);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	cr_assert_gt(counters_of(&f).cpu_faults_inthread, before.cpu_faults_inthread);
	forker_end(&f);
}

/* Owned memory of any size, beside memory that is not such. */
Test(inthread, owned)
{
	void *small, *large, *plain;

	lib_begin(&f, NULL, NULL);
	OK(gm_alloc(f.as, 3 * PAGE, GM_MEM_INTHREAD, &small));
	OK(gm_alloc(f.as, 3 * BLOCK, GM_MEM_INTHREAD, &large));
	OK(gm_alloc(f.as, 64 * PAGE, 0, &plain));
	cr_assert(is_inthread(&f, small) && is_inthread(&f, (char *)large + 2 * BLOCK) && !is_inthread(&f, plain));
	for (unsigned round = 0; round < 3; round++) {
		dev_fill(f.ctx, GM_VA(small), 3, round);
		dev_fill(f.ctx, GM_VA(large), 3 * (uint64_t)GM_BLOCK_PAGES, round);
		dev_fill(f.ctx, GM_VA(plain), 64, round);
		atomic_store(&bus.served, 0);
		cr_assert_eq(wrong(plain, 0, 64, round), 0);
		cr_assert_eq(atomic_load(&bus.served), 0, "a message comes for it, and no signal");
		cr_assert_eq(wrong(small, 0, 3, round) + wrong(large, 0, 3 * (uint64_t)GM_BLOCK_PAGES, round), 0);
		cr_assert_gt(atomic_load(&bus.served), 0);
	}
	OK(gm_free(f.as, small));
	OK(gm_free(f.as, large));
	OK(gm_free(f.as, plain));
	forker_end(&f);
}

/* The address is memory as any other when it is given back; in both directions, and while its block is still known. */
Test(inthread, address_reused)
{
	inthread_begin(&f, NULL, NULL);
	for (unsigned round = 0; round < 6; round++) {
		bool plain = round % 2 == 0;

		OK(gm_release(f.as, f.at, BYTES));
		cr_assert(!is_inthread(&f, f.at));
		OK(gm_adopt(f.as, f.at, BYTES, plain ? 0 : GM_MEM_INTHREAD));
		dev_fill(f.ctx, GM_VA(f.at), PAGES, round);
		cr_assert_gt(on_device(&f, f.at, PAGES), PAGES / 2);
		atomic_store(&bus.served, 0);
		cr_assert_eq(wrong(f.at, 0, PAGES, round), 0);
		cr_assert_eq(atomic_load(&bus.served) == 0, plain, "round %u", round);
	}
	forker_end(&f);
}

/* One page of the block is such memory, its neighbours are not: both move. */
Test(inthread, next_to_other_memory)
{
	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	OK(gm_adopt(f.as, f.at, 100 * PAGE, 0));
	OK(gm_adopt(f.as, f.at + 100 * PAGE, 50 * PAGE, GM_MEM_INTHREAD));
	OK(gm_adopt(f.as, f.at + 150 * PAGE, BYTES - 150 * PAGE, 0));
	for (unsigned round = 0; round < 3; round++) {
		dev_fill(f.ctx, GM_VA(f.at), PAGES, round);
		OK(gm_migrate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
		cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
		atomic_store(&bus.served, 0);
		cr_assert_eq(wrong(f.at, 300, PAGES, round), 0);
		cr_assert_eq(atomic_load(&bus.served), 0);
		cr_assert_eq(wrong(f.at, 100, 150, round), 0);
		cr_assert_gt(atomic_load(&bus.served), 0);
		cr_assert_eq(wrong(f.at, 0, 300, round), 0);
	}
	forker_end(&f);
}

Test(inthread, not_ours)
{
	struct gm_as *other;
	char here = 0, *file, *plain;
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	inthread_begin(&f, NULL, NULL);
	OK(gm_as_create(f.lib, 0, 0, NULL, &other));
	plain = app_block_memory();
	OK(gm_adopt(f.as, plain, BYTES, 0));
	to_device(&f, plain, 5);
	IS(gm_inthread_serve(f.as, GM_VA(&here)), GM_RET_NOENT);
	IS(gm_inthread_serve(f.as, 0), GM_RET_NOENT);
	IS(gm_inthread_serve(f.as, UINT64_MAX), GM_RET_NOENT);
	IS(gm_inthread_serve(f.as, GM_VA(plain)), GM_RET_NOENT);
	IS(gm_inthread_serve(other, GM_VA(f.at)), GM_RET_NOENT);
	cr_assert_eq(on_device(&f, plain, PAGES), PAGES);
	cr_assert_eq(on_device(&f, f.at, PAGES), PAGES);
	/* the program's own */
	cr_assert(fd >= 0 && !ftruncate(fd, (off_t)PAGE));
	file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq(file, MAP_FAILED);
	IS(touch(file, false), GM_RET_SUCCESS);
	IS(touch(file + PAGE, false), GM_RET_NOENT);
	close(fd);
	OK(gm_as_destroy(other));
	forker_end(&f);
}

Test(inthread, leaves_errno_and_last_error)
{
	void *none;

	inthread_begin(&f, NULL, NULL);
	IS(gm_alloc(f.as, 0, 0, &none), GM_RET_INVAL);
	errno = 1234;
	for (unsigned i = 0; i < 40; i++)
		IS(touch(f.at + i * UNIT, true), GM_RET_SUCCESS);
	cr_assert_eq(errno, 1234);
	cr_assert_str_eq(gm_last_error(), "gm_alloc: 0 bytes");
	forker_end(&f);
}

Test(inthread, lost_with_a_device)
{
	struct gm_ctx *ctx;
	struct gm_dev *dev;

	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	fill(f.at, 0, PAGES, 2);
	OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
	dev = open_losing(f.lib, f.as, "vram=8M", &ctx);
	OK(gm_migrate(f.as, GM_VA(f.at), BYTES, dev, NULL));
	dev_fill(ctx, GM_VA(f.at), 64, 3);
	losing.lost = true;
	for (unsigned i = 0; i < 64; i++)
		IS(touch(f.at + i * PAGE, false), GM_RET_NODEV);
	cr_assert_eq(wrong(f.at, 64, PAGES, 2), 0, "what the host had kept");
	IS(gm_prefault(f.as, GM_VA(f.at), BYTES), GM_RET_NODEV);
	OK(gm_prefault(f.as, GM_VA(f.at) + 64 * PAGE, BYTES - 64 * PAGE));
	OK(gm_discard(f.as, GM_VA(f.at), 64 * PAGE));
	cr_assert_eq(nonzero(f.at, 0, 64), 0);
	close_losing(dev, ctx);
	forker_end(&f);
}

static atomic_uint stuck_calls;

static void on_stuck(void *arg, const struct gm_stuck *stuck)
{
	(void)arg;
	cr_assert_not_null(stuck->ws);
	cr_assert_eq(stuck->thread_id, (uint32_t)getpid(), "the test's own thread waits");
	atomic_fetch_add(&stuck_calls, 1);
}

static void *hold_on(void *arg)
{
	struct gm_ws *ws = arg;

	usleep(200000);
	OK(gm_ws_release(ws, NULL));
	return NULL;
}

static struct gm_ws *hold(uint64_t bytes)
{
	struct gm_ws_range range = { .va = GM_VA(f.at), .bytes = bytes, .access = GM_WRITE };
	struct gm_ws *ws;

	OK(gm_ws_acquire(f.ctx, &range, 1, GM_FOREVER_NS, &ws));
	return ws;
}

/* Waits for who holds it; and when that takes too long the access fails, and works again later. */
Test(inthread, held_by_a_working_set)
{
	struct gm_as_config config = { .size = sizeof(config), .hold_ns = 60 * SECOND, .stuck = on_stuck };
	struct gm_ws *ws;
	pthread_t t;

	inthread_begin(&f, NULL, &config);
	ws = hold(BYTES);
	cr_assert_eq(pthread_create(&t, NULL, hold_on, ws), 0);
	IS(touch(f.at, true), GM_RET_SUCCESS);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	cr_assert_eq(pthread_join(t, NULL), 0);
	cr_assert_eq(atomic_load(&stuck_calls), 0);
	forker_end(&f);
	config.hold_ns = 50 * MS;
	config.wait_ns = 500 * MS;
	inthread_begin(&f, NULL, &config);
	ws = hold(BYTES);
	IS(touch(f.at + 5 * PAGE, false), GM_RET_TIMEDOUT);
	IS(touch(f.at + 5 * PAGE, false), GM_RET_TIMEDOUT);
	cr_assert_eq(atomic_load(&stuck_calls), 1);
	IS(gm_prefault(f.as, GM_VA(f.at), PAGE), GM_RET_BUSY);
	OK(gm_ws_release(ws, NULL));
	while (touch(f.at + 5 * PAGE, false)) /* "it comes home unasked", by the worker */
		usleep(1000);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	forker_end(&f);
}

/* A store to a page of which a device has a duplicate, with and without a mapping of it there. */
Test(inthread, duplicated)
{
	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	fill(f.at, 0, PAGES, 2);
	OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
	for (unsigned round = 0; round < 2; round++) {
		OK(gm_duplicate(f.as, GM_VA(f.at), BYTES, f.dev, NULL));
		if (round)
			cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 2 + round), 0);
		atomic_store(&bus.served, 0);
		cr_assert_eq(wrong(f.at, 0, PAGES, 2 + round), 0);
		cr_assert_eq(atomic_load(&bus.served), 0, "loads find the page");
		cr_assert_eq(kernel_writes(f.at + 40 * PAGE), EFAULT);
		OK(gm_prefault(f.as, GM_VA(f.at) + 40 * PAGE, PAGE));
		cr_assert_eq(kernel_writes(f.at + 40 * PAGE), 0);
		fill(f.at, 0, PAGES, 3 + round);
		cr_assert_gt(atomic_load(&bus.served), 0);
		cr_assert_eq(dev_wrong(f.ctx, GM_VA(f.at), PAGES, 3 + round), 0, "the device sees the stores");
	}
	forker_end(&f);
}

/* The kernel does not wait for such memory; also where nobody has touched it yet, but a device the rest of the block. */
Test(inthread, kernel_access)
{
	uint64_t word;

	inthread_begin(&f, NULL, NULL);
	cr_assert_eq(kernel_writes(f.at + 3 * PAGE), EFAULT);
	cr_assert(process_vm_readv(getpid(), &(struct iovec){ &word, 8 }, 1, &(struct iovec){ f.at + 3 * PAGE, 8 }, 1, 0) < 0 &&
		  errno == EFAULT);
	cr_assert_eq(place_of(&f, f.at + 3 * PAGE), GM_PLACE_DEVICE);
	OK(gm_prefault(f.as, GM_VA(f.at) + 3 * PAGE + 5, 1));
	cr_assert_eq(place_of(&f, f.at + 3 * PAGE), GM_PLACE_HOST);
	cr_assert_eq(kernel_writes(f.at + 3 * PAGE), 0);
	OK(gm_prefault(f.as, GM_VA(f.at), BYTES));
	cr_assert_eq(on_device(&f, f.at, PAGES), 0);
	OK(gm_discard(f.as, GM_VA(f.at), BLOCK));
	cr_assert_eq(kernel_writes(f.at + 7 * PAGE), EFAULT, "a hole");
	OK(gm_prefault(f.as, GM_VA(f.at), BYTES));
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		cr_assert_eq(kernel_writes(f.at + i * PAGE), 0, "page %u", i);
	cr_assert_eq(nonzero(f.at, 0, GM_BLOCK_PAGES) + wrong(f.at, GM_BLOCK_PAGES, PAGES, 2), 0);
	forker_end(&f);
}

/* ... nor does gm_prefault() mind other memory, or memory that is not the library's. */
Test(inthread, prefault_of_other_memory)
{
	char *strange = app_block_memory();

	lib_begin(&f, NULL, NULL);
	f.at = app_block_memory();
	OK(gm_adopt(f.as, f.at, BYTES, 0));
	to_device(&f, f.at, 2);
	OK(gm_prefault(f.as, GM_VA(f.at), BYTES));
	cr_assert_eq(on_device(&f, f.at, PAGES), 0);
	cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
	OK(gm_prefault(f.as, GM_VA(strange), BYTES));
	OK(gm_prefault(f.as, GM_VA(f.at) + BLOCK, 4 * BLOCK));
	forker_end(&f);
}

Test(inthread, on_another_rung)
{
	static const enum gm_rung none[] = { GM_RUNG_NO_MOVE, GM_RUNG_EXPLICIT };
	struct gm_lib_config lc = { .size = sizeof(lc) };
	struct gm_rung_info info;
	struct gm_as *as;
	void *at;

	for (unsigned i = 0; i < 2; i++) {
		struct gm_lib *lib;
		gm_ret_t ret;

		lc.lowest_rung = lc.highest_rung = none[i];
		ret = gm_lib_create(&lc, &lib);
		if (ret)
			continue;
		OK(gm_lib_rung(lib, &info));
		cr_assert(info.cannot & GM_RUNG_NO_INTHREAD);
		OK(gm_as_create(lib, 0, 0, NULL, &as));
		IS(gm_alloc(as, PAGE, GM_MEM_INTHREAD, &at), GM_RET_NOTSUP);
		cr_assert_not_null(strstr(gm_last_error(), "Linux 6.8"), "%s", gm_last_error());
		IS(gm_adopt(as, app_block_memory(), BLOCK, GM_MEM_INTHREAD), GM_RET_NOTSUP);
		OK(gm_as_destroy(as));
		OK(gm_lib_destroy(lib));
	}
	lc.lowest_rung = lc.highest_rung = GM_RUNG_USER;
	if (gm_lib_create(&lc, &f.lib))
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(gm_lib_rung(f.lib, &info));
	OK(gm_dev_open(f.lib, "mock:vram=32M", &f.dev));
	OK(gm_as_create(f.lib, 0, 0, NULL, &f.as));
	OK(gm_as_attach(f.as, f.dev, GM_ATTACH_IDENTITY, NULL, &f.ctx));
	catch_sigbus(f.as);
	if (!(info.cannot & GM_RUNG_NO_INTHREAD)) {
		f.at = app_block_memory();
		OK(gm_adopt(f.as, f.at, BYTES, GM_MEM_INTHREAD));
		to_device(&f, f.at, 2);
		cr_assert_eq(wrong(f.at, 0, PAGES, 2), 0);
		cr_assert_gt(counters_of(&f).cpu_faults_inthread, 0);
	}
	forker_end(&f);
}

Test(inthread, not_with_served_children)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_FORK_SERVE };
	struct gm_as *as;
	void *at;
	gm_ret_t ret;

	lib_begin(&f, NULL, NULL);
	ret = gm_as_create(f.lib, 0, 0, &config, &as);
	if (!ret) {
		IS(gm_alloc(as, PAGE, GM_MEM_INTHREAD, &at), GM_RET_NOTSUP);
		OK(gm_as_destroy(as));
	}
	forker_end(&f);
}

/* What is adopted one way is not adopted the other way over it. */
Test(inthread, adopted_twice)
{
	inthread_begin(&f, NULL, NULL);
	IS(gm_adopt(f.as, f.at, BYTES, 0), GM_RET_EXIST);
	OK(gm_prefault(f.as, GM_VA(f.at), BYTES));
	IS(gm_adopt(f.as, f.at, PAGE, 0), GM_RET_EXIST);
	IS(gm_adopt(f.as, f.at, PAGE, GM_MEM_INTHREAD), GM_RET_EXIST);
	cr_assert(is_inthread(&f, f.at));
	to_device(&f, f.at, 7);
	cr_assert_eq(wrong(f.at, 0, PAGES, 7), 0);
	forker_end(&f);
}

/* So many pieces, and not one more; a piece that goes makes room. */
Test(inthread, too_many_pieces)
{
	char *at = app_block_memory();
	unsigned n = 0;
	gm_ret_t ret = GM_RET_SUCCESS;

	lib_begin(&f, NULL, NULL);
	f.at = at;
	cr_assert_eq(BYTES / PAGE, 1024);
	for (; n < 512 && !ret; n++)
		ret = gm_adopt(f.as, at + n * (2 * PAGE), PAGE, GM_MEM_INTHREAD);
	OK(ret);
	at = app_block_memory();
	IS(gm_adopt(f.as, at, PAGE, GM_MEM_INTHREAD), GM_RET_NOMEM);
	OK(gm_adopt(f.as, at + PAGE, PAGE, 0));
	OK(gm_release(f.as, f.at + 8 * PAGE, PAGE));
	OK(gm_adopt(f.as, at, PAGE, GM_MEM_INTHREAD));
	cr_assert(is_inthread(&f, at) && !is_inthread(&f, at + PAGE) && !is_inthread(&f, f.at + 8 * PAGE) &&
		  is_inthread(&f, f.at + 10 * PAGE) && is_inthread(&f, f.at + 6 * PAGE));
	OK(gm_migrate(f.as, GM_VA(f.at), PAGE, f.dev, NULL));
	IS(touch(f.at, true), GM_RET_SUCCESS);
	forker_end(&f);
}
