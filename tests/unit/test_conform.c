/* SPDX-License-Identifier: MIT */
/*
 * The conformance suite itself: what it refuses, what it makes of skips, and that a backend which crashes, asserts,
 * ends the process or hangs is a failed test. The backends are the mock's with one operation exchanged.
 */
#include "config.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gmem/conform.h>
#include <gmem/mock.h>

struct seen {
	unsigned n;
	struct gm_conform_result last;
	char reason[512];
};

static void keep(void *arg, const struct gm_conform_result *result)
{
	struct seen *seen = arg;

	seen->n++;
	seen->last = *result;
	(void)snprintf(seen->reason, sizeof(seen->reason), "%s", result->reason);
}

static gm_ret_t run(const struct gm_plugin *plugin, const char *options, const char *only, struct seen *seen)
{
	struct gm_conform_config config = {
		.size = sizeof(config), .plugin = plugin, .options = options, .only = only, .bound_ns = 300000000u,
		.report = keep, .arg = seen,
	};

	memset(seen, 0, sizeof(*seen));
	return gm_conform_run(&config, NULL);
}

static void want(const struct seen *seen, enum gm_conform_outcome outcome, const char *reason)
{
	cr_assert_eq(seen->n, 1u, "%u results", seen->n);
	cr_assert_eq(seen->last.outcome, outcome, "outcome %d: %s", (int)seen->last.outcome, seen->reason);
	cr_assert_eq(strncmp(seen->reason, reason, strlen(reason)), 0, "reason: %s", seen->reason);
}

Test(conform, refuses)
{
	struct gm_conform_config good = { .size = sizeof(good), .plugin = gm_mock_plugin(), .only = "table" }, bad;
	struct gm_conform_summary summary = { .passed = 7 };
	struct gm_plugin plugin = *gm_mock_plugin();

	cr_assert_eq(gm_conform_run(NULL, &summary), GM_RET_INVAL);
	bad = good;
	bad.size--;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	bad = good;
	bad.plugin = NULL;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	bad.plugin = &plugin;
	plugin.abi++;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	plugin.abi--;
	plugin.size--;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	plugin.size++;
	plugin.name = NULL;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	plugin.name = gm_mock_plugin()->name;
	plugin.mmu = NULL;
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	bad = good;
	bad.only = "map/nonesuch";
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	bad.only = "";
	cr_assert_eq(gm_conform_run(&bad, &summary), GM_RET_INVAL);
	cr_assert_eq(summary.passed, 7u, "nothing is written where the call is refused");
	cr_assert_eq(gm_conform_run(&good, &summary), GM_RET_SUCCESS);
	cr_assert_eq(summary.passed, 5u);
	cr_assert_eq(summary.failed + summary.skipped, 0u);
}

Test(conform, a_skip_needs_a_reason)
{
	static const struct gm_plugin_skip exact[] = { { .test = "plan/chain", .reason = "why" }, { .test = NULL } };
	static const struct gm_plugin_skip other[] = { { .test = "plan/single", .reason = "why" }, { .test = NULL } };
	static const struct gm_plugin_skip empty[] = { { .test = "plan", .reason = "" }, { .test = NULL } };
	struct gm_plugin plugin = *gm_mock_plugin();
	struct seen seen;

	plugin.skips = NULL;
	cr_assert_eq(run(&plugin, "submit=no", "plan/chain", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "no reason given: plan/chain needs GM_CAP_SUBMIT;");
	plugin.skips = other;
	cr_assert_eq(run(&plugin, "submit=no", "plan/chain", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "no reason given");
	plugin.skips = empty;
	cr_assert_eq(run(&plugin, "submit=no", "plan/chain", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "no reason given");
	plugin.skips = exact;
	cr_assert_eq(run(&plugin, "submit=no", "plan/chain", &seen), GM_RET_FAULT, "nothing passed");
	want(&seen, GM_CONFORM_SKIP, "why (needs GM_CAP_SUBMIT)");
	cr_assert_eq(run(&plugin, "submit=no", "plan/chain,table/slots", &seen), GM_RET_SUCCESS);
	plugin.hooks = NULL;
	cr_assert_eq(run(&plugin, "", "fault/served", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "no reason given: fault/served needs hook touch;");
}

Test(conform, a_reason_excuses_nothing)
{
	static const struct gm_plugin_skip stale[] = { { .test = "plan/chain", .reason = "why" }, { .test = NULL } };
	static const struct gm_plugin_skip varies[] = {
		{ .test = "plan", .reason = "why", .varies = true }, { .test = NULL },
	};
	static const struct gm_plugin_skip wrong[] = { { .test = "plan/chains", .reason = "why" }, { .test = NULL } };
	struct gm_plugin plugin = *gm_mock_plugin();
	struct seen seen;

	plugin.skips = stale;
	cr_assert_eq(run(&plugin, "", "plan/chain", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "stale skip: ");
	plugin.skips = varies;
	cr_assert_eq(run(&plugin, "", "plan/chain", &seen), GM_RET_SUCCESS);
	want(&seen, GM_CONFORM_PASS, "");
	cr_assert_eq(run(&plugin, "bug=plan_reversed", "plan/chain", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "GM_RULE_");
	plugin.skips = wrong;
	cr_assert_eq(run(&plugin, "", "table/skips", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "skips: 'plan/chains'");
}

Test(conform, a_device_that_does_not_open)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct seen seen;

	cr_assert_eq(run(&plugin, "nonesuch=1", NULL, &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "options: ");
	plugin.open = NULL;
	cr_assert_eq(run(&plugin, "x", NULL, &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "options: ");
}

static void destroy_abort(void *pmap)
{
	(void)pmap;
	abort();
}

static void destroy_exit(void *pmap)
{
	(void)pmap;
	_exit(0);
}

static void destroy_hang(void *pmap)
{
	(void)pmap;
	for (;;)
		(void)pause();
}

/* Whatever the backend does to its process: the test fails, and the next one runs. */
Test(conform, a_backend_that_misbehaves, .timeout = 60)
{
	static const struct {
		void (*destroy)(void *pmap);
		const char *reason;
	} rows[] = {
		{ destroy_abort, "crash: signal 6" }, { destroy_exit, "exit: " }, { destroy_hang, "hang: " },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct gm_plugin plugin = *gm_mock_plugin();
		struct gm_mmu mmu = *plugin.mmu;
		struct seen seen;

		mmu.pmap_destroy = rows[i].destroy;
		plugin.mmu = &mmu;
		cr_assert_eq(run(&plugin, "", "lifecycle/pmaps", &seen), GM_RET_FAULT);
		want(&seen, GM_CONFORM_FAIL, rows[i].reason);
		cr_assert(strstr(seen.reason, "pmap_destroy"), "reason: %s", seen.reason);
		cr_assert_eq(run(&plugin, "", "memory/zero", &seen), GM_RET_SUCCESS);
	}
}

/* A required slot that is empty is said, not called. */
static int pipe_of_fork[2];

/* What is forked would hold the pipe for a minute. */
static void destroy_fork(void *pmap)
{
	if (fork() == 0) {
		(void)sleep(60);
		_exit(0);
	}
	gm_mock_mmu()->pmap_destroy(pmap);
}

Test(conform, what_a_backend_forked_ends_with_the_test, .timeout = 60)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu table = *gm_mock_mmu();
	struct pollfd p;
	struct seen seen;

	cr_assert_eq(pipe(pipe_of_fork), 0);
	plugin.mmu = &table;
	table.pmap_destroy = destroy_fork;
	cr_assert_eq(run(&plugin, "", "map/across", &seen), GM_RET_SUCCESS);
	want(&seen, GM_CONFORM_PASS, "");
	close(pipe_of_fork[1]);
	p = (struct pollfd){ .fd = pipe_of_fork[0] };
	cr_assert_eq(poll(&p, 1, 10000), 1, "somebody has the other end still");
	close(pipe_of_fork[0]);
}

/* What the suite watches its child by is closed. */
static void destroy_close(void *pmap)
{
	(void)pmap;
	for (int i = 3; i < 64; i++)
		(void)close(i);
	for (;;)
		(void)pause();
}

Test(conform, a_backend_that_closes_what_is_not_its_own_is_still_bounded, .timeout = 60)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu table = *gm_mock_mmu();
	struct seen seen;

	plugin.mmu = &table;
	table.pmap_destroy = destroy_close;
	cr_assert_eq(run(&plugin, "", "map/across", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "hang: ");
}

static void destroy_print(void *pmap)
{
	(void)dprintf(STDOUT_FILENO, "not ok 1\n");
	gm_mock_mmu()->pmap_destroy(pmap);
}

/* What gm_conform_main() writes to standard output. */
static int main_text(const struct gm_plugin *plugin, const char *only, char *text, size_t bytes)
{
	char style[] = "--json", option[] = "--only", words[64], program[] = "check";
	char *argv[] = { program, style, option, words, NULL };
	FILE *file = tmpfile();
	int kept, status;
	size_t n;

	(void)snprintf(words, sizeof(words), "%s", only);
	(void)fflush(stdout);
	kept = dup(STDOUT_FILENO);
	cr_assert(file && kept >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
	status = gm_conform_main(4, argv, plugin);
	(void)dup2(kept, STDOUT_FILENO);
	close(kept);
	rewind(file);
	n = fread(text, 1, bytes - 1, file);
	text[n] = '\0';
	(void)fclose(file);
	return status;
}

Test(conform, standard_output_is_for_results, .timeout = 60)
{
	static const struct gm_plugin_skip odd[] = {
		{ .test = "dirty", .reason = "\xff\xc3\xa9\xc0\x80\xed\xa0\x80", .varies = true }, { .test = NULL },
	};
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu table = *gm_mock_mmu();
	char text[4096];

	plugin.mmu = &table;
	plugin.skips = odd;
	table.pmap_destroy = destroy_print;
	cr_assert_eq(main_text(&plugin, "map/across,dirty/bits", text, sizeof(text)), 0);
	cr_assert_not_null(strstr(text, "\"passed\": 1, \"failed\": 0, \"skipped\": 1}"), "%s", text);
	cr_assert_null(strstr(text, "not ok"), "%s", text);
	cr_assert_not_null(strstr(text, "\"\\u00ff\xc3\xa9\\u00c0\\u0080\\u00ed\\u00a0\\u0080 ("), "%s", text);
	plugin.name = NULL;
	cr_assert_eq(main_text(&plugin, "table", text, sizeof(text)), 2);
	cr_assert_str_eq(text, "");
}

Test(conform, an_empty_slot)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	mmu.copy = NULL;
	cr_assert_eq(run(&plugin, "", "table/slots", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "slots: ");
}

/* What must be possible to stop where copies are in flight when the call returns. */
Test(conform, an_engine_that_cannot_be_halted)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	cr_assert_eq(run(&plugin, "copy=async,submit=no", "fence/can_halt", &seen), GM_RET_SUCCESS, "%s", seen.reason);
	mmu.dev_halt = NULL;
	cr_assert_eq(run(&plugin, "copy=async,submit=no", "fence/can_halt", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "dev_halt: copy() returned before its signal, but dev_halt is NULL");
	cr_assert_eq(run(&plugin, "copy=sync", "fence/can_halt", &seen), GM_RET_SUCCESS, "%s", seen.reason);
	mmu = *gm_mock_plugin()->mmu;
	mmu.size = offsetof(struct gm_mmu, dev_halt);
	cr_assert_eq(run(&plugin, "copy=async,submit=no", "fence/can_halt", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "dev_halt: ");
}

static pthread_mutex_t one_copy = PTHREAD_MUTEX_INITIALIZER;

static gm_ret_t one_copy_at_a_time(void *dev, const struct gm_copy *copies, size_t n, struct gm_fence *done)
{
	gm_ret_t ret;

	(void)pthread_mutex_lock(&one_copy);
	ret = gm_mock_plugin()->mmu->copy(dev, copies, n, done);
	(void)pthread_mutex_unlock(&one_copy);
	return ret;
}

/* A lock of the backend's own around copy(), the signal included: nobody sees it but who copies from a callback. */
Test(conform, a_copy_that_waits_for_another, .timeout = 60)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	mmu.copy = one_copy_at_a_time;
	cr_assert_eq(run(&plugin, "copy=sync", "memory/round_trip", &seen), GM_RET_SUCCESS, "%s", seen.reason);
	cr_assert_eq(run(&plugin, "copy=sync", "fence/chained", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "hang: ");
	cr_assert(strstr(seen.reason, "copy (from a callback)"), "reason: %s", seen.reason);
}

static gm_ret_t open_nothing(const char *options, void **dev_data)
{
	(void)options, (void)dev_data;
	return GM_RET_SUCCESS;
}

Test(conform, an_open_that_gives_nothing)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct seen seen;

	cr_assert_eq(run(&plugin, "", "table/open", &seen), GM_RET_SUCCESS, "%s", seen.reason);
	plugin.open = open_nothing;
	plugin.close = NULL;
	cr_assert_eq(run(&plugin, "", "table/open", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "open: gm_plugin.open(\"\") succeeded, but dev_data is NULL");
	plugin = *gm_mock_plugin();
	plugin.open = NULL;
	cr_assert_eq(run(&plugin, "", "table/open", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "open: gm_plugin has close, but no open");
}

/* dev_init() of the next two; NULL: as it is. */
static gm_ret_t (*init_that)(const struct gm_services *svc, struct gm_dev_caps *caps);

static gm_ret_t init(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	gm_ret_t ret = init_that(svc, caps);

	return ret ? ret : gm_mock_plugin()->mmu->dev_init(dev_data, svc, caps, dev);
}

static gm_ret_t caps_then_nomem(const struct gm_services *svc, struct gm_dev_caps *caps)
{
	void *ptr = svc->alloc(svc->self, 1);

	caps->va_bits = 48;
	svc->free(svc->self, ptr, 1);
	return ptr ? GM_RET_SUCCESS : GM_RET_NOMEM;
}

static void nothing(void *arg)
{
	(void)arg;
}

static gm_ret_t thread_as_it_comes(const struct gm_services *svc, struct gm_dev_caps *caps)
{
	struct gm_thread *thread;
	gm_ret_t ret;

	(void)caps;
	ret = svc->thread_start(svc->self, "test", 0, nothing, NULL, &thread);
	if (ret == GM_RET_SUCCESS)
		svc->thread_join(svc->self, thread);
	return ret;
}

/* A failure says which service was made to fail, and what would have been allowed. */
Test(conform, an_opening_that_fails_badly)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	mmu.dev_init = init;
	init_that = caps_then_nomem;
	cr_assert_eq(run(&plugin, "", "nth/dev_init", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "out-parameter: dev_init failed with GM_RET_NOMEM, but wrote to caps: fill it in last; "
	     "service alloc (call 1) was made to fail");
	init_that = thread_as_it_comes;
	cr_assert_eq(run(&plugin, "", "nth/dev_init", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "GM_RULE_RESULT: an operation returns only what its block lists; "
	     "service thread_start (call 1) was made to fail\n");
	cr_assert(strstr(seen.reason, "it returned GM_RET_AGAIN (-11), which is not one of SUCCESS, "), "%s", seen.reason);
	cr_assert(strstr(seen.reason, "NOMEM"), "%s", seen.reason);
}

/* What is said of a page is said of one that the device has. */
Test(conform, a_large_granule_is_named_whole)
{
	struct seen seen;
	unsigned long long va = 1, bytes = 1;
	const char *at;

	cr_assert_eq(run(gm_mock_plugin(), "pages=64K,bug=invl_first", "invalidate/gone", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "GM_RULE_STALE: after tlb_invl()");
	at = strstr(seen.reason, ", va 0x");
	cr_assert(at, "%s", seen.reason);
	cr_assert_eq(sscanf(at, ", va 0x%llx, %llx bytes", &va, &bytes), 2, "%s", seen.reason);
	cr_assert(va % 0x10000 == 0 && bytes && bytes % 0x10000 == 0, "%s", seen.reason);
}

/* A capability without its slot. */
Test(conform, a_capability_without_slot)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	mmu.pmap_harvest = NULL;
	cr_assert_eq(run(&plugin, "dirty=yes", "table/caps", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "caps: ");
}

static gm_ret_t init_few_bits(void *dev_data, const struct gm_services *svc, struct gm_dev_caps *caps, void **dev)
{
	gm_ret_t ret = gm_mock_mmu()->dev_init(dev_data, svc, caps, dev);

	caps->va_bits = 31;
	return ret;
}

/* A limit that is none. */
Test(conform, a_limit_out_of_bounds)
{
	struct gm_plugin plugin = *gm_mock_plugin();
	struct gm_mmu mmu = *plugin.mmu;
	struct seen seen;

	plugin.mmu = &mmu;
	mmu.dev_init = init_few_bits;
	cr_assert_eq(run(&plugin, "", "table/limits", &seen), GM_RET_FAULT);
	want(&seen, GM_CONFORM_FAIL, "va_bits: ");
}
