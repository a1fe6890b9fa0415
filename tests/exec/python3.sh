#!/bin/sh
# SPDX-License-Identifier: MIT
# python3 with many small objects (its own arenas), a large list, and a large buffer.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
# Debian's own, not a script of a version manager that executes another one.
python=/usr/bin/python3
test -x $python || python=python3
need $python
cat >"$dir/program.py" <<'END'
import hashlib
words = ["%012d" % (i * 7919) * 4 for i in range(300000)]
buffer = bytearray(24 << 20)
for i in range(0, len(buffer), 4096):
    buffer[i] = i >> 12 & 255
total = hashlib.sha256()
for w in words:
    total.update(w.encode())
print(len(words), total.hexdigest(), hashlib.sha256(buffer).hexdigest())
buffer += bytes(words[-1], "ascii") * 100000
print(hashlib.sha256(buffer).hexdigest(), sum(map(len, words)), words[12345])
END
same python3 $python "$dir/program.py"
exit $bad
