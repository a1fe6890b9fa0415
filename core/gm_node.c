/* SPDX-License-Identifier: MIT */
/*
 * A device's memory. Frames come from one buddy allocator per slab, in units
 * of 64 KiB; beside each unit stands a record of what is in it, so nothing is
 * allocated when pages move. A record is written when its unit is first taken,
 * not before: of a large device that is hardly used the books cost nothing.
 *
 *     FREE --take--> BUSY --settle--> RESIDENT --put--> FREE
 *                     \------put (transaction undone)----/
 *     RESIDENT(2 MiB) --split--> 32 x RESIDENT(64 KiB)
 *
 * A victim is only pointed at, not taken: it stays RESIDENT until the
 * transaction that empties it gives it back, like any other that empties a
 * chunk. So a failed eviction needs no undoing, and two ways of emptying a
 * chunk cannot collide. Picking moves it to the recent end of the list: the
 * next picker looks elsewhere.
 *
 * RESIDENT keeps its block alive, in either form: a block leaves the index only when nothing
 * of it is in any device, and taking the last page out passes through
 * gm_node_put(), under the same lock as gm_node_pick(); so does packing it (gm_node_set_owner()).
 */
#include "config.h"

#include <assert.h>

#include "core/gm_node.h"
#include "core/gm_pack.h"
#include "hal/gm_call.h"

void gm_node_init(struct gm_node *node, struct gm_env *env, uint32_t granule_bytes)
{
	uint32_t units = granule_bytes / GM_UNIT_BYTES;

	*node = (struct gm_node){ .env = env, .min_order = units ? (uint8_t)__builtin_ctz(units) : 0 };
	gm_mutex_init(env, &node->lock, GM_RANK_NODE);
	gm_waitq_init(env, &node->waitq);
	TAILQ_INIT(&node->lru);
}

void gm_node_fini(struct gm_node *node)
{
	for (unsigned i = 0; i < node->slabs; i++) {
		struct gm_slab_books *s = &node->slab[i];

		gm_mem_free(node->env, s->chunk, s->frames.units * sizeof(*s->chunk));
		gm_frames_fini(&s->frames);
	}
	gm_waitq_fini(node->env, &node->waitq);
	gm_mutex_fini(node->env, &node->lock);
}

static gm_ret_t publish_slab(struct gm_node *node, const struct gm_slab_books *books, uint64_t end)
{
	for (unsigned i = 0; i < node->slabs; i++) {
		const struct gm_frames *f = &node->slab[i].frames;

		if (books->frames.begin < f->begin + ((uint64_t)f->units << f->shift) && f->begin < end)
			return gm_fail(GM_RET_EXIST, "device memory [0x%llx, 0x%llx) overlaps memory registered before",
				       (unsigned long long)books->frames.begin, (unsigned long long)end);
	}
	if (node->slabs == GM_MAX_SLABS)
		return gm_fail(GM_RET_NOSPC, "a device has at most %u pieces of memory", GM_MAX_SLABS);
	node->slab[node->slabs++] = *books;
	node->total_units += books->frames.units;
	node->free_units += books->frames.units;
	return GM_RET_SUCCESS;
}

gm_ret_t gm_node_add_slab(struct gm_node *node, uint64_t begin, uint64_t end)
{
	struct gm_slab_books books = { .chunk = NULL };
	gm_ret_t ret;

	ret = gm_frames_init(&books.frames, node->env, begin, end, (uint32_t)__builtin_ctz(GM_UNIT_BYTES));
	if (ret)
		return gm_fail(ret, "no memory for the books of a slab of device memory");
	books.chunk = gm_mem_alloc(node->env, books.frames.units * sizeof(*books.chunk));
	if (!books.chunk) {
		gm_frames_fini(&books.frames);
		return gm_fail(GM_RET_NOMEM, "no memory for the books of a slab of device memory");
	}
	gm_lock(node->env, &node->lock);
	ret = publish_slab(node, &books, end);
	gm_unlock(node->env, &node->lock);
	if (ret) {
		gm_mem_free(node->env, books.chunk, books.frames.units * sizeof(*books.chunk));
		gm_frames_fini(&books.frames);
	} else {
		gm_wake(node->env, &node->waitq);
	}
	return ret;
}

static struct gm_slab_books *slab_of(struct gm_node *node, const struct gm_chunk *chunk)
{
	for (unsigned i = 0; i < node->slabs; i++) {
		struct gm_slab_books *s = &node->slab[i];

		if (chunk >= s->chunk && chunk < s->chunk + s->frames.units)
			return s;
	}
	assert(!"a chunk belongs to a slab");
	return NULL;
}

/* (node) */
static struct gm_chunk *take_from(struct gm_node *node, struct gm_slab_books *s, unsigned order)
{
	struct gm_chunk *chunk;
	uint64_t pa;

	if (gm_frames_alloc(&s->frames, order, &pa))
		return NULL;
	chunk = &s->chunk[(pa - s->frames.begin) / GM_UNIT_BYTES];
	assert(chunk->state == GM_CHUNK_FREE);
	chunk->pa = pa;
	chunk->order = (uint8_t)order;
	chunk->state = GM_CHUNK_BUSY;
	node->free_units -= 1u << order;
	return chunk;
}

/* (node) */
static struct gm_chunk *take(struct gm_node *node, unsigned order)
{
	struct gm_chunk *chunk = NULL;

	for (unsigned i = 0; i < node->slabs && !chunk; i++)
		chunk = take_from(node, &node->slab[i], order);
	return chunk;
}

static void tell(struct gm_node *node, const struct gm_chunk *chunk, bool used)
{
	gm_hal_frames(node->hal, chunk->pa, (uint64_t)GM_UNIT_BYTES << chunk->order, used);
}

struct gm_chunk *gm_node_take(struct gm_node *node, unsigned order)
{
	struct gm_chunk *chunk;

	if (order < node->min_order)
		order = node->min_order;
	gm_lock(node->env, &node->lock);
	chunk = take(node, order);
	gm_unlock(node->env, &node->lock);
	if (chunk)
		tell(node, chunk, true);
	return chunk;
}

bool gm_node_take_units(struct gm_node *node, uint32_t units, struct gm_chunk **chunk)
{
	bool ok;

	assert(node->min_order == 0);
	gm_lock(node->env, &node->lock);
	ok = node->free_units >= (unsigned)__builtin_popcount(units);
	for (unsigned u = 0; ok && u < GM_BLOCK_UNITS; u++)
		if (units >> u & 1)
			chunk[u] = take(node, 0); /* there is one: nothing smaller than a unit is ever taken */
	gm_unlock(node->env, &node->lock);
	for (unsigned u = 0; ok && u < GM_BLOCK_UNITS; u++)
		if (units >> u & 1)
			tell(node, chunk[u], true);
	return ok;
}

void gm_node_put(struct gm_node *node, struct gm_chunk *chunk)
{
	tell(node, chunk, false); /* while it is still ours */
	gm_lock(node->env, &node->lock);
	assert(chunk->state != GM_CHUNK_FREE && chunk->holds == 0);
	if (chunk->state == GM_CHUNK_RESIDENT)
		TAILQ_REMOVE(&node->lru, chunk, lru);
	chunk->state = GM_CHUNK_FREE;
	chunk->owner = NULL;
	gm_frames_free(&slab_of(node, chunk)->frames, chunk->pa, chunk->order);
	node->free_units += 1u << chunk->order;
	gm_wake(node->env, &node->waitq); /* under the lock: once all is free the node may go */
	gm_unlock(node->env, &node->lock);
}

void gm_node_settle(struct gm_node *node, struct gm_chunk *chunk, struct gm_block *block, unsigned first)
{
	uint64_t now = gm_now_ns(node->env);

	gm_lock(node->env, &node->lock);
	assert(chunk->state == GM_CHUNK_BUSY);
	chunk->state = GM_CHUNK_RESIDENT;
	chunk->owner = block;
	chunk->first = (uint16_t)first;
	chunk->served_ns = now;
	TAILQ_INSERT_TAIL(&node->lru, chunk, lru);
	gm_unlock(node->env, &node->lock);
}

bool gm_node_set_owner(struct gm_node *node, struct gm_chunk *const *unit, const atomic_uint *refs, void *owner)
{
	bool ok;

	gm_lock(node->env, &node->lock);
	ok = !refs || atomic_load_explicit(refs, memory_order_acquire) == 1;
	for (unsigned u = 0; ok && u < GM_BLOCK_UNITS; u++)
		if (unit[u])
			unit[u]->owner = owner;
	gm_unlock(node->env, &node->lock);
	return ok;
}

static void to_recent_end(struct gm_node *node, struct gm_chunk *chunk)
{
	TAILQ_REMOVE(&node->lru, chunk, lru);
	TAILQ_INSERT_TAIL(&node->lru, chunk, lru);
}

void gm_node_touch(struct gm_node *node, struct gm_chunk *chunk)
{
	uint64_t now = gm_now_ns(node->env);

	gm_lock(node->env, &node->lock);
	assert(chunk->state == GM_CHUNK_RESIDENT);
	chunk->served_ns = now;
	to_recent_end(node, chunk);
	gm_unlock(node->env, &node->lock);
}

void gm_node_hold(struct gm_node *node, struct gm_chunk *const *chunk, uint32_t units)
{
	if (!units)
		return;
	gm_lock(node->env, &node->lock);
	for (; units; units &= units - 1) {
		struct gm_chunk *c = chunk[__builtin_ctz(units)];

		assert(c->state == GM_CHUNK_RESIDENT);
		c->holds++;
	}
	gm_unlock(node->env, &node->lock);
}

void gm_node_unhold(struct gm_node *node, struct gm_chunk *const *chunk, uint32_t units)
{
	if (!units)
		return;
	gm_lock(node->env, &node->lock);
	for (; units; units &= units - 1) {
		struct gm_chunk *c = chunk[__builtin_ctz(units)];

		assert(c->state == GM_CHUNK_RESIDENT && c->holds);
		c->holds--;
	}
	gm_unlock(node->env, &node->lock);
	gm_wake(node->env, &node->waitq);
}

void gm_node_split(struct gm_node *node, struct gm_chunk *chunk)
{
	unsigned units = 1u << chunk->order;

	gm_lock(node->env, &node->lock);
	assert(chunk->state == GM_CHUNK_RESIDENT && chunk->holds == 0 && node->min_order == 0);
	chunk->order = 0;
	for (unsigned i = 1; i < units; i++) {
		struct gm_chunk *c = &chunk[i];

		c->pa = chunk->pa + (uint64_t)i * GM_UNIT_BYTES;
		c->order = 0;
		c->state = GM_CHUNK_RESIDENT;
		c->owner = chunk->owner;
		c->first = (uint16_t)(chunk->first + i * GM_UNIT_PAGES);
		c->served_ns = chunk->served_ns;
		c->holds = 0;
		TAILQ_INSERT_AFTER(&node->lru, &chunk[i - 1], c, lru);
	}
	gm_unlock(node->env, &node->lock);
}

#define CANDIDATES 16

static uint64_t va_of(const struct gm_chunk *c)
{
	const struct gm_packed *p = gm_packed_of(c->owner);
	const struct gm_block *b = c->owner;

	return (p ? p->va : b->va) + (uint64_t)c->first * GM_PAGE_BYTES;
}

static struct gm_chunk *choose(const struct gm_policy *policy, struct gm_chunk **cand, size_t n)
{
	struct gm_policy_victim v[CANDIDATES];
	size_t index;

	if (!policy->victim)
		return cand[0];
	for (size_t i = 0; i < n; i++)
		v[i] = (struct gm_policy_victim){
			.va = va_of(cand[i]),
			.bytes = GM_UNIT_BYTES << cand[i]->order,
			.served_ns = cand[i]->served_ns,
		};
	index = policy->victim(policy->state, v, n);
	return cand[index < n ? index : 0];
}

/* (node) */
static void point_at(const struct gm_chunk *c, struct gm_victim *victim)
{
	const struct gm_packed *p = gm_packed_of(c->owner);

	*victim = (struct gm_victim){ .first = c->first, .end = c->first + (GM_UNIT_PAGES << c->order) };
	if (p) {
		gm_as_get(p->as);
		victim->as = p->as;
		victim->va = p->va;
	} else {
		victim->block = gm_block_get(c->owner);
	}
}

bool gm_node_pick(struct gm_node *node, const struct gm_policy *policy, struct gm_victim *victim)
{
	struct gm_chunk *cand[CANDIDATES], *c;
	size_t n = 0;

	gm_lock(node->env, &node->lock);
	TAILQ_FOREACH(c, &node->lru, lru) {
		if (n == CANDIDATES)
			break;
		if (!c->holds)
			cand[n++] = c;
	}
	if (n) {
		c = choose(policy, cand, n);
		to_recent_end(node, c);
		point_at(c, victim);
	}
	gm_unlock(node->env, &node->lock);
	return n > 0;
}

gm_ret_t gm_node_wait(struct gm_node *node, uint64_t deadline_ns)
{
	gm_ret_t ret;

	gm_lock(node->env, &node->lock);
	ret = gm_wait(node->env, &node->waitq, &node->lock, deadline_ns);
	gm_unlock(node->env, &node->lock);
	return ret;
}

gm_ret_t gm_node_reserve(struct gm_node *node, uint64_t units, uint64_t deadline_ns)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	gm_lock(node->env, &node->lock);
	if (units > node->total_units)
		ret = GM_RET_NOSPC;
	while (!ret && units > node->total_units - node->reserved_units)
		ret = gm_wait(node->env, &node->waitq, &node->lock, deadline_ns);
	if (!ret)
		node->reserved_units += units;
	gm_unlock(node->env, &node->lock);
	return ret;
}

void gm_node_unreserve(struct gm_node *node, uint64_t units)
{
	gm_lock(node->env, &node->lock);
	assert(node->reserved_units >= units);
	node->reserved_units -= units;
	gm_unlock(node->env, &node->lock);
	gm_wake(node->env, &node->waitq);
}

void gm_node_room(struct gm_node *node, uint64_t *total_units, uint64_t *free_units, uint64_t *reserved_units)
{
	gm_lock(node->env, &node->lock);
	*total_units = node->total_units;
	*free_units = node->free_units;
	*reserved_units = node->reserved_units;
	gm_unlock(node->env, &node->lock);
}

const char *gm_node_check(struct gm_node *node)
{
	const char *wrong = NULL;
	uint64_t listed = 0, busy = 0, free_units = 0;
	struct gm_chunk *c;

	gm_lock(node->env, &node->lock);
	TAILQ_FOREACH(c, &node->lru, lru) {
		listed += 1u << c->order;
		if (c->state != GM_CHUNK_RESIDENT || !c->owner)
			wrong = "a chunk on the list is not resident";
	}
	for (unsigned i = 0; i < node->slabs && !wrong; i++) {
		const struct gm_frames *f = &node->slab[i].frames;

		wrong = gm_frames_check(f);
		free_units += f->free_units;
		for (uint32_t k = 0; k < f->units; k++)
			if (node->slab[i].chunk[k].state == GM_CHUNK_BUSY)
				busy += 1u << node->slab[i].chunk[k].order;
	}
	if (!wrong && (free_units != node->free_units || listed + busy + free_units != node->total_units))
		wrong = "device memory is miscounted";
	gm_unlock(node->env, &node->lock);
	return wrong;
}
