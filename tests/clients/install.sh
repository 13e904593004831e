#!/bin/sh
# Installs Supabase's own clients, exactly as pinned here, below target/clients. Says nothing unless it
# installs or fails, and does nothing where that was done for these very pins.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/clients
mkdir -p "$target"

# Runs the rest of its arguments in a fresh directory, unless they did so once for the same pins.
once() {
    name=$1
    shift
    home=$target/$name
    stamp=$(cat "$pins/$name"/package-lock.json "$pins/$name"/requirements.txt 2>/dev/null | cksum)
    [ "$(cat "$home/.installed" 2>/dev/null)" = "$stamp" ] && return
    echo "clients: installing $name" >&2
    rm -rf "$home"
    mkdir -p "$home"
    if ! (cd "$home" && "$@") >"$home/install.log" 2>&1; then
        cat "$home/install.log" >&2
        echo "clients: $name could not be installed" >&2
        exit 1
    fi
    printf '%s\n' "$stamp" >"$home/.installed"
}

npm_client() {
    cp "$pins/$name/package.json" "$pins/$name/package-lock.json" .
    npm ci --no-audit --no-fund
}

pip_client() {
    python3 -m venv .
    bin/python -m pip install --require-hashes -r "$pins/$name/requirements.txt"
}

once js-2.109 npm_client
once js-2.49 npm_client
once py-2.34 pip_client
once py-2.15 pip_client
