# SPDX-License-Identifier: MIT
# conform: the conformance suite, a library of its own. One file per line, sorted.

noinst_LIBRARIES += libgm_conform.a
libgm_conform_a_SOURCES = \
	conform/gm_conform.c \
	conform/gm_conform_main.c \
	conform/gm_ct.h \
	conform/gm_ct_child.c \
	conform/gm_ct_dev.c \
	conform/gm_ct_fault.c \
	conform/gm_ct_fence.c \
	conform/gm_ct_gap.c \
	conform/gm_ct_invalidate.c \
	conform/gm_ct_lifecycle.c \
	conform/gm_ct_lost.c \
	conform/gm_ct_map.c \
	conform/gm_ct_mem.c \
	conform/gm_ct_memory.c \
	conform/gm_ct_nth.c \
	conform/gm_ct_optional.c \
	conform/gm_ct_others.c \
	conform/gm_ct_pages.c \
	conform/gm_ct_plan.c \
	conform/gm_ct_protect.c \
	conform/gm_ct_random.c \
	conform/gm_ct_shim.c \
	conform/gm_ct_svc.c \
	conform/gm_ct_table.c \
	conform/gm_ct_threads.c \
	conform/gm_ct_trace.c \
	conform/gm_ct_workset.c
libgm_conform_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_conform_a_SOURCES)
