#!/bin/sh
# SPDX-License-Identifier: MIT
# The tests of the HMM table once more: with devices of both kinds (hmm.h), and with khugepaged awake, which then looks
# for small pages to make huge ones of ten times a second. The settings of the system are put back at the end, whatever
# happens. Prints what became of each row, and how many there are of each.
#
#     asleep, range: what `make check` runs anyway      asleep, faults      awake, range      awake, faults
#
# Exit 77 where the settings cannot be written: then nothing ran with khugepaged awake.
set -u
here=$(dirname "$0")
thp=/sys/kernel/mm/transparent_hugepage/khugepaged
pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
dir=$(mktemp -d)
saved=$dir/saved
: >"$saved"

# One at a time on a machine, or one would take the other's settings for the system's.
if command -v flock >/dev/null; then
	exec 9>"${TMPDIR:-/tmp}/gmem-hmm-rows.lock" && flock 9
fi

restore() {
	while read -r file value; do
		echo "$value" >"$file" || echo "# $file could not be set back to $value"
	done <"$saved"
	: >"$saved"
}
trap 'restore; rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

# set_to FILE VALUE: false if it cannot be written.
set_to() {
	old=$(cat "$1" 2>/dev/null) || return 1
	{ echo "$2" >"$1"; } 2>/dev/null || return 1
	echo "$1 $old" >>"$saved"
}

bad=0
run_all() { # WAY DEVICE
	for t in "$here"/test_hmm_*.c; do
		t=tests/hmm/$(basename "$t" .c).t
		echo "# $1, $2: $t"
		GM_HMM_DEVICE=$2 sh "$here/../run-criterion.sh" "./$t" >"$dir/out" 2>&1
		status=$?
		grep -v '^ok - hmm_coherent::' "$dir/out"
		sed "s/^/$1,$2 /" "$dir/out" >>"$dir/all"
		if [ $status != 0 ] || grep -q '^not ok\|^Bail out' "$dir/out"; then
			bad=1
		fi
	done
}

ls tests/hmm/test_hmm_*.t >/dev/null || { echo "no test was built"; exit 1; }
set_to "$pool" $(($(cat "$pool" 2>/dev/null || echo 0) + 8)) || echo "# no hugetlb pages can be reserved here"
run_all asleep range
run_all asleep faults
awake=1
for s in "scan_sleep_millisecs 100" "alloc_sleep_millisecs 100" "pages_to_scan 65536"; do
	set_to "$thp/${s% *}" "${s#* }" || awake=0
done
if [ $awake = 1 ]; then
	before=$(cat $thp/full_scans)
	GM_HMM_AWAKE=1
	export GM_HMM_AWAKE
	run_all awake range
	run_all awake faults
	echo "# khugepaged made $(($(cat $thp/full_scans) - before)) full scans meanwhile"
fi
restore

grep -v '^#' "$here/rows.txt" >"$dir/rows"
# A row passed if its test and all that belong to it passed or, some of these, were skipped.
passed=0 skipped=0 failed=0 waiting=0
while read -r row why; do
	if [ -n "$why" ]; then
		waiting=$((waiting + 1))
		echo "row $row: NOT TESTED, $why"
		continue
	fi
	grep -E " (not )?ok - hmm::${row}(__[a-z0-9_]*)? " "$dir/all" >"$dir/row"
	if grep -q ' not ok' "$dir/row"; then
		failed=$((failed + 1))
		echo "row $row: FAILED"
	elif grep -v '# SKIP' "$dir/row" | grep -q ' ok - '; then
		passed=$((passed + 1))
		echo "row $row: passed, $(grep -vc '# SKIP' "$dir/row") runs"
		sed -n 's/.* ok - hmm::\([a-z0-9_]*\) .*# SKIP /    \1: /p' "$dir/row" | sort -u
	else
		skipped=$((skipped + 1))
		echo "row $row: skipped"
		sed -n 's/.* ok - hmm::\([a-z0-9_]*\) .*# SKIP /    \1: /p' "$dir/row" | sort -u
		test -s "$dir/row" || { echo "    no test ran"; bad=1; }
	fi
done <"$dir/rows"
echo "$((passed + skipped + failed + waiting)) rows: $passed passed, $skipped skipped, $failed failed, $waiting not tested yet"
echo "$(grep -c '^asleep,range ok - hmm_coherent::.*# SKIP' "$dir/all") rows on device-coherent memory: skipped"
sed -n 's/^asleep,range ok - hmm_coherent::.*# SKIP /    /p' "$dir/all" | sort -u
[ $failed = 0 ] && [ $bad = 0 ] || exit 1
[ $awake = 1 ] || { echo "NOT TESTED: $thp cannot be written: nothing ran with khugepaged awake"; exit 77; }
