#!/bin/sh
# Holds what operators get to parsers and schemas that others wrote. tests/ops/install.sh installs those.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
tools=${CARGO_TARGET_DIR:-$root/target}/ops
if [ ! -x "$tools/py/bin/python" ]; then
    echo "ops: run tests/ops/install.sh first" >&2
    exit 1
fi
python=$tools/py/bin/python
"$python" "$here/promql.py"
"$python" "$here/k8s.py"
"$python" "$here/deny.py"
"$python" "$here/workflows.py"
"$tools/py/bin/zizmor" --offline --no-progress --quiet --persona pedantic \
    --config "$here/zizmor.yml" "$root/.github/workflows"
