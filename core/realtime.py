"""The Realtime API's vocabulary: recognising an audio frame, reading events, building events.

Source of all names and shapes: OpenAI Realtime reference, sections 4 to 9.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Event = dict[str, Any]

MAX_CLIENT_DEPTH = 20
"""Deepest nesting of a client event: a tool-free `session.update` has 5 levels, so this leaves room for growth."""

APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_TAIL = b'"}'

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

_APPEND_AROUND = len(APPEND_HEAD) + len(APPEND_TAIL)
_APPEND_ENDS = {
    APPEND_HEAD.translate(None, _BASE64) + end: end for end in (APPEND_TAIL, b"=" + APPEND_TAIL, b"==" + APPEND_TAIL)
}
"""What is left of a canonical append without the characters of base64, and how it must end then."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_NO_END = b"\x00"
"""No text ends like this."""

def _delta_head(kind: bytes) -> re.Pattern[bytes]:
    """Return what matches the head of a delta of this type, up to where its text or audio begins."""
    return re.compile(
        rb'\{(?:"type": ?"' + re.escape(kind) + rb'", ?'
        rb'|"(?:event_id|response_id|item_id)": ?"[\w.\-]{0,64}", ?'
        rb'|"(?:output_index|content_index)": ?\d{1,6}, ?){6}"delta": ?"'
    )


_DELTA_HEAD = _delta_head(b"response.output_audio.delta")
_WORDS_HEAD = _delta_head(b"response.output_audio_transcript.delta")
_DELTA_ITEM = re.compile(rb'"item_id": ?"([\w.\-]{1,64})"')
_DELTA_RESPONSE = re.compile(rb'"response_id": ?"([\w.\-]{1,64})"')
_DELTA_TYPE = b'"response.output_audio.delta"'
_WORDS_TYPE = b'"response.output_audio_transcript.delta"'

_SHOWN_KEY = re.compile(r"\b(?:sk|ek)[-_][\w*-]{4,}")

FATAL_CODES = frozenset(
    {
        "invalid_api_key",
        "insufficient_permissions",
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "account_deactivated",
        "missing_model",
        "invalid_model",
        "model_not_found",
        "beta_api_shape_disabled",
    }
)
"""Errors no retry can mend. Source: OpenAI Realtime reference, section 9.2."""

BAD_KEY_CODES = frozenset({"invalid_api_key", "insufficient_permissions"})
"""Errors that asking for the key anew may mend, once."""

HARMLESS_CODES = frozenset(
    {
        "response_cancel_not_active",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
        "item_retrieve_invalid_item_id",
        "unsupported_content_type",
    }
)
"""Errors that say an intention was already true. Source: OpenAI Realtime reference, section 9.2."""

_ALREADY_SHORTER = "already shorter than"
"""Part of the message of `invalid_value` when there was less to truncate; it has no code of its own."""


NOTICES: Mapping[str, str] = {
    "reconnecting": "The link to the voice service was lost; `retry_in_ms` says when the next try begins.",
    "reconnected": "The link is back and the conversation goes on.",
    "draining": "The server restarts; the session may go on for `left_s` seconds.",
    "time_limit_soon": "The longest session time is over in `left_s` seconds.",
    "budget_soon": "Most of the user's budget for today is used up.",
    "token_expiring": "The token expires in `expires_in_s` seconds; send `session.refresh`.",
    "slow_reader": "The client reads too slowly; some audio was left out.",
}
"""Every code of a `gateway.notice`, for clients and for the documentation."""


class BadEvent(Exception):
    """Raised when a client message is no event; `code` and the text go into the client's `error` event."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class AudioDelta(NamedTuple):
    """What the head of an audio delta says.

    Attributes:
        item_id: Item the audio belongs to.
        response_id: Response the audio belongs to.
        payload: Length of the base64 text in characters.
        padding: Number of `=` at its end.
    """

    item_id: str
    response_id: str
    payload: int
    padding: int

    @property
    def audio_bytes(self) -> int:
        """Bytes of audio the payload decodes to."""
        return self.payload * 3 // 4 - self.padding


def is_canonical_append(frame: bytes) -> bool:
    """True for exactly `{"type":"input_audio_buffer.append","audio":"<base64>"}` and nothing else.

    Such a frame may be forwarded unread: with every byte of the value in the base64 alphabet there is no place for an
    escape, a second key or a second event.
    """
    if not frame.startswith(APPEND_HEAD) or (len(frame) - _APPEND_AROUND) % 4 or len(frame) <= _APPEND_AROUND:
        return False
    rest = frame.translate(None, _BASE64)  # of the whole frame: cutting the body out would copy it
    return frame.endswith(_APPEND_ENDS.get(rest, _NO_END))


def is_base64(text: bytes) -> bool:
    """True for base64 with its padding and nothing else; empty text counts."""
    rest = text.translate(None, _BASE64)
    return len(text) % 4 == 0 and (not rest or (rest in {b"=", b"=="} and text.endswith(rest)))


def read_audio_delta(event: Event) -> AudioDelta | None:
    """Return what an audio delta that had to be parsed says, or None when it holds no audio that can be passed on."""
    text, item_id, response_id = event.get("delta"), event.get("item_id"), event.get("response_id")
    if not (isinstance(text, str) and text and is_base64(text.encode("utf-8", "replace"))):
        return None
    if not (isinstance(item_id, str) and item_id and isinstance(response_id, str)):
        return None
    return AudioDelta(item_id, response_id, len(text), text.count("="))


def audio_delta(frame: bytes) -> AudioDelta | None:
    """Return what an audio delta's head says, or None for every other event and every unusual shape of this one."""
    head = _DELTA_HEAD.match(frame)
    if head is None or not frame.endswith(b'"}'):
        return None
    start, end = head.end(), len(frame) - 2
    if _DELTA_TYPE not in head.group() or frame.find(b'"', start) != end or frame.find(b"\\", start) != -1:
        return None
    item, response = _DELTA_ITEM.search(frame, 0, start), _DELTA_RESPONSE.search(frame, 0, start)
    if item is None or response is None:
        return None
    padding = 2 if frame.endswith(b'=="}') else 1 if frame.endswith(b'="}') else 0
    return AudioDelta(item.group(1).decode(), response.group(1).decode(), end - start, padding)


def words_head(frame: bytes) -> tuple[str, int] | None:
    """Return the item of a piece of an answer's transcript and where its text begins, or None for all else."""
    head = _WORDS_HEAD.match(frame)
    item = None if head is None else _DELTA_ITEM.search(frame, 0, head.end())
    if head is None or item is None or _WORDS_TYPE not in head.group():
        return None
    return item.group(1).decode(), head.end()


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the event as one compact JSON frame; a lone surrogate becomes `?`, since UTF-8 has no form for it."""
    return _ENCODER.encode(event).encode("utf-8", "replace")


def read_upstream(frame: bytes) -> Event | None:
    """Return an upstream event, or None when the frame is not a JSON object with a `type`."""
    try:
        event = json.loads(frame.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    return event


def read_client(frame: bytes) -> Event:
    """Return a client event, strictly read.

    Raises:
        BadEvent: If it is not JSON in UTF-8, holds a key twice, a number JSON has no form for, is nested too deeply, or
            has no `type`.
    """
    try:
        text = frame.decode("utf-8")
        event = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)
    except BadEvent:
        raise
    except (ValueError, RecursionError):
        raise BadEvent("invalid_json", "The message is not valid JSON.") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadEvent("invalid_event", "A message must be a JSON object with a text field named type.", "type")
    if _too_deep(event):
        raise BadEvent("invalid_event", f"The message is nested more than {MAX_CLIENT_DEPTH} levels deep.")
    if not isinstance(event.get("event_id", ""), str | None) or len(event.get("event_id") or "") > 512:
        raise BadEvent("invalid_value", "event_id must be a text of at most 512 characters.", "event_id")
    return event


def _unique_keys(pairs: list[tuple[str, Any]]) -> Event:
    event = dict(pairs)
    if len(event) != len(pairs):
        raise BadEvent("invalid_json", "The message holds a key twice.")
    return event


def _no_constant(name: str) -> Any:
    raise BadEvent("invalid_json", f"{name} is not valid JSON.")


def _finite(digits: str) -> float:
    """Return a number; one such as 1e999 would become Infinity, which has no form in JSON."""
    number = float(digits)
    if math.isinf(number):
        raise BadEvent("invalid_json", "The message holds a number that is too large.")
    return number


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_CLIENT_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def error_event(
    code: str,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    event_id: str | None = None,
) -> Event:
    """Return an `error` event in OpenAI's own shape (reference, section 9.1)."""
    return {
        "type": "error",
        "error": {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id},
    }


def notice_event(code: str, message: str, **fields: Any) -> Event:
    """Return a `gateway.notice` (contract, section 3)."""
    return {"type": "gateway.notice", "code": code, "message": message, **fields}


def append_event(audio: str) -> bytes:
    """Return a canonical append of base64 audio."""
    return APPEND_HEAD + audio.encode("ascii") + APPEND_TAIL


def error_code(event: Mapping[str, Any]) -> str:
    """Return the code of an upstream `error` event, or its type when there is none."""
    error = event.get("error")
    if not isinstance(error, dict):
        return "unknown"
    return str(error.get("code") or error.get("type") or "unknown")


def is_harmless(error: Mapping[str, Any], code: str) -> bool:
    """True when an upstream error says that what was asked for is so already."""
    return code in HARMLESS_CODES or _ALREADY_SHORTER in str(error.get("message"))


def shown_error(error: Mapping[str, Any], code: str, event_id: str | None) -> Event:
    """Return an upstream error as a client may see it: without anything that looks like a key."""
    message = _SHOWN_KEY.sub("…", str(error.get("message") or "The voice service refused it."))
    kind = str(error.get("type") or "invalid_request_error")
    return error_event(code, message, kind=kind, param=error.get("param"), event_id=event_id)


def close_reason_code(reason: str) -> str:
    """Return the error code inside an upstream close reason such as `invalid_request_error.model_not_found`."""
    return reason.rpartition(".")[2] if re.fullmatch(r"[a-z_]+\.[a-z_]+", reason) else ""
