"""What Prometheus reads: counters, gauges and histograms of one process.

Every label has a small closed set of values, so that nothing a client sends can make the registry grow: what is not in
the set is counted as `other`. Names of agents, users and tools are in no label.

Each worker has its own registry; with several, a scrape of any gives those of all under the label `worker`. Counters,
histograms and `voice_sessions_live` add up over workers: `sum by (channel) (voice_sessions_live)`,
`histogram_quantile(0.95, sum by (le) (rate(voice_first_audio_seconds_bucket[15m])))`. Of lag and age take the `max`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from core.errors import ENDINGS
from core.records import Channel

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Content type of what `render` returns."""

OTHER = "other"

MAX_CODES = 64
"""Different refusal codes counted by themselves; the policy knows about twenty."""

SETUP_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Seconds; a handshake with the Realtime API takes 0.2 to 0.5 s and is given up at 8 s (promise P7)."""

FIRST_AUDIO_BUCKETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
"""Seconds; people feel a difference between 0.3 and 1 s, and give up beyond 3 s."""

TOOL_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds; 60 is the longest deadline a tool may have."""

LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds; below 2 ms is a timer's own precision, from 50 ms speech stutters, and at 15 s the watchdog ends us."""

CAUSES = ("refused", "closed", "timeout", "unreachable", "stalled", "error", "rotated")
"""Causes of `core.recovery.Loss`."""

CHECKS = ("database", "auth", "openai", "transcripts")
"""Checks of /health that are up or down."""

CHECK_FRESH_S = 30.0
"""Age up to which a check's outcome is told: two scrapes of the usual 15 s."""


class _Labels:
    """Maps a label's value to itself when it is allowed, else to `other`."""

    def __init__(self, allowed: tuple[str, ...] = (), *, room: int = 0) -> None:
        self._allowed = set(allowed)
        self._room = room

    def __call__(self, value: object) -> str:
        text = str(value)
        if text in self._allowed:
            return text
        if self._room > 0 and len(text) <= 40 and text.replace("_", "").replace(".", "").isalnum() and text.isascii():
            self._room -= 1
            self._allowed.add(text)
            return text
        return OTHER


class Metrics:
    """The figures of this process; all methods return at once and never raise for a strange label.

    Args:
        version: The server's version, told as the label of `voice_build_info`.
    """

    def __init__(self, version: str = "unknown") -> None:
        registry = self._registry = CollectorRegistry()
        self._channel = _Labels(get_args(Channel))
        self._end_reason = _Labels(tuple(ending.end_reason for ending in ENDINGS))
        self._lane = _Labels(("audio", "control"), room=6)
        self._code = _Labels(room=MAX_CODES)
        self._kind = _Labels(("builtin", "http"))
        self._outcome = _Labels(("ok", "invalid", "timeout", "failed", "unknown"))
        self._live = Gauge("voice_sessions_live", "Sessions open.", ["channel"], registry=registry)
        self._ended = Counter("voice_sessions_ended", "Sessions ended.", ["channel", "end_reason"], registry=registry)
        self._setup = Histogram(
            "voice_setup_seconds", "From the request to a session that can talk.", ["channel"],
            buckets=SETUP_BUCKETS, registry=registry,
        )  # fmt: skip
        self._first_audio = Histogram(
            "voice_first_audio_seconds", "From the end of the person's turn to the first sound of the answer.",
            ["channel"], buckets=FIRST_AUDIO_BUCKETS, registry=registry,
        )  # fmt: skip
        self._upstream = Histogram(
            "voice_upstream_connect_seconds", "Handshakes with the Realtime API that succeeded.",
            buckets=SETUP_BUCKETS, registry=registry,
        )  # fmt: skip
        self._reconnects = Counter("voice_upstream_reconnects", "Lost upstreams replaced.", registry=registry)
        self._dropped = Counter("voice_queue_dropped", "Frames dropped from full queues.", ["lane"], registry=registry)
        self._refused = Counter("voice_client_refused", "Client messages refused.", ["code"], registry=registry)
        self._tools = Histogram(
            "voice_tool_seconds", "Tool calls.", ["kind", "outcome"], buckets=TOOL_BUCKETS, registry=registry
        )
        self._cost = Counter("voice_cost_usd", "Cost of finished responses in USD.", registry=registry)
        self._add_upstream_and_loop()
        self._add_server(version)
        self._add_process()
        for channel in get_args(Channel):  # so that a rate exists before the first session
            self._live.labels(channel)

    def session_opened(self, channel: str) -> None:
        """Count a live session; exactly one `session_ended` must follow."""
        self._live.labels(self._channel(channel)).inc()

    def session_ended(self, channel: str, end_reason: str) -> None:
        """Count a session that `session_opened` counted as ended."""
        self._live.labels(self._channel(channel)).dec()
        self._ended.labels(self._channel(channel), self._end_reason(end_reason)).inc()

    def setup_seconds(self, channel: str, seconds: float) -> None:
        """Count one setup: seconds from the request to a session that can talk."""
        self._setup.labels(self._channel(channel)).observe(seconds)

    def first_audio_seconds(self, channel: str, seconds: float) -> None:
        """Count one answer: seconds from the end of the person's turn to its first sound."""
        self._first_audio.labels(self._channel(channel)).observe(seconds)

    def upstream_connected(self, seconds: float) -> None:
        """Count one handshake with the Realtime API that succeeded."""
        self._upstream.observe(seconds)

    def upstream_reconnected(self) -> None:
        """Count an upstream that was lost and replaced within a session."""
        self._reconnects.inc()

    def upstream_failed(self, cause: str) -> None:
        """Count a link to the Realtime API that could not be opened, by the cause of its `Loss`."""
        self._failures.labels(self._cause(cause)).inc()

    def checked(self, check: str, status: str) -> None:
        """Tell what a check of /health found: `up`, `down` or `unknown`; it is told for `CHECK_FRESH_S`."""
        if check in CHECKS:
            self._checks[check] = (time.monotonic(), {"up": 1.0, "down": 0.0}.get(status, math.nan))

    def loop_late(self, seconds: float) -> None:
        """Count one sample of how late the event loop ran a timer."""
        self._lag.observe(seconds)

    def dropped(self, lane: str, count: int = 1) -> None:
        """Count frames a full queue let go."""
        self._dropped.labels(self._lane(lane)).inc(count)

    def refused(self, code: object) -> None:
        """Count a client's message or connection that was refused, by error or close code."""
        self._refused.labels(self._code(code)).inc()

    def tool_called(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a tool call; `kind` is `builtin` or `http`, never the tool's name."""
        self._tools.labels(self._kind(kind), self._outcome(outcome)).observe(seconds)

    def cost(self, usd: float) -> None:
        """Add to the cost; what is not a positive finite number is left out."""
        if math.isfinite(usd) and usd > 0:
            self._cost.inc(usd)

    def watch_spool(
        self, pending: Callable[[], float], oldest_s: Callable[[], float], *, dead: Callable[[], float] | None = None
    ) -> None:
        """Read the transcript spool at every scrape: rows not yet stored, the age of the oldest in seconds, and rows
        set aside because the database can never take them.
        """
        if dead is not None:
            self._dead.set_function(dead)
        gauge = Gauge("voice_spool_pending", "Rows waiting for the database.", registry=self._registry)
        gauge.set_function(pending)
        gauge = Gauge("voice_spool_oldest_seconds", "Age of the oldest waiting row.", registry=self._registry)
        gauge.set_function(oldest_s)

    def watch_connections(self, limit: int, in_use: Callable[[], float], is_draining: Callable[[], bool]) -> None:
        """Read at every scrape how many of the server's `limit` places this process holds, and whether it drains."""
        self._limit.set(limit)
        self._in_use.set_function(in_use)
        self._draining.set_function(lambda: float(is_draining()))

    def watch_loop(self, p99_ms: Callable[[], float]) -> None:
        """Read the event loop's lag at every scrape."""
        gauge = Gauge("voice_event_loop_lag_p99_seconds", "Lag of timers, last minute.", registry=self._registry)
        gauge.set_function(lambda: p99_ms() / 1000)

    def watch_log(self, lost_lines: Callable[[], int]) -> None:
        """Read at every scrape how many log lines the disk did not take."""
        gauge = Gauge("voice_log_lines_lost", "Log lines the disk did not take.", registry=self._registry)
        gauge.set_function(lost_lines)

    def watch_links(self, resumed: Callable[[], int]) -> None:
        """Read at every scrape how many TLS handshakes with the Realtime API resumed a session."""
        gauge = Gauge("voice_upstream_tls_resumed", "TLS handshakes that resumed a session.", registry=self._registry)
        gauge.set_function(resumed)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format, of content type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def _add_upstream_and_loop(self) -> None:
        registry = self._registry
        self._cause = _Labels(CAUSES)
        self._failures = Counter(
            "voice_upstream_failures", "Links to the Realtime API that did not open.", ["cause"], registry=registry
        )
        self._lag = Histogram(
            "voice_event_loop_lag_seconds", "How late timers ran.", buckets=LAG_BUCKETS, registry=registry
        )

    def _add_server(self, version: str) -> None:
        registry = self._registry
        Gauge("voice_build_info", "Always 1.", ["version"], registry=registry).labels(version).set(1)
        self._draining = Gauge("voice_draining", "1 while no new sessions are taken.", registry=registry)
        self._limit = Gauge("voice_sessions_limit", "MAX_CONNECTIONS, of all workers together.", registry=registry)
        self._in_use = Gauge("voice_places_in_use", "Places held, from handshake to close.", registry=registry)
        self._dead = Gauge("voice_spool_dead", "Rows the database can never take.", registry=registry)
        self._checks: dict[str, tuple[float, float]] = {}
        checks = Gauge("voice_check_up", "Checks of /health: 1 up, 0 down.", ["check"], registry=registry)
        for check in CHECKS:
            checks.labels(check).set_function(partial(self._check, check))

    def _check(self, name: str) -> float:
        """Return the newest outcome, NaN when it is old: another worker was asked since."""
        at, value = self._checks.get(name, (-math.inf, math.nan))
        return value if time.monotonic() - at <= CHECK_FRESH_S else math.nan

    def _add_process(self) -> None:
        started = Gauge("process_start_time_seconds", "Unix time of the start.", registry=self._registry)
        started.set(time.time())
        memory = Gauge("process_resident_memory_bytes", "Resident memory.", registry=self._registry)
        memory.set_function(resident_memory_bytes)
        files = Gauge("process_open_fds", "Open file descriptors.", registry=self._registry)
        files.set_function(lambda: _entries("/proc/self/fd"))


def resident_memory_bytes() -> float:
    """Return this process's resident memory, 0 where there is no /proc.

    Only /proc/self is read: the shipped unit hides the rest of /proc (operations reference, section 3.2).
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _entries(folder: str) -> float:
    try:
        return float(len(os.listdir(folder)))  # noqa: PTH208 - a list of names is all that is needed
    except OSError:
        return 0.0
