"""A WebSocket service that does what a test says, byte by byte, in the test's own event loop.

    async def answer(peer): await peer.upgrade(); await peer.send(TEXT, b"{}")
    async with ScriptedUpstream(answer) as upstream:
        link = await Upstream(upstream.url).open(Target("sk-x", "m"))

It misleads in that it never answers pings or closes unless the script does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import uvloop

from core.recovery import Loss
from services.upstream import Link
from tests.fakes.raw_websocket import frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


LOOPS = [asyncio.run, uvloop.run]
"""Runners of both event loops the product runs on."""


class Peer:
    """One connection; `head` is the request once `request` was called."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = ""
        self.gone = asyncio.Event()

    async def request(self) -> str:
        """Read the handshake; the service's answer is up to the script."""
        self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        return self.head

    async def upgrade(self, *, key: bytes | None = None) -> None:
        """Read the handshake and answer it, with the accept value of `key` where given."""
        head = await self.request()
        sent = next(line for line in head.splitlines() if line.lower().startswith("sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1((key or sent.split(": ")[1].encode()) + GUID).digest())  # noqa: S324
        await self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame."""
        await self.write(frame(opcode, payload, fin=fin, mask=False))

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame.

        Raises:
            asyncio.IncompleteReadError: If the connection is gone.
        """
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", await self.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self.reader.readexactly(8))[0]
        assert second & 0x80, "a client's frames are masked"
        key = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return first & 0xF, bytes(byte ^ key[n % 4] for n, byte in enumerate(data))

    async def wait_gone(self) -> None:
        """Read and forget until the other side is gone."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        self.gone.set()


async def idle(peer: Peer) -> None:
    """Let the link in, then read and forget."""
    await peer.upgrade()
    await peer.wait_gone()


class ScriptedUpstream:
    """Serves from entering to leaving; `peers` are the connections so far."""

    def __init__(self, script: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
        self._script, self._tls = script, tls
        self.peers: list[Peer] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self.peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Address of the service."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/v1/realtime"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            peer.gone.set()
        finally:
            writer.close()


class Heard:
    """What a link said."""

    def __init__(self, link: Link) -> None:
        self.messages: list[bytes] = []
        self.losses: list[Loss] = []
        link.listen(self.messages.append, self.losses.append)

    async def lost(self) -> Loss:
        """Wait for the loss; return it."""
        await until(lambda: self.losses)
        return self.losses[0]


async def until(check: Callable[[], Any]) -> None:
    """Wait for a fact; the deadline is the runner's."""
    while not check():  # noqa: ASYNC110 - what is waited for happens in several places
        await asyncio.sleep(0.005)
