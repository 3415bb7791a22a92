"""What `./voice doctor` finds, asked by the server: the command runs beside it, with the server's settings.

It opens connections, waits for timeouts and runs other programs, none of which belongs on the event loop of live calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from core.settings import TABLE, Settings

ROOT = Path(__file__).resolve().parent.parent

DEADLINE_S = 30.0
"""The doctor's own checks take 15 s at most, its start a second or two."""

KEPT_S = 60.0
"""Findings are shown again for a minute: whoever reloads the page shall not make the machine busy."""


class Doctor:
    """Asks the doctor, one question at a time.

    Args:
        settings: Those the server runs with; the doctor gets the same.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._found: dict[str, Any] = {}

    async def findings(self) -> dict[str, Any]:
        """Return what `./voice doctor --json` prints, at most a minute old; no `checks` when it could not be asked."""
        async with self._lock:
            if time.monotonic() - self._asked_at > KEPT_S:
                self._found = await self._ask()
                self._asked_at = time.monotonic()
        return self._found

    async def _ask(self) -> dict[str, Any]:
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli.main", "doctor", "--json", cwd=ROOT, env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            return {"ok": False, "checks": [], "problem": f"the doctor could not be started ({type(error).__name__})"}
        try:
            async with asyncio.timeout(DEADLINE_S):
                output, _ = await child.communicate()
        except TimeoutError:
            return {"ok": False, "checks": [], "problem": f"the doctor took longer than {DEADLINE_S:g} s"}
        finally:
            if child.returncode is None:
                child.kill()
                await child.communicate()  # reaps it and closes the pipe
        try:
            found = json.loads(output)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {"ok": False, "checks": [], "problem": "the doctor gave no answer"}

    def _environment(self) -> dict[str, str]:
        """Return the environment that leads to the server's settings, whatever `.env` says."""
        ours = {name: "" for row in TABLE for name in (row.name, *row.aliases)}
        return {**os.environ, **ours, **{row.name: _text(getattr(self._settings, row.field)) for row in TABLE}}


def _text(value: Any) -> str:
    """Return a setting as a variable's text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
