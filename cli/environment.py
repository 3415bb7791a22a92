"""The settings the commands work with: those the server on this machine would start with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

DOTENV = Path(__file__).resolve().parent.parent / ".env"


def environment() -> dict[str, str]:
    """Return the process's environment over `.env`, as `server.py` reads it."""
    found = {name: value for name, value in dotenv_values(DOTENV).items() if value is not None}
    return found | dict(os.environ)


def is_production(variables: Mapping[str, str]) -> bool:
    """True when NODE_ENV, or its alias, says so; works where the other settings are incomplete."""
    return (variables.get("NODE_ENV") or variables.get("APP_ENV") or "").strip() == "production"
