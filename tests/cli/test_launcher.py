"""`./voice`: makes its environment once, installs only what changed, and says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 180.0

SECOND_START_S = 2.0
"""The promise for the second start; the launcher's own part of it is measured here."""


def launch(
    folder: Path, *arguments: str, path: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the launcher of a folder."""
    return subprocess.run(
        [str(folder / "voice"), *arguments], capture_output=True, text=True, timeout=DEADLINE_S,
        env={**os.environ, "PATH": path or os.environ["PATH"], "PIP_NO_INDEX": "1", **environment}, cwd=folder.parent,
    )  # fmt: skip


def copy_to(folder: Path) -> Path:
    """Copy the launcher and the command line, with requirements that need no package index."""
    folder.mkdir()
    shutil.copy2(ROOT / "voice", folder)
    shutil.copytree(ROOT / "cli", folder / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-test.txt").write_text("# nothing\n")
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """Return a copy that was started once, and what it said then."""
    folder = copy_to(tmp_path_factory.mktemp("launcher") / "a folder")
    yield folder, launch(folder, "--help", VOICE_PYTHON=sys.executable)


def test_scripts_are_sound() -> None:
    """shellcheck has nothing to say about the launcher and .ci/run, and dash can read the launcher."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), "voice", ".ci/run"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert (ROOT / "voice").read_text().startswith("#!/bin/sh\n")
    assert os.access(ROOT / "voice", os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_first_start_makes_the_environment(fresh: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """From nothing: .venv is made, the requirements are installed, progress is on standard error, help on output."""
    folder, first = fresh
    assert first.returncode == 0, first.stderr
    assert "making .venv with Python 3" in first.stderr
    assert "installing the packages of requirements.txt" in first.stderr
    assert first.stdout.startswith("usage: ./voice COMMAND")
    assert (folder / ".venv" / "bin" / "python").exists()


def test_second_start_is_silent_and_quick(fresh: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """With nothing changed the launcher adds less than the promised two seconds and says nothing."""
    began = time.monotonic()
    second = launch(fresh[0], "--help")
    assert time.monotonic() - began < SECOND_START_S
    assert (second.returncode, second.stderr) == (0, "")


def test_changed_requirements_are_installed(fresh: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Another text of requirements.txt leads to pip once, and not again."""
    folder = fresh[0]
    (folder / "requirements.txt").write_text("# changed\n")
    assert "installing the packages" in launch(folder, "--help").stderr
    assert launch(folder, "--help").stderr == ""


def test_failed_installation_is_said_and_tried_again(fresh: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """What pip cannot install ends the start with pip's reason; the next start tries again."""
    folder = fresh[0]
    (folder / "requirements.txt").write_text("voice-no-such-package==1\n")
    for _ in range(2):
        failed = launch(folder, "--help")
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert "No matching distribution found for voice-no-such-package" in failed.stderr
        assert "Is the package index reachable?" in failed.stderr
    (folder / "requirements.txt").write_text("# nothing\n")
    assert launch(folder, "--help").returncode == 0


def test_launcher_is_found_through_a_link(
    fresh: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A link somewhere on the path leads to the folder, and files are looked for where the user stands."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "voice").symlink_to(fresh[0] / "voice")
    assert launch(tmp_path / "bin", "--help").stdout.startswith("usage: ./voice COMMAND")


def test_files_are_looked_for_where_the_user_stands(tmp_path: Path) -> None:
    """A relative --wav is taken from the folder the command was called in, not from the launcher's."""
    (tmp_path / "words.wav").write_text("no sound")
    done = subprocess.run(
        [str(ROOT / "voice"), "talk", "--wav", "words.wav", "--token", "x"], cwd=tmp_path, capture_output=True,
        text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "words.wav is no PCM WAV file" in done.stderr


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder for PATH that holds what the launcher needs, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "dirname", "readlink", "cksum", "cat", "tail", "rm", "id"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def script(folder: Path, name: str, text: str) -> None:
    """Put an executable script into a folder."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_missing_python_is_said(tools: Path, tmp_path: Path) -> None:
    """Without a Python, and with one that is too old, the launcher says which one it needs."""
    folder = copy_to(tmp_path / "voice-server")
    assert "Python 3.11 or newer was not found" in launch(folder, "--help", path=str(tools)).stderr
    script(tools, "python3", "exit 1")  # what `sys.exit(sys.version_info < (3, 11))` does there
    done = launch(folder, "--help", path=str(tools))
    assert (done.returncode, done.stdout) == (1, "")
    assert "apt-get install python3 python3-venv" in done.stderr


def test_missing_venv_module_is_said(tools: Path, tmp_path: Path) -> None:
    """Debian's Python without ensurepip, for a user who may not install: the command to run is shown."""
    folder = copy_to(tmp_path / "voice-server")
    script(tools, "python3", f"""case $2 in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@" """)
    done = launch(folder, "--help", path=str(tools))
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert done.returncode == 1
    assert f"sudo apt-get install {package}" in done.stderr


def test_missing_venv_module_is_installed_by_root(tools: Path, tmp_path: Path) -> None:
    """On Debian root gets the package by itself, and the start goes on."""
    folder = copy_to(tmp_path / "voice-server")
    flag = tmp_path / "installed"
    check = f"""case $2 in *ensurepip*) [ -e {flag} ]; exit;; esac; exec {sys.executable} "$@" """
    script(tools, "python3", check)
    (tools / "id").unlink()
    script(tools, "id", "echo 0")
    script(tools, "apt-get", f"[ $1 = install ] && : >{flag}; exit 0")
    done = launch(folder, "--help", path=str(tools))
    assert done.returncode == 0, done.stderr
    assert "which Debian keeps apart from Python" in done.stderr
