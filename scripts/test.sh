#!/usr/bin/env bash
# Runs every test with the race detector, those of the whole server on both
# engines, and counts what was passed, failed and skipped. A skip is printed with
# its reason, never silent.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

scripts/need.sh gcc chromium initdb || exit 1

echo "make test: go vet"
go vet ./... || exit 1

# tests runs go test for the count below, which prints what is no JSON as it is.
tests() {
  CGO_ENABLED=1 go test -race -timeout 20m -json "$@" 2>>"$out/stderr" || touch "$out/failed"
}

echo "make test: go test -race ./... (each package is listed as it ends)"
go build -o "$out/count" ./internal/housetest/count || exit 1
{
  tests ./...
  echo "make test: the tests of the whole server once more, on PostgreSQL"
  BONAFIDE_HOUSE=postgres tests ./internal/housetest | sed -u 's|"Package":"\([^"]*\)"|"Package":"\1 on PostgreSQL"|'
} | "$out/count" || touch "$out/failed"
cat "$out/stderr" >&2

echo "make test: what ships is built without cgo"
CGO_ENABLED=0 go build -o "$out/bonafide" ./cmd/bonafide || touch "$out/failed"
[ ! -e "$out/failed" ]
