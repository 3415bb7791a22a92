"""How the commands speak: results on standard output, progress on standard error, colour only on a terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TextIO

STARTED_AT = time.monotonic()
"""When the command began, in seconds of the monotonic clock: this file is imported before anything that takes time."""

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
"""Select Graphic Rendition. Source: ECMA-48, section 8.3.117."""


def say(text: str = "") -> None:
    """Print progress, or a problem, on standard error."""
    print(text, file=sys.stderr, flush=True)


def may_colour(stream: TextIO) -> bool:
    """True when the stream is a terminal and the user did not ask for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, look: str, stream: TextIO) -> str:
    """Return the text in a look of `CODES`, or as it is where colour is not wanted."""
    return f"\x1b[{CODES[look]}m{text}\x1b[0m" if may_colour(stream) else text


def given_path(text: str) -> Path:
    """Return a path of the command line, relative to the folder `./voice` was called from."""
    return Path(os.environ.get("VOICE_CALLED_FROM", ".")) / text
