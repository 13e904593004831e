#!/bin/sh
# Installs Supabase's own clients, exactly as pinned here, below target/clients. Says nothing unless it
# installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/clients
who=clients
mkdir -p "$target"
. "$pins/../once.sh"

once js-2.109 npm_client
once js-2.49 npm_client
once py-2.34 pip_client
once py-2.15 pip_client
once ts-5.9 npm_client
