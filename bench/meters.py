"""Processor time and memory of processes, from the kernel. Linux only, and says so elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

CPUCLOCK_SCHED = 2
"""The clock of a whole process, in nanoseconds. Source: Linux, include/linux/posix-timers_types.h."""


def family(pid: int) -> list[int]:
    """Return a process and all its descendants that live."""
    found, left = [], [pid]
    while left:
        current = left.pop()
        found.append(current)
        for task in Path(f"/proc/{current}/task").glob("*"):
            try:
                left += map(int, (task / "children").read_text().split())
            except OSError:
                continue  # the thread has ended meanwhile
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the seconds of processor time, user and system, that living processes have used.

    The kernel's own clock of a process is read; `/proc/PID/stat` counts in hundredths of a second, too coarse for a
    window of a few seconds.
    """
    return sum(_cpu_s(pid) for pid in pids)


def _cpu_s(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_busy_s() -> float:
    """Return the seconds all cores together were busy since the machine was started, with anything."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def memory_kib(pids: Iterable[int]) -> tuple[int, int]:
    """Return resident and proportional memory of processes in KiB.

    Proportional memory (Pss) divides what processes share, so that it may be added up.
    """
    resident = proportional = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                resident += int(rest.split()[0])
            elif name == "Pss":
                proportional += int(rest.split()[0])
    return resident, proportional


def machine() -> dict[str, str | int]:
    """Return what this machine is: processor, cores, memory, kernel."""
    facts: dict[str, str | int] = {"cores": os.cpu_count() or 1, "kernel": os.uname().release}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            facts["processor"] = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            facts["memory_mib"] = int(line.split()[1]) // 1024
    return facts
