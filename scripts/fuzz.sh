#!/usr/bin/env bash
# Runs every fuzz target for the given time each. Usage: fuzz.sh 30s
# Go would spend up to a minute on making one interesting input smaller, which can
# be all the time there is.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
failed=0
passed=0

# late reports whether a run only missed its end: before Go 1.27 that the time is
# up can come out as a failure, with no input that fails.
late() {
	grep -qx '    context deadline exceeded' <<<"$1" && ! grep -qE 'Failing input|panic|hung|testdata/fuzz' <<<"$1"
}

while read -r file; do
	dir=./$(dirname "$file")
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/^func //'); do
		printf '%-60s ' "$dir $target"
		if log=$(go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 3s 2>&1); then
			echo "ok   $(grep -oE 'execs: [0-9]+' <<<"$log" | tail -n 1)"
			passed=$((passed + 1))
		elif late "$log" && go test "$dir" -run "^$target\$" >/dev/null 2>&1; then
			echo "ok   $(grep -oE 'execs: [0-9]+' <<<"$log" | tail -n 1), ended late (go.dev/issue/75804)"
			passed=$((passed + 1))
		else
			echo "FAIL"
			echo "$log"
			failed=$((failed + 1))
		fi
	done
done < <(git ls-files '*_test.go' | xargs grep -lE '^func Fuzz')
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
