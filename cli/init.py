"""`./voice init`: prints a file of `deploy/` filled in for this machine, or writes it where it belongs."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cli.console import given_path, say
from cli.deploy_files import (
    EXAMPLE_DOMAIN,
    EXAMPLE_EMAIL,
    EXAMPLE_REPOSITORY,
    INSTALLED,
    SERVICE_USER,
    Machine,
    cloud_init,
    credentials,
    nginx,
    pm2,
    services,
    systemd,
    unit_name,
)
from cli.environment import environment

ROOT = Path(__file__).resolve().parent.parent

MOST_INSTANCES = 32
"""Far above what one machine needs: an instance takes a core when it is busy."""

GIT_S = 5.0
"""`git remote` reads one file."""

_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.I)
"""A host name as certificates have it. Source: RFC 1123, section 2.1."""

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
"""Source: useradd(8), "Caveats"."""

_WORD = re.compile(r"[\w.@:/+~-]+")
"""What needs no quotes in a shell: repository and address are pasted into one."""

HIDDEN = ("/home/", "/root/")
"""What `ProtectHome=yes` of the units hides from the service."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One file that can be made.

    Attributes:
        text: Makes it.
        place: Where it belongs on this machine.
        next_steps: What to type after it was written.
    """

    text: Callable[[Machine], str]
    place: Callable[[Machine], Path]
    next_steps: Callable[[Machine], str]


KINDS: Mapping[str, Kind] = {
    "systemd": Kind(
        systemd,
        lambda machine: Path("/etc/systemd/system", unit_name(machine)),
        lambda machine: f"systemctl daemon-reload && systemctl enable --now {' '.join(services(machine))}",
    ),
    "credentials": Kind(
        credentials,
        lambda machine: Path("/etc/systemd/system", f"{unit_name(machine)}.d", "credentials.conf"),
        lambda machine: "make every file it names, mode 0600, then: systemctl daemon-reload",
    ),
    "nginx": Kind(
        nginx,
        lambda machine: Path("/etc/nginx/sites-available/voice.conf"),
        lambda machine: (
            "ln -sf ../sites-available/voice.conf /etc/nginx/sites-enabled/ && nginx -t && systemctl reload nginx"
        ),
    ),
    "pm2": Kind(
        pm2,
        lambda machine: Path(machine.folder, "ecosystem.config.js"),
        lambda machine: "pm2 start ecosystem.config.js && pm2 save",
    ),
    "cloud-init": Kind(
        cloud_init,
        lambda machine: given_path("cloud-init.yaml").absolute(),
        lambda machine: "paste it as user data when the machine is made",
    ),
}


def main(argv: list[str]) -> int:
    """Print the file, or write it.

    Returns:
        0, or 1 when the place is taken or cannot be written, or 2 when the command line is wrong.
    """
    options = _options(argv)
    machine = _machine(options)
    kind = KINDS[options.kind]
    text = kind.text(machine)
    _warn(options.kind, machine)
    if not options.write:
        sys.stdout.write(text)
        return 0
    target = Path(options.root, str(kind.place(machine)).lstrip("/")) if options.root else kind.place(machine)
    try:
        _put(target, text, is_forced=options.force)
    except FileExistsError:
        say(f"voice init: {target} is there and differs. Look at it, then: --force")
        return 1
    except OSError as error:
        say(f"voice init: {target} cannot be written ({error.strerror}). As root: sudo ./voice init {options.kind}")
        return 1
    say(f"{target} is written. Next: {kind.next_steps(machine)}")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice init", description="Print a file of deploy/ filled in for this machine; --write puts it there."
    )
    parser.add_argument("kind", choices=tuple(KINDS), help="which file")
    parser.add_argument("--domain", metavar="NAME", type=_matching(_DOMAIN, "host name"),
                        help="public name (default: PUBLIC_URL's)")  # fmt: skip
    parser.add_argument("--instances", metavar="N", type=_instances, default=None,
                        help="processes on ports of their own (default 1; for pm2 and cloud-init 2)")  # fmt: skip
    parser.add_argument("--user", metavar="NAME", type=_matching(_USER, "user name"), default=SERVICE_USER,
                        help=f"who the server runs as (default {SERVICE_USER})")  # fmt: skip
    parser.add_argument("--folder", metavar="DIR", default=_folder(), help="where the code lies (default: this one)")
    parser.add_argument("--repository", metavar="URL", type=_matching(_WORD, "address"),
                        help="what a new machine clones (default: this checkout's origin)")  # fmt: skip
    parser.add_argument("--email", metavar="ADDRESS", type=_matching(_WORD, "address"), default=EXAMPLE_EMAIL,
                        help="where Let's Encrypt writes to")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write it where it belongs, instead of printing it")
    parser.add_argument("--force", action="store_true", help="also over a file that differs; it is kept as NAME.before")
    parser.add_argument("--root", metavar="DIR", help="write below this folder, as for an image")
    return parser.parse_args(argv)


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
        return text

    return read


def _instances(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_INSTANCES:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MOST_INSTANCES}")
    return int(text)


def _folder() -> str:
    """Return the folder of the code; of a release that `deploy/install.sh` made, the link to it."""
    return INSTALLED if str(ROOT).startswith(f"{INSTALLED}.releases/") else str(ROOT)


def _machine(options: argparse.Namespace) -> Machine:
    several = options.kind in {"pm2", "cloud-init"}
    return Machine(
        domain=options.domain or urlsplit(environment().get("PUBLIC_URL", "")).hostname or EXAMPLE_DOMAIN,
        instances=options.instances or (2 if several else 1),
        folder=options.folder.rstrip("/"),
        user=options.user,
        repository=options.repository or _origin() or EXAMPLE_REPOSITORY,
        email=options.email,
    )


def _origin() -> str | None:
    """Return the address this checkout was cloned from, unless it holds a password."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    address = done.stdout.strip()
    is_public = done.returncode == 0 and _WORD.fullmatch(address) and urlsplit(address).username is None
    return address if is_public else None


def _warn(kind: str, machine: Machine) -> None:
    if kind in {"nginx", "cloud-init"} and machine.domain == EXAMPLE_DOMAIN:
        say(f"voice init: {EXAMPLE_DOMAIN} stands for your name: --domain NAME, or set PUBLIC_URL.")
    if kind == "cloud-init" and machine.repository == EXAMPLE_REPOSITORY:
        say("voice init: say what the machine clones: --repository URL")
    if kind == "systemd" and f"{machine.folder}/".startswith(HIDDEN):
        say(f"voice init: the unit cannot see {machine.folder} (ProtectHome=yes). deploy/install.sh puts the code "
            f"to {INSTALLED}.")  # fmt: skip


def _put(target: Path, text: str, *, is_forced: bool) -> None:
    """Make the file hold the text, all at once; one that differs is kept beside it.

    Raises:
        FileExistsError: If another text is there and nobody forces.
        OSError: If it cannot be written.
    """
    if target.exists():
        if target.read_text(encoding="utf-8", errors="replace") == text:
            return
        if not is_forced:
            raise FileExistsError(target)
        shutil.copy2(target, target.with_name(f"{target.name}.before"))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)  # no secret is in any of them
    part.replace(target)
