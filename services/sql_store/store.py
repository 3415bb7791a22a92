"""The Store over SQL: PostgreSQL through asyncpg, SQLite through Python's own driver, both through
SQLAlchemy Core.

Every query of a person's rows names the owner. Writes cannot cross owners either: a message refers to (conversation,
owner) and a conversation to (agent, owner), so the foreign keys refuse what does not belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Insert, Update, bindparam, func, inspect, select, text, union_all
from sqlalchemy.schema import CreateColumn

from core.agent import Agent, agent_from_row
from core.records import (
    ConversationProgress,
    ConversationRow,
    Record,
    StoredConversation,
    Turn,
    in_store_order,
    record_to_dict,
)
from services.store import StoreRejected

from .calls import SqlCalls
from .database import open_database
from .overview import SqlOverview
from .tables import agents, conversations, deleted_conversation_costs, is_canonical, messages, metadata

MAX_AGENTS = 100
"""Longest list `agents` returns; `services/store.py` promises it."""


_AGENT = select(agents).where(
    agents.c.id == bindparam("agent_id"), agents.c.user_id == bindparam("user_id"), agents.c.is_active
)
"""Made once: every session asks for its agent, and a statement of thirty columns costs more to make than to run."""


class SqlStore(SqlCalls, SqlOverview):
    """A `Store` with at most `pool_size` connections, of which every call holds one for at most `timeout_s`."""

    @classmethod
    def open(cls, database_url: str, *, pool_size: int = 5, timeout_s: float = 5.0) -> SqlStore:
        """Return a store that connects with its first call.

        Args:
            database_url: `postgresql://…` (or `postgres://…`) as libpq reads it, or `sqlite:///…` naming a file.
            pool_size: Most connections at a time.
            timeout_s: Longest time of one call, waiting for a connection included.

        Raises:
            ValueError: If the URL is neither.
        """
        return cls(open_database(database_url, pool_size=pool_size, timeout_s=timeout_s))

    async def create_schema(self) -> None:
        """Create the tables and columns that are missing in an SQLite file.

        PostgreSQL gets its tables from the migrations.

        Raises:
            ValueError: On PostgreSQL.
        """
        if self._database.name != "sqlite":
            raise ValueError("PostgreSQL gets its tables from supabase/migrations")
        # Several workers may start at once: the second waits here and then finds the tables.
        await self._database.run(_create_missing)

    async def agent(self, agent_id: str, user_id: str) -> Agent | None:
        """Return the active agent if it exists and belongs to the user."""
        if not _are_ids(agent_id, user_id):
            return None
        rows = await self._rows(_AGENT, agent_id=agent_id, user_id=user_id)
        return agent_from_row(rows[0]) if rows else None

    async def agents(self, user_id: str) -> list[Agent]:
        """Return the user's active agents, by name; at most 100."""
        if not _are_ids(user_id):
            return []
        mine = select(agents).where(agents.c.user_id == user_id, agents.c.is_active)
        ordered = mine.order_by(func.lower(agents.c.name), agents.c.id).limit(MAX_AGENTS)
        return [agent_from_row(row) for row in await self._rows(ordered)]

    async def put_agent(self, columns: Mapping[str, Any]) -> None:
        """Store an agent of the columns given, or change those columns of the one its user has by that id.

        For the demo, tests and embedded databases; on Supabase the app writes its agents itself.

        Args:
            columns: Of the table `agents`, by name; `id` and `user_id` are required.

        Raises:
            StoreRejected: If another user has the id, or a column is unknown or holds nonsense.
        """
        changes = {name: value for name, value in columns.items() if name not in {"id", "user_id"}}
        if not changes.keys() <= set(agents.c.keys()):
            raise StoreRejected("agents have no such column")
        same = (agents.c.id == columns["id"], agents.c.user_id == columns["user_id"])

        def put(connection: Connection) -> None:
            if connection.execute(select(agents.c.id).where(*same)).first() is None:
                connection.execute(agents.insert().values(dict(columns)))
            elif changes:
                connection.execute(agents.update().where(*same).values(changes))

        await self._database.run(put)

    async def conversation(self, conversation_id: str, user_id: str) -> StoredConversation | None:
        """Return the conversation if it exists and belongs to the user."""
        if not _are_ids(conversation_id, user_id):
            return None
        c = conversations.c
        columns = (c.id, c.user_id, c.agent_id, c.channel, c.turn_count, c.usage, c.cost_usd)
        rows = await self._rows(select(*columns).where(c.id == conversation_id, c.user_id == user_id))
        return StoredConversation(**rows[0]) if rows else None

    async def history(self, conversation_id: str, user_id: str, *, limit: int = 20) -> list[Turn]:
        """Return the last `limit` turns in conversation order, oldest first."""
        if not _are_ids(conversation_id, user_id) or limit < 1:
            return []
        c = messages.c
        columns = (c.item_id, c.position, c.role, c.content, c.status, c.heard_ms, c.spoken_ms, c.metadata)
        mine = select(*columns).where(c.conversation_id == conversation_id, c.user_id == user_id)
        newest_first = mine.order_by(c.position.desc(), c.created_at.desc(), c.id.desc()).limit(limit)
        return [Turn(**row) for row in reversed(await self._rows(newest_first))]

    async def next_position(self, conversation_id: str, user_id: str) -> int:
        """Return the first free position in the conversation: one above the highest stored, 0 when there is none."""
        if not _are_ids(conversation_id, user_id):
            return 0
        c = messages.c
        highest = select(func.max(c.position).label("highest"))
        rows = await self._rows(highest.where(c.conversation_id == conversation_id, c.user_id == user_id))
        return 0 if rows[0]["highest"] is None else int(rows[0]["highest"]) + 1

    async def save(self, records: Sequence[Record]) -> None:
        """Store all records in one transaction, in order; those that are there already change nothing.

        A conversation row and a message row that exist are left alone; progress overwrites the conversation's figures
        unless they are of a later time, and of a conversation that is gone, or another user's, it changes nothing.

        Raises:
            StoreUnavailable: If the database did not take them in time; it may have, so save the same records again.
            ParentMissing: If a row's agent or conversation is not there, or is another user's.
            StoreRejected: If one of the rows can never be stored. Nothing was stored.
        """

        def store(connection: Connection) -> None:
            for kind, same_kind in groupby(in_store_order(records), key=type):
                connection.execute(*self._write(kind, [record_to_dict(record) for record in same_kind]))

        await self._database.run(store)

    async def cost_since(self, user_id: str, since: str) -> float:
        """Return the user's cost in USD of conversations active since the ISO 8601 time, deleted ones included."""
        if not _are_ids(user_id):
            return 0.0
        costs = [
            select(func.sum(table.c.cost_usd).label("cost_usd"))
            .where(table.c.user_id == user_id, table.c.last_active_at >= since)
            for table in (conversations, deleted_conversation_costs)
        ]  # fmt: skip
        return sum(float(row["cost_usd"] or 0) for row in await self._rows(union_all(*costs)))

    async def ping(self) -> None:
        """Return when the database answered one trivial query."""
        await self._rows(text("select 1"))

    async def close(self) -> None:
        """Release all connections."""
        await self._database.close()

    def _write(self, kind: type[Record], rows: list[dict[str, Any]]) -> tuple[Insert | Update, list[dict[str, Any]]]:
        """Return the statement for records of one kind and what to execute it with."""
        if kind is ConversationProgress:
            return _PROGRESS, [{f"new_{name}": value for name, value in row.items()} for row in rows]
        if kind is ConversationRow:
            fresh = [row | {"last_active_at": row["started_at"]} for row in rows]
            return self._database.insert(conversations).on_conflict_do_nothing(index_elements=["id"]), fresh
        key = ["conversation_id", "item_id"]
        return self._database.insert(messages).on_conflict_do_nothing(index_elements=key), rows


_PROGRESS = (
    conversations.update()
    .where(
        conversations.c.id == bindparam("new_id"),
        conversations.c.user_id == bindparam("new_user_id"),
        conversations.c.last_active_at <= bindparam("new_last_active_at"),
    )
    .values(
        {
            name: bindparam(f"new_{name}", type_=conversations.c[name].type)
            for name in ("last_active_at", "turn_count", "usage", "cost_usd", "ended_at", "end_reason")
        }
    )
)
"""Update of a conversation's figures; the time keeps a progress that was delayed from undoing a later one."""


def _create_missing(connection: Connection) -> None:
    """Create the missing tables, and in those that are there what was added since: nullable columns and indexes."""
    database = inspect(connection)
    older = [metadata.tables[name] for name in database.get_table_names() if name in metadata.tables]
    for table in older:
        there = {column["name"] for column in database.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"alter table {table.name} add column {definition}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    metadata.create_all(connection)


def _are_ids(*texts: str) -> bool:
    """Return whether all are UUIDs; what is none cannot be in the database."""
    try:
        return all(is_canonical(text) or UUID(text) for text in texts)
    except ValueError:
        return False
