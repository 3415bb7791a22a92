"""The fast way of audio deltas takes nothing that the slow one would not take, and says the same about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.delta_reader import DeltaReader
from core.realtime import AudioDelta, audio_delta, encode


def frame_of(event_id: str = "event_B1", audio: str = "AAAA", item_id: str = "item_1", **more: object) -> bytes:
    """Return an audio delta in OpenAI's order of fields."""
    ids = {"event_id": event_id, "response_id": "resp_1", "item_id": item_id}
    head = {"type": "response.output_audio.delta", **ids, "output_index": 0, "content_index": 0}
    return encode({**head, "delta": audio, **more})


LEARNT = frame_of()
START = LEARNT[: LEARNT.index(b"B1")]
"""What the reader remembers of the beginning."""


@pytest.mark.parametrize(
    "frame",
    [
        frame_of("event_B2"),
        frame_of("event_B2", "AAAAAAA="),
        frame_of("event_B2", "AAAAAA=="),
        frame_of("event_B2", "AAAAAAAA"),
        frame_of("event_B2", ""),
        frame_of("other-B2"),
        frame_of("event_"),
        frame_of("event_B2", item_id="item_2"),
        frame_of("event_" + "x" * 70),
        frame_of("event_B2", obfuscation="x"),
        frame_of("event_B2", "AA\\A"),
        frame_of("event_ü"),
        encode({**json.loads(LEARNT), "output_index": 1}),
        LEARNT[:-2] + b'","type":"session.updated"}',
        LEARNT[:-2] + b'\\"}',
        LEARNT[:-1],
        LEARNT + b" ",
        START + b'x","type":"error","response_id":"resp_1"' + LEARNT[LEARNT.index(b',"item_id"') :],
        START,
        START + b'B2"',
        b'{"type":"response.done"}',
    ],
)
def test_a_frame_after_another_is_read_as_by_itself(frame: bytes) -> None:
    """Whether a frame came first or after another, the same is said about it, and after it too."""
    reader = DeltaReader()
    assert reader.read(LEARNT) == AudioDelta("item_1", "resp_1", 4, 0)
    assert reader.read(frame) == audio_delta(frame)
    assert reader.read(LEARNT) == AudioDelta("item_1", "resp_1", 4, 0)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4), st.binary(max_size=4))
def test_nothing_can_be_smuggled_past_it(event_ids: list[bytes], audio: bytes) -> None:
    """Whatever stands in the two places that may differ, what is let through is one audio delta and nothing else."""
    reader = DeltaReader()
    reader.read(LEARNT)
    for event_id in event_ids:
        frame = LEARNT.replace(b"B1", event_id).replace(b"AAAA", audio)
        assert reader.read(frame) == audio_delta(frame)


def test_a_frame_without_an_event_id_of_letters_is_not_remembered() -> None:
    """Such frames are read one by one."""
    reader = DeltaReader()
    for event_id in ("", "event_", "..."):
        frame = frame_of(event_id)
        assert reader.read(frame) == audio_delta(frame) == reader.read(frame)


def test_a_head_that_names_a_field_twice_is_not_remembered() -> None:
    """A reader of JSON takes the last of two, this one the first: each frame is looked at."""
    twice = LEARNT.replace(b'"output_index":0', b'"item_id":"item_2"')
    reader = DeltaReader()
    reader.read(twice)
    assert reader.read(frame_of("event_B7")) == AudioDelta("item_1", "resp_1", 4, 0)


def test_frames_of_one_size_share_one_answer() -> None:
    """The usual case makes no object for each frame."""
    reader = DeltaReader()
    reader.read(LEARNT)
    assert reader.read(frame_of("event_B2")) is reader.read(frame_of("event_B3"))
