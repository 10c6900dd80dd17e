#!/usr/bin/env bash
# Installs what is pinned, builds the runner and runs it. What a registry or a
# runtime does not give is told to the runner, which reports it as not run.
set -uo pipefail
cd "$(dirname "$0")"

nothing() {
  printf 'client or suite  over  outcome\neverything       -     not run  %s\n' "$1"
  exit 0
}

command -v go >/dev/null || nothing "there is no go"
timeout 300 go mod download >/dev/null 2>&1 || nothing "the Go modules cannot be had"

if ! command -v npm >/dev/null; then
  export INTEROP_NO_NODE="there is no npm"
elif ! cmp -s package-lock.json node_modules/.installed; then
  echo "interop: npm ci"
  if timeout 300 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; then
    cp package-lock.json node_modules/.installed
  else
    export INTEROP_NO_NODE="the npm packages cannot be had"
  fi
fi

mkdir -p out && go build -o out/interop . || exit 1
exec timeout 900 ./out/interop
