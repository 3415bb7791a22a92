"""`./voice show ID`: what was said in a conversation, stored or live. Looking leaves an audit line in the log."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cli.console import say
from cli.operations import CannotLook, audit, live_session, with_store
from cli.table import age, delay, money
from core.export import EXPORTED_TURNS, SPEAKERS, as_json, as_text
from core.records import ConversationSearch, ListedConversation, Turn
from core.redaction import one_line
from services.store import Store

Stored = tuple[ListedConversation, list[Turn]]


def main(argv: list[str]) -> int:
    """Show one conversation.

    Returns:
        0, or 1 when there is no such conversation or the database cannot be read.
    """
    parser = argparse.ArgumentParser(prog="./voice show", description="Show a conversation with what was said.")
    parser.add_argument("id", metavar="ID", help="of a conversation or call; of a live one its beginning")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--state-dir", metavar="DIR", help="STATE_DIR of the server (default: the demo's, else .env's)")
    options = parser.parse_args(argv)
    live = live_session(options.id, options.state_dir)
    if live is not None:
        audit("transcript viewed", conversation_id=live["conversation_id"])
        print(json.dumps(live) if options.json else "\n".join(live_lines(live)))
        return 0
    try:
        of, turns = stored(options.id)
    except CannotLook as error:
        say(f"voice show: {error}")
        return 1
    audit("transcript viewed", conversation_id=of.id)
    print(json.dumps(as_json(of, turns)) if options.json else as_text(of, turns), end="\n" if options.json else "")
    return 0


def stored(asked: str) -> Stored:
    """Return a stored conversation and its turns; who shows them writes an audit line.

    Raises:
        CannotLook: If there is none, or the database cannot be read.
    """

    async def read(store: Store) -> Stored | None:
        found = await store.conversations(ConversationSearch(id=asked, limit=1))
        if not found:
            return None
        return found[0], await store.history(found[0].id, found[0].user_id, limit=EXPORTED_TURNS)

    found = with_store(read)
    if found is None:
        raise CannotLook(f"no conversation {asked} is stored; ./voice sessions lists them")
    return found


def live_lines(live: dict[str, Any]) -> list[str]:
    """Return a live session as lines for people."""
    head = [
        f"Conversation {live['conversation_id']}, {live['state']} on worker {live['worker']}",
        f"{live['agent']} ({live['agent_id']}) with user {live['user_id']}, {live['channel']}",
        f"{age(live['age_s'])} old, {live['speaks']} speaks, {live['turns']} turns, "
        f"delay {delay(live['last_audio_ms'])}, {money(live['cost_usd'])}",
        "",
    ]
    said = [
        f"{SPEAKERS.get(turn['role'], turn['role'])}: {turn['text'] or '…'}"
        + ("" if turn["status"] == "complete" else f" [{turn['status']}]")
        for turn in live["transcript"]
    ]
    return [one_line(line) for line in [*head, *said]]
