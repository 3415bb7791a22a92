"""The HTTP doors through pytest-tornado: the real URL tables on a free port, Tornado's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.web import Application

from cli.demo_data import DEMO_AGENTS, DEMO_USER_ID
from core.settings import read_settings
from handlers.context import Context
from handlers.health import Health
from server import assemble, doors, health_doors
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore

pytestmark = [
    # pytest-tornado 0.8.1 makes its loop current the way Tornado 6.2 deprecated; it works until Tornado 7
    pytest.mark.filterwarnings("ignore:(make|clear)_current is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning"),  # the same, Python 3.12 on
]


@pytest.fixture
def context(io_loop: IOLoop, tmp_path: Path) -> Iterator[Context]:
    """Return the services of a server with the demo's agents, without listening."""
    settings = read_settings(
        {"DATABASE_URL": f"sqlite:///{tmp_path}/doors.db", "STATE_DIR": str(tmp_path), "OPENAI_API_KEY": "sk-unused",
         "OPENAI_REALTIME_URL": "ws://127.0.0.1:1/v1/realtime", "PORT": "0"}
    )  # fmt: skip

    async def begin() -> tuple[Context, list[Any]]:
        store = SqlStore.open(settings.database_url or "")
        await store.create_schema()
        for agent in DEMO_AGENTS:
            await store.put_agent(agent)
        await store.close()
        return await assemble(settings, "0-0")

    async def end() -> None:
        await made.spool.close(1.0)
        for close in closing:
            await close()

    made, closing = io_loop.run_sync(begin, timeout=10)
    yield made
    io_loop.run_sync(end, timeout=10)


@pytest.fixture
def app(context: Context) -> Application:
    """Return the URL table of PORT, for pytest-tornado's server."""
    return doors(context, Health(context))


@pytest.fixture
def token(context: Context) -> str:
    """Return a token of the demo's user."""
    secret = load_development_secret(context.settings.state_dir)
    return mint_development_token(secret, DEMO_USER_ID, ttl_s=60, now=time.time())


async def request(client: AsyncHTTPClient, url: str, **options: Any) -> HTTPResponse:
    """Return the answer, whatever its status."""
    return await client.fetch(url, raise_error=False, **options)


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.gen_test
async def test_health_is_told_without_secrets(http_client: AsyncHTTPClient, base_url: str, context: Context) -> None:
    """/health has the contract's fields and neither key nor addresses."""
    answer = await request(http_client, f"{base_url}/health")
    assert answer.code == 200
    report = json.loads(answer.body)
    assert {"status", "activeConnections", "maxConnections", "uptime", "timestamp", "version", "workers", "browser",
            "phone", "checks"} == set(report)  # fmt: skip
    assert {"database", "auth", "openai", "transcripts", "event_loop"} == set(report["checks"])
    assert report["status"] == "healthy"
    assert b"sk-unused" not in answer.body
    assert b"127.0.0.1" not in answer.body


@pytest.mark.gen_test
async def test_ready_while_there_is_room(http_client: AsyncHTTPClient, base_url: str, context: Context) -> None:
    """/ready is 200 until the server drains, and /health then says so with 503."""
    assert (await request(http_client, f"{base_url}/ready")).code == 200
    await context.connections.drain(0.0, _never())
    assert (await request(http_client, f"{base_url}/ready")).code == 503


def _never() -> Any:
    """Return an event that is not set, in the loop of the test."""
    import asyncio

    return asyncio.Event()


@pytest.mark.gen_test
async def test_metrics_are_not_on_the_public_port(http_client: AsyncHTTPClient, base_url: str) -> None:
    """/metrics is on HEALTH_PORT only."""
    assert (await request(http_client, f"{base_url}/metrics")).code == 404


@pytest.mark.gen_test
async def test_agents_of_the_signed_in_user_are_listed(http_client: AsyncHTTPClient, base_url: str, token: str) -> None:
    """/api/agents names agents and voices, by name, and is kept out of caches."""
    answer = await request(http_client, f"{base_url}/api/agents", headers=bearer(token))
    assert answer.code == 200
    listed = json.loads(answer.body)
    assert [agent["name"] for agent in listed["agents"]] == sorted(str(agent["name"]) for agent in DEMO_AGENTS)
    assert "marin" in listed["voices"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/agents"), ("POST", "/api/tickets")])
async def test_strangers_are_refused(
    http_client: AsyncHTTPClient, base_url: str, headers: dict[str, str], method: str, path: str
) -> None:
    """Without a valid token the JSON doors answer 401 in JSON."""
    options: dict[str, Any] = {"method": method, "headers": headers}
    if method == "POST":
        options["body"] = ""
    answer = await request(http_client, base_url + path, **options)
    assert answer.code == 401
    assert json.loads(answer.body)["error"]["code"] == "unauthorized"


@pytest.mark.gen_test
async def test_ticket_is_issued_once_a_request(http_client: AsyncHTTPClient, base_url: str, token: str) -> None:
    """/api/tickets gives a new ticket each time, for a minute."""
    answers = [
        json.loads((await request(http_client, f"{base_url}/api/tickets", method="POST", body="",
                                  headers=bearer(token))).body)
        for _ in range(2)
    ]  # fmt: skip
    assert [answer["expires_in"] for answer in answers] == [60, 60]
    assert answers[0]["ticket"] != answers[1]["ticket"]


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/agents/", "/health/x", "/.env", "/v1/models"])
async def test_unknown_paths_are_not_found(http_client: AsyncHTTPClient, base_url: str, method: str, path: str) -> None:
    """Every address that is no door answers 404 in JSON, and tells nothing about the server."""
    body = {"body": ""} if method in {"POST", "PUT"} else {}
    answer = await request(http_client, base_url + path, method=method, **body)
    assert answer.code == 404
    assert json.loads(answer.body)["error"]["code"] == "not_found"


@pytest.mark.gen_test
async def test_wrong_method_is_refused(http_client: AsyncHTTPClient, base_url: str, token: str) -> None:
    """A ticket is not had by GET: a link could then be made to fetch one."""
    answer = await request(http_client, f"{base_url}/api/tickets", headers=bearer(token))
    assert answer.code == 405


@pytest.mark.gen_test
async def test_page_is_served_where_sockets_are_opened(http_client: AsyncHTTPClient, base_url: str) -> None:
    """A GET of `/` that asks for no upgrade is answered with the talk page."""
    answer = await request(http_client, f"{base_url}/")
    assert answer.code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


class TestHealthPort:
    """The URL table of HEALTH_PORT."""

    @pytest.fixture
    def app(self, context: Context) -> Application:
        """Return that table instead."""
        return health_doors(context, Health(context))

    @pytest.mark.gen_test
    async def test_metrics_are_prometheus_text(self, http_client: AsyncHTTPClient, base_url: str) -> None:
        """/metrics answers in Prometheus' format, with its content type."""
        answer = await request(http_client, f"{base_url}/metrics")
        assert answer.code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"# TYPE " in answer.body

    @pytest.mark.gen_test
    async def test_doors_of_users_are_not_here(self, http_client: AsyncHTTPClient, base_url: str) -> None:
        """Nobody talks on the health port."""
        assert (await request(http_client, f"{base_url}/api/agents")).code == 404
        assert (await request(http_client, f"{base_url}/")).code == 404
