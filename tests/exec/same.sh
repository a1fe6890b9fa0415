# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034 # bad is the test's exit status
# For the tests of `gmem exec`; sourced, in the build directory.
#
#   need PROGRAM...    ends the test as skipped where one is not installed, or nothing can be managed here
#   same NAME COMMAND  runs COMMAND plainly and managed with a quarter of its peak: the output is the same, byte for
#                      byte, the host keeps to the limit, and at least half of what does not fit was moved
#
# The peak of the plain run is measured here (tests/exec/peak.c), not taken from a list.

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
srcdir=${srcdir:-.}
# The checks of a developer's build keep books of the device's memory: not more of that than is needed.
device=mock:vram=512M,faults=no
bound=${GM_TEST_TIMEOUT:-600}
unset LD_PRELOAD

say()
{
	echo "$@"
	bad=1
}

# managed LIMIT COMMAND...: the report is in $dir/json
managed()
{
	limit=$1
	shift
	rm -f "$dir/json"
	timeout -k 10 "$bound" ./gmem exec --device "$device" --host-limit "$limit" --quiet --json "$dir/json" -- "$@"
}

need()
{
	for p in "$@"; do
		command -v "$p" >/dev/null || { echo "SKIP: $p is not installed: gmem exec of it is NOT tested"; exit 77; }
	done
	test -f gmem-exec.so || { echo "SKIP: no gmem-exec.so (a build with sanitizers): gmem exec is NOT tested"; exit 77; }
	managed 64M true 2>"$dir/err" && return
	if grep -q 'may not manage memory' "$dir/err"; then
		cat "$dir/err"
		echo "SKIP: nothing can be managed here: gmem exec is NOT tested"
		exit 77
	fi
	cat "$dir/err"
	exit 1
}

# value NAME: a number of the report
value()
{
	sed -n "s/^  \"$1\": \([0-9]*\).*/\1/p" "$dir/json"
}

same()
{
	name=$1
	shift
	timeout -k 10 "$bound" tests/exec/peak "$dir/peak" "$@" >"$dir/plain" 2>"$dir/plain.err" </dev/null
	plain=$?
	peak=$(($(cat "$dir/peak") * 1024))
	limit=$((peak / 4))
	test $plain = 0 || say "$name: the plain run has exit status $plain"
	test $peak -gt 30000000 || say "$name: a peak of $peak bytes proves nothing"
	managed $limit "$@" >"$dir/managed" 2>"$dir/managed.err" </dev/null
	status=$?
	test $status = $plain || { say "$name: exit status $status, plainly $plain"; cat "$dir/managed.err"; return; }
	cmp "$dir/plain" "$dir/managed" || say "$name: another output"
	cmp "$dir/plain.err" "$dir/managed.err" || say "$name: another output of errors"
	host=$(value peak_host_bytes)
	moved=$(value bytes_to_device)
	# what the kernel counted, pages of files with it: it cannot be above the peak that was measured by more than these
	counted=$(value max_rss_less_device_bytes)
	echo "$name: peak $peak, limit $limit, on the host $host, moved $moved, home $(value bytes_to_host)," \
		"$(value faults) faults, $(value wall_ns) ns"
	test "$host" -gt 0 || say "$name: nothing was measured"
	test "$host" -le $((limit + limit / 10)) || say "$name: the host had $host of $limit"
	test "$counted" -le $((limit + limit / 10 + (16 << 20))) || say "$name: the kernel counted $counted on the host"
	test "$moved" -ge $(((peak - limit) / 2)) || say "$name: only $moved bytes were moved to the device"
	test "$(value faults)" -gt 0 || say "$name: no access waited"
}
