"""What is written down of a session: rows for the store."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from core.commands import SaveProgress
from core.records import ConversationProgress, MessageRow, Turn
from handlers.context import Identity


def message_row(who: Identity, turn: Turn) -> MessageRow:
    """Return the row of a turn; its id follows from conversation and item, so that a row sent twice is one row."""
    return MessageRow(
        id=str(uuid.uuid5(uuid.UUID(who.conversation_id), turn.item_id)),
        conversation_id=who.conversation_id,
        user_id=who.user_id,
        item_id=turn.item_id,
        position=turn.position,
        role=turn.role,
        content=turn.content,
        status=turn.status,
        heard_ms=turn.heard_ms,
        spoken_ms=turn.spoken_ms,
        metadata=turn.metadata,
        created_at=wall_clock(),
    )


def progress_row(who: Identity, command: SaveProgress) -> ConversationProgress:
    """Return how the conversation stands, all its sessions together."""
    at = wall_clock()
    return ConversationProgress(
        id=who.conversation_id,
        user_id=who.user_id,
        last_active_at=at,
        turn_count=who.turns_before + command.turn_count,
        usage=dict(command.usage),
        cost_usd=round(command.cost_usd, 6),
        ended_at=at if command.end_reason else None,
        end_reason=command.end_reason,
    )


def wall_clock() -> str:
    """Return the time as it is stored: ISO 8601 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
