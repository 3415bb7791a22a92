"""The Store protocol: agents, conversations, messages and the figures limits need.

Implemented by `sql_store` (PostgreSQL, SQLite) and `supabase_store` (PostgREST); both pass the suite in
tests/services/store_contract.py.
Every method raises `StoreUnavailable` when the database cannot be reached in time and may be asked again, and
`StoreRejected` when it refused a row that will never fit; its kind `ParentMissing` may pass, if the parent is on its
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.agent import Agent
from core.records import Record, StoredConversation, Turn


class StoreError(Exception):
    """Raised when the store failed; the text never holds a row's content."""


class StoreUnavailable(StoreError):
    """Raised when the database is away, slow or overloaded: the same call may succeed later."""


class StoreRejected(StoreError):
    """Raised when a row can never be stored as it is."""


class ParentMissing(StoreRejected):
    """Raised when a row names an agent or a conversation that its user does not have, or does not have yet."""


class Store(Protocol):
    """Where agents come from and conversations go."""

    async def agent(self, agent_id: str, user_id: str) -> Agent | None:
        """Return the active agent if it exists and belongs to the user."""

    async def agents(self, user_id: str) -> list[Agent]:
        """Return the user's active agents, by name; at most 100."""

    async def conversation(self, conversation_id: str, user_id: str) -> StoredConversation | None:
        """Return the conversation if it exists and belongs to the user."""

    async def history(self, conversation_id: str, user_id: str, *, limit: int = 20) -> list[Turn]:
        """Return the last `limit` turns in conversation order, oldest first."""

    async def next_position(self, conversation_id: str, user_id: str) -> int:
        """Return the first free position in the conversation: one above the highest stored, 0 when there is none."""

    async def save(self, records: Sequence[Record]) -> None:
        """Store all records in one transaction, in order; those that are there already change nothing.

        A conversation row and a message row that exist are left alone; progress overwrites the conversation's figures
        unless they are of a later time, and of a conversation that is gone, or another user's, it changes nothing.
        """

    async def cost_since(self, user_id: str, since: str) -> float:
        """Return the user's cost in USD of conversations active since the ISO 8601 time."""

    async def ping(self) -> None:
        """Return when the database answered one trivial query."""

    async def close(self) -> None:
        """Release all connections."""
