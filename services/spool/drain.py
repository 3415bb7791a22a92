"""The drainer: brings what is in the spool to the store, in order, one batch at a time.

What became of a batch decides what is next:
    stored         delete its rows, go on with twice as many
    unavailable    keep the rows, go on with half as many after a pause that doubles
    rejected       go on with half as many; a row that is rejected alone is set aside as dead
    parent missing the same, but a row alone makes its conversation wait, for some minutes, before it is dead
Rows of one conversation never overtake each other; conversations do not wait for one another's missing parents.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from core.records import Record
from services.store import ParentMissing, Store, StoreError, StoreRejected

from .disk import Report, SpoolError, SpoolFile
from .rows import Fetched, Waiting, bury, fetch, forget, read


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bounds of a spool; the defaults are those that were measured (operations reference, section 5).

    Attributes:
        batch: Most rows sent at once.
        gather_s: Pause after a batch that was not full, for the next to hold more; far below the 5 s of promise P2.
        min_pause_s, max_pause_s: Pause after the first and after many failures.
        save_timeout_s: Longest wait for the store, above the store's own deadline.
        patience_s: How long a row waits for its parent; a conversation's row normally precedes its messages.
        warn_bytes: Size that is reported.
        refuse_bytes: Size from which no new sessions should be accepted; records still are.
        reserve_bytes: Space kept to give back to a full disk.
        reserve_retry_s: How often a full disk is asked whether it has room for the reserve again.
        max_waiting: Most records in memory on their way to the disk; a second of 10,000 speakers.
        keep_dead_s: How long rows that were set aside stay in the file for the operator.
    """

    batch: int = 50
    gather_s: float = 1.0
    min_pause_s: float = 0.01
    max_pause_s: float = 30.0
    save_timeout_s: float = 30.0
    patience_s: float = 300.0
    warn_bytes: int = 64 * 2**20
    refuse_bytes: int = 256 * 2**20
    reserve_bytes: int = 8 * 2**20
    reserve_retry_s: float = 30.0
    max_waiting: int = 10_000
    keep_dead_s: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step did, and when the next is due.

    Attributes:
        stored, died: Rows that left the queue.
        seen: What was read from the file before; None when it failed.
        pause_s: Seconds until the next step; None: when something new is put.
        new_rows_end_it: Whether something new ends the pause early.
        gathers: Whether the pause is for more rows to come together, so that whoever waits for the store ends it.
    """

    stored: int = 0
    died: int = 0
    seen: Fetched | None = None
    pause_s: float | None = 0.0
    new_rows_end_it: bool = False
    gathers: bool = False


@dataclass(slots=True)
class _Orphan:
    """A conversation whose parent is missing: since when, the present pause, and when it is tried again."""

    since: float
    pause_s: float
    retry_at: float


class Drainer:
    """Sends the rows of one spool file to one store; `step` is called again and again by one task."""

    def __init__(self, file: SpoolFile, store: Store, limits: SpoolLimits, report: Report) -> None:
        self._file = file
        self._store = store
        self._limits = limits
        self._report = report
        self._size = limits.batch
        self._failures = 0
        self._orphans: dict[str, _Orphan] = {}
        self._dice = random.SystemRandom()

    def hurry(self) -> None:
        """Begin the pauses anew from the shortest, as at the end of the process."""
        self._failures = 0
        for orphan in self._orphans.values():
            orphan.retry_at = 0.0

    async def step(self) -> Outcome:
        """Send the next batch; never raises for what the store or the disk did."""
        now = time.monotonic()
        held = [conversation for conversation, orphan in self._orphans.items() if orphan.retry_at > now]
        try:
            fetched = await self._file.submit(fetch(self._size, held))
            if not fetched.rows:
                return self._idle(fetched, now)
            return await self._send(fetched)
        except SpoolError:  # reported by the file; the rows are there still, or will be stored twice, which is harmless
            return Outcome(pause_s=self._next_pause())

    async def _send(self, fetched: Fetched) -> Outcome:
        rows = fetched.rows
        records: list[Record] = []
        for row in rows:
            record = read(row)
            if record is None:
                return await self._bury(row, "unreadable", fetched)
            records.append(record)
        try:
            async with asyncio.timeout(self._limits.save_timeout_s):
                await self._store.save(records)
        except StoreRejected as error:
            return await self._rejected(rows, error, fetched)
        except (StoreError, TimeoutError) as error:
            return self._unavailable(rows, error, fetched)
        if self._failures:
            self._report("store_back", {"attempts": self._failures})
        self._failures = 0
        is_full, self._size = len(rows) >= self._size, min(self._limits.batch, self._size * 2)
        for row in rows:
            self._orphans.pop(row.conversation_id, None)
        await self._file.submit(forget([row.seq for row in rows]))
        return Outcome(len(rows), seen=fetched, pause_s=0.0 if is_full else self._limits.gather_s, gathers=not is_full)

    def _unavailable(self, rows: Sequence[Waiting], error: Exception, seen: Fetched) -> Outcome:
        self._size = max(1, len(rows) // 2)
        pause_s = self._next_pause()
        if self._failures == 1:
            self._report("store_unavailable", {"reason": str(error) or type(error).__name__})
        return Outcome(seen=seen, pause_s=pause_s)

    async def _rejected(self, rows: Sequence[Waiting], error: StoreRejected, seen: Fetched) -> Outcome:
        if len(rows) > 1:
            self._size = len(rows) // 2
            return Outcome(seen=seen)
        (row,) = rows
        if not isinstance(error, ParentMissing):
            return await self._bury(row, str(error), seen)
        now = time.monotonic()
        orphan = self._orphans.setdefault(row.conversation_id, _Orphan(now, 1.0, now))
        if now - orphan.since >= self._limits.patience_s:
            return await self._bury(row, str(error), seen)
        orphan.retry_at = now + orphan.pause_s
        orphan.pause_s = min(orphan.pause_s * 2, self._limits.max_pause_s)
        self._size = self._limits.batch
        return Outcome(seen=seen)

    async def _bury(self, row: Waiting, reason: str, seen: Fetched) -> Outcome:
        """Set a row aside: it stays in the file, for the operator, and is not sent again."""
        await self._file.submit(bury(row.seq, reason))
        self._report("record_dead", {"kind": row.kind, "conversation_id": row.conversation_id, "reason": reason})
        self._size = min(self._limits.batch, self._size * 2)
        return Outcome(died=1, seen=seen)

    def _idle(self, seen: Fetched, now: float) -> Outcome:
        """Nothing can be sent: wait for something new, or for the first orphan's next try."""
        if seen.oldest_at is None:
            self._orphans.clear()
            return Outcome(seen=seen, pause_s=None, new_rows_end_it=True)
        due = [orphan.retry_at - now for orphan in self._orphans.values() if orphan.retry_at > now]
        return Outcome(seen=seen, pause_s=min(due, default=0.0), new_rows_end_it=True)

    def _next_pause(self) -> float:
        """Return the next pause: doubled each time, and up to half taken off so that servers do not march in step."""
        longest: float = min(self._limits.max_pause_s, self._limits.min_pause_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return longest * self._dice.uniform(0.5, 1.0)
