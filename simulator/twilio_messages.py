"""The messages of Media Streams as Twilio writes them, and its strict look at what comes back.

Written without `core.twilio`, so that an error there does not hide itself here. Order of keys and the first timestamp
are those of captures published by users.
"""
from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

MULAW = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
_LINEAR = {"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 1}

# Exactly these fields, and no other: an extra one is a cause of 31951.
_FIELDS: Mapping[str, tuple[frozenset[str], str]] = {
    "media": (frozenset({"event", "streamSid", "media"}), "payload"),
    "mark": (frozenset({"event", "streamSid", "mark"}), "name"),
    "clear": (frozenset({"event", "streamSid"}), ""),
}


class Inbound(NamedTuple):
    """A message to Twilio that passed: its event, and the audio of `media` or the name of `mark`."""

    event: str
    audio: bytes = b""
    name: str = ""


class Rejected(NamedTuple):
    """A message to Twilio that is ignored, with the warning it causes."""

    code: int
    reason: str


class Envelopes:
    """Writes the messages of one stream; numbers are text, sequence numbers count up from 1."""

    def __init__(self, *, stream_sid: str, call_sid: str, account_sid: str) -> None:
        """Name the stream; nothing has been sent."""
        self.stream_sid = stream_sid
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._sequence = 0
        self._chunk = 0

    def connected(self) -> str:
        """Return the first message; it has no sequence number."""
        return _json({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self, parameters: Mapping[str, str] | None, *, linear: bool = False, account_sid: str = "") -> str:
        """Return `start`; None leaves customParameters out, `linear` announces a format that is not mu-law."""
        body: dict[str, Any] = {
            "accountSid": account_sid or self._account_sid,
            "streamSid": self.stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": _LINEAR if linear else MULAW,
        }
        if parameters is not None:
            body["customParameters"] = dict(parameters)
        return self._message("start", body)

    def media(self, audio: bytes, timestamp_ms: int, *, track: str = "inbound") -> str:
        """Return `media` of one frame."""
        self._chunk += 1
        payload = base64.b64encode(audio).decode()
        body = {"track": track, "chunk": str(self._chunk), "timestamp": str(timestamp_ms), "payload": payload}
        return self._message("media", body)

    def dtmf(self, digit: str) -> str:
        """Return `dtmf` of one key."""
        return self._message("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        """Return a mark that was played or flushed."""
        return self._message("mark", {"name": name})

    def stop(self) -> str:
        """Return `stop`."""
        return self._message("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def unknown(self) -> str:
        """Return an event that does not exist."""
        return self._message("weather", {"sky": "blue"})

    def _message(self, event: str, body: Mapping[str, Any]) -> str:
        self._sequence += 1
        return _json(
            {"event": event, "sequenceNumber": str(self._sequence), event: body, "streamSid": self.stream_sid}
        )


def _json(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def check(frame: str | bytes, stream_sid: str) -> Inbound | Rejected:
    """Return a message to Twilio as it is understood, or why it is ignored."""
    if isinstance(frame, bytes):
        return Rejected(31950, "binary frame")
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        return Rejected(31951, "not JSON")
    event = message.get("event") if isinstance(message, dict) else None
    if not isinstance(event, str) or event not in _FIELDS:
        return Rejected(31951, "unknown event")
    fields, inner = _FIELDS[event]
    if set(message) != fields:
        return Rejected(31951, f"{event}: fields {', '.join(sorted(set(message) ^ fields))} missing or too many")
    if message["streamSid"] != stream_sid:
        return Rejected(31951, f"{event}: wrong streamSid")
    return _check_body(event, message.get(event), inner)


def _check_body(event: str, body: Any, inner: str) -> Inbound | Rejected:
    if not inner:
        return Inbound(event)
    if not isinstance(body, dict) or set(body) != {inner} or not isinstance(body[inner], str):
        return Rejected(31951, f"{event}: must hold exactly the text {inner}")
    if event == "mark":
        return Inbound(event, name=body[inner])
    try:
        return Inbound(event, audio=base64.b64decode(body[inner], validate=True))
    except (binascii.Error, ValueError):
        return Rejected(31951, "media: payload is not base64")
