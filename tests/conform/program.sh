#!/bin/sh
# SPDX-License-Identifier: MIT
# The program gmem: exit status, the three outputs, what is wrong use, and what a skip without a reason is.
set -u
bad=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# want STATUS WHAT COMMAND...
want()
{
	status=$1
	what=$2
	shift 2
	"$@" >"$dir/out" 2>"$dir/err" </dev/null
	got=$?
	if [ $got != "$status" ]; then
		echo "$what: exit status $got, expected $status"
		cat "$dir/out" "$dir/err"
		bad=1
	fi
}

# has WHAT PATTERN
has()
{
	grep -q -e "$2" "$dir/out" "$dir/err" || { echo "$1: no '$2' in:"; cat "$dir/out" "$dir/err"; bad=1; }
}

want 0 "version" ./gmem --version
has "version" '^gmem [0-9]'
want 0 "help" ./gmem help
has "help" check
want 0 "help of check" ./gmem check --help
has "help of check" --backend
want 2 "no command" ./gmem
want 2 "unknown command" ./gmem frobnicate
has "unknown command" frobnicate
want 2 "no backend" ./gmem check
want 2 "unknown backend" ./gmem check --backend nonesuch
has "unknown backend" nonesuch
want 2 "no such object" ./gmem check --backend "$dir/nonesuch.so"
want 2 "no such test" ./gmem check --backend mock --only map/nonesuch
has "no such test" 'no test is called map/nonesuch (--list shows all)$'
want 2 "bad seed" ./gmem check --backend mock --seed x
want 2 "seed of 23 digits" ./gmem check --backend mock --only table --seed 12345678901234567890123
want 2 "json and list" ./gmem check --backend mock --only table --json --list
has "json and list" '^--json and --list: '
want 2 "tap and list" ./gmem check --backend mock --only table --tap --list
want 2 "tap and json" ./gmem check --backend mock --only table --tap --json
want 0 "tap twice" ./gmem check --backend mock --only table --tap --tap
# Results that nobody got are none.
for style in "" --tap --json --list; do
	# shellcheck disable=SC2086
	want 2 "closed $style" sh -c 'exec ./gmem check --backend mock --only table "$@" >&-' sh $style
	has "closed $style" 'standard output'
	test -w /dev/full || continue
	# shellcheck disable=SC2086
	want 2 "full $style" sh -c 'exec ./gmem check --backend mock --only table "$@" >/dev/full' sh $style
	has "full $style" 'standard output'
done
want 2 "no value" ./gmem check --backend mock --only

want 1 "bad options" ./gmem check --backend mock:nonesuch=1
has "bad options" 'options: '
want 0 "table" ./gmem check --backend mock --only table
has "table" '5 passed, 0 failed, 0 skipped'
want 0 "several" ./gmem check --backend mock --only table/slots,memory/zero
has "several" '2 passed'
want 0 "tap" ./gmem check --backend mock:faults=no --only table,fault --tap
has "tap" '^1\.\.13$'
has "tap" '^ok 1 - table/slots$'
has "tap" '^ok 6 - fault/served # SKIP .*GM_CAP_FAULTS'
want 1 "only skips" ./gmem check --backend mock:faults=no --only fault
want 1 "tap, failing" ./gmem check --backend mock:bug=skip_zero --only memory --tap
has "tap, failing" '^not ok 2 - memory/zero$'
want 1 "seed" ./gmem check --backend mock:bug=wrong_pa --only map/random --seed 7
has "seed" 'seed 7'
want 0 "list" ./gmem check --backend mock --list
has "list" '^map/random  *GM_CAP_ACCESS$'
want 0 "list without a backend" ./gmem check --list
has "list without a backend" '^map/random  *GM_CAP_ACCESS$'
want 0 "list of one" ./gmem check --only map/random --list
want 2 "list of none" ./gmem check --only map/nonesuch --list
want 1 "json" ./gmem check --backend mock:bug=skip_zero --only memory --json
has "json" '"outcome": "fail"'
if command -v python3 >/dev/null; then
	python3 -c 'import json, sys; json.load(sys.stdin)' <"$dir/out" || { echo "the JSON is none"; bad=1; }
fi
exit $bad
