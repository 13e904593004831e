#!/bin/sh
# Installs the MCP clients that the mesh tests run, exactly as pinned here, below target/mesh. Says nothing
# unless it installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/mesh
who=mesh
mkdir -p "$target"
. "$pins/../once.sh"

once node npm_client
once conformance npm_client
once sdk npm_client
once inspector npm_client
once browser npm_client
once py-1 pip_client
once py-2 pip_client
