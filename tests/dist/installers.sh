# shellcheck shell=bash disable=SC2154 # read by check.sh, which sets root, here and work
# Archives, installers and formula, from a server on this machine. Part of check.sh.

for script in "$root"/installers/*.sh; do
    must "shellcheck reads ${script##*/}" 0 -- "$CHECKERS/shellcheck" "$script"
done
must "install.ps1 is PowerShell" 0 -- "$CHECKERS/python" "$here/powershell.py" "$root/installers/install.ps1"
sed 's/^function Install-Cogo {/function Install-Cogo {{ if (/' "$root/installers/install.ps1" >"$work/broken.ps1"
must "a broken one is not" 1 "broken.ps1:" -- "$CHECKERS/python" "$here/powershell.py" "$work/broken.ps1"

version=$("$work/worker" -V | cut -d ' ' -f 2)
site=$work/site
out=$site/v$version
this=$(uname -m)-unknown-linux-gnu
must "the full program is packed" 0 "cogo-$this.tar.gz" -- "$root/installers/pack.sh" "$work/full" "$this" "$out"
must "the worker is packed" 0 "cogo-worker-$this.tar.gz" -- "$root/installers/pack.sh" "$work/worker" "$this" "$out" worker
must "what is not there is not packed" 1 "no such file" -- "$root/installers/pack.sh" "$work/none" "$this" "$out"
# For platforms that are not here, something stands in for the program: only the packing is tried.
echo stand-in >"$work/stand-in"
[ "$this" = x86_64-unknown-linux-gnu ] && other=aarch64-unknown-linux-gnu || other=x86_64-unknown-linux-gnu
for target in aarch64-apple-darwin x86_64-apple-darwin x86_64-pc-windows-msvc; do
    must "a program of $target is packed" 0 -- "$root/installers/pack.sh" "$work/stand-in" "$target" "$out"
done
must "what is no program is not packed" 1 "is no program of $this" -- "$root/installers/pack.sh" "$work/stand-in" "$this" "$work/odd"
must "nor is that of another machine" 1 "is no program of $other" -- "$root/installers/pack.sh" "$work/full" "$other" "$out"
must "a release with a platform missing is not finished" 1 "$other" -- \
    "$root/installers/finish.sh" "$out" "$version" http://127.0.0.1:1
(cd "$work" && mkdir "cogo-$other" && cp stand-in "cogo-$other/cogo" && tar -czf "$out/cogo-$other.tar.gz" "cogo-$other")
(cd "$out" && sha256sum "cogo-$other.tar.gz" >"cogo-$other.tar.gz.sha256")
must "a release is not finished with a wrong sum" 1 "is not that of the archive" -- sh -c '
    cp -r "$1" "$2" && echo >>"$2/cogo-aarch64-apple-darwin.tar.gz" && "$3/installers/finish.sh" "$2" "$4" http://127.0.0.1:1
' - "$out" "$work/wrong" "$root" "$version"
must "an archive holds the program and its licence" 0 "/cogo" "/LICENSE" -- tar -tzvf "$out/cogo-$this.tar.gz"
must "that for Windows is a .zip" 0 "cogo-x86_64-pc-windows-msvc/cogo.exe" -- \
    python3 -m zipfile -l "$out/cogo-x86_64-pc-windows-msvc.zip"

cat >"$work/server.py" <<'PYTHON'
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
python3 "$work/server.py" "$site" >"$work/port" 2>/dev/null &
server=$!
trap 'end "$server"; rm -rf "$work"' EXIT
wait_for "$work/port" "" || true
for _ in $(seq 50); do [ -s "$work/port" ] && break; sleep 0.1; done
base=http://127.0.0.1:$(cat "$work/port")
must "the release is finished" 0 -- "$root/installers/finish.sh" "$out" "$version" "$base"
must "all sums are right" 0 "install.sh: OK" "cogo.rb: OK" -- sh -c 'cd "$1" && sha256sum --check SHA256SUMS' - "$out"

home=$work/home
mkdir "$home"
installer=$out/install.sh
for shell in dash bash; do
    to=$work/to-$shell
    must "install.sh installs in $shell" 0 "is in $to/cogo" "is not in PATH" -- env HOME="$home" "$shell" "$installer" --to "$to"
    must "and it runs" 0 "cogo $version" -- "$to/cogo" -V
    cmp -s "$to/cogo" "$work/full" || not_ok "and it is the full program"
    must "it replaces it by the worker" 0 -- env HOME="$home" "$shell" "$installer" --worker --to "$to"
    cmp -s "$to/cogo" "$work/worker" || not_ok "which is the worker"
    must "it installs from a pipe below HOME" 0 -- env HOME="$home" "$shell" -c "cat '$installer' | $shell -s -- --worker"
    cmp -s "$home/.local/bin/cogo" "$work/worker" || not_ok "which is in ~/.local/bin"
    rm -rf "$home/.local"
    [ "$(ls -A "$to")" = cogo ] || not_ok "and leaves nothing else"
done

# A machine with nothing but what is linked here.
bare=$work/bin
mkdir "$bare"
for program in sh uname ldd wget tar gzip sha256sum cut mktemp mkdir cp mv rm chmod cat; do
    ln -s "$(command -v "$program")" "$bare/$program"
done
on_bare() { env -i HOME="$home" PATH="$bare" sh "$installer" "$@"; }
must "it asks wget where curl is not" 0 "is in $work/wget/cogo" -- on_bare --to "$work/wget"
rm "$bare/sha256sum"
must "what cannot be checked is not installed" 1 "neither sha256sum, shasum nor openssl" -- on_bare --to "$work/nothing"
rm "$bare/wget"
must "without curl and wget it says so" 1 "neither curl nor wget" -- on_bare --to "$work/nothing"
for machine in "Linux riscv64" "FreeBSD x86_64"; do
    rm -f "$bare/uname"
    printf '#!/bin/sh\ncase $1 in -s) echo %s;; -m) echo %s;; esac\n' ${machine% *} ${machine#* } >"$bare/uname"
    chmod 755 "$bare/uname"
    must "$machine has no binary" 1 "no binary for ${machine% *} on ${machine#* }" "build from source" -- on_bare --to "$work/nothing"
done
printf '#!/bin/sh\ncase $1 in -s) echo Linux;; -m) echo x86_64;; esac\n' >"$bare/uname"
rm "$bare/ldd"
printf '#!/bin/sh\necho "musl libc (x86_64)" >&2\nexit 1\n' >"$bare/ldd"
chmod 755 "$bare/ldd"
must "nor has a Linux with musl" 1 "musl" "container image" -- on_bare --to "$work/nothing"

install() { env HOME="$home" dash "$installer" "$@"; }
must "another platform's is got by its name" 0 "for aarch64-apple-darwin is in" -- \
    install --target aarch64-apple-darwin --to "$work/mac"
must "a version that is not there is told" 1 "v9.9.9" "is there a version 9.9.9" -- install --version 9.9.9 --to "$work/nothing"
must "an option that is not known is told" 2 "--dir: is not known" -- install --dir "$work/nothing"
must "so is one without its value" 2 "--to: needs a value" -- install --to
must "and a URL that is none" 2 "--from: ftp://x is no URL" -- install --from ftp://x --to "$work/nothing"
must "the installer of the repository wants a version" 2 "--version: is needed" -- sh "$root/installers/install.sh"
must "and a place" 2 "--from: is needed" -- sh "$root/installers/install.sh" --version "$version"
touch "$work/file"
must "a place that is none is told" 1 "--to: $work/file/x cannot be made" -- install --to "$work/file/x"

archive=$out/cogo-$this.tar.gz
cp "$archive" "$work/good.tar.gz"
cp "$archive.sha256" "$work/good.sum"
printf 'x' | dd of="$archive" bs=1 seek=1000 conv=notrunc 2>/dev/null
mkdir "$work/before"
echo old >"$work/before/cogo"
must "a spoiled archive is not installed" 1 "is not what it should be" "nothing was installed" -- install --to "$work/before"
[ "$(cat "$work/before/cogo")" = old ] && [ "$(ls -A "$work/before")" = cogo ] || not_ok "and leaves the old program alone"
cp "$work/good.tar.gz" "$archive"
echo "not a sum" >"$archive.sha256"
must "nor one whose sum is none" 1 "holds no sum" -- install --to "$work/nothing"
rm "$archive.sha256"
must "nor one without a sum" 1 "what is not checked is not installed" -- install --to "$work/nothing"
cp "$work/good.sum" "$archive.sha256"
# Right by its sum, and yet no program of this machine.
"$root/installers/pack.sh" "$work/stand-in" aarch64-apple-darwin "$work/odd" >/dev/null
tar -C "$work" -xzf "$work/odd/cogo-aarch64-apple-darwin.tar.gz"
mv "$work/cogo-aarch64-apple-darwin" "$work/cogo-$this"
tar -C "$work" -czf "$archive" "cogo-$this"
(cd "$out" && sha256sum "cogo-$this.tar.gz" >"cogo-$this.tar.gz.sha256")
must "nor one that does not run here" 1 "does not run here" "glibc" -- install --to "$work/before"
[ "$(cat "$work/before/cogo")" = old ] && [ "$(ls -A "$work/before")" = cogo ] || not_ok "and leaves the old program alone"
[ ! -e "$work/nothing" ] || not_ok "nothing was made where nothing was installed"
end "$server"
trap 'rm -rf "$work"' EXIT

must "the formula is Ruby" 0 "Syntax OK" -- ruby -c "$out/cogo.rb"
must "and names each platform's archive and sum" 0 "4 archives" -- ruby "$here/formula.rb" "$out/cogo.rb" "$out/SHA256SUMS" "$version"
grep -v aarch64-apple "$out/SHA256SUMS" >"$work/sums"
must "without a sum there is no formula" 1 "no sum of cogo-aarch64-apple-darwin" -- \
    "$root/installers/homebrew.sh" "$version" "$base" "$work/sums"
