"""The directory of one machine: an SQLite file beside the locks of all workers of all instances with one STATE_DIR.

Nothing in it outlives a boot, so nothing is flushed to the disk, and a file that is broken is made anew from what the
living know. Each process tells its own sessions; those of a process that died are forgotten as soon as somebody looks.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .places import MAX_TICKETS, Counts, DirectoryUnavailable, Noted, Report

T = TypeVar("T")

BUSY_S = 0.025
"""Longest wait for another process's transaction, which takes some 20 µs; meanwhile the event loop stands still."""

RETRY_S = 5.0
"""Pause after a failure before the file is tried again: a file that stays locked costs 5 ms of a second at most."""

SCHEMA = """
create table if not exists sessions (
    worker text not null, session integer not null, channel text not null, since real not null,
    user_id text, conversation_id text, primary key (worker, session)) without rowid;
create index if not exists sessions_user on sessions (user_id) where user_id is not null;
create index if not exists sessions_conversation on sessions (conversation_id) where conversation_id is not null;
create table if not exists tickets (key text primary key, holder text not null, expires_at real not null)
    without rowid;
"""

@dataclass(slots=True)
class _Own:
    """A session of this process, as the directory should have it."""

    channel: str
    since: float
    user_id: str | None = None
    conversation_id: str | None = None


class MachineDirectory:
    """The directory in `{run_dir}/directory.db`. All methods are short and done when they return.

    Args:
        run_dir: Folder of the workers' locks and sockets.
        worker: This process; what an earlier one of its name left is forgotten.
        living: Returns the other workers whose process lives.
        limits: MAX_CONNECTIONS and MAX_SESSIONS_PER_USER.
        report: Told once when the directory fails and once when it is back.
        clock: Monotonic seconds, the same for all processes of the machine.
    """

    def __init__(
        self,
        run_dir: Path,
        worker: str,
        *,
        living: Callable[[], Collection[str]],
        limits: tuple[int, int],
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = run_dir / "directory.db"
        self._path_text = str(self._path)
        self._worker = worker
        self._living = living
        self._max_connections, self._max_per_user = limits
        self._report = report
        self._clock = clock
        self._own: dict[int, _Own] = {}
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._retry_at = float("-inf")
        self._is_failing = False

    # ------------------------------------------------------------------ places

    async def take(self, session: int, channel: str) -> bool:
        """See `Directory.take`."""
        own = _Own(channel, self._clock())
        insert = (
            "insert or replace into sessions (worker, session, channel, since)"
            " select ?, ?, ?, ? where (select count(*) from sessions) < ?"
        )
        values = (self._worker, session, channel, own.since, self._max_connections)
        return self._granted(insert, values, lambda: self._own.__setitem__(session, own))

    async def take_for(self, session: int, user_id: str, *, follows: bool = False) -> bool:
        """See `Directory.take_for`."""
        own = self._own.get(session)
        if own is None:
            return False
        update = (
            "update sessions set user_id = ? where worker = ? and session = ?"
            " and (select count(*) from sessions where user_id = ?) < ?"
        )
        values = (user_id, self._worker, session, user_id, self._max_per_user + follows)
        return self._granted(update, values, lambda: setattr(own, "user_id", user_id))

    async def note(self, session: int, conversation_id: str) -> Noted:
        """See `Directory.note`."""
        own = self._own.get(session)
        if own is None:
            return Noted(self._clock())
        own.conversation_id = conversation_id

        def work(database: sqlite3.Connection) -> Noted:
            at = self._clock()  # within the transaction, so that times follow the order of the notes
            others = database.execute(
                "select distinct worker from sessions where conversation_id = ? and user_id = ? and worker <> ?",
                (conversation_id, own.user_id, self._worker),
            ).fetchall()
            database.execute(
                "update sessions set conversation_id = ? where worker = ? and session = ?",
                (conversation_id, self._worker, session),
            )
            return Noted(at, tuple(worker for (worker,) in others))

        return self._run(work)

    def release(self, session: int) -> None:
        """See `Directory.release`."""
        if self._own.pop(session, None) is None:
            return
        delete = "delete from sessions where worker = ? and session = ?"
        with suppress(DirectoryUnavailable):  # when it is back it is told what is left, and this session is not
            self._run(lambda database: database.execute(delete, (self._worker, session)))

    async def has_room(self, user_id: str | None = None) -> bool:
        """See `Directory.has_room`."""
        query = "select count(*) < ? from sessions"
        values: tuple[Any, ...] = (self._max_connections,)
        if user_id is not None:
            query, values = f"{query} where user_id = ?", (self._max_per_user, user_id)
        return self._after_burial(lambda database: bool(database.execute(query, values).fetchone()[0]))

    async def counts(self) -> Counts:
        """See `Directory.counts`."""

        def work(database: sqlite3.Connection) -> Counts:
            self._bury_dead(database)
            query = "select channel, count(*), count(conversation_id) from sessions group by channel"
            rows = database.execute(query).fetchall()
            return Counts(sum(row[1] for row in rows), {row[0]: row[2] for row in rows})

        return self._run(work)

    # ------------------------------------------------------------------ tickets

    async def put_ticket(self, key: str, holder: str, life_s: float) -> None:
        """See `Directory.put_ticket`."""
        now = self._clock()

        def work(database: sqlite3.Connection) -> None:
            database.execute("delete from tickets where expires_at < ?", (now,))
            (kept,) = database.execute("select count(*) from tickets").fetchone()
            oldest = "delete from tickets where key in (select key from tickets order by expires_at limit ?)"
            if kept >= MAX_TICKETS:
                database.execute(oldest, (kept - MAX_TICKETS + 1,))
            database.execute("insert into tickets values (?, ?, ?)", (key, holder, now + life_s))

        self._run(work)

    async def take_ticket(self, key: str) -> str | None:
        """See `Directory.take_ticket`."""
        delete = "delete from tickets where key = ? returning holder, expires_at"
        row: tuple[str, float] | None = self._run(lambda database: database.execute(delete, (key,)).fetchone())
        return row[0] if row is not None and row[1] >= self._clock() else None

    def close(self) -> None:
        """Forget the sessions of this process."""
        self._own.clear()
        with suppress(DirectoryUnavailable):
            self._run(lambda db: db.execute("delete from sessions where worker = ?", (self._worker,)))
        self._disconnect()

    # ------------------------------------------------------------------ the dead

    def _granted(self, statement: str, values: tuple[Any, ...], keep: Callable[[], None]) -> bool:
        """Return whether a statement that asks for room got it, once the dead are out of its way.

        `keep` notes it among our own: when there was room, and when nobody could say, but never before it was asked,
        since a file that is opened for it is told our own.
        """
        try:
            granted = self._after_burial(lambda database: database.execute(statement, values).rowcount > 0)
        except DirectoryUnavailable:
            keep()
            raise
        if granted:
            keep()
        return granted

    def _after_burial(self, question: Callable[[sqlite3.Connection], bool]) -> bool:
        """Return a question's answer; before a no, the dead are forgotten and it is asked again."""

        def work(database: sqlite3.Connection) -> bool:
            return question(database) or (self._bury_dead(database) and question(database))

        return self._run(work)

    def _bury_dead(self, database: sqlite3.Connection) -> bool:
        """Forget the sessions of processes that are gone; return whether there were any."""
        known = {row[0] for row in database.execute("select distinct worker from sessions")}
        known.discard(self._worker)
        if not known:
            return False
        dead = known.difference(self._living())
        for worker in dead:
            database.execute("delete from sessions where worker = ?", (worker,))
        return bool(dead)

    # ------------------------------------------------------------------ the file

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do work in one transaction and return its result.

        Raises:
            DirectoryUnavailable: If the file could not be used; it is tried again after a pause.
        """
        if self._clock() < self._retry_at:
            raise DirectoryUnavailable
        try:
            database = self._connected()
            database.execute("begin immediate")
            result = work(database)
            database.execute("commit")
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            raise DirectoryUnavailable from error
        if self._is_failing:
            self._is_failing = False
            self._report("directory_back", {"sessions": len(self._own)})
        return result

    def _connected(self) -> sqlite3.Connection:
        """Return a connection to the file that has the name: it may have been made anew by somebody else."""
        if self._connection is not None:
            with suppress(FileNotFoundError):
                found = os.stat(self._path_text)  # noqa: PTH116 - a fifth of Path.stat's work, three times a session
                if (found.st_dev, found.st_ino) == self._file:
                    return self._connection
            self._disconnect()
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # tickets name users
        found = self._path.stat()
        self._file = (found.st_dev, found.st_ino)
        database = self._connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        database.execute("pragma journal_mode = wal")  # survives the kill of a process in the middle of a write
        database.execute("pragma synchronous = off")
        database.executescript(SCHEMA)
        self._tell_own(database)
        return database

    def _tell_own(self, database: sqlite3.Connection) -> None:
        """Replace what the file has of this process by what is so."""
        database.execute("begin immediate")
        database.execute("delete from sessions where worker = ?", (self._worker,))
        if not self._living():  # what is left is of another boot, when the clock of the tickets began elsewhere
            database.execute("delete from sessions")
            database.execute("delete from tickets")
        rows = [
            (self._worker, session, own.channel, own.since, own.user_id, own.conversation_id)
            for session, own in self._own.items()
        ]
        database.executemany("insert into sessions values (?, ?, ?, ?, ?, ?)", rows)
        database.execute("commit")

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        self._disconnect()
        self._retry_at = self._clock() + RETRY_S
        if not self._is_failing:
            self._is_failing = True
            self._report("directory_failing", {"cause": getattr(error, "sqlite_errorname", type(error).__name__)})
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._remove_file()

    def _remove_file(self) -> None:
        """Remove a file that is no database any more; the journal first, or it would be played into the new one."""
        with suppress(OSError):
            found = self._path.stat()
            if (found.st_dev, found.st_ino) != self._file:  # somebody else has made it anew already
                return
            for suffix in ("-wal", "-shm", ""):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._retry_at = float("-inf")
            self._report("directory_made_anew", {})

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
