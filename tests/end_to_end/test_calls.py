"""Phone calls from webhook to stored transcript: what the caller hears, says, and what is kept of it.

All calls of this file are made at the same time on one server; each test looks at one. Levels are of what reached the
caller's ear at the simulated Twilio, sample by sample, not of what was sent.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from core.calls import iso
from core.twiml import stream_url
from simulator.audio import PCMU, decode_samples, rms
from simulator.twilio_caller import HangUp, Speak, heard, polite, quiet
from simulator.twilio_ear import FRAME_BYTES, stretches
from simulator.vad import FRAME_MS, Change, SpeechDetector, VadSettings
from tests.fakes.main_app import MainApp
from tests.fakes.phone_gateway import (
    BYTES_PER_S,
    LOUD,
    MASTER,
    PUBLIC_URL,
    SPEECH,
    SUBACCOUNT,
    Made,
    PhoneGateway,
    Ring,
    length,
    level,
    part,
)
from tests.fakes.scripted_http import Answer, ScriptedHttp
from tests.handlers.conftest import assert_settled

INTERNAL_KEY = "internal-key-of-the-tests"
OPENAI_KEY = "sk-simulated-key-out-of-the-vault"
SUB_SECRET_ID, OPENAI_SECRET_ID = (str(uuid.UUID(int=number)) for number in (0xE1, 0xE2))
SECRETS = {SUB_SECRET_ID: SUBACCOUNT.auth_token, OPENAI_SECRET_ID: OPENAI_KEY}

LONG_GREETING = "Good morning, this is the very long greeting of a place that has a lot to say before you may speak."
PRESENCE, HANG_UP = "Is anybody there?", "Nobody speaks. Goodbye."

RINGS: Mapping[str, Ring] = {
    "talk": Ring(
        {
            "instructions": "You answer for the harbour office.", "voice": "cedar", "personality": "calm and dry",
            "accent": "Scottish", "language": "en-GB", "speed": 1.2, "greeting": "Good morning, harbour office.",
        },
        polite(SPEECH),
        {"status_callback": f"{PUBLIC_URL}/api/twilio/status"},
    ),
    "cut": Ring(
        {"instructions": "[test long answer]"},
        [Speak(SPEECH, quiet(0.6)), Speak(SPEECH, heard(2.0)), HangUp(heard(0.8))],
    ),
    "cut twice": Ring(
        {"instructions": "[test long answer]"},
        [Speak(SPEECH, quiet(0.6)), Speak(SPEECH, heard(1.0)), Speak(SPEECH, heard(1.4)), HangUp(heard(0.6))],
    ),
    "cut greeting": Ring({"greeting": LONG_GREETING}, [Speak(SPEECH, heard(1.0)), HangUp(quiet(1.0))]),
    "protected": Ring(
        {"greeting": LONG_GREETING, "call_settings": {"allow_interruptions": False}},
        [Speak(SPEECH, heard(1.0)), HangUp(quiet(2.5))],
    ),
    "silent": Ring(
        {
            "call_settings": {
                "silence_timeout_s": 1.5, "presence_message": PRESENCE, "presence_delay_s": 1.0,
                "hangup_message": HANG_UP,
            }
        }
    ),
    "limit": Ring({"call_settings": {"max_duration_s": 10, "silence_timeout_s": 60}}),
    "phrase": Ring({"call_settings": {"end_call_phrases": ["speech, 0.9"]}}, [Speak(SPEECH, quiet(0.6))]),
    "put": Ring({"greeting": "Nobody should hear this."}, [HangUp(quiet(1.0))]),
    "fetched": Ring({"greeting": "Nobody should hear this."}, [HangUp(quiet(1.0))]),
    "subaccount": Ring(
        {"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]},
        [Speak(SPEECH, quiet(0.6))],
        {"account_sid": SUBACCOUNT.sid},
        {"account_sid": SUBACCOUNT.sid, "auth_token_secret_id": SUB_SECRET_ID},
    ),
}  # fmt: skip


class Interruption(NamedTuple):
    """Which utterance of which call cuts an answer, and which of the stored cut answers that is."""

    call: str
    utterance: int
    answer: int


CUTS = (
    Interruption("cut", 1, 0), Interruption("cut greeting", 0, 0),
    Interruption("cut twice", 1, 0), Interruption("cut twice", 2, 1),
)  # fmt: skip


def vault() -> ScriptedHttp:
    """Return a project whose Vault holds the OpenAI key and a subaccount's token; everything else of it is absent."""

    def secret(request: Any) -> Answer:
        return Answer(200, [{"key": value} for key, value in SECRETS.items() if key in request.body])

    row = {"vault_secret_id": OPENAI_SECRET_ID, "is_active": True}
    answers: dict[str, Any] = {
        "/rest/v1/rpc/get_secret": secret,
        "/rest/v1/system_api_keys": Answer(200, [row]),
        "/auth/v1/.well-known/jwks.json": Answer(200, {"keys": []}),
    }
    return ScriptedHttp(answers)


@pytest.fixture(scope="module")
def app() -> Iterator[MainApp]:
    """The app of the agents' owner."""
    with MainApp(INTERNAL_KEY, auth_token=MASTER.auth_token, stream_url=stream_url(PUBLIC_URL)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(app: MainApp) -> Iterator[PhoneGateway]:
    """A server with all numbers, the main app, and a Vault."""
    with ExitStack() as stack:
        project = stack.enter_context(vault())
        settings = {
            "SUPABASE_URL": project.url, "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_of_the_tests",
            "MAIN_APP_URL": app.url, "INTERNAL_API_KEY": INTERNAL_KEY,
        }  # fmt: skip
        running = stack.enter_context(PhoneGateway(RINGS, settings))
        app.gateway_url = running.url
        for name in ("put", "fetched"):
            app.calls[running.number_of(name)] = {
                "agent_id": running.agent_id_of(name), "user_id": running.user_id, "account_sid": MASTER.sid,
                "config": {"greeting": f"The main app greets, {name}.", "speed": 0.9},
            }  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def calls(gateway: PhoneGateway, app: MainApp) -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over the server holds nothing of them."""
    urls = {"put": app.put_url, "fetched": app.fetch_url}
    made = {name: gateway.ring(name, **({"voice_url": urls[name]} if name in urls else {})) for name in RINGS}
    made["talk again"] = gateway.ring("talk")
    yield made
    for call in made.values():
        assert call.record.rejected == []
        assert call.record.warnings == []
        assert call.row["end_reason"]
    assert_settled(gateway, 3.0, ())


class Cut(NamedTuple):
    """An answer that the caller cut; all in seconds of the call, counted in frames and not by the clock.

    Attributes:
        began: When the caller heard the first of it.
        opened: When the model's voice detection opened on what the caller said.
        silent: When the caller heard the last of it.
    """

    began: float
    opened: float
    silent: float


def cut_by(call: Made, utterance: int) -> Cut:
    """Return the answer that was cut by what the caller said at that place of the call."""
    spoken = stretches(bytes(call.record.said))[utterance]
    answer = next(stretch for stretch in call.speech if stretch.begins_s < spoken.begins_s < stretch.ends_s)
    return Cut(answer.begins_s, opened_at(call, spoken.begins_s - 0.1), answer.ends_s)


def opened_at(call: Made, after_s: float) -> float:
    """Return when the voice detection opened: the simulated model's own detector, fed with what the line carried."""
    detector, settings = SpeechDetector(), VadSettings(600.0, 300, 500)
    said = bytes(call.record.said)
    for number in range(round(after_s * 1000 / FRAME_MS), len(said) // FRAME_BYTES):
        frame = decode_samples(said[number * FRAME_BYTES : (number + 1) * FRAME_BYTES], PCMU)
        if detector.hear(rms(frame), settings) is Change.STARTED:
            return (number + 1) * FRAME_MS / 1000
    raise AssertionError("the caller did not speak")


def interrupted(call: Made) -> list[dict[str, Any]]:
    """Return the stored answers that were cut."""
    return [row for row in call.messages if row["status"] == "interrupted"]


# ---------------------------------------------------------------------- hearing and being heard


def test_greeting_and_answer_are_audible(calls: dict[str, Made]) -> None:
    """The caller hears the greeting within two seconds, and after a question an answer, both at the level of speech."""
    call = calls["talk"]
    greeting, *answer = call.speech
    assert greeting.begins_s < 2.0
    assert length(greeting) > 0.7 and sum(map(length, answer)) > 2.0
    assert all(level(part(call.record.heard, stretch)) > LOUD for stretch in call.speech)
    assert call.said("assistant")[0] == "Good morning, harbour office."
    assert call.said("user") == ["(speech, 0.9 seconds)"]


def test_the_model_heard_the_caller_well(calls: dict[str, Made]) -> None:
    """The simulated model repeats what it heard, with its own resampling: the same length, the same level."""
    call = calls["talk"]
    repeated = call.speech[-1]
    assert abs(length(repeated) - len(SPEECH) / BYTES_PER_S) < 0.15
    assert 0.85 < level(part(call.record.heard, repeated)) / level(SPEECH) < 1.15


def test_answers_and_pauses_are_where_they_belong(calls: dict[str, Made]) -> None:
    """Before the greeting, and between greeting and question, the line is silent: no filling of loud zero bytes."""
    call = calls["talk"]
    assert level(call.record.heard[: round(call.speech[0].begins_s * BYTES_PER_S)]) < 50
    between = call.record.heard[round((call.speech[0].ends_s + 0.2) * BYTES_PER_S) :][: BYTES_PER_S // 2]
    assert level(between) < 50


def test_the_agents_whole_style_reaches_the_model(calls: dict[str, Made]) -> None:
    """Prompt, personality, accent, language, speed and voice are in the session, and both formats are mu-law."""
    config = calls["talk"].sessions[0].config
    assert config is not None
    for words in ("harbour office", "calm and dry", "Scottish accent", "en-GB"):
        assert words in config["instructions"]
    audio = config["audio"]
    assert (audio["output"]["voice"], audio["output"]["speed"]) == ("cedar", 1.2)
    assert audio["input"]["transcription"]["language"] == "en"
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcmu"}
    assert "modalities" not in config and "temperature" not in config


def test_usage_and_cost_are_stored(calls: dict[str, Made]) -> None:
    """The conversation has its call, minutes of voice on both sides, tokens, cost and how it ended."""
    row = calls["talk"].conversation
    assert (row["channel"], row["call_sid"], row["end_reason"]) == ("phone", calls["talk"].sid, "client_left")
    assert row["turn_count"] == 3 and row["cost_usd"] > 0
    usage = row["usage"]
    assert usage["responses"] == 2 and usage["tokens"]["output_audio"] > 50 and usage["transcription_s"] > 0
    heard_ms = sum(row["heard_ms"] or 0 for row in calls["talk"].messages)
    assert abs(usage["voiced_ms"]["agent"] - heard_ms) < 200
    assert heard_ms > sum(map(length, calls["talk"].speech)) * 1000  # pauses between words are voice too
    assert 900 <= usage["voiced_ms"]["caller"] <= 2_000


def test_two_calls_of_one_number_know_nothing_of_each_other(calls: dict[str, Made]) -> None:
    """The same number rings twice at once: both hear everything, and are stored apart."""
    one, two = calls["talk"], calls["talk again"]
    assert one.conversation["id"] != two.conversation["id"]
    assert one.said("assistant") == two.said("assistant")
    assert abs(sum(map(length, one.speech)) - sum(map(length, two.speech))) < 0.3


def test_no_configuration_is_left_after_the_call(calls: dict[str, Made]) -> None:
    """The call's row keeps who and when; configuration and token are gone."""
    for name in ("talk", "put", "fetched"):
        row = calls[name].row
        assert (row["config"], row["token_hash"]) == ("{}", None)
        assert row["claimed_at"] and row["end_reason"] == "client_left"


def test_nothing_secret_is_in_the_twiml(calls: dict[str, Made]) -> None:
    """The documents hold addresses and a one-time token, and nobody can put more in by asking."""
    for name, call in calls.items():
        for document in call.record.twiml:
            names = set(re.findall(r'<Parameter name="(\w+)"', document))
            assert names <= {"token"}
            for secret in (OPENAI_KEY, MASTER.auth_token, SUBACCOUNT.auth_token, "harbour", f"<{name}>", INTERNAL_KEY):
                assert secret not in document


# ---------------------------------------------------------------------- cutting in


def test_cutting_in_silences_the_agent_at_once(calls: dict[str, Made]) -> None:
    """Within 200 ms of the moment the voice detection opens, which takes 60 ms of speech, the caller hears nothing.

    What is measured: from the end of the frame that opened the detection, as it left the caller, to the last frame with
    a voice in it that reached the ear. The way through the telephone network is not in it.
    """
    for cut in CUTS:
        found = cut_by(calls[cut.call], cut.utterance)
        assert found.silent - found.opened <= 0.2, f"{cut.call}: {found.silent - found.opened:.3f} s"


def test_nothing_is_blurted_out_after_the_cut(calls: dict[str, Made]) -> None:
    """The rest of the cut answer never reaches the ear, though the model had sent seconds of it."""
    call = calls["cut"]
    opened = cut_by(call, 1).opened
    following = [stretch for stretch in call.speech if stretch.begins_s > opened]
    assert following and following[0].begins_s - opened > 1.0  # the caller's own 0.9 s and the pause come first
    assert call.record.clears and any(mark.flushed for mark in call.record.marks)
    names = [mark.name for mark in call.record.marks]
    assert len(set(names)) == len(names)


def test_the_stored_answer_ends_where_the_caller_stopped_hearing(calls: dict[str, Made]) -> None:
    """`heard_ms` is what the ear recorded, within 150 ms, of the second interruption as of the first."""
    for cut in CUTS:
        found, stored = cut_by(calls[cut.call], cut.utterance), interrupted(calls[cut.call])[cut.answer]
        assert abs(stored["heard_ms"] - (found.silent - found.began) * 1000) <= 150, cut
        assert stored["heard_ms"] < stored["spoken_ms"]
    content = interrupted(calls["cut"])[0]["content"]
    assert content.startswith("I will count to thirty. one,") and "ten" not in content


def test_the_model_remembers_what_was_heard_and_no_more(calls: dict[str, Made]) -> None:
    """The truncation the model is told is the stored `heard_ms`."""
    call = calls["cut"]
    (session,) = call.sessions
    (truncation,) = session.events("conversation.item.truncate")[:1]
    cut = interrupted(call)[0]
    assert (truncation["item_id"], truncation["audio_end_ms"]) == (cut["item_id"], cut["heard_ms"])


def test_a_greeting_may_be_cut(calls: dict[str, Made]) -> None:
    """Who knows what they want need not hear the greeting out."""
    greeting = calls["cut greeting"].messages[0]
    assert greeting["status"] == "interrupted" and greeting["heard_ms"] < greeting["spoken_ms"] - 1_000


def test_a_protected_greeting_is_heard_out(calls: dict[str, Made]) -> None:
    """With `allow_interruptions` off the caller's voice cuts nothing, and is answered afterwards."""
    call = calls["protected"]
    greeting = call.messages[0]
    assert (greeting["status"], greeting["content"]) == ("complete", LONG_GREETING)
    assert call.record.clears == []
    assert length(call.speech[0]) * 1000 > greeting["spoken_ms"] - 800
    assert "(speech, 0.9 seconds)" in call.said("user")


# ---------------------------------------------------------------------- ends


def test_a_silent_caller_is_asked_and_then_hung_up_on(calls: dict[str, Made]) -> None:
    """Greeting, presence question, hang-up message, each heard to its end; then the line is released as idle."""
    call = calls["silent"]
    assert call.said("assistant") == ["Good morning.", PRESENCE, HANG_UP]
    greeting, question, *message = call.speech
    assert 1.3 <= question.begins_s - greeting.ends_s <= 6.0
    assert 0.8 <= message[0].begins_s - question.ends_s <= 5.0
    assert all(row["status"] == "complete" and row["heard_ms"] == row["spoken_ms"] for row in call.messages)
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("idle", "idle")
    assert call.record.status == "completed" and call.record.ended_by != "caller"


def test_a_call_limit_is_announced_and_kept(calls: dict[str, Made]) -> None:
    """Of ten seconds the caller is told, hears last words at the end, and the call ends with `time_limit`."""
    call = calls["limit"]
    _, *rest = call.speech
    assert 6.0 <= rest[0].begins_s <= 8.5
    assert 10.0 <= rest[-1].ends_s <= 20.0 and call.record.duration_s <= 21.0
    _, warning, last = [row for row in call.messages if row["role"] == "assistant"]
    assert warning["heard_ms"] > 1_000
    assert last["status"] == "complete" and last["heard_ms"] == last["spoken_ms"]
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("time_limit", "time_limit")
    asked = [event["response"]["instructions"] for event in call.sessions[0].events("response.create")]
    assert "ends in 3 seconds" in asked[1] and "time for this call is over" in asked[2]


def test_an_end_phrase_ends_the_call_with_a_goodbye(calls: dict[str, Made]) -> None:
    """A phrase of the owner's choice in what the caller said is answered by a goodbye; then the line is released."""
    call = calls["phrase"]
    assert call.conversation["end_reason"] == "agent_ended"
    assert "goodbye" in call.sessions[0].events("response.create")[-1]["response"]["instructions"].lower()
    assert len(call.speech) >= 2 and call.record.ended_by != "caller"


# ---------------------------------------------------------------------- who announces the call


def test_the_main_app_may_put_a_call_and_answer_the_webhook_itself(calls: dict[str, Made], app: MainApp) -> None:
    """Its TwiML carries our token; the caller hears the greeting that was put for this call alone."""
    call = calls["put"]
    assert call.said("assistant")[0] == "The main app greets, put."
    assert call.sessions[0].config and call.sessions[0].config["audio"]["output"]["speed"] == 0.9
    assert app.answers[0]["call_sid"] == call.sid and app.answers[0]["stream_url"] == stream_url(PUBLIC_URL)
    assert level(part(call.record.heard, call.speech[0])) > LOUD


def test_the_main_app_may_be_asked_for_a_call(calls: dict[str, Made], app: MainApp) -> None:
    """Without a row its configuration is fetched with the internal key; the signature is the proof."""
    call = calls["fetched"]
    assert call.said("assistant")[0] == "The main app greets, fetched."
    assert (f"/api/twilio/call-config/{call.sid}", f"Bearer {INTERNAL_KEY}") in app.asked


def test_a_subaccounts_call_works_with_its_own_token(calls: dict[str, Made], gateway: PhoneGateway) -> None:
    """Webhook and handshake are believed by the token in the Vault, and the goodbye's REST request is made with it."""
    call = calls["subaccount"]
    assert call.record.account_sid == SUBACCOUNT.sid
    assert call.conversation["end_reason"] == "agent_ended"
    path = f"/2010-04-01/Accounts/{SUBACCOUNT.sid}/Calls/{call.sid}.json"
    assert f"POST {path}" in gateway.twilio.rest_requests


def test_an_announced_call_that_never_came_leaves_nothing(gateway: PhoneGateway) -> None:
    """After its 300 s the row of a call nobody claimed is gone, configuration and all."""
    sid = f"CA{uuid.uuid4().hex}"
    body = {"agent_id": gateway.agent_id_of("talk"), "user_id": gateway.user_id, "config": {"greeting": "Secret."}}
    answer = httpx.put(f"{gateway.url}/api/calls/{sid}", json=body, headers={"Authorization": f"Bearer {INTERNAL_KEY}"})
    assert answer.status_code == 200
    store, now = gateway.server.context.store, datetime.now(UTC)
    gateway.run(store.remove_expired(iso(now + timedelta(seconds=290))))
    assert len(gateway.rows("select * from calls where call_sid = ?", sid)) == 1
    gateway.run(store.remove_expired(iso(now + timedelta(seconds=301))))
    assert gateway.rows("select * from calls where call_sid = ?", sid) == []
