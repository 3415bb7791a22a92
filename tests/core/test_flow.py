"""What passes unread while an answer flows adds up to what reading it would have said."""

from __future__ import annotations

import json

import pytest

from core.dialect import Dialect
from tests.dialogue import Dialogue
from tests.phone_dialogue import PhoneDialogue

PLACE = {"response_id": "r1", "item_id": "i1", "output_index": 0, "content_index": 0}


def answering(talk: Dialogue) -> Dialogue:
    """Bring a dialogue to where an answer begins to sound."""
    talk.live()
    talk.model("response.created", response={"id": "r1"})
    item = {"id": "i1", "type": "message", "role": "assistant"}
    talk.model("response.output_item.added", response_id="r1", item=item)
    talk.model("response.content_part.added", **PLACE, part={"type": "audio"})
    return talk


def words(text: str, event_id: str = "event_1", **changes: object) -> bytes:
    """Return a piece of transcript as the API writes it."""
    head = {"type": "response.output_audio_transcript.delta", "event_id": event_id}
    return json.dumps({**head, **PLACE, "delta": text, **changes}, separators=(",", ":")).encode()


@pytest.mark.parametrize(("dialect", "name"), [("ga", "output_audio_transcript"), ("preview", "audio_transcript")])
def test_words_reach_client_and_transcript(dialect: Dialect, name: str) -> None:
    """A piece passes with the client's name for it, and is part of the answer's text."""
    talk = answering(Dialogue(dialect=dialect))
    shown = talk.session.pass_words(words("Hello"), talk.now)
    assert shown is not None
    assert json.loads(shown) == json.loads(words("Hello")) | {"type": f"response.{name}.delta"}
    assert talk.session.pass_words(words(", you", "event_2"), talk.now) is not None
    entry = talk.session.conversation.exchange.transcript.get("i1")
    assert entry is not None
    assert entry.text == "Hello, you"


def test_words_of_an_unknown_answer_are_read() -> None:
    """What was not announced as spoken, or is over, is left to the events' own handlers."""
    talk = answering(Dialogue())
    assert talk.session.pass_words(words("Hello", item_id="i9"), talk.now) is None
    entry = talk.session.conversation.exchange.transcript.get("i1")
    assert entry is not None
    entry.is_audio = False
    assert talk.session.pass_words(words("Hello"), talk.now) is None
    entry.is_audio, entry.is_final = True, True
    assert talk.session.pass_words(words("Hello"), talk.now) is None


def test_nothing_passes_before_the_link_is_configured() -> None:
    """Until the session is live every message is read."""
    talk = Dialogue()
    talk.opened()
    assert talk.session.pass_words(words("Hello"), talk.now) is None


def test_words_keep_a_slow_answer_alive() -> None:
    """An answer of which only words come is not taken for stalled."""
    talk = answering(Dialogue())
    for second in range(0, 60, 10):
        talk.later(10.0).gives()
        assert talk.session.pass_words(words("word ", f"event_{second}"), talk.now) is not None


def test_words_of_a_call_are_written_down_and_not_sent() -> None:
    """A caller reads nothing; the transcript has the words all the same."""
    talk = answering(PhoneDialogue())
    assert talk.session.pass_words(words("Hello"), talk.now) == b""
    assert talk.session.pass_words(b"{}", talk.now) is None
    entry = talk.session.conversation.exchange.transcript.get("i1")
    assert entry is not None
    assert entry.text == "Hello"
