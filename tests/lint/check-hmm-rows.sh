#!/bin/sh
# SPDX-License-Identifier: MIT
# Every row of the HMM table (tests/hmm/rows.txt) has its test and its line in docs/hmm-table.md, once; nothing else does.
set -eu
cd "${srcdir:-.}"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

grep -v '^#' tests/hmm/rows.txt | LC_ALL=C sort >"$dir/rows"
sed -n 's/^HMM_TEST(\([a-z0-9_]*\))$/\1/p' tests/hmm/*.c | LC_ALL=C sort >"$dir/tests"
sed -n 's/^HMM_MORE(\([a-z0-9_]*\), [a-z0-9_]*)$/\1/p' tests/hmm/*.c | LC_ALL=C sort -u >"$dir/more"
sed -n 's/^| `\([a-z0-9_]*\)` |.*/\1/p' docs/hmm-table.md | LC_ALL=C sort >"$dir/docs"

n=$(grep -c . "$dir/rows")
test "$n" = 40 || { echo "tests/hmm/rows.txt: $n rows, not 40"; bad=1; }
for f in tests docs; do
	diff "$dir/rows" "$dir/$f" >"$dir/diff" && continue
	echo "rows without ($f: '<') or not in the table ('>'):"
	grep '^[<>]' "$dir/diff"
	bad=1
done
more=$(LC_ALL=C comm -13 "$dir/rows" "$dir/more")
test -z "$more" || { echo "HMM_MORE() of no row: $more"; bad=1; }
exit $bad
