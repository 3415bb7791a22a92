"""Taking over the spool files of processes that are gone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .disk import (
    Report,
    SpoolError,
    SpoolFile,
    open_or_replace,
    release_lock,
    remove_if_empty,
    take_lock,
)
from .rows import Figures, insert

CHUNK = 500
"""Rows copied in one transaction, so that records on their way wait some milliseconds for an adoption, not seconds."""


async def adopt_file(own: SpoolFile, path: Path, count: Callable[[Figures], None]) -> None:
    """Move all records of another spool file into ours and remove it; `count` is told of every part that is in ours.

    A file that is in use is left alone, as is one that cannot be read. Interrupted half-way, the records that were
    moved are in both files: the store takes each once.
    """
    pending = dead = 0
    try:
        leftover = await asyncio.to_thread(_Leftover.open, path, own.tell)
    except (OSError, sqlite3.Error) as error:
        own.tell("spool_failing", {"file": path.name, "reason": type(error).__name__})
        return
    if leftover is None:
        return
    try:
        rows = await asyncio.to_thread(leftover.after, 0)
        while rows:
            used = await own.submit(insert([row[1:] for row in rows]))
            buried = sum(row[5] is not None for row in rows)
            count(Figures(len(rows) - buried, buried, rows[0][4], used))
            pending, dead = pending + len(rows) - buried, dead + buried
            rows = await asyncio.to_thread(leftover.after, rows[-1][0])
        await asyncio.to_thread(leftover.empty)
    except (sqlite3.Error, SpoolError) as error:
        own.tell("spool_failing", {"file": path.name, "reason": type(error).__name__})
    finally:
        await asyncio.to_thread(leftover.close)
    if pending or dead:
        own.tell("spool_adopted", {"file": path.name, "records": pending, "dead": dead})


class _Leftover:
    """A spool file of a process that is gone, locked for us."""

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection) -> None:
        self._path = path
        self._lock = lock
        self._connection = connection

    @classmethod
    def open(cls, path: Path, tell: Report) -> _Leftover | None:
        """Lock and open the file; None when a living process has it, or it went meanwhile."""
        lock = take_lock(path)
        if lock is None:
            return None
        try:
            if path.exists():
                return cls(path, lock, open_or_replace(path, tell))
        except (OSError, sqlite3.Error):
            release_lock(path, lock)
            raise
        release_lock(path, lock)
        return None

    def after(self, seq: int) -> Sequence[tuple[Any, ...]]:
        """Return the next rows in order, each with its number before its columns."""
        rows = self._connection.execute(
            "select seq, conversation_id, kind, columns, queued_at, dead_at, dead_reason from records"
            " where seq > ? order by seq limit ?",
            (seq, CHUNK),
        )
        return rows.fetchall()

    def empty(self) -> None:
        """Delete all rows, which are in our own file by now."""
        self._connection.execute("delete from records")

    def close(self) -> None:
        """Close the file, remove it if it is empty, and let go of the lock."""
        remove_if_empty(self._path, self._connection)
        release_lock(self._path, self._lock)


def leftovers(folder: Path, suffix: str, own: Path) -> list[Path]:
    """Return the other spool files of a folder, by name."""
    return sorted(path for path in folder.glob(f"*{suffix}") if path.resolve() != own.resolve())


def ownerless(folder: Path, suffix: str, own: Path) -> frozenset[str]:
    """Return the names of the other spool files that no process has open."""
    found = set()
    for path in leftovers(folder, suffix, own):
        try:
            lock = take_lock(path)
        except OSError:  # another user's, or a folder that is going
            continue
        if lock is not None:
            found.add(path.name)
            release_lock(path, lock)
    return frozenset(found)
