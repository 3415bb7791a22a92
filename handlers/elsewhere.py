"""A talk has one place: whoever goes on with it elsewhere ends it where it was, in any process on any machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.context import Context

REPLACE_FLUSH_S = 2.0
"""How long the one that goes on waits for turns that are still on their way to the database."""

REPLACE_S = 3.0
"""Longest wait for the other processes: a busy one lets its turns leave for the database first."""


async def end_here(context: Context, asked: Mapping[str, Any]) -> bool:
    """End the user's session of a conversation in this process, and return when its turns have left for the database.

    Turns of a session that has ended by itself just before count too.

    Args:
        context: Of this process.
        asked: `conversation_id`, `user_id` and perhaps `before`, see `Connections.replace`.

    Returns:
        Whether there was one.
    """
    before = asked.get("before")
    ended = context.connections.replace(
        str(asked.get("conversation_id")),
        str(asked.get("user_id")),
        before=float(before) if isinstance(before, (int, float)) else None,
    )
    await context.spool.flushed(REPLACE_FLUSH_S)
    return ended


async def end_elsewhere(context: Context, asked: Mapping[str, Any]) -> bool:
    """Have every other process do `end_here`; return whether one of them had the session. Never raises."""
    if context.machines is None:
        return await _end_at_siblings(context, asked)
    return any(await asyncio.gather(_end_at_siblings(context, asked), context.machines.replace(asked, REPLACE_S)))


async def _end_at_siblings(context: Context, asked: Mapping[str, Any]) -> bool:
    answers = await context.siblings.ask("POST", "/replace", dict(asked), timeout_s=REPLACE_S)
    return any((answer.json() or {}).get("replaced") is True for answer in answers.values())
