#!/bin/sh
# A third party copies workers/echo, points it at the published crate and builds it. Here: at the crate
# as it would be packaged, in a folder outside the workspace, with its own tests.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
cargo package --package cogo-bus --locked --no-verify --allow-dirty --quiet
crate=$(ls -t "$target"/package/cogo-bus-*.crate | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$crate" -C "$work"
cp -R workers/echo "$work/my-role"
cp Cargo.lock "$work/my-role/"
library=$(basename "$crate" .crate)
sed -i.bak "s|path = \"../..\"|path = \"../$library\"|" "$work/my-role/Cargo.toml"
printf '\n[workspace]\n' >> "$work/my-role/Cargo.toml"
CARGO_TARGET_DIR="$target/sdk-check" cargo check --quiet --all-targets --manifest-path "$work/my-role/Cargo.toml"
echo "sdk-check: workers/echo builds against the packaged library"
