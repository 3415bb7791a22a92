"""The simulated stream against servers that are not Tornado: another WebSocket implementation, and bare sockets."""
from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from simulator.twilio import TwilioSimulator
from simulator.twilio_caller import HangUp, at, quiet
from tests.fakes.phone_server import TONE

Run = Callable[[Coroutine[Any, Any, None]], None]
Eventually = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]


def document(port: int, scheme: str = "wss") -> str:
    """Return TwiML that connects to a port of this machine."""
    return f'<Response><Connect><Stream url="{scheme}://127.0.0.1:{port}/media"/></Connect></Response>'


@pytest.mark.parametrize("scheme", ["wss", "ws"])
def test_another_websocket_implementation_talks_to_it(run: Run, scheme: str) -> None:
    """Handshake, masked text frames, pings and the closing handshake satisfy the `websockets` library."""
    seen: list[dict[str, Any]] = []
    closed: list[int | None] = []

    async def agent(socket: ServerConnection) -> None:
        async for frame in socket:
            assert isinstance(frame, str)
            seen.append(json.loads(frame))
            if seen[-1]["event"] == "start":
                await asyncio.wait_for(await socket.ping(), 5)
                media = {"payload": base64.b64encode(TONE * 10).decode()}
                await socket.send(json.dumps({"event": "media", "streamSid": seen[-1]["streamSid"], "media": media}))
        closed.append(socket.close_code)

    async def work() -> None:
        async with serve(agent, "127.0.0.1", 0, compression=None) as server, TwilioSimulator() as sim:
            port = next(iter(server.sockets)).getsockname()[1]
            record = await sim.call(twiml=document(port, scheme), actions=[HangUp(quiet(0.3))])
        (speech,) = record.heard_speech()
        assert speech.ends_s - speech.begins_s == pytest.approx(0.2, abs=0.03)
        assert [message["event"] for message in seen[:2]] == ["connected", "start"]
        assert seen[-1]["event"] == "stop"
        assert (closed, record.codes()) == ([1000], [])

    run(work())


@pytest.mark.parametrize(("settings", "code"), [
    ({"handshake_timeout_s": 0.3}, 31901),
    ({"plain_loopback": False, "handshake_timeout_s": 2.0}, 31910),
])
def test_server_that_does_not_shake_hands_is_named(run: Run, settings: dict[str, Any], code: int) -> None:
    """One that never answers, and one that speaks no TLS where TLS is wanted."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if code == 31910:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with TwilioSimulator(**settings) as sim:
            record = await sim.call(twiml=document(server.sockets[0].getsockname()[1]))
        server.close()
        assert record.codes() == [code]

    run(work())


def test_strict_simulator_refuses_ws_on_loopback_too(run: Run) -> None:
    """`plain_loopback=False` is the service as it is."""

    async def work() -> None:
        async with TwilioSimulator(plain_loopback=False) as sim:
            record = await sim.call(twiml=document(1, "ws"))
            assert record.codes() == [31922]

    run(work())


def test_late_ticks_are_made_up(run: Run, eventually: Eventually) -> None:
    """A machine that stood still for 0.3 s sends the missing frames at once, and the clock has not moved."""
    stamps: list[int] = []

    async def agent(socket: ServerConnection) -> None:
        async for frame in socket:
            message = json.loads(frame)
            if message["event"] == "media":
                stamps.append(int(message["media"]["timestamp"]))

    async def work() -> None:
        async with serve(agent, "127.0.0.1", 0) as server, TwilioSimulator() as sim:
            port = next(iter(server.sockets)).getsockname()[1]
            call = sim.dial(twiml=document(port), actions=[HangUp(at(0.8))])
            await eventually(lambda: len(stamps) >= 10)
            until = asyncio.get_running_loop().time() + 0.3
            while asyncio.get_running_loop().time() < until:
                pass  # the loop stands still
            record = await call.finished
        assert stamps == list(range(20, stamps[-1] + 20, 20))
        assert len(record.heard) // 160 == pytest.approx(record.duration_s * 50, abs=4)

    run(work())
