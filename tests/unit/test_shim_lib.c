/* SPDX-License-Identifier: MIT */
/* The validation shim around the devices of an instance: when it is there, whom it names, and that nobody else sees it. */
#include "config.h"

#include "core_fixture.h"

#include <signal.h>

#include <gmem/validate.h>

#include "backends/mock/gm_mock_internal.h"
#include "core/gm_plant.h"

CORE_TEST(shim_lib, off_means_not_there, .validate = GM_VALIDATE_OFF)
{
	cr_assert_not(w->dev[0]->hal->shim);
	cr_assert_eq(gm_dev_backend(w->dev[0]), w->dev[0]->hal->dev);
}

CORE_TEST(shim_lib, pointers_of_the_backend_are_its_own, .validate = GM_VALIDATE_ABORT)
{
	struct gm_mock_pmap *pmap = gm_ctx_pmap(w->ctx[0]);

	cr_assert(w->dev[0]->hal->shim);
	cr_assert(gm_mock_is_admitted(gm_dev_backend(w->dev[0])));
	cr_assert_eq(pmap->dev, gm_dev_backend(w->dev[0]));
}

#ifdef GM_ENABLE_CHECKS
CORE_TEST(shim_lib, builds_with_checks_have_it)
{
	cr_assert(w->dev[0]->hal->shim);
}
#else
CORE_TEST(shim_lib, other_builds_do_not)
{
	cr_assert_not(w->dev[0]->hal->shim);
}
#endif

/* Who makes a device of the shim's table is not given a second one. */
CORE_TEST(shim_lib, made_by_hand, .bare = true, .validate = GM_VALIDATE_ABORT)
{
	struct gm_validate_config config = { .size = sizeof(config), .mmu = gm_mock_mmu() };
	struct gm_dev *dev;

	OK(gm_dev_create(w->lib, gm_validate_mmu(), &config, &dev));
	cr_assert(gm_mock_is_admitted(gm_dev_backend(dev)));
	OK(gm_dev_destroy(dev));
	config.mmu = NULL;
	IS(gm_dev_create(w->lib, gm_validate_mmu(), &config, &dev), GM_RET_INVAL);
}

CORE_TEST(shim_lib, the_log_names_a_broken_backend, .validate = GM_VALIDATE_LOG)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_mock_plant(w->dev[0], GM_MOCK_BUG_IGNORE_RIGHTS));
	cr_assert_eq(w->errors, 0);
	cr_assert_eq(dev_wrong(w->ctx[0], va, 16, 1), 0);
	cr_assert(w->errors && strstr(w->log, "backend mock broke GM_RULE_WRITE_ALLOWED"), "%s", w->log);
	OK(gm_mock_plant(w->dev[0], GM_MOCK_BUG_NONE));
}

#ifdef GM_ENABLE_CHECKS /* errors can be planted in the core */
CORE_TEST(shim_lib, the_log_names_a_broken_core, .validate = GM_VALIDATE_LOG)
{
	uint64_t va = app_adopted(w, 1, 1);

	dev_fill(w->ctx[0], va, 16, 2);
	w->as->plant = GM_PLANT_SKIP_INVL;
	OK(gm_migrate(w->as, va, BLOCK, NULL, NULL));
	w->as->plant = GM_PLANT_NONE;
	cr_assert(w->errors && strstr(w->log, "caller of backend mock broke GM_RULE_"), "%s", w->log);
}
#endif

/* Of what is lost nothing is asked any more. */
CORE_TEST(shim_lib, a_lost_device_is_left_alone)
{
	struct gm_dev_fault fault;

	IS(gm_hal_fault_next(w->dev[0]->hal, &fault), GM_RET_AGAIN);
	atomic_store(&w->dev[0]->hal->lost, true);
	IS(gm_hal_fault_next(w->dev[0]->hal, &fault), GM_RET_NODEV);
	atomic_store(&w->dev[0]->hal->lost, false);
}

static void abort_body(struct world *w)
{
	uint64_t va = app_adopted(w, 1, 1);

	OK(gm_mock_plant(w->dev[0], GM_MOCK_BUG_IGNORE_RIGHTS));
	(void)dev_wrong(w->ctx[0], va, 16, 1);
}

Test(shim_lib, abort_aborts, .signal = SIGABRT)
{
	static const struct world_config config = { .validate = GM_VALIDATE_ABORT };

	world_run(&config, abort_body);
}

Test(shim_lib, an_unknown_mode_is_refused)
{
	struct gm_lib_config config = { .size = sizeof(config) };
	struct gm_lib *lib = NULL;

	config.validate++;
	config.validate += GM_VALIDATE_ABORT;
	IS(gm_lib_create(&config, &lib), GM_RET_INVAL);
	cr_assert_null(lib);
}
