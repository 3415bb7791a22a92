"""The live-session directory, shared by processes, and what becomes of it when its file or a process breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.directory import MAX_TICKETS, RETRY_S, Counts, DirectoryUnavailable, MachineDirectory
from tests.fakes.server_process import REPOSITORY
from tests.fakes.signers import Clock


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine that waits for nothing returns."""
    return asyncio.run(work)


class Machine:
    """Directories of several workers, as in one process each; who is in `alive` counts as living.

    It misleads in that all are in one thread: what happens at the same moment is shown with real processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "directory.db"
        self.alive: set[str] = set()
        self.clock = Clock(1000.0)
        self.told: list[str] = []
        self._opened: list[MachineDirectory] = []

    def worker(self, name: str, *, places: int = 3, per_user: int = 2) -> MachineDirectory:
        """Return the directory of a worker that lives."""
        self.alive.add(name)
        directory = MachineDirectory(
            self.folder, name, living=lambda: self.alive - {name}, limits=(places, per_user),
            report=lambda event, _fields: self.told.append(event), clock=self.clock,
        )  # fmt: skip
        self._opened.append(directory)
        return directory

    def close(self) -> None:
        """Close what was opened."""
        for directory in self._opened:
            directory.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine without workers."""
    made = Machine(tmp_path)
    yield made
    made.close()


def test_places_are_counted_over_all_workers(machine: Machine) -> None:
    """Whoever asks, there are as many places as allowed, and one given back is free for anybody."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    assert [now(d.take(1, "browser")) for d in (one, other)] == [True, True]
    assert now(one.take(2, "phone")) and now(one.has_room()) is False
    assert not now(other.take(2, "browser"))
    one.release(1)
    one.release(1)
    one.release(77)
    assert now(other.has_room()) and now(other.take(3, "browser"))
    assert now(one.counts()) == Counts(3, {"browser": 0, "phone": 0})


def test_users_are_counted_over_all_workers(machine: Machine) -> None:
    """A user has a number of places on the machine; a session that follows an ending one may exceed it by one."""
    one, other = machine.worker("8080-0", places=9), machine.worker("8081-0", places=9)
    for directory, session in ((one, 1), (one, 2), (other, 1), (other, 2)):
        assert now(directory.take(session, "browser"))
    assert now(one.take_for(1, "anna")) and now(other.take_for(1, "anna"))
    assert now(one.has_room("anna")) is False and now(one.has_room("ben")) is True
    assert not now(one.take_for(2, "anna"))
    assert now(one.take_for(2, "anna", follows=True)) and not now(other.take_for(2, "anna", follows=True))
    assert now(other.take_for(2, "ben")) and not now(other.take_for(99, "ben"))


def test_later_note_learns_who_has_the_conversation(machine: Machine) -> None:
    """Of two workers that go on with a conversation the second is told of the first, never the first of the second."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    for directory, user in ((one, "anna"), (other, "anna")):
        now(directory.take(1, "browser"))
        now(directory.take_for(1, user))
    first = now(one.note(1, "c"))
    machine.clock.now += 0.001
    second = now(other.note(1, "c"))
    assert (first.others, second.others) == ((), ("8080-0",)) and first.at < second.at
    assert now(one.note(99, "c")).others == ()
    assert now(one.counts()).talking == {"browser": 2}


def test_conversation_of_another_user_is_nobodys_business(machine: Machine) -> None:
    """Workers are told of the same user's sessions only."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    for directory, user in ((one, "anna"), (other, "ben")):
        now(directory.take(1, "browser"))
        now(directory.take_for(1, user))
        assert now(directory.note(1, "c")).others == ()


def test_places_of_a_dead_worker_are_free(machine: Machine) -> None:
    """Before anybody is refused, and when sessions are counted, those of processes that are gone are forgotten."""
    one, other = machine.worker("8080-0", per_user=3), machine.worker("8080-1", per_user=3)
    for session in (1, 2, 3):
        assert now(one.take(session, "browser")) and now(one.take_for(session, "anna"))
    machine.alive.discard("8080-0")
    assert now(other.take(1, "browser")) and now(other.take_for(1, "anna"))
    assert now(other.counts()).active == 1


def test_successor_begins_without_its_predecessors_sessions(machine: Machine) -> None:
    """A worker of the same name forgets what an earlier process of it left."""
    now(machine.worker("8080-0").take(1, "browser"))
    machine.worker("8080-1")
    assert now(machine.worker("8080-0").counts()).active == 0


def test_ticket_is_taken_once_and_for_a_while(machine: Machine) -> None:
    """A ticket gives its holder once, at any worker, until it is too old."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    now(one.counts())
    now(other.put_ticket("k", "holder", 60.0))
    assert now(one.take_ticket("k")) == "holder"
    assert now(other.take_ticket("k")) is None
    now(one.put_ticket("old", "holder", 60.0))
    machine.clock.now += 60.1
    assert now(one.take_ticket("old")) is None


def test_tickets_are_bounded(machine: Machine) -> None:
    """Beyond the bound the oldest goes, and tickets that are over are not kept."""
    directory = machine.worker("8080-0")

    async def many() -> None:
        for number in range(MAX_TICKETS + 1):
            machine.clock.now += 0.001
            await directory.put_ticket(str(number), "x", 60.0)

    now(many())
    assert now(directory.take_ticket("0")) is None and now(directory.take_ticket("1")) == "x"
    machine.clock.now += 100.0
    now(directory.put_ticket("last", "x", 60.0))
    with sqlite3.connect(machine.file) as database:
        assert database.execute("select key from tickets").fetchall() == [("last",)]
    database.close()


def test_only_the_owner_can_read_it(machine: Machine) -> None:
    """The file names users: nobody else may open it."""
    now(machine.worker("8080-0").take(1, "browser"))
    assert {path.stat().st_mode & 0o077 for path in machine.folder.glob("directory.db*")} == {0}


def test_file_of_another_boot_is_emptied(machine: Machine) -> None:
    """The first worker of a machine keeps neither sessions nor tickets of before."""
    before = machine.worker("8080-7")
    now(before.take(1, "browser"))
    now(before.put_ticket("k", "x", 60.0))
    machine.alive.clear()
    first = machine.worker("8080-0")
    assert now(first.counts()).active == 0 and now(first.take_ticket("k")) is None


# ---------------------------------------------------------------------- trouble


def lock(file: Path) -> Callable[[], None]:
    """Have somebody sit on the file's write lock; return what ends that."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("begin immediate")
    return database.close


def test_locked_file_is_told_once_and_tried_again_after_a_pause(machine: Machine) -> None:
    """While somebody sits on it nothing is known; afterwards it has every session that came meanwhile, none that left.
    """
    directory = machine.worker("8080-0", places=9)
    assert now(directory.take(1, "browser"))
    unlock = lock(machine.file)
    for session in (2, 3):
        with pytest.raises(DirectoryUnavailable):
            now(directory.take(session, "browser"))
    with pytest.raises(DirectoryUnavailable):
        now(directory.take_for(2, "anna"))
    directory.release(1)
    unlock()
    with pytest.raises(DirectoryUnavailable):
        now(directory.has_room())
    machine.clock.now += RETRY_S
    assert now(directory.counts()).active == 2
    assert now(directory.has_room("anna")) is True and machine.told == ["directory_failing", "directory_back"]
    with sqlite3.connect(machine.file) as database:
        assert database.execute("select session, user_id from sessions").fetchall() == [(2, "anna"), (3, None)]
    database.close()


def test_broken_file_is_made_anew_from_what_the_living_know(machine: Machine) -> None:
    """Garbage in the place of the file costs one answer; then all workers have their sessions in a new one."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    assert now(one.take(1, "browser")) and now(other.take(1, "phone"))
    for path in machine.folder.glob("directory.db*"):
        path.unlink()
    machine.file.write_bytes(b"this is no database" * 400)
    with pytest.raises(DirectoryUnavailable):
        now(one.take(2, "browser"))
    assert "directory_made_anew" in machine.told
    assert now(one.counts()).active == 2
    assert now(other.has_room()) is False
    assert now(one.counts()).active == 3
    assert machine.told[-1] == "directory_back"


def test_removed_file_is_noticed(machine: Machine) -> None:
    """Workers do not go on by themselves in a file that has no name any more."""
    one, other = machine.worker("8080-0"), machine.worker("8080-1")
    assert now(one.take(1, "browser")) and now(other.take(1, "browser"))
    for path in machine.folder.glob("directory.db*"):
        path.unlink()
    assert now(one.has_room()) and now(other.has_room())
    assert now(one.counts()).active == 2 and machine.told == []


def test_folder_that_is_gone_is_no_accident(machine: Machine, tmp_path: Path) -> None:
    """Without the folder the directory is away, and closing it is fine."""
    directory = MachineDirectory(
        tmp_path / "gone", "8080-0", living=list, limits=(1, 1), report=lambda event, _: machine.told.append(event)
    )  # fmt: skip
    with pytest.raises(DirectoryUnavailable):
        now(directory.take(1, "browser"))
    directory.release(1)
    directory.close()
    assert machine.told == ["directory_failing"]


# ---------------------------------------------------------------------- real processes

TAKER = """
import asyncio, sys
from pathlib import Path
from services.directory import DirectoryUnavailable, MachineDirectory
from services.siblings import Siblings, hold
folder, name, tries = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
held = hold(folder, name)
directory = MachineDirectory(
    folder, name, living=Siblings(folder, name).names, limits=(100, 1000), report=lambda *told: print(*told)
)
async def take(session):
    while True:
        try:
            return await directory.take(session, "browser")
        except DirectoryUnavailable:
            directory.release(session)
            await asyncio.sleep(0.01)
sys.stdin.readline()
got = sum(asyncio.run(take(session)) for session in range(tries))
print("got", got, flush=True)
sys.stdin.readline()
"""


def test_processes_that_ask_at_once_never_exceed_the_limit(tmp_path: Path) -> None:
    """Three processes that grab as fast as they can get exactly all places, and a killed one's are free again."""
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, str(tmp_path), f"808{n}-0", "80"], cwd=REPOSITORY, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(3)
    ]  # fmt: skip
    try:
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        got = []
        for taker in takers:
            assert taker.stdout is not None
            lines = iter(taker.stdout.readline, "")
            got.append(int(next(line for line in lines if line.startswith("got")).split()[1]))
        assert sum(got) == 100
        busiest = got.index(max(got))
        os.kill(takers[busiest].pid, signal.SIGKILL)
        takers[busiest].wait(5)
        late = subprocess.run(
            [sys.executable, "-c", TAKER, str(tmp_path), "8090-0", "100"], cwd=REPOSITORY, input="go\nend\n", text=True,
            capture_output=True, timeout=20, check=True,
        )  # fmt: skip
        assert int(late.stdout.split()[1]) == max(got)
    finally:
        for taker in takers:
            taker.kill()
            taker.communicate()
