"""Phone calls that go wrong: strangers, broken streams, a model that refuses or dies, missing data, a server that stops.

Whatever fails, a caller hears a sentence and the line is released. All calls of this file are made at the same time, on
one server for each thing that is broken; each test looks at one.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.calls import Call, iso, token_hash
from core.twiml import connect_stream
from handlers.webhooks import SORRY
from services.store import StoreUnavailable
from simulator.settings import SimulatorSettings
from simulator.twilio_caller import HangUp, Speak, at, heard, polite, quiet
from simulator.twilio_faults import twilio_fault
from simulator.twilio_sids import new_sid
from tests.fakes.broken import NoKey
from tests.fakes.phone_gateway import (
    BYTES_PER_S,
    LOUD,
    MASTER,
    PUBLIC_URL,
    SPEAKER,
    SPEECH,
    Made,
    PhoneGateway,
    Ring,
    TwilioSettings,
    length,
    level,
    part,
)
from tests.handlers.conftest import assert_settled

APOLOGY_S = 4.0
"""Length of the shipped sentence."""

SORRY_OF_OWNER = "Our line is out of order, dear caller."
LISTENS = [HangUp(quiet(1.0, patience_s=15.0))]
POLITE = polite(SPEECH)
OWNERS = {"call_settings": {"error_message": SORRY_OF_OWNER}}

DOOR: Mapping[str, Ring] = {
    "wrong webhook": Ring(plan={"faults": ["wrong_webhook_signature"]}),
    "wrong stream": Ring(OWNERS, plan={"faults": ["wrong_stream_signature"]}),
    "no signature": Ring(OWNERS, plan={"faults": ["no_stream_signature"]}),
    "no token": Ring(OWNERS, plan={"faults": ["no_parameters"]}),
    "no start": Ring(OWNERS, plan={"faults": ["no_start"]}),
    "late start": Ring(actions=POLITE, plan={"faults": ["late_start"]}),
    "long call": Ring({"call_settings": {"silence_timeout_s": 60}}, [Speak(SPEECH, at(6.5)), HangUp(quiet(1.5))]),
    "start twice": Ring(actions=POLITE, plan={"faults": ["start_twice"]}),
    "media first": Ring(actions=POLITE, plan={"faults": ["media_first"]}),
    "strange messages": Ring(actions=POLITE, plan={"faults": ["unknown_events", "foreign_track", "garbage_text"]}),
    "wrong format": Ring(OWNERS, plan={"faults": ["wrong_format"]}),
    "foreign account": Ring(OWNERS, plan={"faults": ["foreign_account"]}),
    "browser": Ring(OWNERS, plan={"faults": ["browser_origin"]}),
    "replayed": Ring(actions=POLITE, plan={"faults": ["replayed_token"]}),
    "stolen": Ring(actions=POLITE, plan={"faults": ["stolen_token"]}),
    "hangs up": Ring(plan={"faults": ["stop_mid_answer"]}),
    "dies": Ring(plan={"faults": ["socket_dies"]}),
    "half open": Ring(plan={"faults": ["half_open:1500"], "timeout_s": 20.0}),
    "jitter": Ring(actions=POLITE, plan={"faults": ["jitter", "lost_frames"]}),
    "nonsense": Ring(
        {"tools": {"no": "list"}, "call_settings": "nonsense", "turn_detection": [1], "knowledge": "{", "voice": "nova"},
        POLITE,
    ),
    "refused session": Ring({"turn_detection": {"type": "server_vad", "threshold": 7}}, POLITE),
    "retired": Ring({"voice": "fable"}, LISTENS),
    "expired": Ring(), "unannounced": Ring(), "agent gone": Ring(OWNERS), "announced": Ring(actions=POLITE),
}  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A server of which one thing is broken.

    Attributes:
        rings: Its calls.
        faults: Of the first sessions at the model, in order: name and after how many events it strikes.
        always: Faults of every session.
        simulator: The model.
        twilio: The telephone company.
        breaks: Breaks the running server.
        accidents: Words of ERROR lines that are expected.
    """

    rings: Mapping[str, Ring]
    faults: tuple[tuple[str, int | None], ...] = ()
    always: tuple[tuple[str, float | None], ...] = ()
    simulator: SimulatorSettings = SPEAKER
    twilio: TwilioSettings = field(default_factory=TwilioSettings)
    breaks: Callable[[PhoneGateway], None] = lambda gateway: None
    accidents: tuple[str, ...] = ()


class GoneStore:
    """A database that is away, whatever it is asked."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def close(self) -> None:
        """Close the real one."""
        await self._store.close()

    def __getattr__(self, name: str) -> Any:
        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("away on request")

        return away


def lose_key(gateway: PhoneGateway) -> None:
    """Let there be no API key."""
    gateway.server.context.keys = NoKey()


ANSWER_AFTER = 25
"""Audio events until the link is lost: 10 of the greeting, so in the middle of the answer."""

BROKEN: Mapping[str, Broken] = {
    "door": Broken(DOOR, accidents=("stream failed", "stream never connected")),
    "refuses": Broken({"refuses": Ring()}, always=(("refuse_500", None),)),
    "rejects": Broken({"rejects": Ring()}, always=(("refuse_401", None),)),
    "no quota": Broken({"no quota": Ring()}, always=(("insufficient_quota", None),)),
    "no key": Broken({"no key": Ring()}, breaks=lose_key, accidents=("no API key",)),
    "recovers": Broken(
        {"recovers": Ring(actions=[Speak(SPEECH, quiet(0.6)), HangUp(quiet(2.5, patience_s=10.0))])},
        faults=(("drop_mid_audio", ANSWER_AFTER),),
    ),
    "dies for good": Broken(
        {"dies for good": Ring({"instructions": "[test long answer]"}, [Speak(SPEECH, quiet(0.6))])},
        faults=(("drop_mid_audio", ANSWER_AFTER), *[("refuse_500", None)] * 8),
    ),
    "slow": Broken(
        {"slow": Ring({"greeting": ""}, [Speak(SPEECH, at(0.4)), HangUp(quiet(1.5, patience_s=12.0))])},
        always=(("slow_handshake", 2.5),),
    ),
    "rest": Broken(
        {
            "released": Ring({"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]}, POLITE[:1]),
            "kept": Ring(
                {"instructions": "[test tool]", "tools": [{"builtin": "transfer_call"}],
                 "call_settings": {"transfer_numbers": ["+15005550111"]}},
                [Speak(SPEECH, quiet(0.6)), HangUp(quiet(1.5, patience_s=16.0))],
            ),
        },
        twilio=TwilioSettings(faults=(twilio_fault("rest_500"),)),
    ),
    "database": Broken({"database": Ring(), "webhook": Ring()}, accidents=("set-up failed", "call not", "not looked", "stat")),
    "stops": Broken({"stops": Ring({"call_settings": {"silence_timeout_s": 60}})}, accidents=("stream never",)),
}  # fmt: skip


def announced(gateway: PhoneGateway, name: str, *, expires_in_s: float = 300.0) -> dict[str, Any]:
    """Announce a call as the main app may, in the database itself; returns how it is to be dialled."""
    sid, token, now = new_sid("CA"), secrets.token_urlsafe(16), datetime.now(UTC)
    call = Call(sid, gateway.agent_id_of(name), gateway.user_id, MASTER.sid)
    times = {"created_at": iso(now), "expires_at": iso(now + timedelta(seconds=expires_in_s))}
    gateway.run(gateway.server.context.store.put_call(call, token_hash=token_hash(token), **times))
    return {"call_sid": sid, "twiml": connect_stream(PUBLIC_URL, token), "voice_url": ""}


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
    return {name: gateway.ring(name, **special.get(name, {})) for name in DOOR}


def ring_without_database(gateway: PhoneGateway) -> dict[str, Made]:
    """Make one call that was announced while there was a database, and one that was not."""
    plan = announced(gateway, "database")
    gateway.server.context.store = GoneStore(gateway.server.context.store)  # type: ignore[assignment]
    return {"database": gateway.ring("database", **plan), "webhook": gateway.ring("webhook")}


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, PhoneGateway]]:
    """Every server of this file."""
    with ExitStack() as stack:
        running = {}
        for name, broken in BROKEN.items():
            gateway = PhoneGateway(broken.rings, simulator=broken.simulator, twilio=broken.twilio)
            for fault, after in broken.faults:
                gateway.simulator.faults.next(fault, after=after)
            for fault, seconds in broken.always:
                gateway.simulator.faults.always(fault, seconds=seconds)
            running[name] = stack.enter_context(gateway)
            broken.breaks(gateway)
        yield running


@pytest.fixture(scope="module")
def calls(gateways: dict[str, PhoneGateway]) -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over no server holds anything of them."""
    special = {"door": ring_at_door, "database": ring_without_database}
    made: dict[str, Made] = {}
    for name, gateway in gateways.items():
        made |= special.get(name, PhoneGateway.ring_all)(gateway)
    stopped = made["stops"]
    until_heard(stopped)
    gateways["stops"].stop_server(0.3)
    yield made
    assert all(call.record.rejected == [] for call in made.values())
    for name, gateway in gateways.items():
        assert_settled(gateway, 3.0, BROKEN[name].accidents)


def until_heard(call: Made) -> None:
    """Return when the caller has heard something."""
    from tests.fakes.browser import eventually

    assert eventually(lambda: call.call.record.events("agent_silent"), 10.0)


def heard_apology(call: Made) -> bool:
    """Return whether the last thing the caller heard on the stream was the shipped sentence, all of it, in speech."""
    *_, last = call.speech
    return length(last) >= APOLOGY_S - 0.6 and level(part(call.record.heard, last)) > LOUD


def answered(call: Made) -> bool:
    """Return whether the call was an ordinary talk: greeting, question, answer."""
    return call.said("user") == ["(speech, 0.9 seconds)"] and sum(map(length, call.speech)) > 2.0


# ---------------------------------------------------------------------- who is no caller of ours


def test_a_webhook_with_a_wrong_signature_gets_nothing(calls: dict[str, Made], gateways: dict[str, PhoneGateway]) -> None:
    """It is refused before a row is written; at Twilio the call ends with 11200."""
    call = calls["wrong webhook"]
    assert call.record.ended_by == "error" and call.record.stream_sids == []
    assert gateways["door"].rows("select * from calls where call_sid = ?", call.sid) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [("wrong stream", 4001), ("no signature", 4001), ("no token", 4001), ("no start", 4000), ("wrong format", 4000)],
)
def test_a_stream_that_is_not_believed_is_closed_and_the_caller_is_told(
    calls: dict[str, Made], gateways: dict[str, PhoneGateway], name: str, code: int
) -> None:
    """No audio, no session at the model; `action` then speaks the owner's error message."""
    call = calls[name]
    assert call.record.close_codes == [code]
    assert call.record.received_bytes == 0 and call.sessions == []
    assert call.record.spoken == [SORRY_OF_OWNER]
    assert call.record.status == "completed" and call.row["end_reason"] == "internal"
    assert gateways["door"].rows("select * from conversations where call_sid = ?", call.sid) == []


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
    """A handshake with an Origin is answered 403, which Twilio would call 31920; the caller hears the owner's apology."""
    call = calls["browser"]
    assert 31920 in call.record.codes() and call.record.stream_sids == []
    assert call.record.spoken == [SORRY_OF_OWNER]


@pytest.mark.parametrize("name", ["replayed", "stolen"])
def test_a_token_works_once_and_for_its_own_call(calls: dict[str, Made], name: str) -> None:
    """A second socket with the same token, for the same call or another, hears nothing; the call itself goes on."""
    call = calls[name]
    assert call.record.intruder["audio_bytes"] == 0 or name == "stolen"
    assert call.record.intruder["close_code"] in {4001, 4004, None}
    assert len(call.sessions) == 1 and answered(call)


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
    calls: dict[str, Made], gateways: dict[str, PhoneGateway]
) -> None:
    """Each bad column falls back to its default; the log names the columns for the owner."""
    assert answered(calls["nonsense"])
    assert "fields=turn_detection,tools,knowledge,call_settings" in gateways["door"].log_text()


def test_a_session_the_model_refuses_is_asked_for_with_less(calls: dict[str, Made]) -> None:
    """A setting that only the model can judge costs the caller nothing."""
    assert answered(calls["refused session"])
    assert len(calls["refused session"].sessions) == 1


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
    """Bursts are taken as they come and holes are filled with silence, so that the model hears the pause and answers."""
    call = calls["jitter"]
    assert len(call.speech) >= 2 and call.said("user")
    assert call.sessions[0].audio_in_ms > 0 and call.conversation["end_reason"] == "client_left"


@pytest.mark.parametrize("name", ["hangs up", "dies", "half open"])
def test_a_caller_who_is_gone_ends_the_call_at_once(
    calls: dict[str, Made], gateways: dict[str, PhoneGateway], name: str
) -> None:
    """With `stop`, without it, or with a line that went dead: stored as left, and the model's session is closed."""
    call = calls[name]
    assert (call.conversation["end_reason"], call.row["end_reason"]) == ("client_left", "client_left")
    assert all(not session.open for session in call.sessions)
    if name == "hangs up":
        assert not [line for line in gateways["door"].twilio.rest_requests if call.sid in line]


# ---------------------------------------------------------------------- the model


@pytest.mark.parametrize(
    ("name", "end_reason", "code"),
    [("refuses", "upstream", 4502), ("rejects", "upstream", 4502), ("no quota", "upstream", 4502),
     ("no key", "key_missing", 1011)],
)  # fmt: skip
def test_a_model_that_is_not_there_is_apologised_for(
    calls: dict[str, Made], name: str, end_reason: str, code: int
) -> None:
    """The caller hears the shipped sentence to its end; then the line is released, and the reason is stored."""
    call = calls[name]
    assert heard_apology(call)
    assert call.record.duration_s < 25.0 and call.record.ended_by in {"rest", "application"}
    assert (call.conversation["end_reason"], call.row["end_reason"]) == (end_reason, end_reason)
    assert set(call.record.close_codes) <= {code, None}


def test_a_model_that_dies_for_good_is_apologised_for(calls: dict[str, Made]) -> None:
    """What was said before is kept as heard, then the apology comes."""
    call = calls["dies for good"]
    assert heard_apology(call)
    assert call.conversation["end_reason"] == "upstream"
    assert call.said("user") == ["(speech, 0.9 seconds)"]
    cut = [row for row in call.messages if row["role"] == "assistant"][1]
    assert cut["status"] == "interrupted" and cut["heard_ms"] > 500


def test_a_model_that_comes_back_goes_on(calls: dict[str, Made]) -> None:
    """A link lost in the middle of an answer is opened again; the caller stays and hears an answer."""
    call = calls["recovers"]
    assert len(call.sessions) == 2
    assert call.conversation["end_reason"] == "client_left"
    assert call.record.ended_by == "caller" and len(call.speech) >= 3
    assert call.messages[-1]["role"] == "assistant" and call.messages[-1]["status"] == "complete"


def test_what_the_caller_says_before_the_model_is_ready_is_heard(calls: dict[str, Made]) -> None:
    """The first words, said while the handshake takes its time, are in the transcript and answered."""
    call = calls["slow"]
    assert call.said("user") == ["(speech, 0.9 seconds)"]
    spoken_s = (call.record.events("caller_silent")[0].at_s - (call.record.answered_s or 0.0))
    assert spoken_s < 2.5 < call.speech[0].begins_s
    assert sum(map(length, call.speech)) > 2.0


# ---------------------------------------------------------------------- database, telephone company, server


def test_a_database_that_is_away_ends_in_a_sentence(calls: dict[str, Made]) -> None:
    """Before the stream the webhook says so; after it the shipped sentence is heard."""
    webhook, stream = calls["webhook"], calls["database"]
    assert webhook.record.spoken == [SORRY] and webhook.record.stream_sids == []
    assert webhook.record.status == stream.record.status == "completed"
    assert stream.record.close_codes == [1011]
    assert level(stream.record.heard[: int(APOLOGY_S * BYTES_PER_S)]) > LOUD


def test_a_goodbye_ends_the_call_without_the_rest_api(calls: dict[str, Made]) -> None:
    """When hanging up fails the stream is closed all the same, and `action` ends the call."""
    call = calls["released"]
    assert call.conversation["end_reason"] == "agent_ended"
    assert call.record.ended_by == "application" and call.record.status == "completed"
    assert call.said("assistant")[-1] == "Goodbye."


def test_a_transfer_that_fails_leaves_the_caller_with_the_agent(calls: dict[str, Made]) -> None:
    """The model is told, and speaks; the call is not marked as handed over."""
    call = calls["kept"]
    assert call.record.dialled == []
    assert call.told() == [{"error": "The call could not be connected. Tell the caller and offer something else."}]
    assert call.row["end_reason"] == "client_left" and "could not be connected" in call.said("assistant")[-1]


def test_a_server_that_stops_says_so(calls: dict[str, Made]) -> None:
    """At the drain deadline the caller hears a sentence to its end; the close code is 1012."""
    call = calls["stops"]
    assert heard_apology(call)
    assert call.record.close_codes in ([1012], [None])
    assert call.record.status == "completed"
    assert call.conversation["end_reason"] == "drain"


def test_a_call_has_one_stream(gateways: dict[str, PhoneGateway]) -> None:
    """A call's sid that nobody ever heard of opens nothing by way of the main app's door either."""
    gateway = gateways["door"]
    assert gateway.run(gateway.server.context.store.call(f"CA{uuid.uuid4().hex}")) is None
