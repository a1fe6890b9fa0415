#!/bin/sh
# SPDX-License-Identifier: MIT
# Every row of the HMM table (tests/hmm/rows.txt) has its test and its line in docs/hmm-table.md, once; nothing else does.
# A row that waits for something has no test yet.
set -eu
cd "${srcdir:-.}"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

grep -v '^#' tests/hmm/rows.txt | sed 's/ .*//' | LC_ALL=C sort >"$dir/rows"
grep -v '^#' tests/hmm/rows.txt | grep -v ' waits for: ' | LC_ALL=C sort >"$dir/ready"
sed -n 's/^HMM_TEST(\([a-z0-9_]*\))$/\1/p' tests/hmm/*.c | LC_ALL=C sort >"$dir/tests"
sed -n 's/^HMM_MORE(\([a-z0-9_]*\), [a-z0-9_]*)$/\1/p' tests/hmm/*.c | LC_ALL=C sort -u >"$dir/more"
sed -n 's/^| `\([a-z0-9_]*\)` |.*/\1/p' docs/hmm-table.md | LC_ALL=C sort >"$dir/docs"

n=$(grep -c . "$dir/rows")
test "$n" = 40 || { echo "tests/hmm/rows.txt: $n rows, not 40"; bad=1; }
compare() { # WHAT LIST FOUND
	diff "$dir/$2" "$dir/$3" >"$dir/diff" && return
	echo "$1: '<' is missing, '>' is one too many:"
	grep '^[<>]' "$dir/diff"
	bad=1
}
compare "tests of the rows that wait for nothing" ready tests
compare "lines of docs/hmm-table.md" rows docs
more=$(LC_ALL=C comm -13 "$dir/rows" "$dir/more")
test -z "$more" || { echo "HMM_MORE() of no row: $more"; bad=1; }
exit $bad
