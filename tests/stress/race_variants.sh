#!/bin/sh
# SPDX-License-Identifier: MIT
# The race on counters with each disturbance, the handler on the same CPU, and on another, where blocks are packed at
# every chance.
set -eu
for with in dontneed reuse mprotect; do
	for handler in same other; do
		status=0
		pack=0
		test $handler = same || pack=1
		timeout -k 10 "${GM_TEST_TIMEOUT:-300}" tests/stress/race_counters --with $with --handler $handler \
			--migrations 2000 --pack $pack || status=$?
		test $status = 0 || exit $status
	done
done
