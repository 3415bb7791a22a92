"""What a session costs besides its messages: memory, and the work of opening and closing it."""

from __future__ import annotations

import time
from typing import Any

from bench.meters import cpu_s, memory_kib
from bench.rig import Rig
from bench.shapes import Channel

WARM_UP = 30
"""Sessions opened and closed before anything is measured: modules are loaded, caches filled, TLS sessions there. More
would hide memory: a process keeps what closed sessions needed, and those that follow would seem to need none."""

TALKS = 3
"""Talk before memory is read lasts so many settling times: every buffer was in use."""


def memory(rig: Rig, name: str, *, channel: Channel, sessions: int) -> dict[str, Any]:
    """Return the memory a fresh process of a system takes at the start and for each session, in KiB.

    Returns:
        `start_kib` is resident; `idle_kib` and `talking_kib` are proportional memory a session.

    Raises:
        NotMeasured: If not all sessions could be opened.
        NotStarted: If the system did not start.
    """
    with rig.system(name) as system:
        time.sleep(rig.settle_s)
        start_kib, _ = memory_kib(system.pids)
        rig.cycle(system, channel, count=WARM_UP)
        time.sleep(rig.settle_s)
        _, before = memory_kib(system.pids)
        rig.open(system, channel, count=sessions)
        time.sleep(rig.settle_s)
        _, idle = memory_kib(system.pids)
        rig.talk(channel)
        time.sleep(TALKS * rig.settle_s)
        _, talking = memory_kib(system.pids)
        rig.close()
    return {
        "system": name, "sessions": sessions, "start_kib": start_kib,
        "idle_kib": round((idle - before) / sessions, 1), "talking_kib": round((talking - before) / sessions, 1),
    }  # fmt: skip


def setup(rig: Rig, name: str, *, channel: Channel, sessions: int) -> dict[str, Any]:
    """Return what opening and closing a session costs a warm system.

    A session is opened, hears its first sound, and is closed; its last rows are written within the measured time.

    Returns:
        `cpu_ms` for each session, and `per_s`: sessions a second that were opened and closed, a few at a time.

    Raises:
        NotMeasured: If not all sessions could be opened.
        NotStarted: If the system did not start.
    """
    with rig.system(name) as system:
        rig.cycle(system, channel, count=WARM_UP)
        time.sleep(rig.settle_s)
        seats = system.seats(channel, sessions)
        pids = system.pids
        cpu, began = cpu_s(pids), time.monotonic()
        rig.cycle(system, channel, count=sessions, seats=seats)
        wall = time.monotonic() - began
        time.sleep(rig.settle_s)
        used = cpu_s(pids) - cpu
    return {"system": name, "sessions": sessions, "cpu_ms": round(used / sessions * 1000, 3),
            "per_s": round(sessions / wall, 1)}  # fmt: skip
