/* SPDX-License-Identifier: MIT */
/*
 * Everything a process does to its memory keeps its meaning: what the tests of it share. The real host and the mock
 * device; skipped, loudly, where there is no right to userfaultfd.
 *
 * A test is a function that does one thing to memory. each_place() calls it for
 *
 *     where the bytes are:  on the host | on the device, clean | dirty | half of them, dirty
 *     pages:                of 4 KiB | of 2 MiB
 *     who looks first:      the CPU | the device, in a space with the defaults;
 *                           the device in one with GM_AS_EXCLUSIVE; the CPU with the device in a window
 *
 * Before the function is called it is certain where the bytes are: gm_query(), the kernel's page map and the device's own
 * memory say the same. A test that passes when nothing ever moves proves nothing.
 *
 * All memory lies in one reserved piece of address space (the arena), which the window covers: where a test takes a
 * place of its choice (mremap, mmap), it takes it there.
 */
#ifndef GM_TEST_PROCESS_H
#define GM_TEST_PROCESS_H

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <gmem/gmem.h>

#include "core/gm_as.h"

#define PAGE ((uint64_t)GM_PAGE_BYTES)
#define UNIT_PAGES ((uint64_t)(GM_UNIT_BYTES / GM_PAGE_BYTES))
#define BLOCK ((uint64_t)GM_BLOCK_BYTES)
#define BLOCK_PAGES ((uint64_t)GM_BLOCK_PAGES)
#define PAGES (2 * BLOCK_PAGES)
#define BYTES (2 * BLOCK)
#define ARENA (16 * BLOCK)
#define ARENA_VA UINT64_C(0x20000000)
#define WINDOW_VA (UINT64_C(1) << 40)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

enum place { HOST, CLEAN, DIRTY, HALF, PLACES };

/* What has been on a device is watched for as long as a test takes, on any machine: so an event tells what becomes of it. */
#define PATIENCE_NS (UINT64_C(600) * 1000 * 1000 * 1000)

struct proc {
	enum place place;
	bool huge, dev_first, window;
	uint32_t flags; /* of the space */
	struct gm_lib *lib;
	struct gm_dev *dev;
	struct gm_as *as;
	struct gm_ctx *ctx;
	char *arena, *at;      /* at: BYTES in it, on a block boundary, adopted */
	uint64_t want[PAGES];  /* what the word of each page of `at` must be */
	bool away[PAGES];      /* on the device before the test does anything */
};

/* For the messages of failures; a test has one at a time. */
static char proc_now[160];

#define MUST(condition, ...)                                                                          \
	do {                                                                                          \
		char must_[256];                                                                      \
		bool ok_ = (condition);                                                               \
                                                                                                      \
		(void)snprintf(must_, sizeof(must_), __VA_ARGS__);                                    \
		cr_assert(ok_, "%s: %s: %s (errno %d)", proc_now, #condition, must_, errno);           \
	} while (0)

#define OK(call)                                                                                              \
	do {                                                                                                  \
		gm_ret_t ok_ret_ = (call);                                                                    \
		cr_assert_eq(ok_ret_, GM_RET_SUCCESS, "%s: %s: %s: %s", proc_now, #call, gm_ret_name(ok_ret_), \
			     gm_last_error());                                                                \
	} while (0)

#define IS(call, want)                                                                                             \
	do {                                                                                                       \
		gm_ret_t is_ret_ = (call);                                                                         \
		cr_assert_eq(is_ret_, want, "%s: %s: %s instead of %s", proc_now, #call, gm_ret_name(is_ret_),       \
			     gm_ret_name(want));                                                                   \
	} while (0)

/* A system call that must succeed. */
#define SYS(call) MUST((call) == 0, "system call")

static inline void nap(void)
{
	struct timespec ms = { 0, 1000000 };

	nanosleep(&ms, NULL);
}

/* Until the condition holds, or long enough for any machine; the caller asserts it. */
#define WAIT_FOR(condition)                                            \
	do {                                                           \
		for (unsigned ms_ = 0; ms_ < 60000 && !(condition); ms_++) \
			nap();                                         \
	} while (0)

/* ----------------------------------------------------------- its memory */

/* Page i has one word that is looked at, at an address of its own; and what it is. */
static inline volatile uint64_t *word_at(const char *base, uint64_t i)
{
	return (volatile uint64_t *)(uintptr_t)(base + i * PAGE + (i * 8) % PAGE);
}

static inline uint64_t word(uint64_t i, uint64_t salt)
{
	return salt * 1000003 + i + 1;
}

static inline void cpu_fill(struct proc *p, char *base, uint64_t first, uint64_t end, uint64_t salt)
{
	for (uint64_t i = first; i < end; i++)
		*word_at(base, i) = p->want[i] = word(i, salt);
}

static inline uint64_t cpu_wrong(struct proc *p, const char *base, uint64_t first, uint64_t end)
{
	uint64_t wrong = 0;

	for (uint64_t i = first; i < end; i++)
		wrong += *word_at(base, i) != p->want[i];
	return wrong;
}

/* ----------------------------------------------------------- the device */

struct proc_job {
	uint64_t base, first, end, wrong;
	uint64_t *want;
	uint64_t salt; /* not 0: store this */
};

static inline gm_ret_t proc_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct proc_job *job = arg;
	gm_ret_t ret = GM_RET_SUCCESS;

	(void)index;
	for (uint64_t i = job->first; i < job->end && !ret; i++) {
		uint64_t va = job->base + i * PAGE + (i * 8) % PAGE, value = word(i, job->salt);

		if (job->salt)
			ret = gm_mock_store(t, va, &value, sizeof(value));
		else
			ret = gm_mock_load(t, va, &value, sizeof(value));
		if (!ret && job->salt)
			job->want[i] = value;
		job->wrong += !ret && value != job->want[i];
	}
	return ret;
}

static inline gm_ret_t dev_run(struct proc *p, struct proc_job *job)
{
	struct gm_fence *fence = NULL;
	gm_ret_t ret;

	ret = gm_mock_launch(p->ctx, proc_kernel, job, 1, &fence);
	if (ret)
		return ret;
	ret = gm_fence_wait(fence, GM_FOREVER_NS);
	gm_fence_put(fence);
	return ret;
}

static inline uint64_t dev_va(const struct proc *p, const char *at)
{
	return p->window ? GM_VA(at) - GM_VA(p->arena) + WINDOW_VA : GM_VA(at);
}

static inline void dev_fill(struct proc *p, char *base, uint64_t first, uint64_t end, uint64_t salt)
{
	struct proc_job job = { .base = dev_va(p, base), .first = first, .end = end, .want = p->want, .salt = salt };

	OK(dev_run(p, &job));
}

static inline uint64_t dev_wrong(struct proc *p, const char *base, uint64_t first, uint64_t end)
{
	struct proc_job job = { .base = dev_va(p, base), .first = first, .end = end, .want = p->want };

	OK(dev_run(p, &job));
	return job.wrong;
}

/* One access of a job of the device; its result. */
static inline gm_ret_t dev_touch(struct proc *p, const char *at, bool write)
{
	uint64_t want = 0;
	struct proc_job job = { .base = dev_va(p, at), .end = 1, .want = &want, .salt = write };

	return dev_run(p, &job);
}

/* What the device's own page table and memory have, without a fault. */
static inline gm_ret_t dev_peek(struct proc *p, const char *at, uint64_t *value)
{
	return gm_mock_mmu()->access(gm_ctx_pmap(p->ctx), dev_va(p, at), value, sizeof(*value), false);
}

static inline bool dev_all_free(struct proc *p)
{
	struct gm_dev_info info;

	OK(gm_dev_query(p->dev, &info));
	return info.mem_free_bytes == info.mem_bytes;
}

/* ------------------------------------------------------------ where it is */

static inline struct gm_page_info info_of(struct proc *p, const char *at)
{
	struct gm_page_info info;

	OK(gm_query(p->as, GM_VA(at) & ~(PAGE - 1), 1, &info));
	return info;
}

/* Bit 63: present; 62: swapped, or a marker; 0: the process has nothing there. */
static inline uint64_t pagemap_of(const char *at)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	MUST(fd >= 0, "pagemap");
	MUST(pread(fd, &entry, sizeof(entry), (off_t)(GM_VA(at) / PAGE * sizeof(entry))) == sizeof(entry), "pagemap");
	close(fd);
	return entry >> 62;
}

/* A page is given to the process a moment before it is noted; what is on its way is waited for. */
static inline bool query_still(struct proc *p, const char *at, uint64_t n, struct gm_page_info *info)
{
	bool still = true;

	OK(gm_query(p->as, GM_VA(at), n, info));
	for (uint64_t i = 0; i < n; i++)
		still = still && !(info[i].flags & GM_PAGE_BUSY);
	return still;
}

/* How many pages of [first, end) the device has, by each of three witnesses; they must agree. */
static inline uint64_t pages_away(struct proc *p, const char *base, uint64_t first, uint64_t end)
{
	static struct gm_page_info info[PAGES];
	static uint64_t entry[PAGES];
	uint64_t away = 0, n = end - first;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	MUST(fd >= 0 && n && n <= PAGES, "%llu pages", (unsigned long long)n);
	WAIT_FOR(query_still(p, base + first * PAGE, n, info));
	MUST(pread(fd, entry, n * 8, (off_t)((GM_VA(base) / PAGE + first) * 8)) == (ssize_t)(n * 8), "pagemap");
	close(fd);
	for (uint64_t i = 0; i < n; i++) {
		bool dev = info[i].place == GM_PLACE_DEVICE;
		uint64_t value;

		away += dev;
		MUST(!dev || info[i].dev == p->dev, "page %u", (unsigned)i);
		MUST(!dev || !(entry[i] >> 62), "page %u is on the device, and present", (unsigned)i);
		if (dev && info[i].mapped_read) {
			OK(dev_peek(p, (const char *)(uintptr_t)word_at(base, first + i), &value));
			MUST(value == p->want[first + i], "page %u in the device's memory", (unsigned)i);
		}
	}
	return away;
}

/* Page by page as `away` says, and dirty or not. */
static inline void assert_placed(struct proc *p)
{
	uint64_t away = 0, value;

	for (uint64_t i = 0; i < PAGES; i++) {
		struct gm_page_info info = i % 64 ? (struct gm_page_info){ .place = GM_PLACE_NONE } : info_of(p, p->at + i * PAGE);

		away += p->away[i];
		if (i % 64)
			continue;
		MUST((info.place == GM_PLACE_DEVICE) == p->away[i], "page %u", (unsigned)i);
		if (!p->away[i]) {
			MUST(pagemap_of(p->at + i * PAGE) & 2, "page %u", (unsigned)i);
			IS(dev_peek(p, p->at + i * PAGE, &value), GM_RET_FAULT);
			continue;
		}
		MUST(info.mapped_read, "page %u", (unsigned)i);
		MUST(!(info.flags & GM_PAGE_BACKED) == !!(p->flags & GM_AS_EXCLUSIVE), "the host's frame");
		MUST(!(info.flags & GM_PAGE_DIRTY) == (p->place == CLEAN && !(p->flags & GM_AS_EXCLUSIVE)), "dirty");
	}
	MUST(pages_away(p, p->at, 0, PAGES) == away, "in all");
}

static inline bool is_half(const struct proc *p, uint64_t i)
{
	return p->huge ? i >= PAGES / 4 && i < PAGES / 4 * 3 : i / UNIT_PAGES % 2;
}

/* Move it to where this variant wants it. */
static inline void move_there(struct proc *p)
{
	for (uint64_t i = 0; i < PAGES; i++)
		p->away[i] = p->place == CLEAN || p->place == DIRTY || (p->place == HALF && is_half(p, i));
	for (uint64_t i = 0, end; i < PAGES; i = end) {
		for (end = i + 1; end < PAGES && p->away[end] == p->away[i];)
			end++;
		if (!p->away[i])
			continue;
		OK(gm_migrate(p->as, GM_VA(p->at) + i * PAGE, (end - i) * PAGE, p->dev, NULL));
		if (p->place == CLEAN)
			MUST(dev_wrong(p, p->at, i, end) == 0, "brought to the device");
		else
			dev_fill(p, p->at, i, end, 2);
	}
}

/* Fresh memory of the process at `at`, as a program would make it. */
static inline void map_at(struct proc *p, char *at, uint64_t bytes)
{
	MUST(mmap(at, bytes, RW, ANON | MAP_FIXED, -1, 0) == at, "mmap");
	SYS(madvise(at, bytes, p->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
}

static inline void proc_get(struct proc *p)
{
	p->at = p->arena + BLOCK;
	map_at(p, p->at, BYTES);
	cpu_fill(p, p->at, 0, PAGES, 1);
	OK(gm_adopt(p->as, p->at, BYTES, 0));
	move_there(p);
	assert_placed(p);
}

/* All of the arena goes; nothing of it may be left on the device, nor an invariant broken. */
static inline void proc_put(struct proc *p)
{
	char text[200] = "";

	MUST(mmap(p->arena, ARENA, PROT_NONE, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0) == p->arena, "mmap");
	(void)gm_release(p->as, p->arena, ARENA); /* what nobody watched is still known */
	WAIT_FOR(dev_all_free(p));
	MUST(dev_all_free(p), "device memory of what is gone");
	MUST(gm_as_check(p->as, text, sizeof(text)) == GM_RET_SUCCESS, "%s", text);
}

/* ------------------------------------------------------------ what it means */

/* Both sides find what is wanted, then what the device stores anew. */
static inline void assert_same(struct proc *p, char *base, uint64_t first, uint64_t end)
{
	uint64_t wrong;

	if (first >= end)
		return;
	for (unsigned turn = 0; turn < 2; turn++) {
		bool dev = (turn == 0) == p->dev_first;

		wrong = dev ? dev_wrong(p, base, first, end) : cpu_wrong(p, base, first, end);
		MUST(!wrong, "%llu of %llu words are wrong for the %s", (unsigned long long)wrong,
		     (unsigned long long)(end - first), dev ? "device" : "CPU");
	}
	dev_fill(p, base, first, end, 7);
	MUST(pages_away(p, base, first, end) > 0, "the device has what it has just written");
	wrong = cpu_wrong(p, base, first, end);
	MUST(!wrong, "%llu words that the device stored are wrong for the CPU", (unsigned long long)wrong);
}

/* Managed, and zero for both sides. */
static inline void assert_zero(struct proc *p, char *base, uint64_t first, uint64_t end)
{
	for (uint64_t i = first; i < end; i++)
		p->want[i] = 0;
	assert_same(p, base, first, end);
}

/*
 * Nothing that a device may see. Where none had any of it lately (HOST) nobody watched it: gm_query() may not know yet.
 */
static inline void assert_outside(struct proc *p, const char *base, uint64_t first, uint64_t end)
{
	uint64_t value;

	for (uint64_t i = first; i < end; i += 37) {
		IS(gm_dev_fault(p->ctx, GM_VA(base) + i * PAGE, GM_READ), GM_RET_FAULT);
		MUST(p->place == HOST || info_of(p, base + i * PAGE).place == GM_PLACE_OUTSIDE, "page %u", (unsigned)i);
		IS(dev_peek(p, base + i * PAGE, &value), GM_RET_FAULT);
	}
	IS(dev_touch(p, base + first * PAGE, false), GM_RET_FAULT);
}

/*
 * Private memory of the address's next owner: not to be seen by devices until he adopts it. Where nobody watched (HOST)
 * it counts as adopted still; then a device sees what it has now.
 */
static inline void assert_next_owner(struct proc *p, const char *base, uint64_t first, uint64_t end)
{
	if (p->place == HOST && gm_dev_fault(p->ctx, GM_VA(base) + first * PAGE, GM_READ) == GM_RET_SUCCESS)
		MUST(dev_wrong(p, base, first, end) == 0, "old bytes in new memory");
	else
		assert_outside(p, base, first, end);
}

/* Adopted by its next owner: whatever the library still took it for before. */
static inline void adopt_next(struct proc *p, char *at, uint64_t bytes)
{
	gm_ret_t ret = gm_adopt(p->as, at, bytes, 0);

	if (p->place == HOST && ret == GM_RET_EXIST) {
		OK(gm_release(p->as, at, bytes));
		ret = gm_adopt(p->as, at, bytes, 0);
	}
	MUST(!ret, "gm_adopt: %s", gm_ret_name(ret));
}

/* -------------------------------------------------------------- variants */

static inline void proc_open(struct proc *p)
{
	/* What comes along with a fault is what the test says: no growing. */
	struct gm_as_config config = { .size = sizeof(config), .flags = p->flags, .cpu_around_bytes = GM_UNIT_BYTES,
				       .dev_around_bytes = GM_UNIT_BYTES, .slice_ns = 1 };
	struct gm_window window = { .bytes = ARENA, .dev_va = WINDOW_VA };
	gm_ret_t ret = gm_lib_create(NULL, &p->lib);
	char *raw;

	if (ret == GM_RET_PERM || ret == GM_RET_NOTSUP)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	OK(ret);
	(void)alarm(280); /* an access that nobody serves waits for ever */
	/* Low, where nobody else maps anything by chance: what a test unmaps stays free. */
	raw = mmap((void *)(uintptr_t)ARENA_VA, ARENA, PROT_NONE, ANON | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	MUST(raw != MAP_FAILED, "mmap");
	p->arena = raw;
	window.va = GM_VA(p->arena);
	OK(gm_dev_open(p->lib, "mock:vram=16M", &p->dev));
	OK(gm_as_create(p->lib, 0, 0, &config, &p->as));
	p->as->forget_ns = PATIENCE_NS; /* nothing was used yet: nobody reads it */
	OK(gm_as_attach(p->as, p->dev, p->window ? GM_ATTACH_WINDOW : GM_ATTACH_IDENTITY, p->window ? &window : NULL,
			&p->ctx));
}

static inline void proc_close(struct proc *p)
{
	OK(gm_as_destroy(p->as));
	OK(gm_dev_destroy(p->dev));
	OK(gm_lib_destroy(p->lib));
	SYS(munmap(p->arena, ARENA));
}

static inline void proc_name(const struct proc *p)
{
	static const char *const places[] = { "on the host", "clean", "dirty", "half of it dirty" };

	(void)snprintf(proc_now, sizeof(proc_now), "[%s, %s pages, %s%s, the %s looks first]", places[p->place],
		       p->huge ? "huge" : "small", p->flags ? "exclusive" : "default", p->window ? " in a window" : "",
		       p->dev_first ? "device" : "CPU");
}

typedef void (*proc_fn)(struct proc *p);

static inline void each_place_of(proc_fn fn, unsigned worlds)
{
	static struct proc p;

	for (unsigned w = 0; w < worlds; w++) {
		memset(&p, 0, sizeof(p));
		p.flags = w == 2 ? GM_AS_EXCLUSIVE : 0;
		p.window = w == 3;
		p.dev_first = w == 1 || w == 2;
		proc_open(&p);
		for (unsigned v = 0; v < 2 * PLACES; v++) {
			p.place = (enum place)(v / 2);
			p.huge = v % 2;
			proc_name(&p);
			proc_get(&p);
			fn(&p);
			proc_put(&p);
		}
		proc_close(&p);
	}
}

static inline void each_place(proc_fn fn)
{
	each_place_of(fn, 4);
}

/* PLACE_TEST(suite, name) { body; uses p } */
#define PLACE_TEST(suite, name)                      \
	static void name##_body(struct proc *p);     \
	Test(suite, name)                            \
	{                                            \
		each_place(name##_body);             \
	}                                            \
	static void name##_body(struct proc *p)

#endif
