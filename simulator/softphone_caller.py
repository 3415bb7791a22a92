"""The caller at a browser's telephone: real sound instead of a script, through a buffer that evens out its arrival."""
from __future__ import annotations

from collections.abc import Callable

from simulator.twilio_caller import Caller
from simulator.twilio_ear import FRAME_BYTES, FRAME_S, PAUSE_S, is_voice
from simulator.twilio_playout import SILENCE
from simulator.twilio_record import CallRecord

BYTES_PER_MS = 8
START_MS = 60
"""Sound kept before speech goes on after a gap: three pieces, so that one late piece of the page tears no hole."""
MOST_MS = 240
"""More than this was delayed by a busy page; what is too old is dropped, or the caller would lag for the whole call."""
LEAST_ANSWER_S = 0.1
"""Speech that begins sooner after the caller's last sound was no answer to it: both spoke at once."""


class Mouthpiece:
    """Sound from a page, in pieces whenever they come; out of it exactly 20 ms whenever they are due."""

    def __init__(self) -> None:
        """Be empty."""
        self._kept = bytearray()
        self._flowing = False

    def put(self, audio: bytes) -> None:
        """Take mu-law from the page."""
        self._kept += audio
        if len(self._kept) > MOST_MS * BYTES_PER_MS:
            del self._kept[: -START_MS * BYTES_PER_MS]

    def take(self) -> bytes:
        """Return the next 20 ms; silence while there is too little."""
        if not self._flowing:
            self._flowing = len(self._kept) >= START_MS * BYTES_PER_MS
        if not self._flowing or len(self._kept) < FRAME_BYTES:
            self._flowing = False
            return SILENCE * FRAME_BYTES
        frame = bytes(self._kept[:FRAME_BYTES])
        del self._kept[:FRAME_BYTES]
        return frame


class LiveCaller(Caller):
    """Somebody who talks and listens while the call runs.

    The record of such a call keeps neither what was said nor what was heard: a call of an hour would be 58 MB, and the
    person is no test.

    Attributes:
        frames: Pieces of 20 ms heard, of whatever runs in the call.
        answer_delay_ms: From the caller's last sound to the first of the answer to it, as this caller hears both; None
            before the first answer.
    """

    def __init__(self, record: CallRecord, hang_up: Callable[[], None], *, ear: Callable[[bytes], None]) -> None:
        """Prepare a caller; `ear` is given every 20 ms they hear, mu-law."""
        super().__init__(record, (), hang_up)
        self.frames = 0
        self.answer_delay_ms: int | None = None
        self._ear = ear
        self._mouthpiece = Mouthpiece()
        self._quiet_ticks: int | None = None
        self._unanswered_tick: int | None = None

    def say(self, audio: bytes) -> None:
        """Take what the page's microphone hears: mu-law of any length."""
        self._mouthpiece.put(audio)

    def pass_time(self, ticks: int) -> None:
        """Let ticks go by in which the line was dead."""
        self._tick += ticks

    def exchange(self, sound: bytes) -> bytes:
        """Hear 20 ms and return what is said in the same 20 ms."""
        self.frames += 1
        self._ear(sound)
        was_spoken_to = self._hears_speech
        self._listen(sound)
        if self._hears_speech and not was_spoken_to:
            self._was_answered()
        while self._fingers and self._fingers[0][0] <= self._tick:
            self.keys.append(self._fingers.popleft()[1])
        said = self._mouthpiece.take()
        self._notice(said)
        self._tick += 1
        return said

    def _was_answered(self) -> None:
        if self._unanswered_tick is None:
            return
        delay_s = (self._tick - self._unanswered_tick) * FRAME_S
        if delay_s >= LEAST_ANSWER_S:
            self.answer_delay_ms = round(delay_s * 1000)
        self._unanswered_tick = None

    def _notice(self, said: bytes) -> None:
        """Put into the timeline when the caller begins to speak and falls silent."""
        if is_voice(said):
            if self._quiet_ticks is None:
                self._record.note("caller_speaks")
            self._quiet_ticks = 0
            self._unanswered_tick = self._tick
        elif self._quiet_ticks is not None:
            self._quiet_ticks += 1
            if self._quiet_ticks * FRAME_S >= PAUSE_S:
                self._quiet_ticks = None
                self._record.note("caller_silent")
