# SPDX-License-Identifier: MIT
# bench: measurements, against the library as it is installed. `make bench`
# builds and runs each: JSON to the terminal's standard output, a table to its
# standard error. BENCH_ARGS are handed to all of them. Here alone, or by
# hand, since nothing else should run meanwhile: see bench/README.md.

BENCHES = \
	bench/bench_devfault \
	bench/bench_event \
	bench/bench_fault \
	bench/bench_frames \
	bench/bench_index \
	bench/bench_meta \
	bench/bench_migrate \
	bench/bench_query \
	bench/bench_thp \
	bench/bench_touch \
	bench/bench_ws
EXTRA_PROGRAMS += $(BENCHES)
CLEANFILES += $(BENCHES)

BENCH_FILES = \
	bench/bare_uffd.c \
	bench/bare_uffd.h \
	bench/bench.c \
	bench/bench.h \
	bench/bench_system.c
# White box: for what is measured inside.
BENCH_LAYERS = libgm_core.a libgm_hal.a libgm_mock.a libgm_core.a libgm_hal.a
bench_bench_event_SOURCES = bench/bench_event.c $(BENCH_FILES)
bench_bench_fault_SOURCES = bench/bench_fault.c $(BENCH_FILES)
bench_bench_index_SOURCES = bench/bench_index.c $(BENCH_FILES)
bench_bench_meta_SOURCES = bench/bench_meta.c $(BENCH_FILES)
bench_bench_migrate_SOURCES = bench/bench_migrate.c $(BENCH_FILES)
bench_bench_thp_SOURCES = bench/bench_thp.c $(BENCH_FILES)
bench_bench_touch_SOURCES = bench/bench_touch.c $(BENCH_FILES)
bench_bench_event_LDADD = libgmem.a
bench_bench_fault_LDADD = libgmem.a
bench_bench_index_LDADD = $(BENCH_LAYERS)
bench_bench_meta_LDADD = libgmem.a
bench_bench_migrate_LDADD = libgmem.a
bench_bench_thp_LDADD = libgmem.a
bench_bench_touch_LDADD = libgmem.a
LINT_FILES += $(BENCH_FILES) bench/bench_event.c bench/bench_fault.c bench/bench_index.c bench/bench_meta.c bench/bench_migrate.c bench/bench_touch.c
LINT_FILES += bench/bench_thp.c

# White box: parts of the core alone, so they link the layers as the tests do.
bench_bench_devfault_SOURCES = bench/bench_devfault.c bench/known_host.c bench/known_host.h $(BENCH_FILES)
bench_bench_devfault_LDADD = $(BENCH_LAYERS)
bench_bench_frames_SOURCES = bench/bench_frames.c $(BENCH_FILES)
bench_bench_frames_LDADD = $(BENCH_LAYERS)
bench_bench_query_SOURCES = bench/bench_query.c $(BENCH_FILES)
bench_bench_query_LDADD = $(BENCH_LAYERS)
bench_bench_ws_SOURCES = bench/bench_ws.c bench/known_host.c bench/known_host.h $(BENCH_FILES)
bench_bench_ws_LDADD = $(BENCH_LAYERS)
LINT_FILES += bench/bench_devfault.c bench/bench_frames.c bench/bench_query.c bench/bench_ws.c bench/known_host.c bench/known_host.h

PHONY_TARGETS += bench bench-programs
bench-programs: $(BENCHES)
bench: $(BENCHES)
	@for b in $(BENCHES); do ./$$b $(BENCH_ARGS) || exit 1; done
