#!/bin/sh
# Installs the parsers and checkers for what operators get, exactly as pinned here, below target/ops. Says nothing
# unless it installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/ops
who=ops
mkdir -p "$target"
. "$pins/../once.sh"

once py pip_client
