#!/bin/sh
# SPDX-License-Identifier: MIT
# Every function that a public header declares has rows in the table of bad
# calls (tests/unit/api_rows*.h, run by test_api_bad), at least those that its
# prototype and documentation call for:
#
#   a structure that is not const, documented as @param[in]                     HANDLE of it
#   another pointer (not `arg`, `dev_data`: handed through), a callback         null
#   flags, access; a configuration                                              flag; size
#   an enum, a result, a number of threads                                      value
#   a length in uint64_t, an end, a number of pages or entries                  empty
#   va, or such a length or number                                              overflow
#   documented as a multiple of something                                       unaligned
#   documented as GM_RET_BUSY or GM_RET_EXIST                                   state
#   (void)                                                                      none
set -eu
src=${srcdir:-.}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${AWK:-awk}" -f "$src/docs/public-functions.awk" "$src"/include/gmem/*.h >"$dir/functions"
test -s "$dir/functions" || { echo "no GM_API declaration found: the check itself is broken"; exit 1; }

# "function kind"; the kind of a HANDLE is "handle:parameter"
sed -n -e 's/^HANDLE(\([a-z0-9_]*\), \([a-z0-9_]*\),.*/\1 handle:\2/p' -e 's/^ROW(\([a-z0-9_]*\), \([a-z]*\),.*/\1 \2/p' \
	"$src"/tests/unit/api_rows*.h | LC_ALL=C sort -u >"$dir/rows"
test -s "$dir/rows" || { echo "no row found: the check itself is broken"; exit 1; }

"${AWK:-awk}" -F '\t' '
	function need(kind) { print $2 " " kind }
	{
		n = split($4, p, / *, */)
		doc = $5
		has_va = 0
		counted = 0
		for (i = 1; i <= n; i++) {
			name = p[i]
			sub(/.*[^A-Za-z0-9_]/, "", name)
			if (p[i] == "void")
				need("none")
			else if (p[i] ~ /^struct gm_[a-z_]+ \*[a-z_]+$/ && doc ~ "@param\\[in\\] +" name " ")
				need("handle:" name)
			else if (p[i] ~ /\*/ && name !~ /^(arg|dev_data)$/)
				need("null")
			else if (p[i] ~ /^gm_[a-z_]*(_fn|_kernel) /)
				need("null")
			if (name ~ /^(flags|access)$/)
				need("flag")
			if (p[i] ~ /^const struct gm_[a-z_]*_config \*/)
				need("size")
			if (p[i] ~ /^(enum [a-z_]+|gm_ret_t|unsigned) /)
				need("value")
			if (p[i] ~ /^(uint64_t (bytes|end)|size_t (pages|n))$/)
				need("empty")
			if (p[i] ~ /^(uint64_t bytes|size_t (pages|n))$/)
				counted = 1
			if (name == "va")
				has_va = 1
		}
		if (p[1] != "void" && doc ~ /multiple of|unaligned/)
			need("unaligned")
		if (has_va || counted)
			need("overflow")
		if (doc ~ /@retval GM_RET_(BUSY|EXIST)/)
			need("state")
	}' "$dir/functions" | LC_ALL=C sort -u >"$dir/needed"

cut -f 2 "$dir/functions" | LC_ALL=C sort -u >"$dir/declared"
cut -d ' ' -f 1 "$dir/rows" | LC_ALL=C sort -u >"$dir/tested"
{
	LC_ALL=C comm -23 "$dir/declared" "$dir/tested" | sed 's/$/: a public function without a row in tests\/unit\/api_rows*.h/'
	LC_ALL=C comm -13 "$dir/declared" "$dir/tested" | sed 's/$/: has rows in tests\/unit\/api_rows*.h, but no public header declares it/'
	LC_ALL=C comm -23 "$dir/needed" "$dir/rows" | sed 's/^\([^ ]*\) \(.*\)/\1: tests\/unit\/api_rows*.h lacks a row: \2/'
} >"$dir/say"
cat "$dir/say"
test ! -s "$dir/say"
