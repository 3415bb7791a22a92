"""Runs the tools an agent's model calls: two built-in ones, and HTTP requests to addresses its owner chose.

What the conversation does itself (`end_call`, `transfer_call`, `send_dtmf_wait`) is not here. The HTTP client is handed
in; it must be `services.ssrf.guarded_client`, because the addresses are typed in by users of the product.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import jsonschema
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from core.agent import Agent, Tool
from core.records import clean_text

Outcome = Literal["ok", "invalid", "timeout", "failed", "unknown"]
KnowledgeSearch = Callable[[Agent, str], Awaitable[str]]

MAX_ARGUMENT_BYTES = 64 * 1024
"""Arguments a model writes are a few hundred bytes; 64 KiB is the frame size services commonly accept."""

MAX_ANSWER_BYTES = 64 * 1024
"""Most that is read of an answer; the model is given at most 32,000 characters of it (core/tools.py)."""

MAX_CALLS_PER_USER = 32
"""Calls of one user's agents under way at a time: one slow service must not take all 128 connections."""

MAX_CHECKS = 10_000
"""Steps of checking arguments: schemas are typed in by users and can be built to multiply without end."""

MAX_ERROR_CHARS = 200
MAX_EXCERPT_CHARS = 1_000
"""How much of an error, and of a service's own error answer, the model is told."""

MAX_QUERY_CHARS = 1_000

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

_OWN_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect accept-encoding".split()  # noqa: SIM905 - reads as a list of names
)
"""Headers that belong to the connection; a tool's own ones of these names are left out."""

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call.

    Attributes:
        output: Text for the model; of a call that did not succeed a JSON object with a sentence in `error`.
        outcome: `ok`, `invalid` (arguments), `timeout`, `failed` (service or network), `unknown` (no such tool here).
        seconds: How long it took.
        kind: `builtin` or `http`, for the metrics; `unknown` when there is no such tool here.
        detail: Cause in a few words for the log; holds neither arguments nor addresses nor answers.
    """

    output: str
    outcome: Outcome
    seconds: float
    kind: Literal["builtin", "http", "unknown"]
    detail: str = ""


class _NotDone(Exception):
    """Raised when a call does not succeed; `message` is for the model, `detail` for the log."""

    def __init__(self, outcome: Outcome, detail: str, message: str, *, excerpt: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.message = message
        self.excerpt = excerpt

    def output(self) -> str:
        answer = {"answer": self.excerpt} if self.excerpt else {}
        return json.dumps({"error": self.message, **answer}, ensure_ascii=False)


class Toolbox:
    """Runs tool calls, each within its tool's deadline.

    Args:
        client: Client for HTTP tools, from `services.ssrf.guarded_client`; closed by whoever made it.
        knowledge: Searches an agent's knowledge for a query and answers in text whatever happens; None when the server
            has no knowledge search.
        now: The current time, with a time zone.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        knowledge: KnowledgeSearch | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._now = now
        self._busy: Counter[str] = Counter()
        self._check = _ArgumentCheck()

    async def run(self, agent: Agent, name: str, arguments: str, *, call_id: str) -> ToolResult:
        """Run one call and return what to tell the model; raises nothing but cancellation.

        Args:
            agent: The agent whose model calls; only its own tools are found.
            name: Name the model used.
            arguments: JSON text as the model wrote it, trusted in nothing.
            call_id: Id of the call; sent to the service as `Idempotency-Key`, so that it can recognise a repetition.
        """
        began = time.monotonic()
        tool = _find(agent, name)
        if tool is None:
            output = _NotDone("unknown", "no such tool", "There is no such tool. Go on without it.").output()
            return ToolResult(output, "unknown", 0.0, "unknown", "no such tool")
        outcome: Outcome = "ok"
        detail = ""
        self._busy[agent.user_id] += 1
        try:
            async with asyncio.timeout(tool.timeout_s):
                output = await self._run(agent, tool, arguments, call_id)
        except _NotDone as error:
            outcome, detail, output = error.outcome, error.detail, error.output()
        except (TimeoutError, httpx.TimeoutException):
            outcome, detail = "timeout", "deadline passed"
            output = _NotDone(outcome, detail, "The tool did not answer in time.").output()
        finally:
            self._busy[agent.user_id] -= 1
            self._busy += Counter()  # forgets users without calls
        kind: Literal["builtin", "http"] = "builtin" if tool.builtin else "http"
        return ToolResult(clean_text(output), outcome, time.monotonic() - began, kind, detail)

    async def _run(self, agent: Agent, tool: Tool, arguments: str, call_id: str) -> str:
        if self._busy[agent.user_id] > MAX_CALLS_PER_USER:
            raise _NotDone("failed", "too many calls of one user", "Too many things are under way. Try again shortly.")
        values = _read_arguments(arguments)
        if tool.builtin == "current_time":
            return self._current_time(values)
        if tool.builtin == "search_knowledge":
            return await self._search(agent, values)
        self._check(tool.parameters, values)
        return await self._request(tool, values, call_id)

    def _current_time(self, values: Mapping[str, Any]) -> str:
        name = values.get("timezone") or "UTC"
        try:
            now = self._now().astimezone(ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError):
            raise _NotDone(
                "invalid", "unknown time zone", "There is no such time zone. Use an IANA name such as Europe/Berlin."
            ) from None
        return json.dumps({"time": now.isoformat(timespec="seconds"), "weekday": f"{now:%A}", "timezone": name})

    async def _search(self, agent: Agent, values: Mapping[str, Any]) -> str:
        query = values.get("query")
        if not isinstance(query, str) or not query.strip():
            raise _NotDone("invalid", "no query", "The search needs a query in words.")
        if self._knowledge is None:
            raise _NotDone("failed", "no knowledge search", "The knowledge base cannot be searched here.")
        try:
            return await self._knowledge(agent, query.strip()[:MAX_QUERY_CHARS])
        except (httpx.HTTPError, OSError) as error:
            raise _NotDone("failed", type(error).__name__, "The knowledge base cannot be reached.") from None

    async def _request(self, tool: Tool, values: Mapping[str, Any], call_id: str) -> str:
        try:
            request = _build(self._client, tool, values, call_id)
            response = await self._client.send(request, stream=True)
            try:
                body = await _read_body(response)
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise _NotDone("failed", type(error).__name__, "The service could not be reached.") from None
        except ValueError:
            raise _NotDone("failed", "bad address or header", "The tool is not set up properly.") from None
        return _answer(response, body)


def _find(agent: Agent, name: str) -> Tool | None:
    """Return the tool of that name if it runs here; an agent with knowledge can always search it."""
    tool = next((tool for tool in agent.tools if name == (tool.builtin or tool.name)), None)
    if tool is None and name == "search_knowledge" and agent.knowledge:
        return Tool(name, "", {}, builtin=name)
    if tool is None or tool.builtin in {None, "current_time", "search_knowledge"}:
        return tool
    return None


def _read_arguments(text: str) -> dict[str, Any]:
    if len(text.encode("utf-8", "replace")) > MAX_ARGUMENT_BYTES:
        raise _NotDone("invalid", "arguments too long", "The arguments are too long. Call again with shorter ones.")
    try:
        values = json.loads(text or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _NotDone("invalid", "malformed arguments", "The arguments are not valid JSON. Call again.") from None
    if not isinstance(values, dict):
        raise _NotDone("invalid", "arguments not an object", "The arguments must be a JSON object. Call again.")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON: RFC 8259, section 6


_BROKEN_SCHEMA = (
    jsonschema.exceptions.UnknownType,
    jsonschema.SchemaError,
    Unresolvable,
    RecursionError,
    ArithmeticError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
)
"""What checking against something that is no schema can raise: a user's text is not checked beforehand."""


class _ArgumentCheck:
    """Checks arguments against a tool's JSON Schema, Draft 2020-12, in bounded time.

    Regular expressions are not run (`pattern`, `patternProperties`, and what depends on them): a user's expression
    could hold the event loop for ever. The service checks what it needs. References to other documents are not fetched.
    """

    _SKIPPED = ("pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties")

    def __init__(self) -> None:
        self._steps = 0
        keywords = {name: self._counted(check) for name, check in jsonschema.Draft202012Validator.VALIDATORS.items()}
        keywords |= dict.fromkeys(self._SKIPPED, lambda *_: None)
        self._validator = extend(jsonschema.Draft202012Validator, keywords)  # type: ignore[no-untyped-call]

    def __call__(self, schema: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._steps = 0
        try:
            error = next(self._validator(dict(schema), registry=Registry()).iter_errors(values), None)
        except _TooManySteps:
            raise _NotDone("failed", "schema too costly", "The tool is not set up properly.") from None
        except _BROKEN_SCHEMA:
            raise _NotDone("failed", "schema is not usable", "The tool is not set up properly.") from None
        if error is not None:
            where = error.json_path.removeprefix("$").removeprefix(".")[:MAX_ERROR_CHARS]
            message = f"{where}: {error.message}" if where else error.message
            raise _NotDone(
                "invalid",
                "arguments against the schema",
                f"The arguments were not valid: {message[:MAX_ERROR_CHARS]}. Correct them and call again.",
            )

    def _counted(self, check: Callable[..., Any]) -> Callable[..., Any]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            self._steps += 1
            if self._steps > MAX_CHECKS:
                raise _TooManySteps
            if check.__name__ == "additionalProperties" and "patternProperties" in schema:
                return None
            if check.__name__ == "uniqueItems" and isinstance(instance, list) and len(instance) > 100:
                return None  # compares every entry with every other
            return check(validator, value, instance, schema)

        return counted


class _TooManySteps(Exception):
    """Raised when checking arguments takes more steps than any honest schema needs."""


def _build(client: httpx.AsyncClient, tool: Tool, values: Mapping[str, Any], call_id: str) -> httpx.Request:
    """Return the request of a call: arguments in the query for GET, else as a JSON body."""
    url = httpx.URL(tool.url or "")
    if url.scheme not in {"http", "https"} or not url.host or tool.method not in METHODS:
        raise ValueError("address or method")
    headers = {"Accept": "application/json, text/*;q=0.9"}
    headers |= {name: value for name, value in tool.headers.items() if name.strip().lower() not in _OWN_HEADERS}
    content = None
    if tool.method == "GET":
        fixed = set(url.params)  # the owner's own parameters cannot be replaced by the model's
        url = url.copy_merge_params(
            {name: _query(v) for name, v in values.items() if v is not None and name not in fixed}
        )
    else:
        content = json.dumps(values).encode()
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        if _CALL_ID.fullmatch(call_id):
            headers["Idempotency-Key"] = call_id
    return client.build_request(tool.method, url, headers=headers, content=content, timeout=tool.timeout_s)


def _query(value: object) -> str | list[str]:
    if isinstance(value, list) and all(isinstance(entry, (str, int, float)) for entry in value):
        return [str(_query(entry)) for entry in value]
    return value if isinstance(value, str) else json.dumps(value)


async def _read_body(response: httpx.Response) -> bytes:
    """Return at most one byte more than the limit, so that the caller sees whether there was more."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body[: MAX_ANSWER_BYTES + 1])


def _answer(response: httpx.Response, body: bytes) -> str:
    """Return the text of an answer, JSON without its spaces.

    Raises:
        _NotDone: If the service answered anything but success, or neither text nor JSON.
    """
    status, text = response.status_code, _text_of(response, body)
    if 300 <= status < 400:
        raise _NotDone("failed", f"HTTP {status}", "The service sent the request elsewhere, which is not followed.")
    if not 200 <= status < 300:
        excerpt = (text or "")[:MAX_EXCERPT_CHARS]
        raise _NotDone("failed", f"HTTP {status}", f"The service answered with error {status}.", excerpt=excerpt)
    if text is None:
        raise _NotDone("failed", "neither text nor JSON", "The service's answer is not text and cannot be read.")
    if len(body) > MAX_ANSWER_BYTES:
        return text + "… (cut: the answer is longer than 64 KiB)"
    if not text.strip():
        return '{"status":"done"}'
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def _text_of(response: httpx.Response, body: bytes) -> str | None:
    """Return the body as text, or None when it is neither text nor JSON or is compressed without being asked to be."""
    media = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    readable = media.startswith("text/") or media == "application/json" or media.endswith("+json")
    if body and (not readable or response.headers.get("content-encoding", "identity").lower() != "identity"):
        return None
    try:
        return body[:MAX_ANSWER_BYTES].decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:
        return body[:MAX_ANSWER_BYTES].decode("utf-8", "replace")
