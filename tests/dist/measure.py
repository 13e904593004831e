"""Measures programs for the table in docs/releases.md: size, how fast each starts, what an idle worker holds.

  measure.py HUB PROGRAM...

HUB is a full build, run as `cogo up`; each PROGRAM joins it over HTTP with a key, as a gateway of one server on stdio. Times
are medians of RUNS on a machine that should have nothing else to do.
"""

import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 20
IDLE_S = 15
MB = 1_000_000


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("COGO_", "OTEL_", "DATABASE_URL"))}


def milliseconds(run) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def median(run) -> float:
    run()  # once, so that the program is in memory
    return statistics.median(milliseconds(run) for _ in range(RUNS))


def until(process: subprocess.Popen, words: str) -> str:
    """The first line with these words, as soon as it is there."""
    for line in process.stderr:
        if words in line:
            return line
    sys.exit(f"{process.args[0]} ended without saying {words!r}")


def started(command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait()
    process.stderr.close()


def memory(process: subprocess.Popen) -> dict[str, float]:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 / MB for name in ("VmRSS", "RssAnon")}


def measure(program: str, url: str, key: Path, work: Path) -> dict[str, float]:
    environment = clean() | {"COGO_DATA_DIR": str(work / "away"), "COGO_CONFIG_DIR": str(work / "configs")}

    def quietly(*arguments: str) -> None:
        subprocess.run([program, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)

    worker = [program, "worker", "mcp-gateway", "--url", url, "--key-file", str(key)]

    def join(words: str) -> float:
        begun = time.perf_counter()
        process = started(worker, environment)
        until(process, words)
        took = (time.perf_counter() - begun) * 1000
        end(process)
        return took

    data = Path(program).read_bytes()
    found = {
        "bytes": len(data) / MB,
        "gzip": len(gzip.compress(data, 6)) / MB,
        "--version": median(lambda: quietly("--version")),
        "worker --help": median(lambda: quietly("worker", "mcp-gateway", "--help")),
        "joined": statistics.median(join("Joined") for _ in range(RUNS)),
        "ready": statistics.median(join("is ready") for _ in range(RUNS)),
    }
    process = started(worker, environment)
    until(process, "is ready")
    time.sleep(IDLE_S)
    found |= memory(process)
    end(process)
    return found


def main() -> None:
    hub, *programs = (str(Path(program).resolve()) for program in sys.argv[1:])
    work = Path(tempfile.mkdtemp())
    work.chmod(0o711)  # Postgres runs as another user, if this is root
    (work / "configs").mkdir()
    tool = {"command": sys.executable, "args": [str(Path(__file__).parent / "tool.py")]}
    (work / "configs/mcp.json").write_text(json.dumps({"toolsets": {"mine": tool}}))
    environment = clean() | {"COGO_DATA_DIR": str(work / "data"), "COGO_CONFIG_DIR": str(work / "configs")}
    up = started([hub, "up", "--listen", "127.0.0.1:0"], environment)
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", until(up, "http://127.0.0.1"))[0]
        until(up, "Ctrl-C")
        key = work / "key"
        mint = [hub, "token", "mint", "--tenant", "default", "--worker", "pc", "--topic", "*", "--send", "*"]
        key.write_bytes(subprocess.run(mint, env=environment, check=True, capture_output=True).stdout)
        key.chmod(0o600)
        for program in programs:
            found = measure(program, url, key, work)
            print(program, " ".join(f"{name}={value:.1f}" for name, value in found.items()), flush=True)
    finally:
        end(up)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
