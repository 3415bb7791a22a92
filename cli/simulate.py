"""`./voice simulate`: the simulators as servers, for trying one's own client or server against them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from cli.console import say

SIMULATORS: Mapping[str, tuple[str, str]] = {
    "openai": ("simulator.openai", "a Realtime API that hears and answers in speech, with faults on request"),
    "twilio": ("simulator.twilio", "calls, webhooks, media streams and the REST API of a telephone company"),
}


def main(argv: list[str]) -> int:
    """Run one simulator until it is interrupted; returns its exit status."""
    if not argv or argv[0] in {"-h", "--help"}:
        print("usage: ./voice simulate NAME [options]      ./voice simulate NAME --help\n")
        for name, (_, does) in SIMULATORS.items():
            print(f"  {name:<10} {does}")
        return 0 if argv else 2
    if argv[0] not in SIMULATORS:
        say(f"There is no simulator {argv[0]!r}: {', '.join(SIMULATORS)}.")
        return 2
    return int(importlib.import_module(SIMULATORS[argv[0]][0]).main(argv[1:]))
