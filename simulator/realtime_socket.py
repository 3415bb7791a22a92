"""The WebSocket door `/v1/realtime`: admission, frames, pings, and faults at the level of the wire."""
from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from simulator.config import SessionConfig
from simulator.context import Context
from simulator.faults import GREETING, Fault, FaultControl, SessionFaults, UnknownFaultError, faults_in_query
from simulator.items import new_id
from simulator.records import SessionRecord, masked_headers
from simulator.session import RealtimeSession
from simulator.settings import SimulatorSettings
from simulator.speech import Voice
from simulator.wire_faults import strike

# A client that reads nothing for so long is given up: its TCP connection is aborted.
DRAIN_TIMEOUT_S = 60.0
SUBPROTOCOL = "realtime"
SUBPROTOCOL_KEY = "openai-insecure-api-key."


class Refusal(Exception):
    """Raised when a connection is told an error and closed."""

    def __init__(self, close_code: int, code: str, message: str, *, error_type: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code
        self.error_type = error_type


def planned_refusal(fault: Fault) -> Refusal:
    """Return what a connection with a fault of `GREETING` is told."""
    if fault.name == "insufficient_quota":
        message = "You exceeded your current quota, please check your plan and billing details."
        return Refusal(3000, "insufficient_quota", message, error_type="insufficient_quota")
    if fault.name == "model_not_found":
        return Refusal(4004, fault.name, "The model does not exist or you do not have access to it.")
    return Refusal(3000, fault.name, "Incorrect API key provided.")


class RealtimeSocket(WebSocketHandler):
    """One connection; implements `simulator.context.Wire` and `simulator.wire_faults.Victim`.

    Attributes:
        ended: Done when the connection is closed and its session's tasks are over.
    """

    def initialize(
        self, settings: SimulatorSettings, voice: Voice, control: FaultControl, *,
        records: deque[SessionRecord], transcripts: deque[str], living: set[RealtimeSocket],
    ) -> None:
        """Take what the simulator shares with every connection."""
        self._settings, self._voice, self._control = settings, voice, control
        self._records, self._transcripts, self._living = records, transcripts, living
        self._record = SessionRecord()
        self._faults = SessionFaults()
        self._context: Context | None = None
        self._session: RealtimeSession | None = None
        self._stalled = False
        self._last_write: asyncio.Future[None] | None = None
        self._left = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dismiss: Callable[[], None] | None = None

    def check_origin(self, origin: str) -> bool:
        """Let every origin in: the service looks at the key alone."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose `realtime`, never the one that carries a key."""
        return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Upgrade, unless a fault at the door prevents it."""
        request = self.request
        self._record.model = self.get_query_argument("model", "")
        self._record.query = request.query
        self._record.headers = masked_headers(request.headers.get_all())
        self._records.append(self._record)
        try:
            self._faults = self._control.take(faults_in_query(request.query_arguments))
        except UnknownFaultError as error:
            self._refuse(400, "unknown_fault", str(error))
            return
        if await self._let_in():
            await super().get(*args, **kwargs)

    async def _let_in(self) -> bool:
        """Suffer the faults at the door; return whether the upgrade goes on."""
        refusal = self._faults.has("refuse_401", "refuse_403", "refuse_429", "refuse_500")
        if refusal:
            if refusal.name == "refuse_429":
                self.set_header("Retry-After", "1")
            self._refuse(int(refusal.name.removeprefix("refuse_")), refusal.name, "Refused by the simulator's fault.")
            return False
        waiting = self._faults.has("slow_handshake", "never_answer")
        if waiting is None:
            return True
        try:
            await asyncio.wait_for(self._left.wait(), waiting.seconds)
        except TimeoutError:
            if waiting.name == "slow_handshake":
                return True
        self._refuse(504, waiting.name, "Nobody answered.")
        return False

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer the upgrade with an HTTP status and the JSON error of the REST API."""
        self._record.refused, self._record.open = code, False
        self.set_status(status)
        if not self._left.is_set():
            self.finish({"error": {"code": code, "message": message, "type": "invalid_request_error", "param": None}})

    def open(self, *args: str, **kwargs: str) -> None:
        """Admit and begin a session, or say why not and close."""
        self.set_nodelay(True)
        self._living.add(self)
        if self._faults.has("no_pong"):
            self.stop_pongs()
        try:
            self._admit()
        except Refusal as refusal:
            self._turn_away(refusal)
            return
        config = SessionConfig(self._record.model, expires_at=int(time.time() + self._settings.session_limit_s))
        context = Context(self._settings, self._voice, config, self._faults, self, self._transcripts)
        self._context, self._session = context, RealtimeSession(context, self._record)
        self._dismiss = self._control.enlist(self.suffer)
        self._session.begin()

    def _admit(self) -> None:
        planned = self._faults.has(*GREETING)
        if planned:
            raise planned_refusal(planned)
        if "realtime=v1" in self.request.headers.get("OpenAI-Beta", ""):
            message = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
            raise Refusal(4000, "beta_api_shape_disabled", message)
        if not self._settings.accepts_key(self._key()):
            raise Refusal(3000, "invalid_api_key", "Incorrect API key provided.")
        model = self._record.model
        if not model:
            raise Refusal(4000, "missing_model", "You must provide a model parameter.")
        if model in self._settings.models:
            return
        if "realtime" in model:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise Refusal(4004, "model_not_found", message)
        raise Refusal(4000, "invalid_model", f"Model \"{model}\" is not supported in realtime mode.")

    def _key(self) -> str:
        """Return the key from the header of the service, the one of Azure, or a browser's subprotocol."""
        headers = self.request.headers
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key:
            return key.strip()
        offered = [entry.strip() for entry in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        carried = (entry.removeprefix(SUBPROTOCOL_KEY) for entry in offered if entry.startswith(SUBPROTOCOL_KEY))
        return headers.get("api-key") or next(carried, "")

    def _turn_away(self, refusal: Refusal) -> None:
        self._record.refused = refusal.code
        error = {"type": refusal.error_type, "code": refusal.code, "message": str(refusal)}
        self.send({"type": "error", "event_id": new_id("event"), "error": {**error, "param": None, "event_id": None}})
        self.close(refusal.close_code, f"{refusal.error_type}.{refusal.code}")

    async def on_message(self, message: str | bytes) -> None:
        """Hand one frame to the session."""
        slow = self._faults.has("slow_reader")
        if slow:
            await asyncio.sleep(slow.seconds)
        if self._session and not self._stalled:
            self._session.receive(message)

    def on_connection_close(self) -> None:
        """Note that the peer left, even before the upgrade."""
        self._left.set()
        super().on_connection_close()

    def on_close(self) -> None:
        """End the session."""
        self._left.set()
        self._record.open, self._record.close_code = False, self.close_code
        if self._dismiss:
            self._dismiss()
        ending = self._context.end() if self._context else asyncio.sleep(0)
        self._ending = asyncio.get_running_loop().create_task(ending, name="session end")
        self._ending.add_done_callback(self._gone)

    def _gone(self, _: asyncio.Task[None]) -> None:
        self._living.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, event: dict[str, Any]) -> None:
        """Send one event, then let the faults strike that were waiting for it."""
        if self._stalled or self.ws_connection is None:
            return
        self._record.sent[event["type"]] += 1
        self._write(json.dumps(event, separators=(",", ":")))
        for fault in self._faults.event_sent(event["type"]):
            self.suffer(fault)

    def _write(self, message: str | bytes) -> None:
        try:
            self._last_write = self.write_message(message, binary=isinstance(message, bytes))
            self._last_write.add_done_callback(_retrieve)
        except WebSocketClosedError:
            self._last_write = None

    async def drain(self) -> None:
        """Wait until the last frame went to the kernel; give the client up when that takes too long."""
        write = self._last_write
        if write is None or write.done():
            return
        try:
            await asyncio.wait_for(asyncio.shield(write), DRAIN_TIMEOUT_S)
        except TimeoutError:
            self.abort()
        except (WebSocketClosedError, StreamClosedError):
            self._last_write = None

    def expire(self) -> None:
        """End the session as its longest life does."""
        if self._session:
            self._session.expire()

    def abort(self) -> None:
        """Drop the TCP connection without a close frame; the client sees 1006."""
        if self.ws_connection is not None:
            self.ws_connection._abort()

    def write_raw(self, message: str | bytes) -> None:
        """Write a frame that is no event: text for a string, binary for bytes."""
        self._write(message)

    def stall(self) -> None:
        """Send nothing any more and read without looking, while the socket stays open."""
        self.stop_pongs()
        self._stalled = True

    def stop_pongs(self) -> None:
        """Keep silent at the level of frames, pings included: Tornado offers no switch, so its writer is replaced."""
        connection: Any = self.ws_connection
        if connection is None:
            return
        if connection._ping_coroutine:
            connection._ping_coroutine.cancel()  # it would close the socket for want of a pong
        write_frame = connection._write_frame

        def write_data_only(fin: bool, opcode: int, data: bytes, flags: int = 0) -> asyncio.Future[None]:
            if opcode in (0x9, 0xA):  # ping, pong
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                done.set_result(None)
                return done
            result: asyncio.Future[None] = write_frame(fin, opcode, data, flags)
            return result

        connection._write_frame = write_data_only

    def suffer(self, fault: Fault) -> None:
        """Let a fault strike at once, or remember it for the moment it concerns."""
        if fault.name in GREETING:
            self._turn_away(planned_refusal(fault))
        elif not strike(self, fault):
            self._faults.add(fault)


def _retrieve(future: asyncio.Future[None]) -> None:
    """Look at a write's outcome: a peer that left is no news, and an unseen exception would be logged."""
    if not future.cancelled():
        future.exception()
