#!/bin/sh
# SPDX-License-Identifier: MIT
# What a program does to itself under `gmem exec`: tests/exec/victim.c does it and checks every byte; this looks at
# how it ends, what it sees of its environment, and that its memory was away indeed.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
need true
victim=tests/exec/victim

# Variables of threads lie in the static block, and nothing is bound later: see tools/preload/preload.h.
readelf=$(command -v "${READELF:-readelf}")
if [ -n "$readelf" ]; then
	"$readelf" -rW gmem-exec.so | grep -E 'DTPMOD|TLSDESC' && say "a variable of threads is allocated when it is first used"
	"$readelf" -dW gmem-exec.so | grep -q 'NOW' || say "functions are bound late"
fi

for what in close fork kernel malloc map remap rights scattered spawn threads; do
	managed 10M $victim $what >"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	if [ $status != 0 ] || [ "$(tail -n 1 "$dir/out")" != good ]; then
		say "$what: exit status $status"
		cat "$dir/out" "$dir/err"
		continue
	fi
	echo "$what: on the host $(value peak_host_bytes), moved $(value bytes_to_device), home $(value bytes_to_host)"
	test "$(value bytes_to_device)" -gt 5000000 || say "$what: nothing was away"
	# not one of the programs that are started reads the memory of this one; the heap is not empty
	test $what != spawn || test "$(value bytes_to_host)" -le $((2 << 20)) || say "spawn: memory came home for it"
	test $what != scattered || test "$(value bytes_to_host)" -le $((100 << 20)) || say "scattered: too much came home"
	# a child has a copy of everything: all comes home for that
	test $what = fork || test "$(value peak_host_bytes)" -le $((12 << 20)) || say "$what: too much on the host"
done

# a large device that is hardly used costs nothing: what the library keeps of it is of what is in use
small=$device
device=mock:vram=256G,faults=no
managed 10M $victim malloc >"$dir/out" 2>"$dir/err" </dev/null || { say "a large device"; cat "$dir/out" "$dir/err"; }
echo "a large device: beside the managed $(value peak_rest_bytes), on the host $(value peak_host_bytes)"
test "$(value peak_rest_bytes)" -le $((4 << 20)) || say "a large device: $(value peak_rest_bytes) beside the managed"
device=$small

managed 10M $victim exit 7
status=$?
test $status = 7 || say "exit status 7 became $status"
managed 10M $victim signal 9 2>/dev/null
status=$?
test $status = 137 || say "SIGKILL became $status"
grep -q '"signal": 9' "$dir/json" || say "SIGKILL is not in the report"
managed 10M sh -c 'echo one | cat | tr o O; exit 3' >"$dir/out"
status=$?
test $status = 3 || say "a shell's status 3 became $status"
test "$(cat "$dir/out")" = One || say "a shell's pipeline"

# nothing of gmem in the environment, and what was there stays
env -i A=1 ./gmem exec --quiet --device "$device" ./$victim env >"$dir/out"
test "$(grep -v '^good' "$dir/out")" = A=1 || { say "another environment:"; cat "$dir/out"; }

# a signal to gmem reaches the program, whose status it has then
./gmem exec --quiet --device "$device" --host-limit 10M -- $victim wait >"$dir/out" &
pid=$!
i=0
until grep -q ready "$dir/out" || [ $i -ge 600 ]; do
	sleep 0.1
	i=$((i + 1))
done
kill -TERM $pid
wait $pid
status=$?
test $status = 41 || say "SIGTERM handed on: status $status"

# the report is on standard error, and nowhere else
./gmem exec --device "$device" --host-limit 10M -- $victim malloc >"$dir/out" 2>"$dir/err"
test "$(cat "$dir/out")" = good || say "standard output is not the program's alone"
grep -q 'moved to the device' "$dir/err" || say "no table"
exit $bad
