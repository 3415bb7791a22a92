"""The softphone without a browser: the door's protocol, what it refuses, and the buffer of the microphone."""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.softphone import MAX_MESSAGE_BYTES, MAX_PHONES, Listed, Softphone
from simulator.softphone_caller import MOST_MS, START_MS, LiveCaller, Mouthpiece
from simulator.twilio import TwilioSimulator
from simulator.twilio_record import CallRecord
from tests.fakes.phone_server import TONE, PhoneServer, phone

Run = Callable[[Coroutine[Any, Any, None]], None]
Eventually = Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]

PAGE = "http://127.0.0.1:8080"
NUMBER = "+15005550106"
HUSH = b"\xff" * 160


@asynccontextmanager
async def exchange(*behaviour: str) -> AsyncIterator[tuple[PhoneServer, Softphone]]:
    """Run a phone server and a simulated Twilio whose softphone calls it."""
    async with phone(*behaviour) as server:
        simulator = TwilioSimulator()
        softphone = Softphone(simulator)
        await simulator.start(doors=softphone.doors())
        softphone.connect(voice_url=server.voice_url, origins=[PAGE], numbers=[Listed(NUMBER, "Rosa")])
        try:
            yield server, softphone
        finally:
            await simulator.stop()


def page(softphone: Softphone, **changes: Any) -> connect:
    """Open the door as the page does."""
    options: dict[str, Any] = {"origin": PAGE, "subprotocols": ["softphone", softphone.secret]}
    return connect(softphone.url, **options | changes)


async def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind."""
    async with asyncio.timeout(5):
        async for message in socket:
            told: dict[str, Any] = json.loads(message) if isinstance(message, str) else {"type": "sound"}
            if told["type"] == kind:
                return told
    raise AssertionError(f"no {kind}")


async def say(socket: ClientConnection, **message: Any) -> None:
    """Send a message of the page."""
    await socket.send(json.dumps(message))


def test_call_of_a_page_is_a_call_like_any_other(run: Run, eventually: Eventually) -> None:
    """Signed webhook, signed stream, sound both ways, keys, `stop`: what the server sees names no browser."""

    async def work() -> None:
        async with exchange("echo") as (server, softphone), page(softphone) as socket:
            assert socket.subprotocol == "softphone", "the secret is not echoed"
            await say(socket, type="dial", to=NUMBER)
            ringing = await until(socket, "ringing")
            await until(socket, "in_call")
            await eventually(lambda: bool(server.of("media")))
            for _ in range(10):
                await socket.send(TONE)
            await say(socket, type="keys", digits="1#")
            heard = bytearray()
            while TONE * 10 not in bytes(heard):
                message = await asyncio.wait_for(socket.recv(), 5)
                heard += message if isinstance(message, bytes) else b""
            await eventually(lambda: len(server.of("dtmf")) == 2)
            await say(socket, type="hang_up")
            ended = await until(socket, "ended")
            assert (ended["by"], ended["status"], ended["answered"]) == ("caller", "completed", True)
            async with asyncio.timeout(5):
                async for _ in socket:
                    pass  # until the last callback is answered and the door closes
            assert socket.close_code == 1000
            assert [valid for *_, valid in server.forms] == [True] * len(server.forms)
            (headers, signed), = server.handshakes
            assert signed and "Origin" not in headers
            assert server.forms[0][1]["CallSid"] == ringing["call_sid"]
            assert softphone.open_phones == 0

    run(work())


def test_list_and_counters_tell_what_twilio_sees(run: Run) -> None:
    """Entries without single pieces and marks; counters of frames, sound, marks, clears and complaints."""

    async def work() -> None:
        async with exchange("tone 0.3", "mark", "bad messages", "close after 40") as (_, softphone):
            async with page(softphone) as socket:
                await say(socket, type="dial", to=NUMBER)
                told = []
                async with asyncio.timeout(8):
                    async for message in socket:
                        if isinstance(message, str):
                            told.append(json.loads(message))
            events = [message["event"] for message in told if message["type"] == "entry"]
            assert events[:4] == ["webhook", "answered", "verb", "stream_started"]
            assert {"agent_speaks", "warning", "stream_closed", "ended"} <= set(events)
            assert not {"media", "mark"} & set(events)
            seen = [message for message in told if message["type"] == "seen"][-1]
            assert (seen["marks"], seen["marks_returned"], seen["received_ms"]) == (1, 1, 300)
            assert seen["frames"] == pytest.approx(40, abs=4)
            assert (seen["rejected"], seen["warnings"]) == (9, 2)
            ended = next(message for message in told if message["type"] == "ended")
            assert (ended["by"], ended["close_code"]) == ("application", 1008)

    run(work())


def test_strangers_are_refused_before_there_is_a_socket(run: Run) -> None:
    """Another origin, none, a wrong secret, none: 403."""

    async def work() -> None:
        async with exchange() as (_, softphone):
            for changes in (
                {"origin": "http://evil.example"}, {"origin": None}, {"origin": "http://localhost:8080"},
                {"subprotocols": ["softphone", "x" * 32]}, {"subprotocols": ["softphone"]}, {"subprotocols": None},
            ):
                with pytest.raises(InvalidStatus) as refused:
                    await page(softphone, **changes).__aenter__()
                assert refused.value.response.status_code == 403

    run(work())


@pytest.mark.parametrize("messages", [
    ["no JSON"], ["[]"], ['{"type": "weather"}'], ['{"type": "dial"}'], ['{"type": "dial", "to": 5}'],
    ['{"type": "dial", "to": "sip:rosa"}'], ['{"type": "keys", "digits": "1"}'], [b"\xff" * (MAX_MESSAGE_BYTES + 1)],
    ['{"type": "dial", "to": "+15005550106"}', '{"type": "dial", "to": "+15005550106"}'],
    ['{"type": "dial", "to": "+15005550106"}', '{"type": "keys", "digits": "A"}'],
])
def test_messages_that_are_none_close_the_socket(run: Run, messages: list[str | bytes]) -> None:
    """A page that breaks the protocol is cut off, and its call with it."""

    async def work() -> None:
        async with exchange() as (_, softphone), page(softphone) as socket:
            for message in messages:
                await socket.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(5):
                    while True:
                        await socket.recv()
            assert closed.value.rcvd is None or closed.value.rcvd.code in {1008, 1009}

    run(work())


def test_page_that_is_gone_has_hung_up(run: Run, eventually: Eventually) -> None:
    """A lost connection ends the call, and the server gets its `stop`."""

    async def work() -> None:
        async with exchange("tone 5") as (server, softphone):
            socket = await page(softphone)
            await say(socket, type="dial", to=NUMBER)
            await eventually(lambda: bool(server.of("media")))
            socket.transport.abort()
            await eventually(lambda: bool(server.of("stop")))
            (call,) = softphone.simulator.calls.values()
            await eventually(lambda: call.is_over)
            assert call.record.ended_by == "caller"
            assert (bytes(call.record.heard), bytes(call.record.said)) == (b"", b""), "nothing of a person is kept"

    run(work())


def test_phones_are_counted(run: Run, eventually: Eventually) -> None:
    """One too many is told to come again later; a closed one makes room."""

    async def work() -> None:
        async with exchange() as (_, softphone):
            sockets = [await page(softphone) for _ in range(MAX_PHONES)]
            surplus = await page(softphone)
            await asyncio.wait_for(surplus.wait_closed(), 5)
            assert surplus.close_code == 1013
            await sockets.pop().close()
            await eventually(lambda: softphone.open_phones == MAX_PHONES - 1)
            async with page(softphone) as socket:
                await say(socket, type="dial", to=NUMBER)
                await until(socket, "in_call")
            for one in sockets:
                await one.close()

    run(work())


def test_socket_on_which_nobody_dials_is_closed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is of the door, not of the call."""
    monkeypatch.setattr("simulator.softphone.DIAL_WITHIN_S", 0.1)

    async def work() -> None:
        async with exchange() as (_, softphone):
            async with page(softphone) as idle:
                await asyncio.wait_for(idle.wait_closed(), 5)
                assert idle.close_code == 1000
            async with page(softphone) as socket:
                await say(socket, type="dial", to=NUMBER)
                seen = await until(socket, "seen")
                seen = await until(socket, "seen")
                assert seen["frames"] > 0

    run(work())


def test_configuration_is_what_the_page_needs(run: Run) -> None:
    """Address, secret, numbers; every process has a secret of its own."""

    async def work() -> None:
        async with exchange() as (_, softphone), exchange() as (_, other):
            facts = softphone.configuration()
            assert facts["url"].startswith("ws://127.0.0.1:") and facts["url"].endswith("/softphone")
            assert facts["numbers"] == [{"number": NUMBER, "name": "Rosa", "detail": ""}]
            assert facts["secret"] == softphone.secret != other.secret

    run(work())


def test_microphone_buffer_waits_for_a_little_and_drops_what_is_old() -> None:
    """Speech begins after 60 ms, goes on without a hole, and never lags by more than 240 ms."""
    mouth = Mouthpiece()
    mouth.put(TONE * 2)
    assert mouth.take() == HUSH, "40 ms are too little to begin with"
    mouth.put(TONE)
    assert [mouth.take() for _ in range(4)] == [TONE, TONE, TONE, HUSH]
    mouth.put(TONE * (START_MS // 20))
    assert mouth.take() == TONE
    mouth.put(b"\x11" * 8 * MOST_MS)
    assert [mouth.take() for _ in range(4)] == [b"\x11" * 160] * (START_MS // 20) + [HUSH]


def test_answer_delay_is_measured_where_the_caller_stands() -> None:
    """From the last sound said to the first sound heard; speech that overlaps is no answer."""
    caller = LiveCaller(CallRecord("CA1", "AC1", "+1", "+2"), lambda: None, ear=lambda sound: None)

    def pass_ticks(count: int, *, hears: bytes = HUSH, says: bytes = b"") -> None:
        for _ in range(count):
            caller.say(says)
            caller.exchange(hears)

    pass_ticks(20, says=TONE)
    pass_ticks(30)
    pass_ticks(30, hears=TONE)
    # The three pieces kept at the beginning are said after the microphone fell silent.
    assert caller.answer_delay_ms == pytest.approx(30 * 20 - 60, abs=40)
    measured = caller.answer_delay_ms
    pass_ticks(30)
    pass_ticks(20, says=TONE)
    pass_ticks(20, hears=TONE, says=TONE)
    assert caller.answer_delay_ms == measured
    assert caller.frames == 150
