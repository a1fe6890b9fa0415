/* SPDX-License-Identifier: MIT */
/*
 * Group trace: one random trace on the backend under test and on the mock, its twin. After each step the results and
 * the bytes seen must agree. No oracle is asked what is right: it only chooses steps that keep the contract of the
 * caller.
 *
 * The twin has the same capabilities (all of hal.h but GM_CAP_HOST), page sizes, address bits, page tables at once,
 * and a memory as large as the window; of these it cannot have page sizes but 4 KiB, 64 KiB and 2 MiB, more than 48
 * address bits, more than 8 page tables, and several pieces of memory. None of that is seen by a
 * trace in one page table, in a window that is one piece below 2^32.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include <gmem/mock.h>

#include "conform/gm_ct.h"

#define STEPS 2500u
#define KNOWN_PAGES (UINT64_C(0x1000) | 0x10000 | 0x200000)

/* One of the two: same offsets, its own addresses. */
struct side {
	struct gm_ct_dev *d;
	uint64_t pa; /* first byte of the memory used */
	void *pmap;
};

struct trace {
	struct gm_ct_stage s;
	struct side side[2]; /* backend, mock */
	unsigned n;          /* steps so far */
};

/* What both must have alike. */
#define TWIN_CAPS                                                                                                     \
	(GM_CAP_FAULTS | GM_CAP_HOST_MAP | GM_CAP_CPU_VISIBLE | GM_CAP_FAST_INVL | GM_CAP_SUBMIT | GM_CAP_ACCESS |    \
	 GM_CAP_PROTECT | GM_CAP_DIRTY | GM_CAP_SYNC | GM_CAP_PEER)

/* The same device, as far as the mock can be it. */
static struct gm_mock_config twin_of(const struct gm_ct_dev *d, uint64_t bytes)
{
	struct gm_mock_config config;

	if (gm_mock_parse("", &config))
		gm_ct_fail(d->t, "mock", "no default configuration: an error of the library");
	config.vram_bytes = (bytes + GM_BLOCK_BYTES - 1) / GM_BLOCK_BYTES * GM_BLOCK_BYTES;
	config.page_sizes = d->caps.page_sizes & KNOWN_PAGES;
	if (d->caps.va_bits < config.va_bits)
		config.va_bits = d->caps.va_bits;
	if (d->caps.max_contexts < config.max_contexts)
		config.max_contexts = d->caps.max_contexts;
	config.no_faults = !gm_ct_has(d, GM_CAP_FAULTS);
	config.no_host_map = !gm_ct_has(d, GM_CAP_HOST_MAP);
	config.no_cpu_visible = !gm_ct_has(d, GM_CAP_CPU_VISIBLE);
	config.no_fast_invl = !gm_ct_has(d, GM_CAP_FAST_INVL);
	config.no_submit = !gm_ct_has(d, GM_CAP_SUBMIT);
	config.no_access = !gm_ct_has(d, GM_CAP_ACCESS);
	config.no_protect = !gm_ct_has(d, GM_CAP_PROTECT);
	config.dirty_bits = gm_ct_has(d, GM_CAP_DIRTY);
	config.no_sync = !gm_ct_has(d, GM_CAP_SYNC);
	config.peer_group = gm_ct_has(d, GM_CAP_PEER);
	return config;
}

static void want_twin(const struct gm_ct_dev *d, const struct gm_ct_dev *mock)
{
	if (((d->caps.caps ^ mock->caps.caps) & TWIN_CAPS) || mock->granule != d->granule)
		gm_ct_fail(d->t, "mock", "its twin has capabilities 0x%x, page sizes 0x%llx: an error of the suite",
			   (unsigned)mock->caps.caps, (unsigned long long)mock->caps.page_sizes);
}

static void want_same(struct trace *tr, gm_ret_t ret, gm_ret_t mock, const char *op, uint32_t page)
{
	if (ret != mock)
		gm_ct_fail(tr->s.d->t, "trace", "step %u: %s at page %u returned %s, the mock says %s", tr->n, op,
			   (unsigned)page, gm_ret_name(ret), gm_ret_name(mock));
}

static void both_words(struct trace *tr, uint32_t page, uint64_t offset, bool store)
{
	uint64_t word[2], value = store ? gm_ct_random(&tr->s.o.random) : 0;
	gm_ret_t ret[2];

	for (unsigned i = 0; i < 2; i++) {
		word[i] = value;
		ret[i] = gm_ct_access(tr->side[i].d, tr->side[i].pmap, gm_ct_va(&tr->s.o, page) + offset, &word[i], 8, store);
	}
	want_same(tr, ret[0], ret[1], store ? "a store" : "a load", page);
	if (ret[0] == GM_RET_SUCCESS && word[0] != word[1])
		gm_ct_fail(tr->s.d->t, "trace", "step %u: a load at page %u read %016" PRIx64 ", the mock read %016" PRIx64,
			   tr->n, (unsigned)page, word[0], word[1]);
}

static void both(struct trace *tr, const struct gm_ct_step *step)
{
	struct gm_ct_map *o = &tr->s.o;
	uint64_t va = gm_ct_va(o, step->page), bytes = step->n * o->d->granule;
	const char *op = "pmap_remove";
	gm_ret_t ret[2];

	for (unsigned i = 0; i < 2; i++) {
		struct side *side = &tr->side[i];

		if (step->kind == GM_CT_STEP_ENTER)
			ret[i] = gm_ct_enter(side->d, side->pmap, va, side->pa + step->frame * o->d->granule, bytes,
					     step->pte);
		else if (step->kind == GM_CT_STEP_PROTECT)
			ret[i] = gm_ct_protect(side->d, side->pmap, va, bytes, step->pte);
		else
			ret[i] = gm_ct_remove(side->d, side->pmap, va, bytes);
		if (step->kind != GM_CT_STEP_ENTER)
			gm_ct_invl(side->d, side->pmap, va, bytes);
	}
	if (step->kind == GM_CT_STEP_ENTER)
		op = "pmap_enter";
	else if (step->kind == GM_CT_STEP_PROTECT)
		op = "pmap_protect";
	want_same(tr, ret[0], ret[1], op, step->page);
}

/* Keep track of what is mapped, for the next choice only. */
static void track(struct gm_ct_map *o, const struct gm_ct_step *step)
{
	if (step->kind == GM_CT_STEP_ENTER)
		gm_ct_map_set(o, step->page, step->frame, step->n, step->pte);
	else if (step->kind == GM_CT_STEP_REMOVE)
		gm_ct_map_unset(o, step->page, step->n);
}

/* A frame that is not mapped gets zeros or new bytes. */
static void both_copy(struct trace *tr)
{
	struct gm_ct_map *o = &tr->s.o;
	uint32_t frame = (uint32_t)gm_ct_below(&o->random, tr->s.m.pages);
	uint64_t at = frame * o->d->granule;
	gm_ret_t ret[2];
	bool zero = gm_ct_below(&o->random, 2);

	if (o->used[frame])
		return;
	gm_ct_fill(tr->s.m.buf, o->d->granule, gm_ct_random(&o->random));
	for (unsigned i = 0; i < 2; i++) {
		struct gm_copy copy = { .kind = zero ? GM_COPY_ZERO : GM_COPY_TO_DEV, .pa = tr->side[i].pa + at,
					.host = zero ? 0 : GM_VA(tr->s.m.buf), .bytes = o->d->granule };

		ret[i] = gm_ct_copy(tr->side[i].d, &copy, 1);
	}
	want_same(tr, ret[0], ret[1], "copy", frame);
}

/* All memory of both, when nothing is mapped. */
static void compare_memory(struct trace *tr)
{
	struct gm_ct_mem *m = &tr->s.m;
	unsigned char *host[2] = { m->buf, m->is };

	for (unsigned i = 0; i < 2; i++) {
		struct gm_copy copy = { .kind = GM_COPY_TO_HOST, .pa = tr->side[i].pa, .host = GM_VA(host[i]),
					.bytes = m->bytes };

		gm_ct_ok(tr->s.d->t, gm_ct_copy(tr->side[i].d, &copy, 1));
	}
	if (memcmp(m->buf, m->is, m->bytes) != 0)
		gm_ct_fail(tr->s.d->t, "trace", "after %u steps the memories differ", tr->n);
}

static void run(struct trace *tr)
{
	struct gm_ct_map *o = &tr->s.o;
	struct gm_ct_step step;

	for (tr->n = 0; tr->n < STEPS; tr->n++) {
		gm_ct_map_choose(o, &step);
		if (step.kind == GM_CT_STEP_LOAD || step.kind == GM_CT_STEP_STORE)
			both_words(tr, step.page, gm_ct_below(&o->random, o->d->granule / 8) * 8,
				   step.kind == GM_CT_STEP_STORE);
		else
			both(tr, &step);
		track(o, &step);
		both_words(tr, step.page, 0, false);
		if (tr->n % 8 == 0)
			both_copy(tr);
	}
	for (uint32_t i = 0; i < o->pages; i++)
		both_words(tr, i, 8, false);
}

static void same_as_mock(struct gm_ct *t)
{
	struct trace tr = { .n = 0 };
	struct gm_mock_config config;
	struct gm_ct_step all = { .kind = GM_CT_STEP_REMOVE };
	struct gm_ct_dev *mock;
	struct gm_ct_mem m;

	gm_ct_begin(&tr.s, t, GM_CT_WINDOW);
	config = twin_of(tr.s.d, tr.s.m.bytes);
	mock = gm_ct_open_other(t, gm_mock_mmu(), &config);
	want_twin(tr.s.d, mock);
	gm_ct_mem_init(&m, mock, tr.s.m.bytes, t->seed);
	tr.side[0] = (struct side){ .d = tr.s.d, .pa = tr.s.m.pa, .pmap = tr.s.o.pmap };
	tr.side[1] = (struct side){ .d = mock, .pa = m.pa };
	gm_ct_ok(t, gm_ct_pmap_create(mock, &tr.side[1].pmap));
	run(&tr);
	all.n = tr.s.o.pages;
	both(&tr, &all);
	track(&tr.s.o, &all);
	compare_memory(&tr);
	gm_ct_pmap_destroy(mock, tr.side[1].pmap);
	gm_ct_mem_fini(&m);
	gm_ct_close(mock);
	gm_ct_finish(&tr.s);
}

const struct gm_ct_test gm_ct_trace_tests[] = {
	{ "same_as_mock", GM_CAP_ACCESS, 0, same_as_mock },
	{ NULL, 0, 0, NULL },
};
