"""One clock for many senders: each is due once a period, and they are spread evenly over it.

Talking people do not send in step, so a server must not be given the luck of finding many messages at one reading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SLOT_S = 0.001
"""Resolution of the spreading: the finest a loop's timer keeps."""

MAX_BEHIND_S = 1.0
"""A load that falls further behind than this is not made up for: the measured rate says so."""


class Pacer:
    """Calls senders in turn, each `rate_hz` times a second. Nothing is called before `start`."""

    def __init__(self, rate_hz: float) -> None:
        self._slots: list[list[Callable[[], None]]] = [[] for _ in range(max(1, round(1 / rate_hz / SLOT_S)))]
        self._period_s = 1 / rate_hz
        self._next_slot = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._added = 0

    def add(self, send: Callable[[], None]) -> Callable[[], None]:
        """Have a sender called from its next turn on; call what is returned to end that."""
        # The golden ratio spreads any number of senders evenly, whatever was added before.
        slot = self._slots[int(self._added * 0.6180339887 % 1 * len(self._slots))]
        self._added += 1
        slot.append(send)

        def remove() -> None:
            if send in slot:
                slot.remove(send)

        return remove

    def start(self) -> None:
        """Begin to call the senders."""
        self._due = time.monotonic()
        self._tick()

    def stop(self) -> None:
        """Call no sender any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now, step = time.monotonic(), self._period_s / len(self._slots)
        if now - self._due > MAX_BEHIND_S:
            self._due = now
        slots = self._slots
        while self._due <= now:
            for send in tuple(slots[self._next_slot]):
                send()
            self._next_slot = (self._next_slot + 1) % len(slots)
            self._due += step
        # uvloop rounds to milliseconds; a shorter wait would be none at all, and the load would spin.
        wait_s = max(self._due - time.monotonic(), SLOT_S)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)
