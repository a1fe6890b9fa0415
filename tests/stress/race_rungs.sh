#!/bin/sh
# SPDX-License-Identifier: MIT
# The race on counters on the lower rungs of the ladder that serve CPU accesses. MIGRATIONS=100000 for the long run.
set -eu
for rung in no-move user; do
	for with in none dontneed; do
		status=0
		timeout -k 10 "${GM_TEST_TIMEOUT:-300}" tests/stress/race_counters --rung $rung --with $with --rounds 10 \
			--migrations "${MIGRATIONS:-2000}" --limit "${GM_TEST_TIMEOUT:-300}" || status=$?
		test $status = 0 || exit $status
	done
done
