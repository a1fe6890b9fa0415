/* SPDX-License-Identifier: MIT */
/* Failure injection (inject.h) into read duplication and exclusive use. */
#include "config.h"

#include "inject.h"

CORE_TEST(inject_dup, device_operations, .dev = { TIGHT })
{
	dups = true;
	inject_mock(w);
}

CORE_TEST(inject_dup, device_operations_one_by_one, .dev = { BLIND }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	dups = true;
	inject_mock(w);
}

CORE_TEST(inject_dup, host_operations, .dev = { TIGHT })
{
	dups = true;
	inject_host(w);
}

CORE_TEST(inject_dup, questions, .dev = { TIGHT })
{
	dups = true;
	inject_questions(w);
}

CORE_TEST(inject_dup, allocations, .dev = { ROOMY })
{
	dups = true;
	inject(w, (struct injection){ .what = ALLOC }, 1000);
}

CORE_TEST(inject_dup, allocations_with_eviction, .dev = { BLIND }, .as = { .flags = GM_AS_EXCLUSIVE })
{
	dups = true;
	inject(w, (struct injection){ .what = ALLOC }, 1000);
}
