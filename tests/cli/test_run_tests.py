"""`./voice test`: what it installs, what it runs, and that a skip cannot hide where everything can be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import run_tests

ROOT = Path(__file__).resolve().parent.parent.parent


def test_whole_run_demands_full_coverage_and_a_part_does_not() -> None:
    """Coverage of core is enforced when everything runs; arguments go to pytest as they are."""
    assert "--cov-fail-under=100" in run_tests._pytest([])
    part = run_tests._pytest(["-k", "token"])
    assert part[-2:] == ["-k", "token"]
    assert not [argument for argument in part if argument.startswith("--cov")]


def test_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package is missing when none of its programs is there, wherever they may lie."""
    there = tmp_path / "15" / "bin" / "initdb"
    there.parent.mkdir(parents=True)
    there.touch()
    packages = {"postgresql": (f"{tmp_path}/*/bin/initdb",), "shell": ("no-such-program", "sh"), "gone": ("no-such",)}
    monkeypatch.setattr(run_tests, "PACKAGES", packages)
    assert run_tests.missing_packages() == ["gone"]


def test_user_without_rights_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who is not root gets the command, and nothing is tried."""
    monkeypatch.setattr(run_tests, "PACKAGES", {"voice-no-such-package": ("no-such",)})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    run_tests._install_packages()
    said = capsys.readouterr().err
    assert "their tests are skipped: voice-no-such-package" in said
    assert "sudo apt-get install" in said


@pytest.mark.parametrize(
    ("environment", "status", "said"),
    [({}, 0, ""), ({"VOICE_NO_SKIPS": "1"}, 1, "skipped tests fail this run"),
     ({"VOICE_FAILED_BEFORE": "mypy"}, 0, "failed before the tests: mypy")],
)  # fmt: skip
def test_skip_fails_the_run_where_that_is_asked_for(
    environment: dict[str, str], status: int, said: str, tmp_path: Path
) -> None:
    """With VOICE_NO_SKIPS=1 a run with a skip ends with status 1 and says why, before pytest's closing line."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_none(): pytest.skip('no such thing here')\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VOICE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run([*command, "--rootdir", str(tmp_path), str(tmp_path)], cwd=ROOT, env=kept | environment,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == status, done.stdout
    assert said in done.stdout
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]
