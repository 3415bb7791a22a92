"""How much this machine carries: what `./voice bench` measures, channel by channel.

The real server stands between clients and an upstream with TLS, as OpenAI's has it. It is measured at a moderate load
first; from that follows the load at which it would use 70 % of a core, and that load is then tried, as far as the
machine can make it besides: the load's own processes need cores too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.costs import WARM_UP
from bench.meters import cpu_s, memory_kib
from bench.rig import UP_HZ, NotMeasured, Rig, Window
from bench.shapes import DELTA_MS, Channel
from bench.systems import System, nginx_program

ACTIVE_SHARE = 0.70
"""Share of a core at which a server is called full: what is left takes peaks, logins and the operating system."""

MACHINE_SHARE = 0.90
"""Share of all cores that server and load together may need; beyond it the load would be late, not the server."""

CARRIED = 0.98
"""Share of what was sent that must have arrived; the rest is on its way when a window ends."""

MOST_SESSIONS = 2000
"""Sessions tried at most: each needs four sockets on this machine."""

GIB_KIB = 1024 * 1024

Tell = Callable[[str, float], None]
"""Takes what is being done, and about how many seconds that takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How thorough a measurement is.

    Attributes:
        sessions: Of the first load; with `is_fixed` the only one.
        seconds: Of each window.
        opened: Sessions opened and closed for the set-up rate.
    """

    sessions: int
    seconds: float
    opened: int
    is_fixed: bool = False

    @property
    def total_s(self) -> float:
        """About how long one channel takes."""
        return 18.0 + 4 * self.seconds + 0.04 * self.opened


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one channel costs and how much of it one core carries.

    Attributes:
        up_hz, down_hz: Audio messages a second in each session.
        measured_sessions, measured_share: First load, and the share of a core it needed.
        verified_sessions, verified_share: Highest load that was tried and carried.
        active_sessions: Talking sessions at 70 % of a core.
        idle_kib, talking_kib: Memory of one session.
        idle_sessions_per_gib: Sessions a GiB holds while nobody talks.
        setup_ms: Processor time of opening and closing a session.
        setup_per_s: Sessions a second one core opens and closes.
        added_p50_ms, added_p99_ms: How much later than over a direct connection messages arrive at the first load;
            the slower direction counts.
        verified_p99_ms: How long messages took at the highest load, p99 of the slower direction.
        times_nginx: CPU per message as a multiple of nginx's; None where it is not installed.
        start_mib: Resident memory of the process at its start.
    """

    channel: Channel
    up_hz: float
    down_hz: float
    measured_sessions: int
    measured_share: float
    verified_sessions: int
    verified_share: float
    active_sessions: int
    us_per_message: float
    idle_kib: float
    talking_kib: float
    idle_sessions_per_gib: int
    setup_ms: float
    setup_per_s: int
    added_p50_ms: float
    added_p99_ms: float
    verified_p99_ms: float
    times_nginx: float | None
    start_mib: float

    @property
    def is_verified(self) -> bool:
        """Whether the capacity is not far above what was tried."""
        return self.verified_sessions >= 0.9 * self.active_sessions

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {**asdict(self), "is_verified": self.is_verified}


def measure(channel: Channel, plan: Plan, *, cores: int, tell: Tell) -> Capacity:
    """Return what this machine carries of a channel.

    Raises:
        NotMeasured: If sessions were lost or hardly anything arrived.
        NotStarted: If the server or nginx did not start.
        ChildError: If a process of the load failed.
    """
    with Rig(is_tls=True) as rig:
        tell("starting the server", 2.0)
        with rig.system("ours") as system:
            time.sleep(rig.settle_s)
            start_kib, _ = memory_kib(system.pids)
            rig.cycle(system, channel, count=WARM_UP)
            tell(f"{channel}: {plan.sessions} sessions talk", 5.0 + plan.seconds)
            idle_kib, talking_kib, first = _first_load(rig, system, channel=channel, plan=plan)
            tell(f"{channel}: opening and closing sessions", 2.0 + 0.04 * plan.opened)
            setup_ms = _setup_ms(rig, system, channel=channel, count=plan.opened)
            tell(f"{channel}: {plan.sessions} sessions talk without a server", 2.0 + plan.seconds)
            with rig.system("direct") as without:
                direct = rig.measure(without, channel, sessions=plan.sessions, seconds=plan.seconds)
            highest, verified = plan.sessions, first
            asked = next_load(first, plan, cores=cores)
            if asked > highest:
                tell(f"{channel}: {asked} sessions talk", 5.0 + plan.seconds)
                if tried := _tried(rig, system, channel=channel, sessions=asked, seconds=plan.seconds):
                    highest, verified = asked, tried
        nginx_us = None
        if nginx_program() is not None:
            tell(f"{channel}: {plan.sessions} sessions talk through nginx", 2.0 + plan.seconds)
            with rig.system("nginx") as nginx:
                nginx_us = rig.measure(nginx, channel, sessions=plan.sessions, seconds=plan.seconds).us_per_message
    return Capacity(
        channel=channel, up_hz=UP_HZ[channel], down_hz=1000 / DELTA_MS,
        measured_sessions=plan.sessions, measured_share=round(first.share_of_core, 3),
        verified_sessions=highest, verified_share=round(verified.share_of_core, 3),
        active_sessions=round(highest * ACTIVE_SHARE / verified.share_of_core),
        us_per_message=round(verified.us_per_message, 1),
        idle_kib=idle_kib, talking_kib=talking_kib, idle_sessions_per_gib=round(GIB_KIB / max(idle_kib, 1.0)),
        setup_ms=round(setup_ms, 2), setup_per_s=round(1000 / setup_ms),
        added_p50_ms=_added(first, direct, "p50_ms"), added_p99_ms=_added(first, direct, "p99_ms"),
        verified_p99_ms=round(max(_ways(verified, "p99_ms")), 2),
        times_nginx=round(first.us_per_message / nginx_us, 2) if nginx_us else None,
        start_mib=round(start_kib / 1024, 1),
    )  # fmt: skip


def _setup_ms(rig: Rig, system: System, *, channel: Channel, count: int) -> float:
    seats, pids = system.seats(channel, count), system.pids
    before = cpu_s(pids)
    rig.cycle(system, channel, count=count, seats=seats)
    time.sleep(rig.settle_s)
    return (cpu_s(pids) - before) / count * 1000


def _first_load(rig: Rig, system: System, *, channel: Channel, plan: Plan) -> tuple[float, float, Window]:
    """Return memory of an idle and of a talking session in KiB, and the window.

    The process must not have had many sessions before: it keeps the memory of those that are gone, and the next ones
    would seem to need none.
    """
    time.sleep(rig.settle_s)
    _, before = memory_kib(system.pids)
    rig.open(system, channel, count=plan.sessions)
    try:
        time.sleep(rig.settle_s)
        _, idle = memory_kib(system.pids)
        rig.talk(channel)
        window = rig.window(system, plan.seconds)
        _, talking = memory_kib(system.pids)
    finally:
        rig.close()
    return (
        round((idle - before) / plan.sessions, 1), round((talking - before) / plan.sessions, 1), window,
    )  # fmt: skip


def next_load(first: Window, plan: Plan, *, cores: int) -> int:
    """Return the sessions that should use 70 % of a core, or as many as this machine can also feed.

    Args:
        first: The window of the first load.
        plan: Whose `sessions` that load had.
        cores: Of the machine.
    """
    if plan.is_fixed:
        return plan.sessions
    full = plan.sessions * ACTIVE_SHARE / first.share_of_core
    all_of_it = (first.cpu_s + first.load_cpu_s) / first.wall_s
    fed = plan.sessions * MACHINE_SHARE * cores / all_of_it
    return int(min(full, fed, MOST_SESSIONS))


def _tried(rig: Rig, system: System, *, channel: Channel, sessions: int, seconds: float) -> Window | None:
    """Return the window of a load; None when it was not carried."""
    try:
        window = rig.measure(system, channel, sessions=sessions, seconds=seconds)
    except NotMeasured:
        return None
    return window if window.arrived > CARRIED else None


def _ways(window: Window, key: str) -> list[float]:
    return [value for way in ("up", "down") if (value := window.latency[f"{way}_{key}"]) is not None]


def _added(window: Window, direct: Window, key: str) -> float:
    pairs = zip(_ways(window, key), _ways(direct, key), strict=True)
    return round(max(through - without for through, without in pairs), 2)
