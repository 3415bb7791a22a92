"""What the simulated model says, rule by rule."""
from __future__ import annotations

import json

import pytest

from simulator.items import Item, new_id
from simulator.script import GREETING, PRESENCE, RULES, Call, Say, Situation, reply_to

SEARCH = {"type": "function", "name": "search", "parameters": {
    "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}
CLOCK = {"type": "function", "name": "current_time"}
END = {"type": "function", "name": "end_call"}


def message(role: str, text: str) -> Item:
    """Return a written message."""
    kind = "output_text" if role == "assistant" else "input_text"
    return Item({"id": new_id("item"), "type": "message", "role": role, "content": [{"type": kind, "text": text}]})


def speech(speech_ms: int = 2_430, understood: str | None = None) -> Item:
    """Return a spoken turn."""
    part = {"type": "input_audio", "transcript": None}
    data = {"id": new_id("item"), "type": "message", "role": "user", "content": [part]}
    return Item(data, bytearray(96), speech_ms=speech_ms, understood=understood)


def tool_run(name: str, output: str) -> list[Item]:
    """Return a call and its output."""
    call = {"id": new_id("item"), "type": "function_call", "name": name, "call_id": "c1", "arguments": "{}"}
    return [Item(call), Item({"id": new_id("item"), "type": "function_call_output", "call_id": "c1", "output": output})]


def words(situation: Situation) -> list[str]:
    """Return what is said, and the names of what is called."""
    return [step.text if isinstance(step, Say) else step.name for step in reply_to(situation).steps]


@pytest.mark.parametrize(("text", "tools", "steps"), [
    ("Hello", [], ["You typed: Hello"]),
    ("TEST   Tool please", [SEARCH], ["search"]),
    ("test tool", [], ["This session has no tools."]),
    ("test two tools", [SEARCH, CLOCK], ["search", "current_time"]),
    ("test two tools", [SEARCH], ["search", "search"]),
    ("what time is it?", [SEARCH, CLOCK], ["current_time"]),
    ("what time is it?", [SEARCH], ["You typed: what time is it?"]),
    ("Goodbye!", [END], ["Goodbye.", "end_call"]),
    ("Goodbye!", [], ["Goodbye."]),
    ("test preamble", [SEARCH], ["One moment, please.", "search"]),
    ("test silence", [SEARCH], []),
    ("What did I say?", [], ["You have not said anything yet."]),
])
def test_typed_text_is_answered_by_rule(text, tools, steps):
    """Each marker does what the table of rules promises; anything else is quoted."""
    assert words(Situation([message("user", text)], tools)) == steps


def test_every_rule_can_be_reached():
    """No rule is hidden behind an earlier one."""
    for markers, rule in RULES:
        chosen = next(r for m, r in RULES if any(word in markers[0] for word in m))
        assert chosen is rule


def test_heard_speech_is_measured_in_words_and_echoed():
    """Speech without a transcript is answered with its length, spelled out, and with itself."""
    item = speech()
    (step,) = reply_to(Situation([item])).steps
    assert step == Say("I heard two point four seconds of speech. Here is what you said.", echo=item)


def test_silence_is_asked_about():
    """A turn without speech, as after an idle timeout, is answered with a question."""
    assert words(Situation([speech(0)])) == [PRESENCE]


def test_session_instructions_drive_speech_only_by_bracketed_markers():
    """The word goodbye in a prompt must not hang up; [hang up] does."""
    prompt = "When the caller says goodbye, hang up."
    assert words(Situation([speech()], [END], session_instructions=prompt))[0].startswith("I heard")
    assert words(Situation([speech()], [END], session_instructions=prompt + " [hang up]")) == ["Goodbye.", "end_call"]
    assert words(Situation([message("user", "Hi")], [END], session_instructions="[hang up]")) == ["You typed: Hi"]


@pytest.mark.parametrize(("instructions", "said"), [
    ('Say exactly: "Good morning, Ada." and wait.', "Good morning, Ada."),
    ("Say \u201cBom dia\u201d.", "Bom dia"),
    ("Greet the caller.", "My instructions are: Greet the caller."),
])
def test_instructions_of_a_response_are_spoken(instructions, said):
    """A quoted sentence is spoken verbatim, anything else is read out; a system message counts the same."""
    assert words(Situation([message("user", "test error")], response_instructions=instructions)) == [said]
    assert words(Situation([message("system", instructions)])) == [said]


def test_first_words_without_any_input():
    """Asked to speak first, it greets; later it asks again."""
    assert words(Situation([])) == [GREETING]
    assert words(Situation([message("assistant", "Hello.")])) == ["How can I help you today?"]


def test_tool_outputs_are_spoken():
    """Outputs since the last message are in the sentence; after end_call only a goodbye is left."""
    before = [message("user", "x"), *tool_run("search", "old"), message("assistant", "y"), message("user", "z")]
    assert words(Situation([*before, *tool_run("search", "open until six.")])) == ["The tool answered: open until six."]
    assert words(Situation([*before, *tool_run("end_call", "ok")])) == ["Goodbye."]


def test_tool_choice_is_obeyed():
    """none forbids calls, required and a named function force one, but not again after its output."""
    user = message("user", "Hello")
    named = {"type": "function", "name": "current_time"}
    assert words(Situation([message("user", "test tool")], [SEARCH], "none")) == ["This session has no tools."]
    assert words(Situation([user], [SEARCH], "required")) == ["search"]
    assert words(Situation([user], [SEARCH, CLOCK], named)) == ["current_time"]
    assert words(Situation([user, *tool_run("current_time", "noon")], [CLOCK], named)) == ["The tool answered: noon."]


def test_calls_carry_what_was_said():
    """The query of a search is the user's text; malformed arguments are malformed."""
    (call,) = reply_to(Situation([message("user", "test tool parking")], [SEARCH])).steps
    assert isinstance(call, Call)
    assert json.loads(call.arguments) == {"query": "test tool parking"}


def test_earlier_words_are_remembered():
    """The last earlier user turn is repeated, typed or spoken."""
    ask = message("user", "what did I say")
    before = [message("user", "I like tea."), message("assistant", "Ok")]
    assert words(Situation([*before, ask])) == ["You said: I like tea."]
    assert words(Situation([speech(), ask])) == ["You said: (speech, 2.4 seconds)"]
