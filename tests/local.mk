# SPDX-License-Identifier: MIT
# tests. One file per line, sorted.
#
#   tests/unit/test_X.c    Criterion, becomes tests/unit/test_X.t (TAP)
#   tests/stress/X.c       plain main(): exit 0 passed, 77 skipped, else failed
#   tests/lint/check-*.sh  what the tree itself must keep to
#   tests/link/            what a user of the installed library does (make installcheck)

# --- support, linked into unit and stress programs where they use it ---

check_LIBRARIES += libgm_testkit.a
libgm_testkit_a_SOURCES = \
	tests/hmm/hmm.h \
	tests/hmm/hmm_where.h \
	tests/unit/api_rows.h \
	tests/unit/api_rows_core.h \
	tests/unit/api_rows_mem.h \
	tests/unit/api_rows_mock.h \
	tests/unit/api_rows_shared.h \
	tests/unit/api_rows_validate.h \
	tests/unit/comes_fixture.h \
	tests/unit/core_fixture.h \
	tests/unit/devq_script.h \
	tests/unit/dup_fixture.h \
	tests/unit/failing_alloc.h \
	tests/unit/fake_backend.h \
	tests/unit/fork_fixture.h \
	tests/unit/host_fixture.h \
	tests/unit/inject.h \
	tests/unit/inthread_fixture.h \
	tests/unit/losing_mock.h \
	tests/unit/mirror_fixture.h \
	tests/unit/mock_bug.h \
	tests/unit/mock_fixture.h \
	tests/unit/mock_services.h \
	tests/unit/pack_fixture.h \
	tests/unit/region_fixture.h \
	tests/unit/rung_fixture.h \
	tests/unit/shared_fixture.h \
	tests/unit/shim_breaks.h \
	tests/unit/shim_fixture.h \
	tests/unit/shim_parts.h \
	tests/unit/shim_toy.h \
	tests/unit/sim_fixture.h \
	tests/unit/sim_host_fixture.h
LINT_FILES += $(libgm_testkit_a_SOURCES)

# White box: the layers as they are. Named twice, because the mock calls the core's public functions.
TEST_LAYERS = libgm_testkit.a libgm_core.a libgm_sim.a libgm_hal.a libgm_mock.a libgm_core.a libgm_hal.a

# --- unit ---

UNIT_TESTS = \
	tests/unit/test_api.t \
	tests/unit/test_api_bad.t \
	tests/unit/test_arena.t \
	tests/unit/test_as.t \
	tests/unit/test_call.t \
	tests/unit/test_conform.t \
	tests/unit/test_devq.t \
	tests/unit/test_devq_doubt.t \
	tests/unit/test_dup.t \
	tests/unit/test_dup_events.t \
	tests/unit/test_edge_window.t \
	tests/unit/test_env.t \
	tests/unit/test_err.t \
	tests/unit/test_events.t \
	tests/unit/test_exclusive.t \
	tests/unit/test_fence.t \
	tests/unit/test_fork.t \
	tests/unit/test_fork_alloc.t \
	tests/unit/test_fork_serve.t \
	tests/unit/test_frames.t \
	tests/unit/test_freed.t \
	tests/unit/test_gmem_holes.t \
	tests/unit/test_handle.t \
	tests/unit/test_host.t \
	tests/unit/test_host_mem.t \
	tests/unit/test_host_msg.t \
	tests/unit/test_host_protect.t \
	tests/unit/test_inthread.t \
	tests/unit/test_inthread_host.t \
	tests/unit/test_inthread_process.t \
	tests/unit/test_inthread_with.t \
	tests/unit/test_lost.t \
	tests/unit/test_lost_moved.t \
	tests/unit/test_lost_random.t \
	tests/unit/test_mask.t \
	tests/unit/test_mem.t \
	tests/unit/test_mirror.t \
	tests/unit/test_mirror_host.t \
	tests/unit/test_mirror_sim.t \
	tests/unit/test_mock_bug.t \
	tests/unit/test_mock_cfg.t \
	tests/unit/test_mock_copy.t \
	tests/unit/test_mock_core.t \
	tests/unit/test_mock_cost.t \
	tests/unit/test_mock_engine.t \
	tests/unit/test_mock_expect.t \
	tests/unit/test_mock_fault.t \
	tests/unit/test_mock_hw.t \
	tests/unit/test_mock_plugin.t \
	tests/unit/test_mock_pt.t \
	tests/unit/test_mock_rule.t \
	tests/unit/test_mock_run.t \
	tests/unit/test_mock_shape.t \
	tests/unit/test_mock_sync.t \
	tests/unit/test_mock_tlb.t \
	tests/unit/test_node.t \
	tests/unit/test_pack.t \
	tests/unit/test_pack_form.t \
	tests/unit/test_pin.t \
	tests/unit/test_policy.t \
	tests/unit/test_protect.t \
	tests/unit/test_query.t \
	tests/unit/test_radix.t \
	tests/unit/test_rank.t \
	tests/unit/test_readers.t \
	tests/unit/test_region.t \
	tests/unit/test_region_leaf.t \
	tests/unit/test_region_many.t \
	tests/unit/test_remap.t \
	tests/unit/test_residency.t \
	tests/unit/test_rung.t \
	tests/unit/test_rung_mem.t \
	tests/unit/test_shared.t \
	tests/unit/test_shared_export.t \
	tests/unit/test_shared_fork.t \
	tests/unit/test_shared_place.t \
	tests/unit/test_shared_rung.t \
	tests/unit/test_shared_with.t \
	tests/unit/test_shim.t \
	tests/unit/test_shim_caller.t \
	tests/unit/test_shim_edges.t \
	tests/unit/test_shim_lib.t \
	tests/unit/test_sim_app.t \
	tests/unit/test_sim_host.t \
	tests/unit/test_sim_protect.t \
	tests/unit/test_sim_race.t \
	tests/unit/test_sim_rules.t \
	tests/unit/test_sim_sched.t \
	tests/unit/test_sync.t \
	tests/unit/test_teardown.t \
	tests/unit/test_tell.t \
	tests/unit/test_tell_host.t \
	tests/unit/test_watch.t \
	tests/unit/test_ws.t \
	tests/unit/test_ws_pieces.t \
	tests/unit/test_ws_stuck.t \
	tests/unit/test_ws_window.t

# What a process does to its memory, on the real host.
PROCESS_TESTS = \
	tests/process/test_advise.t \
	tests/process/test_arrays.t \
	tests/process/test_calls.t \
	tests/process/test_debug.t \
	tests/process/test_huge.t \
	tests/process/test_io.t \
	tests/process/test_lock.t \
	tests/process/test_move.t \
	tests/process/test_rights.t \
	tests/process/test_signals.t \
	tests/process/test_spaces.t \
	tests/process/test_unmap.t
LINT_FILES += tests/process/process.h
EXTRA_DIST += tests/process/process.h

LDADD = $(TEST_LAYERS) $(CRITERION_LIBS)

# They run in this order: what takes long begins early, or all the others would be through and it alone still running.
UNIT_LONG = \
	tests/unit/test_inject.t \
	tests/unit/test_inject_dup.t
TESTS += $(STRESS_RUNS) $(CONFORM_TESTS)

tests_unit_test_api_bad_t_LDADD = libgm_conform.a $(LDADD)
tests_unit_test_conform_t_LDADD = libgm_conform.a $(LDADD)

tests_unit_test_mock_bug_t_SOURCES = \
	tests/unit/mock_bug_dev.c \
	tests/unit/mock_bug_io.c \
	tests/unit/mock_bug_pt.c \
	tests/unit/test_mock_bug.c

# --- hmm: a test per row of the table of the Linux HMM self-test (docs/hmm-table.md) ---

HMM_TESTS = \
	tests/hmm/test_hmm_anon.t \
	tests/hmm/test_hmm_bench.t \
	tests/hmm/test_hmm_child.t \
	tests/hmm/test_hmm_exclusive.t \
	tests/hmm/test_hmm_file.t \
	tests/hmm/test_hmm_gup.t \
	tests/hmm/test_hmm_huge.t \
	tests/hmm/test_hmm_look.t \
	tests/hmm/test_hmm_migrate.t \
	tests/hmm/test_hmm_move.t \
	tests/hmm/test_hmm_uffd.t

# The same on other devices, and with khugepaged awake; counts the rows. With sanitizers the programs run once.
HMM_RUNS = tests/hmm/rows.sh
tests/hmm/rows.log: $(HMM_TESTS)
EXTRA_DIST += $(HMM_RUNS) tests/hmm/rows.txt

if HAVE_CRITERION
check_PROGRAMS += $(UNIT_LONG) $(UNIT_TESTS) $(HMM_TESTS) $(PROCESS_TESTS)
TESTS += $(UNIT_LONG) $(UNIT_TESTS) $(HMM_TESTS) $(PROCESS_TESTS)
if !SANITIZERS
TESTS += $(HMM_RUNS)
endif
else
TESTS += tests/no-criterion.sh
endif

# --- stress ---

STRESS_ALONE = \
	tests/stress/patterns \
	tests/stress/race_counters \
	tests/stress/race_dup \
	tests/stress/race_edges \
	tests/stress/race_fork \
	tests/stress/race_inthread \
	tests/stress/race_mirror \
	tests/stress/race_progress \
	tests/stress/race_protect \
	tests/stress/race_remap \
	tests/stress/race_reuse \
	tests/stress/race_segments \
	tests/stress/race_shared \
	tests/stress/stress_env \
	tests/stress/stress_mock
# random_sim itself runs through random_million.sh
STRESS_TESTS = $(STRESS_ALONE) tests/stress/random_sim
tests_stress_patterns_SOURCES = \
	tests/stress/patterns.c \
	tests/stress/patterns.h \
	tests/stress/patterns_run.c \
	tests/stress/patterns_sections.c
tests_stress_patterns_LDADD = $(TEST_LAYERS)
tests_stress_race_counters_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_counters.c \
	tests/stress/race_hand.h
tests_stress_race_counters_LDADD = $(TEST_LAYERS)
tests_stress_race_dup_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_dup.c
tests_stress_race_dup_LDADD = $(TEST_LAYERS)
tests_stress_race_edges_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_edges.c
tests_stress_race_edges_LDADD = $(TEST_LAYERS)
tests_stress_race_fork_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_fork.c \
	tests/stress/race_hand.h
tests_stress_race_fork_LDADD = $(TEST_LAYERS)
tests_stress_race_inthread_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_inthread.c
tests_stress_race_inthread_LDADD = $(TEST_LAYERS)
tests_stress_race_mirror_SOURCES = \
	tests/stress/race_mirror.c
tests_stress_race_mirror_LDADD = $(TEST_LAYERS)
tests_stress_race_progress_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_progress.c
tests_stress_race_progress_LDADD = $(TEST_LAYERS)
tests_stress_race_protect_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_protect.c
tests_stress_race_protect_LDADD = $(TEST_LAYERS)
tests_stress_race_remap_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_remap.c
tests_stress_race_remap_LDADD = $(TEST_LAYERS)
tests_stress_race_reuse_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_reuse.c
tests_stress_race_reuse_LDADD = $(TEST_LAYERS)
tests_stress_race_segments_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_segments.c
tests_stress_race_segments_LDADD = $(TEST_LAYERS)
tests_stress_race_shared_SOURCES = \
	tests/stress/race.h \
	tests/stress/race_hand.h \
	tests/stress/race_shared.c
tests_stress_race_shared_LDADD = $(TEST_LAYERS)
tests_stress_random_sim_SOURCES = \
	tests/stress/random_app.c \
	tests/stress/random_child.c \
	tests/stress/random_coh.c \
	tests/stress/random_dev.c \
	tests/stress/random_hold.c \
	tests/stress/random_lib.c \
	tests/stress/random_madvise.c \
	tests/stress/random_mirror.c \
	tests/stress/random_model.c \
	tests/stress/random_query.c \
	tests/stress/random_remap.c \
	tests/stress/random_sim.c \
	tests/stress/random_world.c \
	tests/stress/random_world.h
tests_stress_random_sim_LDADD = $(TEST_LAYERS)
tests_stress_stress_env_LDADD = $(TEST_LAYERS)
tests_stress_stress_mock_LDADD = $(TEST_LAYERS)

# The programs again, with other arguments.
STRESS_RUNS = \
	tests/stress/random_million.sh \
	tests/stress/race_variants.sh \
	tests/stress/race_rungs.sh \
	tests/stress/random_plants.sh

check_PROGRAMS += $(STRESS_TESTS)
TESTS += $(STRESS_ALONE)
EXTRA_DIST += $(STRESS_RUNS) tests/stress/random_short.sh
tests/stress/race_rungs.log tests/stress/race_variants.log: tests/stress/race_counters
tests/stress/random_plants.log tests/stress/random_short.log tests/stress/random_million.log: tests/stress/random_sim

# Those that need no userfaultfd, which valgrind does not know.
VALGRIND_TESTS = \
	tests/stress/random_short.sh \
	tests/stress/stress_env \
	tests/stress/stress_mock

# --- programs that know nothing of it, under gmem exec ---

EXEC_TESTS = \
	tests/exec/process.sh \
	tests/exec/python3.sh \
	tests/exec/refused.sh \
	tests/exec/sort.sh \
	tests/exec/sqlite3.sh \
	tests/exec/zstd.sh
check_PROGRAMS += tests/exec/peak tests/exec/victim
tests_exec_peak_LDADD =
tests_exec_victim_SOURCES = \
	tests/exec/victim.c \
	tests/exec/victim.h \
	tests/exec/victim_remap.c \
	tests/exec/victim_rights.c
tests_exec_victim_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_exec_victim_LDADD =
TESTS += $(EXEC_TESTS)
EXTRA_DIST += $(EXEC_TESTS) tests/exec/same.sh
$(EXEC_TESTS:.sh=.log): gmem$(EXEEXT) $(gmem_DATA) tests/exec/peak tests/exec/victim
LINT_FILES += tests/exec/peak.c $(tests_exec_victim_SOURCES)

# --- conformance: the mock, as it is and with errors planted ---

CONFORM_TESTS = \
	tests/conform/mock.sh \
	tests/conform/mutants.sh \
	tests/conform/guide.sh \
	tests/conform/program.sh
EXTRA_DIST += $(CONFORM_TESTS) tests/conform/guide_step.c
tests/conform/guide.log tests/conform/mock.log tests/conform/mutants.log tests/conform/program.log: gmem$(EXEEXT)

# make check-conformance BACKEND=mock [OPTIONS=faults=no], or BACKEND=./vendor.so
PHONY_TARGETS += check-conformance
check-conformance: all
	@test -n "$(BACKEND)" || { echo "usage: make check-conformance BACKEND=NAME [OPTIONS=TEXT]" >&2; exit 1; }
	./gmem$(EXEEXT) check --tap --backend '$(BACKEND)$(if $(OPTIONS),:$(OPTIONS))'

# --- the tree ---

TREE_CHECKS = \
	tests/lint/check-api-table.sh \
	tests/lint/check-calls.sh \
	tests/lint/check-headers.sh \
	tests/lint/check-hmm-rows.sh \
	tests/lint/check-layers.sh \
	tests/lint/check-lists.sh \
	tests/lint/check-size.sh \
	tests/lint/check-spdx.sh \
	tests/lint/check-symbols.sh \
	tests/lint/check-words.sh

TESTS += $(TREE_CHECKS)

# --- how they run ---

TEST_EXTENSIONS = .sh .t
T_LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
T_LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/run-criterion.sh
SH_LOG_COMPILER = $(SHELL)
LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/run-program.sh
if SANITIZERS
NO_ASLR = 1
RANDOM_SEEDS = 150
else
RANDOM_SEEDS = 1000
endif
LINT_ENVIRONMENT = AWK='$(AWK)' CC='$(CC)' CXX='$(CXX)' NM='$(NM)' CTAGS='$(CTAGS)'; export AWK CC CXX NM CTAGS;
AM_TESTS_ENVIRONMENT = $(LINT_ENVIRONMENT) GM_TEST_NO_ASLR='$(NO_ASLR)'; export GM_TEST_NO_ASLR; \
	GM_TEST_SEEDS='$(RANDOM_SEEDS)'; export GM_TEST_SEEDS; \
	UBSAN_OPTIONS="print_stacktrace=1:$$UBSAN_OPTIONS"; export UBSAN_OPTIONS;

PHONY_TARGETS += check-stress check-valgrind
check-stress: all
	@test -n "$(STRESS_TESTS)" || { echo "no stress program" >&2; exit 1; }
	GM_TEST_ENGINES=1 $(MAKE) $(AM_MAKEFLAGS) check-TESTS \
		TESTS="$(filter-out tests/stress/patterns,$(STRESS_ALONE)) tests/stress/race_variants.sh tests/conform/mock.sh"

check-valgrind: all
	@test -n "$(VALGRIND)" || { echo "make check-valgrind needs valgrind" >&2; exit 1; }
	@test -n "$(VALGRIND_TESTS)" || { echo "no program for valgrind" >&2; exit 1; }
	GM_TEST_WRAPPER="$(VALGRIND) --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite,possible" \
		$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS="$(VALGRIND_TESTS)"

# --- lint ---

LINT_C = $(filter %.c,$(LINT_FILES))
LINT_H = $(filter %.h,$(LINT_FILES)) $(gmeminclude_HEADERS)
LINT_FLAGS = -std=gnu11 $(DEFS) $(AM_CPPFLAGS)
SHELL_FILES = $(STRESS_RUNS) $(CONFORM_TESTS) $(HMM_RUNS) $(EXEC_TESTS) tests/exec/same.sh \
	tests/stress/random_short.sh \
	.ci/run autogen.sh demo tools/setup.sh \
	tests/no-criterion.sh tests/run-criterion.sh tests/run-program.sh tests/link/run.sh \
	tests/lint/run-scripts.sh $(TREE_CHECKS)

AM_V_TIDY = $(am__v_TIDY_@AM_V@)
am__v_TIDY_ = $(am__v_TIDY_@AM_DEFAULT_V@)
am__v_TIDY_0 = @echo "  TIDY    " $<;
am__v_TIDY_1 =
AM_V_LINT = $(am__v_LINT_@AM_V@)
am__v_LINT_ = $(am__v_LINT_@AM_DEFAULT_V@)
am__v_LINT_0 = @echo "  LINT    " $(@F:.ok=);
am__v_LINT_1 =

PHONY_TARGETS += lint lint-scripts lint-tools
lint: lint-scripts lint.d/cppcheck.ok lint.d/shellcheck.ok $(LINT_C:%.c=lint.d/%.ok)

lint-scripts: all
	@srcdir='$(srcdir)'; export srcdir; $(LINT_ENVIRONMENT) \
	$(SHELL) $(srcdir)/tests/lint/run-scripts.sh $(addprefix $(srcdir)/,$(TREE_CHECKS))

lint-tools:
	@for t in "clang:$(CLANG)" "clang-tidy:$(CLANG_TIDY)" "cppcheck:$(CPPCHECK)"; do \
		test -n "$${t#*:}" || { echo "make lint needs $${t%%:*}" >&2; exit 1; }; \
	done

# A stamp per file, so that a second run looks only at what changed. gcc has no -Wassign-enum.
lint.d/%.ok: %.c $(LINT_H) .clang-tidy | lint-tools
	$(AM_V_TIDY)$(MKDIR_P) $(@D) && \
	$(CLANG) -fsyntax-only $(LINT_FLAGS) -Wall -Wextra -Wassign-enum -Wdocumentation \
		-fcomment-block-commands=threads,locks,owner,source -Werror $< && \
	$(CLANG_TIDY) --quiet --warnings-as-errors='*' $< -- $(LINT_FLAGS) 2>$@.err || \
		{ cat $@.err >&2; rm -f $@.err; exit 1; }; mv $@.err $@

# cppcheck looks into no system header, but must know the macros of libbsd's lists and trees.
lint.d/cppcheck.ok: $(LINT_C) $(LINT_H) tests/lint/cppcheck.txt | lint-tools
	$(AM_V_LINT)$(MKDIR_P) lint.d/include && \
	ln -sfn "`$(PKG_CONFIG) --variable=includedir libbsd`/bsd" lint.d/include/bsd && \
	$(CPPCHECK) --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
		--suppressions-list=$(srcdir)/tests/lint/cppcheck.txt $(DEFS) -D_GNU_SOURCE $(filter -I%,$(AM_CPPFLAGS)) -Ilint.d/include \
		$(addprefix $(srcdir)/,$(LINT_C)) && echo done >$@

# Not the script "check": make takes the name for its target.
lint.d/shellcheck.ok: $(SHELL_FILES)
	@$(MKDIR_P) $(@D); if test -n "$(SHELLCHECK)"; then \
		echo "  LINT     shellcheck"; \
		(cd $(srcdir) && $(SHELLCHECK) -s sh -S warning check $(SHELL_FILES)) && echo done >$@; \
	else \
		echo "  SKIP     shellcheck: not installed"; \
	fi

# --- what a user of the installed library does ---

installcheck-local:
	rm -rf link.d && $(MKDIR_P) link.d
	INCLUDEDIR='$(DESTDIR)$(gmemincludedir)' MANDIR='$(DESTDIR)$(man3dir)' HEADERS='$(notdir $(gmeminclude_HEADERS))' \
	VERSION='$(PACKAGE_VERSION)' AWK='$(AWK)' PREFIX='$(DESTDIR)$(prefix)' PKG_CONFIG='$(PKG_CONFIG)' PKG_CONFIG_PATH='$(DESTDIR)$(pkgconfigdir)' \
	PKG_CONFIG_SYSROOT_DIR='$(DESTDIR)' CC='$(CC)' CXX='$(CXX)' CFLAGS='$(CFLAGS)' srcdir='$(srcdir)' \
		$(SHELL) $(srcdir)/tests/link/run.sh link.d

EXTRA_DIST += \
	$(TREE_CHECKS) \
	tests/link/plain.c \
	tests/link/plugin.c \
	tests/link/plus.cc \
	tests/link/run.sh \
	tests/link/two.c \
	tests/lint/cppcheck.txt \
	tests/lint/run-scripts.sh \
	tests/no-criterion.sh \
	tests/run-criterion.sh \
	tests/run-program.sh
