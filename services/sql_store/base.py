"""What every part of the SQL store stands on: connections, transactions with a deadline, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from sqlalchemy import Engine, Executable, Result
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .engine import DATABASE_ERRORS, open_file_reader, store_error


class SqlBase:
    """A database reached by the connections of its engine's pool; every call holds one for at most `timeout_s`."""

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        is_postgres = engine.dialect.name == "postgresql"
        dialect = postgresql if is_postgres else sqlite
        self._insert = cast("Callable[..., postgresql.Insert]", dialect.insert)
        # One statement needs no transaction around it: on PostgreSQL that saves the way there and back twice.
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._file_reader = open_file_reader(engine, timeout_s=timeout_s)

    async def _rows(self, query: Executable, **values: Any) -> list[dict[str, Any]]:
        """Return what a statement that only reads finds, its parameters named in `values`."""
        if self._file_reader is not None:
            async with self._within_deadline():
                return await asyncio.to_thread(_read, self._file_reader, query, values)
        async with self._within_deadline(), self._reader.connect() as connection:
            return _as_dicts(await connection.execute(query, values))

    async def _changed(self, change: Executable) -> list[dict[str, Any]]:
        """Return what a statement that writes says of the rows it changed, once they are committed."""
        async with self._transaction() as connection:
            return _as_dicts(await connection.execute(change))

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
        if self._file_reader is not None:
            self._file_reader.dispose()


def _read(engine: Engine, query: Executable, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return _as_dicts(connection.execute(query, values))


def _as_dicts(result: Result[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in result.mappings()]
