"""Brings a database to the schema this server needs.

PostgreSQL: the files of supabase/migrations in the order of their numbers, each in one transaction, recorded in the
table `voice_migrations`; the privileges file is run again every time. SQLite: the tables of `tables`.
Run by `./voice migrate`, and in development by the start of the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from services.store import StoreError

from .database import is_sqlite
from .store import SqlStore

FOLDER = Path(__file__).parents[2] / "supabase" / "migrations"


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
    from .postgres_migrations import apply

    return await apply(database_url, await asyncio.to_thread(migration_files, folder))


async def pending(database_url: str, folder: Path = FOLDER) -> list[str]:
    """Return the names of the migrations that are not applied, in order; always empty for SQLite.

    Raises:
        StoreUnavailable: If the database cannot be reached.
    """
    if is_sqlite(database_url):
        return []
    from .postgres_migrations import known_versions

    files = await asyncio.to_thread(migration_files, folder)
    known = await known_versions(database_url)
    return [file.name for file in files if file.version not in known]


def migration_files(folder: Path = FOLDER) -> list[MigrationFile]:
    """Read the files `<number>_<name>.sql` of a folder, in the order to apply them."""
    paths = sorted(folder.glob("[0-9]*_*.sql"))
    return [MigrationFile(path.stem.split("_", 1)[0], path.name, path.read_text(encoding="utf-8")) for path in paths]
