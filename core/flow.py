"""What passes unread while an answer flows: its audio, and its words as they are written down.

Nine of ten messages of the voice service are these two; while nothing else happens they only add to a few counters. A
line asks here first and reads as an event what is not taken.
"""

from __future__ import annotations

from core.conversation import Conversation
from core.delta_reader import DeltaReader
from core.realtime import AudioDelta
from core.words_reader import WordsReader

UNHEARD = AudioDelta("", "", 0, 0)
"""Stands for audio that nobody may hear."""


class Flow:
    """The flow of one conversation's answers.

    Args:
        conversation: Whose answers they are.
    """

    __slots__ = ("_answers", "_conversation", "_deltas", "_exchange", "_playback", "_transcript", "_words")

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._exchange = conversation.exchange
        self._answers, self._playback = self._exchange.answers, self._exchange.playback
        self._transcript = self._exchange.transcript
        self._deltas = DeltaReader()
        self._words = WordsReader()

    def audio(self, frame: bytes, now: float) -> AudioDelta | None:
        """Count canonical audio; return its head, `UNHEARD` when it must not be heard, None when it must be read."""
        delta, conversation = self._deltas.read(frame), self._conversation
        if delta is None or conversation.state != "live":
            return None
        conversation.last_upstream = now
        if delta.item_id == self._answers.flowing:  # nothing has happened since the frame before
            self._playback.received(delta.item_id, delta.payload * 3 // 4 - delta.padding, now)
            return delta
        return delta if self._exchange.audio_received(delta, now) else UNHEARD

    def words(self, frame: bytes, now: float) -> bool:
        """Add a piece to an answer's transcript; False when the frame is something else and must be read."""
        words, conversation = self._words.read(frame), self._conversation
        if words is None or conversation.state != "live":
            return False
        entry = self._transcript.get(words.item_id)
        if entry is None or not entry.is_audio or entry.is_final:
            return False
        conversation.last_upstream = now
        entry.text += words.text
        return True
