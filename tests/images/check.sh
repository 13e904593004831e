#!/bin/sh
# Holds the images to what docs/images.md says of them: a linter that others wrote reads the Dockerfiles, buildah
# builds the stages around the program of the tests, and that program runs as the image says. `--bin FILE` names the program;
# by default target/debug/cogo. tests/images/install.sh installs what is needed; it wants root, or sudo.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
program=$target/debug/cogo
[ "${1:-}" = --bin ] && program=$2

fail() { echo "images: $1" >&2; exit 1; }
command -v buildah >/dev/null || fail "buildah is missing; run tests/images/install.sh"
[ -x "$target/images/py/bin/hadolint" ] || fail "hadolint is missing; run tests/images/install.sh"
[ -x "$program" ] || fail "$program is missing; run cargo build -p cogo-cli, or name a program by --bin"

cd "$root"
"$target/images/py/bin/hadolint" --no-color Dockerfile mcp-servers/*/Dockerfile
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
grep -q "^ARG RUST_IMAGE=.*:$channel-" Dockerfile || fail "RUST_IMAGE of the Dockerfile is not $channel, as rust-toolchain.toml says"
for pin in figma-developer-mcp @playwright/mcp supergateway; do
    version=$(grep -h "\"$pin\":" mcp-servers/*/package.json | sed 's/.*: "\(.*\)".*/\1/' | sort -u)
    grep -q "\`$pin\` $version" mcp-servers/README.md || fail "mcp-servers/README.md does not say $pin $version"
done

node --test "$here"/*.test.mjs

# Namespaces and chroot want root. What the programs write goes below a folder of its own, removed at the end.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
scratch=$(mktemp -d)
trap 'as_root rm -rf "$scratch"' EXIT
# Root may have no Rust of its own, and shall leave nothing in the checkout.
as_root env PATH="$PATH:/usr/sbin" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" RUSTUP_TOOLCHAIN="$channel" \
    PYTHONDONTWRITEBYTECODE=1 python3 "$here/check.py" "$program" "$scratch"
