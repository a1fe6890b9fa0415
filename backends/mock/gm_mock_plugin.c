/* SPDX-License-Identifier: MIT */
/*
 * The mock as a plugin (gmem/plugin.h): what tools and the conformance suite
 * need besides the ops table.
 *
 *     open(options) -> a struct gm_mock_config --dev_init()--> device --dev_fini()--> close()
 *
 * The configuration is made before there is a device, hence before there are
 * services: it comes from the C library.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <gmem/plugin.h>

#include "backends/mock/gm_mock_internal.h"

static gm_ret_t plugin_open(const char *options, void **dev_data)
{
	struct gm_mock_config *config = malloc(sizeof(*config));
	gm_ret_t ret;

	if (!config)
		return GM_RET_NOMEM;
	ret = gm_mock_parse(options, config);
	if (ret != GM_RET_SUCCESS) {
		free(config);
		return ret;
	}
	*dev_data = config;
	return GM_RET_SUCCESS;
}

static gm_ret_t hook_touch(void *dev, void *pmap, uint64_t va, void *buf, size_t bytes, bool write)
{
	(void)dev;
	return gm_mock_touch(pmap, va, buf, bytes, write);
}

static gm_ret_t hook_fail(void *dev, const char *op, uint64_t nth)
{
	static const struct {
		const char *name;
		enum gm_mock_op op;
	} ops[] = {
		{ "pmap_create", GM_MOCK_PMAP_CREATE }, { "pmap_enter", GM_MOCK_PMAP_ENTER },
		{ "pmap_remove", GM_MOCK_PMAP_REMOVE }, { "copy", GM_MOCK_COPY },
		{ "pmap_protect", GM_MOCK_PROTECT },    { "submit", GM_MOCK_SUBMIT },
		{ "pmap_harvest", GM_MOCK_HARVEST },    { "peer_reach", GM_MOCK_PEER_REACH },
	};

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (strcmp(op, ops[i].name) == 0)
			return gm_mock_dev_fail(dev, ops[i].op, nth, nth > 0);
	}
	return GM_RET_NOTSUP;
}

static void hook_lose(void *dev)
{
	gm_mock_dev_lose(dev);
}

/* Every copy from now on, alone or in a plan. */
static gm_ret_t hook_hang(void *dev)
{
	struct gm_mock_rule rule = { .size = sizeof(rule), .op = GM_MOCK_COPY, .nth = 1, .count = UINT64_MAX, .hang = true };

	return gm_mock_dev_rule_add(dev, &rule);
}

static const struct gm_plugin_hooks hooks = {
	.size = sizeof(hooks),
	.touch = hook_touch,
	.fail = hook_fail,
	.lose = hook_lose,
	.hang = hook_hang,
};

/* Each depends on the configuration. */
#define SKIP(test_, reason_) { .test = (test_), .reason = (reason_), .varies = true }
#define NO_PROTECT "this mock was configured without changing rights"
#define NO_SUBMIT "this mock was configured with submit=no: basic operations only"
#define NO_FAULTS "this mock was configured with faults=no: an access without a mapping fails at once"
#define NO_DIRTY "this mock was configured without accessed and dirty bits"
#define ONE_CONTEXT "this mock was configured with contexts=1"
#define NO_PEER "this mock was configured without links to other devices"
#define NO_SYNC "this mock was configured without sync descriptors"

#define NO_ACCESS "this mock was configured with access=no: nobody can look through its page table"

static const struct gm_plugin_skip skips[] = {
	SKIP("lifecycle/apart", "this mock was configured with access=no or contexts=1"),
	SKIP("map", NO_ACCESS),
	SKIP("invalidate", NO_ACCESS),
	SKIP("workset", NO_ACCESS),
	SKIP("threads", NO_ACCESS),
	SKIP("trace", NO_ACCESS),
	SKIP("protect", NO_PROTECT),
	SKIP("invalidate/rights", NO_PROTECT),
	SKIP("nth/pmap_protect", NO_PROTECT),
	SKIP("nth/access", NO_ACCESS),
	SKIP("map/contexts", ONE_CONTEXT),
	SKIP("threads/two_tables", ONE_CONTEXT),
	SKIP("plan", NO_SUBMIT),
	SKIP("nth/submit", NO_SUBMIT),
	SKIP("lost/hang_plan", NO_SUBMIT),
	SKIP("fault", NO_FAULTS),
	SKIP("lost/faults", NO_FAULTS),
	SKIP("dirty", NO_DIRTY),
	SKIP("nth/pmap_harvest", NO_DIRTY),
	SKIP("sync", NO_SYNC),
	SKIP("nth/sync_create", NO_SYNC),
	SKIP("nth/sync_import", NO_SYNC),
	SKIP("nth/peer_reach", NO_PEER),
	SKIP("nth/fault_done", NO_FAULTS),
	SKIP("peer", NO_PEER),
	SKIP("visible", "this mock was configured with visible=no: the CPU does not reach its memory"),
	SKIP("host", "this mock was configured with hostmap=no: it maps its own memory only"),
	{ .test = NULL },
};

static const struct gm_plugin plugin = {
	.abi = GM_PLUGIN_ABI,
	.size = sizeof(plugin),
	.name = "mock",
	.mmu = &gm_mock_table,
	.open = plugin_open,
	.close = free,
	.hooks = &hooks,
	.skips = skips,
};

const struct gm_plugin *gm_mock_plugin(void)
{
	return &plugin;
}
