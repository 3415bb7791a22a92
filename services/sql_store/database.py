"""What the SQL store asks of a database, and which one a URL names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.dialects.sqlite import Insert

T = TypeVar("T")

as_json = partial(json.dumps, allow_nan=False)
"""PostgreSQL takes no NaN; what one database refuses the other refuses too."""


class Database(Protocol):
    """A database and its connections, of which every call holds one, within the deadline the database was opened with.

    What fails raises a `StoreError` that names no row.
    """

    name: Literal["postgresql", "sqlite"]

    insert: Callable[..., Insert]
    """Begins an INSERT that may say what to do on a conflict; both databases write that alike."""

    async def rows(self, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of one statement, its parameters named in `values`; what it changes is committed."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns; all it did is committed then, or nothing of it when it raised."""

    async def close(self) -> None:
        """Release all connections."""


def is_sqlite(database_url: str) -> bool:
    """Return whether the URL is that of an SQLite file."""
    return database_url.split(":", 1)[0].split("+", 1)[0] == "sqlite"


def open_database(database_url: str, *, pool_size: int, timeout_s: float) -> Database:
    """Return a database with at most `pool_size` connections; nothing is connected yet.

    Raises:
        ValueError: If the URL is neither PostgreSQL's nor that of an SQLite file.
    """
    # Each is loaded where it is used: what PostgreSQL needs is 12 MB that a server with a file does not have to spare.
    if is_sqlite(database_url):
        from .sqlite_file import SqliteFile

        return SqliteFile(database_url, pool_size=pool_size, timeout_s=timeout_s)
    from .postgres import Postgres

    return Postgres(database_url, pool_size=pool_size, timeout_s=timeout_s)


def executed(connection: Connection, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Execute a statement and return its rows, none when it is of a kind that returns none."""
    result = connection.execute(statement, values)
    return [dict(row) for row in result.mappings()] if result.returns_rows else []
