"""Documents, verbs and failures of a simulated call."""
from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from simulator.twilio import TwilioSimulator
from simulator.twilio_ear import write_wav
from tests.fakes.phone_server import TONE, PhoneServer, phone

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_application_that_closes_gets_the_action_and_decides(run: Run) -> None:
    """After our close the action is asked, with the call still in progress, and its document is run."""

    async def work() -> None:
        async with phone("close after 10") as server, TwilioSimulator(clips_only=True) as sim:
            response = VoiceResponse()
            response.say("bye")
            response.dial("+15005550199", action=server.url("dialled"))
            server.after = str(response)
            record = await sim.call(voice_url=server.voice_url)
            assert record.close_codes == [1008]
            assert (record.spoken, record.dialled) == (["bye"], ["+15005550199"])
            forms = {path: form for path, form, _ in server.forms}
            assert forms["/after"]["CallStatus"] == "in-progress"
            assert forms["/dialled"]["DialCallStatus"] == "completed"
            assert (record.status, record.ended_by) == ("completed", "application")
            assert record.heard_speech(), "what <Say> says is heard"

    run(work())


def test_without_action_the_next_verb_follows(run: Run) -> None:
    """A closed stream without action goes on with the document: redirect by GET, signed over its query."""

    def document(server: PhoneServer) -> str:
        response, connect = VoiceResponse(), Connect()
        connect.stream(url=server.stream_url)
        response.append(connect)
        response.redirect("/other?a=b", method="GET")
        return str(response)

    async def work() -> None:
        async with phone("close after 2") as server, TwilioSimulator() as sim:
            server.document = document
            record = await sim.call(voice_url=server.voice_url)
            assert server.paths() == ["/voice", "/other"]
            assert server.forms[1][2]
            assert server.forms[1][1]["CallSid"] == record.sid

    run(work())


def test_failed_handshake_is_31920_and_falls_through(run: Run) -> None:
    """A door that answers 503 is told to the stream callback; then the action decides."""

    async def work() -> None:
        async with phone("refuse") as server, TwilioSimulator() as sim:
            record = await sim.call(voice_url=server.voice_url)
            assert record.codes() == [31920]
            errors = [form["StreamError"] for path, form, _ in server.forms if path == "/stream-status"]
            assert errors == ["31920 HTTP 503 instead of 101"]
            assert "/after" in server.paths()

    run(work())


@pytest.mark.parametrize(("url", "code"), [
    ("wss://127.0.0.1:1/stream", 31902),
    ("ws://voice.example.com/stream", 31922),
    ("https://127.0.0.1:1/stream", 31922),
])
def test_stream_that_cannot_begin_is_named_by_twilios_code(run: Run, url: str, code: int) -> None:
    """Nobody listening, and a scheme that is not wss."""

    def document(server: PhoneServer) -> str:
        response, connect = VoiceResponse(), Connect()
        connect.stream(url=url)
        response.append(connect)
        return str(response)

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            server.document = document
            record = await sim.call(voice_url=server.voice_url)
            assert record.codes() == [code]
            assert record.ended_by == "application"

    run(work())


@pytest.mark.parametrize(("status", "content_type", "document", "code"), [
    (500, "text/xml", "<Response/>", 11200),
    (200, "application/json", "{}", 12300),
    (200, "text/xml", "<Response><Say>", 12100),
    (200, "text/xml", "", 12100),
])
def test_broken_document_ends_in_twilios_apology(
    run: Run, status: int, content_type: str, document: str, code: int
) -> None:
    """The caller hears that an error has occurred, and the call is over."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator(clips_only=True) as sim:
            server.status, server.content_type, server.document = status, content_type, lambda _: document
            record = await sim.call(voice_url=server.voice_url, timeout_s=1.5)
            assert record.codes() == [code]
            assert (record.status, record.ended_by) == ("completed", "error")
            assert record.heard_speech()

    run(work())


def test_webhook_nobody_answers_is_11200(run: Run) -> None:
    """No server at all."""

    async def work() -> None:
        async with TwilioSimulator(clips_only=True) as sim:
            record = await sim.call(voice_url="http://127.0.0.1:1/voice", timeout_s=0.5)
            assert record.codes() == [11200]
            assert record.requests[0].status == 0

    run(work())


def test_rejected_call_was_never_answered(run: Run) -> None:
    """<Reject> leaves the caller with a busy tone and no duration."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator() as sim:
            server.document = lambda _: "<Response><Reject reason='busy'/></Response>"
            record = await sim.call(voice_url=server.voice_url, status_callback=server.url("call-status"))
            assert (record.status, record.ended_by, record.answered_s) == ("busy", "refused", None)
            assert server.forms[-1][1]["CallStatus"] == "busy"

    run(work())


def test_played_file_is_heard(run: Run, tmp_path: Path) -> None:
    """<Play> fetches a WAV file and plays it; one that is missing is 11200."""
    path = tmp_path / "tone.wav"
    write_wav(path, TONE * 20)

    class File(RequestHandler):
        """A sound."""

        def get(self) -> None:
            """Return it."""
            self.set_header("Content-Type", "audio/wav")
            self.write(path.read_bytes())

    async def work() -> None:
        sockets = bind_sockets(0, "127.0.0.1")
        files = HTTPServer(Application([("/tone.wav", File)], log_function=lambda _: None))
        files.add_sockets(sockets)
        base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        document = f"<Response><Play>{base}/tone.wav</Play><Play>{base}/no.wav</Play><Pause/><Hangup/></Response>"
        async with TwilioSimulator() as sim:
            record = await sim.call(twiml=document)
        files.stop()
        await files.close_all_connections()
        (speech,) = record.heard_speech()
        assert speech.ends_s - speech.begins_s == pytest.approx(0.4, abs=0.05)
        assert record.codes() == [11200]

    run(work())


def test_dial_waits_and_then_ends(run: Run) -> None:
    """A <Dial> without action ends the call when the other side is done."""

    async def work() -> None:
        async with phone() as server, TwilioSimulator(dial_s=0.2) as sim:
            response, dial = VoiceResponse(), Dial(caller_id="+15005550106")
            dial.number("+15005550199")
            response.append(dial)
            record = await sim.call(twiml=str(response))
            assert (record.dialled, record.ended_by) == (["+15005550199"], "application")
            assert record.duration_s == pytest.approx(0.2, abs=0.1)
            assert server.forms == []

    run(work())


