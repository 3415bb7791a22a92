"""`./voice serve --watch`: a real child process is started anew when a file changes, and stays away after a mistake."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import watch
from cli.main import main
from cli.watch import Watcher, changed, stamps

DEADLINE_S = 20.0

CHILD = """
import os, signal, sys, time
from core import answer
with open("starts", "a") as file:
    file.write(f"{answer.TEXT} drain={os.environ['DRAIN_TIMEOUT']}\\n")
def leave(*_):
    with open("stops", "a") as file:
        file.write("drained\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
if answer.TEXT == "wrong":
    sys.exit(78)
while True:
    time.sleep(0.05)
"""


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder like the server's, whose server writes down its starts."""
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("")
    (tmp_path / "core" / "answer.py").write_text("TEXT = 'one'\n")
    (tmp_path / "server.py").write_text(CHILD)
    return tmp_path


@pytest.fixture
def watcher(folder: Path) -> Iterator[Watcher]:
    """Return a watcher at work; it is stopped afterwards."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DRAIN_TIMEOUT", None)
    made = Watcher([sys.executable, "server.py"], folder, environment)
    thread = threading.Thread(target=made.run, name="watcher")
    thread.start()
    yield made
    made.stop()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def starts(folder: Path) -> list[str]:
    """Return what the children wrote at their starts."""
    file = folder / "starts"
    return file.read_text().splitlines() if file.exists() else []


def test_changed_code_starts_the_server_anew(folder: Path, watcher: Watcher) -> None:
    """After a change a new child runs the new code, and the old one was asked to drain, shortly."""
    eventually(lambda: starts(folder) == ["one drain=2"])
    (folder / "core" / "answer.py").write_text("TEXT = 'another'\n")
    eventually(lambda: starts(folder) == ["one drain=2", "another drain=2"])
    assert (folder / "stops").read_text() == "drained\n"


def test_changed_settings_start_the_server_anew(folder: Path, watcher: Watcher) -> None:
    """A .env that appears counts as a change."""
    eventually(lambda: len(starts(folder)) == 1)
    (folder / ".env").write_text("PORT=1\n")
    eventually(lambda: len(starts(folder)) == 2)


def test_server_that_ends_waits_for_the_next_change(
    folder: Path, watcher: Watcher, capfd: pytest.CaptureFixture[str]
) -> None:
    """A child that ends with a mistake is not started in a loop; the change that mends it starts it."""
    eventually(lambda: len(starts(folder)) == 1)
    (folder / "core" / "answer.py").write_text("TEXT = 'wrong'\n")
    said = ""

    def told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "the server ended (settings)" in said

    eventually(told)
    count = len(starts(folder))
    (folder / "core" / "answer.py").write_text("TEXT = 'mended'\n")
    eventually(lambda: starts(folder)[-1].startswith("mended"))
    assert (count, len(starts(folder))) == (2, 3)


def test_stop_ends_the_child(folder: Path) -> None:
    """Whoever stops the watcher leaves no server behind."""
    made = Watcher([sys.executable, "server.py"], folder, {**os.environ, "DRAIN_TIMEOUT": "1"})
    thread = threading.Thread(target=made.run, name="watcher")
    thread.start()
    eventually(lambda: len(starts(folder)) == 1)
    made.stop()
    thread.join(DEADLINE_S)
    assert (folder / "stops").read_text() == "drained\n"


def test_only_files_of_the_server_are_watched(folder: Path) -> None:
    """New, changed and vanished files of the code count; notes and byte code do not."""
    (folder / "core" / "old.py").write_text("")
    before = stamps(folder)
    (folder / "core" / "old.py").unlink()
    (folder / "core" / "new.py").write_text("")
    (folder / "core" / "notes.txt").write_text("")
    (folder / "other").mkdir()
    (folder / "other" / "file.py").write_text("")
    (folder / "server.py").write_text("longer than before" * 100)
    found = [file.relative_to(folder).as_posix() for file in changed(before, stamps(folder))]
    assert found == ["core/new.py", "core/old.py", "server.py"]


def test_the_real_server_is_watched() -> None:
    """The folders that are watched exist, and a look at them is quick."""
    began = time.monotonic()
    found = stamps(watch.ROOT)
    assert time.monotonic() - began < watch.LOOK_S
    assert watch.ROOT / "server.py" in found
    assert all(any(watch.ROOT / folder in file.parents for file in found) for folder in watch.FOLDERS)


def test_production_is_not_watched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--watch refuses where NODE_ENV is production."""
    monkeypatch.setenv("NODE_ENV", "production")
    assert main(["serve", "--watch"]) == 2
    assert "for development" in capsys.readouterr().err
