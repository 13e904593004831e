#!/bin/sh
# Installs what reads the installers, exactly as pinned here, below target/dist-check, and Ruby for the formula. Says
# nothing unless it installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/dist-check
who=dist
mkdir -p "$target"
. "$pins/../once.sh"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v ruby >/dev/null; then
    echo "dist: installing ruby" >&2
    { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends ruby; } >"$target/ruby.log" 2>&1 || {
        cat "$target/ruby.log" >&2
        exit 1
    }
fi
once checkers pip_client
