/* SPDX-License-Identifier: MIT */
/*
 * Batches of device faults: duplicates, order, one service and one replay per
 * block, blocks and pages that fail alone.
 */
#include "config.h"

#include "devq_script.h"

CORE_TEST(devq, duplicates_are_dropped, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no,vram=4M");
	va = app_adopted(w, 1, 1);
	raise_in(w->ctx[1], va + 5 * PAGE + 8, GM_READ);
	raise_in(w->ctx[1], va + 5 * PAGE, GM_WRITE);
	raise_in(w->ctx[1], va + 5 * PAGE + 4095, GM_READ);
	cr_assert_eq(serve_round(w), UINT64_MAX, "served in the round that fetched it");
	cr_assert_eq(s.answers, 1);
	cr_assert_eq(s.answer[0].va, va + 5 * PAGE);
	cr_assert_eq(s.answer[0].bytes, PAGE);
	cr_assert_eq(s.answer[0].ret, GM_RET_SUCCESS);
	cr_assert_eq(s.enters, 1);
	cr_assert_eq(stats_of(w).dev_faults, 1);
	OK(access_of(w->ctx[1], va + 5 * PAGE, true)); /* the strongest access of the three */
}

/* They are one fault, which asks for too much. */
CORE_TEST(devq, a_load_does_not_fail_for_a_store, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	const uint32_t more[] = { GM_WRITE, GM_ATOMIC };
	uint64_t va;

	script_open(w, "submit=no,vram=4M");
	va = app_adopted(w, 1, 1);
	OK(gm_protect(w->as, va, BLOCK, GM_READ));
	for (unsigned i = 0; i < 2; i++) {
		uint64_t at = va + i * PAGE;

		raise_in(w->ctx[1], at, GM_READ);
		raise_in(w->ctx[1], at + 64, more[i]);
		cr_assert_eq(serve_round(w), UINT64_MAX);
		cr_assert_eq(answer_of(w->ctx[1], at), GM_RET_SUCCESS, "%u", more[i]);
		OK(access_of(w->ctx[1], at, false));
		cr_assert_eq(access_of(w->ctx[1], at, true), GM_RET_PERM);
		raise_in(w->ctx[1], at + 64, more[i]); /* it comes again */
		cr_assert_eq(serve_round(w), UINT64_MAX);
		cr_assert_eq(answer_of(w->ctx[1], at), GM_RET_PERM, "%u", more[i]);
	}
	OK(gm_protect(w->as, va, BLOCK, 0));
	raise_in(w->ctx[1], va, GM_READ);
	raise_in(w->ctx[1], va, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(answer_of(w->ctx[1], va), GM_RET_FAULT);
	OK(gm_protect(w->as, va, BLOCK, GM_READ | GM_WRITE));
}

CORE_TEST(devq, each_block_once_and_in_order, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	const unsigned pages[] = { 0, 17, 18, 200 };
	uint64_t va;

	script_open(w, "submit=no,vram=8M");
	va = app_adopted(w, 16, 1);
	for (unsigned b = 0; b < 16; b++)
		for (unsigned i = 0; i < 4; i++)
			raise_in(w->ctx[1], va + b * BLOCK + pages[i] * PAGE, b % 2 ? GM_WRITE : GM_READ);
	shuffle(w);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.answers, 16, "one replay per block");
	for (unsigned b = 0; b < 16; b++) {
		cr_assert_eq(s.answer[b].va, va + b * BLOCK);
		cr_assert_eq(s.answer[b].bytes, 201 * PAGE);
		cr_assert_eq(s.answer[b].ret, GM_RET_SUCCESS);
		for (unsigned i = 0; i < 4; i++)
			OK(access_of(w->ctx[1], va + b * BLOCK + pages[i] * PAGE, b % 2));
	}
	cr_assert_eq(stats_of(w).migrations_to_dev, 16, "one transaction per block");
	cr_assert_eq(stats_of(w).dev_faults, 64);
	OK(gm_migrate(w->as, va, 16 * BLOCK, NULL, NULL));
	cr_assert_eq(app_wrong(w, va, UINT64_C(16) * GM_BLOCK_PAGES, 1), 0);
}

CORE_TEST(devq, neighbours_in_place_are_one_step, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no");
	va = app_edges(w, 4, 8);
	for (unsigned b = 0; b < 4; b++)
		for (unsigned p = 0; p < 8; p++)
			raise_in(w->ctx[1], va + b * BLOCK + p * PAGE, p < 4 ? GM_READ : GM_WRITE);
	shuffle(w);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.answers, 4);
	cr_assert_eq(s.enters, 8, "per block, those that may be read and those that may be written");
	cr_assert_eq(stats_of(w).pages_in_place, 32);
	cr_assert_eq(stats_of(w).dev_faults, 32);
	for (unsigned p = 0; p < 8; p++) {
		cr_assert_eq(page_info(w, va + p * PAGE).place, GM_PLACE_IN_PLACE);
		cr_assert_eq(page_info(w, va + p * PAGE).mapped_read, 2);
		cr_assert_eq(page_info(w, va + p * PAGE).mapped_write, p < 4 ? 0 : 2);
	}
	/* Again: somebody else has served them. */
	raise_in(w->ctx[1], va, GM_READ);
	raise_in(w->ctx[1], va + PAGE, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.answers, 1);
	cr_assert_eq(s.enters, 1);
	cr_assert_eq(page_info(w, va + PAGE).mapped_write, 2, "rights grow");
	cr_assert_eq(stats_of(w).dev_faults_spurious, 1);
}

CORE_TEST(devq, a_block_that_fails_alone, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va, hole;

	script_open(w, "submit=no,vram=4M");
	va = app_adopted(w, 3, 1);
	hole = va + BLOCK;
	OK(gm_release(w->as, ptr(hole), BLOCK));
	for (unsigned b = 0; b < 3; b++)
		for (unsigned p = 0; p < 2; p++)
			raise_in(w->ctx[1], va + b * BLOCK + 3 * PAGE * p, GM_READ);
	shuffle(w);
	for (unsigned rounds = 0; serve_round(w) != UINT64_MAX; rounds++)
		cr_assert_lt(rounds, 100);
	IS(answer_of(w->ctx[1], hole), GM_RET_FAULT);
	IS(answer_of(w->ctx[1], hole + 3 * PAGE), GM_RET_FAULT);
	OK(answer_of(w->ctx[1], va));
	OK(answer_of(w->ctx[1], va + 3 * PAGE));
	OK(answer_of(w->ctx[1], va + 2 * BLOCK));
	cr_assert_eq(s.answers, 4, "two blocks, and two pages that have each an answer of its own");
}

CORE_TEST(devq, a_page_that_fails_alone, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t moved, edges;

	script_open(w, "submit=no,vram=4M");
	moved = app_adopted(w, 1, 1);
	edges = app_edges(w, 1, 3);
	OK(gm_sim_mprotect(w->sim, moved + 64 * PAGE, PAGE, GM_READ));
	OK(gm_sim_mprotect(w->sim, edges + PAGE, PAGE, GM_READ));
	for (unsigned p = 0; p < 3; p++) {
		raise_in(w->ctx[1], moved + 32 * PAGE * p, GM_WRITE);
		raise_in(w->ctx[1], edges + p * PAGE, GM_WRITE);
	}
	shuffle(w);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	IS(answer_of(w->ctx[1], moved + 64 * PAGE), GM_RET_PERM);
	OK(answer_of(w->ctx[1], moved));
	OK(answer_of(w->ctx[1], moved + 32 * PAGE));
	IS(answer_of(w->ctx[1], edges + PAGE), GM_RET_PERM);
	OK(answer_of(w->ctx[1], edges));
	OK(answer_of(w->ctx[1], edges + 2 * PAGE));
	cr_assert_eq(page_info(w, edges + PAGE).mapped_read, 0, "what was claimed is given up");
	cr_assert_eq(page_info(w, edges + PAGE).mapped_write, 0);
	OK(access_of(w->ctx[1], moved + 32 * PAGE, true));
}

/* One page is pinned, and the device cannot map it where it is: it waits, the others of its block do not. */
CORE_TEST(devq, what_is_in_the_way_waits_alone, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va, again_ns;

	script_open(w, "submit=no,vram=4M,hostmap=no");
	va = app_adopted(w, 1, 1);
	OK(gm_sim_pin(w->sim, va + 40 * PAGE));
	for (unsigned p = 0; p < 3; p++)
		raise_in(w->ctx[1], va + 20 * PAGE * p, GM_WRITE);
	again_ns = serve_round(w);
	cr_assert_neq(again_ns, UINT64_MAX);
	OK(answer_of(w->ctx[1], va));
	OK(answer_of(w->ctx[1], va + 20 * PAGE));
	cr_assert_eq(s.answers, 2);
	gm_sim_unpin(w->sim, va + 40 * PAGE);
	cr_assert_gt(again_ns, gm_now_ns(w->env));
	(void)serve_round(w);
	cr_assert_eq(s.answers, 0, "its time has not come");
	gm_sim_sleep_ns(w->sim, again_ns - gm_now_ns(w->env));
	cr_assert_eq(serve_round(w), UINT64_MAX);
	OK(answer_of(w->ctx[1], va + 40 * PAGE));
}

/* A system call pins it for a moment; the device could map it in place, but not for atomics. */
CORE_TEST(devq, atomics_wait_for_a_pin, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va, again_ns;

	script_open(w, "submit=no,vram=4M");
	va = app_adopted(w, 1, 1);
	OK(gm_sim_pin(w->sim, va));
	IS(gm_dev_fault(w->ctx[1], va, GM_ATOMIC), GM_RET_BUSY);
	raise_in(w->ctx[1], va, GM_ATOMIC);
	again_ns = serve_round(w);
	cr_assert_eq(s.answers, 0);
	cr_assert_neq(again_ns, UINT64_MAX);
	gm_sim_unpin(w->sim, va);
	gm_sim_sleep_ns(w->sim, again_ns - gm_now_ns(w->env));
	cr_assert_eq(serve_round(w), UINT64_MAX);
	OK(answer_of(w->ctx[1], va));
	cr_assert_eq(page_info(w, va).place, GM_PLACE_DEVICE);
}

/* Loads of the page come with it each time: they do not wait, and who waits does so no longer than alone. */
CORE_TEST(devq, a_load_does_not_wait_for_an_atomic, .as = { .flags = GM_AS_NO_THREADS, .wait_ns = SECOND }, SCRIPTED)
{
	uint64_t va, begin_ns, took_ns;
	gm_ret_t ret = GM_RET_SUCCESS;

	script_open(w, "submit=no,vram=4M");
	va = app_adopted(w, 1, 1);
	OK(gm_sim_pin(w->sim, va));
	begin_ns = gm_now_ns(w->env);
	for (unsigned rounds = 0; ret == GM_RET_SUCCESS; rounds++) {
		cr_assert_lt(rounds, 1000);
		raise_in(w->ctx[1], va, GM_ATOMIC);
		if (gm_now_ns(w->env) < begin_ns + SECOND) /* then it has the page mapped */
			raise_in(w->ctx[1], va + 64, GM_READ);
		cr_assert_eq(serve_round(w), UINT64_MAX);
		ret = answer_of(w->ctx[1], va);
		gm_sim_sleep_ns(w->sim, SECOND / 100);
	}
	took_ns = gm_now_ns(w->env) - begin_ns;
	gm_sim_unpin(w->sim, va);
	IS(ret, GM_RET_BUSY);
	cr_assert(took_ns >= SECOND && took_ns < SECOND + SECOND / 10, "%llu ns", (unsigned long long)took_ns);
}

/* More of that than a batch holds keeps nobody waiting. */
CORE_TEST(devq, what_is_kept_does_not_fill_the_batch, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	const unsigned pinned = 2 * GM_DEVQ_BATCH + 10;
	uint64_t va, again_ns = 0;

	script_open(w, "submit=no,vram=4M,hostmap=no");
	va = app_adopted(w, 2, 1);
	for (unsigned p = 0; p < pinned; p++) {
		OK(gm_sim_pin(w->sim, va + p * PAGE));
		raise_in(w->ctx[1], va + p * PAGE, GM_READ);
	}
	raise_in(w->ctx[1], va, GM_WRITE); /* one waits for it already */
	raise_in(w->ctx[1], va + BLOCK, GM_WRITE);
	for (unsigned rounds = 0; rounds < 3; rounds++)
		again_ns = serve_round(w);
	OK(answer_of(w->ctx[1], va + BLOCK));
	cr_assert_eq(s.answers, 1);
	for (unsigned p = 0; p < pinned; p++)
		gm_sim_unpin(w->sim, va + p * PAGE);
	for (unsigned rounds = 0; again_ns != UINT64_MAX; rounds++) {
		cr_assert_lt(rounds, 100);
		if (again_ns > gm_now_ns(w->env))
			gm_sim_sleep_ns(w->sim, again_ns - gm_now_ns(w->env));
		again_ns = serve_round(w);
		for (unsigned i = 0; i < s.answers; i++)
			OK(s.answer[i].ret);
	}
	for (unsigned p = 0; p < pinned; p++)
		OK(access_of(w->ctx[1], va + p * PAGE, p == 0));
}

static struct {
	struct gm_env_ops ops;
	const struct gm_env_ops *real;
	unsigned starts;
} slow;

/* The first thread cannot be made, which takes its time. */
static gm_ret_t start_slowly(struct gm_env *env, const char *name, uint32_t flags, void (*fn)(void *arg), void *arg,
			     struct gm_thread **out)
{
	if (slow.starts++)
		return slow.real->thread_start(env, name, flags, fn, arg, out);
	for (unsigned i = 0; i < 10; i++)
		gm_yield(env);
	return GM_RET_NOMEM;
}

struct starter {
	struct gm_dev *dev;
	gm_ret_t ret;
};

static void start_queue(void *arg)
{
	struct starter *st = arg;

	st->ret = gm_devq_start(st->dev);
}

/* Who attaches second has a fault thread, or is told that there is none. */
CORE_TEST(devq, the_thread_that_could_not_be_made, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	struct starter st[2];
	struct gm_thread *t[2];

	script_open(w, "submit=no");
	slow.real = w->env->ops;
	slow.ops = *slow.real;
	slow.ops.thread_start = start_slowly;
	slow.starts = 0;
	for (unsigned i = 0; i < 2; i++) {
		st[i] = (struct starter){ .dev = w->dev[1], .ret = GM_RET_AGAIN };
		t[i] = spawn(w, start_queue, &st[i]);
	}
	w->env->ops = &slow.ops;
	for (unsigned i = 0; i < 2; i++)
		join(w, t[i]);
	w->env->ops = slow.real;
	cr_assert(st[0].ret == GM_RET_NOMEM || st[1].ret == GM_RET_NOMEM);
	cr_assert(st[0].ret == GM_RET_SUCCESS || st[1].ret == GM_RET_SUCCESS);
	cr_assert_not_null(w->dev[1]->thread);
	cr_assert_eq(slow.starts, 2);
}

/* What the device refuses once is done page by page; what it refuses always fails, and nothing is left of it. */
CORE_TEST(devq, a_device_that_refuses, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no,vram=4M");
	va = app_edges(w, 1, 4);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 1, 1));
	for (unsigned p = 0; p < 4; p++)
		raise_in(w->ctx[1], va + p * PAGE, GM_READ);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	cr_assert_eq(s.answers, 1);
	cr_assert_eq(s.enters, 5);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 1, 1000));
	for (unsigned p = 0; p < 4; p++)
		raise_in(w->ctx[1], va + p * PAGE, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	for (unsigned p = 0; p < 4; p++)
		IS(answer_of(w->ctx[1], va + p * PAGE), GM_RET_NOMEM);
	OK(gm_mock_fail(w->dev[1], GM_MOCK_PMAP_ENTER, 0, 0));
	for (unsigned p = 0; p < 4; p++)
		raise_in(w->ctx[1], va + p * PAGE, GM_WRITE);
	cr_assert_eq(serve_round(w), UINT64_MAX);
	for (unsigned p = 0; p < 4; p++)
		cr_assert_eq(page_info(w, va + p * PAGE).mapped_write, 2);
}

/* Sixteen units wanted at once of a memory of eight: no transaction asks for more than a part of it. */
CORE_TEST(devq, more_than_the_memory_holds, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t va;

	script_open(w, "submit=no,vram=512K");
	va = app_adopted(w, 1, 1);
	for (unsigned u = 0; u < 16; u++)
		raise_in(w->ctx[1], va + u * UNIT, GM_WRITE);
	for (unsigned rounds = 0, answered = 0; answered < 16; rounds++) {
		uint64_t again_ns = serve_round(w);

		cr_assert_lt(rounds, 100);
		for (unsigned i = 0; i < s.answers; i++) {
			OK(s.answer[i].ret);
			answered += (unsigned)((s.answer[i].bytes - PAGE) / UNIT) + 1;
		}
		if (again_ns != UINT64_MAX && again_ns > gm_now_ns(w->env))
			gm_sim_sleep_ns(w->sim, again_ns - gm_now_ns(w->env));
	}
	cr_assert_leq(pages_in(w, va, GM_BLOCK_PAGES, GM_PLACE_DEVICE), 128);
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 1), 0);
}

/* Two spaces have parts of one block in turns: what looks like neighbours is not. */
CORE_TEST(devq, two_spaces_in_one_block, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	struct gm_as_config config = { .size = sizeof(config), .flags = GM_AS_NO_THREADS };
	struct gm_ctx *ctx;
	struct gm_as *as;
	uint64_t va;

	script_open(w, "submit=no,vram=4M");
	OK(gm_as_create(w->lib, 0, 0, &config, &as));
	OK(gm_as_attach(as, w->dev[1], GM_ATTACH_IDENTITY, NULL, &ctx));
	va = app_map_blocks(w, 1);
	for (unsigned p = 0; p < 8; p++)
		OK(gm_adopt(p % 2 ? as : w->as, ptr(va + p * PAGE + 64), 128, 0));
	for (unsigned p = 0; p < 8; p++)
		raise_in(p % 2 ? ctx : w->ctx[1], va + p * PAGE, GM_WRITE);
	raise_in(ctx, va, GM_WRITE); /* not its own */
	shuffle(w);
	for (unsigned rounds = 0; serve_round(w) != UINT64_MAX; rounds++)
		cr_assert_lt(rounds, 100);
	IS(answer_of(ctx, va), GM_RET_FAULT);
	for (unsigned p = 1; p < 8; p++)
		OK(access_of(p % 2 ? ctx : w->ctx[1], va + p * PAGE, true));
	IS(access_of(ctx, va + 2 * PAGE, false), GM_RET_FAULT);
	OK(gm_as_destroy(as));
}

/* Each allocation fails once: a fault is served, or is told so, and everything is as it was. */
CORE_TEST(devq, out_of_memory, .as = { .flags = GM_AS_NO_THREADS }, SCRIPTED)
{
	uint64_t moved, edges;
	bool fired = true;

	script_open(w, "submit=no,vram=4M");
	moved = app_adopted(w, 1, 1);
	edges = app_edges(w, 1, 2);
	for (size_t n = 1; fired; n++) {
		s.faults = s.next = 0;
		for (unsigned p = 0; p < 2; p++) {
			raise_in(w->ctx[1], moved + 30 * PAGE * p, GM_WRITE);
			raise_in(w->ctx[1], edges + p * PAGE, GM_WRITE);
		}
		failing_alloc_arm(&w->fa, n);
		cr_assert_eq(serve_round(w), UINT64_MAX);
		fired = failing_alloc_fired(&w->fa);
		failing_alloc_arm(&w->fa, 0);
		for (unsigned i = 0; i < s.answers; i++)
			cr_assert(s.answer[i].ret == GM_RET_SUCCESS || s.answer[i].ret == GM_RET_NOMEM);
		OK(gm_as_detach(w->ctx[1]));
		OK(gm_as_attach(w->as, w->dev[1], GM_ATTACH_IDENTITY, NULL, &w->ctx[1]));
	}
	cr_assert_eq(app_wrong(w, moved, GM_BLOCK_PAGES, 1), 0);
}

/* Against an oracle: which pages are managed, and which access each was last asked for. */
CORE_TEST(devq, random_batches, .as = { .flags = GM_AS_NO_THREADS }, .seed = 7, SCRIPTED)
{
	static uint32_t wanted[3 * GM_BLOCK_PAGES];
	uint64_t va, edges, base[3];

	script_open(w, "submit=no,vram=8M");
	va = app_adopted(w, 1, 1);
	edges = app_edges(w, 1, 32);
	base[0] = va;
	base[1] = edges;
	base[2] = app_map_blocks(w, 1); /* nobody's */
	for (unsigned round = 0; round < 60; round++) {
		unsigned n = 1 + (unsigned)gm_sim_random(w->sim, GM_DEVQ_BATCH);

		memset(wanted, 0, sizeof(wanted));
		s.faults = s.next = 0;
		for (unsigned i = 0; i < n; i++) {
			unsigned b = (unsigned)gm_sim_random(w->sim, 3), p = (unsigned)gm_sim_random(w->sim, 40);
			uint32_t access = gm_sim_random(w->sim, 2) ? GM_READ : GM_WRITE;

			wanted[b * GM_BLOCK_PAGES + p] |= access;
			raise_in(w->ctx[1], base[b] + p * PAGE + gm_sim_random(w->sim, PAGE), access);
		}
		cr_assert_eq(serve_round(w), UINT64_MAX);
		for (unsigned i = 0; i < 3 * GM_BLOCK_PAGES; i++) {
			unsigned b = i / GM_BLOCK_PAGES, p = i % GM_BLOCK_PAGES;
			uint64_t at = base[b] + p * PAGE;
			bool managed = b == 0 || (b == 1 && p < 32);

			if (!wanted[i])
				continue;
			IS(answer_of(w->ctx[1], at), managed ? GM_RET_SUCCESS : GM_RET_FAULT);
			if (managed)
				OK(access_of(w->ctx[1], at, wanted[i] & GM_WRITE));
		}
		for (unsigned i = 1; i < s.answers; i++)
			cr_assert_gt(s.answer[i].va, s.answer[i - 1].va, "by address");
		if (gm_sim_random(w->sim, 4) == 0) {
			OK(gm_as_detach(w->ctx[1]));
			OK(gm_as_attach(w->as, w->dev[1], GM_ATTACH_IDENTITY, NULL, &w->ctx[1]));
		}
	}
}
