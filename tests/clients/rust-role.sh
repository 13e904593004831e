#!/bin/sh
# Builds examples/rust-role as somebody else would, outside the workspace: a copy of it, with the versions of our own
# Cargo.lock. The last line that it prints is the path of the program.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}/rust-role
mkdir -p "$target/copy"
cp -R "$root/examples/rust-role/." "$target/copy/"
cp "$root/Cargo.lock" "$target/copy/"
sed -i.bak "s|path = \"../..\"|path = \"$root\"|" "$target/copy/Cargo.toml"
# What cargo tells the test that calls this would look to build scripts like a change, each time.
for name in $(env | sed -n 's/^\(CARGO_\(PKG\|MANIFEST\|BIN\|CRATE\|PRIMARY\|ENCODED\)[A-Za-z_0-9]*\)=.*/\1/p'); do unset "$name"; done
CARGO_TARGET_DIR="$target" cargo build --quiet --manifest-path "$target/copy/Cargo.toml" >&2
echo "$target/debug/cogo-worker-deliver"
