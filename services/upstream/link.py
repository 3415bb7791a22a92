"""One link to the Realtime API: whole messages in bytes, both ways, and one word when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import picows

from core.realtime import close_reason_code
from core.recovery import Loss

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message taken: `conversation.item.retrieved` carries whole audio (OpenAI Realtime reference, section 9.4)."""

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
