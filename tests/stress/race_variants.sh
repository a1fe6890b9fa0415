#!/bin/sh
# SPDX-License-Identifier: MIT
# The race on counters with each disturbance, the handler on the same and on another CPU.
set -eu
for with in dontneed reuse mprotect; do
	for handler in same other; do
		status=0
		timeout -k 10 "${GM_TEST_TIMEOUT:-300}" tests/stress/race_counters --with $with --handler $handler \
			--migrations 2000 || status=$?
		test $status = 0 || exit $status
	done
done
