#!/bin/sh
# Builds `cogo` of the release before, which `previous` names, from this repository's history into target/upgrade. Says
# nothing unless it builds or fails, and does nothing where that was done for this very commit.
#
# What it depends on lies with what today's `cogo` depends on (as far as both use the same), so little more is built than
# its own crates.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
home=$target/upgrade
commit=$(cat "$here/previous")
[ "$(cat "$home/.installed" 2>/dev/null)" = "$commit" ] && [ -x "$home/cogo" ] && exit
fail() {
    echo "upgrade: $1" >&2
    exit 1
}
git -C "$root" rev-parse --git-dir >/dev/null 2>&1 ||
    fail "$root is no clone, so the release before, $commit, cannot be built; clone the repository"
git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null ||
    fail "this clone does not reach back to the release before, $commit; run: git fetch --unshallow"
echo "upgrade: building cogo of $commit" >&2
rm -rf "$home"
mkdir -p "$home/src"
git -C "$root" archive "$commit" | tar -x -C "$home/src"
# Without the flags of whoever calls: coverage would instrument it, and nothing would be shared.
if ! (cd "$home/src" && unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER &&
    CARGO_BUILD_BUILD_DIR=$target CARGO_TARGET_DIR=$home/out CARGO_INCREMENTAL=0 cargo build --locked -p cogo-cli) >"$home/install.log" 2>&1; then
    cat "$home/install.log" >&2
    fail "cogo of $commit could not be built"
fi
mv "$home/out/debug/cogo" "$home/cogo"
rm -rf "$home/out" "$home/src"
printf '%s\n' "$commit" >"$home/.installed"
