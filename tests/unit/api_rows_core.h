/* SPDX-License-Identifier: MIT */
/* Rows of types.h, lib.h, rung.h, dev.h, as.h, stats.h, fence.h, hal.h: see api_rows.h. */

/* --- types.h --- */
ROW(gm_ret_name, value, "no result", strcmp(gm_ret_name((gm_ret_t)77), "GM_RET_?"), 0)
ROW(gm_ret_name, value, "no result either", strcmp(gm_ret_name((gm_ret_t)INT_MIN), "GM_RET_?"), 0)
ROW(gm_ret_text, value, "no result", strlen(gm_ret_text((gm_ret_t)77)) > 5, true)
ROW(gm_last_error, none, "takes nothing", gm_last_error() != NULL, true)
ROW(gm_version, none, "takes nothing", gm_version() != NULL, true)

/* --- lib.h --- */
ROW(gm_lib_create, null, "lib", gm_lib_create(NULL, NULL), GM_RET_INVAL)
ROW(gm_lib_create, size, "0", gm_lib_create(&(struct gm_lib_config){ .size = 0 }, OUT(struct gm_lib *)), GM_RET_INVAL)
ROW(gm_lib_create, size, "too small",
    gm_lib_create(&(struct gm_lib_config){ .size = sizeof(struct gm_lib_config) - 1 }, OUT(struct gm_lib *)),
    GM_RET_INVAL)
ROW(gm_lib_create, size, "too large",
    gm_lib_create(&(struct gm_lib_config){ .size = sizeof(struct gm_lib_config) + 8 }, OUT(struct gm_lib *)),
    GM_RET_INVAL)
ROW(gm_lib_create, value, "an allocator without functions",
    gm_lib_create(&(struct gm_lib_config){ .size = sizeof(struct gm_lib_config), .allocator = &e->no_allocator },
		  OUT(struct gm_lib *)), GM_RET_INVAL)
ROW(gm_lib_create, value, "an unknown validate", bad_lib(e, .validate = (enum gm_validate)4), GM_RET_INVAL)
ROW(gm_lib_create, value, "a negative validate", bad_lib(e, .validate = (enum gm_validate)-1), GM_RET_INVAL)
ROW(gm_lib_create, value, "an unknown lowest rung", bad_lib(e, .lowest_rung = (enum gm_rung)6), GM_RET_INVAL)
ROW(gm_lib_create, value, "a negative lowest rung", bad_lib(e, .lowest_rung = (enum gm_rung)-1), GM_RET_INVAL)
ROW(gm_lib_create, value, "an unknown highest rung",
    bad_lib(e, .lowest_rung = GM_RUNG_EXPLICIT, .highest_rung = (enum gm_rung)6), GM_RET_INVAL)
ROW(gm_lib_create, value, "a lowest rung above the highest",
    bad_lib(e, .lowest_rung = GM_RUNG_FULL, .highest_rung = GM_RUNG_USER), GM_RET_INVAL)
HANDLE(gm_lib_destroy, lib, LIB, gm_lib_destroy(H), GM_RET_SUCCESS, GM_RET_INVAL)
ROW(gm_lib_destroy, state, "devices and spaces are left", gm_lib_destroy(e->lib), GM_RET_BUSY)

/* --- rung.h --- */
HANDLE(gm_lib_rung, lib, LIB, gm_lib_rung(H, OUT(struct gm_rung_info)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_lib_rung, null, "info", gm_lib_rung(e->lib, NULL), GM_RET_INVAL)
ROW(gm_rung_name, value, "no rung", strcmp(gm_rung_name((enum gm_rung)6), "?"), 0)
ROW(gm_rung_name, value, "no rung either", strcmp(gm_rung_name((enum gm_rung)-1), "?"), 0)

/* --- dev.h --- */
HANDLE(gm_dev_create, lib, LIB, gm_dev_create(H, gm_mock_mmu(), NULL, OUT(struct gm_dev *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_dev_create, null, "mmu", gm_dev_create(e->lib, NULL, NULL, OUT(struct gm_dev *)), GM_RET_INVAL)
ROW(gm_dev_create, null, "dev", gm_dev_create(e->lib, gm_mock_mmu(), NULL, NULL), GM_RET_INVAL)
ROW(gm_dev_create, value, "a table of another version",
    gm_dev_create(e->lib, &(struct gm_mmu){ .abi = GM_HAL_ABI + 1, .size = sizeof(struct gm_mmu), .name = "x" }, NULL,
		  OUT(struct gm_dev *)), GM_RET_INVAL)
ROW(gm_dev_create, value, "a table without operations",
    gm_dev_create(e->lib, &(struct gm_mmu){ .abi = GM_HAL_ABI, .size = sizeof(struct gm_mmu), .name = "x" }, NULL,
		  OUT(struct gm_dev *)), GM_RET_INVAL)
ROW(gm_dev_create, size, "a table that is too short",
    gm_dev_create(e->lib, &(struct gm_mmu){ .abi = GM_HAL_ABI, .size = 16, .name = "x" }, NULL, OUT(struct gm_dev *)),
    GM_RET_INVAL)
ROW(gm_dev_create, size, "a table that ends inside a slot", gm_dev_create(e->lib, &e->cut, NULL, OUT(struct gm_dev *)),
    GM_RET_INVAL)
ROW(gm_dev_create, value, "dev_init() refuses dev_data",
    gm_dev_create(e->lib, gm_mock_mmu(), &(struct gm_mock_config){ .size = 1 }, OUT(struct gm_dev *)), GM_RET_INVAL)
HANDLE(gm_dev_open, lib, LIB, gm_dev_open(H, "mock", OUT(struct gm_dev *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_dev_open, null, "spec", gm_dev_open(e->lib, NULL, OUT(struct gm_dev *)), GM_RET_INVAL)
ROW(gm_dev_open, null, "dev", gm_dev_open(e->lib, "mock", NULL), GM_RET_INVAL)
ROW(gm_dev_open, value, "an unknown option", gm_dev_open(e->lib, "mock:what=1", OUT(struct gm_dev *)), GM_RET_INVAL)
ROW(gm_dev_open, value, "an unknown backend", gm_dev_open(e->lib, "nothing", OUT(struct gm_dev *)), GM_RET_NOENT)
ROW(gm_dev_open, value, "no backend", gm_dev_open(e->lib, "", OUT(struct gm_dev *)), GM_RET_NOENT)
HANDLE(gm_dev_destroy, dev, DEV, gm_dev_destroy(H), GM_RET_SUCCESS, GM_RET_INVAL)
ROW(gm_dev_destroy, state, "still attached", gm_dev_destroy(e->dev), GM_RET_BUSY)
HANDLE(gm_dev_register_physmem, dev, DEV, gm_dev_register_physmem(H, 0, UNIT), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_dev_register_physmem, empty, "nothing", gm_dev_register_physmem(e->dev, 0, 0), GM_RET_INVAL)
ROW(gm_dev_register_physmem, empty, "end before begin", gm_dev_register_physmem(e->dev, 2 * UNIT, UNIT), GM_RET_INVAL)
ROW(gm_dev_register_physmem, unaligned, "begin", gm_dev_register_physmem(e->dev, PAGE, UNIT), GM_RET_INVAL)
ROW(gm_dev_register_physmem, unaligned, "end", gm_dev_register_physmem(e->dev, 0, UNIT + 1), GM_RET_INVAL)
ROW(gm_dev_register_physmem, overflow, "beyond the address bits",
    gm_dev_register_physmem(e->dev, UINT64_C(1) << 48, (UINT64_C(1) << 48) + UNIT), GM_RET_INVAL)
ROW(gm_dev_register_physmem, overflow, "all there is", gm_dev_register_physmem(e->dev, 0, UINT64_MAX & ~(UNIT - 1)),
    GM_RET_INVAL)
ROW(gm_dev_register_physmem, state, "memory that is there",
    gm_dev_register_physmem(e->dev, GM_MOCK_PA_BASE, GM_MOCK_PA_BASE + UNIT), GM_RET_EXIST)
HANDLE(gm_dev_query, dev, DEV, gm_dev_query(H, OUT(struct gm_dev_info)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_dev_query, null, "info", gm_dev_query(e->dev, NULL), GM_RET_INVAL)
HANDLE(gm_dev_backend, dev, DEV, gm_dev_backend(H), NULL, NULL)

/* --- as.h --- */
HANDLE(gm_as_create, lib, LIB, gm_as_create(H, 0, 0, NULL, OUT(struct gm_as *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_as_create, null, "as", gm_as_create(e->lib, 0, 0, NULL, NULL), GM_RET_INVAL)
ROW(gm_as_create, empty, "nothing", gm_as_create(e->lib, PAGE, PAGE, NULL, OUT(struct gm_as *)), GM_RET_INVAL)
ROW(gm_as_create, empty, "end before begin", gm_as_create(e->lib, PAGE, 0, NULL, OUT(struct gm_as *)), GM_RET_INVAL)
ROW(gm_as_create, empty, "nothing that can be mapped",
    gm_as_create(e->lib, UINT64_MAX - 2 * PAGE + 1, UINT64_MAX - PAGE + 1, NULL, OUT(struct gm_as *)), GM_RET_INVAL)
ROW(gm_as_create, unaligned, "begin", gm_as_create(e->lib, 1, PAGE, NULL, OUT(struct gm_as *)), GM_RET_INVAL)
ROW(gm_as_create, unaligned, "end", gm_as_create(e->lib, 0, PAGE + 8, NULL, OUT(struct gm_as *)), GM_RET_INVAL)
ROW(gm_as_create, size, "0", space_of_size(e, 0), GM_RET_INVAL)
ROW(gm_as_create, size, "too large", space_of_size(e, sizeof(struct gm_as_config) + 8), GM_RET_INVAL)
ROW(gm_as_create, size, "ends inside a member",
    space_of_size(e, offsetof(struct gm_as_config, policy) + 4), GM_RET_INVAL)
ROW(gm_as_create, flag, "unknown", bad_space(e, .flags = 0x10000), GM_RET_INVAL)
ROW(gm_as_create, flag, "the highest", bad_space(e, .flags = 0x80000000u), GM_RET_INVAL)
ROW(gm_as_create, value, "cpu unit below a page", bad_space(e, .cpu_unit_bytes = 2048), GM_RET_INVAL)
ROW(gm_as_create, value, "cpu unit no power of two", bad_space(e, .cpu_unit_bytes = 12288), GM_RET_INVAL)
ROW(gm_as_create, value, "cpu unit above a block", bad_space(e, .cpu_unit_bytes = 4 << 20), GM_RET_INVAL)
ROW(gm_as_create, value, "device unit no power of two", bad_space(e, .dev_unit_bytes = 5000), GM_RET_INVAL)
ROW(gm_as_create, value, "device around above a block", bad_space(e, .dev_around_bytes = 4 << 20), GM_RET_INVAL)
ROW(gm_as_create, value, "around below unit", bad_space(e, .cpu_unit_bytes = 1 << 17, .cpu_around_bytes = 1 << 16),
    GM_RET_INVAL)
ROW(gm_as_create, size, "a policy of another size",
    bad_space(e, .policy = &(struct gm_policy){ .size = 1 }), GM_RET_INVAL)
ROW(gm_as_create, size, "a policy that ends inside a member",
    bad_space(e, .policy = &(struct gm_policy){ .size = offsetof(struct gm_policy, unit) + 4 }), GM_RET_INVAL)
HANDLE(gm_as_destroy, as, AS, gm_as_destroy(H), GM_RET_SUCCESS, GM_RET_INVAL)
ROW(gm_as_destroy, state, "a working set is held", gm_as_destroy(e->as), GM_RET_BUSY)
HANDLE(gm_as_attach, as, AS, gm_as_attach(H, e->idle, GM_ATTACH_IDENTITY, NULL, OUT(struct gm_ctx *)), GM_RET_INVAL,
       GM_RET_INVAL)
HANDLE(gm_as_attach, dev, DEV, gm_as_attach(e->as, H, GM_ATTACH_IDENTITY, NULL, OUT(struct gm_ctx *)), GM_RET_INVAL,
       GM_RET_INVAL)
ROW(gm_as_attach, null, "ctx", gm_as_attach(e->as, e->idle, GM_ATTACH_IDENTITY, NULL, NULL), GM_RET_INVAL)
ROW(gm_as_attach, null, "window",
    gm_as_attach(e->as, e->idle, GM_ATTACH_WINDOW, NULL, OUT(struct gm_ctx *)), GM_RET_INVAL)
ROW(gm_as_attach, value, "an unknown mode",
    gm_as_attach(e->as, e->idle, (enum gm_attach_mode)7, NULL, OUT(struct gm_ctx *)), GM_RET_INVAL)
ROW(gm_as_attach, value, "a window for identity",
    gm_as_attach(e->as, e->idle, GM_ATTACH_IDENTITY, &(struct gm_window){ 0, BLOCK, 0 }, OUT(struct gm_ctx *)),
    GM_RET_INVAL)
ROW(gm_as_attach, empty, "the window", bad_window(e, 0, 0, 0), GM_RET_INVAL)
ROW(gm_as_attach, unaligned, "va of the window", bad_window(e, PAGE, BLOCK, 0), GM_RET_INVAL)
ROW(gm_as_attach, unaligned, "length of the window", bad_window(e, 0, BLOCK + PAGE, 0), GM_RET_INVAL)
ROW(gm_as_attach, unaligned, "device va of the window", bad_window(e, 0, BLOCK, UNIT), GM_RET_INVAL)
ROW(gm_as_attach, overflow, "of the host side", bad_window(e, UINT64_MAX - BLOCK + 1, 2 * BLOCK, 0), GM_RET_INVAL)
ROW(gm_as_attach, overflow, "of the device side", bad_window(e, 0, 2 * BLOCK, UINT64_MAX - BLOCK + 1), GM_RET_INVAL)
ROW(gm_as_attach, overflow, "of the address bits",
    bad_window(e, 0, 2 * BLOCK, (UINT64_C(1) << 48) - BLOCK), GM_RET_INVAL)
ROW(gm_as_attach, state, "attached already",
    gm_as_attach(e->as, e->dev, GM_ATTACH_IDENTITY, NULL, OUT(struct gm_ctx *)), GM_RET_EXIST)
ROW(gm_as_attach, state, "of another instance",
    gm_as_attach(e->as, e->abroad, GM_ATTACH_IDENTITY, NULL, OUT(struct gm_ctx *)), GM_RET_INVAL)
HANDLE(gm_as_detach, ctx, CTX, gm_as_detach(H), GM_RET_SUCCESS, GM_RET_INVAL)
ROW(gm_as_detach, state, "a working set is held", gm_as_detach(e->ctx), GM_RET_BUSY)
HANDLE(gm_as_home, as, AS, gm_as_home(H, SECOND, NULL), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_as_home, null, "left_bytes is not wanted", gm_as_home(e->as, SECOND, NULL), GM_RET_BUSY)
ROW(gm_as_home, state, "a working set is held", gm_as_home(e->as, 0, NULL), GM_RET_BUSY)
HANDLE(gm_as_fd, as, AS, gm_as_fd(H), -1, -1)
ROW(gm_as_fd, state, "has threads", gm_as_fd(e->as), -1)
HANDLE(gm_as_serve, as, AS, gm_as_serve(H, 0), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_as_serve, state, "has threads", gm_as_serve(e->as, 0), GM_RET_INVAL)

/* --- stats.h --- */
HANDLE(gm_as_stats, as, AS, gm_as_stats(H, OUT(struct gm_stats)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_as_stats, null, "stats", gm_as_stats(e->as, NULL), GM_RET_INVAL)
HANDLE(gm_as_check, as, AS, gm_as_check(H, OUT(char), 64), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_as_check, null, "text is allowed to be", gm_as_check(e->as, NULL, 64), GM_RET_SUCCESS)

/* --- fence.h --- */
HANDLE(gm_fence_create, lib, LIB, gm_fence_create(H, OUT(struct gm_fence *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_create, null, "fence", gm_fence_create(e->lib, NULL), GM_RET_INVAL)
HANDLE(gm_fence_get, fence, FENCE, gm_fence_get(H), NULL, NULL)
HANDLE(gm_fence_put, fence, FENCE, (gm_fence_put(H), 0), 0, 0)
HANDLE(gm_fence_signal, fence, FENCE, gm_fence_signal(H, GM_RET_SUCCESS), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_signal, value, "no result", gm_fence_signal(e->fence, (gm_ret_t)1), GM_RET_INVAL)
ROW(gm_fence_signal, value, "no result either", gm_fence_signal(e->fence, (gm_ret_t)-9999), GM_RET_INVAL)
ROW(gm_fence_signal, state, "done already", gm_fence_signal(e->done, GM_RET_SUCCESS), GM_RET_EXIST)
HANDLE(gm_fence_wait, fence, FENCE, gm_fence_wait(H, GM_FOREVER_NS), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_wait, state, "pending", gm_fence_wait(e->fence, 0), GM_RET_TIMEDOUT)
HANDLE(gm_fence_cancel, fence, FENCE, gm_fence_cancel(H), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_cancel, state, "done already", gm_fence_cancel(e->done), GM_RET_EXIST)
HANDLE(gm_fence_export, fence, FENCE, gm_fence_export(H, e->dev, OUT(int)), GM_RET_INVAL, GM_RET_INVAL)
HANDLE(gm_fence_export, dev, DEV, gm_fence_export(e->fence, H, OUT(int)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_export, null, "fd", gm_fence_export(e->fence, e->dev, NULL), GM_RET_INVAL)
ROW(gm_fence_export, state, "the device has none", gm_fence_export(e->fence, e->plain, OUT(int)), GM_RET_NOTSUP)
HANDLE(gm_fence_import, dev, DEV, gm_fence_import(H, 0, OUT(struct gm_fence *)), GM_RET_INVAL, GM_RET_INVAL)
ROW(gm_fence_import, null, "fence", gm_fence_import(e->dev, 0, NULL), GM_RET_INVAL)
ROW(gm_fence_import, value, "no descriptor", gm_fence_import(e->dev, -1, OUT(struct gm_fence *)), GM_RET_INVAL)
ROW(gm_fence_import, value, "not open", gm_fence_import(e->dev, INT_MAX, OUT(struct gm_fence *)), GM_RET_INVAL)
ROW(gm_fence_import, value, "a file", gm_fence_import(e->dev, e->file, OUT(struct gm_fence *)), GM_RET_INVAL)
ROW(gm_fence_import, state, "the device has none",
    gm_fence_import(e->plain, e->file, OUT(struct gm_fence *)), GM_RET_NOTSUP)

/* --- hal.h --- */
HANDLE(gm_ctx_pmap, ctx, CTX, gm_ctx_pmap(H), NULL, NULL)
HANDLE(gm_ctx_dev, ctx, CTX, gm_ctx_dev(H), NULL, NULL)
