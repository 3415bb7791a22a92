"""One simulated call: webhook, documents, verbs, the orders of the REST API, and the callbacks at its end."""
from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass

from tornado.httpclient import AsyncHTTPClient

from simulator import twiml
from simulator.audio import PCMU, from_pcm24
from simulator.speech import Voice
from simulator.twilio_caller import Clock
from simulator.twilio_documents import DocumentFailed, Documents
from simulator.twilio_ear import FRAME_BYTES, read_wav
from simulator.twilio_faults import CallFaults
from simulator.twilio_plan import CallPlan
from simulator.twilio_playout import SILENCE
from simulator.twilio_record import CallRecord
from simulator.twilio_settings import Account, TwilioSettings
from simulator.twilio_sids import new_sid
from simulator.twilio_stream import Leg, MediaStream
from simulator.twilio_webhooks import Webhooks, rfc2822_now

# What callers of the real service hear when a document cannot be had.
APOLOGY = "We are sorry, an application error has occurred. Goodbye."


@dataclass(frozen=True)
class _End:
    by: str


@dataclass(frozen=True)
class _Document:
    text: str = ""
    url: str = ""
    method: str = "POST"


class Call:
    """One call, from `begin` to the last callback.

    Attributes:
        record: What has happened so far.
        finished: The call's task, once it has begun; its result is the record, callbacks included.
    """

    def __init__(
        self, plan: CallPlan, account: Account, settings: TwilioSettings, *, client: AsyncHTTPClient, voice: Voice
    ) -> None:
        """Prepare a call; it begins with `begin`."""
        faults = CallFaults([*plan.faults, *settings.faults])
        self.plan, self.account = plan, account
        self.record = CallRecord(plan.call_sid or new_sid("CA"), account.sid, plan.to, plan.from_, watch=plan.watch)
        self.finished: asyncio.Task[CallRecord]
        self._settings, self._voice = settings, voice
        self._webhooks = Webhooks(settings, account, self.record, faults, client, direction=plan.direction)
        caller = plan.make_caller(self.record, plan.script(), self.hang_up)
        self._leg = Leg(self.record, account, settings, faults, self._webhooks, caller, Clock(), asyncio.Event())
        self._order: _End | _Document | None = None
        self._documents = Documents(self.record, self._webhooks)
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def is_over(self) -> bool:
        """True when the call has a final status."""
        return self.record.status not in {"queued", "ringing", "in-progress"}

    def hang_up(self) -> None:
        """The caller puts the receiver down."""
        self._interrupt(_End("caller"))

    def speak(self, audio: bytes) -> None:
        """The caller says something: mu-law."""
        self._leg.caller.speak(audio)

    def press(self, digits: str) -> None:
        """The caller presses keys."""
        self._leg.caller.press(digits)

    def complete(self, by: str = "rest") -> None:
        """End the call from outside."""
        self._interrupt(_End(by))

    def replace(self, *, twiml_text: str = "", url: str = "", method: str = "POST") -> None:
        """Run another document instead of what is running; a stream gets its `stop`."""
        self._interrupt(_Document(twiml_text, url, method))

    def limit(self, seconds: float) -> None:
        """End the call so many seconds after the answer."""
        over_in = max(seconds - (self.record.elapsed_s() - (self.record.answered_s or 0.0)), 0.0)
        self._timers.append(asyncio.get_running_loop().call_later(over_in, self.complete, "time-limit"))

    def _interrupt(self, order: _End | _Document) -> None:
        if isinstance(self._order, _End) or self.is_over:
            return
        self._order = order
        self._leg.interrupted.set()

    def begin(self) -> asyncio.Task[CallRecord]:
        """Start the call's task and return it."""
        name = f"simulated call {self.record.sid}"
        self.finished = asyncio.get_running_loop().create_task(self._run(), name=name)
        return self.finished

    async def _run(self) -> CallRecord:
        timer = asyncio.get_running_loop().call_later(self.plan.timeout_s, self._time_out)
        self._timers.append(timer)
        try:
            try:
                verbs: Sequence[twiml.Verb] | None = await self._first_document()
                while verbs is not None:
                    verbs = await self._perform(verbs)
            except DocumentFailed as failure:
                await self._apologise(failure)
            await self._finish()
        finally:
            for timer in self._timers:
                timer.cancel()
        return self.record

    async def _first_document(self) -> Sequence[twiml.Verb]:
        if self.plan.twiml:
            return self._documents.read(self.plan.twiml)
        return await self._documents.fetch("voice", self.plan.voice_url, method=self.plan.voice_method)

    def _time_out(self) -> None:
        self.record.note("caller_gave_up")
        self.hang_up()

    async def _finish(self) -> None:
        self._end_with(self.record.ended_by or "application")
        record = self.record
        record.duration_s = record.elapsed_s() - (record.answered_s if record.answered_s is not None else 0.0)
        record.note("ended", by=record.ended_by, status=record.status)
        if self.plan.status_callback:
            seconds = round(record.duration_s) if record.answered_s is not None else 0
            extra = {
                "CallDuration": str(seconds), "Duration": str(-(-seconds // 60)), "SequenceNumber": "0",
                "Timestamp": rfc2822_now(), "CallbackSource": "call-progress-events",
            }
            self._webhooks.later("call-status", self.plan.status_callback, extra=extra)
        await self._webhooks.finish()

    def _end_with(self, by: str) -> None:
        self.record.ended_by = by
        if not self.is_over:
            unanswered = "no-answer" if by == "caller" else "failed"
            self.record.status = "completed" if self.record.answered_s is not None else unanswered

    async def _perform(self, verbs: Sequence[twiml.Verb]) -> Sequence[twiml.Verb] | None:
        """Run verbs until the document or the call is over; return the verbs of the next document."""
        for verb in verbs:
            if self._leg.interrupted.is_set():
                break
            if isinstance(verb, twiml.Reject) and self.record.answered_s is None:
                self.record.status = "busy"
                self._end_with("refused")
                return None
            self._answer()
            self.record.note("verb", name=type(verb).__name__)
            following = await self._do(verb)
            if following is not None:
                return following
            if isinstance(verb, twiml.Hangup) or self.is_over:
                return None
        return await self._obey() if self._leg.interrupted.is_set() else None

    def _answer(self) -> None:
        if self.record.answered_s is None:
            self.record.answered_s = self.record.elapsed_s()
            self.record.status = "in-progress"
            self._leg.clock = Clock()
            self.record.note("answered")
            self.limit(self._settings.max_call_s)

    async def _obey(self) -> Sequence[twiml.Verb] | None:
        order, self._order = self._order, None
        self._leg.interrupted.clear()
        if isinstance(order, _Document):
            if order.url:
                return await self._documents.fetch("redirect", order.url, method=order.method)
            return self._documents.read(order.text)
        self._end_with(order.by if order else "application")
        return None

    async def _do(self, verb: twiml.Verb) -> Sequence[twiml.Verb] | None:
        if isinstance(verb, twiml.Say):
            self.record.spoken.append(verb.text)
            await self._play(await self._spoken(verb.text), loop=verb.loop)
        elif isinstance(verb, twiml.Pause):
            await self._play(SILENCE * round(verb.length_s * 8000))
        elif isinstance(verb, twiml.Play):
            await self._play(await self._sound(verb), loop=verb.loop)
        elif isinstance(verb, twiml.Redirect):
            return await self._documents.fetch("redirect", verb.url, method=verb.method)
        elif isinstance(verb, twiml.Dial):
            return await self._dial(verb)
        elif isinstance(verb, twiml.Connect):
            return await self._connect(verb)
        return None

    async def _connect(self, verb: twiml.Connect) -> Sequence[twiml.Verb] | None:
        await MediaStream(self._leg, verb.stream).run()
        if isinstance(self._order, _Document):
            return await self._obey()
        if isinstance(self._order, _End):
            self._end_with(self._order.by)
        if not verb.action:
            return None
        if not self.is_over:
            return await self._documents.fetch("action", verb.action, method=verb.method)
        await self._webhooks.request("action", self._documents.absolute(verb.action), method=verb.method)
        return None

    async def _dial(self, verb: twiml.Dial) -> Sequence[twiml.Verb] | None:
        self.record.dialled.extend(verb.targets)
        self.record.note("dial", targets=len(verb.targets))
        await self._play(SILENCE * round(self._settings.dial_s * 8000))
        if self._leg.interrupted.is_set() or not verb.action:
            return None
        status = self._settings.dial_status
        extra = {"DialCallStatus": status, "DialCallSid": new_sid("CA")}
        if status == "completed":
            extra["DialCallDuration"] = str(round(self._settings.dial_s))
        return await self._documents.fetch("action", verb.action, method=verb.method, extra=extra)

    async def _play(self, audio: bytes, *, loop: int = 1) -> None:
        """Let the caller hear mu-law, in real time, until its end or an interruption; loop 0 never ends."""
        leg = self._leg
        leg.caller.pass_time(leg.clock.skip())
        rounds = 0
        while audio and (not loop or rounds < loop):
            rounds += 1
            for offset in range(0, len(audio), FRAME_BYTES):
                await leg.clock.tick()
                if leg.interrupted.is_set():
                    return
                leg.caller.exchange(audio[offset : offset + FRAME_BYTES].ljust(FRAME_BYTES, SILENCE))
                leg.caller.keys.clear()  # nobody takes keys while a sound is played

    async def _spoken(self, text: str) -> bytes:
        pcm = await self._voice.say(text)
        return await asyncio.to_thread(from_pcm24, pcm, PCMU)

    async def _sound(self, verb: twiml.Play) -> bytes:
        if verb.digits:
            self.record.note("tones", count=len(verb.digits))
            return SILENCE * round(len(verb.digits) * 0.5 * 8000)  # tones are recorded, not synthesised
        answer = await self._webhooks.request("play", self._documents.absolute(verb.url), method="GET")
        if answer.status != 200:
            self.record.warn(11200, f"HTTP {answer.status} for <Play>")
            return b""
        try:
            return read_wav(io.BytesIO(answer.body))
        except ValueError:
            self.record.warn(12300, f"{answer.content_type} for <Play> is no WAV")
            return b""

    async def _apologise(self, failure: DocumentFailed) -> None:
        self.record.warn(failure.code, str(failure))
        self._answer()
        await self._play(await self._spoken(APOLOGY))
        self._end_with("error")
