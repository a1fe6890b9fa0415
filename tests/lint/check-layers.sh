#!/bin/sh
# SPDX-License-Identifier: MIT
# What a layer includes, directly or not, is what it may include. The proof is
# the compiler's own record (.deps/*.Po), not the text of the sources. Without
# such a record nothing is proved, and the check says so instead of passing.
#
#   layer         may include
#   include/gmem  <gmem/...> and the C library
#   core          include/gmem, core, hal (not hal/sim, not hal/host)
#   hal           include/gmem, hal       (not hal/sim)
#   hal/sim       include/gmem, hal
#   backends/x    include/gmem, backends/x
#   bench conform tools examples   include/gmem and their own directory; benchmarks of the core alone also core, hal
set -eu
src=$(cd "${srcdir:-.}" && pwd -P)
top=$(pwd -P)

# Names of the object files' dependency records -> "record dependency" lines.
records=$(find core hal backends conform bench tools -name '*.Po' 2>/dev/null | LC_ALL=C sort)
full=
for r in $records; do
	grep -q '\.c' "$r" && full="$full $r"
done
if [ -z "$full" ]; then
	echo "SKIP: no dependency records (--disable-dependency-tracking, or nothing compiled): layers NOT checked"
	exit 77
fi

bad=0
# Each compiled source of the product must have a record.
for f in $(cd "$src" && find core hal backends conform tools -name '*.c' | LC_ALL=C sort); do
	base=$(basename "$f" .c)
	found=$(find "$(dirname "$f")/.deps" -name "*-$base.Po" 2>/dev/null | head -n 1)
	if [ -z "$found" ] || ! grep -q '\.c' "$found"; then
		echo "$f: no dependency record: not compiled, so its layer is not proved"
		bad=1
	fi
done

allowed()
{
	case $1 in
	core/*) echo 'include/gmem/*|core/*|hal/gm_*' ;;
	hal/sim/*) echo 'include/gmem/*|hal/*' ;;
	*gm_mock_api.Po) echo 'include/gmem/*|backends/mock/*|hal/gm_handle.h' ;; # public functions, not a backend's
	*gm_backends.Po) echo 'include/gmem/*|hal/gm_*|backends/*/gm_*_spec.h' ;; # the table of backends
	hal/*) echo 'include/gmem/*|hal/gm_*|hal/host/*' ;;
	backends/*) echo "include/gmem/*|$(echo "$1" | cut -d/ -f1-2)/*" ;;
	bench/*bench_frames.Po | bench/*bench_devfault.Po | bench/*bench_ws.Po | bench/*bench_index.Po | bench/*known_host.Po)
		echo 'include/gmem/*|bench/*|core/*|hal/gm_*' ;; # white box
	*) echo "include/gmem/*|${1%%/*}/*" ;;
	esac
}

matches()
{
	(
		set -f
		IFS='|'
		for p in $2; do
			# shellcheck disable=SC2254 # a pattern is meant
			case $1 in $p) exit 0 ;; esac
		done
		exit 1
	)
}

for r in $full; do
	may=$(allowed "$r")
	# "a.o: b.c c.h \" -> one path per line, relative to the source tree
	for d in $(sed -e 's/^[^:]*://' -e 's/\\$//' "$r" | tr -s ' \t' '\n' | sed '/^$/d' | LC_ALL=C sort -u |
		xargs realpath -m -s --); do
		case $d in
		"$top"/build-aux/config.h | "$src"/build-aux/config.h) continue ;;
		"$src"/*) rel=${d#"$src"/} ;;
		*) continue ;;
		esac
		matches "$rel" "$may" || { echo "$r: includes $rel (may include $may)"; bad=1; }
	done
done

# Public headers: each other and the C library.
grep -nE '^[[:space:]]*#[[:space:]]*include' "$src"/include/gmem/*.h |
	grep -vE '#include <(gmem/[a-z]+|errno|limits|stdarg|stdbool|stddef|stdint)\.h>' && bad=1
exit $bad
