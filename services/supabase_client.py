"""The one client of a Supabase project's data API, shared by the store and the Vault.

It holds no sign-in: the postgrest module of supabase-py is used by itself, because the full client rewrites its own
`Authorization` header whenever somebody signs in on it, and sends `sb_secret_` keys as bearer tokens too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from postgrest import AsyncPostgrestClient

MAX_CONNECTIONS = 20
"""Requests at a time; one takes 2 to 20 ms, so this is some 1000 a second. More wait for their turn."""

TIMEOUT = httpx.Timeout(5.0, connect=2.0)
"""Seconds a request may wait for a step of the network; the callers' own deadlines bound the whole."""


def open_http() -> httpx.AsyncClient:
    """Return the HTTP client for everything Supabase: data, Auth, Vault. Close it when the server has drained.

    HTTP/1.1 with kept connections; proxies named in the environment are used, redirects are not followed.
    """
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=30
    )
    return httpx.AsyncClient(timeout=TIMEOUT, limits=limits)


def open_data_client(supabase_url: str, service_key: str, http: httpx.AsyncClient) -> AsyncPostgrestClient:
    """Return a client of the data API as `service_role`; never close it, it would close the shared HTTP client.

    Source: Supabase, "Understanding API keys": an `sb_secret_` key goes into `apikey` alone, a legacy key is a JWT and
    goes into `Authorization` too.
    """
    from postgrest import AsyncPostgrestClient  # with pydantic 11 MB, which a database of its own does not need

    headers = {"apikey": service_key}
    if not service_key.startswith("sb_"):
        headers["Authorization"] = f"Bearer {service_key}"
    # Its own retries wait 1, 2 and 4 s, longer than anybody who talks.
    return AsyncPostgrestClient(f"{supabase_url}/rest/v1", headers=headers, http_client=http, retry_enabled=False)
