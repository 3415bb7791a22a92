"""Every tool call is answered within its deadline, with a text the model can speak about."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

import services.toolbox as toolbox_service
from core.agent import Agent, KnowledgeSource, Tool
from services.ssrf import guarded_client
from services.toolbox import MAX_ANSWER_BYTES, MAX_ARGUMENT_BYTES, Toolbox, ToolResult
from tests.fakes.raw_http import Answering, RawHttp, Request, reply

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ORDER = {
    "type": "object",
    "properties": {"order": {"type": "integer"}, "note": {"type": "string", "maxLength": 10}},
    "required": ["order"],
    "additionalProperties": False,
}
ANYTHING: Mapping[str, Any] = {"type": "object"}


def agent(*tools: Tool, knowledge: bool = False) -> Agent:
    sources = (KnowledgeSource("vs_a"),) if knowledge else ()
    return Agent("agent", "user", tools=tools, knowledge=sources)


def builtin(name: str) -> Tool:
    return Tool(name, "", {}, builtin=name)


async def never(request: Request) -> bytes:
    await asyncio.sleep(30)
    return b""


def call(
    answering: Answering, arguments: str = "{}", *, call_id: str = "call_1", path: str = "/do", **changes: Any
) -> tuple[ToolResult, list[Request]]:
    """Call one HTTP tool `act` of a loopback service; `changes` are fields of the tool."""

    async def run() -> tuple[ToolResult, list[Request]]:
        async with RawHttp(answering) as server, guarded_client(allow_private=True) as client:
            fields = {"parameters": ANYTHING, "url": server.url + path, "timeout_s": 5.0, **changes}
            tool = Tool("act", "", **fields)
            result = await Toolbox(client).run(agent(tool), "act", arguments, call_id=call_id)
            return result, server.requests

    return asyncio.run(run())


def run_builtin(used: Agent, name: str, arguments: str, **given: Any) -> ToolResult:
    """Call one tool without any service behind it."""

    async def run() -> ToolResult:
        async with guarded_client() as client:
            return await Toolbox(client, now=lambda: NOON, **given).run(used, name, arguments, call_id="call_1")

    return asyncio.run(run())


def error_of(result: ToolResult) -> str:
    return str(json.loads(result.output)["error"])


def test_post_sends_arguments_as_json() -> None:
    """A call is one POST with the arguments as JSON, the owner's headers and the call's id; its JSON comes back."""
    result, (request,) = call(
        lambda _: reply(200, b'{ "status" : "sent \xc3\xbc" }'),
        '{"order": 7}',
        parameters=ORDER,
        headers={"Authorization": "Bearer owner", "X-Tenant": "t1"},
    )
    assert (result.outcome, result.output, result.kind, result.detail) == ("ok", '{"status":"sent ü"}', "http", "")
    assert 0 < result.seconds < 5
    assert (request.method, request.target, json.loads(request.body)) == ("POST", "/do", {"order": 7})
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer owner"
    assert request.headers["x-tenant"] == "t1"
    assert request.headers["idempotency-key"] == "call_1"


def test_get_sends_arguments_as_query() -> None:
    """With GET the arguments are the query; what the owner fixed in the address cannot be replaced."""
    arguments = {"q": "a&b ü", "n": 2, "on": True, "none": None, "many": ["x", 1], "deep": {"k": [1]}, "tenant": "evil"}
    result, (request,) = call(lambda _: reply(200), json.dumps(arguments), method="GET", path="/find?tenant=t1")
    assert result.outcome == "ok"
    assert (request.method, request.path, request.body) == ("GET", "/find", b"")
    assert sorted(parse_qsl(request.query)) == sorted(
        [
            ("tenant", "t1"),
            ("q", "a&b ü"),
            ("n", "2"),
            ("on", "true"),
            ("many", "x"),
            ("many", "1"),
            ("deep", '{"k": [1]}'),
        ]
    )


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_carry_a_body(method: str) -> None:
    """PUT, PATCH and DELETE send the arguments as JSON."""
    _, (request,) = call(lambda _: reply(204, media=None), '{"order": 7}', method=method)
    assert (request.method, json.loads(request.body)) == (method, {"order": 7})


def test_headers_of_the_connection_stay_ours() -> None:
    """A tool's own Host, length, encoding and connection headers are not sent."""
    own = {"Host": "internal", "host ": "x", "Content-Length": "1", "Accept-Encoding": "gzip", "Connection": "close"}
    result, (request,) = call(lambda _: reply(200), '{"order": 7}', headers=own)
    assert result.outcome == "ok"
    assert request.headers["host"].startswith("127.0.0.1:")
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ('{"order": ', "malformed arguments"),
        ('{"order": NaN}', "malformed arguments"),
        ("[" * 60_000, "malformed arguments"),
        ('{"order": ' + "9" * 5_000 + "}", "malformed arguments"),
        ("[1]", "arguments not an object"),
        ('"text"', "arguments not an object"),
        ('{"note": "' + "x" * MAX_ARGUMENT_BYTES + '"}', "arguments too long"),
        ("{}", "arguments against the schema"),
        ('{"order": "seven"}', "arguments against the schema"),
        ('{"order": 7, "note": "far too long a note"}', "arguments against the schema"),
        ('{"order": 7, "other": 1}', "arguments against the schema"),
    ],
)
def test_bad_arguments_are_told_to_the_model_and_never_sent(arguments: str, detail: str) -> None:
    """Arguments that are no JSON object, too long or against the schema come back as a sentence, without a request."""
    result, requests = call(lambda _: reply(200), arguments, parameters=ORDER)
    assert (result.outcome, result.detail, requests) == ("invalid", detail, [])
    assert "all again" in error_of(result)
    assert len(result.output) < 500


def test_empty_arguments_are_an_empty_object() -> None:
    """A model that writes nothing means no arguments."""
    result, (request,) = call(lambda _: reply(200), "")
    assert (result.outcome, request.body) == ("ok", b"{}")


def test_message_names_the_place_of_the_mistake() -> None:
    """The model learns which argument was wrong and why."""
    result, _ = call(lambda _: reply(200), '{"order": "seven"}', parameters=ORDER)
    assert error_of(result) == (
        "The arguments were not valid: order: 'seven' is not of type 'integer'. Correct them and call again."
    )


@pytest.mark.parametrize(
    ("schema", "detail"),
    [
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "schema is not usable"),
        ({"$ref": "#/nowhere"}, "schema is not usable"),
        ({"type": "strng"}, "schema is not usable"),
        ({"properties": 5}, "schema is not usable"),
        ({"required": 5}, "schema is not usable"),
        ({"$ref": "#"}, "schema"),
        (
            {
                "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)} | {"40": {}},
                "$ref": "#/$defs/0",
            },
            "schema too costly",
        ),
    ],
)
def test_schema_that_cannot_be_used_fails_quickly(schema: Mapping[str, Any], detail: str) -> None:
    """Remote, broken, endless and multiplying schemas are a failed tool, in bounded time and without a request."""
    began = time.monotonic()
    result, requests = call(lambda _: reply(200), '{"order": 7}', parameters=schema)
    assert result.outcome == "failed"
    assert detail in result.detail
    assert requests == []
    assert error_of(result) == "The tool is not set up properly."
    assert time.monotonic() - began < 3


def test_expression_of_a_user_is_not_run() -> None:
    """A regular expression that would take for ever does not: expressions are left to the service."""
    schema = {
        "type": "object",
        "properties": {"a": {"pattern": "^(a+)+$"}, "l": {"uniqueItems": True}},
        "patternProperties": {"^(a+)+$": {"type": "string"}},
        "additionalProperties": False,
    }
    arguments = json.dumps({"a": "a" * 40 + "!", "a" * 40 + "!": 1, "l": [[n] for n in range(5_000)]})
    began = time.monotonic()
    result, _ = call(lambda _: reply(200), arguments, parameters=schema)
    assert result.outcome == "ok"
    assert time.monotonic() - began < 3


def test_slow_service_is_answered_at_the_deadline() -> None:
    """At the tool's own deadline the model is told, whether the service is silent or drips."""

    async def dripping(request: Request) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nx"

    for answering in (never, dripping):
        result, _ = call(answering, timeout_s=0.3)
        assert (result.outcome, result.detail) == ("timeout", "deadline passed")
        assert 0.25 < result.seconds < 2
        assert error_of(result) == "The tool did not answer in time."


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (reply(200, b"It is sunny.", "text/plain"), "It is sunny."),
        (reply(200, b"\xfc", "text/plain; charset=latin-1"), "ü"),
        (reply(200, b"a\xff", "text/plain; charset=nonsense"), "a�"),
        (reply(200, b"[1, 2]", "application/vnd.api+json"), "[1,2]"),
        (reply(200, b"no type", None), "no type"),
        (reply(200, b'{"broken": ', "application/json"), '{"broken": '),
        (reply(200, b'"\\ud800 \\u0000x"', "application/json"), '"? \\u0000x"'),
        (reply(200, b"a\x00b", "text/plain"), "ab"),
        (reply(200, b"", "application/json"), '{"status":"done"}'),
        (reply(204, b"", None), '{"status":"done"}'),
        (reply(200, b"", "image/png"), '{"status":"done"}'),
    ],
)
def test_text_and_json_are_given_to_the_model(answer: bytes, output: str) -> None:
    """Text of any charset and JSON are given on, cleaned of what cannot be stored; an empty answer means done."""
    result, _ = call(lambda _: answer)
    assert (result.outcome, result.output) == ("ok", output)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (reply(200, b"\x89PNG", "image/png"), "neither text nor JSON"),
        (reply(200, b"\x1f\x8b", "text/plain", Content_Encoding="gzip"), "neither text nor JSON"),
        (reply(302, b"", Location="http://127.0.0.1/"), "HTTP 302"),
        (reply(500, b"\x00\x01", "application/octet-stream"), "HTTP 500"),
        (b"nonsense\r\n\r\n", "RemoteProtocolError"),
    ],
)
def test_unreadable_answer_is_a_failure(answer: bytes, detail: str) -> None:
    """Pictures, compressed bodies, redirects, errors and nonsense are failures the model can speak about."""
    result, _ = call(lambda _: answer)
    assert (result.outcome, json.loads(result.output).keys()) == ("failed", {"error"})
    assert result.detail in {detail, "ProtocolError"}


def test_error_answer_of_the_service_is_shown_in_part() -> None:
    """What a service says about its refusal helps the model; at most 1,000 characters of it."""
    result, _ = call(lambda _: reply(404, b'{"message":"no such order"}' + b" " * 5_000))
    assert (result.outcome, result.detail) == ("failed", "HTTP 404")
    assert error_of(result) == "The service answered with error 404."
    assert json.loads(result.output)["answer"].startswith('{"message":"no such order"}')
    assert len(result.output) < 1_200


def test_long_answer_is_cut_without_being_read() -> None:
    """Of an answer of any length 64 KiB are read and the cut is told."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n"
    result, _ = call(lambda _: head + b"x" * 300_000)
    assert result.outcome == "ok"
    assert result.output.endswith("x… (cut: the answer is longer than 64 KiB)")
    assert len(result.output) < MAX_ANSWER_BYTES + 100


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://127.0.0.1/x"},
        {"url": "http:///x"},
        {"url": "http://[::1"},
        {"url": "http://a\x00b/"},
        {"method": "CONNECT"},
        {"headers": {"X-Note": "ü\nHost: evil"}},
        {"headers": {"X Note": "a"}},
        {"headers": {"X-Note": "a\r\nHost: evil"}},
    ],
)
def test_tool_that_is_not_set_up_is_a_failure(changes: dict[str, Any]) -> None:
    """Addresses, methods and headers that cannot be sent are failures, and nothing is sent."""
    result, requests = call(lambda _: reply(200), **changes)
    assert (result.outcome, requests) == ("failed", [])
    assert "error" in json.loads(result.output)


def test_private_address_is_refused_without_a_connection() -> None:
    """With the guard on, a tool cannot reach this machine; the log learns why, the model only that it failed."""

    async def run() -> tuple[ToolResult, int]:
        async with RawHttp(lambda _: reply(200, b'{"secret":1}')) as server, guarded_client() as client:
            tool = Tool("act", "", ANYTHING, url=f"{server.url}/latest/meta-data")
            return await Toolbox(client).run(agent(tool), "act", "{}", call_id="c"), server.connections

    result, connections = asyncio.run(run())
    assert (result.outcome, result.detail, connections) == ("failed", "AddressRefused", 0)
    assert error_of(result) == "The service could not be reached."


def test_one_user_cannot_take_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a user's share calls fail at once, and other users' calls run."""
    monkeypatch.setattr(toolbox_service, "MAX_CALLS_PER_USER", 3)
    release = asyncio.Event()

    async def waiting(request: Request) -> bytes:
        await release.wait()
        return reply(200)

    async def run() -> tuple[list[ToolResult], ToolResult, list[ToolResult]]:
        async with RawHttp(waiting) as server, guarded_client(allow_private=True) as client:
            tool = Tool("act", "", ANYTHING, url=server.url, timeout_s=5.0)
            toolbox = Toolbox(client)
            first = [
                asyncio.create_task(toolbox.run(agent(tool), "act", "{}", call_id=f"c{n}"), name=f"call {n}")
                for n in range(3)
            ]
            while len(server.requests) < 3:  # noqa: ASYNC110 - counts requests of several connections
                await asyncio.sleep(0.005)
            refused = [await toolbox.run(agent(tool), "act", "{}", call_id="c4")]
            other = Agent("agent2", "user2", tools=(builtin("current_time"),))
            passed = await toolbox.run(other, "current_time", "{}", call_id="c5")
            release.set()
            done = list(await asyncio.gather(*first))
            done.append(await toolbox.run(agent(tool), "act", "{}", call_id="c6"))
            return done, passed, refused

    done, passed, refused = asyncio.run(asyncio.wait_for(run(), 10))
    assert [result.outcome for result in done] == ["ok"] * 4
    assert passed.outcome == "ok"
    assert (refused[0].outcome, refused[0].detail) == ("failed", "too many calls of one user")


def test_cancelled_call_ends_and_frees_its_place() -> None:
    """A call of a session that ended is cancelled, and the next call of the user runs."""

    async def run() -> str:
        async with RawHttp(never) as server, guarded_client(allow_private=True) as client:
            tool = Tool("act", "", ANYTHING, url=server.url)
            toolbox = Toolbox(client)
            task = asyncio.create_task(toolbox.run(agent(tool), "act", "{}", call_id="c"), name="call")
            while not server.requests:  # noqa: ASYNC110 - waits for a request of another task
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await toolbox.run(agent(builtin("current_time")), "current_time", "{}", call_id="c")).outcome

    assert asyncio.run(asyncio.wait_for(run(), 10)) == "ok"


@pytest.mark.parametrize("name", ["act", "end_call", "transfer_call", "send_dtmf_wait", "current_time", ""])
def test_tool_the_agent_does_not_have_is_unknown(name: str) -> None:
    """A name that is not one of the agent's, or that the conversation performs itself, is answered as unknown."""
    result = run_builtin(agent(builtin("end_call"), builtin("transfer_call"), builtin("send_dtmf_wait")), name, "{}")
    assert (result.outcome, result.kind) == ("unknown", "unknown")
    assert error_of(result) == "There is no such tool. Go on without it."


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ("{}", {"time": "2026-11-20T12:00:00+00:00", "weekday": "Friday", "timezone": "UTC"}),
        (
            '{"timezone": "Europe/Berlin"}',
            {"time": "2026-11-20T13:00:00+01:00", "weekday": "Friday", "timezone": "Europe/Berlin"},
        ),
        (
            '{"timezone": "Pacific/Kiritimati"}',
            {"time": "2026-11-21T02:00:00+14:00", "weekday": "Saturday", "timezone": "Pacific/Kiritimati"},
        ),
    ],
)
def test_current_time_knows_time_zones(arguments: str, output: dict[str, str]) -> None:
    """The time is told with offset, weekday and zone; UTC when none is asked for."""
    result = run_builtin(agent(builtin("current_time")), "current_time", arguments)
    assert (result.outcome, result.kind, json.loads(result.output)) == ("ok", "builtin", output)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a" * 5_000, 5, ["UTC"]])
def test_unknown_time_zone_is_told(zone: object) -> None:
    """A zone that does not exist, or no zone at all, is a sentence for the model."""
    result = run_builtin(agent(builtin("current_time")), "current_time", json.dumps({"timezone": zone}))
    assert (result.outcome, result.detail) == ("invalid", "unknown time zone")


def searching(answer: str | BaseException) -> Callable[[Agent, str], Any]:
    async def search(used: Agent, query: str) -> str:
        if isinstance(answer, BaseException):
            raise answer
        return f"{used.id} {query} {answer}"

    return search


def test_search_knowledge_asks_what_it_was_handed() -> None:
    """An agent with knowledge can search it, whether or not its owner listed the tool."""
    for used in (agent(knowledge=True), agent(builtin("search_knowledge"))):
        result = run_builtin(used, "search_knowledge", '{"query": " hours "}', knowledge=searching("found"))
        assert (result.outcome, result.kind, result.output) == ("ok", "builtin", "agent hours found")


@pytest.mark.parametrize("arguments", ["{}", '{"query": ""}', '{"query": 5}'])
def test_search_without_words_is_invalid(arguments: str) -> None:
    """A search needs words."""
    result = run_builtin(agent(knowledge=True), "search_knowledge", arguments, knowledge=searching("found"))
    assert (result.outcome, result.detail) == ("invalid", "no query")


def test_search_that_fails_is_told() -> None:
    """No search, a failing one and one that takes too long are sentences for the model."""
    used, query = agent(knowledge=True), '{"query": "hours"}'
    assert run_builtin(used, "search_knowledge", query).detail == "no knowledge search"
    failing = run_builtin(used, "search_knowledge", query, knowledge=searching(httpx.ConnectError("x")))
    assert (failing.outcome, failing.detail) == ("failed", "ConnectError")

    async def slow(used: Agent, query: str) -> str:
        await asyncio.sleep(30)
        return ""

    tool = Tool("search_knowledge", "", {}, builtin="search_knowledge", timeout_s=0.2)
    assert run_builtin(agent(tool), "search_knowledge", query, knowledge=slow).outcome == "timeout"
