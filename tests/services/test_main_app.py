"""The main app is asked for a call within a deadline, and whatever it answers is taken for no more than it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

import services.main_app as main_app_service
from services.main_app import MAX_ANSWER_BYTES, MainApp, MainAppUnavailable
from tests.fakes.raw_http import Answering, RawHttp, Request, reply

CALL = "CA" + "3" * 32
KEY = "internal-key-of-this-test"


def asked(answering: Answering, call_sid: str = CALL) -> tuple[Mapping[str, Any] | None, list[Request]]:
    """Ask an app on loopback: its answer and the requests it got."""

    async def run() -> tuple[Mapping[str, Any] | None, list[Request]]:
        async with RawHttp(answering) as server, httpx.AsyncClient(trust_env=False) as client:
            return await MainApp(client, f"{server.url}/app/", KEY).call_config(call_sid), server.requests

    return asyncio.run(run())


def test_request_is_the_documented_one() -> None:
    """One GET below MAIN_APP_URL, with the internal key as bearer token; the object comes back as it is."""
    answer, (request,) = asked(lambda _: reply(200, b'{"agent_id": "a", "config": {"voice": "ash"}}'))
    assert answer == {"agent_id": "a", "config": {"voice": "ash"}}
    assert (request.method, request.target) == ("GET", f"/app/api/twilio/call-config/{CALL}")
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_unknown_call_is_none() -> None:
    """404 says that the app knows no such call, which is no failure."""
    assert asked(lambda _: reply(404, b"<html></html>", "text/html"))[0] is None


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (reply(401, b"{}"), "HTTP 401"),
        (reply(500), "HTTP 500"),
        (reply(204), "HTTP 204"),
        (reply(307, b"", Location="http://127.0.0.1/elsewhere"), "HTTP 307"),
        (reply(200, b"secret words"), "not JSON"),
        (reply(200, b"[" * 100_000), "not JSON"),
        (reply(200, b'["secret words"]'), "not a JSON object"),
        (reply(200, b'"' + b"x" * MAX_ANSWER_BYTES + b'"'), "answer too long"),
        (b"nonsense\r\n\r\n", "RemoteProtocolError"),
    ],
)
def test_unusable_answer_is_named_without_its_words(answer: bytes, cause: str) -> None:
    """Refusals, redirects, nonsense and too much of it end in a cause that repeats nothing."""
    with pytest.raises(MainAppUnavailable) as caught:
        asked(lambda _: answer)
    assert str(caught.value) == cause
    assert "secret" not in repr(caught.value)


def test_redirect_is_not_followed_with_the_key() -> None:
    """An app that points elsewhere does not send our key there."""
    requests: list[Request] = []

    def answer(request: Request) -> bytes:
        requests.append(request)
        return reply(302, b"", Location="/somewhere/else")

    with pytest.raises(MainAppUnavailable):
        asked(answer)
    assert len(requests) == 1


def test_silent_app_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller waits no longer than the deadline, also when the answer drips."""
    monkeypatch.setattr(main_app_service, "DEADLINE_S", 0.2)

    async def never(_: Request) -> bytes:
        await asyncio.Event().wait()
        return b""

    began = time.monotonic()
    with pytest.raises(MainAppUnavailable, match="Timeout"):
        asked(never)
    assert time.monotonic() - began < 3


def test_answer_at_the_limit_is_taken() -> None:
    """The cap is on more than the largest answer there is a reason for."""
    body = json.dumps({"config": {"instructions": "x" * (MAX_ANSWER_BYTES - 100)}}).encode()
    answer, _ = asked(lambda _: reply(200, body))
    assert answer is not None


def test_sid_stays_inside_the_path_and_the_key_out_of_the_repr() -> None:
    """Odd sids lead nowhere else; printing the client shows no key."""
    _, (request,) = asked(lambda _: reply(404), "../x?y=1")
    assert request.target == "/app/api/twilio/call-config/..%2Fx%3Fy%3D1"
    assert KEY not in repr(MainApp(httpx.AsyncClient(), "https://app.example.com", KEY))
