#!/bin/sh
# SPDX-License-Identifier: MIT
# A short run of the randomised test, for wrappers that are slow (valgrind).
set -eu
# shellcheck disable=SC2086 # a command with its options
exec timeout -k 10 "${GM_TEST_TIMEOUT:-600}" ${GM_TEST_WRAPPER-} tests/stress/random_sim --steps 300 --seeds 3
