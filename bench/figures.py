"""Figures out of a run: medians, spreads, ratios, and whether the bars are met.

A ratio is always made within one round, where both systems met the same machine, and only then is the median taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Run = Mapping[str, Any]
Shape = tuple[str, str]
"""Channel and upstream: `("browser", "tls")`."""


class Spread(NamedTuple):
    """A median and what lies around it."""

    median: float
    low: float
    high: float

    def shown(self, digits: int = 2, unit: str = "") -> str:
        """Return it as `1.93 (1.88-2.01)`."""
        return f"{self.median:.{digits}f}{unit} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must not exceed.

    Attributes:
        figure: None when this run did not measure it.
    """

    name: str
    limit: float
    unit: str
    figure: Spread | None

    @property
    def verdict(self) -> str:
        """`met`, `not met` or `not measured`; the median decides."""
        if self.figure is None:
            return "not measured"
        return "met" if self.figure.median <= self.limit else "not met"


CPU_BARS = {"browser": 2.0, "phone": 2.2}
"""Times nginx. These and the following bars: issue 5."""

MEMORY_BARS_KIB = {"plain": 40.0, "tls": 110.0}
SETUP_BAR_MS = 3.5
LATENCY_BAR_MS = 10.0
START_BAR_MB = 80.0

STARTS = {"ours": "SQLite", "ours-supabase": "Supabase"}
"""What the memory at start is measured of, and where that keeps its rows."""


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return median and range of what was measured; None when nothing was."""
    found = [value for value in values if value is not None]
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def parts(run: Run, kind: str, shape: Shape) -> list[Mapping[str, Any]]:
    """Return the rounds of one kind of measurement in one shape: each maps systems to what was measured."""
    found = [part for part in run[kind] if (part["channel"], part["upstream"]) == shape]
    return [measured for part in found for measured in part["rounds"]]


def shapes(run: Run, kind: str) -> list[Shape]:
    """Return the shapes a kind of measurement was made in, in the order of the run."""
    return list(dict.fromkeys((part["channel"], part["upstream"]) for part in run[kind]))


def systems(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the systems of some rounds, in the order of the run."""
    return list(dict.fromkeys(name for measured in rounds for name in measured))


def of(rounds: Sequence[Mapping[str, Any]], system: str, key: str) -> Spread | None:
    """Return one figure of one system over the rounds."""
    return spread(measured[system][key] for measured in rounds if system in measured)


def ratio(rounds: Sequence[Mapping[str, Any]], system: str, to: str, key: str = "us_per_message") -> Spread | None:
    """Return a figure of one system as a multiple of another's in the same round."""
    both = [measured for measured in rounds if system in measured and to in measured]
    return spread(measured[system][key] / measured[to][key] for measured in both if measured[to][key])


def added_ms(rounds: Sequence[Mapping[str, Any]], system: str, key: str, to: str = "direct") -> Spread | None:
    """Return how much later messages arrive than over a direct connection in the same round; the worse way counts."""
    added = []
    for measured in rounds:
        if system not in measured or to not in measured:
            continue
        ways = [
            measured[system]["latency"][f"{way}_{key}"] - measured[to]["latency"][f"{way}_{key}"]
            for way in ("up", "down")
            if None not in (measured[system]["latency"][f"{way}_{key}"], measured[to]["latency"][f"{way}_{key}"])
        ]
        added.append(max(ways, default=None))
    return spread(added)


def bars(run: Run, system: str = "ours") -> list[Bar]:
    """Return every bar with what this run measured."""
    found = []
    for channel, limit in CPU_BARS.items():
        for upstream in MEMORY_BARS_KIB:
            figure = ratio(parts(run, "load", (channel, upstream)), system, "nginx")
            found.append(Bar(f"CPU per message, {channel}, {upstream} upstream", limit, "x nginx", figure))
    for upstream, limit in MEMORY_BARS_KIB.items():
        figure = of(parts(run, "memory", ("browser", upstream)), system, "talking_kib")
        found.append(Bar(f"memory per session, {upstream} upstream", limit, "KiB", figure))
    setup = of(parts(run, "setup", ("browser", "tls")), system, "cpu_ms")
    found.append(Bar("set-up of a session, TLS handshake included", SETUP_BAR_MS, "ms CPU", setup))
    latency = added_ms(parts(run, "latency", ("browser", "plain")), system, "p99_ms")
    sessions = run["settings"]["latency_sessions"]
    found.append(Bar(f"added latency p99, {sessions} talking sessions", LATENCY_BAR_MS, "ms", latency))
    for name, store in STARTS.items():
        start = of(parts(run, "start", ("browser", "plain")), name, "start_kib")
        in_mb = Spread(*(value * 1024 / 1e6 for value in start)) if start else None
        found.append(Bar(f"process at start, rows in {store}", START_BAR_MB, "MB", in_mb))
    return found
