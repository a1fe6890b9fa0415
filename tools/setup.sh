# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# What ./check and ./demo have in common; read with "." from the root of the
# tree. Everything they make is under build/. What was done once and whose
# inputs have not changed, by content, is not done again.

# packages_missing USE: the packages for USE that are not installed
packages_missing()
{
	awk -v use="$1" '!/^#/ { for (i = 2; i <= NF; i++) if ($i == use) print $1 }' tools/packages.txt |
	while read -r p; do
		test "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed || printf '%s ' "$p"
	done
}

# packages_install USE: install what is missing, or say how and end
packages_install()
{
	if ! command -v dpkg-query >/dev/null; then
		echo "not a Debian system: see tools/packages.txt for what must be installed"
		return 0
	fi
	missing=$(packages_missing "$1")
	test -n "$missing" || return 0
	if [ "$(id -u)" = 0 ]; then
		as_root=
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		as_root='sudo -n'
	else
		echo "packages are missing, and only root can install them:"
		echo "  apt-get update && apt-get install -y --no-install-recommends $missing"
		exit 1
	fi
	echo "installing: $missing"
	mkdir -p build
	# shellcheck disable=SC2086 # a command, and a list of packages
	if ! { $as_root env DEBIAN_FRONTEND=noninteractive apt-get update &&
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
		>build/packages.log 2>&1 </dev/null; then
		tail -n 20 build/packages.log
		echo "installing packages failed; the whole log is build/packages.log"
		exit 1
	fi
}

# A sum over what configure is made of, and over the words given.
inputs_sum()
{
	{
		printf '%s\n' "$@"
		cat VERSION configure.ac autogen.sh m4/*.m4 gmem.pc.in Doxyfile.in
	} | sha256sum | cut -d' ' -f1
}

# unchanged STAMP SUM: was STAMP written with this sum?
unchanged()
{
	test "$(cat "$1" 2>/dev/null)" = "$2"
}

# configure_in DIRECTORY ARGUMENT...: configure there, unless that was done with the same inputs
configure_in()
{
	conf_dir=$1
	shift
	if [ -f config.status ]; then
		echo "this tree is configured in place; run \"make distclean\" first"
		return 1
	fi
	conf_sum=$(inputs_sum "the tree")
	if [ ! -x configure ] || ! unchanged build/autogen.stamp "$conf_sum"; then
		rm -f build/autogen.stamp
		./autogen.sh || return 1
		echo "$conf_sum" >build/autogen.stamp
	fi
	conf_sum=$(inputs_sum "$conf_sum" "$@")
	if [ ! -f "$conf_dir/Makefile" ] || ! unchanged "$conf_dir/configure.stamp" "$conf_sum"; then
		rm -rf "$conf_dir"
		mkdir -p "$conf_dir"
		(cd "$conf_dir" && ../../configure "$@") || return 1
		echo "$conf_sum" >"$conf_dir/configure.stamp"
	fi
}
