#!/bin/sh
# SPDX-License-Identifier: MIT
# Only the dispatch (hal/gm_call*.c) calls an operation of an ops table; and the validation shim, which is one.
set -eu
src=${srcdir:-.}

# The operations are those that the two tables declare.
ops=$({
	sed -n '/^struct gm_mmu {/,/^};/p' "$src/include/gmem/hal.h"
	sed -n '/^struct gm_host_ops {/,/^};/p' "$src/hal/gm_host.h"
} | sed -n 's/^[^(]*(\*\([a-z_]*\))(.*/\1/p' | LC_ALL=C sort -u | tr '\n' '|' | sed 's/|$//')
test -n "$ops" || { echo "no operation found in the tables: the check itself is broken"; exit 1; }

cd "$src"
# env->ops is another table: the environment's, called by its own wrappers in gm_env.h.
if find core hal include tools -name '*.[ch]' ! -path 'hal/gm_call*.c' ! -path 'hal/gm_shim*.c' -print0 | xargs -0 \
	grep -nE "(->|\.)[[:space:]]*($ops)[[:space:]]*\(|(->|\.)(mmu|host)(->|\.)[a-z_]+[[:space:]]*\(" |
	grep -v 'env->ops->'; then
	echo "an operation of a table is called outside hal/gm_call*.c"
	exit 1
fi
