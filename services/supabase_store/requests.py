"""Requests to the data API within a deadline, and what its refusals mean."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx
from postgrest import APIError, AsyncPostgrestClient

from services.store import ParentMissing, StoreError, StoreRejected, StoreUnavailable

TIMEOUT_S = 5.0
"""Longest time of one call; a request takes 2 to 20 ms."""

RETRY_AFTER_S = (0.05, 0.15)
"""Pause before the one second try after a broken connection; random, so that callers do not come back together."""

FOREIGN_KEY = "23503"

REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that are the row's fault: data exception, integrity violation, limit exceeded. Everything else may
be mended while the rows wait."""

REFUSED_CODES = frozenset({"PGRST102", "SUP", "413"})
"""The same without an SQLSTATE: a body that is not JSON, Supabase Lite's check violation, a body that is too large."""

FUNCTION_MISSING = "PGRST202"

FUNCTION_PAUSE_S = 300.0
"""How long a missing function is not called again; a migration applied meanwhile is noticed after that."""

SQLSTATE_LENGTH = 5

ADVICE = {
    "42501": "not permitted: apply the privileges migration again, and check that the service key is a secret key",
    "42P01": "a table is missing: apply supabase/migrations",
    "42703": "a column is missing: apply supabase/migrations",
    "PGRST204": "a column is missing: apply supabase/migrations",
    "PGRST205": "a table is missing: apply supabase/migrations",
    "PGRST301": "the service key is not accepted: copy it again from the project's API settings",
    "PGRST002": "the data API is starting",
}
"""What a code asks the operator to do. Source: PostgREST, "Errors"; PostgreSQL, appendix A."""

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Query(Protocol):
    """What the client's request builders have in common."""

    async def execute(self) -> Any:
        """Send the request and return its answer."""


class SupabaseBase:
    """A shared client, which is neither changed nor closed, and the deadline of every call on it.

    Every request may be sent twice without harm, so one broken connection is repaired without a word. A claim whose
    answer was lost is refused the second time: that caller hears an apology, and nobody else gets the call.
    """

    def __init__(self, client: AsyncPostgrestClient, *, timeout_s: float = TIMEOUT_S) -> None:
        """Make a store; nothing is sent before the first call.

        Args:
            client: From `services.supabase_client`, with the service key.
            timeout_s: Longest time of one call.
        """
        self._client = client
        self._timeout_s = timeout_s
        self._missing_until: dict[str, float] = {}

    async def _call_function(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return a function's answer, None when the project has no such function."""
        now = asyncio.get_running_loop().time()
        if now < self._missing_until.get(name, 0.0):
            return None
        try:
            return await self._send(self._client.rpc(name, arguments))
        except APIError as error:
            if error.code != FUNCTION_MISSING:
                raise
            self._missing_until[name] = now + FUNCTION_PAUSE_S
            return None

    async def _rows(self, query: Query) -> list[dict[str, Any]]:
        async with self._call():
            return rows_of(await self._send(query))

    async def _send(self, query: Query) -> Any:
        """Send a request; once more when the connection broke, as kept ones do when the other side restarts."""
        try:
            return await query.execute()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            await asyncio.sleep(random.uniform(*RETRY_AFTER_S))  # noqa: S311 - nobody gains by guessing it
        return await query.execute()

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """Bound a call by its deadline and turn what fails inside into a StoreError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        # "from None" throughout: the cause may hold the row, and a traceback would print it.
        except APIError as error:
            raise _store_error(error) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise StoreUnavailable(f"the data API did not answer ({type(error).__name__})") from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise StoreRejected("a value has no form in JSON") from None


def _store_error(error: APIError) -> StoreError:
    """Return what a refusal means; of the error only the code is used, as its details hold the whole row."""
    code = error.code
    if code is None:  # the gateway in front of PostgREST; its answers have a message and no code
        refused_key = "API key" in (error.message or "")
        return StoreUnavailable(f"the data API refused: {ADVICE['PGRST301'] if refused_key else 'no reason given'}")
    if code == FOREIGN_KEY:
        return ParentMissing("the parent row is not there (23503)")
    if code in REFUSED_CODES or (len(code) == SQLSTATE_LENGTH and code[:2] in REFUSED_CLASSES):
        return StoreRejected(f"the database refused a row ({code})")
    return StoreUnavailable(f"the data API failed ({code}){': ' if code in ADVICE else ''}{ADVICE.get(code, '')}")


def rows_of(answer: Any) -> list[dict[str, Any]]:
    """Return an answer's rows; the client also hands over a page of HTML that came with status 200."""
    if not isinstance(answer.data, list):
        raise StoreUnavailable("the address does not answer as a data API: check SUPABASE_URL")
    return answer.data


def expect_nothing(answer: Any) -> None:
    """Make sure a write was answered as PostgREST does, with nothing, or it may have gone to some other server."""
    if answer.data:
        raise StoreUnavailable("the address does not answer as a data API: check SUPABASE_URL")


def iso_time(text: str) -> str:
    """Return the time if it is ISO 8601, as PostgreSQL also reads words such as "yesterday"; else StoreRejected."""
    if not _ISO_TIME.fullmatch(text):
        raise StoreRejected("a time is not ISO 8601")
    return text
