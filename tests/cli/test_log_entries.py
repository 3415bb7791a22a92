"""Lines of the log become entries, whatever their form and wherever a rotation put them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from cli import log_entries
from cli.log_entries import entries, entry_of, files, read
from core.log_lines import json_line, text_line

STAMP = "2026-11-20T12:00:00.123Z"


def test_text_line_is_read_back() -> None:
    """What `core.log_lines` writes comes back: quotes, blanks, nothing."""
    fields = {"conn": "7f3a", "detail": 'said "no" = never', "empty": "", "missing": None, "ok": True}
    entry = entry_of(f"{STAMP} INFO    {text_line('conversation ended', fields)}")
    assert entry is not None and (entry.time, entry.level, entry.event) == (STAMP, "info", "conversation ended")
    assert entry.fields == {**fields, "ok": "true"}


def test_json_line_is_read_back() -> None:
    """With LOG_FORMAT=json the same entry comes back, with the places an exception passed."""
    line = json_line({"time": STAMP, "level": "error", "event": "tool failed"}, {"conn": "7f3a"}, ["a.py:1 f"])
    entry = entry_of(line)
    assert entry is not None and (entry.level, entry.fields, entry.tail) == ("error", {"conn": "7f3a"}, ["a.py:1 f"])
    assert json.loads(entry.as_json())["where"] == ["a.py:1 f"]


@pytest.mark.parametrize("line", ["", "nonsense", "{", "[1]", '{"time": 1}', '{"level": "x"}', "    at a.py:1 f"])
def test_what_is_no_line_of_the_log_begins_no_entry(line: str) -> None:
    """Anything else is left out."""
    assert entry_of(line) is None


def test_places_belong_to_the_entry_before() -> None:
    """Continuation lines are kept with their entry; foreign lines are dropped."""
    failed, following = f"{STAMP} ERROR   tool failed  conn=1", f"{STAMP} INFO    next"
    lines = ["a leftover", failed, "    at a.py:1 f", "garbage", following]
    first, second = entries(lines)
    assert first.tail == ["a.py:1 f"] and second.event == "next" and second.fields == {}


def test_files_of_both_rotations_are_found_newest_first(tmp_path: Path) -> None:
    """loguru's and logrotate's names are known, other files are not."""
    names = ["combined.log", "combined.log.1", "combined.2026-11-20_12-00-00_123456.log", "combined.log.2.gz"]
    for age, name in enumerate(names):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1_000 - age, 1_000 - age))
    for other in ("combined.log.gz.part", "error.log", "combined.txt", "my-combined.log"):
        (tmp_path / other).write_text("")
    assert [path.name for path in files(tmp_path, "combined")] == names


def test_packed_and_broken_files_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    """A packed file is read; one cut amid packing ends where it ends; one that is gone is empty."""
    text = "".join(f"{STAMP} INFO    line {n}\n" for n in range(2_000)).encode()
    packed, cut = tmp_path / "combined.log.1.gz", tmp_path / "combined.log.2.gz"
    packed.write_bytes(gzip.compress(text))
    cut.write_bytes(gzip.compress(text)[:-20])
    (tmp_path / "combined.log.3.gz").write_bytes(b"not packed")
    assert len(list(read(packed, whole=False))) == 2_000
    assert len(list(read(cut, whole=True))) <= 2_000
    assert list(read(tmp_path / "combined.log.3.gz", whole=True)) == list(read(tmp_path / "gone.log", whole=True)) == []


def test_of_a_long_file_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless all of it is wanted, only the last megabytes are looked at, from a whole line on."""
    monkeypatch.setattr(log_entries, "LAST_BYTES", 100)
    path = tmp_path / "combined.log"
    path.write_text("".join(f"{STAMP} INFO    line {n}\n" for n in range(20)))
    assert [entry.event for entry in read(path, whole=False)] == ["line 18", "line 19"]
    assert len(list(read(path, whole=True))) == 20
