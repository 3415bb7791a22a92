"""The person at the telephone: a mouth, an ear, ten keys, and a script.

A script is a list of actions, done one after the other: each waits for its moment (`at`, `heard`, `quiet`), which is
looked for every 20 ms in what the caller really heard.
"""
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from simulator.twilio_ear import FRAME_BYTES, FRAME_S, PAUSE_S, is_voice
from simulator.twilio_playout import SILENCE
from simulator.twilio_record import CallRecord

# People press about four keys a second.
KEY_PAUSE_S = 0.25


@dataclass(frozen=True)
class When:
    """The moment of an action; made by `at`, `heard` or `quiet`."""

    kind: Literal["at", "heard", "quiet"]
    seconds: float
    patience_s: float | None = None


def at(seconds: float) -> When:
    """So many seconds after the call was answered."""
    return When("at", seconds)


def heard(seconds: float) -> When:
    """When the caller has heard so many seconds of speech since the last action: the moment to interrupt."""
    return When("heard", seconds)


def quiet(seconds: float, *, patience_s: float | None = None) -> When:
    """When somebody has spoken since the last action, and then been silent for so long: the moment to answer.

    With `patience_s`, also when nobody has spoken at all for that long.
    """
    return When("quiet", seconds, patience_s)


@dataclass(frozen=True)
class Speak:
    """Say something: mu-law audio, 8 kHz; an interruption (`heard`) replaces what is still being said."""

    audio: bytes = field(repr=False)
    when: When = field(default_factory=lambda: at(0.0))


@dataclass(frozen=True)
class Keys:
    """Press keys, four a second."""

    digits: str
    when: When = field(default_factory=lambda: at(0.0))


@dataclass(frozen=True)
class HangUp:
    """Hang up."""

    when: When = field(default_factory=lambda: at(0.0))


Action = Speak | Keys | HangUp


def polite(audio: bytes) -> list[Action]:
    """Return the script of a polite caller: hear the greeting out, speak, hear the answer out, hang up.

    Without a greeting the caller speaks after two seconds; without an answer they hang up after ten.
    """
    return [Speak(audio, quiet(0.6, patience_s=2.0)), HangUp(quiet(1.5, patience_s=10.0))]


class Clock:
    """Ticks of 20 ms since the answer, on an absolute schedule: a late tick is made up, not added."""

    def __init__(self) -> None:
        """Begin now."""
        self._zero = asyncio.get_running_loop().time()
        self.ticks = 0

    async def tick(self) -> None:
        """Return when the next tick is due."""
        self.ticks += 1
        await asyncio.sleep(max(self._zero + self.ticks * FRAME_S - asyncio.get_running_loop().time(), 0))

    def skip(self) -> int:
        """Leave out the ticks that are over by now, as after a request; return how many."""
        due = int((asyncio.get_running_loop().time() - self._zero) / FRAME_S)
        missed = max(due - self.ticks, 0)
        self.ticks += missed
        return missed


class Caller:
    """One caller.

    Attributes:
        keys: Digits pressed and not yet taken by the line.
        heard_voice_ms: Speech heard so far.
        hang_up: Puts the receiver down.
    """

    def __init__(self, record: CallRecord, script: Sequence[Action], hang_up: Callable[[], None]) -> None:
        """Prepare a caller; `hang_up` is called when they hang up."""
        self.keys: deque[str] = deque()
        self.heard_voice_ms = 0
        self._record = record
        self._script = deque(script)
        self.hang_up = hang_up
        self._mouth = bytearray()
        self._fingers: deque[tuple[int, str]] = deque()
        self._tick = 0
        self._voiced_since = 0
        self._last_voice_tick: int | None = None
        self._idle_since = 0
        self._hears_speech = False

    def speak(self, audio: bytes, *, at_once: bool = False) -> None:
        """Say something after what is being said already, or `at_once` instead of the rest of it."""
        if at_once:
            self._mouth.clear()
        if not self._mouth:
            self._record.note("caller_speaks", ms=len(audio) // 8)
        self._mouth += audio

    def press(self, digits: str) -> None:
        """Press keys from here on."""
        gap = round(KEY_PAUSE_S / FRAME_S)
        first = self._fingers[-1][0] + gap if self._fingers else self._tick
        self._fingers.extend((first + number * gap, digit) for number, digit in enumerate(digits))

    def pass_time(self, ticks: int) -> None:
        """Let ticks go by in which the line was dead."""
        self._record.heard += SILENCE * FRAME_BYTES * ticks
        self._record.said += SILENCE * FRAME_BYTES * ticks
        self._tick += ticks

    def exchange(self, sound: bytes) -> bytes:
        """Hear 20 ms and return what is said in the same 20 ms."""
        self._record.heard += sound
        self._listen(sound)
        self._follow_script()
        while self._fingers and self._fingers[0][0] <= self._tick:
            self.keys.append(self._fingers.popleft()[1])
        said = bytes(self._mouth[:FRAME_BYTES]).ljust(FRAME_BYTES, SILENCE)
        if self._mouth:
            del self._mouth[:FRAME_BYTES]
            self._idle_since = self._tick + 1
            if not self._mouth:
                self._record.note("caller_silent")
        self._record.said += said
        self._tick += 1
        return said

    def _listen(self, sound: bytes) -> None:
        if is_voice(sound):
            self.heard_voice_ms += round(FRAME_S * 1000)
            self._voiced_since += 1
            self._last_voice_tick = self._tick
            if not self._hears_speech:
                self._hears_speech = True
                self._record.note("agent_speaks")
        elif self._hears_speech and self._silent_s() >= PAUSE_S:
            self._hears_speech = False
            self._record.note("agent_silent")

    def _silent_s(self) -> float:
        return (self._tick - (self._last_voice_tick or 0)) * FRAME_S

    def _follow_script(self) -> None:
        while self._script and self._is_now(self._script[0].when):
            action = self._script.popleft()
            self._voiced_since = 0
            self._idle_since = self._tick
            if isinstance(action, Speak):
                self.speak(action.audio, at_once=action.when.kind == "heard")
            elif isinstance(action, Keys):
                self.press(action.digits)
            else:
                self.hang_up()

    def _is_now(self, when: When) -> bool:
        if when.kind == "at":
            return self._tick * FRAME_S >= when.seconds
        if when.kind == "heard":
            return self._voiced_since * FRAME_S >= when.seconds
        if self._mouth:
            return False
        if self._voiced_since:
            return self._silent_s() >= when.seconds
        return when.patience_s is not None and (self._tick - self._idle_since) * FRAME_S >= when.patience_s
