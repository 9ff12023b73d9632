#!/usr/bin/env bash
# What the tests need from the system and pip cannot bring. Installs only what is missing, and only as root where there
# is apt; elsewhere `make test` says what is missing.
set -euo pipefail

# package and the program or Python module that shows that it is here
missing=()
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v make >/dev/null || missing+=(make)
command -v strace >/dev/null || missing+=(strace)
command -v unshare >/dev/null || missing+=(util-linux)
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v redis-server >/dev/null || missing+=(redis-server)

if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "not installed, for want of root or apt: ${missing[*]}" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null || echo "the package lists could not be brought up to date; going on with those here" >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
