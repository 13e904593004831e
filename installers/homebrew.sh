#!/bin/sh
# Prints the Homebrew formula of a release, made from its sums.
#
#   installers/homebrew.sh VERSION BASE_URL SHA256SUMS >cogo.rb
set -eu
[ $# -eq 3 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
version=$1 base=${2%/} sums=$3

# One platform: where its archive is, and what it must be.
on() {
    archive=cogo-$1.tar.gz
    sum=$(awk -v name="$archive" '$2 == name { print $1 }' "$sums")
    if [ -z "$sum" ]; then
        echo "homebrew: $sums has no sum of $archive" >&2
        exit 1
    fi
    printf '      url "%s/v%s/%s"\n      sha256 "%s"\n' "$base" "$version" "$archive" "$sum"
}

# Apart from the text, where a failure would be lost.
mac_arm=$(on aarch64-apple-darwin)
mac_intel=$(on x86_64-apple-darwin)
linux_arm=$(on aarch64-unknown-linux-gnu)
linux_intel=$(on x86_64-unknown-linux-gnu)
cat <<FORMULA
class Cogo < Formula
  desc "Durable, event-sourced message bus for AI agents, on Postgres"
  homepage "${base%/releases/download}"
  version "$version"
  license "Apache-2.0"

  on_macos do
    on_arm do
$mac_arm
    end
    on_intel do
$mac_intel
    end
  end

  on_linux do
    on_arm do
$linux_arm
    end
    on_intel do
$linux_intel
    end
  end

  def install
    bin.install "cogo"
  end

  test do
    assert_match "cogo #{version}", shell_output("#{bin}/cogo -V")
    assert_match "mcp-gateway", shell_output("#{bin}/cogo worker")
  end
end
FORMULA
