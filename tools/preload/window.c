/* SPDX-License-Identifier: MIT */
/*
 * The window: a reservation of addresses from which large allocations and mappings come. So an address tells whose it
 * is, small mappings share 2 MiB blocks, and no address is given again before all that was there is gone.
 *
 *     reserved --GM_EXEC_PLACE: mapped, adopted--> in use --mapped over with a reservation--> gone --GM_EXEC_FREED--> reserved
 *
 * In use is kept for each page, 16 to a unit of 64 KiB; what is placed begins with a unit. Only the server changes the
 * tables (`used`, `length`); the program's threads read the length of what is theirs. Placing takes the first run of
 * units that is large enough, so that what is in use stays together.
 */
#include "config.h"

#include <errno.h>

#include "tools/preload/preload.h"
#include "tools/preload/raw.h"

#define WINDOW_BYTES (UINT64_C(256) << 30)
#define WINDOW_LEAST (UINT64_C(1) << 30)
#define UNIT GM_UNIT_BYTES
#define UNIT_PAGES (GM_UNIT_BYTES / GM_PAGE_BYTES)

static uint64_t base, units;
static uint64_t low, high;   /* no unit below `low` is free; none from `high` on was ever used */
static uint16_t *used;       /* per unit: its pages that are in use */
static uint64_t *length;     /* per unit: bytes of the allocation that begins there */
static _Atomic uint8_t *odd; /* per unit: its rights were changed */

static void *pointer(uint64_t va)
{
	return (void *)(uintptr_t)va;
}

bool gm_exec_window_init(void)
{
	void *at = MAP_FAILED;

	for (units = WINDOW_BYTES / UNIT; units * UNIT >= WINDOW_LEAST && at == MAP_FAILED; units /= 2)
		at = gm_raw_mmap(NULL, units * UNIT + GM_BLOCK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
				 0);
	if (at == MAP_FAILED)
		return false;
	units *= 2; /* what was got, not what would have been tried next */
	base = (GM_VA(at) + GM_BLOCK_BYTES - 1) & ~(uint64_t)(GM_BLOCK_BYTES - 1);
	used = gm_raw_table(units * sizeof(used[0]));
	length = gm_raw_table(units * sizeof(length[0]));
	odd = gm_raw_table(units * sizeof(odd[0]));
	return used && length && odd;
}

uint64_t gm_exec_window_base(void)
{
	return base;
}

uint64_t gm_exec_window_limit(void)
{
	return base + units * UNIT;
}

uint64_t gm_exec_window_end(void)
{
	return base + high * UNIT;
}

bool gm_exec_window_has(uint64_t va)
{
	return va - base < units * UNIT;
}

static uint64_t unit_of(uint64_t va)
{
	return (va - base) / UNIT;
}

static uint64_t pages_up(uint64_t bytes)
{
	return (bytes + GM_PAGE_BYTES - 1) & ~(uint64_t)(GM_PAGE_BYTES - 1);
}

/* The pages [va, va + bytes) of the window become used, or free. */
static void mark(uint64_t va, uint64_t bytes, bool use)
{
	for (uint64_t at = va; at < va + bytes; at += GM_PAGE_BYTES) {
		uint64_t u = unit_of(at);
		uint16_t bit = (uint16_t)(1u << ((at - base) / GM_PAGE_BYTES % UNIT_PAGES));

		used[u] = (uint16_t)(use ? used[u] | bit : used[u] & ~bit);
		if (use && u >= high)
			high = u + 1;
		if (!used[u]) {
			length[u] = 0;
			odd[u] = 0;
			low = u < low ? u : low;
		}
	}
}

/* First run of n free units that begins with a multiple of `align` units; `units`: there is none. */
static uint64_t find(uint64_t n, uint64_t align)
{
	uint64_t first, run = 0;

	while (low < high && used[low])
		low++;
	for (first = (low + align - 1) / align * align; first + n <= units; first = (first + run + align) / align * align) {
		for (run = 0; run < n && first + run < high && !used[first + run]; run++)
			;
		if (run == n || first + run >= high)
			return first;
	}
	return units;
}

static bool map_at(uint64_t va, uint64_t bytes)
{
	return gm_raw_mmap(pointer(va), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	       MAP_FAILED;
}

/* 0: no room. */
static uint64_t find_bytes(uint64_t whole, uint64_t align)
{
	uint64_t first;

	if (!whole || whole > units * UNIT || align > GM_BLOCK_BYTES)
		return 0;
	first = find((whole + UNIT - 1) / UNIT, align > UNIT ? align / UNIT : 1);
	return first == units ? 0 : base + first * UNIT;
}

uint64_t gm_exec_window_place(uint64_t bytes, uint64_t align, bool alloc)
{
	uint64_t whole = pages_up(bytes), va = find_bytes(whole, align);

	if (!va || !map_at(va, whole))
		return 0;
	mark(va, whole, true);
	length[unit_of(va)] = alloc ? bytes : 0;
	return va;
}

uint64_t gm_exec_window_space(uint64_t bytes, uint64_t alloc)
{
	uint64_t whole = pages_up(bytes), va = find_bytes(whole, 0);

	if (!va)
		return 0;
	mark(va, whole, true);
	length[unit_of(va)] = alloc;
	return va;
}

void gm_exec_window_taken(uint64_t va, uint64_t bytes)
{
	mark(va, pages_up(bytes), true);
}

bool gm_exec_window_is_used(uint64_t va, uint64_t bytes)
{
	for (uint64_t at = va; at < va + bytes; at += GM_PAGE_BYTES)
		if (!(used[unit_of(at)] >> ((at - base) / GM_PAGE_BYTES % UNIT_PAGES) & 1))
			return false;
	return true;
}

bool gm_exec_window_grow(uint64_t va, uint64_t bytes, uint64_t want)
{
	uint64_t end = va + pages_up(bytes), to = va + pages_up(want);

	if (want > units * UNIT || to > base + units * UNIT)
		return false;
	for (uint64_t at = end; at < to; at += GM_PAGE_BYTES)
		if (used[unit_of(at)] >> ((at - base) / GM_PAGE_BYTES % UNIT_PAGES) & 1)
			return false;
	if (to > end && !map_at(end, to - end))
		return false;
	mark(end, to - end, true);
	if (length[unit_of(va)])
		length[unit_of(va)] = want;
	return true;
}

void gm_exec_window_freed(uint64_t va, uint64_t bytes)
{
	mark(va, pages_up(bytes), false);
}

uint64_t gm_exec_alloc_bytes(uint64_t va)
{
	return (va - base) % UNIT ? 0 : length[unit_of(va)];
}

void gm_exec_window_set_odd(uint64_t va, uint64_t bytes)
{
	for (uint64_t u = unit_of(va); u <= unit_of(va + bytes - 1) && u < units; u++)
		odd[u] = 1;
}

bool gm_exec_window_is_odd(uint64_t va, uint64_t bytes)
{
	for (uint64_t u = unit_of(va); u <= unit_of(va + bytes - 1) && u < units; u++)
		if (odd[u])
			return true;
	return false;
}

int gm_exec_window_unmap(uint64_t va, uint64_t bytes)
{
	void *p = gm_raw_mmap(pointer(va), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (p == MAP_FAILED)
		return -1;
	(void)gm_exec_ask(GM_EXEC_FREED, va, bytes, 0);
	return 0;
}
