#!/bin/sh
# SPDX-License-Identifier: MIT
# What `gmem exec` cannot serve it does not start, and says why.
set -u
. "${srcdir:-.}/tests/exec/same.sh"
need true

# refused STATUS WORDS COMMAND...: and the program has not run
refused()
{
	want=$1
	words=$2
	shift 2
	rm -f "$dir/ran"
	"$@" >"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	test $status = "$want" || { say "$*: status $status, not $want"; cat "$dir/err"; }
	grep -q -e "$words" "$dir/err" || { say "$*: no '$words' in:"; cat "$dir/err"; }
	test ! -s "$dir/out" || { say "$*: it ran"; cat "$dir/out"; }
}

run="./gmem exec --device $device"
chmod 755 "$dir"

refused 127 'no such program' $run none-such-program
refused 127 'no such program' $run ./none/such
refused 126 'cannot be executed' $run "$srcdir/tests/exec/victim.c"
refused 126 'which program' $run
refused 126 'no option' $run --none /bin/echo ran
refused 126 'from 1M on' $run --host-limit 12x /bin/echo ran
refused 126 'from 1M on' $run --host-limit 100K /bin/echo ran
refused 126 'from 1M on' $run --host-limit -1 /bin/echo ran
refused 126 'from 1M on' $run --host-limit 99999999999G /bin/echo ran
refused 126 'cannot be written' $run --json "$dir/none/such" /bin/echo ran
refused 126 'backend' ./gmem exec --device none /bin/echo ran
refused 126 'nonsense' ./gmem exec --device mock:nonsense=1 /bin/echo ran
refused 126 'preload library is not there' env GMEM_EXEC_PRELOAD=/none.so $run /bin/echo ran

if ${CC:-cc} -static -o "$dir/static" -D_GNU_SOURCE -I. -Ibuild-aux "$srcdir/tests/exec/victim.c" -pthread 2>"$dir/cc"; then
	refused 126 'statically' $run "$dir/static" env
else
	echo "SKIP: static programs cannot be linked here: not tested"
fi

# another kind of machine: the same file, one field of its head changed
cp /bin/echo "$dir/foreign"
printf '\001\000' | dd of="$dir/foreign" bs=1 seek=18 conv=notrunc 2>/dev/null
refused 126 'another architecture' $run "$dir/foreign" ran
printf 'no program' >"$dir/damaged"
chmod 755 "$dir/damaged"
refused 126 'another architecture' $run "$dir/damaged"

# scripts: what their first line says is executed, and looked at
printf '#!/bin/sh\necho "$0" "$@"\n' >"$dir/script"
printf '#!/usr/bin/env sh\necho env "$1"\n' >"$dir/script.env"
printf '#!%s env\n' "$dir/static" >"$dir/script.static"
printf '#!/none/such\n' >"$dir/script.none"
chmod 755 "$dir"/script*
test "$($run --quiet "$dir/script" a 'b c')" = "$dir/script a b c" || say "a script"
test "$($run --quiet "$dir/script.env" x)" = "env x" || say "a script of env"
test ! -e "$dir/static" || refused 126 'statically' $run "$dir/script.static"
refused 127 'no such program' $run "$dir/script.none"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
	top=$(mktemp -d)
	trap 'rm -rf "$dir" "$top"' EXIT
	chmod 755 "$top"
	cp gmem gmem-exec.so "$top"
	cp /bin/echo "$top/privileged"
	chmod 4755 "$top/privileged"
	refused 126 'setuid' $nobody "$top/gmem" exec --device "$device" "$top/privileged" ran
	chmod 2755 "$top/privileged"
	refused 126 'setgid' $nobody "$top/gmem" exec --device "$device" "$top/privileged" ran
	chmod 711 "$top/privileged"
	refused 126 'cannot be read' $nobody "$top/gmem" exec --device "$device" "$top/privileged" ran
	if ! $nobody test -w /dev/userfaultfd && [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ]; then
		refused 126 'unprivileged_userfaultfd' $nobody "$top/gmem" exec --device "$device" /bin/echo ran
	fi
else
	echo "SKIP: not root, or no setpriv: other users' programs not tested"
fi

# found out in the program's process only: too little address space for the preload library
# shellcheck disable=SC3045 # every shell here has it
(ulimit -v 1200000; refused 126 'not started' $run --host-limit 64M /bin/echo ran; exit $bad) || bad=1
exit $bad
