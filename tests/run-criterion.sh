#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a Criterion program for automake's TAP driver, and fail where Criterion
# itself would not: no test found, a leak or another report of a sanitizer in
# a test's own process (Criterion takes neither its exit status nor what it
# prints at its end: so the reports go to files), a program that never ends.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$dir/sanitizer"
UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$dir/sanitizer"
export ASAN_OPTIONS UBSAN_OPTIONS

sh "$(dirname "$0")/run-program.sh" "$@" --tap >"$dir/out" 2>&1
status=$?
cat "$dir/out"
if [ $status = 124 ] || [ $status = 137 ]; then
	echo "Bail out! not finished in ${GM_TEST_TIMEOUT:-300} s, or killed"
elif find "$dir" -name 'sanitizer*' -exec cat {} + | grep -qv 'Running thread [0-9]* was not suspended. False leaks are possible.$'; then
	# (that line is no report: a child of the conformance suite looked for leaks while its own threads ran)
	cat "$dir"/sanitizer*
	echo "Bail out! a sanitizer reported, see above"
	status=1
elif ! grep -qE '^(not )?ok ' "$dir/out"; then
	echo "Bail out! no test was run"
	status=1
fi
exit $status
