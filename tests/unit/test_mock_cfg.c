/* SPDX-License-Identifier: MIT */
/* The mock's configuration: good and bad text, defaults, structures that make no sense. */
#include "config.h"

#include <criterion/criterion.h>

#include "backends/mock/gm_mock_internal.h"
#include "backends/mock/gm_mock_spec.h"

static const struct gm_mock_config standard = {
	.size = sizeof(struct gm_mock_config),
	.vram_bytes = UINT64_C(64) << 20,
	.page_sizes = 0x211000,
	.va_bits = 48,
	.max_contexts = 8,
	.tlb_entries = 64,
	.engines = 1,
};

static void expect_equal(const struct gm_mock_config *a, const struct gm_mock_config *b, const char *text)
{
	cr_expect_eq(a->size, b->size, "size of '%s'", text);
	cr_expect_eq(a->vram_bytes, b->vram_bytes, "vram of '%s'", text);
	cr_expect_eq(a->page_sizes, b->page_sizes, "pages of '%s'", text);
	cr_expect_eq(a->va_bits, b->va_bits, "va_bits of '%s'", text);
	cr_expect_eq(a->max_contexts, b->max_contexts, "contexts of '%s'", text);
	cr_expect_eq(a->tlb_entries, b->tlb_entries, "tlb of '%s'", text);
	cr_expect_eq(a->no_faults, b->no_faults, "faults of '%s'", text);
	cr_expect_eq(a->no_host_map, b->no_host_map, "hostmap of '%s'", text);
	cr_expect_eq(a->no_cpu_visible, b->no_cpu_visible, "visible of '%s'", text);
	cr_expect_eq(a->no_submit, b->no_submit, "submit of '%s'", text);
	cr_expect_eq(a->async_copy, b->async_copy, "copy of '%s'", text);
	cr_expect_eq(a->copy_ns, b->copy_ns, "copyns of '%s'", text);
	cr_expect_eq(a->visible_bytes, b->visible_bytes, "visible bytes of '%s'", text);
	cr_expect_eq(a->engines, b->engines, "engines of '%s'", text);
	cr_expect_eq(a->peer_group, b->peer_group, "peer of '%s'", text);
	cr_expect_eq(a->reorder_seed, b->reorder_seed, "reorder of '%s'", text);
	cr_expect_eq(a->dirty_bits, b->dirty_bits, "dirty of '%s'", text);
	cr_expect_eq(a->no_protect, b->no_protect, "protect of '%s'", text);
	cr_expect_eq(a->no_access, b->no_access, "access of '%s'", text);
	cr_expect_eq(a->no_fast_invl, b->no_fast_invl, "fastinvl of '%s'", text);
	cr_expect_eq(a->no_sync, b->no_sync, "sync of '%s'", text);
	cr_expect_eq(a->bug, b->bug, "bug of '%s'", text);
	cr_expect_eq(a->timing_wait, b->timing_wait, "timing of '%s'", text);
	cr_expect_eq(a->to_dev_bps, b->to_dev_bps, "todev of '%s'", text);
	cr_expect_eq(a->to_host_bps, b->to_host_bps, "tohost of '%s'", text);
	cr_expect_eq(a->peer_bps, b->peer_bps, "frompeer of '%s'", text);
	cr_expect_eq(a->zero_bps, b->zero_bps, "zero of '%s'", text);
	cr_expect_eq(a->latency_ns, b->latency_ns, "latency of '%s'", text);
	cr_expect_eq(a->op_ns, b->op_ns, "opns of '%s'", text);
	cr_expect_eq(a->step_ns, b->step_ns, "stepns of '%s'", text);
	cr_expect_eq(a->fault_ns, b->fault_ns, "faultns of '%s'", text);
	cr_expect_eq(a->miss_ns, b->miss_ns, "missns of '%s'", text);
}

Test(mock_cfg, defaults)
{
	struct gm_mock_config config;

	cr_assert_eq(gm_mock_parse(NULL, &config), GM_RET_SUCCESS);
	expect_equal(&config, &standard, "NULL");
	cr_assert_eq(gm_mock_parse("", &config), GM_RET_SUCCESS);
	expect_equal(&config, &standard, "");
	cr_assert_eq(gm_mock_parse("", NULL), GM_RET_INVAL);
}

/* One word at a time: everything else must stay at its default. */
static const struct {
	const char *text;
	struct gm_mock_config differs; /* fields that are not 0 replace the default */
} good[] = {
	{ "vram=65536", { .vram_bytes = 65536 } },
	{ "vram=128K", { .vram_bytes = 131072 } },
	{ "vram=3M", { .vram_bytes = 3u << 20 } },
	{ "vram=2G", { .vram_bytes = UINT64_C(2) << 30 } },
	{ "pages=4K", { .page_sizes = 0x1000 } },
	{ "pages=64K", { .page_sizes = 0x10000 } },
	{ "pages=2M+64K", { .page_sizes = 0x210000 } },
	{ "pages=4K+64K+2M", { .page_sizes = 0x211000 } },
	{ "pages=4096", { .page_sizes = 0x1000 } },
	{ "vabits=40", { .va_bits = 40 } },
	{ "contexts=1", { .max_contexts = 1 } },
	{ "tlb=1", { .tlb_entries = 1 } },
	{ "tlb=4096", { .tlb_entries = 4096 } },
	{ "faults=no", { .no_faults = true } },
	{ "faults=yes", { .no_faults = false } },
	{ "hostmap=no", { .no_host_map = true } },
	{ "visible=no", { .no_cpu_visible = true } },
	{ "submit=no", { .no_submit = true } },
	{ "copy=async", { .async_copy = true } },
	{ "copy=sync", { .async_copy = false } },
	{ "copyns=1000", { .copy_ns = 1000 } },
	{ "tlb=8,tlb=16", { .tlb_entries = 16 } },
	{ "visible=64K", { .visible_bytes = 65536 } },
	{ "visible=no,visible=8K", { .visible_bytes = 8192 } },
	{ "visible=8K,visible=yes", { .visible_bytes = 0 } },
	{ "engines=3", { .engines = 3, .async_copy = true } },
	{ "engines=1", { .engines = 1 } },
	{ "peer=7", { .peer_group = 7 } },
	{ "reorder=18446744073709551615", { .reorder_seed = UINT64_MAX } },
	{ "dirty=yes", { .dirty_bits = true } },
	{ "protect=no", { .no_protect = true } },
	{ "access=no", { .no_access = true } },
	{ "fastinvl=no", { .no_fast_invl = true } },
	{ "sync=no", { .no_sync = true } },
	{ "bug=skip_copy", { .bug = GM_MOCK_BUG_SKIP_COPY } },
	{ "timing=wait", { .timing_wait = true } },
	{ "timing=wait,timing=account", { .timing_wait = false } },
	{ "todev=12G", { .to_dev_bps = UINT64_C(12) << 30 } },
	{ "tohost=3M", { .to_host_bps = 3u << 20 } },
	{ "frompeer=5", { .peer_bps = 5 } },
	{ "zero=1K", { .zero_bps = 1024 } },
	{ "latency=9", { .latency_ns = 9 } },
	{ "opns=8", { .op_ns = 8 } },
	{ "stepns=7", { .step_ns = 7 } },
	{ "faultns=6", { .fault_ns = 6 } },
	{ "missns=5", { .miss_ns = 5 } },
	{ "preset=page64k", { .page_sizes = 0x210000 } },
	{ "tlb=8,preset=single,vabits=40", { .tlb_entries = 8, .max_contexts = 1, .va_bits = 40 } },
};

Test(mock_cfg, every_word)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct gm_mock_config config, want = good[i].differs, whole;

		want.size = sizeof(want);
		cr_assert_eq(gm_mock_config_complete(&want, &whole), GM_RET_SUCCESS);
		cr_assert_eq(gm_mock_parse(good[i].text, &config), GM_RET_SUCCESS, "'%s'", good[i].text);
		expect_equal(&config, &whole, good[i].text);
	}
}

Test(mock_cfg, all_words_together)
{
	static const char text[] = "vram=64M,pages=4K+64K+2M,faults=no,hostmap=no,visible=no,submit=no,"
				   "copy=async,copyns=1000,tlb=64,vabits=48,contexts=8";
	struct gm_mock_config config, want = standard;

	want.no_faults = want.no_host_map = want.no_cpu_visible = want.no_submit = want.async_copy = true;
	want.copy_ns = 1000;
	cr_assert_eq(gm_mock_parse(text, &config), GM_RET_SUCCESS);
	expect_equal(&config, &want, text);
}

Test(mock_cfg, bad_text)
{
	static const char *const bad[] = {
		"vram", "vram=", "=64M", ",", "vram=64M,", ",vram=64M", "vram=64M,,tlb=8", "wram=64M", "vra=64M",
		"vramm=64M", "vram=64m", "vram=64MB", "vram=-1", "vram=+1", "vram= 64M", "vram=M", "vram=1000",
		"vram=0", "vram=18446744073709551616", "vram=17179869185G", "vram=2048G", "pages=", "pages=8K",
		"pages=4K+", "pages=+4K", "pages=0", "pages=68K", "pages=4K,64K", "faults=maybe", "faults=",
		"faults=NO", "hostmap=1", "visible=nope", "submit=n", "copy=fast", "copyns=1K", "copyns=", "tlb=0",
		"tlb=3", "tlb=8192", "tlb=4294967297", "vabits=31", "vabits=49", "vabits=0", "contexts=0",
		"contexts=1025", "contexts=-1", "vram=64M;tlb=8", "visible=0",
		"visible=1000", "visible=4k", "engines=0", "engines=9", "engines=", "peer=-1", "peer=4294967296", "reorder=x",
		"dirty=maybe", "timing=real", "todev=fast", "latency=1K", "preset=", "preset=none", "preset=defaul",
		"preset=single;", "preset", "protect=1", " vram=64M", "vram=64M ", "vram==64M",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct gm_mock_config config, before;

		memset(&config, 0x5a, sizeof(config));
		memcpy(&before, &config, sizeof(config));
		cr_expect_eq(gm_mock_parse(bad[i], &config), GM_RET_INVAL, "'%s' was taken", bad[i]);
		cr_expect_arr_eq(&config, &before, sizeof(config), "'%s' changed the structure", bad[i]);
	}
}

Test(mock_cfg, structures)
{
	struct gm_mock_config zero = { .size = sizeof(zero) }, out, bad;

	cr_assert_eq(gm_mock_config_complete(NULL, &out), GM_RET_SUCCESS);
	expect_equal(&out, &standard, "no structure");
	cr_assert_eq(gm_mock_config_complete(&zero, &out), GM_RET_SUCCESS);
	expect_equal(&out, &standard, "zeros");
	bad = standard;
	bad.size--;
	cr_expect_eq(gm_mock_config_complete(&bad, &out), GM_RET_INVAL);
	bad = standard;
	bad.vram_bytes = 4096;
	cr_expect_eq(gm_mock_config_complete(&bad, &out), GM_RET_INVAL);
	bad = standard;
	bad.page_sizes |= 0x2000;
	cr_expect_eq(gm_mock_config_complete(&bad, &out), GM_RET_INVAL);
	bad = standard;
	bad.tlb_entries = 48;
	cr_expect_eq(gm_mock_config_complete(&bad, &out), GM_RET_INVAL);
}

Test(mock_cfg, open_spec)
{
	struct gm_mock_config config;
	char small[sizeof(config) - 1];

	cr_assert_eq(gm_mock_open_spec("tlb=8", &config, sizeof(config)), GM_RET_SUCCESS);
	cr_assert_eq(config.tlb_entries, 8);
	cr_assert_eq(gm_mock_open_spec(NULL, &config, sizeof(config)), GM_RET_SUCCESS);
	expect_equal(&config, &standard, "NULL");
	cr_assert_eq(gm_mock_open_spec("tlb=8", small, sizeof(small)), GM_RET_INVAL);
	cr_assert_eq(gm_mock_open_spec("tlb=8", NULL, 0), GM_RET_INVAL);
	cr_assert_eq(gm_mock_open_spec("nonsense", &config, sizeof(config)), GM_RET_INVAL);
}
