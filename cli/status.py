"""`./voice status`: how the server on this machine is doing, by its own /health and by what its workers tell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import httpx

from cli.console import may_colour, paint, say
from cli.demo_data import running_demo
from cli.environment import environment
from cli.operations import CannotLook, admin_url, look
from cli.table import delay, money

REQUEST_S = 5.0
"""The server answers within its own checks' 2 s."""

SHOWN_TROUBLES = 5
"""Warnings and errors shown, the newest; `./voice tail` has the others."""

WATCH_S = 2.0
"""Between two looks; the server itself checks at most once a second."""

LOOKS = {"healthy": "green", "up": "green", "degraded": "yellow", "draining": "yellow"}


class NoAnswer(Exception):
    """Raised when no server answers at the address, or something else does."""


def main(argv: list[str]) -> int:
    """Show the state once, or again and again until Ctrl-C.

    Returns:
        0 when the server works, 1 when it does not or cannot be reached.
    """
    options = _options(argv)
    while True:
        try:
            own = f"http://127.0.0.1:{health_port(environment())}/health"
            url = options.url or running_demo().get("health_url") or own
            report = fetch(url)
        except NoAnswer as error:
            say(f"voice status: {error}")
            if not options.watch:
                return 1
        else:
            report["ready"] = is_ready(url)
            more = None if options.url and not options.state_dir else _details(options.state_dir)
            _print(report, more, as_json=options.json, again=options.watch)
            if not options.watch:
                return 0 if report["status"] in {"healthy", "degraded"} else 1
        time.sleep(WATCH_S)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice status", description="Show how the server is doing.")
    parser.add_argument("--url", metavar="URL", help="of /health (default: the running demo's, else HEALTH_PORT's)")
    parser.add_argument("--state-dir", metavar="DIR", help="STATE_DIR of the server (default: the demo's, else .env's)")
    parser.add_argument("--watch", action="store_true", help=f"look again every {WATCH_S:g} s until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, one line a look")
    return parser.parse_args(argv)


def health_port(variables: dict[str, str]) -> int:
    """Return the port /health listens on by these settings; those that are no number count as unset."""
    port, own = variables.get("PORT", "").strip(), variables.get("HEALTH_PORT", "").strip()
    return int(own) if own.isdigit() else (int(port) if port.isdigit() else 8080) + 1


def fetch(url: str) -> dict[str, Any]:
    """Return the health report.

    Raises:
        NoAnswer: If there is none.
    """
    try:
        report = httpx.get(url, timeout=REQUEST_S, trust_env=False).json()
    except httpx.InvalidURL:
        raise NoAnswer(f"{url} is no address.") from None
    except httpx.HTTPError as error:
        raise NoAnswer(f"no server answers at {url} ({type(error).__name__}). Start one: ./voice demo") from None
    except ValueError:
        raise NoAnswer(f"{url} is answered by something that is no voice server.") from None
    if not isinstance(report, dict) or not {"status", "checks", "activeConnections"} <= set(report):
        raise NoAnswer(f"{url} is answered by something that is no voice server.")
    return report


def is_ready(health_url: str) -> bool | None:
    """Return whether new sessions may come, by the /ready beside that /health; None when it does not say."""
    if not health_url.endswith("/health"):
        return None
    try:
        return httpx.get(health_url.removesuffix("health") + "ready", timeout=REQUEST_S, trust_env=False).is_success
    except httpx.HTTPError:
        return None


def _details(state_dir: str | None) -> dict[str, Any] | None:
    """Return what the workers tell, and the address of the operator's page; None where nobody may ask them."""
    try:
        return {**look(state_dir), "admin_url": admin_url(state_dir)}
    except CannotLook:
        return None


def _print(report: dict[str, Any], more: dict[str, Any] | None, *, as_json: bool, again: bool) -> None:
    if as_json:
        print(json.dumps({**report, **({"overview": more} if more else {})}), flush=True)
        return
    if again and may_colour(sys.stdout):
        print("\x1b[H\x1b[2J", end="")
    print("\n".join([*lines(report), *(detail_lines(more) if more else ())]), flush=True)


def lines(report: dict[str, Any]) -> list[str]:
    """Return the report as lines for people."""
    status = report["status"]
    up = time.strftime("%H:%M:%S", time.gmtime(report["uptime"] % 86_400))
    days = f"{report['uptime'] // 86_400} d " if report["uptime"] >= 86_400 else ""
    shown = [
        f"{paint(status, LOOKS.get(status, 'red'), sys.stdout)}   version {report['version']}   up {days}{up}   "
        f"workers {report['workers']}",
        f"sessions     {report['activeConnections']} of {report['maxConnections']}   "
        f"browser {report['browser']}   phone {report['phone']}",
    ]
    if report.get("ready") is not None:
        shown.append(f"new sessions {'are taken' if report['ready'] else paint('are refused', 'yellow', sys.stdout)}")
    for name, check in report["checks"].items():
        state = check.get("status", "")
        rest = "   ".join(f"{key} {value}" for key, value in check.items() if key != "status" and value is not None)
        shown.append(f"{name:<12} {paint(state, LOOKS.get(state, 'red'), sys.stdout) + '   ' if state else ''}{rest}")
    return shown


def detail_lines(more: dict[str, Any]) -> list[str]:
    """Return what the workers tell as lines for people: the last quarter of an hour, the last troubles, the page."""
    rate, first = more["error_rate"], more["first_audio"]
    shown = [
        f"15 minutes   {more['recent_ended']} sessions ended   {'-' if rate is None else f'{rate:.1%}'} failed   "
        f"first sound {delay(first['p50_ms'])} median, {delay(first['p95_ms'])} for 95 %",
        f"cost today   {money(more['cost_today_usd'])}",
    ]
    if len(more["workers"]) > 1:
        shown += [
            f"worker       {one['worker']}   pid {one['pid']}   sessions {one['active']}   "
            f"{one['rss_bytes'] / 1e6:.0f} MB{'   draining' if one['draining'] else ''}"
            for one in more["workers"]
        ]
    for trouble in more["troubles"][-SHOWN_TROUBLES:]:
        fields = "".join(f"  {name}={value}" for name, value in trouble["fields"].items())
        look_ = "red" if trouble["level"] == "error" else "yellow"
        shown.append(f"{trouble['time']} {paint(trouble['level'], look_, sys.stdout)} {trouble['event']}{fields}")
    if more.get("admin_url"):
        shown.append(f"operator     {more['admin_url']}")
    return shown
