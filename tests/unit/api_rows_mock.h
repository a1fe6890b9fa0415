/* SPDX-License-Identifier: MIT */
/* Rows of mock.h and mockhw.h: see api_rows.h. */

/* --- mock.h --- */
ROW(gm_mock_mmu, none, "takes nothing", gm_mock_mmu() != NULL, true)
ROW(gm_mock_parse, null, "config", gm_mock_parse("", NULL), GM_RET_INVAL)
ROW(gm_mock_parse, value, "an unknown word", gm_mock_parse("what=ever", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, value, "the second is unknown",
    gm_mock_parse("tlb=64,x=1", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, value, "no number", gm_mock_parse("vram=much", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, value, "a number that makes no sense",
    gm_mock_parse("vram=1K", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, overflow, "a number",
    gm_mock_parse("vram=99999999999999999999", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, overflow, "a unit", gm_mock_parse("vram=17179869184G", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, empty, "a word", gm_mock_parse("tlb=64,", OUT(struct gm_mock_config)), GM_RET_INVAL)
HANDLE(gm_mock_launch, ctx, CTX,
    gm_mock_launch(H, no_kernel, NULL, 1, OUT(struct gm_fence *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_launch, null, "kernel", gm_mock_launch(e->ctx, NULL, NULL, 1, OUT(struct gm_fence *)), GM_RET_INVAL)
ROW(gm_mock_launch, null, "fence", gm_mock_launch(e->ctx, no_kernel, NULL, 1, NULL), GM_RET_INVAL)
ROW(gm_mock_launch, empty, "no thread",
    gm_mock_launch(e->ctx, no_kernel, NULL, 0, OUT(struct gm_fence *)), GM_RET_INVAL)
ROW(gm_mock_launch, value, "too many threads", gm_mock_launch(e->ctx, no_kernel, NULL, 65, OUT(struct gm_fence *)),
    GM_RET_INVAL)
ROW(gm_mock_launch, overflow, "of the threads",
    gm_mock_launch(e->ctx, no_kernel, NULL, UINT_MAX, OUT(struct gm_fence *)),
    GM_RET_INVAL)
ROW(gm_mock_launch, state, "not a mock", gm_mock_launch(e->plain_ctx, no_kernel, NULL, 1, OUT(struct gm_fence *)),
    GM_RET_INVAL)
HANDLE(gm_mock_load, thread, MOCK_THREAD, gm_mock_load(H, e->va, OUT(char), 8), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_load, null, "buf", gm_mock_load(e->thread, e->va, NULL, 8), GM_RET_INVAL)
ROW(gm_mock_load, overflow, "of the range", gm_mock_load(e->thread, UINT64_MAX - 3, OUT(char), 8), GM_RET_FAULT)
ROW(gm_mock_load, overflow, "of the length", gm_mock_load(e->thread, e->va, OUT(char), SIZE_MAX), GM_RET_FAULT)
ROW(gm_mock_load, overflow, "beyond the address bits",
    gm_mock_load(e->thread, UINT64_C(1) << 48, OUT(char), 8), GM_RET_FAULT)
HANDLE(gm_mock_store, thread, MOCK_THREAD, gm_mock_store(H, e->va, OUT(char), 8), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_store, null, "buf", gm_mock_store(e->thread, e->va, NULL, 8), GM_RET_INVAL)
ROW(gm_mock_store, overflow, "of the range", gm_mock_store(e->thread, UINT64_MAX - 3, OUT(char), 8), GM_RET_FAULT)
ROW(gm_mock_store, overflow, "of the length", gm_mock_store(e->thread, e->va, OUT(char), SIZE_MAX), GM_RET_FAULT)
HANDLE(gm_mock_fetch_add, thread, MOCK_THREAD,
    gm_mock_fetch_add(H, e->va, 1, OUT(uint64_t)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_fetch_add, unaligned, "va", gm_mock_fetch_add(e->thread, e->va + 4, 1, OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_fetch_add, overflow, "the last address", gm_mock_fetch_add(e->thread, UINT64_MAX - 7, 1, OUT(uint64_t)),
    GM_RET_FAULT)
ROW(gm_mock_fetch_add, null, "old is allowed to be: no such memory",
    gm_mock_fetch_add(e->thread, UINT64_C(1) << 48, 1, NULL), GM_RET_FAULT)
HANDLE(gm_mock_compare_swap, thread, MOCK_THREAD,
    gm_mock_compare_swap(H, e->va, 1, 2, OUT(uint64_t)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_compare_swap, unaligned, "va",
    gm_mock_compare_swap(e->thread, e->va + 4, 1, 2, OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_compare_swap, overflow, "the last address",
    gm_mock_compare_swap(e->thread, UINT64_MAX - 7, 1, 2, OUT(uint64_t)), GM_RET_FAULT)
ROW(gm_mock_compare_swap, null, "old is allowed to be: no such memory",
    gm_mock_compare_swap(e->thread, UINT64_C(1) << 48, 1, 2, NULL), GM_RET_FAULT)
HANDLE(gm_mock_yield, thread, MOCK_THREAD, (gm_mock_yield(H), 0), 0, 0)
HANDLE(gm_mock_fail, dev, DEV, gm_mock_fail(H, GM_MOCK_COPY, 1, 1), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_fail, value, "one too many", gm_mock_fail(e->dev, GM_MOCK_OPS, 1, 1), GM_RET_INVAL)
ROW(gm_mock_fail, value, "negative", gm_mock_fail(e->dev, (enum gm_mock_op)-1, 1, 1), GM_RET_INVAL)
ROW(gm_mock_fail, state, "not a mock", gm_mock_fail(e->plain, GM_MOCK_COPY, 1, 1), GM_RET_INVAL)
HANDLE(gm_mock_plant, dev, DEV, gm_mock_plant(H, GM_MOCK_BUG_SKIP_COPY), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_plant, value, "unknown", gm_mock_plant(e->dev, (enum gm_mock_bug)999), GM_RET_INVAL)
ROW(gm_mock_plant, value, "negative", gm_mock_plant(e->dev, (enum gm_mock_bug)-1), GM_RET_INVAL)
ROW(gm_mock_plant, state, "not a mock", gm_mock_plant(e->plain, GM_MOCK_BUG_SKIP_COPY), GM_RET_INVAL)
HANDLE(gm_mock_stats, dev, DEV, gm_mock_stats(H, OUT(struct gm_mock_stats)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_stats, null, "stats", gm_mock_stats(e->dev, NULL), GM_RET_INVAL)
ROW(gm_mock_stats, state, "not a mock", gm_mock_stats(e->plain, OUT(struct gm_mock_stats)), GM_RET_INVAL)
HANDLE(gm_mock_memory, dev, DEV, gm_mock_memory(H, OUT(void *), OUT(uint64_t)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_memory, null, "ptr", gm_mock_memory(e->dev, NULL, OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_memory, null, "bytes", gm_mock_memory(e->dev, OUT(void *), NULL), GM_RET_INVAL)
ROW(gm_mock_memory, state, "not a mock", gm_mock_memory(e->plain, OUT(void *), OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_bug_name, value, "one too many", gm_mock_bug_name(GM_MOCK_BUGS), NULL)
ROW(gm_mock_bug_name, value, "negative", gm_mock_bug_name((enum gm_mock_bug)-1), NULL)
ROW(gm_mock_plugin, none, "takes nothing", gm_mock_plugin() != NULL, true)
ROW(gm_mock_preset, null, "all are allowed to be", gm_mock_preset(0, NULL, NULL, NULL), GM_RET_SUCCESS)
ROW(gm_mock_preset, value, "there are not so many",
    gm_mock_preset(UINT_MAX, OUT(const char *), OUT(const char *), OUT(const char *)), GM_RET_NOENT)
ROW(gm_mock_parse, value, "an unknown error", gm_mock_parse("bug=none_such", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_mock_parse, value, "an unknown preset",
    gm_mock_parse("preset=none_such", OUT(struct gm_mock_config)), GM_RET_INVAL)
ROW(gm_dev_create, value, "a mock with an unknown error", bad_mock(e, .bug = GM_MOCK_BUGS), GM_RET_INVAL)
ROW(gm_dev_create, value, "a mock with too many engines", bad_mock(e, .engines = GM_MOCK_MAX_ENGINES + 1), GM_RET_INVAL)
ROW(gm_dev_create, value, "a mock seen in part of a page", bad_mock(e, .visible_bytes = PAGE + 1), GM_RET_INVAL)
ROW(gm_dev_create, value, "a mock on hardware that was closed",
    bad_mock(e, .hw = e->stale[GM_HANDLE_MOCK_HW]), GM_RET_INVAL)
ROW(gm_dev_create, value, "a mock on no hardware", bad_mock(e, .hw = e->nothing), GM_RET_INVAL)
ROW(gm_dev_create, state, "a mock on hardware in use", bad_mock(e, .hw = e->used_hw), GM_RET_BUSY)
HANDLE(gm_mock_rule_add, dev, DEV, gm_mock_rule_add(H, &GOOD_RULE), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_rule_add, null, "rule", gm_mock_rule_add(e->dev, NULL), GM_RET_INVAL)
ROW(gm_mock_rule_add, state, "not a mock", gm_mock_rule_add(e->plain, &GOOD_RULE), GM_RET_INVAL)
ROW(gm_mock_rule_add, size, "0", bad_rule(e, 0, GM_MOCK_COPY, GM_MOCK_ANYWHERE, 1, GM_RET_IO), GM_RET_INVAL)
ROW(gm_mock_rule_add, value, "an unknown operation",
    bad_rule(e, RULE_BYTES, GM_MOCK_OPS, GM_MOCK_ANYWHERE, 1, GM_RET_IO), GM_RET_INVAL)
ROW(gm_mock_rule_add, value, "an unknown place",
    bad_rule(e, RULE_BYTES, GM_MOCK_COPY, (enum gm_mock_where)3, 1, GM_RET_IO), GM_RET_INVAL)
ROW(gm_mock_rule_add, value, "a result it may not have",
    bad_rule(e, RULE_BYTES, GM_MOCK_COPY, GM_MOCK_ANYWHERE, 1, GM_RET_EXIST), GM_RET_INVAL)
ROW(gm_mock_rule_add, empty, "the place",
    bad_rule(e, RULE_BYTES, GM_MOCK_COPY, GM_MOCK_AT_PA, 1, GM_RET_IO), GM_RET_INVAL)
ROW(gm_mock_rule_add, empty, "no match counts",
    bad_rule(e, RULE_BYTES, GM_MOCK_COPY, GM_MOCK_ANYWHERE, 0, GM_RET_IO), GM_RET_INVAL)
ROW(gm_mock_rule_add, empty, "nothing would happen",
    bad_rule(e, RULE_BYTES, GM_MOCK_COPY, GM_MOCK_ANYWHERE, 1, GM_RET_SUCCESS), GM_RET_INVAL)
HANDLE(gm_mock_rule_clear, dev, DEV, gm_mock_rule_clear(H), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_rule_clear, state, "not a mock", gm_mock_rule_clear(e->plain), GM_RET_INVAL)
HANDLE(gm_mock_lose, dev, DEV, gm_mock_lose(H), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_lose, state, "not a mock", gm_mock_lose(e->plain), GM_RET_INVAL)
HANDLE(gm_mock_bad_page, dev, DEV, gm_mock_bad_page(H, GM_MOCK_PA_BASE), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_bad_page, value, "before its memory", gm_mock_bad_page(e->dev, GM_MOCK_PA_BASE - 1), GM_RET_INVAL)
ROW(gm_mock_bad_page, value, "behind its memory", gm_mock_bad_page(e->dev, UINT64_MAX), GM_RET_INVAL)
ROW(gm_mock_bad_page, state, "not a mock", gm_mock_bad_page(e->plain, GM_MOCK_PA_BASE), GM_RET_INVAL)
ROW(gm_mock_event_text, null, "event", gm_mock_event_text(NULL, OUT(char), 64), GM_RET_INVAL)
ROW(gm_mock_event_text, null, "buf", gm_mock_event_text(&(struct gm_mock_event){ .kind = GM_MOCK_EV_INVL }, NULL, 64),
    GM_RET_INVAL)
ROW(gm_mock_event_text, empty, "no room",
    gm_mock_event_text(&(struct gm_mock_event){ .kind = GM_MOCK_EV_INVL }, OUT(char), 0),
    GM_RET_INVAL)
ROW(gm_mock_event_text, value, "an unknown kind",
    gm_mock_event_text(&(struct gm_mock_event){ .kind = (enum gm_mock_event_kind)77 }, OUT(char), 64), GM_RET_INVAL)
ROW(gm_mock_event_text, value, "an unknown copy",
    gm_mock_event_text(&(struct gm_mock_event){ .kind = GM_MOCK_EV_COPY, .copy = -1 }, OUT(char), 64), GM_RET_INVAL)
HANDLE(gm_mock_trace, dev, DEV, gm_mock_trace(H, never_told, e), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_trace, null, "fn is allowed to be", gm_mock_trace(e->dev, NULL, e), GM_RET_SUCCESS)
ROW(gm_mock_trace, state, "not a mock", gm_mock_trace(e->plain, never_told, e), GM_RET_INVAL)
HANDLE(gm_mock_expect, dev, DEV, gm_mock_expect(H, ""), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_expect, null, "text", gm_mock_expect(e->dev, NULL), GM_RET_INVAL)
ROW(gm_mock_expect, value, "no step", gm_mock_expect(e->dev, "jump"), GM_RET_INVAL)
ROW(gm_mock_expect, overflow, "an address", gm_mock_expect(e->dev, "remove 0xfffffffffffffffff"), GM_RET_INVAL)
ROW(gm_mock_expect, state, "something is expected already", gm_mock_expect(e->on_hw, "invl"), GM_RET_BUSY)
ROW(gm_mock_expect, state, "not a mock", gm_mock_expect(e->plain, ""), GM_RET_INVAL)
HANDLE(gm_mock_expect_end, dev, DEV, gm_mock_expect_end(H, OUT(char), 64), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_expect_end, null, "why is allowed to be", gm_mock_expect_end(e->idle, NULL, 64), GM_RET_NOENT)
ROW(gm_mock_expect_end, state, "nothing is expected", gm_mock_expect_end(e->idle, OUT(char), 64), GM_RET_NOENT)

/* --- mockhw.h --- */
ROW(gm_mock_hw_create, null, "hw", gm_mock_hw_create(NULL, NULL), GM_RET_INVAL)
ROW(gm_mock_hw_create, size, "0", gm_mock_hw_create(&(struct gm_mock_config){ .size = 0 }, OUT(struct gm_mock_hw *)),
    GM_RET_INVAL)
ROW(gm_mock_hw_create, value, "memory that makes no sense", bad_hw(e, .vram_bytes = 5), GM_RET_INVAL)
ROW(gm_mock_hw_create, value, "on other hardware", bad_hw(e, .hw = e->hw), GM_RET_INVAL)
HANDLE(gm_mock_hw_destroy, hw, MOCK_HW, gm_mock_hw_destroy(H), GM_RET_SUCCESS, GM_RET_INVAL)
ROW(gm_mock_hw_destroy, state, "a device uses it", gm_mock_hw_destroy(e->used_hw), GM_RET_BUSY)
HANDLE(gm_mock_hw_alloc, hw, MOCK_HW, gm_mock_hw_alloc(H, UNIT, OUT(uint64_t)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_hw_alloc, null, "pa", gm_mock_hw_alloc(e->hw, UNIT, NULL), GM_RET_INVAL)
ROW(gm_mock_hw_alloc, empty, "nothing", gm_mock_hw_alloc(e->hw, 0, OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_hw_alloc, unaligned, "bytes", gm_mock_hw_alloc(e->hw, UNIT + PAGE, OUT(uint64_t)), GM_RET_INVAL)
ROW(gm_mock_hw_alloc, overflow, "all", gm_mock_hw_alloc(e->hw, UINT64_MAX - UNIT + 1, OUT(uint64_t)), GM_RET_NOSPC)
ROW(gm_mock_hw_alloc, state, "a device uses it", gm_mock_hw_alloc(e->used_hw, UNIT, OUT(uint64_t)), GM_RET_BUSY)
HANDLE(gm_mock_hw_map, hw, MOCK_HW, gm_mock_hw_map(H, 0, e->pa, PAGE, GM_READ), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_hw_map, empty, "nothing", gm_mock_hw_map(e->hw, 0, e->pa, 0, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, unaligned, "va", gm_mock_hw_map(e->hw, 8, e->pa, PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, unaligned, "pa", gm_mock_hw_map(e->hw, 0, e->pa + 8, PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, unaligned, "bytes", gm_mock_hw_map(e->hw, 0, e->pa, 8, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, overflow, "of va",
    gm_mock_hw_map(e->hw, UINT64_MAX - PAGE + 1, e->pa, 2 * PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, overflow, "of pa", gm_mock_hw_map(e->hw, 0, UINT64_MAX - PAGE + 1, 2 * PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, overflow, "beyond the address bits",
    gm_mock_hw_map(e->hw, 2 * OWN_VA, e->pa, PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, value, "memory of the library",
    gm_mock_hw_map(e->hw, 0, GM_MOCK_PA_BASE, PAGE, GM_READ), GM_RET_INVAL)
ROW(gm_mock_hw_map, flag, "unknown", gm_mock_hw_map(e->hw, 0, e->pa, PAGE, 256), GM_RET_INVAL)
ROW(gm_mock_hw_map, state, "mapped already", gm_mock_hw_map(e->hw, OWN_VA, e->pa, PAGE, GM_READ), GM_RET_EXIST)
HANDLE(gm_mock_hw_unmap, hw, MOCK_HW, gm_mock_hw_unmap(H, OWN_VA, PAGE), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_hw_unmap, empty, "nothing", gm_mock_hw_unmap(e->hw, OWN_VA, 0), GM_RET_INVAL)
ROW(gm_mock_hw_unmap, unaligned, "va", gm_mock_hw_unmap(e->hw, OWN_VA + 8, PAGE), GM_RET_INVAL)
ROW(gm_mock_hw_unmap, unaligned, "bytes", gm_mock_hw_unmap(e->hw, OWN_VA, 8), GM_RET_INVAL)
ROW(gm_mock_hw_unmap, overflow, "all", gm_mock_hw_unmap(e->hw, OWN_VA, UINT64_MAX - PAGE + 1), GM_RET_INVAL)
HANDLE(gm_mock_hw_read, hw, MOCK_HW, gm_mock_hw_read(H, e->pa, OUT(char), 8), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_hw_read, null, "buf", gm_mock_hw_read(e->hw, e->pa, NULL, 8), GM_RET_INVAL)
ROW(gm_mock_hw_read, empty, "nothing is nothing", gm_mock_hw_read(e->hw, e->pa, OUT(char), 0), GM_RET_SUCCESS)
ROW(gm_mock_hw_read, value, "memory of the library",
    gm_mock_hw_read(e->hw, GM_MOCK_PA_BASE, OUT(char), 8), GM_RET_INVAL)
ROW(gm_mock_hw_read, overflow, "of the length", gm_mock_hw_read(e->hw, e->pa, OUT(char), UINT64_MAX), GM_RET_INVAL)
ROW(gm_mock_hw_read, overflow, "behind the memory",
    gm_mock_hw_read(e->hw, e->pa + UNIT - 4, OUT(char), 8), GM_RET_INVAL)
HANDLE(gm_mock_hw_write, hw, MOCK_HW, gm_mock_hw_write(H, e->pa, OUT(char), 8), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_mock_hw_write, null, "buf", gm_mock_hw_write(e->hw, e->pa, NULL, 8), GM_RET_INVAL)
ROW(gm_mock_hw_write, empty, "nothing is nothing", gm_mock_hw_write(e->hw, e->pa, OUT(char), 0), GM_RET_SUCCESS)
ROW(gm_mock_hw_write, value, "memory of the library",
    gm_mock_hw_write(e->hw, GM_MOCK_PA_BASE, OUT(char), 8), GM_RET_INVAL)
ROW(gm_mock_hw_write, overflow, "of the length", gm_mock_hw_write(e->hw, e->pa, OUT(char), UINT64_MAX), GM_RET_INVAL)
ROW(gm_mock_hw_write, overflow, "behind the memory",
    gm_mock_hw_write(e->hw, e->pa + UNIT - 4, OUT(char), 8), GM_RET_INVAL)
