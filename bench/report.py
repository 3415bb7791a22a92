"""Writes docs/performance.md from the result of a run: `python -m bench.report [FILE]`.

Without a file it takes the committed result, so that the page can be made anew whenever its words change; a test
compares the page with what this module makes of that result.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.figures import Run, Shape, Spread, added_ms, bars, of, parts, ratio, shapes, systems
from bench.rig import OTHERS_SHARE

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "run.json"
PAGE = ROOT / "docs" / "performance.md"
TEMPLATE = Path(__file__).parent / "page.md"

PLACE = re.compile(r"\{\{(\w+)\}\}")

WHO = {
    "nginx": "nginx, one worker, proxying the same WebSockets",
    "ours": "this server",
    "ours-tornado": "this server with `WIRE=tornado`",
    "naive": "a naive relay: stock Tornado on both legs, `json.loads` of every message",
    "direct": "no server: the clients reach the upstream directly",
}

def main(argv: list[str]) -> int:
    """Write the page; returns the exit status."""
    source = Path(argv[0]) if argv else RESULT
    PAGE.write_text(page(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} from {source.name}")
    return 0


def page(run: Run) -> str:
    """Return docs/performance.md.

    Raises:
        KeyError: If the template has a place nobody fills.
    """
    settings = run["settings"]
    parts_of_page = {
        "bars": _bars(run),
        "why": _missed(run),
        "head": [f"{settings['sessions']} talking sessions, {settings['rounds']} rounds of {settings['seconds']:g} s."],
        "load": _load(run),
        "costs": _costs(run),
        "machine": _machine(run),
        "calm": _calm(run),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return PLACE.sub(lambda place: "\n".join(parts_of_page[place.group(1)]).rstrip("\n"), template)


def _bars(run: Run) -> list[str]:
    rows = [
        (bar.name, f"{bar.limit:g} {bar.unit}", _shown(bar.figure), bar.verdict if bar.verdict != "not met" else
         "**not met**")
        for bar in bars(run)
    ]  # fmt: skip
    return table(("figure", "bar", "measured", ""), rows)


def _missed(run: Run) -> list[str]:
    """Return which bars were missed, in a sentence; a page that shows only what was met helps nobody."""
    missed = [bar.name for bar in bars(run) if bar.verdict == "not met"]
    return [f"Not met: {'; '.join(missed)}."] if missed else ["All of them are met."]


def _calm(run: Run) -> list[str]:
    """Return how calm the machine was."""
    windows = [
        window for kind in ("load", "latency") for shape in shapes(run, kind)
        for measured in parts(run, kind, shape) for window in measured.values()
    ]  # fmt: skip
    rough = sum(window["others_share"] > OTHERS_SHARE for window in windows)
    if not rough:
        return ["Nothing else of weight ran on the machine."]
    return [
        f"In {rough} of {len(windows)} measured windows other programs took more than {OTHERS_SHARE:.0%} of a core: "
        "latencies then hold the wait for a core, and all figures are rougher than on a machine of their own."
    ]


def _load(run: Run) -> list[str]:
    lines = []
    for shape in shapes(run, "load"):
        rounds = parts(run, "load", shape)
        rows = [
            (WHO[name], _shown(of(rounds, name, "us_per_message"), 1), _shown(ratio(rounds, name, "nginx")))
            for name in systems(rounds)
            if name != "direct"
        ]
        lines += [_title(shape), "", *table(("system", "µs a message", "times nginx"), rows), ""]
    return lines


def _costs(run: Run) -> list[str]:
    lines = []
    for shape in shapes(run, "memory"):
        memory, setup = parts(run, "memory", shape), parts(run, "setup", shape)
        latency = parts(run, "latency", shape)
        rows = [
            (
                WHO[name], _shown(of(memory, name, "idle_kib"), 0), _shown(of(memory, name, "talking_kib"), 0),
                _shown(of(setup, name, "cpu_ms")), _shown(of(setup, name, "close_ms")),
                _shown(added_ms(latency, name, "p50_ms")), _shown(added_ms(latency, name, "p99_ms"), 1),
            )
            for name in systems(memory)
        ]  # fmt: skip
        head = ("system", "KiB idle", "KiB talking", "set-up, ms CPU", "close, ms", "added p50, ms", "added p99, ms")
        lines += [_title(shape), "", *table(head, rows), ""]
    sessions = run["settings"]["latency_sessions"]
    if lines:
        lines += [f"Latency is added to a direct connection's at {sessions} talking sessions.", ""]
    return lines


def _machine(run: Run) -> list[str]:
    machine, versions = run["machine"], run["versions"]
    facts = [
        ("processor", f"{machine.get('processor', 'unknown')}, {machine['cores']} cores"),
        ("memory", f"{machine['memory_mib']} MiB"),
        ("kernel", machine["kernel"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("measured", run["made_at"]),
    ]
    return table(("", ""), facts)


def _title(shape: Shape) -> str:
    channel, upstream = shape
    return f"### {channel.capitalize()}, upstream {'with TLS' if upstream == 'tls' else 'plain'}"


def _shown(figure: Spread | None, digits: int = 2) -> str:
    return "-" if figure is None else figure.shown(digits)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table of Markdown as lines."""
    return [
        f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
