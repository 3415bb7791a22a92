"""The comparison's command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.compare import main, versions


def test_a_small_comparison_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round over two systems gives a line each, and a result that says what was measured where."""
    out = tmp_path / "run.json"
    options = ["--sessions", "3", "--seconds", "0.3", "--rounds", "1", "--only", "naive,direct", "--no-retry"]
    assert main([*options, "--out", str(out)]) == 0
    assert "naive" in capsys.readouterr().out
    run = json.loads(out.read_text(encoding="utf-8"))
    assert set(run["load"][0]["rounds"][0]) == {"naive", "direct"}
    assert run["machine"]["cores"] >= 1
    assert run["settings"]["sessions"] == 3


def test_an_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt system is named, with those there are."""
    assert main(["--only", "nginx,apache"]) == 2
    assert "apache" in capsys.readouterr().err


def test_a_system_that_does_not_start_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a system said when it did not start is passed on."""
    monkeypatch.setattr("bench.systems.Naive._command", lambda self: ["sh", "-c", "echo broken; exit 1"])
    assert main(["--only", "naive", "--rounds", "1"]) == 1
    assert "broken" in capsys.readouterr().err


def test_versions_are_told() -> None:
    """Whatever carries messages is named with its version."""
    assert {"Python", "tornado", "picows", "uvloop"} <= set(versions())
