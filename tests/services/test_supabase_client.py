"""The shared client of the data API: what it sends, and what it leaves alone."""

from __future__ import annotations

import asyncio

import pytest

from services.supabase_client import MAX_CONNECTIONS, open_data_client, open_http
from tests.fakes.scripted_http import Answer, Received, ScriptedHttp


def sent(key: str) -> Received:
    """Return a request as it arrives at the data API."""

    async def run(url: str) -> None:
        async with open_http() as http:
            await open_data_client(url, key, http).from_("agents").select("id").execute()
            assert not {"apikey", "authorization"} & set(http.headers)

    with ScriptedHttp({"/rest/v1/agents": Answer(200, [])}) as server:
        asyncio.run(run(server.url))
        return server.received[0]


@pytest.mark.parametrize(("key", "bearer"), [("sb_secret_test", None), ("eyJlegacy", "Bearer eyJlegacy")])
def test_only_a_legacy_key_is_sent_as_a_bearer_token(key: str, bearer: str | None) -> None:
    """`sb_secret_` keys go into `apikey` alone; legacy keys are JWTs and PostgREST takes the role from the bearer."""
    headers = sent(key).headers
    assert headers["apikey"] == key
    assert headers.get("authorization") == bearer


def test_no_browser_is_imitated() -> None:
    """A secret key is refused to browsers, so the User-Agent must not look like one."""
    assert "mozilla" not in sent("sb_secret_test").headers["user-agent"].lower()


def test_connections_are_bounded() -> None:
    """However many callers there are, so many requests are open at a time."""
    here, most = [0], [0]

    def count(_: Received) -> Answer:
        here[0] += 1
        most[0] = max(most[0], here[0])
        here[0] -= 1
        return Answer(200, [])

    async def run(url: str) -> None:
        async with open_http() as http:
            client = open_data_client(url, "sb_secret_test", http)
            await asyncio.gather(*(client.from_("agents").select("id").execute() for _ in range(60)))

    with ScriptedHttp({"/rest/v1/agents": count}) as server:
        asyncio.run(run(server.url))
        assert len(server.received) == 60
        assert most[0] <= MAX_CONNECTIONS
