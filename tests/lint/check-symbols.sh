#!/bin/sh
# SPDX-License-Identifier: MIT
# libgmem.a exports exactly the functions that the public headers mark GM_API,
# and needs no symbol of its own that it does not have. libgmem-conform.a
# exports those of gmem/conform.h, and needs of libgmem.a only public ones.
set -eu
src=${srcdir:-.}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

declared()
{
	"${AWK:-awk}" -f "$src/docs/public-functions.awk" "$@" | cut -f 2 | LC_ALL=C sort -u
}

# __odr_asan.*: markers that AddressSanitizer adds
exported()
{
	"${NM:-nm}" -g --defined-only "$1" | awk 'NF == 3 && $3 !~ /^__odr_asan/ { print $3 }' | LC_ALL=C sort -u
}

# ARCHIVE DECLARED MAY_NEED: what it exports is what is declared; what it lacks is in MAY_NEED
check_archive()
{
	exported "$1" >"$dir/exported"
	"${NM:-nm}" -u "$1" | awk 'NF >= 2 && $2 ~ /^gm_/ { print $2 }' | LC_ALL=C sort -u >"$dir/needed"
	test -s "$2" || { echo "no GM_API declaration found for $1: the check itself is broken"; bad=1; }
	LC_ALL=C comm -23 "$2" "$dir/exported" | sed "s/\$/: GM_API, but $1 does not define it/" >"$dir/say"
	LC_ALL=C comm -13 "$2" "$dir/exported" | sed "s/\$/: exported by $1, but its public headers do not mark it GM_API/" \
		>>"$dir/say"
	LC_ALL=C comm -23 "$dir/needed" "$3" | sed "s/\$/: used by $1, which does not define it/" >>"$dir/say"
	if [ -s "$dir/say" ]; then
		cat "$dir/say"
		bad=1
	fi
}

: >"$dir/none"
declared "$src"/include/gmem/conform.h >"$dir/conform"
# shellcheck disable=SC2046 # a list of files
declared $(find "$src/include/gmem" -name '*.h' ! -name conform.h) >"$dir/declared"
check_archive libgmem.a "$dir/declared" "$dir/none"
check_archive libgmem-conform.a "$dir/conform" "$dir/declared"
# The layers keep to the prefix, also where it does not show outside.
for a in libgm_core.a libgm_hal.a libgm_mock.a libgm_conform.a; do
	if "${NM:-nm}" -g --defined-only "$a" | awk 'NF == 3 { print $3 }' | grep -vE '^(gm_|__odr_asan)' >"$dir/say"; then
		sed "s/\$/: global name in $a without gm_/" "$dir/say"
		bad=1
	fi
done
exit $bad
