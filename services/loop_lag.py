"""How late the event loop runs its timers: the first sign of a process with too much to do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

INTERVAL_S = 0.1
"""Pause between samples; ten wake-ups a second cost an idle process under 0.1 % of a core."""

WINDOW_S = 60.0
"""Samples older than this are forgotten."""


class LoopLag:
    """Samples how late a timer fires, and tells the 99th percentile of the last minute.

    Call `start` inside the running loop and `stop` before it ends.

    Args:
        interval_s: Pause between samples.
        window_s: Age up to which samples count.
        report: Told each sample, in seconds.
    """

    def __init__(
        self,
        *,
        interval_s: float = INTERVAL_S,
        window_s: float = WINDOW_S,
        report: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._report = report
        self._interval_s = interval_s
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque(maxlen=int(window_s / interval_s))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample; nothing changes when sampling is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._sample(), name="loop-lag")

    async def stop(self) -> None:
        """Return when sampling has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def p99_ms(self) -> float:
        """Return the 99th percentile of the last minute's lags in milliseconds; 0.0 before the first sample."""
        if not self._samples:
            return 0.0
        oldest = self._samples[-1][0] - self._window_s
        lags = sorted(lag for at, lag in self._samples if at >= oldest)
        return round(1000 * lags[min(len(lags) - 1, int(len(lags) * 0.99))], 3)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            now = loop.time()
            late = max(0.0, now - due)
            self._samples.append((now, late))
            self._report(late)
