#!/bin/sh
# SPDX-License-Identifier: MIT
# libgmem.a exports exactly the functions that the public headers mark GM_API,
# and needs no symbol of its own that it does not have.
set -eu
src=${srcdir:-.}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${AWK:-awk}" -f "$src/docs/public-functions.awk" "$src"/include/gmem/*.h | cut -f 2 | LC_ALL=C sort -u >"$dir/declared"
test -s "$dir/declared" || { echo "no GM_API declaration found: the check itself is broken"; exit 1; }

# __odr_asan.*: markers that AddressSanitizer adds
"${NM:-nm}" -g --defined-only libgmem.a | awk 'NF == 3 && $3 !~ /^__odr_asan/ { print $3 }' |
	LC_ALL=C sort -u >"$dir/exported"
"${NM:-nm}" -u libgmem.a | awk 'NF >= 2 && $2 ~ /^gm_/ { print $2 }' >"$dir/missing"

bad=0
LC_ALL=C comm -23 "$dir/declared" "$dir/exported" | sed 's/$/: GM_API, but libgmem.a does not define it/' >"$dir/say"
LC_ALL=C comm -13 "$dir/declared" "$dir/exported" | sed 's/$/: exported, but no public header marks it GM_API/' >>"$dir/say"
sed 's/$/: used, but libgmem.a does not define it/' "$dir/missing" >>"$dir/say"
if [ -s "$dir/say" ]; then
	cat "$dir/say"
	bad=1
fi
# The layers keep to the prefix, also where it does not show outside.
for a in libgm_core.a libgm_hal.a libgm_mock.a; do
	if "${NM:-nm}" -g --defined-only "$a" | awk 'NF == 3 { print $3 }' | grep -vE '^(gm_|__odr_asan)' >"$dir/say"; then
		sed "s/\$/: global name in $a without gm_/" "$dir/say"
		bad=1
	fi
done
exit $bad
