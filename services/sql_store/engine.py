"""How a database URL becomes connections, and how a database's refusal becomes a `StoreError`.

Shared by `store` and `migrations`; names SQLAlchemy, asyncpg and aiosqlite, as those do.
"""

from __future__ import annotations

import json
import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.store import ParentMissing, StoreError, StoreRejected, StoreUnavailable

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

FOREIGN_KEY = "23503"

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are the row's fault: data exception, integrity violation, limit exceeded.
Everything else (a missing table or privilege, a full disk, a restart) may be mended while the rows wait."""

DATABASE_ERRORS = (
    *(SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError),  # a refused connection comes unwrapped
    *(OSError, ValueError, TypeError, OverflowError),
)
"""What `store_error` explains: all that a call of the database raises. TimeoutError is an OSError."""

ADVICE = {
    "42P01": "a table is missing, run ./voice migrate",
    "42703": "a column is missing, run ./voice migrate",
    "42501": "not permitted, run ./voice migrate or grant service_role to this login",
    "28P01": "wrong password",
    "3D000": "no such database",
    "53300": "too many connections",
}
"""What to do about some SQLSTATEs. Source: PostgreSQL, appendix A."""


_AS_JSON = partial(json.dumps, allow_nan=False)
"""PostgreSQL takes no NaN; what one database refuses the other refuses too."""


def is_sqlite(database_url: str) -> bool:
    """Return whether the URL is that of an SQLite file."""
    return database_url.split(":", 1)[0].split("+", 1)[0] == "sqlite"


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


def open_engine(database_url: str, *, pool_size: int, timeout_s: float) -> AsyncEngine:
    """Return an engine with at most `pool_size` connections; nothing is connected yet.

    Raises:
        ValueError: If the URL is neither PostgreSQL's nor that of an SQLite file.
    """
    # A statement's parameters are rows: they must not get into the text of an error.
    shared: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": timeout_s,
        "json_serializer": _AS_JSON,
    }
    if is_sqlite(database_url):
        return _sqlite_engine(database_url, timeout_s, shared)
    arguments = postgres_arguments(database_url) | {"timeout": timeout_s}
    if arguments.get("statement_cache_size") == 0:
        arguments |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": _unique_name}
    # The ping before use spares callers the connections that a restart or an idle limit of the database has cut.
    return create_async_engine(
        "postgresql+asyncpg://", connect_args=arguments, pool_pre_ping=True, pool_use_lifo=True,
        skip_autocommit_rollback=True, **shared,
    )  # fmt: skip


def _unique_name() -> str:
    """Return a name for a prepared statement that no other client of a shared server connection uses."""
    return f"voice_{uuid4().hex}"


def _sqlite_engine(database_url: str, timeout_s: float, shared: dict[str, Any]) -> AsyncEngine:
    file = make_url(database_url).database
    if not file or file == ":memory:":
        raise ValueError("DATABASE_URL must name a file, as in sqlite:///data/voice.db")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # transcripts are nobody else's to read
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", **shared)
    _prepare_files(engine.sync_engine, timeout_s)
    return engine


def open_file(engine: AsyncEngine, *, timeout_s: float) -> Engine | None:
    """Return an engine for the same SQLite file that works in the thread that asks and commits each statement.

    The driver above crosses to its thread and back for each step of a statement, five times for one row; all of it in
    one thread is a quarter of the work. None for PostgreSQL.
    """
    if engine.dialect.name != "sqlite":
        return None
    file = create_engine(
        f"sqlite:///{engine.url.database}", hide_parameters=True, pool_timeout=timeout_s,
        json_serializer=_AS_JSON, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True,
    )  # fmt: skip
    _prepare_files(file, timeout_s)
    return file


def _prepare_files(engine: Engine, timeout_s: float) -> None:
    """Have every connection to an SQLite file set up alike."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # SQLite gives up before our own deadline does, which leaves the connection usable.
        cursor.execute(f"pragma busy_timeout = {int(timeout_s * 800)}")
        cursor.execute("pragma journal_mode = wal")
        cursor.execute("pragma synchronous = normal")  # safe against a crash of ours; the spool guards the rest
        cursor.execute("pragma foreign_keys = on")
        cursor.close()


def store_error(error: Exception) -> StoreError:
    """Return what a failed call means, without a word of the row: the databases put rows into their messages."""
    if isinstance(error, DBAPIError):
        return _refusal(error)
    if isinstance(error, asyncpg.PostgresError):
        return StoreUnavailable(f"the database refused the connection ({_described(error.sqlstate)})")
    if isinstance(error, asyncpg.InterfaceError):  # a ValueError too, so ahead of those
        return StoreUnavailable(f"the connection failed ({type(error).__name__})")
    if isinstance(error, (StatementError, ValueError, TypeError, OverflowError)):
        return StoreRejected("a value has no form in the database")
    return StoreUnavailable(f"the database did not answer ({type(error).__name__})")


def _refusal(error: DBAPIError) -> StoreError:
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _sqlite_refusal(original)
    state = getattr(original, "sqlstate", None)
    if state is None:
        cause = getattr(original, "__cause__", None)
        if isinstance(cause, (ValueError, TypeError, OverflowError)):  # asyncpg could not encode a value
            return StoreRejected("a value has no form in the database")
        return StoreUnavailable(f"the connection failed ({type(original).__name__})")
    if state == FOREIGN_KEY:
        return ParentMissing("the parent row is not there (SQLSTATE 23503)")
    if state[:2] in REFUSED_CLASSES:
        return StoreRejected(f"the database refused a row (SQLSTATE {state})")
    return StoreUnavailable(f"the database failed ({_described(state)})")


def _described(state: str) -> str:
    return f"SQLSTATE {state}: {ADVICE[state]}" if state in ADVICE else f"SQLSTATE {state}"


def _sqlite_refusal(error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return ParentMissing("the parent row is not there")
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)):
        return StoreRejected(f"the database refused a row ({name})")
    return StoreUnavailable(f"the database failed ({name})")
