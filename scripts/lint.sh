#!/usr/bin/env bash
# Formatting, vet and the linters of .golangci.yml, at a pinned version.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(gofmt -s -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted (run gofmt -s -w):"
	echo "$unformatted"
	exit 1
fi
echo "make lint: golangci-lint (built from its pinned source the first time, about a minute)"
go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run --timeout 15m ./...
echo "make lint: ok"
