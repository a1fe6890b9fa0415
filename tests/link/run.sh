#!/bin/sh
# SPDX-License-Identifier: MIT
# make installcheck: build and run what users of the installed library would,
# with nothing of the source tree but the programs themselves.
#
#   run.sh DIRECTORY    environment: srcdir CC CXX CFLAGS PKG_CONFIG PKG_CONFIG_PATH
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
	if "$@"; then
		echo "PASS: $what"
	else
		echo "FAIL: $what"
		bad=1
	fi
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

# The template of a backend, with what is installed and nothing else: also its own copy.
build_template()
{
	mkdir -p "$out/template"
	cp "$($pc --variable=pkgdatadir gmem)"/backend-template/* "$out/template" &&
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
	test -s "$($pc --variable=docdir gmem)/backend-guide.md" && test -s "$($pc --variable=mandir gmem)/man1/gmem.1"
}

# Each public header alone, with what is installed.
# shellcheck disable=SC2086
headers()
{
	for h in "$($pc --variable=includedir gmem)"/gmem/*.h; do
		printf '#include <gmem/%s>\n' "${h##*/}" | $cc -std=c11 -Wall -Wextra -Werror -fsyntax-only $cflags -x c - || return 1
	done
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

gmem=$($pc --variable=bindir gmem)/gmem
test -n "$libs"
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
try "examples/own-device.c, run" run_example "$src/../../examples/own-device.c"
if ls "$src"/../../examples/pagerank/*.c >/dev/null 2>&1; then
	try "examples/pagerank" build_example
fi
try "gmem --version" test "$("$gmem" --version)" = "gmem $($pc --modversion gmem)"
try "versions of gmem-conform.pc" test "$($pc --modversion gmem-conform)" = "$($pc --modversion gmem)"
try "every installed header" headers
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
