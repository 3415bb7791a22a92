"""The shipped nginx site: taken by nginx and gixy, and in front of a real server it keeps its promises."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websocket

from handlers.base import PING_INTERVAL_S, PING_TIMEOUT_S
from tests.fakes.browser import Browser, eventually
from tests.fakes.gateway import Gateway
from tests.fakes.nginx import NAME, SITE, Nginx

SECRET = "canary-of-the-query-"
"""Stands in a token that no log of nginx's may hold."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A running server."""
    with Gateway({"MAX_SESSIONS_PER_USER": "100", "PUBLIC_URL": f"https://{NAME}"}) as running:
        yield running


@pytest.fixture
def nginx(gateway: Gateway, tmp_path: Path) -> Iterator[Nginx]:
    """The site in front of it."""
    with Nginx(tmp_path, [gateway.server.port]) as running:
        yield running


def status(answer: bytes) -> int:
    """Return the status of an HTTP answer."""
    return int(answer.split(b" ", 2)[1])


def test_nginx_takes_the_site(tmp_path: Path) -> None:
    """nginx -t has nothing to say about the site inside an ordinary configuration."""
    done = subprocess.run(Nginx(tmp_path, [8081, 8082]).arguments("-t"), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr + (tmp_path / "main.log").read_text()


def test_gixy_finds_nothing() -> None:
    """The auditor of nginx configurations has no finding of any severity."""
    gixy = Path(sys.executable).with_name("gixy")
    done = subprocess.run([str(gixy), "--format", "json", str(SITE)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


def test_no_log_format_names_a_query() -> None:
    """No log format of the site holds a query, and every error log, which knows no format, is for disasters."""
    text = SITE.read_text(encoding="utf-8")
    formats = re.findall(r"log_format [^;]+;", text)
    assert formats
    assert [f for f in formats if re.search(r"\$(request\b|request_uri|args|query_string|http_)", f)] == []
    assert set(re.findall(r"error_log \S+ (\w+);", text)) == {"crit"}
    assert len(re.findall(r"^ *error_log ", text, re.M)) == len(re.findall(r"^server \{", text, re.M))


def test_times_fit_the_servers_pings() -> None:
    """A live but silent socket is kept: nginx waits at least twice as long as a ping and its deadline take."""
    waits = re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", SITE.read_text(encoding="utf-8"))
    assert len(waits) == 2
    assert all(2 * (PING_INTERVAL_S + PING_TIMEOUT_S) <= float(wait) <= 120 for wait in waits)


def test_browser_talks_over_wss_and_no_log_has_its_token(gateway: Gateway, nginx: Nginx, tmp_path: Path) -> None:
    """A conversation over TLS works, and neither log of nginx's, nor the server's, holds the token it came with."""
    token = gateway.token()
    address = f"{nginx.wss_url}?token={token}&agent_id={gateway.agent_id}"
    socket = websocket.create_connection(address, socket=nginx.connect(), suppress_origin=True)
    browser = Browser.__new__(Browser)
    browser.socket, browser.events, browser.frames = socket, [], []
    browser.live()
    browser.type_text("hello")
    assert browser.answer()
    browser.leave()
    assert eventually(lambda: " GET / 101 " in nginx.access_log(), 5.0)
    written = nginx.access_log() + nginx.error_log() + (tmp_path / "main.log").read_text() + gateway.log_text()
    assert token not in written and token.rpartition(".")[2] not in written


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_log_has_the_token_of_a_request_that_failed(tmp_path: Path, method: str) -> None:
    """With every instance away nginx answers 502, and its error log, which would hold the query, stays empty."""
    with Nginx(tmp_path, [9, 9]) as nginx:  # the discard port, on which nobody listens
        assert status(nginx.get(f"/?token={SECRET}a&agent_id=b", method=method)) == 502
        assert status(nginx.get(f"/api/twilio/media-stream?token={SECRET}b", method=method)) == 502
        assert nginx.access_log().count(" 502 ") == 2
        assert SECRET not in nginx.access_log() and nginx.error_log() == ""


def test_the_quiet_error_log_is_what_keeps_the_token_out(tmp_path: Path) -> None:
    """At nginx's usual level the error log does hold the query: the shipped level is not an ornament."""
    with Nginx(tmp_path, [9], error_level="error") as nginx:
        nginx.get(f"/?token={SECRET}a")
        assert SECRET in nginx.error_log()


def test_redirect_to_tls_leaves_the_query_out(nginx: Nginx) -> None:
    """What came in the clear is sent to https by its path alone, and a line break in it stays encoded."""
    plain = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=10)
    plain.request("GET", "/client/%0d%0aX-Forged:%201?token=" + SECRET)
    answer = plain.getresponse()
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://{NAME}/client/%0d%0aX-Forged:%201"
    assert "X-Forged" not in answer.headers and SECRET not in nginx.access_log()
    plain.close()


def test_browsers_are_limited_by_address_and_twilio_is_not(nginx: Nginx) -> None:
    """80 requests at once from one address meet 429 at the page, none at Twilio's doors nor at the main app's."""

    def ask(path: str, source: str, method: str) -> dict[int, int]:
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda _: status(nginx.get(path, source, method)), range(80)))
        return {code: answers.count(code) for code in set(answers)}

    pages = ask("/", "127.0.1.1", "GET")
    assert set(pages) == {200, 429} and pages[429] >= 10
    assert 429 not in ask("/api/twilio/voice", "127.0.1.2", "POST")
    assert 429 not in ask("/api/calls/CA0123456789abcdef0123456789abcdef", "127.0.1.2", "GET")
    assert status(nginx.get("/", "127.0.1.3")) == 200  # others do not feel it


def test_health_is_for_this_machine_and_metrics_for_nobody(nginx: Nginx) -> None:
    """/health is answered to this machine's address only, /metrics never."""
    assert status(nginx.get("/health")) == 200
    assert status(nginx.get("/health", "127.0.1.4")) == 403
    assert status(nginx.get("/metrics")) == 404


def test_long_token_is_refused_before_the_server_sees_it(gateway: Gateway, nginx: Nginx) -> None:
    """A request line over 8 KiB is answered 414 by nginx."""
    assert status(nginx.get("/?token=" + "x" * 9_000)) == 414


def test_an_instance_that_is_away_is_not_noticed(gateway: Gateway, tmp_path: Path) -> None:
    """With one of two instances gone, pages, webhooks and sockets all get through."""
    with Nginx(tmp_path, [9, gateway.server.port]) as nginx:
        assert [status(nginx.get("/")) for _ in range(8)] == [200] * 8
        answers = {status(nginx.get("/api/twilio/voice", method="POST")) for _ in range(8)}
        assert answers == {400}  # by the server: the form is empty
