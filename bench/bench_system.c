/* SPDX-License-Identifier: MIT */
/* Pinning, buffers, and the library made ready: see bench.h. */
#include "config.h"

#include "bench/bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define VRAM_BYTES (64u << 20)

/* The CPUs the program was started with. */
static const cpu_set_t *own_cpus(void)
{
	static cpu_set_t set;
	static bool known;

	if (!known) { /* by the main thread, before there are others */
		if (sched_getaffinity(0, sizeof(set), &set))
			bench_die("sched_getaffinity failed");
		known = true;
	}
	return &set;
}

unsigned bench_cpus(void)
{
	return (unsigned)CPU_COUNT(own_cpus());
}

static void pin(pid_t tid, unsigned cpu)
{
	const cpu_set_t *own = own_cpus();
	cpu_set_t one;
	int at = 0;

	for (; at < CPU_SETSIZE; at++)
		if (CPU_ISSET(at, own) && cpu-- == 0)
			break;
	CPU_ZERO(&one);
	CPU_SET(at, &one);
	if (sched_setaffinity(tid, sizeof(one), &one))
		bench_die("a thread cannot be pinned");
}

void bench_pin_self(unsigned cpu)
{
	(void)own_cpus(); /* before it changes */
	pin(0, cpu);
}

void bench_unpin_self(void)
{
	if (sched_setaffinity(0, sizeof(cpu_set_t), own_cpus()))
		bench_die("the pinning cannot be undone");
}

static bool has_name(const char *tid, const char *name)
{
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm", tid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(comm, sizeof(comm), f))
		comm[0] = '\0';
	fclose(f);
	return strncmp(comm, name, strlen(name)) == 0;
}

static unsigned pin_named(const char *name, unsigned cpu)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned found = 0;

	if (!dir)
		bench_die("/proc/self/task cannot be read");
	for (struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.' || !has_name(e->d_name, name))
			continue;
		pin((pid_t)atoi(e->d_name), cpu);
		found++;
	}
	closedir(dir);
	return found;
}

void bench_pin_threads(const char *name, unsigned cpu)
{
	/* A thread that was started a moment ago has yet to take its name. */
	for (unsigned tries = 0; tries < 1000; tries++) {
		if (pin_named(name, cpu))
			return;
		usleep(1000);
	}
	bench_die("no thread called %s", name);
}

void *bench_buffer(uint64_t bytes, bool huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	char *raw = mmap(NULL, bytes + BENCH_BLOCK, PROT_READ | PROT_WRITE, flags, -1, 0);
	char *at;

	if (raw == MAP_FAILED)
		bench_die("no address space for %llu bytes", (unsigned long long)bytes);
	at = (char *)(((uintptr_t)raw + BENCH_BLOCK - 1) / BENCH_BLOCK * BENCH_BLOCK);
	if (at > raw)
		munmap(raw, (size_t)(at - raw));
	munmap(at + bytes, (size_t)(raw + BENCH_BLOCK - at));
	if (madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		bench_die("the kernel has no huge pages");
	memset(at, 1, bytes);
	return at;
}

void bench_buffer_free(void *buf, uint64_t bytes)
{
	munmap(buf, bytes);
}

/* The kernel's pm_scan_arg and page_region, younger than some systems' headers. */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};
struct scan_region {
	uint64_t start, end, categories;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_arg)
#define SCAN_HUGE (UINT64_C(1) << 6)

bool bench_is_huge(const void *buf, uint64_t bytes, bool huge)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct scan_region vec[64];
	struct scan_arg a = {
		.size = sizeof(a),
		.start = GM_VA(buf),
		.end = GM_VA(buf) + bytes,
		.vec = GM_VA(vec),
		.vec_len = 64,
		.mask = SCAN_HUGE,
		.returned = SCAN_HUGE,
	};
	uint64_t found = 0;
	int n;

	memset(vec, 0, sizeof(vec));
	if (fd < 0)
		bench_die("/proc/self/pagemap cannot be read");
	n = ioctl(fd, SCAN_REQUEST, &a);
	close(fd);
	if (n < 0)
		bench_die("PAGEMAP_SCAN failed: Linux 6.7 or later is needed");
	for (int i = 0; i < n; i++)
		found += vec[i].end - vec[i].start;
	return found == (huge ? bytes : 0);
}

uint64_t bench_word(uint64_t page, uint64_t seed)
{
	return (page + 1) * 0x9e3779b97f4a7c15u ^ seed;
}

void bench_fill(void *buf, uint64_t bytes, uint64_t seed)
{
	for (uint64_t page = 0; page < bytes / BENCH_PAGE; page++)
		*(uint64_t *)(void *)((char *)buf + page * BENCH_PAGE) = bench_word(page, seed);
}

void bench_verify(const void *buf, uint64_t bytes, uint64_t seed)
{
	for (uint64_t page = 0; page < bytes / BENCH_PAGE; page++) {
		const void *at = (const char *)buf + page * BENCH_PAGE;

		if (*(const volatile uint64_t *)at != bench_word(page, seed))
			bench_die("page %llu has wrong content: nothing measured here means anything",
				  (unsigned long long)page);
	}
}

/* The mock's, and note where its memory is. */
static gm_ret_t open_device(void *data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	struct bench_gm *g = data;
	gm_ret_t ret = gm_mock_mmu()->dev_init(&g->mock, svc, caps, dev);

	if (!ret)
		g->vram = caps->slab[0].begin;
	return ret;
}

void bench_gm_open(struct bench_gm *g, const struct bench_gm_config *c)
{
	struct gm_as_config as = {
		.size = sizeof(as),
		.flags = c->exclusive ? GM_AS_EXCLUSIVE : 0,
		.cpu_unit_bytes = c->cpu_unit_bytes,
		.cpu_around_bytes = c->cpu_around_bytes,
	};
	void *mem;

	g->mock = (struct gm_mock_config){ .size = sizeof(g->mock), .vram_bytes = VRAM_BYTES };
	if (g->mock.vram_bytes < c->bytes)
		g->mock.vram_bytes = c->bytes;
	g->mmu = *gm_mock_mmu();
	g->mmu.dev_init = open_device;
	if (c->copy)
		g->mmu.copy = c->copy;
	BENCH_TRY(gm_lib_create(NULL, &g->lib));
	BENCH_TRY(gm_dev_create(g->lib, &g->mmu, g, &g->dev));
	BENCH_TRY(gm_as_create(g->lib, 0, 0, &as, &g->as));
	BENCH_TRY(gm_as_attach(g->as, g->dev, GM_ATTACH_IDENTITY, NULL, &g->ctx));
	BENCH_TRY(gm_alloc(g->as, c->bytes, (c->huge ? 0 : GM_MEM_NO_HUGE) | (c->inthread ? GM_MEM_INTHREAD : 0), &mem));
	g->mem = mem;
	g->bytes = c->bytes;
	/* The device's frames are made by their first use, which is not what is measured. */
	memset(bench_gm_vram(g, g->mock.vram_bytes), 1, g->mock.vram_bytes);
	memset(g->mem, 1, g->bytes);
}

void bench_gm_close(struct bench_gm *g)
{
	BENCH_TRY(gm_free(g->as, g->mem));
	BENCH_TRY(gm_as_detach(g->ctx));
	BENCH_TRY(gm_as_destroy(g->as));
	BENCH_TRY(gm_dev_destroy(g->dev));
	BENCH_TRY(gm_lib_destroy(g->lib));
}

void bench_gm_to_dev(struct bench_gm *g)
{
	BENCH_TRY(gm_migrate(g->as, GM_VA(g->mem), g->bytes, g->dev, NULL));
}

void bench_gm_dirty(struct bench_gm *g)
{
	struct gm_ws_range range = { .va = GM_VA(g->mem), .bytes = g->bytes, .access = GM_WRITE };
	struct gm_ws *ws;

	BENCH_TRY(gm_ws_acquire(g->ctx, &range, 1, GM_FOREVER_NS, &ws));
	BENCH_TRY(gm_ws_release(ws, NULL));
}

void *bench_gm_vram(struct bench_gm *g, uint64_t bytes)
{
	void *vram = gm_mock_mmu()->cpu_ptr(gm_dev_backend(g->dev), g->vram, bytes);

	if (!vram)
		bench_die("the CPU does not see the device's memory");
	return vram;
}
