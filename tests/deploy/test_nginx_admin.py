"""The operator's page behind its shipped nginx site with TLS: an admin gets in and sees it live, others do not."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local_postgres import free_port
from services.auth import load_development_secret, mint_development_token
from tests.fakes.browser import AGENTS, USER_ID, Browser
from tests.fakes.gateway import Gateway
from tests.fakes.nginx import ADMIN_NAME, ADMIN_SITE, SITE, Nginx

ORIGIN = f"https://{ADMIN_NAME}"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A server that shows its operator's page to others."""
    with Gateway({"ADMIN_PUBLIC_URL": ORIGIN, "ADMIN_PORT": str(free_port())}, seed=AGENTS) as running:
        yield running


@pytest.fixture
def nginx(gateway: Gateway, tmp_path: Path) -> Iterator[Nginx]:
    """Both sites in front of it."""
    with Nginx(tmp_path, [gateway.server.port], admin_port=gateway.settings.admin_port) as running:
        yield running


def ask(
    nginx: Nginx, method: str, path: str, *, source: str = "127.0.0.1", **headers: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Return the answer of the admin's site, which is read as it comes; `body` among the headers is what is sent."""
    connection = http.client.HTTPConnection(ADMIN_NAME)
    connection.sock = nginx.connect(source, ADMIN_NAME)
    body = headers.pop("body", None)
    told = {"Host": ADMIN_NAME, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, body, told)
    return connection, connection.getresponse()


def asked(nginx: Nginx, method: str, path: str, *, source: str = "127.0.0.1", **headers: str) -> tuple[int, str, str]:
    """Return status, cookie and text of an answer."""
    connection, answer = ask(nginx, method, path, source=source, **headers)
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers.get("Set-Cookie", ""), text


def signed_in(gateway: Gateway, nginx: Nginx, *, is_admin: bool = True) -> tuple[int, str]:
    """Return the status of a sign-in by token, and the cookie it gave."""
    secret = load_development_secret(gateway.state_dir)
    token = mint_development_token(secret, USER_ID, ttl_s=60.0, now=time.time(), admin=is_admin)
    status, cookie, _ = asked(nginx, "POST", "/admin/session", Origin=ORIGIN, body=json.dumps({"token": token}))
    return status, cookie


def test_admin_sees_and_ends_a_live_session(gateway: Gateway, nginx: Nginx) -> None:
    """The sign-in's cookie is for HTTPS alone, pictures come at once and go on, and a session can be ended."""
    status, given = signed_in(gateway, nginx)
    assert status == 200 and "Secure" in given and "HttpOnly" in given and "SameSite=Strict" in given
    cookie = given.split(";")[0]
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        began = time.monotonic()
        connection, stream = ask(nginx, "GET", "/admin/stream", Cookie=cookie)
        pictures = [json.loads(line[6:]) for line in iter_lines(stream, 2)]
        assert [picture["overview"]["active"] for picture in pictures] == [1, 1]
        assert 0.9 < time.monotonic() - began < 5.0, "nginx passes each picture on as it comes"
        connection.close()
        me = json.loads(asked(nginx, "GET", "/admin/me", Cookie=cookie)[2])
        path, csrf = f"/admin/live/{conversation_id}/end", {"X_CSRF_Token": me["csrf"]}
        assert asked(nginx, "POST", path, Cookie=cookie, Origin="https://evil.example", **csrf)[0] == 403
        assert asked(nginx, "POST", path, Cookie=cookie, Origin=ORIGIN, **csrf)[0] == 200
        assert browser.end().code == 1000


def iter_lines(stream: http.client.HTTPResponse, count: int) -> Iterator[bytes]:
    """Give so many pictures of a stream, as they arrive."""
    while count:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            count -= 1
            yield line


def test_others_do_not_get_in(gateway: Gateway, nginx: Nginx) -> None:
    """Refused are a user who is no admin, a stranger, the local key, and whoever comes from a foreign address."""
    assert signed_in(gateway, nginx, is_admin=False) == (403, "")
    assert asked(nginx, "GET", "/admin/me")[0] == 401
    assert asked(nginx, "GET", f"/admin?key={gateway.server.admin._access.key}")[:2] == (401, "")
    assert asked(nginx, "GET", "/admin", source="127.0.1.9")[0] == 403
    assert nginx.get("/admin").split(b" ", 2)[1] == b"404", "the voice server's own name does not lead to the page"


def test_gixy_finds_nothing(tmp_path: Path) -> None:
    """The auditor of nginx configurations has no finding in both sites together."""
    both = tmp_path / "sites.conf"
    both.write_text(SITE.read_text(encoding="utf-8") + ADMIN_SITE.read_text(encoding="utf-8"), encoding="utf-8")
    gixy = Path(sys.executable).with_name("gixy")
    done = subprocess.run([str(gixy), "--format", "json", str(both)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr
