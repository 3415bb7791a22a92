"""The steps of a Dockerfile, one by one in a clean Debian: what a container engine would do, where there is none.

    steps = ImageSteps(ROOT / "deploy" / "Dockerfile", context, tmp_path)
    image = steps.build("server")          # a stage's name, or None for the last one
    image.start({"PORT": "…"}, as_root=False)

It knows the instructions that file uses and refuses others. It misleads in that its base is Debian with Debian's Python
instead of the image the file names, that layers are copies, and that a container shares this machine's network.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from tests.fakes.debian_root import PATH, DebianRoot

RUN_S = 300.0

START = """
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
where=$2 user=$3 root=$1
shift 3
exec chroot --userspec="$user" "$root" /usr/bin/env -C "$where" "$@"
"""


@dataclass
class Image:
    """A stage as it is after its steps."""

    root: DebianRoot
    workdir: str = "/"
    user: str = "root"
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"

    def start(self, environment: dict[str, str], command: list[str] | None = None) -> subprocess.Popen[str]:
        """Start what the image starts, or a command in its place, as its user; the process is the program itself."""
        words = [*self.entrypoint, *(command or self.command)]
        settings = {"PATH": PATH, **self.environment, **environment}
        owner = self.user if self.user == "root" or ":" in self.user else f"{self.user}:{self.user}"
        return subprocess.Popen(
            ["unshare", "-m", "sh", "-c", START, "sh", self.root.folder, self.workdir, owner, *words],
            env=settings, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the instructions in order, with continued lines joined and comments gone."""
    lines = (line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, rest in found]


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Tell whether .dockerignore leaves a file out; the last pattern that matches decides."""
    ignored = False
    parts = path.split("/")
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        fits = (any(fnmatch(part, bare[3:]) for part in parts) if bare.startswith("**/")
                else fnmatch(parts[0], bare) or fnmatch(path, bare))  # fmt: skip
        if fits:
            ignored = not pattern.startswith("!")
    return ignored


class ImageSteps:
    """Builds the stages of one file.

    Args:
        dockerfile: The file.
        context: Folder its COPY takes from.
        folder: Empty folder for the stages.
        base: A Debian with Python, for every image that is not a stage.
    """

    def __init__(self, dockerfile: Path, context: Path, folder: Path, base: DebianRoot) -> None:
        self._context, self._folder, self._base = context, folder, base
        self._steps = instructions(dockerfile)
        lines = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
        self._ignored = [line for line in lines if line and not line.startswith("#")]
        self.stages: dict[str, Image] = {}

    def build(self) -> dict[str, Image]:
        """Make all stages; returns them by name, the last one as ``."""
        image: Image | None = None
        for word, rest in self._steps:
            if word == "ARG":
                continue
            if word == "FROM":
                image = self._begin(rest.split())
                continue
            assert image is not None, f"{word} before FROM"
            self._step(image, word, rest)
        return self.stages

    def _begin(self, words: list[str]) -> Image:
        name = words[2] if len(words) == 3 else ""
        before = self.stages.get(words[0])
        source = before.root if before else self._base
        root = source.copy(self._folder / (name or "last"))
        self.stages[name] = image = (replace(before, root=root, environment=dict(before.environment)) if before
                                     else Image(root))  # fmt: skip
        return image

    def _step(self, image: Image, word: str, rest: str) -> None:
        match word:
            case "WORKDIR":
                image.workdir = rest
                (image.root.folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "USER":
                image.user = rest
            case "RUN":
                done = image.root.run(f"cd {image.workdir}\n{rest}", timeout_s=RUN_S)
                assert done.returncode == 0, f"{rest}\n{done.stdout[-3000:]}"
            case "COPY":
                self._copy(image, rest.split())
            case "CMD":
                image.command = json.loads(rest)
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                image.health = json.loads(rest.partition("CMD")[2])
            case "STOPSIGNAL":
                image.stop_signal = rest
            case "EXPOSE" | "VOLUME":
                pass
            case _:
                raise AssertionError(f"{word} is not known here")

    def _copy(self, image: Image, words: list[str]) -> None:
        target = image.root.folder / image.workdir.lstrip("/") / words[-1]
        if words[0].startswith("--from="):
            source = self.stages[words[0].removeprefix("--from=")].root.folder / words[1].lstrip("/")
            subprocess.run(["cp", "-a", source, target], check=True, timeout=120)
            return
        for file in self._context.rglob("*"):
            name = str(file.relative_to(self._context))
            if file.is_dir() or is_ignored(name, self._ignored) or words[0] not in {".", name}:
                continue
            place = target / name if words[0] == "." else target / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
