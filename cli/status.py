"""`./voice status`: how the server on this machine is doing, by its own /health."""

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

REQUEST_S = 5.0
"""The server answers within its own checks' 2 s."""

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
            report = fetch(options.url or running_demo().get("health_url") or own)
        except NoAnswer as error:
            say(f"voice status: {error}")
            if not options.watch:
                return 1
        else:
            _print(report, as_json=options.json, again=options.watch)
            if not options.watch:
                return 0 if report["status"] in {"healthy", "degraded"} else 1
        time.sleep(WATCH_S)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice status", description="Show how the server is doing.")
    parser.add_argument("--url", metavar="URL", help="of /health (default: the running demo's, else HEALTH_PORT's)")
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


def _print(report: dict[str, Any], *, as_json: bool, again: bool) -> None:
    if as_json:
        print(json.dumps(report), flush=True)
        return
    if again and may_colour(sys.stdout):
        print("\x1b[H\x1b[2J", end="")
    print("\n".join(lines(report)), flush=True)


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
    for name, check in report["checks"].items():
        state = check.get("status", "")
        rest = "   ".join(f"{key} {value}" for key, value in check.items() if key != "status" and value is not None)
        shown.append(f"{name:<12} {paint(state, LOOKS.get(state, 'red'), sys.stdout) + '   ' if state else ''}{rest}")
    return shown
