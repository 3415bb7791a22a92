"""What a client sends before its session begins: kept in order, within a bound, to be given to the session then."""

from __future__ import annotations

from core.realtime import APPEND_HEAD
from core.session import MAX_HELD_BYTES

OVERHEAD_BYTES = 256
"""What a kept message costs besides its text: its object, its number and its place in the queue, rounded up. It bounds
the number of messages to about 4,000."""

Numbered = tuple[int, bytes | None]


class EarlyMessages:
    """Messages that wait for a session; beyond the bound the oldest audio goes, since a talk is about the newest.

    Audio waits apart from the rest, so that making room costs the same however much waits.
    """

    def __init__(self) -> None:
        self._audio: list[Numbered] = []
        self._others: list[Numbered] = []
        self._number = 0
        self._bytes = 0

    def keep(self, message: bytes | None) -> bool:
        """Keep a message, None for a binary one; False when it could not be kept, because no audio made room."""
        is_audio = message is not None and message.startswith(APPEND_HEAD)
        self._number += 1
        (self._audio if is_audio else self._others).append((self._number, message))
        self._bytes += _cost(message)
        while self._bytes > MAX_HELD_BYTES:
            number, dropped = self._audio.pop(0) if self._audio else self._others.pop()
            self._bytes -= _cost(dropped)
            if number == self._number:
                return False
        return True

    def take(self) -> list[bytes | None]:
        """Return the messages in the order they came, and forget them."""
        taken = sorted((*self._audio, *self._others), key=lambda numbered: numbered[0])
        self._audio.clear()
        self._others.clear()
        self._bytes = 0
        return [message for _, message in taken]


def _cost(message: bytes | None) -> int:
    return OVERHEAD_BYTES + (len(message) if message is not None else 0)
