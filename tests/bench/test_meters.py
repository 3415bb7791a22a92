"""Processor time and memory are those of the process asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.meters import cpu_s, family, machine, machine_busy_s, memory_kib


def test_processor_time_is_that_of_the_process() -> None:
    """A process that works uses time, as its own clock says too; the machine was busy for at least as long."""
    before, own, busy = cpu_s([os.getpid()]), time.process_time(), machine_busy_s()
    while time.process_time() - own < 0.1:
        sum(range(1000))
    used = cpu_s([os.getpid()]) - before
    assert used >= 0.1
    assert machine_busy_s() - busy > 0


def test_children_belong_to_the_family() -> None:
    """The processes a system has started count with it."""
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert child.pid in family(os.getpid())
        resident, proportional = memory_kib([child.pid])
        assert resident >= proportional > 100
    finally:
        child.communicate(b"\n")


def test_the_machine_is_described() -> None:
    """Cores, memory and kernel stand beside every result."""
    facts = machine()
    assert int(facts["cores"]) >= 1
    assert int(facts["memory_mib"]) > 0
    assert facts["kernel"]
