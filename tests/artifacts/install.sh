#!/bin/sh
# Builds the S3 server that the tests of the store run, exactly as pinned here, below target/s3. Says nothing unless it
# builds or fails, and does nothing where that was done. It verifies signatures (SigV4), which s3rver does not.
set -eu
version=0.14.1
target=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")" && pwd)/../../target}/s3
home=$target/s3s-fs
"$home/bin/s3s-fs" --version 2>/dev/null | grep -qF "$version" && exit
echo "s3: building s3s-fs $version" >&2
mkdir -p "$target"
# Quickly built, not fast: it serves tests. Optimizing it takes minutes more.
if ! CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install s3s-fs --version "=$version" --features binary --locked --force --profile dev \
    --root "$home" --target-dir "$target/build" >"$target/install.log" 2>&1; then
    cat "$target/install.log" >&2
    echo "s3: s3s-fs could not be built" >&2
    exit 1
fi
rm -rf "$target/build"
