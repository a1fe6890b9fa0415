/* SPDX-License-Identifier: MIT */
/*
 * The bound on the host's memory. It is on all anonymous memory of the process that is not the device's: what is
 * managed gets what the rest (the program's data, stacks, small allocations of before, libgmem's own) leaves of it.
 *
 *     estimate = pages found at the last look + pages brought or zeroed since     (never too low)
 *     estimate > high --> look --> found > high --> units go to the device, first come first gone --> low
 *
 * A look is one walk of the kernel's page map over what is managed (PAGEMAP_SCAN): what is there, not what we believe.
 * Pages of the kernel's zero page are nobody's memory: they are not told as such. But they count for the bound: the
 * first store to one makes memory of it, and nobody is told.
 *
 * What is brought home at once, as it is released, is made way for by all of its size, be some of it there already.
 *
 * Units of 64 KiB queue up in the order in which looks found them. One that came back soon after it had gone is hot: it
 * gets other turns before it goes again. What the kernel does not give (pinned, locked) queues up anew.
 */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define UNIT ((uint64_t)GM_UNIT_BYTES)
#define MiB (UINT64_C(1) << 20)
#define QUEUE_SLOTS (UINT64_C(8) << 20)
#define SPAN_UNITS (UINT64_C(4) << 20)
#define RUN_UNITS 16
#define HOT_PASSES 3
#define HOT_TURNS 2

struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, returned;
};

#define SCAN_PRESENT UINT64_C(8)
#define SCAN_PFNZERO UINT64_C(32)
#define PAGEMAP_SCAN_ _IOWR('f', 16, struct scan_arg)

struct unit {
	uint16_t look;    /* the last look that found something of it */
	uint16_t gone;    /* the last pass that moved it away, 0: none */
	uint8_t pages;    /* that look found */
	uint8_t turns;    /* it is hot, and is passed over so often */
	bool queued;
};

/* Memory that may be managed: the break's, and the window. */
struct span {
	uint64_t va, end;
	struct unit *unit;
};

static struct span spans[2];
static uint64_t *queue; /* units, by address */
static uint64_t head, tail;
static uint16_t look_nr, pass_nr;
static uint64_t found_bytes;         /* at the last look */
static uint64_t zero_bytes;          /* of that, the kernel's zero page */
static uint64_t seen_pages;          /* gm_stats at the last look */
static uint64_t rest_bytes;          /* anonymous memory that is neither managed nor the device's */
static uint64_t stuck_bytes;          /* the last pass could not get below this; 0: it could */
static int map_fd = -1, statm_fd = -1;

bool gm_exec_limit_init(void)
{
	map_fd = gm_exec_fd_high(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	statm_fd = gm_exec_fd_high(open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
	queue = gm_raw_table(QUEUE_SLOTS * sizeof(queue[0]));
	for (unsigned i = 0; i < 2; i++)
		spans[i].unit = gm_raw_table(SPAN_UNITS * sizeof(struct unit));
	return map_fd >= 0 && statm_fd >= 0 && queue && spans[0].unit && spans[1].unit;
}

static struct unit *unit_at(uint64_t va)
{
	for (unsigned i = 0; i < 2; i++)
		if (va >= spans[i].va && (va - spans[i].va) / UNIT < SPAN_UNITS)
			if (va < spans[i].end)
				return &spans[i].unit[(va - spans[i].va) / UNIT];
	return NULL;
}

/* ---------------------------------------------------------------- looking */

/* What is present in [va, end), told piece by piece; bytes in all. *zeros grows by what is the zero page. */
static uint64_t scan(uint64_t va, uint64_t end, void (*tell)(uint64_t va, uint64_t end), uint64_t *zeros)
{
	struct scan_region r[256];
	uint64_t bytes = 0;

	while (va < end) {
		struct scan_arg a = {
			.size = sizeof(a),
			.start = va,
			.end = end,
			.vec = GM_VA(r),
			.vec_len = sizeof(r) / sizeof(r[0]),
			.mask = SCAN_PRESENT,
			.returned = SCAN_PRESENT | SCAN_PFNZERO,
		};
		int n = ioctl(map_fd, PAGEMAP_SCAN_, &a);

		if (n < 0 || a.walk_end <= va)
			break;
		for (int i = 0; i < n; i++) {
			bytes += r[i].end - r[i].start;
			*zeros += r[i].categories & SCAN_PFNZERO ? r[i].end - r[i].start : 0;
			if (tell)
				tell(r[i].start, r[i].end);
		}
		va = a.walk_end;
	}
	return bytes;
}

static void enqueue(uint64_t va, struct unit *u)
{
	if (u->queued || tail - head == QUEUE_SLOTS)
		return;
	u->queued = true;
	queue[tail++ % QUEUE_SLOTS] = va;
}

/* A look found these pages. */
static void note(uint64_t va, uint64_t end)
{
	while (va < end) {
		uint64_t base = va & ~(UNIT - 1), stop = end < base + UNIT ? end : base + UNIT;
		struct unit *u = unit_at(base);

		if (u && u->look != look_nr) {
			u->look = look_nr;
			u->pages = 0;
		}
		if (u && !u->queued && u->gone && (uint16_t)(pass_nr - u->gone) <= HOT_PASSES)
			u->turns = HOT_TURNS;
		if (u) {
			u->pages = (uint8_t)(u->pages + (stop - va) / GM_PAGE_BYTES);
			enqueue(base, u);
		}
		va = stop;
	}
}

static void stats(struct gm_stats *s)
{
	*s = (struct gm_stats){ 0 };
	(void)gm_as_stats(gm_exec.as, s);
}

/* Pages brought so far: each fault makes one at most, or is of those that came home. */
static uint64_t brought(void)
{
	struct gm_stats s;

	stats(&s);
	return s.cpu_faults + s.pages_to_host;
}

static void look(void)
{
	if (++look_nr == 0)
		look_nr = 1;
	seen_pages = brought();
	spans[0].va = gm_exec.heap_va & ~(UNIT - 1);
	spans[0].end = atomic_load(&gm_exec.heap_end);
	spans[1].va = gm_exec_window_base();
	spans[1].end = gm_exec_window_end();
	zero_bytes = 0;
	found_bytes = scan(gm_exec.heap_va, spans[0].end, note, &zero_bytes);
	found_bytes += scan(spans[1].va, spans[1].end, note, &zero_bytes);
}

static uint64_t estimate(void)
{
	return found_bytes + (brought() - seen_pages) * GM_PAGE_BYTES;
}

/* ----------------------------------------------------------------- measure */

/* Resident less what is of files: fields 2 and 3, in pages. */
static uint64_t anonymous_bytes(void)
{
	char text[128];
	ssize_t n = pread(statm_fd, text, sizeof(text), 0);
	uint64_t field[3] = { 0 };

	for (unsigned f = 0, i = 0; n > 0 && f < 3 && i < (size_t)n; i++) {
		if (text[i] >= '0' && text[i] <= '9')
			field[f] = field[f] * 10 + (uint64_t)(text[i] - '0');
		else
			f++;
	}
	return field[1] > field[2] ? (field[1] - field[2]) * GM_PAGE_BYTES : 0;
}

static uint64_t device_bytes(void)
{
	struct gm_dev_info info;
	uint64_t zeros = 0;

	if (gm_exec.vram_bytes)
		return scan(gm_exec.vram_va, gm_exec.vram_va + gm_exec.vram_bytes, NULL, &zeros) - zeros;
	return gm_dev_query(gm_exec.dev, &info) ? 0 : info.mem_bytes - info.mem_free_bytes;
}

static void raise_to(_Atomic uint64_t *peak, uint64_t now)
{
	if (now > atomic_load_explicit(peak, memory_order_relaxed))
		atomic_store_explicit(peak, now, memory_order_relaxed);
}

static void publish(uint64_t host, uint64_t device)
{
	uint64_t managed = found_bytes - zero_bytes;
	struct gm_exec_shared *x = gm_exec.shared;
	struct gm_stats s;

	stats(&s);
	raise_to(&x->peak_host_bytes, host);
	raise_to(&x->peak_managed_bytes, managed);
	raise_to(&x->peak_rest_bytes, rest_bytes);
	raise_to(&x->peak_device_bytes, device);
	x->host_bytes = host;
	x->managed_bytes = managed;
	x->device_bytes = device;
	x->bytes_to_device = s.bytes_to_dev;
	x->bytes_to_host = s.bytes_to_host;
	x->faults = s.cpu_faults;
	x->fault_ns = s.ns_cpu_fault;
	x->refused_pages = s.pages_refused;
	x->samples++;
}

/* After a look: what of the process's memory is not ours to move. */
static void measure(void)
{
	uint64_t device = device_bytes(), anon = anonymous_bytes(), managed = found_bytes - zero_bytes;
	uint64_t others = managed + (gm_exec.vram_bytes ? device : 0);

	rest_bytes = anon > others ? anon - others : 0;
	publish(managed + rest_bytes, device);
}

void gm_exec_limit_sample(void)
{
	stuck_bytes = 0;
	look();
	measure();
}

/* ------------------------------------------------------------- making room */

/* What managed memory may have; a bound that the rest exceeds alone cannot be kept, but the program goes on. */
static uint64_t budget(void)
{
	uint64_t limit = gm_exec.shared->limit_bytes, least = limit / 8;

	return limit > rest_bytes + least ? limit - rest_bytes : least;
}

/* The next units that are to go, one behind the other: false, none. Each is looked at `left` times at most. */
static bool next_run(uint64_t *left, uint64_t *va, uint64_t *end, uint64_t *pages)
{
	*va = *end = *pages = 0;
	while (*left && head < tail && *end - *va < RUN_UNITS * UNIT) {
		uint64_t at = queue[head % QUEUE_SLOTS];
		struct unit *u = unit_at(at);
		bool there = u && u->look == look_nr && u->pages;

		if (there && !u->turns && *end && at != *end)
			break;
		head++;
		--*left;
		if (u)
			u->queued = false;
		if (!there)
			continue;
		if (u->turns) {
			u->turns--;
			enqueue(at, u);
			continue;
		}
		*va = *end ? *va : at;
		*end = at + UNIT;
		*pages += u->pages;
		u->gone = pass_nr;
		u->pages = 0;
		gm_exec_policy_gone(at);
	}
	return *end > *va;
}

/* The part of [va, end) that is managed: units at the ends of the break's memory reach beyond it. */
static void clip(uint64_t *va, uint64_t *end)
{
	uint64_t heap_end = atomic_load(&gm_exec.heap_end);

	if (gm_exec_window_has(*va))
		return;
	*va = *va < gm_exec.heap_va ? gm_exec.heap_va : *va;
	*end = *end > heap_end ? heap_end : *end;
}

static bool push(uint64_t va, uint64_t end)
{
	gm_ret_t ret;

	clip(&va, &end);
	/* FAULT: part of it is not managed; BUSY: some pages cannot move. The next look shows what is left. */
	ret = va < end ? gm_migrate(gm_exec.as, va, end - va, gm_exec.dev, NULL) : GM_RET_SUCCESS;
	if (ret != GM_RET_NOSPC && ret != GM_RET_NODEV)
		return true;
	gm_exec.shared->full++;
	return false;
}

/* By the server's count the host has `low` bytes at most afterwards. */
static void make_room(uint64_t low)
{
	uint64_t left = (tail - head) * (HOT_TURNS + 1), bytes = found_bytes, va, end, pages;

	pass_nr += pass_nr == UINT16_MAX ? 2 : 1; /* 0 stands for never */
	while (bytes > low && next_run(&left, &va, &end, &pages)) {
		if (!push(va, end))
			break;
		bytes -= pages * GM_PAGE_BYTES < bytes ? pages * GM_PAGE_BYTES : bytes;
	}
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t gm_exec_limit_absent(uint64_t va, uint64_t bytes)
{
	uint64_t zeros = 0;

	return bytes - scan(va, va + bytes, NULL, &zeros);
}

void gm_exec_limit_make_way(uint64_t bytes)
{
	uint64_t start = now_ns(), high;

	look();
	measure();
	high = budget() - budget() / 16;
	if (found_bytes + bytes > high) {
		make_room(high > bytes ? high - bytes : 0);
		look();
		measure();
		gm_exec.shared->passes++;
	}
	gm_exec.shared->pass_ns += now_ns() - start;
}

void gm_exec_limit_check(void)
{
	uint64_t all = budget(), step = all / 8, high = all - all / 16, start;

	/* what did not go a moment ago will not go now: not before a step more has come, or some time has passed */
	if (estimate() <= high || (stuck_bytes && estimate() < stuck_bytes + step))
		return;
	start = now_ns();
	look();
	measure();
	all = budget();
	high = all - all / 16;
	if (found_bytes > high) {
		make_room(high - step);
		look();
		measure();
		gm_exec.shared->passes++;
		stuck_bytes = found_bytes > high ? found_bytes : 0;
	}
	gm_exec.shared->pass_ns += now_ns() - start;
}
