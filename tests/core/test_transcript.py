"""Deltas become turns, in order and once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.playback import Heard
from core.records import Turn
from core.tools import MAX_OUTPUT_CHARS
from core.transcript import INAUDIBLE, TRANSCRIPTION_WAIT_S, Transcript, heard_text


def answer(transcript: Transcript, item_id: str, text: str, *, is_audio: bool = True) -> None:
    """Open an answer with its text."""
    transcript.open(item_id, "assistant").is_audio = is_audio
    transcript.finished(item_id, text)


def test_a_late_transcription_lands_in_its_place() -> None:
    """A turn keeps the place its item took, however late its text comes."""
    transcript = Transcript(next_position=7)
    transcript.committed("u1", None, 0.0)
    answer(transcript, "i1", "Hello.")
    [reply] = transcript.answered(Heard("i1", 900, 900))
    [question] = transcript.said("u1", "Hi?")
    assert (question.position, question.content, question.status) == (7, "Hi?", "complete")
    assert (reply.position, reply.content, reply.status) == (8, "Hello.", "complete")
    assert transcript.turn_count == 2


def test_an_item_goes_behind_its_predecessor() -> None:
    """Items announced out of order are stored in the order of the conversation."""
    transcript = Transcript()
    transcript.open("a", "user")
    transcript.open("c", "assistant", "a")
    transcript.open("b", "user", "a")
    transcript.open("d", "assistant", "unknown")
    order = sorted("abcd", key=lambda item: transcript.open(item, "user").position)
    assert order == ["a", "b", "c", "d"]


def test_a_place_that_was_stored_is_not_given_away() -> None:
    """A turn that is stored keeps its position; only what is not stored yet moves."""
    transcript = Transcript()
    transcript.said("a", "first")
    transcript.said("c", "second")
    late = transcript.open("b", "user", "a")
    assert late.position == 2


def test_nothing_is_stored_twice() -> None:
    """Whatever is announced again after a turn was stored changes nothing."""
    transcript = Transcript()
    assert len(transcript.said("u1", "Hi")) == 1
    assert transcript.said("u1", "Hi again") == []
    answer(transcript, "i1", "Hello.")
    assert len(transcript.answered(Heard("i1", 10, 10))) == 1
    assert transcript.answered(Heard("i1", 10, 10)) == []
    transcript.finished("i1", "Something else.")
    transcript.wrote("i1", "more")
    entry = transcript.get("i1")
    assert entry is not None
    assert entry.text == "Hello."


def test_a_transcription_that_never_comes_is_stored_as_inaudible() -> None:
    """After the wait the turn has a row; what was written down, and what needs no writing, is not overdue."""
    transcript = Transcript()
    transcript.committed("u1", None, 0.0)
    transcript.committed("u2", None, 1.0)
    transcript.open("typed", "user")
    assert transcript.next_overdue() == TRANSCRIPTION_WAIT_S
    assert transcript.overdue(TRANSCRIPTION_WAIT_S - 0.1) == []
    [turn] = transcript.overdue(TRANSCRIPTION_WAIT_S)
    assert (turn.item_id, turn.content, turn.status) == ("u1", INAUDIBLE, "failed")
    transcript.said("u2", "Hi")
    assert transcript.next_overdue() is None
    assert transcript.said("u1", "too late") == []


@pytest.mark.parametrize("text", [None])
def test_a_failed_transcription_is_inaudible_at_once(text: str | None) -> None:
    """The row does not wait for what will not come."""
    [turn] = Transcript().said("u1", text)
    assert (turn.content, turn.status) == (INAUDIBLE, "failed")


def test_the_end_stores_spoken_turns_nobody_wrote_down() -> None:
    """A spoken turn is stored as inaudible; a typed one without text was no turn."""
    transcript = Transcript()
    transcript.committed("u1", None, 0.0)
    transcript.open("u2", "user")
    assert [turn.item_id for turn in transcript.close_users()] == ["u1"]
    assert transcript.close_users() == []


@pytest.mark.parametrize(
    ("heard_ms", "stored"),
    [(0, ""), (100, ""), (500, "Our shop is"), (999, "Our shop is open until"), (1000, "Our shop is open until six")],
)
def test_only_what_was_heard_is_kept_of_an_answer(heard_ms: int, stored: str) -> None:
    """The text is shared out by time and cut at a word."""
    assert heard_text("Our shop is open until six", Heard("i1", heard_ms, 1000)) == stored


def test_a_cut_between_two_words_keeps_the_first() -> None:
    """A cut that falls on a space loses no word, and speech of no length has no text."""
    assert heard_text("ab cd", Heard("i1", 2, 5)) == "ab"
    assert heard_text("ab cd", Heard("i1", 0, 0)) == ""


@given(st.text(max_size=60), st.integers(0, 5000), st.integers(0, 5000))
def test_the_heard_text_is_a_beginning_of_the_text(text: str, heard_ms: int, spoken_ms: int) -> None:
    """No cut invents text, and hearing more never keeps less."""
    kept = heard_text(text, Heard("i1", heard_ms, spoken_ms))
    assert text.startswith(kept)
    assert len(kept) <= len(heard_text(text, Heard("i1", heard_ms + 1, spoken_ms)))


def test_an_answer_nobody_heard_is_no_turn() -> None:
    """A spoken answer that was cut before its first sound is not stored; one that was cut within a word is."""
    transcript = Transcript()
    answer(transcript, "i1", "Hello.")
    assert transcript.answered(Heard("i1", 0, 1000)) == []
    answer(transcript, "i2", "Hello.")
    [turn] = transcript.answered(Heard("i2", 20, 1000))
    assert (turn.content, turn.status, turn.heard_ms, turn.spoken_ms) == ("", "interrupted", 20, 1000)
    answer(transcript, "i3", "Hello.")
    assert transcript.answered(Heard("i3", 0, 0)) == []


def test_an_answer_in_text_is_stored_whole() -> None:
    """Text is read, not heard: it has no milliseconds."""
    transcript = Transcript()
    transcript.open("i1", "assistant")
    transcript.wrote("i1", "Hel")
    transcript.wrote("i1", "lo")
    [turn] = transcript.answered(Heard("i1", 0, 0))
    assert (turn.content, turn.status, turn.heard_ms) == ("Hello", "complete", None)


def test_what_is_no_answer_is_not_answered() -> None:
    """Unknown items and turns of the user are left alone."""
    transcript = Transcript()
    transcript.open("u1", "user")
    transcript.wrote("x", "y")
    transcript.finished("x", "y")
    assert transcript.answered(Heard("u1", 1, 1)) == []
    assert transcript.answered(Heard("x", 1, 1)) == []
    assert transcript.get("x") is None
    assert "u1" in transcript
    assert "x" not in transcript


def test_an_open_answer_is_listed_until_it_is_stored() -> None:
    """Answers are listed in the order of the conversation; users' turns and stored ones are not."""
    transcript = Transcript()
    transcript.open("u1", "user")
    answer(transcript, "i1", "a")
    answer(transcript, "i2", "b")
    transcript.answered(Heard("i1", 1, 1))
    assert transcript.open_answers() == ["i2"]


def test_history_is_replayed_as_text_with_tool_calls_in_pairs() -> None:
    """Each role has the content type the API takes; what was inaudible, empty or unpaired is left out."""
    about = {"name": "stock", "call_id": "c1", "arguments": '{"size":42}'}
    history = [
        Turn("i1", 1, "assistant", "Hello."),
        Turn("u1", 0, "user", "Hi?"),
        Turn("u2", 2, "user", INAUDIBLE, "failed"),
        Turn("i2", 3, "assistant", "", "interrupted", heard_ms=5, spoken_ms=900),
        Turn("c1", 4, "tool", "3 pairs", metadata=about),
        Turn("c0", 5, "tool", "lost"),
        Turn("s1", 6, "system", "Summary"),
    ]
    transcript = Transcript(history)
    assert transcript.replay(20) == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"type": "function_call", "name": "stock", "call_id": "c1", "arguments": '{"size":42}'},
        {"type": "function_call_output", "call_id": "c1", "output": "3 pairs"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Summary"}]},
    ]
    assert transcript.replay(1)[0]["role"] == "system"
    assert transcript.turn_count == 0


def test_an_answer_still_being_heard_is_replayed_too() -> None:
    """A fresh session knows what the agent is saying, although the turn is not stored yet."""
    transcript = Transcript()
    transcript.said("u1", "Hi?")
    answer(transcript, "i1", " Hello there. ")
    transcript.open("i2", "assistant")
    assert [item["content"][0]["text"] for item in transcript.replay(20)] == ["Hi?", "Hello there."]


def test_a_tool_turn_is_stored_under_its_call() -> None:
    """The id is unique over all sessions of a conversation; an endless output is not replayed whole."""
    transcript = Transcript()
    [turn] = transcript.ran_tool("call_1", "x" * 60_000, {"name": "stock", "call_id": "call_1"})
    assert (turn.item_id, turn.role, turn.position) == ("call_1", "tool", 0)
    assert transcript.turn_count == 0
    assert len(transcript.replay(20)[1]["output"]) < MAX_OUTPUT_CHARS + 100


def test_stored_text_is_clean() -> None:
    """No NUL and no surrounding space reaches the database."""
    [turn] = Transcript().said("u1", " a\x00b ")
    assert turn.content == "ab"


def test_what_is_under_way_is_shown_as_far_as_it_is() -> None:
    """An operator sees stored turns and the growing one, in order; of a tool its name and never its output."""
    transcript = Transcript([Turn("u1", 0, "user", "Hi?")], next_position=1)
    transcript.ran_tool("call_1", "secret output", {"name": "stock", "call_id": "call_1"})
    transcript.ran_tool("call_2", "secret output", {})
    transcript.open("i1", "assistant")
    transcript.wrote("i1", "Hello th")
    shown = [(turn.role, turn.text, turn.status) for turn in transcript.shown(20)]
    assert shown == [
        ("user", "Hi?", "complete"),
        ("tool", "stock", "complete"),
        ("tool", "", "complete"),
        ("assistant", "Hello th", "growing"),
    ]
    assert [turn.item_id for turn in transcript.shown(1)] == ["i1"]
