"""Agents and conversations in PostgreSQL or SQLite, reached directly.

`tables` says what there is, `engine` turns a URL into connections and a refusal into a `StoreError`, `store` is the
`Store`, `migrations` brings a database to the schema.
"""

from __future__ import annotations

from .migrations import MigrationFailed, migrate, migration_files, pending
from .store import SqlStore

__all__ = ["MigrationFailed", "SqlStore", "migrate", "migration_files", "pending"]
