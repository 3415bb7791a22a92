"""A person's socket in one browser conversation: a `Listener` behind websocket-client.

The socket blocks, so a thread reads while the caller's thread speaks.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import websocket

from cli.listener import Listener

CONNECT_S = 20.0
"""The server gives a session 15 s to be set up and its link 8 s to open; it says so itself when that was too short."""

CLOSE_S = 3.0
"""How long the closing handshake may take."""

HOW_TO_MEND: Mapping[int, str] = {
    1011: "Ask the server's operator to run ./voice doctor.",
    4001: "For a server in development ./voice token makes a token; in production sign in again.",
    4004: "GET /api/agents lists the agents of the signed-in user.",
    4029: "./voice status shows the live sessions.",
    4502: "./voice doctor says whether the voice service can be reached.",
}
"""What a person at the command line can do about a close code, beyond the server's own sentence."""


class TalkFailed(Exception):
    """Raised when the conversation could not be begun or ended early; the text says what to do."""


class Talker:
    """One conversation; after `connect`, `hang_up` must be called."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._changed = threading.Condition()
        self._ending = ""
        self._hung_up = False
        self._socket: websocket.WebSocket
        self._reader = threading.Thread(target=self._read, name="talk-reader", daemon=True)

    def connect(self, url: str, token: str, query: Mapping[str, str]) -> None:
        """Return when the conversation is live.

        Args:
            url: Of the browser's door, `ws://…/` or `wss://…/`.
            token: Sent as a header, so that it is in no log of a proxy.
            query: Parameters of the door: `agent_id`, `voice`, `conversation_id`.

        Raises:
            TalkFailed: If the server cannot be reached or refuses.
        """
        parts = urlsplit(url)
        address = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))
        try:
            self._socket = websocket.create_connection(
                address, timeout=CONNECT_S, header=[f"Authorization: Bearer {token}"], suppress_origin=True
            )
        except websocket.WebSocketBadStatusException as error:
            raise TalkFailed(f"{parts.netloc} answered {error.status_code} instead of opening a WebSocket.") from None
        except (websocket.WebSocketException, OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise TalkFailed(f"{parts.netloc} cannot be reached ({why}). Is the server running? ./voice demo") from None
        self._socket.settimeout(None)
        self._reader.start()
        if not self.wait(lambda: self.listener.is_live, CONNECT_S):
            raise TalkFailed(self._ending or f"{parts.netloc} accepted the connection and then said nothing.")

    def hang_up(self) -> None:
        """Close the socket and wait for the reader; harmless when it never opened."""
        self._hung_up = True
        if self._reader.ident is None:
            return
        try:
            self._socket.send_close(1000)
            self._reader.join(CLOSE_S)
        except (websocket.WebSocketException, OSError):
            pass  # it was closed already
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    @property
    def ending(self) -> str:
        """How the server ended the conversation, in words; empty while it is open or when we ended it."""
        return "" if self._hung_up else self._ending

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Return whether a condition came true before the timeout or the end of the connection."""
        with self._changed:
            self._changed.wait_for(lambda: holds() or bool(self._ending), timeout_s)
            return holds()

    def append(self, pcm: bytes, *, audible: bool) -> None:
        """Send a piece of sound in the canonical shape, which the server forwards unread.

        Args:
            pcm: PCM16, 24 kHz, mono.
            audible: Whether there is speech in it; delays are counted from the last such piece.

        Raises:
            TalkFailed: If the connection is gone.
        """
        if audible:
            self.listener.asked_at = time.monotonic()
        audio = base64.b64encode(pcm).decode("ascii")
        self._send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    def type(self, text: str) -> None:
        """Send a typed message and ask for the answer; raises TalkFailed."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self._send(json.dumps({"type": "conversation.item.create", "item": item}))
        with self._changed:
            self.listener.typed(text, time.monotonic())
        self._send('{"type":"response.create"}')

    def commit(self) -> None:
        """End the utterance and ask for the answer, of an agent that does not detect turns; raises TalkFailed."""
        self._send('{"type":"input_audio_buffer.commit"}')
        self._send('{"type":"response.create"}')

    def _send(self, frame: str) -> None:
        try:
            if not self._ending:
                self._socket.send(frame)
                return
        except (websocket.WebSocketException, OSError):
            self.wait(lambda: bool(self._ending), CLOSE_S)  # the reader knows why
        raise TalkFailed(self._ending or "The connection was lost.") from None

    # ------------------------------------------------------------------ the reading thread

    def _read(self) -> None:
        ending = "The connection was lost."
        try:
            while True:
                opcode, payload = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    ending = self._closed(payload)
                    break
                self._take(json.loads(payload))
        except (websocket.WebSocketException, OSError) as error:
            ending = f"The connection was lost ({getattr(error, 'strerror', None) or type(error).__name__})."
        with self._changed:
            self._ending = ending
            self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        with self._changed:
            replies = self.listener.received(event, time.monotonic())
            self._changed.notify_all()
        for reply in replies:
            self._socket.send(json.dumps(reply))

    def _closed(self, payload: bytes) -> str:
        """Return the server's close in words, with what it said before and what can be done."""
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        reason = payload[2:].decode("utf-8", "replace") or "no reason given"
        said = self.listener.problems[-1] if self.listener.problems else ""
        return " ".join(filter(None, (f"The server closed the conversation: {code}, {reason}.", said,
                                      HOW_TO_MEND.get(code, ""))))  # fmt: skip
