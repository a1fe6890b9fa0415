#!/bin/sh
# SPDX-License-Identifier: MIT
# The randomised test, briefly. The whole of it is `random_sim` (200 seeds), or
# `random_sim --seeds 1000` for a million steps: that still finds errors, see
# "Known" in CHANGELOG.md, and is run by hand until it does not.
set -eu
exec timeout -k 10 "${GM_TEST_TIMEOUT:-300}" tests/stress/random_sim --seed 101 --seeds 30
