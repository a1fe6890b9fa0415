#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite passes on the mock, in every preset and other configurations, and skips nothing that is there.
#
#   one line: how many tests are skipped at most, and the options
set -u
bad=0
while read -r skipped options; do
	test -n "$skipped" || continue
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
0 dirty=yes,peer=1
0 dirty=yes,peer=1,copy=async,copyns=200000
4 preset=default
12 preset=nofault
4 preset=smallbar
9 preset=blind
4 preset=bigpage
4 preset=page64k
54 preset=minimal
4 preset=async
1 preset=chaos
7 preset=single
4 preset=narrow
4 preset=pcie
4 tlb=1
4 tlb=4096
4 vram=512K,pages=4K
4 vram=1M,pages=64K,vabits=32
4 pages=4K+2M
4 contexts=2
10 submit=no
7 hostmap=no
23 faults=no,submit=no,hostmap=no,visible=no,pages=64K,copy=async
END
# None is forgotten.
for name in $(sed -n 's/^\t{ "\([a-z0-9]*\)", ".*/\1/p' "${srcdir:-.}/backends/mock/gm_mock_preset.c"); do
	grep -q "^[0-9]* preset=$name\$" "$0" || { echo "preset=$name is not in this list"; bad=1; }
done
exit $bad
