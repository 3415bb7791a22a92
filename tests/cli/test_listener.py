"""The listener turns the server's events into turns, answers and delays."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from cli.listener import Listener, Turn

SECOND = bytes(48_000)


class Heard:
    """A listener that was fed with events at given times."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.turns: list[Turn] = []
        self.listener = Listener(on_turn=self.turns.append, on_notice=self.told.append)

    def at(self, now: float, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Give it one event."""
        return self.listener.received({"type": kind, **fields}, now)

    def sound(self, now: float, pcm: bytes, item_id: str = "item_a", kind: str = "response.audio.delta") -> None:
        """Give it sound."""
        self.at(now, kind, item_id=item_id, delta=base64.b64encode(pcm).decode())

    def done(self, now: float, status: str = "completed") -> None:
        """End a response."""
        self.at(now, "response.done", response={"status": status})


@pytest.fixture
def heard() -> Heard:
    """Return a listener in a conversation that is live since 10.0 s."""
    fed = Heard()
    fed.at(9.9, "conversation.created", conversation_id="c1")
    fed.at(10.0, "session.updated", session={"turn_detection": {"type": "server_vad"}})
    return fed


def test_spoken_turn_is_answered(heard: Heard) -> None:
    """A spoken turn has its transcript, its answer the words, the sound and the delay since the last sound."""
    listener = heard.listener
    heard.at(11.0, "input_audio_buffer.speech_started")
    assert not listener.is_quiet
    listener.asked_at = 12.0
    heard.at(12.5, "input_audio_buffer.committed", item_id="item_u")
    assert not listener.is_quiet
    heard.at(12.6, "response.created")
    heard.sound(12.64, SECOND)
    heard.at(12.65, "response.audio_transcript.delta", item_id="item_a", delta="Good ")
    heard.at(12.66, "response.audio_transcript.delta", item_id="item_a", delta="day")
    assert listener.answers[0].text == "Good day"
    heard.at(12.7, "response.audio_transcript.done", item_id="item_a", transcript="Good day.")
    heard.done(12.8)
    assert listener.is_answered
    assert not listener.is_transcribed
    heard.at(13.0, "conversation.item.input_audio_transcription.completed", item_id="item_u", transcript=" Hello ")
    assert listener.is_transcribed
    assert heard.turns == [Turn("agent", "Good day.", 2.8), Turn("you", "Hello", 3.0)]
    assert listener.answers[0].delay_ms == 640
    assert listener.answers[0].pcm == SECOND
    assert listener.conversation_id == "c1"


def test_interrupted_answer_is_cut_where_it_was_heard(heard: Heard) -> None:
    """Of two seconds received at once, the one played before the interruption stays, and the server is told so."""
    heard.at(11.0, "response.created")
    heard.sound(11.0, SECOND + SECOND)
    assert heard.listener.plays_for_s(11.5) == pytest.approx(1.5)
    replies = heard.at(12.0, "input_audio_buffer.speech_started")
    truncate = {"type": "conversation.item.truncate", "item_id": "item_a", "content_index": 0, "audio_end_ms": 1000}
    assert replies == [truncate]
    heard.done(12.1, "cancelled")
    assert heard.listener.answers[0].pcm == SECOND
    assert heard.turns[-1].status == "cancelled"


def test_general_availability_names_are_understood(heard: Heard) -> None:
    """A server that speaks the other dialect is heard as well."""
    heard.at(11.0, "response.created")
    heard.sound(11.0, SECOND, kind="response.output_audio.delta")
    heard.at(11.1, "response.output_audio_transcript.delta", item_id="item_a", delta="Hi")
    heard.done(11.2)
    assert heard.turns == [Turn("agent", "Hi", 1.2)]


def test_typed_turn_waits_for_its_answer(heard: Heard) -> None:
    """After a typed message nothing is answered until a response came and said something."""
    heard.listener.typed("hello", 11.0)
    assert not heard.listener.is_answered
    heard.at(11.1, "response.created")
    heard.done(11.2)
    assert not heard.listener.is_answered
    heard.at(11.3, "response.created")
    heard.at(11.4, "response.text.delta", item_id="item_a", delta="Hi")
    heard.done(11.5)
    assert heard.listener.is_answered


def test_failed_transcription_keeps_nobody_waiting(heard: Heard) -> None:
    """A transcription that failed is shown as such and counts as come."""
    heard.at(11.0, "input_audio_buffer.committed", item_id="item_u")
    heard.at(11.1, "conversation.item.input_audio_transcription.failed", item_id="item_u")
    assert heard.listener.is_transcribed
    assert heard.turns == [Turn("you", "(not transcribed)", 1.1)]


def test_what_the_server_says_itself_is_told(heard: Heard) -> None:
    """Errors and notices come with their code; an event nobody knows is passed over."""
    heard.at(11.0, "error", error={"message": "Not so.", "code": "invalid_value"})
    heard.at(11.1, "gateway.notice", message="Back again.", code="reconnected")
    assert heard.at(11.2, "rate_limits.updated", rate_limits=[]) == []
    assert heard.told == ["Not so. (invalid_value)", "Back again. (reconnected)"]
    assert heard.listener.problems == ["Not so."]


@pytest.mark.parametrize(
    ("session", "detects"),
    [
        ({"turn_detection": None}, False),
        ({"turn_detection": {"type": "server_vad"}}, True),
        ({"audio": {"input": {"turn_detection": None}}}, False),
        ({}, True),
    ],
)
def test_push_to_talk_agents_are_known(session: dict[str, Any], detects: bool) -> None:
    """Whether the agent answers by itself is read from the session, in either dialect."""
    fed = Heard()
    fed.at(1.0, "session.updated", session=session)
    assert fed.listener.detects_turns is detects
