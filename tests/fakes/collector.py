"""A collector of OpenTelemetry: takes spans by OTLP over HTTP, as protobuf, and keeps them.

It answers as a collector does, but never compresses and keeps everything.
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.fakes.browser import eventually


def flushed() -> None:
    """Wait until no exporter tries any more; what it says of a collector that is away belongs to the test before."""
    assert eventually(lambda: not any(t.name == "traces-flush" for t in threading.enumerate()), 20.0)


@dataclass
class KeptSpan:
    """One span that arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector:
    """Listens while it is entered.

    Attributes:
        spans: What arrived, in the order of arrival.
        raw: The bodies as they came.
        paths: Where they were sent to.
        services: `service.name` of those who sent them.
    """

    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []
        self.raw: list[bytes] = []
        self.paths: set[str] = set()
        self.services: set[str] = set()
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                kept._keep(self.path, body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def named(self, name: str) -> list[KeptSpan]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    def _keep(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        self.raw.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            self.services |= {a.value.string_value for a in group.resource.attributes if a.key == "service.name"}
            for scope in group.scope_spans:
                for span in scope.spans:
                    values = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
                    kept = KeptSpan(
                        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                        span.status.code == 2, values,
                    )  # fmt: skip
                    self.spans.append(kept)
