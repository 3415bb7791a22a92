"""Tornado's WebSocket protocol made strict, with messages as bytes.

Tornado keeps routing, headers, the handshake, pings and the closing handshake. This subclass adds what it lacks
(measured in the operations reference, section 1.1): close codes no peer may send are answered with 1002, text that is
no UTF-8 with 1007, and a message over the limit with an event the client can still read.
It leans on private names of Tornado 6.6; tests/handlers/test_wire.py pins them and says what to do when they move.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

HIGH_WATER_BYTES = 65_536
"""Unsent bytes at which a socket counts as full. What is handed over can no longer be overtaken or dropped, so it is
kept to about one second of audio."""

LINGER_S = 2.0
LINGER_BYTES = 8 * 1024 * 1024
"""How long, and for how much, a client that sends too much is still read, so that it gets to read why it was cut:
closing a socket with unread data resets it and destroys what the client has not read yet."""

PING_TIMED_OUT = "ping timed out"
"""Reason with which Tornado closes when no pong came."""

UNMASKED = "Frames must be masked"
"""Source: RFC 6455, section 5.1."""

_TEXT, _BINARY, _CLOSE = 0x1, 0x2, 0x8


class Receiver(Protocol):
    """What a door does with messages."""

    def text_received(self, frame: bytes) -> None:
        """Take one text message; it is valid UTF-8."""

    def binary_received(self) -> None:
        """Take note of a binary message."""

    def too_big(self) -> None:
        """Take note of a message over the limit, before the close is sent."""


def is_valid_close(data: bytes) -> bool:
    """True when a close frame's payload is one a peer may send. Source: RFC 6455, sections 5.5.1 and 7.4."""
    if not data:
        return True
    if len(data) == 1:
        return False
    (code,) = struct.unpack(">H", data[:2])
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return False
    try:
        data[2:].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class StrictProtocol(WebSocketProtocol13):
    """Tornado's RFC 6455 protocol with the gaps closed.

    Args:
        like: What Tornado made for the handshake; it is taken as the model.
        receiver: Takes the messages.

    Attributes:
        is_full: Whether the client reads too slowly to be given more.
        on_room: Called when a full socket may be given more.
        deliver: Takes each text message; the receiver's `text_received` until somebody sets another.
    """

    # Of Tornado's instance dictionary, which is shared up to 30 names: ours beside it save 1.2 KB of every session.
    __slots__ = ("_lingering", "_unsent_bytes", "deliver", "is_full", "on_room", "receiver")

    def __init__(self, like: WebSocketProtocol13, receiver: Receiver) -> None:
        super().__init__(like.handler, like.mask_outgoing, like.params)
        self.receiver = receiver
        self.on_room: Callable[[], None] = _nothing
        self.deliver: Callable[[bytes], None] = receiver.text_received
        self._lingering: asyncio.Task[None] | None = None
        self._unsent_bytes = 0
        self.is_full = False

    # ------------------------------------------------------------------ the way out

    def send_text(self, frame: bytes) -> None:
        """Write one text message; never raises: that a connection is gone is told elsewhere."""
        try:
            future = self._write_frame(True, _TEXT, frame)
        except StreamClosedError:
            return
        self._unsent_bytes += len(frame)
        self.is_full = self._unsent_bytes >= HIGH_WATER_BYTES
        future.add_done_callback(partial(self._was_sent, len(frame)))

    def burst(self, is_on: bool) -> None:
        """Change nothing: Tornado's stream writes each message as it comes."""

    def _was_sent(self, size: int, future: asyncio.Future[None]) -> None:
        self._unsent_bytes -= size
        self.is_full = self._unsent_bytes >= HIGH_WATER_BYTES
        if not future.cancelled() and future.exception() is None:
            self.on_room()

    # ------------------------------------------------------------------ the way in

    async def _receive_frame(self) -> None:
        self._frame_mask = None
        await super()._receive_frame()
        if self._frame_mask is None and not self.client_terminated:  # a fragment; whole messages are judged before
            self._fail(1002, UNMASKED)

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        if self.client_terminated:
            return None
        if self._frame_mask is None:
            return self._fail(1002, UNMASKED)
        if opcode == _TEXT and not self._frame_compressed:
            self._message_bytes_in += len(data)
            self._take_text(bytes(data))
            return None
        if opcode == _BINARY and not self._frame_compressed:
            self._message_bytes_in += len(data)
            self.receiver.binary_received()
            return None
        if opcode == _CLOSE and not is_valid_close(bytes(data)):
            return self._fail(1002, "Protocol error")
        return super()._handle_message(opcode, data)

    def _take_text(self, frame: bytes) -> None:
        """Hand on a text message, unless it is none."""
        if not frame.isascii():
            try:
                frame.decode("utf-8")
            except UnicodeDecodeError:
                self._fail(1007, "Invalid UTF-8")
                return
        self.deliver(frame)

    def _fail(self, code: int, reason: str) -> None:
        """Close because of a broken rule of the protocol; nothing more of this client is read."""
        self.client_terminated = True
        self.close_code = code
        self.close(code, reason)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close; a message over the limit is first explained to the client, and a dead client just dropped.

        Tornado would tell a client that missed a ping 1000, which is the code of a normal end; one that is not dead
        after all must see that the connection broke, and connect again.
        """
        if code is None and reason == PING_TIMED_OUT:
            self._abort()
            return
        if code == 1009 and self._lingering is None and not self.server_terminated:
            reason = "Message too big"
            # First, because telling the client closes the socket too and comes back here.
            self._lingering = asyncio.get_running_loop().create_task(self._linger(), name="wire-linger")
            self.receiver.too_big()
        super().close(code, reason)

    # ------------------------------------------------------------------ the end

    def _abort(self) -> None:
        """Drop the socket, but not while the client may still have the reason for its end unread."""
        if self._lingering is not None and not self._lingering.done():
            self.client_terminated = True
            return
        self._drop()

    def _drop(self) -> None:
        """Drop the socket."""
        super()._abort()

    async def _linger(self) -> None:
        """Read and forget what still comes, within bounds, then drop the socket."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    left -= len(await self.stream.read_bytes(65_536, partial=True))
        except (TimeoutError, StreamClosedError, AssertionError):
            pass  # AssertionError: Tornado's own loop is still reading; it sees client_terminated and stops
        finally:
            self._drop()


def _nothing() -> None:
    """Stand for a callback nobody has set."""
