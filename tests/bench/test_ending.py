"""A run that is interrupted leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import systems
from bench.interruption import ending_in_order, undisturbed
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_moment_of_a_start_leaves_no_process(number: signal.Signals, monkeypatch) -> None:
    """Between a process that runs and the object that owns it nothing may come."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(start(*args, **kwargs))
        signal.raise_signal(number)
        return started[0]

    monkeypatch.setattr(systems.subprocess, "Popen", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)), ending_in_order():
        systems.Naive("naive", 1, is_tls=False).__enter__()
    assert started[0].poll() is not None


def test_signals_wait_for_the_end_of_what_must_not_be_disturbed() -> None:
    """Then the first of them acts as it would have, and later ones act at once again."""
    heard: list[str] = []
    before = signal.signal(signal.SIGHUP, lambda *_: heard.append("hang-up"))
    try:
        with undisturbed():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            heard.append("done")
        assert heard == ["done", "hang-up"]
        signal.raise_signal(signal.SIGHUP)
        assert heard == ["done", "hang-up", "hang-up"]
    finally:
        signal.signal(signal.SIGHUP, before)
