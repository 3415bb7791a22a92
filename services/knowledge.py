"""Searches an agent's knowledge: OpenAI vector stores, all at once, within one deadline.

Source: OpenAI Realtime reference, section 11: Realtime has no file search of its own, so knowledge is a tool of ours.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from core.agent import KnowledgeSource

DEFAULT_BASE = "https://api.openai.com/v1"

DEADLINE_S = 3.0
"""A person waits in silence meanwhile. Source: OpenAI Realtime reference, section 11."""

MAX_CHARS = 8_000
"""About 2,000 tokens, the most a spoken answer draws on. Source: OpenAI Realtime reference, section 11."""

MAX_RESULTS_PER_STORE = 8
"""Passages of a store are about 800 tokens each: eight are more than fit into the answer already."""

MAX_STORES = 16
MAX_ANSWER_BYTES = 1024 * 1024
"""More than 50 passages of the largest size (4,096 tokens, about 16 KB) never fill."""

NO_RESULT = "No result was found in the knowledge base."

_STORE_ID = re.compile(r"vs_[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class _Passage:
    score: float
    file: str
    source: str
    text: str


class _StoreFailed(Exception):
    """Raised when one store could not be searched; the text is a cause without content."""


def base_from_realtime_url(url: str) -> str:
    """Return the REST base beside a Realtime address: `wss://host/v1/realtime` gives `https://host/v1`."""
    parts = urlsplit(url)
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/realtime')}"


class Knowledge:
    """Searches vector stores with the key it is handed for each search.

    Args:
        client: Plain HTTP client; closed by whoever made it.
        base_url: REST address of the service that holds the stores, up to its version.
        on_failure: Told the cause (`HTTP 401`, `ConnectError`, `deadline passed`, `bad id`) for each store that could
            not be searched, because the model is only told that there was no result.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str = DEFAULT_BASE,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._on_failure = on_failure or (lambda cause: None)

    async def search(self, key: str, sources: Sequence[KnowledgeSource], query: str) -> str:
        """Return the best passages of all stores, best first, each under its file's name; at most 8,000 characters.

        Whatever fails, an answer comes within 3 s: from the stores that answered, else `NO_RESULT`.
        """
        tasks = [
            asyncio.create_task(self._search_store(key, source, query), name=f"knowledge-{number}")
            for number, source in enumerate(sources[:MAX_STORES])
        ]
        if not tasks:
            return NO_RESULT
        try:
            await asyncio.wait(tasks, timeout=DEADLINE_S)
        finally:
            late = [task for task in tasks if task.cancel()]
        if late:
            await asyncio.wait(late, timeout=1.0)  # closing a connection takes no longer; what is left is not awaited
        passages: list[_Passage] = []
        for task in tasks:
            passages += self._found(task)
        return _text(passages)

    def _found(self, task: asyncio.Task[list[_Passage]]) -> list[_Passage]:
        if not task.done() or task.cancelled():
            self._on_failure("deadline passed")
            return []
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, _StoreFailed):
            raise error
        self._on_failure(str(error))
        return []

    async def _search_store(self, key: str, source: KnowledgeSource, query: str) -> list[_Passage]:
        if not _STORE_ID.fullmatch(source.vector_store_id):
            raise _StoreFailed("bad id")
        try:
            request = self._client.build_request(
                "POST",
                f"{self._base_url}/vector_stores/{quote(source.vector_store_id, safe='')}/search",
                headers={"Authorization": f"Bearer {key}", "OpenAI-Beta": "assistants=v2"},
                json={"query": query, "max_num_results": MAX_RESULTS_PER_STORE, "rewrite_query": False},
                timeout=DEADLINE_S,
            )
            response = await self._client.send(request, stream=True, follow_redirects=False)
            try:
                body = await _read(response)
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
            raise _StoreFailed(type(error).__name__) from None
        if response.status_code != 200:
            raise _StoreFailed(f"HTTP {response.status_code}")
        return _passages(body, source)


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise _StoreFailed("answer too long")
    return bytes(body)


def _passages(body: bytes, source: KnowledgeSource) -> list[_Passage]:
    """Return the passages of a `vector_store.search_results.page`; what has not its shape is left out."""
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        raise _StoreFailed("malformed answer") from None
    rows = page.get("data") if isinstance(page, dict) else None
    if not isinstance(rows, list):
        raise _StoreFailed("malformed answer")
    return [passage for row in rows if isinstance(row, dict) and (passage := _passage(row, source)) is not None]


def _passage(row: dict[str, Any], source: KnowledgeSource) -> _Passage | None:
    parts, score = row.get("content"), row.get("score")
    if not isinstance(parts, list):
        return None
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    text = "\n".join(texts).strip()
    if not text:
        return None
    number = float(score) if isinstance(score, (int, float)) else 0.0
    return _Passage(number, str(row.get("filename") or row.get("file_id") or ""), source.name, text)


def _text(passages: list[_Passage]) -> str:
    """Return the passages as text, the best first, each once, the last one cut to what still fits."""
    lines: list[str] = []
    room = MAX_CHARS
    seen: set[str] = set()
    for passage in sorted(passages, key=lambda passage: -passage.score):
        if passage.text in seen:
            continue
        seen.add(passage.text)
        source = f" ({passage.source})" if passage.source else ""
        piece = f"[{passage.file or 'file'}{source}]\n{passage.text}\n\n"
        if len(piece) > room:
            piece = piece[: room - 1] + "…" if room > 200 else ""  # under 200 characters a passage tells nothing
            lines.append(piece)
            break
        lines.append(piece)
        room -= len(piece)
    return "".join(lines).rstrip("\n") or NO_RESULT
