#!/bin/bash
# What is shipped, tried here: the commit that a build tells, the small worker at a real hub, archives, installers and the
# formula. Needs tests/dist/install.sh, and Postgres. COGO_FULL and COGO_WORKER name programs that are built already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
[ -x "$target/dist-check/checkers/bin/python" ] || { echo "dist: run tests/dist/install.sh first" >&2; exit 1; }

work=$(mktemp -d)
# Run by root, Postgres runs as another user, who must get to its data.
chmod o+x "$work"
export WORK=$work ROOT=$root CHECKERS=$target/dist-check/checkers/bin
trap 'rm -rf "$work"' EXIT
# Nothing of this machine's cogo, and nothing that the builds were told.
for name in $(compgen -e | grep -E '^(COGO_|OTEL_)' | grep -vE '^COGO_(FULL|WORKER|PG_BIN)$'); do unset "$name"; done
unset DATABASE_URL
export COGO_DATA_DIR=$work/data

# Both builds put their program in one place, so each is copied at once. Without what a debugger wants: packing
# takes long enough.
build() {
    local name=$1
    shift
    cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p cogo-cli "$@"
    strip -o "$work/$name" "$target/debug/cogo"
}
if [ -n "${COGO_FULL:-}" ]; then cp "$COGO_FULL" "$work/full"; else build full; fi
if [ -n "${COGO_WORKER:-}" ]; then cp "$COGO_WORKER" "$work/worker"; else
    build worker --no-default-features --features worker
fi

passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok: $1"; }
not_ok() { failed=$((failed + 1)); echo "FAILED: $1" >&2; [ -z "${2:-}" ] || sed 's/^/    /' "$2" >&2; }
# The rest of the arguments must end with this exit code and say each of the words that stand before `--`.
must() {
    local name=$1 code=$2 words=() ended=0 word
    shift 2
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    "$@" >"$work/said" 2>&1 </dev/null || ended=$?
    if [ "$ended" != "$code" ]; then
        echo "(ended with $ended instead of $code)" >>"$work/said"
        not_ok "$name" "$work/said"
        return
    fi
    for word in ${words[@]+"${words[@]}"}; do
        if ! grep -qF -- "$word" "$work/said"; then
            echo "(says nothing of: $word)" >>"$work/said"
            not_ok "$name" "$work/said"
            return
        fi
    done
    ok "$name"
}

. "$here/commit.sh"
. "$here/worker.sh"
. "$here/installers.sh"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
