"""The main app, asked for the configuration of a call that nobody announced here.

`GET {MAIN_APP_URL}/api/twilio/call-config/{CallSid}` with `Authorization: Bearer INTERNAL_API_KEY` (contract,
section 5). The answer has the form of the body of `PUT /api/calls/{CallSid}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

DEADLINE_S = 3.0
"""A caller hears nothing meanwhile."""

MAX_ANSWER_BYTES = 262_144
"""A long prompt has 30 KB and twenty tools as much again; more is a mistake."""


class MainAppUnavailable(Exception):
    """Raised when the main app gave no usable answer; the text is a cause without content, such as `HTTP 401`."""


class MainApp:
    """The app that knows calls.

    Args:
        client: Plain HTTP client; closed by whoever made it.
        base_url: MAIN_APP_URL.
        internal_key: INTERNAL_API_KEY, the same on both sides.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, internal_key: str) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._internal_key = internal_key

    def __repr__(self) -> str:
        return f"MainApp({self._base_url!r})"

    async def call_config(self, call_sid: str) -> Mapping[str, Any] | None:
        """Return the configuration of a call as the app's JSON object, within 3 s; None when it knows no such call.

        Give it to `core.calls.call_from_config`.

        Raises:
            MainAppUnavailable: If the app cannot be reached, refuses, redirects, or answers something else.
        """
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, body = await self._fetch(f"{self._base_url}/api/twilio/call-config/{quote(call_sid, safe='')}")
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
            raise MainAppUnavailable(type(error).__name__) from None
        if status == 404:
            return None
        if status != 200:
            raise MainAppUnavailable(f"HTTP {status}")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise MainAppUnavailable("not JSON") from None
        if not isinstance(answer, dict):
            raise MainAppUnavailable("not a JSON object")
        return answer

    async def _fetch(self, url: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._internal_key}", "Accept": "application/json"}
        request = self._client.build_request("GET", url, headers=headers, timeout=DEADLINE_S)
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise MainAppUnavailable("answer too long")
        finally:
            await response.aclose()
        return response.status_code, bytes(body)
