"""What every part of the SQL store stands on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Executable

from .database import Database


class SqlBase:
    """A store in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _rows(self, statement: Executable, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of one statement, its parameters named in `values`; what it changes is committed."""
        return await self._database.rows(statement, values)
