"""The keys a Supabase project publishes (JWKS), cached and fetched sparingly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import httpx

from .signatures import PinnedKey, published_keys

FRESH_S = 600.0
"""How long a key set is used without asking again; Supabase: do not cache longer than 10 minutes."""

REFETCH_PAUSE_S = 30.0
"""Least time between two fetches while a key set is at hand, or strangers' key ids would make us hammer Auth."""

FIRST_FETCH_PAUSE_S = 2.0
"""The same while none was ever had: nobody can sign in until one arrives."""

FETCH_DEADLINE_S = 2.0
"""A caller is waiting; Auth's edge answers from its cache within some 100 ms."""

MAX_BODY_BYTES = 256 * 1024
"""A key is under 1 KiB; far more is not a key set."""


class SigningKeys:
    """The published keys of one issuer.

    The last good set is kept while Auth is away, so that an outage locks nobody out. One fetch runs at a time, in a
    task of its own: a caller who leaves does not end it for the others.
    """

    def __init__(self, url: str, http: httpx.AsyncClient, monotonic: Callable[[], float]) -> None:
        self._url = url
        self._http = http
        self._monotonic = monotonic
        self._keys: Mapping[tuple[str, str], PinnedKey] | None = None
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None
        self.reachable = True
        """False when the last fetch failed; True before the first."""

    @property
    def loaded(self) -> bool:
        """True once a key set was had."""
        return self._keys is not None

    @property
    def count(self) -> int:
        """Number of usable keys at hand; a project that signs with HS256 publishes none."""
        return len(self._keys or ())

    async def key(self, kid: str, algorithm: str) -> PinnedKey | None:
        """Return the key of this id and algorithm, after asking Auth when the set is old or the id unknown."""
        if self._monotonic() - self._fetched_at >= FRESH_S:
            await self.refresh()
        found = self._known(kid, algorithm)
        if found is None:
            await self.refresh()
            found = self._known(kid, algorithm)
        return found

    def purge(self) -> None:
        """Forget all keys, and when they were asked for: the next look-up fetches."""
        self._keys = None
        self._fetched_at = self._attempted_at = float("-inf")

    async def refresh(self) -> None:
        """Fetch the key set unless that was just tried; afterwards the best set there is, is in use."""
        if self._fetch_task is None:
            pause = REFETCH_PAUSE_S if self.loaded else FIRST_FETCH_PAUSE_S
            now = self._monotonic()
            if now - self._attempted_at < pause:
                return
            self._attempted_at = now
            self._fetch_task = asyncio.create_task(self._fetch(), name="auth: fetch signing keys")
        await asyncio.shield(self._fetch_task)

    def _known(self, kid: str, algorithm: str) -> PinnedKey | None:
        return self._keys.get((kid, algorithm)) if self._keys else None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_DEADLINE_S):
                response = await self._http.get(self._url, timeout=FETCH_DEADLINE_S)
            if response.status_code != httpx.codes.OK or len(response.content) > MAX_BODY_BYTES:
                raise ValueError("not a key set")
            self._keys = published_keys(response.json()["keys"])
            self._fetched_at = self._monotonic()
            self.reachable = True
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, KeyError, RecursionError):
            self.reachable = False  # the last good set stays in use
        finally:
            self._fetch_task = None
