/* SPDX-License-Identifier: MIT */
/* Expectations and traces: every word, every wildcard, and what is said of a difference. */
#include "config.h"

#include <stdio.h>

#include "mock_fixture.h"

#define VA UINT64_C(0x200000)

static char host[4 * GM_PAGE_BYTES] __attribute__((aligned(4096)));

static void copy(struct mock_fixture *fx, enum gm_copy_kind kind, uint64_t page, uint64_t pages)
{
	struct gm_copy c = { .kind = kind, .pa = PA + page * PAGE, .bytes = pages * PAGE,
			     .host = kind == GM_COPY_ZERO ? 0 : GM_VA(host) };
	struct gm_fence *fence = mock_svc_fence_create(&fx->s);

	cr_assert_eq(fx->mmu->copy(fx->m, &c, 1, fence), GM_RET_SUCCESS);
	(void)fx_finish(fx, fence);
}

/* remove, invl, two copies to the device, an enter for writing, a protect, a copy that fails */
static void do_it(struct mock_fixture *fx)
{
	fx_remove(fx, VA, 4 * PAGE);
	fx_invl(fx, VA, 4 * PAGE);
	copy(fx, GM_COPY_TO_DEV, 0, 2);
	copy(fx, GM_COPY_TO_DEV, 2, 2);
	fx_enter(fx, VA, PA, 4 * PAGE, GM_PTE_WRITE);
	cr_assert_eq(fx->mmu->pmap_protect(fx->pmap, VA, PAGE, 0), GM_RET_SUCCESS);
	cr_assert_eq(gm_mock_dev_fail(fx->m, GM_MOCK_COPY_LATE, 1, 1), GM_RET_SUCCESS);
	copy(fx, GM_COPY_ZERO, 1, 1);
}

static gm_ret_t try(struct mock_fixture *fx, const char *text, char *why, size_t bytes)
{
	cr_assert_eq(gm_mock_dev_expect(fx->m, text), GM_RET_SUCCESS, "'%s' is not understood", text);
	do_it(fx);
	return gm_mock_dev_expect_end(fx->m, why, bytes);
}

Test(mock_expect, what_it_did)
{
	static const char *const good[] = {
		"remove; invl; copy; copy; enter; protect; copy =IO",
		"remove 0x200000+16K; invl 0x200000; copy to-dev 8K x2; enter rw local 0x200000+16K; protect ro; copy zero =*",
		"remove 16K;invl 16K;copy 0x40000000+8K;copy 0x40002000;enter;protect 4K;copy zero 0x40001000+4K =IO",
		"  remove ;\tinvl\n; * x2; enter ; * ; copy =IO  ",
		"...",
		"... ; copy =IO",
		"remove; ...",
		"...; enter; ...",
		"...; copy to-dev; copy to-dev; ...; copy zero =IO",
		"... ; copy ; ... ; protect ; ...",
		"* x6; copy =*",
		"...; ...",
	};
	struct mock_fixture fx;
	char why[300];

	fx_open(&fx, "vram=1M");
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		gm_ret_t ret = try(&fx, good[i], why, sizeof(why));

		cr_expect_eq(ret, GM_RET_SUCCESS, "'%s': %s", good[i], why);
	}
	fx_close(&fx);
}

/* Each differs in one thing, and the difference is named. */
Test(mock_expect, what_it_did_not)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{ "", "step 1: expected \"nothing more\", seen \"remove 0x200000+16K\", after \"the beginning\"" },
		{ "invl; ...", "step 1: expected \"invl\", seen \"remove 0x200000+16K\"" },
		{ "remove 0x201000; ...", "step 1: expected \"remove 0x201000\", seen \"remove 0x200000+16K\"" },
		{ "remove 8K; ...", "expected \"remove 8K\"" },
		{ "remove; invl; copy to-host; ...",
		  "step 3: expected \"copy to-host\", seen \"copy to-dev 0x40000000+8K\", after \"invl 0x200000+16K\"" },
		{ "remove; invl; copy x3; ...", "step 5: expected \"copy x3\", seen \"enter 0x200000+16K rw local\"" },
		{ "remove; invl; copy x2; enter ro; ...", "step 5: expected \"enter ro\"" },
		{ "remove; invl; copy x2; enter host; ...", "step 5: expected \"enter host\"" },
		{ "remove; invl; copy x2; enter; protect rw; ...", "step 6: expected \"protect rw\", seen \"protect" },
		{ "remove; invl; copy x2; enter; protect; copy", "step 7: expected \"copy\", seen \"copy zero 0x40001000+4K =IO\"" },
		{ "remove; invl; copy x2; enter; protect; copy =NOMEM", "step 7: expected \"copy =NOMEM\"" },
		{ "remove; invl; copy x2; enter; protect", "step 7: expected \"nothing more\", seen \"copy zero" },
		{ "* x7; harvest", "step 8: expected \"harvest\", seen \"nothing more\", after \"copy zero" },
		{ "...; harvest; ...", "step 8: expected \"harvest\", seen \"nothing more\"" },
		{ "* x8", "step 8: expected \"* x8\", seen \"nothing more\"" },
		{ "...; remove; ...; remove; ...", "expected \"remove\", seen \"nothing more\"" },
	};
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char why[300] = "";

		cr_expect_eq(try(&fx, bad[i].text, why, sizeof(why)), GM_RET_FAULT, "'%s' passed", bad[i].text);
		cr_expect_not_null(strstr(why, bad[i].says), "'%s' says: %s", bad[i].text, why);
	}
	fx_close(&fx);
}

Test(mock_expect, not_understood)
{
	static const char *const bad[] = {
		";", "remove;", ";remove", "remove;;invl", "remov", "remove invl", "remove 0x", "remove 0x10+", "remove 0x10+0",
		"remove 0x10+4KB", "remove 4k", "copy x", "copy x0", "copy x1K", "copy x2000", "remove to-dev", "copy to-moon",
		"remove rw", "protect host", "copy rw", "enter =", "enter =GM_RET_IO", "enter IO", "... x2", "... 4K", "* 4K",
		"remove 0x1ffffffffffffffff", "remove 18446744073709551616",
	};
	struct mock_fixture fx;

	fx_open(&fx, "vram=1M");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		long logged = atomic_load(&fx.s.logged);

		cr_expect_eq(gm_mock_dev_expect(fx.m, bad[i]), GM_RET_INVAL, "'%s' is understood", bad[i]);
		cr_expect_eq(atomic_load(&fx.s.logged), logged + 1, "'%s': nobody says what is wrong", bad[i]);
		cr_expect_eq(gm_mock_dev_expect_end(fx.m, NULL, 0), GM_RET_NOENT);
	}
	fx_close(&fx);
}

Test(mock_expect, one_at_a_time)
{
	struct mock_fixture fx;
	char why[20];

	fx_open(&fx, "vram=1M");
	cr_assert_eq(gm_mock_dev_expect(fx.m, ""), GM_RET_SUCCESS);
	cr_assert_eq(gm_mock_dev_expect(fx.m, "..."), GM_RET_BUSY);
	cr_assert_eq(gm_mock_dev_expect_end(fx.m, why, sizeof(why)), GM_RET_SUCCESS, "it was replaced");
	cr_assert_eq(gm_mock_dev_expect_end(fx.m, why, sizeof(why)), GM_RET_NOENT);
	atomic_store(&fx.s.fail_alloc, 1);
	cr_assert_eq(gm_mock_dev_expect(fx.m, ""), GM_RET_NOMEM);
	/* Too much is not taken for right. */
	cr_assert_eq(gm_mock_dev_expect(fx.m, "..."), GM_RET_SUCCESS);
	for (unsigned i = 0; i <= GM_MOCK_MAX_EXPECT; i++)
		fx_invl(&fx, VA, PAGE);
	cr_assert_eq(gm_mock_dev_expect_end(fx.m, why, sizeof(why)), GM_RET_FAULT);
	cr_assert_eq(strlen(why), sizeof(why) - 1, "it fits into no 20 bytes");
	cr_assert_eq(gm_mock_dev_expect(fx.m, "..."), GM_RET_SUCCESS); /* left behind: goes with the device */
	fx_close(&fx);
	cr_assert_eq(gm_mock_expect(NULL, ""), GM_RET_INVAL);
	cr_assert_eq(gm_mock_expect_end(NULL, NULL, 0), GM_RET_INVAL);
	cr_assert_eq(gm_mock_trace(NULL, NULL, NULL), GM_RET_INVAL);
}

struct lines {
	unsigned n;
	char line[32][96];
};

static void add_line(void *arg, const struct gm_mock_event *event)
{
	struct lines *l = arg;

	if (l->n < 32)
		cr_assert_eq(gm_mock_event_text(event, l->line[l->n++], sizeof(l->line[0])), GM_RET_SUCCESS);
}

static gm_ret_t touch_kernel(struct gm_mock_thread *thread, unsigned index, void *arg)
{
	uint64_t word = 1;

	(void)index;
	(void)arg;
	return gm_mock_store(thread, VA, &word, 8);
}

/* What a trace says, as text, is an expectation that holds when the same is done again. */
Test(mock_expect, trace)
{
	struct gm_dev_fault fault;
	struct lines l = { .n = 0 };
	char all[2000] = "", small[10];
	struct gm_fence *fence;
	struct mock_fixture fx;
	void *pmap;

	fx_open(&fx, "vram=1M");
	gm_mock_dev_trace(fx.m, add_line, &l);
	do_it(&fx);
	gm_mock_dev_trace(fx.m, NULL, NULL);
	cr_assert_eq(l.n, 7);
	for (unsigned i = 0; i < l.n; i++)
		(void)snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? "; " : "", l.line[i]);
	cr_assert_eq(try(&fx, all, NULL, 0), GM_RET_SUCCESS, "%s", all);
	cr_assert_eq(l.n, 7, "it is told of more");

	l.n = 0;
	fx_remove(&fx, VA, 4 * PAGE);
	fx_invl(&fx, VA, 4 * PAGE);
	gm_mock_dev_trace(fx.m, add_line, &l);
	fence = fx_launch(&fx, touch_kernel, NULL, 1);
	while (fx.mmu->fault_next(fx.m, &fault) != GM_RET_SUCCESS)
		mock_sleep_ms(1);
	cr_assert_eq(fx.mmu->fault_done(fx.pmap, VA, PAGE, GM_RET_PERM), GM_RET_SUCCESS);
	cr_assert_eq(fx_finish(&fx, fence), GM_RET_PERM);
	cr_assert_eq(fx.mmu->pmap_create(fx.m, &pmap), GM_RET_SUCCESS);
	fx.mmu->pmap_destroy(pmap);
	gm_mock_dev_trace(fx.m, NULL, NULL);
	cr_assert_eq(l.n, 4);
	cr_assert_str_eq(l.line[0], "fault 0x200000+4K rw");
	cr_assert_str_eq(l.line[1], "fault-done 0x200000+4K =PERM");
	cr_assert_str_eq(l.line[2], "create");
	cr_assert_str_eq(l.line[3], "destroy");
	fx_close(&fx);

	struct gm_mock_event event = { .kind = GM_MOCK_EV_REMOVE, .va = VA, .bytes = 3000 };

	cr_assert_eq(gm_mock_event_text(&event, small, sizeof(small)), GM_RET_NOSPC);
	cr_assert_str_eq(small, "remove 0x");
	cr_assert_eq(gm_mock_event_text(&event, all, sizeof(all)), GM_RET_SUCCESS);
	cr_assert_str_eq(all, "remove 0x200000+3000");
	event.kind = (enum gm_mock_event_kind)99;
	cr_assert_eq(gm_mock_event_text(&event, all, sizeof(all)), GM_RET_INVAL);
	event = (struct gm_mock_event){ .kind = GM_MOCK_EV_COPY, .copy = 9 };
	cr_assert_eq(gm_mock_event_text(&event, all, sizeof(all)), GM_RET_INVAL);
	cr_assert_eq(gm_mock_event_text(NULL, all, sizeof(all)), GM_RET_INVAL);
	cr_assert_eq(gm_mock_event_text(&event, NULL, 1), GM_RET_INVAL);
	cr_assert_eq(gm_mock_event_text(&event, all, 0), GM_RET_INVAL);
}
