/* SPDX-License-Identifier: MIT */
/*
 * The errors that can be planted: their names, where each strikes, and what a suite must look at to notice it. What
 * each does is said in gmem/mock.h.
 *
 * Each is what somebody who writes a backend gets wrong one day, and each shows through the ops table and the services
 * alone. One is planted at a time. They strike in gm_mock_bug_pt.c (pt), gm_mock_bug_io.c (io) and gm_mock_bug_dev.c
 * (dev), which the sound code calls in few places; and where that would take more words than the error itself, in a
 * line that asks gm_mock_has_bug(): in gm_mock.c and gm_mock_rule.c (main), gm_mock_tlb.c (tlb), gm_mock_copy.c and
 * gm_mock_engine.c (copy), gm_mock_fault.c (fault), gm_mock_sync.c (sync).
 */
#include "config.h"

#include "backends/mock/gm_mock_internal.h"

/* clang-format off */
static const char *const names[GM_MOCK_BUGS] = {
	/* name                                             where  what must notice it */
	[GM_MOCK_BUG_NONE] = "none",
	[GM_MOCK_BUG_SKIP_INVL] = "skip_invl",               /* tlb   an access after pmap_remove() and tlb_invl() */
	[GM_MOCK_BUG_SKIP_REMOVE] = "skip_remove",           /* pt    an access to the last page */
	[GM_MOCK_BUG_SKIP_COPY] = "skip_copy",               /* io    bytes after many copies */
	[GM_MOCK_BUG_SKIP_ZERO] = "skip_zero",               /* copy  bytes after a zero-fill */
	[GM_MOCK_BUG_WRONG_PA] = "wrong_pa",                 /* pt    an access to the second page */
	[GM_MOCK_BUG_EARLY_FENCE] = "early_fence",           /* copy  bytes right after the fence */
	[GM_MOCK_BUG_LOST_FAULT] = "lost_fault",             /* fault the bound of a wait */
	[GM_MOCK_BUG_IGNORE_RIGHTS] = "ignore_rights",       /* tlb   a store that must answer PERM */
	[GM_MOCK_BUG_VA_ALIAS] = "va_alias",                 /* pt    an access where the highest address bit differs */
	[GM_MOCK_BUG_ENTER_SHORT] = "enter_short",           /* pt    an access to the last page */
	[GM_MOCK_BUG_ENTER_HALF] = "enter_half",             /* pt    an access after the failure */
	[GM_MOCK_BUG_ENTER_WRITABLE] = "enter_writable",     /* pt    a store that must answer PERM */
	[GM_MOCK_BUG_ENTER_NO_GROW] = "enter_no_grow",       /* pt    a store after the second enter */
	[GM_MOCK_BUG_ENTER_EXIST] = "enter_exist",           /* pt    the result, which is not in the list */
	[GM_MOCK_BUG_ENTER_AGAIN] = "enter_again",           /* pt    the result, which is not in the list */
	[GM_MOCK_BUG_REMOVE_LARGE] = "remove_large",         /* pt    an access beside the range */
	[GM_MOCK_BUG_REMOVE_NEIGHBOUR] = "remove_neighbour", /* pt    an access behind the range */
	[GM_MOCK_BUG_REMOVE_HALF] = "remove_half",           /* pt    an access after the failure */
	[GM_MOCK_BUG_REMOVE_NOENT] = "remove_noent",         /* pt    the result, which is not in the list */
	[GM_MOCK_BUG_SPLIT_RIGHTS] = "split_rights",         /* pt    a store beside the range */
	[GM_MOCK_BUG_PROTECT_FIRST] = "protect_first",       /* pt    a store to the last page */
	[GM_MOCK_BUG_PROTECT_MOVES] = "protect_moves",       /* pt    bytes of the first page */
	[GM_MOCK_BUG_PROTECT_DROPS] = "protect_drops",       /* pt    an access to the last page */
	[GM_MOCK_BUG_PROTECT_FILLS] = "protect_fills",       /* pt    an access to a hole */
	[GM_MOCK_BUG_CREATE_EARLY] = "create_early",         /* main  the last page table of max_contexts */
	[GM_MOCK_BUG_CREATE_UNBOUNDED] = "create_unbounded", /* main  one page table more than max_contexts */
	[GM_MOCK_BUG_DESTROY_LEAK] = "destroy_leak",         /* main  memory that is left after dev_fini() */
	[GM_MOCK_BUG_FINI_LEAK] = "fini_leak",               /* main  memory that is left after dev_fini() */
	[GM_MOCK_BUG_INVL_FIRST] = "invl_first",             /* tlb   an access to the last page, invalidated */
	[GM_MOCK_BUG_INVL_ONE_TLB] = "invl_one_tlb",         /* tlb   an access of a job after the invalidation */
	[GM_MOCK_BUG_INVL_NO_WAIT] = "invl_no_wait",         /* tlb   an access still under way when it returns */
	[GM_MOCK_BUG_RIGHTS_STICK] = "rights_stick",         /* tlb   a store after load and enter with write */
	[GM_MOCK_BUG_COPY_SHIFT] = "copy_shift",             /* io    bytes after a copy of several pages */
	[GM_MOCK_BUG_COPY_SWAP] = "copy_swap",               /* io    bytes after a copy of two pieces */
	[GM_MOCK_BUG_COPY_LAST] = "copy_last",               /* io    bytes of the last piece */
	[GM_MOCK_BUG_FENCE_TWICE] = "fence_twice",           /* io    a count of the signals */
	[GM_MOCK_BUG_FENCE_AFTER_ERROR] = "fence_after_error",/* io    a fence that must stay pending */
	[GM_MOCK_BUG_FENCE_NEVER] = "fence_never",           /* io    the bound of a wait */
	[GM_MOCK_BUG_FENCE_SUCCESS] = "fence_success",       /* io    the result of a copy that failed late */
	[GM_MOCK_BUG_PLAN_REVERSED] = "plan_reversed",       /* io    what remove before enter leaves */
	[GM_MOCK_BUG_PLAN_NO_RET] = "plan_no_ret",           /* io    ret of the steps */
	[GM_MOCK_BUG_PLAN_GOES_ON] = "plan_goes_on",         /* copy  ret of the later steps, what they did */
	[GM_MOCK_BUG_PLAN_DROPS_LAST] = "plan_drops_last",   /* io    what the last step had to do */
	[GM_MOCK_BUG_FAULT_TWICE] = "fault_twice",           /* fault more faults than accesses that wait */
	[GM_MOCK_BUG_FAULT_VA] = "fault_va",                 /* io    the address that was touched */
	[GM_MOCK_BUG_FAULT_ACCESS] = "fault_access",         /* io    the access of a store */
	[GM_MOCK_BUG_FAULT_ONE_WAITER] = "fault_one_waiter", /* fault a second thread at the same page */
	[GM_MOCK_BUG_FAULT_ONE_PAGE] = "fault_one_page",     /* io    a thread at the second page */
	[GM_MOCK_BUG_FAULT_RESULT] = "fault_result",         /* io    the result of the access */
	[GM_MOCK_BUG_FAULT_UNNAMED] = "fault_unnamed",       /* fault a second thread at the page of the failure */
	[GM_MOCK_BUG_FAULT_BLOCKS] = "fault_blocks",         /* io    the service wait, used in fault_next() */
	[GM_MOCK_BUG_FAULT_SILENT] = "fault_silent",         /* fault a fault without fault_ready before it */
	[GM_MOCK_BUG_CPU_PTR_OFF] = "cpu_ptr_off",           /* main  bytes after a copy */
	[GM_MOCK_BUG_SYNC_EARLY] = "sync_early",             /* sync  a fence that must be pending still */
	[GM_MOCK_BUG_SYNC_SUCCESS] = "sync_success",         /* sync  the result of an export that failed */
	[GM_MOCK_BUG_SYNC_SILENT] = "sync_silent",           /* sync  the result of an export */
	[GM_MOCK_BUG_DIRTY_LOST] = "dirty_lost",             /* main  GM_PAGE_DIRTY after a store */
	[GM_MOCK_BUG_ACCESS_STRAIGHT] = "access_straight",   /* pt    bytes of an access over two pages */
	[GM_MOCK_BUG_ENTER_TOP] = "enter_top",               /* pt    an access to the last page there is */
	[GM_MOCK_BUG_ENTER_ALL] = "enter_all",               /* dev   an access in another page table */
	[GM_MOCK_BUG_PROTECT_HALF] = "protect_half",         /* pt    an access after the failure */
	[GM_MOCK_BUG_DESTROY_OTHER] = "destroy_other",       /* dev   an access in another page table */
	[GM_MOCK_BUG_DESTROY_RESULT] = "destroy_result",     /* fault the result of the access */
	[GM_MOCK_BUG_CREATE_HALF] = "create_half",           /* main  the last of max_contexts after a failure */
	[GM_MOCK_BUG_INIT_LEAK] = "init_leak",               /* main  memory that is left after the failure */
	[GM_MOCK_BUG_DEVICES_SHARE] = "devices_share",       /* dev   bytes of the first device */
	[GM_MOCK_BUG_PEER_WRONG] = "peer_wrong",             /* copy  bytes after a copy from another device */
	[GM_MOCK_BUG_HARVEST_CLEARS] = "harvest_clears",     /* main  the bits after the failure */
	[GM_MOCK_BUG_SYNC_WRITES] = "sync_writes",           /* sync  the out-parameters after the failure */
	[GM_MOCK_BUG_NEEDS_MEMORY] = "needs_memory",         /* dev   the result, which is not in the list */
	[GM_MOCK_BUG_LOST_ALIVE] = "lost_alive",             /* main  the result of an operation */
	[GM_MOCK_BUG_LOST_FENCE] = "lost_fence",             /* copy  the bound of a wait */
	[GM_MOCK_BUG_LOST_WAITS] = "lost_waits",             /* main  the bound of a wait */
	[GM_MOCK_BUG_HALT_IGNORED] = "halt_ignored",         /* copy  a fence that is pending afterwards */
	[GM_MOCK_BUG_HALT_LATE] = "halt_late",               /* copy  host memory that changes afterwards */
};
/* clang-format on */

const char *gm_mock_bug_name(enum gm_mock_bug bug)
{
	return (unsigned)bug < GM_MOCK_BUGS ? names[bug] : NULL;
}
