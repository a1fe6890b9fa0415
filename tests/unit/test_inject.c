/* SPDX-License-Identifier: MIT */
/* Failure injection (inject.h) into what moves pages, and into the making of things. */
#include "config.h"

#include "inject.h"

CORE_TEST(inject, device_operations, .dev = { ROOMY })
{
	inject_mock(w);
}

CORE_TEST(inject, device_operations_with_eviction, .dev = { TIGHT })
{
	inject_mock(w);
}

CORE_TEST(inject, device_operations_one_by_one, .dev = { BLIND }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	inject_mock(w);
}

CORE_TEST(inject, device_operations_in_any_order, .dev = { CHAOS }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	any_order = true;
	inject_mock(w);
}

CORE_TEST(inject, host_operations, .dev = { ROOMY })
{
	inject_host(w);
}

CORE_TEST(inject, host_operations_with_eviction, .dev = { TIGHT }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	inject_host(w);
}

CORE_TEST(inject, questions, .dev = { ROOMY })
{
	inject_questions(w);
}

CORE_TEST(inject, questions_with_eviction, .dev = { TIGHT }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	inject_questions(w);
}

CORE_TEST(inject, allocations, .dev = { ROOMY })
{
	inject(w, (struct injection){ .what = ALLOC }, 1000);
}

CORE_TEST(inject, allocations_with_eviction, .dev = { BLIND }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	inject(w, (struct injection){ .what = ALLOC }, 1000);
}

/* What is made: an instance, a device, a space. All or nothing. */
CORE_TEST(inject, allocations_of_making, .bare = true)
{
	for (size_t n = 1;; n++) {
		size_t live = atomic_load(&w->fa.live);
		struct gm_dev *dev = NULL;
		struct gm_as *as = NULL;
		gm_ret_t ret;

		failing_alloc_arm(&w->fa, n);
		ret = gm_dev_open(w->lib, "mock", &dev);
		if (!ret)
			ret = gm_as_create(w->lib, 0, 0, NULL, &as);
		if (!failing_alloc_fired(&w->fa)) {
			OK(ret);
			cr_assert_gt(n, 5);
			OK(gm_as_destroy(as));
			OK(gm_dev_destroy(dev));
			return;
		}
		failing_alloc_arm(&w->fa, 0);
		cr_assert(ret == GM_RET_NOMEM || (ret == GM_RET_SUCCESS && as), "%s", gm_ret_name(ret));
		OK(gm_as_destroy(as));
		OK(gm_dev_destroy(dev));
		cr_assert_eq(atomic_load(&w->fa.live), live, "allocation %zu: something was left", n);
	}
}
