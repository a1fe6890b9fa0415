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
4 -
4 copy=async
4 copy=async,copyns=200000
4 tlb=1
4 tlb=4096
4 vram=512K,pages=4K
4 vram=1M,pages=64K,vabits=32
4 vram=64M,pages=2M
4 pages=4K+2M
4 pages=64K+2M
7 contexts=1
4 contexts=2
10 submit=no
12 faults=no
7 hostmap=no
6 visible=no
23 faults=no,submit=no,hostmap=no,visible=no
23 faults=no,submit=no,hostmap=no,visible=no,pages=64K,copy=async
END
exit $bad
