"""The registry of live sessions, by itself and over sockets."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import AtCapacity, Draining, TooManySessions
from handlers.connections import Connections
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
