#!/bin/sh
# Installs what builds the book and what looks for its dead links, exactly as pinned here, below target/docs-tools. Says
# nothing unless it installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/docs-tools
who=docs
mkdir -p "$target"
target=$(cd "$target" && pwd)
. "$pins/../once.sh"

MDBOOK=0.5.4

# Not optimized: the book takes a second all the same, and building mdBook two minutes less. Its own target directory goes
# again, being some hundred MB.
mdbook() {
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev --version "$MDBOOK" --no-default-features \
        --features search --root . --target-dir build mdbook
    rm -rf build
}

once node npm_client
[ "$("$target/mdbook/bin/mdbook" --version 2>/dev/null)" = "mdbook v$MDBOOK" ] || {
    rm -rf "$target/mdbook"
    once mdbook mdbook
}
