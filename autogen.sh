#!/bin/sh
# SPDX-License-Identifier: MIT
# Make `configure` in a checkout. Needs autoconf, automake and pkg-config.
set -eu
cd "$(dirname "$0")"
mkdir -p build-aux
autoreconf --install --warnings=all
# configure removes core dumps when it ends ("rm -f core ..."), which fails
# where core is a directory: not a thing this project needs.
sed -e 's/rm -f core \*\.core core\.conftest\.\*/rm -f/' -e 's/rm -f core /rm -f /' configure >configure.tmp
cat configure.tmp >configure
rm configure.tmp
