#!/bin/sh
# SPDX-License-Identifier: MIT
# zstd with a window as large as the file, there and back.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
need zstd awk
awk 'BEGIN { for (i = 0; i < 900000; i++) print i * 7919 % 1000003, "of", i, i % 977, "the quick brown fox" }' >"$dir/text"
same compress zstd -q -1 --single-thread --long=26 -c "$dir/text"
cp "$dir/managed" "$dir/text.zst"
same decompress zstd -q -d --long=26 -c "$dir/text.zst"
cmp "$dir/text" "$dir/managed" || say "zstd: not what was compressed"
exit $bad
