"""A container without an engine: a read-only root, an empty /tmp, one volume, and nobody's rights."""

import os
import shutil
import subprocess
from pathlib import Path

# Private mounts, which go with the last process.
ENTER = """
set -eu
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t tmpfs -o size=16m,mode=1777 tmpfs "$ROOT/tmp"
mount --bind "$VOLUME" "$ROOT/data"
exec "$@"
"""


class Container:
    """What the image's configuration says is how it is run."""

    def __init__(self, root: Path, config: dict, volume: Path, variables: dict[str, str]):
        self.config = config
        self.variables = [*config["Env"], *(f"{name}={value}" for name, value in variables.items())]
        self.root = str(root)
        self.outside = {"ROOT": self.root, "VOLUME": str(volume)}

    def start(self, args: list[str], log: Path) -> subprocess.Popen:
        return subprocess.Popen(self._words(self.config["Entrypoint"] + args), stdout=log.open("w"),
                                stderr=subprocess.STDOUT, env=os.environ | self.outside)

    def check(self) -> subprocess.CompletedProcess:
        """The image's own health check, as an engine would run it."""
        kind, *words = self.config["Healthcheck"]["Test"]
        assert kind == "CMD", "a health check that needs a shell"
        return self.run(words)

    def run(self, words: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(self._words(words), capture_output=True, text=True, env=os.environ | self.outside)

    def _words(self, words: list[str]) -> list[str]:
        # The image's environment and no other; then no rights, and no way to get any.
        user = [shutil.which("setpriv"), "--no-new-privs", shutil.which("chroot"), f"--userspec={self.config['User']}"]
        inside = ["env", "-i", *self.variables, *user, self.root, *words]
        return ["unshare", "--mount", "sh", "-c", ENTER, "enter", *inside]
