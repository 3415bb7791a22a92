"""The Store over a Supabase project's data API (PostgREST), as `service_role`.

That role sees every row, so ownership is checked here or by nobody: every query of a person's rows names the owner.
Writes cannot cross owners either, as messages refer to (conversation, owner) and conversations to (agent, owner).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from postgrest.types import ReturnMethod

from core.agent import Agent, agent_from_row
from core.records import (
    ConversationProgress,
    ConversationRow,
    Record,
    StoredConversation,
    Turn,
    in_store_order,
    record_kind,
    record_to_dict,
)

from .calls import SupabaseCalls
from .overview import SupabaseOverview
from .requests import Query, expect_nothing, iso_time, rows_of

MAX_AGENTS = 100
"""Longest list `agents` returns; `services/store.py` promises it."""

PAGE_ROWS = 1000
"""Rows of one answer; hosted projects cut off at 1000 (setting "Max rows")."""

MAX_PAGES = 20
"""20,000 conversations of one user since midnight: no person has them."""

CONVERSATION_COLUMNS = "id,user_id,agent_id,channel,turn_count,usage,cost_usd"
TURN_COLUMNS = "item_id,position,role,content,status,heard_ms,spoken_ms,metadata"


class SupabaseStore(SupabaseCalls, SupabaseOverview):
    """A `Store` on a shared client, which it neither changes nor closes."""

    async def agent(self, agent_id: str, user_id: str) -> Agent | None:
        """Return the active agent if it exists and belongs to the user."""
        if not _are_ids(agent_id, user_id):
            return None
        query = self._client.from_("agents").select("*").eq("id", agent_id).eq("user_id", user_id)
        rows = await self._rows(query.eq("is_active", True).limit(1))
        return agent_from_row(rows[0]) if rows else None

    async def agents(self, user_id: str) -> list[Agent]:
        """Return the user's active agents, by name; at most 100."""
        if not _are_ids(user_id):
            return []
        query = self._client.from_("agents").select("*").eq("user_id", user_id).eq("is_active", True)
        rows = await self._rows(query.order("name").order("id").limit(MAX_AGENTS))
        found = [agent_from_row(row) for row in rows]
        return sorted(found, key=lambda agent: (agent.name.lower(), agent.id))

    async def conversation(self, conversation_id: str, user_id: str) -> StoredConversation | None:
        """Return the conversation if it exists and belongs to the user."""
        if not _are_ids(conversation_id, user_id):
            return None
        query = self._client.from_("conversations").select(CONVERSATION_COLUMNS)
        rows = await self._rows(query.eq("id", conversation_id).eq("user_id", user_id).limit(1))
        if not rows:
            return None
        row = rows[0]
        return StoredConversation(**row | {"usage": row["usage"] or {}, "cost_usd": float(row["cost_usd"])})

    async def history(self, conversation_id: str, user_id: str, *, limit: int = 20) -> list[Turn]:
        """Return the last `limit` turns in conversation order, oldest first."""
        if not _are_ids(conversation_id, user_id) or limit < 1:
            return []
        query = self._client.from_("messages").select(TURN_COLUMNS)
        mine = query.eq("conversation_id", conversation_id).eq("user_id", user_id)
        newest_first = mine.order("position", desc=True).order("created_at", desc=True).order("id", desc=True)
        rows = await self._rows(newest_first.limit(limit))
        return [Turn(**row | {"metadata": row["metadata"] or {}}) for row in reversed(rows)]

    async def next_position(self, conversation_id: str, user_id: str) -> int:
        """Return the first free position in the conversation: one above the highest stored, 0 when there is none."""
        if not _are_ids(conversation_id, user_id):
            return 0
        query = self._client.from_("messages").select("position")
        mine = query.eq("conversation_id", conversation_id).eq("user_id", user_id)
        rows = await self._rows(mine.order("position", desc=True).limit(1))
        return int(rows[0]["position"]) + 1 if rows else 0

    async def save(self, records: Sequence[Record]) -> None:
        """Store all records, in order; those that are there already change nothing.

        The function save_records does it in one transaction. Where it is missing (views over another schema) the
        records go table by table, one transaction for each run of one kind: a failure may then leave the first runs
        stored, which the next attempt with the same records completes, since each record is absolute.

        Raises:
            StoreUnavailable: If the database did not take them in time; it may have, so save the same records again.
            ParentMissing: If a row's agent or conversation is not there, or is another user's.
            StoreRejected: If one of the rows can never be stored.
        """
        if not records:
            return
        entries = [{"kind": record_kind(record), "columns": _columns(record)} for record in in_store_order(records)]
        arguments: dict[str, Any] = {"records": entries}
        async with self._call():
            answer = await self._call_function("save_records", arguments)
            if answer is not None:
                expect_nothing(answer)
            else:
                for query in self._table_writes(records):
                    expect_nothing(await self._send(query))

    async def cost_since(self, user_id: str, since: str) -> float:
        """Return the user's cost in USD of conversations active since the ISO 8601 time, deleted ones included.

        Deleted ones are left out where the function cost_since is missing.
        """
        if not _are_ids(user_id):
            return 0.0
        async with self._call():
            answer = await self._call_function("cost_since", {"owner": user_id, "since": since})
            return await self._added_up_cost(user_id, since) if answer is None else float(answer.data or 0)

    async def ping(self) -> None:
        """Return when the database answered one trivial query."""
        await self._rows(self._client.from_("agents").select("id").limit(1))

    async def close(self) -> None:
        """Do nothing: the connections belong to the shared HTTP client, which its maker closes."""

    def _table_writes(self, records: Sequence[Record]) -> Iterator[Query]:
        for kind, same_kind in groupby(in_store_order(records), key=type):
            rows = [_columns(record) for record in same_kind]
            if kind is ConversationProgress:
                for row in rows:
                    figures = {name: value for name, value in row.items() if name not in {"id", "user_id"}}
                    change = self._client.from_("conversations").update(figures, returning=ReturnMethod.minimal)
                    mine = change.eq("id", row["id"]).eq("user_id", row["user_id"])
                    yield mine.lte("last_active_at", row["last_active_at"])
            elif kind is ConversationRow:
                fresh = [row | {"last_active_at": row["started_at"]} for row in rows]
                yield self._insert("conversations", fresh, "id")
            else:
                yield self._insert("messages", rows, "conversation_id,item_id")

    def _insert(self, table: str, rows: list[dict[str, Any]], key: str) -> Query:
        """Return an insert that leaves rows alone whose key is there."""
        return self._client.from_(table).upsert(
            rows, on_conflict=key, ignore_duplicates=True, returning=ReturnMethod.minimal
        )

    async def _added_up_cost(self, user_id: str, since: str) -> float:
        total = 0.0
        for page in range(MAX_PAGES):
            query = self._client.from_("conversations").select("cost_usd").eq("user_id", user_id)
            mine = query.gte("last_active_at", since).order("id").limit(PAGE_ROWS).offset(page * PAGE_ROWS)
            rows = rows_of(await self._send(mine))
            total += sum(float(row["cost_usd"] or 0) for row in rows)
            if len(rows) < PAGE_ROWS:
                break
        return total


def _columns(record: Record) -> dict[str, Any]:
    """Return the record's columns, its times checked."""
    columns = record_to_dict(record)
    for name, value in columns.items():
        if name.endswith("_at") and value is not None:
            iso_time(value)
    return columns


def _are_ids(*texts: str) -> bool:
    """Return whether all are UUIDs; what is none cannot be in the database."""
    try:
        return all(UUID(text) for text in texts)
    except ValueError:
        return False
