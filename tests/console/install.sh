#!/bin/sh
# Installs what drives the browser in the console's tests, exactly as pinned here, below target/console. Says nothing
# unless it installs or fails, and does nothing where that was done for these very pins. The browser is Debian's own.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/console
who=console
mkdir -p "$target"
. "$pins/../once.sh"

once driver npm_client
