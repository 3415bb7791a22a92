"""How long each side of a call was heard, for the bill and the statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.playback import Playback


class Voiced:
    """Counts the voice of both sides.

    The caller's is what the voice activity detection of the API marked as speech, with the lead-in and the closing
    silence it was configured to add. The agent's is what was played to the caller: sent, less what was cut off.

    Args:
        playback: What was sent to the caller.
    """

    __slots__ = ("_caller_ms", "_playback", "_sent_ms", "_started_ms", "_unheard_ms")

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._caller_ms = 0
        self._sent_ms = 0.0
        self._unheard_ms = 0
        self._started_ms: int | None = None

    def speech_started(self, event: Mapping[str, Any]) -> None:
        """Take `input_audio_buffer.speech_started`."""
        self._started_ms = _milliseconds(event, "audio_start_ms")

    def speech_stopped(self, event: Mapping[str, Any]) -> None:
        """Take `input_audio_buffer.speech_stopped`; of a speech whose begin is not known nothing is counted."""
        started_ms, self._started_ms = self._started_ms, None
        ended_ms = _milliseconds(event, "audio_end_ms")
        if started_ms is not None and ended_ms is not None:
            self._caller_ms += max(ended_ms - started_ms, 0)

    def sent(self, milliseconds: float) -> None:
        """Count audio sent to the caller."""
        self._sent_ms += milliseconds

    def flushed(self, item_ids: Iterable[str], now: float) -> None:
        """Take off what was sent of these items and will not be heard."""
        for item_id in item_ids:
            self._unheard_ms += self._playback.sent_ms(item_id) - self._playback.heard(item_id, now).heard_ms

    def as_json(self, now: float) -> dict[str, int]:
        """Return the milliseconds of both sides up to now."""
        waiting_ms = (self._playback.ends_at(now) - now) * 1000
        return {"caller": self._caller_ms, "agent": max(round(self._sent_ms - self._unheard_ms - waiting_ms), 0)}


def _milliseconds(event: Mapping[str, Any], key: str) -> int | None:
    value = event.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
