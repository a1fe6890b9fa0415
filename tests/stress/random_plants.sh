#!/bin/sh
# SPDX-License-Identifier: MIT
# Every planted error must be noticed by the randomised test.
set -eu
exec timeout -k 10 "${GM_TEST_TIMEOUT:-600}" tests/stress/random_sim --plant all
