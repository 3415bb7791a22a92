"""The live-session directory of several machines, in a real Redis that also breaks, hangs and begins anew."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from services.directory import Counts, DirectoryUnavailable, MachineDirectory
from services.directory import redis as directory_module
from services.directory.redis import RedisDirectory
from services.directory.redis_client import try_redis
from tests.fakes.redis_server import RedisServer, redis_or_skip
from tests.fakes.server_process import REPOSITORY, free_port


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    yield from redis_or_skip()


class Machines:
    """Processes of several machines, one of each, with one Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.told: list[tuple[str, str]] = []
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.had: set[str] = set()
        self._folder = folder
        self._opened: list[tuple[RedisDirectory, MachineDirectory]] = []

    async def machine(self, name: str, *, places: int = 3, per_user: int = 2) -> RedisDirectory:
        """Return the directory of a process on a machine of its own."""

        def report(event: str, fields: Mapping[str, Any]) -> None:
            self.told.append((name, event))

        async def answer(question: Mapping[str, Any]) -> bool:
            self.asked.append((name, question))
            return name in self.had

        (self._folder / name).mkdir()
        limits = (places, per_user)
        local = MachineDirectory(self._folder / name, "8080-0", living=list, limits=limits, report=report)
        made = RedisDirectory(self.url, local, limits=limits, report=report)
        self._opened.append((made, local))
        await made.start(answer)
        return made

    def local(self, directory: RedisDirectory) -> MachineDirectory:
        """Return the directory of its machine."""
        return next(local for made, local in self._opened if made is directory)

    async def close(self) -> None:
        """Close what was opened."""
        for made, local in self._opened:
            await made.close()
            local.close()


@pytest.fixture
def run(server: RedisServer, tmp_path: Path) -> Callable[[Callable[[Machines], Awaitable[None]]], None]:
    """Return a function that runs a test with machines and an empty Redis."""

    @asynccontextmanager
    async def machines() -> AsyncIterator[Machines]:
        async with Redis.from_url(server.url) as client:
            await client.flushall()
        made = Machines(tmp_path, server.url)
        try:
            yield made
        finally:
            await made.close()

    async def within_deadline(test: Callable[[Machines], Awaitable[None]]) -> None:
        async with asyncio.timeout(60.0), machines() as made:
            await test(made)

    return lambda test: asyncio.run(within_deadline(test))


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> bool:
    """Return whether the check became true in time."""
    for _ in range(round(within_s / 0.02)):
        if await check():
            return True
        await asyncio.sleep(0.02)
    return False


def test_places_are_counted_over_all_machines(run) -> None:
    """Whoever asks, there are as many places as allowed, and one given back is free for anybody."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        assert [await d.take(1, "browser") for d in (one, other)] == [True, True]
        assert await one.take(2, "phone") and not await one.has_room()
        assert not await other.take(2, "browser")
        assert await machines.local(other).counts() == Counts(1, {"browser": 0})
        one.release(1)
        one.release(1)
        one.release(77)
        assert await one.take(3, "browser")
        assert await one.counts() == await other.counts() == Counts(3, {"browser": 0, "phone": 0})

    run(test)


def test_of_a_crowd_as_many_get_in_as_there_are_places(run) -> None:
    """Two that ask at once never get the same place."""

    async def test(machines: Machines) -> None:
        several = [await machines.machine(name, places=10) for name in ("a", "b", "c")]
        asked = [directory.take(number, "browser") for number in range(10) for directory in several]
        assert sum(await asyncio.gather(*asked)) == 10
        assert (await several[0].counts()).active == 10

    run(test)


def test_users_are_counted_over_all_machines(run) -> None:
    """A user has a number of places; a session that follows an ending one may exceed it by one, others' are theirs."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one", places=9), await machines.machine("other", places=9)
        for directory in (one, other):
            assert await directory.take(1, "browser") and await directory.take_for(1, "anna")
        assert not await other.has_room("anna") and await other.has_room("ben")
        assert await other.take(2, "browser") and not await other.take_for(2, "anna")
        assert await other.take_for(2, "anna", follows=True)
        assert await one.take(2, "browser") and not await one.take_for(2, "anna")
        one.release(2)
        assert (await one.counts()).active == 3
        other.release(1)
        other.release(2)
        assert await other.has_room("anna")

    run(test)


def test_later_note_is_told_of_the_earlier_one(run) -> None:
    """Of two that talk about the same the later learns of the earlier, not the reverse, and strangers of nobody."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one", places=9), await machines.machine("other", places=9)
        noted = []
        for directory, session, user in ((one, 1, "anna"), (one, 2, "ben"), (other, 1, "anna")):
            assert await directory.take(session, "browser") and await directory.take_for(session, user)
            noted.append(await directory.note(session, "c"))
        assert [len(note.others) for note in noted] == [0, 0, 1]
        assert noted[0].at < noted[1].at < noted[2].at
        assert (await one.counts()).talking == {"browser": 3}
        one.release(1)

        async def is_alone() -> bool:
            return (await other.note(1, "c")).others == ()

        assert await eventually(is_alone)
        assert (await one.note(5, "c")).others == ()

    run(test)


def test_ticket_is_good_once_on_any_machine(run, monkeypatch) -> None:
    """It opens one door, not after its time, and the oldest goes when there are too many."""
    monkeypatch.setattr(directory_module, "MAX_TICKETS", 2)

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        await one.put_ticket("key", "anna", 60.0)
        assert [await other.take_ticket("key"), await one.take_ticket("key")] == ["anna", None]
        await one.put_ticket("brief", "anna", 0.01)
        await asyncio.sleep(0.05)
        assert await other.take_ticket("brief") is None
        for key in ("a", "b", "c"):
            await one.put_ticket(key, "anna", 60.0)
        assert [await other.take_ticket(key) for key in "abc"] == [None, "anna", "anna"]

    run(test)


def test_what_a_dead_process_held_is_free(run, monkeypatch, tmp_path: Path) -> None:
    """After a kill -9 its places go to whoever is refused once its lease has ended, and no sooner."""
    monkeypatch.setattr(directory_module, "LEASE_S", 1.5)
    monkeypatch.setattr(directory_module, "BEAT_S", 0.3)

    async def test(machines: Machines) -> None:
        living = await machines.machine("living")
        code = (
            "import asyncio, sys\n"
            "from services.directory import redis, MachineDirectory\n"
            "redis.LEASE_S = 1.5\n"
            "from pathlib import Path\n"
            "async def main(folder, url):\n"
            "    report = lambda event, fields: None\n"
            "    local = MachineDirectory(Path(folder), 'x-0', living=list, limits=(3, 2), report=report)\n"
            "    directory = redis.RedisDirectory(url, local, limits=(3, 2), report=report)\n"
            "    for number in (1, 2):\n"
            "        assert await directory.take(number, 'phone') and await directory.take_for(number, 'anna')\n"
            "        await directory.note(number, 'c')\n"
            "    print('taken', flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main(*sys.argv[1:]))\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path), machines.url]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220
            assert child.stdout is not None
            assert await asyncio.to_thread(child.stdout.readline) == "taken\n"
            assert await living.take(1, "browser") and not await living.take(2, "browser")
            child.kill()

        async def is_free() -> bool:
            return await living.take(2, "browser")

        assert await eventually(is_free)
        assert await living.counts() == Counts(2, {"browser": 0})
        assert await living.has_room("anna")
        assert await living.take_for(2, "anna") and (await living.note(2, "c")).others == ()

    run(test)


def test_redis_that_began_anew_is_told_who_is_there(run, server: RedisServer) -> None:
    """Nobody loses a place: each process tells what it has, with its user and its talk, and what is over stays over."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        for directory, user in ((one, "anna"), (other, "ben")):
            assert await directory.take(1, "browser") and await directory.take_for(1, user)
            await directory.note(1, user)
        assert await one.take(2, "phone")
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        one.release(2)
        assert await one.counts() == Counts(1, {"browser": 1})
        assert await other.has_room() and await other.counts() == Counts(2, {"browser": 2})
        assert await one.take(3, "browser") and not await other.take(2, "browser")
        assert await other.take_for(1, "ben") and await one.take_for(3, "ben")
        assert (await one.note(3, "ben")).others != ()

    run(test)


@pytest.mark.parametrize("trouble", ["gone", "silent"])
def test_while_redis_is_away_each_machine_keeps_its_limits(
    run, server: RedisServer, monkeypatch, trouble: str
) -> None:
    """Nobody waits long or twice, no place is lost, it is told once, and afterwards the limits hold over all again."""
    monkeypatch.setattr(directory_module, "RETRY_S", 1.0)

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        assert await one.take(1, "browser") and await one.take_for(1, "anna")
        await asyncio.to_thread(server.stop if trouble == "gone" else server.freeze)
        began = time.monotonic()
        for directory in (one, other):
            assert await directory.take(2, "phone") and await directory.take_for(2, "anna")
            assert (await directory.note(2, "c")).others == ()
            assert await directory.take(3, "phone")
        assert time.monotonic() - began < 4 * directory_module.ASK_S
        assert not await one.take(4, "phone") and not await one.has_room() and await other.has_room()
        assert await one.counts() == Counts(3, {"browser": 0, "phone": 1})
        await one.put_ticket("key", "anna", 60.0)
        assert await one.take_ticket("key") == "anna"
        began = time.monotonic()
        await one.counts()  # whether Redis was asked again or not, it is left alone from now on
        assert not await one.replace({"conversation_id": "c", "user_id": "anna"}, 30.0)
        assert time.monotonic() - began < 2 * directory_module.ASK_S
        one.release(3)
        assert sorted(machines.told) == [("one", "directory_failing"), ("other", "directory_failing")]
        await asyncio.to_thread(server.start if trouble == "gone" else server.thaw)

        async def is_back() -> bool:
            with_all = (await one.counts()).active == (await other.counts()).active == 4
            return with_all and ("other", "directory_back") in machines.told

        assert await eventually(is_back)
        assert not await other.take(5, "phone")

    try:
        run(test)
    finally:
        if trouble == "gone":
            server.stop()
            server.start()
        else:
            server.thaw()


def test_machine_starts_without_redis(tmp_path: Path) -> None:
    """It counts by itself, and says so when neither Redis nor its own file can be asked."""

    async def test() -> None:
        machines = Machines(tmp_path, f"redis://127.0.0.1:{free_port()}")
        one = await machines.machine("one")
        assert [await one.take(number, "browser") for number in range(4)] == [True, True, True, False]
        local = machines.local(one)
        local._retry_at = float("inf")
        for question in (one.take(9, "browser"), one.has_room(), one.note(1, "c"), one.counts(), one.take_ticket("k")):
            with pytest.raises(DirectoryUnavailable):
                await question
        assert 9 in one._own  # nobody could say no
        await machines.close()

    asyncio.run(test())


def test_who_gives_up_while_asking_holds_nothing(run, server: RedisServer) -> None:
    """A client that goes while its place is asked for leaves none behind."""

    async def test(machines: Machines) -> None:
        one = await machines.machine("one", places=100)
        for number in range(20):
            asking = asyncio.create_task(one.take(number, "browser"))
            await asyncio.sleep(0.0002 * (number % 7))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            one.release(number)

        async def is_empty() -> bool:
            return (await one.counts()).active == 0 and (await machines.local(one).counts()).active == 0

        assert await eventually(is_empty)

    run(test)


def test_other_machines_are_asked_and_answer(run) -> None:
    """Every other process gets the question, one yes is a yes, and garbage on the channel harms nobody."""

    async def test(machines: Machines) -> None:
        several = [await machines.machine(name) for name in ("a", "b", "c")]
        question = {"conversation_id": "talk", "user_id": "anna", "before": 1.5}

        async def all_asked() -> bool:
            machines.asked.clear()
            said = await several[0].replace(question, 5.0)
            return not said and sorted(name for name, _ in machines.asked) == ["b", "c"]

        assert await eventually(all_asked)  # once they all listen
        assert {**machines.asked[0][1], **question} == machines.asked[0][1]
        machines.had = {"c"}
        assert await several[0].replace(question, 5.0)
        async with Redis.from_url(machines.url) as client:
            for garbage in ("no JSON", "[]", "{}", '{"from": "x"}', '{"from": "x", "number": [1]}'):
                await client.publish("voice:replace", garbage)
                await client.publish(f"voice:to:{several[0]._process}", garbage)
        assert await several[0].replace(question, 5.0)
        machines.had = set()
        assert not await several[2].replace(question, 5.0)

    run(test)


def test_machine_that_does_not_answer_is_not_waited_for_long(run) -> None:
    """After the deadline whoever goes on does so."""

    async def test(machines: Machines) -> None:
        one, busy = await machines.machine("one"), await machines.machine("busy")

        async def never(question: Mapping[str, Any]) -> bool:
            machines.asked.append(("busy", question))
            await asyncio.sleep(60.0)
            return True

        for task in busy._tasks[1:]:
            task.cancel()
        busy._tasks.append(asyncio.create_task(busy._messages.listen(never)))

        async def is_asked() -> bool:
            await one.replace({"conversation_id": "talk"}, 0.05)
            return ("busy", "talk") in [(name, asked["conversation_id"]) for name, asked in machines.asked]

        assert await eventually(is_asked)
        began = time.monotonic()
        assert not await one.replace({"conversation_id": "talk"}, 0.5)
        assert 0.4 < time.monotonic() - began < 5.0

    run(test)


def test_session_that_redis_lost_is_told_again(run) -> None:
    """Its user is counted as if nothing had happened."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        assert await one.take(1, "browser")
        async with Redis.from_url(machines.url) as client:
            await client.delete("voice:sessions")
        assert await one.take_for(1, "anna")
        assert await other.counts() == Counts(1, {"browser": 0})
        assert await other.take(1, "browser") and await other.take_for(1, "anna") and not await one.has_room("anna")

    run(test)


def test_address_the_client_does_not_understand_stops_the_start(tmp_path: Path) -> None:
    """It is told at once, without the password."""
    local = MachineDirectory(tmp_path, "8080-0", living=list, limits=(1, 1), report=lambda *_: None)
    with pytest.raises(OSError, match="REDIS_URL") as raised:
        RedisDirectory("redis://:canary@h/0?colour=red", local, limits=(1, 1), report=lambda *_: None)
    assert "canary" not in str(raised.value)
    assert "options" in (asyncio.run(try_redis("redis://h/0?colour=red")) or "")


def test_process_that_leaves_takes_all_it_held_along(run) -> None:
    """Its places are free at once, and nothing of it is left in Redis."""

    async def test(machines: Machines) -> None:
        one, other = await machines.machine("one"), await machines.machine("other")
        assert await one.take(1, "browser") and await one.take_for(1, "anna")
        await one.note(1, "c")
        await one.close()
        assert await other.counts() == Counts(0, {})
        await other.close()
        async with Redis.from_url(machines.url) as client:
            assert await client.keys("voice:*") == []

    run(test)
