"""The caller cuts in: the agent is silent at once, and both sides remember what was heard and no more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import commands as c
from tests.phone_dialogue import PhoneDialogue

STARTED = "input_audio_buffer.speech_started"
STORY = "one two three four five six seven eight nine ten"


def call_with(*, delay_s: float = 0.05, plays: bool = True, **fields: object) -> PhoneDialogue:
    """Return a live call in which nobody has spoken."""
    return PhoneDialogue({"greets": False, **fields}, delay_s=delay_s, plays=plays).live()


def speaks(call: PhoneDialogue, response_id: str, item_id: str, *, pieces: int, ms: int = 200) -> PhoneDialogue:
    """Let the model speak a message piece by piece, all at once as it does."""
    call.begins_item(response_id, item_id)
    ids = {"item_id": item_id, "response_id": response_id}
    call.model("response.output_audio_transcript.delta", delta=STORY, **ids)
    for _ in range(pieces):
        call.model("response.output_audio.delta", ms=ms, **ids)
    return call


def answers(call: PhoneDialogue, response_id: str, *item_ids: str, pieces: int, done: bool = True) -> PhoneDialogue:
    """Let the model answer in one message or several."""
    call.model("response.created", response={"id": response_id})
    for item_id in item_ids:
        speaks(call, response_id, item_id, pieces=pieces)
    if done:
        call.ends_answer(response_id)
    return call


def truncated_ms(commands: list[c.Command]) -> dict[str, int]:
    """Return where each item was cut; 0 for a deleted one."""
    events = [json.loads(x.frame) for x in commands if isinstance(x, c.SendUpstream)]
    return {e["item_id"]: e.get("audio_end_ms", 0) for e in events if e["type"].startswith("conversation.item.")}


@pytest.mark.parametrize("delay_s", [0.02, 0.05, 0.1, 0.25])
@pytest.mark.parametrize("heard_s", [0.61, 1.37, 2.9])
def test_the_first_reply_on_a_quiet_line_is_cut_where_it_was_heard(heard_s: float, delay_s: float) -> None:
    """What the model remembers is what was heard, but for the way of two messages on the line."""
    call = answers(call_with(delay_s=delay_s), "r1", "i1", pieces=20)
    call.later(heard_s)
    step = call.model(STARTED, item_id="u1")
    assert step.told[:2] == ["drop audio", "clear"]
    [(item_id, cut_ms)] = truncated_ms(step.commands).items()
    call.later(5.0)
    assert item_id == "i1"
    assert 0 <= call.twilio.heard_ms(call.now) - cut_ms <= 2000 * delay_s + 2


def test_a_reply_queued_behind_three_seconds_is_cut_where_it_was_heard() -> None:
    """The clock of a reply begins when the one before it has been played, not when it was sent."""
    call = answers(call_with(), "r1", "i1", pieces=15)
    call.later(0.2)
    answers(call, "r2", "i2", pieces=15)
    call.later(3.8)
    step = call.model(STARTED, item_id="u1")
    cut = truncated_ms(step.commands)
    call.later(5.0)
    assert list(cut) == ["i2"]
    assert 0 <= call.twilio.heard_ms(call.now) - 3000 - cut["i2"] <= 102
    assert call.turns[0][2] == "interrupted" and call.turns[1] == ("assistant", STORY, "complete")


def test_a_reply_of_which_nothing_was_heard_is_forgotten() -> None:
    """While the first reply plays, the queued one is deleted and not stored."""
    call = answers(call_with(), "r1", "i1", pieces=15)
    answers(call, "r2", "i2", pieces=15)
    call.later(1.0)
    cut = truncated_ms(call.model(STARTED, item_id="u1").commands)
    assert cut == {"i1": pytest.approx(850, abs=60), "i2": 0}
    assert [content for _, content, _ in call.turns] == ["one two three"]


def test_of_several_items_the_one_that_plays_is_cut() -> None:
    """Whole ones stay as they are, later ones are deleted."""
    call = answers(call_with(), "r1", "i1", "i2", "i3", pieces=5)
    call.later(1.7)
    cut = truncated_ms(call.model(STARTED, item_id="u1").commands)
    assert cut == {"i2": pytest.approx(550, abs=60), "i3": 0}


def test_everything_heard_means_nothing_to_forget() -> None:
    """After the last word nothing is sent to anybody."""
    call = answers(call_with(), "r1", "i1", pieces=5)
    call.later(2.0)
    call.model(STARTED, item_id="u1").gives("drop audio")
    call.later(2.0)
    assert call.turns == [("assistant", STORY, "complete")]


def test_an_answer_not_yet_spoken_is_cut_without_clear() -> None:
    """While the model still thinks there is nothing to empty; what it says after all is not heard."""
    call = call_with()
    call.model("response.created", response={"id": "r1"})
    call.model(STARTED, item_id="u1").gives("drop audio")
    speaks(call, "r1", "i1", pieces=3)
    call.ends_answer("r1", "cancelled").gives("model: delete i1")
    assert call.twilio.played == []


def test_late_audio_of_an_answer_that_was_cut_is_not_heard() -> None:
    """The tail of a cancelled reply is dropped, of the same item and of a new one."""
    call = answers(call_with(), "r1", "i1", pieces=5, done=False)
    call.later(0.5)
    call.model(STARTED, item_id="u1")
    call.model("response.output_audio.delta", ms=200, item_id="i1", response_id="r1").gives()
    speaks(call, "r1", "i2", pieces=1)
    call.ends_answer("r1", "cancelled").gives("model: delete i2")
    answers(call, "r2", "i3", pieces=1)
    call.later(1.0)
    assert call.twilio.heard_ms(call.now) == pytest.approx(500 + 200, abs=60)


def test_an_answer_cut_in_a_pause_between_its_pieces_ends_there() -> None:
    """All that was sent was heard, yet the model said more: it is told at once where the listener stopped."""
    call = answers(call_with(), "r1", "i1", pieces=1, done=False)
    call.later(1.0)
    call.model(STARTED, item_id="u1").gives("drop audio")
    call.model("response.output_audio.delta", ms=200, item_id="i1", response_id="r1").gives()
    step = call.ends_answer("r1", "cancelled")
    assert truncated_ms(step.commands) == {"i1": 200}


def test_a_second_interruption_right_after_the_first_finds_the_next_reply() -> None:
    """The echoes of the flushed marks do not speak for the next reply."""
    call = answers(call_with(), "r1", "i1", pieces=15)
    call.later(0.5)
    call.model(STARTED, item_id="u1")
    answers(call, "r2", "i2", pieces=15)
    call.later(0.7)
    assert truncated_ms(call.model(STARTED, item_id="u2").commands) == {"i2": pytest.approx(600, abs=80)}
    call.model(STARTED, item_id="u3").gives("drop audio")


def test_the_stored_transcript_ends_where_the_caller_stopped_hearing() -> None:
    """Half of the sound is half of the words."""
    call = answers(call_with(), "r1", "i1", pieces=20)
    call.later(2.1)
    call.model(STARTED, item_id="u1")
    [turn] = [x.turn for x in call.all if isinstance(x, c.SaveTurn)]
    assert turn.content == "one two three four five"
    assert turn.heard_ms == pytest.approx(2000, abs=60) and turn.spoken_ms == 4000


def test_a_protected_talk_is_not_interrupted() -> None:
    """Where the agent's owner forbids interruptions nothing is cut, cleared or forgotten."""
    call = PhoneDialogue(
        {"interruptible": False, "agent": {"greeting": "Hello.", "call_settings": {"allow_interruptions": False}}}
    ).live()
    call.greets("This call may be recorded.", 3000)
    call.later(0.5)
    call.model(STARTED, item_id="u1").gives()
    call.caller("dtmf", digit="1").gives()
    call.later(5.0)
    assert call.twilio.heard_ms(call.now) == pytest.approx(3000)
    assert ("assistant", "This call may be recorded.", "complete") in call.turns


def test_a_line_that_returns_no_marks_is_cut_by_the_clock() -> None:
    """Without marks the estimate decides, and never beyond what was sent."""
    call = answers(call_with(plays=False), "r1", "i1", pieces=5)
    call.later(0.5)
    assert truncated_ms(call.model(STARTED, item_id="u1").commands) == {"i1": 350}
    call = answers(call_with(plays=False), "r1", "i1", pieces=5)
    call.later(5.0)
    call.model(STARTED, item_id="u1").gives("drop audio", "clear")


def test_a_key_silences_the_voice_that_tells_what_to_press() -> None:
    """As on any telephone menu."""
    call = answers(call_with(), "r1", "i1", pieces=15)
    call.later(0.5)
    step = call.caller("dtmf", digit="2")
    assert step.told[:2] == ["drop audio", "clear"] and list(truncated_ms(step.commands)) == ["i1"]
    call.caller("dtmf", digit="3").gives()
    assert call.bridge.next_deadline is not None and call.bridge.next_deadline <= call.now + 0.3
    call.later(1.0)


def test_clear_overtakes_what_waits_to_be_written() -> None:
    """On a slow line silence must not queue behind marks."""
    call = answers(call_with(), "r1", "i1", pieces=15)
    call.later(0.5)
    clears = [x for x in call.model(STARTED, item_id="u1").commands if isinstance(x, c.SendClient)]
    assert [x.urgent for x in clears] == [True]


def test_our_own_sentence_cuts_the_answer_that_is_being_given() -> None:
    """A goodbye because the time is over does not wait: the queue is emptied, the model told, late sound dropped."""
    call = PhoneDialogue({"greets": False}, longest_s=9.0).live()
    call.later(5.9)
    answers(call, "r1", "i1", pieces=40, done=False)
    call.later(3.05)
    step = call.later(0.1)
    told = [text for text in step.told if text.startswith(("model: r", "drop", "clear", "model: t"))]
    assert told[0] == "model: response.cancel" and told[1:3] == ["drop audio", "clear"]
    assert told[3].startswith("model: truncate i1")
    call.model("response.output_audio.delta", ms=200, item_id="i1", response_id="r1").gives()
    told = call.ends_answer("r1", "cancelled").told
    assert any(text.startswith("model: response.create Say goodbye") for text in told)


def test_a_response_cancelled_before_it_began_is_not_heard() -> None:
    """The cancel may overtake `response.created`; what the response says until it ends is dropped."""
    call = PhoneDialogue({"agent": {"greeting": "Hello.", "call_settings": {"end_call_phrases": ["goodbye"]}}}).live()
    step = call.model("@completed", item_id="u1", transcript="Goodbye!")
    assert "model: response.cancel" in step.told
    answers(call, "r1", "i1", pieces=2, done=False)
    assert call.twilio.played == []
    told = call.ends_answer("r1", "cancelled").told
    assert any(text.startswith("model: response.create Say goodbye") for text in told)


@settings(max_examples=50, deadline=None)
@given(
    replies=st.lists(st.tuples(st.integers(1, 8), st.floats(0.0, 2.5)), min_size=1, max_size=5),
    delay_s=st.sampled_from([0.0, 0.03, 0.2]),
)
def test_no_cut_is_beyond_what_was_sent(replies: list[tuple[int, float]], delay_s: float) -> None:
    """Whatever is queued and whenever the caller cuts in, no item is cut beyond its own audio, nor told twice."""
    call = call_with(delay_s=delay_s)
    sent_ms, cuts = dict[str, int](), dict[str, int]()
    for number, (pieces, pause_s) in enumerate(replies):
        answers(call, f"r{number}", f"i{number}", pieces=pieces, done=number % 2 == 0)
        sent_ms[f"i{number}"] = pieces * 200
        call.later(pause_s)
        if number % 3 != 1:
            before = len(call.all)
            call.model(STARTED, item_id=f"u{number}")
            call.ends_answer(f"r{number}", "cancelled")
            for item_id, cut_ms in truncated_ms(call.all[before:]).items():
                assert item_id not in cuts and 0 <= cut_ms < sent_ms[item_id]
                cuts[item_id] = cut_ms
    call.later(15.0)
    heard_ms = sum(sent_ms.values()) - sum(sent_ms[item_id] - cut_ms for item_id, cut_ms in cuts.items())
    assert abs(call.twilio.heard_ms(call.now) - heard_ms) <= len(replies) * (2000 * delay_s + 152)
