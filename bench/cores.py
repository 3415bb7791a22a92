"""Which core does what: the system under test has one of its own, the load has the others.

On a network the load is other machines. Where both share cores each pushes the other out of the caches, and what is
measured is their quarrel; a program of many instructions loses more by it than nginx does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def of_system() -> set[int]:
    """Return the core of the system under test: the last one this process may use."""
    return {max(os.sched_getaffinity(0))}


def of_load() -> set[int]:
    """Return the cores of the load: all others, or the only one there is."""
    return os.sched_getaffinity(0) - of_system() or of_system()


def bind(pids: Iterable[int], cores: set[int]) -> None:
    """Keep processes, with all their threads, on these cores; one that has ended is left out."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                os.sched_setaffinity(int(task.name), cores)
            except ProcessLookupError:
                continue
