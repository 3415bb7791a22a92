"""The Store protocol: agents, phone numbers, calls, conversations, messages and the figures limits need.

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
from core.calls import Call, PhoneNumber, StoredCall
from core.records import ConversationSearch, DayCost, ListedConversation, Record, StoredConversation, Turn


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

    async def number(self, number: str) -> PhoneNumber | None:
        """Return the number, given in E.164, if an agent answers it."""

    async def put_call(self, call: Call, *, token_hash: str | None, created_at: str, expires_at: str) -> bool:
        """Store a call that waits for its stream, in the place of one of the same sid that was never claimed or ended.

        Raises `ParentMissing` if its agent is not its user's.

        Returns:
            False when the call of this sid is live; then nothing was changed.
        """

    async def claim_call(self, call_sid: str, *, token_hash: str | None, now: str) -> Call | None:
        """Return a waiting call to the first who asks with its token, and to nobody after.

        One statement decides: whoever asks at the same time gets None, as for a wrong token, an expired call and none.

        Args:
            call_sid: From Twilio.
            token_hash: `core.calls.token_hash` of the token; None fits only a call that was stored without one.
            now: ISO 8601.
        """

    async def call(self, call_sid: str) -> StoredCall | None:
        """Return a call's row. Whose it is, is not asked: callers of this hold Twilio's signature or the internal key.
        """

    async def end_call(self, call_sid: str, *, ended_at: str, end_reason: str) -> None:
        """Write down a call's end and remove its configuration and token; a call that is not there is no error.

        The first end stays, but for `client_left`: Twilio reports that of every call, and whoever held it knows better.
        """

    async def delete_call(self, call_sid: str) -> bool:
        """Delete a call's row; return whether there was one."""

    async def remove_expired(self, now: str) -> int:
        """Remove what calls no longer need; return how many rows of calls are gone.

        A call nobody claimed goes at `expires_at`. After its end, or 24 h after it was claimed (the longest call Twilio
        holds), a call keeps neither configuration nor token; its row, which holds phone numbers, goes after 30 days.
        """

    async def conversations(self, search: ConversationSearch) -> list[ListedConversation]:
        """Return the conversations of all users that fit, those active last first; for the operator.

        At most `search.limit` and never over 200. Whoever shows what was said in one asks `history` with its owner.
        """

    async def cost_by_day(self, since: str) -> list[DayCost]:
        """Return what all users' conversations cost by the UTC day they were last active on, oldest day first, from the
        ISO 8601 time on; days without a conversation are left out.
        """

    async def ping(self) -> None:
        """Return when the database answered one trivial query."""

    async def close(self) -> None:
        """Release all connections."""
