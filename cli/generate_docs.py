"""Writes the parts of the documentation that the code decides: settings, ends, events, voices.

`python -m cli.generate_docs` rewrites docs/configuration.md and what stands between the markers of docs/protocol.md;
tests/test_docs.py fails when the files and the code differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

from core.agent import RETIRED_VOICES, VOICES
from core.dialect import NOT_IN_PREVIEW, PREVIEW_NAMES
from core.errors import ENDINGS
from core.policy import CLIENT_EVENTS
from core.realtime import NOTICES
from core.settings import TABLE, Setting

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
PROTOCOL = ROOT / "docs" / "protocol.md"

_KINDS = {
    "text": "text",
    "secret": "secret",
    "url": "address",
    "int": "whole number",
    "float": "number",
    "switch": "on / off",
    "list": "list",
    "choice": "choice",
}


def configuration() -> str:
    """Return docs/configuration.md."""
    head = """# Configuration

Settings are environment variables.
In development they may stand in `.env`.
Under systemd secrets come as `LoadCredential` files named like the variable, in lower case with dashes.
They are read once, at the start.
A bad or missing setting stops the start, and all problems are named at once.
`./voice doctor` checks what the settings lead to.

This page is written by `python -m cli.generate_docs` from the table in `core/settings.py`.

| name | kind | default | meaning |
|---|---|---|---|
"""
    return head + "".join(_setting_row(row) for row in TABLE)


def _setting_row(row: Setting) -> str:
    names = " or ".join(f"`{name}`" for name in (row.name, *row.aliases))
    default = f"`{row.default}`" if row.default is not None else "-"
    kind = _KINDS[row.kind]
    if row.kind == "choice":
        kind = " ".join(f"`{word}`" for word in row.choices)
    elif row.kind in {"int", "float"} and row.high != float("inf"):
        kind += f", {row.low:g} to {row.high:g}"
    return f"| {names} | {kind} | {default} | {row.help} |\n"


def close_codes() -> str:
    """Return the table of ends."""
    rows = ["| code | reason | end_reason | what the client is told |", "|---|---|---|---|"]
    for end in ENDINGS:
        rows.append(f"| {end.code} | {end.reason or '-'} | `{end.end_reason}` | {end.message or '-'} |")
    return "\n".join(rows)


def events() -> str:
    """Return the tables of events."""
    rows = ["| a client may send |", "|---|", *(f"| `{name}` |" for name in (*CLIENT_EVENTS, "session.refresh"))]
    rows += ["", "| name at `/v1/realtime` | name at `/` |", "|---|---|"]
    rows += [f"| `{ga}` | `{preview}` |" for ga, preview in PREVIEW_NAMES.items()]
    rows += [f"| `{name}` | not sent |" for name in sorted(NOT_IN_PREVIEW)]
    return "\n".join(rows)


def notices() -> str:
    """Return the table of notices."""
    rows = ["| code | meaning |", "|---|---|", *(f"| `{code}` | {text} |" for code, text in NOTICES.items())]
    return "\n".join(rows)


def voices() -> str:
    """Return the list of voices and the table of retired ones."""
    rows = [" ".join(f"`{voice}`" for voice in VOICES) + " and custom ids (`voice_…`).", ""]
    rows += ["| asked for | spoken by |", "|---|---|"]
    rows += [f"| `{old}` | `{new}` |" for old, new in RETIRED_VOICES.items()]
    return "\n".join(rows)


PARTS = {"close codes": close_codes, "events": events, "notices": notices, "voices": voices}


def filled(page: str) -> str:
    """Return a page with every generated part written anew.

    Raises:
        ValueError: If a marker is missing.
    """
    for name, write in PARTS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"docs/protocol.md lacks the markers of {name!r}")
        page = f"{before}{begin}\n\n{write()}\n\n{end}{after}"
    return page


def main() -> int:
    """Write the generated documentation."""
    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    PROTOCOL.write_text(filled(PROTOCOL.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
