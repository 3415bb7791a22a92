"""The file behind the spool: one SQLite database, one thread that owns it, group commit.

The event loop hands jobs over and gets futures; whatever is waiting when the disk is free is committed together, and
futures are resolved after the commit, so a resolved future means the row survives a kill of the process and, with
synchronous=FULL, a power cut. Beside `x.spool` lie `x.spool.lock` (held while the file is in use; the kernel releases
it when the process dies) and `x.spool.reserve` (space to give back to a full disk).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .rows import SCHEMA, Job, T

Report = Callable[[str, Mapping[str, object]], None]
"""Told what operators should know: an event's name and its fields; never anything of a record but its kind."""

GROUP = 500
"""Most jobs in one transaction: at 20 µs a row this holds the acknowledgement up for 10 ms."""

OPEN_DEADLINE_S = 60.0
"""Checking 256 MB takes about a second, on a slow disk ten."""

CLOSE_DEADLINE_S = 10.0
"""The last commit and one checkpoint; a flush takes 20 ms on a slow disk."""

DISK_ERRORS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""Primary result codes of a disk that takes no more; growing the -wal or -shm file fails with the last two."""


class SpoolError(Exception):
    """Raised when the spool could not do what was asked; the record is not in it."""


class SpoolLocked(SpoolError):
    """Raised when another process has the file open."""


class SpoolFull(SpoolError):
    """Raised when neither disk nor queue take another record."""


class SpoolClosed(SpoolError):
    """Raised when the spool is closed or closing."""


class SpoolFile:
    """One open spool file; `open` first, `close` at the end. All methods are for the event loop's thread."""

    def __init__(self, path: Path, *, reserve_bytes: int, max_waiting: int, report: Report) -> None:
        self.path = path
        self.disk_full = False
        """True from the moment the reserve had to be given up until there is one again."""
        self._reserve_bytes = reserve_bytes
        self._max_waiting = max_waiting
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[tuple[Job[Any], asyncio.Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"spool {path.name}", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def open(self) -> None:
        """Open or create the file; a corrupt one is moved aside and reported.

        Raises:
            SpoolLocked: If another process has it.
            SpoolError: If it cannot be created.
        """
        self._thread.start()
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                await asyncio.shield(self._opened)
        except TimeoutError:
            raise SpoolError(f"{self.path.name} could not be read in {OPEN_DEADLINE_S:g} s") from None

    def submit(self, job: Job[T]) -> asyncio.Future[T]:
        """Run a job in the writer's thread; the future has its result once the transaction is on disk.

        A failed future nobody looks at is silent: failures are reported as events. Jobs run in the order given.
        The future fails with SpoolFull, SpoolClosed or SpoolError.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(look_at)
        with self._changed:
            if self._closing:
                future.set_exception(SpoolClosed("the spool is closed"))
            elif len(self._jobs) >= self._max_waiting:
                future.set_exception(SpoolFull("too many records wait for the disk"))
            else:
                self._jobs.append((job, future))
                if len(self._jobs) == 1:  # otherwise the thread is up already
                    self._changed.notify()
        return future

    async def close(self) -> None:
        """Finish the waiting jobs and release the file; remove it when nothing is in it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        with suppress(TimeoutError):  # a disk that hangs must not hold up the end; the kernel releases the lock
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await asyncio.shield(self._ended)

    def _work(self) -> None:
        """Own the connection from its opening to its end: the body of the thread."""
        lock: int | None = None
        try:
            lock = take_lock(self.path)
            if lock is None:
                raise SpoolLocked(f"{self.path.name} is in use by another process")
            connection = open_or_replace(self.path, self.tell)
            self._restore_reserve()
        except (OSError, sqlite3.Error, SpoolError) as error:
            release_lock(self.path, lock)
            self._later(_fail, self._opened, error if isinstance(error, SpoolError) else SpoolError(str(error)))
            self._later(_resolve, self._ended, None)
            return
        self._later(_resolve, self._opened, None)
        while group := self._next_group():
            self._commit(connection, group)
        remove_if_empty(self.path, connection)
        release_lock(self.path, lock)
        self._later(_resolve, self._ended, None)

    def _next_group(self) -> list[tuple[Job[Any], asyncio.Future[Any]]]:
        """Wait for jobs and return those that are there; none when the spool closes."""
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            return [self._jobs.popleft() for _ in range(min(GROUP, len(self._jobs)))]

    def _commit(self, connection: sqlite3.Connection, group: list[tuple[Job[Any], asyncio.Future[Any]]]) -> None:
        """Run the jobs in one transaction; if that fails, give the reserve back, then try them one by one."""
        failure = self._try(connection, group)
        if failure is not None and _is_disk_full(failure) and self._give_reserve_back():
            failure = self._try(connection, group)
        if failure is not None:
            failed = [error for single in group if (error := self._commit_alone(connection, single))]
            if failed:
                self.tell("spool_failing", {"reason": str(failed[0]), "jobs": len(failed)})

    def _commit_alone(
        self, connection: sqlite3.Connection, single: tuple[Job[Any], asyncio.Future[Any]]
    ) -> SpoolError | None:
        """Run one job in a transaction of its own; fail its future and return the error if it does not work."""
        failure = self._try(connection, [single])
        if failure is None:
            return None
        error: SpoolError = SpoolError(f"the spool file failed ({_name_of(failure)})")
        if _is_disk_full(failure):
            error = SpoolFull("the disk is full")
        self._later(_fail, single[1], error)
        return error

    def _try(
        self, connection: sqlite3.Connection, group: list[tuple[Job[Any], asyncio.Future[Any]]]
    ) -> Exception | None:
        try:
            connection.execute("begin immediate")
            results = [job(connection) for job, _ in group]
            connection.execute("commit")
        # The wrapper of the thread: without it one failing job would end the thread and every future would hang.
        except Exception as error:  # noqa: BLE001
            with suppress(sqlite3.Error):  # a full disk has often rolled back already
                connection.execute("rollback")
            return error
        self._later(_resolve_all, [(future, result) for (_, future), result in zip(group, results, strict=True)])
        return None

    def _restore_reserve(self) -> None:
        """Make the reserve if it is not there; without room for it the disk counts as full."""
        reserve = beside(self.path, ".reserve")
        try:
            with reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._reserve_bytes)
        except OSError:
            reserve.unlink(missing_ok=True)
            if not self.disk_full:
                self.tell("spool_disk_full", {"reserve_bytes": self._reserve_bytes})
            self.disk_full = True
        else:
            self.disk_full = False

    def restore_reserve(self) -> asyncio.Future[None]:
        """Try to make the reserve again; afterwards `disk_full` says whether it is there."""
        return self.submit(lambda _connection: self._restore_reserve())

    def _give_reserve_back(self) -> bool:
        """Free the reserve; return whether there was one."""
        try:
            beside(self.path, ".reserve").unlink()
        except OSError:
            return False
        self.disk_full = True
        self.tell("spool_reserve_freed", {"bytes": self._reserve_bytes})
        return True

    def tell(self, event: str, fields: Mapping[str, object]) -> None:
        """Report an event; for any thread."""
        self._later(self._report, event, fields)

    def _later(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *arguments)


def beside(path: Path, suffix: str) -> Path:
    """Return the file that belongs to a spool file."""
    return path.with_name(path.name + suffix)


def take_lock(path: Path) -> int | None:
    """Lock a spool file for this process; return the lock, or None when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(beside(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:  # otherwise its last owner removed the file while we were opening it
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        os.close(lock)


def release_lock(path: Path, lock: int | None) -> None:
    """Release what `take_lock` returned, and remove the lock's file when its spool file is gone."""
    if lock is None:
        return
    if not path.exists():
        beside(path, ".lock").unlink(missing_ok=True)
    os.close(lock)


def open_or_replace(path: Path, tell: Report) -> sqlite3.Connection:
    """Return a connection to a sound spool file; a corrupt one is moved aside, told as `spool_corrupt`."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # the disk or the permissions, not the contents
            raise
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            beside(path, suffix).rename(beside(path, f".corrupt-{stamp}{suffix}"))
    tell("spool_corrupt", {"file": f"{path.name}.corrupt-{stamp}"})
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # transcripts are nobody else's to read
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("pragma auto_vacuum = incremental")
        if connection.execute("pragma quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check failed")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma journal_size_limit = 4194304")  # 4 MB, what a checkpoint leaves behind anyway
        connection.execute("pragma secure_delete = on")  # what was delivered does not stay on this disk
        connection.executescript(SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def remove_if_empty(path: Path, connection: sqlite3.Connection) -> None:
    """Close the connection, and remove the file with what belongs to it when it holds no record."""
    try:
        empty = connection.execute("select 1 from records limit 1").fetchone() is None
    except sqlite3.Error:
        empty = False
    connection.close()
    if empty:
        for suffix in (".reserve", "-wal", "-shm", ""):
            beside(path, suffix).unlink(missing_ok=True)


def _is_disk_full(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in DISK_ERRORS  # the low byte of an extended code is the primary one


def _name_of(error: Exception) -> str:
    """Return a name for an error without its text."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def look_at(future: asyncio.Future[Any]) -> None:
    """Take note of a failure, so that asyncio does not print it when nobody waits."""
    if not future.cancelled():
        future.exception()


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _resolve_all(results: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, result in results:
        _resolve(future, result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
