"""What the checks of `./voice doctor` answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, how it is, what was seen, and how to mend it; holds no secret."""

    name: str
    state: State
    text: str
    mend: str = ""


def ok(name: str, text: str) -> Finding:
    """Return a finding without fault."""
    return Finding(name, "ok", text)


def problem(name: str, text: str, mend: str) -> Finding:
    """Return a finding that someone must mend."""
    return Finding(name, "problem", text, mend)


def warning(name: str, text: str, mend: str) -> Finding:
    """Return that something works but will not for long, or cannot be relied on."""
    return Finding(name, "warning", text, mend)


def skipped(name: str, text: str) -> Finding:
    """Return that something could not be, or need not be, looked at."""
    return Finding(name, "skipped", text)
