"""One interleaved run over several systems: nginx, ours, a naive relay, one after the other, round after round.

    python -m bench.compare --channel browser --sessions 100 --seconds 5 --rounds 3 --only nginx,ours
    python -m bench.compare --full --out run.json       everything docs/performance.md is made of, about 20 minutes

A round meets one state of the machine, so the ratio within it is what counts; its median and range over the rounds are
printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import costs
from bench.child import ChildError
from bench.figures import STARTS, bars, of, parts, ratio, shapes, systems
from bench.meters import machine
from bench.rig import ATTEMPTS, NAMES, NotMeasured, Rig, Window
from bench.shapes import CHANNELS, Channel
from bench.systems import NotStarted, nginx_program

LATENCY_SESSIONS = 300
"""The bar of added latency holds at so many talking sessions (issue 5)."""

MEMORY_SESSIONS = 200
SETUP_SESSIONS = 150

COST_SYSTEMS = ("nginx", "ours", "naive")

Say = Callable[[str], None]


def main(argv: list[str]) -> int:
    """Run, print the figures, write the result; returns the exit status."""
    options = _options(argv)
    names = [name for name in options.only.split(",") if name]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"bench: no such system: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if "nginx" in names and nginx_program() is None:
        print("bench: nginx is not installed (apt-get install nginx) and is left out", file=sys.stderr)
        names.remove("nginx")
    run = _empty_run(options)
    try:
        for shape in _shapes(options):
            _measure(run, names, shape=shape, options=options)
    except (NotMeasured, NotStarted, ChildError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if not any(measured for part in run["load"] for measured in part["rounds"]):
        print("bench: nothing could be measured", file=sys.stderr)
        return 1
    print("\n".join(lines(run)))
    if options.out:
        Path(options.out).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare systems under one load.")
    parser.add_argument("--channel", choices=(*CHANNELS, "both"), default="browser")
    parser.add_argument("--sessions", type=int, default=100, help="that talk (default 100)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measured window (default 5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="nginx,ours,naive,ours-tornado", metavar="NAMES",
                        help=f"systems in the order of a round, of {', '.join(NAMES)}")
    parser.add_argument("--tls", action="store_true", help="an upstream with TLS")
    parser.add_argument("--full", action="store_true",
                        help="both channels, both upstreams, memory, set-up and latency too")
    parser.add_argument("--no-retry", action="store_true", help="take every window as it comes, calm or not")
    parser.add_argument("--latency-sessions", type=int, default=LATENCY_SESSIONS, metavar="N",
                        help=f"that talk while latency is measured (default {LATENCY_SESSIONS})")
    parser.add_argument("--out", metavar="FILE", help="write the result here as JSON")
    return parser.parse_args(argv)


def _shapes(options: argparse.Namespace) -> Iterator[tuple[Channel, bool]]:
    """Yield channel and whether the upstream speaks TLS, for each part of the run."""
    channels = CHANNELS if options.full or options.channel == "both" else (options.channel,)
    for is_tls in (False, True) if options.full else (options.tls,):
        for channel in channels:
            yield channel, is_tls


def _empty_run(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "settings": {"sessions": options.sessions, "seconds": options.seconds, "rounds": options.rounds,
                     "latency_sessions": options.latency_sessions, "memory_sessions": MEMORY_SESSIONS,
                     "setup_sessions": SETUP_SESSIONS},
        "load": [], "start": [], "memory": [], "setup": [], "latency": [],
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of what carries messages here; nginx only where it is installed."""
    found = {"Python": platform.python_version(), **{name: version(name) for name in ("tornado", "picows", "uvloop")}}
    program = nginx_program()
    if program is not None:
        said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=5.0).stderr
        found["nginx"] = said.strip().rpartition("/")[2]
    return found


def _measure(
    run: dict[str, Any], names: Sequence[str], *, shape: tuple[Channel, bool], options: argparse.Namespace
) -> None:
    """Add one shape's figures to a run."""
    channel, is_tls = shape
    head = {"channel": channel, "upstream": "tls" if is_tls else "plain"}
    with Rig(is_tls=is_tls) as rig:
        load = interleaved(rig, names, channel=channel, options=options, say=_say)
        run["load"].append({**head, "rounds": load})
        if not options.full:
            return
        kinds: tuple[tuple[str, Any, int], ...] = (
            ("memory", costs.memory, MEMORY_SESSIONS), ("setup", costs.setup, SETUP_SESSIONS),
        )  # fmt: skip
        if channel == "browser" and not is_tls:
            starts = [_costs(rig, costs.start, channel=channel, counts=dict.fromkeys(STARTS, 0))
                      for _ in range(options.rounds)]  # fmt: skip
            run["start"].append({**head, "rounds": starts})
        for kind, measure, count in kinds:
            counts = {name: count for name in COST_SYSTEMS if name in names}
            rounds = [_costs(rig, measure, channel=channel, counts=counts) for _ in range(options.rounds)]
            run[kind].append({**head, "rounds": rounds})
            _say(f"{kind}, {channel}, {head['upstream']} upstream: done")
        compared = argparse.Namespace(**{**vars(options), "sessions": options.latency_sessions})
        near = ("direct", *(name for name in ("nginx", "ours") if name in names))
        latency = interleaved(rig, near, channel=channel, options=compared, say=_say)
        run["latency"].append({**head, "rounds": latency})


def _costs(rig: Rig, measure: Any, *, channel: Channel, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return one round of a cost by system; those that lost sessions are told and left out."""
    found = {}
    for name, count in counts.items():
        try:
            found[name] = measure(rig, name, channel=channel, sessions=count)
        except NotMeasured as error:
            _say(str(error))
    return found


def interleaved(
    rig: Rig, names: Sequence[str], *, channel: Channel, options: argparse.Namespace, say: Say
) -> list[dict[str, Any]]:
    """Return what was measured of each system in each round.

    Args:
        options: `sessions`, `seconds`, `rounds` and `no_retry`.
        say: Takes a line about each window.

    Raises:
        NotStarted, ChildError: If a system did not start or the load broke; a round in which a system lost sessions
            is told and holds nothing of it.
    """
    rounds = []
    attempts = 1 if options.no_retry else ATTEMPTS
    asked = {"sessions": options.sessions, "seconds": options.seconds, "attempts": attempts}
    with ExitStack() as running:
        tested = [running.enter_context(rig.system(name)) for name in names]
        for number in range(options.rounds):
            measured: dict[str, Any] = {}
            for system in tested:
                head = f"round {number + 1}, {channel}, {options.sessions} sessions: "
                try:
                    window = rig.measure(system, channel, **asked)
                except NotMeasured as error:  # the run goes on: the other rounds say how it is when it works
                    say(f"{head}{error}")
                    continue
                measured[system.name] = window.as_json()
                say(head + _line(window))
            rounds.append(measured)
    return rounds


def _line(window: Window) -> str:
    latency = window.latency
    return (
        f"{window.system:<12} {window.us_per_message:6.1f} µs a message, {window.share_of_core:4.0%} of a core "
        f"(the load itself {window.load_cpu_s / window.wall_s:4.0%}), p99 up {latency['up_p99_ms']} ms, "
        f"down {latency['down_p99_ms']} ms, {window.arrived:.1%} arrived, others {window.others_share:.0%}"
    )


def lines(run: Mapping[str, Any]) -> list[str]:
    """Return a run's figures as lines for people."""
    shown = []
    for shape in shapes(run, "load"):
        rounds = parts(run, "load", shape)
        shown.append(f"{shape[0]}, {shape[1]} upstream, {run['settings']['sessions']} talking sessions")
        for name in systems(rounds):
            cost, times = of(rounds, name, "us_per_message"), ratio(rounds, name, "nginx")
            if name == "direct" or cost is None:
                continue
            text = f"  {name:<12} {cost.shown(1, ' µs')} a message"
            shown.append(text + (f"   {times.shown()} x nginx" if times else ""))
    if run["memory"]:
        for bar in bars(run):
            figure = bar.figure.shown() if bar.figure else "-"
            shown.append(f"{bar.verdict:<13} {bar.name}: {figure} {bar.unit}, bar {bar.limit:g}")
    return shown


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
