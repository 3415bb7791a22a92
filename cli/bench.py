"""`./voice bench`: how many sessions this machine carries, with no key and no account."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from bench.capacity import ACTIVE_SHARE, Capacity, Plan, measure
from bench.child import ChildError
from bench.meters import machine
from bench.rig import NotMeasured
from bench.shapes import CHANNELS, Channel
from bench.systems import NotStarted
from cli.console import may_colour, paint, say

QUICK = Plan(sessions=40, seconds=2.0, opened=50)
THOROUGH = Plan(sessions=100, seconds=8.0, opened=200)

BAR_CELLS = 24

NOUNS = {"browser": "talking browser sessions", "phone": "calls"}


def main(argv: list[str]) -> int:
    """Measure and print; returns 0, 1 when it could not be measured, 2 when this system is not Linux."""
    options = _options(argv)
    if not Path("/proc/self/smaps_rollup").exists():
        say("voice bench: processor time and memory are read from Linux's /proc, which is not there.")
        return 2
    plan = _plan(options)
    channels: tuple[Channel, ...] = CHANNELS if options.channel == "both" else (options.channel,)
    progress = Progress(plan.total_s * len(channels))
    cores = len(os.sched_getaffinity(0))
    try:
        found = [measure(channel, plan, cores=cores, tell=progress.step) for channel in channels]
    except (NotMeasured, NotStarted, ChildError) as error:
        progress.end()
        say(f"voice bench: {error}")
        return 1
    progress.end()
    if options.json:
        print(json.dumps({"machine": machine(), "channels": [capacity.as_json() for capacity in found],
                          "verdict": verdict(found)}))  # fmt: skip
        return 0
    for capacity in found:
        print("\n".join(lines(capacity)))
    print(paint(verdict(found), "bold", sys.stdout))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice bench", description="Measure how many sessions this machine carries; no account, no key."
    )
    parser.add_argument("--quick", action="store_true", help="a rough answer within a minute")
    parser.add_argument("--channel", choices=(*CHANNELS, "both"), default="both")
    parser.add_argument("--sessions", type=int, metavar="N", help="measure with so many sessions only")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line")
    options = parser.parse_args(argv)
    if options.sessions is not None and not 1 <= options.sessions <= 5000:
        parser.error("--sessions must be between 1 and 5000")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else THOROUGH
    if options.sessions is None:
        return plan
    return Plan(options.sessions, plan.seconds, plan.opened, is_fixed=True)


class Progress:
    """A bar on standard error; where that is no terminal, a line for each step.

    Args:
        total_s: About how long everything takes.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._done_s = self._step_s = 0.0
        self._is_bar = may_colour(sys.stderr)
        self._began = time.monotonic()

    def step(self, text: str, seconds: float) -> None:
        """Show what is being done next."""
        self._done_s += self._step_s
        self._step_s = seconds
        share = min(self._done_s / self._total_s, 0.99)
        if not self._is_bar:
            say(f"{share:4.0%}  {text}")
            return
        full = round(share * BAR_CELLS)
        bar = "━" * full + "─" * (BAR_CELLS - full)
        print(f"\r\x1b[K{bar} {share:4.0%}  {text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away and say how long it took."""
        if self._is_bar:
            print("\r\x1b[K", end="", file=sys.stderr)
        say(f"measured in {time.monotonic() - self._began:.0f} s")


def lines(capacity: Capacity) -> list[str]:
    """Return what one channel carries, for people."""
    tried = f"{capacity.verified_sessions} talked and took {capacity.verified_share:.0%} of a core"
    how = tried if capacity.is_verified else f"reckoned: {tried}"
    nginx = f", {capacity.times_nginx:g} times nginx's" if capacity.times_nginx else " (nginx is not installed)"
    return [
        f"{capacity.channel}, {capacity.up_hz:g} audio messages a second up and {capacity.down_hz:g} down in each "
        "session, TLS to the voice service",
        f"  active capacity   {capacity.active_sessions} sessions at {ACTIVE_SHARE:.0%} of one core ({how})",
        f"  idle capacity     {capacity.idle_sessions_per_gib} sessions for each GiB of memory "
        f"({capacity.idle_kib:g} KiB each, {capacity.talking_kib:g} when talking; the server itself "
        f"{capacity.start_mib:g} MiB)",
        f"  set-up            {capacity.setup_per_s} sessions a second opened and closed by one core "
        f"({capacity.setup_ms:g} ms each)",
        f"  added latency     p50 {capacity.added_p50_ms:g} ms, p99 {capacity.added_p99_ms:g} ms over a direct "
        f"connection at {capacity.measured_sessions} sessions; at {capacity.verified_sessions} a message takes "
        f"{capacity.verified_p99_ms:g} ms (p99)",
        f"  CPU per message   {capacity.us_per_message:g} µs{nginx}",
    ]


def verdict(found: list[Capacity]) -> str:
    """Return the answer in one sentence."""
    told = [f"about {_rounded(capacity.active_sessions)} {NOUNS[capacity.channel]}" for capacity in found]
    return f"This machine: {' or '.join(told)} per core."


def _rounded(count: int) -> int:
    """Return a count as precise as it is known."""
    return round(count, -1) if count >= 100 else count
