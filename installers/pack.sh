#!/bin/sh
# Packs one program for one platform: the archive, and beside it its sum.
#
#   installers/pack.sh PROGRAM TARGET OUT [worker]
#
# makes OUT/cogo-TARGET.tar.gz (`.zip` for Windows), or OUT/cogo-worker-TARGET.tar.gz, and the same with `.sha256` added.
# The release's workflow calls it once a build; tests/dist/check.sh does here what it does there.
set -eu
[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
program=$1 target=$2 out=$3 kind=${4-}
root=$(cd "$(dirname "$0")/.." && pwd)
fail() { echo "pack: $*" >&2; exit 1; }

# What the oldest Linux that is promised has (docs/releases.md): Ubuntu 22.04, Debian 12, RHEL 9.
GLIBC=2.34

[ -f "$program" ] || fail "$program: there is no such file; build it first"
case $kind in
    '') name=cogo-$target ;;
    worker) name=cogo-worker-$target ;;
    *) fail "$kind: is neither \`worker\` nor left out" ;;
esac

case $target in
    *-linux-gnu)
        command -v objdump >/dev/null || fail "objdump is needed, to see which glibc the program wants"
        # The machine in the ELF header: nobody gets the program of another.
        machine=$(od -An -tx1 -j18 -N2 "$program" | tr -d ' ')
        case ${target%%-*}-$machine in
            x86_64-3e00 | aarch64-b700) ;;
            *) fail "$program: is no program of $target" ;;
        esac
        wants=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
        [ -n "$wants" ] || fail "$program: is not linked to glibc, so not of $target"
        newest=$(printf 'GLIBC_%s\n%s\n' "$GLIBC" "$wants" | sort -V | tail -n 1)
        [ "$newest" = "GLIBC_$GLIBC" ] || fail "$program wants $wants, and no more than $GLIBC is promised; build on an older Linux"
        ;;
esac

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/$name"
case $target in
    *-windows-*) installed=cogo.exe ;;
    *) installed=cogo ;;
esac
cp "$program" "$work/$name/$installed"
chmod 755 "$work/$name/$installed"
cp "$root/LICENSE" "$root/README.md" "$root/CHANGELOG.md" "$work/$name/"

case $target in
    *-windows-*)
        archive=$name.zip
        python=$(command -v python3 || command -v python) || fail "python is needed, to make a .zip"
        (cd "$work" && "$python" -m zipfile -c "$archive" "$name")
        ;;
    *)
        archive=$name.tar.gz
        # Nobody's name and id, where tar can leave them out: whoever unpacks as root gets files of root.
        owner=
        tar --version 2>/dev/null | grep -q GNU && owner="--owner=0 --group=0 --numeric-owner --sort=name"
        # shellcheck disable=SC2086 # several options, or none
        tar -C "$work" $owner -czf "$work/$archive" "$name"
        ;;
esac
mv -f "$work/$archive" "$out/$archive"
cd "$out"
if command -v sha256sum >/dev/null; then
    sha256sum "$archive" >"$archive.sha256"
else
    shasum -a 256 "$archive" >"$archive.sha256"
fi
echo "$out/$archive"
