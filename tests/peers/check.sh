#!/usr/bin/env bash
# benches/peers as far as it can be held without building or installing anything: the format, the lock files, the syntax of
# the drivers, and that the root's workspace and its documents agree with it. That it measures is tried by
# `just bench-peers --quick`.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=benches/peers
fail() { echo "tests/peers/check.sh: $*" >&2; exit 1; }

cargo fmt --manifest-path "$peers/Cargo.toml" --check

# The peers' dependencies are none of COGO's.
names() { cargo metadata --locked --no-deps --format-version 1 --manifest-path "$1" \
    | python3 -c 'import json, sys; print(*(package["name"] for package in json.load(sys.stdin)["packages"]))'; }
own=$(names "$peers/Cargo.toml")
[ "$own" = bench-peers ] || fail "$peers is not a workspace of its own"
root=$(names Cargo.toml) || fail "the root's workspace cannot be read"
[[ " $root " != *" bench-peers "* ]] || fail "the root's workspace has $peers in it"
# With the dependencies: Cargo.lock is complete. This asks the crates' registry.
cargo metadata --locked --format-version 1 --manifest-path "$peers/Cargo.toml" >/dev/null

for driver in "$peers"/drivers/*.mjs; do
    node --check "$driver" || fail "$driver does not parse"
done
compiled=$(mktemp -d)
trap 'rm -rf "$compiled"' EXIT
for driver in "$peers"/drivers/*.py; do
    PYTHONPYCACHEPREFIX=$compiled python3 -m py_compile "$driver" || fail "$driver does not parse"
done

# Each version is one, and locked; each requirement has a hash; each participant is in the document.
PYTHONDONTWRITEBYTECODE=1 python3 - "$peers" docs/benchmarks-peers.md <<'PYTHON'
import json, pathlib, re, sys

peers, document = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
wrong = []
package = json.loads((peers / "package.json").read_text())
locked = json.loads((peers / "package-lock.json").read_text())["packages"]
for field in ("dependencies", "optionalDependencies"):
    for name, version in package[field].items():
        if not re.fullmatch(r"[0-9.]+", version):
            wrong.append(f"package.json: {name} is {version} and not one version")
        if locked.get(f"node_modules/{name}", {}).get("version") != version:
            wrong.append(f"package-lock.json: {name} is not {version}")
for path, entry in locked.items():
    if path and "integrity" not in entry:
        wrong.append(f"package-lock.json: {path} has no integrity")

requirements = re.sub(r"\\\n\s*", " ", (peers / "requirements.txt").read_text())
pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+) +--hash=sha256:", requirements, re.M))
for line in requirements.splitlines():
    if line and not line.lstrip().startswith("#") and line.split("==")[0] not in pinned:
        wrong.append(f"requirements.txt: no version with a hash in {line[:40]!r}")
for name, version in re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", (peers / "requirements.in").read_text(), re.M):
    if pinned.get(name) != version:
        wrong.append(f"requirements.txt: {name} is {pinned.get(name)} and requirements.in says {version}")

text = document.read_text()
participants = re.findall(r'name: "([a-z-]+)",\n\s+title', (peers / "src/participant.rs").read_text())
if len(participants) < 9:
    wrong.append(f"participant.rs: found no more than {participants}")
for participant in participants:
    if not re.search(rf"^\| `{participant}` \|", text, re.M):
        wrong.append(f"{document}: has no row of `{participant}`")
print(*wrong, sep="\n", file=sys.stderr)
sys.exit(bool(wrong))
PYTHON
echo "tests/peers/check.sh: all is well"
