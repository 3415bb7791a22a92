"""Twilio's messages as they are written, and its look at ours: read and built by `core.twilio`."""
from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from core.twilio import (
    Connected,
    Dtmf,
    Mark,
    Start,
    Stop,
    Unknown,
    clear_message,
    mark_message,
    media_message,
    media_payload,
    read_message,
)
from simulator.twilio_messages import Envelopes, Inbound, Rejected, check

SID, CALL, ACCOUNT = "MZ" + "1" * 32, "CA" + "2" * 32, "AC" + "3" * 32
AUDIO = b"\x11" * 160


@pytest.fixture
def write() -> Envelopes:
    """Return a stream's writer."""
    return Envelopes(stream_sid=SID, call_sid=CALL, account_sid=ACCOUNT)


def test_core_reads_everything_that_is_written(write: Envelopes) -> None:
    """Two implementations of one specification agree."""
    assert read_message(write.connected().encode()) == Connected("Call", "1.0.0")
    start = read_message(write.start({"token": "a"}).encode())
    assert isinstance(start, Start)
    assert (start.stream_sid, start.call_sid, start.account_sid) == (SID, CALL, ACCOUNT)
    assert (start.parameters, start.media_format.is_mulaw, start.tracks) == ({"token": "a"}, True, ("inbound",))
    head = media_payload(write.media(AUDIO, 20).encode(), SID)
    assert head is not None
    assert (head.timestamp_ms, base64.b64decode(head.payload)) == (20, AUDIO)
    assert read_message(write.dtmf("#").encode()) == Dtmf(SID, "#")
    assert read_message(write.mark("g3:17").encode()) == Mark(SID, "g3:17")
    assert read_message(write.stop().encode()) == Stop(SID, CALL, ACCOUNT)
    assert isinstance(read_message(write.unknown().encode()), Unknown)


def test_numbers_of_the_envelope_are_text_and_count(write: Envelopes) -> None:
    """Sequence numbers count every message but connected, chunks count media."""
    write.connected()
    messages = [json.loads(text) for text in (write.start(None), write.media(AUDIO, 20), write.media(AUDIO, 40))]
    assert [message["sequenceNumber"] for message in messages] == ["1", "2", "3"]
    assert [message["media"]["chunk"] for message in messages[1:]] == ["1", "2"]
    assert "customParameters" not in messages[0]["start"]


def test_messages_of_core_pass() -> None:
    """What core builds has exactly the fields Twilio takes."""
    assert check(media_message(SID, base64.b64encode(AUDIO)).decode(), SID) == Inbound("media", audio=AUDIO)
    assert check(mark_message(SID, "g3:17").decode(), SID) == Inbound("mark", name="g3:17")
    assert check(clear_message(SID).decode(), SID) == Inbound("clear")


@pytest.mark.parametrize("message", [
    "",
    "[" * 100_000,
    "[]",
    {"event": "start", "streamSid": SID},
    {"event": ["media"], "streamSid": SID},
    {"event": "clear"},
    {"event": "clear", "streamSid": None},
    {"event": "clear", "streamSid": "MZother"},
    {"event": "clear", "streamSid": SID, "clear": {}},
    {"event": "mark", "streamSid": SID},
    {"event": "mark", "streamSid": SID, "mark": {}},
    {"event": "mark", "streamSid": SID, "mark": {"name": 7}},
    {"event": "mark", "streamSid": SID, "mark": {"name": "a", "more": 1}},
    {"event": "media", "streamSid": SID, "media": "AAAA"},
    {"event": "media", "streamSid": SID, "media": {"payload": "AAAA", "track": "outbound"}},
    {"event": "media", "streamSid": SID, "sequenceNumber": "1", "media": {"payload": "AAAA"}},
    {"event": "media", "streamSid": SID, "media": {"payload": "AAA"}},
    {"event": "media", "streamSid": SID, "media": {"payload": "ÄÄÄÄ"}},
], ids=range(18))
def test_anything_else_is_31951(message: Any) -> None:
    """One field more, one less, a wrong sid, a wrong type."""
    found = check(message if isinstance(message, str) else json.dumps(message), SID)
    assert isinstance(found, Rejected)
    assert found.code == 31951


def test_binary_frame_is_31950() -> None:
    """Even if its content would be right."""
    found = check(clear_message(SID), SID)
    assert isinstance(found, Rejected)
    assert found.code == 31950
