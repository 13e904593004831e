#!/bin/sh
# Installs what tests/images/check.sh needs: hadolint as pinned here, below target/images, and Debian's buildah. Says nothing
# unless it installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/images
who=images
mkdir -p "$target"
. "$pins/../once.sh"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v buildah >/dev/null; then
    echo "$who: installing buildah" >&2
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends buildah
fi
once py pip_client
