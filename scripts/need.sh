#!/usr/bin/env bash
# Installs from Debian's packages what the tests need and the machine lacks, and
# says so. Usage: need.sh gcc chromium
set -euo pipefail
missing=()
for tool in "$@"; do
	if [ "$tool" = initdb ] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
		continue # Debian keeps it out of the PATH
	fi
	command -v "$tool" >/dev/null 2>&1 || missing+=("$tool")
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
echo "The run needs ${missing[*]}, which this machine lacks: installing from Debian's packages."
if ! command -v apt-get >/dev/null 2>&1; then
	echo "There is no apt-get here. Install ${missing[*]} by hand and run this again." >&2
	exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
	sudo="sudo"
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
packages=()
for tool in "${missing[@]}"; do
	case "$tool" in
	gcc) packages+=(gcc libc6-dev) ;;
	ip) packages+=(iproute2) ;;
	unshare) packages+=(util-linux) ;;
	initdb) packages+=(postgresql) ;;
	*) packages+=("$tool") ;;
	esac
done
$sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
