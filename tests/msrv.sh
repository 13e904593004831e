#!/bin/sh
# Everything compiles with the oldest Rust that Cargo.toml promises (`rust-version`). Needs rustup, which fetches that Rust.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace\.package\]$/,/^\[/ s/^rust-version = "\([0-9.]*\)"$/\1/p' Cargo.toml)
if [ -z "$version" ]; then
    echo "msrv: Cargo.toml has no rust-version in [workspace.package]" >&2
    exit 1
fi
rustup toolchain install "$version" --profile minimal --no-self-update
exec cargo "+$version" check --workspace --all-features --locked
