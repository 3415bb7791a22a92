"""Phone calls at the door: strangers, streams that misbehave, calls for which nothing is ready.

Whatever fails, a caller hears a sentence and the line is released; who is no caller hears nothing. All calls of this
file are made at the same time on one server; each test looks at one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from core.twiml import connect_stream
from simulator.twilio_caller import HangUp, Speak, at, quiet
from tests.fakes.phone_gateway import (
    APOLOGY_S,
    ASKS,
    BYTES_PER_S,
    PUBLIC_URL,
    SPEECH,
    Made,
    PhoneGateway,
    Ring,
    announced,
    answered,
    heard_apology,
    length,
)
from tests.handlers.conftest import assert_settled

SORRY_OF_OWNER = "Our line is out of order, dear caller."
LISTENS = [HangUp(quiet(1.0, patience_s=15.0))]
OWNERS = {"call_settings": {"error_message": SORRY_OF_OWNER}}

RINGS: Mapping[str, Ring] = {
    "wrong webhook": Ring(plan={"faults": ["wrong_webhook_signature"]}),
    "wrong stream": Ring(OWNERS, plan={"faults": ["wrong_stream_signature"]}),
    "no signature": Ring(OWNERS, plan={"faults": ["no_stream_signature"]}),
    "no token": Ring(OWNERS, plan={"faults": ["no_parameters"]}),
    "no start": Ring(OWNERS, plan={"faults": ["no_start"]}),
    "late start": Ring(actions=ASKS, plan={"faults": ["late_start"]}),
    "long call": Ring({"call_settings": {"silence_timeout_s": 60}}, [Speak(SPEECH, at(6.5)), HangUp(quiet(1.5))]),
    "start twice": Ring(actions=ASKS, plan={"faults": ["start_twice"]}),
    "media first": Ring(actions=ASKS, plan={"faults": ["media_first"]}),
    "strange messages": Ring(actions=ASKS, plan={"faults": ["unknown_events", "foreign_track", "garbage_text"]}),
    "wrong format": Ring(OWNERS, plan={"faults": ["wrong_format"]}),
    "foreign account": Ring(OWNERS, plan={"faults": ["foreign_account"]}),
    "browser": Ring(OWNERS, plan={"faults": ["browser_origin"]}),
    "replayed": Ring(actions=ASKS, plan={"faults": ["replayed_token"]}),
    "stolen": Ring(actions=ASKS, plan={"faults": ["stolen_token"]}),
    "hangs up": Ring(plan={"faults": ["stop_mid_answer"]}),
    "dies": Ring(plan={"faults": ["socket_dies:5000"]}),
    "half open": Ring(plan={"faults": ["half_open:3000"], "timeout_s": 20.0}),
    "jitter": Ring(actions=ASKS, plan={"faults": ["jitter", "lost_frames"]}),
    "nonsense": Ring(
        {
            "tools": {"no": "list"}, "call_settings": "nonsense", "turn_detection": [1], "knowledge": "{",
            "voice": "nova",
        },
        ASKS,
    ),
    "refused session": Ring({"turn_detection": {"type": "server_vad", "threshold": 7}}, ASKS),
    "retired": Ring({"voice": "fable"}, LISTENS),
    "expired": Ring(), "unannounced": Ring(), "agent gone": Ring(OWNERS), "announced": Ring(actions=ASKS),
}  # fmt: skip


def ring_at_door(gateway: PhoneGateway) -> dict[str, Made]:
    """Make the calls of the server that is whole."""
    special = {
        "expired": announced(gateway, "expired", expires_in_s=-1.0),
        "unannounced": {"twiml": connect_stream(PUBLIC_URL, "a-token-of-nobody"), "voice_url": ""},
        "agent gone": announced(gateway, "agent gone"),
        "announced": announced(gateway, "announced"),
    }
    row = {"id": gateway.agent_id_of("agent gone"), "user_id": gateway.user_id, "is_active": False}
    store: Any = gateway.server.context.store
    gateway.run(store.put_agent(row))
    return {name: gateway.ring(name, **special.get(name, {})) for name in RINGS}


@pytest.fixture(scope="module")
def gateway() -> Iterator[PhoneGateway]:
    """A server that is whole."""
    with PhoneGateway(RINGS) as running:
        yield running


@pytest.fixture(scope="module")
def calls(gateway: PhoneGateway) -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over the server holds nothing of them."""
    made = ring_at_door(gateway)
    yield made
    assert all(call.record.rejected == [] for call in made.values())
    assert_settled(gateway, 3.0, ("stream failed", "stream never began"))


# ---------------------------------------------------------------------- who is no caller of ours


def test_a_webhook_with_a_wrong_signature_gets_nothing(
    calls: dict[str, Made], gateway: PhoneGateway
) -> None:
    """It is refused before a row is written; at Twilio the call ends with 11200."""
    call = calls["wrong webhook"]
    assert call.record.ended_by == "error" and call.record.stream_sids == []
    assert gateway.rows("select * from calls where call_sid = ?", call.sid) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [("wrong stream", 4001), ("no signature", 4001), ("no token", 4001), ("no start", 4000), ("wrong format", 4000)],
)
def test_a_stream_that_is_not_believed_is_closed_and_the_caller_is_told(
    calls: dict[str, Made], gateway: PhoneGateway, name: str, code: int
) -> None:
    """No audio, no session at the model; `action` then speaks the owner's error message."""
    call = calls[name]
    assert call.record.close_codes == [code]
    assert call.record.received_bytes == 0 and call.sessions == []
    assert call.record.spoken == [SORRY_OF_OWNER]
    assert call.record.status == "completed" and call.row["end_reason"] == "internal"
    assert gateway.rows("select * from conversations where call_sid = ?", call.sid) == []


def test_a_stream_without_start_is_closed_after_five_seconds(calls: dict[str, Made]) -> None:
    """The deadline is five seconds, and it is the server's."""
    call = calls["no start"]
    opened, closed = (call.record.events(event)[0].at_s for event in ("stream_started", "stream_closed"))
    assert 4.8 <= closed - opened <= 7.0


def test_the_deadline_of_start_ends_no_call_that_has_started(calls: dict[str, Made]) -> None:
    """A call goes on after five seconds, with a start at once as with one after three."""
    assert answered(calls["long call"]) and calls["long call"].record.duration_s > 8.0
    assert answered(calls["late start"]) and calls["late start"].conversation["end_reason"] == "client_left"


def test_an_account_that_signed_nothing_is_refused(calls: dict[str, Made]) -> None:
    """`start` names an account whose token is not known and that does not own the call: nobody speaks."""
    call = calls["foreign account"]
    assert call.record.close_codes == [4001] and call.record.received_bytes == 0 and call.sessions == []


def test_browsers_have_no_business_here(calls: dict[str, Made]) -> None:
    """A handshake with an Origin is answered 403, which Twilio calls 31920; the caller hears the owner's apology."""
    call = calls["browser"]
    assert 31920 in call.record.codes() and call.record.stream_sids == []
    assert call.record.spoken == [SORRY_OF_OWNER]


@pytest.mark.parametrize("name", ["replayed", "stolen"])
def test_a_token_works_once_and_for_its_own_call(calls: dict[str, Made], name: str) -> None:
    """A second socket with the same token opens no session and cuts nobody off.

    For the same call it is closed without a sound. For another call, which nobody announced, Twilio's signature makes
    it a caller who is told so.
    """
    call = calls[name]
    assert len(call.sessions) == 1 and answered(call)
    audio_bytes, code = call.record.intruder["audio_bytes"], call.record.intruder["close_code"]
    assert (audio_bytes, code) == (0, 4001) if name == "replayed" else audio_bytes <= (APOLOGY_S + 0.1) * BYTES_PER_S


# ---------------------------------------------------------------------- who is a caller, and nothing is ready


@pytest.mark.parametrize("name", ["expired", "unannounced", "agent gone"])
def test_a_call_without_a_configuration_hears_an_apology(calls: dict[str, Made], name: str) -> None:
    """Twilio signed, so somebody waits: the shipped sentence is heard, then the line is released."""
    call = calls[name]
    assert heard_apology(call)
    assert call.record.close_codes == [4004] and call.record.status == "completed"
    assert call.record.ended_by == "application" and call.sessions == []


def test_the_end_of_a_call_whose_agent_is_gone_is_kept(calls: dict[str, Made]) -> None:
    """Its row says why it ended."""
    assert calls["agent gone"].row["end_reason"] == "not_found"


def test_a_row_the_main_app_wrote_is_enough(calls: dict[str, Made]) -> None:
    """A call that was written into the table, with a token of the app's own, is answered."""
    assert answered(calls["announced"])


def test_a_row_full_of_nonsense_does_not_silence_the_agent(
    calls: dict[str, Made], gateway: PhoneGateway
) -> None:
    """Each bad column falls back to its default; the log names the columns for the owner."""
    assert answered(calls["nonsense"])
    assert "fields=call_settings,turn_detection,tools,knowledge" in gateway.log_text()


def test_a_session_the_model_refuses_is_asked_for_with_less(calls: dict[str, Made]) -> None:
    """A setting that only the model can judge costs the caller nothing."""
    call = calls["refused session"]
    assert len(call.sessions) == 1 and call.conversation["end_reason"] == "client_left"
    assert call.said("assistant")[0] == "Good morning." and sum(map(length, call.speech)) > 2.0


def test_voices_of_older_models_are_replaced(calls: dict[str, Made]) -> None:
    """`fable` and `nova`, which the model does not have, are heard as their replacements."""
    for name, voice in (("retired", "ballad"), ("nonsense", "coral")):
        config = calls[name].sessions[0].config
        assert config is not None and config["audio"]["output"]["voice"] == voice


# ---------------------------------------------------------------------- streams that misbehave


@pytest.mark.parametrize("name", ["start twice", "media first", "strange messages"])
def test_strange_messages_are_ignored(calls: dict[str, Made], name: str) -> None:
    """The talk goes on as if they had not come, in one session."""
    assert answered(calls[name])
    assert len(calls[name].sessions) == 1 and len(calls[name].record.stream_sids) == 1


def test_lost_and_late_frames_leave_an_understandable_caller(calls: dict[str, Made]) -> None:
    """Bursts are taken as they come and holes are filled with silence, so that the model hears when to answer."""
    call = calls["jitter"]
    assert len(call.speech) >= 2 and call.said("user")
    assert call.sessions[0].audio_in_ms > 0 and call.conversation["end_reason"] == "client_left"


@pytest.mark.parametrize("name", ["hangs up", "dies", "half open"])
def test_a_caller_who_is_gone_ends_the_call_at_once(
    calls: dict[str, Made], gateway: PhoneGateway, name: str
) -> None:
    """With `stop`, without it, or with a line that went dead: stored as left, and the model's session is closed."""
    call = calls[name]
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("client_left", "client_left")
    assert all(not session.open for session in call.sessions)
    if name == "hangs up":
        assert not [line for line in gateway.twilio.rest_requests if call.sid in line]
