"""What a simulator remembers of each session, for the assertions of tests. Bounded; no audio, no key."""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KEPT_SESSIONS = 200
KEPT_EVENTS = 2_000

_SECRET_HEADERS = ("authorization", "api-key", "sec-websocket-protocol")
_APPEND = "input_audio_buffer.append"


@dataclass
class SessionRecord:
    """One connection.

    Attributes:
        model: From `?model=`.
        query: The URL's query, as sent.
        headers: Of the upgrade request; keys are masked.
        received: Client events in order, without audio. Appends in a row are one entry with `count` and `audio_bytes`.
        sent: How many server events of each type were sent.
        config: The session object after the last accepted update; None before.
        audio_in_ms: Length of all audio appended.
        refused: Name of the fault or code that ended it at the door; empty if it was let in.
        close_code: How it ended: the peer's code, None while it lives or when TCP was lost.
        open: Whether it lives.
    """

    model: str = ""
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    received: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    sent: Counter[str] = field(default_factory=Counter)
    config: dict[str, Any] | None = None
    audio_in_ms: int = 0
    refused: str = ""
    close_code: int | None = None
    open: bool = True

    def took(self, event: dict[str, Any]) -> None:
        """Remember a client event."""
        if event.get("type") != _APPEND:
            self.received.append(event)
            return
        audio = event.get("audio")
        size = len(audio) * 3 // 4 if isinstance(audio, str) else 0
        last = self.received[-1] if self.received else {}
        if last.get("type") == _APPEND:
            last["count"] += 1
            last["audio_bytes"] += size
        else:
            self.received.append({"type": _APPEND, "count": 1, "audio_bytes": size})

    def events(self, event_type: str) -> list[dict[str, Any]]:
        """Return the client events of one type."""
        return [event for event in self.received if event.get("type") == event_type]


def masked_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers with keys reduced to their scheme and first three characters."""
    return {name: _masked(value) if name.lower() in _SECRET_HEADERS else value for name, value in headers}


def _masked(value: str) -> str:
    return ", ".join(_masked_word(word) for word in value.split(", "))


def _masked_word(word: str) -> str:
    if word == "realtime":
        return word
    scheme, _, key = word.rpartition(" ") if " " in word else word.rpartition(".")
    return f"{scheme} {key[:3]}***".strip()
