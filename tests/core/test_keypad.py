"""The keys of the telephone: collected for a tool, told to the model otherwise, stored nowhere."""

from __future__ import annotations

import json

import pytest

from core import commands as c
from core.keypad import BETWEEN_S, FIRST_S, MAX_DIGITS, SETTLE_S
from tests.phone_dialogue import PhoneDialogue

OUTPUT = "model: function_call_output c1"


def call_with_keys(**fields: object) -> PhoneDialogue:
    """Return a live call of an agent that may wait for digits."""
    agent = {"tools": [{"builtin": "send_dtmf_wait"}], "call_settings": {"silence_timeout_s": 1000}}
    return PhoneDialogue({"greets": False, "agent": agent, **fields}, delay_s=0.0).live()


def waits(call: PhoneDialogue, arguments: str, call_id: str = "c1", response_id: str = "r1") -> PhoneDialogue:
    """Let the model wait for digits."""
    call.model("response.created", response={"id": response_id})
    call.calls(response_id, call_id, "send_dtmf_wait", arguments)
    call.ends_answer(response_id)
    return call


def press(call: PhoneDialogue, digits: str) -> list[str]:
    """Press keys one after the other; returns what that led to."""
    return [text for digit in digits for text in call.caller("dtmf", digit=digit).told]


def given(call: PhoneDialogue) -> list[str]:
    """Return the digits the tool calls were given."""
    events = [json.loads(x.frame) for x in call.all if isinstance(x, c.SendUpstream)]
    items = [event["item"] for event in events if event["type"] == "conversation.item.create"]
    return [json.loads(item["output"])["digits"] for item in items if item["type"] == "function_call_output"]


def told(call: PhoneDialogue) -> list[str]:
    """Return what the model was told of keys nobody had asked for."""
    return [text for text in call.log if "The caller pressed" in text]


@pytest.mark.parametrize(
    ("arguments", "pressed", "digits"),
    [
        ('{"digits": 4}', "1234", "1234"),
        ('{"digits": 4}', "12#", "12"),
        ('{"digits": 4}', "#", ""),
        ("{}", "7", "7"),
        ('{"digits": 3}', "*0*", "*0*"),
        ('{"digits": 0}', "7", "7"),
        ('{"digits": -5}', "7", "7"),
        ('{"digits": 1e999}', "7", "7"),
        ('{"digits": "two"}', "7", "7"),
        ('{"digits": null}', "7", "7"),
        ("[]", "7", "7"),
        ("no json", "7", "7"),
        ('{"digits": 1000}', "5" * MAX_DIGITS, "5" * MAX_DIGITS),
    ],
)
def test_digits_are_collected_to_their_number_or_the_hash(arguments: str, pressed: str, digits: str) -> None:
    """The model gets what was asked for at once; nonsense asks for one digit."""
    call = waits(call_with_keys(), arguments)
    assert press(call, pressed)[-2:] == [OUTPUT, "model: response.create"]
    assert given(call) == [digits]
    call.later(60.0)
    assert told(call) == []


def test_digits_are_stored_nowhere() -> None:
    """Neither the transcript nor a note holds what may be a card number; the model's own question is kept."""
    call = waits(call_with_keys(), '{"digits": 16}')
    press(call, "4111222233334444")
    call.ends_answer("r2")
    press(call, "98765")
    call.later(SETTLE_S)
    assert given(call) == ["4111222233334444"] and "98765" in told(call)[0]
    call.caller("stop")
    kept = [repr(x) for x in call.all if isinstance(x, c.SaveTurn | c.SaveProgress | c.Note | c.RunTool)]
    assert not any("4111" in text or "98765" in text for text in kept)
    assert [content for role, content, _ in call.turns] == ["[keys pressed]", "[keys pressed]"]


def test_a_pause_ends_the_input() -> None:
    """What was pressed until then is given."""
    call = waits(call_with_keys(), '{"digits": 8}')
    call.later(10.0)
    press(call, "12")
    call.later(BETWEEN_S - 1)
    press(call, "3")
    assert call.until(OUTPUT) == pytest.approx(BETWEEN_S)
    assert given(call) == ["123"]


def test_nobody_who_presses_nothing_is_waited_for_long() -> None:
    """The wait counts from the end of what the agent says, not from its generation."""
    call = call_with_keys()
    call.begins_answer("r1", "i1").says("r1", "i1", "Please type the number on your card.", 12_000)
    call.calls("r1", "c1", "send_dtmf_wait", '{"digits": 4}')
    call.ends_answer("r1")
    assert call.until(OUTPUT) == pytest.approx(12.0 + FIRST_S, abs=0.2)
    assert given(call) == [""]


@pytest.mark.parametrize(("early", "digits", "left"), [("12", "1234", ""), ("1234", "1234", ""), ("12#9", "12", "9")])
def test_digits_pressed_before_the_tool_count(early: str, digits: str, left: str) -> None:
    """Who knows the menu presses before the question is over."""
    call = call_with_keys()
    assert press(call, early) == []
    waits(call, '{"digits": 4}')
    if not given(call):
        press(call, "34")
    assert given(call) == [digits]
    call.later(SETTLE_S + 0.1)
    assert len(told(call)) == bool(left)


def test_digits_nobody_asked_for_are_told_once() -> None:
    """A code and its hash are one message."""
    call = call_with_keys()
    press(call, "1")
    call.later(SETTLE_S - 0.5)
    press(call, "2#")
    step = call.later(SETTLE_S)
    assert len(told(call)) == 1 and "12#" in told(call)[0]
    assert step.told[-1] == "model: response.create"
    call.later(20.0)
    assert len(told(call)) == 1


def test_a_child_that_plays_with_the_keys_is_bounded() -> None:
    """The last digits are told."""
    call = call_with_keys()
    press(call, "1" * 10 + "2" * MAX_DIGITS)
    call.later(SETTLE_S)
    assert f"pressed {'2' * MAX_DIGITS} on" in told(call)[0]


def test_two_tools_do_not_wait_at_once() -> None:
    """The first gets what was pressed until then, so that no call is left without its answer."""
    call = call_with_keys()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "send_dtmf_wait", '{"digits": 4}')
    press(call, "12")
    assert OUTPUT in call.calls("r1", "c2", "send_dtmf_wait", '{"digits": 2}').told
    call.ends_answer("r1")
    press(call, "34")
    assert given(call) == ["12", "34"] and call.log[-1] == "model: response.create"


def test_a_cancelled_question_collects_nothing() -> None:
    """Keys pressed after it are told as keys nobody asked for."""
    call = call_with_keys()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "send_dtmf_wait", '{"digits": 4}')
    call.ends_answer("r1", "cancelled")
    press(call, "12")
    call.later(SETTLE_S)
    assert given(call) == [] and "12" in told(call)[0]
    call.later(FIRST_S)
    assert len(told(call)) == 1


def test_a_question_lost_with_its_link_asks_for_nothing() -> None:
    """Its deadline passes without a word."""
    call = waits(call_with_keys(), '{"digits": 4}')
    call.lost()
    call.connected()
    call.ends_answer("r2")
    before = len(call.log)
    call.later(FIRST_S + 1)
    assert [text for text in call.log[before:] if text.startswith("model: ")] == []


def test_keys_pressed_while_the_service_is_away_are_told_later() -> None:
    """They wait for the fresh link."""
    call = call_with_keys()
    call.lost()
    press(call, "42")
    call.later(5.0)
    assert told(call) == []
    call.connected()
    call.later(SETTLE_S)
    assert len(told(call)) == 1 and "42" in told(call)[0]
