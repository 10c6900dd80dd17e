#!/usr/bin/env bash
# Runs every test with the race detector and counts what was passed, failed and
# skipped. A skip is printed with its reason, never silent.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

scripts/need.sh gcc chromium initdb || exit 1

echo "make test: go vet"
go vet ./... || exit 1

echo "make test: go test -race ./... (each package is listed as it ends)"
CGO_ENABLED=1 go test -race -timeout 20m -json ./... >"$out/events.json" 2>"$out/stderr"
code=$?
go run ./internal/housetest/count <"$out/events.json" || code=1
cat "$out/stderr" >&2

echo "make test: what ships is built without cgo"
CGO_ENABLED=0 go build -o "$out/bonafide" ./cmd/bonafide || code=1
exit $code
