"""The fast receive loop: frames are delimited in bulk, on the event loop's own transport.

Tornado shakes hands, answers pings, closes and keeps its rules (`handlers/strict_frames.py`); only the way bytes come
in and go out is another one: after the handshake the socket moves from Tornado's stream to a transport of the event
loop, and each chunk the kernel gives is cut into messages at once. Whole, masked text frames take the short way;
everything else (fragments, control frames, broken framing) is judged as Tornado judges it.

It leans on private names of Tornado, pinned by tests/handlers/test_wire.py; WIRE=tornado does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.util import _websocket_mask
from tornado.websocket import WebSocketProtocol13

from handlers.strict_frames import LINGER_BYTES, LINGER_S, UNMASKED, Receiver, StrictProtocol
from handlers.transport_stream import TransportStream

_WHOLE_TEXT = 0x81
_MASKED = 0x80
_MASKED_16_BIT = 0xFE
_CONTROL = 0x8
_RESERVED = 0x70


def _head(size: int) -> bytes:
    """Return the head of a whole text frame of ours. Source: RFC 6455, section 5.2."""
    if size < 126:
        return bytes((_WHOLE_TEXT, size))
    if size < 65_536:
        return bytes((_WHOLE_TEXT, 126)) + size.to_bytes(2, "big")
    return bytes((_WHOLE_TEXT, 127)) + size.to_bytes(8, "big")


_LONGEST_HEADED = 8192
_HEADS = tuple(_head(size) for size in range(_LONGEST_HEADED))
"""The heads of usual sizes, made once: 0.3 MB for the process."""


class FastProtocol(StrictProtocol):
    """Tornado's protocol on a transport of the event loop.

    Attributes:
        write_out: Writes bytes to the socket as it stands; the stream sets it.
    """

    __slots__ = ("_is_skipping", "_is_told", "_needed", "_rest", "_skipped", "write_out")

    stream: Any

    def __init__(self, like: WebSocketProtocol13, receiver: Receiver) -> None:
        super().__init__(like, receiver)
        self._is_told = False
        self._rest = bytearray()
        self._needed = 0
        self._skipped = 0
        self._is_skipping = False
        self.write_out: Callable[[bytes], object] = _nowhere

    # ------------------------------------------------------------------ the way in

    async def _receive_frame_loop(self) -> None:
        """Move the socket to a transport and return: nothing waits for frames any more."""
        old = self.stream
        if type(old) is not IOStream or old.closed():
            await super()._receive_frame_loop()
            return
        if not await self._is_written(old):
            await super()._receive_frame_loop()
            return
        early = bytes(old._read_buffer[: old._read_buffer_size])
        sock, old.socket = old.socket, None  # type: ignore[assignment]
        self.stream = TransportStream(self, early)
        self.write_out = self.stream.write_nowait
        IOLoop.current().remove_handler(sock)
        old._closed = True
        await self.stream.take_over(sock)
        # What the handshake needed would otherwise live as long as the talk: 4 KB of every session.
        self.handler.request.connection = self.handler.request.server_connection = None  # type: ignore[attr-defined]

    async def _is_written(self, old: IOStream) -> bool:
        """Wait until what the old stream holds, the answer to the handshake, is out; False when the client is gone."""

        def write_out(data: bytes) -> None:
            if not old.closed():
                old.write(data)

        self.write_out = write_out
        try:
            while old.writing():
                await old.write(b"")
        except StreamClosedError:
            return False
        return not old.closed()

    def bytes_received(self, data: bytes) -> None:
        """Cut a chunk into messages and hand them on."""
        if self._is_skipping:
            self._skip(len(data))
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:  # so that a frame fed byte by byte is copied once, not every time
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, size = 0, len(data)
        while position < size and not self.client_terminated:
            if (
                size - position > 8
                and data[position] == _WHOLE_TEXT
                and data[position + 1] == _MASKED_16_BIT
                and self._fragmented_message_buffer is None
            ):
                start = position + 8
                end = start + (data[position + 2] << 8 | data[position + 3])
                if end > size:
                    self._needed = end - position
                    break
                text = _websocket_mask(data[start - 4 : start], data[start:end])
                if text.isascii():
                    self.deliver(text)
                else:
                    self._take_text(text)
            else:
                end = self._take_frame(data, position)
                if end == 0:
                    break
            position = end
        if self.client_terminated:
            self._tell_end()
        elif position < size:
            self._rest += data[position:]

    def _take_frame(self, data: bytes, position: int) -> int:
        """Take a frame of any shape; return where it ends, or 0 when it is not whole yet or not sound."""
        left = len(data) - position
        self._needed = 2
        if left < 2:
            return 0
        first, second = data[position], data[position + 1]
        if not second & _MASKED:
            self._fail(1002, UNMASKED)
            return 0
        length = second & 0x7F
        more = 0 if length < 126 else 2 if length == 126 else 8
        self._needed = 2 + more
        if left < self._needed:
            return 0
        if more:
            length = int.from_bytes(data[position + 2 : position + 2 + more], "big")
        if not self._is_sound(first, length):
            return 0
        start = position + more + 6
        end = start + length
        self._needed = end - position
        if left < self._needed:
            return 0
        self._take(first, _websocket_mask(data[start - 4 : start], data[start:end]))
        return end

    def _is_sound(self, first: int, length: int) -> bool:
        """Judge a frame by its head; a bad one ends the connection. Source: RFC 6455, section 5."""
        is_control, parts = first & _CONTROL, self._fragmented_message_buffer
        if first & _RESERVED or (is_control and (length > 125 or not first & self.FIN)):
            self._abort()
            return False
        if not is_control and (first & self.OPCODE_MASK == 0) == (parts is None):
            self._abort()  # a continuation of nothing, or a new message within another
            return False
        if length + (0 if is_control or parts is None else len(parts)) > self.params.max_message_size:
            self._is_skipping = True
            self.close(1009)
            self._abort()
            return False
        return True

    def _take(self, first: int, payload: bytes) -> None:
        """Take a sound frame of any kind."""
        opcode, is_final = first & self.OPCODE_MASK, first & self.FIN
        if not is_final and opcode:
            self._fragmented_message_opcode = opcode  # type: ignore[assignment]
            self._fragmented_message_buffer = bytearray(payload)
            return
        if opcode == 0:
            assert self._fragmented_message_buffer is not None  # or it were not sound
            self._fragmented_message_buffer += payload
            if not is_final:
                return
            opcode = self._fragmented_message_opcode  # type: ignore[assignment]
            payload, self._fragmented_message_buffer = bytes(self._fragmented_message_buffer), None
        if opcode == 0x1:
            self._take_text(payload)
        else:
            self._frame_mask = b"...."  # it had one; StrictProtocol asks
            self._handle_message(opcode, payload)

    # ------------------------------------------------------------------ the way out

    def send_text(self, frame: bytes) -> None:
        """Write one text message; never raises: that a connection is gone is told elsewhere."""
        size = len(frame)
        self.write_out((_HEADS[size] if size < _LONGEST_HEADED else _head(size)) + frame)

    def burst(self, is_on: bool) -> None:
        """Hold what is sent while more messages follow at once, then write them together."""
        if isinstance(self.stream, TransportStream):
            (self.stream.hold if is_on else self.stream.release)()

    # ------------------------------------------------------------------ the end

    def socket_lost(self) -> None:
        """Take note that the socket is gone."""
        self.write_out = _nowhere
        if self._lingering is not None:
            self._lingering.cancel()
        self._drop()
        self._tell_end()

    def _tell_end(self) -> None:
        """Tell the door, once, that nothing more will come."""
        if not self._is_told:
            self._is_told = True
            self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    async def _linger(self) -> None:
        """Let `bytes_received` read and forget what still comes, within bounds, then drop the socket."""
        try:
            await asyncio.sleep(LINGER_S)
        finally:
            self._drop()

    def _skip(self, size: int) -> None:
        self._skipped += size
        if self._skipped > LINGER_BYTES and self._lingering is not None:
            self._lingering.cancel()


def _nowhere(data: bytes) -> None:
    """Stand for a socket that is not there yet or no more."""
