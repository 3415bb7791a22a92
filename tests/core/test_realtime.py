"""Frames are recognised exactly, events are read strictly."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.realtime import (
    APPEND_HEAD,
    MAX_CLIENT_DEPTH,
    AudioDelta,
    BadEvent,
    append_event,
    audio_delta,
    close_reason_code,
    encode,
    error_code,
    error_event,
    is_canonical_append,
    is_harmless,
    notice_event,
    read_client,
    read_upstream,
    shown_error,
)
from tests.dialogue import delta_frame

APPEND = b'{"type":"input_audio_buffer.append","audio":"%s"}'


@pytest.mark.parametrize("audio", [b"AAAA", b"AAA=", b"AA==", b"+/09azAZ"])
def test_a_canonical_append_may_pass_unread(audio: bytes) -> None:
    """Exactly the one shape with valid base64 takes the fast lane."""
    assert is_canonical_append(APPEND % audio)


@pytest.mark.parametrize(
    "frame",
    [
        APPEND % b"",
        APPEND % b"AAA",
        APPEND % b"A===",
        APPEND % b"====",
        APPEND % b"AA=A",
        APPEND % b"A=A=",
        APPEND % b"AA\\u0041A==",
        APPEND % b"AAA\n",
        APPEND % b"AAA ",
        APPEND % b"AA-_",
        APPEND % "AAü".encode(),
        APPEND % b'AAAA","type":"session.update","session":{},"audio":"AAAA',
        APPEND % b'AAAA","audio":"AAAA',
        b" " + APPEND % b"AAAA",
        APPEND % b"AAAA" + b" ",
        APPEND % b"AAAA" + b"{}",
        b'{"audio":"AAAA","type":"input_audio_buffer.append"}',
        b'{"type": "input_audio_buffer.append","audio":"AAAA"}',
        b'{"type":"input_audio_buffer.append","event_id":"e","audio":"AAAA"}',
        b'{"type":"input_audio_buffer.append","audio":"AAAA","type":"session.update"}',
        b'{"type":"input_audio_buffer.commit"}',
        b'{"type":"input_audio_buffer.append","audio":"}',
        b'{"type":"input_audio_buffer.append","audio":null}',
        b"",
    ],
)
def test_nothing_else_takes_the_fast_lane(frame: bytes) -> None:
    """Second keys, escapes, white space, other fields and bad base64 are read like any event."""
    assert not is_canonical_append(frame)


@given(st.binary(min_size=1, max_size=200))
def test_what_this_server_builds_is_canonical(audio: bytes) -> None:
    """Every append of real base64 is recognised, and is the event it looks like."""
    text = base64.b64encode(audio).decode()
    frame = append_event(text)
    assert is_canonical_append(frame)
    assert json.loads(frame) == {"type": "input_audio_buffer.append", "audio": text}


@given(st.binary(max_size=60))
def test_a_canonical_append_is_always_that_event_and_no_other(body: bytes) -> None:
    """No content of the value can make a recognised frame mean something else."""
    frame = APPEND_HEAD + body + b'"}'
    if is_canonical_append(frame):
        assert json.loads(frame) == {"type": "input_audio_buffer.append", "audio": body.decode("ascii")}


def test_an_audio_delta_is_recognised_by_its_head() -> None:
    """Ids and size are known without reading the audio, in any order of fields and with a space after colons."""
    delta = audio_delta(delta_frame("item_1", "resp_1", 20))
    assert delta is not None
    assert (delta.item_id, delta.response_id, delta.audio_bytes) == ("item_1", "resp_1", 960)
    spaced = json.dumps(json.loads(delta_frame("item_1", "resp_1", 20))).encode()
    assert audio_delta(spaced) == delta
    event = json.loads(delta_frame("item_1", "resp_1", 20))
    shuffled = {key: event[key] for key in ("event_id", "type", "item_id", "content_index", "response_id")}
    assert audio_delta(encode({**shuffled, "output_index": 1, "delta": "AA=="})) == AudioDelta("item_1", "resp_1", 4, 2)


@pytest.mark.parametrize(("audio", "size"), [("AAAA", 3), ("AAA=", 2), ("AA==", 1), ("", 0)])
def test_the_bytes_of_an_audio_delta(audio: str, size: int) -> None:
    """Padding is no audio."""
    frame = delta_frame("i", "r", 1)
    event = {**json.loads(frame), "delta": audio}
    delta = audio_delta(encode(event))
    assert delta is not None
    assert delta.audio_bytes == size


GOOD = delta_frame("i1", "r1", 1)


@pytest.mark.parametrize(
    "frame",
    [
        GOOD.replace(b"output_audio.delta", b"output_text.delta"),
        GOOD.replace(b'"response.output_audio.delta"', b'"x"'),
        GOOD.replace(b'"item_id":"i1",', b'"event_id":"i1",'),
        GOOD.replace(b'"response_id":"r1",', b'"event_id":"r1",'),
        GOOD.replace(b'"item_id":"i1"', b'"item_id":""'),
        GOOD.replace(b'"output_index":0,', b""),
        GOOD.replace(b'"delta":"AA', b'"delta":"\\u0041A'),
        GOOD[:-2] + b'","type":"session.updated"}',
        GOOD[:-1],
        GOOD + b" ",
        json.dumps({**json.loads(GOOD), "obfuscation": "x"}).encode(),
        b'{"event_id":"response.output_audio.delta",' * 6 + b'"delta":""}',
        b'{"type":"response.done"}',
    ],
)
def test_unusual_audio_deltas_are_read(frame: bytes) -> None:
    """Whatever is not exactly the usual shape goes the slow way."""
    assert audio_delta(frame) is None


def test_encoding_never_fails() -> None:
    """Text goes out in UTF-8 without escapes; half of a surrogate pair has no form and becomes a question mark."""
    assert encode({"a": "ü", "b": "\ud800"}) == '{"a":"ü","b":"?"}'.encode()


@pytest.mark.parametrize("frame", [b"", b"[]", b"5", b'{"type":5}', b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_event_of_the_service_is_none(frame: bytes) -> None:
    """A broken frame from upstream is no reason to fail."""
    assert read_upstream(frame) is None


def test_an_event_of_the_service_is_read() -> None:
    """Anything with a type is an event, known or not."""
    assert read_upstream(b'{"type":"new.event","x":1}') == {"type": "new.event", "x": 1}


def nested(depth: int) -> bytes:
    """Return an event with so many levels."""
    return b'{"type":"x","a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        ('{"type":"x"}'.encode("utf-16"), "invalid_json"),
        ('{"type":"x"}'.encode("utf-16-le"), "invalid_json"),
        (b'\xef\xbb\xbf{"type":"x"}', "invalid_json"),
        (b'{"type":"x","type":"y"}', "invalid_json"),
        (b'{"type":"x","a":{"b":1,"b":2}}', "invalid_json"),
        (b'{"type":"x","\\u0074ype":"y"}', "invalid_json"),
        (b'{"type":"x","a":NaN}', "invalid_json"),
        (b'{"type":"x","a":-Infinity}', "invalid_json"),
        (b'{"type":"x","a":1e999}', "invalid_json"),
        (b'{"type":"x","a":' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"type":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b"[]", "invalid_event"),
        (b'"x"', "invalid_event"),
        (b"{}", "invalid_event"),
        (b'{"type":null}', "invalid_event"),
        (nested(MAX_CLIENT_DEPTH + 1), "invalid_event"),
        (b'{"type":"x","event_id":5}', "invalid_value"),
        (b'{"type":"x","event_id":"' + b"e" * 513 + b'"}', "invalid_value"),
    ],
)
def test_a_client_is_read_strictly(frame: bytes, code: str) -> None:
    """What two readers could understand differently, or what is no event, is refused."""
    with pytest.raises(BadEvent) as refused:
        read_client(frame)
    assert refused.value.code == code


def test_ordinary_client_events_are_read() -> None:
    """White space, escapes, null ids and numbers are fine; so is the deepest nesting that is allowed."""
    assert read_client(b' {"type":"x", "event_id":null, "n":0.5, "s":"\\u00fc"} ')["n"] == 0.5
    assert read_client(nested(MAX_CLIENT_DEPTH))["type"] == "x"
    assert read_client(b'{"type":"x"}') == {"type": "x"}


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_no_frame_breaks_the_reader(frame: bytes) -> None:
    """Every frame is an event or refused."""
    try:
        assert isinstance(read_client(frame)["type"], str)
    except BadEvent as error:
        assert error.code
    read_upstream(frame)


def test_own_events_have_the_apis_shape() -> None:
    """Errors look as OpenAI's do; notices carry their fields."""
    assert error_event("bad", "No.", param="x", event_id="e")["error"] == {
        "type": "invalid_request_error",
        "code": "bad",
        "message": "No.",
        "param": "x",
        "event_id": "e",
    }
    assert notice_event("reconnecting", "Wait.", retry_in_ms=400)["retry_in_ms"] == 400


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"error": {"code": "a", "type": "b"}}, "a"),
        ({"error": {"code": None, "type": "b"}}, "b"),
        ({"error": {}}, "unknown"),
        ({"error": "x"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_every_upstream_error_has_a_code(event: dict[str, Any], code: str) -> None:
    """The code, else the type, else unknown."""
    assert error_code(event) == code


@pytest.mark.parametrize("key", ["sk-proj-abcDEF123_x", "sk-ab***yz12", "ek_68af0c1234"])
def test_a_key_in_an_error_is_not_shown(key: str) -> None:
    """OpenAI's messages may quote a part of the key; clients never see it."""
    shown = shown_error({"message": f"Incorrect API key provided: {key}.", "param": "p"}, "c", "e")
    assert key not in json.dumps(shown)
    assert shown["error"]["message"].startswith("Incorrect API key provided: …")
    assert shown["error"]["param"] == "p"


@pytest.mark.parametrize(
    ("error", "code", "harmless"),
    [
        ({"message": "Audio content of 3700ms is already shorter than 3760ms"}, "invalid_value", True),
        ({}, "item_truncate_invalid_item_id", True),
        ({}, "response_cancel_not_active", True),
        ({"message": "No."}, "invalid_value", False),
    ],
)
def test_errors_about_what_is_so_already(error: dict[str, Any], code: str, harmless: bool) -> None:
    """A truncation past the end, an item that is gone and a cancel of nothing need nobody's attention."""
    assert is_harmless(error, code) is harmless


def test_an_error_without_words_gets_some() -> None:
    """A client always has a sentence and a type to show."""
    shown = shown_error({}, "c", None)["error"]
    assert shown["message"]
    assert shown["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("invalid_request_error.model_not_found", "model_not_found"),
        ("Your session hit the maximum duration of 60 minutes.", ""),
        ("", ""),
        ("a.b.c", ""),
    ],
)
def test_a_close_reason_may_hold_a_code(reason: str, code: str) -> None:
    """Only the shape `<type>.<code>` is one."""
    assert close_reason_code(reason) == code
