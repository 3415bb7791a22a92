"""The units of this machine as files tell them, without asking systemd: which are enabled, what they allow."""

from __future__ import annotations

import re
from pathlib import Path

from cli.deploy_files import SINGLE_PORT
from core.settings import Settings

UNITS = Path("/etc/systemd/system")

NAMES = ("voice.service", "voice@.service")

DEFAULT_FILES = 524_288
"""LimitNOFILE where a unit says nothing. Source: systemd.exec(5), DefaultLimitNOFILE 1024:524288, hard limit."""


def installed_units() -> list[Path]:
    """Return the unit files that are installed."""
    return [UNITS / name for name in NAMES if (UNITS / name).is_file()]


def enabled_services() -> list[str]:
    """Return the services that start with the machine: `voice`, or `voice@PORT` for each instance, in order."""
    wanted = UNITS / "multi-user.target.wants"
    found = sorted({*wanted.glob("voice.service"), *wanted.glob("voice@*.service")}) if wanted.is_dir() else []
    return [path.name.removesuffix(".service") for path in found]


def instance_ports() -> list[int]:
    """Return PORT of each enabled instance."""
    return [int(port) for _, _, port in (name.partition("@") for name in enabled_services()) if port.isdigit()]


def doors(settings: Settings) -> list[tuple[int, int]]:
    """Return PORT and HEALTH_PORT of every process group that serves here: of the instances, else the settings'."""
    ports = instance_ports()
    if not ports:
        return [(settings.port or SINGLE_PORT, settings.health_port)]
    return [(port, int(f"1{port}")) for port in ports]  # as voice@.service names them


def limit_of_files() -> int:
    """Return LimitNOFILE of the installed unit."""
    return int(value(r"LimitNOFILE=(\d+)") or DEFAULT_FILES)


def value(pattern: str) -> str | None:
    """Return the last match of a line in the installed units and their drop-ins, as systemd reads them; None: none."""
    found = None
    for unit in installed_units():
        for file in (unit, *sorted((UNITS / f"{unit.name}.d").glob("*.conf"))):
            for hit in re.finditer(rf"^{pattern}$", file.read_text(encoding="utf-8", errors="replace"), re.M):
                found = hit[1]
    return found
