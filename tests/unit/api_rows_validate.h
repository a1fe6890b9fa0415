/* SPDX-License-Identifier: MIT */
/* Rows of validate.h and conform.h: see api_rows.h. */

/* --- validate.h: pointers of the vendor's, which may be anything --- */
ROW(gm_validate_mmu, none, "takes nothing", gm_validate_mmu() != NULL, true)
ROW(gm_validate_dev, null, "dev", gm_validate_dev(NULL), NULL)
ROW(gm_validate_dev, state, "closed", gm_validate_dev(e->stale[GM_HANDLE_SHIM]) == e->stale[GM_HANDLE_SHIM], true)
ROW(gm_validate_dev, value, "a page table",
    gm_validate_dev(e->live[GM_HANDLE_SHIM_PMAP]) == e->live[GM_HANDLE_SHIM_PMAP],
    true)
ROW(gm_validate_dev, value, "a backend's own",
    gm_validate_dev(e->live[GM_HANDLE_MOCK]) == e->live[GM_HANDLE_MOCK], true)
ROW(gm_validate_dev, value, "no memory", gm_validate_dev(e->nothing) == e->nothing, true)
ROW(gm_validate_dev, value, "1", gm_validate_dev(ptr(1)) == ptr(1), true)
ROW(gm_validate_pmap, null, "pmap", gm_validate_pmap(NULL), NULL)
ROW(gm_validate_pmap, state, "destroyed",
    gm_validate_pmap(e->stale[GM_HANDLE_SHIM_PMAP]) == e->stale[GM_HANDLE_SHIM_PMAP], true)
ROW(gm_validate_pmap, value, "a device", gm_validate_pmap(e->live[GM_HANDLE_SHIM]) == e->live[GM_HANDLE_SHIM], true)
ROW(gm_validate_pmap, value, "no memory", gm_validate_pmap(e->nothing) == e->nothing, true)
ROW(gm_validate_pmap, value, "1", gm_validate_pmap(ptr(1)) == ptr(1), true)
ROW(gm_rule_name, value, "one too many", strcmp(gm_rule_name(GM_RULES), "GM_RULE_?"), 0)
ROW(gm_rule_name, value, "negative", strcmp(gm_rule_name((enum gm_rule)-1), "GM_RULE_?"), 0)
ROW(gm_dev_create, size, "of the shim", watched_by(e, .size = 8, .mmu = gm_mock_mmu()), GM_RET_INVAL)
ROW(gm_dev_create, null, "mmu of the shim", watched_by(e, .size = sizeof(struct gm_validate_config)), GM_RET_INVAL)

/* --- conform.h: what is refused before anything is run --- */
ROW(gm_conform_run, null, "config", gm_conform_run(NULL, OUT(struct gm_conform_summary)), GM_RET_INVAL)
ROW(gm_conform_run, null, "plugin", bad_suite(e, SUITE_BYTES, .only = NULL), GM_RET_INVAL)
ROW(gm_conform_run, size, "0", bad_suite(e, 0, .plugin = gm_mock_plugin()), GM_RET_INVAL)
ROW(gm_conform_run, size, "too large",
    bad_suite(e, SUITE_BYTES + 8, .plugin = gm_mock_plugin()), GM_RET_INVAL)
ROW(gm_conform_run, value, "a plugin of another version",
    bad_suite(e, SUITE_BYTES, .plugin = &(struct gm_plugin){ .abi = GM_PLUGIN_ABI + 1, .size = sizeof(struct gm_plugin),
						.mmu = gm_mock_mmu() }), GM_RET_INVAL)
ROW(gm_conform_run, value, "no such test",
    bad_suite(e, SUITE_BYTES, .plugin = gm_mock_plugin(), .only = "nothing"), GM_RET_INVAL)
ROW(gm_conform_run, value, "one of them",
    bad_suite(e, SUITE_BYTES, .plugin = gm_mock_plugin(), .only = "map,nothing"), GM_RET_INVAL)
ROW(gm_conform_main, null, "plugin", gm_conform_main(1, e->args, NULL), 2)
ROW(gm_conform_main, null, "argv", gm_conform_main(1, NULL, gm_mock_plugin()), 2)
ROW(gm_conform_main, empty, "no name", gm_conform_main(0, e->args + 1, NULL), 2)
ROW(gm_conform_main, value, "an unknown option", gm_conform_main(2, e->args, gm_mock_plugin()), 2)
