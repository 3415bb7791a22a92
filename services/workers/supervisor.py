"""The parent of several workers: starts them, restarts what dies or hangs, passes on what it is told.

Seat 0 starts first and alone, so that tables and secrets are made once; if it cannot start there is no server. From
then on a worker that ends is started again, at once after a longer life, after growing pauses when it dies young.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .seat import DRAIN, FORCE, FORGET, LEAVE, VARIABLE, Seat
from .sockets import close

Report = Callable[[str, str, Mapping[str, Any]], None]
"""Told level (`info`, `warning`, `error`), event and fields of what operators should know."""

CANNOT_START = 1
BAD_SETTINGS = 78
"""EX_CONFIG of sysexits.h; passed on so that systemd does not restart into the same mistake."""

YOUNG_S = 10.0
"""A worker that dies younger than this counts towards the pause before its next start."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
"""Pauses double between these; a worker that dies once is started again at once (promise P4: serving within 2 s)."""

PATIENCE_S = 2.0
"""Longest pause during which connections may wait in a seat's socket; in longer ones they go to the other seats."""

ANSWERS_S = 5.0
"""A worker whose last sign of life is older does not answer; it gives one a second."""

HUNG_S = 15.0
"""A worker silent for this long is killed, before the watchdog of the unit (20 s) ends all of them."""

START_S = 60.0
"""A worker that does not listen by then is killed: its slowest step is the check of a large spool (about a second)."""

LOOK_S, FIRST_LOOK_S = 1.0, 0.1
"""Between two looks at all workers, later and until they all listen for the first time."""

KILL_AFTER_S = 30.0
"""Longest end of a worker once its drain is over or forced: 12 s for last sentences and clients that do not answer
a close, 5 s for requests, 10 s for transcripts, and the rest for a busy machine."""


@dataclass(slots=True)
class _Worker:
    """One seat and the process in it; the parent keeps the seat's sockets while processes come and go."""

    seat: Seat
    process: asyncio.subprocess.Process | None = None
    link: socket.socket | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    seen_at: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    young_deaths: int = 0
    unread: bytes = b""
    is_leaving: bool = False


class Supervisor:
    """Keeps workers going until it is told to stop; make it inside the event loop.

    Args:
        command: Starts one worker, which finds its seat in the environment.
        seats: One for each worker, seat 0 first, without links.
        drain_s: How long live sessions may go on after `drain`.
        report: Told of what happens.
        environ: Environment of the workers.
    """

    def __init__(
        self,
        command: Sequence[str],
        seats: Sequence[Seat],
        *,
        drain_s: float,
        report: Report,
        environ: Mapping[str, str],
    ) -> None:
        self._command = list(command)
        self._workers = [_Worker(seat) for seat in seats]
        self._drain_s = drain_s
        self._report = report
        self._environ = {name: value for name, value in environ.items() if name != "NOTIFY_SOCKET"}
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self._exit_status = 0
        self._was_up = False

    # ------------------------------------------------------------------ how it stands

    @property
    def is_ready(self) -> bool:
        """True while all workers listen."""
        return all(worker.ready.is_set() for worker in self._workers)

    @property
    def is_stopping(self) -> bool:
        """True from `drain` on."""
        return self._stopping.is_set()

    def all_answer(self) -> bool:
        """Return whether every worker that listens has lately given a sign of life.

        One that is being started again does not count: killing the others would not help it.
        """
        now = time.monotonic()
        return all(now - worker.seen_at < ANSWERS_S for worker in self._workers if worker.ready.is_set())

    def sessions(self) -> Mapping[str, int]:
        """Return the live sessions by channel over all workers, as of their last beats."""
        total: Counter[str] = Counter()
        for worker in self._workers:
            total.update(worker.counts)
        return total

    # ------------------------------------------------------------------ orders

    def drain(self) -> None:
        """Have all workers drain, and start none again; a second call forces."""
        if self._stopping.is_set():
            self._forced.set()
        self._stopping.set()

    def forget_keys(self) -> None:
        """Have all workers drop the keys they hold in memory."""
        self._tell(FORGET)

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> int:
        """Keep the workers going until `drain`, wait for their ends, and return this process's exit status.

        Args:
            on_ready: Called once, when all workers listen for the first time.

        Returns:
            0 after a drain; 1, or the worker's 78, when the first worker could not start.
        """
        first, *others = self._workers
        keepers = [self._begin(first)]
        await self._first_of(first.ready.wait(), self._stopping.wait(), asyncio.wait(keepers))
        if keepers[0].done() and not self._stopping.is_set():
            self._close_sockets()
            return self._exit_status
        keepers += [self._begin(worker) for worker in others]
        watch = asyncio.create_task(self._watch(on_ready), name="watch-workers")
        await self._stopping.wait()
        self._close_sockets()  # from here on new connections find only workers that still listen
        self._tell(DRAIN)
        await self._first_of(asyncio.wait(keepers), self._forced.wait(), timeout_s=self._drain_s + KILL_AFTER_S)
        if self._forced.is_set():
            self._tell(FORCE)
            await self._first_of(asyncio.wait(keepers), timeout_s=KILL_AFTER_S)
        for worker in self._workers:
            self._kill(worker, "outlived the drain")
        await asyncio.wait(keepers)
        watch.cancel()
        return 0

    # ------------------------------------------------------------------ one worker

    def _begin(self, worker: _Worker) -> asyncio.Task[None]:
        return asyncio.create_task(self._keep(worker), name=f"worker-{worker.seat.number}")

    async def _keep(self, worker: _Worker) -> None:
        """Have a process in the seat until the server stops, or the first one of all cannot start."""
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._live(worker, began)
            was_ready = worker.ready.is_set()
            worker.ready.clear()
            worker.counts = {}
            if self._stopping.is_set():
                return
            if not self._was_up:
                self._exit_status = BAD_SETTINGS if status == BAD_SETTINGS else CANNOT_START
                return
            worker.young_deaths = worker.young_deaths + 1 if time.monotonic() - began < YOUNG_S else 0
            pause_s = 0.0
            if worker.young_deaths > 1 or not was_ready:
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(worker.young_deaths, 16))
            fields = {"worker": worker.seat.worker, "status": status, "restart_in_s": pause_s}
            self._report("info" if status == 0 else "error", "worker ended", fields)
            if pause_s > PATIENCE_S:
                worker.seat.leave_port()
            await self._first_of(self._stopping.wait(), timeout_s=pause_s)

    async def _live(self, worker: _Worker, began: float) -> int:
        """Start a process in the seat and return its exit status when it has ended; -n when signal n ended it."""
        try:
            worker.seat.take_port()
        except OSError as error:
            return self._not_started(worker, error)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        seat = Seat(worker.seat.number, worker.seat.doors, worker.seat.health, theirs)
        descriptors = [one.fileno() for one in (*seat.doors, *seat.health, theirs)]
        try:
            # A session of its own: Ctrl-C reaches the parent alone, which then asks the workers to drain, once.
            process = await asyncio.create_subprocess_exec(
                *self._command, env={**self._environ, VARIABLE: seat.describe()}, pass_fds=descriptors,
                stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            return self._not_started(worker, error)
        finally:
            theirs.close()
        worker.process, worker.link, worker.seen_at, worker.unread = process, ours, began, b""
        worker.is_leaving = False
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._hear, worker, ours)
        if self._stopping.is_set():  # the order came while the process was being made
            self._tell(DRAIN)
        try:
            return await process.wait()
        finally:
            loop.remove_reader(ours)
            ours.close()
            worker.process = worker.link = None

    def _not_started(self, worker: _Worker, error: OSError) -> int:
        self._report("error", "worker not started", {"worker": worker.seat.worker, "cause": type(error).__name__})
        return CANNOT_START

    def _hear(self, worker: _Worker, link: socket.socket) -> None:
        """Take a worker's lines."""
        try:
            data = link.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(link)
            return
        *lines, worker.unread = (worker.unread + data).split(b"\n")
        for line in lines:
            kind, _, text = line.partition(b" ")
            worker.seen_at = time.monotonic()
            if kind == b"ready":
                self._report("info", "worker ready", {"worker": worker.seat.worker})
                worker.ready.set()
                self._was_up = True
            elif kind == b"beat":
                with suppress(ValueError):
                    worker.counts = {str(name): int(count) for name, count in json.loads(text).items()}
            elif kind == b"leaving":
                self._let_leave(worker)

    def _let_leave(self, worker: _Worker) -> None:
        """Take a worker that was told to stop alone off the port, so that the kernel gives new connections to others.

        Our copy of its sockets is closed first: while it is open, connections wait in it. A worker that nobody could
        replace stays, to tell who comes that the server restarts.
        """
        worker.is_leaving = True
        others = [each for each in self._workers if each.ready.is_set() and not each.is_leaving]
        if others and worker.link is not None and not self._stopping.is_set():
            worker.seat.leave_port()
            with suppress(OSError):  # it has ended
                worker.link.send(LEAVE.encode() + b"\n")

    # ------------------------------------------------------------------ all workers

    async def _watch(self, on_ready: Callable[[], None]) -> None:
        """Say when all listen, and kill what hangs."""
        told = False
        while True:
            if self.is_ready and not told:
                told = True
                on_ready()
            for worker in self._workers:
                limit_s = HUNG_S if worker.ready.is_set() else START_S
                if worker.process is not None and time.monotonic() - worker.seen_at > limit_s:
                    self._kill(worker, "hung")
            await asyncio.sleep(LOOK_S if told else FIRST_LOOK_S)

    def _close_sockets(self) -> None:
        for worker in self._workers:
            close(worker.seat.doors)
            close(worker.seat.health)

    def _tell(self, order: str) -> None:
        for worker in self._workers:
            if worker.link is not None:
                with suppress(OSError):  # it is ending, or has stopped reading and will be killed
                    worker.link.send(order.encode() + b"\n")

    def _kill(self, worker: _Worker, cause: str) -> None:
        if worker.process is None:
            return
        self._report("error", "worker killed", {"worker": worker.seat.worker, "cause": cause})
        with suppress(ProcessLookupError):
            worker.process.kill()

    @staticmethod
    async def _first_of(*waits: Any, timeout_s: float | None = None) -> None:
        """Wait until one of the awaitables is done, or the time is over; the others are given up."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

