"""How much speech was sent and heard; bytes and milliseconds.

Audio arrives faster than real time, so what was sent says nothing about what was heard. Here the listener's playout is
followed by arithmetic: each item begins when it arrives or when the one before has ended, and plays in real time. The
estimate is never above what was sent (OpenAI Realtime reference, section 8.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

BYTES_PER_MS = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}
"""PCM16 at 24 kHz, G.711 at 8 kHz. Source: OpenAI Realtime reference, section 4."""

MAX_ITEMS = 64
"""Items whose playout is remembered: a conversation looks back at one response, of a few items."""


class Heard(NamedTuple):
    """How much of one item the listener heard, in milliseconds.

    Attributes:
        item_id: The item.
        heard_ms: What the listener heard, never more than was sent.
        spoken_ms: What the model spoke: sent to the listener, or withheld because the listener had cut in.
    """

    item_id: str
    heard_ms: int
    spoken_ms: int

    @property
    def is_whole(self) -> bool:
        """True when nothing was left unheard."""
        return self.heard_ms >= self.spoken_ms


@dataclass(slots=True)
class _Item:
    begins: float
    sent_bytes: int = 0
    withheld_bytes: int = 0
    cut_ms: int | None = None


class Playback:
    """The playout of one listener.

    Args:
        bytes_per_ms: Of the output format, see `BYTES_PER_MS`.
        latency_s: From our socket to the listener's ear: network, prebuffer and output; 0.15 s is the browser client's
            60 ms prebuffer plus a usual network and output path.
    """

    __slots__ = ("_bytes_per_ms", "_ends", "_items", "_latency_s")

    def __init__(self, bytes_per_ms: int, *, latency_s: float = 0.15) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._latency_s = latency_s
        self._items: dict[str, _Item] = {}
        self._ends = 0.0

    def received(self, item_id: str, audio_bytes: int, now: float) -> None:
        """Count audio on its way to the listener; called for every audio frame."""
        item = self._items.get(item_id)
        if item is None:
            item = self._remember(item_id, _Item(max(now + self._latency_s, self._ends)))
            self._ends = item.begins
        elif self._ends < now:  # the listener ran dry; what comes plays later by that gap
            item.begins += now - self._ends
            self._ends = now
        item.sent_bytes += audio_bytes
        self._ends += audio_bytes / self._bytes_per_ms / 1000

    def acknowledged(self, item_id: str, played_ms: int, now: float) -> None:
        """Take the listener's word that an item had been played so far by now; later playout is counted from here.

        What was heard at a later time is then `min(sent, played + time since)`, whatever the line's delay.
        """
        item = self._items.get(item_id)
        if item is None or item.cut_ms is not None:
            return
        late = (now - played_ms / 1000) - item.begins
        item.begins += late
        for other in self._items.values():
            if other is not item and other.begins > item.begins - late:
                other.begins += late
        self._ends += late

    def withheld(self, item_id: str, audio_bytes: int) -> None:
        """Count audio the model spoke after the listener had cut in; it never reaches the listener."""
        item = self._items.get(item_id) or self._remember(item_id, _Item(self._ends, cut_ms=0))
        item.withheld_bytes += audio_bytes

    def _remember(self, item_id: str, item: _Item) -> _Item:
        self._items[item_id] = item
        if len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]
        return item

    def ends_at(self, now: float) -> float:
        """Return when the listener will have heard everything sent so far; `now` when that is past."""
        return max(now, self._ends)

    @property
    def ended_at(self) -> float:
        """When the listener has or will have heard everything sent so far; 0 before the first sound."""
        return self._ends

    def is_cut(self, item_id: str) -> bool:
        """True when it is settled how much of an item was heard."""
        item = self._items.get(item_id)
        return item is not None and item.cut_ms is not None

    def sent_ms(self, item_id: str) -> int:
        """Return the milliseconds of speech sent for an item; 0 for an unknown one."""
        item = self._items.get(item_id)
        return item.sent_bytes // self._bytes_per_ms if item else 0

    def heard(self, item_id: str, now: float) -> Heard:
        """Return how much of an item was heard until `now`, or until it was cut."""
        item = self._items.get(item_id)
        if item is None:
            return Heard(item_id, 0, 0)
        heard = int((now - item.begins) * 1000) if item.cut_ms is None else item.cut_ms
        spoken = (item.sent_bytes + item.withheld_bytes) // self._bytes_per_ms
        return Heard(item_id, min(max(heard, 0), item.sent_bytes // self._bytes_per_ms), spoken)

    def cut(self, item_id: str, heard_ms: int) -> Heard:
        """Settle how much of an item was heard, clamped to what was sent."""
        item = self._items.get(item_id)
        if item is None:
            item = self._remember(item_id, _Item(self._ends))
        item.cut_ms = min(max(heard_ms, 0), item.sent_bytes // self._bytes_per_ms)
        return self.heard(item_id, 0.0)

    def interrupt(self, now: float) -> list[str]:
        """Stop the playout: settle the items not heard to their end and return their ids, oldest first."""
        unfinished = []
        for item_id, item in self._items.items():
            heard = self.heard(item_id, now)
            if item.cut_ms is None and not heard.is_whole:
                item.cut_ms = heard.heard_ms
                unfinished.append(item_id)
        self._ends = min(self._ends, now)
        return unfinished
