"""How a database's refusal becomes a `StoreError`, and how a call gets its deadline."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from services.store import ParentMissing, StoreError, StoreRejected, StoreUnavailable

FOREIGN_KEY = "23503"

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are the row's fault: data exception, integrity violation, limit exceeded.
Everything else (a missing table or privilege, a full disk, a restart) may be mended while the rows wait."""

DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, OSError, ValueError, TypeError, OverflowError)
"""What `store_error` explains: all that a call through SQLAlchemy raises. TimeoutError is an OSError."""

ADVICE = {
    "42P01": "a table is missing, run ./voice migrate",
    "42703": "a column is missing, run ./voice migrate",
    "42501": "not permitted, run ./voice migrate or grant service_role to this login",
    "28P01": "wrong password",
    "3D000": "no such database",
    "53300": "too many connections",
}
"""What to do about some SQLSTATEs. Source: PostgreSQL, appendix A."""


def store_error(error: Exception) -> StoreError:
    """Return what a failed call means, without a word of the row: the databases put rows into their messages."""
    if isinstance(error, DBAPIError):
        return _refusal(error)
    if isinstance(error, (StatementError, ValueError, TypeError, OverflowError)):
        return StoreRejected("a value has no form in the database")
    return StoreUnavailable(f"the database did not answer ({type(error).__name__})")


@asynccontextmanager
async def within(
    timeout_s: float,
    errors: tuple[type[Exception], ...] = DATABASE_ERRORS,
    explain: Callable[[Exception], StoreError] = store_error,
) -> AsyncIterator[None]:
    """Give the calls inside so long; what fails becomes the StoreError that explains it."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except errors as error:
        # "from None": the cause's text may hold the row, and a traceback would print it.
        raise explain(error) from None


def described(state: str) -> str:
    """Return an SQLSTATE with what to do about it."""
    return f"SQLSTATE {state}: {ADVICE[state]}" if state in ADVICE else f"SQLSTATE {state}"


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
    return StoreUnavailable(f"the database failed ({described(state)})")


def _sqlite_refusal(error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return ParentMissing("the parent row is not there")
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)):
        return StoreRejected(f"the database refused a row ({name})")
    return StoreUnavailable(f"the database failed ({name})")
