"""A session at work: bugs of ours end it and no other, nothing personal is logged, slow readers are told."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from core.commands import Close, Command, OpenUpstream, SendClient, SendUpstream, tell
from core.errors import AGENT_ENDED, CLIENT_LEFT, InternalError
from handlers import relay as relay_module
from handlers.context import Identity
from handlers.outbox import Outbox
from handlers.relay import Relay
from handlers.strict_frames import HIGH_WATER_BYTES
from tests.fakes.browser import AGENTS, PLAIN_ID, TOOLED_ID, USER_ID, Browser, eventually
from tests.fakes.raw_websocket import TEXT, RawWebSocket

TOOLED = next(row for row in AGENTS if row["id"] == TOOLED_ID)


def broken(*_: Any, **__: Any) -> Any:
    """Fail as a bug of ours would, with something personal in the text."""
    raise ZeroDivisionError("canary-of-an-exception-text")


BUGS = [
    ("client", "core.session.BrowserSession.client_received"),
    ("upstream", "core.session.BrowserSession.upstream_received"),
    ("time", "core.session.BrowserSession.time_passed"),
    ("tool", "services.toolbox.Toolbox.run"),
    ("link", "services.upstream.Upstream.open"),
    ("begin", "core.session.BrowserSession.begin"),
    ("setup", "handlers.browser.RealtimeDoor._voice"),
]


@pytest.mark.parametrize(("where", "name"), BUGS)
def test_bug_of_ours_ends_one_session(make, monkeypatch, where, name):
    """Wherever an exception nobody expected comes up: 1011 for that client, everything given back, others talk on."""
    gateway = make({"IDLE_TIMEOUT": "1500"}, accidents=("failed",), settle_s=3.0)
    with Browser(gateway) as other, monkeypatch.context() as patch:
        other.live()
        if where in {"begin", "setup", "link", "upstream"}:
            patch.setattr(name, broken)
            browser = Browser(gateway, agent_id=TOOLED_ID)
        else:
            browser = Browser(gateway, agent_id=TOOLED_ID)
            browser.live()
            if where == "tool":
                patch.setattr(name, broken)
                browser.type_text("what time is it")
            else:
                patch.setattr(name, broken)
                browser.send("input_audio_buffer.clear")
        with browser:
            end = browser.end()
        patch.undo()
        assert (end.code, end.reason) == (1011, "Internal server error")
        assert end.error is not None and end.error["code"] == "internal"
        if where not in {"time"}:
            other.type_text("still here")
            assert "still here" in other.answer()
    log = gateway.log_text()
    assert "ZeroDivisionError" in log and "canary-of-an-exception-text" not in log


def test_bug_in_ending_still_gives_everything_back(make, monkeypatch):
    """When not even ending works, the socket is closed and places and link are given back."""
    gateway = make(accidents=("failed",))
    with Browser(gateway) as browser, monkeypatch.context() as patch:
        browser.live()
        patch.setattr("core.session.BrowserSession.client_received", broken)
        patch.setattr("core.conversation.Conversation.end", broken)
        browser.send("input_audio_buffer.clear")
        assert browser.end().code == 1011
        assert eventually(lambda: gateway.server.context.connections.active == 0)


def test_bug_in_storing_ends_the_session_all_the_same(make, monkeypatch):
    """When the end's own commands cannot be performed, the client is still told and everything given back."""
    gateway = make(accidents=("failed",))
    with Browser(gateway) as browser, monkeypatch.context() as patch:
        browser.live()
        patch.setattr("handlers.context.Context.save", broken)
        browser.type_text("hello")
        assert browser.end().code == 1011
        assert eventually(lambda: gateway.server.context.connections.active == 0)


# ---------------------------------------------------------------------- by itself


class Scripted:
    """A session that answers every fact with the commands it was given; misleads in that it knows no states."""

    def __init__(self) -> None:
        self.conversation: Any = self
        self.commands: list[Command] = []
        self.next_deadline: float | None = None
        self.audio_is_open = False
        self.is_live = False
        self.generation = 1
        self.reconnects = 0
        self.ends: list[str] = []

    def begin(self, now: float) -> list[Command]:
        """Give the commands."""
        return self.commands

    def end(self, ending: Any, now: float, message: str = "") -> list[Command]:
        """Ask for the close, once."""
        self.ends.append(ending.end_reason)
        return [Close(ending, message)] if len(self.ends) == 1 else []

    def client_left(self, ending: Any, now: float) -> list[Command]:
        """End."""
        return self.end(ending, now)

    def __getattr__(self, name: str) -> Any:
        return Nothing()


class Nothing:
    """Stands for figures nobody looks at."""

    def __getattr__(self, name: str) -> Any:
        return {"cost_usd": 0.0, "turn_count": 0, "first_audio_s": None}.get(name, Nothing())


class Kept:
    """A sink that keeps what it is given and is full from 64 KiB on."""

    def __init__(self, written: list[bytes]) -> None:
        self.written = written

    def on_room(self) -> None:
        """Stand for what the outbox sets."""

    @property
    def is_full(self) -> bool:
        """True when enough is kept."""
        return sum(len(frame) for frame in self.written) >= HIGH_WATER_BYTES

    def send_text(self, frame: bytes) -> None:
        """Keep a frame."""
        self.written.append(frame)


def relay_of(gateway: Any, session: Scripted, written: list[bytes], closed: list[tuple[int, int]]) -> Relay:
    """Return a relay over a scripted session, whose socket takes frames only when the loop runs on."""
    loop = asyncio.get_running_loop()

    outbox = Outbox(Kept(written), loop.time, on_dropped=lambda n: None, on_stuck=lambda: None)
    identity = Identity("conn", "browser", USER_ID, PLAIN_ID, str(uuid.uuid4()))
    context = gateway.server.context
    return Relay(session, outbox, identity, context, lambda e, m: closed.append((e.code, len(written))))  # type: ignore[arg-type]


def test_commands_are_performed_in_order_and_the_close_comes_last(gateway):
    """Frames given before the close are written before it, and nothing after it."""

    async def scenario() -> None:
        session, written, closed = Scripted(), [], []  # type: ignore[var-annotated]
        relay = relay_of(gateway, session, written, closed)
        first, second = tell({"type": "a"}), tell({"type": "b"})
        session.commands = [first, second, Close(AGENT_ENDED, ""), tell({"type": "late"})]
        relay.begin()
        assert closed == [(1000, 2)] and len(written) == 2
        relay.end(InternalError.ending)
        assert [code for code, _ in closed] == [1000]

    gateway.run(scenario())


def test_slow_client_gets_what_was_said_before_the_close(gateway, monkeypatch):
    """With frames waiting, the close waits for them, but not for long."""
    monkeypatch.setattr(relay_module, "FLUSH_S", 0.1)

    async def scenario() -> None:
        session, written, closed = Scripted(), [], []  # type: ignore[var-annotated]
        relay = relay_of(gateway, session, written, closed)
        big = SendClient(bytes(HIGH_WATER_BYTES))
        session.commands = [big, big, Close(AGENT_ENDED, "")]
        relay.begin()
        assert closed == []
        await asyncio.sleep(0.3)
        assert [code for code, _ in closed] == [1000]

    gateway.run(scenario())


def test_what_is_for_a_link_that_is_gone_is_dropped(gateway):
    """Without a link a command to send upstream does nothing."""

    async def scenario() -> None:
        session, written, closed = Scripted(), [], []  # type: ignore[var-annotated]
        relay = relay_of(gateway, session, written, closed)
        session.commands = [SendUpstream(b"{}")]
        relay.begin()
        relay.client_left(CLIENT_LEFT)
        assert session.ends == ["client_left"]

    gateway.run(scenario())


def test_link_that_opens_too_late_is_closed(gateway):
    """A link asked for by a session that has ended meanwhile is closed at once."""

    async def scenario() -> None:
        session, written, closed = Scripted(), [], []  # type: ignore[var-annotated]
        relay = relay_of(gateway, session, written, closed)
        session.conversation.plan = replace  # never looked at
        session.commands = [OpenUpstream(1, 0.0, False)]
        relay.begin()
        relay.client_left(CLIENT_LEFT)
        await asyncio.sleep(0)

    gateway.run(scenario())
    assert not gateway.simulator.sessions


class Waiting(Scripted):
    """A session with one deadline after another, 3.4 ms apart."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count
        self.rung: list[bool] = []
        self.next_deadline = time.monotonic() + 0.0034

    def time_passed(self, now: float) -> list[Command]:
        """Note whether it was time, and go on to the next."""
        assert self.next_deadline is not None
        self.rung.append(now >= self.next_deadline)
        if self.rung[-1]:
            self.left -= 1
            self.next_deadline = now + 0.0034 if self.left else None
        return []


def test_timer_does_not_ring_again_and_again(gateway):
    """uvloop's timers count whole milliseconds; a session is asked about once for each deadline."""

    async def scenario() -> None:
        session = Waiting(30)
        relay_of(gateway, session, [], []).begin()
        async with asyncio.timeout(5):
            while session.left:  # noqa: ASYNC110 - the session is as pure as a real one
                await asyncio.sleep(0.01)
        assert session.rung.count(True) == 30
        assert session.rung.count(False) <= 15  # a loop that is late itself may ring early; without the grain: hundreds

    uvloop.run(scenario())


def test_unknown_command_is_a_bug(gateway):
    """A command nobody performs is not passed over in silence."""

    async def scenario() -> None:
        session, written, closed = Scripted(), [], []  # type: ignore[var-annotated]
        relay = relay_of(gateway, session, written, closed)
        with pytest.raises(TypeError):
            relay._do(object())  # type: ignore[arg-type]

    gateway.run(scenario())


# ---------------------------------------------------------------------- slow readers


def test_slow_reader_is_told(make, metric):
    """A client that falls behind loses audio, is told so once it reads again, and goes on talking."""
    gateway = make(settle_s=3.0)
    with RawWebSocket(gateway) as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        upstream = gateway.simulator.sessions[0]
        said = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"test long answer"}]}'
        for answered in range(12):
            slow.send(TEXT, b'{"type":"conversation.item.create","item":' + said + b"}")
            slow.send(TEXT, b'{"type":"response.create"}')
            assert eventually(lambda done=answered + 1: upstream.sent["response.done"] >= done, 10.0)
        assert metric(gateway, 'voice_queue_dropped_total{lane="client"}') > 0
        assert slow.until(b'"code":"slow_reader"')
        slow.send(TEXT, b'{"type":"conversation.item.create","item":' + said.replace(b"test long answer", b"ok") + b"}")
        slow.send(TEXT, b'{"type":"response.create"}')
        assert slow.until(b"You typed: ok")
