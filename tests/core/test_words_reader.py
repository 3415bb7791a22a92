"""Pieces of an answer's transcript are recognised only in exactly the shape in which nothing can hide."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.words_reader import Words, WordsReader

KIND = "response.output_audio_transcript.delta"


def piece(text: str = " open", *, event_id: str = "event_A1", **changes: Any) -> bytes:
    """Return a piece of transcript as the API writes it, with changed fields."""
    event = {
        "type": KIND, "event_id": event_id, "response_id": "resp_1", "item_id": "item_1", "output_index": 0,
        "content_index": 0, "delta": text,
    }  # fmt: skip
    return json.dumps({**event, **changes}, separators=(",", ":"), ensure_ascii=False).encode()


def test_pieces_are_read_the_first_time_and_again() -> None:
    """The first piece teaches the head, later ones are compared with it; ids may have any length."""
    reader = WordsReader()
    assert reader.read(piece(" Hello")) == Words("item_1", " Hello")
    assert reader.read(piece(", you", event_id="event_B22")) == Words("item_1", ", you")
    assert reader.read(piece("", event_id="event_C")) == Words("item_1", "")
    assert reader.read(piece(" Grüße 你好", event_id="event_D")) == Words("item_1", " Grüße 你好")


def test_another_answer_teaches_another_head() -> None:
    """Whose words they are is never taken from the frame before."""
    reader = WordsReader()
    reader.read(piece())
    assert reader.read(piece(" two", item_id="item_2")) == Words("item_2", " two")
    assert reader.read(piece(" one")) == Words("item_1", " one")


def test_padding_may_follow() -> None:
    """The service may pad a piece so that its length tells nothing."""
    reader = WordsReader()
    assert reader.read(piece(" a", obfuscation="x7Qz")) == Words("item_1", " a")
    assert reader.read(piece(" b", event_id="event_B2", obfuscation="")) == Words("item_1", " b")


SMUGGLED = [
    piece("a", type="response.output_audio.delta"),
    piece("a", type="response.done"),
    piece('say "yes"'),
    piece("back\\slash"),
    piece("two\nlines"),
    piece("zero\u200bwidth"),
    piece(" a").replace(b" a", b"\\u0061"),
    piece(" a").replace(b" a", b"\x07"),
    piece(" a").replace(b" a", b"\xff"),
    piece("a", obfuscation='"'),
    piece("a", obfuscation="a b"),
    piece("a", extra=1),
    piece("a", obfuscation="x", extra=1),
    piece("a")[:-1] + b',"item_id":"item_9"}',
    piece("a")[:-1] + b"} ",
    piece("a") + b"x",
    piece("a")[:-2],
    piece("a", event_id="x" * 80),
    piece("a").replace(b'"item_id":"item_1"', b'"item_id":"item_1","item_id":"item_9"'),
    piece("a").replace(b'"item_id":"item_1"', b'"item_id":"it\\u0065m"'),
    piece("a").replace(b'"response_id"', b'"item_id"'),
    piece("a", item_id=""),
    piece("a", delta=7),
    b"",
    b"{}",
]


@pytest.mark.parametrize("frame", SMUGGLED)
@pytest.mark.parametrize("is_warm", [False, True])
def test_unusual_shapes_are_left_to_json(frame: bytes, is_warm: bool) -> None:
    """Neither the first frame nor one after a usual piece passes in another shape."""
    reader = WordsReader()
    if is_warm:
        reader.read(piece())
    assert reader.read(frame) is None
    assert reader.read(piece(" after", event_id="event_Z")) == Words("item_1", " after")


@given(st.text(), st.text(alphabet="abcXYZ019", max_size=10))
def test_what_is_taken_is_what_json_says(text: str, padding: str) -> None:
    """For any text, a piece that is taken holds what JSON reads from it."""
    reader = WordsReader()
    reader.read(piece())
    try:
        frame = piece(text, event_id="event_9", obfuscation=padding)
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    words = reader.read(frame)
    if words is not None:
        assert words == Words("item_1", json.loads(frame)["delta"])
    elif text.isprintable():
        assert '"' in text or "\\" in text
