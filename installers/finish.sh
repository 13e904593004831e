#!/bin/sh
# Makes a release's folder whole: all sums in one file, the installers and the Homebrew formula.
#
#   installers/finish.sh DIR VERSION BASE_URL
#
# DIR holds what pack.sh made. What is in DIR is to be found at BASE_URL/vVERSION/ afterwards: the installers and the
# formula say so.
set -eu
[ $# -eq 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1 version=$2 base=${3%/}
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "finish: $*" >&2; exit 1; }

printf '%s' "$version" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?' || fail "VERSION: $version is none, such as 0.1.0"
printf '%s' "$base" | grep -Eqx 'https?://[A-Za-z0-9.:/_%-]+' || fail "BASE_URL: $base is no URL"

cd "$dir"
for sum in cogo-*.sha256; do
    [ -e "$sum" ] || fail "$dir: holds no archive; run pack.sh first"
    sha256sum --quiet --check "$sum" || fail "$sum: is not that of the archive beside it"
done
sed -e "s|@VERSION@|$version|" -e "s|@BASE_URL@|$base|" "$here/install.sh" >install.sh
sed -e "s|@VERSION@|$version|" -e "s|@BASE_URL@|$base|" "$here/install.ps1" >install.ps1
chmod 755 install.sh
# What the workflow adds, such as the SBOM, is summed up too.
files=$(find . -maxdepth 1 -type f ! -name '*.sha256' ! -name SHA256SUMS ! -name cogo.rb | sed 's|^\./||' | LC_ALL=C sort)
# shellcheck disable=SC2086 # names without blanks: ours
sha256sum $files >SHA256SUMS
"$here/homebrew.sh" "$version" "$base" SHA256SUMS >cogo.rb
sha256sum cogo.rb >>SHA256SUMS
