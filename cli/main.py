"""The command line behind `./voice`: finds the command and runs it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("cli.demo", "everything on this machine: server, simulated OpenAI, database, talk page"),
    "test": ("cli.run_tests", "install what the tests need and run all of them"),
    "serve": ("cli.serve", "the server with the settings of the environment and .env"),
    "doctor": ("cli.doctor", "check settings, database, key, token keys and reachability"),
    "talk": ("cli.talk", "one browser conversation from a WAV file, with live captions"),
    "call": ("cli.call", "one simulated phone call from a WAV file"),
    "token": ("cli.token", "a development token; refuses in production"),
    "status": ("cli.status", "how the server is doing: health, sessions, delays, last errors"),
    "top": ("cli.top", "the live sessions of all workers, looked at every second"),
    "tail": ("cli.tail", "the logs of all workers, by session or errors only"),
    "sessions": ("cli.sessions", "the stored conversations"),
    "show": ("cli.show", "what was said in one conversation, stored or live"),
    "export": ("cli.export", "one conversation as JSON or text"),
    "migrate": ("cli.migrate", "bring a PostgreSQL database up to date"),
    "init": ("cli.init", "a systemd, nginx, PM2 or cloud-init file filled in for this machine"),
    "simulate": ("cli.simulate", "the simulators as servers, with faults on request"),
    "bench": ("cli.bench", "how many sessions this machine carries"),
}


def main(argv: list[str]) -> int:
    """Run one command; returns the exit status."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print("usage: ./voice COMMAND [options]      ./voice COMMAND --help\n")
        for name, (_, help_text) in COMMANDS.items():
            print(f"  {name:<10} {help_text}")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"There is no command {argv[0]!r}. ./voice --help lists them.", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
