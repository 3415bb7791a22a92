"""The messages of the load are what the server takes for the real thing."""

from __future__ import annotations

import json
import time
from binascii import a2b_base64

import pytest

from bench import shapes
from bench.shapes import Channel, Delta
from core import twilio
from core.realtime import APPEND_HEAD, APPEND_TAIL, audio_delta, is_canonical_append


@pytest.mark.parametrize("channel", shapes.CHANNELS)
def test_stamped_audio_is_audio_of_the_right_length(channel: Channel) -> None:
    """A stamp and the rest are base64 of as many bytes as the milliseconds have, and the stamp says when."""
    before = time.monotonic_ns()
    audio = shapes.stamp() + shapes.audio_rest(channel, 20)
    assert is_canonical_append(APPEND_HEAD + audio + APPEND_TAIL)
    assert 0 <= shapes.age_ns(b"..." + audio, 3) <= time.monotonic_ns() - before
    delta = audio_delta(b"".join((Delta.of("resp_1", "item_1", "event_1").head, audio, b'"}')))
    assert delta is not None
    assert (delta.item_id, delta.response_id) == ("item_1", "resp_1")
    assert delta.audio_bytes == 20 * shapes.BYTES_PER_MS[channel]


def test_calls_speak_twilio() -> None:
    """`start`, `media` and a returned mark are read as such, media without being parsed."""
    start = twilio.read_message(shapes.start_message("MZ1", "CA1", "AC1", "secret"))
    assert isinstance(start, twilio.Start)
    assert (start.stream_sid, start.parameters["token"], start.media_format.is_mulaw) == ("MZ1", "secret", True)
    media = twilio.media_payload(shapes.media_message("MZ1", 7, shapes.audio_rest("phone", 20)), "MZ1")
    assert media is not None
    assert (media.timestamp_ms, len(a2b_base64(media.payload))) == (140, 160)
    assert twilio.read_message(shapes.mark_returned("MZ1", 8, b"g1:1")) == twilio.Mark("MZ1", "g1:1")
    assert isinstance(twilio.read_message(shapes.stop_message("MZ1", "CA1", "AC1")), twilio.Stop)


def test_a_turn_has_the_events_of_a_real_one() -> None:
    """A person's turn with its transcript and an answer with its usage stand around the audio."""
    events = [*shapes.turn_begins("1", 1, None), shapes.word("1", 1), *shapes.turn_ends("1", 1)]
    kinds = [json.loads(event)["type"] for event in events]
    assert {"response.created", "conversation.item.input_audio_transcription.completed"} <= set(kinds)
    assert kinds[-1] == "response.done"
    assert json.loads(events[-1])["response"]["usage"]["total_tokens"]
