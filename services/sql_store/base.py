"""What every part of the SQL store stands on: connections, transactions with a deadline, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
        is_postgres = engine.dialect.name == "postgresql"
        dialect = postgresql if is_postgres else sqlite
        self._insert = cast("Callable[..., postgresql.Insert]", dialect.insert)
        # One statement needs no transaction around it: on PostgreSQL that saves the way there and back twice. SQLite's
        # driver would switch the connection over and back, which costs as much as it saves.
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT") if is_postgres else engine

    async def _rows(self, query: Executable, **values: Any) -> list[dict[str, Any]]:
        """Return what a statement that only reads finds, its parameters named in `values`; nothing is committed."""
        async with self._lent(self._reader.connect()) as connection:
            return [dict(row) for row in (await connection.execute(query, values)).mappings()]

    async def _changed(self, change: Executable) -> list[dict[str, Any]]:
        """Return what a statement that writes says of the rows it changed, once they are committed."""
        async with self._transaction() as connection:
            return [dict(row) for row in (await connection.execute(change)).mappings()]

    def _transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection for one transaction within the deadline; what fails inside becomes a StoreError."""
        return self._lent(self._engine.begin())

    @asynccontextmanager
    async def _lent(self, connecting: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._timeout_s), connecting as connection:
                yield connection
        except DATABASE_ERRORS as error:
            # "from None": the cause's text may hold the row, and a traceback would print it.
            raise store_error(error) from None
