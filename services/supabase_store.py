"""The Store over a Supabase project's data API (PostgREST), as `service_role`.

That role sees every row, so ownership is checked here or by nobody: every query names the owner. Writes cannot cross
owners either, as messages refer to (conversation, owner) and conversations to (agent, owner).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

import httpx
from postgrest import APIError, AsyncPostgrestClient
from postgrest.types import ReturnMethod

from core.agent import Agent, agent_from_row
from core.records import (
    ConversationProgress,
    ConversationRow,
    Record,
    StoredConversation,
    Turn,
    record_kind,
    record_to_dict,
)
from services.store import ParentMissing, StoreError, StoreRejected, StoreUnavailable

MAX_AGENTS = 100
"""Longest list `agents` returns; `services/store.py` promises it."""

TIMEOUT_S = 5.0
"""Longest time of one call; a request takes 2 to 20 ms."""

RETRY_AFTER_S = (0.05, 0.15)
"""Pause before the one second try after a broken connection; random, so that callers do not come back together."""

PAGE_ROWS = 1000
"""Rows of one answer; hosted projects cut off at 1000 (setting "Max rows")."""

MAX_PAGES = 20
"""20,000 conversations of one user since midnight: no person has them."""

FOREIGN_KEY = "23503"

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are the row's fault: data exception, integrity violation, limit exceeded. Everything else may
be mended while the rows wait."""

REFUSED_CODES = frozenset({"PGRST102", "SUP", "413"})
"""The same without an SQLSTATE: a body that is not JSON, Supabase Lite's check violation, a body that is too large."""

FUNCTION_MISSING = "PGRST202"

FUNCTION_PAUSE_S = 300.0
"""How long a missing function is not called again; a migration applied meanwhile is noticed after that."""

SQLSTATE_LENGTH = 5

ADVICE = {
    "42501": "not permitted: apply the privileges migration again, and check that the service key is a secret key",
    "42P01": "a table is missing: apply supabase/migrations",
    "42703": "a column is missing: apply supabase/migrations",
    "PGRST204": "a column is missing: apply supabase/migrations",
    "PGRST205": "a table is missing: apply supabase/migrations",
    "PGRST301": "the service key is not accepted: copy it again from the project's API settings",
    "PGRST002": "the data API is starting",
}
"""What a code asks the operator to do. Source: PostgREST, "Errors"; PostgreSQL, appendix A."""

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

CONVERSATION_COLUMNS = "id,user_id,agent_id,channel,turn_count,usage,cost_usd"
TURN_COLUMNS = "item_id,position,role,content,status,heard_ms,spoken_ms,metadata"


class _Query(Protocol):
    async def execute(self) -> Any: ...


class SupabaseStore:
    """A `Store` on a shared client, which it neither changes nor closes.

    Every call may be sent twice without harm, so one broken connection is repaired without a word.
    """

    def __init__(self, client: AsyncPostgrestClient, *, timeout_s: float = TIMEOUT_S) -> None:
        """Make a store; nothing is sent before the first call.

        Args:
            client: From `services.supabase_client`, with the service key.
            timeout_s: Longest time of one call.
        """
        self._client = client
        self._timeout_s = timeout_s
        self._missing_until: dict[str, float] = {}

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
        entries = [{"kind": record_kind(record), "columns": _columns(record)} for record in records]
        arguments: dict[str, Any] = {"records": entries}
        async with self._call():
            answer = await self._call_function("save_records", arguments)
            if answer is not None:
                _expect_nothing(answer)
            else:
                for query in self._table_writes(records):
                    _expect_nothing(await self._send(query))

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

    def _table_writes(self, records: Sequence[Record]) -> Iterator[_Query]:
        for kind, same_kind in groupby(records, key=type):
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

    def _insert(self, table: str, rows: list[dict[str, Any]], key: str) -> _Query:
        """Return an insert that leaves rows alone whose key is there."""
        return self._client.from_(table).upsert(
            rows, on_conflict=key, ignore_duplicates=True, returning=ReturnMethod.minimal
        )

    async def _added_up_cost(self, user_id: str, since: str) -> float:
        total = 0.0
        for page in range(MAX_PAGES):
            query = self._client.from_("conversations").select("cost_usd").eq("user_id", user_id)
            mine = query.gte("last_active_at", since).order("id").limit(PAGE_ROWS).offset(page * PAGE_ROWS)
            rows = _rows_of(await self._send(mine))
            total += sum(float(row["cost_usd"] or 0) for row in rows)
            if len(rows) < PAGE_ROWS:
                break
        return total

    async def _call_function(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return a function's answer, None when the project has no such function."""
        now = asyncio.get_running_loop().time()
        if now < self._missing_until.get(name, 0.0):
            return None
        try:
            return await self._send(self._client.rpc(name, arguments))
        except APIError as error:
            if error.code != FUNCTION_MISSING:
                raise
            self._missing_until[name] = now + FUNCTION_PAUSE_S
            return None

    async def _rows(self, query: _Query) -> list[dict[str, Any]]:
        async with self._call():
            return _rows_of(await self._send(query))

    async def _send(self, query: _Query) -> Any:
        """Send a request; once more when the connection broke, as kept ones do when the other side restarts."""
        try:
            return await query.execute()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            await asyncio.sleep(random.uniform(*RETRY_AFTER_S))  # noqa: S311 - nobody gains by guessing it
        return await query.execute()

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """Bound a call by its deadline and turn what fails inside into a StoreError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        # "from None" throughout: the cause may hold the row, and a traceback would print it.
        except APIError as error:
            raise _store_error(error) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise StoreUnavailable(f"the data API did not answer ({type(error).__name__})") from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise StoreRejected("a value has no form in JSON") from None


def _store_error(error: APIError) -> StoreError:
    """Return what a refusal means; of the error only the code is used, as its details hold the whole row."""
    code = error.code
    if code is None:  # the gateway in front of PostgREST; its answers have a message and no code
        refused_key = "API key" in (error.message or "")
        return StoreUnavailable(f"the data API refused: {ADVICE['PGRST301'] if refused_key else 'no reason given'}")
    if code == FOREIGN_KEY:
        return ParentMissing("the parent row is not there (23503)")
    if code in REFUSED_CODES or (len(code) == SQLSTATE_LENGTH and code[:2] in REFUSED_CLASSES):
        return StoreRejected(f"the database refused a row ({code})")
    return StoreUnavailable(f"the data API failed ({code}){': ' if code in ADVICE else ''}{ADVICE.get(code, '')}")


def _columns(record: Record) -> dict[str, Any]:
    """Return the record's columns; its times must be ISO 8601, as PostgreSQL also reads words such as "yesterday"."""
    columns = record_to_dict(record)
    for name, value in columns.items():
        if name.endswith("_at") and value is not None and not _ISO_TIME.fullmatch(value):
            raise StoreRejected("a time is not ISO 8601")
    return columns


def _rows_of(answer: Any) -> list[dict[str, Any]]:
    """Return an answer's rows; the client also hands over a page of HTML that came with status 200."""
    if not isinstance(answer.data, list):
        raise StoreUnavailable("the address does not answer as a data API: check SUPABASE_URL")
    return answer.data


def _expect_nothing(answer: Any) -> None:
    """Make sure a write was answered as PostgREST does, with nothing, or it may have gone to some other server."""
    if answer.data:
        raise StoreUnavailable("the address does not answer as a data API: check SUPABASE_URL")


def _are_ids(*texts: str) -> bool:
    """Return whether all are UUIDs; what is none cannot be in the database."""
    try:
        return all(UUID(text) for text in texts)
    except ValueError:
        return False
