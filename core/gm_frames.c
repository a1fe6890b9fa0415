/* SPDX-License-Identifier: MIT */
/*
 * Device frames: a binary buddy allocator whose books lie outside the memory
 * they describe (the CPU may not even see that memory).
 *
 * One state byte per unit:
 *
 *     FREE | order   first unit of a free chunk of that order
 *     USED | order   first unit of an allocated chunk
 *     INNER          any other unit
 *
 *     free(o) --alloc--> used(o) --free--> free(o), merged with its free buddy
 *     free(o) --split by alloc--> free(o-1) + free(o-1)
 *     used(o) --gm_frames_split--> 2^(o-p) x used(p)
 *
 * Free chunks of one order form a doubly linked list through two index
 * arrays; unlinking a buddy is O(1) and no list is ever sorted or searched,
 * which is what made the allocator of drm spend half of its time in
 * list_insert_sorted(). A slab whose size is no power of two starts as
 * several free chunks; a buddy beyond its end is never free.
 *
 * Not locked: the owner (gm_node.c) is. Nothing here can fail half-way.
 */
#include "config.h"

#include <assert.h>

#include "core/gm_frames.h"

#define NONE UINT32_MAX
#define INNER 0x00u
#define FREE 0x40u
#define USED 0x80u
#define ORDER_MASK 0x3fu

static void push(struct gm_frames *f, uint32_t i, unsigned order)
{
	f->state[i] = (uint8_t)(FREE | order);
	f->prev[i] = NONE;
	f->next[i] = f->head[order];
	if (f->head[order] != NONE)
		f->prev[f->head[order]] = i;
	f->head[order] = i;
	f->nonempty |= 1u << order;
}

static void unlink_chunk(struct gm_frames *f, uint32_t i, unsigned order)
{
	if (f->prev[i] != NONE)
		f->next[f->prev[i]] = f->next[i];
	else
		f->head[order] = f->next[i];
	if (f->next[i] != NONE)
		f->prev[f->next[i]] = f->prev[i];
	if (f->head[order] == NONE)
		f->nonempty &= ~(1u << order);
	f->state[i] = INNER;
}

/* Cover [0, units) with the largest aligned chunks. */
static void cover(struct gm_frames *f)
{
	for (uint32_t i = 0; i < f->units;) {
		unsigned order = i ? (unsigned)__builtin_ctz(i) : GM_FRAMES_ORDERS - 1;

		if (order > GM_FRAMES_ORDERS - 1)
			order = GM_FRAMES_ORDERS - 1;
		while ((UINT64_C(1) << order) > f->units - i)
			order--;
		push(f, i, order);
		i += 1u << order;
	}
}

gm_ret_t gm_frames_init(struct gm_frames *f, struct gm_env *env, uint64_t begin, uint64_t end, uint32_t shift)
{
	uint64_t units = (end - begin) >> shift;

	if (!units || units >= NONE)
		return GM_RET_INVAL;
	*f = (struct gm_frames){ .env = env, .begin = begin, .shift = shift, .units = (uint32_t)units };
	f->next = gm_mem_alloc(env, units * sizeof(*f->next));
	f->prev = gm_mem_alloc(env, units * sizeof(*f->prev));
	f->state = gm_mem_alloc(env, units);
	if (!f->next || !f->prev || !f->state) {
		gm_frames_fini(f);
		return GM_RET_NOMEM;
	}
	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++)
		f->head[o] = NONE;
	f->free_units = f->units;
	cover(f);
	return GM_RET_SUCCESS;
}

void gm_frames_fini(struct gm_frames *f)
{
	gm_mem_free(f->env, f->next, f->units * sizeof(*f->next));
	gm_mem_free(f->env, f->prev, f->units * sizeof(*f->prev));
	gm_mem_free(f->env, f->state, f->units);
	f->next = f->prev = NULL;
	f->state = NULL;
}

gm_ret_t gm_frames_alloc(struct gm_frames *f, unsigned order, uint64_t *pa)
{
	uint32_t fits = order < GM_FRAMES_ORDERS ? f->nonempty >> order << order : 0;
	unsigned have;
	uint32_t i;

	if (!fits)
		return GM_RET_NOSPC;
	have = (unsigned)__builtin_ctz(fits);
	i = f->head[have];
	unlink_chunk(f, i, have);
	while (have > order) {
		have--;
		push(f, i + (1u << have), have);
	}
	f->state[i] = (uint8_t)(USED | order);
	f->free_units -= 1u << order;
	*pa = f->begin + ((uint64_t)i << f->shift);
	return GM_RET_SUCCESS;
}

static uint32_t used_chunk(const struct gm_frames *f, uint64_t pa, unsigned order)
{
	uint32_t i = (uint32_t)((pa - f->begin) >> f->shift);

	assert(pa >= f->begin && i < f->units);
	assert(f->state[i] == (USED | order));
	(void)order;
	return i;
}

void gm_frames_free(struct gm_frames *f, uint64_t pa, unsigned order)
{
	uint32_t i = used_chunk(f, pa, order);

	f->state[i] = INNER;
	f->free_units += 1u << order;
	while (order < GM_FRAMES_ORDERS - 1) {
		uint32_t buddy = i ^ (1u << order);

		if (buddy >= f->units || f->state[buddy] != (FREE | order))
			break;
		unlink_chunk(f, buddy, order);
		i &= ~(1u << order);
		order++;
	}
	push(f, i, order);
}

void gm_frames_split(struct gm_frames *f, uint64_t pa, unsigned order, unsigned to_order)
{
	uint32_t i = used_chunk(f, pa, order);

	for (uint32_t k = 0; k < 1u << order; k += 1u << to_order)
		f->state[i + k] = (uint8_t)(USED | to_order);
}

/* The chunk at i: aligned, inside, its other units INNER; NULL or what is wrong. */
static const char *check_chunk(const struct gm_frames *f, uint32_t i, unsigned order)
{
	if (order >= GM_FRAMES_ORDERS || i % (1u << order) || f->units - i < 1u << order)
		return "a chunk is misaligned or leaves the slab";
	for (uint32_t k = 1; k < 1u << order; k++)
		if (f->state[i + k] != INNER)
			return "chunks overlap";
	if (f->state[i] & FREE) {
		uint32_t buddy = i ^ (1u << order);

		if (order < GM_FRAMES_ORDERS - 1 && buddy < f->units && f->state[buddy] == (FREE | order))
			return "two free buddies are not merged";
	}
	return NULL;
}

static const char *check_lists(const struct gm_frames *f, uint64_t *listed_units)
{
	for (unsigned o = 0; o < GM_FRAMES_ORDERS; o++) {
		uint32_t prev = NONE;

		if ((f->head[o] != NONE) != !!(f->nonempty & (1u << o)))
			return "the bitmap of free lists is wrong";
		for (uint32_t i = f->head[o]; i != NONE; prev = i, i = f->next[i]) {
			if (i >= f->units || f->state[i] != (FREE | o) || f->prev[i] != prev)
				return "a free list is broken";
			*listed_units += 1u << o;
		}
	}
	return NULL;
}

const char *gm_frames_check(const struct gm_frames *f)
{
	uint64_t listed_units = 0, free_units = 0;
	const char *wrong;

	for (uint32_t i = 0; i < f->units;) {
		unsigned order = f->state[i] & ORDER_MASK;

		if (!(f->state[i] & (FREE | USED)))
			return "a unit belongs to no chunk";
		wrong = check_chunk(f, i, order);
		if (wrong)
			return wrong;
		if (f->state[i] & FREE)
			free_units += 1u << order;
		i += 1u << order;
	}
	wrong = check_lists(f, &listed_units);
	if (wrong)
		return wrong;
	return listed_units != free_units || free_units != f->free_units ? "free units are miscounted" : NULL;
}
