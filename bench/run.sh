#!/usr/bin/env bash
# Installs what is pinned, builds the bench and runs it for so long a figure.
# What a registry or a runtime does not give is told to the bench, which reports
# it as not run.
set -uo pipefail
cd "$(dirname "$0")"

nothing() {
  printf 'outcome  what\nnot run  everything: %s\n' "$1"
  exit 0
}

command -v go >/dev/null || nothing "there is no go"
timeout 300 go mod download >/dev/null 2>&1 || nothing "the Go modules cannot be had"

if ! command -v npm >/dev/null; then
  export BENCH_NO_NODE="there is no npm"
elif ! cmp -s package-lock.json node_modules/.installed; then
  echo "bench: npm ci"
  if timeout 300 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; then
    cp package-lock.json node_modules/.installed
  else
    export BENCH_NO_NODE="the npm packages cannot be had"
  fi
fi

time=${1:-3s}
[ $# -gt 0 ] && shift
mkdir -p out && go build -o out/bench . || exit 1
exec timeout 7200 ./out/bench -time "$time" "$@"
