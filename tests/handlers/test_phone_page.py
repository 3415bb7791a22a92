"""The telephone's page and its line over HTTP: who is given them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from handlers.phone_page import phone_routes

LINE = {"url": "ws://127.0.0.1:8082/softphone", "secret": "s" * 32, "numbers": []}


def get(path: str, headers: Mapping[str, str], method: str = "GET") -> httpx.Response:
    """Ask a server that has a telephone."""

    async def ask() -> httpx.Response:
        server = HTTPServer(Application(phone_routes(lambda: LINE), log_function=lambda _: None))
        (listening,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        try:
            async with httpx.AsyncClient() as client:
                address = f"http://127.0.0.1:{listening.getsockname()[1]}{path}"
                return await client.request(method, address, headers=dict(headers))
        finally:
            server.stop()
            await server.close_all_connections()

    return asyncio.run(ask())


def test_page_may_connect_to_the_line_and_is_locked_down() -> None:
    """The policy is the talk page's with one address more; nothing inline is in the page."""
    answer = get("/phone", {})
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f"connect-src 'self' {LINE['url']};" in policy and "unsafe" not in policy
    assert answer.headers["Permissions-Policy"].startswith("microphone=(self)")
    assert "style=" not in answer.text and "onclick" not in answer.text and "<script>" not in answer.text
    assert LINE["secret"] not in answer.text
    head = get("/phone", {}, method="HEAD")
    assert (head.status_code, head.content, head.headers["Content-Security-Policy"]) == (200, b"", policy)


def test_line_is_told_to_our_own_page() -> None:
    """Address, secret, numbers; never cached, never for another origin."""
    answer = get("/phone/line", {"Sec-Fetch-Site": "same-origin"})
    facts: dict[str, Any] = answer.json()
    assert facts == LINE
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(("path", "headers", "status"), [
    ("/phone/line", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("/phone/line", {"Sec-Fetch-Site": "same-site"}, 403),
    ("/phone/line", {"Host": "rebound.example:8080"}, 404),
    ("/phone", {"Host": "rebound.example:8080"}, 404),
    ("/phone", {"Host": "[nonsense"}, 404),
])
def test_strangers_get_nothing(path: str, headers: dict[str, str], status: int) -> None:
    """Another site's page, and a foreign name that leads to this machine."""
    answer = get(path, headers)
    assert answer.status_code in {status, 400}
    assert LINE["secret"] not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
def test_names_of_this_machine_are_served(host: str) -> None:
    """All three names of loopback."""
    assert get("/phone/line", {"Host": host}).status_code == 200
