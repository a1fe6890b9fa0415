#!/bin/sh
# SPDX-License-Identifier: MIT
# The conformance suite finds each error planted in the mock, in the test that is made for it, for the reason that it
# is: one line per error, with the test and how the reason begins. The same test passes without the error.
#
#   BUG OPTIONS TEST REASON...
set -u
bad=0
say()
{
	echo "$1"
	bad=1
}

while read -r bug options test reason; do
	test -n "$bug" || continue
	test "$options" != - || options=
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
skip_invl       -                     invalidate/gone      GM_RULE_STALE:
skip_invl       -                     invalidate/reuse     GM_RULE_STALE:
skip_invl       -                     invalidate/readers   GM_RULE_STALE:
skip_remove     -                     map/enter_remove     GM_RULE_STALE:
skip_copy       -                     memory/round_trip    GM_RULE_COPY_BYTES:
skip_zero       -                     memory/zero          GM_RULE_COPY_ZERO:
wrong_pa        -                     map/whole            bytes:
early_fence     copy=async            fence/not_early      GM_RULE_COPY_BYTES:
lost_fault      -                     fault/many           fault:
ignore_rights   -                     protect/read_only    GM_RULE_WRITE_ALLOWED:
END
exit $bad
