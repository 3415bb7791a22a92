"""`./voice serve`: the server with the settings of the environment and `.env`."""

from __future__ import annotations

import argparse

import server


def main(argv: list[str]) -> int:
    """Run the server until SIGTERM or Ctrl-C; returns its exit status (78 for bad settings)."""
    parser = argparse.ArgumentParser(
        prog="./voice serve", description="Run the server with the settings of the environment and .env."
    )
    parser.parse_args(argv)
    return server.main()
