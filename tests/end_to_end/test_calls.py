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
from typing import Any

import httpx
import pytest

from core.calls import iso
from core.twiml import stream_url
from simulator.twilio_caller import HangUp, Speak, quiet
from tests.fakes.browser import eventually
from tests.fakes.main_app import MainApp
from tests.fakes.phone_gateway import (
    ASKS,
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

PRESENCE, HANG_UP = "Is anybody there?", "Nobody speaks. Goodbye."

RINGS: Mapping[str, Ring] = {
    "talk": Ring(
        {
            "instructions": "You answer for the harbour office.", "voice": "cedar", "personality": "calm and dry",
            "accent": "Scottish", "language": "en-GB", "speed": 1.2, "greeting": "Good morning, harbour office.",
        },
        ASKS,
        {"status_callback": f"{PUBLIC_URL}/api/twilio/status"},
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
    "guarded": Ring(
        {"instructions": "[test tool]", "tools": [{"name": "inside", "url": "http://127.0.0.1:1/admin"}]}, ASKS
    ),
    "put": Ring({"greeting": "Nobody should hear this."}, [HangUp(quiet(1.0))]),
    "fetched": Ring({"greeting": "Nobody should hear this."}, [HangUp(quiet(1.0))]),
    "subaccount": Ring(
        {"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]},
        [Speak(SPEECH, quiet(0.6))],
        {"account_sid": SUBACCOUNT.sid},
        {"account_sid": SUBACCOUNT.sid, "auth_token_secret_id": SUB_SECRET_ID},
    ),
}  # fmt: skip


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
def busy() -> dict[str, Any]:
    """What /health says while the calls of this file are held; filled by `calls`."""
    return {}


@pytest.fixture(scope="module")
def calls(gateway: PhoneGateway, app: MainApp, busy: dict[str, Any]) -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over the server holds nothing of them."""
    urls = {"put": app.put_url, "fetched": app.fetch_url}
    made = {name: gateway.ring(name, **({"voice_url": urls[name]} if name in urls else {})) for name in RINGS}
    made["talk again"] = gateway.ring("talk")
    busy |= eventually(lambda: _health(gateway), 10.0) or {}
    yield made
    for call in made.values():
        assert call.record.rejected == []
        assert call.record.warnings == []
        assert call.row["end_reason"]
    assert_settled(gateway, 3.0, ())


def _health(gateway: PhoneGateway) -> dict[str, Any] | None:
    """Return what /health says once it counts three calls."""
    report: dict[str, Any] = httpx.get(f"{gateway.health_url}/health").json()
    return report if report["phone"] >= 3 else None


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


def test_phone_calls_are_counted_in_health(calls: dict[str, Made], busy: dict[str, Any]) -> None:
    """While calls are held /health counts them, and the database was asked."""
    assert calls and 3 <= busy["phone"] <= len(calls)
    assert busy["browser"] == 0 and busy["activeConnections"] >= busy["phone"]
    assert busy["checks"]["database"]["status"] == "up"


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


# ---------------------------------------------------------------------- tools


def test_a_tool_that_leads_inside_is_refused(calls: dict[str, Made]) -> None:
    """An address of this machine is not asked, whoever typed it in; the model is told and talks on."""
    call = calls["guarded"]
    assert call.told() == [{"error": "The service could not be reached."}]
    assert "could not be reached" in call.said("assistant")[-1] and len(call.speech) >= 2


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
