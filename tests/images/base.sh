#!/bin/sh
# base.sh DIR COMMAND…: makes DIR a root with these commands of this machine and what they link to, beside the C library,
# root certificates, a user 65532 and an empty /tmp. No registry can be asked in tests; it stands for the images that
# the Dockerfile names, as distroless for the runtime (no command at all) and Debian for the folders.
set -eu
root=$1
shift
mkdir -p "$root/etc/ssl/certs" "$root/home/nonroot" "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64"
mkdir -m 1777 "$root/tmp"
for link in bin lib lib64; do ln -s "usr/$link" "$root/$link"; done
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
programs=$PROGRAM
for name in "$@"; do
    path=$(command -v "$name")
    cp -L "$path" "$root/usr/bin/"
    programs="$programs $path"
done
# shellcheck disable=SC2086
for library in $(ldd $programs | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
done
