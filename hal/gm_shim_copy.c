/* SPDX-License-Identifier: MIT */
/*
 * Copies: what the caller promises before, and what the backend promised after.
 *
 *     before: device memory registered and in use; nobody can write to a source, nothing maps a destination, no
 *             translation to it waits for tlb_invl(); no piece meets what another one, or a copy in flight, writes
 *     after:  the first, the last and a random page of each piece, where the CPU sees device memory
 */
#include "config.h"

#include <string.h>

#include "hal/gm_shim.h"

struct gm_shim_at gm_shim_copy_at(const char *op, const struct gm_copy *c, uint32_t step)
{
	return (struct gm_shim_at){ .op = op, .step = step, .pa = c->pa, .bytes = c->bytes };
}

static bool meet(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

/* a writes to what b reads or writes */
static bool disturbs(const struct gm_copy *a, const struct gm_copy *b)
{
	bool b_uses_host = b->kind == GM_COPY_TO_DEV || b->kind == GM_COPY_TO_HOST;

	if (a->kind == GM_COPY_TO_HOST)
		return b_uses_host && meet(a->host, a->bytes, b->host, b->bytes);
	return meet(a->pa, a->bytes, b->pa, b->bytes);
}

bool gm_shim_copies_meet(const struct gm_copy *a, const struct gm_copy *b)
{
	return disturbs(a, b) || disturbs(b, a);
}

/* The i-th copy of a fence; NULL: it is none. */
static const struct gm_copy *copy_of(const struct gm_shim_fence *f, size_t i)
{
	if (f->kind == GM_SHIM_FENCE_COPY)
		return &f->copies[i];
	return f->kind == GM_SHIM_FENCE_PLAN && f->inner[i].op == GM_STEP_COPY ? &f->inner[i].copy : NULL;
}

bool gm_shim_copying(struct gm_shim_dev *d, uint64_t pa, uint64_t bytes, bool reads)
{
	const struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		for (size_t i = 0; i < f->n; i++) {
			const struct gm_copy *c = copy_of(f, i);

			if (c && (reads || c->kind != GM_COPY_TO_HOST) && meet(c->pa, c->bytes, pa, bytes))
				return true;
		}
	return false;
}

/* (S) A copy in flight that this one disturbs, or that disturbs it. */
static bool in_flight(struct gm_shim_dev *d, const struct gm_copy *c)
{
	const struct gm_shim_fence *f;

	TAILQ_FOREACH(f, &d->fences, link)
		for (size_t i = 0; i < f->n; i++) {
			const struct gm_copy *other = copy_of(f, i);

			if (other && gm_shim_copies_meet(c, other))
				return true;
		}
	return false;
}

static void check_page(struct gm_shim_dev *d, const struct gm_copy *c, uint64_t pa, const struct gm_shim_at *at,
		       struct gm_shim_found *found)
{
	const struct gm_shim_frame *f = gm_shim_frame_of(&d->frames, pa);

	if (!gm_shim_registered(d, pa, GM_PAGE_BYTES))
		gm_shim_found_at(found, GM_RULE_OUTSIDE, at, 0, pa);
	else if (d->tracked && !(f && f->used))
		gm_shim_found_at(found, GM_RULE_USED_FREE, at, 0, pa);
	if (!f)
		return;
	if (c->kind == GM_COPY_TO_HOST && (f->writers || f->old_writers))
		gm_shim_found_at(found, GM_RULE_COPY_SOURCE, at, 0, pa);
	if (c->kind == GM_COPY_TO_HOST)
		return;
	if (f->maps)
		gm_shim_found_at(found, GM_RULE_COPY_MAPPED, at, 0, pa);
	if (f->old_maps)
		gm_shim_found_at(found, GM_RULE_REUSE_STALE, at, 0, pa);
}

void gm_shim_check_copy(struct gm_shim_dev *d, const struct gm_copy *c, const struct gm_shim_at *at,
			struct gm_shim_found *found)
{
	for (uint64_t off = 0; off < c->bytes; off += GM_PAGE_BYTES)
		check_page(d, c, c->pa + off, at, found);
	if (in_flight(d, c))
		gm_shim_found_at(found, GM_RULE_COPY_OVERLAP, at, 0, c->pa);
}

bool gm_shim_copy_range_ok(struct gm_shim_dev *d, const struct gm_copy *c, const struct gm_shim_at *at)
{
	bool ok = c->bytes && c->bytes % GM_PAGE_BYTES == 0 && c->pa % GM_PAGE_BYTES == 0 && c->pa + c->bytes > c->pa;

	if (c->kind == GM_COPY_TO_DEV || c->kind == GM_COPY_TO_HOST)
		ok = ok && c->host;
	if (!ok)
		gm_shim_report(d, GM_RULE_RANGE, at, "a copy is of whole pages, and names host memory");
	return ok;
}

/* False: the caller broke a rule, so nothing can be said of the result. */
static bool check_pieces(struct gm_shim_dev *d, const struct gm_copy *copies, size_t n)
{
	bool sound = true;

	for (size_t i = 0; i < n; i++) {
		struct gm_shim_at at = gm_shim_copy_at("copy", &copies[i], GM_STEP_FREE);
		struct gm_shim_found found = { .rule = GM_RULES };

		if (!gm_shim_copy_range_ok(d, &copies[i], &at)) {
			sound = false;
			continue;
		}
		for (size_t k = 0; k < i; k++)
			if (gm_shim_copies_meet(&copies[i], &copies[k]))
				gm_shim_found_at(&found, GM_RULE_COPY_OVERLAP, &at, 0, at.pa);
		gm_shim_lock(d);
		if (!atomic_load(&d->blind))
			gm_shim_check_copy(d, &copies[i], &at, &found);
		gm_shim_unlock(d);
		if (found.rule == GM_RULES)
			continue;
		gm_shim_report(d, found.rule, &found.at, "%s", "");
		sound = false;
	}
	return sound;
}

/* The device behind a peer: the shim's, if it is one. */
static void *peer_of(void *peer)
{
	return gm_validate_dev(peer);
}

gm_ret_t gm_shim_copy(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	struct gm_shim_dev *d = dev;
	struct gm_shim_at at = { .op = "copy", .step = GM_STEP_FREE };
	struct gm_shim_fence *f;
	struct gm_shim_call c;
	struct gm_copy *given;
	size_t bytes = n * sizeof(*given);
	gm_ret_t ret;

	if (n)
		at = gm_shim_copy_at("copy", copies, GM_STEP_FREE);
	given = d->out->alloc(d->out->self, bytes);
	f = given ? gm_shim_fence_new(d, done, GM_SHIM_FENCE_COPY, n) : NULL;
	if (!f) {
		if (given)
			d->out->free(d->out->self, given, bytes);
		return GM_RET_NOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		f->copies[i] = given[i] = copies[i];
		if (copies[i].kind == GM_COPY_FROM_PEER)
			given[i].peer = peer_of(copies[i].peer);
	}
	f->sound = check_pieces(d, copies, n);
	gm_shim_begin(d, &c, GM_SHIM_OP_COPY, &at);
	gm_shim_fence_given(d, f);
	ret = d->mmu.copy(d->dev, given, n, done);
	gm_shim_fence_sent(d, f, &at, ret);
	gm_shim_end(&c, ret);
	d->out->free(d->out->self, given, bytes);
	return ret;
}

/* ------------------------------------------------------------------- after */

static bool all_zero(const uint64_t *words)
{
	uint64_t any = 0;

	for (size_t i = 0; i < GM_PAGE_BYTES / sizeof(*words); i++)
		any |= words[i];
	return !any;
}

/* Where the CPU sees the source of a copy; NULL: nowhere. */
static const void *source_of(struct gm_shim_dev *d, const struct gm_copy *c, uint64_t off)
{
	struct gm_shim_dev *peer = c->peer;

	if (c->kind == GM_COPY_TO_DEV)
		return (const void *)(uintptr_t)(c->host + off);
	if (c->kind == GM_COPY_TO_HOST)
		return d->mmu.cpu_ptr(d->dev, c->pa + off, GM_PAGE_BYTES);
	if (gm_handle_live(peer, GM_HANDLE_SHIM) && gm_shim_has(peer, GM_CAP_CPU_VISIBLE) && peer->mmu.cpu_ptr)
		return peer->mmu.cpu_ptr(peer->dev, c->host + off, GM_PAGE_BYTES);
	return NULL;
}

static void verify_page(struct gm_shim_dev *d, const struct gm_copy *c, uint64_t off, uint32_t step)
{
	struct gm_shim_at at = gm_shim_copy_at(step == GM_STEP_FREE ? "copy" : "submit", c, step);
	const void *to = (const void *)(uintptr_t)(c->host + off), *from;

	at.pa += off;
	at.bytes -= off;
	if (c->kind != GM_COPY_TO_HOST)
		to = d->mmu.cpu_ptr(d->dev, c->pa + off, GM_PAGE_BYTES);
	if (!to)
		return;
	if (c->kind == GM_COPY_ZERO) {
		if (!all_zero(to))
			gm_shim_report(d, GM_RULE_COPY_ZERO, &at, "%s", "");
		return;
	}
	from = source_of(d, c, off);
	if (from && memcmp(to, from, GM_PAGE_BYTES) != 0)
		gm_shim_report(d, GM_RULE_COPY_BYTES, &at, "host 0x%llx", (unsigned long long)(c->host + off));
}

void gm_shim_verify_copy(struct gm_shim_dev *d, const struct gm_copy *c, uint32_t step)
{
	uint64_t last = c->bytes - GM_PAGE_BYTES;
	bool ask;

	gm_shim_lock(d);
	ask = !gm_shim_held(d) && !d->lost && !d->given_up; /* cpu_ptr() may want the lock */
	gm_shim_unlock(d);
	if (!ask || !gm_shim_has(d, GM_CAP_CPU_VISIBLE) || !d->mmu.cpu_ptr)
		return;
	verify_page(d, c, 0, step);
	if (last)
		verify_page(d, c, last, step);
	if (last > GM_PAGE_BYTES)
		verify_page(d, c, gm_shim_random(d, c->bytes / GM_PAGE_BYTES) * GM_PAGE_BYTES, step);
}
