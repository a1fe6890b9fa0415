/* SPDX-License-Identifier: MIT */
/*
 * The Linux HMM self-test over libgmem: one test per row of its table, the names
 * kept. This is the test driver's side of it (/dev/hmm_dmirror there): one or two
 * mock devices, a space, a buffer of 4 MiB, and what a program may ask a device
 * to do. docs/hmm-table.md has the table, and what differs in user space and why.
 *
 * Two kinds of device, chosen by GM_HMM_DEVICE in the environment:
 *
 *     range   no page faults: as the kernel's driver, an access that finds nothing
 *             ends, the rest of the range is asked for in one call (gm_ws_acquire()),
 *             and the access goes on. h->faults counts these calls.
 *     faults  raises faults, which the library serves. h->faults counts those.
 *
 * GM_HMM_AWAKE in the environment says that khugepaged scans ten times a second: small
 * pages may become huge ones at any moment, so hmm_small() does not look then.
 *
 * Results. The kernel's driver answers with an errno, the library with its own:
 *
 *     HMM                                         here
 *     EFAULT  no mapping, or no right to read     GM_RET_FAULT, GM_RET_PERM (PROT_NONE: a right that is not there)
 *     EPERM   no right to write                   GM_RET_PERM
 *     EINVAL  migration: no mapping               GM_RET_FAULT from gm_adopt() or gm_migrate()
 *     EINVAL  migration: not readable             GM_RET_BUSY from gm_migrate(), nothing moved
 *     ENOENT  migration: nothing could move       GM_RET_BUSY from gm_migrate(), nothing moved; memory of a kind that
 *                                                 never moves (shared, a file): GM_RET_NOTSUP from gm_adopt()
 *     EBUSY   not served in time                  GM_RET_BUSY, GM_RET_TIMEDOUT
 */
#ifndef GM_TEST_HMM_H
#define GM_TEST_HMM_H

#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "hmm_where.h"

#define HMM_BYTES (4 * (uint64_t)1024 * 1024)
#define HMM_PAGES (HMM_BYTES / PAGE)
#define HMM_SECOND UINT64_C(1000000000)
/* For machines under load; who waits so long has failed. */
#define HMM_LONG_NS (120 * HMM_SECOND)

#define HMM_NO_COHERENT                                                                                             \
	"NOT TESTED: device-coherent memory has pages of the kernel's own; a process cannot put such under anonymous " \
	"memory"

/* A row on the kind of device memory that there is, and on the one that cannot be. */
#define HMM_TEST(name)                                             \
	Test(hmm_coherent, name, .init = NULL, .fini = NULL)       \
	{                                                          \
		cr_skip_test(HMM_NO_COHERENT);                     \
	}                                                          \
	Test(hmm, name)

/* More of a row than the kernel's test looks at. */
#define HMM_MORE(name, what) Test(hmm, name##__##what)

struct hmm {
	struct gm_lib *lib;
	struct gm_as *as;
	struct gm_dev *dev[2];
	struct gm_ctx *ctx[2];
	bool raises;	 /* the devices raise faults */
	uint64_t faults; /* of the last access */
	uint64_t moved;	 /* pages that are where the last migration should bring them */
};

/* Memory of the program. */
struct hmm_buf {
	char *raw, *at;
	uint64_t raw_bytes, bytes;
};

static inline bool hmm_awake(void)
{
	return getenv("GM_HMM_AWAKE");
}

static inline void hmm_log(void *arg, enum gm_log_level level, const char *message)
{
	(void)arg;
	if (level <= GM_LOG_WARN)
		fprintf(stderr, "# gmem: %s\n", message);
}

/* A library of its own, a space, devices with `vram` of memory each ("64M"). `flags`: GM_AS_*. */
static inline void hmm_open_with(struct hmm *h, unsigned devices, const char *vram, uint32_t flags)
{
	struct gm_lib_config config = { .size = sizeof(config), .log = hmm_log };
	struct gm_as_config as = { .size = sizeof(as), .flags = flags };
	const char *kind = getenv("GM_HMM_DEVICE");
	gm_ret_t ret = gm_lib_create(&config, &h->lib);
	char spec[80];

	if ((ret == GM_RET_PERM || ret == GM_RET_NOTSUP) && !hmm_in_child)
		cr_skip_test("NOT TESTED: %s", gm_last_error());
	HMM_OK(ret);
	alarm(280); /* an access that nobody serves waits for ever */
	h->raises = kind && !strcmp(kind, "faults");
	HMM_OK(gm_as_create(h->lib, 0, 0, &as, &h->as));
	for (unsigned i = 0; i < devices; i++) {
		snprintf(spec, sizeof(spec), "mock:vram=%s,faults=%s", vram, h->raises ? "yes" : "no");
		HMM_OK(gm_dev_open(h->lib, spec, &h->dev[i]));
		HMM_OK(gm_as_attach(h->as, h->dev[i], GM_ATTACH_IDENTITY, NULL, &h->ctx[i]));
	}
}

static inline struct hmm hmm_open(unsigned devices)
{
	struct hmm h = { .faults = 0 };

	hmm_open_with(&h, devices, "64M", 0);
	return h;
}

/* Everything home, every invariant looked at, nothing left. */
static inline void hmm_close(struct hmm *h)
{
	char text[200] = "";

	HMM_TRUE(!gm_as_check(h->as, text, sizeof(text)), "%s", text);
	for (unsigned i = 0; i < 2 && h->dev[i]; i++)
		HMM_OK(gm_as_detach(h->ctx[i]));
	for (unsigned i = 0; i < 2 && h->dev[i]; i++) {
		struct gm_dev_info info;

		HMM_OK(gm_dev_query(h->dev[i], &info));
		HMM_TRUE(info.mem_free_bytes == info.mem_bytes, "device memory is left behind");
	}
	HMM_OK(gm_as_destroy(h->as));
	for (unsigned i = 0; i < 2; i++)
		HMM_OK(gm_dev_destroy(h->dev[i]));
	HMM_OK(gm_lib_destroy(h->lib));
}

/* ------------------------------------------------------------- the program */

enum hmm_pages {
	HMM_ANY_SIZE, /* as the system is set */
	HMM_THP,      /* asked to be huge */
	HMM_NO_THP,   /* asked to be small */
};

/*
 * Private anonymous memory on a 2 MiB boundary, with 2 MiB around it that are nobody's. Not adopted, never touched. Low
 * in the address space, where nobody else maps anything by chance: a hole that a test makes stays one.
 */
static inline struct hmm_buf hmm_map(uint64_t bytes, enum hmm_pages pages)
{
	struct hmm_buf b = { .bytes = bytes, .raw_bytes = (bytes + BLOCK - 1) / BLOCK * BLOCK + 2 * BLOCK };
	uint64_t va = UINT64_C(0x20000000);

	do {
		b.raw = mmap((void *)(uintptr_t)va, b.raw_bytes, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		va += BLOCK;
	} while (b.raw == MAP_FAILED && va < UINT64_C(0x60000000));
	HMM_TRUE(b.raw != MAP_FAILED, "mmap");
	b.at = b.raw + BLOCK;
	HMM_TRUE(mmap(b.at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == b.at, "mmap");
	if (pages)
		HMM_TRUE(!madvise(b.at, bytes, pages == HMM_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), "madvise");
	return b;
}

static inline void hmm_unmap(struct hmm_buf *b)
{
	HMM_TRUE(!munmap(b->raw, b->raw_bytes), "munmap");
}

static inline void hmm_adopt(struct hmm *h, const struct hmm_buf *b)
{
	HMM_OK(gm_adopt(h->as, b->at, b->bytes, 0));
}

/* A buffer that is adopted. */
static inline struct hmm_buf hmm_buffer(struct hmm *h, uint64_t bytes, enum hmm_pages pages)
{
	struct hmm_buf b = hmm_map(bytes, pages);

	hmm_adopt(h, &b);
	return b;
}

/* What word i of a pattern is: never 0. */
static inline uint32_t hmm_word(uint64_t i, uint32_t salt)
{
	return ((uint32_t)i * 2654435761u ^ salt * 40503u) | 1u;
}

static inline void hmm_fill(void *at, uint64_t bytes, uint32_t salt)
{
	for (uint64_t i = 0; i < bytes / 4; i++)
		((volatile uint32_t *)at)[i] = hmm_word(i, salt);
}

/* How many words are not as they should be. */
static inline uint64_t hmm_wrong(const void *at, uint64_t bytes, uint32_t salt)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < bytes / 4; i++)
		wrong += ((const volatile uint32_t *)at)[i] != hmm_word(i, salt);
	return wrong;
}

static inline uint64_t hmm_nonzero(const void *at, uint64_t bytes)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < bytes / 4; i++)
		wrong += ((const volatile uint32_t *)at)[i] != 0;
	return wrong;
}

/* Memory of the test's own that the library never has to do with; small pages, so that it is never taken for a buffer. */
static inline void *hmm_private(uint64_t bytes)
{
	void *p = malloc(bytes);

	HMM_TRUE(p, "no memory");
	memset(p, 0xee, bytes);
	return p;
}

/* A copy of what a pattern looks like. The caller frees it. */
static inline void *hmm_pattern(uint64_t bytes, uint32_t salt)
{
	void *p = hmm_private(bytes);

	hmm_fill(p, bytes, salt);
	return p;
}

/* Touched by the CPU the range must have become huge; where the machine has no huge page to give the test says so. */
static inline void hmm_need_huge(const void *at, uint64_t bytes)
{
	uint64_t huge = hmm_pages(at, bytes, HMM_PRESENT | HMM_HUGE, 0);

	if (huge != bytes / PAGE && !hmm_in_child)
		cr_skip_test("NOT TESTED: the system gave no huge pages (%u of %u)", (unsigned)huge, (unsigned)(bytes / PAGE));
	HMM_TRUE(huge == bytes / PAGE, "no huge pages");
}

/* Small pages, unless khugepaged may have been there. */
static inline void hmm_small(const void *at, uint64_t bytes)
{
	HMM_TRUE(hmm_awake() || !hmm_pages(at, bytes, HMM_HUGE, 0), "huge pages where small ones should be");
}

/* -------------------------------------------------------------- the device */

struct hmm_io {
	uint64_t va, bytes, done;
	char *buf;
	bool write;
};

static inline gm_ret_t hmm_kernel(struct gm_mock_thread *t, unsigned index, void *arg)
{
	struct hmm_io *io = arg;

	(void)index;
	for (; io->done < io->bytes; io->done += PAGE) {
		gm_ret_t ret = io->write ? gm_mock_store(t, io->va + io->done, io->buf + io->done, PAGE)
					 : gm_mock_load(t, io->va + io->done, io->buf + io->done, PAGE);

		if (ret)
			return ret;
	}
	return GM_RET_SUCCESS;
}

static inline gm_ret_t hmm_launch(struct gm_ctx *ctx, gm_mock_kernel kernel, void *arg)
{
	struct gm_fence *fence = NULL;
	gm_ret_t ret = gm_mock_launch(ctx, kernel, arg, 1, &fence);

	if (ret)
		return ret;
	ret = gm_fence_wait(fence, HMM_LONG_NS);
	gm_fence_put(fence);
	return ret;
}

/* As dmirror_read() and dmirror_write(): go on from where nothing was mapped, after one call for all the rest. */
static inline gm_ret_t hmm_io_range(struct hmm *h, unsigned i, struct hmm_io *io)
{
	struct gm_ws_range rest;
	struct gm_ws *ws = NULL;
	gm_ret_t ret = hmm_launch(h->ctx[i], hmm_kernel, io);

	if (ret != GM_RET_FAULT && ret != GM_RET_PERM)
		return ret;
	rest = (struct gm_ws_range){ .va = io->va + io->done, .bytes = io->bytes - io->done,
				     .access = io->write ? GM_READ | GM_WRITE : GM_READ };
	h->faults++;
	ret = gm_ws_acquire(h->ctx[i], &rest, 1, HMM_LONG_NS, &ws);
	if (ret)
		return ret;
	ret = hmm_launch(h->ctx[i], hmm_kernel, io);
	HMM_OK(gm_ws_release(ws, NULL));
	return ret;
}

static inline gm_ret_t hmm_io(struct hmm *h, unsigned i, struct hmm_io *io)
{
	struct gm_mock_stats before, after;
	gm_ret_t ret;

	h->faults = 0;
	if (!h->raises)
		return hmm_io_range(h, i, io);
	HMM_OK(gm_mock_stats(h->dev[i], &before));
	ret = hmm_launch(h->ctx[i], hmm_kernel, io);
	HMM_OK(gm_mock_stats(h->dev[i], &after));
	h->faults = after.faults - before.faults;
	return ret;
}

/* HMM_DMIRROR_READ: the device reads, `into` memory of the test's own. */
static inline gm_ret_t hmm_dev_read(struct hmm *h, unsigned i, const void *at, uint64_t bytes, void *into)
{
	struct hmm_io io = { .va = GM_VA(at), .bytes = bytes, .buf = into };

	return hmm_io(h, i, &io);
}

/* HMM_DMIRROR_WRITE */
static inline gm_ret_t hmm_dev_write(struct hmm *h, unsigned i, void *at, uint64_t bytes, void *from)
{
	struct hmm_io io = { .va = GM_VA(at), .bytes = bytes, .buf = from, .write = true };

	return hmm_io(h, i, &io);
}

/* Asked for as one range: one call. By faults: they are served in larger and larger pieces, far fewer than pages. */
static inline void hmm_faults_of_cold(const struct hmm *h, uint64_t pages)
{
	if (h->raises)
		HMM_TRUE(h->faults >= 1 && h->faults <= pages / 16, "%llu faults for %llu pages",
			 (unsigned long long)h->faults, (unsigned long long)pages);
	else
		HMM_TRUE(h->faults == 1, "%llu fault calls instead of 1", (unsigned long long)h->faults);
}

/* HMM_DMIRROR_MIGRATE_TO_DEV; h->moved: pages that are there. */
static inline gm_ret_t hmm_to_dev(struct hmm *h, unsigned i, void *at, uint64_t bytes)
{
	uint64_t moved = 0;
	gm_ret_t ret = gm_migrate(h->as, GM_VA(at), bytes, h->dev[i], &moved);

	h->moved = moved / PAGE;
	return ret;
}

/* HMM_DMIRROR_MIGRATE_TO_SYS */
static inline gm_ret_t hmm_to_sys(struct hmm *h, void *at, uint64_t bytes)
{
	uint64_t moved = 0;
	gm_ret_t ret = gm_migrate(h->as, GM_VA(at), bytes, NULL, &moved);

	h->moved = moved / PAGE;
	return ret;
}

/* All of it must go, and be there. */
static inline void hmm_away_all(struct hmm *h, unsigned i, const struct hmm_buf *b, const void *want)
{
	HMM_OK(hmm_to_dev(h, i, b->at, b->bytes));
	HMM_TRUE(h->moved == b->bytes / PAGE, "%u pages moved", (unsigned)h->moved);
	hmm_on_device(h->as, h->dev[i], b->at, b->bytes, want);
}

/* What was unmapped leaves the devices as well: when the event was handled, which munmap() does not wait for. */
static inline void hmm_gone(struct hmm *h, const struct hmm_buf *b)
{
	struct timespec ms = { 0, 1000000 };

	for (unsigned i = 0; i < 60000 && hmm_away(h->as, b->at, b->bytes); i++)
		nanosleep(&ms, NULL);
	HMM_TRUE(!hmm_away(h->as, b->at, b->bytes), "a device has what is unmapped");
}

/* FLAG_FAIL_ALLOC, for good: one unit of each 2 MiB of device memory is taken, so that no frame of 2 MiB is to be had. */
static inline void hmm_fragment(struct gm_dev *dev, struct gm_chunk **kept, unsigned n)
{
	struct gm_chunk *all[1024];
	unsigned units = 0, k = 0;

	while (units < 1024 && (all[units] = gm_node_take(&dev->node, 0)))
		units++;
	HMM_TRUE(units == n * GM_BLOCK_UNITS, "%u units", units);
	for (unsigned u = 0; u < units; u++) {
		if ((all[u]->pa - GM_MOCK_PA_BASE) % BLOCK)
			gm_node_put(&dev->node, all[u]);
		else
			kept[k++] = all[u];
	}
	HMM_TRUE(k == n, "%u pieces of 2 MiB", k);
}

static inline void hmm_mend(struct gm_dev *dev, struct gm_chunk **kept, unsigned n)
{
	for (unsigned u = 0; u < n; u++)
		gm_node_put(&dev->node, kept[u]);
}

/* -------------------------------------------------------------- processes */

/* Run `body` in a child; 0 if all of its assertions held. */
static inline int hmm_child(void (*body)(void *arg), void *arg)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		hmm_in_child = true;
		body(arg);
		_exit(0);
	}
	HMM_TRUE(pid > 0 && waitpid(pid, &status, 0) == pid, "no child");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

#endif
