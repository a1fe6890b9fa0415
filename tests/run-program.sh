#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a test program with a bound on its time.
#
#   GM_TEST_TIMEOUT  seconds (default 300)
#   GM_TEST_WRAPPER  a command in front of it, such as valgrind
#   GM_TEST_NO_ASLR  not empty: run without address space randomisation where that
#                    is allowed (some sanitizer run-times fail under much of it)
set -u
if [ -n "${GM_TEST_NO_ASLR-}" ] && setarch "$(uname -m)" -R true 2>/dev/null; then
	GM_TEST_WRAPPER="setarch $(uname -m) -R ${GM_TEST_WRAPPER-}"
fi
# shellcheck disable=SC2086 # a command with its options
exec timeout -k 10 "${GM_TEST_TIMEOUT:-300}" ${GM_TEST_WRAPPER-} "$@"
