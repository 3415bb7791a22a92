"""What became of the sessions of this process: ends by reason, delays and cost, for whoever watches.

Prometheus has the same figures in `services/metrics.py`, as counters over all time; here are the last minutes, in a
form that adds up over workers.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from core.errors import ENDINGS

WINDOW_S = 900.0
"""The last minutes: a quarter of an hour, as the dashboards of the field have it (browser reference, section 4.3)."""

KEPT = 2_000
"""Ends remembered within the window: two a second, more than one process holds."""

SHOWN_DELAYS = 500
"""Delays told of one process: percentiles of more do not change."""

FAILED = frozenset(end.end_reason for end in ENDINGS if end.side in {"upstream", "server"} and not end.is_normal)
"""End reasons that are our fault or the voice service's; the error rate is their share."""


class _End(NamedTuple):
    at: float
    is_failure: bool
    first_audio_s: float | None


class Tally:
    """Counts the sessions that ended.

    Args:
        clock: Monotonic time in seconds.
        wall: Unix time in seconds; decides what is today, in UTC.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._ends: deque[_End] = deque(maxlen=KEPT)
        self._reasons: Counter[str] = Counter()
        self._day = ""
        self._cost_usd = 0.0

    def ended(self, end_reason: str, first_audio_s: float | None, cost_usd: float) -> None:
        """Count a session that ended; `first_audio_s` is None when nothing was answered."""
        self._reasons[end_reason] += 1
        self._ends.append(_End(self._clock(), end_reason in FAILED, first_audio_s))
        self._begin_day()
        self._cost_usd += max(cost_usd, 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return what is known: `ended` by reason since the start, `recent` of the last 15 minutes, `cost_today_usd`
        of sessions that ended since midnight UTC.
        """
        since = self._clock() - WINDOW_S
        recent = [end for end in self._ends if end.at >= since]
        delays = [round(end.first_audio_s * 1000) for end in recent if end.first_audio_s is not None]
        self._begin_day()
        return {
            "ended": dict(self._reasons),
            "recent": {
                "window_s": round(WINDOW_S),
                "ended": len(recent),
                "failed": sum(end.is_failure for end in recent),
                "first_audio_ms": delays[-SHOWN_DELAYS:],
            },
            "cost_today_usd": round(self._cost_usd, 6),
        }

    def _begin_day(self) -> None:
        day = datetime.fromtimestamp(self._wall(), UTC).date().isoformat()
        if day != self._day:
            self._day, self._cost_usd = day, 0.0
