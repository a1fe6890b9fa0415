# SPDX-License-Identifier: MIT
#
# Filter of Doxygen's input. The results and the counters are X-macro lists, so
# that names, values and texts cannot drift; Doxygen cannot see through these,
# so it is shown the members as if they had been written out.
#
#   #define GM_X_LIST(X) \        a line  X(name, value, "text") \   is remembered
#   GM_X_LIST(GM_X_ENUM_)         becomes one documented member per line of the list

function unquote(s)
{
	sub(/^[^"]*"/, "", s)
	sub(/"[^"]*$/, "", s)
	return s
}

/^#define GM_[A-Z]+_(ENUM|FIELD)_\(/ { next }
/^#undef GM_[A-Z]+_(ENUM|FIELD)_$/ { next }
/^#define GM_[A-Z]+_LIST\(X\)/ { n = 0 }
/^\tX\(/ {
	word = $0
	sub(/^\tX\(/, "", word)
	split(word, part, /, */)
	name[++n] = part[1]
	value[n] = part[2]
	text[n] = unquote(word)
}
/^\tGM_[A-Z]+_LIST\(GM_[A-Z]+_ENUM_\)/ {
	prefix = $1
	sub(/LIST.*/, "", prefix)
	for (i = 1; i <= n; i++)
		printf "\t%s%s%s, /**< %s */\n", prefix, name[i], value[i] ~ /^[-0-9]/ ? " = " value[i] : "", text[i]
	next
}
/^\tGM_[A-Z]+_LIST\(GM_[A-Z]+_FIELD_\)/ {
	for (i = 1; i <= n; i++)
		printf "\tuint64_t %s; /**< %s */\n", name[i], text[i]
	next
}
{ print }
