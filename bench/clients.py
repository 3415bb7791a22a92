"""Many browsers, or many telephone calls, in one process: the cheapest source and sink of their messages there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
    STAMP_CHARS,
    Channel,
    age_ns,
    audio_rest,
    mark_returned,
    media_message,
    stamp,
)

OPEN_S = 20.0
"""Longest wait until a session can talk: the server itself gives a service 8 s to answer."""

CLOSE_S = 5.0

AT_ONCE = 8
"""Sessions opened at the same time: a busy minute, not a stampede."""

TEXT = picows.WSMsgType.TEXT

RATE_HZ = {channel: 1000 / milliseconds for channel, milliseconds in APPEND_MS.items()}


@dataclass(frozen=True, slots=True)
class Seat:
    """How one client connects.

    Attributes:
        url: With the token in its query, where there is one.
        greeting: Messages sent as soon as it is connected.
        farewell: Messages sent before it closes.
        stream_sid: Of a call; empty for browsers, who send appends.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    greeting: Sequence[str] = field(repr=False)
    farewell: Sequence[str] = ()
    stream_sid: str = ""


class Client(picows.WSListener):
    """One browser or one call."""

    def __init__(self, seat: Seat, channel: Channel, counters: Counters, delta_ms: int) -> None:
        self._seat, self._channel, self._counters = seat, channel, counters
        self._rest = audio_rest(channel, APPEND_MS[channel])
        self._unit = len(audio_rest(channel, delta_ms)) + STAMP_CHARS
        self._number = 0
        self._transport: Any = None
        self._is_closing = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave: Callable[[], None] | None = None

    async def open(self) -> None:
        """Connect and wait for the first sound.

        Raises:
            OSError, TimeoutError: If nothing could be heard; it is counted as lost.
        """
        try:
            async with asyncio.timeout(OPEN_S):
                await picows.ws_connect(
                    lambda: self, self._seat.url, extra_headers=dict(self._seat.headers),
                    websocket_handshake_timeout=OPEN_S,
                )  # fmt: skip
                await self._ready
        except picows.WSError as error:
            self._counters.lose(type(error).__name__)
            raise OSError(f"the connection was refused: {type(error).__name__}") from None
        except (OSError, TimeoutError) as error:
            self._counters.lose(type(error).__name__)
            raise
        self._counters.opened += 1

    async def close(self) -> None:
        """Say good-bye and wait for the other end's."""
        self._is_closing = True
        self.hush()
        transport = self._transport
        if transport is None:
            return
        for message in self._seat.farewell:
            transport.send(TEXT, message.encode())
        transport.send_close(picows.WSCloseCode.OK)
        try:
            async with asyncio.timeout(CLOSE_S):
                await transport.wait_disconnected()
        except TimeoutError:
            transport.disconnect(False)

    def talk(self, pacer: Pacer) -> None:
        """Speak from now on, until `hush`."""
        if self._leave is None and self._transport is not None:
            self._leave = pacer.add(self._speak_call if self._seat.stream_sid else self._speak)

    def hush(self) -> None:
        """Speak no more."""
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _speak(self) -> None:
        if self._transport is not None:
            self._transport.send(TEXT, b"".join((APPEND_HEAD, stamp(), self._rest, APPEND_TAIL)))
            self._counters.sent += 1

    def _speak_call(self) -> None:
        if self._transport is not None:
            self._number += 1
            self._transport.send(TEXT, media_message(self._seat.stream_sid, self._number, self._rest))
            self._counters.sent += 1

    # ------------------------------------------------------------------ what arrives

    def on_ws_connected(self, transport: Any) -> None:
        self._transport = transport
        for message in self._seat.greeting:
            transport.send(TEXT, message.encode())

    def on_ws_disconnected(self, transport: Any) -> None:
        self._transport = None
        self.hush()
        if not self._ready.done():
            self._ready.set_exception(ConnectionError("closed before the first sound"))
            self._ready.exception()  # who waits for it raises it; nobody may
        elif not self._is_closing:
            self._counters.lose("disconnected")

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            if not self._is_closing:
                self._is_closing = True
                self._counters.lose(f"closed with {int(frame.get_close_code().value)}")
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
            return
        if frame.msg_type != TEXT:
            return
        message: bytes = frame.get_payload_as_bytes()
        head = message[:48]
        if b'audio.delta"' in head:
            self._heard(message, b'"delta"')
        elif b'"media"' in head:
            self._heard(message, b'"payload"')
        elif b'"mark"' in head:
            self._return_mark(message)
        else:
            self._counters.control += 1

    def _heard(self, message: bytes, key: bytes) -> None:
        at = message.index(b'"', message.index(key) + len(key)) + 1
        if self._counters.heard(message.index(b'"', at) - at, self._unit):
            self._counters.took(age_ns(message, at))
        if not self._ready.done():
            self._ready.set_result(None)

    def _return_mark(self, message: bytes) -> None:
        """Say at once that the audio before a mark was played: as many marks return as with Twilio's playout."""
        self._counters.control += 1
        at = message.index(b'"', message.index(b'"name"') + 6) + 1
        name = message[at : message.index(b'"', at)]
        self._transport.send(TEXT, mark_returned(self._seat.stream_sid, self._number, name))


class Crowd:
    """All clients of this process, and the commands that move them."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._clients: list[Client] = []
        self._pacer: Pacer | None = None

    async def open(self, request: Mapping[str, Any]) -> int:
        """Open one client a seat; returns how many can talk."""
        made = self._made(request)
        opened = await _few_at_once([client.open for client in made])
        self._clients += [client for client, is_open in zip(made, opened, strict=True) if is_open]
        return sum(opened)

    async def talk(self, request: Mapping[str, Any]) -> None:
        """Have everybody speak, or nobody."""
        if self._pacer is not None:
            self._pacer.stop()
            self._pacer = None
            for client in self._clients:
                client.hush()
        if request["on"]:
            channel: Channel = request["channel"]
            self._pacer = Pacer(RATE_HZ[channel])
            for client in self._clients:
                client.talk(self._pacer)
            self._pacer.start()

    async def read(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counts."""
        return self._counters.read()

    async def close(self, _: Mapping[str, Any]) -> None:
        """Close everybody."""
        leaving, self._clients = self._clients, []
        await _few_at_once([client.close for client in leaving])

    async def cycle(self, request: Mapping[str, Any]) -> int:
        """Open and close one client a seat, few at a time; returns how many could talk."""

        async def come_and_go(client: Client) -> None:
            await client.open()
            await client.close()

        return sum(await _few_at_once([partial(come_and_go, client) for client in self._made(request)]))

    def _made(self, request: Mapping[str, Any]) -> list[Client]:
        delta_ms = int(request.get("delta_ms", DELTA_MS))
        return [Client(Seat(**seat), request["channel"], self._counters, delta_ms) for seat in request["seats"]]


async def _few_at_once(works: Sequence[Callable[[], Any]]) -> list[bool]:
    """Do all of it, a few at a time; returns what succeeded."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(work: Callable[[], Any]) -> bool:
        async with gate:
            try:
                await work()
            except (OSError, TimeoutError):
                return False
        return True

    return list(await asyncio.gather(*map(one, works)))


async def main() -> None:
    """Serve until the parent is gone."""
    crowd = Crowd()
    await serve({"open": crowd.open, "talk": crowd.talk, "read": crowd.read, "close": crowd.close,
                 "cycle": crowd.cycle})  # fmt: skip


if __name__ == "__main__":
    run(main)
