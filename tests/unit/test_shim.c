/* SPDX-License-Identifier: MIT */
/*
 * The validation shim on backends that are broken on purpose: each rule a backend can break is broken by one that
 * keeps all others, and exactly it is reported. A rule without a part that shows it fails the test.
 */
#include "shim_parts.h"

static void (*const parts[])(void) = {
	part_none, part_map, part_enter, part_protect, part_shrink, part_fail, part_copy, part_copy_fails, part_late, part_plan,
	part_plan_revoke, part_plan_enter, part_plan_copy, part_plan_fails, part_fault, part_host, part_cpu_ptr,
	part_harvest, part_sync, part_sync_fails, part_peer, part_contexts, part_create_fails, part_halt,
};

/* ------------------------------------------------------------- the rules */

/* What a good caller does with a backend that breaks the rule. */
static void (*const shown_by[GM_RULES])(void) = {
	[GM_RULE_DEV_NULL] = part_none,
	[GM_RULE_CAPS] = part_none,
	[GM_RULE_CAP_SLOT] = part_none,
	[GM_RULE_LEAK] = part_none,
	[GM_RULE_FREE_UNKNOWN] = part_none,
	[GM_RULE_FREE_BYTES] = part_none,
	[GM_RULE_THREAD_LEFT] = part_none,
	[GM_RULE_LOCK_LEFT] = part_none,
	[GM_RULE_RESULT] = part_none, /* see below: each operation */
	[GM_RULE_LOST_ALIVE] = part_map,
	[GM_RULE_OUT_TOUCHED] = part_create_fails,
	[GM_RULE_PMAP_NULL] = part_none,
	[GM_RULE_PMAP_TWICE] = part_contexts,
	[GM_RULE_CONTEXTS_FEWER] = part_none,
	[GM_RULE_CONTEXTS_MORE] = part_contexts,
	[GM_RULE_SLOW] = part_enter,
	[GM_RULE_LOCK_UNMADE] = part_enter,
	[GM_RULE_LOCK_TWO] = part_enter,
	[GM_RULE_LOCK_KEPT] = part_enter,
	[GM_RULE_UNLOCK_FREE] = part_enter,
	[GM_RULE_WAIT_UNLOCKED] = part_enter,
	[GM_RULE_CALL_LOCKED] = part_copy,
	[GM_RULE_FAULT_BLOCKS] = part_fault,
	[GM_RULE_INVL_BLOCKS] = part_map,
	[GM_RULE_ENTER_LOST] = part_map,
	[GM_RULE_ENTER_ELSEWHERE] = part_map,
	[GM_RULE_WRITE_ALLOWED] = part_map,
	[GM_RULE_STALE] = part_map,
	[GM_RULE_FAILED_EFFECT] = part_fail,
	[GM_RULE_CUT] = part_map,
	[GM_RULE_PROTECT_HOLE] = part_protect,
	[GM_RULE_PROTECT_FILLED] = part_protect,
	[GM_RULE_COPY_BYTES] = part_copy,
	[GM_RULE_COPY_ZERO] = part_copy,
	[GM_RULE_SIGNAL_TWICE] = part_copy,
	[GM_RULE_SIGNAL_FAILED] = part_copy_fails,
	[GM_RULE_SIGNAL_RESULT] = part_copy,
	[GM_RULE_SIGNAL_UNKNOWN] = part_copy,
	[GM_RULE_SIGNAL_NEVER] = part_late,
	[GM_RULE_HALT_PENDING] = part_halt,
	[GM_RULE_STEP_RET] = part_plan,
	[GM_RULE_STEP_AFTER_FAILURE] = part_plan_fails,
	[GM_RULE_PLAN_RESULT] = part_plan_fails,
	[GM_RULE_FAULT_PMAP] = part_fault,
	[GM_RULE_FAULT_VA] = part_fault,
	[GM_RULE_FAULT_ACCESS] = part_fault,
	[GM_RULE_FAULT_SILENT] = part_fault,
	[GM_RULE_HOST_UNMAPPED] = part_host,
	[GM_RULE_HOST_WRITE] = part_host,
	[GM_RULE_CPU_PTR] = part_cpu_ptr,
	[GM_RULE_HARVEST_BITS] = part_harvest,
	[GM_RULE_HARVEST_UNMAPPED] = part_harvest,
	[GM_RULE_HARVEST_LOST] = part_harvest,
	[GM_RULE_SYNC_FD] = part_sync,
	[GM_RULE_PEER_CHANGED] = part_peer,
};

/* The same rules broken in other ways. */
static const struct other {
	int how;
	enum gm_rule rule;
	void (*part)(void);
} others[] = {
	{ TOY_ENTER_MOST, GM_RULE_ENTER_LOST, part_map },
	{ TOY_REMOVE_FAILED, GM_RULE_FAILED_EFFECT, part_fail },
	{ TOY_PROTECT_MOVED, GM_RULE_PROTECT_HOLE, part_protect },
	{ TOY_PROTECT_GROWS, GM_RULE_WRITE_ALLOWED, part_protect },
	{ TOY_STALE_RIGHT, GM_RULE_WRITE_ALLOWED, part_protect },
	{ TOY_INVL_CUT, GM_RULE_CUT, part_shrink },
	{ TOY_COPY_HOME, GM_RULE_COPY_BYTES, part_copy },
	{ TOY_SIGNAL_LATE, GM_RULE_SIGNAL_FAILED, part_copy_fails },
	{ TOY_STEP_UNLISTED, GM_RULE_STEP_RET, part_plan },
	{ TOY_STEP_CANCELED, GM_RULE_STEP_RET, part_plan },
	{ TOY_PLAN_STALE, GM_RULE_STALE, part_plan_revoke },
	{ TOY_PLAN_LOST, GM_RULE_ENTER_LOST, part_plan_enter },
	{ TOY_PLAN_COPY, GM_RULE_COPY_BYTES, part_plan_copy },
	{ TOY_FAULT_TOUCHED, GM_RULE_OUT_TOUCHED, part_fault },
	{ TOY_SYNC_TOUCHED, GM_RULE_OUT_TOUCHED, part_sync_fails },
	{ TOY_READY_LOCKED, GM_RULE_CALL_LOCKED, part_fault },
	{ TOY_QUEUE_UNMADE, GM_RULE_LOCK_UNMADE, part_enter },
	{ TOY_QUEUE_LEFT, GM_RULE_LOCK_LEFT, part_none },
	{ TOY_FD_INHERITED, GM_RULE_SYNC_FD, part_sync },
	{ TOY_RESULT + OP_CREATE, GM_RULE_RESULT, part_none },
	{ TOY_RESULT + OP_ENTER, GM_RULE_RESULT, part_enter },
	{ TOY_RESULT + OP_REMOVE, GM_RULE_RESULT, part_none },
	{ TOY_RESULT + OP_INVL, GM_RULE_RESULT, part_none },
	{ TOY_RESULT + OP_COPY, GM_RULE_RESULT, part_copy },
	{ TOY_RESULT + OP_PROTECT, GM_RULE_RESULT, part_protect },
	{ TOY_RESULT + OP_SUBMIT, GM_RULE_RESULT, part_plan_revoke },
	{ TOY_RESULT + OP_ACCESS, GM_RULE_RESULT, part_host },
	{ TOY_RESULT + OP_NEXT, GM_RULE_RESULT, part_fault },
	{ TOY_RESULT + OP_DONE, GM_RULE_RESULT, part_fault },
	{ TOY_RESULT + OP_HARVEST, GM_RULE_RESULT, part_harvest },
	{ TOY_RESULT + OP_SYNC, GM_RULE_RESULT, part_sync },
	{ TOY_RESULT + OP_IMPORT, GM_RULE_RESULT, part_sync },
	{ TOY_RESULT + OP_PEER, GM_RULE_RESULT, part_peer },
};

/* What a backend leaks on purpose is no leak of the test. */
static void clean_up(int how)
{
	static void *kept[2];

	if (how == GM_RULE_THREAD_LEFT && toy_leaked) {
		mock_svc_thread_join(&rig.s, toy_leaked);
		kept[0] = rig.dev; /* not freed: its threads might still have run */
	}
	if (how == GM_RULE_LEAK)
		kept[1] = toy_leaked;
	cr_assert(how != GM_RULE_LEAK || kept[1]);
}

static const bool is_backend[GM_RULES] = {
#define BACKEND true
#define CALLER false
#define RULE(name, who, text) [GM_RULE_##name] = who,
	GM_RULE_LIST(RULE)
#undef RULE
#undef CALLER
#undef BACKEND
};

Test(shim, a_good_backend_breaks_nothing)
{
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char row[32];

		snprintf(row, sizeof(row), "part %zu", i);
		run(GM_RULES, parts[i]);
		rig_expect(GM_RULES, row);
		cr_assert_eq(atomic_load(&rig.s.live_bytes), 0, "%s: the shim keeps memory", row);
		cr_assert_eq(atomic_load(&rig.s.live_fences), 0);
	}
}

Test(shim, each_rule_has_a_backend_that_breaks_it)
{
	unsigned n = 0;

	for (unsigned rule = 0; rule < GM_RULES; rule++) {
		const char *name = gm_rule_name((enum gm_rule)rule);

		if (!is_backend[rule]) {
			cr_assert_null(shown_by[rule], "%s is the caller's", name);
			continue;
		}
		cr_assert_not_null(shown_by[rule], "no backend breaks %s", name);
		n++;
		if (rule == GM_RULE_RESULT)
			continue;
		run((int)rule, shown_by[rule]);
		rig_expect((enum gm_rule)rule, name);
		cr_assert(rig.first.by_backend, "%s", name);
		clean_up((int)rule);
	}
	cr_assert_geq(n, 25);
}

Test(shim, each_rule_in_other_ways)
{
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		char row[64];

		snprintf(row, sizeof(row), "way %zu of breaking %s", i, gm_rule_name(others[i].rule));
		run(others[i].how, others[i].part);
		rig_expect(others[i].rule, row);
	}
}

Test(shim, an_init_that_fails)
{
	static const struct {
		int how;
		enum gm_rule rule;
	} row[] = { { GM_RULES, GM_RULES }, { TOY_INIT_TOUCHED, GM_RULE_OUT_TOUCHED }, { TOY_INIT_LEAK, GM_RULE_LEAK } };

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		toy_fails = true;
		cr_assert_eq(rig_init(row[i].how), GM_RET_NOMEM);
		cr_assert_null(rig.dev);
		rig_expect(row[i].rule, "dev_init");
		free(rig.s.host);
		free(rig.host);
	}
}

/* The report names operation, address, and what happened to the page before. */
Test(shim, a_report_tells_the_history)
{
	char va[32], *at;

	run(GM_RULE_STALE, part_map);
	rig_expect(GM_RULE_STALE, "history");
	cr_assert_eq(strcmp(rig.first.op, "tlb_invl"), 0);
	cr_assert_eq(rig.first.va, TOY_VA + PAGE);
	cr_assert_eq(rig.first.step, GM_STEP_FREE);
	snprintf(va, sizeof(va), "va 0x%llx", (unsigned long long)(TOY_VA + PAGE));
	cr_assert(strstr(rig.text, va), "%s", rig.text);
	at = strstr(rig.text, "before:");
	cr_assert(at && (at = strstr(at, "pmap_enter")) && (at = strstr(at, "pmap_remove")), "%s", rig.text);
	cr_assert(strstr(at, "GM_RET_SUCCESS"), "%s", rig.text);

	run(TOY_PLAN_STALE, part_plan_revoke);
	cr_assert_eq(rig.first.step, 1, "the step of the plan");
	cr_assert(strstr(rig.text, "(step 1)"), "%s", rig.text);
}

/* Without a report function it is a line in the log. */
Test(shim, reports_go_to_the_log)
{
	cr_assert_eq(rig_init(GM_RULE_LOCK_TWO), GM_RET_SUCCESS);
	rig.mmu->dev_fini(rig.dev);
	free(rig.s.host);
	free(rig.host);
	rig.config.report = NULL;
	rig.s.host = NULL;
	cr_assert_eq(rig.mmu->dev_init(&rig.config, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_SUCCESS);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
	cr_assert_eq(atomic_load(&rig.s.logged), 0);
	part_enter();
	cr_assert_eq(atomic_load(&rig.s.logged), 1);
	for (unsigned i = 0; i < 200; i++)
		part_enter();
	cr_assert_eq(atomic_load(&rig.s.logged), 100, "not for ever");
	rig.host = NULL;
	rig_close();
}

Test(shim, a_bad_configuration_is_refused)
{
	struct gm_mmu empty = toy_mmu;

	run(GM_RULES, part_none);
	rig.config.size--;
	cr_assert_eq(rig.mmu->dev_init(&rig.config, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_INVAL);
	rig.config.size++;
	rig.config.mmu = NULL;
	cr_assert_eq(rig.mmu->dev_init(&rig.config, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_INVAL);
	empty.pmap_enter = NULL;
	rig.config.mmu = &empty;
	cr_assert_eq(rig.mmu->dev_init(&rig.config, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_INVAL);
	cr_assert_eq(rig.mmu->dev_init(NULL, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_INVAL);
	cr_assert_null(gm_validate_dev(NULL));
	cr_assert_null(gm_validate_pmap(NULL));
	cr_assert_eq(strcmp(gm_rule_name(GM_RULE_CUT), "GM_RULE_CUT"), 0);
	cr_assert_eq(strcmp(gm_rule_name(GM_RULES), "GM_RULE_?"), 0);
}

/* Slots that the backend does not have answer with their defaults; an older one has fewer. */
Test(shim, a_short_table_has_defaults)
{
	struct gm_fence *fence;
	uint8_t bits = 7;
	void *sync = NULL;
	int fd = -1;

	toy_no_caps = GM_CAP_DIRTY | GM_CAP_SYNC | GM_CAP_PEER;
	cr_assert_eq(rig_init(GM_RULES), GM_RET_SUCCESS);
	rig_close();
	rig.toy.size = offsetof(struct gm_mmu, pmap_harvest);
	rig.s.host = NULL;
	rig.host = NULL;
	cr_assert_eq(rig.mmu->dev_init(&rig.config, &rig.s.svc, &rig.caps, &rig.dev), GM_RET_SUCCESS);
	cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
	part_map();
	rig.mmu->dev_halt(rig.dev);
	rig_expect(GM_RULES, "short table");
	fence = mock_svc_fence_create(&rig.s);
	cr_assert_eq(rig.mmu->pmap_harvest(rig.pmap, TOY_VA, PAGE, &bits), GM_RET_UNIMPLEMENTED);
	cr_assert_eq(rig.mmu->sync_create(rig.dev, &sync, &fd), GM_RET_UNIMPLEMENTED);
	cr_assert_eq(rig.mmu->sync_import(rig.dev, 0, fence), GM_RET_UNIMPLEMENTED);
	cr_assert_eq(rig.mmu->peer_reach(rig.dev, rig.dev), GM_RET_NOTSUP);
	rig.mmu->sync_signal(rig.dev, sync, GM_RET_SUCCESS);
	rig_expect(GM_RULE_NO_CAP, "an operation that was not announced");
	cr_assert_eq(rig.n, 5);
	mock_svc_fence_put(&rig.s, fence);
	rig_close();
	toy_no_caps = 0;
}

/* Any allocation of the shim may fail: calls go on, or say so, and nothing is reported. */
Test(shim, without_memory_it_is_blind_and_silent)
{
	for (long nth = 1; nth < 200; nth++) {
		rig_open(GM_RULES);
		cr_assert_eq(rig.mmu->pmap_create(rig.dev, &rig.pmap), GM_RET_SUCCESS);
		atomic_store(&rig.s.fail_alloc, nth);
		rig.blind = true;
		part_map();
		part_copy();
		part_plan();
		rig_empty();
		part_host();
		rig_empty();
		part_cpu_ptr();
		part_harvest();
		part_sync();
		if (atomic_load(&rig.s.fail_alloc) > 0)
			nth = 200; /* there were no more */
		atomic_store(&rig.s.fail_alloc, 0);
		rig_close();
		rig_expect(GM_RULES, "without memory");
		cr_assert_eq(atomic_load(&rig.s.live_bytes), 0);
	}
}
