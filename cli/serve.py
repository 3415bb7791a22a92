"""`./voice serve`: the server with the settings of the environment and `.env`."""

from __future__ import annotations

import argparse

from cli.console import say
from cli.environment import environment, is_production
from cli.watch import watch


def main(argv: list[str]) -> int:
    """Run the server until SIGTERM or Ctrl-C; returns its exit status (78 for bad settings)."""
    parser = argparse.ArgumentParser(
        prog="./voice serve", description="Run the server with the settings of the environment and .env."
    )
    parser.add_argument("--watch", action="store_true",
                        help="for development: start it anew when its code or .env changes")  # fmt: skip
    options = parser.parse_args(argv)
    if not options.watch:
        import server  # here: a mistake in its code must not keep the watcher from starting

        return server.main()
    if is_production(environment()):
        say("voice serve: --watch is for development; NODE_ENV is production.")
        return 2
    return watch()
