"""What Supabase Auth itself says of a token: the only check that sees sign-outs, bans and deletions."""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import httpx

CACHE_S = 60.0
"""How long an answer is believed: a sign-out is noticed by the next connection a minute later at most."""

CACHE_SIZE = 10_000
"""Answers kept, some 200 bytes each; ten times MAX_CONNECTIONS' default. The longest unused goes first."""

ASK_DEADLINE_S = 2.0
"""A caller is waiting; Auth answers in 3 to 200 ms."""

MAX_ASKING = 16
"""Questions at a time, so that a storm of sign-ins does not become one at Auth."""

QUEUE_DEADLINE_S = 2.0
"""How long a question waits for its turn; it then counts as unanswered, but not as a failure of Auth."""

FAILURES_TO_REST = 3
REST_S = 10.0
"""After three failures in a row nobody waits for Auth during ten seconds; then the next caller tries again."""


REVOKED_CODES = frozenset({"session_not_found", "session_expired", "user_not_found", "user_banned"})
"""Error codes of Auth that end a whole sign-in. Source: Supabase Auth, "Error codes"."""


class Standing(enum.Enum):
    """What Auth knows of a token."""

    GOOD = "good"
    REVOKED = "revoked"
    """Signed out, banned or deleted: true of every token of this sign-in."""
    REFUSED = "refused"
    """This token is not accepted, such as one that has just expired; a fresh one of the same sign-in may be."""
    UNKNOWN = "unknown"
    """Auth did not answer, or not about the token."""


class AuthServer:
    """Asks `GET /auth/v1/user`, sparingly."""

    def __init__(self, url: str, apikey: str, http: httpx.AsyncClient, monotonic: Callable[[], float]) -> None:
        self._url = url
        self._apikey = apikey
        self._http = http
        self._monotonic = monotonic
        self._answers: OrderedDict[str, tuple[float, Standing]] = OrderedDict()
        self._asking = asyncio.Semaphore(MAX_ASKING)
        self._failures = 0
        self._rests_until = float("-inf")

    def __repr__(self) -> str:
        return f"AuthServer({self._url!r})"

    @property
    def reachable(self) -> bool:
        """False when the last question got no answer."""
        return self._failures == 0

    async def standing(self, token: str, user_id: str, cache_key: str) -> Standing:
        """Return what Auth knows of the token; good and revoked are kept for 60 s under the cache key.

        Args:
            token: The user's access token.
            user_id: Whom the token speaks for; an answer about somebody else is a refusal.
            cache_key: Names the sign-in if the token's signature is known to be good, else this very token.
        """
        kept = self._kept(cache_key)
        if kept is not None:
            return kept
        if self._monotonic() < self._rests_until:
            return Standing.UNKNOWN
        try:
            async with asyncio.timeout(QUEUE_DEADLINE_S):
                await self._asking.acquire()
        except TimeoutError:
            return Standing.UNKNOWN
        try:
            return self._kept(cache_key) or self._noted(cache_key, await self._ask(token, user_id))
        finally:
            self._asking.release()

    def _noted(self, cache_key: str, answer: Standing) -> Standing:
        if answer is Standing.UNKNOWN:
            self._failures += 1
            if self._failures >= FAILURES_TO_REST:
                self._rests_until = self._monotonic() + REST_S
            return answer
        self._failures = 0
        if answer is not Standing.REFUSED:
            self._keep(cache_key, answer)
        return answer

    def _kept(self, cache_key: str) -> Standing | None:
        until, answer = self._answers.get(cache_key, (float("-inf"), Standing.UNKNOWN))
        if self._monotonic() >= until:
            return None
        self._answers.move_to_end(cache_key)
        return answer

    def _keep(self, cache_key: str, answer: Standing) -> None:
        self._answers[cache_key] = (self._monotonic() + CACHE_S, answer)
        self._answers.move_to_end(cache_key)
        while len(self._answers) > CACHE_SIZE:
            self._answers.popitem(last=False)

    async def _ask(self, token: str, user_id: str) -> Standing:
        headers = {"apikey": self._apikey, "Authorization": f"Bearer {token}"}
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                response = await self._http.get(self._url, headers=headers, timeout=ASK_DEADLINE_S)
            return _read(response.status_code, response.json(), user_id)
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError):
            return Standing.UNKNOWN


def _read(status: int, body: Any, user_id: str) -> Standing:
    """Read an answer of Auth, whose error code is in `error_code`, or in `code` from API version 2024-01-01 on."""
    if not isinstance(body, Mapping):
        return Standing.UNKNOWN
    if status == httpx.codes.OK:
        return Standing.GOOD if body.get("id") == user_id else Standing.REFUSED
    if status not in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}:
        return Standing.UNKNOWN
    code = body.get("error_code") or body.get("code")
    if isinstance(code, str):
        return Standing.REVOKED if code in REVOKED_CODES else Standing.REFUSED
    # Older versions of Auth have `msg` and no code. The key gateway in front of Auth, when it dislikes our apikey,
    # answers 401 with `message` and `hint`: that says nothing of the user.
    return Standing.REFUSED if "msg" in body else Standing.UNKNOWN
