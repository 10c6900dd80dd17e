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

mkdir -p out
if ! command -v python3 >/dev/null; then
  export INTEROP_NO_PYTHON="there is no python3"
elif ! cmp -s py/requirements.txt out/venv/.installed; then
  echo "interop: pip install"
  if rm -rf out/venv && python3 -m venv out/venv &&
    timeout 300 out/venv/bin/pip install -q --disable-pip-version-check --no-deps -r py/requirements.txt; then
    cp py/requirements.txt out/venv/.installed
  else
    export INTEROP_NO_PYTHON="the Python packages cannot be had"
  fi
fi

if ! command -v cargo >/dev/null; then
  export INTEROP_NO_RUST="there is no cargo"
elif ! (cd rmcp && CARGO_TARGET_DIR=../out/rmcp timeout 300 cargo build --locked --quiet); then
  export INTEROP_NO_RUST="rmcp was not built within 5 minutes"
fi

go build -o out/interop . || exit 1
exec timeout 1800 ./out/interop "$@"
