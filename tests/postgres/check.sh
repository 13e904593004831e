#!/bin/sh
# The library's tests on Postgres 16, 17 and 18, or on those that are named: tests/postgres/check.sh 17. What a message
# costs was counted on 15 (tests/it/cost/budgets.json), so it has some room here. Needs install.sh beside this.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
[ "$#" -gt 0 ] || set -- 16 17 18
for version; do
    bin=$target/postgres/node/$version/bin
    [ -x "$bin/postgres" ] || { echo "postgres: there is no $version; run tests/postgres/install.sh" >&2; exit 2; }
done
failed=
cd "$root"
for version; do
    bin=$target/postgres/node/$version/bin
    echo "== $("$bin/postgres" --version)"
    COGO_PG_BIN=$bin cargo test --locked -p cogo-bus --test it || failed="$failed $version"
done
[ -z "$failed" ] || { echo "postgres: failed on$failed" >&2; exit 1; }
echo "postgres: the library's tests pass on $*"
