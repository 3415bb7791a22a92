"""System and load have cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from bench import cores


def test_system_and_load_share_no_core_where_there_are_two() -> None:
    """Together they have all this process may use; on one core both have that."""
    system, load = cores.of_system(), cores.of_load()
    assert system | load == os.sched_getaffinity(0) and len(system) == 1
    assert not system & load or len(os.sched_getaffinity(0)) == 1


def test_a_process_stays_where_it_is_bound() -> None:
    """All its threads do; a process that has ended is left out."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        cores.bind([process.pid], cores.of_system())
        assert os.sched_getaffinity(process.pid) == cores.of_system()
        process.communicate(b"\n")
    cores.bind([process.pid], cores.of_load())
