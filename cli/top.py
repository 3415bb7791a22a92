"""`./voice top`: the live sessions of all workers on this machine, looked at every second."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from cli.console import may_colour, say
from cli.operations import CannotLook, look
from cli.table import age, delay, fitted, money, table

LOOK_S = 1.0
"""Between two looks; the workers make a picture of themselves for each."""

BLOCKS = " ▁▂▃▄▅▆▇█"
"""Eighths of a level. Source: Unicode, "Block Elements"."""

HISTORY = 8
"""Looks a level's trace shows."""

LOUDEST = 0.35
"""RMS at which a trace is full: loud speech, whose peaks are three times as high."""

HEADS = ("AGENT", "KIND", "CONVERSATION", "WORKER", "AGE", "SPEAKS", "PERSON", "AGENT", "TURNS", "DELAY", "COST")

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
OTHER_SCREEN, FIRST_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
"""ECMA-48, and xterm's private modes 25 and 1049."""


class Traces:
    """The last levels of every session."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[deque[float], deque[float]]] = {}

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take the levels of this look; sessions that are gone are forgotten."""
        known, self._levels = self._levels, {}
        for row in rows:
            key = row["connection_id"]
            both = known.get(key) or (deque(maxlen=HISTORY), deque(maxlen=HISTORY))
            both[0].append(row["level_in"])
            both[1].append(row["level_out"])
            self._levels[key] = both

    def of(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return both traces of a session, newest at the right."""
        person, agent = self._levels[row["connection_id"]]
        return trace(person), trace(agent)


def trace(levels: deque[float]) -> str:
    """Return levels as block characters; the square root brings speech to where the eye expects it."""
    marks = "".join(BLOCKS[min(8, math.ceil(8 * math.sqrt(min(1.0, level / LOUDEST))))] for level in levels)
    return marks.rjust(HISTORY)


def main(argv: list[str]) -> int:
    """Show the live sessions until Ctrl-C; once where the output is no terminal.

    Returns:
        0, or 1 when no server answers.
    """
    options = _options(argv)
    once = options.once or not sys.stdout.isatty()
    try:
        if options.json or once:
            return _print(options)
        return _watch(options.state_dir)
    except CannotLook as error:
        say(f"voice top: {error}")
        return 1


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice top", description="Show the live sessions of this machine.")
    parser.add_argument("--once", action="store_true", help="look once, for scripts")
    parser.add_argument("--json", action="store_true", help="print one JSON object: rows and totals")
    parser.add_argument("--state-dir", metavar="DIR", help="STATE_DIR of the server (default: the demo's, else .env's)")
    return parser.parse_args(argv)


def _print(options: argparse.Namespace) -> int:
    seen = look(options.state_dir)
    traces = Traces()
    traces.add(seen["sessions"])
    print(json.dumps(seen) if options.json else "\n".join(lines(seen, traces)), flush=True)
    return 0


def _watch(state_dir: str | None) -> int:
    """Draw again and again on the terminal's other screen; what was there before comes back at the end."""
    traces = Traces()
    sys.stdout.write((OTHER_SCREEN + HIDE_CURSOR) if may_colour(sys.stdout) else "")
    try:
        while True:
            try:
                seen = look(state_dir)
                traces.add(seen["sessions"])
                shown = lines(seen, traces)
            except CannotLook as error:
                shown = [f"voice top: {error}"]
            if may_colour(sys.stdout):
                sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in fitted(shown)) + CLEAR_BELOW)
            else:
                sys.stdout.write("\n".join([*shown, "", ""]))
            sys.stdout.flush()
            time.sleep(LOOK_S)
    finally:
        sys.stdout.write((SHOW_CURSOR + FIRST_SCREEN) if may_colour(sys.stdout) else "")
        sys.stdout.flush()


def lines(seen: Mapping[str, Any], traces: Traces) -> list[str]:
    """Return the picture: one line of totals, one for each worker of several, the table."""
    rate, first = seen["error_rate"], seen["first_audio"]
    state = "draining" if seen["draining"] else "serving"
    cost = money(seen["cost_today_usd"])
    shown = [
        f"voice {seen['version']}   {state}   up {age(seen['uptime_s'])}   "
        f"sessions {seen['active']} of {seen['max_connections']} (browser {seen['browser']}, phone {seen['phone']})",
        f"last 15 min: {seen['recent_ended']} ended, {'-' if rate is None else f'{rate:.1%}'} failed, first sound "
        f"{delay(first['p50_ms'])} median, {delay(first['p95_ms'])} for 95 %   cost today {cost}",
    ]
    if len(seen["workers"]) > 1:
        shown += [
            f"worker {worker['worker']}   pid {worker['pid']}   sessions {worker['active']}   "
            f"memory {worker['rss_bytes'] / 1e6:.0f} MB   loop lag {worker['lag_p99_ms']:g} ms"
            for worker in seen["workers"]
        ]
    rows = [_cells(row, traces) for row in seen["sessions"]]
    body = table(HEADS, rows, right=frozenset({4, 8, 9, 10})) if rows else ["nobody talks at the moment"]
    return [*shown, "", *body]


def _cells(row: Mapping[str, Any], traces: Traces) -> tuple[str, ...]:
    person, agent = traces.of(row)
    state = row["speaks"] if row["state"] == "live" else row["state"]
    return (
        str(row["agent"])[:24], row["channel"], str(row["conversation_id"])[:8], row["worker"], age(row["age_s"]),
        state, person, agent, str(row["turns"]), delay(row["last_audio_ms"]), money(row["cost_usd"]),
    )  # fmt: skip
