#!/bin/sh
# Installs cogo into a folder of yours. Needs no root, changes nothing else, and checks what it got before it unpacks it.
#
#   install.sh [--worker] [--to DIR] [--version VERSION] [--from URL] [--target TARGET]
#
#   --worker           the small program, for a machine that only lends its tools
#   --to DIR           where `cogo` goes; by default ~/.local/bin (COGO_INSTALL_DIR)
#   --version VERSION  another version than that of this installer
#   --from URL         from elsewhere: URL/vVERSION/ holds the archives (COGO_BASE_URL)
#   --target TARGET    for another platform than this, such as x86_64-unknown-linux-gnu
set -eu

# All in functions, so that half of this file, when a download breaks off, does nothing.
usage() {
    cat <<'HELP'
Installs cogo into a folder of yours.

  install.sh [--worker] [--to DIR] [--version VERSION] [--from URL] [--target TARGET]

  --worker           the small program, for a machine that only lends its tools
  --to DIR           where `cogo` goes; by default ~/.local/bin (COGO_INSTALL_DIR)
  --version VERSION  another version than that of this installer
  --from URL         from elsewhere: URL/vVERSION/ holds the archives (COGO_BASE_URL)
  --target TARGET    for another platform than this, such as x86_64-unknown-linux-gnu
HELP
}

say() { printf '%s\n' "cogo: $*" >&2; }
fail() { say "$*"; exit 1; }
wrong() { say "$*"; exit 2; }
has() { command -v "$1" >/dev/null 2>&1; }

# Which of the archives is for this machine.
target_of_this_machine() {
    os=$(uname -s) machine=$(uname -m)
    # A shell under Rosetta says x86_64 of a machine that is not.
    if [ "$os $machine" = "Darwin x86_64" ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then
        machine=arm64
    fi
    case $machine in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=aarch64 ;;
    esac
    case "$os $machine" in
        "Linux x86_64" | "Linux aarch64")
            case $(ldd --version 2>&1 || true) in
                *musl*) fail "there is no binary for a Linux with musl; use the container image, or build from source" ;;
            esac
            echo "$machine-unknown-linux-gnu"
            ;;
        "Darwin x86_64" | "Darwin aarch64") echo "$machine-apple-darwin" ;;
        *) fail "there is no binary for $os on $machine, only for Linux and macOS on x86_64 and aarch64 (and install.ps1 for Windows); build from source" ;;
    esac
}

# Downloads $1 to the file $2. Where the URL is https, so is whatever it leads to.
download() {
    if has curl; then
        case $1 in
            https:*) curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location --retry 3 --output "$2" "$1" ;;
            *) curl --fail --silent --show-error --location --retry 3 --output "$2" "$1" ;;
        esac
    elif has wget; then
        case $1 in
            https:*) wget --https-only --quiet --tries=3 --output-document="$2" "$1" ;;
            *) wget --quiet --tries=3 --output-document="$2" "$1" ;;
        esac
    else
        fail "neither curl nor wget is here; install one of them"
    fi
}

sum_of() {
    if has sha256sum; then
        sha256sum "$1"
    elif has shasum; then
        shasum -a 256 "$1"
    elif has openssl; then
        openssl dgst -sha256 -r "$1"
    else
        fail "neither sha256sum, shasum nor openssl is here, and what is not checked is not installed"
    fi | cut -d ' ' -f 1
}

main() {
    version=@VERSION@ from=${COGO_BASE_URL:-@BASE_URL@} to=${COGO_INSTALL_DIR:-} target='' program=cogo
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --worker) program=cogo-worker; shift; continue ;;
            --to | --version | --from | --target) [ -n "${2:-}" ] || wrong "$1: needs a value" ;;
            *) wrong "$1: is not known; see --help" ;;
        esac
        case $1 in
            --to) to=$2 ;;
            --version) version=${2#v} ;;
            --from) from=$2 ;;
            --target) target=$2 ;;
        esac
        shift 2
    done
    # As it lies in the repository, it belongs to no release.
    case $version in @*) wrong "--version: is needed, as this installer is of no release" ;; esac
    case $from in @*) wrong "--from: is needed, as this installer is of no release" ;; esac
    case $from in http://* | https://*) ;; *) wrong "--from: $from is no URL" ;; esac
    case $version in *[!0-9A-Za-z.+-]*) wrong "--version: $version is none" ;; esac
    case $target in *[!0-9A-Za-z_-]*) wrong "--target: $target is none" ;; esac
    if [ -z "$to" ]; then
        [ -n "${HOME:-}" ] || wrong "--to: is needed, as HOME is not set"
        to=$HOME/.local/bin
    fi
    [ -n "$target" ] || target=$(target_of_this_machine)
    has tar || fail "tar is not here, and is needed"

    name=$program-$target archive=$program-$target.tar.gz
    url=${from%/}/v$version/$archive
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    say "getting $url"
    download "$url" "$work/$archive" || fail "$url: could not be got; is there a version $version for $target?"
    download "$url.sha256" "$work/sum" || fail "$url.sha256: could not be got, and what is not checked is not installed"
    wanted=$(cut -d ' ' -f 1 "$work/sum")
    [ "${#wanted}" = 64 ] || fail "$url.sha256: holds no sum"
    got=$(sum_of "$work/$archive")
    [ "$got" = "$wanted" ] || fail "$url: is not what it should be (SHA-256 $got, and should be $wanted); nothing was installed"

    tar -C "$work" -xzf "$work/$archive"
    [ -f "$work/$name/cogo" ] || fail "$archive: holds no $name/cogo"
    mkdir -p "$to" || fail "--to: $to cannot be made"
    # Beside its place and then into it: a cogo that runs goes on with the old one, and none is ever half there.
    new=$to/.cogo.$$
    trap 'rm -rf "$work" "$new"' EXIT
    cp "$work/$name/cogo" "$new" || fail "--to: $to cannot be written to"
    chmod 755 "$new"
    if [ "$target" = "$(target_of_this_machine 2>/dev/null || true)" ]; then
        told=$("$new" -V 2>&1) || fail "the program does not run here, and was not installed: $told (on Linux it needs glibc 2.34 or newer)"
    else
        told="cogo $version for $target"
    fi
    mv -f "$new" "$to/cogo"
    say "$told is in $to/cogo"
    case :${PATH:-}: in
        *:"$to":*) ;;
        *) say "$to is not in PATH; add it: export PATH=\"$to:\$PATH\"" ;;
    esac
}

main "$@"
