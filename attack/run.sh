#!/usr/bin/env bash
# Attacks the release binary in a network namespace of its own. Builds what it
# needs first, because in there nothing can be reached. Needs root.
#   ./run.sh [-only SD,FT-01] [-store sqlite|postgres|both] [-v]
#   ./run.sh -scale full -only DS,CA-07   as many requests as the rows say: half an hour
#   ./run.sh -planted        the binary has weaknesses: each group must notice its own
set -uo pipefail
cd "$(dirname "$0")"

if [ "$(id -u)" != 0 ]; then
  echo "attack: a network namespace needs root; run this with sudo" >&2
  exit 1
fi
export PATH="$PATH:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"
../scripts/need.sh ip unshare initdb || exit 1

# Databases that are synced thousands of times do better in memory.
[ -z "${TMPDIR:-}" ] && [ -w /dev/shm ] && export TMPDIR=/dev/shm

mkdir -p out
tags=()
for a in "$@"; do
  [ "$a" = -planted ] && tags=(-tags planted)
done
binary=out/bonafide
[ ${#tags[@]} -gt 0 ] && binary=out/bonafide-planted
echo "attack: building $binary"
here=$PWD
(cd .. && CGO_ENABLED=0 go build "${tags[@]}" -trimpath -ldflags "-s -w" -o "$here/$binary" ./cmd/bonafide) || exit 1
(cd .. && CGO_ENABLED=0 go build "${tags[@]}" -trimpath -ldflags "-s -w" -o "$here/out/mcp-server" ./examples/mcp-server) || exit 1
CGO_ENABLED=0 go build "${tags[@]}" -o out/guard ./guard || exit 1
CGO_ENABLED=0 go build -o out/attack . || exit 1
exec timeout 14400 unshare -n -m --propagation private ./out/attack -binary "$binary" "$@"
