"""Gateways for the tests of the doors, and what must be true of each when its clients are gone."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from simulator.settings import SimulatorSettings
from tests.fakes.browser import AGENTS, eventually
from tests.fakes.gateway import Gateway

TRACES = re.compile(r"Traceback|Uncaught|never retrieved|never awaited|exception in callback|task was destroyed", re.I)
"""What an exception nobody handled leaves in a log."""

OF_A_SESSION = ("setup-", "open-upstream-", "tool-", "check-token-", "wire-linger")
"""Beginnings of the names of tasks that belong to one connection."""

Make = Callable[..., Gateway]


def leftovers(gateway: Gateway) -> list[str]:
    """Return what a gateway without clients should have given back and has not."""
    connections, left = gateway.server.context.connections, []
    if connections.active or connections._per_user or list(connections):
        left.append(f"places: {connections.active} slots, {dict(connections._per_user)}, {list(connections)}")
    if any(session.open for session in gateway.simulator.sessions):
        left.append("a session is open upstream")

    async def names() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks()]

    left += [f"task {name}" for name in gateway.run(names()) if name.startswith(OF_A_SESSION)]
    return left


def assert_settled(gateway: Gateway, within_s: float, accidents: tuple[str, ...]) -> None:
    """Assert that nothing is left of the clients that went (promise P6: upstream closed within a second)."""
    eventually(lambda: not leftovers(gateway), within_s)
    assert leftovers(gateway) == []
    suspicious = [line for line in gateway.log_text().splitlines() if " ERROR " in line or TRACES.search(line)]
    assert [line for line in suspicious if not any(word in line for word in accidents)] == []


@pytest.fixture
def wire() -> str:
    """Return the receive loop of the gateways; modules that must hold with both override it."""
    return "fast"


@pytest.fixture
def make(recwarn: pytest.WarningsRecorder, wire: str) -> Iterator[Make]:
    """Return a function that starts a gateway; at the end each must be settled and its log free of accidents.

    `accidents`: words of ERROR lines the test provokes.
    """
    with ExitStack() as stack:
        made: list[tuple[Gateway, tuple[str, ...], float]] = []

        def start(
            settings: dict[str, str] | None = None,
            *,
            accidents: tuple[str, ...] = (),
            settle_s: float = 1.0,
            seed: tuple[dict[str, Any], ...] = AGENTS,
            **simulator: Any,
        ) -> Gateway:
            chosen = SimulatorSettings(**{"speed": 0, "think_s": 0.0, "transcription_delay_s": 0.0, **simulator})
            gateway = stack.enter_context(Gateway({"WIRE": wire} | (settings or {}), simulator=chosen, seed=seed))
            made.append((gateway, accidents, settle_s))
            return gateway

        yield start
        for gateway, accidents, settle_s in made:
            assert_settled(gateway, settle_s, accidents)
    assert [str(w.message) for w in recwarn if "never awaited" in str(w.message)] == []


@pytest.fixture
def gateway(make: Make) -> Gateway:
    """Return a gateway with the default settings."""
    return make()


@pytest.fixture(scope="session")
def question() -> bytes:
    """Return a spoken question as PCM16, 24 kHz, mono, with a second of silence after it."""
    with wave.open(str(Path(__file__).parents[1] / "data" / "question.wav")) as recording:
        return recording.readframes(recording.getnframes()) + bytes(48_000)


def rows(gateway: Gateway, query: str, *values: Any) -> list[dict[str, Any]]:
    """Return rows of the gateway's database file."""
    with closing(sqlite3.connect(gateway.db)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query, values)]


@pytest.fixture
def stored() -> Callable[[Gateway, str], dict[str, Any]]:
    """Return a function that gives a conversation's row once it has ended."""

    def ended(gateway: Gateway, conversation_id: str) -> dict[str, Any]:
        query = "select * from conversations where id = ? and end_reason is not null"
        found = eventually(
            lambda: rows(gateway, query, conversation_id) or rows(gateway, query, conversation_id.replace("-", "")), 5.0
        )
        assert found, "the conversation's end was not stored"
        return dict(found[0])

    return ended


@pytest.fixture
def messages() -> Callable[[Gateway, str], list[dict[str, Any]]]:
    """Return a function that gives the messages stored of a conversation, in order."""

    def of(gateway: Gateway, conversation_id: str) -> list[dict[str, Any]]:
        query = "select * from messages where conversation_id in (?, ?) order by position"
        return rows(gateway, query, conversation_id, conversation_id.replace("-", ""))

    return of


@pytest.fixture
def metric() -> Callable[[Gateway, str], float]:
    """Return a function that gives a sample of the metrics, 0 when there is none: `name{label="value"}`."""

    def value(gateway: Gateway, sample: str) -> float:
        for line in gateway.server.context.metrics.render().decode().splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    return value
