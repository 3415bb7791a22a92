"""A doorway in front of a local Supabase project: counts what passes, and can be closed for one of its services.

    with Doorway(project.url) as doorway:
        doorway.close("/auth/v1")           # nobody answers there any more
        doorway.count("/rest/v1/agents")

A hosted project runs Auth, data API and Vault as services of their own, any of which may be away; Supabase Lite is one
process. It misleads in that it adds a millisecond or two to each request.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"})
"""Headers of one connection, not of the message (RFC 9110, section 7.6.1), and those the forwarding changes."""

SILENCE_S = 20.0
"""Longest time a silent answer holds its connection; tests end sooner."""


@dataclass(frozen=True)
class Passed:
    """A request that came: when by the monotonic clock, and where to, without its query."""

    at: float
    method: str
    path: str


class Doorway:
    """Forwards to a project; `url` is where the server finds it."""

    def __init__(self, target: str) -> None:
        self.passed: list[Passed] = []
        self._closed: set[str] = set()
        self._silent: set[str] = set()
        self._delays: dict[str, float] = {}
        self._ended = threading.Event()
        self._http = httpx.Client(base_url=target, timeout=SILENCE_S, trust_env=False)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="doorway")
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        self._http.close()

    def close(self, prefix: str) -> None:
        """Break every connection that asks for a path beginning so."""
        self._closed.add(prefix)

    def silence(self, prefix: str) -> None:
        """Say nothing to whoever asks for a path beginning so."""
        self._silent.add(prefix)

    def delay(self, prefix: str, seconds: float) -> None:
        """Forward requests for a path beginning so only after a while."""
        self._delays[prefix] = seconds

    def open(self) -> None:
        """Let everything pass again, at once."""
        self._closed.clear()
        self._silent.clear()
        self._delays.clear()

    def count(self, prefix: str) -> int:
        """Return how many requests came for a path beginning so."""
        return sum(1 for one in list(self.passed) if one.path.startswith(prefix))

    def between(self, began: float, ended: float) -> list[str]:
        """Return method and path of what came between two times, in order."""
        return [f"{one.method} {one.path}" for one in list(self.passed) if began <= one.at < ended]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        doorway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _forward(self) -> None:
                doorway._forward(self)

            do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _forward  # noqa: N815 - names http.server looks for

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keep the tests' output clean."""

        return Handler

    def _forward(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.passed.append(Passed(time.monotonic(), request.command, path))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if any(path.startswith(prefix) for prefix in self._silent):
            self._ended.wait(SILENCE_S)
        if any(path.startswith(prefix) for prefix in (*self._closed, *self._silent)):
            request.close_connection = True
            return
        self._ended.wait(max((s for prefix, s in self._delays.items() if path.startswith(prefix)), default=0.0))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            answer = self._http.request(request.command, request.path, headers=headers, content=body)
        except httpx.TransportError:
            request.close_connection = True
            return
        request.send_response_only(answer.status_code)
        for name, value in answer.headers.multi_items():
            if name.lower() not in HOP_BY_HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer.content)))
        request.end_headers()
        request.wfile.write(answer.content)
