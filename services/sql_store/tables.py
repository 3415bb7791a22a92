"""The tables of the database as SQLAlchemy sees them; counterpart of `supabase/migrations/`.

SQLite is created from these definitions, PostgreSQL from the migrations; a test compares columns, types, nullability
and unique constraints of the two. What only PostgreSQL has (row level security, grants, functions) is in the
migrations alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    JSON,
    REAL,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

is_canonical = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
"""Finds a UUID in its canonical text form, as nearly all are: a sixth of the work of making a UUID of it."""


def _postgresql() -> ModuleType:
    """Return SQLAlchemy's types of PostgreSQL, which nobody loads for an SQLite file."""
    from sqlalchemy.dialects import postgresql

    return postgresql


class Id(TypeDecorator[str]):
    """A UUID, given and returned in its canonical text form. Binding anything else raises ValueError."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_postgresql().UUID(as_uuid=False))
        return dialect.type_descriptor(String(36))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None or is_canonical(value) else str(UUID(value))


class Instant(TypeDecorator[datetime]):
    """A moment, bound from ISO 8601 text or an aware datetime and returned as a datetime in UTC.

    SQLite has no such type: there it is text in UTC with microseconds, so that the order of texts is that of moments.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_postgresql().TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if moment.tzinfo is None:
            raise ValueError("a moment needs its time zone")
        moment = moment.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return None if moment is None else moment.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """A JSON value; None is SQL's NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_postgresql().JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))


Dollars = Numeric(14, 6, asdecimal=False)
"""Up to 99 million dollars in millionths: one audio token costs some hundred-thousandths."""

metadata = MetaData()


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid4())


def _words(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{default}'"))


def _moment(name: str) -> Column[datetime]:
    return Column(name, Instant, nullable=False, default=_now)


def _object(name: str, default: str = "{}") -> Column[Any]:
    return Column(name, Json, nullable=False, server_default=text(f"'{default}'"))


def _agent_of_owner(table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["agent_id", "user_id"], ["agents.id", "agents.user_id"], name=f"{table}_agent_fkey", ondelete="CASCADE"
    )


agents = Table(
    "agents",
    metadata,
    Column("id", Id, primary_key=True, default=_new_id),
    Column("user_id", Id, nullable=False),
    _words("name", "Agent"),
    _words("instructions"),
    _words("greeting"),
    _words("voice", "alloy"),
    _words("personality"),
    _words("accent"),
    Column("speed", REAL, nullable=False, server_default=text("1.0")),
    _words("language"),
    _words("model"),
    Column("max_output_tokens", Integer),
    Column("temperature", REAL),
    Column("turn_detection", Json),
    _object("tools", "[]"),
    _object("knowledge", "[]"),
    _object("call_settings"),
    Column("client_may", Json),
    Column("api_key_secret_id", Id),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _moment("created_at"),
    Column("updated_at", Instant, nullable=False, default=_now, onupdate=_now),
    UniqueConstraint("id", "user_id", name="agents_owner_key"),
    CheckConstraint("speed between 0.25 and 1.5", name="agents_speed_check"),
    CheckConstraint("max_output_tokens between 1 and 4096", name="agents_max_output_tokens_check"),
    Index("agents_user_id_idx", "user_id"),
)

phone_numbers = Table(
    "phone_numbers",
    metadata,
    Column("number", Text, primary_key=True),
    Column("agent_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("account_sid", Text),
    Column("auth_token_secret_id", Id),
    _moment("created_at"),
    CheckConstraint(
        "number glob '+[1-9][0-9]*' and substr(number, 2) not glob '*[^0-9]*' and length(number) <= 16",
        name="phone_numbers_number_check",
    ).ddl_if(dialect="sqlite"),
    _agent_of_owner("phone_numbers"),
    Index("phone_numbers_user_id_idx", "user_id"),
    Index("phone_numbers_agent_id_idx", "agent_id"),
)

calls = Table(
    "calls",
    metadata,
    Column("call_sid", Text, primary_key=True),
    Column("agent_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("account_sid", Text),
    Column("from_number", Text),
    Column("to_number", Text),
    _object("config"),
    Column("token_hash", Text),
    _moment("created_at"),
    Column("expires_at", Instant, nullable=False),
    Column("claimed_at", Instant),
    Column("ended_at", Instant),
    Column("end_reason", Text),
    Column("auth_token_secret_id", Id),
    _agent_of_owner("calls"),
    Index("calls_user_id_idx", "user_id"),
    Index("calls_agent_id_idx", "agent_id"),
    Index("calls_expires_at_idx", "expires_at"),
    Index("calls_created_at_idx", "created_at"),
    Index("calls_claimed_at_idx", "claimed_at"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Id, primary_key=True, default=_new_id),
    Column("user_id", Id, nullable=False),
    Column("agent_id", Id, nullable=False),
    Column("channel", Text, nullable=False),
    Column("call_sid", Text),
    Column("title", Text),
    _moment("started_at"),
    _moment("last_active_at"),
    Column("ended_at", Instant),
    Column("end_reason", Text),
    Column("turn_count", Integer, nullable=False, server_default=text("0")),
    _object("usage"),
    Column("cost_usd", Dollars, nullable=False, server_default=text("0")),
    UniqueConstraint("id", "user_id", name="conversations_owner_key"),
    CheckConstraint("channel in ('browser', 'phone')", name="conversations_channel_check"),
    CheckConstraint("turn_count >= 0", name="conversations_turn_count_check"),
    CheckConstraint("cost_usd >= 0", name="conversations_cost_usd_check"),
    _agent_of_owner("conversations"),
    Index("conversations_user_id_idx", "user_id", text("last_active_at desc")),
    Index("conversations_agent_id_idx", "agent_id"),
    Index("conversations_call_sid_idx", "call_sid"),
    Index("conversations_last_active_at_idx", text("last_active_at desc")),
    Index("conversations_end_reason_idx", "end_reason", text("last_active_at desc")),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True, default=_new_id),
    Column("conversation_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("role", Text, nullable=False),
    _words("content"),
    _words("status", "complete"),
    Column("heard_ms", Integer),
    Column("spoken_ms", Integer),
    _object("metadata"),
    _moment("created_at"),
    UniqueConstraint("conversation_id", "item_id", name="messages_item_key"),
    CheckConstraint("role in ('user', 'assistant', 'tool', 'system')", name="messages_role_check"),
    CheckConstraint("status in ('complete', 'interrupted', 'failed')", name="messages_status_check"),
    CheckConstraint("position >= 0", name="messages_position_check"),
    ForeignKeyConstraint(
        ["conversation_id", "user_id"],
        ["conversations.id", "conversations.user_id"],
        name="messages_conversation_fkey",
        ondelete="CASCADE",
    ),
    Index("messages_user_id_idx", "user_id"),
    Index("messages_position_idx", "conversation_id", "position"),
)

system_api_keys = Table(
    "system_api_keys",
    metadata,
    Column("id", Id, primary_key=True, default=_new_id),
    Column("provider_name", Text, nullable=False),
    _words("display_name"),
    Column("vault_secret_id", Id),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _moment("created_at"),
    Column("updated_at", Instant, nullable=False, default=_now, onupdate=_now),
    UniqueConstraint("provider_name", name="system_api_keys_provider_name_key"),
)

deleted_conversation_costs = Table(
    "deleted_conversation_costs",
    metadata,
    Column("conversation_id", Id, primary_key=True),
    Column("user_id", Id, nullable=False),
    Column("last_active_at", Instant, nullable=False),
    Column("cost_usd", Dollars, nullable=False),
    Index("deleted_conversation_costs_user_id_idx", "user_id", text("last_active_at desc")),
)
