"""Voice activity by energy: which 20 ms frames are loud, and where speech begins and ends.

The real service runs a neural detector; energy is enough for clear speech, needs no package, and is exactly
predictable in a test: RMS above 600 for 60 ms opens, quiet for `silence_duration_ms` closes.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

FRAME_MS = 20
OPEN_MS = 60
# Loudness of a 16-bit frame that counts as speech at the default `threshold` of 0.5; quiet speech measures 1,500.
RMS_AT_DEFAULT_THRESHOLD = 600.0
DEFAULT_THRESHOLD = 0.5

# `semantic_vad` waits for a finished thought, which energy cannot know, so a fixed pause stands for it. The order of
# the real maximum waits (8, 4, 2 s for low, medium, high) is kept; `auto` (= medium) stays snappy for demonstrations.
EAGERNESS_SILENCE_MS = {"low": 1_500, "medium": 600, "auto": 600, "high": 300}
SEMANTIC_PREFIX_MS = 300


@dataclass(frozen=True)
class VadSettings:
    """What opens and closes a turn."""

    rms_threshold: float
    prefix_padding_ms: int
    silence_ms: int


def vad_settings(turn_detection: Mapping[str, Any]) -> VadSettings:
    """Translate a session's `turn_detection` object; the RMS threshold scales with `threshold`."""
    if turn_detection["type"] == "semantic_vad":
        silence_ms = EAGERNESS_SILENCE_MS[turn_detection["eagerness"]]
        return VadSettings(RMS_AT_DEFAULT_THRESHOLD, SEMANTIC_PREFIX_MS, silence_ms)
    return VadSettings(
        RMS_AT_DEFAULT_THRESHOLD * turn_detection["threshold"] / DEFAULT_THRESHOLD,
        turn_detection["prefix_padding_ms"],
        turn_detection["silence_duration_ms"],
    )


class Change(Enum):
    """What one more frame did."""

    STARTED = "started"
    STOPPED = "stopped"


class SpeechDetector:
    """Follows loudness frame by frame; forgets everything on `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Be in silence, with no frame seen."""
        self.speaking = False
        self._loud_frames = 0
        self._quiet_frames = 0

    def hear(self, loudness: float, settings: VadSettings) -> Change | None:
        """Take the RMS of one 20 ms frame.

        Returns:
            `STARTED` on the frame that completes 60 ms of loudness (speech began two frames earlier), `STOPPED` on the
            frame that completes `silence_ms` of quiet, else None.
        """
        loud = loudness > settings.rms_threshold
        self._loud_frames = self._loud_frames + 1 if loud else 0
        self._quiet_frames = 0 if loud else self._quiet_frames + 1
        if not self.speaking and self._loud_frames * FRAME_MS >= OPEN_MS:
            self.speaking = True
            return Change.STARTED
        if self.speaking and self._quiet_frames and self._quiet_frames * FRAME_MS >= settings.silence_ms:
            self.speaking = False
            return Change.STOPPED
        return None
