"""The link to the Realtime API; the only file that names a WebSocket client library.

One `Upstream` serves the process and holds what links share: the address, one TLS context, the deadlines. Messages
arrive as whole frames in bytes and are given as such; a link says once, and only once, that it is lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import picows

from core.realtime import close_reason_code
from core.recovery import Loss

HANDSHAKE_S = 8.0
"""A handshake that takes longer is given up (operations reference, section 6, P7)."""

PING_IDLE_S = 15.0
PING_REPLY_S = 10.0
"""A dead peer is noticed within 25 s (operations reference, section 1.2)."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message taken: `conversation.item.retrieved` carries whole audio (OpenAI Realtime reference, section 9.4)."""

READ_BUFFER_BYTES = 4096
"""Of one link at its begin: an audio delta of 20 ms fits in; it grows to what comes."""

TLS_BUFFER_BYTES = 16_384 + 64
"""What is encrypted, each way, between the socket and TLS: one record with its head. aiofastnet's own 257 KiB each way
cost a map and its pages for each link. Source: RFC 8446, section 5.1."""

_TLS_BUFFERS = ("ssl_incoming_bio_size", "ssl_outgoing_bio_size")

MAX_BACKLOG_BYTES = 1_048_576
"""Unsent bytes towards a service that does not read: 16 s of audio. Beyond it audio is dropped, and at twice that much
the link is taken for dead."""

_TEXT = picows.WSMsgType.TEXT
_CONTINUATION = picows.WSMsgType.CONTINUATION
_DATA = {_TEXT, picows.WSMsgType.BINARY, _CONTINUATION}

NO_CLOSE_CODE = 1005
"""Stands for a close frame without a code. Source: RFC 6455, section 7.1.5."""

UNSENDABLE_CODES = frozenset({0, 1006})
"""Codes no peer may send that picows lets pass, because it has names for them. Source: RFC 6455, section 7.4.1."""

LAST_CLOSE_CODE = 4999
"""Codes above it mean nothing. Source: RFC 6455, section 7.4.2."""

CLOSE_WAIT_S = 2.0
"""How long a closing handshake may take before the socket is dropped."""


class UpstreamError(Exception):
    """Raised when no link could be opened; `loss` says why."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.cause)
        self.loss = loss


@dataclass(frozen=True, slots=True)
class Target:
    """Where a link goes: the key, the model, and a stable hash of the person for the vendor's abuse detection."""

    key: str
    model: str
    safety_identifier: str = ""

    def __repr__(self) -> str:
        return f"Target(model={self.model!r})"


class Link(picows.WSListener):
    """One open link; what arrives before `listen` is kept for it.

    Attributes:
        was_opened: Whether the handshake succeeded; the link may be gone since.
        dropped: Messages not sent because the service does not read.
    """

    def __init__(self) -> None:
        self._on_message: Callable[[bytes], None] = self._keep
        self._on_lost: Callable[[Loss], None] = self._keep_loss
        self._early: list[bytes] = []
        self._early_loss: Loss | None = None
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._parts_are_text = False
        self._on_burst: Callable[[bool], None] = _nothing
        self._is_burst = False
        self._ending: asyncio.Task[None] | None = None
        self._is_over = False
        self._is_full = False
        self.was_opened = False
        self._loss = Loss("closed")
        self.dropped = 0

    def listen(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[Loss], None],
        on_burst: Callable[[bool], None] | None = None,
    ) -> None:
        """Hand on what has arrived and what will.

        Args:
            on_message: Called with each whole message.
            on_lost: Called once when the link is gone and `close` was not called.
            on_burst: Called with True ahead of messages that arrived together, and with False behind the last of them.
        """
        self._on_burst = on_burst or _nothing
        self._on_message, self._on_lost = on_message, on_lost
        early, self._early = self._early, []
        for message in early:
            on_message(message)
        if self._early_loss is not None:
            on_lost(self._early_loss)

    def _keep(self, message: bytes) -> None:
        self._early.append(message)

    def _keep_loss(self, loss: Loss) -> None:
        self._early_loss = loss

    def send_audio(self, frame: bytes) -> bool:
        """Send one text message that may be lost; False when it was, because the service does not read."""
        if self._transport is None or self._is_over or self._is_full:
            self.dropped += self._is_full
            return False
        self._transport.send(_TEXT, frame)
        return True

    def send(self, frame: bytes) -> bool:
        """Send one text message; False when it was not. A service that reads none for long is taken for dead."""
        if self._transport is None or self._is_over:
            return False
        if self._is_full and self._transport.underlying_transport.get_write_buffer_size() > 2 * MAX_BACKLOG_BYTES:
            self.dropped += 1
            self._fail(Loss("stalled"))
            return False
        self._transport.send(_TEXT, frame)
        return True

    def close(self) -> None:
        """Close the link; nothing of it is heard again."""
        self._is_over = True
        self._end_burst()
        if self._transport is not None:
            self._transport.send_close(picows.WSCloseCode.OK)
            asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self._transport.disconnect, False)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        transport.underlying_transport.set_write_buffer_limits(MAX_BACKLOG_BYTES)
        self._transport, self.was_opened = transport, True

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind, is_last = frame.msg_type, frame.last_in_buffer
        if not is_last and not self._is_burst:
            self._is_burst = True
            self._on_burst(True)
        if frame.rsv1 or frame.rsv2 or frame.rsv3:  # no extension was offered; picows lets them pass
            self._refuse(transport, picows.WSCloseCode.PROTOCOL_ERROR)
        elif kind == _TEXT and frame.fin and not self._parts and not self._is_over:
            message = frame.get_payload_as_bytes()
            if message.isascii():  # asked here too: a call less for every piece of audio
                self._on_message(message)
            else:
                self._hand_on(transport, message)
        elif kind == picows.WSMsgType.CLOSE:
            self._closed(transport, frame)
        elif kind == picows.WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif not self._is_over and kind in _DATA:
            self._data(transport, frame)
        if is_last and self._is_burst:
            self._end_burst()

    def _end_burst(self) -> None:
        if self._is_burst:
            self._is_burst = False
            self._on_burst(False)

    def _hand_on(self, transport: picows.WSTransport, message: bytes) -> None:
        """Hand on a text message, unless it is none: a browser would drop its connection over it."""
        if not message.isascii():
            try:
                message.decode("utf-8")
            except UnicodeDecodeError:
                self._refuse(transport, picows.WSCloseCode.INVALID_TEXT)
                return
        self._on_message(message)

    def _closed(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._is_over:
            transport.disconnect()
            return
        code = int(frame.get_close_code().value)
        if frame.get_payload_as_bytes() and (code in UNSENDABLE_CODES or code > LAST_CLOSE_CODE):
            self._refuse(transport, picows.WSCloseCode.PROTOCOL_ERROR)
            return
        code = code or NO_CLOSE_CODE
        reason = (frame.get_close_message() or b"").decode("utf-8", "replace")
        self._loss = Loss("closed", code=close_reason_code(reason), status=code)
        transport.send_close(picows.WSCloseCode.OK)
        transport.disconnect()

    def _data(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Collect the fragments of a message, or hand on what came in one piece."""
        kind = frame.msg_type
        if (kind == _CONTINUATION) != bool(self._parts):  # a rest of nothing, or a new message within another
            self._refuse(transport, picows.WSCloseCode.PROTOCOL_ERROR)
            return
        if kind != _CONTINUATION:
            self._parts_are_text = kind == _TEXT
        payload = frame.get_payload_as_bytes()
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self._fail(Loss("error", code="message_too_big"))
        elif frame.fin:
            whole, self._parts, self._parts_bytes = b"".join(self._parts), [], 0
            if self._parts_are_text:
                self._hand_on(transport, whole)
            else:
                self._on_message(whole)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._transport = None
        self._end_burst()
        # Where picows itself found broken framing it keeps the error for a caller, and asyncio logs what nobody takes.
        self._ending = asyncio.get_running_loop().create_task(_take_error(transport), name="link-ending")
        if not self._is_over:
            self._is_over = True
            self._on_lost(self._loss)

    def _refuse(self, transport: picows.WSTransport, code: picows.WSCloseCode) -> None:
        """Close because the service broke a rule of the protocol; nothing more of it is heard."""
        self._on_message = _nothing
        self._parts, self._parts_bytes = [], 0
        self._loss = Loss("closed", code="protocol_error", status=int(code.value))
        transport.send_close(code)
        transport.disconnect()

    def _fail(self, loss: Loss) -> None:
        self._loss = loss
        if self._transport is not None:
            self._transport.disconnect(False)


def _nothing(_: object) -> None:
    """Stand for a receiver that is told nothing, or nothing more."""


async def _take_error(transport: picows.WSTransport) -> None:
    """Take what picows keeps about a link that has ended; the link's own `Loss` says it."""
    try:
        await transport.wait_disconnected()
    except picows.WSError:
        pass


class Upstream:
    """Opens links to one Realtime service.

    Args:
        url: Address of the service, see OPENAI_REALTIME_URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context() if url.startswith("wss:") else None
        self._tls_sizes: dict[str, Any] = dict.fromkeys(_TLS_BUFFERS, TLS_BUFFER_BYTES) if self._tls else {}

    async def open(self, target: Target) -> Link:
        """Return an open link within `HANDSHAKE_S`; call its `listen` next.

        Raises:
            UpstreamError: If the service could not be reached or refused.
        """
        link, dialer, is_given = Link(), _Dialer(), False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._shake_hands(link, dialer, target)
            if not link.was_opened:  # picows reports a connection that ends unanswered like one that was answered
                raise UpstreamError(Loss("closed"))
            is_given = True
            return link
        except picows.WSInvalidStatusError as error:
            raise UpstreamError(_refused(error)) from None
        except picows.WSError:
            raise UpstreamError(Loss("refused", code="not_a_websocket")) from None
        except TimeoutError:
            raise UpstreamError(Loss("timeout")) from None
        except OSError:
            raise UpstreamError(Loss("unreachable")) from None
        finally:
            if not is_given:  # also when the caller was cancelled at the very moment the link opened
                link.close()
                dialer.hang_up()

    async def _shake_hands(self, link: Link, dialer: _Dialer, target: Target) -> None:
        headers = {"Authorization": f"Bearer {target.key}"}
        if target.safety_identifier:
            headers["OpenAI-Safety-Identifier"] = target.safety_identifier
        await picows.ws_connect(
            lambda: link,
            self._address(target.model),
            ssl_context=self._tls,
            websocket_handshake_timeout=HANDSHAKE_S,
            extra_headers=headers,
            enable_auto_ping=True,
            auto_ping_idle_timeout=PING_IDLE_S,
            auto_ping_reply_timeout=PING_REPLY_S,
            enable_auto_pong=False,  # it would answer pings with reserved bits too
            max_frame_size=MAX_MESSAGE_BYTES,
            max_redirects=0,
            read_buffer_init_size=READ_BUFFER_BYTES,
            socket_factory=dialer.dial,
            **self._tls_sizes,
        )

    def _address(self, model: str) -> str:
        """Return the address with the model in its query; a query of the operator's own is kept."""
        parts = urlsplit(self._url)
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "model"]
        return urlunsplit(parts._replace(query=urlencode([*query, ("model", model)])))


class _Dialer:
    """Connects the socket of one link, so that it can be hung up at any moment.

    picows goes on with a handshake whose caller was cancelled: nobody would own the session that opens.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def dial(self, url: Any) -> socket.socket:
        """Return a socket connected to the first address of the host that answers.

        Raises:
            OSError: If none does.
        """
        loop = asyncio.get_running_loop()
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, address in await _addresses(url.host, url.port):
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
            try:
                await loop.sock_connect(self._socket, address)
            except OSError as error:
                self._socket.close()
                failure = error
            except BaseException:
                self._socket.close()
                raise
            else:
                return self._socket
        raise failure

    def hang_up(self) -> None:
        """End the connection, whatever it was doing; its transport sees the end and closes the socket."""
        if self._socket is not None and self._socket.fileno() != -1:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was not connected


async def _addresses(host: str, port: int) -> list[tuple[int, int, int, Any]]:
    """Return family, kind, protocol and address of a host, the best first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def _refused(error: picows.WSInvalidStatusError) -> Loss:
    """Read status and Retry-After of the HTTP answer to a handshake."""
    response = getattr(error, "response", None)
    status = int(response.status) if response is not None else None
    waits = response.headers.get("Retry-After", "") if response is not None else ""
    return Loss("refused", status=status, retry_after_s=float(waits) if waits.isdigit() else None)
