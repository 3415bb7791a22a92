"""The parent of several workers, with small processes in the place of workers; and the sockets it hands out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.workers import Seat, Supervisor, bind, listen, open_groups
from services.workers import supervisor as supervisor_module
from tests.fakes.server_process import REPOSITORY

WORKER = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from services.workers import Seat, listen
async def main():
    seat = Seat.inherited(os.environ)
    {before}
    listen(seat.doors)
    done = asyncio.Event()
    orders = {{"drain": {drain}, "force": done.set, "forget": lambda: os.write(1, b"forget "),
              "leave": lambda: [one.close() for one in (*seat.doors, *seat.health)]}}
    seat.report_to_parent(lambda: {{"browser": seat.number + 1}}, orders)
    {after}
    await done.wait()
    seat.close()
asyncio.run(main())
"""

Check = Callable[[Supervisor, list[tuple[str, str, Mapping[str, Any]]]], Awaitable[None]]


def command(*, before: str = "pass", after: str = "pass", drain: str = "done.set") -> list[str]:
    """Return what starts a small worker."""
    return [sys.executable, "-c", WORKER.format(before=before, after=after, drain=drain), str(REPOSITORY)]


async def eventually(check: Callable[[], Any], within_s: float = 10.0) -> bool:
    """Return whether the check became true in time."""
    for _ in range(round(within_s / 0.01)):
        if check():
            return True
        await asyncio.sleep(0.01)
    return bool(check())


def supervise(start: list[str], check: Check, *, count: int = 2, drain_s: float = 5.0) -> int:
    """Run a supervisor, have something checked while it runs, drain it, and return its exit status."""

    async def scenario() -> int:
        told: list[tuple[str, str, Mapping[str, Any]]] = []
        groups, health = open_groups(0, "127.0.0.1", count), open_groups(0, "127.0.0.1", count)
        seats = [Seat(n, groups[n], health[n]) for n in range(count)]
        supervisor = Supervisor(
            start, seats, drain_s=drain_s, report=lambda *event: told.append(event), environ=dict(os.environ)
        )
        running = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(30.0):
                await check(supervisor, told)
                supervisor.drain()
                return await running
        finally:
            supervisor.drain()
            supervisor.drain()
            await running

    return asyncio.run(scenario())


def test_all_workers_listen_and_tell_what_they_do() -> None:
    """The parent knows when all are ready, that they answer, and how many sessions they have; a drain ends them."""

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert not supervisor.is_ready
        assert await eventually(lambda: supervisor.is_ready and supervisor.sessions() == {"browser": 3})
        assert supervisor.all_answer() and not supervisor.is_stopping
        assert [event for _, event, _ in told] == ["worker ready", "worker ready"]

    assert supervise(command(), check) == 0


def test_worker_that_dies_is_started_at_once_and_after_pauses_when_it_goes_on_dying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first death costs no pause, each further early one twice as long a pause as the one before."""
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0.01)

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        def pauses() -> list[float]:
            return [fields["restart_in_s"] for _, event, fields in told if event == "worker ended"]

        assert await eventually(lambda: len(pauses()) >= 4)
        assert pauses()[:4] == [0.0, 0.04, 0.08, 0.16]
        assert {fields["status"] for _, event, fields in told if event == "worker ended"} == {3}
        assert supervisor.all_answer()

    dies = 'asyncio.get_running_loop().call_later(0.05, os._exit, 3) if seat.number == 1 else None'
    assert supervise(command(after=dies), check) == 0


def listeners(port: int) -> int:
    """Return how many sockets listen on a port of IPv4. Source: proc_pid_net(5), state 0A."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def test_seat_that_stays_empty_for_long_takes_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """During a longer pause the port is left to the other workers; with the next start the seat is back on it."""
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(supervisor_module, "PATIENCE_S", 0.5)

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        port = supervisor._workers[0].seat.port

        def pauses() -> list[float]:
            return [fields["restart_in_s"] for _, event, fields in told if event == "worker ended"]

        assert await eventually(lambda: listeners(port) == 2)
        assert await eventually(lambda: pauses()[-1:] == [0.8] and listeners(port) == 1)
        assert await eventually(lambda: listeners(port) == 2)

    dies = "asyncio.get_running_loop().call_later(0.3, os._exit, 3) if seat.number == 1 else None"
    assert supervise(command(after=dies), check) == 0


@pytest.mark.parametrize(("status", "passed_on"), [(78, 78), (1, 1), (9, 1)])
def test_first_worker_that_cannot_start_ends_the_parent(status: int, passed_on: int) -> None:
    """Bad settings are passed on so that nobody starts into them again; everything else is 1. No other is started."""

    async def scenario() -> None:
        groups, health = open_groups(0, "127.0.0.1", 2), open_groups(0, "127.0.0.1", 2)
        seats = [Seat(n, groups[n], health[n]) for n in range(2)]
        start = command(before=f"os._exit({status})")
        supervisor = Supervisor(start, seats, drain_s=1.0, report=lambda *_: None, environ=dict(os.environ))
        async with asyncio.timeout(10.0):
            assert await supervisor.run() == passed_on

    asyncio.run(scenario())


def test_worker_that_ends_by_itself_leaves_the_port_when_another_stays() -> None:
    """Its sockets are closed on both sides; the last one that listens is not let go, and is asked in vain."""

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert await eventually(lambda: supervisor.is_ready)
        port = supervisor._workers[0].seat.port
        assert listeners(port) == 2
        first, last = supervisor._workers
        supervisor._let_leave(first)
        assert await eventually(lambda: listeners(port) == 1)
        supervisor._let_leave(last)
        await asyncio.sleep(0)
        assert first.seat.doors[0].fileno() == -1 and last.seat.doors[0].fileno() != -1 and listeners(port) == 1

    assert supervise(command(), check) == 0


def test_worker_asks_its_parent_to_let_it_leave() -> None:
    """What a worker says when it is told to stop alone reaches the parent, which answers."""

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert await eventually(lambda: supervisor.is_ready)
        port = supervisor._workers[0].seat.port
        assert await eventually(lambda: listeners(port) == 1)
        assert [worker.is_leaving for worker in supervisor._workers] == [False, True]

    asks = "asyncio.get_running_loop().call_later(0.5, seat.ask_to_leave) if seat.number == 1 else None"
    assert supervise(command(after=asks), check) == 0


def test_worker_that_is_silent_does_not_answer_and_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocked event loop shows first in `all_answer`, for the watchdog, and then costs that worker its life."""
    monkeypatch.setattr(supervisor_module, "ANSWERS_S", 1.5)
    monkeypatch.setattr(supervisor_module, "HUNG_S", 3.0)

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert await eventually(lambda: supervisor.is_ready)
        assert await eventually(lambda: not supervisor.all_answer(), 5.0)
        assert await eventually(lambda: ("worker killed", "hung") in [(e, f.get("cause")) for _, e, f in told], 6.0)
        assert {f["worker"] for _, e, f in told if e == "worker killed"} == {supervisor._workers[1].seat.worker}

    blocks = "asyncio.get_running_loop().call_later(0.1, __import__('time').sleep, 60) if seat.number == 1 else None"
    assert supervise(command(after=blocks), check) == 0


def test_worker_that_outlives_the_drain_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that takes no orders ends all the same, some time after the drain's deadline."""
    monkeypatch.setattr(supervisor_module, "KILL_AFTER_S", 0.3)

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert await eventually(lambda: supervisor.is_ready)

    began = time.monotonic()
    assert supervise(command(drain="print"), check, drain_s=0.2) == 0
    assert time.monotonic() - began < 8.0


def test_orders_reach_all_workers(capfd: pytest.CaptureFixture[str]) -> None:
    """Forgetting keys is told to each; a second drain forces those that would go on."""

    async def check(supervisor: Supervisor, told: list[Any]) -> None:
        assert await eventually(lambda: supervisor.is_ready)
        heard = ""
        supervisor.forget_keys()

        def both() -> bool:
            nonlocal heard
            heard += capfd.readouterr().out
            return heard.count("forget ") == 2

        assert await eventually(both)
        supervisor.drain()
        supervisor.drain()

    assert supervise(command(drain="print"), check, drain_s=600.0) == 0


def test_worker_learns_that_its_parent_is_gone() -> None:
    """The end of the link is told; an order nobody knows is none."""

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        doors, health = bind(0, "127.0.0.1"), bind(0, "127.0.0.1")
        seat, drained, forgot = Seat(0, doors, health, theirs), asyncio.Event(), asyncio.Event()
        seat.report_to_parent(dict, {"orphaned": drained.set, "forget": forgot.set})
        ours.sendall(b"nonsense\nfor")
        await asyncio.sleep(0)
        ours.sendall(b"get\n")
        async with asyncio.timeout(5.0):
            await forgot.wait()
            assert not drained.is_set()
            ours.close()
            await drained.wait()
        seat.close()

    asyncio.run(scenario())


# ---------------------------------------------------------------------- sockets


def test_bound_sockets_are_deaf_until_they_listen() -> None:
    """Nobody is let in before the server is ready; then nobody else can have the port."""
    sockets = bind(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    listen(sockets)
    socket.create_connection(("127.0.0.1", port), timeout=2).close()
    with pytest.raises(OSError, match="in use"):
        bind(port, "127.0.0.1")
    sockets[0].close()


def test_every_address_of_a_name_gets_the_same_port() -> None:
    """`localhost` and all addresses are one port each, whatever families the machine has."""
    for host in ("localhost", ""):
        sockets = bind(0, host)
        assert len({one.getsockname()[1] for one in sockets}) == 1
        for one in sockets:
            one.close()


def test_address_of_another_machine_is_refused() -> None:
    """A HOST that is not here is told as such, and leaves no socket open."""
    with pytest.raises(OSError, match=r"assign|available") as raised:
        bind(0, "192.0.2.1")
    assert raised.value.errno == errno.EADDRNOTAVAIL


def test_groups_share_a_port_with_each_other_only() -> None:
    """Each worker has a socket on the port; a second server finds it taken, although the sockets could be shared."""
    groups = open_groups(0, "127.0.0.1", 3)
    ports = {one.getsockname()[1] for group in groups for one in group}
    assert len(ports) == 1
    listen(groups[1])
    with pytest.raises(OSError, match="in use"):
        open_groups(ports.pop(), "127.0.0.1", 2)
    for group in groups:
        group[0].close()
