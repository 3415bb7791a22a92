"""`./voice sessions`: the stored conversations, those active last first; `show` and `export` tell what was said."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime

from cli.console import say
from cli.operations import CannotLook, with_store
from cli.table import money, table
from core.records import MAX_LISTED, ConversationSearch, ListedConversation

HEADS = ("CONVERSATION", "LAST ACTIVE", "AGENT", "CHANNEL", "STATUS", "TURNS", "COST")


def main(argv: list[str]) -> int:
    """List the conversations that fit.

    Returns:
        0, or 1 when the database cannot be read.
    """
    options = _options(argv)
    search = ConversationSearch(
        id=options.id, agent_id=options.agent, user_id=options.user, status=options.status, before=options.before,
        limit=options.limit,
    )  # fmt: skip
    try:
        found = with_store(lambda store: store.conversations(search))
    except CannotLook as error:
        say(f"voice sessions: {error}")
        return 1
    if options.json:
        print(json.dumps([asdict(conversation) for conversation in found]))
        return 0
    if not found:
        say("no conversation fits")
        return 0
    print("\n".join(table(HEADS, [_cells(conversation) for conversation in found], right=frozenset({5, 6}))))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./voice sessions", description="List stored conversations, newest first.")
    parser.add_argument("--id", metavar="ID", help="of a conversation, or the sid of its call")
    parser.add_argument("--agent", metavar="ID", help="only those of this agent")
    parser.add_argument("--user", metavar="ID", help="only those of this user")
    parser.add_argument("--status", metavar="WORD", help="only those with this end reason, or open")
    parser.add_argument("--before", metavar="TIME", type=_time, help="only those active before, as 2026-11-20T12:00")
    parser.add_argument("--limit", type=_limit, default=25, help=f"most lines, up to {MAX_LISTED} (default 25)")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser.parse_args(argv)


def _time(text: str) -> str:
    """Return an ISO 8601 time with its zone; one without is this machine's."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-20T12:00") from None


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LISTED:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_LISTED}")
    return int(text)


def _cells(of: ListedConversation) -> tuple[str, ...]:
    when = datetime.fromisoformat(of.last_active_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    status = of.end_reason or "open"
    return (of.id, when, of.agent_name[:24], of.channel, status, str(of.turn_count), money(of.cost_usd))
