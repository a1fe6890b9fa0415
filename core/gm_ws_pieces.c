/* SPDX-License-Identifier: MIT */
/*
 * From the ranges of a working set to pieces: one per block, with a mask per
 * right. Ranges may overlap and come in any order; the strongest right wins,
 * and a page is only discarded if no range wants its content. A range's part of a
 * block is one word while they are sorted, so the price of many small ranges is
 * a few instructions each.
 *
 * The caller's ranges are read once, without a lock, into a copy: they may lie in memory that is away, which comes home by
 * a handler that wants the space's lock, and another thread may write to them.
 *
 *     ranges   [--r--)      [----w----)
 *                   [--r--)      [--r--)
 *     pieces   |  block   |   block   |     each: read, write, discard
 */
#include "config.h"

#include <string.h>

#include "core/gm_mirror.h"

static gm_ret_t check_range(const struct gm_ctx *ctx, const struct gm_ws_range *r)
{
	const uint32_t rights = GM_READ | GM_WRITE | GM_ATOMIC;
	gm_ret_t ret = gm_as_check_range(ctx->as, "a working set", r->va, r->bytes);

	if (ret)
		return ret;
	if (!(r->access & rights) || (r->access & ~(rights | GM_WS_DISCARD)))
		return gm_fail(GM_RET_INVAL, "access 0x%x of the range at 0x%llx: GM_READ, GM_WRITE or GM_ATOMIC, and GM_WS_DISCARD",
			       (unsigned)r->access, (unsigned long long)r->va);
	if ((r->access & GM_WS_DISCARD) && !(r->access & (GM_WRITE | GM_ATOMIC)))
		return gm_fail(GM_RET_INVAL, "GM_WS_DISCARD at 0x%llx without GM_WRITE", (unsigned long long)r->va);
	if (r->va < ctx->va || r->va + r->bytes > ctx->end)
		return gm_fail(GM_RET_FAULT, "the range at 0x%llx leaves the device's window", (unsigned long long)r->va);
	return GM_RET_SUCCESS;
}

/* At most so many ranges are looked up under one lock. */
#define LOOKED_UP 256

/* Every page of them is part of a region. Which one is not; n if all are. */
static size_t first_unmanaged(struct gm_as *as, const struct gm_ws_range *ranges, size_t n, uint64_t *va)
{
	struct gm_region buf, *reg = NULL;
	size_t i = 0;

	gm_lock(as->env, &as->lock);
	for (; i < n; i++) {
		uint64_t at = ranges[i].va, end = at + ranges[i].bytes;

		while (at < end) {
			if (!reg || at < reg->va || at >= reg->end) /* often the same as before */
				reg = gm_regions_find(&as->regions, at, &buf);
			if (!reg)
				break;
			at = reg->end;
		}
		*va = at;
		if (at < end)
			break;
	}
	gm_unlock(as->env, &as->lock);
	return i;
}

static gm_ret_t check_managed(struct gm_as *as, const struct gm_ws_range *ranges, size_t n)
{
	uint64_t va = 0;

	for (size_t i = 0; i < n; i += LOOKED_UP) {
		size_t some = n - i < LOOKED_UP ? n - i : LOOKED_UP;

		if (first_unmanaged(as, &ranges[i], some, &va) < some)
			return gm_fail(GM_RET_FAULT, "0x%llx is not managed memory: gm_alloc() or gm_adopt() it first",
				       (unsigned long long)va);
	}
	return GM_RET_SUCCESS;
}

/* A range's part of a block, as a word: blocks in order of address, and of a block the ranges in order. */
#define RANGE_BITS 16
_Static_assert(GM_MAX_WS_RANGES <= 1u << RANGE_BITS, "the number of a range fits");
_Static_assert(GM_BLOCK_BYTES >= 1u << RANGE_BITS, "and leaves room for the block's");

static uint64_t part(uint64_t block, size_t range)
{
	return block / GM_BLOCK_BYTES << RANGE_BITS | range;
}

static uint64_t block_of(uint64_t part)
{
	return (part >> RANGE_BITS) * GM_BLOCK_BYTES;
}

static size_t list_parts(uint64_t *parts, const struct gm_ws_range *ranges, size_t n, uint64_t *differ)
{
	size_t count = 0;

	*differ = 0;
	for (size_t i = 0; i < n; i++)
		for (uint64_t b = gm_block_base(ranges[i].va); b < ranges[i].va + ranges[i].bytes; b += GM_BLOCK_BYTES) {
			parts[count] = part(b, i);
			*differ |= parts[count] ^ parts[0];
			count++;
		}
	return count;
}

/* By block, digit by digit, those only that differ; stable, so the ranges keep their order. Returns the sorted one of the two. */
static uint64_t *sort_parts(uint64_t *from, uint64_t *to, size_t count, uint64_t differ)
{
	for (unsigned shift = RANGE_BITS; shift < 64; shift += 8) {
		uint32_t at[256] = { 0 }, sum = 0;
		uint64_t *swap = from;

		if (!(differ >> shift & 0xff))
			continue;
		for (size_t i = 0; i < count; i++)
			at[from[i] >> shift & 0xff]++;
		for (unsigned d = 0; d < 256; d++) {
			uint32_t n = at[d];

			at[d] = sum;
			sum += n;
		}
		for (size_t i = 0; i < count; i++)
			to[at[from[i] >> shift & 0xff]++] = from[i];
		from = to;
		to = swap;
	}
	return from;
}

static size_t count_blocks(const uint64_t *parts, size_t count)
{
	size_t blocks = 1;

	for (size_t i = 1; i < count; i++)
		blocks += block_of(parts[i]) != block_of(parts[i - 1]);
	return blocks;
}

/* First and last + 1 of the pages of block that a range touches; inside: of those that lie in it completely. */
static void pages_of(const struct gm_ws_range *r, uint64_t block, bool inside, unsigned *first, unsigned *end)
{
	uint64_t lo = r->va > block ? r->va - block : 0, stop = r->va + r->bytes;
	uint64_t hi = stop < block + GM_BLOCK_BYTES ? stop - block : GM_BLOCK_BYTES;

	*first = (unsigned)((lo + (inside ? GM_PAGE_BYTES - 1 : 0)) / GM_PAGE_BYTES);
	*end = (unsigned)((hi + (inside ? 0 : GM_PAGE_BYTES - 1)) / GM_PAGE_BYTES);
}

static void add_part(struct gm_ws_piece *p, const struct gm_ws_range *r)
{
	unsigned first, end;

	pages_of(r, p->va, false, &first, &end);
	gm_mask_add_span(&p->read, first, end);
	if (r->access & (GM_WRITE | GM_ATOMIC))
		gm_mask_add_span(&p->write, first, end);
	p->atomic |= (r->access & GM_ATOMIC) != 0;
	if (!(r->access & GM_WS_DISCARD))
		return;
	pages_of(r, p->va, true, &first, &end);
	if (first < end)
		gm_mask_add_span(&p->discard, first, end);
}

/* Content wanted by one range is content wanted: also that of pages which a discarded range has only part of. */
static void keep_part(struct gm_ws_piece *p, const struct gm_ws_range *r)
{
	struct gm_mask kept, inside;
	unsigned first, end;

	pages_of(r, p->va, false, &first, &end);
	kept = gm_mask_span(first, end);
	pages_of(r, p->va, true, &first, &end);
	inside = gm_mask_span(first, end);
	if (r->access & GM_WS_DISCARD)
		kept = gm_mask_sub(kept, inside);
	p->discard = gm_mask_sub(p->discard, kept);
}

/* The parts of each block together make a piece. */
static void fill(struct gm_ws_piece *piece, const uint64_t *parts, size_t count, const struct gm_ws_range *ranges)
{
	size_t first = 0;

	for (size_t i = 0; i < count; i++) {
		const struct gm_ws_range *r = &ranges[parts[i] % (1u << RANGE_BITS)];
		bool last = i + 1 == count || block_of(parts[i + 1]) != block_of(parts[i]);

		piece->va = block_of(parts[i]);
		add_part(piece, r);
		if (!last)
			continue;
		for (size_t k = first; k <= i && !gm_mask_empty(&piece->discard); k++)
			keep_part(piece, &ranges[parts[k] % (1u << RANGE_BITS)]);
		first = i + 1;
		piece++;
	}
}

static size_t count_parts(const struct gm_ws_range *ranges, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += (size_t)((gm_block_base(ranges[i].va + ranges[i].bytes - 1) - gm_block_base(ranges[i].va)) /
				  GM_BLOCK_BYTES) + 1;
	return count;
}

static gm_ret_t make_pieces(struct gm_env *env, const struct gm_ws_range *ranges, size_t n, struct gm_ws_piece **piece,
			    size_t *pieces)
{
	size_t count = count_parts(ranges, n), bytes = 2 * count * sizeof(uint64_t);
	uint64_t *parts = gm_mem_alloc(env, bytes), *sorted, differ;

	if (!parts)
		return GM_RET_NOMEM;
	(void)list_parts(parts, ranges, n, &differ);
	sorted = sort_parts(parts, parts + count, count, differ);
	*pieces = count_blocks(sorted, count);
	*piece = gm_mem_alloc(env, *pieces * sizeof(**piece));
	if (*piece)
		fill(*piece, sorted, count, ranges);
	gm_mem_free(env, parts, bytes);
	return *piece ? GM_RET_SUCCESS : GM_RET_NOMEM;
}

static gm_ret_t from_copy(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_piece **piece,
			  size_t *pieces)
{
	gm_ret_t ret = GM_RET_SUCCESS;

	for (size_t i = 0; i < n && !ret; i++)
		ret = check_range(ctx, &ranges[i]);
	if (!ret && !gm_as_mirrors(ctx->as))
		ret = check_managed(ctx->as, ranges, n);
	if (ret)
		return ret;
	ret = make_pieces(ctx->as->env, ranges, n, piece, pieces);
	if (ret)
		return gm_fail(ret, "no memory for a working set of %zu ranges", n);
	if (gm_as_mirrors(ctx->as))
		ret = gm_mirror_survey(ctx->as, *piece, *pieces);
	if (ret)
		gm_ws_pieces_free(ctx, *piece, *pieces);
	return ret;
}

gm_ret_t gm_ws_pieces(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_piece **piece,
		      size_t *pieces)
{
	size_t bytes = n * sizeof(*ranges);
	struct gm_ws_range *copy = gm_mem_alloc(ctx->as->env, bytes);
	gm_ret_t ret;

	if (!copy)
		return gm_fail(GM_RET_NOMEM, "no memory for a working set of %zu ranges", n);
	memcpy(copy, ranges, bytes);
	ret = from_copy(ctx, copy, n, piece, pieces);
	gm_mem_free(ctx->as->env, copy, bytes);
	return ret;
}

void gm_ws_pieces_free(struct gm_ctx *ctx, struct gm_ws_piece *piece, size_t pieces)
{
	gm_mem_free(ctx->as->env, piece, pieces * sizeof(*piece));
}

uint64_t gm_ws_units(const struct gm_ctx *ctx, const struct gm_ws_piece *piece, size_t pieces)
{
	unsigned whole = ctx->dev->node.min_order ? GM_BLOCK_UNITS : 0;
	uint64_t units = 0;

	_Static_assert(1u << GM_BLOCK_ORDER == GM_BLOCK_UNITS, "a chunk is a unit or a block");
	for (size_t i = 0; i < pieces; i++) {
		struct gm_mask pages = gm_mask_sub(piece[i].read, piece[i].stays);

		if (whole)
			units += gm_mask_empty(&pages) ? 0 : whole;
		else
			units += (unsigned)__builtin_popcount(gm_mask_units(&pages));
	}
	return units;
}
