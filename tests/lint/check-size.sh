#!/bin/sh
# SPDX-License-Identifier: MIT
# No function above 60 lines, no file above 600.
set -eu
cd "${srcdir:-.}"
files=$(find core hal include backends conform tools examples bench tests -name '*.[ch]' | LC_ALL=C sort)
bad=0

for f in $files; do
	n=$(wc -l <"$f")
	test "$n" -le 600 || { echo "$f: $n lines"; bad=1; }
done

if ! ${CTAGS:-ctags} --version 2>/dev/null | grep -q 'Universal Ctags'; then
	echo "SKIP: no universal-ctags: lengths of functions NOT checked"
	test $bad = 0 || exit 1
	exit 77
fi
# shellcheck disable=SC2086 # a list of files
spans=$(${CTAGS:-ctags} -x --languages=C --langmap=C:.c.h --kinds-C=f --_xformat='%F %N %n %{end}' $files)
test -n "$spans" || test -z "$(find core hal -name '*.c')" || { echo "ctags found no function: the check itself is broken"; exit 1; }
echo "$spans" | awk 'NF == 4 && $4 - $3 + 1 > 60 { print $1 ":" $3 ": " $2 "() has " $4 - $3 + 1 " lines"; bad = 1 } END { exit bad }' || bad=1
exit $bad
