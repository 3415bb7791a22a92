"""Traces for OpenTelemetry: one tree of spans for each conversation, sent by OTLP over HTTP.

An extra: without OTEL_EXPORTER_OTLP_ENDPOINT nothing of OpenTelemetry is imported and a conversation pays for nothing.
Spans are made where phases change, never for a message, and wait in a bounded queue; a collector that is away costs
spans, no call. What a span may hold is what the log may hold: no token, no key, nothing that was said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Attribute = str | int | float | bool | None

QUEUE = 2048
"""Spans that wait at most; more are dropped. A conversation makes two or three a turn."""

EXPORT_EVERY_MS = 2_000
EXPORT_TIMEOUT_S = 5.0
"""How often what waits is sent, and how long the collector may take."""

FLUSH_S = 2.0
"""How long the end of the process waits for the last spans."""

HOW_TO_INSTALL = "pip install -r requirements-otel.txt"


class TracesUnavailable(Exception):
    """Raised when traces are asked for and their packages are missing; the text says how to get them."""


class Span(Protocol):
    """One span; ending it twice is ending it once."""

    def end(self, **attributes: Attribute) -> None:
        """End it, with what is known by then; None is left out."""


class Trace(Protocol):
    """The tree of one conversation.

    Attributes:
        is_on: Whether anybody looks.
        trace_id: Its id as collectors show it, 32 hexadecimal digits; empty when nobody looks.
    """

    is_on: bool
    trace_id: str

    def begin(self, name: str, **attributes: Attribute) -> Span:
        """Return a span below the conversation's, begun now."""

    def end(self, *, failed: bool = False, **attributes: Attribute) -> None:
        """End the conversation's span and all below it that are open."""


class Traces(Protocol):
    """Where conversations get their traces."""

    def conversation(self, channel: str, traceparent: str | None = None) -> Trace:
        """Return the trace of a conversation that begins now.

        Args:
            channel: `browser` or `phone`.
            traceparent: The header of that name, when whoever connects has a trace of its own (W3C Trace Context).
        """

    def close(self) -> None:
        """Send what waits, within `FLUSH_S`."""


class _NoSpan:
    def end(self, **attributes: Attribute) -> None:
        """Do nothing."""


class _NoTrace:
    is_on = False
    trace_id = ""

    def begin(self, name: str, **attributes: Attribute) -> Span:
        """Return a span nobody sees."""
        return _NO_SPAN

    def end(self, *, failed: bool = False, **attributes: Attribute) -> None:
        """Do nothing."""


class _NoTraces:
    def conversation(self, channel: str, traceparent: str | None = None) -> Trace:
        """Return a trace nobody sees."""
        return NO_TRACE

    def close(self) -> None:
        """Do nothing."""


_NO_SPAN = _NoSpan()
NO_TRACE: Trace = _NoTrace()
NO_TRACES: Traces = _NoTraces()


class _OpenSpan:
    """A span that is told to its trace when it ends."""

    __slots__ = ("_ended", "_span")

    def __init__(self, span: OtelSpan, ended: Callable[[_OpenSpan], None]) -> None:
        self._span = span
        self._ended = ended

    def end(self, **attributes: Attribute) -> None:
        """End it."""
        if self._span.is_recording():
            self._span.set_attributes(_known(attributes))
            self._span.end()
            self._ended(self)


class _ConversationTrace:
    """The spans of one conversation."""

    __slots__ = ("_below", "_children", "_root", "_tracer", "is_on", "trace_id")

    def __init__(self, tracer: Tracer, channel: str, traceparent: str | None) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        attributes = {"voice.channel": channel, "gen_ai.provider.name": "openai"}
        self._root = tracer.start_span("conversation", above, SpanKind.SERVER, attributes)
        self._below = set_span_in_context(self._root)
        self._tracer = tracer
        self._children: list[_OpenSpan] = []
        self.is_on = True
        self.trace_id = f"{self._root.get_span_context().trace_id:032x}"

    def begin(self, name: str, **attributes: Attribute) -> Span:
        """Return a span below the conversation's."""
        child = _OpenSpan(
            self._tracer.start_span(name, self._below, attributes=_known(attributes)), self._children.remove
        )
        self._children.append(child)
        return child

    def end(self, *, failed: bool = False, **attributes: Attribute) -> None:
        """End the tree."""
        from opentelemetry.trace import StatusCode

        for child in tuple(self._children):
            child.end()
        if self._root.is_recording():
            self._root.set_attributes(_known(attributes))
            if failed:
                self._root.set_status(StatusCode.ERROR)
            self._root.end()


class _OtelTraces:
    """Traces on their way to a collector."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("voice-server")

    def conversation(self, channel: str, traceparent: str | None = None) -> Trace:
        """Return the trace of a conversation."""
        return _ConversationTrace(self._tracer, channel, traceparent)

    def close(self) -> None:
        """Send what waits; a collector that hangs is not waited for longer than `FLUSH_S`."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces-flush", daemon=True)
        thread.start()
        thread.join(FLUSH_S)


def open_traces(endpoint: str | None, version: str) -> Traces:
    """Return what makes traces; one that makes none without an address.

    Args:
        endpoint: Base address of a collector's OTLP over HTTP, such as `http://127.0.0.1:4318`.
        version: Of this server.

    Raises:
        TracesUnavailable: If the packages of the extra are missing.
    """
    if not endpoint:
        return NO_TRACES
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TracesUnavailable(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but its packages are missing: {HOW_TO_INSTALL}"
        ) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": "voice-server", "service.version": version}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=EXPORT_EVERY_MS)
    )
    return _OtelTraces(provider)


def _known(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return the attributes with a value under their names on the wire: `voice_` and `gen_ai_` are namespaces."""
    return {_wire_name(name): value for name, value in attributes.items() if value is not None}


def _wire_name(name: str) -> str:
    """Return `gen_ai.request.model` for `gen_ai__request__model`; a name without a namespace is the product's own."""
    return name.replace("__", ".") if "__" in name else f"voice.{name}"
