"""`./voice tail`: the logs of all workers, past files too, filtered and coloured; goes on through a rotation."""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from cli.console import given_path, paint, say
from cli.log_entries import SESSION_FIELDS, Entry, entries, files, read
from cli.operations import log_dir, names

POLL_S = 0.25
"""How often a followed file is looked at."""

READ_BYTES = 1_048_576
"""Read at a time from a followed file."""

LOOKS = {"error": "red", "critical": "red", "warning": "yellow", "debug": "dim", "trace": "dim"}

Keeps = Callable[[Entry], bool]


class Filter:
    """Which entries are wanted.

    Args:
        session: Id of a conversation, a connection or a call, or its beginning; None for all. The other ids of the
            same session are learned from the lines that carry several.
        errors_only: Leave out what is below ERROR.
    """

    def __init__(self, session: str | None, *, errors_only: bool) -> None:
        self._ids = {session} if session else set()
        self._errors_only = errors_only

    def __call__(self, entry: Entry) -> bool:
        if self._ids:
            told = {str(entry.fields[name]) for name in SESSION_FIELDS if entry.fields.get(name) is not None}
            if not any(names(whole, asked) for whole in told for asked in self._ids):
                return False
            self._ids |= told
        return not self._errors_only or entry.level in {"error", "critical"}


def main(argv: list[str]) -> int:
    """Print the last entries that fit, then, if wanted, those that follow, until Ctrl-C.

    Returns:
        0, or 1 when there are no logs to read.
    """
    options = _options(argv)
    wanted = Filter(options.session, errors_only=options.errors)
    show = _json if options.json else _text
    if options.dir == "-":
        _print(filter(wanted, entries(sys.stdin)), show)
        return 0
    folder = given_path(options.dir) if options.dir else log_dir()
    try:
        follower = Follower(folder / ("error.log" if options.errors else "combined.log")) if options.follow else None
        _print(last(folder, options.lines, wanted, whole=options.session is not None), show)
    except OSError as error:
        say(f"voice tail: {folder} cannot be read ({error.strerror or type(error).__name__}); LOG_DIR names the folder")
        return 1
    if follower is not None:
        with closing(follower):
            _print(filter(wanted, follower.entries()), show)
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice tail", description="Show the logs of all workers.")
    parser.add_argument("--session", metavar="ID", help="only one: its conversation_id, conn or call_sid")
    parser.add_argument("--errors", action="store_true", help="only errors")
    parser.add_argument("-n", "--lines", type=_count, default=50, help="entries shown at first (default 50)")
    parser.add_argument("-f", "--follow", action=argparse.BooleanOptionalAction, default=sys.stdout.isatty(),
                        help="go on until Ctrl-C (default: on a terminal)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--dir", metavar="DIR", help="of the logs (default: LOG_DIR); - reads lines from a pipe")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError("must be 0 to 1000000")
    return int(text)


def last(folder: Path, count: int, wanted: Keeps, *, whole: bool) -> list[Entry]:
    """Return the last `count` entries that fit, oldest first: of combined.log, and of error.log what that lacks.

    Args:
        folder: Of the logs.
        count: How many.
        wanted: Says which fit.
        whole: Look through the whole of long files.

    Raises:
        OSError: If the folder cannot be read, or holds no log.
    """
    if not files(folder, "combined") and not files(folder, "error"):
        raise FileNotFoundError(2, "no combined.log in it")
    combined = _last_of(files(folder, "combined"), count, wanted, whole=whole)
    known = {entry.raw for entry in combined}
    errors = [entry for entry in _last_of(files(folder, "error"), count, wanted, whole=whole) if entry.raw not in known]
    merged = heapq.merge(combined, errors, key=lambda entry: entry.time)
    return list(deque(merged, maxlen=count))


def _last_of(paths: list[Path], count: int, wanted: Keeps, *, whole: bool) -> list[Entry]:
    """Return the last entries that fit of files given newest first; older files are read only while some are missing.

    With a session the files are read oldest first, since its ids are learned from its first lines.
    """
    if whole:
        found = deque((entry for path in reversed(paths) for entry in read(path, whole=True) if wanted(entry)), count)
        return sorted(found, key=lambda entry: entry.time)
    kept: list[Entry] = []
    for path in paths:
        if len(kept) >= count:
            break
        kept = [*deque(filter(wanted, read(path, whole=False)), count), *kept]
    return sorted(kept, key=lambda entry: entry.time)[-count:] if count else []


class Follower:
    """Reads what is written to a file from here on, and goes on with its successor when the file is renamed or cut.

    Args:
        path: Of the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        try:
            self._file = path.open("rb")
            self._file.seek(0, os.SEEK_END)
        except FileNotFoundError:
            pass  # it is read from its beginning when it comes

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def entries(self) -> Iterator[Entry]:
        """Yield entries as they are written; never ends. One is given out when the next begins, or after a pause."""
        waiting: list[str] = []
        while True:
            lines = self.lines()
            for line in lines:
                if waiting and not line.startswith("    at "):
                    yield from entries(waiting)
                    waiting = []
                waiting.append(line)
            if not lines:
                yield from entries(waiting)
                waiting = []
                time.sleep(POLL_S)

    def lines(self) -> list[str]:
        """Return the whole lines written since the last call, at most a megabyte; empty when there are none."""
        chunk = self._file.read(READ_BYTES) if self._file is not None else b""
        if not chunk:
            self._look_for_successor()
            return []
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]

    def _look_for_successor(self) -> None:
        """Open the file anew when the name belongs to another one, or what was read is no longer there."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return
        if self._file is not None:
            own = os.fstat(self._file.fileno())
            if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino):
                if there.st_size < self._file.tell():
                    self._file.seek(0)
                    self._rest = b""
                return
            if own.st_size > self._file.tell():
                return  # written between the last look and the rename: that is read first
            self._file.close()
        self._file, self._rest = self._path.open("rb"), b""


def _print(found: Iterable[Entry], show: Callable[[Entry], str]) -> None:
    for entry in found:
        print(show(entry), flush=True)


def _json(entry: Entry) -> str:
    return entry.as_json()


def _text(entry: Entry) -> str:
    fields = "".join(f"  {name}={'-' if value is None else value}" for name, value in entry.fields.items())
    head = paint(f"{entry.level.upper():<7}", LOOKS[entry.level], sys.stdout) if entry.level in LOOKS else (
        f"{entry.level.upper():<7}"
    )  # fmt: skip
    places = "".join(f"\n    at {place}" for place in entry.tail)
    return f"{paint(entry.time, 'dim', sys.stdout)} {head} {entry.event}{paint(fields, 'dim', sys.stdout)}{places}"
