#!/bin/sh
# Installs schemathesis, exactly as pinned here, below target/api. Says nothing unless it installs or fails, and does
# nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/api
who=api
mkdir -p "$target"
. "$pins/../once.sh"

once schemathesis pip_client
