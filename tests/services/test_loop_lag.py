"""The lag probe sees a blocked event loop and forgets old samples."""

from __future__ import annotations

import asyncio
import time

from services.loop_lag import LoopLag

DEADLINE_S = 5.0


async def until_sampled(lag: LoopLag, least_ms: float) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while lag.p99_ms() < least_ms and time.monotonic() < deadline:  # noqa: ASYNC110 - the probe has no event
        await asyncio.sleep(0.005)


def test_blocked_loop_shows_as_lag() -> None:
    """A callback that blocks for 60 ms is the 99th percentile of a short sample."""

    async def run() -> float:
        lag = LoopLag(interval_s=0.01)
        assert lag.p99_ms() == 0.0
        lag.start()
        lag.start()
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251 - the blocking is what is measured
        await until_sampled(lag, 40)
        await lag.stop()
        return lag.p99_ms()

    assert 40 <= asyncio.run(run()) < 1000


def test_old_lag_is_forgotten() -> None:
    """A lag older than the window no longer counts."""

    async def run() -> float:
        lag = LoopLag(interval_s=0.01, window_s=0.2)
        lag.start()
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - the blocking is what is measured
        await until_sampled(lag, 80)
        deadline = time.monotonic() + DEADLINE_S
        while lag.p99_ms() >= 80 and time.monotonic() < deadline:  # noqa: ASYNC110 - the probe has no event
            await asyncio.sleep(0.02)
        await lag.stop()
        return lag.p99_ms()

    assert asyncio.run(run()) < 80


def test_stop_ends_the_task() -> None:
    """After stop no task is left, and stopping what never ran is fine."""

    async def run() -> list[str]:
        lag = LoopLag()
        await lag.stop()
        lag.start()
        await lag.stop()
        return [task.get_name() for task in asyncio.all_tasks()]

    assert "loop-lag" not in asyncio.run(run())
