"""What every part of the SQL store stands on: connections, transactions with a deadline, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .engine import DATABASE_ERRORS, store_error


class SqlBase:
    """A database reached by the connections of its engine's pool; every call holds one for at most `timeout_s`."""

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
        self._insert = cast("Callable[..., postgresql.Insert]", dialect.insert)

    async def _rows(self, query: Executable) -> list[dict[str, Any]]:
        async with self._transaction() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for one transaction within the deadline; what fails inside becomes a StoreError."""
        try:
            async with asyncio.timeout(self._timeout_s), self._engine.begin() as connection:
                yield connection
        except DATABASE_ERRORS as error:
            # "from None": the cause's text may hold the row, and a traceback would print it.
            raise store_error(error) from None
