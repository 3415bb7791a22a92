"""A call is handed over to a person the owner named, after the last word was heard, and is then left alone."""

from __future__ import annotations

import json

import pytest

from core import commands as c
from core.errors import PAGE_CLOSED, InternalError
from core.transfer import CALLED_OFF, NO_NUMBERS, NOT_ALLOWED, NOT_CONNECTED, TAKE_OVER_S, UNDER_WAY
from tests.phone_dialogue import PhoneDialogue

DESK, SALES = "+4930123456", "+15551234567"
REDIRECT = f"redirect <Response><Dial>{DESK}</Dial></Response>"


def call_with(*numbers: str, delay_s: float = 0.05, plays: bool = True) -> PhoneDialogue:
    """Return a live call of an agent that may transfer to these numbers."""
    call_settings = {"transfer_numbers": list(numbers), "silence_timeout_s": 1000}
    agent = {"tools": [{"builtin": "transfer_call"}], "call_settings": call_settings}
    return PhoneDialogue({"greets": False, "agent": agent}, delay_s=delay_s, plays=plays).live()


def transfers(call: PhoneDialogue, arguments: str, *, ms: int = 2000, status: str = "completed") -> PhoneDialogue:
    """Let the model announce a transfer and ask for it."""
    call.begins_answer("r1", "i1")
    if ms:
        call.says("r1", "i1", "I am connecting you.", ms)
    call.calls("r1", "c1", "transfer_call", arguments)
    call.ends_answer("r1", status)
    return call


def errors(call: PhoneDialogue) -> list[str]:
    """Return what the model was told about transfers."""
    events = [json.loads(x.frame) for x in call.all if isinstance(x, c.SendUpstream)]
    items = [event["item"] for event in events if event["type"] == "conversation.item.create"]
    return [json.loads(item["output"])["error"] for item in items if item["type"] == "function_call_output"]


def redirects(call: PhoneDialogue) -> list[str]:
    """Return the redirects that were asked for."""
    return [text for text in call.log if text.startswith("redirect")]


@pytest.mark.parametrize("delay_s", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("ms", [200, 2000])
def test_the_call_is_handed_over_when_the_last_word_was_heard(ms: int, delay_s: float) -> None:
    """The redirect empties Twilio's queue, so it waits for the last mark; the end of the stream is then a success."""
    call = transfers(call_with(DESK, SALES, delay_s=delay_s), json.dumps({"number": DESK}), ms=ms)
    took_s = call.until("redirect")
    assert call.twilio.heard_ms(call.now) == pytest.approx(ms)
    assert took_s < ms / 1000 + 2 * delay_s + 0.8
    assert redirects(call) == [REDIRECT] and "note call transferred" in call.log
    call.later(1.0)
    call.caller("stop")
    assert call.turns == [("assistant", "I am connecting you.", "complete")]
    assert call.log[-1] == "close 1000 agent_ended" and "hang up" not in call.log
    assert call.bridge.next_deadline is None


@pytest.mark.parametrize("arguments", ["{}", '{"number": ""}', '{"number": null}', "no json", "[]"])
def test_the_only_number_need_not_be_named(arguments: str) -> None:
    """With one number to choose from the model may leave it out."""
    call = transfers(call_with(DESK), arguments)
    call.until("redirect")
    assert redirects(call) == [REDIRECT]


@pytest.mark.parametrize("spelling", ["+49 30 123456", "+49 (30) 123-456", "+49.30/123456"])
def test_spaces_in_a_number_do_not_matter(spelling: str) -> None:
    """Neither in the owner's list nor in the model's call."""
    call = transfers(call_with(spelling, SALES), json.dumps({"number": DESK}))
    call.until("redirect")
    assert redirects(call) == [REDIRECT]
    call = transfers(call_with(DESK, SALES), json.dumps({"number": spelling}))
    call.until("redirect")
    assert redirects(call) == [REDIRECT]


@pytest.mark.parametrize(
    ("allowed", "arguments", "error"),
    [
        ((DESK,), '{"number": "+19005550000"}', NOT_ALLOWED),
        ((DESK, SALES), "{}", NOT_ALLOWED),
        ((DESK, SALES), '{"number": "sip:me@example.org"}', NOT_ALLOWED),
        ((), f'{{"number": "{DESK}"}}', NO_NUMBERS),
        (("+49<Say>", "911"), '{"number": "911"}', NO_NUMBERS),
    ],
)
def test_other_numbers_are_refused_to_the_model(allowed: tuple[str, ...], arguments: str, error: str) -> None:
    """Nobody talks an agent into calling a number its owner did not allow, and what is no number is none."""
    call = transfers(call_with(*allowed), arguments)
    call.later(10.0)
    assert errors(call) == [error] and redirects(call) == []


def test_one_transfer_at_a_time() -> None:
    """A second wish is answered and changes nothing."""
    call = call_with(DESK, SALES)
    call.begins_answer("r1", "i1").says("r1", "i1", "One moment.", 500)
    call.calls("r1", "c1", "transfer_call", json.dumps({"number": DESK}))
    call.calls("r1", "c2", "transfer_call", json.dumps({"number": SALES}))
    call.ends_answer("r1")
    call.until("redirect")
    assert errors(call) == [UNDER_WAY] and redirects(call) == [REDIRECT]


def test_a_transfer_that_never_happens_is_told_to_the_model() -> None:
    """When the stream lives on the agent offers something else, and the call may be transferred again."""
    call = transfers(call_with(DESK), "{}")
    call.until("redirect")
    assert call.until("model: function_call_output") == pytest.approx(TAKE_OVER_S)
    assert errors(call) == [NOT_CONNECTED] and call.log[-1] == "model: response.create"
    call.answers("r2", "i2", "Nobody answers. May I take a message?", 500)
    call.later(1.0)
    call.caller("stop")
    assert call.log[-1] == "close 1000 client_left"


def test_a_caller_who_cuts_in_is_not_handed_over() -> None:
    """The model hears of it and answers the caller by itself."""
    call = transfers(call_with(DESK), "{}")
    call.later(1.0)
    step = call.model("input_audio_buffer.speech_started", item_id="u1")
    assert "model: function_call_output c1" in step.told and "model: response.create" not in step.told
    assert errors(call) == [CALLED_OFF]
    call.later(10.0)
    assert redirects(call) == []
    call.model("input_audio_buffer.speech_started", item_id="u2").gives("drop audio")


def test_a_key_calls_a_transfer_off_too() -> None:
    """Pressing a key while the agent announces it is cutting in."""
    call = transfers(call_with(DESK), "{}")
    call.later(1.0)
    call.caller("dtmf", digit="0")
    assert errors(call) == [CALLED_OFF]


def test_speech_after_the_redirect_changes_nothing() -> None:
    """What is on its way cannot be called back."""
    call = transfers(call_with(DESK), "{}")
    call.until("redirect")
    call.model("input_audio_buffer.speech_started", item_id="u1").gives("drop audio")
    call.caller("stop")
    assert call.log[-1] == "close 1000 agent_ended"


def test_a_transfer_of_a_cancelled_answer_is_dropped() -> None:
    """What an interrupted response decided is not wanted any more."""
    call = transfers(call_with(DESK), "{}", ms=0, status="cancelled")
    call.later(10.0)
    assert errors(call) == [] and redirects(call) == []


def test_an_answer_that_goes_on_is_heard_first() -> None:
    """The model may speak on after its call; the redirect waits."""
    call = call_with(DESK)
    call.begins_answer("r1", "i1").says("r1", "i1", "One moment.", 300)
    call.calls("r1", "c1", "transfer_call")
    call.later(2.0)
    assert redirects(call) == []
    call.says("r1", "i1", " Goodbye.", 700)
    call.ends_answer("r1")
    call.until("redirect")
    assert call.twilio.heard_ms(call.now) == pytest.approx(1000)


def test_a_line_without_marks_is_handed_over_by_the_clock() -> None:
    """A mark that never comes does not hold the call."""
    call = transfers(call_with(DESK, plays=False), "{}", ms=1000)
    assert call.until("redirect") == pytest.approx(1.15 + 2.0, abs=0.7)


def test_trouble_during_the_hand_over_does_not_hang_up() -> None:
    """The redirect may still succeed: no apology is spoken into it, and the call is not completed."""
    call = transfers(call_with(DESK), "{}")
    call.until("redirect")
    call.ends(InternalError.ending)
    assert call.log[-1] == "close 1011 internal" and "hang up" not in call.log
    assert call.bridge.next_deadline is None


def test_a_socket_that_goes_away_during_the_hand_over_is_its_success() -> None:
    """Not every end of a stream is announced by `stop`."""
    call = transfers(call_with(DESK), "{}")
    call.until("redirect")
    call.leaves(PAGE_CLOSED)
    assert call.log[-1] == "close 1000 agent_ended" and "hang up" not in call.log
