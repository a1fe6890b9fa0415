/* SPDX-License-Identifier: MIT */
/*
 * From the ranges of a working set to pieces: one per block, with a mask per
 * right. Ranges may overlap and come in any order; the strongest right wins,
 * and a page is only discarded if no range wants its content.
 *
 *     ranges   [--r--)      [----w----)
 *                   [--r--)      [--r--)
 *     pieces   |  block   |   block   |     each: read, write, discard
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "core/gm_ws.h"

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

/* Every page of it is part of a region. */
static gm_ret_t check_managed(struct gm_as *as, const struct gm_ws_range *r)
{
	uint64_t va = r->va, end = r->va + r->bytes;

	gm_lock(as->env, &as->lock);
	for (struct gm_region buf, *reg; va < end && (reg = gm_regions_find(&as->regions, va, &buf));)
		va = reg->end;
	gm_unlock(as->env, &as->lock);
	return va >= end ? GM_RET_SUCCESS
			 : gm_fail(GM_RET_FAULT, "0x%llx is not managed memory: gm_alloc() or gm_adopt() it first",
				   (unsigned long long)va);
}

static int by_block(const void *a, const void *b)
{
	const struct gm_ws_piece *x = a, *y = b;

	return x->va < y->va ? -1 : x->va > y->va;
}

static struct gm_mask clip(uint64_t block, uint64_t va, uint64_t end)
{
	uint64_t lo = va > block ? va - block : 0;
	uint64_t hi = end < block + GM_BLOCK_BYTES ? end - block : GM_BLOCK_BYTES;

	return gm_mask_span((unsigned)(lo / GM_PAGE_BYTES), (unsigned)((hi + GM_PAGE_BYTES - 1) / GM_PAGE_BYTES));
}

/* Pages that lie completely inside: only these may be discarded. */
static struct gm_mask clip_inside(uint64_t block, uint64_t va, uint64_t end)
{
	uint64_t lo = va > block ? va - block + GM_PAGE_BYTES - 1 : 0;
	uint64_t hi = end < block + GM_BLOCK_BYTES ? end - block : GM_BLOCK_BYTES;
	unsigned first = (unsigned)(lo / GM_PAGE_BYTES), last = (unsigned)(hi / GM_PAGE_BYTES);

	return first < last ? gm_mask_span(first, last) : gm_mask_none();
}

static struct gm_ws_piece piece_of(const struct gm_ws_range *r, uint64_t block)
{
	uint64_t end = r->va + r->bytes;
	struct gm_ws_piece p = { .va = block, .read = clip(block, r->va, end), .atomic = r->access & GM_ATOMIC };

	if (r->access & (GM_WRITE | GM_ATOMIC))
		p.write = p.read;
	if (r->access & GM_WS_DISCARD)
		p.discard = clip_inside(block, r->va, end);
	return p;
}

static void merge(struct gm_ws_piece *into, const struct gm_ws_piece *p)
{
	/* Content wanted by one of them is content wanted. */
	struct gm_mask kept = gm_mask_or(gm_mask_sub(into->read, into->discard), gm_mask_sub(p->read, p->discard));

	into->discard = gm_mask_sub(gm_mask_or(into->discard, p->discard), kept);
	into->read = gm_mask_or(into->read, p->read);
	into->write = gm_mask_or(into->write, p->write);
	into->atomic |= p->atomic;
}

static size_t count_pieces(const struct gm_ws_range *ranges, size_t n)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += (size_t)((gm_block_base(ranges[i].va + ranges[i].bytes - 1) - gm_block_base(ranges[i].va)) /
				  GM_BLOCK_BYTES) + 1;
	return count;
}

static size_t fill(struct gm_ws_piece *piece, const struct gm_ws_range *ranges, size_t n)
{
	size_t count = 0, kept = 0;

	for (size_t i = 0; i < n; i++)
		for (uint64_t b = gm_block_base(ranges[i].va); b < ranges[i].va + ranges[i].bytes; b += GM_BLOCK_BYTES)
			piece[count++] = piece_of(&ranges[i], b);
	qsort(piece, count, sizeof(*piece), by_block);
	for (size_t i = 0; i < count; i++) {
		if (kept && piece[kept - 1].va == piece[i].va)
			merge(&piece[kept - 1], &piece[i]);
		else
			piece[kept++] = piece[i];
	}
	return kept;
}

gm_ret_t gm_ws_pieces(struct gm_ctx *ctx, const struct gm_ws_range *ranges, size_t n, struct gm_ws_piece **piece,
		      size_t *pieces)
{
	struct gm_env *env = ctx->as->env;
	struct gm_ws_piece *all, *out;
	size_t count, kept;

	for (size_t i = 0; i < n; i++) {
		gm_ret_t ret = check_range(ctx, &ranges[i]);

		if (!ret)
			ret = check_managed(ctx->as, &ranges[i]);
		if (ret)
			return ret;
	}
	count = count_pieces(ranges, n);
	all = gm_mem_alloc(env, count * sizeof(*all));
	if (!all)
		return gm_fail(GM_RET_NOMEM, "no memory for a working set of %zu ranges", n);
	kept = fill(all, ranges, n);
	out = gm_mem_alloc(env, kept * sizeof(*out));
	if (out)
		memcpy(out, all, kept * sizeof(*out));
	gm_mem_free(env, all, count * sizeof(*all));
	if (!out)
		return gm_fail(GM_RET_NOMEM, "no memory for a working set of %zu ranges", n);
	*piece = out;
	*pieces = kept;
	return GM_RET_SUCCESS;
}

void gm_ws_pieces_free(struct gm_ctx *ctx, struct gm_ws_piece *piece, size_t pieces)
{
	gm_mem_free(ctx->as->env, piece, pieces * sizeof(*piece));
}

uint64_t gm_ws_units(const struct gm_ctx *ctx, const struct gm_ws_piece *piece, size_t pieces)
{
	unsigned chunk_units = 1u << ctx->dev->node.min_order;
	uint64_t units = 0;

	for (size_t i = 0; i < pieces; i++)
		for (unsigned u = 0; u < GM_BLOCK_UNITS; u += chunk_units) {
			struct gm_mask span = gm_mask_span(u * GM_UNIT_PAGES, (u + chunk_units) * GM_UNIT_PAGES);

			if (gm_mask_meets(&span, &piece[i].read))
				units += chunk_units;
		}
	return units;
}
