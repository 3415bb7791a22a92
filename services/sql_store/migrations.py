"""Brings a database to the schema this server needs.

PostgreSQL: the files of supabase/migrations in the order of their numbers, each in one transaction, recorded in the
table `voice_migrations`; the privileges file is run again every time. SQLite: the tables of `tables`.
Run by `./voice migrate`, and in development by the start of the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from services.store import StoreError

from .engine import DATABASE_ERRORS, is_sqlite, postgres_arguments, store_error
from .store import SqlStore

FOLDER = Path(__file__).parents[2] / "supabase" / "migrations"

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


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """One migration: its number, the name of its file, and its text."""

    version: str
    name: str
    sql: str

    @property
    def may_run_again(self) -> bool:
        """True of the file that says who may do what: it restores that state whenever it runs."""
        return self.name.endswith("_privileges.sql")


class MigrationFailed(StoreError):
    """Raised when a migration could not be applied; nothing of that file is in the database. Names file and reason."""


async def migrate(database_url: str, folder: Path = FOLDER) -> list[str]:
    """Apply the migrations that are missing and restore the privileges.

    Safe to call again, and from several processes at once. Migrations that the Supabase command line applied count.

    Returns:
        Names of the files applied now, in order, without a privileges file that was only run again; empty for SQLite.

    Raises:
        MigrationFailed: If a file failed. The ones before it stay applied.
        StoreUnavailable: If the database cannot be reached.
        ValueError: If the URL is neither PostgreSQL's nor that of an SQLite file.
    """
    if is_sqlite(database_url):
        store = SqlStore.open(database_url)
        try:
            await store.create_schema()
        finally:
            await store.close()
        return []
    files = await asyncio.to_thread(migration_files, folder)
    applied = []
    connection = await _connect(database_url)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for file in files:
                if await _apply(connection, file):
                    applied.append(file.name)
            for file in files:
                if file.may_run_again and file.name not in applied:
                    await _run_again(connection, file)
    except (OSError, asyncpg.InterfaceError) as error:
        raise store_error(error) from None
    finally:
        connection.terminate()  # every transaction has ended; nothing is left to say
    return applied


async def pending(database_url: str, folder: Path = FOLDER) -> list[str]:
    """Return the names of the migrations that are not applied, in order; always empty for SQLite.

    Raises:
        StoreUnavailable: If the database cannot be reached.
    """
    if is_sqlite(database_url):
        return []
    files = await asyncio.to_thread(migration_files, folder)
    connection = await _connect(database_url)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            known = await _known(connection)
    except DATABASE_ERRORS as error:
        raise store_error(error) from None
    finally:
        connection.terminate()
    return [file.name for file in files if file.version not in known]


def migration_files(folder: Path = FOLDER) -> list[MigrationFile]:
    """Read the files `<number>_<name>.sql` of a folder, in the order to apply them."""
    paths = sorted(folder.glob("[0-9]*_*.sql"))
    return [MigrationFile(path.stem.split("_", 1)[0], path.name, path.read_text(encoding="utf-8")) for path in paths]


async def _connect(database_url: str) -> Any:
    arguments = postgres_arguments(database_url)
    try:
        return await asyncpg.connect(**arguments, timeout=CONNECT_TIMEOUT_S)
    except DATABASE_ERRORS as error:
        raise store_error(error) from None


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
