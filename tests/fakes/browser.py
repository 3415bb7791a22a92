"""A browser's side of a conversation over websocket-client, which shares no code with the server.

    with Browser(gateway) as browser:
        browser.live()
        browser.type_text("hello")
        assert browser.until("response.done")

It misleads in that it answers pings only while it reads.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import websocket

from tests.fakes.gateway import Gateway

DEADLINE_S = 30.0
"""Longest wait for one event; above the 7.4 s that all retries of a lost upstream take together."""

USER_ID = "00000000-0000-4000-8000-000000000001"
STRANGER_ID = "00000000-0000-4000-8000-000000000002"
PLAIN_ID = "00000000-0000-4000-8000-0000000000b1"
TOOLED_ID = "00000000-0000-4000-8000-0000000000b2"
STRANGERS_AGENT_ID = "00000000-0000-4000-8000-0000000000b3"
SWITCHED_OFF_ID = "00000000-0000-4000-8000-0000000000b4"

INSTRUCTIONS_CANARY = "canary-of-the-instructions-7c1f"
TOOL_CANARY = "canary_of_the_tool_5b2d"

AGENTS: tuple[dict[str, Any], ...] = (
    {"id": PLAIN_ID, "user_id": USER_ID, "name": "Plain", "instructions": INSTRUCTIONS_CANARY, "voice": "sage"},
    {
        "id": TOOLED_ID,
        "user_id": USER_ID,
        "name": "Tooled",
        "instructions": INSTRUCTIONS_CANARY,
        "voice": "sage",
        "tools": [
            {"builtin": "current_time"},
            {"builtin": "end_call"},
            {"name": TOOL_CANARY, "url": "https://tool.invalid/x", "description": TOOL_CANARY},
        ],
    },
    {"id": STRANGERS_AGENT_ID, "user_id": STRANGER_ID, "name": "Not yours"},
    {"id": SWITCHED_OFF_ID, "user_id": USER_ID, "name": "Off", "is_active": False},
)
"""Agents that do not speak first, so that a test decides what happens."""


class Closed(Exception):
    """Raised when the server closed: `code` and `reason` of its close frame, code 1006 when there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed {code} {reason!r}")
        self.code = code
        self.reason = reason


class End(NamedTuple):
    """How a connection ended, and the last `error` object before it."""

    code: int
    reason: str
    error: dict[str, Any] | None


class Browser:
    """One client of a gateway.

    Args:
        gateway: Where to connect.
        path: `` for the browser's door, `v1/realtime` for the compatible one; a query in it comes first.
        token: Default the demo user's; empty leaves it out.
        agent_id: Default the plain agent; empty leaves it out.
        query: Further parameters.
        options: Passed on to websocket-client, such as `header` and `subprotocols`.
    """

    def __init__(
        self,
        gateway: Gateway,
        path: str = "",
        *,
        token: str | None = None,
        agent_id: str = PLAIN_ID,
        query: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        asked = {"token": gateway.token() if token is None else token, "agent_id": agent_id, **(query or {})}
        glue = "&" if "?" in path else "?"
        address = f"{gateway.ws_url}{path}{glue}{urlencode({k: v for k, v in asked.items() if v})}"
        self.socket = websocket.create_connection(address, timeout=DEADLINE_S, suppress_origin=True, **options)
        self.events: list[dict[str, Any]] = []
        self.frames: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    # ------------------------------------------------------------------ sending

    def send(self, event_type: str, **fields: Any) -> None:
        """Send one event."""
        self.socket.send(json.dumps({"type": event_type, **fields}, separators=(",", ":")))

    def type_text(self, text: str, *, answer: bool = True) -> None:
        """Put a typed message into the conversation and ask for an answer."""
        content = [{"type": "input_text", "text": text}]
        self.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        if answer:
            self.send("response.create")

    def speak(self, audio: bytes, chunk: int = 4_800) -> None:
        """Append PCM16 audio in pieces of 100 ms, without pauses."""
        for offset in range(0, len(audio), chunk):
            encoded = base64.b64encode(audio[offset : offset + chunk]).decode()
            self.send("input_audio_buffer.append", audio=encoded)

    def leave(self, code: int = 1000) -> None:
        """Close as a client does, with its own code, and wait for the answer."""
        self.socket.send(struct.pack(">H", code), websocket.ABNF.OPCODE_CLOSE)
        self.end()
        self.drop()

    def drop(self) -> None:
        """Drop the TCP connection."""
        self.socket.shutdown()

    # ------------------------------------------------------------------ receiving

    def next(self) -> dict[str, Any]:
        """Return the next event.

        Raises:
            Closed: If the server closed.
            TimeoutError: If nothing came in time.
        """
        try:
            opcode, data = self.socket.recv_data()
        except websocket.WebSocketTimeoutException:
            raise TimeoutError([event["type"] for event in self.events[-5:]]) from None
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            raise Closed(1006, "") from None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
            raise Closed(code, data[2:].decode())
        self.frames.append(data.decode())
        event: dict[str, Any] = json.loads(data)
        self.events.append(event)
        return event

    def until(self, event_type: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of this type whose fields have these values."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            event = self.next()
            if event["type"] == event_type and all(event.get(name) == value for name, value in fields.items()):
                return event
        raise TimeoutError(event_type)

    def live(self) -> str:
        """Wait until audio may flow; returns the conversation's id."""
        conversation_id: str = self.until("conversation.created")["conversation_id"]
        self.until("session.updated")
        return conversation_id

    def quiet(self, silence_s: float = 0.4) -> None:
        """Read until nothing came for a while: for what happens unseen, such as tool calls."""
        self.socket.settimeout(silence_s)
        try:
            while True:
                self.next()
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(DEADLINE_S)

    def error(self) -> dict[str, Any]:
        """Return the `error` object of the next error event."""
        return dict(self.until("error")["error"])

    def notice(self, code: str) -> dict[str, Any]:
        """Return the next gateway.notice with this code."""
        return self.until("gateway.notice", code=code)

    def answer(self) -> str:
        """Return what the agent says next."""
        said = self.until("response.audio_transcript.done")["transcript"]
        self.until("response.done")
        return str(said)

    def end(self) -> End:
        """Read to the end; return how it ended."""
        until = time.monotonic() + DEADLINE_S
        try:
            while time.monotonic() < until:
                self.next()
        except Closed as closed:
            errors = [event["error"] for event in self.events if event["type"] == "error"]
            return End(closed.code, closed.reason, errors[-1] if errors else None)
        raise TimeoutError("the server did not close")


def eventually(check: Callable[[], Any], within_s: float = 2.0) -> Any:
    """Return the first true value of `check`, which is asked until the deadline; then its last value.

    On a machine so busy that this process itself hardly runs, the deadline is as many looks later as it would have had.
    """
    until, looks = time.monotonic() + within_s, within_s / 0.01
    while not (value := check()) and (looks > 0 or time.monotonic() < until):
        time.sleep(0.01)
        looks -= 1
    return value
