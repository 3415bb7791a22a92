"""Is the caller there, and is there time left: silence, presence question, end phrases, longest call.

    stage      means                                      next
    listening  the talk goes on                           asked after `silence_timeout_s` of silence
    asked      the presence question was asked            leaving after `presence_delay_s` more
    leaving    the last sentence is being spoken          the end, when it was heard

Silence is time in which nobody speaks, no answer runs or is being heard, no tool runs and the voice service is there to
hear the caller. What is to be said is returned as instructions for one response; the bridge asks for it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from core.agent import CallSettings
from core.errors import Ending, IdleTimeout, TimeLimit, UpstreamUnavailable
from core.exchange import AFTER_SPEECH_S, GOODBYE_INSTRUCTIONS, GOODBYE_S, Exchange
from core.instructions import say_exactly

POLL_S = 0.5
"""How often a talk that is not quiet is looked at again; a person does not notice half a second of silence."""

WARNING_S = 30.0
"""How long before the longest call time the caller is told; short calls are told at two thirds."""

LAST_WORDS_S = 10.0
"""Longest a call may outlive its limit for a last sentence (Twilio reference, section 2.4)."""

AWAY_S = 15.0
"""Least time the voice service may be away while the caller hears nothing: one handshake that hangs until its limit of
12 s and another try. A longer `silence_timeout_s` lengthens it."""

TIME_IS_OVER = "Say goodbye in one short sentence: the time for this call is over."

Stage = Literal["listening", "asked", "leaving"]


class Step(NamedTuple):
    """What attendance asks for.

    Attributes:
        instructions: For one response to be spoken; empty for none.
        ending: Why the call ends now; None when it goes on.
        is_hard: Whether the end waits for nothing.
    """

    instructions: str = ""
    ending: Ending | None = None
    is_hard: bool = False


NOTHING = Step()


class Attendance:
    """Watches one call.

    Args:
        settings: The agent's call settings.
        exchange: What is said.
        longest_s: Longest call.

    Attributes:
        next_at: When `time_passed` wants to be called; None before `begin`.
        stage: See the table above.
    """

    __slots__ = (
        "_busy_at", "_exchange", "_is_warned", "_leaves_for", "_left_at", "_limit_at", "_live_at",
        "_longest_s", "_settings", "_spoke_at", "_warn_at", "next_at", "stage",
    )  # fmt: skip

    def __init__(self, settings: CallSettings, exchange: Exchange, longest_s: float) -> None:
        self._settings = settings
        self._exchange = exchange
        self._longest_s = longest_s
        self._limit_at = self._warn_at = self._left_at = 0.0
        self._is_warned = False
        self._spoke_at = self._busy_at = self._live_at = 0.0
        self._leaves_for: Ending = IdleTimeout.ending
        self.stage: Stage = "listening"
        self.next_at: float | None = None

    @property
    def has_said_goodbye(self) -> bool:
        """True when the last sentence, or some of it, was spoken."""
        return self.stage == "leaving" and self._exchange.playback.ended_at > self._left_at

    def begin(self, now: float) -> None:
        """Begin to watch; the caller counts as heard now."""
        self._spoke_at = self._busy_at = self._live_at = now
        self._limit_at = now + self._longest_s
        self._warn_at = self._limit_at - min(WARNING_S, self._longest_s / 3)
        self.next_at = self._next(now)

    def caller_spoke(self, now: float) -> None:
        """Take note of speech or of a key pressed; a call that is leaving for silence stays."""
        self._spoke_at = now
        if self.stage != "leaving" or self._leaves_for is IdleTimeout.ending:
            self.stage = "listening"

    def caller_said(self, text: str, ending: Ending, now: float) -> Step:
        """Leave, with this ending, when the caller said one of the phrases the agent's owner chose."""
        if self.stage == "leaving" or not any(_says(phrase, text) for phrase in self._settings.end_call_phrases):
            return NOTHING
        self._leave(ending, now)
        return Step(GOODBYE_INSTRUCTIONS)

    def time_passed(self, now: float, *, is_live: bool) -> Step:
        """Return what is due; ask again at `next_at`.

        Args:
            is_live: Whether the voice service is there, so that it can be asked to say something.
        """
        step = self._due(now, is_live=is_live)
        self.next_at = self._next(now)
        return step

    def _due(self, now: float, *, is_live: bool) -> Step:
        if now >= self._limit_at + LAST_WORDS_S:
            return Step(ending=TimeLimit.ending, is_hard=True)
        if self.stage == "leaving":
            return self._leaving(now)
        if now >= self._limit_at:
            self._leave(TimeLimit.ending, now)
            return Step(TIME_IS_OVER) if is_live else Step(ending=TimeLimit.ending)
        if not is_live:
            return self._away(now)
        self._live_at = now
        if self._is_busy():
            self._busy_at = now
        return self._warning(now) or self._silence(now)

    def _is_busy(self) -> bool:
        """True while somebody speaks, an answer is being made or a tool runs."""
        exchange = self._exchange
        return exchange.user_is_speaking or exchange.sequencer.is_busy or bool(exchange.calls)

    def _leave(self, ending: Ending, now: float) -> None:
        self.stage, self._leaves_for, self._left_at = "leaving", ending, now

    def _leaving(self, now: float) -> Step:
        """End when the last sentence was heard, or when it does not come."""
        heard_at = max(self._exchange.playback.ended_at, self._spoke_at) + AFTER_SPEECH_S
        is_said = not self._is_busy() and now >= heard_at
        is_late = now >= max(self._left_at + GOODBYE_S, self._exchange.playback.ended_at)
        return Step(ending=self._leaves_for) if is_said or is_late else NOTHING

    def _away(self, now: float) -> Step:
        """Let no caller wait in silence for a voice service that stays away; such silence is not the caller's."""
        self._busy_at = now
        silent_from = max(self._live_at, self._exchange.playback.ended_at)
        if now < silent_from + max(AWAY_S, self._settings.silence_timeout_s):
            return NOTHING
        return Step(ending=UpstreamUnavailable.ending)

    def _warning(self, now: float) -> Step | None:
        """Warn in the first pause; without one until half of the time is gone, at once."""
        latest = (self._warn_at + self._limit_at) / 2
        if self._is_warned or now < self._warn_at or (self._is_busy() and now < latest):
            return None
        self._is_warned, self._busy_at = True, now
        left_s = max(round(self._limit_at - now), 1)
        return Step(f"Tell the caller in one short sentence that this call ends in {left_s} seconds.")

    def _silence(self, now: float) -> Step:
        if self._is_busy() or now < self._silent_until():
            return NOTHING
        self._busy_at = now
        if self.stage == "listening" and self._settings.check_presence:
            self.stage = "asked"
            return Step(say_exactly(self._settings.presence_message))
        self._leave(IdleTimeout.ending, now)
        return Step(say_exactly(self._settings.hangup_message))

    def _silent_until(self) -> float:
        """Return when the silence that reigns becomes too long, if nothing breaks it."""
        settings = self._settings
        longest_s = settings.presence_delay_s if self.stage == "asked" else settings.silence_timeout_s
        return max(self._spoke_at, self._busy_at, self._exchange.playback.ended_at) + longest_s

    def _next(self, now: float) -> float:
        heard_at = self._exchange.playback.ended_at + AFTER_SPEECH_S
        times = (self._warn_at, self._limit_at, self._limit_at + LAST_WORDS_S, self._silent_until(), heard_at)
        return min([now + POLL_S, *(at for at in times if at > now)])


def _says(phrase: str, text: str) -> bool:
    """True when a phrase is in a text as whole words; scripts that do not part words are searched as they are."""
    phrase, text = _words(phrase), _words(text)
    if phrase.strip() and phrase.lower() == phrase.upper():
        return phrase.strip() in text
    return bool(phrase.strip()) and phrase in text


def _words(text: str) -> str:
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])
