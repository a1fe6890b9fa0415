#!/bin/sh
# SPDX-License-Identifier: MIT
# The randomised test: a million steps over a thousand seeds; fewer where a
# sanitizer makes each step slow.
set -eu
exec timeout -k 10 "${GM_TEST_TIMEOUT:-900}" tests/stress/random_sim --seeds "${GM_TEST_SEEDS:-1000}"
