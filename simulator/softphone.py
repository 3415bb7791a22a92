"""The softphone: a WebSocket door of the simulated Twilio through which a web page calls a number.

    phone = Softphone(simulator)
    await simulator.start(doors=phone.doors())
    phone.connect(voice_url="http://127.0.0.1:8080/api/twilio/voice", origins=[…], numbers=[Listed("+1…", "Rosa")])
    phone.configuration()          # what the page needs to know: address, secret, numbers

Behind the door nothing differs from any other simulated call: a signed webhook, TwiML, a signed media stream.
One socket is one call. A page offers the subprotocols `softphone` and the secret, then both sides send:

    page:   {"type": "dial", "to": "+15005550106"} · {"type": "keys", "digits": "12#"} · {"type": "hang_up"}
            binary: the microphone, mu-law, 8 kHz, at most 1 s a message
    phone:  {"type": "ringing", "call_sid"} · {"type": "in_call"} · {"type": "ended", …} (`_ended`)
            {"type": "entry", "at_s", "event", "detail"}   what happened, for the page's list
            {"type": "seen", …}                            counters, four times a second (`_seen`)
            binary: 20 ms of what the caller hears, mu-law

After the entry `clear` the page forgets what it has not played, as Twilio does.
"""
from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from simulator.softphone_caller import LiveCaller
from simulator.twilio import TwilioSimulator
from simulator.twilio_call import Call
from simulator.twilio_record import CallRecord, Entry

PATH = "/softphone"
SUBPROTOCOL = "softphone"
CALLER_NUMBER = "+15005550142"
"""A number of Twilio's test range: it belongs to nobody."""
DIAL_WITHIN_S = 10.0
"""A socket on which nobody dials is closed after this; the page dials in the moment it opens."""
MAX_PHONES = 8
"""Calls at a time; each costs the loop 50 pieces a second both ways."""
MAX_MESSAGE_BYTES = 8_000
"""One second of sound; pieces have 20 ms."""
MAX_UNSENT = 100
"""Two seconds of pieces that a sleeping page does not fetch; sound beyond them is dropped."""
FRAMES_PER_REPORT = 12
"""Counters go to the page every 240 ms: fast enough to watch."""

_NUMBER = re.compile(r"\+[0-9]{3,15}")
_KEYS = re.compile(r"[0-9*#]{1,32}")
# Single pieces and marks come in too great a number for a list; the counters have them.
_COUNTED = frozenset({"media", "mark"})


@dataclass(frozen=True)
class Listed:
    """A number the page offers with a button, and who answers there."""

    number: str
    name: str
    detail: str = ""


class Softphone:
    """The door, and what a page must know to come through it.

    Attributes:
        secret: Opens the door; made anew for every process.
    """

    def __init__(self, simulator: TwilioSimulator) -> None:
        """Prepare a door of this simulator; give its `doors()` to `TwilioSimulator.start`."""
        self.simulator = simulator
        self.secret = secrets.token_urlsafe(24)
        self.voice_url = ""
        self.open_phones = 0
        self._origins: frozenset[str] = frozenset()
        self._numbers: Sequence[Listed] = ()

    def doors(self) -> list[Any]:
        """Return the entries of the simulator's URL table."""
        return [(PATH, SoftphoneDoor, {"phone": self})]

    def connect(self, *, voice_url: str, origins: Collection[str], numbers: Sequence[Listed]) -> None:
        """Say which server is called, from which pages.

        Args:
            voice_url: Webhook of every number; its text is signed.
            origins: Of the pages that may call, such as `http://127.0.0.1:8080`.
            numbers: What the page offers; any other number can be dialled too, and the server says no.
        """
        self.voice_url, self._numbers = voice_url, tuple(numbers)
        self._origins = frozenset(origin.lower() for origin in origins)

    @property
    def url(self) -> str:
        """Address of the door, once the simulator listens."""
        return f"ws://{urlsplit(self.simulator.api_url).netloc}{PATH}"

    def configuration(self) -> dict[str, Any]:
        """Return what the page needs: `url`, `secret`, `numbers`, `caller`. Give it to no other origin."""
        numbers = [asdict(listed) for listed in self._numbers]
        return {"url": self.url, "secret": self.secret, "numbers": numbers, "caller": CALLER_NUMBER}

    def admits(self, origin: str, offered: str) -> bool:
        """Return whether a page of this origin, offering these subprotocols, may come in."""
        protocols = [name.strip() for name in offered.split(",")]
        return (
            origin.lower() in self._origins
            and protocols[:1] == [SUBPROTOCOL]
            and any(hmac.compare_digest(name.encode(), self.secret.encode()) for name in protocols[1:])
        )

    def dial(self, number: str, *, watch: Callable[[Entry], None], ear: Callable[[bytes], None]) -> tuple[
        Call, LiveCaller
    ]:
        """Begin a call of a person at a page.

        Args:
            number: E.164.
            watch: Is called with every entry of the timeline.
            ear: Is called with every 20 ms the caller hears.
        """
        callers: list[LiveCaller] = []

        def answer_for(record: CallRecord, script: object, hang_up: Callable[[], None]) -> LiveCaller:
            callers.append(LiveCaller(record, hang_up, ear=ear))
            return callers[0]

        call = self.simulator.dial(
            to=number, from_=CALLER_NUMBER, voice_url=self.voice_url, make_caller=answer_for, watch=watch,
            # A person hangs up themselves; Twilio's own limit ends what they forget.
            timeout_s=2 * self.simulator.settings.max_call_s,
        )
        return call, callers[0]


class SoftphoneDoor(WebSocketHandler):
    """One telephone in a page: one call."""

    def initialize(self, phone: Softphone) -> None:
        """Take the softphone."""
        self.phone = phone
        self._call: Call | None = None
        self._caller: LiveCaller
        self._unsent = 0
        self._queue_ends = 0.0
        self._is_streaming = False
        self._sent_frames = 0
        self._is_counted = False
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Refuse strangers before there is a socket."""
        offered = ", ".join(self.request.headers.get_list("Sec-WebSocket-Protocol"))
        if not self.phone.admits(self.request.headers.get("Origin", ""), offered):
            raise HTTPError(403)

    def check_origin(self, origin: str) -> bool:
        """`prepare` has looked at it."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Select the name; the secret is never echoed."""
        return SUBPROTOCOL

    @property
    def max_message_size(self) -> int:
        """Longest message of a page."""
        return MAX_MESSAGE_BYTES

    def open(self, *args: str, **kwargs: str) -> None:
        """Wait for somebody to dial."""
        self.set_nodelay(True)
        if self.phone.open_phones >= MAX_PHONES:
            self.close(1013, "too many phones")
            return
        self._is_counted = True
        self.phone.open_phones += 1
        self._timer = asyncio.get_running_loop().call_later(DIAL_WITHIN_S, self.close, 1000, "nobody dialled")

    def on_message(self, message: str | bytes) -> None:
        """Do what the person does."""
        if isinstance(message, bytes):
            if self._call is not None:
                self._caller.say(message)
            return
        try:
            wanted = json.loads(message)
            act = {"dial": self._dial, "keys": self._press, "hang_up": self._hang_up}[wanted["type"]]
            act(wanted)
        except (ValueError, LookupError, TypeError):
            self.close(1008, "not a message of a softphone")

    def _dial(self, wanted: dict[str, Any]) -> None:
        number = wanted["to"]
        if self._call is not None or not _NUMBER.fullmatch(number):
            raise ValueError("one number in a socket, in E.164")
        if self._timer:
            self._timer.cancel()
        self._call, self._caller = self.phone.dial(number, watch=self._watch, ear=self._hear)
        self._call.finished.add_done_callback(self._over)
        self._tell(type="ringing", call_sid=self._call.record.sid)

    def _press(self, wanted: dict[str, Any]) -> None:
        if self._call is None or not _KEYS.fullmatch(wanted["digits"]):
            raise ValueError("keys are 0 to 9, * and #, in a call")
        self._caller.press(wanted["digits"])

    def _hang_up(self, wanted: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.hang_up()

    def on_close(self) -> None:
        """A page that is gone has hung up."""
        if self._timer:
            self._timer.cancel()
        if self._is_counted:
            self._is_counted = False
            self.phone.open_phones -= 1
        if self._call is not None:
            self._call.hang_up()

    def _hear(self, sound: bytes) -> None:
        self._sent_frames += self._is_streaming  # each piece heard is exchanged for one that is said
        if self._unsent < MAX_UNSENT:
            self._send(sound)
        if self._caller.frames % FRAMES_PER_REPORT == 0:
            self._tell(**self._seen())

    def _watch(self, entry: Entry) -> None:
        """Tell the page what happened; `media` and `mark` are too many and are counted instead."""
        if entry.event == "media":
            self._queue_ends = asyncio.get_running_loop().time() + entry.detail["queued_ms"] / 1000
        elif entry.event == "clear":
            self._queue_ends = 0.0
        elif entry.event in {"start", "stream_closed"}:
            self._is_streaming = entry.event == "start"
        if entry.event not in _COUNTED:
            self._tell(type="entry", at_s=round(entry.at_s, 3), event=entry.event, detail=dict(entry.detail))
        if entry.event == "answered":
            self._tell(type="in_call")
        elif entry.event == "ended":
            self._tell(**self._seen())
            self._tell(**self._ended())

    def _seen(self) -> dict[str, Any]:
        """Return the counters: pieces of 20 ms to the server, milliseconds from it, marks, keys, complaints."""
        call = self._call
        assert call is not None  # nothing is heard before somebody dialled
        record = call.record
        queued_s = max(self._queue_ends - asyncio.get_running_loop().time(), 0.0)
        return {
            "type": "seen", "frames": self._sent_frames, "received_ms": record.received_bytes // 8,
            "queued_ms": round(queued_s * 1000), "answer_delay_ms": self._caller.answer_delay_ms,
            "marks": len(record.marks),
            "marks_returned": sum(1 for mark in record.marks if mark.returned_s is not None),
            "clears": len(record.clears), "keys": len(record.events("dtmf")),
            "warnings": len(record.warnings), "rejected": len(record.rejected),
        }

    def _ended(self) -> dict[str, Any]:
        """Return how the call ended, in Twilio's words."""
        assert self._call is not None  # only a call ends
        record = self._call.record
        voice = record.requests_of("voice")
        return {
            "type": "ended", "by": record.ended_by, "status": record.status, "seconds": round(record.duration_s, 1),
            "answered": record.answered_s is not None, "streams": len(record.stream_sids),
            "webhook_status": voice[0].status if voice else None,
            "close_code": record.close_codes[-1] if record.close_codes else None,
            "warnings": [warned._asdict() for warned in record.warnings],
        }

    def _over(self, finished: asyncio.Task[CallRecord]) -> None:
        """Close the socket when the last callback was answered."""
        failed = finished.cancelled() or finished.exception() is not None
        self.close(1011 if failed else 1000, "the simulator failed" if failed else "the call is over")

    def _tell(self, **message: Any) -> None:
        self._send(json.dumps(message))

    def _send(self, message: str | bytes) -> None:
        try:
            written = self.write_message(message, binary=isinstance(message, bytes))
        except WebSocketClosedError:
            return  # the page is gone; `on_close` hangs up
        self._unsent += 1
        written.add_done_callback(self._was_sent)

    def _was_sent(self, written: asyncio.Future[None]) -> None:
        self._unsent -= 1
        if not written.cancelled():
            written.exception()  # a page that is gone is noticed by `on_close`
