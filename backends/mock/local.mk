# SPDX-License-Identifier: MIT
# backends/mock: the accelerator in software. One file per line, sorted.

noinst_LIBRARIES += libgm_mock.a
libgm_mock_a_SOURCES = \
	backends/mock/gm_mock.c \
	backends/mock/gm_mock_api.c \
	backends/mock/gm_mock_bug.c \
	backends/mock/gm_mock_bug_dev.c \
	backends/mock/gm_mock_bug_io.c \
	backends/mock/gm_mock_bug_pt.c \
	backends/mock/gm_mock_cfg.c \
	backends/mock/gm_mock_copy.c \
	backends/mock/gm_mock_cost.c \
	backends/mock/gm_mock_dirty.c \
	backends/mock/gm_mock_engine.c \
	backends/mock/gm_mock_expect.c \
	backends/mock/gm_mock_fault.c \
	backends/mock/gm_mock_hw.c \
	backends/mock/gm_mock_internal.h \
	backends/mock/gm_mock_plugin.c \
	backends/mock/gm_mock_preset.c \
	backends/mock/gm_mock_pt.c \
	backends/mock/gm_mock_rule.c \
	backends/mock/gm_mock_run.c \
	backends/mock/gm_mock_script.c \
	backends/mock/gm_mock_spec.h \
	backends/mock/gm_mock_sync.c \
	backends/mock/gm_mock_tlb.c \
	backends/mock/gm_mock_trace.c
libgm_mock_a_CPPFLAGS = $(GM_CPPFLAGS)
LINT_FILES += $(libgm_mock_a_SOURCES)
