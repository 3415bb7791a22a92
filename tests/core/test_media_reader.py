"""The fast way of Twilio's audio takes nothing that the slow one would not take, and says the same about it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.media_reader import MediaReader
from core.twilio import MediaHead, media_payload

SID = "MZ0123456789abcdef0123456789abcdef"
AUDIO = base64.b64encode(bytes(160)).decode()


def media(payload: str = AUDIO, *, sid: str = SID, **changed: str) -> bytes:
    """Return a message as Twilio writes it."""
    inner = {"track": "inbound", "chunk": "2", "timestamp": "40", "payload": payload, **changed}
    return json.dumps(
        {"event": "media", "sequenceNumber": "3", "media": inner, "streamSid": sid}, separators=(",", ":")
    ).encode()


GOOD = media()


def test_audio_is_cut_out_of_its_envelope() -> None:
    """Time and base64 are known without reading JSON."""
    assert MediaReader(SID).read(GOOD) == MediaHead(40, AUDIO.encode())


@pytest.mark.parametrize(
    "frame",
    [
        media("AA=A"),
        media("AAA"),
        media("A!AA"),
        media('AA","x":"'),
        media(sid="MZother"),
        media(track="outbound"),
        media(timestamp="-1"),
        GOOD.replace(b'"payload":"', b'"payload":"","payload":"'),
        GOOD.replace(b'"}', b'","timestamp":"0"}', 1),
        GOOD.replace(b'{"event":"media"', b'{"event":"stop","event":"media"'),
        GOOD[:-1] + b',"event":"stop"}',
        GOOD.replace(b":", b": "),
        GOOD.replace(b'"sequenceNumber":"3",', b'"sequenceNumber":"3","streamSid":"' + SID.encode() + b'",'),
        GOOD[:-1],
        b'{"event":"mark"}',
    ],
)
def test_unusual_messages_are_judged_as_ever(frame: bytes) -> None:
    """Everything but the usual shape is left to the general reader."""
    assert MediaReader(SID).read(frame) == media_payload(frame, SID)


@given(st.binary(max_size=12))
def test_nothing_can_be_smuggled_past_it(payload: bytes) -> None:
    """Whatever stands in the payload's place, what is let through is base64 and nothing else."""
    frame = GOOD.replace(AUDIO.encode(), payload)
    found = MediaReader(SID).read(frame)
    assert found == media_payload(frame, SID)
    if found is not None:
        assert found.payload == payload and base64.b64decode(payload, validate=True) is not None


RETURNED = b'{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"g1:23"}}'


def test_mark_in_twilios_shape_is_read() -> None:
    """The name of a mark that came back is taken wherever the stream's sid stands."""
    assert MediaReader("MZ1").mark(RETURNED) == "g1:23"
    swapped = b'{"event":"mark","sequenceNumber":"4","mark":{"name":"g1:23"},"streamSid":"MZ1"}'
    assert MediaReader("MZ1").mark(swapped) == "g1:23"


@pytest.mark.parametrize(
    "frame",
    [
        RETURNED.replace(b"MZ1", b"MZ2"),
        RETURNED.replace(b"g1:23", b'g1:23","name":"g1:24'),
        RETURNED.replace(b"g1:23", b"g1\\u003a23"),
        RETURNED.replace(b"g1:23", b""),
        RETURNED.replace(b"g1:23", "g１:23".encode()),
        RETURNED.replace(b'"4"', b'"x"'),
        RETURNED + b"\n",
        RETURNED[:-1],
        b'{"event":"media"}',
        b"",
    ],
)
def test_mark_in_another_shape_is_left_to_json(frame: bytes) -> None:
    """Nothing can be smuggled past the reading of marks."""
    assert MediaReader("MZ1").mark(frame) is None
