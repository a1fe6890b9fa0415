# SPDX-License-Identifier: MIT
# The functions that the public headers declare, one per line, with their documentation:
#
#   awk -f public-functions.awk include/gmem/*.h
#
#   header TAB name TAB type TAB parameters TAB documentation
#
# Lines of the documentation are joined by \001. A declaration begins with GM_API and ends with a semicolon;
# the comment before it is its documentation. With -v files=1 there is a line for each header too, with its own
# documentation and no name.

function trim(s)
{
	gsub(/[ \t]+/, " ", s)
	sub(/^ /, "", s)
	sub(/ $/, "", s)
	return s
}

function finish(   s, at, name)
{
	s = decl
	sub(/GM_API/, "", s)
	sub(/GM_MUST_CHECK/, "", s)
	sub(/;.*/, "", s)
	s = trim(s)
	at = index(s, "(")
	name = substr(s, 1, at - 1)
	sub(/.*[^A-Za-z0-9_]/, "", name)
	header = FILENAME
	sub(/.*\//, "", header)
	printf "%s\t%s\t%s\t%s\t%s\n", header, name, trim(substr(s, 1, at - 1 - length(name))),
		trim(substr(s, at + 1, length(s) - at - 1)), doc
	decl = doc = ""
}

/^[ \t]*#/ { next }

in_doc || /^[ \t]*\/\*\*/ {
	if (!in_doc)
		doc = ""
	in_doc = !/\*\//
	line = $0
	sub(/^[ \t]*\/?\*+\/?[ \t]?/, "", line)
	sub(/[ \t]*\*\/.*/, "", line)
	doc = doc (doc == "" ? "" : sprintf("%c", 1)) line
	if (!in_doc && doc ~ /^[^@]*@file / && files) {
		header = FILENAME
		sub(/.*\//, "", header)
		printf "%s\t\t\t\t%s\n", header, doc
	}
	next
}

decl == "" && /^GM_API / { decl = $0; if (/;/) finish(); next }

decl != "" { decl = decl " " $0; if (/;/) finish(); next }

/[^ \t]/ { doc = "" }
