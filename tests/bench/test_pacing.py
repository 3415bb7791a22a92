"""Many senders share one clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from bench.pacing import Pacer


def test_everybody_gets_the_same_number_of_turns() -> None:
    """Senders take turns: nobody is called twice before all were called once; who was removed is not called again."""

    async def run() -> Counter[int]:
        calls: Counter[int] = Counter()
        enough = asyncio.Event()

        def send(number: int) -> None:
            calls[number] += 1
            if calls.total() >= 70:
                enough.set()

        pacer = Pacer(rate_hz=50.0)
        removes = [pacer.add(partial(send, number)) for number in range(8)]
        removes[7]()
        pacer.start()
        async with asyncio.timeout(10.0):
            await enough.wait()
        pacer.stop()
        return calls

    calls = asyncio.run(run())
    assert set(calls) == set(range(7))
    assert max(calls.values()) - min(calls.values()) <= 1
