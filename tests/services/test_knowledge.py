"""Vector stores are searched together, within one deadline, and an answer always comes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

import services.knowledge as knowledge_service
from core.agent import KnowledgeSource
from services.knowledge import MAX_CHARS, NO_RESULT, Knowledge, base_from_realtime_url
from tests.fakes.raw_http import Answering, RawHttp, Request, reply


def page(*rows: tuple[float, str, str]) -> bytes:
    """A search page as the Realtime reference, section 11, shows it."""
    data = [
        {"file_id": "file-1", "filename": name, "score": score, "content": [{"type": "text", "text": text}]}
        for score, name, text in rows
    ]
    return reply(200, json.dumps({"object": "vector_store.search_results.page", "data": data}).encode())


def search(answering: Answering, *stores: str, query: str = "opening hours") -> tuple[str, list[Request], list[str]]:
    """Search stores on a loopback service: answer, requests, causes of failure."""

    async def run() -> tuple[str, list[Request], list[str]]:
        failures: list[str] = []
        async with RawHttp(answering) as server, httpx.AsyncClient(trust_env=False) as client:
            knowledge = Knowledge(client, base_url=f"{server.url}/v1/", on_failure=failures.append)
            sources = [KnowledgeSource(store, name=f"about {store}") for store in stores]
            answer = await knowledge.search("sk-test", sources, query)
            return answer, server.requests, failures

    return asyncio.run(run())


def test_request_is_the_documented_one() -> None:
    """One POST per store with key, beta header, query and number of results."""
    _, (request,), failures = search(lambda _: page(), "vs_a")
    assert (request.method, request.target) == ("POST", "/v1/vector_stores/vs_a/search")
    assert request.headers["authorization"] == "Bearer sk-test"
    assert request.headers["openai-beta"] == "assistants=v2"
    assert json.loads(request.body) == {"query": "opening hours", "max_num_results": 8, "rewrite_query": False}
    assert failures == []


def test_results_of_all_stores_are_merged_by_score() -> None:
    """The best passage of any store comes first, each under its file and source; the same text comes once."""
    pages = {
        "/v1/vector_stores/vs_a/search": page((0.4, "a.md", "late"), (0.9, "b.md", "first")),
        "/v1/vector_stores/vs_b/search": page((0.6, "c.md", "second"), (0.5, "d.md", "first")),
    }
    answer, _, _ = search(lambda request: pages[request.path], "vs_a", "vs_b")
    assert answer == "[b.md (about vs_a)]\nfirst\n\n[c.md (about vs_b)]\nsecond\n\n[a.md (about vs_a)]\nlate"


def test_stores_are_asked_at_the_same_time() -> None:
    """No store waits for another: each answers only when all requests are there."""
    arrived = 0

    async def together(request: Request) -> bytes:
        nonlocal arrived
        arrived += 1
        deadline = time.monotonic() + 2
        while arrived < 3 and time.monotonic() < deadline:  # noqa: ASYNC110 - counts connections of several tasks
            await asyncio.sleep(0.005)
        return page((0.5, "f", f"{arrived} at once"))

    answer, _, _ = search(together, "vs_a", "vs_b", "vs_c")
    assert "3 at once" in answer


def test_answer_is_trimmed() -> None:
    """However much is found, the model gets at most 8,000 characters, the best first."""
    answer, _, _ = search(lambda _: page(*((n / 10, f"{n}.md", f"{n} " * 1_500) for n in range(8))), "vs_a")
    assert 7_000 < len(answer) <= MAX_CHARS
    assert answer.startswith("[7.md")
    assert answer.endswith("…")


def test_slow_store_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline what is there is answered, and the late store is reported."""
    monkeypatch.setattr(knowledge_service, "DEADLINE_S", 0.3)

    async def slow(request: Request) -> bytes:
        if "vs_slow" in request.path:
            await asyncio.sleep(30)
        return page((0.5, "a.md", "quick"))

    began = time.monotonic()
    answer, _, failures = search(slow, "vs_slow", "vs_quick")
    assert time.monotonic() - began < 2
    assert answer == "[a.md (about vs_quick)]\nquick"
    assert len(failures) == 1
    assert failures[0] in {"deadline passed", "ReadTimeout"}


@pytest.mark.parametrize(
    ("answering", "cause"),
    [
        (lambda _: reply(401, b'{"error":{"message":"sk-test is wrong"}}'), "HTTP 401"),
        (lambda _: reply(302, b"", Location="http://127.0.0.1:1/"), "HTTP 302"),
        (lambda _: reply(200, b"<html>"), "malformed answer"),
        (lambda _: reply(200, b'{"data":{}}'), "malformed answer"),
        (lambda _: reply(200, b"[" * 50_000), "malformed answer"),
        (lambda _: reply(200, b"x" * 1_100_000), "answer too long"),
        (lambda _: b"garbage\r\n\r\n", "RemoteProtocolError"),
    ],
)
def test_failure_gives_no_result_and_its_cause(answering: Answering, cause: str) -> None:
    """Whatever the service does, the model is told that there is no result, and the operator why."""
    answer, _, failures = search(answering, "vs_a")
    assert (answer, failures) == (NO_RESULT, [cause])


@pytest.mark.parametrize("store", ["", "vs_", "file-1", "vs_a/../../models", "vs_a?x=1", "vs_ä", "vs_" + "a" * 200])
def test_id_of_another_shape_is_never_sent(store: str) -> None:
    """An id that is no vector store's cannot reach another address of the service."""
    answer, requests, failures = search(lambda _: page(), store)
    assert (answer, requests, failures) == (NO_RESULT, [], ["bad id"])


def test_nothing_found_and_nothing_to_search() -> None:
    """An empty page, rows of another shape and no stores at all are all no result."""
    rows: list[Any] = [1, {}, {"content": "x"}, {"content": [{"text": " "}], "score": 1}, {"content": [{"text": 5}]}]
    assert search(lambda _: page(), "vs_a")[0] == NO_RESULT
    assert search(lambda _: reply(200, json.dumps({"data": rows}).encode()), "vs_a")[0] == NO_RESULT
    assert search(lambda _: page())[0] == NO_RESULT


def test_unreachable_service_gives_no_result() -> None:
    """With nobody listening the answer is no result, at once."""

    async def run() -> tuple[str, list[str]]:
        failures: list[str] = []
        async with RawHttp(lambda _: page()) as server:
            address = server.url
        async with httpx.AsyncClient(trust_env=False) as client:
            knowledge = Knowledge(client, base_url=address, on_failure=failures.append)
            return await knowledge.search("sk-test", [KnowledgeSource("vs_a")], "x"), failures

    assert asyncio.run(run()) == (NO_RESULT, ["ConnectError"])


def test_key_that_no_header_can_carry_gives_no_result() -> None:
    """A key with a line break or letters outside ASCII is a failure like others, not an exception."""

    async def run(key: str) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await Knowledge(client, base_url="http://127.0.0.1:9").search(key, [KnowledgeSource("vs_a")], "x")

    assert asyncio.run(run("sk-ä")) == NO_RESULT
    assert asyncio.run(run("sk-\nx: y")) == NO_RESULT


@pytest.mark.parametrize(
    ("realtime", "base"),
    [
        ("wss://api.openai.com/v1/realtime", "https://api.openai.com/v1"),
        ("ws://127.0.0.1:9000/v1/realtime/", "http://127.0.0.1:9000/v1"),
        ("wss://host/openai/v1/realtime?version=1", "https://host/openai/v1"),
        ("wss://host/v1", "https://host/v1"),
    ],
)
def test_base_stands_beside_the_realtime_address(realtime: str, base: str) -> None:
    """The REST address of a service follows from its Realtime address."""
    assert base_from_realtime_url(realtime) == base
