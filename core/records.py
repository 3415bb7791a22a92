"""The rows that are stored, as records; counterpart of `services/store.py`.

Every record is complete and absolute: storing it twice, or after a later one of the same kind and id was lost, gives
the same rows. That is what lets the spool send a batch again without asking whether it arrived.
Times are ISO 8601 in UTC (`2026-11-20T12:00:00.000000+00:00`), ids are UUIDs in their canonical text form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Channel = Literal["browser", "phone"]
Role = Literal["user", "assistant", "tool", "system"]
TurnStatus = Literal["complete", "interrupted", "failed"]

MAX_CONTENT_CHARS = 100_000
"""Longest stored text of one turn: about two hours of speech at 150 words a minute, so only an attack is cut."""


def clean_text(text: str, limit: int = MAX_CONTENT_CHARS) -> str:
    """Return text that PostgreSQL, jsonb, SQLite and UTF-8 all take.

    NUL is removed (PostgreSQL refuses it in text and jsonb) and lone surrogates are replaced (no UTF-8 form); the rest
    is cut at `limit` characters.
    """
    if text.isascii() and len(text) <= limit and "\x00" not in text:
        return text
    return text.replace("\x00", "")[:limit].encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished turn as the conversation knows it.

    Attributes:
        item_id: Id of the Realtime conversation item, unique within the conversation.
        position: Place in the conversation, from 0; follows the item chain, not the order of arrival.
        role: Who spoke.
        content: What was said; of an interrupted answer only what was heard.
        status: `complete`, `interrupted` (the listener cut in) or `failed`.
        heard_ms: Milliseconds of speech the listener heard; None for typed text and tools.
        spoken_ms: Milliseconds of speech there were; None for typed text and tools.
        metadata: Small JSON object, such as the name of a tool.
    """

    item_id: str
    position: int
    role: Role
    content: str
    status: TurnStatus = "complete"
    heard_ms: int | None = None
    spoken_ms: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """A conversation that began."""

    id: str
    user_id: str
    agent_id: str
    channel: Channel
    started_at: str
    call_sid: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ConversationProgress:
    """How a conversation stands: sent at its end and, while it lives, after each response.

    `usage` and `cost_usd` are totals over all sessions of the conversation.
    """

    id: str
    user_id: str
    last_active_at: str
    turn_count: int
    usage: dict[str, Any]
    cost_usd: float
    ended_at: str | None = None
    end_reason: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One stored turn; (`conversation_id`, `item_id`) is unique and decides whether a row is already there."""

    id: str
    conversation_id: str
    user_id: str
    item_id: str
    position: int
    role: Role
    content: str
    status: TurnStatus
    heard_ms: int | None
    spoken_ms: int | None
    metadata: dict[str, Any]
    created_at: str


Record = ConversationRow | ConversationProgress | MessageRow

_KINDS: dict[str, type[ConversationRow] | type[ConversationProgress] | type[MessageRow]] = {
    "conversation": ConversationRow,
    "progress": ConversationProgress,
    "message": MessageRow,
}


_NAMES = {cls: kind for kind, cls in _KINDS.items()}


def record_kind(record: Record) -> str:
    """Return the name under which the spool keeps records of this class."""
    return _NAMES[type(record)]


def record_to_dict(record: Record) -> dict[str, Any]:
    """Return the record's columns by name, ready for JSON; what is in them is the record's own."""
    return {name: getattr(record, name) for name in record.__slots__}


def record_from_dict(kind: str, columns: dict[str, Any]) -> Record:
    """Return the record that `record_to_dict` was given; raises KeyError for an unknown kind."""
    return _KINDS[kind](**columns)


def in_store_order(records: Iterable[Record]) -> list[Record]:
    """Return records in an order of few statements that leads to the same: conversations, messages, progress.

    A message needs its conversation to be there and nothing else; of a conversation's progress the last one counts.
    """
    rows: list[Record] = []
    messages: list[Record] = []
    progress: dict[str, Record] = {}
    for record in records:
        if isinstance(record, ConversationRow):
            rows.append(record)
        elif isinstance(record, MessageRow):
            messages.append(record)
        else:
            progress[record.id] = record
    return [*rows, *messages, *progress.values()]


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """What a resume needs to know of a stored conversation."""

    id: str
    user_id: str
    agent_id: str
    channel: Channel
    turn_count: int
    usage: dict[str, Any]
    cost_usd: float


OPEN = "open"
"""Status of a conversation without an end: it is live, or its server was lost and its client did not come back."""

MAX_LISTED = 200
"""Longest list of conversations; whoever wants more goes on from the last one's `last_active_at`."""


@dataclass(frozen=True, slots=True)
class ConversationSearch:
    """Which stored conversations an operator looks for: every field that is not None must fit.

    Attributes:
        id: Of the conversation, or the sid of its call.
        status: An end reason, or `OPEN`.
        before: ISO 8601: only those last active earlier.
        limit: Most conversations wanted, 1 to `MAX_LISTED`.
    """

    id: str | None = None
    agent_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ListedConversation:
    """A stored conversation as an operator sees it in a list; nothing in it was said."""

    id: str
    user_id: str
    agent_id: str
    agent_name: str
    channel: Channel
    call_sid: str | None
    started_at: str
    last_active_at: str
    ended_at: str | None
    end_reason: str | None
    turn_count: int
    usage: dict[str, Any]
    cost_usd: float


@dataclass(frozen=True, slots=True)
class DayCost:
    """What the conversations last active on one day (UTC, `2026-11-20`) cost in US dollars."""

    day: str
    conversations: int
    cost_usd: float
