"""buildah with a storage of its own, where neither an engine nor a registry is at hand."""

import json
import subprocess
from pathlib import Path


class Buildah:
    def __init__(self, scratch: Path):
        self.common = ["--storage-driver", "vfs", "--root", f"{scratch}/storage", "--runroot", f"{scratch}/run"]

    def run(self, *args: str) -> str:
        command = ["buildah", *self.common, *args]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"images: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def build(self, context: Path, target: str, tag: str, args: dict[str, str], contexts: dict[str, str]):
        """Docker's format, since OCI's has no health check. `contexts` are images that stand for stages."""
        words = ["bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--target", target, "--tag", tag]
        words += [f"--build-context={stage}=container-image://{image}" for stage, image in contexts.items()]
        words += [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
        self.run(*words, str(context))

    def from_folder(self, folder: Path, tag: str):
        """An image of what lies in `folder`."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(folder), "/")
        self.run("commit", "--quiet", container, tag)
        self.run("rm", container)

    def config(self, tag: str) -> dict:
        """What an engine gets to know of the image."""
        return json.loads(self.run("inspect", "--type", "image", tag))["Docker"]["config"]

    def root(self, tag: str) -> Path:
        """Its files."""
        return Path(self.run("mount", self.run("from", "--pull-never", tag)))
