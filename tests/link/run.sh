#!/bin/sh
# SPDX-License-Identifier: MIT
# make installcheck: build and run what users of the installed library would,
# with nothing of the source tree but the programs themselves.
#
#   run.sh DIRECTORY    environment: srcdir CC CXX CFLAGS PKG_CONFIG PKG_CONFIG_PATH,
#                       INCLUDEDIR MANDIR (where they are installed), HEADERS VERSION (what there is to be)
set -eu
out=$1
src=${srcdir:-.}/tests/link
pc=${PKG_CONFIG:-pkg-config}
cc=${CC:-cc}
cxx=${CXX:-c++}
cflags="$($pc --cflags gmem) ${CFLAGS-}"
libs=$($pc --libs gmem)
bad=0

try()
{
	what=$1
	shift
	status=0
	"$@" || status=$?
	case $status in
	0) echo "PASS: $what" ;;
	77) echo "SKIP: $what: in part only, see above" ;;
	*)
		echo "FAIL: $what"
		bad=1
		;;
	esac
}

# shellcheck disable=SC2086 # lists of flags, here and below
build_c()
{
	$cc -std=c11 -Wall -Wextra -Werror $cflags -o "$out/plain" "$src/plain.c" $libs && "$out/plain"
}

# shellcheck disable=SC2086
build_cxx()
{
	$cxx -std=c++17 -Wall -Wextra -Werror $cflags -o "$out/plus" "$src/plus.cc" $libs && "$out/plus"
}

# two [LINKER FLAG] [COMPILER FLAG]: the program with two shared libraries
# shellcheck disable=SC2046,SC2086
build_two()
{
	for p in one two; do
		$cc -fPIC $cflags -DPLUGIN=$p -shared -o "$out/lib$p.so" "$src/plugin.c" $libs $1 || return 1
	done
	$cc -std=c11 -Wall -Wextra -Werror ${CFLAGS-} $2 -o "$out/two" "$src/two.c" -L"$out" -lone -ltwo \
		$($pc --libs-only-other gmem) -Wl,-rpath,"$(cd "$out" && pwd -P)" && "$out/two"
}

# One program per file, as its first lines say.
# shellcheck disable=SC2086
build_single()
{
	$cc -std=gnu11 -Wall -Wextra -Werror $cflags -o "$out/example" "$1" $libs
}

# It says itself (77) where it cannot run: no right to userfaultfd.
run_example()
{
	build_single "$1" || return 1
	"$out/example" && return 0
	test $? = 77 && echo "SKIP: ${1##*/} was not run"
}

# A backend that nobody linked must not be needed, nor a library that gmem.pc does not name.
build_example()
{
	make -s -C "$src/../../examples/pagerank" BUILD="$(cd "$out" && pwd -P)" PKG_CONFIG="$pc" CC="$cc"
}

# What is installed is what the build lists, and each header compiles alone.
# shellcheck disable=SC2086
headers()
{
	echo $HEADERS | tr ' ' '\n' | LC_ALL=C sort >"$out/listed"
	(cd "$INCLUDEDIR" && ls) | LC_ALL=C sort >"$out/installed"
	diff "$out/listed" "$out/installed" || return 1
	for h in $HEADERS; do
		echo "#include <gmem/$h>" >"$out/alone.c"
		$cc -std=c11 -Wall -Wextra -Werror $cflags -fsyntax-only "$out/alone.c" || return 1
	done
}

# gmem.pc says the version, and flags that lead to what is installed.
package()
{
	test "$($pc --modversion gmem)" = "$VERSION" || { echo "gmem.pc: version $($pc --modversion gmem), not $VERSION"; return 1; }
	case " $($pc --cflags gmem) $($pc --libs gmem) " in
	*" -lgmem "*) ;;
	*) echo "gmem.pc: no -lgmem"; return 1 ;;
	esac
}

# A page per function, which has its name, its prototype and every result that the header documents; none but those
# and the overview of each header.
man_pages()
{
	"${AWK:-awk}" -f "$src/../../docs/public-functions.awk" "$INCLUDEDIR"/*.h >"$out/functions"
	test -s "$out/functions" || return 1
	{
		cut -f 2 "$out/functions"
		echo "$HEADERS" | tr ' ' '\n' | sed -e 's/\.h$//' -e 's/^/gmem_/' -e 's/^gmem_gmem$/gmem/'
	} | LC_ALL=C sort >"$out/pages"
	# shellcheck disable=SC2012 # our own names
	(cd "$MANDIR" && ls gm*.3) | sed 's/\.3$//' | LC_ALL=C sort | diff "$out/pages" - || return 1
	missing=0
	for f in $(cut -f 2 "$out/functions"); do
		man_page "$f" || { echo "$MANDIR/$f.3 is not what a page of $f must be"; missing=1; }
	done
	return $missing
}

# As a reader sees it, where there is something to see it with.
man_text()
{
	if command -v groff >/dev/null 2>&1; then
		groff -man -Tascii -P -c -P -b -P -u -rLL=200n "$1" 2>"$out/groff" && test ! -s "$out/groff"
	else
		sed -e 's/\\f[BIR]//g' -e 's/\\-/-/g' -e 's/^\.SH //' "$1"
	fi
}

man_page()
{
	man_text "$MANDIR/$1.3" >"$out/page" || return 1
	grep -A 1 '^NAME' "$out/page" | grep -q "$1 - [A-Z]" || return 1
	grep -q '^SYNOPSIS' "$out/page" && grep -q '^RETURN VALUE' "$out/page" || return 1
	for r in $(awk -F '\t' -v f="$1" '$2 == f { print $5 }' "$out/functions" | tr '\001' '\n' |
		sed -n 's/^@retval \(GM_RET_[A-Z, _]*\).*/\1/p' | tr ', ' '\n\n' | sed '/^$/d'); do
		sed -n '/^RETURN VALUE/,$p' "$out/page" | grep -q "$r" || { echo "$1: $r is missing"; return 1; }
	done
}

# place VARIABLE: where a directory of gmem.pc is now; only flags follow make's DESTDIR by themselves
place()
{
	printf '%s%s\n' "${PKG_CONFIG_SYSROOT_DIR-}" "$($pc --variable="$1" gmem)"
}

# The template of a backend, with what is installed and nothing else: also its own copy.
build_template()
{
	mkdir -p "$out/template"
	cp "$(place pkgdatadir)"/backend-template/* "$out/template" &&
	make -s -C "$out/template" PKG_CONFIG="$pc" CC="$cc" CFLAGS="-Werror ${CFLAGS-}"
}

# passes COMMAND...: the suite, and it skips nothing that it could run
passes()
{
	"$@" --tap >"$out/tap" && grep -q '^ok .*map/random$' "$out/tap" && ! grep -q '^not ok' "$out/tap"
}

# It fails where the backend is wrong: a page table that forgets the last page of what it removes.
template_broken()
{
	sed 's/at < bytes; at += PAGE_BYTES) {$/at + PAGE_BYTES < bytes; at += PAGE_BYTES) {/' "$out/template/toy.c" \
		>"$out/template/broken.c"
	if cmp -s "$out/template/toy.c" "$out/template/broken.c"; then
		echo "the template has no such line any more"
		return 1
	fi
	# shellcheck disable=SC2046 # lists of flags
	$cc -fPIC -shared $($pc --cflags gmem-conform) ${CFLAGS-} -o "$out/template/broken.so" "$out/template/broken.c" &&
		! "$gmem" check --backend "$out/template/broken.so" --tap >"$out/tap" && grep -q '^not ok .*map/' "$out/tap"
}

# The documents that a vendor needs.
documents()
{
	test -s "$(place docdir)/backend-guide.md" && test -s "$(place mandir)/man1/gmem.1"
}

# A runtime of somebody else, with its own tests on mock devices.
build_runtime()
{
	make -s -C "$src/../../examples/mock-runtime" BUILD="$(cd "$out" && pwd -P)" PKG_CONFIG="$pc" CC="$cc" check
}

# shellcheck disable=SC2086
has_criterion()
{
	echo '#include <criterion/criterion.h>' | $cc ${CFLAGS-} -x c -fsyntax-only - 2>/dev/null
}

gmem=$(place bindir)/gmem
test -n "$libs"
try "headers" headers
try "gmem.pc" package
try "man pages" man_pages
try "a C program" build_c
if echo 'int x;' | $cxx -x c++ -fsyntax-only - 2>/dev/null; then
	try "a C++ program" build_cxx
else
	echo "SKIP: a C++ program: no C++ compiler"
fi
try "two shared libraries, merged" build_two "" ""
try "two shared libraries, apart" build_two "-Wl,--exclude-libs,libgmem.a" "-DAPART"
for f in "$src"/../../examples/*.c; do
	test ! -f "$f" || try "examples/${f##*/}" build_single "$f"
done
try "examples/inthread.c, run" run_example "$src/../../examples/inthread.c"
try "examples/own-device.c, run" run_example "$src/../../examples/own-device.c"
if ls "$src"/../../examples/pagerank/*.c >/dev/null 2>&1; then
	try "examples/pagerank" build_example
fi
try "gmem --version" test "$("$gmem" --version)" = "gmem $($pc --modversion gmem)"
try "versions of gmem-conform.pc" test "$($pc --modversion gmem-conform)" = "$($pc --modversion gmem)"
try "installed documents" documents
try "gmem check on the mock" passes "$gmem" check --backend mock
try "the template of a backend: build" build_template
try "the template of a backend: linked" passes "$out/template/toy-check"
try "the template of a backend: as a shared object" passes "$gmem" check --backend "$out/template/toy.so"
try "the template of a backend: broken" template_broken
if ! has_criterion; then
	echo "SKIP: examples/mock-runtime: no Criterion, its tests are NOT run"
elif [ -f "$src/../../examples/mock-runtime/Makefile" ]; then
	try "examples/mock-runtime" build_runtime
fi
exit $bad
