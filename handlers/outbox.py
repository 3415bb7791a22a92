"""What waits to be written to one client: two lanes, bounded by bytes and by age.

Urgent frames overtake everything that waits; the others keep their order. Audio is droppable: a client that reads too
slowly loses stale audio, never `speech_started`, an error or a transcript. There is no task: the sink says when it has
room again. While nothing waits a frame goes straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from handlers.wire import Sink

MAX_QUEUED_BYTES = 917_504
"""With what was handed to the sink a client that never reads costs at most 1 MiB (operations reference, section 6,
P5)."""

MAX_AUDIO_AGE_S = 10.0
"""Audio that waited this long is stale: the talk has moved on."""

MAX_WAIT_S = 30.0
"""A client that took nothing for this long is gone."""


class _Frame(NamedTuple):
    data: bytes
    at: float
    is_audio: bool


class Outbox:
    """The outgoing queue of one client.

    Args:
        sink: Where frames go; nobody else may set its `on_room`.
        clock: Monotonic time in seconds.
        on_dropped: Called with the number of audio frames dropped.
        on_stuck: Called once when the client does not read at all.
    """

    __slots__ = (
        "_clock", "_is_direct", "_is_over", "_on_dropped", "_on_stuck", "_ordered", "_queued_bytes",
        "_sink", "_urgent", "_when_empty", "sent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        sink: Sink,
        clock: Callable[[], float],
        *,
        on_dropped: Callable[[int], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._sink = sink
        sink.on_room = self._pump
        self._clock = clock
        self._on_dropped = on_dropped
        self._on_stuck = on_stuck
        self._urgent: list[_Frame] = []
        self._ordered: list[_Frame] = []
        self._queued_bytes = 0
        self._is_over = False
        self._is_direct = True
        self._when_empty: Callable[[], None] | None = None
        self.sent_bytes = 0

    def send(self, frame: bytes, *, urgent: bool = False) -> None:
        """Queue a frame that must not be lost."""
        if self._is_direct and not self._sink.is_full:
            self.sent_bytes += len(frame)
            self._sink.send_text(frame)
        else:
            self._add(self._urgent if urgent else self._ordered, _Frame(frame, self._clock(), False))

    def send_audio(self, frame: bytes) -> None:
        """Queue an audio frame, which may be dropped when the client reads too slowly."""
        if self._is_direct and not self._sink.is_full:
            self.sent_bytes += len(frame)
            self._sink.send_text(frame)
        else:
            self._add(self._ordered, _Frame(frame, self._clock(), True))

    def burst(self, is_on: bool) -> None:
        """Tell the sink that several frames follow at once, and that this is over."""
        self._sink.burst(is_on)

    def drop_audio(self) -> None:
        """Forget the audio that waits; nobody counts it as lost, since it is not wanted any more."""
        self._ordered = [frame for frame in self._ordered if not frame.is_audio]
        self._queued_bytes = sum(len(frame.data) for frame in (*self._urgent, *self._ordered))

    def finish(self, when_empty: Callable[[], None]) -> None:
        """Take nothing more; call back when everything but audio was taken by the socket."""
        self.drop_audio()
        self._when_empty, self._is_direct = when_empty, False
        self._pump()

    def abandon(self) -> None:
        """Forget everything: the client is gone."""
        self._is_over, self._is_direct, self._when_empty = True, False, None
        self._urgent.clear()
        self._ordered.clear()
        self._queued_bytes = 0

    def _add(self, lane: list[_Frame], frame: _Frame) -> None:
        if self._is_over or self._when_empty is not None:
            return
        lane.append(frame)
        self._is_direct = False
        self._queued_bytes += len(frame.data)
        self._pump()
        if self._queued_bytes:
            self._bound(frame.at)

    def _bound(self, now: float) -> None:
        """Drop stale and surplus audio; give the client up when what must not be lost is too much or too old."""
        if self._queued_bytes > MAX_QUEUED_BYTES or now - self._oldest(now) > MAX_AUDIO_AGE_S:
            self._drop_surplus(now)
        if self._queued_bytes > MAX_QUEUED_BYTES or now - self._oldest(now) > MAX_WAIT_S:
            self.abandon()
            self._on_stuck()

    def _oldest(self, now: float) -> float:
        return min((lane[0].at for lane in (self._urgent, self._ordered) if lane), default=now)

    def _drop_surplus(self, now: float) -> None:
        surplus = self._queued_bytes - MAX_QUEUED_BYTES
        kept: list[_Frame] = []
        dropped = 0
        for frame in self._ordered:
            if frame.is_audio and (surplus > 0 or now - frame.at > MAX_AUDIO_AGE_S):
                surplus -= len(frame.data)
                self._queued_bytes -= len(frame.data)
                dropped += 1
            else:
                kept.append(frame)
        self._ordered = kept
        if dropped:
            self._on_dropped(dropped)

    def _pump(self) -> None:
        """Hand frames to the sink while it has room."""
        while (self._urgent or self._ordered) and not self._sink.is_full:
            frame = (self._urgent or self._ordered).pop(0)
            self._queued_bytes -= len(frame.data)
            self.sent_bytes += len(frame.data)
            self._sink.send_text(frame.data)
        if self._urgent or self._ordered:
            return
        if self._when_empty is not None:
            when_empty, self._when_empty = self._when_empty, None
            self._is_over = True
            when_empty()
        elif not self._is_over:
            self._is_direct = True
