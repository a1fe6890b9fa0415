/* SPDX-License-Identifier: MIT */
/*
 * Size classes over slabs, everything from mmap().
 *
 * Classes are 16, 32, and then two per power of two (48, 64, 96, 128, ...) up
 * to 1 KiB, four (1280, 1536, 1792, 2048, ...) up to 32 KiB. (Larger pieces are
 * few kinds: what rounding wastes counts, and at powers of two the same field of
 * many pieces falls into few sets of a cache.) A slab is an aligned mapping that serves one class; a piece finds
 * its slab by masking its address.
 *
 *     fresh tail --alloc--> live --free--> free list --alloc--> live
 *
 * The tail of a slab that was never handed out is zero already, as the kernel
 * made it; only pieces from the free list are cleared, by alloc. A slab is in
 * the list of its class while it can serve a piece. An empty slab goes back to
 * the system, unless it is the only one of its class that can serve: one piece
 * allocated and freed in turns must not cost a mapping each time.
 *
 * Larger pieces are mappings with a header of their own, in a list, so that
 * destroy finds those that leaked.
 *
 * The mutex covers lists and counters only; mapping, unmapping and clearing
 * happen outside. Two threads may therefore both add a slab to an empty class,
 * which is harmless. A failure leaves nothing behind.
 *
 * With AddressSanitizer what is not live is poisoned, pieces grow by a red
 * zone, and slabs are roots for the leak checker.
 */
#include "config.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include <bsd/sys/queue.h>

#include "hal/gm_arena.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#define RED_ZONE_BYTES	     16u
#define poison(ptr, bytes)   ASAN_POISON_MEMORY_REGION((ptr), (bytes))
#define unpoison(ptr, bytes) ASAN_UNPOISON_MEMORY_REGION((ptr), (bytes))
#define root_add(ptr, bytes) __lsan_register_root_region((ptr), (bytes))
#define root_del(ptr, bytes) __lsan_unregister_root_region((ptr), (bytes))
#else
#define RED_ZONE_BYTES	     0u
#define poison(ptr, bytes)   ((void)(ptr), (void)(bytes))
#define unpoison(ptr, bytes) ((void)(ptr), (void)(bytes))
#define root_add(ptr, bytes) ((void)(ptr), (void)(bytes))
#define root_del(ptr, bytes) ((void)(ptr), (void)(bytes))
#endif

#define SLAB_BYTES	  ((size_t)256 << 10)
#define SYSTEM_PAGE_BYTES ((size_t)4096)
#define CLASSES		  32
#define ALIGN_BYTES	  16

struct free_piece {
	struct free_piece *next;
};

struct slab {
	LIST_ENTRY(slab) all;
	LIST_ENTRY(slab) ready; /* in the list of its class, if it can serve */
	unsigned cls;
	unsigned used; /* live pieces */
	size_t fresh;  /* offset of the tail that was never handed out */
	struct free_piece *free;
};

struct large {
	LIST_ENTRY(large) all;
	size_t map_bytes;
};

LIST_HEAD(slab_list, slab);
LIST_HEAD(large_list, large);

struct gm_arena {
	pthread_mutex_t lock;
	struct slab_list slabs;
	struct slab_list ready[CLASSES];
	struct large_list larges;
	size_t live_bytes;
	size_t mapped_bytes;
};

/* Pieces begin here, so that each of them is aligned. */
#define SLAB_HEAD_BYTES	 ((sizeof(struct slab) + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES)
#define LARGE_HEAD_BYTES ((sizeof(struct large) + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES)

static size_t class_bytes(unsigned cls)
{
	if (cls < 2)
		return (size_t)16 << cls;
	if (cls < 12)
		return (cls % 2 ? (size_t)64 : (size_t)48) << (cls - 2) / 2;
	return (1280 + (size_t)256 * (cls % 4)) << (cls - 12) / 4;
}

static unsigned class_of(size_t bytes)
{
	unsigned cls = 0;

	while (class_bytes(cls) < bytes)
		cls++;
	assert(cls < CLASSES);
	return cls;
}

static size_t piece_bytes(size_t bytes)
{
	return (bytes ? bytes : 1) + RED_ZONE_BYTES;
}

static void *map_pages(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

static void unmap_pages(void *map, size_t bytes)
{
	int err;

	if (bytes == 0)
		return;
	/* Whoever gets these addresses next must not inherit our poison. */
	unpoison(map, bytes);
	err = munmap(map, bytes);
	assert(err == 0);
	(void)err;
}

struct gm_arena *gm_arena_create(void)
{
	struct gm_arena *arena = map_pages(sizeof(*arena));
	pthread_mutexattr_t attr;

	if (!arena)
		return NULL;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&arena->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	LIST_INIT(&arena->slabs);
	LIST_INIT(&arena->larges);
	for (unsigned i = 0; i < CLASSES; i++)
		LIST_INIT(&arena->ready[i]);
	return arena;
}

/* Map twice as much as needed and cut off what is not aligned. */
static struct slab *slab_map(unsigned cls)
{
	char *map = map_pages(2 * SLAB_BYTES);
	struct slab *slab;
	size_t skip;

	if (!map)
		return NULL;
	skip = -(uintptr_t)map % SLAB_BYTES;
	unmap_pages(map, skip);
	unmap_pages(map + skip + SLAB_BYTES, SLAB_BYTES - skip);
	slab = (struct slab *)(map + skip);
	slab->cls = cls;
	slab->fresh = SLAB_HEAD_BYTES;
	poison((char *)slab + SLAB_HEAD_BYTES, SLAB_BYTES - SLAB_HEAD_BYTES);
	root_add(slab, SLAB_BYTES);
	return slab;
}

static void slab_unmap(struct slab *slab)
{
	root_del(slab, SLAB_BYTES);
	unmap_pages(slab, SLAB_BYTES);
}

static bool slab_full(const struct slab *slab)
{
	return !slab->free && slab->fresh + class_bytes(slab->cls) > SLAB_BYTES;
}

/* Take a piece from the free list or the tail; `*dirty` tells which. */
static void *slab_take(struct slab *slab, bool *dirty)
{
	struct free_piece *piece = slab->free;

	*dirty = piece != NULL;
	if (piece) {
		unpoison(piece, sizeof(*piece));
		slab->free = piece->next;
	} else {
		piece = (struct free_piece *)((char *)slab + slab->fresh);
		slab->fresh += class_bytes(slab->cls);
	}
	slab->used++;
	if (slab_full(slab))
		LIST_REMOVE(slab, ready);
	return piece;
}

static void *small_alloc(struct gm_arena *arena, size_t bytes)
{
	unsigned cls = class_of(piece_bytes(bytes));
	struct slab *slab;
	bool dirty;
	void *ptr;

	pthread_mutex_lock(&arena->lock);
	slab = LIST_FIRST(&arena->ready[cls]);
	if (!slab) {
		pthread_mutex_unlock(&arena->lock);
		slab = slab_map(cls);
		if (!slab)
			return NULL;
		pthread_mutex_lock(&arena->lock);
		LIST_INSERT_HEAD(&arena->slabs, slab, all);
		LIST_INSERT_HEAD(&arena->ready[cls], slab, ready);
		arena->mapped_bytes += SLAB_BYTES;
	}
	ptr = slab_take(slab, &dirty);
	arena->live_bytes += bytes;
	pthread_mutex_unlock(&arena->lock);
	unpoison(ptr, bytes);
	if (dirty)
		memset(ptr, 0, bytes);
	return ptr;
}

static void small_free(struct gm_arena *arena, void *ptr, size_t bytes)
{
	struct slab *slab = (struct slab *)((uintptr_t)ptr & ~(SLAB_BYTES - 1));
	struct free_piece *piece = ptr;
	struct slab *gone = NULL;

	assert(slab->cls == class_of(piece_bytes(bytes)));
	assert(((uintptr_t)ptr - (uintptr_t)slab - SLAB_HEAD_BYTES) % class_bytes(slab->cls) == 0);
	pthread_mutex_lock(&arena->lock);
	assert(slab->used > 0 && arena->live_bytes >= bytes);
	if (slab_full(slab))
		LIST_INSERT_HEAD(&arena->ready[slab->cls], slab, ready);
	unpoison(piece, sizeof(*piece));
	piece->next = slab->free;
	slab->free = piece;
	poison(piece, class_bytes(slab->cls));
	slab->used--;
	arena->live_bytes -= bytes;
	if (slab->used == 0 && (LIST_FIRST(&arena->ready[slab->cls]) != slab || LIST_NEXT(slab, ready))) {
		LIST_REMOVE(slab, ready);
		LIST_REMOVE(slab, all);
		arena->mapped_bytes -= SLAB_BYTES;
		gone = slab;
	}
	pthread_mutex_unlock(&arena->lock);
	if (gone)
		slab_unmap(gone);
}

static void *large_alloc(struct gm_arena *arena, size_t bytes)
{
	size_t room = LARGE_HEAD_BYTES + RED_ZONE_BYTES + SYSTEM_PAGE_BYTES - 1;
	struct large *large;
	size_t map_bytes;
	char *ptr;

	if (bytes > SIZE_MAX - room)
		return NULL;
	map_bytes = (bytes + room) & ~(SYSTEM_PAGE_BYTES - 1);
	large = map_pages(map_bytes);
	if (!large)
		return NULL;
	large->map_bytes = map_bytes;
	ptr = (char *)large + LARGE_HEAD_BYTES;
	poison(ptr + bytes, map_bytes - LARGE_HEAD_BYTES - bytes);
	root_add(large, map_bytes);
	pthread_mutex_lock(&arena->lock);
	LIST_INSERT_HEAD(&arena->larges, large, all);
	arena->live_bytes += bytes;
	arena->mapped_bytes += map_bytes;
	pthread_mutex_unlock(&arena->lock);
	return ptr;
}

static void large_unmap(struct large *large)
{
	root_del(large, large->map_bytes);
	unmap_pages(large, large->map_bytes);
}

static void large_free(struct gm_arena *arena, void *ptr, size_t bytes)
{
	struct large *large = (struct large *)((char *)ptr - LARGE_HEAD_BYTES);

	assert(large->map_bytes - LARGE_HEAD_BYTES >= bytes);
	pthread_mutex_lock(&arena->lock);
	assert(arena->live_bytes >= bytes);
	LIST_REMOVE(large, all);
	arena->live_bytes -= bytes;
	arena->mapped_bytes -= large->map_bytes;
	pthread_mutex_unlock(&arena->lock);
	large_unmap(large);
}

static bool is_small(size_t bytes)
{
	return bytes <= GM_ARENA_SMALL_MAX_BYTES - RED_ZONE_BYTES;
}

void *gm_arena_alloc(struct gm_arena *arena, size_t bytes)
{
	return is_small(bytes) ? small_alloc(arena, bytes) : large_alloc(arena, bytes);
}

void gm_arena_free(struct gm_arena *arena, void *ptr, size_t bytes)
{
	if (!ptr)
		return;
	if (is_small(bytes))
		small_free(arena, ptr, bytes);
	else
		large_free(arena, ptr, bytes);
}

size_t gm_arena_destroy(struct gm_arena *arena)
{
	struct large *large;
	struct slab *slab;
	size_t leaked;

	if (!arena)
		return 0;
	leaked = arena->live_bytes;
	while ((slab = LIST_FIRST(&arena->slabs))) {
		LIST_REMOVE(slab, all);
		slab_unmap(slab);
	}
	while ((large = LIST_FIRST(&arena->larges))) {
		LIST_REMOVE(large, all);
		large_unmap(large);
	}
	pthread_mutex_destroy(&arena->lock);
	unmap_pages(arena, sizeof(*arena));
	return leaked;
}

size_t gm_arena_live_bytes(struct gm_arena *arena)
{
	size_t bytes;

	pthread_mutex_lock(&arena->lock);
	bytes = arena->live_bytes;
	pthread_mutex_unlock(&arena->lock);
	return bytes;
}

size_t gm_arena_mapped_bytes(struct gm_arena *arena)
{
	size_t bytes;

	pthread_mutex_lock(&arena->lock);
	bytes = arena->mapped_bytes;
	pthread_mutex_unlock(&arena->lock);
	return bytes;
}

/* One mapping of the arena. */
static bool cut(const void *at, size_t bytes, uint64_t va, uint64_t *begin, uint64_t *end)
{
	uint64_t lo = (uintptr_t)at, hi = lo + bytes;

	if (hi <= va)
		*begin = hi > *begin ? hi : *begin;
	else if (lo > va)
		*end = lo < *end ? lo : *end;
	return lo <= va && va < hi;
}

bool gm_arena_has(struct gm_arena *arena, uint64_t va, uint64_t *begin, uint64_t *end)
{
	bool has = cut(arena, sizeof(*arena), va, begin, end);
	struct large *large;
	struct slab *slab;

	pthread_mutex_lock(&arena->lock);
	LIST_FOREACH(slab, &arena->slabs, all)
		has |= cut(slab, SLAB_BYTES, va, begin, end);
	LIST_FOREACH(large, &arena->larges, all)
		has |= cut(large, large->map_bytes, va, begin, end);
	pthread_mutex_unlock(&arena->lock);
	*begin = (*begin + SYSTEM_PAGE_BYTES - 1) & ~(uint64_t)(SYSTEM_PAGE_BYTES - 1); /* the arena's own head ends within one */
	return has || *begin > va;
}

static void *table_alloc(void *arg, size_t bytes)
{
	return gm_arena_alloc(arg, bytes);
}

static void table_free(void *arg, void *ptr, size_t bytes)
{
	gm_arena_free(arg, ptr, bytes);
}

struct gm_allocator gm_arena_allocator(struct gm_arena *arena)
{
	return (struct gm_allocator){ table_alloc, table_free, arena };
}
