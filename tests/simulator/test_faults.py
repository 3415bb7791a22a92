"""Faults: what the official client sees of each, and how they are chosen."""
from __future__ import annotations

import asyncio

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.faults import FAULTS, FaultControl, UnknownFaultError, parse_fault
from simulator.openai import RealtimeSimulator


async def code_after(talk, events=1_000):
    """Read until the socket closes; return the close code (1006 when it was dropped)."""
    try:
        for _ in range(events):
            await talk.next()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
    raise AssertionError("the socket stayed open")


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_upgrade_is_refused_with_a_status(run, talking, status):
    """A fault at the door answers the upgrade with an HTTP status, as Azure and gateways do."""

    async def turn():
        async with RealtimeSimulator() as sim:
            sim.faults.next(f"refuse_{status}")
            with pytest.raises(InvalidStatus) as refused:
                async with talking(sim):
                    pass
            assert refused.value.response.status_code == status
            assert sim.sessions[0].refused == f"refuse_{status}"
            async with talking(sim) as talk:
                await talk.until("session.created")

    run(turn())


@pytest.mark.parametrize(("fault", "close_code"), [
    ("invalid_api_key", 3000), ("model_not_found", 4004), ("insufficient_quota", 3000)])
def test_connection_is_told_an_error_and_closed(run, talking, fault, close_code):
    """The first event is the error, then the close whose reason is type and code."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim, extra_query={"fault": fault}) as talk:
            assert (await talk.next())["error"]["code"] == fault
            assert await code_after(talk) == close_code
            assert talk.types() == ["error"]

    run(turn())


@pytest.mark.parametrize(("fault", "close_code"), [
    ("drop_mid_audio", 1006), ("close_1011", 1011), ("close_1012", 1012), ("close_1013", 1013)])
def test_connection_ends_in_the_middle_of_speech(run, talking, fault, close_code):
    """After the third piece of audio the connection ends as ordered."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim, extra_query={"fault": fault}) as talk:
            await talk.type_text("test long answer")
            assert await code_after(talk) == close_code
            assert sum(e["type"] == "response.output_audio.delta" for e in talk.events) <= 3
            assert "response.done" not in talk.types()

    run(turn())


def test_drop_strikes_after_the_ordered_number_of_events(run, talking):
    """drop with fault_after=4 aborts the connection after four events."""

    async def turn():
        query = {"fault": "drop", "fault_after": "4"}
        async with RealtimeSimulator() as sim, talking(sim, extra_query=query) as talk:
            await talk.type_text("Hello")
            assert await code_after(talk) == 1006
            assert len(talk.events) <= 4

    run(turn())


def test_typed_drop_aborts_the_connection(run, talking):
    """The script rule test drop ends the connection without a close frame."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.type_text("test drop")
            assert await code_after(talk) == 1006

    run(turn())


def test_stalled_session_stays_open_and_silent(run, talking):
    """A stalled session sends neither events nor pongs, yet the socket stays open."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.until("session.created")
            assert sim.faults.now("stall") == 1
            await talk.send("session.update", session={"type": "realtime"})
            pong = await talk.connection._connection.ping()
            done, _ = await asyncio.wait([pong], timeout=0.3)
            assert not done
            assert sim.sessions[0].open
            assert talk.types() == ["session.created"]

    run(turn())


def test_garbage_frames_come_between_good_events(run):
    """Text that is no JSON, binary frames, unknown events and a huge one arrive, and the response goes on."""

    async def turn():
        faults = ["garbage_text", "garbage_binary", "unknown_event", "huge_frame"]
        async with RealtimeSimulator(speed=0, faults=faults) as sim:
            url = f"{sim.url}?model=gpt-realtime-2.1"
            async with websockets.connect(
                url, additional_headers={"Authorization": "Bearer k"}, max_size=None, compression=None
            ) as socket:
                await socket.send('{"type":"response.create"}')
                frames = []
                while not (frames and isinstance(frames[-1], str) and '"response.done"' in frames[-1]):
                    frames.append(await socket.recv())
            assert any(isinstance(frame, bytes) for frame in frames)
            assert any(frame == "{this is not JSON" for frame in frames)
            assert any("simulator.never_heard_of" in frame for frame in frames if isinstance(frame, str))
            assert max(map(len, frames)) > 9 * 1024 * 1024

    run(turn())


def test_session_expires(run, talking):
    """At the end of its life a session gets error session_expired and close 1001; so does one told to expire."""

    async def turn():
        async with RealtimeSimulator(session_limit_s=0.3) as sim, talking(sim) as talk:
            error = await talk.error()
            assert error["code"] == "session_expired"
            assert await code_after(talk) == 1001
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.until("session.created")
            sim.faults.now("expire")
            assert (await talk.error())["message"] == "Your session hit the maximum duration of 60 minutes."

    run(turn())


def test_first_update_is_rejected_once(run, talking):
    """reject_update refuses one session.update; the next is accepted."""

    async def turn():
        async with RealtimeSimulator(faults=["reject_update"]) as sim, talking(sim) as talk:
            await talk.send("session.update", session={"type": "realtime", "instructions": "x"})
            assert (await talk.error())["code"] == "invalid_value"
            assert (await talk.update(instructions="y"))["instructions"] == "y"

    run(turn())


@pytest.mark.parametrize(("fault", "code"), [
    ("response_failed", None), ("rate_limited", "rate_limit_exceeded"), ("quota_failed", "insufficient_quota")])
def test_response_fails_once(run, talking, fault, code):
    """The next response ends failed with the error of the fault; the one after is whole."""

    async def turn():
        async with RealtimeSimulator(speed=0) as sim, talking(sim) as talk:
            await talk.until("session.created")
            sim.faults.now(fault)
            await talk.type_text("Hello")
            response = await talk.answer()
            assert response["status"] == "failed"
            assert response["status_details"]["error"]["code"] == code
            await talk.type_text("Again")
            assert (await talk.answer())["status"] == "completed"

    run(turn())


def test_slow_answers_come_in_the_end(run, talking, words):
    """The script rule test slow and the fault slow_response delay the first output, not response.created."""

    async def turn():
        async with RealtimeSimulator(speed=0, slow_s=0.3) as sim, talking(sim) as talk:
            clock = asyncio.get_running_loop().time
            for text, fault in (("test slow", ()), ("Hello", ("slow_response",))):
                for name in fault:
                    sim.faults.now(name, seconds=0.3)
                await talk.type_text(text)
                await talk.until("response.created")
                began = clock()
                assert words(await talk.answer())
                assert clock() - began >= 0.3

    run(turn())


def test_slow_reader_lets_events_wait(run, talking):
    """slow_reader handles one message at a time, with a pause before each."""

    async def turn():
        async with RealtimeSimulator() as sim:
            sim.faults.next("slow_reader", seconds=0.1)
            async with talking(sim) as talk:
                began = asyncio.get_running_loop().time()
                for _ in range(4):
                    await talk.send("input_audio_buffer.clear")
                for _ in range(4):
                    await talk.until("input_audio_buffer.cleared")
                assert asyncio.get_running_loop().time() - began >= 0.4

    run(turn())


def test_living_session_loses_its_key(run, talking):
    """A fatal refusal can strike a session that runs; faults of the door cannot."""

    async def turn():
        async with RealtimeSimulator() as sim, talking(sim) as talk:
            await talk.until("session.created")
            with pytest.raises(UnknownFaultError):
                sim.faults.now("refuse_401")
            sim.faults.now("insufficient_quota")
            assert (await talk.error())["type"] == "insufficient_quota"
            assert await code_after(talk) == 3000

    run(turn())


def test_standing_fault_meets_every_connection(run, talking):
    """faults.always() is for every connection from then on."""

    async def turn():
        async with RealtimeSimulator() as sim:
            sim.faults.always("close_1013", after=1, of="session.created")
            for _ in range(2):
                async with talking(sim) as talk:
                    assert await code_after(talk) == 1013

    run(turn())


def test_handshake_is_slow_or_never_answered(run, talking):
    """slow_handshake delays the upgrade; never_answer leaves the client waiting until it gives up."""

    async def turn():
        async with RealtimeSimulator() as sim:
            sim.faults.next("slow_handshake", seconds=0.3)
            began = asyncio.get_running_loop().time()
            async with talking(sim) as talk:
                await talk.until("session.created")
            assert asyncio.get_running_loop().time() - began >= 0.3
            sim.faults.next("never_answer")
            with pytest.raises(TimeoutError):
                async with talking(sim, websocket_connection_options={"open_timeout": 0.3}):
                    pass
            assert sim.sessions[-1].model == "gpt-realtime-2.1"

    run(turn())


def test_orders_are_taken_in_turn_and_passing_is_an_order():
    """faults.next() without names gives one connection only the standing faults, before the next order."""
    control = FaultControl([parse_fault("no_pong")])
    control.next()
    control.next("drop", "response_failed", after=3)
    first, second, third = control.take(), control.take(), control.take()
    assert first.has("drop") is None
    assert second.has("drop").after == 3
    assert second.has("response_failed")
    assert third.has("drop") is None
    assert all(faults.has("no_pong") for faults in (first, second, third))
    control.clear()
    assert control.take().has("no_pong") is None


def test_fault_names_are_checked():
    """An unknown fault or a number that is none is refused, naming what there is."""
    for text in ("no_such_thing", "drop:many", "slow_handshake:1:soon"):
        with pytest.raises(UnknownFaultError):
            parse_fault(text)
    assert parse_fault("drop:5").after == 5
    assert parse_fault("slow_handshake::0.5").seconds == 0.5
    assert all(fault.help for fault in FAULTS.values())


def test_unknown_fault_in_the_url_is_a_bad_request(run, talking):
    """A misspelt fault in the query is answered 400, so that a test does not pass by mistake."""

    async def turn():
        async with RealtimeSimulator() as sim:
            with pytest.raises(InvalidStatus) as refused:
                async with talking(sim, extra_query={"fault": "dorp"}):
                    pass
            assert refused.value.response.status_code == 400

    run(turn())
