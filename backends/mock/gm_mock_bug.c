/* SPDX-License-Identifier: MIT */
/* Names of the errors that can be planted. */
#include "config.h"

#include "backends/mock/gm_mock_internal.h"

static const char *const names[GM_MOCK_BUGS] = {
	[GM_MOCK_BUG_NONE] = "none",
	[GM_MOCK_BUG_SKIP_INVL] = "skip_invl",
	[GM_MOCK_BUG_SKIP_REMOVE] = "skip_remove",
	[GM_MOCK_BUG_SKIP_COPY] = "skip_copy",
	[GM_MOCK_BUG_SKIP_ZERO] = "skip_zero",
	[GM_MOCK_BUG_WRONG_PA] = "wrong_pa",
	[GM_MOCK_BUG_EARLY_FENCE] = "early_fence",
	[GM_MOCK_BUG_LOST_FAULT] = "lost_fault",
	[GM_MOCK_BUG_IGNORE_RIGHTS] = "ignore_rights",
};

const char *gm_mock_bug_name(enum gm_mock_bug bug)
{
	return (unsigned)bug < GM_MOCK_BUGS ? names[bug] : NULL;
}
