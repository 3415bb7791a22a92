"""PostgreSQL as the SQL store uses it: asyncpg below SQLAlchemy Core, addresses as libpq reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.ext.asyncio import create_async_engine

from services.store import StoreError, StoreUnavailable

from .database import T, as_json, executed
from .errors import DATABASE_ERRORS, described, store_error, within

NOT_FOR_THE_SERVER = frozenset(
    {
        *("channel_binding", "connect_timeout", "connection_limit", "gssencmode", "keepalives", "keepalives_count"),
        *("keepalives_idle", "keepalives_interval", "pgbouncer", "pool_timeout", "schema", "sslcompression"),
        *("sslnegotiation", "supa"),
    }
)
"""Parameters that providers and other clients put into URLs. asyncpg passes what it does not know on to the server,
which refuses to start the session; none of these changes what we do."""

TRANSACTION_POOLER_PORT = 6543
"""Port of Supabase's pooler in transaction mode, where a prepared statement does not outlive its transaction."""

POSTGRES_ERRORS = (*DATABASE_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What `postgres_error` explains; a refused connection comes unwrapped."""


class Postgres:
    """A `Database` reached by the connections of its engine's pool."""

    name: Literal["postgresql", "sqlite"] = "postgresql"

    def __init__(self, database_url: str, *, pool_size: int, timeout_s: float) -> None:
        arguments = postgres_arguments(database_url) | {"timeout": timeout_s}
        if arguments.get("statement_cache_size") == 0:
            arguments |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": _unique_name}
        # The ping before use spares callers the connections that a restart or an idle limit of the database has cut.
        # A statement's parameters are rows: they must not get into the text of an error.
        self._engine = create_async_engine(
            "postgresql+asyncpg://", connect_args=arguments, pool_pre_ping=True, pool_use_lifo=True,
            skip_autocommit_rollback=True, hide_parameters=True, pool_size=pool_size, max_overflow=0,
            pool_timeout=timeout_s, json_serializer=as_json,
        )  # fmt: skip
        # One statement is a transaction by itself: that saves the way there and back twice.
        self._committing = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._timeout_s = timeout_s
        self.insert = cast("Callable[..., Insert]", postgresql.insert)

    async def rows(self, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of one statement; what it changes is committed."""
        async with self._explained(), self._committing.connect() as connection:
            return await connection.run_sync(executed, statement, values)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction."""
        async with self._explained(), self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Close the connections, those in use when they come back."""
        async with self._explained():
            await self._engine.dispose()

    def _explained(self) -> Any:
        return within(self._timeout_s, POSTGRES_ERRORS, postgres_error)


def postgres_arguments(database_url: str) -> dict[str, Any]:
    """Return the keyword arguments of `asyncpg.connect` for a libpq URL.

    `sslmode`, `sslrootcert`, several hosts and `application_name` keep libpq's meaning.

    Raises:
        ValueError: If it is not a URL of PostgreSQL.
    """
    parts = urlsplit(database_url)
    if parts.scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise ValueError("DATABASE_URL must begin with postgresql:// or sqlite:///")
    given = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in given if name not in NOT_FOR_THE_SERVER]
    arguments: dict[str, Any] = {"dsn": urlunsplit(parts._replace(scheme="postgresql", query=urlencode(kept)))}
    if "application_name" not in dict(kept):
        arguments["server_settings"] = {"application_name": "voice-server"}
    if f":{TRANSACTION_POOLER_PORT}" in parts.netloc or dict(given).get("pgbouncer") == "true":
        arguments["statement_cache_size"] = 0
    return arguments


def postgres_error(error: Exception) -> StoreError:
    """Return what a failed call means, without a word of the row."""
    if isinstance(error, asyncpg.PostgresError):
        return StoreUnavailable(f"the database refused the connection ({described(error.sqlstate)})")
    if isinstance(error, asyncpg.InterfaceError):  # some are a ValueError too
        return StoreUnavailable(f"the connection failed ({type(error).__name__})")
    return store_error(error)


def _unique_name() -> str:
    """Return a name for a prepared statement that no other client of a shared server connection uses."""
    return f"voice_{uuid4().hex}"
