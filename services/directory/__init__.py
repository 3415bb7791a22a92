"""The live-session directory: who holds a place, whose tickets are good, who talks about what.

`places` says what the doors need of it. `machine` keeps it for one machine, in a file; `redis` for several, in Redis,
and is loaded only there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .machine import RETRY_S, MachineDirectory
from .places import MAX_TICKETS, Counts, Directory, DirectoryUnavailable, Noted, Report

if TYPE_CHECKING:
    from .redis import RedisDirectory

__all__ = [
    "MAX_TICKETS",
    "RETRY_S",
    "Counts",
    "Directory",
    "DirectoryUnavailable",
    "MachineDirectory",
    "Noted",
    "Report",
    "all_machines",
]


def all_machines(
    redis_url: str | None, machine: Directory, *, limits: tuple[int, int], report: Report
) -> RedisDirectory | None:
    """Return the directory of all machines with one Redis; None when there is no Redis. See `RedisDirectory`."""
    if redis_url is None:
        return None
    from .redis import RedisDirectory  # 9 MB that a machine alone does not need

    return RedisDirectory(redis_url, machine, limits=limits, report=report)
