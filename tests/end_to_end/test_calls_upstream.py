"""Phone calls when something behind the server is broken: the model, the database, the telephone company, or it stops.

Whatever fails, a caller hears a sentence and the line is released. Each broken thing has a server of its own; all calls
of this file are made at the same time, and each test looks at one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from handlers.webhooks import SORRY
from services.store import StoreUnavailable
from simulator.twilio_caller import HangUp, Speak, at, quiet
from simulator.twilio_faults import twilio_fault
from simulator.twilio_settings import TwilioSettings
from tests.fakes.broken import NoKey
from tests.fakes.browser import eventually
from tests.fakes.phone_gateway import (
    APOLOGY_S,
    ASKS,
    BYTES_PER_S,
    LOUD,
    SPEECH,
    Made,
    PhoneGateway,
    Ring,
    announced,
    heard_apology,
    length,
    level,
)
from tests.handlers.conftest import assert_settled


@dataclass(frozen=True)
class Broken:
    """A server of which one thing is broken.

    Attributes:
        rings: Its calls.
        faults: Of the first sessions at the model, in order: name and after how many events it strikes.
        always: Faults of every session.
        twilio: The telephone company.
        breaks: Breaks the running server.
    """

    rings: Mapping[str, Ring]
    faults: tuple[tuple[str, int | None], ...] = ()
    always: tuple[tuple[str, float | None], ...] = ()
    twilio: TwilioSettings = field(default_factory=TwilioSettings)
    breaks: Callable[[PhoneGateway], None] = lambda gateway: None


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

ACCIDENTS = (
    *("stream failed", "stream never began", "no API key"),
    *("set-up failed", "call not announced", "end of a stream not looked up", "status callback lost"),
)
"""Words of the ERROR lines that the broken things deserve; all servers of this process write into one log."""

BROKEN: Mapping[str, Broken] = {
    "refuses": Broken({"refuses": Ring()}, always=(("refuse_500", None),)),
    "rejects": Broken({"rejects": Ring()}, always=(("refuse_401", None),)),
    "no quota": Broken({"no quota": Ring()}, always=(("insufficient_quota", None),)),
    "no key": Broken({"no key": Ring()}, breaks=lose_key),
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
            "released": Ring({"instructions": "[goodbye]", "tools": [{"builtin": "end_call"}]}, ASKS[:1]),
            "kept": Ring(
                {"instructions": "[test tool]", "tools": [{"builtin": "transfer_call"}],
                 "call_settings": {"transfer_numbers": ["+15005550111"]}},
                [Speak(SPEECH, quiet(0.6)), HangUp(quiet(1.5, patience_s=16.0))],
            ),
        },
        twilio=TwilioSettings(faults=(twilio_fault("rest_500"),)),
    ),
    "database": Broken({"database": Ring(), "webhook": Ring()}),
    "stops": Broken({"stops": Ring({"call_settings": {"silence_timeout_s": 60}})}),
}  # fmt: skip


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
            gateway = PhoneGateway(broken.rings, twilio=broken.twilio)
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
    special = {"database": ring_without_database}
    made: dict[str, Made] = {}
    for name, gateway in gateways.items():
        made |= special.get(name, PhoneGateway.ring_all)(gateway)
    stopped = made["stops"]
    until_heard(stopped)
    gateways["stops"].stop_server(0.3)
    yield made
    assert all(call.record.rejected == [] for call in made.values())
    for gateway in gateways.values():
        assert_settled(gateway, 3.0, ACCIDENTS)


def until_heard(call: Made) -> None:
    """Return when the caller has heard a sentence."""
    assert eventually(lambda: call.call.record.events("agent_silent"), 10.0)


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
    assert call.record.ended_by == "caller" and sum(map(length, call.speech)) > 2.5
    *_, cut, last = [row["status"] for row in call.messages if row["role"] == "assistant"]
    assert (cut, last) == ("interrupted", "complete")


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
    """At the drain deadline the caller hears a sentence to its end, and after it nothing of Twilio's own."""
    call = calls["stops"]
    assert heard_apology(call)
    assert (call.record.ended_by, call.record.status) == ("rest", "completed")
    assert call.record.close_codes in ([1012], [None])
    assert call.conversation["end_reason"] == "drain"
