#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite passes on the mock, in every preset and other configurations, and skips nothing that is there.
#
#   one line: how many tests are skipped at most, and the options
#
# GM_TEST_ENGINES=1: only those whose engines are threads, which is what ThreadSanitizer is there for; it is slow.
set -u
bad=0
while read -r skipped options; do
	test -n "$skipped" || continue
	case ${GM_TEST_ENGINES:-}$options in
	1*copy=async* | 1*preset=async* | 1*preset=chaos*) ;;
	1*) continue ;;
	esac
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
5 preset=default
15 preset=nofault
5 preset=smallbar
10 preset=blind
5 preset=bigpage
5 preset=page64k
61 preset=minimal
5 preset=async
2 preset=chaos
8 preset=single
5 preset=narrow
5 preset=pcie
5 tlb=1
5 tlb=4096
5 vram=512K,pages=4K
5 vram=1M,pages=64K,vabits=32
5 pages=4K+2M
5 contexts=2
12 submit=no
8 hostmap=no
27 faults=no,submit=no,hostmap=no,visible=no,pages=64K,copy=async
END
# None is forgotten.
for name in $(sed -n 's/^\t{ "\([a-z0-9]*\)", ".*/\1/p' "${srcdir:-.}/backends/mock/gm_mock_preset.c"); do
	grep -q "^[0-9]* preset=$name\$" "$0" || { echo "preset=$name is not in this list"; bad=1; }
done
exit $bad
