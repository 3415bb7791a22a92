"""`./voice tail` shows the logs of all workers, filtered, and goes on through a rotation."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from cli.tail import Follower, main

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0
CONVERSATION = "459f1d50-fe6d-4688-bde1-b4d3d7ff0e77"


def line(second: int, event: str, level: str = "INFO") -> str:
    return f"2026-11-20T12:00:{second:02}.000Z {level:<7} {event}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of logs: a packed one, a renamed one, the one written to, and errors older than all of them."""
    (tmp_path / "combined.log.2.gz").write_bytes(gzip.compress(line(2, "oldest  conn=7f3a0000").encode()))
    (tmp_path / "combined.log.1").write_text(
        line(3, f"conversation opened  conn=7f3a0000 conversation_id={CONVERSATION}")
        + line(4, "tool failed  conn=7f3a0000", "ERROR") + "    at a.py:1 f\n"
    )  # fmt: skip
    done = line(6, f"done  conversation_id={CONVERSATION}")
    (tmp_path / "combined.log").write_text(line(5, "another  conn=11111111") + done)
    (tmp_path / "error.log").write_text(line(1, "long ago", "ERROR") + line(4, "tool failed  conn=7f3a0000", "ERROR"))
    for age, name in enumerate(("combined.log", "combined.log.1", "combined.log.2.gz")):
        os.utime(tmp_path / name, (1_000 - age, 1_000 - age))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> list[str]:
    """Return the lines the command prints."""
    assert main(["--dir", str(folder), "--no-follow", *options]) == 0
    return capsys.readouterr().out.splitlines()


def test_all_files_are_merged_by_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed and packed files and errors that only error.log still has stand in order, none twice."""
    lines = shown(capsys, folder)
    events = [text.split(" ", 2)[2].strip().split("  ")[0] for text in lines if not text.startswith("    ")]
    assert events == ["long ago", "oldest", "conversation opened", "tool failed", "another", "done"]
    assert lines[4] == "    at a.py:1 f" and "\x1b" not in "".join(lines)


def test_last_lines_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-n bounds how many; none is allowed."""
    assert [text[17:19] for text in shown(capsys, folder, "-n", "2")] == ["05", "06"]
    assert shown(capsys, folder, "-n", "0") == []


def test_errors_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--errors leaves out the rest."""
    lines = [text for text in shown(capsys, folder, "--errors") if text[0] == "2"]
    assert [text[33:].split("  ")[0] for text in lines] == ["long ago", "tool failed"]


@pytest.mark.parametrize("asked", [CONVERSATION, CONVERSATION[:8]])
def test_session_is_followed_by_all_its_ids(folder: Path, capsys: pytest.CaptureFixture[str], asked: str) -> None:
    """By the conversation's id, or its beginning, the lines that carry only the connection's id are found too."""
    objects = [json.loads(text) for text in shown(capsys, folder, "--session", asked, "--json")]
    assert [one["event"] for one in objects] == ["conversation opened", "tool failed", "done"]
    assert objects[1]["where"] == ["a.py:1 f"] and objects[1]["level"] == "error"


def test_lines_of_a_pipe_are_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`journalctl -o cat | ./voice tail --dir -` works as files do."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(line(1, "one", "ERROR") + line(2, "two")))
    assert main(["--dir", "-", "--errors"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_missing_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without logs the status is 1 and a sentence names the folder."""
    for folder in (tmp_path / "nowhere", tmp_path):
        assert main(["--dir", str(folder), "--no-follow"]) == 1
        assert "LOG_DIR" in capsys.readouterr().err


def test_nonsense_count_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """-n takes a number."""
    with pytest.raises(SystemExit):
        main(["-n", "-1"])


@pytest.fixture
def following(folder: Path) -> Iterator[Queue[str]]:
    """Lines a following child prints, as they come; it has shown the last one there was."""
    command = [sys.executable, "-m", "cli.main", "tail", "-f", "-n", "1", "--dir", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        lines: Queue[str] = Queue()
        out = child.stdout
        assert out is not None
        reader = threading.Thread(target=lambda: [lines.put(text.rstrip("\n")) for text in out], daemon=True)
        reader.start()
        assert lines.get(timeout=DEADLINE_S).endswith(CONVERSATION)
        yield lines
        child.terminate()
        reader.join(DEADLINE_S)


def test_rotation_loses_nothing_while_following(folder: Path, following: Queue[str]) -> None:
    """Lines before a rename, after it into the old file, and into the new one are all shown once, in order."""
    path = folder / "combined.log"
    with path.open("a") as old:
        old.write(line(10, "before"))
        old.flush()
        path.rename(folder / "combined.log.9")
        old.write(line(11, "after the rename"))
    path.write_text(line(12, "in the new file"))
    assert [following.get(timeout=DEADLINE_S)[33:].strip() for _ in range(3)] == [
        "before", "after the rename", "in the new file",
    ]  # fmt: skip


def test_file_that_is_cut_is_read_anew(tmp_path: Path) -> None:
    """After a truncation reading begins at the start; a file that comes later is read from its first line."""
    path = tmp_path / "combined.log"
    follower = Follower(path)
    assert follower.lines() == []
    path.write_text(line(1, "first") + line(2, "second"))
    assert follower.lines() == [] and len(follower.lines()) == 2
    path.write_text(line(3, "third"))
    assert follower.lines() == []
    assert follower.lines() == [line(3, "third").rstrip("\n")]
    with path.open("a") as file:
        file.write("half a li")
    assert follower.lines() == []
    path.unlink()
    assert follower.lines() == []
    follower.close()
    follower.close()
