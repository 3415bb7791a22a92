"""The phases of every connection, and the one place where an error becomes an event, a close code and an end reason.

    admit       is there room, or is the server about to stop?
    identify    who comes? token, per-user limits
    configure   which agent, which conversation, which budget?
    connect     the session begins and opens its link; from here `relay.py` has it
    relay       messages both ways
    finish      runs whatever happened: summary line, counters, the slot is given back

`open` starts the phases in a task and returns, so that a client that leaves meanwhile is noticed, and what it sends
meanwhile is kept.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from core.errors import CLIENT_LEFT, PAGE_CLOSED, Ending, GatewayError, InternalError, MessageTooBig
from core.realtime import Event, encode, error_event
from handlers import origins
from handlers.connections import Place
from handlers.context import Context
from handlers.early import EarlyMessages
from handlers.elsewhere import end_elsewhere
from handlers.outbox import Outbox
from handlers.relay import Relay
from handlers.strict_frames import StrictProtocol
from handlers.wire import make_protocol
from services.store import StoreError
from services.traces import NO_TRACE

SETUP_S = 15.0
"""Longest way from the handshake to the session's begin: two bounded calls to the store (5 s each) and one to Auth."""

PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 15.0
"""A client that vanished is dropped within 35 s (operations reference, section 6, P6); nginx is set to 75 s."""

MAX_MESSAGE_BYTES = 1_048_576
"""Frame limit: 16 s of PCM16 audio in one piece, where 20 to 100 ms are usual."""

_NO_HEADERS = HTTPHeaders()
"""Stands for those of a handshake that is over."""


class Door(WebSocketHandler):
    """A WebSocket door; subclasses say how a connection is identified and configured."""

    # As with StrictProtocol: beside Tornado's names, not among them.
    __slots__ = ("_early", "_is_over", "_place", "_protocol", "_setup", "_told_too_early", "_trace", "connection_id",
                 "context", "relay")  # fmt: skip

    channel = "browser"

    def initialize(self, context: Context) -> None:
        self.context = context
        self.connection_id = secrets.token_hex(4)
        self._trace = NO_TRACE
        self.relay: Relay | None = None
        self._setup: asyncio.Task[None] | None = None
        self._early = EarlyMessages()
        self._told_too_early = False
        self._protocol: StrictProtocol | None = None
        self._place: Place | None = None
        self._is_over = False

    # ------------------------------------------------------------------ the handshake

    def prepare(self) -> None:
        """Answer 503 to what came too late here while another instance takes it; nginx asks that one."""
        if self.context.connections.is_handed_over:
            raise HTTPError(503)

    @property
    def ping_interval(self) -> float:
        """Seconds between pings."""
        return PING_INTERVAL_S

    @property
    def ping_timeout(self) -> float:
        """Seconds a pong may take."""
        return PING_TIMEOUT_S

    @property
    def max_message_size(self) -> int:
        """Frame limit in bytes."""
        return MAX_MESSAGE_BYTES

    def get_compression_options(self) -> dict[str, Any] | None:
        """Offer no compression: audio does not shrink, and it costs memory for every connection."""
        return None

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Use Tornado's protocol made strict, with the receive loop the settings name."""
        self._protocol = make_protocol(self, self, self.context.settings.wire)
        return self._protocol

    def check_origin(self, origin: str) -> bool:
        """Let pages of allowed origins in."""
        return origins.is_allowed(origin, self.request.host, self.context.settings)

    # ------------------------------------------------------------------ the phases

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin the phases."""
        self.set_nodelay(True)
        self._trace = self.context.traces.conversation(self.channel, self.request.headers.get("traceparent"))
        self._setup = self.context.start(self._phases(), f"setup-{self.connection_id}")

    async def _phases(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(SETUP_S):
                admit = self._trace.begin("admit")
                self._place = await self.context.connections.admit(self.channel)
                admit.end()
                prepare = self._trace.begin("prepare")
                relay = await self.prepare_relay()
                prepare.end()
        except GatewayError as error:
            self._refuse(error)
        except (StoreError, TimeoutError) as error:
            self.context.logger.error("set-up failed", conn=self.connection_id, cause=type(error).__name__)
            self._refuse(InternalError("set-up failed"))
        except Exception as error:
            self.context.logger.exception("set-up failed", error, conn=self.connection_id)
            self._refuse(InternalError("unexpected"))
        else:
            self.context.metrics.setup_seconds(self.channel, time.monotonic() - began)
            self.relay = relay
            self._safely(self._connect)

    async def prepare_relay(self) -> Relay:
        """Identify the client and configure its session.

        Raises:
            GatewayError: If the client may not talk.
            StoreError: If the database failed.
        """
        raise AssertionError("each door says how it is prepared")

    async def count_user(self, user_id: str, *, replaces: bool = False) -> None:
        """Take the user's place; it is given back when the connection ends. See `Connections.reserve_user`.

        Raises:
            TooManySessions: If the user has as many sessions as allowed.
        """
        assert self._place is not None  # admitted before it is prepared
        await self._place.count_user(user_id, replaces=replaces)

    def make_outbox(self) -> Outbox:
        """Return the queue in front of this connection's socket."""
        protocol = self._protocol
        assert protocol is not None
        return Outbox(
            protocol,
            time.monotonic,
            on_dropped=lambda frames: self.relay.audio_dropped(frames) if self.relay else None,
            on_stuck=lambda: self.relay.client_is_stuck() if self.relay else None,
        )

    def _connect(self, relay: Relay) -> None:
        relay.traced_by(self._trace)
        self.context.connections.add(relay)
        self.context.start(self._settle(relay), f"settle-{self.connection_id}")
        self.context.metrics.session_opened(self.channel)
        relay.begin()
        left_s = self.context.connections.drain_left_s
        if left_s:  # the drain began while this session was set up, and missed it
            relay.drain_soon(left_s)
        elif left_s is not None:
            relay.drain_now()
        for frame in self._early.take():
            if frame is None:
                relay.client_sent_binary()
            else:
                relay.client_received(frame)
        if self._protocol is not None:
            self._protocol.deliver = relay.client_received
        self._forget_request()

    def _forget_request(self) -> None:
        """Let go of the handshake: a session needs no more of it, and it is 3 KB with a token in it."""
        request = self.request
        request.uri = request.path = request.query = ""
        request.headers = self._headers = _NO_HEADERS
        request.arguments = request.query_arguments = request.body_arguments = {}

    async def _settle(self, relay: Relay) -> None:
        """Note in the directory what is talked about; whoever goes on with it elsewhere at the same time gives way."""
        noted = await self._place.note(relay.conversation_id) if self._place is not None else None
        if noted is None:
            return
        self.context.connections.noted(relay, noted.at)
        asked = {"conversation_id": relay.conversation_id, "user_id": relay.user_id, "before": noted.at}
        if noted.others:
            await end_elsewhere(self.context, asked)

    # ------------------------------------------------------------------ messages

    def text_received(self, frame: bytes) -> None:
        """Take one text message; before the session begins it is kept, within a bound: the oldest goes first."""
        if self.relay is not None:
            self._safely(lambda relay: relay.client_received(frame))
        else:
            self._keep(frame)

    def binary_received(self) -> None:
        """Take note of a binary message."""
        if self.relay is not None:
            self._safely(lambda relay: relay.client_sent_binary())
        else:
            self._keep(None)

    def _keep(self, frame: bytes | None) -> None:
        """Keep what came before the session begins."""
        if not self._is_over and not self._early.keep(frame) and not self._told_too_early:
            self._told_too_early = True  # once: nothing bounds what is written past the outbox
            message = "Too much was sent before the session was ready. Wait for session.updated."
            self._write(error_event("too_early", message))

    def too_big(self) -> None:
        """End the session because of a message over the limit; Tornado sends the close frame right after this."""
        if self.relay is not None:
            self._safely(lambda relay: relay.client_left(MessageTooBig.ending))
        elif not self._is_over:
            self._refuse(MessageTooBig("before the session began"))

    def _safely(self, act: Callable[[Relay], None]) -> None:
        """Hand a fact to the relay; a bug of ours ends this session and no other."""
        relay = self.relay
        if relay is not None:
            self.context.attempt(lambda: act(relay), relay.failed)

    # ------------------------------------------------------------------ the end

    def _refuse(self, error: GatewayError) -> None:
        """Tell a client that may not talk, and close."""
        self.context.metrics.refused(error.ending.code)
        fields = {"conn": self.connection_id, "close": error.ending.code, "end_reason": error.ending.end_reason}
        self.context.logger.info("connection refused", **fields, cause=error.detail)
        self._trace.end(close_code=error.ending.code, end_reason=error.ending.end_reason)
        self.shut(error.ending, error.message)

    def shut(self, ending: Ending, message: str) -> None:
        """Close the socket with the ending's code; an `error` event goes before it unless the end is normal."""
        if self._is_over:
            return
        self._is_over = True
        if not ending.is_normal:
            self._tell(ending, message or ending.message)
        self.close(ending.code, ending.reason)

    def _tell(self, ending: Ending, message: str) -> None:
        self._write(error_event(ending.end_reason, message, kind="gateway_error"))

    def _write(self, event: Event) -> None:
        """Write an event of ours past the outbox: there is none yet, or it is written to its end."""
        protocol = self._protocol
        if protocol is None or protocol.is_closing():
            return
        protocol.send_text(encode({**event, "event_id": f"event_{self.connection_id}"}))

    def on_close(self) -> None:
        """Finish: whatever state the connection was in, everything it held is given back."""
        if self._setup is not None and self.relay is None:
            self._setup.cancel()
        self._is_over = True
        if self.relay is not None:
            ending = PAGE_CLOSED if self.close_code == 1001 else CLIENT_LEFT
            self._safely(lambda relay: relay.client_left(ending))
        if self._place is not None:
            self._place.release()
        if self.relay is None:  # otherwise the session ends its trace
            self._trace.end(close_code=self.close_code)
        self._early.take()
