#!/bin/sh
# SPDX-License-Identifier: MIT
# docs/backend-guide.md tells the truth: with a backend cut down to what a step asks for, the command of the step
# passes, for each step of the guide's table, without a reason given for anything but in the last one.
set -u
src=${srcdir:-.}
guide=$src/docs/backend-guide.md
bad=0
seen=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# All of the template but the structure that it exports.
sed '/^const struct gm_plugin gm_plugin = {/,/^};/d' "$src/examples/backend-template/toy.c" >"$dir/toy_part.c"

for step in 1 2 3 4 5 6 7 8; do
	# | step | slots | `--only X` |
	row=$(grep "^| $step | " "$guide")
	# shellcheck disable=SC2016 # backquotes of the table
	only=$(echo "$row" | sed -n 's/.*`--only \([^`]*\)`.*/\1/p')
	if [ -z "$row" ] || { [ -z "$only" ] && [ $step -lt 8 ]; }; then
		echo "step $step: no row of the table with a command"
		bad=1
		continue
	fi
	${CC:-cc} -std=gnu11 -O1 -g -fPIC -shared -DSTEP=$step -I"$src/include" -I"$dir" -o "$dir/step$step.so" \
		"$src/tests/conform/guide_step.c" || exit 1
	out=$(./gmem check --backend "$dir/step$step.so" ${only:+--only "$only"} 2>&1) || {
		echo "step $step: --only $only"
		echo "$out" | grep -A 6 FAIL
		bad=1
	}
	seen=$((seen + 1))
	echo "step $step: $(echo "$out" | tail -n 1)"
done
test $seen = 8 || bad=1
exit $bad
