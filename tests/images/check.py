"""check.py PROGRAM SCRATCH: builds the images' last stages around PROGRAM and runs what is in them. See check.sh."""

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from buildah import Buildah
from container import Container
from postgres import Postgres

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
ARGS = {"VERSION": "1.2.3-test", "REVISION": "0123456789abcdef0123456789abcdef01234567",
        "CREATED": "2026-11-22T00:00:00Z", "SOURCE": "https://example.com/cogo"}
LABELS = {"version": "VERSION", "revision": "REVISION", "created": "CREATED", "source": "SOURCE"}


def said(what: str):
    print(f"images: {what}", flush=True)


def expect(holds: object, what: str):
    if not holds:
        raise SystemExit(f"images: {what}")


def bases(buildah: Buildah, program: Path, scratch: Path) -> dict[str, str]:
    """Stands for the images that no registry gives us here, and the program as an image."""
    for name, commands in {"runtime": [], "tools": "sh mkdir find cp touch truncate".split()}.items():
        folder = scratch / name
        subprocess.run([HERE / "base.sh", folder, *commands], check=True, env={"PROGRAM": str(program), "PATH": PATH})
        buildah.from_folder(folder, f"localhost/{name}")
    out = scratch / "program/out"
    out.mkdir(parents=True)
    # Its names for debuggers are most of it, and each layer is copied.
    subprocess.run(["strip", "-o", out / "cogo", program], check=True)
    buildah.from_folder(out.parent, "localhost/program")
    return {"RUST_IMAGE": "localhost/tools", "RUNTIME_IMAGE": "localhost/runtime"}


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_context(buildah: Buildah, args: dict[str, str], scratch: Path):
    """Only what is built gets in, and the manifests alone are a workspace to Cargo."""
    context = scratch / "context"
    files = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY,
                           check=True, capture_output=True, text=True).stdout.splitlines()
    for file in filter(lambda file: (REPOSITORY / file).is_file(), files):
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / file, context / file)
    planted = [".env", ".git/config", "target/debug/cogo", "cli/tests/it/main.rs", "artifacts/secret.json", "server.log"]
    for file in planted:
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        (context / file).write_text("fn main() {}")
    buildah.build(context, "manifests", "localhost/manifests", args, {})
    root = buildah.root("localhost/manifests")
    for file in planted:
        expect(not (root / "src" / file).exists(), f"{file} gets into the context; see .dockerignore")
    expect((root / "src/migrations").is_dir(), "migrations/ does not get into the context; see .dockerignore")
    rust = [file for file in (root / "manifests").rglob("*.rs") if len(file.read_text()) > 20]
    expect(not rust, f"{rust} among the manifests: its next change would compile all dependencies anew")
    shutil.copytree(root / "manifests", scratch / "manifests")
    command = ["cargo", "metadata", "--offline", "--locked", "--no-deps", "--format-version=1"]
    done = subprocess.run(command, cwd=scratch / "manifests", capture_output=True, text=True)
    expect(done.returncode == 0, f"the manifests alone are no workspace: {done.stderr}")
    said("the context holds what is built, and its manifests are a workspace")


def check_config(target: str, config: dict, port: int, command: list[str]):
    """What an engine is told of the image."""
    labels = config["Labels"]
    for label, arg in LABELS.items():
        got = labels.get(f"org.opencontainers.image.{label}")
        expect(got == ARGS[arg], f"{target}: label {label} is {got!r}, not {ARGS[arg]!r}")
    for label in ("title", "description", "licenses"):
        expect(labels.get(f"org.opencontainers.image.{label}"), f"{target}: label {label} is missing")
    wanted = {"User": "65532:65532", "StopSignal": "SIGTERM", "Entrypoint": ["/usr/local/bin/cogo"], "Cmd": command,
              "ExposedPorts": {f"{port}/tcp": {}}, "Volumes": {"/data": {}}}
    for key, value in wanted.items():
        expect(config.get(key) == value, f"{target}: {key} is {config.get(key)!r}, not {value!r}")
    test = config["Healthcheck"]["Test"]
    expect(test == ["CMD", "/usr/local/bin/cogo", "status", "--probe"], f"{target}: the health check is {test!r}")
    secrets = [variable for variable in config["Env"] if re.search("KEY|TOKEN|SECRET|PASSWORD|DATABASE_URL", variable)]
    expect(not secrets, f"{target}: secrets among its variables: {secrets}")
    said(f"{target}: labels, user, ports, volume and health check are as told")


def check_files(target: str, root: Path):
    volume = (root / "data").stat()
    expect((volume.st_uid, volume.st_gid) == (65532, 65532), f"{target}: /data belongs to {volume.st_uid}")
    for name in ("sh", "bash", "apt-get"):
        expect(not (root / "usr/bin" / name).exists(), f"{target}: {name} is in the image")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def healthy_within(container: Container, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if container.check().returncode == 0:
            return True
        time.sleep(0.2)
    return False


def check_running(target: str, buildah: Buildah, config: dict, command: list[str], variable: str, database: str,
                  scratch: Path):
    """Unhealthy before, healthy while it runs, ended by the image's signal; nothing but /data and /tmp is written to."""
    volume = scratch / f"volume-{target}"
    shutil.copytree(buildah.root(f"localhost/{target}") / "data", volume)
    subprocess.run(["chown", "-R", "65532:65532", volume], check=True)
    variables = {variable: f"127.0.0.1:{free_port()}", "DATABASE_URL": database}
    container = Container(buildah.root(f"localhost/{target}"), config, volume, variables)
    before = container.check()
    expect(before.returncode not in (0, 2), f"{target}: the health check finds something where nothing runs: {before}")

    log = scratch / f"{target}.log"
    process = container.start(command, log)
    try:
        expect(healthy_within(container, 30), f"{target}: not healthy: {container.check()}\n{log.read_text()}")
        status = Path(f"/proc/{process.pid}/status").read_text()
        for line in ("Uid:\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"):
            expect(line in status, f"{target}: runs with more than it should:\n{status}")
        process.terminate()
        expect(process.wait(timeout=30) == 0, f"{target}: ended with {process.returncode}:\n{log.read_text()}")
    finally:
        process.kill()
    said(f"{target}: healthy as 65532 on a read-only root by its own health check, and ended by SIGTERM")


def main():
    program, scratch = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    scratch.chmod(0o755)
    buildah = Buildah(scratch)
    args = bases(buildah, program, scratch)
    check_context(buildah, args, scratch)
    with Postgres(scratch) as database:
        subprocess.run([program, "migrate", "--database-url", database], check=True, capture_output=True)
        # A gateway without a toolset is alive and not ready, so the worker's other role runs.
        targets = {"cogo": (8787, ["hub"], ["hub"], "COGO_LISTEN"),
                   "worker": (9464, ["worker", "mcp-gateway"], ["worker", "echo"], "COGO_METRICS_LISTEN")}
        for target, (port, command, run, variable) in targets.items():
            buildah.build(scratch / "context", target, f"localhost/{target}", args | ARGS,
                          {f"build-{target}": "localhost/program"})
            config = buildah.config(f"localhost/{target}")
            check_config(target, config, port, command)
            check_files(target, buildah.root(f"localhost/{target}"))
            check_running(target, buildah, config, run, variable, database, scratch)


main()
