"""The load around the systems under test: one upstream, one process of clients, and what one round measures."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.certificate import make_certificate
from bench.child import Child
from bench.interruption import ending_in_order
from bench.meters import cpu_s, machine_busy_s
from bench.shapes import APPEND_MS, DELTA_MS, Channel
from bench.systems import Naive, Nginx, Ours, System

SETTLE_S = 1.0
"""Between the beginning of the talk and the measured window: buffers fill, timers spread."""

OTHERS_SHARE = 0.25
"""Of one core: beyond it what else runs on the machine is seen in the figures."""

ARRIVED_OFF = 0.03
"""By how much what arrived may differ from what was sent; more means that a process waited for a core."""

ATTEMPTS = 2
CALM_S = 0.5
PATIENCE_S = 3.0
"""How long is waited for a calm moment before a window is measured as it comes."""

NAMES = ("nginx", "ours", "ours-tornado", "naive", "direct")

UP_HZ = {channel: 1000 / milliseconds for channel, milliseconds in APPEND_MS.items()}


def raise_file_limit() -> None:
    """Let this process and those it starts open as many files as the system allows: a session needs up to four."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class NotMeasured(Exception):
    """Raised when a round says nothing: sessions were lost, or the load did not arrive."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured of one system in one window.

    Attributes:
        system: Its name.
        cpu_s: Processor time its processes used.
        wall_s: Length of the window.
        up, down: Audio messages that arrived at the upstream and at the clients.
        offered: Audio messages sent by both in the window.
        latency: `up_p50_ms`, `up_p99_ms`, `down_p50_ms`, `down_p99_ms`, from sender to receiver.
        load_cpu_s: Processor time of the load itself: both of its processes together.
        others_share: How much of one core everything else on the machine took.
    """

    system: str
    cpu_s: float
    wall_s: float
    up: int
    down: int
    offered: int
    latency: Mapping[str, float | None]
    load_cpu_s: float
    others_share: float

    @property
    def us_per_message(self) -> float:
        """Processor time for one message that was forwarded, in microseconds."""
        return self.cpu_s / max(self.up + self.down, 1) * 1e6

    @property
    def is_calm(self) -> bool:
        """Whether nothing disturbed the window."""
        return self.others_share <= OTHERS_SHARE and abs(self.arrived - 1) <= ARRIVED_OFF

    def as_json(self) -> dict[str, Any]:
        """Return it for the result of a run, with the figures that follow from it."""
        return {**asdict(self), "us_per_message": round(self.us_per_message, 3), "arrived": round(self.arrived, 4)}

    @property
    def share_of_core(self) -> float:
        """How much of one core was used; above 1 with several processes."""
        return self.cpu_s / self.wall_s

    @property
    def arrived(self) -> float:
        """Share of what was sent that arrived within the window; slightly off 1 by what is on its way."""
        return (self.up + self.down) / max(self.offered, 1)


class Rig:
    """Upstream and clients, running; use it as a context manager.

    Args:
        is_tls: Whether the upstream speaks TLS.
        delta_ms: Audio in one message to the listener.
        settle_s: Pause before each measurement.
    """

    def __init__(self, *, is_tls: bool = False, delta_ms: int = DELTA_MS, settle_s: float = SETTLE_S) -> None:
        self.settle_s = settle_s
        self._is_tls, self._delta_ms = is_tls, delta_ms
        self._running = ExitStack()
        self._certificate: Path | None = None

    def __enter__(self) -> Self:
        raise_file_limit()
        with ExitStack() as starting:
            starting.enter_context(ending_in_order())
            folder = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="voice-bench-")))
            listen: dict[str, Any] = {"delta_ms": self._delta_ms}
            environment = {}
            if self._is_tls:
                self._certificate, key = make_certificate(folder)
                listen |= {"certificate": str(self._certificate), "key": str(key)}
                environment["SSL_CERT_FILE"] = str(self._certificate)
            self._upstream = starting.enter_context(Child("bench.upstream"))
            self._clients = starting.enter_context(Child("bench.clients", environment=environment))
            self._upstream_port = self._upstream.ask("listen", **listen)
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def system(self, name: str) -> System:
        """Return a system under test by its name in `NAMES`, not started yet."""
        rest: dict[str, Any] = {"is_tls": self._is_tls, "certificate": self._certificate}
        if name == "ours-supabase":
            return Ours(name, self._upstream_port, has_supabase=True, **rest)
        if name == "ours" or name.startswith("ours-"):
            return Ours(name, self._upstream_port, wire=name.partition("-")[2] or "fast", **rest)
        return {"nginx": Nginx, "naive": Naive, "direct": System}[name](name, self._upstream_port, **rest)

    # ------------------------------------------------------------------ sessions

    def open(
        self, system: System, channel: Channel, *, count: int, seats: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Open sessions that can talk; `seats` when they were made before.

        Raises:
            NotMeasured: If not all of them could be opened.
        """
        seats = seats if seats is not None else system.seats(channel, count)
        opened = self._clients.ask("open", channel=channel, seats=seats, delta_ms=self._delta_ms)
        if opened != count:
            raise NotMeasured(f"{system.name}: {opened} of {count} sessions opened: {self._clients.ask('read')}")

    def cycle(
        self, system: System, channel: Channel, *, count: int, seats: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Open and close sessions, one after the other, a few at a time; `seats` when they were made before.

        Raises:
            NotMeasured: If not all of them could be opened.
        """
        seats = seats if seats is not None else system.seats(channel, count)
        done = self._clients.ask("cycle", channel=channel, seats=seats, delta_ms=self._delta_ms, timeout_s=300.0)
        if done != count:
            raise NotMeasured(f"{system.name}: {done} of {count} sessions opened: {self._clients.ask('read')}")

    def talk(self, channel: Channel) -> None:
        """Have both sides of every open session speak."""
        self._upstream.ask("talk", on=True)
        self._clients.ask("talk", on=True, channel=channel)

    def hush(self) -> None:
        """End all talk; the sessions stay."""
        self._clients.ask("talk", on=False)
        self._upstream.ask("talk", on=False)

    def close(self) -> None:
        """End all talk and all sessions."""
        self.hush()
        self._clients.ask("close")
        until = time.monotonic() + 10.0  # a link may wait 2 s for the other end's close
        while self._upstream.ask("read")["sessions"] and time.monotonic() < until:
            time.sleep(0.05)

    # ------------------------------------------------------------------ measuring

    def readings(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the counts of the upstream and of the clients; see `Counters.read`."""
        return self._upstream.ask("read"), self._clients.ask("read")

    def window(self, system: System, seconds: float) -> Window:
        """Measure a window of the talk that goes on.

        Raises:
            NotMeasured: If sessions were lost, or hardly anything arrived.
        """
        time.sleep(self.settle_s)
        before_up, before_down = self.readings()
        pids, load = system.pids, [self._upstream.pid, self._clients.pid]
        cpu, load_cpu, busy, began = cpu_s(pids), cpu_s(load), machine_busy_s(), time.monotonic()
        time.sleep(seconds)
        used, load_used, wall = cpu_s(pids) - cpu, cpu_s(load) - load_cpu, time.monotonic() - began
        others = max(machine_busy_s() - busy - used - load_used, 0.0) / wall
        up, down = self.readings()
        if down["lost"] != before_down["lost"]:
            raise NotMeasured(f"{system.name}: sessions were lost: {down['reasons']}")
        latency = {
            f"{way}_{name}": read[name] for way, read in (("up", up), ("down", down)) for name in ("p50_ms", "p99_ms")
        }
        measured = Window(
            system.name, used, wall,
            up=up["received"] - before_up["received"], down=down["received"] - before_down["received"],
            offered=up["sent"] - before_up["sent"] + down["sent"] - before_down["sent"],
            latency=latency, load_cpu_s=load_used, others_share=round(others, 3),
        )  # fmt: skip
        if measured.arrived < 0.5:  # not a slow system but a broken load
            raise NotMeasured(f"{system.name}: only {measured.arrived:.0%} of the load arrived")
        return measured

    def measure(self, system: System, channel: Channel, *, sessions: int, seconds: float, attempts: int = 1) -> Window:
        """Open sessions, let them talk, measure a window, close them; again when the machine was not calm.

        Returns:
            The calmest window of at most so many attempts.

        Raises:
            NotMeasured: As `open` and `window` do.
        """
        windows: list[Window] = []
        while len(windows) < attempts and not (windows and windows[-1].is_calm):
            if attempts > 1:
                wait_until_calm()
            self.open(system, channel, count=sessions)
            try:
                self.talk(channel)
                windows.append(self.window(system, seconds))
            finally:
                self.close()
        return min(windows, key=lambda window: (not window.is_calm, window.others_share))


def wait_until_calm() -> None:
    """Return when hardly anything runs on the machine, or after a while."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        busy = machine_busy_s()
        time.sleep(CALM_S)
        if (machine_busy_s() - busy) / CALM_S <= OTHERS_SHARE:
            return
