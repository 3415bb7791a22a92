"""What becomes of the agent's answers: heard to their end, or cut where the listener cut in.

The listener's own report of how much was heard (`conversation.item.truncate`) is believed, clamped to what was sent. A
client that reports nothing within `CUT_WAIT_S` is answered for by the estimate of `Playback`.
"""

from __future__ import annotations

from core.playback import Heard, Playback
from core.realtime import AudioDelta
from core.records import Turn
from core.transcript import Transcript

CUT_WAIT_S = 0.7
"""How long a client may take to report what was heard: one round trip of a slow mobile network."""

HEARD_SLACK_S = 0.3
"""Added to the estimated end of a playout before an answer counts as heard, for prebuffers and jitter."""


class Answers:
    """The answers of one conversation that are not stored yet.

    Attributes:
        cut_at: When cuts are decided without the client's report; None when none waits.
        heard_at: When the answers sent so far will have been heard; None when none waits.
    """

    __slots__ = ("_cuts", "_discarded", "_done", "_playback", "_responses", "_transcript", "cut_at", "heard_at")

    def __init__(self, playback: Playback, transcript: Transcript) -> None:
        self._playback = playback
        self._transcript = transcript
        self._responses: dict[str, str] = {}
        self._cuts: dict[str, Heard] = {}
        self._done: dict[str, str] = {}
        self._discarded: set[str] = set()
        self.cut_at: float | None = None
        self.heard_at: float | None = None

    def began(self, item_id: str, response_id: str, previous_item_id: str | None) -> None:
        """Take note of a new answer."""
        self._transcript.open(item_id, "assistant", previous_item_id)
        self._responses.setdefault(item_id, response_id)

    def audio(self, delta: AudioDelta, now: float) -> bool:
        """Count one audio frame; False when it belongs to a response that was cut and must not be heard."""
        if delta.response_id in self._discarded:
            return False
        if delta.item_id not in self._responses:
            self.began(delta.item_id, delta.response_id, None)
        entry = self._transcript.get(delta.item_id)
        if entry is not None:
            entry.is_audio = True
        self._playback.received(delta.item_id, delta.audio_bytes, now)
        return True

    def is_speaking(self, now: float) -> bool:
        """True while the listener still hears an answer."""
        return self._playback.ends_at(now) > now

    def interrupt(self, now: float, active_response: str | None) -> bool:
        """Take note that the listener cut in; returns whether anything was cut."""
        if active_response is not None:
            self._discarded.add(active_response)
        cut = self._playback.interrupt(now)
        if cut:
            self._cuts.update({heard.item_id: heard for heard in cut})
            self.cut_at = now + CUT_WAIT_S
        return bool(cut)

    def reported(self, item_id: str, heard_ms: int) -> tuple[Heard, list[Turn]] | None:
        """Take the client's report of what was heard; None when the item is no answer of ours."""
        if item_id not in self._responses:
            return None
        heard = self._playback.cut(item_id, min(heard_ms, self._playback.spoken_ms(item_id)))
        self._cuts.pop(item_id, None)
        if not self._cuts:
            self.cut_at = None
        return heard, self._close(heard)

    def unreported(self) -> list[tuple[Heard, list[Turn]]]:
        """Decide the cuts no report came for; returns each with the turn to store."""
        cuts, self._cuts, self.cut_at = self._cuts, {}, None
        return [(heard, self._close(heard)) for heard in cuts.values()]

    def response_done(self, response_id: str, status: str, now: float) -> list[Turn]:
        """Take the end of a response; answers in text are stored now, spoken ones when they were heard."""
        turns: list[Turn] = []
        for item_id in [item for item, owner in self._responses.items() if owner == response_id]:
            self._done[item_id] = status
            entry = self._transcript.get(item_id)
            if entry is not None and not entry.is_audio:
                turns += self._close(self._playback.heard(item_id, now))
        self._discarded.discard(response_id)
        self.heard_at = self._playback.ends_at(now) + HEARD_SLACK_S
        return turns

    def heard(self, now: float) -> list[Turn]:
        """Return the turns of answers that have been heard to their end by now."""
        self.heard_at = None
        if self._playback.ends_at(now) > now:
            self.heard_at = self._playback.ends_at(now) + HEARD_SLACK_S
        turns: list[Turn] = []
        for item_id in self._transcript.open_answers():
            heard = self._playback.heard(item_id, now)
            if item_id in self._done and item_id not in self._cuts and heard.is_whole:
                turns += self._close(heard)
        return turns

    def upstream_lost(self, now: float) -> list[Turn]:
        """Close the answers whose rest will never come; what was sent will be heard."""
        turns: list[Turn] = []
        for item_id in self._transcript.open_answers():
            if item_id not in self._done and item_id not in self._cuts:
                self._done[item_id] = "incomplete"
                spoken = self._playback.spoken_ms(item_id)
                turns += self._close(Heard(item_id, spoken, spoken))
        self._discarded.clear()
        return turns

    def end(self, now: float) -> list[Turn]:
        """Close every answer as it stands at the end of the session."""
        turns = [turn for _, closed in self.unreported() for turn in closed]
        for item_id in self._transcript.open_answers():
            turns += self._close(self._playback.heard(item_id, now))
        self.cut_at = self.heard_at = None
        return turns

    def _close(self, heard: Heard) -> list[Turn]:
        status = self._done.get(heard.item_id)
        if status == "failed":
            return self._transcript.answered(heard, status="failed")
        return self._transcript.answered(heard, status="complete" if status == "completed" else "interrupted")
