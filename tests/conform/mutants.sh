#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite finds each error planted in the mock, in the test that is made for it, for the reason that it
# is: one line per error and test, with how the reason begins. The same tests pass without the error. No error and no
# test is forgotten.
#
# Where threads race in the test (invalidate/readers, /writers), the suite and the shim look for the same thing, and either
# may see it first: then all that name it are right, and so is the copy that a stale store has spoilt.
#
#   BUG OPTIONS TEST REASON...
set -u
bad=0
list=$(mktemp)
trap 'rm -f "$list"' EXIT
say()
{
	echo "$1"
	bad=1
}

cat >"$list" <<END
skip_invl         -                        invalidate/gone       GM_RULE_STALE:
skip_invl         -                        invalidate/readers    \(GM_RULE_STALE\|GM_RULE_ENTER_ELSEWHERE\|stale translation\):
skip_remove       -                        map/enter_remove      GM_RULE_STALE:
skip_copy         -                        memory/round_trip     GM_RULE_COPY_BYTES:
skip_zero         -                        memory/zero           GM_RULE_COPY_ZERO:
wrong_pa          -                        map/enter_remove      bytes:
wrong_pa          -                        map/random            GM_RULE_ENTER_ELSEWHERE:
early_fence       copy=async               fence/not_early       GM_RULE_COPY_BYTES:
lost_fault        -                        fault/many            fault:
ignore_rights     -                        protect/read_only     GM_RULE_WRITE_ALLOWED:
enter_short       -                        map/whole             GM_RULE_ENTER_LOST:
enter_half        -                        nth/pmap_enter        GM_RULE_FAILED_EFFECT:
enter_half        -                        plan/failed           hole:
enter_writable    -                        protect/read_only     GM_RULE_WRITE_ALLOWED:
enter_no_grow     -                        map/upgrade           mapping:
enter_exist       -                        map/idempotent        GM_RULE_RESULT:
enter_again       -                        nth/pmap_enter        GM_RULE_RESULT:
remove_large      -                        map/cut               mapping:
remove_large      -                        map/random            GM_RULE_CUT:
remove_neighbour  -                        map/cut               mapping:
remove_half       -                        nth/pmap_remove       GM_RULE_FAILED_EFFECT:
remove_noent      -                        map/idempotent        GM_RULE_RESULT:
split_rights      -                        protect/part          mapping:
split_rights      -                        trace/same_as_mock    trace:
protect_first     -                        protect/change        GM_RULE_WRITE_ALLOWED:
protect_moves     -                        protect/part          GM_RULE_PROTECT_HOLE:
protect_drops     -                        protect/part          GM_RULE_\(PROTECT_HOLE\|CUT\):
protect_fills     -                        protect/holes         hole:
create_early      -                        lifecycle/pmaps       GM_RULE_CONTEXTS_FEWER:
create_unbounded  -                        lifecycle/pmaps       GM_RULE_CONTEXTS_MORE:
destroy_leak      -                        lifecycle/pmaps       GM_RULE_LEAK:
fini_leak         -                        lifecycle/again       GM_RULE_LEAK:
invl_first        -                        invalidate/gone       GM_RULE_STALE:
invl_one_tlb      -                        invalidate/jobs       stale translation:
invl_no_wait      -                        host/in_flight        access in flight:
rights_stick      -                        map/upgrade           mapping:
copy_shift        -                        memory/round_trip     GM_RULE_COPY_BYTES:
copy_swap         -                        memory/slabs          GM_RULE_COPY_BYTES:
copy_last         -                        memory/many           GM_RULE_COPY_BYTES:
fence_twice       -                        memory/round_trip     GM_RULE_SIGNAL_TWICE:
fence_after_error -                        fence/refused         GM_RULE_SIGNAL_FAILED:
fence_never       -                        memory/sizes          fence:
fence_success     -                        plan/failed           GM_RULE_PLAN_RESULT:
plan_reversed     -                        plan/chain            GM_RULE_COPY_BYTES:
plan_no_ret       -                        plan/single           GM_RULE_STEP_RET:
plan_goes_on      -                        plan/failed           GM_RULE_STEP_AFTER_FAILURE:
plan_drops_last   -                        workset/many          GM_RULE_ENTER_LOST:
fault_twice       -                        fault/served          named once:
fault_va          -                        fault/served          fault:
fault_access      -                        fault/right           fault:
fault_one_waiter  -                        fault/range           replay:
fault_one_page    -                        fault/range           replay:
fault_result      -                        fault/refused         answer:
fault_unnamed     -                        fault/refused_later   fault:
fault_blocks      -                        fault/served          GM_RULE_FAULT_BLOCKS:
fault_silent      -                        fault/range           \(fault\|GM_RULE_FAULT_SILENT\):
cpu_ptr_off       -                        visible/pages         GM_RULE_COPY_BYTES:
sync_early        -                        sync/results          completion:
sync_success      -                        sync/results          completion:
sync_silent       -                        sync/late             completion:
dirty_lost        dirty=yes                dirty/bits            GM_RULE_HARVEST_LOST:
destroy_other     -                        lifecycle/apart       mapping:
devices_share     -                        lifecycle/two_devices bytes:
access_straight   -                        map/across            bytes:
va_alias          -                        map/aliases           alias:
fence_never       -                        fence/chained         callback:
enter_all         -                        map/contexts          hole:
enter_top         vabits=32                map/ends              GM_RULE_ENTER_LOST:
skip_copy         -                        fence/in_flight       GM_RULE_COPY_BYTES:
skip_copy         -                        fence/threads         GM_RULE_COPY_BYTES:
ignore_rights     -                        host/in_place         GM_RULE_HOST_WRITE:
skip_invl         -                        host/turns            GM_RULE_HOST_UNMAPPED:
invl_first        -                        invalidate/batch      GM_RULE_\(STALE\|ENTER_ELSEWHERE\):
skip_invl         -                        invalidate/reuse      GM_RULE_\(STALE\|ENTER_ELSEWHERE\):
skip_invl         -                        invalidate/rights     GM_RULE_WRITE_ALLOWED:
skip_invl         -                        invalidate/writers    \(GM_RULE_STALE\|GM_RULE_ENTER_ELSEWHERE\|GM_RULE_COPY_BYTES\|access in flight\):
fault_va          -                        fault/again           fault:
destroy_result    -                        fault/canceled        answer:
plan_reversed     -                        plan/migrate          GM_RULE_CUT:
fence_after_error -                        plan/refused          GM_RULE_STEP_RET:
sync_early        -                        sync/refused          completion:
peer_wrong        peer=1                   peer/copy             GM_RULE_COPY_BYTES:
cpu_ptr_off       -                        visible/coherent      GM_RULE_COPY_BYTES:
remove_neighbour  -                        workset/held          \(GM_RULE_CUT\|mapping\|result: access to load\)
remove_neighbour  -                        threads/one_table     \(GM_RULE_CUT\|mapping\):
remove_neighbour  -                        threads/two_tables    \(GM_RULE_CUT\|mapping\):
dirty_lost        dirty=yes                dirty/mapped          GM_RULE_HARVEST_LOST:
init_leak         copy=async               nth/dev_init          GM_RULE_LEAK:
create_half       -                        nth/pmap_create       GM_RULE_CONTEXTS_FEWER:
protect_half      -                        nth/pmap_protect      GM_RULE_FAILED_EFFECT:
fence_after_error copy=async               nth/copy              GM_RULE_SIGNAL_RESULT:
fence_after_error copy=async               nth/submit            GM_RULE_STEP_RET:
remove_half       -                        nth/submit            mapping:
harvest_clears    dirty=yes                nth/pmap_harvest      GM_RULE_
sync_writes       -                        nth/sync_create       GM_RULE_OUT_TOUCHED:
fence_after_error -                        nth/sync_import       GM_RULE_SIGNAL_FAILED:
needs_memory      -                        nth/tlb_invl          GM_RULE_RESULT:
needs_memory      -                        nth/access            GM_RULE_RESULT:
needs_memory      -                        nth/fault_done        GM_RULE_RESULT:
needs_memory      peer=1                   nth/peer_reach        result:
enter_half        -                        nth/hooks             GM_RULE_FAILED_EFFECT:
lost_alive        -                        lost/operations       lost:
lost_fence        copy=async,copyns=5000000 lost/in_flight        fence:
lost_waits        -                        lost/faults           lost:
halt_late         copy=async,copyns=5000000 lost/halt             halt:
halt_ignored      -                        lost/hang             GM_RULE_HALT_PENDING:
halt_ignored      -                        lost/hang_plan        GM_RULE_HALT_PENDING:
END

# tests OPTIONS [BUG]: the tests of the lines with these options, with commas.
tests()
{
	awk -v o="$1" -v b="${2:-}" '$2 == o && (b == "" || $1 == b) { t = t s $3; s = "," } END { print t }' "$list"
}

# Without an error all pass: a run for each kind of device.
# shellcheck disable=SC2013 # words without blanks, here and below
for options in $(awk '{ print $2 }' "$list" | sort -u); do
	words=${options#-}
	out=$(./gmem check --tap --bound 10 --only "$(tests "$options")" --backend "mock:$words" 2>/dev/null) ||
		say "mock:$words fails without an error planted: $(echo "$out" | grep -A 1 '^not ok')"
	! echo "$out" | grep '# SKIP' || say "mock:$words cannot run all of $(tests "$options")"
done

# With one each of its tests fails as it must: a run for each error on each kind of device.
# shellcheck disable=SC2013
for pair in $(awk '{ print $1 "/" $2 }' "$list" | sort -u); do
	bug=${pair%%/*}
	options=${pair#*/}
	words=${options#-}
	out=$(./gmem check --tap --bound 2 --only "$(tests "$options" "$bug")" \
		--backend "mock:$words${words:+,}bug=$bug" 2>/dev/null)
	status=$?
	test $status = 1 || say "$bug: the suite did not fail (status $status)"
	while read -r a_bug a_options test reason; do
		test "$a_bug/$a_options" = "$pair" || continue
		why=$(echo "$out" | sed -n "/^not ok .*- $(echo "$test" | sed 's,/,\\/,')\$/{n;p;}")
		if [ -z "$why" ]; then
			say "$bug: $test did not fail"
		elif ! echo "$why" | grep -q "^# $reason"; then
			say "$bug: $test failed for another reason than '$reason': $why"
		else
			echo "$bug: $test: ${why#\# }"
		fi
	done <"$list"
done

# No error is forgotten: the mock's own list of names. Where there is none nothing was looked at, and all would be well.
file=${srcdir:-.}/backends/mock/gm_mock_bug.c
bugs=$(sed -n 's/^.*\[GM_MOCK_BUG_[A-Z_]*\] = "\([a-z_]*\)".*/\1/p' "$file")
test -n "$bugs" || say "$file has no list of errors: is srcdir right?"
for bug in $bugs; do
	test "$bug" = none || grep -q "^$bug " "$list" || say "$bug: no test is named that finds it"
done
# No test: the suite's own list. The group table and fence/can_halt look at what a backend says of itself, which no planted
# error changes: tests/unit/test_conform.c has a backend for each of these tests.
names=$(./gmem check --backend mock --list | awk '{ print $1 }')
test -n "$names" || say "gmem check --list names no test"
for test in $names; do
	case $test in
	table/* | fence/can_halt) ;;
	*) awk -v t="$test" '$3 == t { found = 1 } END { exit !found }' "$list" || say "$test: no error is named that it finds" ;;
	esac
done
exit $bad
