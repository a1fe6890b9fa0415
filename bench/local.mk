# SPDX-License-Identifier: MIT
# bench: measurements. `make bench` builds and runs each; the figures go to the
# terminal. BENCH_ARGS are handed to all of them.

BENCHES = \
	bench/bare_uffd \
	bench/bench \
	bench/bench_fault \
	bench/bench_system
EXTRA_PROGRAMS += $(BENCHES)
CLEANFILES += $(BENCHES)

PHONY_TARGETS += bench bench-programs
bench-programs: $(BENCHES)
bench: $(BENCHES)
	@for b in $(BENCHES); do echo "== $$b"; ./$$b $(BENCH_ARGS) || exit 1; done
