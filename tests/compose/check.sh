#!/bin/sh
# Holds both compose files to Docker Compose itself, and to what they promise. Needs tests/compose/install.sh; no engine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=${CARGO_TARGET_DIR:-$here/../../target}/compose/py
if [ ! -x "$tools/docker-compose" ]; then
    echo "compose: run tests/compose/install.sh first" >&2
    exit 1
fi
exec "$tools/bin/python" "$here/check.py" "$tools/docker-compose"
