#!/bin/sh
# SPDX-License-Identifier: MIT
# Every .c and .h file of the tree is named in a list of the build, and every
# list is sorted: a forgotten file would not be compiled, tested or shipped.
set -eu
cd "${srcdir:-.}"
list=$(mktemp)
trap 'rm -f "$list"' EXIT

cat Makefile.am ./*/local.mk ./*/*/local.mk 2>/dev/null | tr -s ' \t\\' '\n' >"$list"
bad=0
for f in $(find core hal backends conform include tools examples bench tests -name '*.[ch]' | LC_ALL=C sort); do
	unit=${f%.c}.t
	grep -qxF -e "$f" -e "$unit" -e "${f%.c}" "$list" || { echo "$f: in no list (local.mk of its directory)"; bad=1; }
done

# Lines that are only a file name, block by block.
for mk in Makefile.am ./*/local.mk ./*/*/local.mk; do
	test -f "$mk" || continue
	awk -v mk="$mk" '
		/^\t[a-z0-9_\/.-]+\.[cht]( \\)?$/ {
			if (last != "" && $1 < last) { print mk ":" NR ": " $1 " is out of order"; bad = 1 }
			last = $1
			next
		}
		{ last = "" }
		END { exit bad }' "$mk" || bad=1
done
exit $bad
