#!/bin/sh
# SPDX-License-Identifier: MIT
# No vendor's name outside backends/ (but in the table of backends and the
# readers of the machine's topology); nothing left for later in the sources.
set -eu
cd "${srcdir:-.}"
bad=0
if find core hal include conform tools examples bench tests -name '*.[ch]' ! -path 'hal/gm_backends.*' ! -path 'hal/topo_*' \
	-print0 | xargs -0 grep -niE 'amdgpu|nouveau|nvidia|radeon|cuda|(^|[^p])rocm'; then
	echo "a vendor's name outside backends/"
	bad=1
fi
if find core hal include backends conform tools examples bench tests -name '*.[ch]' -print0 |
	xargs -0 grep -nwE 'TODO|FIXME|XXX'; then
	echo "something left for later"
	bad=1
fi
exit $bad
