"""One media stream: 20 ms of caller's audio out, the agent's audio through the playout queue to the caller's ear."""
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from simulator.faults import Fault
from simulator.twilio_caller import Caller, Clock
from simulator.twilio_ear import FRAME_BYTES, FRAME_S
from simulator.twilio_faults import CallFaults
from simulator.twilio_handshake import HandshakeFailed, abort, handshake
from simulator.twilio_intruder import intrude
from simulator.twilio_messages import Envelopes, Rejected, check
from simulator.twilio_playout import Playout
from simulator.twilio_record import CallRecord, Marked
from simulator.twilio_settings import Account, TwilioSettings
from simulator.twilio_sids import new_sid
from simulator.twilio_webhooks import Webhooks, iso8601_now
from simulator.twiml import Stream

CLOSE_TIMEOUT_S = 3.0
# Ten seconds of frames that the application does not take off the line; what Twilio then drops is not published.
MAX_UNSENT = 500
FRAME_MS = 20


@dataclass
class Leg:
    """What one call hands to whatever runs in it.

    Attributes:
        interrupted: Set when the call is to go on differently: hang-up, REST update.
    """

    record: CallRecord
    account: Account
    settings: TwilioSettings
    faults: CallFaults
    webhooks: Webhooks
    caller: Caller
    clock: Clock
    interrupted: asyncio.Event


class MediaStream:
    """A `<Connect><Stream>` from its handshake to its end."""

    def __init__(self, leg: Leg, noun: Stream) -> None:
        """Prepare the stream; nothing is connected."""
        self._leg, self._noun = leg, noun
        self._record, self._faults = leg.record, leg.faults
        self.sid = new_sid("MZ")
        self._write = Envelopes(stream_sid=self.sid, call_sid=leg.record.sid, account_sid=leg.record.account_sid)
        self._playout = Playout(int(leg.settings.queue_limit_s * 8000))
        self._url = urlsplit(noun.url)._replace(query="", fragment="").geturl()
        self._socket: WebSocketClientConnection
        self._closed = asyncio.Event()
        self._unsent = 0
        self._elapsed_ms = 0
        self._held: list[str] = []
        self._lost_until_ms = 0
        self._frozen = False
        self._closing = self._is_recorded = False
        self._warned: set[int] = set()

    async def run(self) -> None:
        """Stream until the call is interrupted, the application closes, or the connection is lost."""
        if self._url != self._noun.url:
            self._record.note("query_stripped")
        if not self._leg.settings.takes_stream(self._url):
            self._fail(HandshakeFailed(31922, urlsplit(self._url).scheme))
            return
        try:
            self._socket = await handshake(
                self._url, account=self._leg.account, settings=self._leg.settings, faults=self._faults
            )
        except HandshakeFailed as failure:
            self._fail(failure)
            return
        self._record.stream_sids.append(self.sid)
        self._record.note("stream_started", stream_sid=self.sid)
        self._callback("stream-started")
        await self._talk_and_close()
        self._callback("stream-stopped")

    def _fail(self, failure: HandshakeFailed) -> None:
        self._record.warn(failure.code, str(failure))
        self._record.note("stream_refused", status=failure.status)
        self._callback("stream-error", error=f"{failure.code} {failure}")

    def _callback(self, event: str, error: str = "") -> None:
        if not self._noun.status_callback:
            return
        extra = {"StreamSid": self.sid, "StreamName": self._noun.name or self.sid, "StreamEvent": event}
        extra["Timestamp"] = iso8601_now()
        if error:
            extra["StreamError"] = error
        self._leg.webhooks.later(
            "stream-status", self._noun.status_callback, method=self._noun.status_callback_method, extra=extra
        )

    async def _talk_and_close(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._receive(), name="twilio stream reader")]
        if self._faults.has("replayed_token") or self._faults.has("stolen_token"):
            tasks.append(loop.create_task(intrude(self._leg, self._url, self._parameters()), name="twilio intruder"))
        self._leg.caller.pass_time(self._leg.clock.skip())
        try:
            await self._greet()
            while not self._closed.is_set() and not self._leg.interrupted.is_set():
                await self._leg.clock.tick()
                self._step()
            await self._close(tasks[0])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._was_closed(None)
            abort(self._socket)

    async def _greet(self) -> None:
        self._send(self._write.connected())
        if self._faults.has("media_first"):
            self._send(self._write.media(b"\xff" * FRAME_BYTES, 0))
        late = self._faults.has("late_start")
        if late:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), late.seconds)
            self._leg.caller.pass_time(self._leg.clock.skip())
        if not self._faults.has("no_start"):
            self._start()

    def _start(self) -> None:
        owner = self._leg.settings.accounts[-1].sid if self._faults.has("foreign_account") else ""
        linear = self._faults.has("wrong_format") is not None
        self._send(self._write.start(self._parameters(), linear=linear, account_sid=owner))
        self._record.note("start")

    def _parameters(self) -> Mapping[str, str] | None:
        if self._faults.has("no_parameters"):
            return None
        return self._noun.parameters or {}

    def _step(self) -> None:
        """Let 20 ms pass: play to the caller, take what they say, send it."""
        played = self._playout.play(FRAME_BYTES)
        said = self._leg.caller.exchange(played.audio)
        self._return_marks(played.marks, flushed=False)
        self._elapsed_ms += FRAME_MS
        self._strike()
        if self._frozen or self._faults.has("no_start"):
            return
        self._send_media(said)
        while self._leg.caller.keys:
            digit = self._leg.caller.keys.popleft()
            self._record.note("dtmf")
            self._send(self._write.dtmf(digit))

    def _send_media(self, said: bytes) -> None:
        if self._elapsed_ms < self._lost_until_ms:
            return
        message = self._write.media(said, self._elapsed_ms)
        jitter = self._faults.has("jitter")
        if jitter is None:
            self._send(message)
            return
        self._held.append(message)
        if len(self._held) * FRAME_S >= jitter.seconds:
            for held in self._held:
                self._send(held)
            self._held.clear()

    def _strike(self) -> None:
        """Do what is wrong with this stream, when its moment has come."""
        due = self._due
        if due("start_twice"):
            self._start()
        if due("unknown_events"):
            self._send(self._write.unknown())
        if due("foreign_track"):
            self._send(self._write.media(b"\x00" * FRAME_BYTES, self._elapsed_ms, track="outbound"))
        if due("garbage_text"):
            self._send("{not json")
        if lost := due("lost_frames"):
            self._lost_until_ms = self._elapsed_ms + round(lost.seconds * 1000)
        if due("socket_dies"):
            abort(self._socket)
            self._was_closed(None)
        if due("half_open"):
            self._frozen = True
        if self._faults.due("stop_mid_answer", self._leg.caller.heard_voice_ms):
            self._leg.caller.hang_up()

    def _due(self, name: str) -> Fault | None:
        found = self._faults.due(name, self._elapsed_ms)
        if found:
            self._record.note("fault", name=name)
        return found

    def _send(self, message: str) -> None:
        if self._unsent >= MAX_UNSENT or self._frozen:
            return
        try:
            written = self._socket.write_message(message)
        except WebSocketClosedError:
            self._closed.set()
            return
        self._unsent += 1
        written.add_done_callback(self._was_sent)

    def _was_sent(self, written: asyncio.Future[None]) -> None:
        self._unsent -= 1
        if not written.cancelled():
            written.exception()  # a closed connection is noticed by the reader

    def _was_closed(self, code: int | None) -> None:
        """Record the end of the connection once; a code that answers our own close is not the application's."""
        if not self._is_recorded:
            self._is_recorded = True
            by = "twilio" if self._closing else "nobody" if code is None else "application"
            self._record.close_codes.append(code if by == "application" else None)
            self._record.note("stream_closed", by=by, code=code)
        self._closed.set()

    async def _receive(self) -> None:
        slow = self._faults.has("slow_reader")
        while not self._frozen:
            if slow:
                await asyncio.sleep(slow.seconds)
            frame = await self._socket.read_message()
            if frame is None:
                self._was_closed(self._socket.close_code)
                return
            self._take(frame)

    def _take(self, frame: str | bytes) -> None:
        message = check(frame, self.sid)
        if isinstance(message, Rejected):
            self._record.rejected.append(message.reason)
            self._warn_once(message.code, message.reason)
        elif message.event == "media":
            self._record.received_bytes += len(message.audio)
            dropped = self._playout.media(message.audio)
            self._record.note("media", ms=len(message.audio) // 8, queued_ms=self._playout.queued_bytes // 8)
            if dropped:
                self._record.dropped_bytes += dropped
                self._warn_once(31931, "")
        elif message.event == "mark":
            self._record.marks.append(Marked(message.name, self._record.elapsed_s()))
            self._return_marks(self._playout.mark(message.name), flushed=False)
        else:
            self._record.clears.append(self._record.elapsed_s())
            self._record.note("clear", queued_ms=self._playout.queued_bytes // 8)
            self._return_marks(self._playout.clear(), flushed=True)

    def _warn_once(self, code: int, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            self._record.warn(code, text)

    def _return_marks(self, names: list[str], *, flushed: bool) -> None:
        for name in names:
            marked = next(mark for mark in self._record.marks if mark.name == name and mark.returned_s is None)
            marked.returned_s, marked.flushed = self._record.elapsed_s(), flushed
            self._record.note("mark", name=name, flushed=flushed)
            self._send(self._write.mark(name))

    async def _close(self, reader: asyncio.Task[None]) -> None:
        """Send `stop` and close, unless the application has closed already or nothing is sent any more."""
        if self._closed.is_set() or self._frozen:
            if not (self._is_recorded or self._frozen):  # a message could not be sent; the reader knows the code
                await asyncio.wait([reader], timeout=CLOSE_TIMEOUT_S)
            return
        for held in self._held:
            self._send(held)
        self._send(self._write.stop())
        self._record.note("stop")
        self._closing = True
        with contextlib.suppress(WebSocketClosedError):
            self._socket.close(1000)
        await asyncio.wait([reader], timeout=CLOSE_TIMEOUT_S)
