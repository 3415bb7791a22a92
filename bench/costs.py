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


def start(rig: Rig, name: str, *, channel: Channel, sessions: int) -> dict[str, Any]:
    """Return the resident memory of a system that has started and had no session, in KiB: `start_kib`.

    Raises:
        NotStarted: If the system did not start.
    """
    with rig.system(name) as system:
        time.sleep(rig.settle_s)
        start_kib, _ = memory_kib(system.pids)
    return {"system": name, "start_kib": start_kib}


def memory(rig: Rig, name: str, *, channel: Channel, sessions: int) -> dict[str, Any]:
    """Return the proportional memory of each session of a system in KiB: `idle_kib` and `talking_kib`.

    Raises:
        NotMeasured: If not all sessions could be opened.
        NotStarted: If the system did not start.
    """
    with rig.system(name) as system:
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
        "system": name, "sessions": sessions,
        "idle_kib": round((idle - before) / sessions, 1), "talking_kib": round((talking - before) / sessions, 1),
    }  # fmt: skip


def setup(rig: Rig, name: str, *, channel: Channel, sessions: int) -> dict[str, Any]:
    """Return what opening a session costs a warm system, and what closing it does.

    Opening ends when the client has heard the first sound and the rows are written, closing with the last row.

    Returns:
        `cpu_ms` and `close_ms` for each session, and `per_s`: sessions opened a second, a few at a time.

    Raises:
        NotMeasured: If not all sessions could be opened.
        NotStarted: If the system did not start.
    """
    with rig.system(name) as system:
        rig.cycle(system, channel, count=WARM_UP)
        time.sleep(rig.settle_s)
        seats, pids = system.seats(channel, sessions), system.pids
        cpu, began = cpu_s(pids), time.monotonic()
        rig.open(system, channel, count=sessions, seats=seats)
        wall = time.monotonic() - began
        time.sleep(rig.settle_s)
        opened = cpu_s(pids)
        rig.close()
        time.sleep(rig.settle_s)
        closed = cpu_s(pids)
    return {
        "system": name, "sessions": sessions, "cpu_ms": round((opened - cpu) / sessions * 1000, 3),
        "close_ms": round((closed - opened) / sessions * 1000, 3), "per_s": round(sessions / wall, 1),
    }  # fmt: skip
