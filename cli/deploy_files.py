"""The files of `deploy/` filled in for one machine: name, folder, user, ports. Only text; nothing is written here.

The files are complete examples, which lint, nginx and systemd take as they are; filling in replaces what stands for one
machine in them. A file that has lost the place raises ValueError, so no machine gets another one's name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from core.settings import TABLE

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"

INSTALLED = "/opt/websocket-voice-server"
"""Where the units look for the code. `deploy/install.sh` makes it a link to the release in use."""

SERVICE_USER = "voicegw"
"""Debian has a base group `voice`; a unit with that user ends with 217/USER (operations reference, 3.2)."""

EXAMPLE_DOMAIN = "voice.example.com"
EXAMPLE_REPOSITORY = "https://git.example.com/you/websocket-voice-server.git"
EXAMPLE_EMAIL = "you@example.com"

SINGLE_PORT = 8080
FIRST_PORT = 8081
"""Of the instances, which take one port each; HEALTH_PORT is the same with a 1 before it, as in voice@.service."""

CREDENTIALS_FOLDER = "/etc/websocket-voice-server"

SECRET_ADDRESSES = ("DATABASE_URL", "REDIS_URL")
"""Settings that hold a password without being one."""

_UPSTREAM_SERVER = re.compile(r"^[ \t]*(?:# ?)?server 127\.0\.0\.1:\d+(?P<options>[^;\n]*);.*\n", re.M)


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs from one machine to the next.

    Attributes:
        domain: Public name of the site.
        instances: Server processes behind nginx; 1 is the single service.
        folder: Where the code and its .venv lie.
        user: Who the server runs as.
        repository: What a new machine clones.
        email: Where Let's Encrypt writes before a certificate ends.
    """

    domain: str = EXAMPLE_DOMAIN
    instances: int = 1
    folder: str = INSTALLED
    user: str = SERVICE_USER
    repository: str = EXAMPLE_REPOSITORY
    email: str = EXAMPLE_EMAIL

    @property
    def ports(self) -> tuple[int, ...]:
        """PORT of each instance, in order."""
        return (SINGLE_PORT,) if self.instances == 1 else tuple(range(FIRST_PORT, FIRST_PORT + self.instances))


def unit_name(machine: Machine) -> str:
    """Return the name of the unit file: the template when there are several instances."""
    return "voice.service" if machine.instances == 1 else "voice@.service"


def services(machine: Machine) -> tuple[str, ...]:
    """Return the services systemd runs: `voice`, or `voice@PORT` for each instance."""
    return ("voice",) if machine.instances == 1 else tuple(f"voice@{port}" for port in machine.ports)


def systemd(machine: Machine) -> str:
    """Return the unit for this machine."""
    text = _read(unit_name(machine))
    text = _replace(text, INSTALLED, machine.folder)
    return _replace(text, SERVICE_USER, machine.user)


def credentials(machine: Machine) -> str:
    """Return the drop-in of the unit that names a file for every setting that is secret; an empty file is no setting.

    systemd refuses to start a service one of whose files is missing, so all of them must be made.
    """
    names = (row.name.lower().replace("_", "-") for row in TABLE
             if row.kind == "secret" or row.name in SECRET_ADDRESSES)  # fmt: skip
    return "[Service]\n" + "".join(f"LoadCredential={name}:{CREDENTIALS_FOLDER}/{name}\n" for name in names)


def nginx(machine: Machine) -> str:
    """Return the site for this machine, with one line in the upstream for each instance."""
    text = _replace(_read("nginx.conf"), EXAMPLE_DOMAIN, machine.domain)
    lines = list(_UPSTREAM_SERVER.finditer(text))
    if not lines:
        raise ValueError("deploy/nginx.conf has no upstream server on 127.0.0.1")
    options = lines[0]["options"]
    ours = "".join(f"    server 127.0.0.1:{port}{options};\n" for port in machine.ports)
    kept = _UPSTREAM_SERVER.sub("", text[lines[0].end() :])
    return text[: lines[0].start()] + ours + kept


def pm2(machine: Machine) -> str:
    """Return the PM2 file for this machine; it may lie anywhere."""
    text = _read("ecosystem.config.js")
    text = _replace(text, 'path.resolve(__dirname, "..")', json.dumps(machine.folder))
    return _replace(text, "const ports = [8081, 8082];", f"const ports = {json.dumps(list(machine.ports))};")


def cloud_init(machine: Machine) -> str:
    """Return the user data that makes a machine like this."""
    text = _replace(_read("cloud-init.yaml"), EXAMPLE_DOMAIN, machine.domain)
    text = _replace(text, EXAMPLE_REPOSITORY, machine.repository)
    text = _replace(text, EXAMPLE_EMAIL, machine.email)
    return _replace(text, "INSTANCES=2", f"INSTANCES={machine.instances}")


def _read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def _replace(text: str, old: str, new: str) -> str:
    """Return the text with every `old` replaced.

    Raises:
        ValueError: If there is none.
    """
    if old not in text:
        raise ValueError(f"the file of deploy/ does not hold {old}")
    return text.replace(old, new)
