"""systemd hears what the server says, by the datagrams of sd_notify(3)."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import systemd
from services.systemd import Systemd, status_line


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5.0)

    def heard(self) -> list[str]:
        """Return the lines of the next datagram."""
        return self._socket.recv(4096).decode().split("\n")

    def silent(self) -> bool:
        """Return whether nothing waits to be read."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(5.0)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Return a manager that listens on a path, and one in the abstract namespace."""
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@voice-{secrets.token_hex(8)}")
    yield made
    made.close()


def environment(manager: Manager, **more: str) -> dict[str, str]:
    """Return what systemd puts into the environment of a service."""
    return {"NOTIFY_SOCKET": manager.address, **more}


def test_states_are_told_with_their_status(manager: Manager) -> None:
    """Ready, reloading and stopping arrive, each in one datagram, the status as one line."""
    service = Systemd.from_environment(environment(manager), os.getpid())
    service.ready("0 browser,\n0 phone")
    assert manager.heard() == ["READY=1", "STATUS=0 browser, 0 phone"]
    done: list[str] = []
    service.reload(lambda: done.extend(manager.heard()))
    assert done[0] == "RELOADING=1"
    name, _, microseconds = done[1].partition("=")
    assert name == "MONOTONIC_USEC" and abs(int(microseconds) / 1e6 - time.monotonic()) < 5
    assert manager.heard() == ["READY=1"]
    service.stopping("draining 2")
    assert manager.heard() == ["STOPPING=1", "STATUS=draining 2", "EXTEND_TIMEOUT_USEC=30000000"]
    service.beat("draining 1")
    assert manager.heard() == ["STATUS=draining 1", "EXTEND_TIMEOUT_USEC=30000000"]


def test_beats_come_from_the_loop_three_times_in_the_timeout(manager: Manager) -> None:
    """While the event loop runs, WATCHDOG=1 comes every third of WATCHDOG_USEC, the status only when it is new."""
    service = Systemd.from_environment(environment(manager, WATCHDOG_USEC="300000"), os.getpid())
    assert service.watchdog_s == 0.3

    async def run() -> float:
        began = time.monotonic()
        service.start(lambda: "busy")
        heard = [await asyncio.to_thread(manager.heard) for _ in range(4)]
        assert heard == [["READY=1", "STATUS=busy"], *[["WATCHDOG=1"]] * 3]
        service.stop()
        return time.monotonic() - began

    assert 0.19 <= asyncio.run(run()) < 3.0


def test_blocked_loop_is_silent(manager: Manager) -> None:
    """No beat is sent while the event loop is blocked."""
    service = Systemd.from_environment(environment(manager, WATCHDOG_USEC="60000"), os.getpid())

    async def run() -> None:
        service.start(lambda: "busy")
        await asyncio.sleep(0)
        while not manager.silent():
            pass
        time.sleep(0.2)  # noqa: ASYNC251 - the fault itself: a loop that is blocked for ten beats
        assert manager.silent()
        service.stop()

    asyncio.run(run())


def test_parent_is_silent_while_a_child_is_not_well(manager: Manager) -> None:
    """A parent that cannot answer for its children does not say that the service lives."""
    service = Systemd.from_environment(environment(manager, WATCHDOG_USEC="60000"), os.getpid())

    async def run() -> None:
        asked, often = 0, asyncio.Event()

        def is_alive() -> bool:
            nonlocal asked
            asked += 1
            if asked == 5:
                often.set()
            return asked <= 2

        service.start(lambda: "busy", is_alive)
        await asyncio.wait_for(often.wait(), 5)
        service.stop()

    asyncio.run(run())
    heard = [manager.heard() for _ in range(3)]
    assert heard == [["READY=1", "STATUS=busy"], ["WATCHDOG=1"], ["WATCHDOG=1"]]
    assert manager.silent()


def test_status_is_refreshed_when_it_changed(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that changed is told with a beat, and without a watchdog alone."""
    monkeypatch.setattr(systemd, "STATUS_S", 0.02)
    service = Systemd.from_environment(environment(manager), os.getpid())
    busy = iter(range(1000))

    async def run() -> list[list[str]]:
        service.start(lambda: f"{next(busy)} sessions")
        heard = [await asyncio.to_thread(manager.heard) for _ in range(3)]
        service.stop()
        return heard

    expected = [["READY=1", "STATUS=0 sessions"], ["STATUS=1 sessions"], ["STATUS=2 sessions"]]
    assert asyncio.run(run()) == expected


@pytest.mark.parametrize("microseconds", ["", "0", "soon", "-5"])
def test_watchdog_that_is_not_asked_for_is_not_fed(manager: Manager, microseconds: str) -> None:
    """Without a usable WATCHDOG_USEC no WATCHDOG=1 is sent."""
    service = Systemd.from_environment(environment(manager, WATCHDOG_USEC=microseconds), os.getpid())
    assert service.watchdog_s is None
    service.beat("fine")
    assert manager.heard() == ["STATUS=fine"]


def test_child_does_not_feed_the_watchdog_of_its_parent(manager: Manager) -> None:
    """WATCHDOG_PID names another process: its watchdog is not ours."""
    variables = environment(manager, WATCHDOG_USEC="300000", WATCHDOG_PID="1")
    assert Systemd.from_environment(variables, os.getpid()).watchdog_s is None


def test_without_systemd_nothing_happens() -> None:
    """A server started from a shell sends nothing and starts no task."""
    service = Systemd.from_environment({"WATCHDOG_USEC": "1000"}, os.getpid())

    async def run() -> set[asyncio.Task[None]]:
        service.start(lambda: "fine")
        return {task for task in asyncio.all_tasks() if task.get_name() == "systemd"}

    service.beat("fine")
    assert asyncio.run(run()) == set() and service.watchdog_s is None
    service.stop()


def test_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    """A socket that nobody reads is no reason to stop."""
    Systemd(str(tmp_path / "gone")).ready("fine")


def test_full_queue_does_not_wait(manager: Manager) -> None:
    """A manager that does not read blocks nobody."""
    service, began = Systemd(manager.address, 1.0), time.monotonic()
    for number in range(2_000):
        service.beat(str(number))
    assert time.monotonic() - began < 3.0


def test_counts_read_as_a_sentence() -> None:
    """The status line says who is there, and of how many."""
    assert status_line(12, 3, 1000, is_draining=False) == "12 browser, 3 phone, 15 of 1000"
    assert status_line(1, 1, 1000, is_draining=True) == "draining 2"
