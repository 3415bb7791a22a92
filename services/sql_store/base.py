"""What every part of the SQL store stands on: connections, transactions with a deadline, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy import CursorResult, Engine, Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .engine import DATABASE_ERRORS, open_file, store_error


class SqlBase:
    """A database reached by the connections of its engine's pool; every call holds one for at most `timeout_s`."""

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        is_postgres = engine.dialect.name == "postgresql"
        dialect = postgresql if is_postgres else sqlite
        self._insert = cast("Callable[..., postgresql.Insert]", dialect.insert)
        # One statement is a transaction by itself: on PostgreSQL that saves the way there and back twice.
        self._committing = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._file = open_file(engine, timeout_s=timeout_s)

    async def _rows(self, statement: Executable, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of one statement, its parameters named in `values`; what it changes is committed."""
        if self._file is not None:
            async with self._within_deadline():
                return await asyncio.to_thread(_executed, self._file, statement, values)
        async with self._within_deadline(), self._committing.connect() as connection:
            return _as_dicts(await connection.execute(statement, values))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for one transaction within the deadline; what fails inside becomes a StoreError."""
        async with self._within_deadline(), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _within_deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except DATABASE_ERRORS as error:
            # "from None": the cause's text may hold the row, and a traceback would print it.
            raise store_error(error) from None

    async def _disconnect(self) -> None:
        await self._engine.dispose()
        if self._file is not None:
            self._file.dispose()


def _executed(engine: Engine, statement: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return _as_dicts(connection.execute(statement, values))


def _as_dicts(result: CursorResult[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in result.mappings()] if result.returns_rows else []
