/* SPDX-License-Identifier: MIT */
/*
 * The allocator of device frames (core/gm_frames.c) alone, white box:
 *
 *     frames.random_orders    one operation of: pick a random slot of 4,096; free what is in it, or
 *                             allocate a random order 0 .. 9 into it; 64 GiB in units of 64 KiB.
 *                             Against the plain buddy below, the same sequence
 *     frames.fragmented_free  16 GiB taken unit by unit, then one free of every second unit, in random
 *                             order: nothing merges. Against one free of a heap taken the same way, all
 *                             of it in the order of allocation: the friendliest case for every cache
 *
 * The plain buddy: a doubly linked list of free chunks per order; a free looks through the list of its
 * order for the buddy. What it hands out is checked against the library's in count only: two buddies
 * may differ in which chunk they take.
 */
#include "config.h"

#include "bench/bench.h"

#include <stdlib.h>

#include "core/gm_frames.h"

#define SHIFT 16u
#define NONE UINT32_MAX

static const struct bench_spec random_spec = { "frames.random_orders", "ns", BENCH_COST, 0.5, 0.2 };
static const struct bench_spec frag_spec = { "frames.fragmented_free", "ns", BENCH_COST, 3, 1.5 };

static void *heap_alloc(void *arg, size_t bytes)
{
	(void)arg;
	return calloc(1, bytes);
}

static void heap_free(void *arg, void *ptr, size_t bytes)
{
	(void)arg;
	(void)bytes;
	free(ptr);
}

static struct gm_env env = { .mem = { heap_alloc, heap_free, NULL } };

static void frames_open(struct gm_frames *f, uint32_t units)
{
	BENCH_TRY(gm_frames_init(f, &env, 0, (uint64_t)units << SHIFT, SHIFT));
}

static void frames_close(struct gm_frames *f, uint32_t units)
{
	const char *wrong = gm_frames_check(f);

	if (wrong || f->free_units != units)
		bench_die("frames: %s", wrong ? wrong : "not all came back");
	gm_frames_fini(f);
}

/* ------------------------------------------------------- the plain buddy */

#define PLAIN_ORDERS GM_FRAMES_ORDERS

struct plain {
	uint32_t units;
	uint32_t head[PLAIN_ORDERS];
	uint32_t *next, *prev;
};

static void plain_push(struct plain *p, uint32_t i, unsigned order)
{
	p->prev[i] = NONE;
	p->next[i] = p->head[order];
	if (p->head[order] != NONE)
		p->prev[p->head[order]] = i;
	p->head[order] = i;
}

static void plain_unlink(struct plain *p, uint32_t i, unsigned order)
{
	if (p->prev[i] != NONE)
		p->next[p->prev[i]] = p->next[i];
	else
		p->head[order] = p->next[i];
	if (p->next[i] != NONE)
		p->prev[p->next[i]] = p->prev[i];
}

static void plain_open(struct plain *p, uint32_t units)
{
	unsigned top = PLAIN_ORDERS - 1;

	*p = (struct plain){ .units = units };
	p->next = calloc(units, sizeof(*p->next));
	p->prev = calloc(units, sizeof(*p->prev));
	if (!p->next || !p->prev || units % (1u << top))
		bench_die("no memory for the plain buddy");
	for (unsigned o = 0; o < PLAIN_ORDERS; o++)
		p->head[o] = NONE;
	for (uint32_t i = 0; i < units; i += 1u << top)
		plain_push(p, i, top);
}

static void plain_close(struct plain *p)
{
	free(p->next);
	free(p->prev);
}

static uint32_t plain_alloc(struct plain *p, unsigned order)
{
	unsigned have = order;
	uint32_t i;

	while (have < PLAIN_ORDERS && p->head[have] == NONE)
		have++;
	if (have == PLAIN_ORDERS)
		return NONE;
	i = p->head[have];
	plain_unlink(p, i, have);
	while (have-- > order)
		plain_push(p, i + (1u << have), have);
	return i;
}

static void plain_free(struct plain *p, uint32_t i, unsigned order)
{
	for (; order < PLAIN_ORDERS - 1; order++) {
		uint32_t buddy = i ^ (1u << order), at = p->head[order];

		while (at != NONE && at != buddy)
			at = p->next[at];
		if (at == NONE)
			break;
		plain_unlink(p, buddy, order);
		i &= ~(1u << order);
	}
	plain_push(p, i, order);
}

/* ----------------------------------------------------------- random orders */

#define RANDOM_UNITS (1u << 20)
#define SLOTS 4096u
#define OPS 400000u
#define ORDERS 10u

struct op {
	uint16_t slot, order;
};

struct held {
	uint32_t unit; /* NONE: nothing */
	uint16_t order;
};

static void make_ops(struct op *op)
{
	uint64_t x = 0x9e3779b97f4a7c15u;

	for (unsigned i = 0; i < OPS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		op[i] = (struct op){ .slot = (uint16_t)((x >> 20) % SLOTS), .order = (uint16_t)((x >> 40) % ORDERS) };
	}
}

static void none_held(struct held *h)
{
	for (unsigned i = 0; i < SLOTS; i++)
		h[i].unit = NONE;
}

static double random_lib(const struct op *op, uint32_t *refused)
{
	static struct held held[SLOTS];
	struct gm_frames f;
	uint64_t start, ns, pa;

	frames_open(&f, RANDOM_UNITS);
	none_held(held);
	start = bench_now_ns();
	for (unsigned i = 0; i < OPS; i++) {
		struct held *h = &held[op[i].slot];

		if (h->unit != NONE) {
			gm_frames_free(&f, (uint64_t)h->unit << SHIFT, h->order);
			h->unit = NONE;
		} else if (!gm_frames_alloc(&f, op[i].order, &pa)) {
			*h = (struct held){ .unit = (uint32_t)(pa >> SHIFT), .order = op[i].order };
		} else {
			++*refused;
		}
	}
	ns = bench_now_ns() - start;
	for (unsigned i = 0; i < SLOTS; i++)
		if (held[i].unit != NONE)
			gm_frames_free(&f, (uint64_t)held[i].unit << SHIFT, held[i].order);
	frames_close(&f, RANDOM_UNITS);
	return (double)ns / OPS;
}

static double random_base(const struct op *op, uint32_t *refused)
{
	static struct held held[SLOTS];
	struct plain p;
	uint64_t start, ns;

	plain_open(&p, RANDOM_UNITS);
	none_held(held);
	start = bench_now_ns();
	for (unsigned i = 0; i < OPS; i++) {
		struct held *h = &held[op[i].slot];

		if (h->unit != NONE) {
			plain_free(&p, h->unit, h->order);
			h->unit = NONE;
		} else {
			h->unit = plain_alloc(&p, op[i].order);
			h->order = op[i].order;
			*refused += h->unit == NONE;
		}
	}
	ns = bench_now_ns() - start;
	plain_close(&p);
	return (double)ns / OPS;
}

static void run_random(const struct bench_opts *o)
{
	static struct bench_series s;
	static struct op op[OPS];

	make_ops(op);
	bench_begin(&s, &random_spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		uint32_t refused = 0, base_refused = 0;
		double lib = 0, base;

		if (i % 2)
			lib = random_lib(op, &refused);
		base = random_base(op, &base_refused);
		if (i % 2 == 0)
			lib = random_lib(op, &refused);
		if (refused || base_refused)
			bench_die("frames.random_orders: there is room for all of it");
		if (i)
			bench_add(&s, lib, base);
	}
	bench_report(&s);
}

/* -------------------------------------------------------- fragmented free */

#define FRAG_UNITS (1u << 18)

static void take_all(struct gm_frames *f)
{
	uint64_t pa;

	frames_open(f, FRAG_UNITS);
	for (uint32_t i = 0; i < FRAG_UNITS; i++)
		BENCH_TRY(gm_frames_alloc(f, 0, &pa));
}

/* Every unit is taken: the odd ones in random order, timed; then the others. */
static double free_fragmented(const uint32_t *order)
{
	struct gm_frames f;
	uint64_t start, ns;

	take_all(&f);
	start = bench_now_ns();
	for (uint32_t i = 0; i < FRAG_UNITS / 2; i++)
		gm_frames_free(&f, (uint64_t)(order[i] * 2 + 1) << SHIFT, 0);
	ns = bench_now_ns() - start;
	for (uint32_t i = 0; i < FRAG_UNITS / 2; i++)
		gm_frames_free(&f, (uint64_t)order[i] * 2 << SHIFT, 0);
	frames_close(&f, FRAG_UNITS);
	return (double)ns / (FRAG_UNITS / 2);
}

static double free_ordinary(void)
{
	struct gm_frames f;
	uint64_t start, ns;

	take_all(&f);
	start = bench_now_ns();
	for (uint32_t i = 0; i < FRAG_UNITS; i++)
		gm_frames_free(&f, (uint64_t)i << SHIFT, 0);
	ns = bench_now_ns() - start;
	frames_close(&f, FRAG_UNITS);
	return (double)ns / FRAG_UNITS;
}

static void run_fragmented(const struct bench_opts *o)
{
	static struct bench_series s;
	static uint32_t order[FRAG_UNITS / 2];

	bench_shuffle(order, FRAG_UNITS / 2);
	bench_begin(&s, &frag_spec);
	for (unsigned i = 0; i < o->runs + 1; i++) {
		double frag = 0, ordinary;

		if (i % 2)
			frag = free_fragmented(order);
		ordinary = free_ordinary();
		if (i % 2 == 0)
			frag = free_fragmented(order);
		if (i)
			bench_add(&s, frag, ordinary);
	}
	bench_report(&s);
}

int main(int argc, char **argv)
{
	struct bench_opts o = bench_options(argc, argv);

	bench_pin_self(0);
	if (bench_wanted(&o, random_spec.name))
		run_random(&o);
	if (bench_wanted(&o, frag_spec.name))
		run_fragmented(&o);
	return 0;
}
