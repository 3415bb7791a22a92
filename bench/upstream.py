"""A Realtime API that only sounds like one: the cheapest source and sink of its messages there is.

It answers `session.update`, says one short thing so that whoever connected knows that all is well, and when it is told
to talk sends 50 deltas a second in every session, with the events of a turn around them. What it is sent it counts.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import picows

from bench.child import run, serve
from bench.counting import Counters
from bench.pacing import Pacer
from bench.shapes import (
    APPEND_HEAD,
    APPEND_MS,
    APPEND_TAIL,
    DELTA_MS,
    PAYLOAD_MARK,
    STAMP_CHARS,
    TURN_S,
    WORD_S,
    Channel,
    Delta,
    age_ns,
    audio_rest,
    session_event,
    stamp,
    turn_begins,
    turn_ends,
    word,
)

DELTAS_HZ = 50.0
"""Messages to the listener a second (issue: 25 up and 50 down for browsers, 50 and 50 for calls)."""

PAUSE_S = 0.4
"""Silence before each answer: longer than the 0.15 s by which playback runs behind, so that no turn cuts another."""

TEXT = picows.WSMsgType.TEXT


class Settings:
    """What all sessions share; the parent's commands change it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.pacer = Pacer(DELTAS_HZ)
        self.delta_ms = DELTA_MS
        self.is_talking = False
        self.sessions: set[Session] = set()

    def rest(self, channel: Channel) -> bytes:
        """Return the audio of one delta, less its stamp."""
        return audio_rest(channel, self.delta_ms)


class Session(picows.WSListener):
    """One session, seen from the service."""

    def __init__(self, shared: Settings, number: int) -> None:
        self._shared = shared
        self._id = f"{number:08d}"
        self._transport: Any = None
        self._channel: Channel = "browser"
        self._unit = 1
        self._rest = b""
        self._delta = Delta(b"")
        self._turn = 0
        self._tick = 0
        self._turn_ticks = random.randrange(round(DELTAS_HZ), round(TURN_S * DELTAS_HZ))
        self._leave: Callable[[], None] | None = None
        self.is_configured = False

    def on_ws_connected(self, transport: Any) -> None:
        self._transport = transport
        self._shared.sessions.add(self)
        self._send(session_event("session.created", self._id))

    def on_ws_disconnected(self, transport: Any) -> None:
        self._transport = None
        self._shared.sessions.discard(self)
        self.hush()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
            return
        if frame.msg_type != TEXT:
            return
        message: bytes = frame.get_payload_as_bytes()
        if message.startswith(APPEND_HEAD):
            self._heard(message, len(APPEND_HEAD), len(message) - len(APPEND_TAIL))
        elif message.startswith(b'{"event":"media"'):  # a proxy passes Twilio's messages on as they are
            at = message.find(PAYLOAD_MARK) + len(PAYLOAD_MARK)
            self._heard(message, at, message.find(b'"', at))
        else:
            self._shared.counters.control += 1
            if b'"session.update"' in message[:64]:
                self._configure(json.loads(message))

    def _heard(self, message: bytes, start: int, end: int) -> None:
        counters = self._shared.counters
        if counters.heard(end - start, self._unit):
            counters.took(age_ns(message, start))

    def _configure(self, event: Mapping[str, Any]) -> None:
        session = event.get("session", {})
        kind = session.get("audio", {}).get("output", {}).get("format", {}).get("type")
        self._channel = "phone" if kind == "audio/pcmu" else "browser"
        self._rest = self._shared.rest(self._channel)
        self._unit = len(audio_rest(self._channel, APPEND_MS[self._channel])) + STAMP_CHARS
        self._send(session_event("session.updated", self._id, session))
        if self.is_configured:
            return
        self.is_configured = True
        self._shared.counters.opened += 1
        self._begin_turn()
        self._speak()
        if self._shared.is_talking:
            self.talk()

    # ------------------------------------------------------------------ talking

    def talk(self) -> None:
        """Speak from now on, until `hush`."""
        if self._leave is None and self.is_configured:
            self._leave = self._shared.pacer.add(self._on_tick)

    def hush(self) -> None:
        """Speak no more; the turn stays open."""
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _on_tick(self) -> None:
        self._tick += 1
        if self._tick < 0 or self._transport is None:
            return
        if self._tick == 0:
            self._begin_turn()
        if self._tick % round(WORD_S * DELTAS_HZ) == 0:
            self._send(word(self._id, self._turn))
        self._speak()
        if self._tick >= self._turn_ticks:
            for event in turn_ends(self._id, self._turn):
                self._send(event)
            self._turn_ticks = round(TURN_S * DELTAS_HZ)
            self._tick = -round(PAUSE_S * DELTAS_HZ)

    def _begin_turn(self) -> None:
        previous = f"item_{self._id}{self._turn:06d}" if self._turn else None
        self._turn += 1
        response, item = f"resp_{self._id}{self._turn:06d}", f"item_{self._id}{self._turn:06d}"
        self._delta = Delta.of(response, item, f"event_{self._id}{self._turn:06d}")
        for event in turn_begins(self._id, self._turn, previous):
            self._send(event)

    def _speak(self) -> None:
        self._send(b"".join((self._delta.head, stamp(), self._rest, self._delta.tail)))
        self._shared.counters.sent += 1

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.send(TEXT, message)


async def main() -> None:
    """Serve until the parent is gone."""
    shared, numbers = Settings(), iter(range(1, 100_000_000))
    server: asyncio.Server | None = None

    async def listen(request: Mapping[str, Any]) -> int:
        nonlocal server
        context = None
        shared.delta_ms = int(request.get("delta_ms", DELTA_MS))
        if request.get("certificate"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(request["certificate"], request["key"])
        server = await picows.ws_create_server(
            lambda _: Session(shared, next(numbers)), "127.0.0.1", 0, ssl=context, backlog=1024
        )
        shared.pacer.start()
        return int(server.sockets[0].getsockname()[1])

    async def talk(request: Mapping[str, Any]) -> None:
        shared.is_talking = bool(request["on"])
        for session in tuple(shared.sessions):
            (session.talk if shared.is_talking else session.hush)()

    async def read(_: Mapping[str, Any]) -> dict[str, Any]:
        return shared.counters.read() | {"sessions": len(shared.sessions)}

    await serve({"listen": listen, "talk": talk, "read": read})


if __name__ == "__main__":
    run(main)
