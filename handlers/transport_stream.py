"""One connection's socket as a transport of the event loop, behind the face of Tornado's stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError

from handlers.strict_frames import HIGH_WATER_BYTES

SEND_BUFFER_BYTES = 262_144
"""The kernel's send buffer: by itself it grows to 4 MiB, a minute of audio nobody can take back. At 300 ms of round
trip this size still carries 850 KB/s, ten times what a talk needs."""

CLOSE_S = 2.0
"""How long the last bytes may take before the socket is dropped."""


class Owner(Protocol):
    """The connection's protocol."""

    is_full: bool
    on_room: Callable[[], None]
    write_out: Callable[[bytes], object]

    def bytes_received(self, data: bytes) -> None:
        """Take a chunk as the kernel gave it."""

    def socket_lost(self) -> None:
        """Take note that the socket is gone."""


class TransportStream(asyncio.Protocol):
    """The transport of one connection, with what Tornado's WebSocket protocol asks of a stream.

    Args:
        owner: Takes what arrives.
        early: Bytes that came with the handshake.
    """

    __slots__ = (
        "_early", "_held", "_held_bytes", "_is_closed", "_owner", "_transport", "_unsent", "_waiters", "data_received",
    )  # fmt: skip

    def __init__(self, owner: Owner, early: bytes) -> None:
        self._owner = owner
        self._early = early
        self._transport: asyncio.WriteTransport | None = None
        self._unsent: list[bytes] = []
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._is_closed = False
        self.data_received = owner.bytes_received  # type: ignore[method-assign]  # a call less for every chunk

    async def take_over(self, sock: socket.socket) -> None:
        """Read and write this socket from here on."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            if sock.family != socket.AF_UNIX:  # asyncio's own only does so for sockets whose protocol is named
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self, sock)
        except OSError as error:  # the client has left in the meantime
            sock.close()
            self.connection_lost(error)

    # ------------------------------------------------------------------ what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was written meanwhile, and take what came with the handshake."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes
        assert self._transport is not None
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        for data in self._unsent:
            self._transport.write(data)
        self._unsent.clear()
        self._owner.write_out = self._transport.write  # a call less for every message
        if self._is_closed:
            self._end(self._transport)
        elif self._early:
            early, self._early = self._early, b""
            self._owner.bytes_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._is_closed, self._owner.is_full, self._held = True, False, None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(StreamClosedError())
                waiter.exception()  # marks it as seen: not every writer looks
        self._owner.socket_lost()

    def pause_writing(self) -> None:
        """Take note that the client reads too slowly."""
        self._owner.is_full = True

    def resume_writing(self) -> None:
        """Take note that there is room again."""
        self._owner.is_full = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._owner.on_room()

    # ------------------------------------------------------------------ what is asked of a stream

    @property
    def io_loop(self) -> IOLoop:
        """Tornado's face of the running loop."""
        return IOLoop.current()

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Write bytes; the future ends when there is room for more.

        Raises:
            StreamClosedError: If the connection is gone.
        """
        self.write_nowait(data)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._owner.is_full:
            self._waiters.append(waiter)
        else:
            waiter.set_result(None)
        return waiter

    def write_nowait(self, data: bytes) -> None:
        """Write bytes.

        Raises:
            StreamClosedError: If the connection is gone.
        """
        if self._is_closed:
            raise StreamClosedError
        if self._held is not None:
            self._keep(data)
        elif self._transport is not None:
            self._transport.write(data)
        else:
            self._unsent.append(data)

    def hold(self) -> None:
        """Keep what is written until `release`: every write costs a system call and wakes the other end."""
        if self._transport is not None and self._held is None and not self._is_closed:
            self._held, self._held_bytes = [], 0
            self._owner.write_out = self._keep

    def _keep(self, data: bytes) -> None:
        """Hold bytes, but not more than the transport would take before it asks for a pause."""
        assert self._held is not None
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HIGH_WATER_BYTES:
            self.release()

    def release(self) -> None:
        """Write what was held as one."""
        held, self._held = self._held, None
        if held is not None and self._transport is not None and not self._is_closed:
            self._owner.write_out = self._transport.write
            if held:
                self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def closed(self) -> bool:
        """Return True once nothing can be written any more."""
        return self._is_closed

    def close(self) -> None:
        """Close the connection; what was written is still sent, within a deadline."""
        self.release()
        if not self._is_closed:
            self._is_closed = True
            self._owner.write_out = _nowhere
            if self._transport is not None:
                self._end(self._transport)

    def _end(self, transport: asyncio.WriteTransport) -> None:
        transport.close()
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(CLOSE_S, transport.abort)

    def set_nodelay(self, value: bool) -> None:
        """Do nothing: `take_over` sees to it that the socket never delays."""


def _nowhere(data: bytes) -> None:
    """Stand for a socket that takes nothing any more."""
