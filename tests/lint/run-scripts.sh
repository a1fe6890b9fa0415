#!/bin/sh
# SPDX-License-Identifier: MIT
# make lint: run the given checks; one that cannot be made here (77) is said, not counted as a failure.
set -u
bad=0
for s in "$@"; do
	out=$(sh "$s" 2>&1)
	case $? in
	0) echo "  OK      ${s##*/}" ;;
	77) echo "  SKIP    ${s##*/}: $out" ;;
	*)
		echo "  FAIL    ${s##*/}"
		echo "$out"
		bad=1
		;;
	esac
done
exit $bad
