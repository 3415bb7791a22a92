"""What a simulated Twilio remembers of one call: what was heard, what was said, and everything that happened."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from simulator.twilio_ear import Stretch, stretches, write_wav

# Entries of one timeline; a minute of speech in small pieces makes some thousand.
KEPT_ENTRIES = 20_000

ERRORS: Mapping[int, str] = {
    11200: "HTTP retrieval failure",
    12100: "Document parse failure",
    12200: "Schema validation warning",
    12300: "Invalid Content-Type",
    31901: "Stream: connection timed out",
    31902: "Stream: connection refused",
    31910: "Stream: TLS handshake failed",
    31920: "Stream: WebSocket handshake failed",
    31922: "Stream: scheme is not wss",
    31931: "Stream: more than ten minutes of audio queued",
    31941: "Stream: invalid track",
    31950: "Stream: binary message",
    31951: "Stream: invalid message",
}
"""Entries of Twilio's debugger that the simulator makes, shortened."""


class Entry(NamedTuple):
    """One thing that happened; `at_s` counts from the beginning of the call."""

    at_s: float
    event: str
    detail: Mapping[str, Any]


class Warned(NamedTuple):
    """One line of Twilio's debugger; code 0 for a rule that has no published code."""

    code: int
    text: str


class Request(NamedTuple):
    """One HTTP request to the application: kind is voice, action, redirect, stream-status, call-status or play."""

    kind: str
    url: str
    params: Mapping[str, str]
    status: int
    took_s: float


@dataclass
class Marked:
    """One mark: when it came, when it went back, and whether `clear` flushed it."""

    name: str
    came_s: float
    returned_s: float | None = None
    flushed: bool = False


@dataclass
class CallRecord:
    """One call. Seconds count from its beginning, but for `heard` and `said`, which begin with the answer.

    Attributes:
        status: Twilio's `CallStatus`.
        ended_by: `caller`, `rest`, `application` (its TwiML was over), `error`, `time-limit` or `refused`.
        heard: Everything the caller heard, mu-law, silence included: byte 8000 is one second after the answer.
        said: Everything the caller said, aligned with `heard`.
        dropped_bytes: Audio discarded because too much was queued.
        warnings: Twilio's debugger; 31950, 31951 and 31931 once per stream.
        rejected: Reason of every single message that was ignored.
        twiml: Every document, in order.
        spoken: Text of every `<Say>` begun.
        dialled: Everything dialled by `<Dial>`.
        close_codes: Of each stream, by the application: None if Twilio closed, or TCP was lost.
        answered_s: When the call was answered; None if it never was.
        intruder: How a second socket fared (faults replayed_token and stolen_token): close code or `refused`, and
            bytes of audio it got.
    """

    sid: str
    account_sid: str
    to: str
    from_: str
    status: str = "ringing"
    ended_by: str = ""
    heard: bytearray = field(default_factory=bytearray, repr=False)
    said: bytearray = field(default_factory=bytearray, repr=False)
    timeline: list[Entry] = field(default_factory=list, repr=False)
    requests: list[Request] = field(default_factory=list, repr=False)
    marks: list[Marked] = field(default_factory=list, repr=False)
    clears: list[float] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    twiml: list[str] = field(default_factory=list, repr=False)
    spoken: list[str] = field(default_factory=list, repr=False)
    dialled: list[str] = field(default_factory=list)
    stream_sids: list[str] = field(default_factory=list)
    close_codes: list[int | None] = field(default_factory=list)
    dropped_bytes: int = 0
    received_bytes: int = 0
    answered_s: float | None = None
    duration_s: float = 0.0
    intruder: Mapping[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic, repr=False)
    watch: Callable[[Entry], None] | None = field(default=None, repr=False)

    def note(self, event: str, **detail: Any) -> None:
        """Put something into the timeline and show it to the watcher."""
        entry = Entry(self.elapsed_s(), event, detail)
        if len(self.timeline) < KEPT_ENTRIES:
            self.timeline.append(entry)
        if self.watch:
            self.watch(entry)

    def warn(self, code: int, text: str = "") -> None:
        """Put a line into Twilio's debugger."""
        known = ERRORS.get(code, "")
        warned = Warned(code, f"{known}: {text}" if known and text else known or text)
        self.warnings.append(warned)
        self.note("warning", code=code, text=warned.text)

    def elapsed_s(self) -> float:
        """Return the seconds since the call began."""
        return time.monotonic() - self.began

    def codes(self) -> list[int]:
        """Return the codes of all warnings."""
        return [warned.code for warned in self.warnings]

    def events(self, event: str) -> list[Entry]:
        """Return the entries of one kind."""
        return [entry for entry in self.timeline if entry.event == event]

    def requests_of(self, kind: str) -> list[Request]:
        """Return the HTTP requests of one kind."""
        return [request for request in self.requests if request.kind == kind]

    def heard_speech(self) -> list[Stretch]:
        """Return when the caller heard speech, in seconds after the answer."""
        return stretches(bytes(self.heard))

    def write_wav(self, path: str | Path) -> None:
        """Write what the caller heard."""
        write_wav(path, bytes(self.heard))

    def write_both(self, path: str | Path) -> None:
        """Write a stereo file: left what the caller heard, right what they said."""
        write_wav(path, bytes(self.heard), bytes(self.said))
