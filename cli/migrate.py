"""`./voice migrate`: brings the database of DATABASE_URL to the schema this server needs."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from dotenv import load_dotenv

from cli.environment import INSTALLED_SETTINGS, installed
from services.sql_store import MigrationFailed, migrate, pending
from services.store import StoreError


def main(argv: list[str]) -> int:
    """Apply the missing migrations, or list them; return the exit status.

    Returns:
        0 when the database has the schema, 1 when it could not be brought there or, with --status, when migrations
        are missing, 2 when DATABASE_URL is not set or unusable.
    """
    parser = argparse.ArgumentParser(prog="voice migrate", description=__doc__)
    parser.add_argument("--status", action="store_true", help="list what is missing and change nothing")
    options = parser.parse_args(argv)
    # Only this one setting: whoever migrates a database need not have the keys the server needs.
    # The launcher runs this in the server's folder, so .env is the server's.
    load_dotenv(".env")
    settings = {**installed(INSTALLED_SETTINGS), **os.environ}
    database_url = settings.get("DATABASE_URL", "").strip()
    if not database_url:
        print(
            "DATABASE_URL is not set. For a Supabase project take it from the dashboard (Connect, Session pooler), "
            "or run `supabase db push`.",
            file=sys.stderr,
        )
        return 2
    try:
        return asyncio.run(_status(database_url) if options.status else _apply(database_url))
    except ValueError as error:
        print(f"DATABASE_URL is unusable: {error}", file=sys.stderr)
        return 2
    except (StoreError, MigrationFailed) as error:
        print(f"not migrated: {error}", file=sys.stderr)
        return 1


async def _apply(database_url: str) -> int:
    applied = await migrate(database_url)
    for name in applied:
        print(f"applied {name}")
    print("the database has the schema of this version")
    return 0


async def _status(database_url: str) -> int:
    missing = await pending(database_url)
    for name in missing:
        print(f"missing {name}")
    if not missing:
        print("nothing is missing")
    return 1 if missing else 0
