"""A gateway for the page tests: real sockets, real sound, no model.

It serves the pages through `handlers/pages.py` and speaks the preview dialect (or `ga` below `/v1/realtime`) as far as
the page needs it. It hears speech with an energy gate and answers with tones. How it could mislead: it accepts every
event in any order, and its turn detection is cruder than a real one.

By hand: `python tests/web/fake_gateway.py` from the root of the repository, then open the printed address.
"""
from __future__ import annotations

import array
import asyncio
import base64
import itertools
import json
import math
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from handlers.pages import CLIENT_ROUTE, render_talk_page

RATE = 24_000
FRAME = RATE // 50  # 20 ms
OPEN_RMS, OPEN_FRAMES, CLOSE_FRAMES = 600, 3, 15  # 60 ms of sound open a turn, 300 ms of quiet end it
PIECE_BYTES = 9_600  # 200 ms

AGENTS = [
    {"id": "11111111-1111-4111-8111-111111111111", "name": "Ada", "voice": "marin",
     "description": "Answers questions about bookings and opening hours. Ask for a table, or for tomorrow."},
    {"id": "22222222-2222-4222-8222-222222222222", "name": "Brook", "voice": "cedar", "description": ""},
]
VOICES = ["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"]
Event = dict[str, Any]


def rms(pcm: array.array[int]) -> float:
    """Root mean square of 16-bit samples."""
    return math.sqrt(sum(s * s for s in pcm) / len(pcm)) if pcm else 0.0


def tone(hz: float, seconds: float, level: float = 0.3) -> bytes:
    """A sine with 10 ms ramps, 24 kHz PCM16."""
    n, ramp = int(RATE * seconds), RATE // 100
    return array.array("h", (
        int(32767 * level * min(1.0, i / ramp, (n - i) / ramp) * math.sin(2 * math.pi * hz * i / RATE))
        for i in range(n)
    )).tobytes()


def peak_hz(pcm: array.array[int]) -> int:
    """Strongest of 100..3900 Hz in 20 Hz steps (Goertzel over half a second, every third sample); 0 for quiet."""
    block = pcm[-RATE // 2:]
    if len(block) < RATE // 4 or rms(block) < 20:
        return 0
    best, best_hz = 0.0, 0
    for hz in range(100, 3901, 20):
        c, s1, s2 = 2 * math.cos(2 * math.pi * hz * 3 / RATE), 0.0, 0.0
        for x in block[::3]:
            s1, s2 = x + c * s1 - s2, s1
        power = s1 * s1 + s2 * s2 - c * s1 * s2
        if power > best:
            best, best_hz = power, hz
    return best_hz


@dataclass
class Plan:
    """What the gateway is to do; a test changes it before the page does something."""

    refuse: tuple[int, str] | None = None
    refuse_with_error_event: bool = False
    error_event: Event | None = None
    reply_seconds: float = 1.5
    reply_text: str = "I heard you."
    piece_wait_s: float = 0.005
    transcript_late: bool = False
    simulated: bool = True
    valid_tokens: set[str] | None = None
    owner_keeps_turns: bool = False
    session: Event = field(default_factory=lambda: {"turn_detection": {"type": "server_vad"}})


class FakeGateway:
    """The server in a thread of its own. `sessions` are all conversations so far, the newest last."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.sessions: list[Talk] = []
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="fake-gateway", daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    @property
    def url(self) -> str:
        """Address of the talk page."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def latest(self) -> Talk:
        """The newest conversation."""
        return self.sessions[-1]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        routes: list[Any] = [(r"/", Talk, {"gateway": self}), (r"/v1/realtime", Talk, {"gateway": self}),
                             (r"/api/agents", Agents, {"gateway": self}), CLIENT_ROUTE]
        server = tornado.httpserver.HTTPServer(tornado.web.Application(routes, log_function=lambda handler: None))
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server.add_sockets(sockets)
        self._started.set()
        await self._stop.wait()
        server.stop()
        for talk in self.sessions:
            talk.stop_reply()
        await server.close_all_connections()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the server's thread and return what it returns."""
        async def run() -> Any:
            return work()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def close(self) -> None:
        """Stop the server and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)


class Agents(tornado.web.RequestHandler):
    """`GET /api/agents` with the bearer token."""

    def initialize(self, gateway: FakeGateway) -> None:
        """Keep the gateway."""
        self.gateway = gateway

    def get(self) -> None:
        """Answer the list, or 401."""
        token = self.request.headers.get("Authorization", "").removeprefix("Bearer ")
        valid = self.gateway.plan.valid_tokens
        if not token or (valid is not None and token not in valid):
            self.set_status(401)
            self.finish({"error": "unauthorized"})
            return
        self.finish({"agents": AGENTS, "voices": VOICES, "simulated": self.gateway.plan.simulated})


class Talk(tornado.websocket.WebSocketHandler):
    """One conversation; `/` is both the page and the socket."""

    def initialize(self, gateway: FakeGateway) -> None:
        """Keep the gateway and start with nothing heard."""
        self.gateway, self.plan = gateway, gateway.plan
        self.received: list[Event] = []
        self.heard = array.array("h")
        self._pending, self._talking, self._loud, self._quiet = array.array("h"), False, 0, 0
        self._reply: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self.left = False

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Serve the page unless an upgrade is asked for."""
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await super().get(*args, **kwargs)
        else:
            render_talk_page(self)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose `realtime`; the token in the second one is never echoed."""
        self.offered = subprotocols
        return "realtime" if "realtime" in subprotocols else None

    @property
    def token(self) -> str:
        """The token, by whichever way it came."""
        hidden = [p.removeprefix("openai-insecure-api-key.") for p in getattr(self, "offered", [])]
        return self.get_argument("token", "") or (hidden[1] if len(hidden) > 1 else "")

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin, or refuse as planned."""
        self.set_nodelay(True)
        self.ga = self.request.path == "/v1/realtime"
        self.gateway.sessions.append(self)
        refuse = self.plan.refuse
        if self.plan.valid_tokens is not None and self.token not in self.plan.valid_tokens:
            refuse = (4001, "Unauthorized")
        if refuse:
            if self.plan.refuse_with_error_event:
                self.emit("error", error={"type": "gateway_error", "code": "refused", "message": refuse[1]})
            self.close(*refuse)
            return
        known = self.get_argument("conversation_id", "")
        self.conversation_id = known or str(uuid.uuid4())
        session = {"audio": {"input": self.plan.session}} if self.ga else self.plan.session
        self.emit("session.created", session={"id": "sess_1", **session})
        self.emit("conversation.created", conversation_id=self.conversation_id, resumed=bool(known))

    def emit(self, kind: str, **body: Any) -> None:
        """Send one event, under the name of the dialect."""
        if self.ws_connection is None:
            return
        if self.ga:
            kind = kind.replace("response.audio", "response.output_audio")
        sent = self.write_message(json.dumps({"type": kind, "event_id": f"event_{next(self._numbers)}", **body}))
        asyncio.ensure_future(sent).add_done_callback(lambda f: f.cancelled() or f.exception())

    def on_message(self, message: str | bytes) -> None:
        """Take one client event."""
        event: Event = json.loads(message)
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            assert list(event) == ["type", "audio"], "the exact shape of the server's fast lane"
            self.hear(base64.b64decode(event["audio"]))
            return
        self.received.append(event)
        if kind == "session.update" and self.plan.owner_keeps_turns:
            self.emit("error", error={"type": "invalid_request_error", "code": "not_allowed",
                                      "message": "A client may not set this.", "event_id": event["event_id"]})
        elif kind == "session.update":
            self._talking = False
            audio = event["session"].get("audio", {}).get("input", event["session"])
            self.manual = audio.get("turn_detection", "") is None
            self.emit("session.updated", session=event["session"])
        elif kind == "input_audio_buffer.commit":
            self.emit("input_audio_buffer.committed", item_id="held_1")
        elif kind == "response.create":
            self.answer()
        elif kind == "conversation.item.create":
            self.plan_for(event["item"]["content"][0]["text"])
        elif kind == "response.cancel":
            self.stop_reply()

    manual = False
    _next_text = ""
    _next_seconds = 0.0

    def plan_for(self, text: str) -> None:
        """Choose the answer to a typed line."""
        self._next_text, self._next_seconds = f"You typed: {text}", self.plan.reply_seconds
        if text == "test long answer":
            self._next_seconds = 20.0
        elif text == "test error":
            self.emit("error", error={"type": "server_error", "code": "test_error", "message": "This is a test error."})
        elif text == "hang up":
            self.close(1000)

    def hear(self, pcm: bytes) -> None:
        """Take sound; speech opens a turn, quiet ends it."""
        now = array.array("h", pcm)
        self.heard.extend(now)
        if self.manual:
            return
        self._pending.extend(now)
        while len(self._pending) >= FRAME:
            frame, self._pending = self._pending[:FRAME], self._pending[FRAME:]
            loud = rms(frame) > OPEN_RMS
            self._loud, self._quiet = (self._loud + 1, 0) if loud else (0, self._quiet + 1)
            if not self._talking and self._loud >= OPEN_FRAMES:
                self._talking = True
                self._item = f"said_{next(self._numbers)}"
                self.stop_reply()
                self.emit("input_audio_buffer.speech_started", item_id=self._item, audio_start_ms=0)
            elif self._talking and self._quiet >= CLOSE_FRAMES:
                self._talking = False
                self.emit("input_audio_buffer.speech_stopped", item_id=self._item, audio_end_ms=0)
                self.emit("input_audio_buffer.committed", item_id=self._item)
                self._next_text, self._next_seconds = self.plan.reply_text, self.plan.reply_seconds
                self.answer(said=self._item)

    def answer(self, said: str = "") -> None:
        """Begin an answer; one already under way is stopped."""
        self.stop_reply()
        self._reply = asyncio.ensure_future(self._say(self._next_text or self.plan.reply_text,
                                                      self._next_seconds or self.plan.reply_seconds, said))

    def stop_reply(self) -> None:
        """Stop the answer under way, if any."""
        if self._reply and not self._reply.done():
            self._reply.cancel()
            self.emit("response.done", response={"id": "resp", "status": "cancelled"})
        self._reply = None

    async def _say(self, text: str, seconds: float, said: str) -> None:
        item, response = f"item_{next(self._numbers)}", f"resp_{next(self._numbers)}"
        here = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        heard = {"item_id": said, "content_index": 0, "transcript": "What time do you open tomorrow?"}
        if said and not self.plan.transcript_late:
            self.emit("conversation.item.input_audio_transcription.completed", **heard)
        self.emit("response.created", response={"id": response})
        words, pcm = text.split(" "), tone(440, seconds)
        for n, at in enumerate(range(0, len(pcm), PIECE_BYTES)):
            if n < len(words):
                self.emit("response.audio_transcript.delta", **here, delta=(" " if n else "") + words[n])
            self.emit("response.audio.delta", **here, delta=base64.b64encode(pcm[at:at + PIECE_BYTES]).decode())
            await asyncio.sleep(self.plan.piece_wait_s)
        self.emit("response.audio_transcript.done", **here, transcript=text)
        self.emit("response.audio.done", **here)
        self._reply = None
        self.emit("response.done", response={"id": response, "status": "completed"})
        if said and self.plan.transcript_late:
            self.emit("conversation.item.input_audio_transcription.completed", **heard)

    def drop(self) -> None:
        """Lose the connection without a close frame."""
        self.ws_connection.stream.close()  # type: ignore[union-attr]

    def kinds(self) -> list[str]:
        """Types of the events received, sound left out."""
        return [event["type"] for event in self.received]

    def tail_rms(self, seconds: float = 0.5) -> float:
        """Level of the last sound heard."""
        return rms(self.heard[-int(RATE * seconds):])

    def on_close(self) -> None:
        """Stop talking to nobody."""
        self.left = True
        if self._reply:
            self._reply.cancel()


if __name__ == "__main__":
    fake = FakeGateway()
    print(f"{fake.url}#token=any", flush=True)
    threading.Event().wait()
