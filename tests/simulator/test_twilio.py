"""Calls of the simulated Twilio to a small phone server that the official `twilio` package checks."""
from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.twilio import TwilioSimulator
from simulator.twilio_caller import HangUp, Keys, Speak, at, heard, quiet
from simulator.twilio_ear import write_wav
from simulator.twilio_settings import DEMO_SUBACCOUNT
from tests.fakes.phone_server import TONE, connect_document, phone

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_call_goes_from_webhook_to_last_callback(run: Run) -> None:
    """Webhook, handshake, media, dtmf, stop, stream callbacks, action and call callback come signed and in order."""

    async def work() -> None:
        async with phone("echo") as server, TwilioSimulator() as sim:
            record = await sim.call(
                voice_url=server.voice_url, status_callback=server.url("call-status"), to="+15005550106",
                actions=[Speak(TONE * 10, at(0.1)), Keys("12#", at(0.1)), HangUp(at(0.9))],
            )
        assert (record.status, record.ended_by, record.codes()) == ("completed", "caller", [])
        assert [valid for *_, valid in server.forms] == [True] * 5
        assert sorted(server.paths()) == ["/after", "/call-status", "/stream-status", "/stream-status", "/voice"]
        fields = {path: form for path, form, _ in server.forms}
        assert fields["/voice"]["CallStatus"] == "ringing"
        assert fields["/voice"]["To"] == "+15005550106"
        assert "" in fields["/voice"].values(), "a field without a value is part of the signature"
        assert fields["/after"]["CallStatus"] == "completed"
        assert fields["/call-status"]["CallDuration"] == "1"
        events = [form["StreamEvent"] for path, form, _ in server.forms if path == "/stream-status"]
        assert events == ["stream-started", "stream-stopped"]
        assert [message["dtmf"]["digit"] for message in server.of("dtmf")] == ["1", "2", "#"]
        order = [message["event"] for message in server.received]
        assert (order[:3], order[-1]) == (["connected", "start", "media"], "stop")

    run(work())


def test_handshake_has_the_headers_of_the_real_one(run: Run) -> None:
    """Signed over the wss text; no Origin, no extensions, no subprotocol; the Host is the public one."""

    async def work() -> None:
        async with phone(public="voice.example.com") as server:
            async with TwilioSimulator(routes={"voice.example.com": server.address}) as sim:
                await sim.call(voice_url=server.voice_url, actions=[HangUp(at(0.1))])
            headers, valid = server.handshakes[0]
        assert valid
        assert server.forms[0][2]
        assert headers["User-Agent"] == "Twilio.TmeWs/1.0"
        assert headers["Host"] == "voice.example.com"
        assert set(headers) == {
            "Host", "User-Agent", "X-Twilio-Signature", "Upgrade", "Connection", "Sec-Websocket-Key",
            "Sec-Websocket-Version", "Accept-Encoding",
        }

    run(work())


def test_start_carries_parameters_and_no_query(run: Run) -> None:
    """The query of the stream's address is lost; what is in <Parameter> arrives as it was."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            server.document = lambda server: connect_document(server).replace("/stream\"", "/stream?token=lost\"")
            record = await sim.call(voice_url=server.voice_url, actions=[HangUp(at(0.1))])
            assert server.handshakes[0][1]
            assert server.of("start")[0]["start"]["customParameters"] == {"token": 'one "time" & <token>'}
            assert record.events("query_stripped")

    run(work())


def test_media_comes_at_a_true_clock(run: Run) -> None:
    """One frame of 160 bytes each 20 ms without drift; chunks, timestamps and sequence numbers count as text."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            await sim.call(voice_url=server.voice_url, actions=[HangUp(at(1.0))])
            media = server.of("media")
            assert 48 <= len(media) <= 52
            places = [(message["media"]["chunk"], message["media"]["timestamp"]) for message in media]
            assert places == [(str(n), str(20 * n)) for n in range(1, len(media) + 1)]
            numbers = [message["sequenceNumber"] for message in server.received[1:]]
            assert numbers == [str(n) for n in range(1, len(numbers) + 1)]

    run(work())


def test_caller_hears_what_was_played_and_when(run: Run) -> None:
    """A second of tone sent at once is heard for a second, its mark comes back when it is over."""

    async def work() -> None:
        async with phone("tone 1", "mark") as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url, actions=[HangUp(quiet(0.3))])
            (speech,) = record.heard_speech()
            assert speech.ends_s - speech.begins_s == pytest.approx(1.0, abs=0.05)
            (mark,) = record.marks
            assert not mark.flushed
            assert mark.returned_s is not None
            assert mark.returned_s - mark.came_s == pytest.approx(1.0, abs=0.15)
            assert len(server.of("mark")) == 1
            assert len(record.heard) == len(record.said)

    run(work())


def test_clear_stops_the_sound_and_flushes_marks(run: Run) -> None:
    """After `clear` nothing of the queue is heard, and its marks come back at once."""

    async def work() -> None:
        async with phone("tone 3", "mark", "clear on speech") as server, TwilioSimulator() as sim:
            record = await sim.call(
                voice_url=server.voice_url, actions=[Speak(TONE * 5, heard(0.4)), HangUp(quiet(0.5, patience_s=1))]
            )
            (speech,) = record.heard_speech()
            assert speech.ends_s - speech.begins_s == pytest.approx(0.45, abs=0.1)
            (mark,) = record.marks
            assert mark.flushed
            assert mark.returned_s == pytest.approx(record.clears[0], abs=0.05)

    run(work())


def test_messages_that_are_not_exact_are_ignored_with_a_warning(run: Run) -> None:
    """Nine wrong messages: none has an effect, each kind of warning appears once, the stream goes on."""

    async def work() -> None:
        async with phone("bad messages", "tone 0.2") as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url, actions=[HangUp(quiet(0.3))])
            assert sorted(record.codes()) == [31950, 31951]
            assert len(record.rejected) == 9
            assert record.clears == []
            assert len(record.heard_speech()) == 1

    run(work())


def test_too_much_queued_audio_is_discarded_once(run: Run) -> None:
    """What exceeds the limit is dropped, with one warning 31931."""

    async def work() -> None:
        async with phone("tone 0.6", "tone 0.6", "tone 0.6") as server, TwilioSimulator(queue_limit_s=1.0) as sim:
            record = await sim.call(voice_url=server.voice_url, actions=[HangUp(quiet(0.3))])
            assert record.codes() == [31931]
            assert record.dropped_bytes == pytest.approx(0.8 * 8000, abs=400)
            (speech,) = record.heard_speech()
            assert speech.ends_s - speech.begins_s == pytest.approx(1.0, abs=0.1)

    run(work())


def test_subaccount_signs_with_its_own_token(run: Run) -> None:
    """Webhook and handshake of a subaccount's number carry its signature, and start its sid."""

    async def work() -> None:
        async with phone(token=DEMO_SUBACCOUNT.auth_token) as server, TwilioSimulator() as sim:
            await sim.call(voice_url=server.voice_url, account_sid=DEMO_SUBACCOUNT.sid, actions=[HangUp(at(0.1))])
            assert all(valid for *_, valid in server.forms)
            assert server.handshakes[0][1]
            assert server.of("start")[0]["start"]["accountSid"] == DEMO_SUBACCOUNT.sid

    run(work())


def test_polite_caller_waits_for_greeting_and_answer(run: Run, tmp_path: Path) -> None:
    """With only a WAV file the caller hears the greeting out, speaks, waits for the answer and hangs up."""
    path = tmp_path / "question.wav"
    write_wav(path, TONE * 15)

    async def work() -> None:
        async with phone("tone 0.4", "echo") as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url, wav=path)
            greeting, answer = record.heard_speech()
            assert answer.begins_s - greeting.ends_s >= 0.55
            assert answer.ends_s - answer.begins_s == pytest.approx(0.3, abs=0.1)
            assert record.ended_by == "caller"
            stereo = tmp_path / "both.wav"
            record.write_both(stereo)
            record.write_wav(tmp_path / "heard.wav")
            assert stereo.stat().st_size > (tmp_path / "heard.wav").stat().st_size

    run(work())


def test_caller_gives_up_after_the_timeout(run: Run) -> None:
    """A call nobody ends is ended by the caller."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url, timeout_s=0.3)
            assert (record.ended_by, len(record.events("caller_gave_up"))) == ("caller", 1)

    run(work())


def test_many_calls_at_once_keep_their_clocks(run: Run) -> None:
    """Twenty calls at the same time; none mixes with another."""

    async def work() -> None:
        async with phone("echo") as server, TwilioSimulator() as sim:
            records = await asyncio.gather(*(
                sim.call(voice_url=server.voice_url, actions=[Speak(TONE * 10), HangUp(at(0.8))]) for _ in range(20)
            ))
            assert len({record.sid for record in records}) == 20
            assert all(len(record.heard_speech()) == 1 and not record.codes() for record in records)

    run(work())


def test_program_serves_until_it_is_stopped() -> None:
    """`python -m simulator.twilio` prints its address, places a call on request, and ends on SIGTERM."""
    child = subprocess.Popen(
        [sys.executable, "-m", "simulator.twilio", "--port", "0", "--clips"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=dict(os.environ), cwd=Path(__file__).parents[2],
    )
    guard = threading.Timer(20, child.kill)
    guard.start()
    try:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        wanted = {"voice_url": "http://127.0.0.1:1/voice", "timeout_s": 0.2}
        assert httpx.post(f"{url}/simulate/calls", json=wanted).status_code == 201
        child.terminate()
        assert child.wait(10) == 0
    finally:
        guard.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
