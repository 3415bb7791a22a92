"""Twilio's queue towards the caller: audio and marks in order, drained at 8000 bytes a second.

Time is the number of bytes played: whoever owns a `Playout` calls `play` by its clock.
"""
from __future__ import annotations

from collections import deque
from typing import NamedTuple

SILENCE = b"\xff"


class Played(NamedTuple):
    """What the caller heard in one step.

    Attributes:
        audio: Exactly as many bytes as were asked for; mu-law silence where nothing was queued.
        filled: How many of them came from the queue.
        marks: Names whose audio has been played to its end, in order.
    """

    audio: bytes
    filled: int
    marks: list[str]


class Playout:
    """The queue of one stream; source of its rules: Twilio, messages `media`, `mark`, `clear`, error 31931."""

    def __init__(self, limit_bytes: int) -> None:
        """Make an empty queue that discards audio beyond `limit_bytes`."""
        self._limit = limit_bytes
        self._queue: deque[bytes | str] = deque()
        self.queued_bytes = 0

    def media(self, audio: bytes) -> int:
        """Queue audio; return how many bytes had to be discarded."""
        kept = audio[: max(self._limit - self.queued_bytes, 0)]
        if kept:
            self._queue.append(kept)
            self.queued_bytes += len(kept)
        return len(audio) - len(kept)

    def mark(self, name: str) -> list[str]:
        """Queue a mark; return it if nothing is queued before it, since it is then due at once."""
        if not self._queue:
            return [name]
        self._queue.append(name)
        return []

    def clear(self) -> list[str]:
        """Drop all audio; return the marks that were waiting, in order."""
        marks = [item for item in self._queue if isinstance(item, str)]
        self._queue.clear()
        self.queued_bytes = 0
        return marks

    def play(self, count: int) -> Played:
        """Play so many bytes."""
        parts: list[bytes] = []
        marks: list[str] = []
        missing = count
        while self._queue:
            item = self._queue[0]
            if isinstance(item, str):
                marks.append(item)
                self._queue.popleft()
            elif not missing:
                break
            else:
                self._queue.popleft()
                if len(item) > missing:
                    self._queue.appendleft(item[missing:])
                    item = item[:missing]
                parts.append(item)
                missing -= len(item)
        filled = count - missing
        self.queued_bytes -= filled
        return Played(b"".join(parts) + SILENCE * missing, filled, marks)
