"""The door of the spool, both ways: records in, to the disk; out, to the store; and how it stands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from core.records import Record, clean_text
from services.store import Store

from .adopt import adopt_file, leftovers, ownerless
from .disk import Report, SpoolClosed, SpoolError, SpoolFile, SpoolFull, SpoolLocked, look_at
from .drain import Drainer, Outcome, SpoolLimits
from .rows import Figures, Row, figures, insert, last_seq, row_of, waits_up_to

SUFFIX = ".spool"
"""Ending of spool files; `adopt` looks for it, and the embedded database in the same folder has another."""

GATHER_S = 0.02
"""How long a record waits for others to be written with it; more than this is lost only where many talk."""

WRITE_EVERY_S, BURST_S = 0.1, 0.5
"""Writes of a busy server lie so far apart, once they have come closer for so long: each costs a flush of the disk and
two changes of threads, 0.5 ms of CPU, which a hundred talks would otherwise pay for every turn."""

LOCK_LOOK_S = 0.05
"""Between two tries at a file that is locked."""

RUNNER_DEADLINE_S = 5.0
"""How long the drainer may take to notice that it was cancelled."""


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """How a spool stands.

    Attributes:
        pending: Records on disk that are not in the store.
        oldest_s: Age of the oldest of them, 0 when there is none; over 60 s the server is degraded.
        dead: Records set aside because the store can never take them.
        bytes: Space used in the file.
    """

    pending: int
    oldest_s: float
    dead: int
    bytes: int


def message_id(conversation_id: str, item_id: str) -> str:
    """Return the id of the message row of an item: the same for the same item, whoever asks and however often.

    Raises:
        ValueError: If `conversation_id` is no UUID.
    """
    return str(uuid5(UUID(conversation_id), clean_text(item_id)))


class Spool:
    """An outbox in one file. `open` it, keep `run` going as a task, `close` it last."""

    def __init__(self, file: SpoolFile, limits: SpoolLimits, report: Report) -> None:
        self._file = file
        self._limits = limits
        self._report = report
        self._pending = self._dead = self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Row] = []
        self._gathering: asyncio.Future[int] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._next_write_at = 0.0
        self._unwritten = 0
        self._oldest_at: float | None = None
        self._closing = False
        self._large = False
        self._new_rows = asyncio.Event()
        self._stepped = asyncio.Event()
        self._hurry = asyncio.Event()
        self._asked = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running = False
        self._step: asyncio.Task[Outcome] | None = None
        self._reserve_due = 0.0

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        limits: SpoolLimits | None = None,
        report: Report | None = None,
        wait_s: float = 0.0,
    ) -> Spool:
        """Open or create the spool file; what an earlier process left in it is sent first.

        Args:
            path: One file a process, ending in `.spool` so that others can adopt it.
            limits: Bounds; the defaults are the product's.
            report: Called in the event loop with an event's name and fields: `record_dead`, `store_unavailable`,
                `store_back`, `spool_corrupt`, `spool_large`, `spool_reserve_freed`, `spool_disk_full`,
                `spool_failing`, `spool_adopted`. No field holds anything of what was said.
            wait_s: How long to wait for a file that is locked: by who adopts it, or by a predecessor that ends.

        Raises:
            SpoolLocked: If another process has the file open, for longer than `wait_s`.
            SpoolError: If the file cannot be created.
        """
        limits, report = limits or SpoolLimits(), report or _ignore
        until = time.monotonic() + wait_s
        while True:
            file = SpoolFile(
                Path(path), reserve_bytes=limits.reserve_bytes, max_waiting=limits.max_waiting, report=report
            )
            try:
                await file.open()
                break
            except SpoolLocked:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(LOCK_LOOK_S)
        spool = cls(file, limits, report)
        left = await file.submit(figures(time.time() - limits.keep_dead_s))
        spool._add(left)
        return spool

    @property
    def accepting_sessions(self) -> bool:
        """False when so little room is left that only sessions that live already should go on."""
        return not (self._closing or self._file.disk_full or self._bytes >= self._limits.refuse_bytes)

    def stats(self) -> SpoolStats:
        """Return how the spool stands, from memory."""
        oldest_s = max(0.0, time.time() - self._oldest_at) if self._pending and self._oldest_at else 0.0
        return SpoolStats(self._pending, oldest_s, self._dead, self._bytes)

    async def put(self, record: Record) -> None:
        """Return when the record is on disk; only then may it be acknowledged or forgotten.

        Raises:
            SpoolFull: If disk or queue are full.
            SpoolClosed: If the spool is closing.
            SpoolError: If the file failed.
        """
        written = self.put_nowait(record)
        self._write()  # whoever waits is not kept waiting for others
        await asyncio.shield(written)

    def put_nowait(self, record: Record) -> asyncio.Future[int]:
        """Queue the record for the disk; the future is done when it is there, or failed as `put` would.

        Records of one conversation reach the store in the order of these calls. A failure nobody awaits stays silent,
        as the file reports it. Records that are written together share the future: do not cancel it. Its result has no
        meaning.
        """
        if self._closing:
            return self._refused(SpoolClosed("the spool is closing"))
        if self._unwritten >= self._limits.max_waiting:
            return self._refused(SpoolFull("too many records wait for the disk"))
        self._unwritten += 1
        self._gathered.append(row_of(record))
        if self._gathering is None:
            self._gathering = self._loop.create_future()
            wait_s = max(GATHER_S, self._next_write_at - self._loop.time())
            self._due = self._loop.call_later(wait_s, self._write)
        return self._gathering

    def _refused(self, error: SpoolError) -> asyncio.Future[int]:
        refused: asyncio.Future[int] = self._loop.create_future()
        refused.add_done_callback(look_at)
        refused.set_exception(error)
        return refused

    def _write(self) -> None:
        """Give what was gathered to the disk."""
        gathering, rows = self._gathering, self._gathered
        if gathering is None:
            return
        if self._due is not None:
            self._due.cancel()
        self._gathering, self._gathered, self._due = None, [], None
        self._next_write_at = max(self._next_write_at, self._loop.time() - BURST_S) + WRITE_EVERY_S
        written = self._file.submit(insert(rows))
        written.add_done_callback(lambda future: self._was_written(future, rows, gathering))

    async def flushed(self, timeout_s: float) -> bool:
        """Return True when all that was put before this call has left for the store, False after `timeout_s`.

        Records that were set aside as dead do not count: they will never be there.
        """
        self._asked.set()
        try:
            async with asyncio.timeout(timeout_s):
                self._write()
                last = await self._file.submit(last_seq)
                while True:
                    stepped = self._stepped
                    if not await self._file.submit(waits_up_to(last)):
                        return True
                    await stepped.wait()
        except (TimeoutError, SpoolError):
            return False

    async def run(self, store: Store) -> None:
        """Bring records to the store until `close`; keep this in one task of its own.

        Raises:
            RuntimeError: If it runs already: two drainers could let a conversation's rows overtake each other.
        """
        if self._running:
            raise RuntimeError("a spool has one drainer")
        self._running = True
        self._stopped.clear()
        drainer = Drainer(self._file, store, self._limits, self._report)
        try:
            while not self._stop.is_set():
                self._new_rows.clear()
                self._step = asyncio.create_task(drainer.step(), name="spool step")
                outcome = await self._step
                self._account(outcome)
                await self._pause(drainer, outcome)
        except asyncio.CancelledError:
            if not self._stop.is_set():  # otherwise close() cancelled the step, not this task
                raise
        finally:
            self._running = False
            self._stopped.set()

    async def ownerless(self, folder: Path | str) -> frozenset[str]:
        """Return the names of the folder's other spool files that no process has open at this moment.

        One of them may be about to be opened again by the successor of a process that crashed.
        """
        return await asyncio.to_thread(ownerless, Path(folder), SUFFIX, self._file.path)

    async def adopt(self, folder: Path | str, names: Collection[str] | None = None) -> int:
        """Take over what processes that are gone left in the folder's spool files; return the number of records.

        Files in use are left alone; emptied ones are removed.

        Args:
            folder: Where they lie.
            names: The files to take; default all.
        """
        moved = 0

        def count(part: Figures) -> None:
            nonlocal moved
            moved += part.pending + part.dead
            self._add(part)

        for path in await asyncio.to_thread(leftovers, Path(folder), SUFFIX, self._file.path):
            if names is None or path.name in names:
                await adopt_file(self._file, path, count)
        return moved

    async def close(self, drain_s: float) -> None:
        """Refuse new records, go on sending for at most `drain_s`, and release the file; the rest stays on disk.

        Afterwards `run` has returned. An empty spool leaves no file.
        """
        self._closing = True
        self._write()
        if self._running and drain_s > 0:
            self._hurry.set()
            self._new_rows.set()
            await self.flushed(drain_s)
        self._stop.set()
        self._asked.set()
        self._hurry.set()
        self._new_rows.set()
        if self._running:
            if self._step is not None:
                self._step.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(RUNNER_DEADLINE_S):
                    await self._stopped.wait()
        await self._file.close()

    async def _pause(self, drainer: Drainer, outcome: Outcome) -> None:
        """Wait as the drainer asked, or until the spool closes."""
        if outcome.pause_s != 0.0:
            longest = outcome.pause_s
            if self._file.disk_full:
                retry_s = self._limits.reserve_retry_s
                longest = retry_s if longest is None else min(longest, retry_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self._what_ends(outcome).wait()
            self._asked.clear()
        if self._hurry.is_set():
            self._hurry.clear()
            drainer.hurry()
        if self._file.disk_full and time.monotonic() >= self._reserve_due:
            self._reserve_due = time.monotonic() + self._limits.reserve_retry_s
            with suppress(SpoolError):
                await self._file.restore_reserve()

    def _what_ends(self, outcome: Outcome) -> asyncio.Event:
        """Return what ends a pause early."""
        if outcome.new_rows_end_it:
            return self._new_rows
        return self._asked if outcome.gathers else self._hurry

    def _was_written(self, future: asyncio.Future[int], rows: list[Row], gathering: asyncio.Future[int]) -> None:
        """Count what is on disk, and tell those who wait for it."""
        self._unwritten -= len(rows)
        gathering.add_done_callback(look_at)
        error = future.exception()
        if error is not None:
            gathering.set_exception(error)
            return
        self._add(Figures(len(rows), 0, rows[0][3], future.result()))
        if not gathering.cancelled():
            gathering.set_result(0)

    def _add(self, rows: Figures) -> None:
        """Count rows that are in the file, and let the drainer look."""
        if not self._pending:
            self._oldest_at = rows.oldest_at
        self._pending += rows.pending
        self._dead += rows.dead
        self._measure(rows.bytes)
        self._new_rows.set()

    def _account(self, outcome: Outcome) -> None:
        """Take over what a step did, and let those who wait for it look."""
        self._pending -= outcome.stored + outcome.died
        self._dead += outcome.died
        if outcome.seen is not None:
            self._oldest_at = outcome.seen.oldest_at or self._oldest_at
            self._measure(outcome.seen.bytes)
        stepped, self._stepped = self._stepped, asyncio.Event()
        stepped.set()

    def _measure(self, used: int) -> None:
        self._bytes = used
        if used >= self._limits.warn_bytes and not self._large:
            self._report("spool_large", {"bytes": used, "pending": self._pending})
        # Half the size before it is told again: a spool that hovers about the limit is one event.
        self._large = used >= (self._limits.warn_bytes / 2 if self._large else self._limits.warn_bytes)


def _ignore(_event: str, _fields: Mapping[str, object]) -> None:
    """Tell nobody."""
