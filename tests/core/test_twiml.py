"""The documents this server answers, as the simulated Twilio reads them."""

from __future__ import annotations

import pytest

from core.twiml import (
    MAX_SENTENCE_CHARS,
    connect_stream,
    hang_up,
    http_base,
    say_and_hang_up,
    stream_url,
    wait_for_redirect,
)
from simulator.twiml import Connect, Hangup, Pause, Say, Stream, Verb, parse

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def verbs(document: str) -> list[Verb]:
    """Return a document's verbs; every warning fails the test."""
    warnings: list[str] = []
    found = parse(
        document.replace('<?xml version="1.0" encoding="UTF-8"?>', ""), lambda code, text: warnings.append(text)
    )
    assert warnings == []
    assert document.startswith(HEAD)
    return found


@pytest.mark.parametrize(
    ("public_url", "base", "stream"),
    [
        ("https://voice.example.com", "https://voice.example.com", "wss://voice.example.com"),
        ("wss://voice.example.com/", "https://voice.example.com", "wss://voice.example.com"),
        ("WSS://voice.example.com/app/", "https://voice.example.com/app", "wss://voice.example.com/app"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
    ],
)
def test_addresses_follow_the_public_name(public_url: str, base: str, stream: str) -> None:
    """Whichever scheme PUBLIC_URL has, webhooks are https and the stream is wss, or both are plain."""
    assert http_base(public_url) == base
    assert stream_url(public_url) == f"{stream}/api/twilio/media-stream"


def test_connecting_document_is_understood_without_a_warning() -> None:
    """One stream with the token as its only parameter, an action after it, a callback beside it; no track, no query."""
    (verb,) = verbs(connect_stream("https://voice.example.com", 'to<k&e"n'))
    base = "https://voice.example.com/api/twilio"
    assert verb == Connect(
        Stream(
            "wss://voice.example.com/api/twilio/media-stream",
            status_callback=f"{base}/status",
            parameters={"token": 'to<k&e"n'},
        ),
        action=f"{base}/after",
    )


def test_sentence_is_spoken_and_the_call_ends() -> None:
    """What an owner wrote is spoken as it is, with its markup as text."""
    assert verbs(say_and_hang_up('Ünïcödé <b> & ☎ "hi"')) == [Say('Ünïcödé <b> & ☎ "hi"'), Hangup()]


def test_what_xml_cannot_hold_is_left_out() -> None:
    """Control characters, lone surrogates and very long texts make no broken document."""
    assert verbs(say_and_hang_up("a\x00b\x1bc\ud800d\uffff")) == [Say("a b c d"), Hangup()]
    (said, _) = verbs(say_and_hang_up("x" * 5000))
    assert isinstance(said, Say)
    assert len(said.text) == MAX_SENTENCE_CHARS


def test_ends_and_waits() -> None:
    """The other two documents end the call, at once or after a REST update had its chance."""
    assert verbs(hang_up()) == [Hangup()]
    assert verbs(wait_for_redirect()) == [Pause(10), Hangup()]
