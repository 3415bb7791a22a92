"""What may stand in a log line: secrets, phone numbers and control characters are taken out here.

Counterpart of `services/log.py`, which sends every line through `clean` and every value through `safe_value`.
The patterns know shapes, not meanings: they are the second wall. The first is that nobody passes personal content.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath

MAX_TEXT_CHARS = 4_096
"""Longest text kept of one value: half of the longest line, so that one value never hides all others."""

_SCAN_CHARS = 16_384
"""Longest text the patterns are run over: bounds the time a hostile text can cost."""

REDACTED = "[redacted]"
PHONE = "[phone]"

_LABEL = (
    r"token|apikey|api[_-]key|password|passwd|secret|authorization|signature|cookie|credential"
    r"|openai[_-]key|service[_-]key|private[_-]key|jwt"
)

_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # the header carries tokens beside the protocol's name, separated by commas: nothing after it is kept
    (re.compile(r"(sec-websocket-protocol[\"']?\s{0,2}[:=,]\s{0,2})[^\n]*", re.I), rf"\1{REDACTED}"),
    (re.compile(r"openai-insecure-api-key\.[^\s,'\"]+", re.I), f"openai-insecure-api-key.{REDACTED}"),
    (re.compile(r"\b(Bearer|Basic)(?:\s|%20|\+)+[^\s'\",]+", re.I), rf"\1 {REDACTED}"),
    (re.compile(r"(://)[^/\s@]{1,512}@"), rf"\1{REDACTED}@"),
    (
        re.compile(
            rf"((?:{_LABEL})[\"']?(?:=|%3D|\s{{0,2}}:\s{{0,2}}))(?:\"[^\"]*\"?|'[^']*'?|[^\s&'\",;}}\])]+)", re.I
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"([?&](?:key|sig|code)=)[^&\s'\"]+", re.I), rf"\1{REDACTED}"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"), REDACTED),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk|rk|ek|sess)[-_][A-Za-z0-9_-]{8,}"), REDACTED),
    (re.compile(r"sb_(?:secret|publishable)_[A-Za-z0-9_-]+|sbp_[A-Za-z0-9]{8,}"), REDACTED),
    # the shape of a Twilio auth token; sids carry two letters before their 32 digits and pass
    (re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{32}(?![0-9A-Za-z])"), REDACTED),
    # audio and other payloads; no identifier of ours is longer than 64 characters
    (re.compile(r"[A-Za-z0-9+/_-]{120,}={0,2}"), "[payload]"),
    (re.compile(r"\b(sips?|tel):[^\s'\",;>]+", re.I), rf"\1:{PHONE}"),
    (re.compile(r"(?:\+|%2B)[1-9](?:[ .()/-]{0,2}\d){6,14}", re.I), PHONE),  # E.164: at most 15 digits
    (re.compile(r"(?<![\w.-])00[1-9]\d{7,13}(?![\w.])"), PHONE),
    (re.compile(r"(?<![\w.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"), PHONE),
)

_PLAIN = re.compile(r"(?!.*\b(?:bearer|basic)\b)[a-z ]{1,40}|\w{1,6}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.A)
"""Words in small letters, short words and UUIDs: no pattern takes anything from them, and most values are such."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""C0, DEL, C1, line separators, direction marks, zero-width marks, lone surrogates: all that lets a text forge a line,
colour a terminal or fail to be written as UTF-8."""

# fmt: off
_PERSONAL_FIELDS = frozenset({
    "token", "jwt", "secret", "password", "authorization", "cookie", "signature", "credentials", "api_key", "apikey",
    "key", "headers", "body", "payload",
    "from_number", "to_number", "number", "phone", "caller", "callee", "digits", "dtmf", "email",
    "text", "content", "transcript", "audio", "arguments", "output", "instructions", "greeting", "prompt", "sentence",
})
"""Fields whose value is never shown, whatever it looks like."""

_PERSONAL_ENDINGS = (
    "_token", "_secret", "_key", "_password", "_number", "_phone", "_transcript", "_text", "_arguments",
)
# fmt: on

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
"""W3C Trace Context, section 3.2.2.3. It has the shape of a Twilio token, so only the field of that name shows it."""

_SHORTEST_PHONE = 10**6
"""A smaller number is a count or a status even in a field of a personal name."""

_NAME = re.compile(r"[^A-Za-z0-9_.]")


def redact(text: str) -> str:
    """Return the text without the secrets and phone numbers whose shape is known; at most 16,384 characters."""
    text = text[:_SCAN_CHARS]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def one_line(text: str) -> str:
    """Return the text with every character that could forge or colour a line written as an escape."""
    return _CONTROL.sub(_escaped, text)


def clean(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Return text that may be logged: redacted, on one line, at most `limit` characters and a mark where it was cut."""
    if limit >= 40 and _PLAIN.fullmatch(text):
        return text
    text = one_line(redact(text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def safe_name(name: str) -> str:
    """Return a field's name without spaces, quotes and equal signs, at most 40 characters."""
    return _NAME.sub("_", name[:40]) or "_"


def safe_value(name: str, value: object) -> str | int | float | bool | None:
    """Return what a log line may show of a field's value.

    Args:
        name: The field's name; names of personal things hide any text.
        value: Numbers, truth values and None are kept (floats to three places), text is cleaned, enumeration members
            and paths become text, lists of these are joined by commas. Everything else is named by its type only: a
            repr may hold anything.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and abs(value) < _SHORTEST_PHONE:
        return value if isinstance(value, int) else round(value, 3)
    if name.lower() in _PERSONAL_FIELDS or name.lower().endswith(_PERSONAL_ENDINGS):
        return REDACTED
    if isinstance(value, Enum):
        value = value.value
    if name == "trace_id" and isinstance(value, str) and _TRACE_ID.fullmatch(value):
        return value
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (str, PurePath)):
        text = str(value)
        return PHONE if text.isdecimal() and 10 <= len(text) <= 15 else clean(text)
    if isinstance(value, (list, tuple, set, frozenset)):
        return clean(",".join(str(safe_value(name, entry)) for entry in list(value)[:50]))
    return f"<{type(value).__name__}>"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    short = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    return short.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
