# SPDX-License-Identifier: MIT
# conform: the conformance suite, a library of its own. One file per line, sorted.

noinst_LIBRARIES += libgm_conform.a
libgm_conform_a_SOURCES = \
	conform/gm_conform.c \
	conform/gm_conform_main.c \
	conform/gm_ct.h \
	conform/gm_ct_child.c \
	conform/gm_ct_dev.c \
	conform/gm_ct_gap.c \
	conform/gm_ct_group_dirty.c \
	conform/gm_ct_group_fault.c \
	conform/gm_ct_group_fence.c \
	conform/gm_ct_group_host.c \
	conform/gm_ct_group_invalidate.c \
	conform/gm_ct_group_lifecycle.c \
	conform/gm_ct_group_lost.c \
	conform/gm_ct_group_map.c \
	conform/gm_ct_group_memory.c \
	conform/gm_ct_group_nth.c \
	conform/gm_ct_group_peer.c \
	conform/gm_ct_group_plan.c \
	conform/gm_ct_group_protect.c \
	conform/gm_ct_group_sync.c \
	conform/gm_ct_group_table.c \
	conform/gm_ct_group_threads.c \
	conform/gm_ct_group_trace.c \
	conform/gm_ct_group_visible.c \
	conform/gm_ct_group_workset.c \
	conform/gm_ct_mem.c \
	conform/gm_ct_oracle.c \
	conform/gm_ct_random.c \
	conform/gm_ct_shim.c \
	conform/gm_ct_stage.c \
	conform/gm_ct_svc.c
libgm_conform_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_conform_a_SOURCES)
