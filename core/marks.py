"""The marks behind the audio of a call: which are out, and what one that comes back says.

A mark comes back when everything before it was played or flushed by `clear`; the two look alike. So each `clear` begins
a generation, and a mark of an older one says nothing about what was heard (Twilio reference, section 4.2).
"""

from __future__ import annotations

from typing import NamedTuple

from core import twilio

MAX_MARKS = 4096
"""Marks that may be out; beyond it the oldest is forgotten. With one for 200 ms that is a quarter of an hour."""

PLAYED_S = 2.0
"""How much later than computed the last mark may come back before the line is released without it."""

MARK_POLL_S = 0.1
"""How often it is looked whether a mark that is late has come back."""

MARK_MS = 200
"""Audio between two marks of an item: the playout is known every fifth of a second and computed between, as sound is
played in real time (at most 200 ms by the Twilio reference, section 4.2)."""


class Played(NamedTuple):
    """What a mark that came back says: so many milliseconds of an item were played; no item for a bare mark."""

    item_id: str
    played_ms: int


class Marks:
    """The marks of one stream; true while audio is out.

    Args:
        stream_sid: Of the stream.
    """

    __slots__ = ("_count", "_generation", "_marked", "_out", "_stream_sid", "_unmarked_ms")

    def __init__(self, stream_sid: str) -> None:
        self._stream_sid = stream_sid
        self._generation = 1
        self._count = 0
        self._out: dict[int, Played] = {}
        self._marked = Played("", 0)
        self._unmarked_ms: int | None = None  # of the item that was marked last

    def __bool__(self) -> bool:
        return bool(self._out) or self._unmarked_ms is not None

    def behind_audio(self, item_id: str, sent_ms: int) -> bytes | None:
        """Return the mark that belongs behind a piece of audio; None when a later one will do.

        Args:
            item_id: Item the audio belongs to.
            sent_ms: How much of that item was sent, with this piece.
        """
        if item_id == self._marked.item_id and sent_ms - self._marked.played_ms < MARK_MS:
            self._unmarked_ms = sent_ms
            return None
        return self.next(item_id, sent_ms)

    def behind_last(self) -> bytes | None:
        """Return the mark behind the last audio of an answer; None when there is one already."""
        return None if self._unmarked_ms is None else self.next(self._marked.item_id, self._unmarked_ms)

    def next(self, item_id: str = "", sent_ms: int = 0) -> bytes:
        """Return the message of a mark that comes back when everything sent until now was played.

        Args:
            item_id: Item the audio before it belongs to; empty for a bare mark.
            sent_ms: How much of that item was sent.
        """
        self._marked, self._unmarked_ms = Played(item_id, sent_ms), None
        self._count += 1
        self._out[self._count] = self._marked
        if len(self._out) > MAX_MARKS:
            del self._out[next(iter(self._out))]
        return twilio.mark_message(self._stream_sid, str(twilio.MarkName(self._generation, self._count)))

    def returned(self, name: str) -> Played | None:
        """Take a mark that came back; None when it was flushed, came before or is none of ours."""
        mark = twilio.read_mark_name(name)
        if mark is None or mark.generation != self._generation or mark.number not in self._out:
            return None
        played = self._out[mark.number]
        for number in tuple(self._out):  # in the order in which they went out
            if number > mark.number:
                break
            del self._out[number]
        return played

    def flush(self) -> set[str]:
        """Begin a generation, because the queue is emptied; returns the items whose audio was out."""
        items = {played.item_id for played in self._out.values()}
        if self._unmarked_ms is not None:
            items.add(self._marked.item_id)
        self._generation += 1
        self._unmarked_ms = None
        self._out.clear()
        return items
