"""The spool against a real SQL store that fails as scripted, kills of the process, and full and broken disks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.records import MAX_CONTENT_CHARS, ConversationProgress, ConversationRow, MessageRow, Record
from services.spool import Spool, SpoolClosed, SpoolFull, SpoolLimits, SpoolLocked, message_id
from services.sql_store import SqlStore
from services.store import StoreRejected, StoreUnavailable

REPOSITORY = Path(__file__).parent.parent.parent
START = "2026-11-20T12:00:00.000000+00:00"

QUICK = SpoolLimits(min_pause_s=0.001, max_pause_s=0.02, save_timeout_s=5, patience_s=60, reserve_bytes=2**16)
"""Limits with short pauses, so that tests of retries take milliseconds."""


class FlakyStore(SqlStore):
    """A real store whose next calls of `save` fail as `script` says; after the script it works.

    Entries: "away" fails before anything is stored, "lost" stores and then fails as if the reply were lost, "ok".
    `refuses` marks records the store rejects whenever they are in a batch. It misleads in that failures are instant.
    """

    script: list[str]
    refuses: Callable[[Record], bool]
    batches: list[list[Record]]

    @classmethod
    async def made(cls, folder: Path, script: Sequence[str] = ()) -> FlakyStore:
        store = cls.open(f"sqlite:///{folder}/store.db")
        assert isinstance(store, FlakyStore)
        store.script, store.refuses, store.batches = list(script), lambda _record: False, []
        await store.create_schema()
        return store

    async def save(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))
        step = self.script.pop(0) if self.script else "ok"
        if step == "away":
            raise StoreUnavailable("scripted")
        if any(self.refuses(record) for record in records):
            raise StoreRejected("scripted")
        await super().save(records)
        if step == "lost":
            raise StoreUnavailable("scripted: the reply was lost")

    async def conversation_of_new_user(self) -> ConversationRow:
        user, agent = str(uuid4()), str(uuid4())
        await self.put_agent({"id": agent, "user_id": user})
        return ConversationRow(str(uuid4()), user, agent, "browser", START)


class Reports:
    """Collects what a spool reports."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, object]]] = []

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def message(of: ConversationRow, position: int, content: str = "Hello.") -> MessageRow:
    item_id = f"item_{position}"
    return MessageRow(
        message_id(of.id, item_id),
        of.id,
        of.user_id,
        item_id,
        position,
        "user",
        content,
        "complete",
        None,
        None,
        {},
        START,
    )


def progress(of: ConversationRow, turns: int) -> ConversationProgress:
    at = f"2026-11-20T12:00:{turns:02}.000000+00:00"
    return ConversationProgress(of.id, of.user_id, at, turns, {"total_tokens": turns}, turns / 100)


@contextlib.asynccontextmanager
async def draining(spool: Spool, store: SqlStore) -> AsyncIterator[asyncio.Task[None]]:
    """Run the drainer; close the spool at the end and make sure the drainer returned."""
    task = asyncio.create_task(spool.run(store), name="drainer")
    try:
        yield task
    finally:
        await spool.close(0)
        await task
        await store.close()


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the spool's counts have no event
            await asyncio.sleep(0.005)


def files(folder: Path, name: str) -> list[Path]:
    """Return a spool's file and what belongs to it."""
    return sorted(folder.glob(f"{name}*"))


async def contents(store: SqlStore, of: ConversationRow) -> list[str]:
    return [turn.content for turn in await store.history(of.id, of.user_id, limit=10_000)]


def test_acknowledged_record_is_on_disk(tmp_path: Path) -> None:
    """When put returns, another connection to the file sees the record."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "phone", START, call_sid="CA1")
        await spool.put(of)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.spool")) as reader:
            (columns,) = reader.execute("select columns from records").fetchone()
        assert json.loads(columns)["call_sid"] == "CA1"
        assert spool.stats().pending == 1
        await spool.close(0)

    asyncio.run(run())


def test_records_reach_the_store_in_order(tmp_path: Path) -> None:
    """What was put is in the store once flushed says so, and nothing is left in the spool."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool")
        of = await store.conversation_of_new_user()
        async with draining(spool, store):
            waiting = [spool.put_nowait(record) for record in [of, *(message(of, n, f"{n}") for n in range(120))]]
            waiting.append(spool.put_nowait(progress(of, 50)))
            await asyncio.gather(*waiting)
            assert await spool.flushed(10)
            assert await contents(store, of) == [f"{n}" for n in range(120)]
            found = await store.conversation(of.id, of.user_id)
            assert found is not None
            assert found.turn_count == 50
            await until(lambda: spool.stats().pending == 0)
            assert max(map(len, store.batches)) <= 50

    asyncio.run(run())


def test_waiting_callers_share_commits(tmp_path: Path) -> None:
    """A thousand callers at once are acknowledged with far fewer commits than records."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START)
        commits = 0
        inner = spool._file._try

        def counted(*arguments: Any) -> Exception | None:
            nonlocal commits
            commits += 1
            return inner(*arguments)

        spool._file._try = counted  # type: ignore[method-assign]
        await asyncio.gather(*(spool.put(message(of, n)) for n in range(1000)))
        assert spool.stats().pending == 1000
        assert commits <= 50
        await spool.close(0)

    asyncio.run(run())


def test_event_loop_is_free_while_the_disk_works(tmp_path: Path) -> None:
    """A commit that takes long holds up nothing but its own acknowledgement."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        slow = spool._file.submit(lambda _connection: time.sleep(0.3))
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert ticks > 20
        await spool.close(0)

    asyncio.run(run())


def test_outage_of_the_store_loses_nothing(tmp_path: Path) -> None:
    """Failures before and after the commit are retried until the store has every record once; both ends are told."""

    async def run() -> None:
        reports = Reports()
        script = ["away", "away", "lost", "ok", "lost", "away", "lost"]
        store = await FlakyStore.made(tmp_path, script)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK, report=reports)
        of = await store.conversation_of_new_user()
        async with draining(spool, store):
            for record in [of, *(message(of, n, f"{n}") for n in range(60))]:
                await spool.put(record)
            assert await spool.flushed(10)
            assert await contents(store, of) == [f"{n}" for n in range(60)]
            assert not store.script
        assert reports.names().count("store_unavailable") == reports.names().count("store_back") >= 1

    asyncio.run(run())


def test_store_that_hangs_is_given_up_and_asked_again(tmp_path: Path) -> None:
    """A save that never returns ends at the deadline and the batch is sent again."""

    class Hanging(FlakyStore):
        async def save(self, records: Sequence[Record]) -> None:
            if not self.batches:
                self.batches.append(list(records))
                await asyncio.Event().wait()
            await super().save(records)

    async def run() -> None:
        store = await Hanging.made(tmp_path)
        limits = SpoolLimits(min_pause_s=0.001, save_timeout_s=0.05)
        spool = await Spool.open(tmp_path / "a.spool", limits=limits)
        of = await store.conversation_of_new_user()
        async with draining(spool, store):
            await spool.put(of)
            assert await spool.flushed(10)
            assert len(store.batches) == 2

    asyncio.run(run())


def test_poison_rows_are_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Rows the store can never take are found by halving, reported without their words, and stay in the file."""

    async def run() -> None:
        reports = Reports()
        store = await FlakyStore.made(tmp_path)
        store.refuses = lambda record: isinstance(record, MessageRow) and record.content.startswith("poison")
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK, report=reports)
        of = await store.conversation_of_new_user()
        await spool.put(of)
        for n in range(100):
            await spool.put(message(of, n, "poison" if n in {13, 14, 77} else f"{n}"))
        async with draining(spool, store):
            assert await spool.flushed(10)
            assert await contents(store, of) == [f"{n}" for n in range(100) if n not in {13, 14, 77}]
            await until(lambda: spool.stats().pending == 0)
            assert spool.stats().dead == 3
        dead = [fields for event, fields in reports.events if event == "record_dead"]
        assert [fields["kind"] for fields in dead] == ["message"] * 3
        assert "poison" not in str(reports.events)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        assert (spool.stats().dead, spool.stats().pending) == (3, 0)
        await spool.close(0)

    asyncio.run(run())


def test_row_of_an_unknown_kind_is_set_aside(tmp_path: Path) -> None:
    """What another version of the program left, and this one cannot read, does not stop the rest."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        of = await store.conversation_of_new_user()
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        await spool.put(of)
        await spool.put(message(of, 0))
        await spool.close(0)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.spool")) as file, file:
            file.execute(
                "insert into records (conversation_id, kind, columns, queued_at) values ('x', 'song', '{}', 0)"
            )
            file.execute("update records set seq = -seq where kind = 'song'")
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        async with draining(spool, store):
            assert await spool.flushed(10)
            assert len(await contents(store, of)) == 1
            await until(lambda: spool.stats().dead == 1)

    asyncio.run(run())


def test_dead_rows_are_forgotten_after_their_time(tmp_path: Path) -> None:
    """What was set aside does not hold personal words for ever."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        store.refuses = lambda _record: True
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        async with draining(spool, store):
            await spool.put(await store.conversation_of_new_user())
            await until(lambda: spool.stats().dead == 1)
        spool = await Spool.open(tmp_path / "a.spool", limits=SpoolLimits(keep_dead_s=0))
        assert spool.stats().dead == 0
        await spool.close(0)

    asyncio.run(run())


def test_message_waits_for_its_conversation_without_holding_up_others(tmp_path: Path) -> None:
    """An orphan is tried again until its parent is there; other conversations pass it meanwhile."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        early, other = await store.conversation_of_new_user(), await store.conversation_of_new_user()
        async with draining(spool, store):
            await spool.put(message(early, 0, "early 0"))
            await spool.put(message(early, 1, "early 1"))
            await spool.put(other)
            await spool.put(message(other, 0, "other"))
            await until(lambda: spool.stats().pending == 2)
            assert await contents(store, other) == ["other"]
            assert await contents(store, early) == []
            await SqlStore.save(store, [early])
            assert await spool.flushed(10)
            assert await contents(store, early) == ["early 0", "early 1"]

    asyncio.run(run())


def test_orphan_is_dead_when_its_parent_never_comes(tmp_path: Path) -> None:
    """After the patience a row without a parent is set aside, and so are the later ones of its conversation."""

    async def run() -> None:
        reports = Reports()
        limits = SpoolLimits(min_pause_s=0.001, patience_s=0.0, reserve_bytes=2**16)
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool", limits=limits, report=reports)
        lost, other = await store.conversation_of_new_user(), await store.conversation_of_new_user()
        async with draining(spool, store):
            for record in (message(lost, 0), other, message(lost, 1), message(other, 0)):
                await spool.put(record)
            assert await spool.flushed(10)
            assert len(await contents(store, other)) == 1
            await until(lambda: spool.stats().dead == 2)
        assert reports.names() == ["record_dead"] * 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("poison", "stored"),
    [
        ("a\x00b", "ab"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("\udfff", "?"),
        ("x" * (MAX_CONTENT_CHARS + 5), "x" * MAX_CONTENT_CHARS),
        ("🎧 ü \x1b[31m", "🎧 ü \x1b[31m"),
    ],
    ids=["nul", "high surrogate", "low surrogate", "too long", "harmless"],
)
def test_text_no_store_takes_is_cleaned(tmp_path: Path, poison: str, stored: str) -> None:
    """Characters that PostgreSQL, SQLite or UTF-8 refuse never reach the file, in text or in metadata."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        of = await store.conversation_of_new_user()
        async with draining(spool, store):
            row = message(of, 0, poison)
            row.metadata.update({"name": poison, "list": [poison], poison[:20]: 1, "nan": float("nan"), "raw": b"\0"})
            await spool.put(of)
            await spool.put(row)
            assert await spool.flushed(10)
            (turn,) = await store.history(of.id, of.user_id)
            assert turn.content == turn.metadata["name"] == turn.metadata["list"][0] == stored
            assert (turn.metadata["nan"], turn.metadata["raw"]) == (None, None)
            assert spool.stats().dead == 0

    asyncio.run(run())


def test_bottomless_metadata_is_cut(tmp_path: Path) -> None:
    """An object nested a thousand deep is stored down to the limit and breaks nothing."""

    async def run() -> None:
        deep: dict[str, Any] = {}
        for _ in range(1000):
            deep = {"in": deep}
        spool = await Spool.open(tmp_path / "a.spool")
        row = message(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START), 0)
        row.metadata.update(deep)
        await spool.put(row)
        await spool.close(0)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.spool")) as reader:
            (columns,) = reader.execute("select columns from records").fetchone()
        assert 20 < columns.count('"in"') < 40

    asyncio.run(run())


def test_what_is_left_is_sent_by_the_next_process(tmp_path: Path) -> None:
    """Rows put before a close without a store are the first to be sent after the next start."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        of = await store.conversation_of_new_user()
        spool = await Spool.open(tmp_path / "a.spool")
        await spool.put(of)
        await spool.put(message(of, 0, "before"))
        await spool.close(0)
        spool = await Spool.open(tmp_path / "a.spool")
        assert spool.stats().pending == 2
        await spool.put(message(of, 1, "after"))
        async with draining(spool, store):
            assert await spool.flushed(10)
            assert await contents(store, of) == ["before", "after"]

    asyncio.run(run())


def test_close_drains_for_a_while_and_refuses_new_records(tmp_path: Path) -> None:
    """Closing sends what waits, cutting a long pause short, then refuses records and leaves no file behind."""

    async def run() -> None:
        limits = SpoolLimits(min_pause_s=60, max_pause_s=60)
        store = await FlakyStore.made(tmp_path, ["away"])
        spool = await Spool.open(tmp_path / "a.spool", limits=limits)
        of = await store.conversation_of_new_user()
        task = asyncio.create_task(spool.run(store), name="drainer")
        await spool.put(of)
        await until(lambda: len(store.batches) == 1)
        await spool.close(10)
        await asyncio.wait_for(task, 5)
        assert await store.conversation(of.id, of.user_id) is not None
        with pytest.raises(SpoolClosed):
            await spool.put(of)
        assert not spool.accepting_sessions
        assert files(tmp_path, "a.spool") == []
        await spool.close(10)
        await store.close()

    asyncio.run(run())


def test_close_gives_up_after_its_time_and_keeps_the_rest(tmp_path: Path) -> None:
    """With the store away, closing takes no longer than it may, and the rows stay on disk."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path, ["away"] * 10_000)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        task = asyncio.create_task(spool.run(store), name="drainer")
        await spool.put(await store.conversation_of_new_user())
        begin = time.monotonic()
        await spool.close(0.2)
        assert time.monotonic() - begin < 3
        await asyncio.wait_for(task, 5)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        assert spool.stats().pending == 1
        await spool.close(0)
        await store.close()

    asyncio.run(run())


def test_flushed_says_no_when_time_is_up(tmp_path: Path) -> None:
    """With nobody draining, flushed is False after its time; with nothing waiting it is True at once."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        assert await spool.flushed(5)
        await spool.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        assert not await spool.flushed(0.05)
        await spool.close(0)

    asyncio.run(run())


def test_cancelled_drainer_can_be_started_again(tmp_path: Path) -> None:
    """Cancelling the task ends the drainer as any other task, and a new one goes on."""

    async def run() -> None:
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool", limits=QUICK)
        task = asyncio.create_task(spool.run(store), name="drainer")
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await spool.run(store)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with draining(spool, store):
            await spool.put(await store.conversation_of_new_user())
            assert await spool.flushed(10)

    asyncio.run(run())


def test_cancelled_caller_does_not_take_its_record_back(tmp_path: Path) -> None:
    """A put that is cancelled while it waits may still be stored, and the counts stay right."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START)
        putting = asyncio.create_task(spool.put(of), name="put")
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await until(lambda: spool.stats().pending == 1)
        await spool.close(0)

    asyncio.run(run())


def test_second_process_cannot_open_the_file(tmp_path: Path) -> None:
    """A spool file has one owner at a time."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        with pytest.raises(SpoolLocked):
            await Spool.open(tmp_path / "a.spool")
        await spool.close(0)
        spool = await Spool.open(tmp_path / "a.spool")
        await spool.close(0)

    asyncio.run(run())


def test_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Transcripts on disk can be read by the server's user alone."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        await spool.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        for path in files(tmp_path, "a.spool"):
            if path.suffix != ".reserve":  # holds nothing
                assert path.stat().st_mode & 0o077 == 0, path.name
        await spool.close(0)

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["no database", "broken page"])
def test_corrupt_file_is_moved_aside(tmp_path: Path, damage: str) -> None:
    """A file that is broken is kept under another name, told, and a fresh one takes its place."""

    async def fill() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START)
        await asyncio.gather(*(spool.put(message(of, n, "words " * 100)) for n in range(50)))
        await spool.close(0)

    async def run() -> None:
        reports = Reports()
        spool = await Spool.open(tmp_path / "a.spool", report=reports)
        assert spool.stats().pending == 0
        await spool.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        assert spool.stats().pending == 1
        ((event, fields),) = reports.events
        assert event == "spool_corrupt"
        assert (tmp_path / str(fields["file"])).exists()
        await spool.close(0)

    path = tmp_path / "a.spool"
    if damage == "no database":
        path.write_bytes(b"this is no database" * 1000)
    else:
        asyncio.run(fill())
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(8192))
    asyncio.run(run())


def test_leftovers_of_other_processes_are_adopted(tmp_path: Path) -> None:
    """Files nobody holds are emptied into ours and removed; a file in use and a foreign database stay."""

    async def run() -> None:
        reports = Reports()
        store = await FlakyStore.made(tmp_path)
        of = await store.conversation_of_new_user()
        gone = await Spool.open(tmp_path / "gone.spool")
        await gone.put(of)
        for n in range(1200):
            gone.put_nowait(message(of, n, f"{n}"))
        await gone.close(0)
        alive = await Spool.open(tmp_path / "alive.spool")
        await alive.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        spool = await Spool.open(tmp_path / "own.spool", limits=QUICK, report=reports)
        async with draining(spool, store):
            assert await spool.adopt(tmp_path) == 1201
            assert await spool.flushed(10)
            assert await contents(store, of) == [f"{n}" for n in range(1200)]
            await until(lambda: spool.stats().pending == 0)
            assert await spool.adopt(tmp_path) == 0
        assert files(tmp_path, "gone.spool") == []
        assert (tmp_path / "store.db").exists()
        assert alive.stats().pending == 1
        await alive.close(0)
        assert (tmp_path / "alive.spool").exists()
        assert reports.events == [("spool_adopted", {"file": "gone.spool", "records": 1201, "dead": 0})]

    asyncio.run(run())


def test_only_named_leftovers_are_adopted(tmp_path: Path) -> None:
    """Files without a process are found, and those that have an owner to come can be left to it."""

    async def run() -> None:
        for name in ("gone", "comes-back"):
            left = await Spool.open(tmp_path / f"{name}.spool")
            await left.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
            await left.close(0)
        alive = await Spool.open(tmp_path / "alive.spool")
        await alive.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        spool = await Spool.open(tmp_path / "own.spool")
        assert await spool.ownerless(tmp_path) == {"gone.spool", "comes-back.spool"}
        assert await spool.adopt(tmp_path, {"gone.spool", "alive.spool"}) == 1
        assert await spool.ownerless(tmp_path) == {"comes-back.spool"}
        await alive.close(0)
        await spool.close(0)

    asyncio.run(run())


def test_owner_waits_for_who_is_about_to_let_go(tmp_path: Path) -> None:
    """A file that is locked for a moment is opened when it is free; one that stays locked is refused after the wait."""

    async def run() -> None:
        first = await Spool.open(tmp_path / "a.spool")
        second = asyncio.create_task(Spool.open(tmp_path / "a.spool", wait_s=10.0))
        await asyncio.sleep(0.1)
        assert not second.done()
        await first.close(0)
        opened = await second
        with pytest.raises(SpoolLocked):
            await Spool.open(tmp_path / "a.spool", wait_s=0.1)
        await opened.close(0)

    asyncio.run(run())


def test_large_spool_is_told_and_then_refuses_sessions(tmp_path: Path) -> None:
    """Beyond the first limit operators are told once, beyond the second no new session comes; messages still do."""

    async def run() -> None:
        reports = Reports()
        limits = SpoolLimits(warn_bytes=100_000, refuse_bytes=300_000, reserve_bytes=2**16)
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(tmp_path / "a.spool", limits=limits, report=reports)
        of = await store.conversation_of_new_user()
        await spool.put(of)
        assert spool.accepting_sessions
        for n in range(40):
            await spool.put(message(of, n, "x" * 10_000))
        assert reports.names() == ["spool_large"]
        assert not spool.accepting_sessions
        assert spool.stats().bytes > 300_000
        async with draining(spool, store):
            assert await spool.flushed(10)
            await until(lambda: spool.accepting_sessions)

    asyncio.run(run())


def test_age_of_the_oldest_record_is_known(tmp_path: Path) -> None:
    """The age counts from the oldest waiting record, across a restart, and is 0 when none waits."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        assert spool.stats().oldest_s == 0
        await spool.put(ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START))
        await spool.close(0)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.spool")) as file, file:
            file.execute("update records set queued_at = queued_at - 100")
        spool = await Spool.open(tmp_path / "a.spool")
        assert 100 <= spool.stats().oldest_s < 160
        await spool.close(0)

    asyncio.run(run())


def test_queue_to_the_disk_is_bounded(tmp_path: Path) -> None:
    """When the disk stands still, records beyond the bound are refused at once instead of filling the memory."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool", limits=SpoolLimits(max_waiting=10))
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START)
        blocked = spool._file.submit(lambda _connection: time.sleep(0.2))
        results = await asyncio.gather(*(spool.put(message(of, n)) for n in range(30)), return_exceptions=True)
        await blocked
        assert sum(isinstance(result, SpoolFull) for result in results) >= 19
        await spool.close(0)

    asyncio.run(run())


def test_writes_of_a_quiet_server_are_prompt_and_those_of_a_busy_one_are_few(tmp_path: Path) -> None:
    """A turn is on disk within moments while few talk; where many do, ten writes a second are enough for all."""

    async def run() -> None:
        spool = await Spool.open(tmp_path / "a.spool")
        of = ConversationRow(str(uuid4()), str(uuid4()), str(uuid4()), "browser", START)
        submit, writes = spool._file.submit, 0

        def counted(job: Any) -> Any:
            nonlocal writes
            writes += 1
            return submit(job)

        spool._file.submit = counted  # type: ignore[method-assign]
        began = time.monotonic()
        await spool.put_nowait(of)
        assert time.monotonic() - began < 0.1  # 0.02 s, and a commit on a busy machine
        began, number = time.monotonic(), 0
        while time.monotonic() - began < 1.5:
            spool.put_nowait(message(of, number))
            number += 1
            await asyncio.sleep(0.005)
        assert 8 <= writes <= 26  # 15 of 1.5 s, 5 of a burst, and a margin for timers
        await spool.put_nowait(message(of, number))
        assert spool.stats().pending == number + 2
        await spool.close(0)

    asyncio.run(run())


def test_message_ids_are_the_same_everywhere() -> None:
    """The id of an item depends on conversation and item alone."""
    conversation = "6f1c7c1e-6d0a-4d0f-9d36-0b8f6d5f2a11"
    assert message_id(conversation, "item_1") == message_id(conversation.upper(), "item_1")
    assert message_id(conversation, "item_1") != message_id(conversation, "item_2")
    assert message_id(conversation, "item_\ud800")
    with pytest.raises(ValueError, match="UUID"):
        message_id("not-a-uuid", "item_1")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_gives_the_reserve_to_the_messages(small_disk: Path, tmp_path: Path) -> None:
    """On a full disk the reserve is freed and messages go on; new sessions are refused; beyond it put says so."""

    async def run() -> None:
        reports = Reports()
        limits = SpoolLimits(reserve_bytes=400_000, reserve_retry_s=0.05)
        store = await FlakyStore.made(tmp_path)
        spool = await Spool.open(small_disk / "a.spool", limits=limits, report=reports)
        of = await store.conversation_of_new_user()
        await spool.put(of)
        (small_disk / "filler").write_bytes(bytes(1_300_000))
        taken = 0
        while spool.accepting_sessions and taken < 500:
            await spool.put(message(of, taken, "x" * 2000))
            taken += 1
        assert "spool_reserve_freed" in reports.names()
        with pytest.raises(SpoolFull):
            while taken < 1000:
                await spool.put(message(of, taken, "x" * 2000))
                taken += 1
        (small_disk / "filler").unlink()
        await spool.put(message(of, taken, "x" * 2000))
        async with draining(spool, store):
            assert await spool.flushed(20)
            assert len(await contents(store, of)) == taken + 1
            await until(lambda: spool.accepting_sessions)

    asyncio.run(run())


CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.services.test_spool import killed_child
asyncio.run(killed_child(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
"""


async def killed_child(folder: Path, first: int, conversations: list[str]) -> None:
    """Put and drain without end, from position `first` on, noting what is acknowledged; the parent kills it."""
    rows = [ConversationRow(*conversation.split(","), "browser", START) for conversation in conversations]
    dice = random.Random(first)  # noqa: S311
    store = await FlakyStore.made(folder, dice.choices(["away", "lost", "ok", "ok"], k=100_000))
    store.refuses = lambda record: isinstance(record, MessageRow) and record.content == "poison"
    spool = await Spool.open(folder / "child.spool", limits=QUICK)
    drainer = asyncio.create_task(spool.run(store), name="drainer")

    async def talk(of: ConversationRow) -> None:
        await spool.put(of)
        with (folder / f"{of.id}.acked").open("a", buffering=1) as acked:
            for position in range(first, first + POSITIONS):
                await spool.put(message(of, position, "poison" if position % 97 == 96 else f"{position}"))
                acked.write(f"{position}\n")

    await asyncio.gather(drainer, *map(talk, rows))


POSITIONS = 100_000
"""Positions of one child; more than it has time for."""


def test_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """After ten SIGKILLs with a flaky store, every acknowledged record is stored once and in order."""

    async def prepare() -> list[ConversationRow]:
        store = await FlakyStore.made(tmp_path)
        rows = [await store.conversation_of_new_user() for _ in range(5)]
        await store.close()
        return rows

    async def finish() -> None:
        store = await FlakyStore.made(tmp_path)
        store.refuses = lambda record: isinstance(record, MessageRow) and record.content == "poison"
        spool = await Spool.open(tmp_path / "child.spool", limits=QUICK)
        async with draining(spool, store):
            assert await spool.flushed(30)

    rows = asyncio.run(prepare())
    arguments = [",".join((row.id, row.user_id, row.agent_id)) for row in rows]
    dice = random.Random(20261120)  # noqa: S311
    for number in range(10):
        command = [sys.executable, "-c", CHILD, str(REPOSITORY), str(tmp_path), str(number * POSITIONS), *arguments]
        child = subprocess.Popen(command)
        size_before = _acked_bytes(tmp_path)
        deadline = time.monotonic() + 20
        while _acked_bytes(tmp_path) == size_before and time.monotonic() < deadline:
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.3))  # the moment of the kill is what varies
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    asyncio.run(finish())
    total = 0
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as database:
        for row in rows:
            acked = [int(line) for line in (tmp_path / f"{row.id}.acked").read_text().splitlines() if line.isdigit()]
            query = "select position, content from messages where conversation_id = ? order by rowid"
            stored = database.execute(query, (row.id,)).fetchall()
            positions = [position for position, _ in stored]
            assert positions == sorted(set(positions))
            assert {position for position in acked if position % 97 != 96} <= set(positions)
            assert all(content == str(position) for position, content in stored)
            total += len(acked)
    assert total >= 10


def _acked_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.acked"))
