"""The settings the commands work with: those the server on this machine would start with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from core.settings import TABLE
from services.environment import effective_environment

DOTENV = Path(__file__).resolve().parent.parent / ".env"

INSTALLED_SETTINGS = Path("/etc/websocket-voice-server")
"""Where `deploy/install.sh` and the units keep the settings of this machine's service: `environment`, and a file for
each secret, named as the setting in small letters with hyphens."""


def environment() -> dict[str, str]:
    """Return the settings of this folder's `.env`, else those of the installed service; the process's own go first.

    The service's are read only where this user may, which is root.
    """
    service = {} if DOTENV.exists() else installed(INSTALLED_SETTINGS)
    return service | effective_environment(DOTENV, os.environ)


def installed(folder: Path) -> dict[str, str]:
    """Return what the units hand to the service; nothing where no service is installed or this user may not look."""
    try:
        if not (folder / "environment").is_file():
            return {}
        lines = dotenv_values(folder / "environment", interpolate=False)  # as systemd reads it
        found = {name: value for name, value in lines.items() if value is not None}
        for row in TABLE:
            file = folder / row.name.lower().replace("_", "-")
            if file.is_file() and (text := file.read_text(encoding="utf-8").strip()):
                found[row.name] = text
    except OSError:
        return {}
    return {"NODE_ENV": "production"} | found


def is_production(variables: Mapping[str, str]) -> bool:
    """True when NODE_ENV, or its alias, says so; works where the other settings are incomplete."""
    return (variables.get("NODE_ENV") or variables.get("APP_ENV") or "").strip() == "production"
