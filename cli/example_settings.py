"""Writes `.env.example` from the settings table: `python -m cli.example_settings`; a test compares the two."""

from __future__ import annotations

import textwrap
from pathlib import Path

from core.settings import TABLE

FILE = Path(__file__).resolve().parent.parent / ".env.example"

HEAD = """# Settings of the voice server for development: copy this file to .env and fill in what you need.
# An empty value counts as unset. In production systemd sets them: see deploy/voice.service.
# What each one means and may be: docs/configuration.md. Never commit .env.
"""

WIDTH = 118


def text() -> str:
    """Return what `.env.example` must hold: every setting with its default, in the table's order."""
    paragraphs = [HEAD]
    for row in TABLE:
        told = row.help + (f" Also read as {', '.join(row.aliases)}." if row.aliases else "")
        comment = textwrap.fill(told, WIDTH, initial_indent="# ", subsequent_indent="# ")
        paragraphs.append(f"{comment}\n{row.name}={row.default or ''}\n")
    return "\n".join(paragraphs)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
