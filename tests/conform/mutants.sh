#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite finds each error planted in the mock, in the test that is made for it, for the reason that it
# is: one line per error, with the test and how the reason begins. The same test passes without the error.
#
#   BUG OPTIONS TEST REASON...
set -u
bad=0
named=" none"
say()
{
	echo "$1"
	bad=1
}

while read -r bug options test reason; do
	test -n "$bug" || continue
	test "$options" != - || options=
	named="$named $bug"
	./gmem check --tap --bound 2 --only "$test" --backend "mock:$options" >/dev/null 2>&1 ||
		say "mock:$options fails $test without an error planted"
	out=$(./gmem check --tap --bound 2 --only "$test" --backend "mock:$options${options:+,}bug=$bug" 2>/dev/null)
	status=$?
	if [ $status != 1 ]; then
		say "$bug: $test did not fail (status $status)"
	elif ! echo "$out" | grep -q "^not ok .*$test\$"; then
		say "$bug: something else failed than $test: $out"
	elif ! echo "$out" | grep -q "^# $reason"; then
		say "$bug: $test failed for another reason than '$reason': $(echo "$out" | grep '^# ' | head -n 1)"
	else
		echo "$bug: $(echo "$out" | grep -m 1 "^# $reason")"
	fi
done <<END
skip_invl         -          invalidate/gone      GM_RULE_STALE:
skip_invl         -          invalidate/readers   GM_RULE_STALE:
skip_remove       -          map/enter_remove     GM_RULE_STALE:
skip_copy         -          memory/round_trip    GM_RULE_COPY_BYTES:
skip_zero         -          memory/zero          GM_RULE_COPY_ZERO:
wrong_pa          -          map/enter_remove     bytes:
wrong_pa          -          map/random           GM_RULE_ENTER_ELSEWHERE:
early_fence       copy=async fence/not_early      GM_RULE_COPY_BYTES:
lost_fault        -          fault/many           fault:
ignore_rights     -          protect/read_only    GM_RULE_WRITE_ALLOWED:
va_alias          -          map/aliases          alias:
enter_short       -          map/whole            GM_RULE_ENTER_LOST:
enter_half        -          nth/pmap_enter       GM_RULE_FAILED_EFFECT:
enter_half        -          plan/failed          hole:
enter_writable    -          protect/read_only    GM_RULE_WRITE_ALLOWED:
enter_no_grow     -          map/upgrade          mapping:
enter_exist       -          map/idempotent       GM_RULE_RESULT:
enter_again       -          nth/pmap_enter       GM_RULE_RESULT:
remove_large      -          map/cut              mapping:
remove_large      -          map/random           GM_RULE_CUT:
remove_neighbour  -          map/cut              mapping:
remove_half       -          nth/pmap_remove      GM_RULE_FAILED_EFFECT:
remove_noent      -          map/idempotent       GM_RULE_RESULT:
split_rights      -          protect/part         mapping:
split_rights      -          trace/same_as_mock   trace:
protect_first     -          protect/change       GM_RULE_WRITE_ALLOWED:
protect_moves     -          protect/part         GM_RULE_PROTECT_HOLE:
protect_drops     -          protect/part         GM_RULE_\(PROTECT_HOLE\|CUT\):
protect_fills     -          protect/holes        hole:
create_early      -          lifecycle/pmaps      GM_RULE_CONTEXTS_FEWER:
create_unbounded  -          lifecycle/pmaps      GM_RULE_CONTEXTS_MORE:
destroy_leak      -          lifecycle/pmaps      GM_RULE_LEAK:
fini_leak         -          lifecycle/again      GM_RULE_LEAK:
invl_first        -          invalidate/gone      GM_RULE_STALE:
invl_one_tlb      -          invalidate/jobs      stale translation:
invl_no_wait      -          host/in_flight       access in flight:
rights_stick      -          map/upgrade          mapping:
copy_shift        -          memory/round_trip    GM_RULE_COPY_BYTES:
copy_swap         -          memory/slabs         GM_RULE_COPY_BYTES:
copy_last         -          memory/many          GM_RULE_COPY_BYTES:
fence_twice       -          memory/round_trip    GM_RULE_SIGNAL_TWICE:
fence_after_error -          fence/refused        GM_RULE_SIGNAL_FAILED:
fence_never       -          memory/sizes         fence:
fence_success     -          plan/failed          GM_RULE_PLAN_RESULT:
plan_reversed     -          plan/chain           GM_RULE_COPY_BYTES:
plan_no_ret       -          plan/single          GM_RULE_STEP_RET:
plan_goes_on      -          plan/failed          GM_RULE_STEP_AFTER_FAILURE:
plan_drops_last   -          workset/many         GM_RULE_ENTER_LOST:
fault_twice       -          fault/served         named once:
fault_va          -          fault/served         fault:
fault_access      -          fault/right          fault:
fault_one_waiter  -          fault/range          replay:
fault_one_page    -          fault/range          replay:
fault_result      -          fault/refused        answer:
fault_blocks      -          fault/served         GM_RULE_FAULT_BLOCKS:
fault_silent      -          fault/range          \(fault\|GM_RULE_FAULT_SILENT\):
cpu_ptr_off       -          visible/pages        GM_RULE_COPY_BYTES:
sync_early        -          sync/results         completion:
sync_success      -          sync/results         completion:
sync_silent       -          sync/late            completion:
dirty_lost        dirty=yes  dirty/bits           GM_RULE_HARVEST_LOST:
END
# None is forgotten: the mock's own list of names.
for bug in $(sed -n 's/^.*\[GM_MOCK_BUG_[A-Z_]*\] = "\([a-z_]*\)".*/\1/p' "${srcdir:-.}/backends/mock/gm_mock_bug.c"); do
	case "$named " in *" $bug "*) ;; *) say "$bug: no test is named that finds it" ;; esac
done
exit $bad
