"""What is in a spool file, and the jobs that read and change it.

A record is kept as JSON, cleaned of what some store would refuse, so that it can be sent again as often as it takes.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from core.records import MessageRow, Record, clean_text, record_from_dict, record_kind

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

SCHEMA = """
create table if not exists records (
  seq integer primary key autoincrement,
  conversation_id text not null,
  kind text not null,
  columns text not null,
  queued_at real not null,
  dead_at real,
  dead_reason text
);
create index if not exists records_waiting on records (seq) where dead_at is null;
create index if not exists records_dead on records (dead_at) where dead_at is not null;
"""

MAX_DEPTH = 32
"""Deepest nesting kept of a metadata or usage object; what is honest has three levels."""

VACUUM_PAGES = 1024
"""Free pages, 4 MB, from which an emptied file is made smaller: what every turn frees is simply used again."""

Row = tuple[str, str, str, float, float | None, str | None]
"""conversation_id, kind, columns as JSON, queued_at, dead_at, dead_reason."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One row of the spool that is not in the store."""

    seq: int
    conversation_id: str
    kind: str
    columns: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Rows to send next, when the oldest row of all was queued (Unix time; None: nothing waits), and the space used."""

    rows: Sequence[Waiting]
    oldest_at: float | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How many rows wait and how many are dead, when the oldest waiting one was queued, and the space used."""

    pending: int
    dead: int
    oldest_at: float | None
    bytes: int


def row_of(record: Record) -> Row:
    """Return the row of a record that is put now."""
    columns = {field.name: _clean(getattr(record, field.name)) for field in fields(record)}
    conversation_id = columns["conversation_id"] if isinstance(record, MessageRow) else columns["id"]
    return conversation_id, record_kind(record), json.dumps(columns, ensure_ascii=False), time.time(), None, None


def _clean(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON that every store takes: text cleaned, no NaN, no bottomless nesting."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if depth >= MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {clean_text(str(name)): _clean(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(inner, depth + 1) for inner in value]
    return None  # nothing else is part of a record; bytes least of all


def insert(rows: Sequence[Row]) -> Job[int]:
    """Return the job that adds rows in order; its result is the space used."""

    def job(connection: sqlite3.Connection) -> int:
        connection.executemany(
            "insert into records (conversation_id, kind, columns, queued_at, dead_at, dead_reason)"
            " values (?, ?, ?, ?, ?, ?)",
            rows,
        )
        return used_bytes(connection)

    return job


def last_seq(connection: sqlite3.Connection) -> int:
    """Return the number of the last row put."""
    (last,) = connection.execute("select coalesce(max(seq), 0) from records").fetchone()
    return int(last)


def waits_up_to(seq: int) -> Job[bool]:
    """Return the job that says whether a row up to this one still waits for the store."""

    def job(connection: sqlite3.Connection) -> bool:
        query = "select exists (select 1 from records where dead_at is null and seq <= ?)"
        return bool(connection.execute(query, (seq,)).fetchone()[0])

    return job


def figures(dead_before: float) -> Job[Figures]:
    """Return the job that counts, after forgetting rows that died before the Unix time given."""

    def job(connection: sqlite3.Connection) -> Figures:
        connection.execute("delete from records where dead_at < ?", (dead_before,))
        pending, dead, oldest = connection.execute(
            "select count(*) filter (where dead_at is null), count(dead_at),"
            " min(queued_at) filter (where dead_at is null) from records"
        ).fetchone()
        return Figures(pending, dead, oldest, used_bytes(connection))

    return job


def fetch(limit: int, held: Collection[str]) -> Job[Fetched]:
    """Return the job that reads the next rows, without those of conversations that are held."""

    def job(connection: sqlite3.Connection) -> Fetched:
        rows = connection.execute(
            "select seq, conversation_id, kind, columns from records where dead_at is null"
            " and conversation_id not in (select value from json_each(?)) order by seq limit ?",
            (json.dumps(list(held)), limit),
        )
        found = [Waiting(*row) for row in rows]
        oldest = connection.execute(
            "select queued_at from records where dead_at is null order by seq limit 1"
        ).fetchone()
        if oldest is None and connection.execute("pragma freelist_count").fetchone()[0] >= VACUUM_PAGES:
            connection.execute("pragma incremental_vacuum").fetchall()
        return Fetched(found, oldest[0] if oldest else None, used_bytes(connection))

    return job


def forget(seqs: Sequence[int]) -> Job[None]:
    """Return the job that deletes rows the store has."""

    def job(connection: sqlite3.Connection) -> None:
        connection.executemany("delete from records where seq = ?", [(seq,) for seq in seqs])

    return job


def bury(seq: int, reason: str) -> Job[None]:
    """Return the job that sets a row aside."""

    def job(connection: sqlite3.Connection) -> None:
        connection.execute(
            "update records set dead_at = ?, dead_reason = ? where seq = ?", (time.time(), reason[:200], seq)
        )

    return job


def read(row: Waiting) -> Record | None:
    """Return the record of a row, or None when no version of ours could have written it."""
    try:
        return record_from_dict(row.kind, json.loads(row.columns))
    except (ValueError, KeyError, TypeError):
        return None


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the space that records take; the file itself may be larger, and its free pages are used again."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    (free,) = connection.execute("pragma freelist_count").fetchone()
    (size,) = connection.execute("pragma page_size").fetchone()
    return int(pages - free) * int(size)
