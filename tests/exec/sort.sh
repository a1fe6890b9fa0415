#!/bin/sh
# SPDX-License-Identifier: MIT
# sort of a file of long lines, all of it in memory, by one thread and by several.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
need sort awk
awk 'BEGIN { pad = sprintf("%4000s", ""); for (i = 0; i < 10000; i++) print i * 7919 % 10007, i, pad }' >"$dir/text"
same sort sort --parallel=1 -n "$dir/text"
same threads sort --parallel=4 -n "$dir/text"
exit $bad
