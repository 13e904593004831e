"""A Postgres for as long as it is looked at, reached by TCP, since a container does not see our sockets."""

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path


class Postgres:
    def __init__(self, scratch: Path):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.bin = found[-1] if found else Path(shutil.which("postgres")).resolve().parent
        self.dir = scratch / "postgres"
        # Postgres does not run as root.
        self.user = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}

    def _run(self, *words: str):
        done = subprocess.run(words, cwd=self.dir, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **self.user)
        if done.returncode != 0:
            raise SystemExit(f"images: {words[0]} failed:\n{done.stdout}")

    def __enter__(self) -> str:
        self.dir.mkdir()
        password = secrets.token_hex(16)
        (self.dir / "password").write_text(password)
        os.chown(self.dir, 65534, 65534)
        data = f"{self.dir}/data"
        self._run(f"{self.bin}/initdb", "-D", data, "-U", "cogo", "-A", "scram-sha-256", "--pwfile", f"{self.dir}/password", "-N")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        self._run(f"{self.bin}/pg_ctl", "-D", data, "-o", options, "-l", f"{self.dir}/log", "-w", "start")
        return f"postgres://cogo:{password}@127.0.0.1:{port}/postgres"

    def __exit__(self, *_):
        self._run(f"{self.bin}/pg_ctl", "-D", f"{self.dir}/data", "-m", "immediate", "stop")
