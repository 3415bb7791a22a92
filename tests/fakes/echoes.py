"""Our two WebSocket legs made to echo, for Autobahn: what they are given, text or binary, they send back.

    with EchoDoors() as doors: doors.url("fast", "uvloop")
    await run_cases(fuzzing_server.url, "agent", 247)

The door is the product's class with its phases taken out, the link is the product's with its listener taken out;
framing, limits, closing and pings are theirs. It misleads in that the product itself hands no binary message on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import picows
import pytest
import uvloop
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketProtocol

from core.recovery import Loss
from handlers.base import MAX_MESSAGE_BYTES, Door
from handlers.listeners import http_server
from services.upstream import Link, Target, Upstream, opening

LOOPS: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
WIRES = ("fast", "tornado")

BINARY = 0x2

START_S = 10.0
CASE_S = 30.0
"""The longest case of the protocol takes 2 s."""


class EchoDoor(Door):
    """The doors' handler: no phases, each message goes back."""

    def initialize(self, wire: str, limit: int) -> None:  # type: ignore[override]
        self.context: Any = SimpleNamespace(settings=SimpleNamespace(wire=wire))
        self._limit = limit
        self._protocol = None

    def prepare(self) -> None:
        """Let everybody in."""

    @property
    def max_message_size(self) -> int:
        """Frame limit in bytes."""
        return self._limit

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Use the product's protocol; binary messages, which it only notes, go back too."""
        protocol: Any = super().get_websocket_protocol()
        take = protocol._handle_message

        def take_and_echo(opcode: int, data: bytes) -> Any:
            answer = take(opcode, data)
            if opcode == BINARY and not protocol.client_terminated:
                protocol._write_frame(True, BINARY, bytes(data))
            return answer

        protocol._handle_message = take_and_echo
        self._protocol = protocol
        return self._protocol

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin."""
        self.set_nodelay(True)

    def text_received(self, frame: bytes) -> None:
        """Send it back."""
        assert self._protocol is not None
        self._protocol.send_text(frame)

    def binary_received(self) -> None:
        """Take note."""

    def too_big(self) -> None:
        """Take note."""

    def on_close(self) -> None:
        """Take note."""


class EchoDoors:
    """Servers with an echo door for each receive loop, one on each event loop, from entering to leaving."""

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = limit
        self._ports: dict[str, int] = {}
        self._stops: list[Callable[[], Any]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for name, run in LOOPS.items():
            ready = threading.Event()
            work = threading.Thread(target=lambda run=run, name=name, ready=ready: run(self._serve(name, ready)))
            work.start()
            self._threads.append(work)
            assert ready.wait(START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stop in self._stops:
            stop()
        for thread in self._threads:
            thread.join(START_S)

    def url(self, wire: str, loop: str) -> str:
        """Address of an echo door."""
        return f"ws://127.0.0.1:{self._ports[loop]}/{wire}"

    async def _serve(self, name: str, ready: threading.Event) -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        doors = [(f"/{wire}", EchoDoor, {"wire": wire, "limit": self._limit}) for wire in WIRES]
        server = http_server(Application(doors, log_function=lambda handler: None))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self._ports[name] = sockets[0].getsockname()[1]
        self._stops.append(lambda: loop.call_soon_threadsafe(end.set))
        ready.set()
        await end.wait()
        server.stop()
        await asyncio.wait_for(server.close_all_connections(), START_S)


class EchoLink(Link):
    """A link that sends back what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()
        self.messages: list[bytes] = []
        self._kind = picows.WSMsgType.TEXT
        self.listen(self._echo, self._lost)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type in {picows.WSMsgType.TEXT, picows.WSMsgType.BINARY}:
            self._kind = frame.msg_type
        super().on_ws_frame(transport, frame)

    def _echo(self, message: bytes) -> None:
        self.messages.append(message)
        if self._transport is not None:
            self._transport.send(self._kind, message)

    def _lost(self, loss: Loss) -> None:
        self.gone.set()


async def run_cases(url: str, agent: str) -> int:
    """Let Autobahn fuzz a link with every case it serves; return how many those were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "Link", EchoLink)
        count = int((await _visit(f"{url}/getCaseCount"))[0])
        for case in range(1, count + 1):
            await _visit(f"{url}/runCase?case={case}&agent={agent}")
        await _visit(f"{url}/updateReports?agent={agent}")
    return count


async def _visit(url: str) -> list[bytes]:
    """Echo until the other side ends the link; return what came."""
    link = await Upstream(url).open(Target("key", "model"))
    assert isinstance(link, EchoLink)
    await asyncio.wait_for(link.gone.wait(), CASE_S)
    return link.messages
