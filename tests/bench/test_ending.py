"""A run that is interrupted leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.meters import family

ROOT = Path(__file__).resolve().parents[2]

DEADLINE_S = 30.0


def lives(pid: int) -> bool:
    """Return whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end upstream, clients and the system under test, and remove their files."""
    command = [sys.executable, "-m", "bench.compare", "--only", "naive", "--sessions", "2", "--seconds", "60"]
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env={**os.environ, "TMPDIR": str(tmp_path)})
    until = time.monotonic() + DEADLINE_S
    while len(started := family(run.pid)) < 4 and run.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert len(started) == 4, (tmp_path / "said").read_text()
    run.send_signal(number)
    assert run.wait(DEADLINE_S) != 0
    until = time.monotonic() + DEADLINE_S
    while any(map(lives, started)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(lives, started))
    assert list(tmp_path.glob("voice-bench-*")) == []
