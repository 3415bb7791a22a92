"""What a worker does beside its sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

from core.records import ConversationRow
from handlers import upkeep
from services.spool import Spool
from tests.fakes.browser import PLAIN_ID, USER_ID, eventually
from tests.handlers.conftest import rows

START = "2026-11-21T00:00:00+00:00"


async def leave_behind(folder: Path, worker: str) -> str:
    """Leave a spool file as a worker that was killed does; return the conversation in it."""
    conversation_id = str(uuid4())
    spool = await Spool.open(folder / upkeep.spool_name(worker))
    await spool.put(ConversationRow(conversation_id, USER_ID, PLAIN_ID, "browser", START))
    await spool.close(0)
    return conversation_id


def stored(gateway, conversation_id: str) -> bool:
    """Return whether the conversation has reached the database."""
    query = "select id from conversations where id in (?, ?)"
    return bool(rows(gateway, query, conversation_id, conversation_id.replace("-", "")))


def test_spool_of_a_worker_that_died_for_good_is_taken_over(make, monkeypatch):
    """A file that two looks in a row find without a process is brought to the store by a living worker."""
    monkeypatch.setattr(upkeep, "ADOPT_S", 0.2)
    gateway = make()
    conversation_id = asyncio.run(leave_behind(gateway.state_dir, "1-7"))
    assert eventually(lambda: stored(gateway, conversation_id), 5.0)
    assert eventually(lambda: not list(gateway.state_dir.glob("spool-1-7*")), 2.0)
    assert eventually(lambda: "spool_adopted" in gateway.log_text())


def test_spools_of_ones_own_seats_are_left_at_the_start(tmp_path: Path):
    """At the start a worker takes what other servers left, and nothing of siblings that are about to start."""

    async def scenario() -> None:
        for worker in ("8080-1", "8080-2", "9090-0"):
            await leave_behind(tmp_path, worker)
        spool = await Spool.open(tmp_path / upkeep.spool_name("8080-0"))
        await upkeep.adopt_at_start(spool, str(tmp_path), "8080-0", workers=2)
        assert spool.stats().pending == 2
        assert await spool.ownerless(tmp_path) == {"spool-8080-1.spool"}
        await spool.close(0)

    asyncio.run(scenario())
