"""Every fault of a simulated call does to the application what its line in the table says."""
from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection

import simulator
from simulator.faults import UnknownFaultError
from simulator.twilio import TwilioSimulator
from simulator.twilio_caller import HangUp, Speak, at
from simulator.twilio_faults import TWILIO_FAULTS, CallFaults, twilio_fault
from simulator.twilio_handshake import handshake
from simulator.twilio_record import CallRecord
from tests.fakes.phone_server import TONE, PhoneServer, phone

Run = Callable[[Coroutine[Any, Any, None]], None]


async def one_call(server: PhoneServer, *faults: str, seconds: float = 0.5, **plan: Any) -> CallRecord:
    """Make a call that lasts so long, with these faults."""
    async with TwilioSimulator(clips_only=True) as sim:
        plan.setdefault("actions", [HangUp(at(seconds))])
        return await sim.call(voice_url=server.voice_url, faults=faults, timeout_s=seconds + 1, **plan)


@pytest.mark.parametrize("fault", ["wrong_webhook_signature", "no_webhook_signature"])
def test_webhook_signature_can_be_wrong_or_missing(run: Run, fault: str) -> None:
    """The application refuses, and the call ends with 11200."""

    async def work() -> None:
        async with phone() as server:
            record = await one_call(server, fault, actions=[], seconds=-0.5)
            assert [valid for *_, valid in server.forms] == [False]
            assert record.codes() == [11200]

    run(work())


@pytest.mark.parametrize("fault", ["wrong_stream_signature", "no_stream_signature"])
def test_handshake_signature_can_be_wrong_or_missing(run: Run, fault: str) -> None:
    """The webhook is signed well, the handshake is not."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, fault, seconds=0.1)
            assert server.forms[0][2]
            headers, valid = server.handshakes[0]
            assert (valid, "X-Twilio-Signature" in headers) == (False, fault.startswith("wrong"))

    run(work())


def test_handshake_can_carry_an_origin(run: Run) -> None:
    """As a browser's would."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, "browser_origin", seconds=0.1)
            assert "Origin" in server.handshakes[0][0]

    run(work())


def test_start_can_stay_away_come_late_or_twice(run: Run) -> None:
    """no_start sends nothing after connected; late_start waits; start_twice repeats it."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, "no_start")
            assert [message["event"] for message in server.received] == ["connected", "stop"]
        async with phone() as server:
            record = await one_call(server, "late_start:0:0.3")
            assert record.events("start")[0].at_s - record.events("stream_started")[0].at_s >= 0.29
        async with phone() as server:
            await one_call(server, "start_twice:100")
            assert len(server.of("start")) == 2

    run(work())


def test_start_can_be_wrong(run: Run) -> None:
    """Media before start, a format that is not mu-law, another account, no parameters."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, "media_first", seconds=0.1)
            assert [message["event"] for message in server.received[:3]] == ["connected", "media", "start"]
        async with phone() as server:
            record = await one_call(server, "wrong_format", "foreign_account", "no_parameters", seconds=0.1)
            start = server.of("start")[0]["start"]
            assert start["mediaFormat"]["encoding"] == "audio/x-l16"
            assert start["accountSid"] != record.account_sid
            assert "customParameters" not in start

    run(work())


@pytest.mark.parametrize(("fault", "same_call"), [("replayed_token", True), ("stolen_token", False)])
def test_intruder_uses_the_token_again(run: Run, fault: str, same_call: bool) -> None:
    """A second socket comes with the token of the first; the record says that this application let it stay."""

    async def work() -> None:
        async with phone("tone 0.2") as server:
            record = await one_call(server, f"{fault}:100:0.3", seconds=0.8)
            first, second = [message["start"] for message in server.of("start")]
            assert first["customParameters"] == second["customParameters"]
            assert first["streamSid"] != second["streamSid"]
            assert (first["callSid"] == second["callSid"]) == same_call
            assert record.intruder == {"refused": 0, "close_code": None, "audio_bytes": 1600}
        async with phone("close after 1") as server:
            record = await one_call(server, f"{fault}:0:0.3")
            assert record.intruder.get("close_code") in {1008, None}

    run(work())


def test_caller_can_hang_up_in_the_middle_of_the_answer(run: Run) -> None:
    """So many milliseconds of speech are heard, and then comes `stop`."""

    async def work() -> None:
        async with phone("tone 5") as server:
            record = await one_call(server, "stop_mid_answer:300", seconds=3)
            (speech,) = record.heard_speech()
            assert speech.ends_s - speech.begins_s == pytest.approx(0.3, abs=0.05)
            assert (record.ended_by, len(server.of("stop"))) == ("caller", 1)

    run(work())


def test_jitter_holds_frames_back_and_loses_none(run: Run) -> None:
    """Frames come in bursts, all of them, in order."""

    async def work() -> None:
        async with phone() as server:
            for _ in range(3):  # a machine that is busy elsewhere has less time for a call than the call lasts
                server.received.clear()
                await one_call(server, "jitter:0:0.1", seconds=0.6)
                stamps = [int(message["media"]["timestamp"]) for message in server.of("media")]
                assert stamps == list(range(20, stamps[-1] + 20, 20))
                if len(stamps) >= 29:
                    return
            pytest.fail(f"{len(stamps)} frames of 30")

    run(work())


def test_lost_frames_make_the_timestamps_jump(run: Run) -> None:
    """A hole of so many milliseconds; chunks go on counting."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, "lost_frames:200:0.1")
            stamps = [int(message["media"]["timestamp"]) for message in server.of("media")]
            gaps = {later - earlier for earlier, later in pairwise(stamps)}
            assert gaps == {20, 120}

    run(work())


def test_socket_can_die_without_stop(run: Run) -> None:
    """The application never sees `stop`; the call goes on with the action."""

    async def work() -> None:
        async with phone() as server:
            record = await one_call(server, "socket_dies:200", actions=[])
            assert server.of("stop") == []
            assert record.close_codes == [None]
            assert "/after" in server.paths()

    run(work())


def test_half_open_connection_says_nothing_more(run: Run) -> None:
    """No media, no stop, no close until the caller hangs up."""

    async def work() -> None:
        async with phone("echo") as server:
            await one_call(server, "half_open:200", seconds=0.8)
            assert 9 <= len(server.of("media")) <= 11
            assert server.of("stop") == []

    run(work())


def test_slow_reader_takes_messages_late(run: Run) -> None:
    """What is sent at once is heard in pieces."""

    async def work() -> None:
        async with phone("tone 0.02", "tone 0.02", "tone 0.02") as server:
            record = await one_call(server, "slow_reader:0:0.2", seconds=0.9)
            times = [entry.at_s for entry in record.events("media")]
            assert times[-1] - times[0] == pytest.approx(0.4, abs=0.15)

    run(work())


def test_strange_messages_can_be_mixed_in(run: Run) -> None:
    """An unknown event, a foreign track, a frame that is no JSON; the stream goes on."""

    async def work() -> None:
        async with phone() as server:
            await one_call(server, "unknown_events", "foreign_track", "garbage_text:100")
            events = {message["event"] for message in server.received}
            assert {"weather", "garbage"} <= events
            assert [message["media"]["track"] for message in server.of("media")].count("outbound") == 1

    run(work())


def test_one_call_sid_can_be_used_twice(run: Run) -> None:
    """Two calls with one CallSid at the same time."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            plan: dict[str, Any] = {"voice_url": server.voice_url, "call_sid": "CA" + "7" * 32}
            calls = [sim.dial(actions=[Speak(TONE), HangUp(at(0.3))], **plan) for _ in range(2)]
            records = [await call.finished for call in calls]
            assert [record.status for record in records] == ["completed", "completed"]
            assert {message["start"]["callSid"] for message in server.of("start")} == {"CA" + "7" * 32}
            assert len({message["streamSid"] for message in server.of("start")}) == 2

    run(work())


def test_fault_of_the_command_line_is_read() -> None:
    """NAME, NAME:AFTER, NAME:AFTER:SECONDS; anything else is refused with the list of names."""
    assert twilio_fault("jitter") == TWILIO_FAULTS["jitter"]
    assert (twilio_fault("socket_dies:50").after, twilio_fault("jitter:0:0.5").seconds) == (50, 0.5)
    assert twilio_fault(TWILIO_FAULTS["jitter"]) is TWILIO_FAULTS["jitter"]
    for bad in ("nonsense", "jitter:x", "jitter:1:y"):
        with pytest.raises(UnknownFaultError):
            twilio_fault(bad)


def test_fault_strikes_once_when_it_is_due() -> None:
    """Not before its time, and not a second time."""
    faults = CallFaults(["socket_dies:100"])
    assert faults.due("socket_dies", 80) is None
    assert faults.due("socket_dies", 100) is not None
    assert faults.due("socket_dies", 120) is None
    assert faults.due("jitter", 100) is None


def test_page_names_every_fault() -> None:
    """No fault is missing from the page, and none is described that does not exist."""
    page = (Path(simulator.__file__).parent / "twilio.md").read_text(encoding="utf-8")
    described = [line.split("`")[1] for line in page.partition("| fault |")[2].splitlines() if line.startswith("| `")]
    assert described == list(TWILIO_FAULTS)


def test_handshake_that_outlives_its_call_leaves_no_socket(run: Run) -> None:
    """Whoever gives up while it opens has it dropped when it has opened."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            settings = sim.settings
            account = settings.accounts[0]
            for steps in range(12):
                asking = asyncio.ensure_future(
                    handshake(server.stream_url, account=account, settings=settings, faults=CallFaults())
                )
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(0.2)
            sockets = [it for it in gc.get_objects() if isinstance(it, WebSocketClientConnection)]
            assert [it for it in sockets if it.protocol is not None] == []
            gc.collect()  # one that is gone and was not closed warns, which is an error here

    run(work())
