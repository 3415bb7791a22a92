"""A small HTTP server on loopback whose answers a test writes: JSON, nonsense, silence, a broken connection.

    with ScriptedHttp() as server:
        server.answers["/auth/v1/user"] = Answer(403, {"error_code": "user_banned"})
        ...
        assert server.count("/auth/v1/user") == 1

It misleads in that it speaks HTTP/1.1 only and no TLS. Run it by hand with `python tests/fakes/scripted_http.py`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

SILENCE_S = 10.0
"""Longest time a silent answer holds its connection; tests end sooner."""


@dataclass(frozen=True)
class Answer:
    """What the server answers: `body` text as it is, anything else as JSON, None an empty body."""

    status: int = 200
    body: Any = None
    breaks: bool = False
    """Close the connection without a word."""
    is_silent: bool = False
    """Say nothing until the server ends."""


@dataclass(frozen=True)
class Received:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class ScriptedHttp:
    """Answers by path; an answer may be a function of the request. Unknown paths get 404."""

    answers: dict[str, Answer | Callable[[Received], Answer]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="scripted http")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, path: str) -> int:
        """Return how many requests there were for a path."""
        return sum(request.path == path for request in self.received)

    def stop(self) -> None:
        """Stop answering; new connections are refused."""
        self._ended.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def take(self, request: Received) -> Answer:
        """Note a request and return its answer."""
        self.received.append(request)
        answer = self.answers.get(request.path, Answer(404, {}))
        return answer(request) if callable(answer) else answer

    def wait_for_end(self) -> None:
        """Return when the server stops, or after a while."""
        self._ended.wait(SILENCE_S)


def _handler_for(server: ScriptedHttp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = SILENCE_S

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode("utf-8", "replace")
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.take(Received(self.command, urlsplit(self.path).path, headers, body))
            if answer.is_silent:
                server.wait_for_end()
            if answer.breaks or answer.is_silent:
                self.close_connection = True
                return
            content = b""
            if answer.body is not None:
                content = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - names of the standard library's protocol

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


if __name__ == "__main__":
    with ScriptedHttp() as here:
        print(here.url, flush=True)
        threading.Event().wait()
