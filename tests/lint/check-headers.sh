#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone and twice, as strict C11 and as C++17; each
# internal one alone. The version in types.h is the one in VERSION.
set -eu
src=${srcdir:-.}
bad=0
strict='-Wall -Wextra -Wpedantic -Wundef -Werror -fsyntax-only'

alone()
{
	printf '#include "%s"\n#include "%s"\n' "$1" "$1"
}

cxx=yes
if ! echo 'int x;' | ${CXX:-c++} -x c++ -fsyntax-only - 2>/dev/null; then
	echo "no C++ compiler: the headers are NOT checked as C++"
	cxx=no
fi
for h in "$src"/include/gmem/*.h; do
	name=gmem/${h##*/}
	# shellcheck disable=SC2086 # a list of flags
	alone "$name" | ${CC:-cc} -std=c11 $strict -I"$src/include" -x c - || { echo "$name: not alone as C11"; bad=1; }
	test $cxx = yes || continue
	# shellcheck disable=SC2086
	alone "$name" | ${CXX:-c++} -std=c++17 $strict -I"$src/include" -x c++ - ||
		{ echo "$name: not alone as C++17"; bad=1; }
done
for h in $(cd "$src" && find core hal backends conform tools -name '*.h'); do
	alone "$h" | ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wundef -Werror -fsyntax-only -Ibuild-aux \
		-I"$src" -I"$src/include" -x c - || { echo "$h: not alone"; bad=1; }
done

v=$(sed -n 's/^#define GM_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)\( .*\)*$/\2/p' "$src/include/gmem/types.h" | tr '\n' '.')
if [ "${v%.}" != "$(cat "$src/VERSION")" ]; then
	echo "types.h says version ${v%.}, VERSION says $(cat "$src/VERSION")"
	bad=1
fi
test $bad = 0 || exit 1
test $cxx = yes || exit 77
