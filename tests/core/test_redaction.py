"""Secrets, phone numbers and control characters do not survive `core.redaction`; ordinary words do."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import PurePosixPath

import pytest

from core.redaction import MAX_TEXT_CHARS, clean, one_line, redact, safe_name, safe_value

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("GET /?token=canary7&agent_id=1", "canary7"),
        ("GET /%3Ftoken%3Dcanary7", "canary7"),
        ("GET /v1?apikey=canary7 HTTP", "canary7"),
        ("GET /v1?access_token=canary7#x", "canary7"),
        ("GET /v1?key=canary7", "canary7"),
        (f"claims of {JWT} are bad", "c2lnbmF0dXJl"),
        (f"cut {JWT[:30]}", JWT[10:30]),
        ("key sk-proj-canary7canary7", "canary7"),
        ("ek_canary7canary7", "canary7"),
        ("line\nsk-canary7canary7", "canary7"),
        ("sb_secret_canary7", "canary7"),
        ("Authorization: Bearer canary7", "canary7"),
        ("[(b'authorization', b'Bearer canary7')]", "canary7"),
        ("Basic Y2FuYXJ5Nw==", "Y2FuYXJ5"),
        ("realtime, openai-insecure-api-key.canary7", "canary7"),
        ("Sec-WebSocket-Protocol: realtime, canary7", "canary7"),
        ('{"password": "two canary7 words"}', "canary7"),
        ("{'auth_token': 'canary7'}", "canary7"),
        ("SUPABASE_JWT_SECRET=canary7", "canary7"),
        ("postgresql://user:canary7@db/x", "canary7"),
        ("token 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("audio " + "AAAA" * 40, "AAAAAAAA"),
        ("call from +15551234567 came", "5551234567"),
        ("call from +1 (555) 123-4567 came", "123-4567"),
        ("From=%2B15551234567&To", "5551234567"),
        ("sip:15551234567@example.org", "5551234567"),
        ("dial 0049301234567", "301234567"),
        ("dial 555-123-4567", "123-4567"),
    ],
)
def test_secret_or_number_is_taken_out(text: str, canary: str) -> None:
    """Every shape of token, key and phone number is replaced, wherever it stands."""
    assert canary not in clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "conversation ended",
        "CA0123456789abcdef0123456789abcdef",
        "3f0e9c1a-5b7d-4c1e-9a55-0c2f6f1b7a10",
        "2026-11-20T12:00:00+01:00",
        "task-runner risk-assessment",
        "max_output_tokens=4096 tokens=12",
        "gpt-realtime-2.1",
        "127.0.0.1:8080",
    ],
)
def test_ordinary_words_and_ids_stay(text: str) -> None:
    """Ids, times, addresses and model names are not mistaken for secrets."""
    assert clean(text) == text


def test_forged_lines_and_colours_become_escapes() -> None:
    """Newlines, ANSI, direction marks and lone surrogates are written as escapes, so a text stays on its line."""
    line = one_line("a\nb\rc\td\x1b[31me\x00\u2028f\u202eg\ud800")
    assert line == "a\\nb\\rc\\td\\x1b[31me\\x00\\u2028f\\u202eg\\ud800"
    assert line.encode("utf-8")


def test_long_text_is_cut_with_a_mark() -> None:
    """A text never takes more than its share of the line."""
    assert len(clean("word " * 10_000)) == MAX_TEXT_CHARS
    assert clean("word " * 10_000).endswith("…")


@pytest.mark.parametrize("piece", ["a", "+1 ", "token", "eyJ", "Bearer ", "://", "1-", "%3D", "'"])
def test_hostile_text_costs_little_time(piece: str) -> None:
    """No pattern runs away: 1 MB of the worst text is cleaned in well under a second."""
    before = time.perf_counter()
    redact(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - before < 0.5


class _Side(Enum):
    CLIENT = "client"


class _Secretive:
    def __repr__(self) -> str:
        return "canary7"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("turns", 23, 23),
        ("ok", True, True),
        ("close", None, None),
        ("duration_s", 184.20001, 184.2),
        ("bytes_in", 15551234567, 15551234567),
        ("side", _Side.CLIENT, "client"),
        ("path", PurePosixPath("a/b"), "a/b"),
        ("fields", ["voice", "speed"], "voice,speed"),
        ("error", _Secretive(), "<_Secretive>"),
        ("data", b"canary7", "<bytes>"),
        ("who", "15551234567", "[phone]"),
        ("transcript", "a spoken sentence", "[redacted]"),
        ("caller_number", 15551234567, "[redacted]"),
        ("service_key", "plain", "[redacted]"),
        ("token", False, False),
    ],
)
def test_value_shows_only_what_is_safe(name: str, value: object, shown: object) -> None:
    """Numbers and plain words are kept, personal fields are hidden, objects are named by type, never by repr."""
    assert safe_value(name, value) == shown


def test_field_name_cannot_forge_a_field() -> None:
    """Spaces, quotes and equal signs in a name become underscores; a name is never empty."""
    assert safe_name('a b="c') == "a_b__c"
    assert safe_name("") == "_"


def test_trace_ids_stand_in_their_field_only() -> None:
    """An id of a trace is shown under its name; the same shape elsewhere may be a token of Twilio's."""
    trace_id = "f32e7f97798db1b946a655bedb090091"
    assert safe_value("trace_id", trace_id) == trace_id
    assert safe_value("cause", trace_id) == "[redacted]"
    assert safe_value("trace_id", f"{trace_id} Bearer abcdefgh") == "[redacted] Bearer [redacted]"
