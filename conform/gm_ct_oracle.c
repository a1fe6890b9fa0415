/* SPDX-License-Identifier: MIT */
/*
 * The array oracle of a page table: for each granule of a window of addresses, which granule of device memory it
 * shows and with what rights. An access must agree with it, and the bytes with those of gm_ct_mem.
 *
 * Random steps keep the contract of the caller: only holes are entered (or the same frames with more rights), a
 * frame is shown at one address, and what was removed is invalidated before the next step. Lengths are one granule,
 * a few, or whole large pages, at places that are sometimes aligned with them, so that large pages are made and cut.
 */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conform/gm_ct.h"

static void init(struct gm_ct_map *o, struct gm_ct_mem *m, uint64_t va, uint64_t seed)
{
	struct gm_ct *t = m->d->t;

	*o = (struct gm_ct_map){ .d = m->d, .m = m, .va = va, .pages = m->pages, .last = m->pages };
	o->random.state = seed;
	o->frame = gm_ct_alloc(t, o->pages * sizeof(*o->frame));
	o->pte = gm_ct_alloc(t, o->pages * sizeof(*o->pte));
	o->used = gm_ct_alloc(t, m->pages);
	for (uint32_t i = 0; i < o->pages; i++)
		o->frame[i] = GM_CT_NONE;
}

void gm_ct_map_init(struct gm_ct_map *o, struct gm_ct_mem *m, uint64_t va, uint64_t seed)
{
	init(o, m, va, seed);
	gm_ct_ok(m->d->t, gm_ct_pmap_create(o->d, &o->pmap));
}

void gm_ct_map_share(struct gm_ct_map *o, struct gm_ct_map *owner, uint64_t va, uint64_t seed)
{
	init(o, owner->m, va, seed);
	o->pmap = owner->pmap;
	o->shared = true;
}

void gm_ct_map_fini(struct gm_ct_map *o)
{
	gm_ct_map_remove(o, 0, o->pages);
	gm_ct_map_abandon(o);
}

void gm_ct_map_abandon(struct gm_ct_map *o)
{
	if (!o->shared)
		gm_ct_pmap_destroy(o->d, o->pmap);
	free(o->frame);
	free(o->pte);
	free(o->used);
}

void gm_ct_map_set(struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n, uint32_t pte)
{
	for (uint32_t i = 0; i < n; i++) {
		o->pte[page + i] |= pte;
		o->frame[page + i] = frame + i;
		o->used[frame + i] = 1;
	}
}

void gm_ct_map_unset(struct gm_ct_map *o, uint32_t page, uint32_t n)
{
	for (uint32_t i = page; i < page + n; i++) {
		if (o->frame[i] != GM_CT_NONE)
			o->used[o->frame[i]] = 0;
		o->frame[i] = GM_CT_NONE;
		o->pte[i] = 0;
	}
}

void gm_ct_map_enter(struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n, uint32_t pte)
{
	gm_ct_ok(o->d->t, gm_ct_enter(o->d, o->pmap, gm_ct_va(o, page), gm_ct_pa(o->m, frame), n * o->d->granule, pte));
	gm_ct_map_set(o, page, frame, n, pte);
}

void gm_ct_map_remove(struct gm_ct_map *o, uint32_t page, uint32_t n)
{
	gm_ct_ok(o->d->t, gm_ct_remove(o->d, o->pmap, gm_ct_va(o, page), n * o->d->granule));
	gm_ct_invl(o->d, o->pmap, gm_ct_va(o, page), n * o->d->granule);
	gm_ct_map_unset(o, page, n);
}

void gm_ct_map_protect(struct gm_ct_map *o, uint32_t page, uint32_t n, uint32_t pte)
{
	gm_ct_ok(o->d->t, gm_ct_protect(o->d, o->pmap, gm_ct_va(o, page), n * o->d->granule, pte));
	gm_ct_invl(o->d, o->pmap, gm_ct_va(o, page), n * o->d->granule);
	for (uint32_t i = page; i < page + n; i++) {
		if (o->frame[i] != GM_CT_NONE)
			o->pte[i] = pte;
	}
}

static gm_ret_t expected(const struct gm_ct_map *o, uint32_t page, bool store)
{
	if (o->frame[page] == GM_CT_NONE)
		return GM_RET_FAULT;
	return store && !(o->pte[page] & (GM_PTE_WRITE | GM_PTE_ATOMIC)) ? GM_RET_PERM : GM_RET_SUCCESS;
}

/* What the oracle has for a page, in words. */
static _Noreturn void wrong_result(struct gm_ct_map *o, uint32_t page, bool store, gm_ret_t ret)
{
	const char *what = expected(o, page, store) == GM_RET_SUCCESS ? "mapping" :
			   expected(o, page, store) == GM_RET_PERM ? "rights" : "hole";

	gm_ct_fail(o->d->t, what, "a %s at va 0x%" PRIx64 " returned %s, expected %s (%s%s)", store ? "store" : "load",
		   gm_ct_va(o, page), gm_ret_name(ret), gm_ret_name(expected(o, page, store)),
		   o->frame[page] == GM_CT_NONE ? "nothing is mapped there" : "mapped there",
		   o->frame[page] == GM_CT_NONE ? "" : o->pte[page] & GM_PTE_WRITE ? " with write" : " without write");
}

static void wrong_bytes(struct gm_ct_map *o, uint32_t page, uint64_t got, uint64_t want)
{
	const char *whose = "";

	for (uint64_t i = 0; i < o->m->bytes && !*whose; i += 8) {
		if (memcmp(o->m->is + i, &got, 8) == 0)
			whose = i / o->d->granule == o->frame[page] ? ", which is in another place of the same page"
								    : ", which belongs to another page";
	}
	gm_ct_fail(o->d->t, "bytes", "a load at va 0x%" PRIx64 " (mapped to pa 0x%" PRIx64 ") read %016" PRIx64
		   ", expected %016" PRIx64 "%s", gm_ct_va(o, page), gm_ct_pa(o->m, o->frame[page]), got, want, whose);
}

void gm_ct_map_probe(struct gm_ct_map *o, uint32_t page, bool store)
{
	uint64_t offset = gm_ct_below(&o->random, o->d->granule / 8) * 8, got = 0, want;
	unsigned char *is = NULL;
	gm_ret_t ret;

	if (o->frame[page] != GM_CT_NONE)
		is = o->m->is + o->frame[page] * o->d->granule + offset;
	ret = gm_ct_access(o->d, o->pmap, gm_ct_va(o, page) + offset, &got, sizeof(got), false);
	if (ret != expected(o, page, false))
		wrong_result(o, page, false, ret);
	if (is) {
		memcpy(&want, is, 8);
		if (got != want)
			wrong_bytes(o, page, got, want);
	}
	if (!store)
		return;
	want = gm_ct_random(&o->random);
	ret = gm_ct_access(o->d, o->pmap, gm_ct_va(o, page) + offset, &want, sizeof(want), true);
	if (ret != expected(o, page, true))
		wrong_result(o, page, true, ret);
	if (is && ret == GM_RET_SUCCESS)
		memcpy(is, &want, 8);
}

void gm_ct_map_check(struct gm_ct_map *o)
{
	for (uint32_t i = 0; i < o->pages; i++)
		gm_ct_map_probe(o, i, false);
}

static uint32_t random_length(struct gm_ct_map *o)
{
	uint32_t large = (uint32_t)(o->d->large / o->d->granule);

	switch (gm_ct_below(&o->random, 4)) {
	case 0:
		return 1;
	case 1:
		return 1 + (uint32_t)gm_ct_below(&o->random, 8);
	case 2:
		return 1 + (uint32_t)gm_ct_below(&o->random, o->pages / 4);
	default:
		return large * (1 + (uint32_t)gm_ct_below(&o->random, 2));
	}
}

/* Pages from `page` on that are holes, frames from `frame` on that are free and its own. */
static uint32_t free_run(const struct gm_ct_map *o, uint32_t page, uint32_t frame, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && page + i < o->pages && frame + i < o->last && o->frame[page + i] == GM_CT_NONE &&
	       !o->used[frame + i])
		i++;
	return i;
}

static uint32_t random_pte(struct gm_ct_map *o)
{
	return gm_ct_below(&o->random, 2) ? GM_PTE_WRITE : 0;
}

/* Into a hole; false: found none. */
static bool choose_enter(struct gm_ct_map *o, struct gm_ct_step *step)
{
	uint32_t large = (uint32_t)(o->d->large / o->d->granule);

	for (unsigned tries = 0; tries < 16; tries++) {
		step->page = (uint32_t)gm_ct_below(&o->random, o->pages);
		step->frame = o->first + (uint32_t)gm_ct_below(&o->random, o->last - o->first);
		if (tries % 2 == 0) {
			step->page -= step->page % large;
			step->frame -= (step->frame - o->first) % large;
		}
		step->n = free_run(o, step->page, step->frame, random_length(o));
		step->pte = random_pte(o);
		if (step->n > 0)
			return true;
	}
	return false;
}

/* The same frames with write added. */
static bool choose_upgrade(struct gm_ct_map *o, struct gm_ct_step *step)
{
	uint32_t n = 1;

	step->page = (uint32_t)gm_ct_below(&o->random, o->pages);
	step->frame = o->frame[step->page];
	if (step->frame == GM_CT_NONE)
		return false;
	while (step->page + n < o->pages && o->frame[step->page + n] == step->frame + n && n < 64)
		n++;
	step->n = n;
	step->pte = GM_PTE_WRITE;
	return true;
}

void gm_ct_map_choose(struct gm_ct_map *o, struct gm_ct_step *step)
{
	unsigned dice = (unsigned)gm_ct_below(&o->random, 16);

	*step = (struct gm_ct_step){ .kind = GM_CT_STEP_ENTER };
	if (dice < 6 && (dice < 5 ? choose_enter(o, step) : choose_upgrade(o, step)))
		return;
	step->page = (uint32_t)gm_ct_below(&o->random, o->pages);
	step->n = random_length(o);
	if (step->n > o->pages - step->page)
		step->n = o->pages - step->page;
	step->pte = random_pte(o);
	if (dice < 9)
		step->kind = GM_CT_STEP_REMOVE;
	else if (dice < 11 && gm_ct_has(o->d, GM_CAP_PROTECT))
		step->kind = GM_CT_STEP_PROTECT;
	else
		step->kind = dice < 14 ? GM_CT_STEP_LOAD : GM_CT_STEP_STORE;
}

void gm_ct_map_do(struct gm_ct_map *o, const struct gm_ct_step *step)
{
	switch (step->kind) {
	case GM_CT_STEP_ENTER:
		gm_ct_map_enter(o, step->page, step->frame, step->n, step->pte);
		break;
	case GM_CT_STEP_REMOVE:
		gm_ct_map_remove(o, step->page, step->n);
		break;
	case GM_CT_STEP_PROTECT:
		gm_ct_map_protect(o, step->page, step->n, step->pte);
		break;
	case GM_CT_STEP_LOAD:
	case GM_CT_STEP_STORE:
		gm_ct_map_probe(o, step->page, step->kind == GM_CT_STEP_STORE);
		break;
	}
}
