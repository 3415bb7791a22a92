"""A few words while a tool takes its time."""

from __future__ import annotations

import pytest

from core.filler import WAIT_S
from tests.phone_dialogue import PhoneDialogue

SAID = "model: response.create Say exactly"
TOOLS = [
    {"name": "book", "url": "https://crm.example/book", "filler": "One moment, please."},
    {"name": "quick", "url": "https://crm.example/quick"},
]


def call_with_tool(name: str = "book", *, ms: int = 0) -> PhoneDialogue:
    """Return a call in which a tool runs; the model has announced it for so long."""
    call = PhoneDialogue({"greets": False, "agent": {"tools": TOOLS}}, delay_s=0.0).live()
    call.begins_answer("r1", "i1")
    if ms:
        call.says("r1", "i1", "Let me look.", ms)
    call.calls("r1", "c1", name)
    call.ends_answer("r1")
    return call


def test_a_tool_that_takes_long_is_filled_once() -> None:
    """After a moment of silence the sentence is spoken, and not again."""
    call = call_with_tool()
    assert call.until(SAID) == pytest.approx(WAIT_S)
    call.answers("r2", "i2", "One moment, please.", 800)
    call.later(9.0).gives("save 1 assistant 'One moment, please.' complete 800/800 ms")


def test_a_fast_tool_needs_no_filler() -> None:
    """Nothing is said when the result is there."""
    call = call_with_tool()
    call.later(1.0)
    call.tool("c1")
    call.answers("r2", "i2", "Done.", 500)
    call.later(3.0)
    assert not any(text.startswith(SAID) for text in call.log)


def test_a_tool_without_a_sentence_is_not_filled() -> None:
    """The owner chooses which tools are slow."""
    call_with_tool("quick").later(5.0).gives()


def test_what_the_model_says_comes_first() -> None:
    """An announcement is heard to its end, and a moment of silence after it."""
    call = call_with_tool(ms=3000)
    assert call.until(SAID) == pytest.approx(3.0 + WAIT_S, abs=0.2)


def test_an_answer_that_runs_is_waited_for() -> None:
    """A response that still runs may speak itself."""
    call = PhoneDialogue({"greets": False, "agent": {"tools": TOOLS}}).live()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "book")
    call.calls("r1", "c2", "book")
    call.later(2.0).gives()
    call.ends_answer("r1")
    assert call.until(SAID) <= WAIT_S


def test_nobody_is_spoken_over() -> None:
    """A caller who speaks is not waiting."""
    call = call_with_tool()
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.later(4.0).gives()
