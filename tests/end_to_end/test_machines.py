"""Several machines as one: limits, tickets, resumes and counts over servers that share Redis and a database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.fakes.browser import STRANGER_ID, STRANGERS_AGENT_ID, Browser, Closed, eventually
from tests.fakes.fleet import Fleet
from tests.fakes.redis_server import RedisServer, redis_or_skip

PLACES = 6

Machines = tuple[Fleet, Fleet]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that several machines share."""
    yield from redis_or_skip()


@pytest.fixture(scope="module")
def machines(redis: RedisServer) -> Iterator[Machines]:
    """A machine with two workers and one with one, each with a STATE_DIR of its own."""
    settings = {"REDIS_URL": redis.url, "MAX_CONNECTIONS": str(PLACES), "MAX_SESSIONS_PER_USER": "4"}
    with Fleet(settings) as two, Fleet({**settings, "WORKERS": "1", "DATABASE_URL": f"sqlite:///{two.db}"}) as one:
        yield two, one


@pytest.fixture(autouse=True)
def nobody_left(machines: Machines) -> Iterator[None]:
    """Begin and end each test without a live session."""
    yield
    assert eventually(lambda: [m.health()["activeConnections"] for m in machines] == [0, 0], 10.0)


def come(machine: Fleet, user: str | None, stack: ExitStack) -> int:
    """Open a browser and keep it until the stack ends; return 0 when it talks, else the close code."""
    agent = {} if user is None else {"agent_id": STRANGERS_AGENT_ID}
    browser = Browser(machine, token=machine.token(user), **agent)  # type: ignore[arg-type]
    stack.callback(browser.drop)
    try:
        browser.live()
    except Closed as closed:
        return closed.code
    return 0


def test_limits_hold_over_all_machines(machines: Machines) -> None:
    """A user has as many sessions as allowed over both, all users have the places there are, and health says so."""
    with ExitStack() as stack, ThreadPoolExecutor(PLACES) as threads:
        mine = list(threads.map(lambda n: come(machines[n % 2], None, stack), range(PLACES)))
        assert sorted(mine) == [0] * 4 + [4029] * 2
        assert eventually(lambda: [m.health()["activeConnections"] for m in machines] == [4, 4], 5.0)
        others = list(threads.map(lambda n: come(machines[n % 2], STRANGER_ID, stack), range(PLACES)))
        assert sorted(others) == [0] * 2 + [1013] * 4
        assert [httpx.get(f"{m.health_url}/ready", trust_env=False).status_code for m in machines] == [503, 503]
        assert eventually(lambda: [m.health()["browser"] for m in machines] == [PLACES, PLACES], 5.0)


def test_ticket_of_one_machine_is_good_at_the_other_once(machines: Machines) -> None:
    """Whoever issued a ticket, whoever is asked redeems it, and nobody does so twice."""
    for issuer, door in (machines, machines[::-1]):
        bearer = {"Authorization": f"Bearer {issuer.token()}"}
        ticket = httpx.post(f"{issuer.url}/api/tickets", headers=bearer, trust_env=False).json()["ticket"]
        with Browser(door, token=ticket) as browser:  # type: ignore[arg-type]
            browser.live()
            with Browser(issuer, token=ticket) as again:  # type: ignore[arg-type]
                assert again.end().code == 4001
            browser.leave()


def test_resume_on_the_other_machine_ends_the_older_socket(machines: Machines) -> None:
    """The talk moves there and back: the older socket ends normally, and all it said is known where it goes on."""
    two, one = machines
    old = Browser(two)  # type: ignore[arg-type]
    conversation_id = old.live()
    for door, word in ((one, "marigold"), (two, "juniper")):
        old.type_text(f"remember the word {word}")
        old.answer()
        new = Browser(door, query={"conversation_id": conversation_id})  # type: ignore[arg-type]
        assert new.until("conversation.created") == {**new.events[-1], "resumed": True}
        assert old.end().code == 1000
        old.drop()
        new.until("session.updated")
        assert any(word in (text or "") for text in two.messages(conversation_id))
        old = new
    old.leave()


def test_redis_that_dies_ends_no_talk(machines: Machines, redis: RedisServer) -> None:
    """Talks go on, each machine lets people in by itself, and when Redis is back both count all again."""
    _, one = machines
    with ExitStack() as stack:
        talking = [Browser(machine) for machine in machines]  # type: ignore[arg-type]
        for browser in talking:
            stack.callback(browser.drop)
            browser.live()
        redis.stop()
        assert [come(machine, None, stack) for machine in machines] == [0, 0]
        assert eventually(lambda: one.health()["activeConnections"] == 2, 5.0)
        assert [httpx.get(f"{m.health_url}/ready", trust_env=False).status_code for m in machines] == [200, 200]
        for browser in talking:
            browser.type_text("are you there")
            browser.answer()
        redis.start()
        assert eventually(lambda: [m.health()["activeConnections"] for m in machines] == [4, 4], 20.0)
        for machine in machines:
            assert "directory_failing" in machine.log_text() and "directory_back" in machine.log_text()
            assert redis.url not in machine.log_text()
