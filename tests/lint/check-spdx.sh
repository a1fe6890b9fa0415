#!/bin/sh
# SPDX-License-Identifier: MIT
# Every source file and script says its licence in its first lines.
set -eu
cd "${srcdir:-.}"
bad=0
for f in $(find core hal include backends conform tools examples bench tests m4 -name '*.[ch]' -o -name '*.cc' -o -name '*.sh' \
	-o -name '*.mk' -o -name '*.m4') autogen.sh check configure.ac demo Makefile.am .ci/run; do
	head -n 2 "$f" | grep -q 'SPDX-License-Identifier: MIT' || { echo "$f: no SPDX line"; bad=1; }
done
exit $bad
