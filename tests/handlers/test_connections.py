"""The registry of live sessions, by itself and over sockets."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import AtCapacity, Draining, TooManySessions
from handlers.connections import Connections
from services.directory import Counts, MachineDirectory
from tests.fakes.away_directory import AwayDirectory
from tests.fakes.broken import HeldStore
from tests.fakes.browser import Browser, eventually


class Live:
    """A session that ends when told; misleads in that it never ends by itself."""

    channel = "browser"

    def __init__(self, connections: Connections, conversation_id: str = "c", user_id: str = "u") -> None:
        self.connections, self.conversation_id, self.user_id = connections, conversation_id, user_id
        self.told: list[str] = []
        connections.take_slot()
        connections.add(self)

    def drain_soon(self, left_s: float) -> None:
        """Note."""
        self.told.append(f"soon {left_s:g}")

    def drain_now(self) -> None:
        """Note, and go."""
        self.leave("now")

    def replaced(self) -> None:
        """Note, and go."""
        self.leave("replaced")

    def leave(self, why: str) -> None:
        """Give everything back."""
        self.told.append(why)
        self.connections.remove(self)
        self.connections.release_slot()


def test_slots_are_limited_and_given_back():
    """A refused socket takes no slot; a slot given back can be taken again."""
    connections = Connections(2, 5)
    connections.take_slot()
    connections.take_slot()
    assert connections.is_full
    with pytest.raises(AtCapacity):
        connections.take_slot()
    assert connections.active == 2
    connections.release_slot()
    connections.take_slot()


def test_places_of_a_user_are_limited_and_forgotten():
    """Users are counted apart, a follow-up may exceed by one, and no trace of a user stays."""
    connections = Connections(10, 1)
    connections.reserve_user("a")
    connections.reserve_user("b")
    with pytest.raises(TooManySessions):
        connections.reserve_user("a")
    connections.reserve_user("a", replaces=True)
    with pytest.raises(TooManySessions):
        connections.reserve_user("a", replaces=True)
    for user in ("a", "a", "b"):
        connections.release_user(user)
    assert connections._per_user == {}


def test_refused_users_are_not_remembered():
    """A refusal leaves no entry behind, or refusals could fill the memory."""
    connections = Connections(10, 0)
    for n in range(100):
        with pytest.raises(TooManySessions):
            connections.reserve_user(str(n))
    assert connections._per_user == {}


def test_place_holds_a_slot_and_a_users_place(tmp_path):
    """Both count here and in the directory, and are given back together, once."""
    directory = MachineDirectory(tmp_path, "8080-0", living=list, limits=(2, 1), report=print)
    connections = Connections(2, 1, directory)

    async def scenario():
        place, second = await connections.admit("browser"), await connections.admit("phone")
        with pytest.raises(AtCapacity):
            await connections.check_room()
        await place.count_user("a")
        with pytest.raises(TooManySessions):
            await second.count_user("a")
        assert (await place.note("c")).others == () and await connections.has_room() is False
        assert await connections.totals() == Counts(2, {"browser": 1, "phone": 0})
        second.release()
        with pytest.raises(TooManySessions):
            await connections.check_room("a")
        place.release()
        place.release()
        await connections.check_room("a")
        assert await connections.totals() == Counts(0, {}) and connections.active == 0

    asyncio.run(scenario())
    directory.close()
    assert connections._per_user == {}


def test_other_processes_sessions_leave_no_room(tmp_path):
    """What is taken elsewhere is taken here too, and a refusal here holds nothing."""
    workers = {"8080-0", "8080-1"}
    one, other = (
        MachineDirectory(tmp_path, name, living=lambda name=name: workers - {name}, limits=(2, 1), report=print)
        for name in sorted(workers)
    )
    here, elsewhere = Connections(2, 1, one), Connections(2, 1, other)

    async def scenario():
        taken = [await elsewhere.admit("browser"), await here.admit("browser")]
        await taken[0].count_user("a")
        with pytest.raises(AtCapacity):
            await here.admit("browser")
        with pytest.raises(AtCapacity):
            await here.check_room()
        with pytest.raises(TooManySessions):
            await here.check_room("a")
        with pytest.raises(TooManySessions):
            await taken[1].count_user("a")
        assert here._per_user == {}
        assert here.active == 1 and await here.has_room() is False
        for place in taken:
            place.release()
        assert await here.has_room() is True

    asyncio.run(scenario())
    for directory in (one, other):
        directory.close()
    assert here._per_user == elsewhere._per_user == {}


def test_without_the_directory_a_process_goes_by_its_own_counts():
    """A directory that is away refuses nobody below this process's own limits, and lets nobody over them."""
    connections = Connections(2, 1, AwayDirectory())

    async def scenario():
        places = [await connections.admit("browser"), await connections.admit("browser")]
        with pytest.raises(AtCapacity):
            await connections.admit("browser")
        await places[0].count_user("a")
        with pytest.raises(TooManySessions):
            await places[1].count_user("a")
        assert await places[0].note("c") is None
        assert await connections.totals() == Counts(2, {"browser": 0, "phone": 0})
        for place in places:
            place.release()
        await connections.check_room()
        await connections.check_room("a")

    asyncio.run(scenario())
    assert connections.active == 0 and connections._per_user == {}


def test_client_that_leaves_while_it_is_let_in_holds_nothing():
    """Admission given up half-way gives the slot back, here and in the directory."""

    class Slow(AwayDirectory):
        """A directory behind a slow network."""

        released: list[int] = []  # noqa: RUF012 - one test, one instance

        async def take(self, session, channel):
            await asyncio.sleep(60)

        def release(self, session):
            self.released.append(session)

    async def scenario():
        connections = Connections(1, 1, Slow())
        entering = asyncio.create_task(connections.admit("browser"))
        await asyncio.sleep(0)
        assert connections.active == 1
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert connections.active == 0 and Slow.released == [1]

    asyncio.run(scenario())


def test_conversation_has_one_place():
    """A second session of a conversation ends the first; only the same user can do so beforehand."""
    connections = Connections(10, 5)
    first, other = Live(connections), Live(connections, "other")
    assert connections.replace("c", "somebody else") is False
    assert connections.replace("c", "u") is True and first.told == ["replaced"]
    second = Live(connections)
    third = Live(connections)
    assert second.told == ["replaced"] and third.told == [] and other.told == []
    assert connections.count("browser") == 2 and connections.count("phone") == 0


def test_later_session_is_not_ended_by_an_earlier_one():
    """Of sessions that go on with a conversation at the same moment the one noted last stays."""
    connections = Connections(10, 5)
    first = Live(connections)
    assert connections.replace("c", "u", before=5.0) is False  # not noted yet: it will be, later
    connections.noted(first, 5.0)
    assert connections.replace("c", "u", before=5.0) is False and first.told == []
    assert connections.replace("c", "u", before=5.1) is True and first.told == ["replaced"]
    connections.noted(first, 6.0)
    assert connections._noted_at == {}


def test_drain_ends_as_soon_as_everybody_left():
    """Sessions are told, nobody new is let in, and the drain ends with the last one."""

    async def scenario():
        connections = Connections(10, 5)
        live = Live(connections)
        draining = asyncio.create_task(connections.drain(30.0, asyncio.Event()))
        await asyncio.sleep(0)
        assert live.told == ["soon 30"]
        with pytest.raises(Draining):
            connections.take_slot()
        live.leave("done")
        assert await asyncio.wait_for(draining, 5) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("forced", [True, False])
def test_drain_ends_the_rest(forced):
    """At the deadline, or when a second signal forces, the rest is ended and counted."""

    async def scenario():
        connections = Connections(10, 5)
        live, force = Live(connections), asyncio.Event()
        if forced:
            force.set()
        assert await asyncio.wait_for(connections.drain(30.0 if forced else 0.01, force), 5) == 1
        assert live.told[-1] == "now"

    asyncio.run(scenario())


def test_session_set_up_while_the_drain_begins_is_ended(make):
    """A client that was let in just before the drain gets its 1012 too."""
    gateway = make()
    store = HeldStore(gateway.server.context.store)

    async def drain():
        await store.reached.wait()
        drained = asyncio.create_task(gateway.server.context.connections.drain(0.0, asyncio.Event()))
        await asyncio.sleep(0)
        store.go_on.set()
        return await drained

    gateway.server.context.store = store
    with Browser(gateway) as browser:
        draining = asyncio.run_coroutine_threadsafe(drain(), gateway._loop)
        end = browser.end()
        draining.result(5)
    assert end.code == 1012 and end.error["code"] == "drain"


def test_slot_is_held_until_the_socket_is_gone(make):
    """A client that does not answer the close still counts, and is dropped after five seconds."""
    gateway = make({"MAX_CONNECTIONS": "1", "IDLE_TIMEOUT": "1000"}, settle_s=7.0)
    with Browser(gateway) as silent:
        silent.live()
        eventually(lambda: not list(gateway.server.context.connections), 3.0)
        assert gateway.server.context.connections.active == 1
        with Browser(gateway) as second:
            assert second.end().code == 1013
        assert eventually(lambda: gateway.server.context.connections.active == 0, 7.0)
