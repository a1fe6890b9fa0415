#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite passes on the mock, in every configuration, and skips nothing that is there.
#
#   one line: how many tests are skipped at most, and the options
set -u
bad=0
while read -r skipped options; do
	test -n "$skipped" || continue
	test "$options" != - || options=
	out=$(./gmem check --backend "mock:$options" 2>&1)
	status=$?
	last=$(echo "$out" | tail -n 1)
	echo "mock:$options: $last"
	n=${last#*failed, }
	if [ $status != 0 ]; then
		echo "$out" | grep -A 8 FAIL
		bad=1
	elif [ "${n%% *}" -gt "$skipped" ]; then
		echo "$out" | grep ' skip '
		echo "more than $skipped skipped"
		bad=1
	fi
done <<END
8 -
8 copy=async
8 copy=async,copyns=200000
8 tlb=1
8 tlb=4096
8 vram=512K,pages=4K
8 vram=1M,pages=64K,vabits=32
8 vram=64M,pages=2M
8 pages=4K+2M
8 pages=64K+2M
11 contexts=1
8 contexts=2
14 submit=no
16 faults=no
10 hostmap=no
10 visible=no
26 faults=no,submit=no,hostmap=no,visible=no
26 faults=no,submit=no,hostmap=no,visible=no,pages=64K,copy=async
END
exit $bad
