"""A WebSocket client that may break every rule of the framing, over a bare socket.

    with RawWebSocket(gateway) as raw:
        raw.send(TEXT, b"hello", mask=False)
        assert raw.close_code() == 1002

It misleads in that it answers neither pings nor closes by itself.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from types import TracebackType
from typing import Self

from tests.fakes.browser import DEADLINE_S, PLAIN_ID
from tests.fakes.gateway import Gateway

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """Return one frame."""
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    bit, size = 0x80 if mask else 0, len(payload)
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += struct.pack(">BH", bit | 126, size)
    else:
        head += struct.pack(">BQ", bit | 127, size)
    if not mask:
        return head + payload
    key = b"mask"
    repeated = key * (size // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")
    return head + key + masked.to_bytes(size, "big")


class RawWebSocket:
    """One connection after its handshake."""

    def __init__(self, gateway: Gateway, *, token: str | None = None, headers: str = "", live: bool = True) -> None:
        """Connect and, if `live`, wait until audio may flow."""
        self.socket = socket.create_connection(("127.0.0.1", gateway.server.port), timeout=DEADLINE_S)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /?token={gateway.token() if token is None else token}&agent_id={PLAIN_ID} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{gateway.server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self._take(1)
        if live:
            self.until(b'"type":"session.updated"')

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes = b"", **shape: bool | int) -> None:
        """Send one frame, see `frame`."""
        self.socket.sendall(frame(opcode, payload, **shape))  # type: ignore[arg-type]

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame.

        Raises:
            EOFError: If the connection is gone.
        """
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", self._take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._take(8))[0]
        return first & 0xF, self._take(size)

    def until(self, part: bytes) -> bytes:
        """Return the next text message that holds this."""
        while True:
            opcode, payload = self.receive()
            if opcode == TEXT and part in payload:
                return payload
            if opcode == CLOSE:
                raise EOFError(payload)

    def close_code(self) -> int | None:
        """Read to the end; return the code of the server's close frame, None when the connection just ended."""
        try:
            while True:
                opcode, payload = self.receive()
                if opcode == CLOSE:
                    return int(struct.unpack(">H", payload[:2])[0]) if payload else 1005
        except EOFError:
            return None

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError("connection gone")
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
