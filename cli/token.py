"""`./voice token`: a token for a server in development; refuses in production."""

from __future__ import annotations

import argparse
import json
import time
import uuid

from cli.console import say
from cli.demo_data import DEMO_USER_ID, demo_dir
from cli.environment import environment, is_production
from services.auth import load_development_secret, mint_development_token

LONGEST_S = 30 * 86_400
"""A month: a development token that outlives the work it was made for is a key left in a door."""


def main(argv: list[str]) -> int:
    """Print a token.

    Returns:
        0, or 1 in production and when the secret cannot be had, or 2 when the command line is wrong.
    """
    options = _options(argv)
    variables = environment()
    if is_production(variables):
        say("voice token: NODE_ENV is production, where development tokens are not accepted. Sign in with Supabase.")
        return 1
    folder = demo_dir() if options.demo else variables.get("STATE_DIR", "").strip() or "data"
    try:
        secret = load_development_secret(folder)
        token = mint_development_token(secret, options.user, ttl_s=options.ttl, now=time.time(), admin=options.admin)
    except (OSError, ValueError) as error:
        say(f"voice token: {error}")
        return 1
    if options.json:
        print(json.dumps({"token": token, "user_id": options.user, "expires_in": options.ttl, "admin": options.admin}))
    else:
        print(token)
    say(f"For servers in development with the state folder {folder}; valid for {options.ttl} s.")
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./voice token", description="Print a token that the server of this folder accepts in development."
    )
    parser.add_argument("--user", metavar="ID", type=_uuid, default=DEMO_USER_ID,
                        help="UUID of the user (default: the demo's user)")
    parser.add_argument("--ttl", metavar="S", type=_seconds, default=3600, help="life in seconds (default 3600)")
    parser.add_argument("--admin", action="store_true", help="the user may see the operator's page")
    parser.add_argument("--demo", action="store_true", help="for ./voice demo, which has a state folder of its own")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    return parser.parse_args(argv)


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no UUID") from None


def _seconds(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 1 to {LONGEST_S}")
    return int(text)
