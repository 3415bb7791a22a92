"""Stacks become a table of functions."""

from __future__ import annotations

import subprocess

import pytest

from bench.profiler import NoProfiler, _recorded, table

STACKS = """main (a.py:1);relay (b.py:2) 6
main (a.py:1);relay (b.py:2);send (c.py:3) 3
main (a.py:1);main (a.py:1) 1
thread (t.py:1);Condition.wait (threading.py:9) 90"""


def test_functions_are_ordered_by_their_own_time() -> None:
    """Own and whole time are told for each function, recursion counted once; threads that wait do not count."""
    lines = table(STACKS.splitlines(), 2)
    assert lines[0] == "10 looks"
    assert lines[2].split() == ["60.0%", "90.0%", "relay", "(b.py:2)"]
    assert lines[3].split() == ["30.0%", "30.0%", "send", "(c.py:3)"]
    assert lines[5].split() == ["10.0%", "100.0%", "main", "(a.py:1)"]


def test_a_missing_profiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without py-spy the answer is how to get it."""
    monkeypatch.setattr("bench.profiler.shutil.which", lambda *_, **__: None)
    with pytest.raises(NoProfiler, match="pip install py-spy"):
        _recorded(1, 1)


def test_a_profiler_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What py-spy says when it may not look is passed on."""
    monkeypatch.setattr("bench.profiler.shutil.which", lambda *_, **__: "py-spy")
    failed = subprocess.CompletedProcess([], 1, "", "permission denied")
    monkeypatch.setattr("bench.profiler.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(NoProfiler, match="permission denied"):
        _recorded(1, 1)
