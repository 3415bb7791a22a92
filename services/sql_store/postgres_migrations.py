"""Applies migrations to a PostgreSQL database: each file in one transaction, recorded in `voice_migrations`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from .migrations import MigrationFailed, MigrationFile
from .postgres import POSTGRES_ERRORS, postgres_arguments, postgres_error

LOCK = 0x766F696365  # "voice" in ASCII; any number will do that no other program uses in the same database
"""Key of the advisory lock one migration holds, so that servers starting together migrate once."""

TIMEOUT_S = 120.0
"""Longest time of the whole; a constraint checked on a million messages takes some seconds."""

CONNECT_TIMEOUT_S = 10
"""Longest wait for a connection; a database that scales to zero takes some seconds to wake."""

LOCK_TIMEOUT_S = 15
"""Longest wait of a statement for a table in use: everybody else waits behind it meanwhile."""

_RECORD = """
create table if not exists public.voice_migrations (
  version text primary key, name text not null, applied_at timestamptz not null default now());
alter table public.voice_migrations enable row level security;
"""

_BY_SUPABASE = "select version from supabase_migrations.schema_migrations"
"""Where `supabase db push` records what it applied."""


async def apply(database_url: str, files: Sequence[MigrationFile]) -> list[str]:
    """Apply the files that are missing and run those again that may be; return the names of the ones applied.

    Raises:
        MigrationFailed: If a file failed. The ones before it stay applied.
        StoreUnavailable: If the database cannot be reached.
    """
    applied = []
    async with _connection(database_url) as connection:
        for file in files:
            if await _apply(connection, file):
                applied.append(file.name)
        for file in files:
            if file.may_run_again and file.name not in applied:
                await _run_again(connection, file)
    return applied


async def known_versions(database_url: str) -> set[str]:
    """Return the versions that are applied.

    Raises:
        StoreUnavailable: If the database cannot be reached.
    """
    async with _connection(database_url) as connection:
        return await _known(connection)


@asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[Any]:
    """Lend a connection for the time the whole may take; what fails becomes a StoreError."""
    arguments = postgres_arguments(database_url)
    try:
        connection = await asyncpg.connect(**arguments, timeout=CONNECT_TIMEOUT_S)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                yield connection
        finally:
            connection.terminate()  # every transaction has ended; nothing is left to say
    except POSTGRES_ERRORS as error:
        raise postgres_error(error) from None


async def _known(connection: Any) -> set[str]:
    """Return the versions that we or the Supabase command line applied."""
    known: set[str] = set()
    for table, query in (
        ("public.voice_migrations", "select version from public.voice_migrations"),
        ("supabase_migrations.schema_migrations", _BY_SUPABASE),
    ):
        if await connection.fetchval("select to_regclass($1) is not null", table):
            known |= {row["version"] for row in await connection.fetch(query)}
    return known


async def _apply(connection: Any, file: MigrationFile) -> bool:
    """Apply the file and record it, in one transaction; return whether it was missing."""
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            await connection.execute(_RECORD)
            if file.version in await _known(connection):
                return False
            await _script(connection, file)
            await connection.execute(
                "insert into public.voice_migrations (version, name) values ($1, $2)", file.version, file.name
            )
    except asyncpg.PostgresError as error:
        raise _failure(file, error) from None
    return True


async def _run_again(connection: Any, file: MigrationFile) -> None:
    """Run a file again that may be run at any time."""
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            await _script(connection, file)
    except asyncpg.PostgresError as error:
        raise _failure(file, error) from None


async def _script(connection: Any, file: MigrationFile) -> None:
    await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'")
    await connection.execute(file.sql)
    await connection.execute("set local lock_timeout = 0")


def _failure(file: MigrationFile, error: asyncpg.PostgresError) -> MigrationFailed:
    """Return the error with the server's words; the statements of a migration hold nobody's data."""
    words: list[str] = [str(part) for part in (error.args[0] if error.args else "", error.hint) if part]
    return MigrationFailed(f"{file.name}: {' - '.join(words)} (SQLSTATE {error.sqlstate})")
