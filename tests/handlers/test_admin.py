"""The operator's page over HTTP: who gets in, what is shown, what is written down about it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from services.admin_seat import page_facts
from services.auth import load_development_secret, mint_development_token
from tests.fakes.browser import PLAIN_ID, USER_ID, Browser, eventually
from tests.fakes.gateway import Gateway

DEADLINE_S = 30.0
PUBLIC = {"ADMIN_PUBLIC_URL": "https://voice.example.com"}

Make = Callable[..., Gateway]


def url_of(gateway: Gateway) -> str:
    """Return the printed address."""
    url = gateway.server.admin.url
    assert url is not None
    return url


def base_of(gateway: Gateway) -> str:
    """Return the page's origin, whatever address is printed."""
    server = gateway.server.admin._server
    assert server is not None
    port = next(iter(server._sockets.values())).getsockname()[1]
    return f"http://127.0.0.1:{port}"


@contextmanager
def visitor(gateway: Gateway) -> Iterator[httpx.Client]:
    """Lend a client without a session."""
    with httpx.Client(base_url=base_of(gateway), timeout=DEADLINE_S, trust_env=False) as client:
        yield client


@contextmanager
def operator(gateway: Gateway) -> Iterator[httpx.Client]:
    """Lend a client that came by the printed address and knows its CSRF value."""
    with visitor(gateway) as client:
        assert client.get(f"/admin?{urlsplit(url_of(gateway)).query}").status_code == 303
        client.headers["X-CSRF-Token"] = client.get("/admin/me").json()["csrf"]
        client.headers["Origin"] = base_of(gateway)
        yield client


def picture(client: httpx.Client, query: str = "") -> dict[str, Any]:
    """Return the first picture of the stream."""
    with client.stream("GET", f"/admin/stream{query}") as stream:
        assert stream.status_code == 200 and stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen: dict[str, Any] = json.loads(line.removeprefix("data: "))
                return seen
    raise AssertionError("the stream ended")


def audit_lines(gateway: Gateway) -> list[str]:
    """Return the audit lines of the log."""
    return [line for line in gateway.log_text().splitlines() if "audit=true" in line]


# ---------------------------------------------------------------------- who gets in


def test_printed_address_becomes_a_session(gateway: Gateway) -> None:
    """The key is traded for a cookie out of reach of scripts and other sites, and leaves the address."""
    with visitor(gateway) as client:
        answer = client.get(url_of(gateway))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/admin" in cookie
        page = client.get("/admin")
        assert page.status_code == 200 and "<h1>Operator</h1>" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
        assert client.get("/admin/me").json()["who"] == "local key"
    assert "key=" not in gateway.log_text()


@pytest.mark.parametrize("path", ["me", "stream", "past", f"past/{PLAIN_ID}", "costs", "doctor"])
def test_nothing_is_shown_without_a_session(gateway: Gateway, path: str) -> None:
    """Every door but the page's own answers 401 to a stranger and to a made-up cookie."""
    with visitor(gateway) as client:
        assert client.get(f"/admin/{path}").status_code == 401
        port = urlsplit(base_of(gateway)).port
        client.cookies.set(f"voice_admin_{port}", "made-up", path="/admin")
        answer = client.get(f"/admin/{path}")
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("query", ["", "?key=", "?key=wrong", "?key=%FF"])
def test_page_without_the_key_says_where_it_is(gateway: Gateway, query: str) -> None:
    """A stranger gets no page and no cookie, a person a sentence that helps."""
    with visitor(gateway) as client:
        answer = client.get(f"/admin{query}")
        assert answer.status_code in {400, 403} and "Set-Cookie" not in answer.headers
        assert "Operator</h1>" not in answer.text
        if "FF" not in query:
            assert "./voice status" in answer.text


def test_foreign_host_is_refused(gateway: Gateway) -> None:
    """A name that was made to lead here (DNS rebinding) gets nothing, with the right key and cookie neither."""
    with operator(gateway) as client:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            assert client.get(url_of(gateway), headers={"Host": host}).status_code in {400, 403}
            assert client.get("/admin/me", headers={"Host": host}).status_code in {400, 403}
        port = urlsplit(base_of(gateway)).port
        headers = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
        assert client.get("/admin/me", headers=headers).status_code == 200


def test_foreign_page_is_refused(gateway: Gateway) -> None:
    """Requests another site's page makes are refused, by their Origin or by Fetch Metadata."""
    with operator(gateway) as client:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://[", f"{base_of(gateway)}1"):
            assert client.get("/admin/me", headers={"Origin": origin}).status_code == 403
            assert client.get(url_of(gateway), headers={"Origin": origin}).status_code == 403
        for site in ("cross-site", "same-site"):
            assert client.get("/admin/me", headers={"Sec-Fetch-Site": site}).status_code == 403
        visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert client.get("/admin", headers=visit).status_code == 200, "a link leads to the page"
        assert client.get("/admin/me", headers=visit).status_code == 403


def test_change_needs_origin_and_csrf_value(gateway: Gateway) -> None:
    """A session is ended only by the page itself."""
    with operator(gateway) as client, Browser(gateway) as browser:
        path = f"/admin/live/{browser.live()}/end"
        own = {"Origin": base_of(gateway)}
        for headers in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "wrong"}, {"Origin": "https://evil.example"}):
            assert client.post(path, headers={**own, **headers}).status_code == 403
        del client.headers["Origin"]
        assert client.post(path).status_code == 403
        assert client.post(path, headers=own).status_code == 200
        assert browser.end().code == 1000


def test_sign_out_ends_the_session(gateway: Gateway) -> None:
    """After it the cookie opens nothing."""
    with operator(gateway) as client:
        assert client.delete("/admin/session").json() == {"signed_in": False}
        assert client.get("/admin/me").status_code == 401


def test_exposed_page_takes_admins_only(make: Make) -> None:
    """With ADMIN_PUBLIC_URL the key opens nothing; a token does when it is an admin's."""
    gateway = make(PUBLIC)
    assert url_of(gateway) == "https://voice.example.com/admin"
    own = {"Host": "voice.example.com", "Origin": "https://voice.example.com"}
    secret = load_development_secret(gateway.state_dir)
    with visitor(gateway) as client:
        client.headers.update(own)
        assert client.get(f"/admin?key={gateway.server.admin._access.key}").status_code == 401
        assert "Admin’s token" in client.get("/admin").text
        for token, status in (("nonsense", 401), (gateway.token(), 403)):
            assert client.post("/admin/session", json={"token": token}).status_code == status
        assert client.post("/admin/session", content=b"[1]").status_code == 400
        admins = mint_development_token(secret, USER_ID, ttl_s=60.0, now=time.time(), admin=True)
        answer = client.post("/admin/session", json={"token": admins})
        assert answer.status_code == 200 and "Secure" in answer.headers["Set-Cookie"]
        assert admins not in gateway.log_text()
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        me = client.get("/admin/me", headers={"Cookie": cookie})
        assert me.json()["who"] == f"user {USER_ID}" and me.json()["exposed"] is True
    assert any("admin page refused" in line for line in audit_lines(gateway))


def test_token_opens_nothing_where_the_key_is_enough(gateway: Gateway) -> None:
    """The page that is not exposed takes no tokens."""
    with visitor(gateway) as client:
        answer = client.post("/admin/session", json={"token": "x"}, headers={"Origin": base_of(gateway)})
        assert answer.status_code == 403


# ---------------------------------------------------------------------- what is shown


def test_stream_shows_what_is_live(gateway: Gateway) -> None:
    """A picture has the sessions of all workers; the words of one only when it is opened, which is written down."""
    with operator(gateway) as client, Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("words-for-the-operator")
        browser.answer()
        seen = picture(client)
        assert [row["conversation_id"] for row in seen["overview"]["sessions"]] == [conversation_id]
        assert "words-for-the-operator" not in str(seen) and "open" not in seen
        opened = picture(client, f"?open={conversation_id}")
        assert "words-for-the-operator" in str(opened["open"]["transcript"])
    (line,) = [line for line in audit_lines(gateway) if "transcript viewed" in line]
    assert conversation_id in line and 'operator="local key"' in line
    assert "words-for-the-operator" not in gateway.log_text()


def test_stream_ends_with_the_session(gateway: Gateway) -> None:
    """Who signs out sees no further picture."""
    with operator(gateway) as client, client.stream("GET", "/admin/stream") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        with httpx.Client(base_url=base_of(gateway), cookies=client.cookies, headers=client.headers) as other:
            assert other.delete("/admin/session").status_code == 200
        rest = list(lines)
    assert len([line for line in rest if line]) <= 2


def test_streams_are_bounded_and_given_back(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page more than may look at once is refused; a page that goes leaves its place."""
    monkeypatch.setattr("handlers.admin_doors.MAX_STREAMS", 1)
    with operator(gateway) as client:
        with client.stream("GET", "/admin/stream") as stream:
            lines = stream.iter_lines()  # kept: without the iterator httpx closes the stream
            assert next(lines)
            with client.stream("GET", "/admin/stream") as refused:
                assert refused.status_code == 503
        assert eventually(lambda: gateway.server.admin._watch.streams == 0, 5.0)
        assert picture(client)["overview"]["active"] == 0


@pytest.mark.parametrize("path", ["stream?open=nonsense", "past?limit=x", "past?before=x", "past?before=2026-11-20",
                                  f"past/{PLAIN_ID}?format=pdf"])  # fmt: skip
def test_nonsense_is_refused(gateway: Gateway, path: str) -> None:
    """A request that cannot be meant is 400 and says why."""
    with operator(gateway) as client:
        answer = client.get(f"/admin/{path}")
        assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_past_conversations_are_found_read_and_exported(gateway: Gateway) -> None:
    """The list shows no words; reading and exporting do, and each leaves an audit line without them."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        browser.type_text("words-that-were-stored")
        browser.answer()
        browser.leave()
    with operator(gateway) as client:
        def ended() -> list[dict[str, Any]]:
            query = f"?agent_id={PLAIN_ID}&status=client_left&before=2999-01-01T00:00:00Z"
            found: list[dict[str, Any]] = client.get(f"/admin/past{query}").json()["conversations"]
            return found

        (row,) = eventually(ended, 5.0)
        assert (row["id"], row["agent_name"], row["turn_count"] >= 1) == (conversation_id, "Plain", True)
        assert "words-that-were-stored" not in str(row)
        assert client.get("/admin/past?status=drain").json()["conversations"] == []
        read = client.get(f"/admin/past/{conversation_id}").json()
        assert read["messages"][0]["content"] == "words-that-were-stored"
        text = client.get(f"/admin/past/{conversation_id}?format=text")
        assert "Person: words-that-were-stored" in text.text and "attachment" in text.headers["Content-Disposition"]
        assert client.get(f"/admin/past/{conversation_id}?format=json").json()["id"] == conversation_id
        days = client.get("/admin/costs").json()["days"]
        assert len(days) == 30 and days[-1]["conversations"] == 1 and days[-1]["cost_usd"] > 0
    told = [line for line in audit_lines(gateway) if conversation_id in line]
    assert ["viewed" in line for line in told] == [True, False, False]
    assert "words-that-were-stored" not in gateway.log_text()


def test_what_is_not_there_is_not_found(gateway: Gateway) -> None:
    """Unknown conversations and addresses are 404, for reading and for ending."""
    nobody = "00000000-0000-4000-8000-00000000dead"
    with operator(gateway) as client:
        assert client.get(f"/admin/past/{nobody}").status_code == 404
        assert client.post(f"/admin/live/{nobody}/end").status_code == 404
        assert client.get("/admin/elsewhere").status_code == 404
        assert client.get("/").headers["Location"] == "/admin"
        assert client.get("/client/admin/admin.js").headers["Content-Type"].startswith("text/javascript")


def test_database_that_is_away_is_said(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past conversations and costs answer 503; what is live goes on."""
    from services.store import StoreUnavailable

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away")

    with operator(gateway) as client:
        for name in ("conversations", "cost_by_day"):
            monkeypatch.setattr(gateway.server.context.store, name, away)
        for path in ("past", f"past/{PLAIN_ID}", "costs"):
            assert client.get(f"/admin/{path}").status_code == 503
        assert picture(client)["overview"]["active"] == 0


# ---------------------------------------------------------------------- where it is shown


def test_word_is_left_for_the_command_line(gateway: Gateway) -> None:
    """`./voice status` finds the address in a file for the same user's eyes only."""
    run_dir = gateway.server.context.siblings.run_dir
    assert page_facts(run_dir) == {"url": url_of(gateway), "pid": os.getpid()}
    assert (run_dir / "admin.json").stat().st_mode & 0o777 == 0o600


def test_page_is_off_in_production(make: Make) -> None:
    """Unless ADMIN_PORT is set nothing listens."""
    production = {"NODE_ENV": "production", "SUPABASE_JWT_SECRET": "s" * 40}
    assert make(production).server.admin.url is None


def test_taken_port_stops_no_call(make: Make) -> None:
    """A server whose ADMIN_PORT is taken serves all the same, and says so."""
    first = make()
    port = urlsplit(url_of(first)).port
    second = make({"ADMIN_PORT": str(port)}, accidents=("no admin page",))
    assert second.server.admin.url is None and "no admin page  cause=EADDRINUSE" in second.log_text()
    with Browser(second) as browser:
        browser.live()
