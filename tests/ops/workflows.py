"""Reads the workflows with actionlint (which reads their scripts with shellcheck), and wants each action pinned to a commit
with its version beside it, and each part of .ci/run in a job of ci.yml."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github/workflows"
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def actionlint(files: list[Path]) -> list[str]:
    """What actionlint and shellcheck find; both lie beside this Python."""
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    command = [programs / "actionlint", "-oneline", "-no-color", *files]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(f"actionlint: {done.stderr}")
    return done.stdout.splitlines()


def pins(file: Path) -> list[str]:
    return [
        f'{file.name}:{at}: an action is pinned by its commit, with "# v1.2.3" after it'
        for at, line in enumerate(file.read_text().splitlines(), 1)
        if re.match(r"\s*(- )?uses:", line) and not PINNED.search(line)
    ]


def parts() -> list[str]:
    """The parts of .ci/run that no job runs, and those that jobs run and .ci/run does not have."""
    has = set(re.search(r"^PARTS=\((.*)\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)[1].split())
    jobs = yaml.safe_load((FOLDER / "ci.yml").read_text())["jobs"]
    runs = set()
    for job in jobs.values():
        for entry in job.get("strategy", {}).get("matrix", {}).get("include", []):
            runs |= set(entry["parts"].split())
        for step in job["steps"]:
            command = re.match(r"bash \.ci/run ([a-z ]+)$", step.get("run", ""))
            runs |= set(command[1].split()) if command else set()
    runs.discard("prepare")
    return [f"ci.yml: no job runs the part {part} of .ci/run" for part in sorted(has - runs)] + [
        f"ci.yml: .ci/run has no part {part}" for part in sorted(runs - has)
    ]


def scripts() -> list[str]:
    """What shellcheck finds in the scripts of CI and of the tests."""
    files = [ROOT / ".ci/run", *sorted((ROOT / "tests").rglob("*.sh"))]
    # It is read by others, which set what it wants (and so seem not to use it).
    files.remove(ROOT / "tests/once.sh")
    shellcheck = Path(sys.executable).parent / "shellcheck"
    command = [shellcheck, "--format=gcc", "--severity=warning", "--exclude=SC2034", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(f"shellcheck: {done.stderr}")
    return done.stdout.splitlines()


def main() -> int:
    files = sorted(FOLDER.glob("*.yml"))
    wrong = actionlint(files) + [fault for file in files for fault in pins(file)] + parts() + scripts()
    print(f"{len(files)} workflows, {len(wrong)} faults")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
