"""An SQLite file as the SQL store uses it: Python's own driver, each call in a thread of its own pool.

A call crosses to its thread once, whatever it executes there; a driver that crosses for each step of a statement does
so five times for one row, which is four times the work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Executable, create_engine, event, make_url
from sqlalchemy.dialects import sqlite

from .database import T, as_json, executed
from .errors import within

MOST_CONNECTIONS = 3
"""A file has one writer at a time, so more would wait for each other: one for transcripts, one for another write that
waits for its turn, one that reads meanwhile. Each keeps up to 2 MB of the file."""


class SqliteFile:
    """A `Database` in one file, which several processes may share.

    A call that is given up at its deadline while it executes is not undone: as with any database whose answer is lost,
    its rows may be there.
    """

    name: Literal["postgresql", "sqlite"] = "sqlite"

    def __init__(self, database_url: str, *, pool_size: int, timeout_s: float) -> None:
        pool_size = min(pool_size, MOST_CONNECTIONS)
        file = make_url(database_url).database
        if not file or file == ":memory:":
            raise ValueError("DATABASE_URL must name a file, as in sqlite:///data/voice.db")
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # transcripts are nobody else's to read
        # A statement's parameters are rows: they must not get into the text of an error.
        self._engine = create_engine(
            f"sqlite:///{file}", hide_parameters=True, pool_size=pool_size, max_overflow=0, pool_timeout=timeout_s,
            json_serializer=as_json, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True, pool_use_lifo=True,
        )  # fmt: skip
        _prepare(self._engine, timeout_s)
        self._threads = ThreadPoolExecutor(pool_size, thread_name_prefix="sqlite")  # as many as there are connections
        self._timeout_s = timeout_s
        self.insert: Callable[..., sqlite.Insert] = sqlite.insert

    async def rows(self, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of one statement; what it changes is committed."""
        return await self._in_thread(partial(_executed, self._engine, statement, values))

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction; nobody else writes meanwhile."""
        return await self._in_thread(partial(_transacted, self._engine, work))

    async def close(self) -> None:
        """Close the connections when the calls under way have ended."""
        async with within(self._timeout_s):
            await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
            self._engine.dispose()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        async with within(self._timeout_s):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _executed(engine: Engine, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return executed(connection, statement, values)


def _transacted(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        # "immediate": one that began as a reader may not become a writer when another has written since, and is not
        # made to wait for that either.
        connection.exec_driver_sql("begin immediate")
        try:
            done = work(connection)
            connection.exec_driver_sql("commit")
        except BaseException:
            connection.connection.rollback()  # nothing is there to undo when SQLite has done so itself
            raise
        return done


def _prepare(engine: Engine, timeout_s: float) -> None:
    """Have every connection set up alike."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # SQLite gives up before our own deadline does, which leaves the connection usable.
        cursor.execute(f"pragma busy_timeout = {int(timeout_s * 800)}")
        cursor.execute("pragma journal_mode = wal")
        cursor.execute("pragma synchronous = normal")  # safe against a crash of ours; the spool guards the rest
        cursor.execute("pragma foreign_keys = on")
        cursor.close()
