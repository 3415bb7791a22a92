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
        flowing: The item whose audio flows: its next frame may pass unjudged. Empty when the next must be judged.
        heard_at: When the answers sent so far will have been heard; None when none waits.
    """

    __slots__ = (
        "_cuts", "_discarded", "_done", "_playback", "_responses", "_transcript", "cut_at", "flowing",
        "heard_at",
    )  # fmt: skip

    def __init__(self, playback: Playback, transcript: Transcript) -> None:
        self._playback = playback
        self._transcript = transcript
        self._responses: dict[str, str] = {}
        self._cuts: list[str] = []
        self._done: dict[str, str] = {}
        self._discarded: set[str] = set()
        self.flowing = ""
        self.cut_at: float | None = None
        self.heard_at: float | None = None

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._responses

    def began(self, item_id: str, response_id: str, previous_item_id: str | None) -> None:
        """Take note of a new answer, as often as it is announced."""
        self._transcript.open(item_id, "assistant", previous_item_id)
        self._responses[item_id] = self._responses.get(item_id) or response_id

    def audio(self, delta: AudioDelta, now: float) -> bool:
        """Count one audio frame; False when its answer was cut and it must not be heard."""
        item_id = delta.item_id
        if item_id != self.flowing:
            if item_id not in self._responses:
                self.began(item_id, delta.response_id, None)
            self._transcript.open(item_id, "assistant").is_audio = True
            if delta.response_id in self._discarded or self._playback.is_cut(item_id):
                self._playback.withheld(item_id, delta.audio_bytes)
                return False
            self.flowing = item_id
        self._playback.received(item_id, delta.payload * 3 // 4 - delta.padding, now)
        return True

    def is_speaking(self, now: float) -> bool:
        """True while the listener still hears an answer."""
        return self._playback.ends_at(now) > now

    def has_words_of(self, response_id: str) -> bool:
        """True when a response said something to the person, in speech or in text."""
        for item_id, owner in self._responses.items():
            entry = self._transcript.get(item_id)
            is_text = entry is not None and bool(entry.text) and not entry.is_audio
            if owner == response_id and (is_text or self._playback.sent_ms(item_id)):
                return True
        return False

    def discard(self, response_id: str | None) -> None:
        """Let nothing more of a response that is being cancelled reach the listener."""
        if response_id is not None:
            self._discarded.add(response_id)
            self.flowing = ""

    def interrupt(self, now: float) -> None:
        """Take note that the listener cut in: what is not heard by now will not be heard."""
        self.flowing = ""
        if cuts := self._playback.interrupt(now):
            self._cuts += cuts
            self.cut_at = now + CUT_WAIT_S
            self.heard_at = self.heard_at and min(self.heard_at, now + HEARD_SLACK_S)

    def reported(self, item_id: str, heard_ms: int, now: float) -> tuple[Heard | None, list[Turn]]:
        """Take the client's report of what was heard of an answer.

        Returns:
            What the model must forget behind, None when it need not forget anything: an answer in text, one that was
            heard to its end, or one already cut there or earlier. And the turn to store, if it is not stored yet.
        """
        entry, before = self._transcript.get(item_id), self._playback.heard(item_id, now)
        if entry is None or (entry.text and not entry.is_audio):
            return None, []
        if not self._playback.is_cut(item_id):
            if not before.is_whole:
                self.interrupt(now)
        elif item_id not in self._cuts and heard_ms >= before.heard_ms:
            return None, []
        if item_id in self._cuts:
            self._cuts.remove(item_id)
        if not self._cuts:
            self.cut_at = None
        self.flowing = ""
        heard = self._playback.cut(item_id, heard_ms)
        return None if heard.is_whole and item_id in self._done else heard, self._close(heard)

    def unreported(self) -> list[tuple[Heard, list[Turn]]]:
        """Decide the cuts no report came for; returns each with the turn to store."""
        cuts, self._cuts, self.cut_at = self._cuts, [], None
        decided = [self._playback.heard(item_id, 0.0) for item_id in cuts]
        return [(heard, self._close(heard)) for heard in decided]

    def response_done(self, response_id: str, status: str, now: float) -> list[Turn]:
        """Take the end of a response; answers in text are stored now, spoken ones when they were heard."""
        self.flowing = ""
        turns: list[Turn] = []
        for item_id in [item for item, owner in self._responses.items() if owner == response_id]:
            self._done[item_id] = status
            entry = self._transcript.get(item_id)
            if entry is not None and not entry.is_audio:
                turns += self._close(self._playback.heard(item_id, now))
            else:
                self._cut_rest(item_id, now, is_cancelled=status == "cancelled")
        self._discarded.discard(response_id)
        self.heard_at = self._playback.ends_at(now) + HEARD_SLACK_S
        return turns

    def _cut_rest(self, item_id: str, now: float, *, is_cancelled: bool) -> None:
        """Cut an answer where the audio that was sent ends, when the rest, or all of it, was withheld or never came."""
        entry = self._transcript.get(item_id)
        sent_ms = self._playback.sent_ms(item_id)
        is_sent = sent_ms == self._playback.heard(item_id, now).spoken_ms and (sent_ms > 0 or not is_cancelled)
        is_settled = item_id in self._cuts or entry is None or entry.is_stored
        if not is_sent and not (is_settled and self._playback.is_cut(item_id)):
            self._playback.cut(item_id, sent_ms)
            self._cuts.append(item_id)
            self.cut_at = now + CUT_WAIT_S

    def heard(self, now: float) -> list[Turn]:
        """Return the turns of answers that have been heard to their end by now."""
        self.heard_at = None
        turns: list[Turn] = []
        for item_id in self._transcript.open_answers():
            if item_id not in self._done or item_id in self._cuts:
                continue
            heard = self._playback.heard(item_id, now)
            if heard.is_whole:
                turns += self._close(heard)
            else:
                self.heard_at = self._playback.ends_at(now) + HEARD_SLACK_S
        return turns

    def upstream_lost(self, now: float) -> list[Turn]:
        """Close the answers whose rest will never come; what was sent will be heard."""
        turns: list[Turn] = []
        for item_id in self._transcript.open_answers():
            if item_id not in self._done and item_id not in self._cuts:
                self._done[item_id] = "incomplete"
                sent_ms = self._playback.sent_ms(item_id)
                turns += self._close(Heard(item_id, sent_ms, sent_ms))
        self._discarded.clear()
        self.flowing = ""
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
