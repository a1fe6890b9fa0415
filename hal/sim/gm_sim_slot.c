/* SPDX-License-Identifier: MIT */
/*
 * Library memory of the simulated host: staging slots and bounce buffers.
 * They are real memory, because a simulated engine copies from and to them by
 * address. On a real machine a page of it may have no frame, and reading it
 * then hangs; here such a page is full of 0xEE, and poisoned for the address
 * sanitizer, so that whoever reads it is found out.
 *
 *     no frame --steal, bounce--> frame --restore, drop, free--> no frame
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hal/sim/gm_sim_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(ptr, bytes) ((void)(ptr), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(ptr, bytes) ((void)(ptr), (void)(bytes))
#endif

#define NO_FRAME_BYTE 0xEE
#define NEW_FRAME_BYTE 0xDB

static int slot_cmp(const struct gm_sim_slot *a, const struct gm_sim_slot *b)
{
	return (a->base > b->base) - (a->base < b->base);
}

RB_GENERATE_INTERNAL(gm_sim_slots, gm_sim_slot, link, slot_cmp, __attribute__((unused)) static)

static void hide(uint8_t *page)
{
	memset(page, NO_FRAME_BYTE, GM_PAGE_BYTES);
	ASAN_POISON_MEMORY_REGION(page, GM_PAGE_BYTES);
}

/* Memory aligned to a block, so that a slot may be told from its address; NULL: none. */
static uint8_t *map_aligned(uint64_t bytes)
{
	size_t all = (size_t)bytes + GM_BLOCK_BYTES;
	uint8_t *map = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t skip;

	if (map == MAP_FAILED)
		return NULL;
	skip = (GM_BLOCK_BYTES - (uintptr_t)map % GM_BLOCK_BYTES) % GM_BLOCK_BYTES;
	if (skip > 0)
		munmap(map, skip);
	munmap(map + skip + bytes, all - skip - bytes);
	return map + skip;
}

static struct gm_sim_slot *slot_make(struct gm_sim *sim, uint64_t bytes)
{
	struct gm_sim_slot *slot = gm_sim_calloc(sim, sizeof(*slot));

	slot->bytes = bytes;
	slot->frames = gm_sim_calloc(sim, bytes / GM_PAGE_BYTES * sizeof(*slot->frames));
	slot->base = map_aligned(bytes);
	if (!slot->base)
		gm_sim_panic(sim, "no memory for a slot");
	for (uint64_t at = 0; at < bytes; at += GM_PAGE_BYTES)
		hide(slot->base + at);
	return slot;
}

static void slot_unmake(struct gm_sim_slot *slot)
{
	ASAN_UNPOISON_MEMORY_REGION(slot->base, slot->bytes);
	munmap(slot->base, slot->bytes);
	free(slot->frames);
	free(slot);
}

struct gm_sim_slot *gm_sim_slot_alloc(struct gm_sim_pmap *pmap, uint64_t bytes, bool bounce)
{
	struct gm_sim *sim = pmap->sim;
	struct gm_sim_slot *slot = sim->free_slots;

	if (slot && bytes == GM_BLOCK_BYTES)
		sim->free_slots = slot->next_free;
	else
		slot = slot_make(sim, bytes);
	slot->pmap = pmap;
	slot->bounce = bounce;
	RB_INSERT(gm_sim_slots, &sim->slots, slot);
	return slot;
}

void gm_sim_slot_free(struct gm_sim_slot *slot)
{
	struct gm_sim *sim = slot->pmap->sim;

	RB_REMOVE(gm_sim_slots, &sim->slots, slot);
	for (uint64_t at = 0; at < slot->bytes; at += GM_PAGE_BYTES)
		gm_sim_slot_clear(slot, GM_VA(slot->base) + at);
	slot->pmap = NULL;
	if (slot->bytes == GM_BLOCK_BYTES) {
		slot->next_free = sim->free_slots;
		sim->free_slots = slot;
	} else {
		slot_unmake(slot);
	}
}

struct gm_sim_slot *gm_sim_slot_find(struct gm_sim *sim, uint64_t addr, uint64_t bytes)
{
	struct gm_sim_slot key = { .base = (uint8_t *)(uintptr_t)addr };
	struct gm_sim_slot *slot = RB_NFIND(gm_sim_slots, &sim->slots, &key);

	if (!slot)
		slot = RB_MAX(gm_sim_slots, &sim->slots);
	else if (GM_VA(slot->base) != addr)
		slot = RB_PREV(gm_sim_slots, &sim->slots, slot);
	if (!slot || addr < GM_VA(slot->base) || addr - GM_VA(slot->base) + bytes > slot->bytes)
		return NULL;
	return slot;
}

static size_t page_index(const struct gm_sim_slot *slot, uint64_t addr)
{
	return (size_t)((addr - GM_VA(slot->base)) / GM_PAGE_BYTES);
}

bool gm_sim_slot_has(const struct gm_sim_slot *slot, uint64_t addr)
{
	return slot->frames[page_index(slot, addr)];
}

void gm_sim_slot_put(struct gm_sim_slot *slot, uint64_t addr, const uint8_t *bytes)
{
	size_t i = page_index(slot, addr);
	uint8_t *page = slot->base + i * GM_PAGE_BYTES;

	ASAN_UNPOISON_MEMORY_REGION(page, GM_PAGE_BYTES);
	if (bytes)
		memcpy(page, bytes, GM_PAGE_BYTES);
	else
		memset(page, NEW_FRAME_BYTE, GM_PAGE_BYTES);
	slot->frames[i] = true;
}

void gm_sim_slot_clear(struct gm_sim_slot *slot, uint64_t addr)
{
	size_t i = page_index(slot, addr);

	slot->huge = false;
	if (!slot->frames[i])
		return;
	slot->frames[i] = false;
	hide(slot->base + i * GM_PAGE_BYTES);
}

void gm_sim_slot_fini(struct gm_sim *sim)
{
	struct gm_sim_slot *slot;

	while ((slot = RB_ROOT(&sim->slots)) != NULL)
		gm_sim_slot_free(slot); // NOLINT(clang-analyzer-unix.Malloc)
	while ((slot = sim->free_slots) != NULL) { /* what was just freed is in this list, and alive */
		sim->free_slots = slot->next_free; // NOLINT(clang-analyzer-unix.Malloc)
		slot_unmake(slot);
	}
}

/* Memory that several processes share: there is one here. */
gm_ret_t gm_sim_share_map(void *pmap, int fd, uint64_t offset, uint64_t bytes, uint64_t *va)
{
	(void)pmap;
	(void)fd;
	(void)offset;
	(void)bytes;
	(void)va;
	return gm_fail(GM_RET_NOTSUP, "the simulated host has no shared memory");
}

gm_ret_t gm_sim_share_slot(void *pmap, uint64_t va, uint64_t *slot)
{
	(void)pmap;
	(void)va;
	(void)slot;
	return GM_RET_NOENT;
}

gm_ret_t gm_sim_share_fd(void *pmap, uint64_t va, int *fd)
{
	(void)pmap;
	(void)va;
	(void)fd;
	return GM_RET_NOENT;
}

/* No thread of the simulation has signals. */
gm_ret_t gm_sim_mem_inthread(void *pmap, uint64_t va, uint64_t bytes, bool on)
{
	(void)pmap;
	(void)va;
	(void)bytes;
	return on ? gm_fail(GM_RET_NOTSUP, "the simulated host serves no faults in the thread that faults") : GM_RET_SUCCESS;
}

bool gm_sim_inthread_has(void *pmap, uint64_t va, uint64_t bytes)
{
	(void)pmap;
	(void)va;
	(void)bytes;
	return false;
}
