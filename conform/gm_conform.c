/* SPDX-License-Identifier: MIT */
/*
 * The run: which tests, in which order, and what becomes of those whose capability or hook is missing.
 *
 *     needs something missing --written reason--> SKIP
 *                             --none------------> FAIL "no reason given"
 *     needs nothing missing   --a line of skips about it that does not vary--> FAIL "stale skip"
 *                             --else--> run it
 *
 * What is missing is known from one device that is opened first; a test may find more when it runs (a device of the
 * same kind that is no peer), and is then treated the same way.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "conform/gm_ct.h"

#define DEFAULT_BOUND_NS UINT64_C(10000000000)

const struct gm_ct_group gm_ct_groups[] = {
	{ "table", gm_ct_table_tests },         { "lifecycle", gm_ct_lifecycle_tests },
	{ "memory", gm_ct_memory_tests },       { "map", gm_ct_map_tests },
	{ "protect", gm_ct_protect_tests },     { "invalidate", gm_ct_invalidate_tests },
	{ "fence", gm_ct_fence_tests },         { "plan", gm_ct_plan_tests },
	{ "fault", gm_ct_fault_tests },         { "workset", gm_ct_workset_tests },
	{ "dirty", gm_ct_dirty_tests },         { "sync", gm_ct_sync_tests },
	{ "peer", gm_ct_peer_tests },           { "visible", gm_ct_visible_tests },
	{ "host", gm_ct_host_tests },           { "nth", gm_ct_nth_tests },
	{ "threads", gm_ct_threads_tests },     { "trace", gm_ct_trace_tests },
	{ "lost", gm_ct_lost_tests },           { NULL, NULL },
};

static const struct {
	uint32_t bit;
	const char *name;
} cap_names[] = {
	{ GM_CAP_FAULTS, "GM_CAP_FAULTS" },   { GM_CAP_HOST_MAP, "GM_CAP_HOST_MAP" },
	{ GM_CAP_CPU_VISIBLE, "GM_CAP_CPU_VISIBLE" }, { GM_CAP_FAST_INVL, "GM_CAP_FAST_INVL" },
	{ GM_CAP_SUBMIT, "GM_CAP_SUBMIT" },   { GM_CAP_ACCESS, "GM_CAP_ACCESS" },
	{ GM_CAP_PROTECT, "GM_CAP_PROTECT" }, { GM_CAP_DIRTY, "GM_CAP_DIRTY" },
	{ GM_CAP_SYNC, "GM_CAP_SYNC" },       { GM_CAP_PEER, "GM_CAP_PEER" },
}, hook_names[] = {
	{ GM_CT_TOUCH, "hook touch" }, { GM_CT_FAIL, "hook fail" }, { GM_CT_LOSE, "hook lose" },
	{ GM_CT_HANG, "hook hang" },
};

struct run {
	const struct gm_conform_config *config; /* complete */
	struct gm_conform_summary summary;
	uint32_t caps, hooks;                   /* that are there */
};

static void append(char *text, size_t bytes, const char *word)
{
	size_t n = strlen(text);

	(void)snprintf(text + n, bytes - n, "%s%s", n ? ", " : "", word);
}

static void describe(uint32_t caps, uint32_t hooks, char *text, size_t bytes)
{
	text[0] = '\0';
	for (size_t i = 0; i < sizeof(cap_names) / sizeof(cap_names[0]); i++) {
		if (caps & cap_names[i].bit)
			append(text, bytes, cap_names[i].name);
	}
	for (size_t i = 0; i < sizeof(hook_names) / sizeof(hook_names[0]); i++) {
		if (hooks & hook_names[i].bit)
			append(text, bytes, hook_names[i].name);
	}
}

static uint32_t hooks_of(const struct gm_plugin *plugin)
{
	const struct gm_plugin_hooks *h = plugin->hooks;

	if (!h)
		return 0;
	return (h->touch ? GM_CT_TOUCH : 0) | (h->fail ? GM_CT_FAIL : 0) | (h->lose ? GM_CT_LOSE : 0) |
	       (h->hang ? GM_CT_HANG : 0);
}

/* Is `name` ("group" or "group/test", `len` characters) this test or its group? */
static bool names_it(const char *name, size_t len, const char *group, const char *test)
{
	size_t g = strlen(group);

	if (len < g || memcmp(name, group, g) != 0)
		return false;
	if (len == g)
		return true;
	return name[g] == '/' && len == g + 1 + strlen(test) && memcmp(name + g + 1, test, len - g - 1) == 0;
}

static bool selected(const char *only, const char *group, const char *test)
{
	if (!only)
		return true;
	for (const char *at = only; *at;) {
		size_t len = strcspn(at, ",");

		if (names_it(at, len, group, test))
			return true;
		at += len + (at[len] == ',');
	}
	return false;
}

/* The line about exactly this test, else the one about its group; NULL: none. */
static const struct gm_plugin_skip *skip_line(const struct gm_plugin *plugin, const char *group, const char *test)
{
	const struct gm_plugin_skip *found = NULL;

	for (const struct gm_plugin_skip *s = plugin->skips; s && s->test; s++) {
		if (!names_it(s->test, strlen(s->test), group, test))
			continue;
		if (strchr(s->test, '/'))
			return s;
		found = s;
	}
	return found;
}

/* Does any test of the group lack something? Then a line about the group is not stale. */
static bool group_lacks(const struct run *r, const struct gm_ct_test *tests)
{
	for (; tests->name; tests++) {
		if ((tests->caps & ~r->caps) || (tests->hooks & ~r->hooks))
			return true;
	}
	return false;
}

/* Something is missing: a skip, if it is explained. */
static enum gm_conform_outcome lacking(const struct run *r, const char *group, const char *test, const char *what,
				       char *reason, size_t bytes)
{
	const struct gm_plugin_skip *line = skip_line(r->config->plugin, group, test);

	if (line && line->reason && line->reason[0]) {
		(void)snprintf(reason, bytes, "%s (needs %.200s)", line->reason, what);
		return GM_CONFORM_SKIP;
	}
	(void)snprintf(reason, bytes, "no reason given: %s/%s needs %.200s; implement it, or say why not in gm_plugin.skips",
		       group, test, what);
	return GM_CONFORM_FAIL;
}

static bool is_stale(const struct run *r, const struct gm_ct_group *group, const struct gm_ct_test *test, char *reason,
		     size_t bytes)
{
	const struct gm_plugin_skip *line = skip_line(r->config->plugin, group->name, test->name);

	if (!line || line->varies || (!strchr(line->test, '/') && group_lacks(r, group->tests)))
		return false;
	(void)snprintf(reason, bytes, "stale skip: gm_plugin.skips has a line about %s, but what it needs is there",
		       line->test);
	return true;
}

static enum gm_conform_outcome decide(struct run *r, const struct gm_ct_group *group, const struct gm_ct_test *test,
				      char *reason, size_t bytes)
{
	char what[GM_CT_REASON_BYTES];
	uint32_t caps;

	describe(test->caps & ~r->caps, test->hooks & ~r->hooks, what, sizeof(what));
	if (what[0])
		return lacking(r, group->name, test->name, what, reason, bytes);
	switch (gm_ct_run(r->config, test, reason, bytes, &caps)) {
	case GM_CT_PASSED:
		return is_stale(r, group, test, reason, bytes) ? GM_CONFORM_FAIL : GM_CONFORM_PASS;
	case GM_CT_NEEDS:
		(void)snprintf(what, sizeof(what), "%.200s", reason);
		return lacking(r, group->name, test->name, what, reason, bytes);
	default:
		return GM_CONFORM_FAIL;
	}
}

static void report(struct run *r, const struct gm_conform_result *result)
{
	unsigned *count[] = { &r->summary.passed, &r->summary.failed, &r->summary.skipped };

	++*count[result->outcome];
	if (r->config->report)
		r->config->report(r->config->arg, result);
}

static void run_test(struct run *r, const struct gm_ct_group *group, const struct gm_ct_test *test)
{
	char reason[GM_CT_REASON_BYTES] = "";
	struct gm_conform_result result = { .group = group->name, .test = test->name, .reason = reason };
	uint64_t began = gm_ct_now_ns();

	if (r->config->list) {
		describe(test->caps, test->hooks, reason, sizeof(reason));
		result.outcome = GM_CONFORM_SKIP;
	} else {
		result.outcome = decide(r, group, test, reason, sizeof(reason));
	}
	if (result.outcome == GM_CONFORM_PASS)
		reason[0] = '\0';
	result.ns = gm_ct_now_ns() - began;
	report(r, &result);
}

static void probe(struct gm_ct *t)
{
	gm_ct_table_tests[0].run(t); /* slots: what is empty must not be called */
	gm_ct_close(gm_ct_open(t));
}

/* What the device has. False, and reported: it cannot be opened. */
static bool ask_device(struct run *r)
{
	static const struct gm_ct_test open = { .name = "open", .run = probe };
	char reason[GM_CT_REASON_BYTES] = "";
	struct gm_conform_result result = {
		.group = "table", .test = "open", .outcome = GM_CONFORM_FAIL, .reason = reason,
	};

	r->hooks = hooks_of(r->config->plugin);
	if (gm_ct_run(r->config, &open, reason, sizeof(reason), &r->caps) == GM_CT_PASSED || r->caps)
		return true; /* what is wrong with a device that did open, its tests say */
	report(r, &result);
	return false;
}

static bool names_something(const char *only)
{
	for (const char *at = only; at && *at;) {
		size_t len = strcspn(at, ",");
		bool found = false;

		for (const struct gm_ct_group *g = gm_ct_groups; g->name && !found; g++)
			for (const struct gm_ct_test *t = g->tests; t->name && !found; t++)
				found = names_it(at, len, g->name, t->name);
		if (!found)
			return false;
		at += len + (at[len] == ',');
	}
	return !only || *only;
}

bool gm_ct_plugin_check(const struct gm_plugin *plugin, char *why, size_t bytes)
{
	why[0] = '\0';
	if (!plugin)
		(void)snprintf(why, bytes, "there is no plugin");
	else if (plugin->abi != GM_PLUGIN_ABI)
		(void)snprintf(why, bytes, "gm_plugin.abi is %u, this suite speaks %u: rebuild the backend",
			       (unsigned)plugin->abi, GM_PLUGIN_ABI);
	else if (plugin->size != sizeof(*plugin))
		(void)snprintf(why, bytes, "gm_plugin.size is %u, sizeof(struct gm_plugin) is %zu: rebuild the backend",
			       (unsigned)plugin->size, sizeof(*plugin));
	else if (!plugin->name || !plugin->name[0])
		(void)snprintf(why, bytes, "gm_plugin.name is missing");
	else if (!plugin->mmu)
		(void)snprintf(why, bytes, "gm_plugin.mmu, the ops table, is missing");
	else if (plugin->hooks && plugin->hooks->size != sizeof(*plugin->hooks))
		(void)snprintf(why, bytes, "gm_plugin_hooks.size is %u, sizeof(struct gm_plugin_hooks) is %zu: rebuild the backend",
			       (unsigned)plugin->hooks->size, sizeof(*plugin->hooks));
	return !why[0];
}

gm_ret_t gm_conform_run(const struct gm_conform_config *config, struct gm_conform_summary *summary)
{
	struct gm_conform_config complete;
	struct run r = { .config = &complete };
	char why[160];

	if (!config || config->size != sizeof(*config) || !gm_ct_plugin_check(config->plugin, why, sizeof(why)) ||
	    !names_something(config->only))
		return GM_RET_INVAL;
	complete = *config;
	complete.seed = config->seed ? config->seed : GM_CT_SEED;
	complete.bound_ns = config->bound_ns ? config->bound_ns : DEFAULT_BOUND_NS;
	if (config->list || ask_device(&r)) {
		for (const struct gm_ct_group *g = gm_ct_groups; g->name; g++)
			for (const struct gm_ct_test *t = g->tests; t->name; t++)
				if (selected(config->only, g->name, t->name))
					run_test(&r, g, t);
	}
	if (summary)
		*summary = r.summary;
	if (config->list)
		return GM_RET_SUCCESS;
	return r.summary.failed == 0 && r.summary.passed > 0 ? GM_RET_SUCCESS : GM_RET_FAULT;
}
