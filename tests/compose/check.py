"""Holds docker-compose.local.yml and docker-compose.ci.yml to Docker Compose's own parser, and to what they promise.

A rule that never fails holds nothing: each is also tried on a file that breaks it (broken.py).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

import broken
import rules

ROOT = Path(__file__).resolve().parents[2]
FILES = ["docker-compose.local.yml", "docker-compose.ci.yml"]


def needed(text: str) -> set[str]:
    """The variables without which Compose is to refuse the file."""
    return set(re.findall(r"\$\{(\w+):\?", text))


def config(compose: str, file: Path, variables: dict[str, str], *profiles: str) -> subprocess.CompletedProcess:
    flags = [flag for profile in profiles for flag in ("--profile", profile)]
    return subprocess.run(
        [compose, "--project-name", "check", "--project-directory", ROOT, "--file", file]
        + ["--env-file", os.devnull, *flags, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
    )


def checked(compose: str, file: Path, name: str) -> list[str]:
    text = file.read_text()
    raw = yaml.safe_load(text)
    variables = {variable: "x" * 64 for variable in needed(text)}
    profiles = sorted({profile for service in raw["services"].values() for profile in service.get("profiles", [])})
    wrong = []
    for chosen in [[], *([profile] for profile in profiles), profiles]:
        said = config(compose, file, variables, *chosen)
        if said.returncode or said.stderr:
            wrong.append(f"with profiles {chosen}: {said.stderr.strip()}")
    if wrong:
        return wrong
    resolved = json.loads(said.stdout)
    for variable in sorted(variables):
        rest = {name: value for name, value in variables.items() if name != variable}
        said = config(compose, file, rest)
        if not said.returncode or f"variable {variable} is missing a value" not in said.stderr:
            wrong.append(f"without {variable}: {said.stderr.strip() or 'is not refused'}")
    return wrong + rules.all_of(ROOT, name, text, raw, resolved)


def main(compose: str) -> int:
    wrong = [f"{name}: {what}" for name in FILES for what in checked(compose, ROOT / name, name)]
    wrong += rules.together(ROOT, {name: yaml.safe_load((ROOT / name).read_text()) for name in FILES})
    unseen = [] if wrong else broken.unseen(ROOT, lambda file, name: checked(compose, file, name))
    version = subprocess.run([compose, "version", "--short"], capture_output=True, text=True).stdout.strip()
    print(f"{len(FILES)} compose files, by Docker Compose {version}; {len(broken.BREAKS)} breaks tried")
    print(*wrong, *unseen, sep="\n", end="" if not wrong + unseen else "\n", file=sys.stderr)
    return 1 if wrong or unseen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
