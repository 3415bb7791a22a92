"""One process of a machine shows the operator's page, and leaves word where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.admin_seat import FILE, AdminSeat, page_facts

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys
from pathlib import Path
from services.admin_seat import AdminSeat
seat = AdminSeat(Path(sys.argv[1]))
assert seat.take()
seat.leave_word({"url": "http://127.0.0.1:1/admin", "pid": 1})
print("taken", flush=True)
sys.stdin.read()
"""


def test_first_has_it_until_it_gives_it_back(tmp_path: Path) -> None:
    """A second process waits; what is said is what the holder says."""
    first, second = AdminSeat(tmp_path), AdminSeat(tmp_path)
    assert first.take() and first.take() and not second.take()
    first.leave_word({"url": "a long address that is replaced by a shorter one", "pid": 1})
    first.leave_word({"url": "u", "pid": 1})
    assert page_facts(tmp_path) == {"url": "u", "pid": 1}
    first.give_back()
    first.give_back()
    assert page_facts(tmp_path) == {}
    assert second.take() and page_facts(tmp_path) == {}
    second.give_back()


def test_only_the_same_user_may_read_it(tmp_path: Path) -> None:
    """The file, which holds the key, has mode 0600."""
    seat = AdminSeat(tmp_path)
    assert seat.take() and (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    seat.give_back()


def test_process_that_dies_leaves_it_to_the_next(tmp_path: Path) -> None:
    """After SIGKILL the word it left does not count, and another process may take its place."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "taken\n"
        seat = AdminSeat(tmp_path)
        assert not seat.take() and page_facts(tmp_path)["pid"] == 1
        child.kill()
        child.wait()
        assert page_facts(tmp_path) == {}
        assert seat.take()
        seat.give_back()


def test_nonsense_is_no_word(tmp_path: Path) -> None:
    """A missing file and one that holds something else say nothing."""
    assert page_facts(tmp_path) == {}
    seat = AdminSeat(tmp_path)
    assert seat.take()
    for text in ("", "{", "[1]"):
        (tmp_path / FILE).write_text(text)
        assert page_facts(tmp_path) == {}
    seat.give_back()
