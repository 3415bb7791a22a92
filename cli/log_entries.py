"""Reading the log's own files: lines to entries, rotated files too. Counterpart of `core/log_lines.py`.

Files of one log, by either way of rotation:

    combined.log                                    written to
    combined.2026-11-20_12-00-00_123456.log[.gz]    loguru's
    combined.log.1  combined.log.2.gz               logrotate's
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

_HEAD = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([A-Z]+) +(.*)")
_FIELD = re.compile(r'([A-Za-z0-9_.]+)=("(?:[^"\\]|\\.)*"|[^ "]*)')

SESSION_FIELDS = ("conversation_id", "conn", "call_sid")
"""Fields that name one session."""

LAST_BYTES = 8_388_608
"""What is read from the end of a plain file when only its last lines are wanted: 80,000 lines."""


@dataclass(slots=True)
class Entry:
    """One line of the log with the lines that belong to it.

    Attributes:
        time: ISO 8601 in UTC with milliseconds: the order of texts is that of moments.
        raw: As it stands in the file.
        tail: Places in the code an exception passed.
    """

    time: str
    level: str
    event: str
    fields: dict[str, Any]
    raw: str
    tail: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """Return the entry as one JSON object."""
        more = {"where": self.tail} if self.tail else {}
        return json.dumps({"time": self.time, "level": self.level, "event": self.event, **self.fields, **more})


def entry_of(line: str) -> Entry | None:
    """Return the entry a line begins, in text or JSON; None when it belongs to the one before, or is no log line."""
    if line.startswith("{"):
        return _json_entry(line)
    found = _HEAD.fullmatch(line)
    if found is None:
        return None
    time, level, rest = found.groups()
    event, _, fields = rest.partition("  ")
    return Entry(time, level.lower(), event, {name: _value(text) for name, text in _FIELD.findall(fields)}, line)


def _json_entry(line: str) -> Entry | None:
    try:
        found = json.loads(line)
        time, level, event = (str(found.pop(name)) for name in ("time", "level", "event"))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    tail = [str(place) for place in found.pop("where", [])]
    return Entry(time, level, event, found, line, tail)


def _value(text: str) -> str | None:
    if text == "-":
        return None
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield the entries of lines; what stands before the first is left out."""
    current: Entry | None = None
    for line in lines:
        text = line.rstrip("\n")
        found = entry_of(text)
        if found is not None:
            if current is not None:
                yield current
            current = found
        elif current is not None and text.startswith("    at "):
            current.tail.append(text.removeprefix("    at "))
    if current is not None:
        yield current


def files(folder: Path, name: str) -> list[Path]:
    """Return the files of the log `combined` or `error`, the one written to last first.

    Raises:
        OSError: If the folder cannot be read.
    """
    pattern = re.compile(rf"{name}(?:\.\d{{4}}-[\d_-]+)?\.log(?:\.\d+)?(?:\.gz)?")
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name == f"{name}.log"), reverse=True)


def read(path: Path, *, whole: bool) -> Iterator[Entry]:
    """Yield the entries of a file, packed or not, oldest first; a packed one that is broken ends where it breaks.

    Args:
        path: From `files`.
        whole: False: of a long plain file only the end.
    """
    try:
        with _opened(path) as file:
            if not whole and path.suffix != ".gz" and path.stat().st_size > LAST_BYTES:
                file.seek(path.stat().st_size - LAST_BYTES)
                file.readline()  # of which only the end is there
            yield from entries(line.decode("utf-8", "replace") for line in file)
    except (EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError):
        return  # it is being packed or was removed meanwhile


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
