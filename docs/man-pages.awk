# SPDX-License-Identifier: MIT
# Man pages of the public interface: one per function, one per header.
#
#   awk -f public-functions.awk -v files=1 include/gmem/*.h | awk -f man-pages.awk -v out=DIR -v version=X
#
#   gm_alloc.3   from the comment of gm_alloc(): @brief, text, @param, @return, @retval, @threads, @owner, @source
#   gmem_mem.3   from the comment of mem.h, with a line for each of its functions; gmem.3 for gmem.h
#
# Of Doxygen's language this knows what the headers use: @p word, `code`, *emphasis*, lists that begin with "-", and
# drawings, which are indented by four.

BEGIN {
	FS = "\t"
	BREAK = sprintf("%c", 1)
}

# What troff would take for its own.
function plain(s)
{
	gsub(/\\/, "\\e", s)
	gsub(/-/, "\\-", s)
	return s
}

function inline(s,   done, word)
{
	s = plain(s)
	done = ""
	while (match(s, /@p [A-Za-z0-9_]+|`[^`]*`|\*[a-z]+\*/)) {
		word = substr(s, RSTART, RLENGTH)
		done = done substr(s, 1, RSTART - 1)
		if (word ~ /^@p /)
			done = done "\\fI" substr(word, 4) "\\fR"
		else
			done = done (word ~ /^`/ ? "\\fB" : "\\fI") substr(word, 2, length(word) - 2) "\\fR"
		s = substr(s, RSTART + RLENGTH)
	}
	s = done s
	return s ~ /^[.'\047]/ ? "\\&" s : s
}

function put(s) { print s >page }

function section(title) { put(".SH " title) }

# A tag with its text: @param, @retval.
function entry(font, what, text)
{
	put(".TP")
	put("." font " \"" plain(what) "\"")
	put(inline(text))
}

# Text of several lines: paragraphs, lists, drawings.
function body(text,   line, n, i, drawing)
{
	n = split(text, line, BREAK)
	for (i = 1; i <= n; i++) {
		if (line[i] ~ /^    / && !in_list) {
			if (!drawing)
				put(".PP\n.nf")
			drawing = 1
			put("\\&" plain(line[i]))
			continue
		}
		if (drawing)
			put(".fi")
		drawing = 0
		if (line[i] ~ /^[ \t]*$/) {
			if (i < n)
				put(".PP")
			in_list = 0
		} else if (line[i] ~ /^ *- /) {
			sub(/^ *- /, "", line[i])
			put(".IP \\(bu 2\n" inline(line[i]))
			in_list = 1
		} else {
			sub(/^[ \t]+/, "", line[i])
			put(inline(line[i]))
		}
	}
	if (drawing)
		put(".fi")
	in_list = 0
}

# The parts of a comment: brief, text, and the tags in their order, tag[i] with word[i] and rest[i].
function parse(doc,   line, n, i, at)
{
	brief = text = ""
	tags = 0
	n = split(doc, line, BREAK)
	at = 0
	for (i = 1; i <= n; i++) {
		if (line[i] ~ /^ ?@(file|name)/)
			continue
		if (line[i] ~ /^ ?@brief /) {
			sub(/^ ?@brief /, "", line[i])
			brief = line[i]
			at = -1
		} else if (line[i] ~ /^ ?@[a-z]+/ && line[i] !~ /^ ?@p /) {
			at = ++tags
			tag[at] = line[i]
			sub(/^ ?@/, "", tag[at])
			sub(/[^a-z].*/, "", tag[at])
			rest[at] = line[i]
			sub(/^ ?@[a-z]+(\[[a-z,]+\])? */, "", rest[at])
			word[at] = ""
			if (tag[at] == "param" || tag[at] == "retval") {
				match(rest[at], tag[at] == "param" ? "^[a-z_]+" : "^(GM_RET_[A-Z]+, )*[A-Za-z_]+")
				word[at] = substr(rest[at], 1, RLENGTH)
				rest[at] = substr(rest[at], RLENGTH + 1)
				sub(/^ +/, "", rest[at])
			}
		} else if (line[i] ~ /^[ \t]*$/ && at) {
			at = 0
		} else if (at > 0) {
			sub(/^[ \t]+/, "", line[i])
			rest[at] = rest[at] " " line[i]
		} else if (at < 0) {
			brief = brief " " line[i]
		} else {
			text = text (text == "" ? "" : BREAK) line[i]
		}
	}
	sub(/\.$/, "", brief)
}

function begin_page(name)
{
	page = out "/" name ".3"
	put(".\\\" SPDX-License-Identifier: MIT")
	put(".TH " name " 3 \"\" \"libgmem " version "\" \"libgmem\"\n.ad l")
	section("NAME")
	put(name " \\- " inline(brief))
}

function page_of(header)
{
	sub(/\.h$/, "", header)
	return header == "gmem" ? "gmem" : "gmem_" header
}

# "type *x, type y" with the names in italics.
function prototype(result, f, list,   p, n, i, s, what)
{
	s = ".BI \"" result (result ~ /\*$/ ? "" : " ") f "("
	n = list == "void" ? 0 : split(list, p, / *, */)
	for (i = 1; i <= n; i++) {
		what = p[i]
		sub(/.*[^A-Za-z0-9_]/, "", what)
		s = s substr(p[i], 1, length(p[i]) - length(what)) "\" " what " \"" (i < n ? ", " : "")
	}
	return s (list == "void" ? "void" : "") ");\""
}

function tagged(which, title, font,   i, any)
{
	for (i = 1; i <= tags; i++) {
		if (tag[i] != which)
			continue
		if (which == "threads")
			sub(/^any/, "May be called by any thread", rest[i])
		if (which == "source")
			rest[i] = "Follows " rest[i] "."
		if (!any && title != "")
			section(title)
		any = 1
		if (font != "")
			entry(font, word[i], rest[i])
		else
			put(inline(rest[i]))
	}
	return any
}

function has(which,   i)
{
	for (i = 1; i <= tags; i++)
		if (tag[i] == which)
			return 1
	return 0
}

# Headers come before their functions.
$2 == "" {
	header[++headers] = $1
	header_doc[$1] = $5
	next
}

{
	name[++names] = $2
	of[$2] = $1
	type[$2] = $3
	params[$2] = $4
	doc_of[$2] = $5
	functions[$1] = functions[$1] " " $2
}

# The functions that a text names, with their sections.
function others(self, text,   found, list, f)
{
	list = ""
	while (match(text, /gm_[a-z_]+\(\)/)) {
		f = substr(text, RSTART, RLENGTH - 2)
		text = substr(text, RSTART + RLENGTH)
		if (f == self || !(f in of) || f in found)
			continue
		found[f] = 1
		list = list ".BR " f " (3),\n"
	}
	return list
}

function function_page(f)
{
	parse(doc_of[f])
	summary[f] = brief
	begin_page(f)
	section("SYNOPSIS")
	put(".B #include <gmem/" of[f] ">\n.nh\n.HP 4\n" prototype(type[f], f, params[f]) "\n.hy")
	section("DESCRIPTION")
	put(inline(brief) ".")
	if (text != "") {
		put(".PP")
		body(text)
	}
	tagged("param", "PARAMETERS", "I")
	section("RETURN VALUE")
	if (!tagged("return", "", "") && !has("retval"))
		put("None.")
	if (tagged("retval", "", "B"))
		put(".PP\nAfter a failure\n.BR gm_last_error (3)\nsays what was wrong.")
	tagged("threads", "THREAD SAFETY", "")
	tagged("locks", "LOCKS", "")
	tagged("owner", "OWNERSHIP", "")
	tagged("source", "HISTORY", "")
	section("SEE ALSO")
	put(others(f, doc_of[f]) ".BR " page_of(of[f]) " (3)")
	close(page)
}

function header_page(h,   i, n, f)
{
	parse(header_doc[header[h]])
	begin_page(page_of(header[h]))
	section("SYNOPSIS")
	put(".B #include <gmem/" header[h] ">\n.PP\n.B cc $(pkg\\-config \\-\\-cflags \\-\\-libs gmem)")
	section("DESCRIPTION")
	put(inline(brief) ".")
	if (text != "") {
		put(".PP")
		body(text)
	}
	put(".PP\nStructures, flags and limits are described in the header itself.")
	n = split(functions[header[h]], f, " ")
	if (n)
		section("FUNCTIONS")
	for (i = 1; i <= n; i++)
		put(".TP\n.BR " f[i] " (3)\n" inline(summary[f[i]]))
	section("SEE ALSO")
	for (i = 1; i <= headers; i++)
		if (i != h)
			put(".BR " page_of(header[i]) " (3)" (i < headers - (h == headers) ? "," : ""))
	close(page)
}

END {
	for (i_f = 1; i_f <= names; i_f++)
		function_page(name[i_f])
	for (i_h = 1; i_h <= headers; i_h++)
		header_page(i_h)
}
